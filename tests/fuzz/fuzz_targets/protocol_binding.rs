//! A binding from a guest. Only one with a proof of possession parses, and nobody else's key makes one by chance.
#![no_main]

use inwit_protocol::binding::{Agent, Binding, EncodedBinding, Purpose};
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::seal;
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;

fn first() -> Option<Vec<u8>> {
    let random = SystemRandom::new();
    let key = SigningKey::generate(&random).ok()?;
    let binding = Binding {
        purpose: Purpose::CertifyKey,
        nonce: [1; 32],
        credential_key: key.public().clone(),
        encapsulation_key: Some(seal::generate().1),
        agent: Agent { name: "a".into(), version: "1".into(), executable: [2; 32], configuration: [3; 32] },
    };
    Some(binding.make(&key, &random).ok()?.bytes().to_vec())
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let _ = Binding::parse(&EncodedBinding::received(input.to_vec()));
});
