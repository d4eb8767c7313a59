//! What the simulated Intel signs about platforms: TCB info and QE identity. Writes what it is told.

use serde_json::{Value, json};

use super::{FMSPC, Platform, hex};

const DATE: &str = "2026-01-01T00:00:00Z";

pub fn tcb_info(platform: &Platform) -> String {
    let components = |svns: &[u8]| -> Value { svns.iter().map(|svn| json!({ "svn": svn })).collect() };
    let level = |(sgx, pce, tdx, status): &(u8, u16, [u8; 16], &str)| {
        let tcb =
            json!({ "sgxtcbcomponents": components(&[*sgx; 16]), "pcesvn": pce, "tdxtcbcomponents": components(tdx) });
        json!({ "tcb": tcb, "tcbDate": DATE, "tcbStatus": status, "advisoryIDs": platform.advisories })
    };
    let one = [(5, 11, [0; 16], platform.status)];
    let levels = if platform.levels.is_empty() { &one[..] } else { &platform.levels };
    let levels: Vec<Value> = levels.iter().map(level).collect();
    let rule = json!({
        "mrsigner": hex(&[0; 48]),
        "attributes": hex(&platform.module_attributes.to_le_bytes()),
        "attributesMask": hex(&[0xff; 8]),
    });
    let identity = |(version, levels): &(u8, Vec<(u8, &str)>)| {
        let mut identity = rule.clone();
        identity["id"] = format!("TDX_{version:02X}").into();
        let level = |(isvsvn, status): &(u8, &str)| json!({ "tcb": { "isvsvn": isvsvn }, "tcbDate": DATE, "tcbStatus": status });
        identity["tcbLevels"] = levels.iter().map(level).collect();
        identity
    };
    let modules: Vec<Value> = platform.modules.iter().map(identity).collect();
    json!({
        "id": "TDX", "version": 3, "issueDate": platform.current[0], "nextUpdate": platform.current[1],
        "fmspc": hex(&FMSPC), "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": platform.evaluation,
        "tdxModule": rule, "tdxModuleIdentities": modules, "tcbLevels": levels,
    })
    .to_string()
}

pub fn qe_identity(platform: &Platform) -> String {
    let mut mask = [0xff; 16];
    mask[0] = platform.qe_mask;
    json!({
        "id": "TD_QE", "version": 2, "issueDate": platform.qe_current[0], "nextUpdate": platform.qe_current[1],
        "tcbEvaluationDataNumber": 20, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": hex(&[0; 16]), "attributesMask": hex(&mask), "mrsigner": hex(&[0xaa; 32]), "isvprodid": 2,
        "tcbLevels": [{ "tcb": { "isvsvn": 4 }, "tcbDate": DATE, "tcbStatus": platform.qe_status }],
    })
    .to_string()
}
