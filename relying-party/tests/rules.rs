//! Each rule of the mutual TLS profile, broken once, over a real handshake: the refusal has its own code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use inwit_protocol::primitives::SigningKey;
use inwit_relying_party::{
    AcceptedPeers, Own, Refusal, RefusalCode, RelyingParty, TrustBundle, TrustDomain, WallClock, WorkloadIdentifier,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use ring::rand::SystemRandom;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Domain {
    name: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    anchor: Vec<u8>,
}

/// What a certificate says; each test breaks one thing.
struct Leaf<'a> {
    uris: Vec<&'a str>,
    usages: Vec<Usage>,
    key_usages: Vec<KeyUsagePurpose>,
    /// Raw GeneralNames beside the URIs, which the library would not write.
    odd_names: Option<Vec<u8>>,
    /// Days from now: not before, not after.
    days: (i64, i64),
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        Self {
            uris: vec!["spiffe://demo.example/hello"],
            usages: vec![Usage::ClientAuth, Usage::ServerAuth],
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            odd_names: None,
            days: (-1, 1),
        }
    }
}

impl Domain {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let anchor = params.self_signed(&key).unwrap().der().to_vec();
        Self { name: TrustDomain::parse(name).unwrap(), issuer: Issuer::new(params, key), anchor }
    }

    fn issue(&self, leaf: &Leaf<'_>) -> Own {
        let pkcs8 = SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = SigningKey::from_pkcs8(&pkcs8, &SystemRandom::new()).unwrap();
        let subject = KeyPair::try_from(pkcs8.as_slice()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = leaf.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages.clone_from(&leaf.usages);
        params.key_usages.clone_from(&leaf.key_usages);
        if let Some(odd) = &leaf.odd_names {
            // GeneralNames with the good URI first; all lengths here are below 128.
            let uri = [&[0x86, HELLO.len() as u8], HELLO.as_bytes()].concat();
            let names = [&[0x30, (uri.len() + odd.len()) as u8][..], &uri, odd].concat();
            params.subject_alt_names.clear();
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names)];
        }
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::days(leaf.days.0);
        params.not_after = now + time::Duration::days(leaf.days.1);
        let certificate = params.signed_by(&subject, &self.issuer).unwrap();
        Own { chain: vec![certificate.der().to_vec()], key }
    }

    fn peers(&self, identifiers: &[&str]) -> AcceptedPeers {
        AcceptedPeers {
            bundle: TrustBundle::new(self.name.clone(), vec![self.anchor.clone()]).unwrap(),
            identifiers: identifiers.iter().map(|id| WorkloadIdentifier::parse(id).unwrap()).collect(),
        }
    }
}

const GREETER: &str = "spiffe://demo.example/greeter";
const HELLO: &str = "spiffe://demo.example/hello";

/// A client with this credential knocks at a server that accepts only `HELLO` of `domain`.
async fn knock(domain: &Domain, client: Own) -> Result<String, Refusal> {
    let greeter = Leaf { uris: vec![GREETER], ..Leaf::default() };
    let server = RelyingParty::new(domain.issue(&greeter), domain.peers(&[HELLO]), Arc::new(WallClock)).unwrap();
    let client = RelyingParty::new(client, domain.peers(&[GREETER]), Arc::new(WallClock)).unwrap();
    let (near, far) = tokio::io::duplex(65_536);
    let client = tokio::spawn(async move {
        if let Ok(mut connection) = client.connect(near).await {
            let _ = connection.write_all(b"data").await;
            let mut rest = Vec::new();
            let _ = connection.read_to_end(&mut rest).await;
        }
    });
    let outcome = match server.accept(far).await {
        Ok(mut connection) => {
            let mut data = [0; 4];
            connection.read_exact(&mut data).await.unwrap();
            assert_eq!(&data, b"data");
            Ok(connection.peer().identifier().to_string())
        }
        Err(refusal) => Err(refusal),
    };
    client.abort();
    outcome
}

#[tokio::test]
async fn a_good_peer_is_accepted_and_named() {
    let domain = Domain::new("demo.example");
    assert_eq!(knock(&domain, domain.issue(&Leaf::default())).await.unwrap(), HELLO);
}

/// Other kinds of names may stand beside the URI (WC-2).
#[tokio::test]
async fn a_dns_name_beside_the_identifier_is_no_second_identity() {
    let domain = Domain::new("demo.example");
    let leaf = Leaf { odd_names: Some(vec![0x82, 3, b'a', b'.', b'b']), ..Leaf::default() };
    assert_eq!(knock(&domain, domain.issue(&leaf)).await.unwrap(), HELLO);
}

#[tokio::test]
async fn each_broken_rule_has_its_code() {
    let domain = Domain::new("demo.example");
    let signing_certificates = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let broken = [
        (Leaf { uris: vec!["spiffe://demo.example/other"], ..Leaf::default() }, RefusalCode::IdentityMismatch),
        (Leaf { uris: vec!["spiffe://other.example/hello"], ..Leaf::default() }, RefusalCode::TrustDomainMismatch),
        (
            Leaf { uris: vec![HELLO, "spiffe://demo.example/second"], ..Leaf::default() },
            RefusalCode::CertificateInvalid,
        ),
        (Leaf { uris: vec![], ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { uris: vec!["https://demo.example/hello"], ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { usages: vec![Usage::ServerAuth], ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { key_usages: vec![], ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { key_usages: vec![KeyUsagePurpose::KeyAgreement], ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { key_usages: signing_certificates, ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { odd_names: Some(vec![0x86, 2, 0xff, 0xfe]), ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { odd_names: Some(vec![0x86, 9, b'x']), ..Leaf::default() }, RefusalCode::CertificateInvalid),
        (Leaf { days: (-2, -1), ..Leaf::default() }, RefusalCode::EndorsementExpired),
        (Leaf { days: (1, 2), ..Leaf::default() }, RefusalCode::EndorsementExpired),
    ];
    for (leaf, code) in broken {
        let refusal = knock(&domain, domain.issue(&leaf)).await.unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
    }
}

#[tokio::test]
async fn the_same_name_under_another_root_is_refused() {
    let (domain, impostor) = (Domain::new("demo.example"), Domain::new("demo.example"));
    let refusal = knock(&domain, impostor.issue(&Leaf::default())).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::ChainUntrusted, "{refusal}");
}
