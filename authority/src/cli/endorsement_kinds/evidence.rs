//! What people keep beside endorsements and what is none: evidence, logs and their parts, told by their first bytes or
//! their shape. It is no revocation list whatever its name, so that a folder may be named in which it lies.

use serde_json::Value;

/// Bytes of an SNP report and of a TDREPORT.
const SNP_REPORT: usize = 1_184;
const TD_REPORT: usize = 1_024;
/// Where an SNP report names its signature algorithm, and the one that there is.
const SNP_ALGORITHM: usize = 0x34;
/// How the first event of a TCG log goes on after its register and type (TCG PC client platform firmware profile §10.4.5).
const LOG_EVENT: usize = 32;

/// What the bytes are, if they are evidence.
pub(super) fn name(bytes: &[u8]) -> Option<&'static str> {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    if begins(b"HCLA") {
        return Some("an Azure HCL report");
    }
    if bytes.get(2..).is_some_and(|rest| rest.starts_with(b"inwit-")) {
        return Some("inwit Evidence or a quote");
    }
    if bytes.len() == SNP_REPORT && matches!(bytes, [2..=5, 0, 0, 0, ..]) && bytes.get(SNP_ALGORITHM) == Some(&1) {
        return Some("an SNP report");
    }
    if matches!(bytes, [3..=5, 0, 2 | 3, 0, 0 | 0x81, 0, 0, 0, ..]) {
        return Some("a TDX or SGX quote");
    }
    if bytes.len() == TD_REPORT && begins(&[0x81]) {
        return Some("a TDREPORT");
    }
    if begins(b"\xffTCG") {
        return Some("a TPM's attestation");
    }
    if begins(b"CCEL") || bytes.get(LOG_EVENT..).is_some_and(|rest| rest.starts_with(b"Spec ID Event03")) {
        return Some("an event log");
    }
    None
}

/// The same for JSON.
pub(super) fn of_json(json: &Value) -> Option<&'static str> {
    let has = |name: &str| json.get(name).is_some();
    if has("hcl_report") || has("tpm_quote") || (has("report") && has("quote")) {
        return Some("JSON evidence of guest components");
    }
    (has("message") && has("pcrs")).then_some("a TPM's quote as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_told_by_its_content_and_nothing_that_could_revoke_is() {
        let mut report = vec![0; SNP_REPORT];
        (report[0], report[SNP_ALGORITHM]) = (3, 1);
        assert_eq!(name(&report), Some("an SNP report"));
        assert_eq!(name(&report[1..]), None);
        assert_eq!(name(&[4, 0, 2, 0, 0x81, 0, 0, 0, 7]), Some("a TDX or SGX quote"));
        assert_eq!(name(b"HCLA"), Some("an Azure HCL report"));
        let log = [&[1, 0, 0, 0, 3, 0, 0, 0][..], &[0; 24], b"Spec ID Event03\0"].concat();
        assert_eq!(name(&log), Some("an event log"));
        for list in [&b"\x30\x82\x01\x00"[..], b"-----BEGIN X509 CRL-----", b"3082", b"{}", b""] {
            assert_eq!(name(list), None);
        }
        assert_eq!(of_json(&serde_json::json!({"tcbInfo": {}, "signature": "", "quote": 1})), None);
        assert!(of_json(&serde_json::json!({"quote": {}, "report": []})).is_some());
    }
}
