//! Workload identity certificates (WIMSE WC-1…8, X.509-SVID SV-1…7): path validation against the anchors of the trust
//! domain that the certificate names, at a time that the caller gives. Returns a proof, never a yes.
//!
//! It does not decide who may talk to whom: the caller compares the whole identifier (MT-10, MT-12).

use crate::extensions;
use crate::identity::{TrustDomain, WorkloadIdentifier};
use crate::primitives::PublicKey;
use crate::refusal::{Refusal, RefusalCode};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Signature algorithms of workload identity certificates. RSA is left out: no authority of ours uses it.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
];
/// Most intermediates that are looked at.
const MAX_INTERMEDIATES: usize = 4;

/// Which side of a connection the certificate's holder is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection: id-kp-clientAuth.
    Client,
    /// It was connected to: id-kp-serverAuth.
    Server,
}

/// A Trust Domain with the CA certificates that speak for it. Distributed out of band (WC-4).
#[derive(Clone, Debug)]
pub struct TrustBundle {
    domain: TrustDomain,
    anchors: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// A bundle of at least one DER CA certificate.
    pub fn new(domain: TrustDomain, anchors: Vec<Vec<u8>>) -> Result<Self, Refusal> {
        let anchors: Vec<_> = anchors.into_iter().map(CertificateDer::from).collect();
        if anchors.is_empty() || anchors.iter().any(|der| anchor_from_trusted_cert(der).is_err()) {
            return Err(Refusal::new(RefusalCode::CertificateInvalid, "a trust anchor is missing or does not parse"));
        }
        Ok(Self { domain, anchors })
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Its anchors, DER.
    pub fn anchors(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|der| der.as_ref())
    }
}

/// A workload identity certificate whose path, usage and identifier were verified. Made only by [`verify`].
#[derive(Clone, Debug)]
pub struct WorkloadCertificate {
    identifier: WorkloadIdentifier,
    spki: Vec<u8>,
}

impl WorkloadCertificate {
    /// The authenticated identifier.
    pub fn identifier(&self) -> &WorkloadIdentifier {
        &self.identifier
    }

    /// Whether the certificate is for this key.
    pub fn is_for(&self, key: &PublicKey) -> bool {
        self.spki == key.spki()
    }
}

/// Verifies a chain (DER, leaf first) at `now` (seconds since 1970) against `bundle`.
///
/// # Errors
/// `certificate-invalid` for encoding, usage and identifier rules, `trust-domain-mismatch` when the identifier names
/// another domain than the bundle's, `chain-untrusted` and `endorsement-expired` for the path.
pub fn verify(chain: &[&[u8]], bundle: &TrustBundle, role: Role, now: u64) -> Result<WorkloadCertificate, Refusal> {
    let invalid = |cause: &str| Refusal::new(RefusalCode::CertificateInvalid, cause);
    let (leaf, intermediates) = chain.split_first().ok_or_else(|| invalid("no certificate"))?;
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(invalid("too many intermediates"));
    }
    let leaf_der = CertificateDer::from(*leaf);
    let leaf = EndEntityCert::try_from(&leaf_der).map_err(|_| invalid("the certificate does not parse"))?;
    let identifier = only_identifier(&leaf_der)?;
    if identifier.trust_domain() != bundle.domain() {
        let cause = format!("{identifier} is not in trust domain {}", bundle.domain());
        return Err(Refusal::new(RefusalCode::TrustDomainMismatch, cause));
    }
    let anchors: Result<Vec<_>, _> = bundle.anchors.iter().map(anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|_| invalid("a trust anchor does not parse"))?;
    let intermediates: Vec<_> = intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
    let usage = match role {
        Role::Client => KeyUsage::client_auth(),
        Role::Server => KeyUsage::server_auth(),
    };
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
    leaf.verify_for_usage(ALGORITHMS, &anchors, &intermediates, time, usage, None, None).map_err(path_refusal)?;
    Ok(WorkloadCertificate { identifier, spki: leaf.subject_public_key_info().as_ref().to_vec() })
}

/// Exactly one URI SAN, and it is a Workload Identifier (WC-1, WC-3, SV-1, SV-2); a key that may sign data, and no certificates (SV-4).
fn only_identifier(leaf: &[u8]) -> Result<WorkloadIdentifier, Refusal> {
    let invalid = |cause: String| Refusal::new(RefusalCode::CertificateInvalid, cause);
    let uri = extensions::only_uri(leaf)
        .ok_or_else(|| invalid("the certificate does not have exactly one readable URI name".into()))?;
    if !extensions::signs_data_and_no_certificates(leaf) {
        return Err(invalid(
            "the certificate's key usage must be critical, with digitalSignature, without keyCertSign and cRLSign"
                .into(),
        ));
    }
    WorkloadIdentifier::parse(uri).map_err(|error| invalid(error.to_string()))
}

fn path_refusal(error: webpki::Error) -> Refusal {
    use webpki::Error;
    let code = match error {
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } | Error::InvalidCertValidity => {
            RefusalCode::EndorsementExpired
        }
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => RefusalCode::ChainUntrusted,
        _ => RefusalCode::CertificateInvalid,
    };
    Refusal::new(code, format_args!("certificate path: {error:?}"))
}
