//! Strict CBOR: one value, deterministically encoded (RFC 8949 §4.2), every byte used. Trusts nothing: depth, element
//! counts and text lengths are bounded, and an encoding other than the one we would have made is refused, so that two
//! different byte strings can never mean the same message.

use ciborium::Value;
use core::fmt;

/// Longest short text (names, labels), in bytes.
pub const SHORT: usize = 64;
/// Longest text (identifiers, causes), in bytes: WIMSE asks for identifiers of at least 2,048.
pub const TEXT: usize = 2_048;
/// Most elements of any array of ours; the longest list is a certificate chain or the sealed secrets.
const MAX_ELEMENTS: usize = 64;
/// Deepest nesting of any message of ours.
const MAX_DEPTH: usize = 8;

/// What is wrong with bytes that should have been a message. Names the thing that was being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not CBOR, cut short, nested too deep, or followed by more bytes.
    NotCbor(&'static str),
    /// CBOR, but not in the one encoding that is allowed.
    NotDeterministic(&'static str),
    /// An element is missing, superfluous or of another type.
    Shape(&'static str),
    /// An element is longer than its limit or not of its fixed length.
    Length(&'static str),
    /// The label or version is not one that is known here.
    Label(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCbor(what) => write!(f, "{what}: not one complete CBOR value"),
            Self::NotDeterministic(what) => write!(f, "{what}: not deterministically encoded"),
            Self::Shape(what) => write!(f, "{what}: element missing, superfluous or of another type"),
            Self::Length(what) => write!(f, "{what}: element of a length that is not allowed"),
            Self::Label(what) => write!(f, "{what}: unknown label or version"),
        }
    }
}

impl core::error::Error for ParseError {}

/// Encodes a value that this crate composed of arrays, text, bytes, integers, booleans and null.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to memory cannot fail; an empty result would be refused by every decoder.
    if ciborium::into_writer(value, &mut out).is_err() {
        out.clear();
    }
    out
}

/// Decodes exactly one deterministically encoded value.
pub fn decode(bytes: &[u8], what: &'static str) -> Result<Value, ParseError> {
    let value: Value =
        ciborium::de::from_reader_with_recursion_limit(bytes, MAX_DEPTH).map_err(|_| ParseError::NotCbor(what))?;
    if encode(&value) == bytes { Ok(value) } else { Err(ParseError::NotDeterministic(what)) }
}

/// The elements of one array, taken in order; the reader must be emptied.
pub struct Items {
    what: &'static str,
    items: std::vec::IntoIter<Value>,
}

impl Items {
    /// Opens an array.
    pub fn of(value: Value, what: &'static str) -> Result<Self, ParseError> {
        match value {
            Value::Array(items) if items.len() <= MAX_ELEMENTS => Ok(Self { what, items: items.into_iter() }),
            Value::Array(_) => Err(ParseError::Length(what)),
            _ => Err(ParseError::Shape(what)),
        }
    }

    /// Opens the array that `bytes` hold and checks its first element, a label.
    pub fn labelled(bytes: &[u8], label: &'static str) -> Result<Self, ParseError> {
        let mut items = Self::of(decode(bytes, label)?, label)?;
        if items.text(SHORT)? == label { Ok(items) } else { Err(ParseError::Label(label)) }
    }

    /// The next element as it is.
    pub fn value(&mut self) -> Result<Value, ParseError> {
        self.items.next().ok_or(ParseError::Shape(self.what))
    }

    /// The next element, a text of at most `limit` bytes.
    pub fn text(&mut self, limit: usize) -> Result<String, ParseError> {
        match self.value()? {
            Value::Text(text) if text.len() <= limit => Ok(text),
            Value::Text(_) => Err(ParseError::Length(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// The next element, a byte string of at most `limit` bytes.
    pub fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, ParseError> {
        match self.value()? {
            Value::Bytes(bytes) if bytes.len() <= limit => Ok(bytes),
            Value::Bytes(_) => Err(ParseError::Length(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// The next element, a byte string of exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        self.bytes(N)?.try_into().map_err(|_| ParseError::Length(self.what))
    }

    /// The next element, null or a byte string of at most `limit` bytes.
    pub fn optional_bytes(&mut self, limit: usize) -> Result<Option<Vec<u8>>, ParseError> {
        match self.value()? {
            Value::Null => Ok(None),
            Value::Bytes(bytes) if bytes.len() <= limit => Ok(Some(bytes)),
            Value::Bytes(_) => Err(ParseError::Length(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// The next element, an unsigned integer.
    pub fn unsigned(&mut self) -> Result<u64, ParseError> {
        match self.value()? {
            Value::Integer(number) => u64::try_from(number).map_err(|_| ParseError::Shape(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// The next element, a boolean.
    pub fn boolean(&mut self) -> Result<bool, ParseError> {
        match self.value()? {
            Value::Bool(value) => Ok(value),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// The next element, an array of its own.
    pub fn items(&mut self) -> Result<Items, ParseError> {
        let value = self.value()?;
        Self::of(value, self.what)
    }

    /// How many elements are left.
    pub fn left(&self) -> usize {
        self.items.len()
    }

    /// Nothing may be left.
    pub fn end(mut self) -> Result<(), ParseError> {
        if self.items.next().is_none() { Ok(()) } else { Err(ParseError::Shape(self.what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(decode(&[0x01, 0x00], "t").unwrap_err(), ParseError::NotDeterministic("t"));
    }

    #[test]
    fn a_longer_encoding_of_the_same_number_is_refused() {
        assert!(decode(&[0x01], "t").is_ok());
        assert_eq!(decode(&[0x18, 0x01], "t").unwrap_err(), ParseError::NotDeterministic("t"));
    }

    #[test]
    fn indefinite_lengths_are_refused() {
        assert!(decode(&[0x9f, 0x01, 0xff], "t").is_err());
        assert!(decode(&[0x5f, 0x41, 0x00, 0xff], "t").is_err());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut bytes = vec![0x81; 64];
        bytes.push(0x00);
        assert_eq!(decode(&bytes, "t").unwrap_err(), ParseError::NotCbor("t"));
    }

    proptest! {
        #[test]
        fn what_decodes_is_what_we_would_have_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = decode(&bytes, "t") {
                prop_assert_eq!(encode(&value), bytes);
            }
        }
    }
}
