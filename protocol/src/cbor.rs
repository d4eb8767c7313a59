//! Strict CBOR: one value, deterministically encoded (RFC 8949 §4.2), every byte used. Trusts nothing: depth, element
//! counts and text lengths are bounded, and an encoding other than the one we would have made is refused, so that two
//! different byte strings can never mean the same message.
//!
//! Messages of ours are arrays. Maps and negative integers, which claims sets and COSE headers are made of, are read by an
//! entry of their own ([`decode_claims`]), so that no message accepts more for their sake.

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

/// Encodes a value that this crate composed of arrays, maps, text, bytes, integers, booleans and null.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to memory cannot fail; an empty result would be refused by every decoder.
    if ciborium::into_writer(value, &mut out).is_err() {
        out.clear();
    }
    out
}

/// A map with integer keys, in the order of RFC 8949 §4.2.1: bytewise by the keys' encodings. Of the keys used here none
/// is longer and yet bytewise lower than another, so this is the older length-first order (§4.2.3) as well.
pub fn map(mut entries: Vec<(i64, Value)>) -> Value {
    entries.sort_by_cached_key(|(key, _)| encode(&Value::from(*key)));
    Value::Map(entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect())
}

/// Which kinds of CBOR items may occur.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kinds {
    /// Unsigned, bytes, text, array, false, true, null.
    Messages,
    /// These, negative integers, and maps whose keys are integers or texts in strictly ascending order.
    Claims,
}

/// Decodes exactly one deterministically encoded value of the kinds that our messages use.
pub fn decode(bytes: &[u8], what: &'static str) -> Result<Value, ParseError> {
    decode_of(bytes, Kinds::Messages, what)
}

/// Decodes exactly one deterministically encoded value that may hold maps and negative integers beside what messages
/// hold. Every map has its keys in ascending order of their encodings and none twice (RFC 8949 §4.2.1, §5.6).
pub fn decode_claims(bytes: &[u8], what: &'static str) -> Result<Value, ParseError> {
    decode_of(bytes, Kinds::Claims, what)
}

fn decode_of(bytes: &[u8], kinds: Kinds, what: &'static str) -> Result<Value, ParseError> {
    // A value in memory is many times its encoding: what is no message of ours is refused before it is built.
    if scan(bytes, kinds, MAX_DEPTH, &mut MAX_TOTAL.clone()).is_none_or(|rest| !rest.is_empty()) {
        return Err(ParseError::NotCbor(what));
    }
    let value: Value =
        ciborium::de::from_reader_with_recursion_limit(bytes, MAX_DEPTH).map_err(|_| ParseError::NotCbor(what))?;
    if encode(&value) == bytes { Ok(value) } else { Err(ParseError::NotDeterministic(what)) }
}

/// Walks over one item of the allowed kinds, with definite lengths, and gives what follows it. `depth` and `budget` bound
/// the walk.
fn scan<'a>(bytes: &'a [u8], kinds: Kinds, depth: usize, budget: &mut usize) -> Option<&'a [u8]> {
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
        1 if kinds == Kinds::Claims => Some(rest),
        2 | 3 => rest.get(usize::try_from(argument).ok()?..),
        4 => {
            let depth = depth.checked_sub(1)?;
            for _ in 0..argument {
                rest = scan(rest, kinds, depth, budget)?;
            }
            Some(rest)
        }
        5 if kinds == Kinds::Claims => scan_entries(rest, argument, depth.checked_sub(1)?, budget),
        7 if (20..=22).contains(&argument) && width == 0 => Some(rest),
        _ => None,
    }
}

/// Walks over the entries of a map. Ascending order is looked at here, because [`encode`] writes a map in the order in
/// which it was read and would find nothing wrong.
fn scan_entries<'a>(mut rest: &'a [u8], entries: u64, depth: usize, budget: &mut usize) -> Option<&'a [u8]> {
    let mut last: &[u8] = &[];
    for _ in 0..entries {
        // Integers and texts only: the first three bits are 0, 1 or 3.
        if !matches!(rest.first()? >> 5, 0 | 1 | 3) {
            return None;
        }
        let after = scan(rest, Kinds::Claims, depth, budget)?;
        let key = rest.get(..rest.len().checked_sub(after.len())?)?;
        // No key is empty, so the first one always ascends.
        if key <= last {
            return None;
        }
        last = key;
        rest = scan(after, Kinds::Claims, depth, budget)?;
    }
    Some(rest)
}

/// One element or claim, to be read as what it should be.
pub struct Field {
    what: &'static str,
    value: Value,
}

impl Field {
    /// As it is.
    pub fn value(self) -> Value {
        self.value
    }

    /// A text of at most `limit` bytes.
    pub fn text(self, limit: usize) -> Result<String, ParseError> {
        match self.value {
            Value::Text(text) if text.len() <= limit => Ok(text),
            Value::Text(_) => Err(ParseError::Length(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// A byte string of at most `limit` bytes.
    pub fn bytes(self, limit: usize) -> Result<Vec<u8>, ParseError> {
        match self.value {
            Value::Bytes(bytes) if bytes.len() <= limit => Ok(bytes),
            Value::Bytes(_) => Err(ParseError::Length(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// A byte string of exactly `N` bytes.
    pub fn array<const N: usize>(self) -> Result<[u8; N], ParseError> {
        let what = self.what;
        self.bytes(N)?.try_into().map_err(|_| ParseError::Length(what))
    }

    /// An unsigned integer.
    pub fn unsigned(self) -> Result<u64, ParseError> {
        match self.value {
            Value::Integer(number) => u64::try_from(number).map_err(|_| ParseError::Shape(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// An integer from −128 to 127.
    pub fn small(self) -> Result<i8, ParseError> {
        match self.value {
            Value::Integer(number) => i8::try_from(number).map_err(|_| ParseError::Shape(self.what)),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// A boolean.
    pub fn boolean(self) -> Result<bool, ParseError> {
        match self.value {
            Value::Bool(value) => Ok(value),
            _ => Err(ParseError::Shape(self.what)),
        }
    }

    /// An array.
    pub fn items(self) -> Result<Items, ParseError> {
        Items::of(self.value, self.what)
    }

    /// A map.
    pub fn entries(self) -> Result<Entries, ParseError> {
        Entries::of(self.value, self.what)
    }
}

/// The entries of one map, taken in their one order; the reader must be emptied. Which keys there are is known to whoever
/// reads: a key that is not asked for stops the reading, so nothing can travel unseen.
pub struct Entries {
    what: &'static str,
    entries: std::vec::IntoIter<(Value, Value)>,
}

impl Entries {
    /// Opens a map.
    pub fn of(value: Value, what: &'static str) -> Result<Self, ParseError> {
        match value {
            Value::Map(entries) if entries.len() <= MAX_ELEMENTS => Ok(Self { what, entries: entries.into_iter() }),
            Value::Map(_) => Err(ParseError::Length(what)),
            _ => Err(ParseError::Shape(what)),
        }
    }

    /// What stands under `key`, which must be the next one. Keys are asked for in ascending order of their encodings:
    /// 0, 1, 2 …, then −1, −2 ….
    pub fn at(&mut self, key: i64) -> Result<Field, ParseError> {
        self.at_optional(key)?.ok_or(ParseError::Shape(self.what))
    }

    /// The same, where the entry may be left out.
    pub fn at_optional(&mut self, key: i64) -> Result<Option<Field>, ParseError> {
        if self.entries.as_slice().first().is_none_or(|(next, _)| *next != Value::from(key)) {
            return Ok(None);
        }
        let what = self.what;
        Ok(self.entries.next().map(|(_, value)| Field { what, value }))
    }

    /// The next entry, whose key is a text of at most `limit` bytes.
    pub fn named(&mut self, limit: usize) -> Result<(String, Field), ParseError> {
        let (key, value) = self.entries.next().ok_or(ParseError::Shape(self.what))?;
        let name = Field { what: self.what, value: key }.text(limit)?;
        Ok((name, Field { what: self.what, value }))
    }

    /// Nothing may be left.
    pub fn end(mut self) -> Result<(), ParseError> {
        if self.entries.next().is_none() { Ok(()) } else { Err(ParseError::Shape(self.what)) }
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

    fn field(&mut self) -> Result<Field, ParseError> {
        Ok(Field { what: self.what, value: self.value()? })
    }

    /// The next element as it is.
    pub fn value(&mut self) -> Result<Value, ParseError> {
        self.items.next().ok_or(ParseError::Shape(self.what))
    }

    /// The next element, a text of at most `limit` bytes.
    pub fn text(&mut self, limit: usize) -> Result<String, ParseError> {
        self.field()?.text(limit)
    }

    /// The next element, a byte string of at most `limit` bytes.
    pub fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, ParseError> {
        self.field()?.bytes(limit)
    }

    /// The next element, a byte string of exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        self.field()?.array()
    }

    /// The next element, null or a byte string of at most `limit` bytes.
    pub fn optional_bytes(&mut self, limit: usize) -> Result<Option<Vec<u8>>, ParseError> {
        match self.field()? {
            Field { value: Value::Null, .. } => Ok(None),
            field => field.bytes(limit).map(Some),
        }
    }

    /// The next element, an unsigned integer.
    pub fn unsigned(&mut self) -> Result<u64, ParseError> {
        self.field()?.unsigned()
    }

    /// The next element, a boolean.
    pub fn boolean(&mut self) -> Result<bool, ParseError> {
        self.field()?.boolean()
    }

    /// The next element, an array of its own.
    pub fn items(&mut self) -> Result<Items, ParseError> {
        self.field()?.items()
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
    fn claims_are_read_by_an_entry_of_their_own() {
        // {1: -7}, and -1.
        for bytes in [&[0xa1, 0x01, 0x26][..], &[0x20]] {
            assert_eq!(decode(bytes, "t").unwrap_err(), ParseError::NotCbor("t"), "{bytes:02x?}");
            assert_eq!(encode(&decode_claims(bytes, "t").unwrap()), bytes);
        }
        // Ascending: 1, 266, -1, -2, "a". The last two of {1, 266, -1} show that order is bytewise and not by number.
        let keys: &[&[u8]] = &[&[0x01], &[0x19, 0x01, 0x0a], &[0x20], &[0x21], &[0x61, 0x61]];
        for (first, low) in keys.iter().enumerate() {
            for (second, high) in keys.iter().enumerate() {
                let bytes = [&[0xa2][..], low, &[0x00], high, &[0x00]].concat();
                let outcome = decode_claims(&bytes, "t");
                assert_eq!(outcome.is_ok(), first < second, "{bytes:02x?}");
            }
        }
        // A key that is bytes, an array, null or a map; a map cut short; tags and floats as ever.
        for bytes in [
            &[0xa1, 0x41, 0x00, 0x00][..],
            &[0xa1, 0x80, 0x00],
            &[0xa1, 0xf6, 0x00],
            &[0xa1, 0xa0, 0x00],
            &[0xa1, 0x01],
            &[0xbf, 0xff],
            &[0xd2, 0x80],
            &[0xf9, 0x00, 0x00],
        ] {
            assert_eq!(decode_claims(bytes, "t").unwrap_err(), ParseError::NotCbor("t"), "{bytes:02x?}");
        }
        assert_eq!(decode_claims(&[0xa1, 0x18, 0x01, 0x00], "t").unwrap_err(), ParseError::NotDeterministic("t"));
        let deep = [[0xa1, 0x00].repeat(MAX_DEPTH + 1), vec![0x00]].concat();
        assert_eq!(decode_claims(&deep, "t").unwrap_err(), ParseError::NotCbor("t"));
        assert!(decode_claims(&[&[0xbb][..], &[0xff; 8]].concat(), "t").is_err());
    }

    #[test]
    fn a_map_is_written_in_order_and_read_only_by_who_knows_its_keys() {
        let map = map(vec![(-1, Value::from(3)), (266, Value::from(2)), (1, Value::from(1))]);
        let bytes = encode(&map);
        assert_eq!(bytes, [0xa3, 0x01, 0x01, 0x19, 0x01, 0x0a, 0x02, 0x20, 0x03]);
        let entries = || Entries::of(decode_claims(&bytes, "t").unwrap(), "t").unwrap();
        let mut all = entries();
        assert!(all.at_optional(0).unwrap().is_none());
        let read = [1, 266, -1].map(|key| all.at(key).unwrap().unsigned().unwrap());
        assert_eq!(read, [1, 2, 3]);
        all.end().unwrap();
        let mut skipping = entries();
        assert_eq!(skipping.at(266).err(), Some(ParseError::Shape("t")));
        let mut unfinished = entries();
        unfinished.at(1).unwrap();
        assert_eq!(unfinished.end(), Err(ParseError::Shape("t")));
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

        #[test]
        fn claims_that_decode_are_what_we_would_have_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = decode_claims(&bytes, "t") {
                prop_assert_eq!(encode(&value), &bytes[..]);
            }
            if let Ok(value) = decode(&bytes, "t") {
                prop_assert_eq!(decode_claims(&bytes, "t").unwrap(), value);
            }
        }
    }
}
