//! COSE_Sign1 (RFC 9052 §4.2) in the one form that is used here: tagged, ES256, attached payload, nothing unprotected. The
//! protected header is compared with the one that a known key would have written and never parsed, so no message chooses
//! its algorithm, its type or its key. Knows nothing of what is signed.

use crate::cbor::{self, Items, ParseError};
use crate::primitives::{P256_FIXED_SIGNATURE_LEN, PublicKey};
use ciborium::Value;

/// Tag 18, COSE_Sign1, as it is encoded.
const TAG: u8 = 0xd2;
/// Longest protected header of ours, in bytes.
const PROTECTED_MAX: usize = 128;
/// Header parameters: `alg`, `kid` (RFC 9052 §3.1) and `typ` (RFC 9596).
const ALG: i64 = 1;
const KID: i64 = 4;
const TYP: i64 = 16;
/// ECDSA with SHA-256 (RFC 9053 §2.1); with a P-256 key, as everywhere here.
const ES256: i64 = -7;
const WHAT: &str = "COSE_Sign1";

/// The parts of a COSE_Sign1, none of them verified.
pub(crate) struct Parts {
    /// The encoded protected header.
    pub(crate) protected: Vec<u8>,
    /// What is signed.
    pub(crate) payload: Vec<u8>,
    /// r ‖ s.
    pub(crate) signature: Vec<u8>,
}

/// The protected header of what `by` signs: ES256, the key by its pin, and `typ`, the media type of the whole. Typed
/// explicitly so that no other COSE_Sign1 of the same key can be taken for this one (RFC 9596 §1).
pub(crate) fn protected(typ: &str, by: &PublicKey) -> Vec<u8> {
    cbor::encode(&cbor::map(vec![
        (ALG, Value::from(ES256)),
        (KID, Value::Bytes(by.pin().into())),
        (TYP, Value::Text(typ.into())),
    ]))
}

/// Sig_structure (RFC 9052 §4.4) with no external data.
pub(crate) fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    cbor::encode(&Value::Array(vec![
        Value::Text("Signature1".into()),
        Value::Bytes(protected.to_vec()),
        Value::Bytes(Vec::new()),
        Value::Bytes(payload.to_vec()),
    ]))
}

/// The whole as it travels.
pub(crate) fn encode(protected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let array = cbor::encode(&Value::Array(vec![
        Value::Bytes(protected.to_vec()),
        cbor::map(Vec::new()),
        Value::Bytes(payload.to_vec()),
        Value::Bytes(signature.to_vec()),
    ]));
    [&[TAG], array.as_slice()].concat()
}

/// Takes it apart; says nothing about what it means or who signed. `limit` is the longest payload, in bytes.
pub(crate) fn parse(bytes: &[u8], limit: usize) -> Result<Parts, ParseError> {
    let array = bytes.strip_prefix(&[TAG]).ok_or(ParseError::Label(WHAT))?;
    let mut items = Items::of(cbor::decode_claims(array, WHAT)?, WHAT)?;
    let protected = items.bytes(PROTECTED_MAX)?;
    if items.value()? != Value::Map(Vec::new()) {
        return Err(ParseError::Shape(WHAT));
    }
    let payload = items.bytes(limit)?;
    let signature = items.array::<P256_FIXED_SIGNATURE_LEN>()?.to_vec();
    items.end()?;
    Ok(Parts { protected, payload, signature })
}
