//! The report that Azure's paravisor (OpenHCL) keeps in NV index 0x01400001: header, hardware report, request data,
//! runtime claims as JSON, zeros to the end of the index (little-endian; openhcl_attestation_protocol, `igvm_attest`).
//! Only the hardware report is signed, and only the JSON is in it, by its hash. Header and request data are nobody's
//! word, so they are held to the one form that goes with the rest; of what they say nothing is believed.
//!
//! The zeros are the one second encoding of a report, as for TDX quotes: any number of them is accepted, as the index has
//! grown with the paravisor (2,048, 2,600 and 2,900 bytes so far), and nothing else is.
//!
//! `az-cvm-vtpm` reads the same bytes, but only after the lengths and the hash type were found sound here: it stops the
//! whole program at a hash type other than SHA-256, and compares neither header, hash nor padding.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use az_cvm_vtpm::hcl::{HclReport, ReportType};
use thiserror::Error;

use crate::evidence::fields::{FieldError, Fields};

const REPORT: &str = "the HCL report";
/// Bytes before the runtime claims: header 32, hardware report 1,184, request data 20.
const HEAD: u32 = 1_236;
/// Bytes of the request data.
const REQUEST_DATA: u32 = 20;
/// Request for an attestation key's certificate, which is what the report is made for.
const AK_CERT_REQUEST: u32 = 2;
/// The guest's copy of the request data is always of this version.
const REQUEST_VERSION: u32 = 1;
/// Largest report with its padding, in bytes: above every NV index of a paravisor so far (OpenHCL's
/// MAX_ATTESTATION_INDEX_SIZE is 2,900).
const INDEX_LIMIT: usize = 4_096;
/// Bytes of an SNP report, which fills its place, and of a TDREPORT, after which zeros do.
pub(super) const SNP_REPORT: usize = 1_184;
pub(super) const TD_REPORT: usize = 1_024;

/// Why bytes are not an HCL report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::evidence) enum ReportError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the HCL report does not begin with HCLA")]
    Signature,
    #[error("HCL report version {0} is not known here (1 and 2 are)")]
    Version(u32),
    #[error("the HCL report is one for request type {0}, not for an attestation key (2)")]
    Request(u32),
    #[error("the HCL report says that the paravisor failed, with status {0:#x}")]
    Status(u32),
    #[error("the sizes in the HCL report do not go with each other, or with what an NV index holds")]
    Size,
    #[error("request data of version {0} in the HCL report is not known here (1 is)")]
    RequestVersion(u32),
    #[error("a hardware report of type {0} is not known here (2 is SNP, 4 is TDX)")]
    Type(u32),
    #[error("hash type {0} in the HCL report is not known here (1 to 3 are SHA-256, SHA-384, SHA-512)")]
    Hash(u32),
    #[error("the HCL report cannot be read: {0}")]
    Library(&'static str),
}

/// The hardware report inside: of which TEE, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hardware<'a> {
    /// ATTESTATION_REPORT.
    Snp(&'a [u8]),
    /// TDREPORT. Only the machine that made it can check its authenticator.
    Tdx(&'a [u8]),
}

/// An HCL report of good form. Nothing in it is true yet.
pub(super) struct Report<'a> {
    pub(super) hardware: Hardware<'a>,
    /// The runtime claims exactly as delivered.
    pub(super) claims: &'a [u8],
    hash: &'static Algorithm,
    /// The same report as `az-cvm-vtpm` reads it.
    pub(super) read: HclReport,
}

impl<'a> Report<'a> {
    /// Parses the whole NV index, or the report cut to the size that it states.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ReportError> {
        if bytes.len() > INDEX_LIMIT {
            return Err(ReportError::Size);
        }
        let mut fields = Fields::of(bytes, REPORT);
        let size = header(&mut fields)?;
        let slot = fields.block(SNP_REPORT)?;
        let (data_size, version) = (fields.u32_le()?, fields.u32_le()?);
        let (kind, hash, claims_size) = (fields.u32_le()?, fields.u32_le()?, fields.u32_le()?);
        if version != REQUEST_VERSION {
            return Err(ReportError::RequestVersion(version));
        }
        let sizes = (claims_size.checked_add(HEAD), claims_size.checked_add(REQUEST_DATA));
        if sizes != (Some(size), Some(data_size)) || claims_size == 0 {
            return Err(ReportError::Size);
        }
        let claims = fields.block(usize::try_from(claims_size).map_err(|_| ReportError::Size)?)?;
        let padding = fields.remainder();
        Fields::of(padding, REPORT).zeros(padding.len())?;
        let hash = match hash {
            1 => &SHA256,
            2 => &SHA384,
            3 => &SHA512,
            other => return Err(ReportError::Hash(other)),
        };
        let (hardware, expected) = match kind {
            2 => (Hardware::Snp(slot), ReportType::Snp),
            4 => {
                let mut slot = Fields::of(slot, REPORT);
                let report = slot.block(TD_REPORT)?;
                slot.zeros(SNP_REPORT.saturating_sub(TD_REPORT))?;
                (Hardware::Tdx(report), ReportType::Tdx)
            }
            other => return Err(ReportError::Type(other)),
        };
        let read = HclReport::new(bytes.to_vec()).map_err(|_| ReportError::Library("az-cvm-vtpm refuses it"))?;
        // Two readings of the same bytes; they cannot differ as long as both follow the layout.
        if read.report_type() != expected || read.var_data() != claims {
            return Err(ReportError::Library("az-cvm-vtpm finds other runtime claims in it"));
        }
        Ok(Self { hardware, claims, hash, read })
    }

    /// Whether REPORT_DATA is the hash of the runtime claims, filled up with zeros.
    pub(super) fn claims_are_in(&self, report_data: &[u8; 64]) -> bool {
        let hash = digest(self.hash, self.claims);
        let hash = hash.as_ref();
        report_data.starts_with(hash) && report_data.iter().skip(hash.len()).all(|byte| *byte == 0)
    }
}

/// Reads the header and gives the size that it states.
fn header(fields: &mut Fields<'_>) -> Result<u32, ReportError> {
    if fields.array()? != *b"HCLA" {
        return Err(ReportError::Signature);
    }
    match fields.u32_le()? {
        1 | 2 => {}
        other => return Err(ReportError::Version(other)),
    }
    let size = fields.u32_le()?;
    match (fields.u32_le()?, fields.u32_le()?) {
        (AK_CERT_REQUEST, 0) => {}
        (AK_CERT_REQUEST, status) => return Err(ReportError::Status(status)),
        (other, _) => return Err(ReportError::Request(other)),
    }
    fields.zeros(12)?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use inwit_protocol::primitives::sha256;
    use proptest::prelude::*;

    use super::*;

    const CLAIMS: &[u8] = br#"{"keys":[]}"#;

    /// A report of `kind` around some claims, cut to its size.
    fn report(kind: u32, hash: u32) -> Vec<u8> {
        let length = u32::try_from(CLAIMS.len()).unwrap();
        let header = [u32::from_le_bytes(*b"HCLA"), 2, HEAD + length, 2, 0, 0, 0, 0];
        let request = [REQUEST_DATA + length, 1, kind, hash, length];
        let mut slot = vec![7; TD_REPORT];
        slot.resize(SNP_REPORT, if kind == 2 { 7 } else { 0 });
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        [words(&header), slot, words(&request), CLAIMS.to_vec()].concat()
    }

    #[test]
    fn a_report_is_read_to_its_last_byte() {
        for kind in [2, 4] {
            let bytes = report(kind, 1);
            let read = Report::parse(&bytes).unwrap();
            assert_eq!(read.claims, CLAIMS);
            assert_eq!(matches!(read.hardware, Hardware::Snp(_)), kind == 2);
            for end in 0..bytes.len() {
                assert!(Report::parse(&bytes[..end]).is_err(), "cut at {end}");
            }
            for (length, accepted) in
                [(1_300, true), (2_048, true), (2_600, true), (2_900, true), (4_096, true), (4_097, false)]
            {
                let mut padded = bytes.clone();
                padded.resize(length, 0);
                assert_eq!(Report::parse(&padded).is_ok(), accepted, "{length}");
                for place in [bytes.len(), length - 1] {
                    let mut spoilt = padded.clone();
                    spoilt[place] = 1;
                    assert!(Report::parse(&spoilt).is_err(), "{length}");
                }
            }
        }
    }

    #[test]
    fn header_and_request_data_have_one_form() {
        let good = report(4, 1);
        assert!(Report::parse(&good).is_ok());
        let (mut passed, mut tried) = (Vec::new(), 0);
        for offset in (0..32).chain(1_216..1_236) {
            for value in 0..=u8::MAX {
                let mut bytes = good.clone();
                bytes[offset] = value;
                tried += 1;
                if bytes != good && Report::parse(&bytes).is_ok() {
                    passed.push((offset, value));
                }
            }
        }
        // The other version of the header; other hashes and a report that is read as SNP are found out by REPORT_DATA
        // and by the signature.
        assert_eq!((tried, passed), (52 * 256, vec![(4, 1), (1_224, 2), (1_228, 2), (1_228, 3)]));
        let mut tail = good;
        tail[32 + TD_REPORT] = 1;
        assert_eq!(Report::parse(&tail).err(), Some(ReportError::Field(FieldError::Reserved(REPORT))));
    }

    #[test]
    fn each_hash_type_is_its_own_hash_and_none_stops_the_program() {
        let filled = |hash: &[u8]| {
            let mut data = [0; 64];
            data[..hash.len()].copy_from_slice(hash);
            data
        };
        let data = [&SHA256, &SHA384, &SHA512].map(|hash| filled(digest(hash, CLAIMS).as_ref()));
        assert_eq!(data[0][..32], sha256(CLAIMS));
        for (number, kind) in (1..=3).enumerate() {
            let bytes = report(2, kind);
            let read = Report::parse(&bytes).unwrap();
            for (other, data) in data.iter().enumerate() {
                assert_eq!(read.claims_are_in(data), other == number, "{kind}");
            }
            let mut longer = data[number];
            longer[63] ^= 1;
            assert!(!read.claims_are_in(&longer));
        }
        for unknown in [0, 4, u32::MAX] {
            assert_eq!(Report::parse(&report(2, unknown)).err(), Some(ReportError::Hash(unknown)));
            // What the library would have done with the same bytes.
            let read = HclReport::new(report(2, unknown)).unwrap();
            let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read.var_data_sha256()));
            assert!(stopped.is_err(), "az-cvm-vtpm learned hash type {unknown}");
        }
    }

    proptest! {
        #[test]
        fn damaged_reports_never_panic(position in 0usize..1_247, value: u8, length in 0usize..3_000, kind in 0u32..6) {
            let mut bytes = report(kind, 1);
            bytes[position] = value;
            bytes.resize(length, 0);
            if let Ok(report) = Report::parse(&bytes) {
                prop_assert!(!report.claims_are_in(&[value; 64]));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_700)) {
            let _ = Report::parse(&bytes);
        }
    }
}
