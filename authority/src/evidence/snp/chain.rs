//! From a VEK certificate to a pinned AMD root key: ARK, ASK or ASVK, VEK, with dates and revocation. The root is the
//! configured certificate, byte for byte; nothing that a host sends can take its place.

use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use thiserror::Error;
use webpki::{EndEntityCert, Error as PathError, KeyUsage};

use super::tcb::Product;
use crate::evidence::crypto::AMD_CHAIN;
use crate::evidence::endorsements::EndorsementError;
use crate::evidence::x509::{self, RevocationList, Window};

/// Why a VEK does not lead to the configured root.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ChainError {
    #[error("a certificate of the AMD chain is outside of its validity dates")]
    Expired,
    #[error("no revocation list of the configured {0} root is current: import a fresh one")]
    ListExpired(Product),
    #[error("the certificate between VEK and ARK is revoked by AMD's list for {0}")]
    Revoked(Product),
    #[error("the VEK does not chain to the configured ARK-{product}: {reason}")]
    Untrusted { product: Product, reason: String },
}

/// Whether revocation was looked at. Where no list was imported it cannot be, and policy decides what that is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A current list of the root does not name what the chain is made of.
    Checked,
    /// No list of the root is imported.
    NoList,
}

/// One trusted AMD root: the ARK of one product, with what AMD issued under it.
#[derive(Clone, Debug)]
pub struct SnpRoot {
    product: Product,
    ark: Vec<u8>,
    window: Window,
    intermediates: Vec<Vec<u8>>,
    revocations: Vec<RevocationList>,
}

impl SnpRoot {
    /// A root from DER: the ARK, its ASK and ASVK (those that there are), and its revocation lists. Without any list
    /// revocation is not checked; with lists, a current one must be among them when Evidence is judged.
    ///
    /// # Errors
    /// [`EndorsementError`] when the ARK is not self-signed or named for another product, or when an intermediate or a
    /// list is not signed by it. Dates are not looked at here: they are judged at the time of the Evidence.
    pub fn new(
        product: Product,
        ark: &[u8],
        intermediates: &[Vec<u8>],
        revocations: &[Vec<u8>],
    ) -> Result<Self, EndorsementError> {
        let root = x509::certificate(ark).map_err(EndorsementError::amd("ARK"))?;
        if x509::common_name(root.subject()) != Some(&format!("ARK-{product}")) {
            return Err(EndorsementError::Product { certificate: "ARK", product });
        }
        x509::verify_issued(&root, &root).map_err(EndorsementError::amd("ARK"))?;
        for der in intermediates {
            let intermediate = x509::certificate(der).map_err(EndorsementError::amd("ASK or ASVK"))?;
            let name = x509::common_name(intermediate.subject());
            if ![format!("SEV-{product}"), format!("SEV-VLEK-{product}")].iter().any(|good| name == Some(good)) {
                return Err(EndorsementError::Product { certificate: "ASK or ASVK", product });
            }
            x509::verify_issued(&intermediate, &root).map_err(EndorsementError::amd("ASK or ASVK"))?;
        }
        let lists = revocations.iter().map(|der| RevocationList::verify(der, &root));
        Ok(Self {
            product,
            ark: ark.to_vec(),
            window: Window::of(root.validity()).map_err(EndorsementError::amd("ARK"))?,
            intermediates: intermediates.to_vec(),
            revocations: lists.collect::<Result<_, _>>().map_err(EndorsementError::amd("revocation list"))?,
        })
    }

    /// The product that this root speaks for.
    pub fn product(&self) -> Product {
        self.product
    }

    /// Verifies that `vek` was issued under this root and is valid `at` this time. `hint` is an intermediate that the
    /// host sent along, used only as a link of the path.
    pub(super) fn verify(&self, vek: &[u8], hint: Option<&[u8]>, at: u64) -> Result<Revocation, ChainError> {
        if !self.window.contains(at) {
            return Err(ChainError::Expired);
        }
        let untrusted = |reason: PathError| match reason {
            PathError::CertExpired { .. } | PathError::CertNotValidYet { .. } => ChainError::Expired,
            other => ChainError::Untrusted { product: self.product, reason: other.to_string() },
        };
        let (ark, vek) = (CertificateDer::from(self.ark.as_slice()), CertificateDer::from(vek));
        let anchor = [webpki::anchor_from_trusted_cert(&ark).map_err(untrusted)?];
        let links: Vec<CertificateDer<'_>> =
            self.intermediates.iter().map(Vec::as_slice).chain(hint).map(CertificateDer::from).collect();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let end_entity = EndEntityCert::try_from(&vek).map_err(untrusted)?;
        let path = end_entity
            .verify_for_usage(&AMD_CHAIN, &anchor, &links, time, KeyUsage::client_auth(), None, None)
            .map_err(untrusted)?;
        let serials: Vec<&[u8]> = path.intermediate_certificates().map(|link| link.serial()).collect();
        let [serial] = serials.as_slice() else {
            let reason = "there must be exactly one certificate between them".to_owned();
            return Err(ChainError::Untrusted { product: self.product, reason });
        };
        self.not_revoked(serial, at)
    }

    /// Being on any list, however old, revokes; but only a current list shows that nothing was added.
    fn not_revoked(&self, serial: &[u8], at: u64) -> Result<Revocation, ChainError> {
        if self.revocations.iter().any(|list| list.lists(serial)) {
            return Err(ChainError::Revoked(self.product));
        }
        if self.revocations.is_empty() {
            return Ok(Revocation::NoList);
        }
        if !self.revocations.iter().any(|list| list.window.contains(at)) {
            return Err(ChainError::ListExpired(self.product));
        }
        Ok(Revocation::Checked)
    }
}
