//! Evidence of an Azure confidential VM from files: the paravisor's raw report with a TPM quote and a TDX quote beside it,
//! our own encoding, or the JSON of confidential-containers guest components. All of it is the other side's word: this
//! puts it into one form and judges none of it. A chip's certificate that came along becomes what a host would have sent.

use super::coco_evidence;
use super::evidence::Stop;
use super::evidence_file::labelled;
use super::submission::{REPORT_DATA, Submission};
use inwit_protocol::azure::{AzureQuote, HCL_REPORT_LIMIT, TpmAttestation};
use inwit_protocol::evidence::{BLOB_LIMIT, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};

/// How the paravisor's report begins.
const HCL: &[u8] = b"HCLA";
/// How the label of our encoding begins, whatever its version.
const LABEL: &[u8] = b"inwit-azure-quote-";
/// Longest TPM structure, in bytes.
const STRUCTURE_LIMIT: usize = 2_048;
/// GUID of the VCEK in a certificate table, 63da758d-e664-4564-adc5-f4b93be8accd (GHCB specification 56421).
const VCEK: u128 = 0x63da758d_e664_4564_adc5_f4b93be8accd;

/// What files hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) quote: AzureQuote,
    /// A certificate table, as a host hands it out; empty where no certificate came along.
    pub(super) certificates: Vec<u8>,
}

/// Reads evidence, with the content of the files beside it.
pub(super) fn read(bytes: &[u8], platform: Platform, tpm: Option<&[u8]>, td: Option<Vec<u8>>) -> Result<Arrived, Stop> {
    let mut arrived = evidence(bytes, platform)?;
    if let Some(tpm) = tpm {
        let twice = arrived.quote.tpm.replace(tpm_quote(tpm)?).is_some();
        refuse_twice(twice, "--tpm-quote")?;
    }
    if let Some(td) = td {
        if td.len() > BLOB_LIMIT {
            let cause = format!("a TDX quote has {BLOB_LIMIT} bytes at most, this file has {}", td.len());
            return Err(Refusal::new(RefusalCode::Oversized, cause).into());
        }
        refuse_twice(arrived.quote.td_quote.replace(td).is_some(), "--td-quote")?;
    }
    Ok(arrived)
}

fn refuse_twice(twice: bool, word: &str) -> Result<(), Stop> {
    if twice {
        return Err(Stop::Misused(format!("the evidence holds such a quote already: leave {word} out")));
    }
    Ok(())
}

fn evidence(bytes: &[u8], platform: Platform) -> Result<Arrived, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::new(RefusalCode::EvidenceMissing, "the evidence file is empty"));
    }
    if bytes.starts_with(HCL) {
        if bytes.len() > HCL_REPORT_LIMIT {
            let cause = format!("an HCL report has {HCL_REPORT_LIMIT} bytes at most, this file has {}", bytes.len());
            return Err(Refusal::new(RefusalCode::Oversized, cause));
        }
        let quote = AzureQuote { hcl_report: bytes.to_vec(), tpm: None, td_quote: None };
        return Ok(Arrived { quote, certificates: Vec::new() });
    }
    if labelled(bytes, LABEL) {
        let quote = AzureQuote::parse(bytes).map_err(|error| Refusal::new(RefusalCode::Malformed, error))?;
        return Ok(Arrived { quote, certificates: Vec::new() });
    }
    if bytes.trim_ascii_start().starts_with(b"{") {
        let told = coco_evidence::read(bytes, platform)?;
        return Ok(Arrived { quote: told.quote, certificates: told.vcek.map(|der| table(&der)).unwrap_or_default() });
    }
    let cause = "neither an HCL report (HCLA…), nor inwit Evidence or an inwit Azure quote (CBOR), nor JSON evidence of \
                 az-snp-vtpm or az-tdx-vtpm";
    Err(Refusal::new(RefusalCode::Malformed, cause))
}

/// The certificate table of a host that has only the chip's certificate.
fn table(vcek: &[u8]) -> Vec<u8> {
    const HEAD: u32 = 48;
    // Longer than any table may be: refused by its length where it is read.
    let length = u32::try_from(vcek.len()).unwrap_or(u32::MAX);
    [&VCEK.to_be_bytes()[..], &HEAD.to_le_bytes(), &length.to_le_bytes(), &[0; 24], vcek].concat()
}

/// A TPM's quote as the crate az-cvm-vtpm stores it: JSON, or bincode, which is length and signature, length and
/// attestation, number and values of the PCRs, lengths of eight bytes little-endian.
fn tpm_quote(bytes: &[u8]) -> Result<TpmAttestation, Refusal> {
    if bytes.trim_ascii_start().starts_with(b"{") {
        return coco_evidence::tpm_quote(bytes);
    }
    let stored = || {
        let (signature, rest) = counted(bytes)?;
        let (attest, rest) = counted(rest)?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (values, []) = rest.as_chunks::<32>() else { return None };
        let pcrs: [[u8; 32]; 24] = values.try_into().ok()?;
        (u64::from_le_bytes(*count) == 24).then(|| TpmAttestation {
            attest: attest.to_vec(),
            signature: signature.to_vec(),
            pcrs,
        })
    };
    let cause = "the file of --tpm-quote is no quote with 24 PCR values as az-cvm-vtpm stores it (bincode or JSON)";
    stored().ok_or_else(|| Refusal::new(RefusalCode::Malformed, cause))
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= STRUCTURE_LIMIT)?;
    rest.split_at_checked(length)
}

/// What can be asked only of evidence that brings a TPM's quote.
pub(super) fn coherent(arrived: &Arrived, submission: &Submission) -> Result<(), Stop> {
    if arrived.quote.tpm.is_some() {
        return Ok(());
    }
    if submission.event_log.is_some() {
        let words =
            "--event-log: the log explains a TPM's quote, and the evidence holds none: give it with --tpm-quote";
        return Err(Stop::Misused(words.to_owned()));
    }
    if submission.report_data.as_ref().is_some_and(|expected| expected.0.len() != REPORT_DATA) {
        let words = format!(
            "--report-data: without a TPM's quote it is REPORT_DATA of the hardware's report, exactly {REPORT_DATA} bytes"
        );
        return Err(Stop::Misused(words));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(signature: usize, attest: usize, pcrs: usize) -> Vec<u8> {
        let count = |length: usize| u64::try_from(length).unwrap().to_le_bytes();
        let (signed, said) = (vec![7; signature], vec![8; attest]);
        [&count(signature)[..], &signed, &count(attest), &said, &count(pcrs), &vec![9; pcrs * 32]].concat()
    }

    #[test]
    fn a_stored_quote_is_read_to_its_last_byte() {
        let read = tpm_quote(&stored(256, 122, 24)).unwrap();
        assert_eq!((read.signature.len(), read.attest.len(), read.pcrs), (256, 122, [[9; 32]; 24]));
        for bad in [stored(256, 122, 23), stored(256, 122, 25), stored(2_049, 122, 24), vec![], vec![0xff; 40]] {
            assert_eq!(tpm_quote(&bad).unwrap_err().code, RefusalCode::Malformed);
        }
        let whole = stored(256, 122, 24);
        assert!(tpm_quote(&[&whole[..], &[0]].concat()).is_err());
        assert!(tpm_quote(&whole[..whole.len() - 1]).is_err());
    }

    #[test]
    fn a_certificate_that_came_along_is_what_a_host_would_have_sent() {
        let table = table(&[0x30, 0]);
        assert_eq!(table.len(), 50);
        assert_eq!(table[..16], 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes());
        assert_eq!((&table[16..24], &table[48..]), (&[48, 0, 0, 0, 2, 0, 0, 0][..], &[0x30, 0][..]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0usize..4) {
            let start = [&b""[..], b"HCLA", b"{\"version\":1,", b"\x84\x74inwit-azure-quote-v1"][first];
            let bytes = [start, &bytes].concat();
            let _ = read(&bytes, Platform::AzureSnp, Some(&bytes), Some(bytes.clone()));
            let _ = tpm_quote(&bytes);
        }
    }
}
