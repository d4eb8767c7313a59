//! TLS as an attacker speaks it: a client that takes whoever answers for the authority, and clients whose credentials are
//! not what an authority takes. Proves nothing about anybody; that is the point.

use inwit_protocol::primitives::SigningKey;
use inwit_protocol::tls::guest_channel;
use ring::rand::SystemRandom;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureAlgorithm, SignatureScheme};
use std::sync::Arc;

/// A guest's side of the channel that does not ask who is at the other end.
pub fn whoever(key: Arc<SigningKey>) -> ClientConfig {
    let mut config = guest_channel(key, Vec::new()).unwrap();
    config.dangerous().set_certificate_verifier(Arc::new(Anybody));
    config
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What a client has to show for itself, with the key that it can really use.
pub struct Credential {
    kind: Kind,
    /// The certificate list, as it is sent.
    list: Vec<CertificateDer<'static>>,
    key: Option<Arc<dyn TlsSigningKey>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Certificate,
    RawKey,
}

impl Credential {
    pub fn none() -> Self {
        Self { kind: Kind::RawKey, list: Vec::new(), key: None }
    }

    fn raw(key: Arc<dyn TlsSigningKey>) -> Self {
        let spki = key.public_key().unwrap().to_vec();
        Self { kind: Kind::RawKey, list: vec![spki.into()], key: Some(key) }
    }

    fn generated(algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<dyn TlsSigningKey> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
    }

    pub fn p256_raw() -> Self {
        Self::raw(Self::generated(&rcgen::PKCS_ECDSA_P256_SHA256))
    }

    pub fn p384_raw() -> Self {
        Self::raw(Self::generated(&rcgen::PKCS_ECDSA_P384_SHA384))
    }

    pub fn ed25519_raw() -> Self {
        Self::raw(Self::generated(&rcgen::PKCS_ED25519))
    }

    /// From a private key in DER.
    pub fn rsa_raw(der: &[u8]) -> Self {
        Self::raw(any_supported_type(&PrivateKeyDer::try_from(der.to_vec()).unwrap()).unwrap())
    }

    /// A self-signed X.509 certificate.
    pub fn certificate() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new(["guest".to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        Self { kind: Kind::Certificate, list: vec![certificate.der().clone()], key: Some(key) }
    }

    /// Its own raw key, and another one behind it.
    pub fn two_raw() -> Self {
        let mut two = Self::p256_raw();
        two.list.extend(Self::p256_raw().list);
        two
    }

    /// The raw key of `other`, used by one who does not hold it.
    pub fn stolen_raw(other: &SigningKey) -> Self {
        let mut stolen = Self::p256_raw();
        stolen.list = vec![other.public().spki().to_vec().into()];
        stolen
    }
}

/// A client that shows this credential whether or not the server asks for such a one.
pub fn client(credential: Credential, protocols: &[&[u8]]) -> ClientConfig {
    let mut config = whoever(Arc::new(SigningKey::generate(&SystemRandom::new()).unwrap()));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.client_auth_cert_resolver = Arc::new(Shown::of(credential));
    config
}

#[derive(Debug)]
struct Shown {
    kind: Kind,
    key: Option<Arc<CertifiedKey>>,
}

impl Shown {
    fn of(credential: Credential) -> Self {
        let Credential { kind, list, key } = credential;
        Self { kind, key: key.map(|key| Arc::new(CertifiedKey::new(list, Arc::new(Insistent(key))))) }
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key.clone()
    }

    fn only_raw_public_keys(&self) -> bool {
        self.kind == Kind::RawKey
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// Signs with what it has, whatever the server offers.
#[derive(Debug)]
struct Insistent(Arc<dyn TlsSigningKey>);

impl TlsSigningKey for Insistent {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        use SignatureScheme::*;
        self.0.choose_scheme(&[ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ED25519, RSA_PSS_SHA256])
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}
