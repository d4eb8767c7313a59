//! TLS 1.3 as inwit uses it: ring only, no resumption, no early data, keys that TLS never sees the bytes of, and three
//! verifiers: a pinned raw public key (RFC 7250) for the authority, any raw public key for a guest that has no
//! identity yet, and workload identity certificates for peers that have one.
//!
//! rustls does no I/O and neither does this file. No verifier here has a mode in which it accepts without checking.

mod verify;

use crate::certificate::TrustBundle;
use crate::identity::WorkloadIdentifier;
use crate::primitives::{PublicKey, SigningKey};
use crate::refusal::{Refusal, RefusalCode};
use crate::{ALPN, EXPORTER_LABEL};
use ring::rand::SystemRandom;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, Error, OtherError, ProtocolVersion, ServerConfig, SignatureAlgorithm,
    SignatureScheme,
};
use std::sync::Arc;
use verify::{AnyRawKey, PinnedAuthority, WorkloadPeer};

/// ring's primitives, TLS 1.3 suites only.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
    Arc::new(provider)
}

/// Signature algorithms for handshakes and certificates.
fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

/// A refusal as rustls carries it, so that its code comes out at the other end of the handshake.
fn refused(refusal: Refusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}

/// The refusal that one of the verifiers here put into a TLS error, or a general one that names the error.
pub fn refusal_of(error: &Error) -> Refusal {
    if let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
        && let Some(refusal) = inner.downcast_ref::<Refusal>()
    {
        return refusal.clone();
    }
    let code = match error {
        Error::NoApplicationProtocol => RefusalCode::Unsupported,
        Error::InvalidCertificate(_) => RefusalCode::CertificateInvalid,
        _ => RefusalCode::Malformed,
    };
    Refusal::new(code, format_args!("TLS: {error}"))
}

/// A signing key that rustls may use and cannot read.
#[derive(Clone)]
struct HeldKey(Arc<SigningKey>);

impl core::fmt::Debug for HeldKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "HeldKey({:?})", self.0.public())
    }
}

impl TlsSigningKey for HeldKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let usable = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        if !usable {
            return None;
        }
        Some(Box::new(self.clone()))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.0.public().spki()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for HeldKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(message, &SystemRandom::new()).map_err(|_| Error::General("signing failed".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

fn raw(key: Arc<SigningKey>) -> Arc<CertifiedKey> {
    let spki = CertificateDer::from(key.public().spki().to_vec());
    Arc::new(CertifiedKey::new(vec![spki], Arc::new(HeldKey(key))))
}

fn certified(chain: &[Vec<u8>], key: Arc<SigningKey>) -> Arc<SingleCertAndKey> {
    let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, Arc::new(HeldKey(key)))))
}

/// A guest's side of the channel to its authority: `key` is the fresh Credential Key, `pins` are SHA-256 of the
/// SubjectPublicKeyInfo of the authority's accepted keys. No date decides anything.
pub fn guest_channel(key: Arc<SigningKey>, pins: Vec<[u8; 32]>) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(PinnedAuthority { pins });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(raw(key))));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// The authority's side: its pinned raw key, and a client that must prove possession of some P-256 raw key.
pub fn authority_channel(key: Arc<SigningKey>) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyRawKey))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(raw(key))));
    without_resumption(&mut config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn without_resumption(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
}

/// Who is accepted at the other end of a mutual TLS connection.
#[derive(Clone, Debug)]
pub struct AcceptedPeers {
    /// The trust domain that the peer must be in, with its anchors.
    pub bundle: TrustBundle,
    /// Complete identifiers that are accepted. Empty accepts nobody.
    pub identifiers: Vec<WorkloadIdentifier>,
}

/// The opening side of mutual TLS with workload identity certificates (MT-1 … MT-13). `clock` tells the time that
/// certificates are judged at.
pub fn workload_client(
    chain: &[Vec<u8>],
    key: Arc<SigningKey>,
    peers: AcceptedPeers,
    clock: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(WorkloadPeer(peers)))
        .with_client_cert_resolver(certified(chain, key));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The accepting side of mutual TLS with workload identity certificates; client authentication is mandatory (MT-4).
pub fn workload_server(
    chain: &[Vec<u8>],
    key: Arc<SigningKey>,
    peers: AcceptedPeers,
    clock: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(WorkloadPeer(peers)))
        .with_cert_resolver(certified(chain, key));
    without_resumption(&mut config);
    Ok(config)
}

/// The verifier's nonce of this connection: both ends compute it, nobody else can (RFC 8446 §7.5).
pub fn nonce<Side>(connection: &rustls::ConnectionCommon<Side>) -> Result<[u8; 32], Error> {
    connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(b""))
}

/// The raw public key that the peer authenticated with.
pub fn peer_key<Side>(connection: &rustls::ConnectionCommon<Side>) -> Result<PublicKey, Refusal> {
    let none = || Refusal::new(RefusalCode::KeyMismatch, "the peer did not authenticate with one P-256 raw public key");
    match connection.peer_certificates() {
        Some([spki]) => PublicKey::from_spki(spki).map_err(|_| none()),
        _ => Err(none()),
    }
}
