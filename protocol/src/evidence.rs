//! Evidence as it travels: which platform it claims to be from, the quote exactly as the hardware gave it, what came
//! with it, and the event log. All of it is a claim; the authority's ladder turns it into something to stand on.

use crate::cbor::{self, Items, ParseError, SHORT};
use ciborium::Value;
use core::fmt;

const LABEL: &str = "inwit-evidence-v1";
const VTPM_LABEL: &str = "inwit-tpm-quote-v1";
/// Longest quote or certificate table, in bytes: the kernel's own limit for a report blob is 32 KiB.
pub const BLOB_LIMIT: usize = 32_768;
/// Longest event log, in bytes: OVMF's is 2 KiB, a distribution's with shim and GRUB some tens of KiB.
pub const EVENT_LOG_LIMIT: usize = 131_072;
/// Longest TPM structure in a quote (attestation, signature, public area), in bytes.
const TPM_STRUCTURE_LIMIT: usize = 2_048;
/// PCRs of a TPM's one bank.
const PCR_COUNT: usize = 24;

/// A kind of platform, found by the guest by asking the kernel and believed by nobody until verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// A TPM 2.0 without a TEE root: never called confidential.
    Vtpm,
    /// An Azure confidential VM on SEV-SNP: a virtual TPM whose key a paravisor inside of the TEE vouches for.
    AzureSnp,
    /// The same on TDX.
    AzureTdx,
}

impl Platform {
    /// The stable text form.
    pub fn text(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Vtpm => "vtpm",
            Self::AzureSnp => "azure-snp",
            Self::AzureTdx => "azure-tdx",
        }
    }

    /// The platform of a text form.
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "snp" => Some(Self::Snp),
            "tdx" => Some(Self::Tdx),
            "vtpm" => Some(Self::Vtpm),
            "azure-snp" => Some(Self::AzureSnp),
            "azure-tdx" => Some(Self::AzureTdx),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The run-time register that the agent extended with its own digest, as the agent says; the Verifier looks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentRegister {
    /// The platform offers none to user space: the launch measurement alone covers the agent.
    Absent,
    /// A TPM PCR, by number.
    Pcr(u8),
    /// A TDX run-time register, by number.
    Rtmr(u8),
}

impl AgentRegister {
    fn to_value(self) -> Value {
        match self {
            Self::Absent => Value::Null,
            Self::Pcr(number) => Value::Array(vec![Value::Text("pcr".into()), Value::Integer(number.into())]),
            Self::Rtmr(number) => Value::Array(vec![Value::Text("rtmr".into()), Value::Integer(number.into())]),
        }
    }

    fn from_value(value: Value) -> Result<Self, ParseError> {
        if value == Value::Null {
            return Ok(Self::Absent);
        }
        let mut items = Items::of(value, LABEL)?;
        let (kind, number) = (items.text(SHORT)?, items.unsigned()?);
        items.end()?;
        let number = u8::try_from(number).map_err(|_| ParseError::Length(LABEL))?;
        match kind.as_str() {
            "pcr" => Ok(Self::Pcr(number)),
            "rtmr" => Ok(Self::Rtmr(number)),
            _ => Err(ParseError::Label(LABEL)),
        }
    }
}

/// Evidence: a claim by a guest about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What it claims to be from.
    pub platform: Platform,
    /// The quote: SNP attestation report (1,184 bytes), TDX quote, or an encoded [`TpmQuote`] or
    /// [`AzureQuote`](crate::azure::AzureQuote).
    pub quote: Vec<u8>,
    /// What came with it (SNP: the certificate table of the extended report). From the host; a cache at most.
    pub endorsements: Vec<u8>,
    /// TCG event log as the kernel shows it; empty where there is none.
    pub event_log: Vec<u8>,
    /// Where the agent measured itself.
    pub agent_register: AgentRegister,
}

impl Evidence {
    /// Deterministic CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Text(LABEL.into()),
            Value::Text(self.platform.text().into()),
            Value::Bytes(self.quote.clone()),
            Value::Bytes(self.endorsements.clone()),
            Value::Bytes(self.event_log.clone()),
            self.agent_register.to_value(),
        ]))
    }

    /// Reads what [`Evidence::encode`] wrote, using every byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut items = Items::labelled(bytes, LABEL)?;
        let platform = Platform::from_text(&items.text(SHORT)?).ok_or(ParseError::Label(LABEL))?;
        let evidence = Self {
            platform,
            quote: items.bytes(BLOB_LIMIT)?,
            endorsements: items.bytes(BLOB_LIMIT)?,
            event_log: items.bytes(EVENT_LOG_LIMIT)?,
            agent_register: AgentRegister::from_value(items.value()?)?,
        };
        items.end()?;
        Ok(evidence)
    }
}

/// A TPM quote with what is needed to verify it. TPM structures are big-endian, exactly as the TPM gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmQuote {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    pub signature: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key.
    pub attestation_key: Vec<u8>,
    /// The values of PCRs 0 to 23 of the SHA-256 bank, in order.
    pub pcrs: [[u8; 32]; PCR_COUNT],
}

impl TpmQuote {
    /// Deterministic CBOR, carried as [`Evidence::quote`].
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Text(VTPM_LABEL.into()),
            Value::Bytes(self.attest.clone()),
            Value::Bytes(self.signature.clone()),
            Value::Bytes(self.attestation_key.clone()),
            Value::Array(self.pcrs.iter().map(|pcr| Value::Bytes(pcr.to_vec())).collect()),
        ]))
    }

    /// Reads what [`TpmQuote::encode`] wrote, using every byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut items = Items::labelled(bytes, VTPM_LABEL)?;
        let attest = items.bytes(TPM_STRUCTURE_LIMIT)?;
        let signature = items.bytes(TPM_STRUCTURE_LIMIT)?;
        let attestation_key = items.bytes(TPM_STRUCTURE_LIMIT)?;
        let mut list = items.items()?;
        let mut pcrs = [[0; 32]; PCR_COUNT];
        for pcr in &mut pcrs {
            *pcr = list.array()?;
        }
        list.end()?;
        items.end()?;
        Ok(Self { attest, signature, attestation_key, pcrs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn evidence_round_trips(quote in proptest::collection::vec(any::<u8>(), 0..100),
                                log in proptest::collection::vec(any::<u8>(), 0..100), register in 0u8..3) {
            let agent_register = match register { 0 => AgentRegister::Absent, 1 => AgentRegister::Pcr(15), _ => AgentRegister::Rtmr(3) };
            let evidence = Evidence { platform: Platform::Tdx, quote, endorsements: vec![], event_log: log, agent_register };
            prop_assert_eq!(Evidence::parse(&evidence.encode()).unwrap(), evidence);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Evidence::parse(&bytes);
            let _ = TpmQuote::parse(&bytes);
        }
    }

    #[test]
    fn limits_and_trailing_bytes() {
        let evidence = Evidence {
            platform: Platform::Snp,
            quote: vec![0; BLOB_LIMIT + 1],
            endorsements: vec![],
            event_log: vec![],
            agent_register: AgentRegister::Absent,
        };
        assert_eq!(Evidence::parse(&evidence.encode()), Err(ParseError::Length(LABEL)));
        let quote = TpmQuote { attest: vec![1], signature: vec![2], attestation_key: vec![3], pcrs: [[4; 32]; 24] };
        let mut bytes = quote.encode();
        assert_eq!(TpmQuote::parse(&bytes).unwrap(), quote);
        bytes.push(0);
        assert!(TpmQuote::parse(&bytes).is_err());
    }
}
