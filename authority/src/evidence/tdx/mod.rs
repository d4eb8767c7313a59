//! TDX: from a quote and what is configured to authenticated claims. The chain, the quoting enclave, the TCB levels and
//! the signatures are the quote verification library's part (`dcap-qvl`, with the configured root); around it stand the
//! strict outer form, the root by value, the choice of collateral, and the checks that the library leaves to its caller.
//! Trusts nothing that came with the quote; reads no network.

mod attributes;
mod collateral;
mod envelope;

use dcap_qvl::intel::parse_pck_extension;
use dcap_qvl::quote::TDReport10;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuotePolicy};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use thiserror::Error;

pub use attributes::{TcbStatus, TdAttributes};
pub use collateral::{TdxPart, TdxRoot};

use super::boot_log::{BootLogError, explains_rtmrs};
use super::claims::{PckFlag, TdxClaims};
use super::endorsements::Endorsements;
use super::fields::Short;
use super::x509::{self, Window, X509Error};
use collateral::{Collateral, NoCollateral, newest};
use envelope::{Envelope, EnvelopeError};

/// XFAM bits that must be one, and those that may be (TDX module ABI 348551, "XFAM").
const XFAM_DEMANDED: u64 = 0x3;
const XFAM_KNOWN: u64 = 0x6_dbe7;

/// Why a TDX quote is not authentic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum TdxError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("no root for TDX is configured: import Intel's SGX root certificate and TDX collateral")]
    NoRoot,
    #[error("the PCK chain of the quote: {0}")]
    Pck(#[from] X509Error),
    #[error("the PCK chain of the quote is not PCK certificate, issuer and root")]
    PckChain,
    #[error("the PCK chain of the quote ends in another root than the configured one")]
    Root,
    #[error("a certificate of the PCK chain is outside of its validity dates")]
    PckExpired,
    #[error("no TDX collateral for FMSPC {0} is at hand: import it")]
    NoCollateral(String),
    #[error("the TDX collateral for FMSPC {0} is not current: import a fresh set")]
    CollateralExpired(String),
    #[error("{reason}")]
    Library { code: RefusalCode, reason: String },
    #[error("the quote's body is not a TD's")]
    Body,
    #[error("PCEID of the PCK certificate and of the TCB info differ")]
    PceId,
    #[error("the quoting enclave's report data is not zero after the key digest")]
    QeReportData,
    #[error("SEAMATTRIBUTES are not zero: the TDX module is not a production one")]
    SeamAttributes,
    #[error("XFAM {0:#x} lacks a demanded CPU feature or has one that is not known here")]
    Xfam(u64),
    #[error(transparent)]
    BootLog(#[from] BootLogError),
}

impl From<TdxError> for Refusal {
    fn from(error: TdxError) -> Self {
        let code = match &error {
            TdxError::Envelope(EnvelopeError::Field(_) | EnvelopeError::Length) | TdxError::Body => {
                RefusalCode::Malformed
            }
            TdxError::Envelope(EnvelopeError::Vendor) => RefusalCode::ChainUntrusted,
            TdxError::Envelope(_) | TdxError::Xfam(_) => RefusalCode::Unsupported,
            TdxError::NoRoot | TdxError::NoCollateral(_) => RefusalCode::EndorsementMissing,
            TdxError::Pck(_) | TdxError::PckChain | TdxError::Root | TdxError::PceId => RefusalCode::ChainUntrusted,
            TdxError::PckExpired | TdxError::CollateralExpired(_) => RefusalCode::EndorsementExpired,
            TdxError::Library { code, .. } => *code,
            TdxError::QeReportData => RefusalCode::QuoteSignature,
            TdxError::SeamAttributes => RefusalCode::DebugEnabled,
            TdxError::BootLog(_) => RefusalCode::EventLogMismatch,
        };
        Self::new(code, error)
    }
}

/// What an authentic quote says, with the data that it was made over.
pub(super) struct Authenticated {
    pub(super) report_data: [u8; 64],
    pub(super) claims: TdxClaims,
}

/// Authenticates a quote of version 4 or 5. `log` is the CCEL event log, or nothing: then only the registers count.
pub(super) fn authenticate(quote: &[u8], log: &[u8], by: &Endorsements, at: u64) -> Result<Authenticated, TdxError> {
    let envelope = Envelope::parse(quote)?;
    if by.tdx.is_empty() {
        return Err(TdxError::NoRoot);
    }
    let chain = collateral::certificates(envelope.pck_chain)?;
    let [pck, issuer, root] = chain.as_slice() else { return Err(TdxError::PckChain) };
    // The same root may be configured several times, each with other collateral.
    let roots = || by.tdx.iter().filter(|trusted| trusted.is(root));
    if roots().next().is_none() {
        return Err(TdxError::Root);
    }
    let certificate = x509::certificate(pck)?;
    if !x509::common_name(certificate.subject()).is_some_and(|name| name.contains("SGX PCK Certificate")) {
        return Err(TdxError::PckChain);
    }
    for der in [pck, issuer] {
        if !Window::of(x509::certificate(der)?.validity())?.contains(at) {
            return Err(TdxError::PckExpired);
        }
    }
    let fmspc = parse_pck_extension(pck).map_err(|_| TdxError::PckChain)?.fmspc;
    let collateral = newest(roots().flat_map(|root| root.of(fmspc)), at).map_err(|reason| match reason {
        NoCollateral::Missing => TdxError::NoCollateral(Short(&fmspc).to_string()),
        NoCollateral::Expired => TdxError::CollateralExpired(Short(&fmspc).to_string()),
    })?;
    // Debugging and service TDs are policy, judged in the appraisal; the library would refuse them without a code.
    let verifier = QuoteVerifier::new(root.clone()).allow_debug(true).allow_service_td(true);
    let verified = verifier
        .verify_with_policy(envelope.quote, &collateral.documents, at, &QuotePolicy::claims_only(at))
        .map_err(|error| library_refusal(&format!("{error:#}")))?;
    let body = verified.report.as_td10().ok_or(TdxError::Body)?;
    further_checks(&verified, body, collateral)?;
    let claims = claims(envelope.version, &verified, body)?;
    if !log.is_empty() {
        explains_rtmrs(log, &claims.rtmrs)?;
    }
    Ok(Authenticated { report_data: body.report_data, claims })
}

/// Checks of Intel's algorithm that the library does not make, and two that are ours.
fn further_checks(verified: &QuoteClaims, body: &TDReport10, collateral: &Collateral) -> Result<(), TdxError> {
    if verified.platform.pck.pce_id != collateral.pce_id {
        return Err(TdxError::PceId);
    }
    if verified.qe.report.report_data.iter().skip(32).any(|byte| *byte != 0) {
        return Err(TdxError::QeReportData);
    }
    if body.seam_attributes != [0; 8] {
        return Err(TdxError::SeamAttributes);
    }
    let xfam = u64::from_le_bytes(body.xfam);
    if xfam & XFAM_DEMANDED != XFAM_DEMANDED || xfam & !XFAM_KNOWN != 0 {
        return Err(TdxError::Xfam(xfam));
    }
    Ok(())
}

/// The library's errors are texts. What they decide here is only which code a refusal carries, never whether there is
/// one; a text that is not known is an untrusted chain.
fn library_refusal(reason: &str) -> TdxError {
    const KNOWN: [(&str, RefusalCode); 15] = [
        ("CertRevoked", RefusalCode::EndorsementRevoked),
        ("TCB status is invalid: Revoked", RefusalCode::TcbTooOld),
        ("No matching TCB level", RefusalCode::TcbTooOld),
        ("is below minimum", RefusalCode::TcbTooOld),
        ("ISV enclave report signature is invalid", RefusalCode::QuoteSignature),
        ("Signature is invalid for qe_report", RefusalCode::QuoteSignature),
        ("QE report hash mismatch", RefusalCode::QuoteSignature),
        ("SEPT_VE_DISABLE", RefusalCode::PolicyForbids),
        ("Reserved bits in TD attributes", RefusalCode::PolicyForbids),
        ("SERVTD_EXT", RefusalCode::PolicyForbids),
        ("TD migration is enabled", RefusalCode::DebugEnabled),
        ("Expired", RefusalCode::EndorsementExpired),
        ("expired", RefusalCode::EndorsementExpired),
        ("NotValidYet", RefusalCode::EndorsementExpired),
        ("in the future", RefusalCode::EndorsementExpired),
    ];
    let code = KNOWN.iter().find(|(text, _)| reason.contains(text)).map(|(_, code)| *code);
    TdxError::Library { code: code.unwrap_or(RefusalCode::ChainUntrusted), reason: reason.to_owned() }
}

fn claims(version: u16, verified: &QuoteClaims, body: &TDReport10) -> Result<TdxClaims, TdxError> {
    let pck = &verified.platform.pck;
    let status = TcbStatus::of(verified.tcb.status).ok_or_else(|| library_refusal("TCB status is invalid: Revoked"))?;
    let current = verified.platform.current_tcb_level.iter().flat_map(|level| &level.advisory_ids);
    let mut advisory_ids: Vec<String> = verified.tcb.advisory_ids.iter().chain(current).cloned().collect();
    advisory_ids.sort();
    advisory_ids.dedup();
    Ok(TdxClaims {
        version,
        mrtd: body.mr_td,
        rtmrs: [body.rt_mr0, body.rt_mr1, body.rt_mr2, body.rt_mr3],
        td_attributes: TdAttributes::of(body.td_attributes),
        xfam: u64::from_le_bytes(body.xfam),
        mr_config_id: body.mr_config_id,
        mr_owner: body.mr_owner,
        mr_owner_config: body.mr_owner_config,
        mr_seam: body.mr_seam,
        mr_service_td: verified.report.as_td15().map(|body| body.mr_service_td),
        tee_tcb_svn: body.tee_tcb_svn,
        tcb_status: status,
        advisory_ids,
        tcb_evaluation_number: verified.tcb.eval_data_number,
        fmspc: pck.fmspc,
        dynamic_platform: flag(pck.dynamic_platform),
        cached_keys: flag(pck.cached_keys),
        smt_enabled: flag(pck.smt_enabled),
    })
}

fn flag(flag: PckCertFlag) -> PckFlag {
    match flag {
        PckCertFlag::False => PckFlag::No,
        PckCertFlag::Undefined => PckFlag::Unstated,
        PckCertFlag::True => PckFlag::Yes,
    }
}
