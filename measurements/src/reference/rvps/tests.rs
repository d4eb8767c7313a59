//! RVPS documents that are read back, and those that are refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::digest::{sha256, sha384};
use crate::reference::sample::samples;

fn payload_of(written: &str) -> Value {
    let message: Value = serde_json::from_str(written).unwrap();
    assert_eq!((&message["version"], &message["type"]), (&json!("0.1.0"), &json!("sample")));
    serde_json::from_slice(&BASE64.decode(message["payload"].as_str().unwrap().as_bytes()).unwrap()).unwrap()
}

/// The names that Trustee's default policy asks for, by platform.
#[test]
fn names_are_those_that_the_default_policy_looks_up() {
    let [snp, tdx, vtpm, azure_snp, azure_tdx] = samples().map(|values| payload_of(&write(&[values.into()]).unwrap()));
    let ours = ["inwit_agent_configuration", "inwit_agent_executable", "inwit_name"];
    for (payload, names) in [
        (&snp, &["snp_launch_measurement"][..]),
        (&tdx, &["mr_td", "rtmr_0", "rtmr_1", "rtmr_2"]),
        (&vtpm, &["tpm_pcr04", "tpm_pcr15"]),
        (&azure_snp, &["measurement", "snp_pcr04", "snp_pcr15"]),
        (&azure_tdx, &["mr_td", "tdx_pcr04", "tdx_pcr15"]),
    ] {
        let all: BTreeSet<_> = payload.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(all, ours.iter().chain(names).copied().collect());
    }
    assert_eq!(snp["snp_launch_measurement"], json!([sha384(b"launch").to_string()]), "a list: the policy says `in`");
}

#[test]
fn sets_of_several_shapes_share_one_document() {
    let snp = |text: &str| {
        let measured = Measured::Snp { launch_digest: sha384(text.as_bytes()) };
        Stated { measured, ..samples()[0].clone().into() }
    };
    let both = write(&[snp("one"), snp("two"), snp("one")]).unwrap();
    let mut expected = [sha384(b"one").to_string(), sha384(b"two").to_string()];
    expected.sort();
    assert_eq!(payload_of(&both)["snp_launch_measurement"], json!(expected));
    let error = read(&both).unwrap_err().to_string();
    assert!(error.contains("snp_launch_measurement: it has 2 values"), "{error}");
    assert!(write(&[snp("one"), samples()[1].clone().into()]).unwrap_err().to_string().contains("different platforms"));
    assert!(write(&[]).unwrap_err().to_string().contains("no values"));
}

/// A verifier that takes any value of each list would accept what no set says.
#[test]
fn sets_that_could_be_mixed_are_refused() {
    let td = |rtmr1: &[u8], rtmr2: &[u8]| {
        let (mrtd, rtmr0) = (sha384(b"mrtd"), sha384(b"rtmr0"));
        let measured = Measured::Tdx { mrtd, rtmr0, rtmr1: sha384(rtmr1), rtmr2: sha384(rtmr2) };
        Stated { measured, ..samples()[1].clone().into() }
    };
    let one = payload_of(&write(&[td(b"old", b"same"), td(b"new", b"same")]).unwrap());
    assert_eq!(one["rtmr_1"].as_array().map(Vec::len), Some(2), "{one}");
    let error = write(&[td(b"old", b"old"), td(b"new", b"new")]).unwrap_err().to_string();
    assert!(error.contains("rtmr_1, rtmr_2") && error.contains("mixture"), "{error}");

    let snp: Stated = samples()[0].clone().into();
    let agent = AgentReference { executable: sha256(b"other"), configuration: sha256(b"other") };
    for agent in [Some(agent), None] {
        let error = write(&[snp.clone(), Stated { agent, ..snp.clone() }]).unwrap_err().to_string();
        assert!(error.contains("different agents"), "{error}");
    }
    let vtpm = |pcrs: &[u8]| {
        let pcrs = pcrs.iter().map(|number| (*number, sha256(b"x"))).collect();
        Stated { measured: Measured::Vtpm { pcrs }, ..samples()[2].clone().into() }
    };
    let error = write(&[vtpm(&[4]), vtpm(&[4, 7])]).unwrap_err().to_string();
    assert!(error.contains("the same PCRs"), "{error}");
}

#[test]
fn names_cannot_steer_a_terminal() {
    let launch = sha384(b"launch").to_string();
    let named = json!({"snp_launch_measurement": [launch], "inwit_name": ["a\u{1b}[2Jb"]}).to_string();
    assert!(matches!(read(&named), Err(ReferenceError::Name)));
    let stated = Stated { name: Some("a\u{1b}[2Jb".to_owned()), ..samples()[0].clone().into() };
    assert!(matches!(write(&[stated]), Err(ReferenceError::Name)));
    let end = "2027-01-01T00:00:00Z";
    let entry =
        |version: &str, end: &str| json!({"version": version, "name": "\u{1b}[2J", "expiration": end, "value": []});
    for list in
        [json!([entry("9", end)]), json!([entry("0.1.0", "soon")]), json!([entry("0.1.0", end), entry("0.1.0", end)])]
    {
        let error = read(&list.to_string()).unwrap_err().to_string();
        assert!(error.contains("u{1b}") && !error.contains('\u{1b}'), "{error:?}");
    }
}

#[test]
fn the_payload_alone_and_the_stored_list_are_read() {
    let launch = sha384(b"launch");
    let bare = json!({"snp_launch_measurement": [launch.to_string()]}).to_string();
    assert_eq!(Stated::read(bare.as_bytes()).unwrap().measured, Measured::Snp { launch_digest: launch });
    let entry = |name: &str, value: String, end: &str| json!({"name": name, "expiration": end, "value": [value]});
    let list = json!([
        entry("measurement", launch.to_string(), "2028-01-01T00:00:00Z"),
        entry("snp_pcr11", sha256(b"uki").to_string(), "2027-01-01T00:00:00Z"),
    ]);
    let stated = Stated::read(list.to_string().as_bytes()).unwrap();
    let pcrs = BTreeMap::from([(11, sha256(b"uki"))]);
    assert_eq!(stated.measured, Measured::AzureSnp { launch_digest: launch, pcrs });
    assert_eq!(stated.validity.to_string(), "until 2027-01-01T00:00:00Z", "the earliest of all");
}

#[test]
fn each_fault_is_named_with_its_field() {
    let (launch, other) = (sha384(b"launch").to_string(), sha256(b"other").to_string());
    let message = |version: &str, kind: &str, payload: &str| {
        json!({"version": version, "type": kind, "payload": payload}).to_string()
    };
    let encode = |payload: &Value| BASE64.encode(payload.to_string().as_bytes());
    let entry = json!({"name": "snp_launch_measurement", "expiration": "2027-01-01T00:00:00Z", "value": [launch]});
    let with = |key: &str, value: Value| {
        let mut entry = entry.clone();
        entry[key] = value;
        json!([entry]).to_string()
    };
    for (text, field, problem) in [
        (message("0.2.0", "sample", ""), "version", "0.1.0"),
        (message("0.1.0", "swid", ""), "type", "swid"),
        (message("0.1.0", "sample", "?"), "payload", "invalid"),
        (message("0.1.0", "sample", &encode(&json!(["a"]))), "payload", "a map from names"),
        (json!({"payload": "", "type": "sample", "more": 1}).to_string(), "the message", "more"),
        (json!({"snp_launch_measurement": launch}).to_string(), "the payload", "sequence"),
        (json!({"snp_launch_measurement": []}).to_string(), "snp_launch_measurement", "no value"),
        (json!({"snp_launch_measurement": [launch, launch]}).to_string(), "snp_launch_measurement", "2 values"),
        (json!({"snp_launch_measurement": [other]}).to_string(), "snp_launch_measurement", "48 bytes"),
        (json!({"snp_launch_measurement": [launch.to_uppercase()]}).to_string(), "snp_launch_measurement", "lower"),
        (json!({"snp_launch_measurement": [launch], "snp_microcode": ["1"]}).to_string(), "snp_microcode", "policy"),
        (json!({"tpm_pcr24": [other], "tpm_pcr04": [other]}).to_string(), "tpm_pcr24", "no measurement"),
        (json!({"tpm_pcr4": [other], "tpm_pcr04": [other]}).to_string(), "tpm_pcr4", "no measurement"),
        (json!({"snp_launch_measurement": [launch], "mr_td": [launch]}).to_string(), "the names", "single platform"),
        (json!({"measurement": [launch]}).to_string(), "the names", "single platform"),
        (json!({"mr_td": [launch], "rtmr_0": [launch], "rtmr_1": [launch]}).to_string(), "rtmr_2", "missing"),
        (json!({"mr_td": [launch], "tdx_pcr04": [other], "rtmr_1": [launch]}).to_string(), "the names", "platform"),
        (json!({"tpm_pcr04": [other], "inwit_agent_executable": [other]}).to_string(), "configuration", "missing"),
        (json!({"tpm_pcr04": [other], "inwit_agent_configuration": [other]}).to_string(), "executable", "missing"),
        (format!("{{\"tpm_pcr04\": [\"{other}\"], \"tpm_pcr04\": []}}"), "", "given twice"),
        (json!([entry, entry]).to_string(), "snp_launch_measurement", "given twice"),
        (with("version", json!("9")), "snp_launch_measurement.version", "0.1.0"),
        (with("expiration", json!("soon")), "snp_launch_measurement.expiration", "RFC 3339"),
        (with("hash-value", json!([])), "the list", "hash-value"),
        (json!([{"name": "mr_td"}]).to_string(), "the list", "expiration"),
        (json!([]).to_string(), "the names", "single platform"),
    ] {
        let error = Stated::read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains(problem), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_documents_never_panic(names in proptest::collection::btree_map("[a-z_]{1,12}|mr_td|tpm_pcr0[0-9]",
        proptest::collection::vec("[0-9a-f]{0,96}", 0..3), 0..6)) {
        let payload = serde_json::to_string(&names).unwrap();
        let _ = read(&payload);
        let _ = Stated::read(payload.as_bytes());
    }
}
