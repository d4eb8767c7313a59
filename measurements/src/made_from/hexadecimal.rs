//! Numbers and digests of a record, in one spelling each.
//!
//! Not trusted: the text. Never guesses a digest's algorithm from anything but its length.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// A number that is written as `0x` and lower-case hexadecimal digits without leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hexadecimal(pub u64);

impl fmt::Display for Hexadecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Hexadecimal {
    fn parse(text: &str) -> Option<Self> {
        let number = u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
        let one = Self(number);
        (one.to_string() == text).then_some(one)
    }
}

/// What a register was extended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum EventDigest {
    Sha256(Digest<32>),
    Sha384(Digest<48>),
}

impl From<Digest<32>> for EventDigest {
    fn from(digest: Digest<32>) -> Self {
        Self::Sha256(digest)
    }
}

impl From<Digest<48>> for EventDigest {
    fn from(digest: Digest<48>) -> Self {
        Self::Sha384(digest)
    }
}

impl fmt::Display for EventDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha384(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for EventDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        if text.len() == 64 { text.parse().map(Self::Sha256) } else { text.parse().map(Self::Sha384) }
    }
}

impl Serialize for Hexadecimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for EventDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that one function turns into a value.
struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Hexadecimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number as 0x and lower-case hexadecimal digits";
        deserializer.deserialize_str(Text { expected, parse: Self::parse })
    }
}

impl<'de> Deserialize<'de> for EventDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a digest as 64 or 96 lower-case hexadecimal characters";
        deserializer.deserialize_str(Text { expected, parse: |text| text.parse().ok() })
    }
}
