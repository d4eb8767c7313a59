//! The little of X.509 that the platforms' certificates need beside path validation: names, dates, serial numbers, and
//! RSASSA-PSS signatures as AMD makes them. Path validation itself is webpki's. Trusts no certificate: reading one says
//! only what stands in it.

use std::collections::HashSet;

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;
use x509_parser::asn1_rs::{Any, Sequence};
use x509_parser::certificate::{Validity, X509Certificate};
use x509_parser::extensions::{DistributionPointName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_NIST_HASH_SHA384, OID_PKCS1_RSASSAPSS};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, X509Name};

use super::crypto::rsa_pss_sha384;

/// Salt of AMD's signatures, in bytes: as long as the hash.
const SALT_LENGTH: u32 = 48;

/// Why bytes are not a certificate or list that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum X509Error {
    #[error("not a DER certificate")]
    Certificate,
    #[error("it is PEM, and DER is needed")]
    Pem,
    #[error("not a DER certificate revocation list")]
    List,
    #[error("a date in it cannot be represented")]
    Date,
    #[error("the revocation list does not say when the next one is due")]
    NoNextUpdate,
    #[error("it is not signed with RSASSA-PSS and SHA-384 as AMD signs")]
    Algorithm,
    #[error("its key is no P-256 key as Intel's are")]
    Key,
    #[error("its signature does not verify with its issuer's key")]
    Signature,
    #[error("an extension stands in it twice or does not parse")]
    Extensions,
    #[error("a critical extension in it is not understood")]
    Critical,
    #[error("the revocation list is of part of what its issuer revokes")]
    Partial,
    #[error("its extensions do not say that it may sign this")]
    Authority,
}

/// First and last second of validity, unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Window {
    pub(crate) fn contains(self, at: u64) -> bool {
        (self.from..=self.until).contains(&at)
    }

    /// When both are.
    pub(crate) fn intersection(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// The first second in it; none where it is empty.
    pub(crate) fn first(self) -> Option<u64> {
        (self.from <= self.until).then_some(self.from)
    }

    pub(crate) fn of(validity: &Validity) -> Result<Self, X509Error> {
        Ok(Self { from: seconds(validity.not_before)?, until: seconds(validity.not_after)? })
    }
}

pub(crate) fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, X509Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ if der.starts_with(b"-----BEGIN ") => Err(X509Error::Pem),
        _ => Err(X509Error::Certificate),
    }
}

/// Demands the one encoding that DER has, of the parts outside of what is signed too, version 3, and no critical extension
/// that nobody understands. The reader above takes some certificates that are not like that.
pub(crate) fn strict(der: &[u8]) -> Result<(), X509Error> {
    EndEntityCert::try_from(&CertificateDer::from(der)).map(|_| ()).map_err(|_| X509Error::Certificate)
}

/// Demands that no extension stands twice (RFC 5280 §4.2): of two, readers would differ on which one counts.
pub(crate) fn unrepeated(certificate: &X509Certificate<'_>) -> Result<(), X509Error> {
    certificate.extensions_map().map(|_| ()).map_err(|_| X509Error::Extensions)
}

/// Demands the extensions of a certificate authority: basic constraints that say so, the key usage that signs
/// certificates, and no extended one that would narrow it (RFC 5280 §4.2.1.3, §4.2.1.9, §4.2.1.12). Path validation looks
/// at the first only, and at none of a root's.
pub(crate) fn may_issue(certificate: &X509Certificate<'_>) -> Result<(), X509Error> {
    unrepeated(certificate)?;
    if !matches!(certificate.extended_key_usage(), Ok(None)) {
        return Err(X509Error::Authority);
    }
    let constraints = certificate.basic_constraints().map_err(|_| X509Error::Extensions)?;
    let usage = certificate.key_usage().map_err(|_| X509Error::Extensions)?;
    match (constraints, usage) {
        (Some(constraints), Some(usage)) if constraints.value.ca && usage.value.key_cert_sign() => Ok(()),
        _ => Err(X509Error::Authority),
    }
}

/// Whether every block of PEM in a text ends with the label that it begins with (RFC 7468 §2). The reader of blocks takes
/// any label at the end, so that one chain could be written in many ways.
pub(crate) fn is_paired_pem(text: &[u8]) -> bool {
    let mut open: Option<&[u8]> = None;
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end) {
        if let Some(label) = open {
            if let Some(end) = line.strip_prefix(b"-----END ") {
                if end != label {
                    return false;
                }
                open = None;
            }
        } else if let Some(label) = line.strip_prefix(b"-----BEGIN ") {
            if !label.ends_with(b"-----") {
                return false;
            }
            open = Some(label);
        }
    }
    open.is_none()
}

/// The common name, if there is exactly one and it is text.
pub(crate) fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = name.iter_common_name();
    match (names.next(), names.next()) {
        (Some(only), None) => only.as_str().ok(),
        _ => None,
    }
}

/// A revocation list whose signature has been verified.
#[derive(Clone, Debug)]
pub(crate) struct RevocationList {
    pub(crate) window: Window,
    /// cRLNumber in decimal, where there is one.
    number: Option<String>,
    /// Without leading zero bytes.
    serials: HashSet<Vec<u8>>,
}

impl RevocationList {
    /// Reads a list and verifies that `issuer` made it.
    pub(crate) fn verify(der: &[u8], issuer: &X509Certificate<'_>) -> Result<Self, X509Error> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else { return Err(X509Error::List) };
        if list.issuer().as_raw() != issuer.subject().as_raw()
            || list.tbs_cert_list.signature != list.signature_algorithm
        {
            return Err(X509Error::Signature);
        }
        let signature = &list.signature_value.data;
        verify_pss(issuer, &list.signature_algorithm, list.tbs_cert_list.as_ref(), signature)?;
        let usage = issuer.key_usage().map_err(|_| X509Error::Extensions)?;
        if !usage.is_some_and(|usage| usage.value.crl_sign()) {
            return Err(X509Error::Authority);
        }
        list.extensions().iter().try_for_each(whole)?;
        // Of an entry, what is critical says that it is another issuer's (RFC 5280 §5.3).
        if list.iter_revoked_certificates().any(|entry| entry.extensions().iter().any(|other| other.critical)) {
            return Err(X509Error::Critical);
        }
        let until = seconds(list.next_update().ok_or(X509Error::NoNextUpdate)?)?;
        let window = Window { from: seconds(list.last_update())?, until };
        let number = list.crl_number().map(ToString::to_string);
        let serials = list.iter_revoked_certificates().map(|entry| minimal(entry.raw_serial()).to_vec()).collect();
        Ok(Self { window, number, serials })
    }

    /// Its number and how many it revokes, for people.
    pub(crate) fn title(&self) -> String {
        let number = self.number.as_deref().map(|number| format!(" number {number}")).unwrap_or_default();
        format!("revocation list{number}, {} revoked", self.serials.len())
    }

    pub(crate) fn lists(&self, serial: &[u8]) -> bool {
        self.serials.contains(minimal(serial))
    }
}

/// Demands of an extension of a list that it leaves the list whole. A list of part of the certificates, or of what changed
/// since another one, says so critically (RFC 5280 §5.2). Where it may be fetched takes nothing away; nor does it that only
/// certificates of authorities are on it, as everything that an ARK issues is.
fn whole(extension: &X509Extension<'_>) -> Result<(), X509Error> {
    match extension.parsed_extension() {
        ParsedExtension::IssuingDistributionPoint(point) => {
            // The reader passes over what stands after what it knows; one that says nothing must not be (§5.2.5).
            let named = match &point.distribution_point {
                Some(DistributionPointName::FullName(_)) => true,
                Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => false,
                None => point.only_contains_ca_certs,
            };
            let known = matches!(tags(extension.value).as_deref(), Some([0] | [2] | [0, 2]));
            if named && known { Ok(()) } else { Err(X509Error::Partial) }
        }
        _ if extension.critical => Err(X509Error::Critical),
        _ => Ok(()),
    }
}

/// Tag numbers of the parts of a DER SEQUENCE; at most as many as two bytes each leave room for.
fn tags(der: &[u8]) -> Option<Vec<u32>> {
    let ([], sequence) = Sequence::from_der(der).ok()? else { return None };
    let (mut rest, mut tags) = (sequence.content.as_ref(), Vec::new());
    while !rest.is_empty() {
        let (after, part) = Any::from_der(rest).ok()?;
        tags.push(part.tag().0);
        rest = after;
    }
    Some(tags)
}

/// Verifies that `issuer` signed the certificate, names included.
pub(crate) fn verify_issued(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Result<(), X509Error> {
    let named = certificate.issuer().as_raw() == issuer.subject().as_raw();
    if !named || certificate.tbs_certificate.signature != certificate.signature_algorithm {
        return Err(X509Error::Signature);
    }
    let signature = &certificate.signature_value.data;
    verify_pss(issuer, &certificate.signature_algorithm, certificate.tbs_certificate.as_ref(), signature)
}

/// Whether `issuer` issued the certificate, both in DER.
pub(crate) fn has_issued(issuer: &[u8], der: &[u8]) -> bool {
    match (certificate(der), certificate(issuer)) {
        (Ok(certificate), Ok(issuer)) => verify_issued(&certificate, &issuer).is_ok(),
        _ => false,
    }
}

/// Whether `ark` signed the revocation list, both in DER.
pub(crate) fn has_listed(ark: &[u8], der: &[u8]) -> bool {
    certificate(ark).is_ok_and(|ark| RevocationList::verify(der, &ark).is_ok())
}

/// RSASSA-PSS with SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 4055 §3.1), whether or not the trailer field that
/// DER would leave out is written.
fn verify_pss(
    issuer: &X509Certificate<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), X509Error> {
    if algorithm.algorithm != OID_PKCS1_RSASSAPSS {
        return Err(X509Error::Algorithm);
    }
    let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm) else {
        return Err(X509Error::Algorithm);
    };
    let mask = parameters.mask_gen_algorithm().map_err(|_| X509Error::Algorithm)?;
    let ours = *parameters.hash_algorithm_oid() == OID_NIST_HASH_SHA384
        && mask.hash == OID_NIST_HASH_SHA384
        && parameters.salt_length() == SALT_LENGTH
        && parameters.trailer_field() == 1;
    if !ours {
        return Err(X509Error::Algorithm);
    }
    let key = &issuer.public_key().subject_public_key.data;
    rsa_pss_sha384(key, signed, signature).map_err(|_| X509Error::Signature)
}

/// A serial number without the leading zero bytes that DER or its writer put before it.
pub(crate) fn minimal(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

fn seconds(time: ASN1Time) -> Result<u64, X509Error> {
    u64::try_from(time.timestamp()).map_err(|_| X509Error::Date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_with_the_label_that_it_began_with() {
        let good = "text\n-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\r\ntext";
        assert!(is_paired_pem(good.as_bytes()) && is_paired_pem(b"no block"));
        for (part, instead) in [
            ("END X509 CRL-----", "END CERTIFICATE-----"),
            ("END X509 CRL-----", "END x509 CRL-----"),
            ("END X509 CRL-----", "END X509 CRL----"),
            ("END X509 CRL-----", "END X509 CRL-----x"),
            ("\n-----END", "\n----END"),
            ("BEGIN X509 CRL-----", "BEGIN X509 CRL----- x"),
        ] {
            assert!(!is_paired_pem(good.replacen(part, instead, 1).as_bytes()), "{instead}");
        }
    }
}
