//! Fixed-length digests, and the two hash functions that launch measurements are made of.
//!
//! Not trusted: text that is parsed into a digest; only lower-case hexadecimal of the exact length is taken, so that
//! one value has one spelling. Never used for secrets: a digest prints itself.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256, SHA384, digest};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error;

/// `N` bytes of digest: 32 for SHA-256, 48 for SHA-384. Shown and stored as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest<const N: usize>([u8; N]);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DigestError {
    /// The text has another length than two characters a byte.
    #[error("a digest of {expected} bytes is written as {} hexadecimal characters, got {got}", expected * 2)]
    Length {
        /// Bytes of the digest that was asked for.
        expected: usize,
        /// Characters given.
        got: usize,
    },
    /// A character is not one of 0-9, a-f.
    #[error("a digest is written in lower-case hexadecimal, 0-9 and a-f")]
    Character,
}

impl<const N: usize> Digest<N> {
    /// Wraps digest bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The digest bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> From<[u8; N]> for Digest<N> {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> fmt::Display for Digest<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Digest<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Digest<N> {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong_length = DigestError::Length { expected: N, got: text.len() };
        if text.len() != N * 2 {
            return Err(wrong_length);
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(wrong_length) };
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(character: u8) -> Result<u8, DigestError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(DigestError::Character),
    }
}

impl<const N: usize> Serialize for Digest<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Digest<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hexadecimal<const N: usize>;
        impl<const N: usize> Visitor<'_> for Hexadecimal<N> {
            type Value = Digest<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} lower-case hexadecimal characters", N * 2)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest<N>, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hexadecimal)
    }
}

/// SHA-256 of the given bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest<32> {
    fixed(digest(&SHA256, bytes))
}

/// SHA-384 of the given bytes.
#[must_use]
pub fn sha384(bytes: &[u8]) -> Digest<48> {
    fixed(digest(&SHA384, bytes))
}

/// A running SHA-384.
pub(crate) fn sha384_context() -> Context {
    Context::new(&SHA384)
}

/// The result of a running hash whose algorithm has `N` bytes.
pub(crate) fn finish<const N: usize>(context: Context) -> Digest<N> {
    fixed(context.finish())
}

/// `N` always is the output length of the algorithm in question; every caller in this crate pairs the two.
fn fixed<const N: usize>(value: ring::digest::Digest) -> Digest<N> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(value.as_ref());
    Digest(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_spelling() {
        let digest = sha256(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(Digest::<32>::from_str(&text.to_uppercase()), Err(DigestError::Character));
        assert_eq!(Digest::<32>::from_str(&text[1..]), Err(DigestError::Length { expected: 32, got: 63 }));
        assert_eq!(Digest::<48>::from_str(text), Err(DigestError::Length { expected: 48, got: 64 }));
        assert_eq!(Digest::<32>::from_str(&format!("+{}", &text[1..])), Err(DigestError::Character));
    }
}
