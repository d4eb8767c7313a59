//! TPM quotes, and the plain vTPM: from a quote and the configured attestation keys to authenticated claims. Such a key is
//! trusted because it is configured, nothing roots it in TEE hardware; so this platform is never called confidential.
//! Order: form, trust in the key, signature, PCR values against the signed digest, boot log against the PCR values (TPM
//! 2.0 library part 2; TCG PC client platform firmware profile). Trusts no byte of the quote or the log.

mod attest;
mod key;
mod rsa;

use inwit_measurements::Digest;
use inwit_protocol::cbor::ParseError;
use inwit_protocol::evidence::TpmQuote;
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use thiserror::Error;

use super::boot_log::{BootLogError, explains_pcrs};
use super::claims::{AttestationKeyTrust, BootEvent, VtpmClaims};
use super::crypto::RsaScheme;
use super::endorsements::Endorsements;
use attest::{Attest, AttestError};
use key::{AttestationKey, KeyError};
pub(super) use rsa::{RsaError, RsaKey};

/// Why a TPM quote is not authentic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum VtpmError {
    #[error("the TPM quote: {0}")]
    Quote(ParseError),
    #[error(transparent)]
    Attest(#[from] AttestError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("no TPM attestation key is configured: import the key of each TPM that is trusted")]
    NoKey,
    #[error("attestation key {0} is not a configured one")]
    Untrusted(Digest<32>),
    #[error("the PCR values beside the quote are not those that the TPM signed")]
    PcrDigest,
    #[error(transparent)]
    BootLog(#[from] BootLogError),
}

impl From<VtpmError> for Refusal {
    fn from(error: VtpmError) -> Self {
        let code = match &error {
            VtpmError::Attest(AttestError::Selection | AttestError::Type(_))
            | VtpmError::Key(KeyError::Algorithm | KeyError::Rsa(_) | KeyError::SignatureAlgorithm) => {
                RefusalCode::Unsupported
            }
            VtpmError::Quote(_) | VtpmError::Attest(_) | VtpmError::Key(KeyError::Field(_) | KeyError::Number) => {
                RefusalCode::Malformed
            }
            VtpmError::Key(KeyError::Attributes(_)) | VtpmError::Untrusted(_) => RefusalCode::ChainUntrusted,
            VtpmError::Key(KeyError::Signature) => RefusalCode::QuoteSignature,
            VtpmError::NoKey => RefusalCode::EndorsementMissing,
            VtpmError::PcrDigest | VtpmError::BootLog(_) => RefusalCode::EventLogMismatch,
        };
        Self::new(code, error)
    }
}

/// What an authentic quote says, with the data that it was made over.
pub(super) struct Authenticated {
    pub(super) extra_data: Vec<u8>,
    pub(super) claims: VtpmClaims,
}

/// Authenticates an encoded [`TpmQuote`] with the boot log of the machine, which has to explain PCRs 0 to 9.
pub(super) fn authenticate(quote: &[u8], log: &[u8], by: &Endorsements) -> Result<Authenticated, VtpmError> {
    let quote = TpmQuote::parse(quote).map_err(VtpmError::Quote)?;
    let key = AttestationKey::parse(&quote.attestation_key)?;
    if by.vtpm.is_empty() {
        return Err(VtpmError::NoKey);
    }
    // The digest that says more counts where both are configured.
    let trust = if by.vtpm.contains(&key.name()) {
        AttestationKeyTrust::ConfiguredName
    } else if by.vtpm.contains(&key.pin()) {
        AttestationKeyTrust::ConfiguredKey
    } else {
        // In full, so that who enrols this machine can compare and configure it. It discloses a public key's digest.
        return Err(VtpmError::Untrusted(Digest::from_bytes(key.pin())));
    };
    key.verify(&quote.attest, &quote.signature)?;
    let attest = over(&quote.attest, &quote.pcrs)?;
    let events = explains_pcrs(log, &quote.pcrs)?;
    Ok(said(attest, quote.pcrs, events, key.pin(), trust))
}

/// Authenticates a bare RSASSA signature and quote by a key that something else vouches for. The boot log has to explain
/// PCRs 0 to 9; where there is none the registers alone count.
pub(super) fn vouched(
    key: &RsaKey,
    (attest, signature, pcrs): (&[u8], &[u8], &[[u8; 32]; 24]),
    log: &[u8],
) -> Result<Authenticated, VtpmError> {
    if !key.signed(RsaScheme::Pkcs1, attest, signature) {
        return Err(KeyError::Signature.into());
    }
    let attest = over(attest, pcrs)?;
    let events = if log.is_empty() { Vec::new() } else { explains_pcrs(log, pcrs)? };
    Ok(said(attest, *pcrs, events, key.digest(), AttestationKeyTrust::Paravisor))
}

/// Parses TPMS_ATTEST and compares the PCR values with it.
fn over(attest: &[u8], pcrs: &[[u8; 32]; 24]) -> Result<Attest, VtpmError> {
    let attest = Attest::parse(attest)?;
    // The digest covers the selected values in ascending order; all are selected, so it is over all of them as they lie.
    if sha256(pcrs.as_flattened()) == attest.pcr_digest { Ok(attest) } else { Err(VtpmError::PcrDigest) }
}

fn said(
    attest: Attest,
    pcrs: [[u8; 32]; 24],
    events: Vec<BootEvent>,
    attestation_key: [u8; 32],
    trust: AttestationKeyTrust,
) -> Authenticated {
    let Attest { extra_data, clock, reset_count, restart_count, clock_safe, firmware_version, pcr_digest: _ } = attest;
    let claims = VtpmClaims {
        pcrs,
        reset_count,
        restart_count,
        clock,
        clock_safe,
        firmware_version,
        attestation_key,
        attestation_key_trust: trust,
        events,
    };
    Authenticated { extra_data, claims }
}
