//! A peer's certificate chain, and a trust bundle that could be as hostile: parts are leaf, intermediate, anchor.
#![no_main]

use inwit_authority::ca::CredentialAuthority;
use inwit_fuzz::{NOW, joined, parts};
use inwit_protocol::certificate::{Role, TrustBundle, verify};
use inwit_protocol::identity::{TrustDomain, WorkloadIdentifier};
use inwit_protocol::primitives::SigningKey;
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;

fn first() -> Option<Vec<u8>> {
    let random = SystemRandom::new();
    let domain = TrustDomain::parse("demo.example").ok()?;
    let stored = SigningKey::generate_pkcs8(&random).ok()?;
    let key = || SigningKey::from_pkcs8(&stored, &random).ok();
    let anchor = CredentialAuthority::create_certificate(&domain, key()?, NOW).ok()?;
    let ca = CredentialAuthority::open(domain, key()?, anchor.clone()).ok()?;
    let identifier = WorkloadIdentifier::parse("spiffe://demo.example/hello").ok()?;
    let issued = ca.enroll(&identifier, key()?.public(), 3600, NOW, &random).ok()?;
    Some(joined(&[issued.chain.first()?, &anchor, &anchor]))
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [leaf, intermediate, anchor] = parts(input);
    let Ok(domain) = TrustDomain::parse("demo.example") else { return };
    if let Ok(bundle) = TrustBundle::new(domain, vec![anchor.to_vec()]) {
        let _ = verify(&[leaf, intermediate], &bundle, Role::Client, NOW);
        let _ = verify(&[leaf], &bundle, Role::Server, NOW);
    }
});
