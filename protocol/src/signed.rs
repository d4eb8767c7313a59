//! Signed statements: a payload that cannot be read before its signature was verified. `Verified` has no public
//! constructor and no decoding, so holding one is the proof that the check was made.

use crate::cbor::{self, Items, ParseError};
use crate::primitives::{CryptoError, P256_SIGNATURE_MAX, PublicKey, SigningKey};
use ciborium::Value;
use core::marker::PhantomData;
use core::ops::Deref;
use ring::rand::SecureRandom;

/// A type that can be signed: its own label keeps one statement from being taken for another.
pub trait Statement: Sized {
    /// The domain-separation label.
    const LABEL: &'static str;
    /// Longest payload, in bytes.
    const LIMIT: usize;
    /// The payload's deterministic CBOR.
    fn encode(&self) -> Vec<u8>;
    /// Reads the payload, using every byte.
    fn parse(payload: &[u8]) -> Result<Self, ParseError>;
}

/// A statement with its signature, not yet verified and therefore not readable.
#[derive(Clone)]
pub struct Signed<T> {
    payload: Vec<u8>,
    signature: Vec<u8>,
    of: PhantomData<T>,
}

/// A statement whose signature was verified. Made only by [`Signed::verify`].
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What is wrong with a signed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementError {
    /// None of the keys made the signature.
    Signature,
    /// The signature is good and the payload does not parse.
    Payload(ParseError),
}

/// Label, a zero byte, then the payload: no label is a prefix of another with its zero byte.
fn to_be_signed(label: &str, payload: &[u8]) -> Vec<u8> {
    [label.as_bytes(), &[0], payload].concat()
}

impl<T: Statement> Signed<T> {
    /// Signs `statement`.
    pub fn sign(statement: &T, by: &SigningKey, random: &dyn SecureRandom) -> Result<Self, CryptoError> {
        let payload = statement.encode();
        let signature = by.sign(&to_be_signed(T::LABEL, &payload), random)?;
        Ok(Self { payload, signature, of: PhantomData })
    }

    /// Verifies the signature under any of `keys` and gives the statement.
    pub fn verify(self, keys: &[PublicKey]) -> Result<Verified<T>, StatementError> {
        let message = to_be_signed(T::LABEL, &self.payload);
        if !keys.iter().any(|key| key.verify(&message, &self.signature).is_ok()) {
            return Err(StatementError::Signature);
        }
        T::parse(&self.payload).map(Verified).map_err(StatementError::Payload)
    }

    /// The two byte strings as they travel.
    pub fn to_value(&self) -> Value {
        Value::Array(vec![Value::Bytes(self.payload.clone()), Value::Bytes(self.signature.clone())])
    }

    /// Reads the two byte strings; says nothing about their meaning.
    pub fn from_value(value: Value) -> Result<Self, ParseError> {
        let mut items = Items::of(value, "signed statement")?;
        let (payload, signature) = (items.bytes(T::LIMIT)?, items.bytes(P256_SIGNATURE_MAX)?);
        items.end()?;
        Ok(Self { payload, signature, of: PhantomData })
    }

    /// The whole as bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.to_value())
    }

    /// Reads what [`Signed::encode`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::from_value(cbor::decode(bytes, "signed statement")?)
    }
}
