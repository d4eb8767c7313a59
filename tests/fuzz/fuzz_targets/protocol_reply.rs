//! The authority's answer, as a host in between would forge it: refusal, grant and what a grant holds, the last under a
//! key of our own so that the signature is no wall.
#![no_main]

use std::sync::LazyLock;

use inwit_protocol::binding::EncodedBinding;
use inwit_protocol::message::{Grant, Reply, SealedSecret};
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::seal::Sealed;
use inwit_protocol::signed::Statement;
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(&SystemRandom::new()).expect("random numbers"));

fn first() -> Vec<Vec<u8>> {
    let sealed = Sealed { encapsulated: vec![1; 30], ciphertext: vec![2; 30] };
    let secrets = vec![SealedSecret { name: "disk".into(), sealed }];
    let grant = Grant { binding: [3; 32], chain: vec![vec![4; 9]], anchors: vec![vec![5; 9]], secrets, now: 6 };
    let refusal = Reply::Refused(Refusal::new(RefusalCode::BindingMismatch, "first"));
    let granted = Reply::grant(&grant, &KEY, &SystemRandom::new()).expect("random numbers");
    vec![refusal.encode(), granted.encode(), grant.encode()]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(reply) = Reply::parse(input) {
        match &reply {
            Reply::Granted(_) => assert_eq!(reply.encode(), input),
            // An unknown code is kept as another one, so the bytes may differ; what they then say may not.
            Reply::Refused(refusal) => {
                assert!(matches!(Reply::parse(&reply.encode()), Ok(Reply::Refused(same)) if same == *refusal));
            }
        }
        assert!(reply.accept(&[KEY.public().clone()], &EncodedBinding::received(vec![])).is_err());
    }
    if let Ok(grant) = Grant::parse(input) {
        assert_eq!(grant.encode(), input);
    }
});
