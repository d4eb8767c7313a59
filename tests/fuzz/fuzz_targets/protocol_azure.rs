//! What Azure's Evidence travels as: what parses must be what we would have sent.
#![no_main]

use inwit_fuzz::vector;
use inwit_protocol::azure::{AzureQuote, TpmAttestation};
use libfuzzer_sys::fuzz_target;

fn first() -> [Vec<u8>; 2] {
    let hcl_report = vector("confidential-containers+trustee/az-snp-vtpm/hcl-report.bin");
    let tpm = TpmAttestation { attest: vec![1; 9], signature: vec![2; 256], pcrs: [[3; 32]; 24] };
    let whole = AzureQuote { hcl_report, tpm: Some(tpm), td_quote: Some(vec![4; 9]) };
    [whole.encode(), AzureQuote { hcl_report: vec![5; 9], tpm: None, td_quote: None }.encode()]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(quote) = AzureQuote::parse(input) {
        assert_eq!(quote.encode(), input);
    }
});
