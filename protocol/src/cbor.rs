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
/// Most elements of one message, at all depths: twice what the largest of ours holds.
const MAX_TOTAL: usize = 512;

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

/// Decodes exactly one deterministically encoded value of the kinds that our messages use.
pub fn decode(bytes: &[u8], what: &'static str) -> Result<Value, ParseError> {
    // A value in memory is many times its encoding: what is no message of ours is refused before it is built.
    if scan(bytes, MAX_DEPTH, &mut MAX_TOTAL.clone()).is_none_or(|rest| !rest.is_empty()) {
        return Err(ParseError::NotCbor(what));
    }
    let value: Value =
        ciborium::de::from_reader_with_recursion_limit(bytes, MAX_DEPTH).map_err(|_| ParseError::NotCbor(what))?;
    if encode(&value) == bytes { Ok(value) } else { Err(ParseError::NotDeterministic(what)) }
}

/// Walks over one item of the kinds that our messages use (unsigned, bytes, text, array, false, true, null; definite
/// lengths) and gives what follows it. `depth` and `budget` bound the walk.
fn scan<'a>(bytes: &'a [u8], depth: usize, budget: &mut usize) -> Option<&'a [u8]> {
    *budget = budget.checked_sub(1)?;
    let (&head, rest) = bytes.split_first()?;
    let width = match head & 0x1f {
        0..=23 => 0,
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    let (argument, mut rest) = rest.split_at_checked(width)?;
    let argument = match width {
        0 => u64::from(head & 0x1f),
        _ => argument.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)),
    };
    match head >> 5 {
        0 => Some(rest),
        2 | 3 => rest.get(usize::try_from(argument).ok()?..),
        4 => {
            let depth = depth.checked_sub(1)?;
            for _ in 0..argument {
                rest = scan(rest, depth, budget)?;
            }
            Some(rest)
        }
        7 if (20..=22).contains(&argument) && width == 0 => Some(rest),
        _ => None,
    }
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
        assert_eq!(decode(&[0x01, 0x00], "t").unwrap_err(), ParseError::NotCbor("t"));
    }

    #[test]
    fn what_no_message_of_ours_holds_is_refused_before_it_is_built() {
        let many = [&[0x99, 0x03, 0xe8][..], &[0; 1_000]].concat();
        for bytes in
            [&many[..], &[0xa0], &[0xc0, 0x00], &[0x20], &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], &[0xf7], &[0xf8, 0x14]]
        {
            assert_eq!(decode(bytes, "t").unwrap_err(), ParseError::NotCbor("t"), "{bytes:02x?}");
        }
        // A length or count of 2^64 - 1 with nothing behind it.
        for head in [0x5b, 0x7b, 0x9b] {
            assert!(decode(&[&[head][..], &[0xff; 8]].concat(), "t").is_err());
        }
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
