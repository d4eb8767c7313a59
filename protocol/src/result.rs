//! The Attestation Result: what the Verifier says to the Credential Authority and the Key Store, signed even between
//! neighbours in one process, so that issuing and releasing stand on the same rung. It names the mapped identity and
//! the digests of what was appraised; it carries no raw measurement.

use crate::cbor::{self, Items, ParseError, SHORT, TEXT};
use crate::evidence::Platform;
use crate::identity::WorkloadIdentifier;
use crate::primitives::{P256_SPKI_LEN, PublicKey};
use crate::seal::{ENCAPSULATION_KEY_LEN, EncapsulationKey};
use crate::signed::Statement;
use ciborium::Value;

/// What was found about one guest, for one request.
#[derive(Clone)]
pub struct AttestationResult {
    /// Name of the registered workload that the Evidence maps to.
    pub workload: String,
    /// Its stable Workload Identifier, from the mapping and never from the request.
    pub identifier: WorkloadIdentifier,
    /// The platform whose root vouches.
    pub platform: Platform,
    /// Name of the set of Reference Values that matched.
    pub reference_values: String,
    /// The key that Evidence binds.
    pub credential_key: PublicKey,
    /// Where secrets for this guest are sealed to.
    pub encapsulation_key: Option<EncapsulationKey>,
    /// SHA-256 of the binding.
    pub binding: [u8; 32],
    /// SHA-256 of the Evidence.
    pub evidence: [u8; 32],
    /// SHA-256 of the registry entry that was applied.
    pub policy: [u8; 32],
    /// Who may act on it, and nobody else.
    pub audience: String,
    /// Seconds since 1970.
    pub issued_at: u64,
    /// Seconds since 1970; minutes after `issued_at`.
    pub expires_at: u64,
}

impl Statement for AttestationResult {
    const LABEL: &'static str = "inwit-attestation-result-v1";
    const LIMIT: usize = 16_384;

    fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Text(Self::LABEL.into()),
            Value::Text(self.workload.clone()),
            Value::Text(self.identifier.uri().into()),
            Value::Text(self.platform.text().into()),
            Value::Text(self.reference_values.clone()),
            Value::Bytes(self.credential_key.spki().to_vec()),
            self.encapsulation_key.as_ref().map_or(Value::Null, |key| Value::Bytes(key.bytes().to_vec())),
            Value::Bytes(self.binding.into()),
            Value::Bytes(self.evidence.into()),
            Value::Bytes(self.policy.into()),
            Value::Text(self.audience.clone()),
            Value::Integer(self.issued_at.into()),
            Value::Integer(self.expires_at.into()),
        ]))
    }

    fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError::Shape(AttestationResult::LABEL);
        let mut items = Items::labelled(payload, Self::LABEL)?;
        let result = Self {
            workload: items.text(SHORT)?,
            identifier: WorkloadIdentifier::parse(&items.text(TEXT)?).map_err(|_| BAD)?,
            platform: Platform::from_text(&items.text(SHORT)?).ok_or(BAD)?,
            reference_values: items.text(TEXT)?,
            credential_key: PublicKey::from_spki(&items.bytes(P256_SPKI_LEN)?).map_err(|_| BAD)?,
            encapsulation_key: match items.optional_bytes(ENCAPSULATION_KEY_LEN)? {
                Some(bytes) => Some(EncapsulationKey::parse(&bytes).map_err(|_| BAD)?),
                None => None,
            },
            binding: items.array()?,
            evidence: items.array()?,
            policy: items.array()?,
            audience: items.text(TEXT)?,
            issued_at: items.unsigned()?,
            expires_at: items.unsigned()?,
        };
        items.end()?;
        Ok(result)
    }
}
