//! TCB info and QE identity of which every byte is the input's: the simulated Intel signs them, so that they are judged
//! and not only parsed, with a genuine quote. Parts are QE identity, TCB info.
#![no_main]

use std::sync::LazyLock;

use inwit_authority::evidence::{AppraisalPolicy, Endorsements, Judged, TdxPart, TdxRoot, authenticate};
use inwit_fuzz::simulated::{TD, policy};
use inwit_fuzz::{NOW, joined, parts, vector};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use libfuzzer_sys::fuzz_target;

static QUOTE: LazyLock<Vec<u8>> = LazyLock::new(|| TD.quote(&[0x5a; 64]).expect("a quote"));
static POLICY: LazyLock<AppraisalPolicy> = LazyLock::new(policy);

fn first() -> Vec<Vec<u8>> {
    let simulated = TD.collateral().expect("collateral");
    let real = |folder: &str| {
        let json = vector(&format!("_tdx-assembled/{folder}/collateral.json"));
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
        let text = |name: &str| json.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        joined(&[text("qe_identity").as_bytes(), text("tcb_info").as_bytes()])
    };
    vec![
        joined(&[simulated.qe_identity.as_bytes(), simulated.tcb_info.as_bytes()]),
        real("0c699dd4533f-UpToDate"),
        real("b789d779386f-OutOfDate"),
    ]
}

fn judge(input: &[u8]) -> Option<Judged> {
    let [identity, info] = parts(input).map(std::str::from_utf8);
    let (identity, info) = (identity.ok()?, info.ok()?);
    let collateral = TD.collateral_that_says(info.to_owned(), identity.to_owned()).expect("signatures");
    let collateral = serde_json::to_vec(&collateral).expect("text");
    let root = TdxRoot::new(TD.root.root_der(), &[TdxPart::Collateral(&collateral)]).ok()?;
    let by = Endorsements { tdx: vec![root], ..Endorsements::default() };
    let evidence = Evidence {
        platform: Platform::Tdx,
        quote: QUOTE.clone(),
        endorsements: vec![],
        event_log: vec![],
        agent_register: AgentRegister::Rtmr(3),
    };
    authenticate(&evidence, &by, NOW).ok()?.judge(&POLICY).ok()
}

fuzz_target!(init: inwit_fuzz::begin_inside(first(), |input| judge(input).is_some()), |input: &[u8]| {
    let _ = judge(input);
});
