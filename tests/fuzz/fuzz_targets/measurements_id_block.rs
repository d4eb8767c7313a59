//! A foreign ID block with its authentication information, and a key file: any bytes are read or refused by name.
#![no_main]

use inwit_fuzz::{joined, parts};
use inwit_measurements::Digest;
use inwit_measurements::snp::id_block::{IdBlock, LaunchPolicy, SigningKey, VerifiedIdBlock};
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

fn first() -> Vec<Vec<u8>> {
    let random = SystemRandom::new();
    let file = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    let key = SigningKey::read(file.as_ref(), &random).unwrap();
    let (family_id, image_id) = ([1; 16], [2; 16]);
    let launch_digest = Digest::from_bytes([7; 48]);
    let block = IdBlock { launch_digest, family_id, image_id, guest_svn: 1, policy: LaunchPolicy::DEFAULT };
    let authors = [None, Some(&key)];
    let signed = authors.map(|author| block.sign(&key, author, &random).unwrap());
    let pairs = signed.iter().map(|signed| joined(&[file.as_ref(), &signed.block, signed.auth.as_slice()]));
    let pem = b"-----BEGIN PRIVATE KEY-----\nMIG2AgEAMBAG\n-----END PRIVATE KEY-----\n";
    pairs.chain([joined(&[pem, b"", b""])]).collect()
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [key, block, auth] = parts(input);
    let _ = SigningKey::read(key, &SystemRandom::new());
    if let Ok(parsed) = IdBlock::parse(block) {
        assert_eq!(parsed.to_bytes(), block, "one value has one form");
    }
    let _ = VerifiedIdBlock::verify(block, auth);
});
