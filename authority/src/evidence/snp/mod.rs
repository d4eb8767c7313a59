//! SEV-SNP: from a report and what is configured to authenticated claims. Order: form, certificate for exactly this chip
//! and TCB, chain to a pinned ARK, signature over the bytes as received (specification: VCEK 57230, firmware ABI 56860).
//! Trusts nothing that came with the report; reads no network, so a certificate that is not at hand is a refusal.

mod chain;
mod policy_bits;
mod report;
mod table;
mod tcb;
mod vek;

use std::borrow::Cow;
use std::sync::Arc;

use inwit_protocol::refusal::{Refusal, RefusalCode};
use thiserror::Error;

pub use chain::{Revocation, SnpRoot};
pub use policy_bits::{GuestPolicy, PlatformInfo};
pub use tcb::{Product, SnpTcb};

use super::claims::{FirmwareVersion, SnpClaims, SnpSigner};
use super::endorsements::{Dated, EndorsementError, Endorsements};
use super::fields::Short;
use chain::{ChainError, Endorsed};
use report::{Report, ReportError, SigningKey};
use table::{CertificateTable, TableError};
use vek::{Chip, Mismatch, Origin, Vek, VekError};

/// Why an SNP report is not authentic, from the first step that failed to the last.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SnpError {
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("CPUID family {0:#x} model {1:#x} is no product known here")]
    UnknownProduct(u8, u8),
    #[error("the report is from a Venice (CPUID family {0:#x} model {1:#x}), whose certificates are not read here yet")]
    Venice(u8, u8),
    #[error("no VCEK certificate for {0} is at hand: import it")]
    NoVcek(String),
    #[error("no VLEK certificate for {0} is at hand: import your provider's")]
    NoVlek(String),
    #[error("the stored VLEK of {provider} at {tcb} did not sign the report: import that of the report's provider")]
    OtherVlek { provider: String, tcb: SnpTcb },
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
            Self::Report(
                ReportError::Version(_)
                | ReportError::Algorithm(_)
                | ReportError::SigningKey(_)
                | ReportError::Unsigned,
            ) => (0, RefusalCode::Unsupported),
            Self::Report(_) | Self::Table(_) => (0, RefusalCode::Malformed),
            Self::UnknownProduct(..) | Self::Venice(..) => (0, RefusalCode::Unsupported),
            Self::NoVcek(_) | Self::NoVlek(_) => (0, RefusalCode::EndorsementMissing),
            Self::Vek(_) => (1, RefusalCode::ChainUntrusted),
            Self::Mismatch(Mismatch::Kind) => (2, RefusalCode::EndorsementMissing),
            Self::Mismatch(Mismatch::Product(_)) => (3, RefusalCode::EndorsementMissing),
            Self::Mismatch(Mismatch::Chip(_)) => (4, RefusalCode::EndorsementMissing),
            // Nothing that could be imported would do.
            Self::Mismatch(Mismatch::MaskedChip) => (4, RefusalCode::Unsupported),
            Self::Mismatch(Mismatch::TcbLayout(_)) => (5, RefusalCode::Malformed),
            Self::Mismatch(Mismatch::ChipTcb(_) | Mismatch::Tcb { .. }) => (5, RefusalCode::EndorsementMissing),
            Self::NoRoot(_) | Self::OtherVlek { .. } => (6, RefusalCode::EndorsementMissing),
            Self::Chain(ChainError::Untrusted { .. }) => (7, RefusalCode::ChainUntrusted),
            Self::Chain(ChainError::NoLink(_)) => (7, RefusalCode::EndorsementMissing),
            Self::Chain(ChainError::Expired { .. } | ChainError::ListExpired { .. }) => {
                (8, RefusalCode::EndorsementExpired)
            }
            Self::Chain(ChainError::Revoked(_)) => (9, RefusalCode::EndorsementRevoked),
            Self::Signature => (10, RefusalCode::QuoteSignature),
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
    vek: Arc<Vek>,
}

impl VekCertificate {
    /// Reads a VCEK or VLEK certificate from DER. Its chain is verified whenever it is used.
    ///
    /// # Errors
    /// [`EndorsementError`] when it is not the certificate of a VEK.
    pub fn from_der(der: &[u8]) -> Result<Self, EndorsementError> {
        let vek = Vek::parse(der).map_err(|error| EndorsementError::Vek(error.to_string()))?;
        Ok(Self { der: der.to_vec(), vek: Arc::new(vek) })
    }

    /// Its dates, under whose key it is: a chip by the first bytes of its HWID and its patch levels, or a provider.
    pub fn dated(&self) -> Vec<Dated> {
        let Vek { product, tcb, window, .. } = &*self.vek;
        let name = match &self.vek.origin {
            Origin::Chip(chip) => format!("VCEK ({product} chip {}, {tcb})", Short(chip)),
            Origin::Provider(provider) => format!("VLEK ({product}, {provider}, {tcb})"),
        };
        vec![Dated { name, from: window.from, until: window.until }]
    }
}

/// Authenticates a report; `table` is the host's certificate table, possibly empty.
pub(super) fn authenticate(quote: &[u8], table: &[u8], by: &Endorsements, at: u64) -> Result<Authenticated, SnpError> {
    let report = Report::parse(quote)?;
    let table = CertificateTable::parse(table)?;
    let stated = product(&report)?;
    // Said before any certificate is looked at: without a root, nothing else that is missing matters.
    if let Some(product) = stated
        && !by.snp.iter().any(|root| root.product() == product)
    {
        return Err(SnpError::NoRoot(product));
    }
    let sent = match report.signing_key {
        SigningKey::Vcek => table.vcek,
        SigningKey::Vlek => table.vlek,
    };
    let mut furthest = nothing_at_hand(&report, stated);
    let comparable = by.veks.iter().filter(|stored| stored.vek.of_kind(&report).is_ok());
    let stored = comparable.map(|stored| (Source::Store, stored.der.as_slice(), Ok(Cow::Borrowed(&*stored.vek))));
    let sent = sent.map(|der| (Source::Host, der, Vek::parse(der).map(Cow::Owned)));
    for (source, der, vek) in stored.chain(sent) {
        let outcome = vek.map_err(SnpError::from).and_then(|vek| {
            vek.matches(&report)?;
            let endorsed = endorsed(&vek, der, table.ask, by, at)?;
            let signed = endorsed.key().verify(Report::signed(quote), &report.signature);
            signed.map_err(|_| unsigned_by(&vek, source))?;
            claims(&report, &vek, endorsed.revocation)
        });
        match outcome {
            Ok(claims) => return Ok(Authenticated { report_data: report.report_data, claims }),
            Err(error) if error.rank().0 >= furthest.rank().0 => furthest = error,
            Err(_) => {}
        }
    }
    Err(furthest)
}

/// The product that the report's CPUID names; none in version 2, whose VEK has to say it.
fn product(report: &Report) -> Result<Option<Product>, SnpError> {
    let Some([family, model, _]) = report.cpuid else { return Ok(None) };
    match Product::from_cpuid(family, model) {
        None if Product::is_venice(family, model) => Err(SnpError::Venice(family, model)),
        None => Err(SnpError::UnknownProduct(family, model)),
        known => Ok(known),
    }
}

/// Where a VEK certificate is from.
#[derive(Clone, Copy)]
enum Source {
    Store,
    Host,
}

/// That a report was not signed with this key. A VLEK says of a report no more than product and TCB, and every region of
/// a provider has its own: a stored one that did not sign may simply not be the one. The host's own has no such excuse.
fn unsigned_by(vek: &Vek, source: Source) -> SnpError {
    match (source, &vek.origin) {
        (Source::Store, Origin::Provider(provider)) => SnpError::OtherVlek { provider: provider.clone(), tcb: vek.tcb },
        _ => SnpError::Signature,
    }
}

/// What to import, with the parameters under which AMD's key service gives it out. A version 2 report names no product,
/// and without it the components of its TCB are not known: then its bytes are told as they are.
fn nothing_at_hand(report: &Report, stated: Option<Product>) -> SnpError {
    let digits = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let (tcb, chip_id) = (report.reported_tcb, report.chip_id);
    let known = stated.and_then(|product| Some((product, SnpTcb::parse(product, tcb)?)));
    match (report.signing_key, known) {
        (SigningKey::Vcek, _) if chip_id == [0; 64] => Mismatch::MaskedChip.into(),
        (SigningKey::Vcek, Some((product, tcb))) => SnpError::NoVcek(Chip { product, chip_id, tcb }.to_string()),
        (SigningKey::Vlek, Some((product, tcb))) => SnpError::NoVlek(format!("{product} at {tcb}")),
        (SigningKey::Vcek, None) => {
            SnpError::NoVcek(format!("chip {} (product not stated) at TCB {}", digits(&chip_id), digits(&tcb)))
        }
        (SigningKey::Vlek, None) => SnpError::NoVlek(format!("TCB {} (product not stated)", digits(&tcb))),
    }
}

/// What an authentic report says, with the data that it was made over.
pub(super) struct Authenticated {
    pub(super) report_data: [u8; 64],
    pub(super) claims: SnpClaims,
}

/// The VEK under every root of its product. A root may be configured twice: then what the lists of one say holds for the
/// other too, in whichever order they stand.
fn endorsed(vek: &Vek, der: &[u8], link: Option<&[u8]>, by: &Endorsements, at: u64) -> Result<Endorsed, SnpError> {
    let roots = by.snp.iter().filter(|root| root.product() == vek.product);
    let nearness = |outcome: &Result<Endorsed, ChainError>| match outcome {
        Err(ChainError::Untrusted { .. }) => 0,
        Err(ChainError::NoLink(_)) => 1,
        Err(ChainError::Expired { .. }) => 2,
        Ok(Endorsed { revocation: Revocation::NoList, .. }) => 3,
        Err(ChainError::ListExpired { .. }) => 4,
        Ok(Endorsed { revocation: Revocation::Checked, .. }) => 5,
        Err(ChainError::Revoked(_)) => 6,
    };
    let nearest = roots.map(|root| root.verify(vek, der, link, at)).max_by_key(nearness);
    nearest.ok_or(SnpError::NoRoot(vek.product))?.map_err(SnpError::from)
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
