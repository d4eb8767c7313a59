//! The signed Attestation Result from outside: what another reader of COSE and CWT finds in it, and that nothing but the
//! one encoding of the one form is taken for it. `coset` is the independent reader; nothing of the product uses it.

use ciborium::Value;
use coset::{AsCborValue, CborSerializable, CoseSign1, TaggedCborSerializable, iana};
use inwit_protocol::ear::{
    Configuration, Executables, Hardware, InstanceIdentity, PROFILE, RuntimeOpaque, Tier, TrustworthinessVector,
};
use inwit_protocol::evidence::Platform;
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::refusal::RefusalCode;
use inwit_protocol::result::AttestationResult;
use inwit_protocol::seal;
use inwit_protocol::signed::{Signed, Statement, StatementError};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use std::io::Write;

#[path = "attestation_result/spoiled.rs"]
mod spoiled;

/// Past the test runner, which hides what passing tests print.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn key() -> SigningKey {
    SigningKey::generate(&SystemRandom::new()).unwrap()
}

fn vector() -> TrustworthinessVector {
    TrustworthinessVector {
        configuration: Configuration::Approved,
        executables: Executables::ApprovedAtBoot,
        hardware: Hardware::Genuine,
        runtime_opaque: RuntimeOpaque::Encrypted,
        ..TrustworthinessVector::NOTHING
    }
}

fn result() -> AttestationResult {
    AttestationResult {
        workload: "payments".into(),
        identifier: WorkloadIdentifier::parse("spiffe://demo.example/payments").unwrap(),
        platform: Platform::Snp,
        reference_values: "release 7".into(),
        trustworthiness: vector(),
        credential_key: key().public().clone(),
        encapsulation_key: Some(seal::generate().1),
        nonce: [1; 32],
        binding: [2; 32],
        evidence: [3; 32],
        policy: [4; 32],
        appraisal_policy: [0xa5; 32],
        verifier_build: "inwit-authority 0.1.0".into(),
        audience: "spiffe://demo.example".into(),
        issued_at: 1_780_000_000,
        expires_at: 1_780_000_300,
    }
}

fn sign(result: &AttestationResult, by: &SigningKey) -> Vec<u8> {
    Signed::sign(result, by, &SystemRandom::new()).unwrap().encode()
}

fn verify(bytes: &[u8], by: &SigningKey) -> Result<AttestationResult, String> {
    let signed = Signed::<AttestationResult>::parse(bytes).map_err(|error| error.to_string())?;
    let keys = [key().public().clone(), by.public().clone()];
    signed.verify(&keys).map(|verified| verified.clone()).map_err(|error| format!("{error:?}"))
}

/// Looks up a claim by its path of keys.
fn claim<'v>(mut value: &'v Value, path: &[Value]) -> &'v Value {
    for key in path {
        let entries = value.as_map().unwrap();
        value = &entries.iter().find(|(at, _)| at == key).unwrap_or_else(|| panic!("{key:?}")).1;
    }
    value
}

#[test]
fn it_round_trips_with_and_without_an_encapsulation_key() {
    let by = key();
    let with = result();
    assert_eq!(verify(&sign(&with, &by), &by).unwrap(), with);
    let without = AttestationResult { encapsulation_key: None, platform: Platform::Vtpm, ..with };
    assert_eq!(verify(&sign(&without, &by), &by).unwrap(), without);
    let worse = TrustworthinessVector { hardware: Hardware::RevocationUnknown, ..vector() };
    let warned = AttestationResult { trustworthiness: worse, ..without };
    assert_eq!(verify(&sign(&warned, &by), &by).unwrap().trustworthiness.status(), Tier::Warning);
    // Inside of a message it is one byte string.
    let signed = Signed::sign(&warned, &by, &SystemRandom::new()).unwrap();
    assert_eq!(signed.to_value(), Value::Bytes(signed.encode()));
    let back = Signed::<AttestationResult>::from_value(signed.to_value()).unwrap();
    assert_eq!(*back.verify(&[by.public().clone()]).unwrap(), warned);
}

#[test]
fn an_independent_reader_verifies_it_and_finds_an_ear() {
    let (by, result) = (key(), result());
    let cose = CoseSign1::from_tagged_slice(&sign(&result, &by)).unwrap();
    assert_eq!(cose.protected.header.alg, Some(coset::Algorithm::Assigned(iana::Algorithm::ES256)));
    assert_eq!(cose.protected.header.key_id, by.public().pin());
    let typ = (coset::Label::Int(16), Value::Text("application/eat+cwt".into()));
    assert_eq!(cose.protected.header.rest, [typ]);
    assert!(cose.unprotected.is_empty());
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, by.public().point());
    cose.verify_signature(b"", |signature, message| verifier.verify(message, signature)).unwrap();
    assert!(cose.verify_signature(b"x", |signature, message| verifier.verify(message, signature)).is_err());

    let claims: Value = ciborium::from_reader(&cose.payload.unwrap()[..]).unwrap();
    let at = |path: &[i64]| claim(&claims, &path.iter().map(|key| Value::from(*key)).collect::<Vec<_>>()).clone();
    assert_eq!(at(&[265]), Value::Text(PROFILE.into()));
    assert_eq!((at(&[6]), at(&[4])), (Value::from(1_780_000_000), Value::from(1_780_000_300)));
    assert_eq!(at(&[10]), Value::Bytes(vec![1; 32]));
    assert_eq!(at(&[1_004, 0]), Value::Text("inwit".into()));
    assert_eq!(at(&[1_004, 1]), Value::Text("inwit-authority 0.1.0".into()));
    let submods = at(&[266]);
    let inside = |path: &[i64]| {
        let path: Vec<Value> =
            [Value::Text("snp".into())].into_iter().chain(path.iter().map(|key| Value::from(*key))).collect();
        claim(&submods, &path).clone()
    };
    assert_eq!(inside(&[1_000]), Value::from(2));
    let found: Vec<Value> = (0..8).map(|number| inside(&[1_001, number])).collect();
    assert_eq!(found, [0, 2, 3, 0, 2, 2, 0, 0].map(Value::from));
    let ids = [
        format!("inwit:policy:sha256:{}", "a5".repeat(32)),
        format!("inwit:workload:sha256:{}", "04".repeat(32)),
        "inwit:reference-values:release 7".to_owned(),
    ];
    assert_eq!(inside(&[1_003]), Value::Array(ids.map(Value::Text).into()));
    // The bound key, as RFC 8747 has it.
    let key = coset::CoseKey::from_cbor_value(inside(&[8, 1])).unwrap();
    assert_eq!(key.kty, coset::KeyType::Assigned(iana::KeyType::EC2));
    let (x, y) = (inside(&[8, 1, -2]), inside(&[8, 1, -3]));
    let point = [&[4], x.as_bytes().unwrap().as_slice(), y.as_bytes().unwrap().as_slice()].concat();
    assert_eq!(point, result.credential_key.point());
}

#[test]
fn only_the_one_cose_form_of_the_right_key_is_verified() {
    let (by, other, payload) = (key(), key(), result().encode());
    let header = |alg: iana::Algorithm, kid: [u8; 32], typ: &str| {
        coset::HeaderBuilder::new().algorithm(alg).key_id(kid.into()).value(16, Value::Text(typ.into())).build()
    };
    let good = || header(iana::Algorithm::ES256, by.public().pin(), "application/eat+cwt");
    let build = |protected: coset::Header, unprotected: coset::Header, aad: &[u8]| {
        coset::CoseSign1Builder::new()
            .protected(protected)
            .unprotected(unprotected)
            .payload(payload.clone())
            .create_signature(aad, |message| by.sign_fixed(message, &SystemRandom::new()).unwrap().to_vec())
            .build()
    };
    let none = coset::Header::default;
    // The independent writer's token is ours.
    verify(&build(good(), none(), b"").to_tagged_vec().unwrap(), &by).unwrap();
    let pin = by.public().pin();
    let headers = [
        header(iana::Algorithm::ES384, pin, "application/eat+cwt"),
        header(iana::Algorithm::EdDSA, pin, "application/eat+cwt"),
        header(iana::Algorithm::ES256, other.public().pin(), "application/eat+cwt"),
        header(iana::Algorithm::ES256, pin, "application/cwt"),
        coset::HeaderBuilder::new().algorithm(iana::Algorithm::ES256).key_id(pin.into()).build(),
        coset::HeaderBuilder::new().algorithm(iana::Algorithm::ES256).build(),
        none(),
    ];
    for header in headers {
        let token = build(header.clone(), none(), b"").to_tagged_vec().unwrap();
        let signed = Signed::<AttestationResult>::parse(&token).unwrap();
        assert_eq!(signed.verify(&[by.public().clone()]).unwrap_err(), StatementError::Header, "{header:?}");
    }
    let more = coset::HeaderBuilder::new().content_type("application/cbor".into()).build();
    for (token, what) in [
        (build(good(), more, b"").to_tagged_vec().unwrap(), "an unprotected header"),
        (build(good(), none(), b"").to_vec().unwrap(), "no tag"),
        (build(good(), none(), b"other").to_tagged_vec().unwrap(), "other external data"),
        (CoseSign1 { payload: None, ..build(good(), none(), b"") }.to_tagged_vec().unwrap(), "a detached payload"),
    ] {
        assert!(verify(&token, &by).is_err(), "{what}");
    }
    let der = by.sign(b"", &SystemRandom::new()).unwrap();
    let token = CoseSign1 { signature: der, ..build(good(), none(), b"") }.to_tagged_vec().unwrap();
    assert!(Signed::<AttestationResult>::parse(&token).is_err(), "a signature in DER");
    let signed = Signed::<AttestationResult>::parse(&sign(&result(), &by)).unwrap();
    assert_eq!(signed.verify(&[other.public().clone()]).unwrap_err(), StatementError::Header);
}

#[test]
fn no_flipped_bit_and_no_other_length_of_a_token_is_verified() {
    let (by, mut result) = (key(), result());
    result.encapsulation_key = None;
    let token = sign(&result, &by);
    for position in 0..token.len() {
        for bit in 0..8 {
            let mut flipped = token.clone();
            flipped[position] ^= 1 << bit;
            assert!(verify(&flipped, &by).is_err(), "bit {bit} of byte {position}");
        }
        assert!(verify(&token[..position], &by).is_err(), "cut to {position}");
    }
    assert!(verify(&[&token[..], &[0]].concat(), &by).is_err());
    say(&format!("{} flipped bits of a {}-byte token refused", token.len() * 8, token.len()));
}

#[test]
fn a_result_is_usable_by_its_audience_in_its_time_and_if_it_speaks_for_the_guest() {
    let result = result();
    let code =
        |result: &AttestationResult, audience: &str, now| result.usable(audience, now).map_err(|error| error.code);
    let (audience, from, to) = (result.audience.clone(), result.issued_at, result.expires_at);
    assert_eq!(code(&result, &audience, from), Ok(()));
    assert_eq!(code(&result, &audience, to - 1), Ok(()));
    assert_eq!(code(&result, &audience, to), Err(RefusalCode::ResultUnusable));
    assert_eq!(code(&result, &audience, from - 1), Err(RefusalCode::ResultUnusable));
    assert_eq!(code(&result, "spiffe://other.example", from), Err(RefusalCode::ResultUnusable));
    let nothing = AttestationResult { trustworthiness: TrustworthinessVector::NOTHING, ..result.clone() };
    assert_eq!(code(&nothing, &audience, from), Err(RefusalCode::PolicyForbids));
    let visible = TrustworthinessVector { runtime_opaque: RuntimeOpaque::Visible, ..vector() };
    let contraindicated = AttestationResult { trustworthiness: visible, ..result.clone() };
    assert_eq!(code(&contraindicated, &audience, from), Err(RefusalCode::PolicyForbids));
    let warned = TrustworthinessVector {
        instance_identity: InstanceIdentity::Recognised,
        runtime_opaque: RuntimeOpaque::Isolated,
        ..vector()
    };
    assert_eq!(code(&AttestationResult { trustworthiness: warned, ..result }, &audience, from), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = AttestationResult::parse(&bytes);
        let _ = Signed::<AttestationResult>::parse(&bytes);
        let _ = Signed::<AttestationResult>::parse(&[&[0xd2, 0x84], &bytes[..]].concat());
    }

    #[test]
    fn what_parses_is_what_we_would_have_encoded(position in 0usize..600, byte in any::<u8>()) {
        let mut payload = result().encode();
        if let Some(at) = payload.get_mut(position) {
            *at = byte;
        }
        if let Ok(parsed) = AttestationResult::parse(&payload) {
            prop_assert_eq!(parsed.encode(), payload);
        }
    }
}
