//! SEV-SNP: from a report and what is configured to authenticated claims. Order: form, certificate for exactly this chip
//! and TCB, chain to a pinned ARK, signature over the bytes as received (specification: VCEK 57230, firmware ABI 56860).
//! Trusts nothing that came with the report; reads no network, so a certificate that is not at hand is a refusal.

mod chain;
mod policy_bits;
mod report;
mod table;
mod tcb;
mod vek;

use inwit_protocol::refusal::{Refusal, RefusalCode};
use thiserror::Error;

pub use chain::{Revocation, SnpRoot};
pub use policy_bits::{GuestPolicy, PlatformInfo};
pub use tcb::{Product, SnpTcb};

use super::claims::{FirmwareVersion, SnpClaims, SnpSigner};
use super::crypto::ecdsa_p384;
use super::endorsements::{EndorsementError, Endorsements};
use super::fields::Short;
use chain::ChainError;
use report::{Report, ReportError, SigningKey};
use table::{CertificateTable, TableError};
use vek::{Mismatch, Origin, Vek, VekError};

/// Why an SNP report is not authentic, from the first step that failed to the last.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SnpError {
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("CPUID family {0:#x} model {1:#x} is no product known here")]
    UnknownProduct(u8, u8),
    #[error("no {key} certificate for {product} chip {chip} is at hand: import it")]
    NoCertificate { key: &'static str, product: &'static str, chip: String },
    #[error(transparent)]
    Vek(#[from] VekError),
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error("no AMD root for {0} is configured: import ARK-{0} and what AMD issued under it")]
    NoRoot(Product),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the signature over the SNP report does not verify with the chip's key")]
    Signature,
}

impl SnpError {
    /// The refusal code, and how far the check had come: of several certificates tried, the furthest one is told of.
    fn rank(&self) -> (u8, RefusalCode) {
        match self {
            Self::Report(ReportError::Unsigned) => (0, RefusalCode::QuoteSignature),
            Self::Report(ReportError::Version(_) | ReportError::Algorithm(_) | ReportError::SigningKey(_)) => {
                (0, RefusalCode::Unsupported)
            }
            Self::Report(_) | Self::Table(_) => (0, RefusalCode::Malformed),
            Self::UnknownProduct(..) => (0, RefusalCode::Unsupported),
            Self::NoCertificate { .. } => (0, RefusalCode::EndorsementMissing),
            Self::Vek(_) => (1, RefusalCode::ChainUntrusted),
            Self::Mismatch(Mismatch::TcbLayout(_)) => (2, RefusalCode::Malformed),
            Self::Mismatch(Mismatch::Chip) => (3, RefusalCode::EndorsementMissing),
            Self::Mismatch(_) => (2, RefusalCode::EndorsementMissing),
            Self::NoRoot(_) => (4, RefusalCode::EndorsementMissing),
            Self::Chain(ChainError::Untrusted { .. }) => (5, RefusalCode::ChainUntrusted),
            Self::Chain(ChainError::Expired | ChainError::ListExpired(_)) => (6, RefusalCode::EndorsementExpired),
            Self::Chain(ChainError::Revoked(_)) => (6, RefusalCode::EndorsementRevoked),
            Self::Signature => (7, RefusalCode::QuoteSignature),
        }
    }
}

impl From<SnpError> for Refusal {
    fn from(error: SnpError) -> Self {
        let (_, code) = error.rank();
        Self::new(code, error)
    }
}

/// A VEK certificate kept by the authority, so that hosts need not send it.
#[derive(Clone, Debug)]
pub struct VekCertificate {
    der: Vec<u8>,
    vek: Vek,
}

impl VekCertificate {
    /// Reads a VCEK or VLEK certificate from DER. Its chain is verified whenever it is used.
    ///
    /// # Errors
    /// [`EndorsementError`] when it is not the certificate of a VEK.
    pub fn from_der(der: &[u8]) -> Result<Self, EndorsementError> {
        let vek = Vek::parse(der).map_err(|error| EndorsementError::Vek(error.to_string()))?;
        Ok(Self { der: der.to_vec(), vek })
    }
}

/// Authenticates a report; `table` is the host's certificate table, possibly empty.
pub(super) fn authenticate(quote: &[u8], table: &[u8], by: &Endorsements, at: u64) -> Result<Authenticated, SnpError> {
    let report = Report::parse(quote)?;
    let table = CertificateTable::parse(table)?;
    let stated = match report.cpuid {
        Some([family, model, _]) => {
            Some(Product::from_cpuid(family, model).ok_or(SnpError::UnknownProduct(family, model))?)
        }
        None => None,
    };
    // Said before any certificate is looked at: without a root, nothing else that is missing matters.
    if let Some(product) = stated
        && !by.snp.iter().any(|root| root.product() == product)
    {
        return Err(SnpError::NoRoot(product));
    }
    let (key, hinted) = match report.signing_key {
        SigningKey::Vcek => ("VCEK", table.vcek),
        SigningKey::Vlek => ("VLEK", table.vlek),
    };
    let mut furthest = SnpError::NoCertificate {
        key,
        product: stated.map_or("(product unknown)", Product::name),
        chip: Short(&report.chip_id).to_string(),
    };
    let stored = by.veks.iter().filter(|stored| stored.vek.matches(&report).is_ok());
    let stored = stored.map(|stored| (stored.der.as_slice(), Ok(stored.vek.clone())));
    let hinted = hinted.map(|der| (der, Vek::parse(der)));
    for (der, vek) in stored.chain(hinted) {
        let outcome = vek.map_err(SnpError::from).and_then(|vek| {
            let revocation = verify_with(&report, quote, &vek, der, table.ask, by, at)?;
            claims(&report, &vek, revocation)
        });
        match outcome {
            Ok(claims) => return Ok(Authenticated { report_data: report.report_data, claims }),
            Err(error) if error.rank().0 >= furthest.rank().0 => furthest = error,
            Err(_) => {}
        }
    }
    Err(furthest)
}

/// What an authentic report says, with the data that it was made over.
pub(super) struct Authenticated {
    pub(super) report_data: [u8; 64],
    pub(super) claims: SnpClaims,
}

/// The steps that tie one report to one root through one VEK certificate.
fn verify_with(
    report: &Report,
    quote: &[u8],
    vek: &Vek,
    der: &[u8],
    link: Option<&[u8]>,
    by: &Endorsements,
    at: u64,
) -> Result<Revocation, SnpError> {
    vek.matches(report)?;
    let mut chain = Err(SnpError::NoRoot(vek.product));
    for root in by.snp.iter().filter(|root| root.product() == vek.product) {
        match root.verify(der, link, at) {
            // A root may be configured twice; then what one list says holds for the other too.
            Err(revoked @ ChainError::Revoked(_)) => return Err(revoked.into()),
            Err(error) if chain.is_err() => chain = Err(error.into()),
            Err(_) => {}
            // A root may be configured twice, once with its lists: then they were looked at, or have expired for both.
            Ok(Revocation::Checked) => chain = Ok(Revocation::Checked),
            Ok(Revocation::NoList) => {
                let listed =
                    matches!(chain, Ok(Revocation::Checked) | Err(SnpError::Chain(ChainError::ListExpired(_))));
                if !listed {
                    chain = Ok(Revocation::NoList);
                }
            }
        }
    }
    let revocation = chain?;
    ecdsa_p384(&vek.point, Report::signed(quote), &report.signature).map_err(|_| SnpError::Signature)?;
    Ok(revocation)
}

fn claims(report: &Report, vek: &Vek, revocation: Revocation) -> Result<SnpClaims, SnpError> {
    let product = vek.product;
    let tcb = |bytes| SnpTcb::parse(product, bytes).ok_or(SnpError::Mismatch(Mismatch::TcbLayout(product)));
    let firmware = |[build, minor, major]: [u8; 3]| FirmwareVersion { major, minor, build };
    Ok(SnpClaims {
        version: report.version,
        product,
        revocation,
        signer: match &vek.origin {
            Origin::Chip(_) => SnpSigner::Vcek,
            Origin::Provider(provider) => SnpSigner::Vlek { provider: provider.clone() },
        },
        measurement: report.measurement,
        policy: report.policy,
        vmpl: report.vmpl,
        guest_svn: report.guest_svn,
        family_id: report.family_id,
        image_id: report.image_id,
        host_data: report.host_data,
        id_key_digest: report.id_key_digest,
        author_key_digest: report.author_key_digest,
        report_id: report.report_id,
        migration_agent: (report.report_id_ma != [0xff; 32]).then_some(report.report_id_ma),
        chip_id: report.chip_id,
        reported_tcb: tcb(report.reported_tcb)?,
        committed_tcb: tcb(report.committed_tcb)?,
        current_tcb: tcb(report.current_tcb)?,
        launch_tcb: tcb(report.launch_tcb)?,
        current_firmware: firmware(report.current_firmware),
        committed_firmware: firmware(report.committed_firmware),
        platform_info: report.platform_info,
        mitigations: report.mitigations,
    })
}
