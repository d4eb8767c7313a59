//! Signed statements: a payload that cannot be read before its signature was verified. `Verified` has no public
//! constructor and no decoding, so holding one is the proof that the check was made. Two forms: one of our own between
//! guest and authority, and COSE_Sign1 for what others read as well. Which one is the statement's, never the message's.

use crate::cbor::{self, Items, ParseError};
use crate::cose;
use crate::primitives::{CryptoError, P256_SIGNATURE_MAX, PublicKey, SigningKey};
use ciborium::Value;
use core::marker::PhantomData;
use core::ops::Deref;
use ring::rand::SecureRandom;

/// How a kind of statement is signed and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The array `[payload, signature]`: an ECDSA signature in DER over the label, a zero byte, and the payload.
    Labelled,
    /// A tagged COSE_Sign1 (RFC 9052), ES256, whose protected header names the signer's key and the label as `typ`.
    CoseSign1,
}

/// A type that can be signed: its own label keeps one statement from being taken for another.
pub trait Statement: Sized {
    /// The domain-separation label; of a COSE_Sign1 its `typ`, a media type.
    const LABEL: &'static str;
    /// How it is signed and written.
    const FORM: Form;
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
    /// Of a COSE_Sign1 the protected header, else empty.
    protected: Vec<u8>,
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
    /// None of the keys would have written its header: another algorithm, another kind of statement, another signer.
    Header,
    /// None of the keys made the signature.
    Signature,
    /// The signature is good and the payload does not parse.
    Payload(ParseError),
}

const WHAT: &str = "signed statement";

/// Label, a zero byte, then the payload: no label is a prefix of another with its zero byte.
fn to_be_signed(label: &str, payload: &[u8]) -> Vec<u8> {
    [label.as_bytes(), &[0], payload].concat()
}

impl<T: Statement> Signed<T> {
    /// Signs `statement`.
    pub fn sign(statement: &T, by: &SigningKey, random: &dyn SecureRandom) -> Result<Self, CryptoError> {
        let payload = statement.encode();
        let (protected, signature) = match T::FORM {
            Form::Labelled => (Vec::new(), by.sign(&to_be_signed(T::LABEL, &payload), random)?),
            Form::CoseSign1 => {
                let protected = cose::protected(T::LABEL, by.public());
                let signature = by.sign_fixed(&cose::to_be_signed(&protected, &payload), random)?;
                (protected, signature.to_vec())
            }
        };
        Ok(Self { protected, payload, signature, of: PhantomData })
    }

    /// Verifies the signature under any of `keys` and gives the statement.
    pub fn verify(self, keys: &[PublicKey]) -> Result<Verified<T>, StatementError> {
        match T::FORM {
            Form::Labelled => {
                let message = to_be_signed(T::LABEL, &self.payload);
                if !keys.iter().any(|key| key.verify(&message, &self.signature).is_ok()) {
                    return Err(StatementError::Signature);
                }
            }
            Form::CoseSign1 => {
                let signer = keys.iter().find(|key| cose::protected(T::LABEL, key) == self.protected);
                let signer = signer.ok_or(StatementError::Header)?;
                let message = cose::to_be_signed(&self.protected, &self.payload);
                signer.verify_fixed(&message, &self.signature).map_err(|_| StatementError::Signature)?;
            }
        }
        T::parse(&self.payload).map(Verified).map_err(StatementError::Payload)
    }

    /// As it stands inside of a message: two byte strings, or one that holds the COSE_Sign1.
    pub fn to_value(&self) -> Value {
        match T::FORM {
            Form::Labelled => {
                Value::Array(vec![Value::Bytes(self.payload.clone()), Value::Bytes(self.signature.clone())])
            }
            Form::CoseSign1 => Value::Bytes(self.encode()),
        }
    }

    /// Reads what [`Signed::to_value`] wrote; says nothing about its meaning.
    pub fn from_value(value: Value) -> Result<Self, ParseError> {
        match (T::FORM, value) {
            (Form::Labelled, value) => {
                let mut items = Items::of(value, WHAT)?;
                let (payload, signature) = (items.bytes(T::LIMIT)?, items.bytes(P256_SIGNATURE_MAX)?);
                items.end()?;
                Ok(Self { protected: Vec::new(), payload, signature, of: PhantomData })
            }
            (Form::CoseSign1, Value::Bytes(bytes)) => Self::parse(&bytes),
            (Form::CoseSign1, _) => Err(ParseError::Shape(WHAT)),
        }
    }

    /// The whole as bytes.
    pub fn encode(&self) -> Vec<u8> {
        match T::FORM {
            Form::Labelled => cbor::encode(&self.to_value()),
            Form::CoseSign1 => cose::encode(&self.protected, &self.payload, &self.signature),
        }
    }

    /// Reads what [`Signed::encode`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        match T::FORM {
            Form::Labelled => Self::from_value(cbor::decode(bytes, WHAT)?),
            Form::CoseSign1 => {
                let cose::Parts { protected, payload, signature } = cose::parse(bytes, T::LIMIT)?;
                Ok(Self { protected, payload, signature, of: PhantomData })
            }
        }
    }
}
