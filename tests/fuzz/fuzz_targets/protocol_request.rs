//! The first message of a guest: what parses must be what we would have sent.
#![no_main]

use inwit_protocol::binding::EncodedBinding;
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::message::AcquireRequest;
use libfuzzer_sys::fuzz_target;

fn first() -> Option<Vec<u8>> {
    let evidence = Evidence {
        platform: Platform::Tdx,
        quote: vec![1; 20],
        endorsements: vec![],
        event_log: vec![2; 20],
        agent_register: AgentRegister::Rtmr(3),
    };
    let identifier = WorkloadIdentifier::parse("spiffe://demo.example/hello").ok()?;
    Some(AcquireRequest { binding: EncodedBinding::received(vec![3; 20]), evidence, identifier }.encode())
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(request) = AcquireRequest::parse(input) {
        assert_eq!(request.encode(), input);
    }
});
