//! Certificates and revocation lists of Intel's, before any time is known: who signed them, what they are for, and when
//! they are valid. Paths, with dates and revocation, are webpki's at the time of each quote; what is read here only says
//! under which root a file belongs.

use std::collections::BTreeSet;

use rustls_pki_types::{AlgorithmIdentifier, CertificateDer};
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::evidence::crypto::INTEL_CHAIN;
use crate::evidence::x509::{self, Window, X509Error, minimal};

/// Uncompressed P-256 point.
pub(super) type PublicKey = [u8; 65];

/// A certificate that the root issued, read once.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) der: Vec<u8>,
    pub(super) name: String,
    pub(super) key: PublicKey,
    pub(super) window: Window,
    /// The subject's name in DER.
    pub(super) subject: Vec<u8>,
}

impl Issued {
    pub(super) fn read(der: &[u8]) -> Result<Self, X509Error> {
        let certificate = x509::certificate(der)?;
        // What webpki would not read on a path later, for example DER with a loose tag, is not taken in now.
        EndEntityCert::try_from(&CertificateDer::from(der)).map_err(|_| X509Error::Certificate)?;
        Ok(Self {
            der: der.to_vec(),
            name: x509::common_name(certificate.subject()).unwrap_or("a certificate without a name").to_owned(),
            key: public_key(&certificate)?,
            window: Window::of(certificate.validity())?,
            subject: certificate.subject().as_raw().to_vec(),
        })
    }
}

/// A revocation list with its issuer's name in DER.
#[derive(Debug)]
pub(super) struct List {
    pub(super) der: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) name: String,
    pub(super) window: Window,
    /// The same as webpki reads it.
    pub(super) read: CertRevocationList<'static>,
    /// Whose key signed it, where that was found when it was loaded.
    pub(super) signer: Option<PublicKey>,
    serials: BTreeSet<Vec<u8>>,
}

impl List {
    /// Reads a list. It lasts until the second before the next one is due, as webpki counts.
    pub(super) fn read(der: &[u8]) -> Result<Self, X509Error> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else { return Err(X509Error::List) };
        let due = list.next_update().ok_or(X509Error::NoNextUpdate)?;
        let seconds = |time: i64| u64::try_from(time).map_err(|_| X509Error::Date);
        let window = Window {
            from: seconds(list.last_update().timestamp())?,
            until: seconds(due.timestamp())?.checked_sub(1).ok_or(X509Error::Date)?,
        };
        let owned = OwnedCertRevocationList::from_der(der).map_err(|_| X509Error::List)?;
        Ok(Self {
            der: der.to_vec(),
            issuer: list.issuer().as_raw().to_vec(),
            name: x509::common_name(list.issuer()).unwrap_or("an issuer without a name").to_owned(),
            window,
            read: owned.into(),
            signer: None,
            serials: list.iter_revoked_certificates().map(|entry| minimal(entry.raw_serial()).to_vec()).collect(),
        })
    }

    /// Whether the list counts as signed with this key: what was found when it was loaded stands, and is not looked for
    /// again for every chain that somebody makes up.
    pub(super) fn is_by(&self, key: &PublicKey) -> bool {
        self.signer.map_or_else(|| self.signed_with(key), |signer| signer == *key)
    }

    /// Whether the list was signed with this key.
    pub(super) fn signed_with(&self, key: &PublicKey) -> bool {
        let Ok(([], list)) = CertificateRevocationList::from_der(&self.der) else { return false };
        list.tbs_cert_list.signature == list.signature_algorithm
            && list.signature_value.unused_bits == 0
            && ecdsa(key, &list.signature_algorithm, list.tbs_cert_list.as_ref(), &list.signature_value.data)
    }

    /// Whether the list names this serial number, big-endian.
    pub(super) fn names(&self, serial: &[u8]) -> bool {
        self.serials.contains(minimal(serial))
    }
}

/// Whether `issuer`, by its name and key, issued the certificate.
pub(super) fn issued_by(certificate: &X509Certificate<'_>, issuer: &Issued) -> bool {
    certificate.issuer().as_raw() == issuer.subject
        && certificate.tbs_certificate.signature == certificate.signature_algorithm
        && certificate.signature_value.unused_bits == 0
        && ecdsa(
            &issuer.key,
            &certificate.signature_algorithm,
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
}

/// The P-256 key that a certificate certifies.
pub(super) fn public_key(certificate: &X509Certificate<'_>) -> Result<PublicKey, X509Error> {
    let bits = &certificate.public_key().subject_public_key;
    match <PublicKey>::try_from(bits.data.as_ref()) {
        Ok(key) if bits.unused_bits == 0 => Ok(key),
        _ => Err(X509Error::Key),
    }
}

/// Whether the signature, an ECDSA-Sig-Value in DER, is P-256 with SHA-256 and verifies.
fn ecdsa(
    key: &PublicKey,
    algorithm: &x509_parser::x509::AlgorithmIdentifier<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let [intel] = INTEL_CHAIN;
    names(intel.signature_alg_id(), algorithm) && intel.verify_signature(key, message, signature).is_ok()
}

/// Whether an AlgorithmIdentifier has this object identifier and no parameters.
fn names(expected: AlgorithmIdentifier, algorithm: &x509_parser::x509::AlgorithmIdentifier<'_>) -> bool {
    // OBJECT IDENTIFIER, its length, its content: all of webpki's identifier for an algorithm without parameters.
    expected.as_ref().get(2..) == Some(algorithm.algorithm.as_bytes()) && algorithm.parameters.is_none()
}

/// The longest time around `at` in which each of these windows is open if it is open `at`, and shut if it is shut: what
/// was decided from them alone is decided the same throughout.
pub(super) fn steady(windows: impl IntoIterator<Item = Window>, at: u64) -> Window {
    let mut steady = Window { from: 0, until: u64::MAX };
    for window in windows {
        let (from, until) = if window.contains(at) {
            (window.from, window.until)
        } else if at < window.from {
            (0, window.from.saturating_sub(1))
        } else if at > window.until {
            (window.until.saturating_add(1), u64::MAX)
        } else {
            (0, u64::MAX)
        };
        // A window that ends before it begins is shut at every time, and has both of its ends passed over here.
        steady = Window { from: steady.from.max(from), until: steady.until.min(until) };
    }
    steady
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_steady_time_changes_nothing_and_reaches_as_far_as_it_can(
            ends in proptest::collection::vec((0u64..40, 0u64..40), 0..6),
            at in 0u64..40,
        ) {
            let windows: Vec<Window> = ends.iter().map(|(from, until)| Window { from: *from, until: *until }).collect();
            let open = |time: u64| windows.iter().map(|window| window.contains(time)).collect::<Vec<_>>();
            let steady = steady(windows.clone(), at);
            prop_assert!(steady.contains(at));
            for time in (0..45).filter(|time| steady.contains(*time)) {
                prop_assert_eq!(open(time), open(at), "{} of {:?}", time, steady);
            }
            if windows.iter().all(|window| window.from <= window.until) && steady.until < u64::MAX {
                prop_assert_ne!(open(steady.until + 1), open(at));
            }
        }
    }
}
