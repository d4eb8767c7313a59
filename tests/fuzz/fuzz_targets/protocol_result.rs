//! An Attestation Result on its way between roles: the COSE_Sign1 as bytes, and the claims set in it, which is parsed after
//! the signature and so is fuzzed under a key of our own.
#![no_main]

use std::sync::LazyLock;

use inwit_protocol::cbor;
use inwit_protocol::ear::{Executables, Hardware, TrustworthinessVector};
use inwit_protocol::evidence::Platform;
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::result::AttestationResult;
use inwit_protocol::signed::{Signed, Statement};
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(&SystemRandom::new()).expect("random numbers"));

fn first() -> Vec<Vec<u8>> {
    let result = AttestationResult {
        workload: "w".into(),
        identifier: WorkloadIdentifier::parse("spiffe://demo.example/w").expect("an identifier"),
        platform: Platform::Tdx,
        reference_values: "w/1".into(),
        trustworthiness: TrustworthinessVector {
            executables: Executables::ApprovedAtBoot,
            hardware: Hardware::RevocationUnknown,
            ..TrustworthinessVector::NOTHING
        },
        credential_key: KEY.public().clone(),
        encapsulation_key: None,
        nonce: [1; 32],
        binding: [2; 32],
        evidence: [3; 32],
        policy: [4; 32],
        appraisal_policy: [5; 32],
        verifier_build: "v".into(),
        audience: "a".into(),
        issued_at: 6,
        expires_at: 7,
    };
    let signed = Signed::sign(&result, &KEY, &SystemRandom::new()).expect("random numbers");
    vec![result.encode(), signed.encode()]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(result) = AttestationResult::parse(input) {
        assert_eq!(result.encode(), input, "one claims set, one encoding");
        let another = [result.audience.as_str(), "!"].concat();
        assert!(result.usable(&another, 6).is_err());
    }
    if let Ok(signed) = Signed::<AttestationResult>::parse(input) {
        assert_eq!(signed.encode(), input, "one token, one encoding");
        // Whatever verifies holds a payload that we made ourselves, in `first`.
        let _ = signed.verify(&[KEY.public().clone()]);
    }
    if let Ok(value) = cbor::decode_claims(input, "claims") {
        assert_eq!(cbor::encode(&value), input);
    }
});
