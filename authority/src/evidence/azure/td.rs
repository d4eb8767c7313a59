//! The TDREPORT inside of an HCL report against the TDX quote that was made from it. A TDREPORT is authenticated by a MAC
//! that only its own processor can check, so all of its truth is the quote's: each field that both have must be equal,
//! and the rest must have the form that the TDX module gives it (TDX module ABI 348551, TDREPORT_STRUCT; read with
//! `az-cvm-vtpm`, which compares nothing).
//!
//! Not compared, because a quote does not hold them and nothing is concluded from them: CPUSVN and the MAC itself.

use aws_lc_rs::digest::{SHA384, digest};
use az_cvm_vtpm::tdx::{ReportMac, TdInfo, TdReport};
use thiserror::Error;

use crate::evidence::claims::TdxClaims;
use crate::evidence::fields::Fields;

/// TDREPORT of a TD: type 0x81, no subtype.
const TD: [u8; 2] = [0x81, 0];

/// The field in which a TDREPORT is not that of the quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::evidence) enum TdReportError {
    #[error("the TDREPORT in the HCL report: {0} is not as a TDX module writes it")]
    Form(&'static str),
    #[error("{0} of the TDX quote is not that of the TDREPORT in the HCL report")]
    Differs(&'static str),
}

/// Compares; `bytes` are the 1,024 that `report` was read from, `report_data` and `claims` are the quote's.
pub(super) fn compare(
    bytes: &[u8],
    report: &TdReport,
    claims: &TdxClaims,
    report_data: &[u8; 64],
) -> Result<(), TdReportError> {
    form(bytes, &report.report_mac)?;
    let TdInfo { attributes, xfam, mrtd, mrconfigid, mrowner, mrownerconfig, rtmr, _reserved } = &report.tdinfo;
    let rtmrs = rtmr.iter().zip(&claims.rtmrs).all(|(report, quote)| report.register_data == *quote);
    // A TD 1.0 quote does not speak of service TDs: then there must be none.
    let service_td = claims.mr_service_td.unwrap_or([0; 48]);
    let (service, rest) = _reserved.split_first_chunk::<48>().ok_or(TdReportError::Form("TDINFO"))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(TdReportError::Form("a reserved field of TDINFO"));
    }
    let equal = [
        ("REPORTDATA", report.report_mac.reportdata == *report_data),
        ("TDATTRIBUTES", *attributes == claims.td_attributes.bits().to_le_bytes()),
        ("XFAM", *xfam == claims.xfam.to_le_bytes()),
        ("MRTD", *mrtd == claims.mrtd),
        ("MRCONFIGID", *mrconfigid == claims.mr_config_id),
        ("MROWNER", *mrowner == claims.mr_owner),
        ("MROWNERCONFIG", *mrownerconfig == claims.mr_owner_config),
        ("an RTMR", rtmrs),
        ("SERVTD_HASH", *service == service_td),
    ];
    if let Some((field, _)) = equal.into_iter().find(|(_, equal)| !equal) {
        return Err(TdReportError::Differs(field));
    }
    tcb(report, claims)
}

/// Type, hashes and reserved fields.
fn form(bytes: &[u8], mac: &ReportMac) -> Result<(), TdReportError> {
    let kind = &mac.reporttype;
    if [kind.r#type, kind.subtype] != TD || kind.version > 1 || kind._reserved != 0 {
        return Err(TdReportError::Form("REPORTTYPE"));
    }
    // REPORTMACSTRUCT 256 bytes, TEE_TCB_INFO 239, reserved 17, TDINFO 512.
    let parts = (bytes.get(256..495), bytes.get(495..512), bytes.get(512..));
    let (Some(tcb), Some(reserved), Some(info)) = parts else { return Err(TdReportError::Form("TDREPORT")) };
    let hashes =
        [("the hash of TDINFO", info, &mac.tee_info_hash), ("the hash of TEE_TCB_INFO", tcb, &mac.tee_tcb_info_hash)];
    if let Some((field, ..)) = hashes.into_iter().find(|(_, bytes, hash)| digest(&SHA384, bytes).as_ref() != *hash) {
        return Err(TdReportError::Form(field));
    }
    let mut reserved = mac._reserved_1.iter().chain(&mac._reserved_2).chain(reserved);
    if reserved.any(|byte| *byte != 0) { Err(TdReportError::Form("a reserved field")) } else { Ok(()) }
}

/// TEE_TCB_INFO: the TDX module, as the quote names it.
fn tcb(report: &TdReport, claims: &TdxClaims) -> Result<(), TdReportError> {
    let mut fields = Fields::of(&report.tee_tcb_info, "TEE_TCB_INFO");
    let mut read = || {
        fields.block(8)?;
        Ok::<_, crate::evidence::fields::FieldError>((fields.array::<16>()?, fields.array::<48>()?))
    };
    let (svn, module) = read().map_err(|_| TdReportError::Form("TEE_TCB_INFO"))?;
    match (svn == claims.tee_tcb_svn, module == claims.mr_seam) {
        (true, true) => Ok(()),
        (false, _) => Err(TdReportError::Differs("TEE_TCB_SVN")),
        (_, false) => Err(TdReportError::Differs("MRSEAM")),
    }
}
