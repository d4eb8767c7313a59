//! Evidence of an Azure confidential VM as it travels: the paravisor's report (HCL report), which vouches for the key of
//! the virtual TPM, and what that TPM and the hardware's quoting service said. All of it is a claim, as Evidence is.

use crate::cbor::{self, Items, ParseError};
use crate::evidence::BLOB_LIMIT;
use ciborium::Value;

const LABEL: &str = "inwit-azure-quote-v1";
/// Longest TPM structure, in bytes.
const TPM_STRUCTURE_LIMIT: usize = 2_048;
/// Longest HCL report, in bytes: Azure's NV index holds 2,600.
pub const HCL_REPORT_LIMIT: usize = 8_192;

/// What the TPM signed, with the PCR values that it signed over. TPM structures are big-endian, as the TPM gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmAttestation {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// The bare RSASSA-PKCS1-v1_5 signature with SHA-256 by HCLAkPub, 256 bytes.
    pub signature: Vec<u8>,
    /// The values of PCRs 0 to 23 of the SHA-256 bank, in order.
    pub pcrs: [[u8; 32]; 24],
}

/// Carried as [`crate::evidence::Evidence::quote`] of the platforms `azure-snp` and `azure-tdx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureQuote {
    /// The paravisor's report as NV index 0x01400001 holds it, padding included.
    pub hcl_report: Vec<u8>,
    /// Absent where only the report was read: then nothing says what booted.
    pub tpm: Option<TpmAttestation>,
    /// `azure-tdx` only: the TDX quote that the host's service made from the TDREPORT inside of the HCL report.
    pub td_quote: Option<Vec<u8>>,
}

impl AzureQuote {
    /// Deterministic CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let tpm = self.tpm.as_ref().map_or(Value::Null, |tpm| {
            Value::Array(vec![
                Value::Bytes(tpm.attest.clone()),
                Value::Bytes(tpm.signature.clone()),
                Value::Array(tpm.pcrs.iter().map(|pcr| Value::Bytes(pcr.to_vec())).collect()),
            ])
        });
        cbor::encode(&Value::Array(vec![
            Value::Text(LABEL.into()),
            Value::Bytes(self.hcl_report.clone()),
            tpm,
            self.td_quote.as_ref().map_or(Value::Null, |quote| Value::Bytes(quote.clone())),
        ]))
    }

    /// Reads what [`AzureQuote::encode`] wrote, using every byte.
    ///
    /// # Errors
    /// [`ParseError`] names what is not as it should be.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut items = Items::labelled(bytes, LABEL)?;
        let hcl_report = items.bytes(HCL_REPORT_LIMIT)?;
        let tpm = match items.value()? {
            Value::Null => None,
            value => Some(attestation(value)?),
        };
        let td_quote = match items.value()? {
            Value::Null => None,
            Value::Bytes(quote) if quote.len() <= BLOB_LIMIT => Some(quote),
            Value::Bytes(_) => return Err(ParseError::Length(LABEL)),
            _ => return Err(ParseError::Shape(LABEL)),
        };
        items.end()?;
        Ok(Self { hcl_report, tpm, td_quote })
    }
}

fn attestation(value: Value) -> Result<TpmAttestation, ParseError> {
    let mut items = Items::of(value, LABEL)?;
    let attest = items.bytes(TPM_STRUCTURE_LIMIT)?;
    let signature = items.bytes(TPM_STRUCTURE_LIMIT)?;
    let mut list = items.items()?;
    let mut pcrs = [[0; 32]; 24];
    for pcr in &mut pcrs {
        *pcr = list.array()?;
    }
    list.end()?;
    items.end()?;
    Ok(TpmAttestation { attest, signature, pcrs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quote_round_trips(report in proptest::collection::vec(any::<u8>(), 0..100), with_tpm: bool, with_td: bool) {
            let tpm = with_tpm.then(|| TpmAttestation { attest: vec![1; 9], signature: vec![2; 256], pcrs: [[3; 32]; 24] });
            let quote = AzureQuote { hcl_report: report, tpm, td_quote: with_td.then(|| vec![4; 7]) };
            prop_assert_eq!(AzureQuote::parse(&quote.encode()).unwrap(), quote);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = AzureQuote::parse(&bytes);
        }
    }

    #[test]
    fn limits_and_trailing_bytes() {
        let long = AzureQuote { hcl_report: vec![0; HCL_REPORT_LIMIT + 1], tpm: None, td_quote: None };
        assert_eq!(AzureQuote::parse(&long.encode()), Err(ParseError::Length(LABEL)));
        let mut bytes = AzureQuote { hcl_report: vec![0], tpm: None, td_quote: None }.encode();
        bytes.push(0);
        assert!(AzureQuote::parse(&bytes).is_err());
    }
}
