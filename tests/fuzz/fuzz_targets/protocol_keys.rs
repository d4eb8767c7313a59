//! Small things that cross the wire or lie on a disk: keys, identities, frame lengths, the label of a disk, its secret.
#![no_main]

use inwit_protocol::disk::{DiskSecret, label_block, stated_id};
use inwit_protocol::frame;
use inwit_protocol::identity::{TrustDomain, WorkloadIdentifier};
use inwit_protocol::primitives::{PublicKey, SigningKey};
use inwit_protocol::seal::{self, EncapsulationKey};
use inwit_protocol::secret::Secret;
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;

fn first() -> Vec<Vec<u8>> {
    let key = SigningKey::generate(&SystemRandom::new()).expect("random numbers");
    let disk = DiskSecret { key: Secret::new(vec![1; 64]), root_hash: [2; 32], salt: [3; 32], data_blocks: 4 };
    let identity = b"spiffe://demo.example/hello/there".to_vec();
    let sealing = seal::generate().1.bytes().to_vec();
    vec![key.public().spki().to_vec(), sealing, label_block(&disk.id()), disk.encode().expose().to_vec(), identity]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(key) = PublicKey::from_spki(input) {
        assert_eq!(key.spki(), input);
        assert!(key.verify(b"message", &input[..64]).is_err());
    }
    let _ = PublicKey::from_point(input);
    let _ = EncapsulationKey::parse(input);
    let _ = stated_id(input);
    let _ = DiskSecret::parse(&Secret::new(input.to_vec()));
    if let Some(Ok(length)) = input.first_chunk().map(|prefix| frame::length(*prefix, 1000)) {
        assert!((1..=1000).contains(&length));
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = TrustDomain::parse(text);
        if let Ok(identifier) = WorkloadIdentifier::parse(text) {
            assert_eq!(identifier.uri(), text, "one identity, one spelling");
        }
    }
});
