//! A TPM quote under a key of our own, so that the signature is no wall: parts are PCR values, event log, and the
//! attested structure up to the digest of the PCRs, which is put right here.
#![no_main]

use std::sync::LazyLock;

use inwit_authority::evidence::{Endorsements, authenticate};
use inwit_fuzz::{NOW, joined, parts};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform, TpmQuote};
use inwit_protocol::primitives::{PublicKey, sha256};
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

static KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let stored = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("random numbers");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, stored.as_ref(), &random).expect("a key of ring's own")
});

/// TPMT_PUBLIC of a restricted P-256 signing key, up to its point: attributes 0x00050072.
const PUBLIC: [u8; 20] = [0, 0x23, 0, 0x0b, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
/// TPMT_SIGNATURE up to its numbers: ECDSA with SHA-256.
const SIGNATURE: [u8; 4] = [0, 0x18, 0, 0x0b];

/// Two numbers of 32 bytes, each with its length.
fn numbers(both: &[u8]) -> Vec<u8> {
    both.chunks(32).flat_map(|number| [&[0, 32], number].concat()).collect()
}

fn first() -> [Vec<u8>; 2] {
    let head = b"\xff\x54\x43\x47\x80\x18\0\x02ab\0\x03abc";
    let counters = [0; 8 + 4 + 4];
    let tail = b"\x01\0\0\0\0\0\0\0\x06\0\0\0\x01\0\x0b\x03\xff\xff\xff";
    let attest = [head.as_slice(), &counters, tail].concat();
    // A log with one SHA-256 bank: its header, and one event in PCR 0.
    let spec = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0b\0\x20\0\0";
    let header = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &[spec.len() as u8, 0, 0, 0], spec].concat();
    let event = [b"\0\0\0\0\x04\0\0\0\x01\0\0\0\x0b\0".as_slice(), &sha256(&[0; 4]), b"\x04\0\0\0\0\0\0\0"].concat();
    let mut pcrs = [0; 32 * 24];
    pcrs[..32].copy_from_slice(&sha256(&[[0; 32], sha256(&[0; 4])].concat()));
    [joined(&[&[0; 32 * 24], b"", &attest]), joined(&[&pcrs, &[header, event].concat(), &attest])]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [values, log, attest] = parts(input);
    let mut pcrs = [[0; 32]; 24];
    pcrs.iter_mut().zip(values.as_chunks().0).for_each(|(pcr, value)| *pcr = *value);
    let attest = [attest, &[0, 32], &sha256(pcrs.as_flattened())].concat();
    let point = KEY.public_key().as_ref();
    let signature = KEY.sign(&SystemRandom::new(), &attest).expect("random numbers");
    let quote = TpmQuote {
        attest,
        signature: [SIGNATURE.as_slice(), &numbers(signature.as_ref())].concat(),
        attestation_key: [PUBLIC.as_slice(), &numbers(&point[1..])].concat(),
        pcrs,
    };
    let pin = PublicKey::from_point(point).expect("a point of ring's own").pin();
    let by = Endorsements { vtpm: vec![pin], ..Endorsements::default() };
    let evidence = Evidence {
        platform: Platform::Vtpm,
        quote: quote.encode(),
        endorsements: vec![],
        event_log: log.to_vec(),
        agent_register: AgentRegister::Pcr(15),
    };
    let _ = authenticate(&evidence, &by, NOW);
});
