//! Evidence and the TPM quote that it may hold: what parses must be what we would have sent.
#![no_main]

use inwit_protocol::evidence::{AgentRegister, Evidence, Platform, TpmQuote};
use libfuzzer_sys::fuzz_target;

fn first() -> [Vec<u8>; 2] {
    let quote =
        TpmQuote { attest: vec![1; 9], signature: vec![2; 9], attestation_key: vec![3; 9], pcrs: [[4; 32]; 24] };
    let evidence = Evidence {
        platform: Platform::Vtpm,
        quote: quote.encode(),
        endorsements: vec![],
        event_log: vec![5; 9],
        agent_register: AgentRegister::Pcr(15),
    };
    [quote.encode(), evidence.encode()]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(evidence) = Evidence::parse(input) {
        assert_eq!(evidence.encode(), input);
    }
    if let Ok(quote) = TpmQuote::parse(input) {
        assert_eq!(quote.encode(), input);
    }
});
