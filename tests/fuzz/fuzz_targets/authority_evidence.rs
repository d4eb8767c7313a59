//! Evidence as it arrives, judged by an authority that trusts nothing: never authentic, whatever it is.
#![no_main]

use inwit_authority::evidence::{Endorsements, authenticate};
use inwit_fuzz::{NOW, vector};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use libfuzzer_sys::fuzz_target;

fn first() -> Vec<Vec<u8>> {
    let evidence = |platform, quote: &str| {
        let agent_register = AgentRegister::Absent;
        Evidence { platform, quote: vector(quote), endorsements: vec![], event_log: vec![], agent_register }.encode()
    };
    vec![
        evidence(Platform::Snp, "virtee+sev/snp/v2-milan/report.bin"),
        evidence(Platform::Snp, "microsoft+TEE-Attestation-Verification/snp/v5-turin-aci/report.bin"),
        evidence(Platform::Tdx, "google+go-tdx-guest/quote_v5_sample.dat"),
        evidence(Platform::Tdx, "google+go-tdx-guest/tdx_prod_quote_SPR_E4.dat"),
    ]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(evidence) = Evidence::parse(input) {
        assert!(authenticate(&evidence, &Endorsements::default(), NOW).is_err());
    }
});
