//! The three verifiers that rustls calls during a handshake. Each refuses by default and names why; none of them decides
//! by date whether a guest may talk to its authority, and none reads a clock.

use super::{AcceptedPeers, algorithms, refused};
use crate::certificate::{self, Role};
use crate::primitives::PublicKey;
use crate::refusal::{Refusal, RefusalCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// The authority, known by its pinned keys.
#[derive(Debug)]
pub(super) struct PinnedAuthority {
    pub(super) pins: Vec<[u8; 32]>,
}

fn raw_signature(
    message: &[u8],
    spki: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(spki.as_ref()), signed, &algorithms())
}

/// TLS 1.2 is not compiled in; should it ever be, its signatures do not verify.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken".into()))
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = PublicKey::from_spki(spki).is_ok_and(|key| self.pins.contains(&key.pin()));
        if pinned && more.is_empty() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(refused(Refusal::new(
            RefusalCode::AuthorityNotPinned,
            "the key at the other end is not one of the pinned authority keys",
        )))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        raw_signature(message, spki, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A guest before it has an identity: some P-256 key, proven by CertificateVerify. Evidence decides about the rest.
#[derive(Debug)]
pub(super) struct AnyRawKey;

impl ClientCertVerifier for AnyRawKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if PublicKey::from_spki(spki).is_ok() && more.is_empty() {
            return Ok(ClientCertVerified::assertion());
        }
        Err(refused(Refusal::new(RefusalCode::Unsupported, "a guest authenticates with one P-256 raw public key")))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        raw_signature(message, spki, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A peer with a workload identity certificate, on either side.
#[derive(Debug)]
pub(super) struct WorkloadPeer(pub(super) AcceptedPeers);

impl WorkloadPeer {
    fn accept(
        &self,
        leaf: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<&[u8]> = core::iter::once(leaf).chain(more).map(|der| der.as_ref()).collect();
        let peer = certificate::verify(&chain, &self.0.bundle, role, now.as_secs()).map_err(refused)?;
        if self.0.identifiers.contains(peer.identifier()) {
            return Ok(());
        }
        let cause = format!("{} is authentic and not among the accepted identifiers", peer.identifier());
        Err(refused(Refusal::new(RefusalCode::IdentityMismatch, cause)))
    }
}

impl ServerCertVerifier for WorkloadPeer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The identifier is expected by configuration (MT-8); the host part of a trust domain is not a host name (MT-9).
        self.accept(leaf, more, Role::Server, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for WorkloadPeer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.accept(leaf, more, Role::Client, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
