//! Azure confidential VMs: a paravisor inside of the TEE emulates the TPM, and the hardware report is the paravisor's. So
//! the chain is: hardware report (SNP, or TDREPORT and quote) → runtime claims by their hash in REPORT_DATA → HCLAkPub →
//! TPM quote → PCRs → boot log. Nothing further along is read before what is in front of it was found authentic.
//!
//! The launch digest, or MRTD, is that of the paravisor and the firmware; what booted is in the PCRs alone. Without a TPM
//! quote the report is authentic and says nothing about the guest: the appraisal refuses it. Trusts nothing that came with
//! the Evidence; reads no network, and no certificate of the attestation key (it has been seen to certify another key).

mod report;
mod runtime;
mod td;

use az_cvm_vtpm::tdx::TdReport;
use inwit_protocol::azure::{AzureQuote, TpmAttestation};
use inwit_protocol::cbor::ParseError;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use thiserror::Error;

use super::claims::{AzureClaims, AzureTee};
use super::endorsements::Endorsements;
use super::vtpm::{self, VtpmError};
use super::{BoundData, nothing, snp, tdx};
use report::{Hardware, Report, ReportError};
use runtime::RuntimeError;
use td::TdReportError;

/// Why Evidence of an Azure VM is not authentic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum AzureError {
    #[error("the Azure quote: {0}")]
    Quote(ParseError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("the HCL report holds a hardware report of another TEE than the Evidence says")]
    Tee,
    #[error("the runtime claims are not those that the hardware report was made over")]
    Claims,
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("a TDREPORT proves nothing outside of its machine: send the TDX quote made from it (IMDS, /acc/tdquote)")]
    NoTdQuote,
    #[error("the Evidence holds a TDX quote beside an SNP report")]
    Superfluous,
    #[error(transparent)]
    TdReport(#[from] TdReportError),
    #[error("the TPM quote of HCLAkPub: {0}")]
    Tpm(#[from] VtpmError),
}

impl From<AzureError> for Refusal {
    fn from(error: AzureError) -> Self {
        let code = match &error {
            AzureError::Report(
                ReportError::Version(_)
                | ReportError::Request(_)
                | ReportError::RequestVersion(_)
                | ReportError::Type(_)
                | ReportError::Hash(_),
            )
            | AzureError::Runtime(RuntimeError::Key(_)) => RefusalCode::Unsupported,
            AzureError::Quote(_)
            | AzureError::Report(_)
            | AzureError::Tee
            | AzureError::Superfluous
            | AzureError::Runtime(_) => RefusalCode::Malformed,
            AzureError::TdReport(TdReportError::Form(_)) => RefusalCode::Malformed,
            AzureError::Claims | AzureError::TdReport(TdReportError::Differs(_)) => RefusalCode::QuoteSignature,
            AzureError::NoTdQuote => RefusalCode::EvidenceMissing,
            AzureError::Tpm(error) => Self::from(error.clone()).code,
        };
        Self::new(code, error)
    }
}

/// What authentic Evidence says, with the data that it was made over.
pub(super) struct Authenticated {
    pub(super) data: BoundData,
    pub(super) claims: AzureClaims,
}

/// Authenticates an encoded [`AzureQuote`] around an SNP report; `table` is the host's certificate table, possibly empty.
pub(super) fn authenticate_snp(
    quote: &[u8],
    table: &[u8],
    log: &[u8],
    by: &Endorsements,
    at: u64,
) -> Result<Authenticated, Refusal> {
    let quote = AzureQuote::parse(quote).map_err(AzureError::Quote)?;
    // An empty one is one too: the same Evidence in another form.
    if quote.td_quote.is_some() {
        return Err(AzureError::Superfluous.into());
    }
    let report = Report::parse(&quote.hcl_report).map_err(AzureError::from)?;
    let Hardware::Snp(hardware) = report.hardware else { return Err(AzureError::Tee.into()) };
    let snp::Authenticated { report_data, claims } = snp::authenticate(hardware, table, by, at)?;
    booted(&report, report_data, AzureTee::Snp(Box::new(claims)), quote.tpm.as_ref(), log)
}

/// Authenticates an encoded [`AzureQuote`] around a TDREPORT and its quote.
pub(super) fn authenticate_tdx(quote: &[u8], log: &[u8], by: &Endorsements, at: u64) -> Result<Authenticated, Refusal> {
    let quote = AzureQuote::parse(quote).map_err(AzureError::Quote)?;
    let report = Report::parse(&quote.hcl_report).map_err(AzureError::from)?;
    let Hardware::Tdx(hardware) = report.hardware else { return Err(AzureError::Tee.into()) };
    let td_quote = quote.td_quote.as_deref().ok_or(AzureError::NoTdQuote)?;
    // The log is the TPM's. The TD's own registers belong to the paravisor, which extends none.
    let tdx::Authenticated { report_data, claims } = tdx::authenticate(td_quote, &[], by, at)?;
    let read = TdReport::try_from(&report.read).map_err(|_| ReportError::Library("it holds no TDREPORT"));
    let read = read.map_err(AzureError::from)?;
    td::compare(hardware, &read, &claims, &report_data).map_err(AzureError::from)?;
    booted(&report, report_data, AzureTee::Tdx(Box::new(claims)), quote.tpm.as_ref(), log)
}

/// From an authentic hardware report on: runtime claims, the key in them, and what it signed.
fn booted(
    report: &Report<'_>,
    report_data: [u8; 64],
    tee: AzureTee,
    tpm: Option<&TpmAttestation>,
    log: &[u8],
) -> Result<Authenticated, Refusal> {
    if !report.claims_are_in(&report_data) {
        return Err(AzureError::Claims.into());
    }
    let (runtime, key) = runtime::parse(report.claims, &report.read).map_err(AzureError::from)?;
    let Some(tpm) = tpm else {
        nothing(log, "a boot log, and no TPM quote to compare it with")?;
        return Ok(Authenticated {
            data: BoundData::Report(report_data),
            claims: AzureClaims { tee, runtime, tpm: None },
        });
    };
    let quoted = vtpm::vouched(&key, (&tpm.attest, &tpm.signature, &tpm.pcrs), log).map_err(AzureError::from)?;
    Ok(Authenticated {
        data: BoundData::Qualifying(quoted.extra_data),
        claims: AzureClaims { tee, runtime, tpm: Some(quoted.claims) },
    })
}
