//! A TDX quote whose header, body and quoting enclave's data are the input's, with an event log: the platform signs them,
//! so that every field is read, claimed and appraised. Parts are that data, the log, header with body. What is acceptable
//! in the end has no debugging.
#![no_main]

use std::sync::LazyLock;

use inwit_authority::evidence::{AppraisalPolicy, Endorsements, Judged, authenticate};
use inwit_fuzz::simulated::{TD, intel, policy};
use inwit_fuzz::{NOW, joined, parts, vector};
use inwit_measurements::eventlog::encode_ccel;
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::Refusal;
use inwit_tests::hardware::intel::QuoteVersion;
use libfuzzer_sys::fuzz_target;

static JUDGED_BY: LazyLock<(Endorsements, AppraisalPolicy)> = LazyLock::new(|| (intel(), policy()));

fn first() -> Vec<Vec<u8>> {
    let of = |version: QuoteVersion| {
        let mut machine = TD.clone();
        machine.version = version;
        let quote = machine.quote(&[0x5a; 64]).expect("a quote");
        joined(&[&[0x42; 32], &[], &quote[..version.signed_len()]])
    };
    let real = |path: &str, length: usize| {
        joined(&[&[0; 32], &encode_ccel(&[]), &vector(path).into_iter().take(length).collect::<Vec<u8>>()])
    };
    vec![
        of(QuoteVersion::V4),
        of(QuoteVersion::V5Td10),
        of(QuoteVersion::V5Td15),
        real("google+go-tdx-guest/quote_v5_sample.dat", QuoteVersion::V5Td15.signed_len()),
        real("google+go-tdx-guest/tdx_prod_quote_SPR_E4.dat", QuoteVersion::V4.signed_len()),
        real("_tdx-assembled/12b401a88a51-REJECT-Debug-mode-is-enabled/quote.bin", QuoteVersion::V4.signed_len()),
    ]
}

fn judge(input: &[u8]) -> Result<Judged, Refusal> {
    let [data, log, signed] = parts(input);
    let evidence = Evidence {
        platform: Platform::Tdx,
        quote: TD.sign(signed.to_vec(), data).expect("a signature"),
        endorsements: vec![],
        event_log: log.to_vec(),
        agent_register: AgentRegister::Rtmr(3),
    };
    let (by, policy) = &*JUDGED_BY;
    authenticate(&evidence, by, NOW)?.judge(policy)
}

fuzz_target!(init: inwit_fuzz::begin_inside(first(), |input| judge(input).is_ok()), |input: &[u8]| {
    let [_, _, signed] = parts(input);
    if signed.len() > QuoteVersion::V5Td15.signed_len() {
        return;
    }
    if judge(input).is_ok() {
        // Byte 0 of TDATTRIBUTES holds DEBUG and what else makes a TD untrusted (TDX module ABI 348551).
        let body = if signed.first() == Some(&4) { 48 } else { 54 };
        assert_eq!(signed[body + 120], 0, "a debuggable TD");
    }
});
