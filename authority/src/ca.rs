//! The Credential Authority: X.509 workload identity certificates (WC-1…8, SV-1…7). It issues on a verified Attestation
//! Result alone, for the key and the identifier that the result names; nothing of the request reaches the certificate.

use crate::fault::Fault;
use inwit_protocol::identity::{TrustDomain, WorkloadIdentifier};
use inwit_protocol::primitives::{PublicKey, SigningKey};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::result::AttestationResult;
use inwit_protocol::signed::Verified;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;

/// How far back a certificate's validity reaches, in seconds: relying parties' clocks differ.
const BACKDATE: u64 = 60;
/// Lifetime of the CA certificate, in seconds: ten years; it is withdrawn by removing it from bundles.
const CA_LIFETIME: u64 = 315_360_000;

/// The CA's key as rcgen uses it.
struct CaKey(SigningKey);

/// A public key as rcgen embeds it: the point, without the SubjectPublicKeyInfo around it.
struct Point<'a>(&'a PublicKey);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public().point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message, &SystemRandom::new()).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// An issued certificate.
pub struct Issued {
    /// DER, leaf first, the root left out.
    pub chain: Vec<Vec<u8>>,
    /// Serial number, 16 random bytes.
    pub serial: [u8; 16],
}

/// The Credential Authority of one trust domain.
pub struct CredentialAuthority {
    domain: TrustDomain,
    issuer: Issuer<'static, CaKey>,
    certificate: Vec<u8>,
}

fn ca_params(domain: &TrustDomain) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, domain.name());
    name.push(DnType::CommonName, "inwit credential authority");
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(domain.uri().try_into()?)];
    Ok(params)
}

fn moment(seconds: u64) -> Result<OffsetDateTime, Fault> {
    let seconds = i64::try_from(seconds).map_err(|_| Fault::new("time out of range"))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| Fault::of("time", error))
}

impl CredentialAuthority {
    /// A new CA certificate (DER) for `key`, valid from `now`.
    pub fn create_certificate(domain: &TrustDomain, key: SigningKey, now: u64) -> Result<Vec<u8>, Fault> {
        let mut params = ca_params(domain).map_err(|error| Fault::of("CA certificate", error))?;
        params.not_before = moment(now.saturating_sub(BACKDATE))?;
        params.not_after = moment(now.saturating_add(CA_LIFETIME))?;
        let certificate = params.self_signed(&CaKey(key)).map_err(|error| Fault::of("CA certificate", error))?;
        Ok(certificate.der().to_vec())
    }

    /// Opens the CA from its key and certificate.
    pub fn open(domain: TrustDomain, key: SigningKey, certificate: Vec<u8>) -> Result<Self, Fault> {
        let params = ca_params(&domain).map_err(|error| Fault::of("CA certificate", error))?;
        Ok(Self { domain, issuer: Issuer::new(params, CaKey(key)), certificate })
    }

    /// The CA certificate, DER: the trust domain's anchor.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Who this CA is to a Verifier: the audience of results it acts on.
    pub fn audience(&self) -> String {
        self.domain.uri()
    }

    /// Issues for a verified Attestation Result. `lifetime` is in seconds.
    pub fn issue(
        &self,
        on: &Verified<AttestationResult>,
        lifetime: u64,
        now: u64,
        random: &dyn SecureRandom,
    ) -> Result<Issued, Refusal> {
        on.usable(&self.audience(), now)?;
        if *on.identifier.trust_domain() != self.domain {
            let cause = format!("{} is not in this authority's trust domain {}", on.identifier, self.domain);
            return Err(Refusal::new(RefusalCode::TrustDomainMismatch, cause));
        }
        self.sign(&on.identifier, &on.credential_key, lifetime, now, random)
            .map_err(|fault| Refusal::new(RefusalCode::Internal, fault))
    }

    /// Issues to a service that is not attested, on an operator's word. The caller records it as such.
    pub fn enroll(
        &self,
        identifier: &WorkloadIdentifier,
        key: &PublicKey,
        lifetime: u64,
        now: u64,
        random: &dyn SecureRandom,
    ) -> Result<Issued, Fault> {
        if *identifier.trust_domain() != self.domain {
            return Err(Fault::of(identifier, format_args!("not in trust domain {}", self.domain)));
        }
        self.sign(identifier, key, lifetime, now, random)
    }

    fn sign(
        &self,
        identifier: &WorkloadIdentifier,
        key: &PublicKey,
        lifetime: u64,
        now: u64,
        random: &dyn SecureRandom,
    ) -> Result<Issued, Fault> {
        let mut serial = [0; 16];
        random.fill(&mut serial).map_err(|_| Fault::new("no randomness for a serial number"))?;
        // A positive DER integer of exactly 16 bytes (RFC 5280 §4.1.2.2).
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        let failed = |error: rcgen::Error| Fault::of("certificate", error);
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, self.domain.name());
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = moment(now.saturating_sub(BACKDATE))?;
        params.not_after = moment(now.saturating_add(lifetime))?;
        params.subject_alt_names = vec![SanType::URI(identifier.uri().try_into().map_err(failed)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&Point(key), &self.issuer).map_err(failed)?;
        Ok(Issued { chain: vec![certificate.der().to_vec()], serial })
    }
}
