//! What the authority holds to authenticate Evidence with: vendors' roots and collateral, as values that were checked
//! when they were loaded. Nothing here comes with Evidence. Empty for a platform means that the platform is refused.

use thiserror::Error;

use super::snp::{Product, SnpRoot, VekCertificate};
use super::tdx::TdxRoot;
use super::x509::X509Error;

/// Roots and collateral of every platform. A default one trusts nothing.
#[derive(Clone, Debug, Default)]
pub struct Endorsements {
    /// AMD's roots, one for each product that is accepted.
    pub snp: Vec<SnpRoot>,
    /// VEK certificates kept here, for hosts that send none. Optional.
    pub veks: Vec<VekCertificate>,
    /// Intel's root (in tests: another one), each with its collateral.
    pub tdx: Vec<TdxRoot>,
    /// TPM attestation keys that are trusted, each by a SHA-256: of its SubjectPublicKeyInfo in DER, or of its TPMT_PUBLIC,
    /// which is the digest in its TPM Name. The Name covers the attributes that make it an attestation key.
    pub vtpm: Vec<[u8; 32]>,
}

/// One dated part of what is imported: a certificate, a revocation list, a signed document. For people who ask how old
/// their endorsements are; authentication looks at the same dates itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// What it is, in the vendor's words, for example `ASK (SEV-Milan)` or `TCB info for FMSPC 90c06f000000`.
    pub name: String,
    /// First second of validity, or when it was issued; unix time.
    pub from: u64,
    /// Last second of validity, or when the next one is due; unix time.
    pub until: u64,
}

/// Why an endorsement cannot be loaded. Spoken to the operator who imports it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndorsementError {
    /// A certificate or list of AMD's does not parse or was not signed by the ARK.
    #[error("{file} of AMD: {reason}; fetch it again from AMD's key distribution service")]
    Amd {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate is not the one of this product.
    #[error("the {certificate} is not the one of {product}: import each product's files together")]
    Product {
        /// Which certificate.
        certificate: &'static str,
        /// The product that it was imported for.
        product: Product,
    },
    /// A certificate is not that of a VCEK or VLEK.
    #[error("not usable as a VEK: {0}")]
    Vek(String),
    /// Intel's root certificate or collateral does not parse.
    #[error("{file} of Intel: {reason}; fetch it again from Intel's provisioning certification service")]
    Intel {
        /// Which file or part.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of Intel's collateral is whole and was not signed under the root that it was handed in with.
    #[error("{file} of Intel: {reason}; import it with its own root")]
    Foreign {
        /// Which part.
        file: &'static str,
        /// Whose it is not.
        reason: String,
    },
}

impl EndorsementError {
    pub(crate) fn amd(file: &'static str) -> impl Fn(X509Error) -> Self {
        move |reason| Self::Amd { file, reason: reason.to_string() }
    }

    pub(crate) fn intel(file: &'static str, reason: impl ToString) -> Self {
        Self::Intel { file, reason: reason.to_string() }
    }
}
