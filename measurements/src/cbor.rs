//! CBOR (RFC 8949) as far as manifests of Reference Values need it: written in the one deterministic encoding, read
//! strictly.
//!
//! Not trusted: the bytes. Depth, items and lengths are bounded, every byte is used, no map has a key twice, lengths are
//! definite. Never allocates more than a small multiple of the input.

use std::borrow::Cow;

use thiserror::Error;

/// Deepest nesting that is read; a CoRIM has about 14 levels.
const MAX_DEPTH: usize = 32;
/// Most items of one document, at all depths.
const MAX_ITEMS: usize = 8192;

/// One data item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// Major type 0.
    Unsigned(u64),
    /// Major type 1: minus one minus the number.
    Negative(u64),
    /// Major type 2.
    Bytes(Cow<'a, [u8]>),
    /// Major type 3.
    Text(Cow<'a, str>),
    /// Major type 4.
    Array(Vec<Item<'a>>),
    /// Major type 5, in the order read; written in ascending order of the encoded keys.
    Map(Vec<(Item<'a>, Item<'a>)>),
    /// Major type 6.
    Tag(u64, Box<Item<'a>>),
    /// False, true or null: 20, 21, 22 of major type 7.
    Simple(u8),
}

/// Why bytes are no CBOR document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CborError {
    /// The input ends inside of an item.
    #[error("it ends in the middle of an item")]
    Truncated,
    /// Bytes follow the document.
    #[error("{0} bytes follow the document")]
    Trailing(usize),
    /// More nesting or more items than any manifest has.
    #[error("it nests deeper than {MAX_DEPTH} levels or has more than {MAX_ITEMS} items")]
    TooMuch,
    /// An indefinite length, a floating-point number or a reserved value.
    #[error("byte {0:#04x} starts an indefinite length, a floating-point number or a reserved value")]
    Unsupported(u8),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A map has the same key twice.
    #[error("a map has the same key twice")]
    DuplicateKey,
}

impl Item<'_> {
    /// A byte string of a copy.
    pub(crate) fn bytes(bytes: &[u8]) -> Item<'static> {
        Item::Bytes(Cow::Owned(bytes.to_vec()))
    }

    /// A text of a copy.
    pub(crate) fn text(text: &str) -> Item<'static> {
        Item::Text(Cow::Owned(text.to_owned()))
    }

    /// A tagged item.
    pub(crate) fn tagged(self, tag: u64) -> Self {
        Self::Tag(tag, Box::new(self))
    }

    /// The deterministic encoding (RFC 8949 section 4.2.1).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Unsigned(number) => head(out, 0, *number),
            Self::Negative(number) => head(out, 1, *number),
            Self::Bytes(bytes) => {
                head(out, 2, length(bytes.len()));
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => {
                head(out, 3, length(text.len()));
                out.extend_from_slice(text.as_bytes());
            }
            Self::Array(items) => {
                head(out, 4, length(items.len()));
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(entries) => {
                head(out, 5, length(entries.len()));
                let mut encoded: Vec<_> = entries.iter().map(|(key, value)| (key.encode(), value)).collect();
                encoded.sort_by(|one, other| one.0.cmp(&other.0));
                for (key, value) in encoded {
                    out.extend(key);
                    value.write(out);
                }
            }
            Self::Tag(tag, item) => {
                head(out, 6, *tag);
                item.write(out);
            }
            Self::Simple(value) => head(out, 7, (*value).into()),
        }
    }
}

/// A map with unsigned keys.
pub(crate) fn map<'a>(entries: impl IntoIterator<Item = (u64, Item<'a>)>) -> Item<'a> {
    Item::Map(entries.into_iter().map(|(key, value)| (Item::Unsigned(key), value)).collect())
}

/// Lengths in memory fit into 64 bits on every machine there is.
fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The shortest head of an item.
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let wide = argument.to_be_bytes();
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | wide[7]),
        24..=0xff => out.extend([major | 24, wide[7]]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&wide[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&wide[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&wide);
        }
    }
}

/// The one document that the bytes hold.
///
/// # Errors
/// [`CborError`].
pub(crate) fn decode(bytes: &[u8]) -> Result<Item<'_>, CborError> {
    let mut reader = Reader { rest: bytes, items: MAX_ITEMS };
    let item = reader.item(MAX_DEPTH)?;
    if reader.rest.is_empty() { Ok(item) } else { Err(CborError::Trailing(reader.rest.len())) }
}

struct Reader<'a> {
    rest: &'a [u8],
    items: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let length = usize::try_from(length).map_err(|_| CborError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CborError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn item(&mut self, depth: usize) -> Result<Item<'a>, CborError> {
        let depth = depth.checked_sub(1).ok_or(CborError::TooMuch)?;
        self.items = self.items.checked_sub(1).ok_or(CborError::TooMuch)?;
        let (&first, rest) = self.rest.split_first().ok_or(CborError::Truncated)?;
        self.rest = rest;
        let width = match first & 0x1f {
            0..=23 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err(CborError::Unsupported(first)),
        };
        let wide = self.take(width)?;
        let argument = match width {
            0 => u64::from(first & 0x1f),
            _ => wide.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        match first >> 5 {
            0 => Ok(Item::Unsigned(argument)),
            1 => Ok(Item::Negative(argument)),
            2 => Ok(Item::Bytes(Cow::Borrowed(self.take(argument)?))),
            3 => {
                let text = std::str::from_utf8(self.take(argument)?).map_err(|_| CborError::Utf8)?;
                Ok(Item::Text(Cow::Borrowed(text)))
            }
            4 => Ok(Item::Array((0..argument).map(|_| self.item(depth)).collect::<Result<_, _>>()?)),
            5 => self.map(argument, depth),
            6 => Ok(self.item(depth)?.tagged(argument)),
            _ if width == 0 && (20..=22).contains(&argument) => Ok(Item::Simple(first & 0x1f)),
            _ => Err(CborError::Unsupported(first)),
        }
    }

    fn map(&mut self, entries: u64, depth: usize) -> Result<Item<'a>, CborError> {
        let mut all: Vec<(Item<'a>, Item<'a>)> = Vec::new();
        for _ in 0..entries {
            let (key, value) = (self.item(depth)?, self.item(depth)?);
            all.push((key, value));
        }
        let mut keys: Vec<_> = all.iter().map(|(key, _)| key.encode()).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(CborError::DuplicateKey);
        }
        Ok(Item::Map(all))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 8949, appendix A.
    #[test]
    fn the_published_examples_are_written_and_read() {
        let array = |items: Vec<Item<'static>>| Item::Array(items);
        for (item, encoded) in [
            (Item::Unsigned(23), &[0x17][..]),
            (Item::Unsigned(24), &[0x18, 0x18]),
            (Item::Unsigned(1000), &[0x19, 0x03, 0xe8]),
            (Item::Unsigned(1_000_000), &[0x1a, 0x00, 0x0f, 0x42, 0x40]),
            (Item::Unsigned(u64::MAX), &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (Item::Negative(9), &[0x29]),
            (Item::Simple(22), &[0xf6]),
            (Item::Unsigned(1_363_896_240).tagged(1), &[0xc1, 0x1a, 0x51, 0x4b, 0x67, 0xb0]),
            (Item::bytes(&[1, 2, 3, 4]), &[0x44, 1, 2, 3, 4]),
            (Item::text("ü"), &[0x62, 0xc3, 0xbc]),
            (array(vec![Item::Unsigned(1), array(vec![])]), &[0x82, 0x01, 0x80]),
            (map([(3, Item::Unsigned(4)), (1, Item::Unsigned(2))]), &[0xa2, 1, 2, 3, 4]),
        ] {
            assert_eq!(item.encode(), encoded, "{item:?}");
            assert_eq!(decode(encoded).unwrap().encode(), encoded, "{item:?}");
        }
    }

    #[test]
    fn each_fault_is_named() {
        let deep = [vec![0x81; MAX_DEPTH + 1], vec![0]].concat();
        let many = [vec![0x99, 0x40, 0x00], vec![0; 0x4000]].concat();
        for (bytes, error) in [
            (&[][..], CborError::Truncated),
            (&[0x19, 0x03], CborError::Truncated),
            (&[0x43, 1, 2], CborError::Truncated),
            (&[0x82, 1], CborError::Truncated),
            (&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], CborError::Truncated),
            (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], CborError::Truncated),
            (&[0x01, 0x00], CborError::Trailing(1)),
            (&[0x9f, 0xff], CborError::Unsupported(0x9f)),
            (&[0xf9, 0x00, 0x00], CborError::Unsupported(0xf9)),
            (&[0x1c], CborError::Unsupported(0x1c)),
            (&[0xf8, 0x16], CborError::Unsupported(0xf8)),
            (&[0x61, 0xff], CborError::Utf8),
            (&[0xa2, 0x01, 0x00, 0x01, 0x00], CborError::DuplicateKey),
            // The same number with a longer head is the same key.
            (&[0xa2, 0x01, 0x00, 0x18, 0x01, 0x00], CborError::DuplicateKey),
            (&deep, CborError::TooMuch),
            (&many, CborError::TooMuch),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(item) = decode(&bytes) {
                let encoded = item.encode();
                prop_assert!(encoded.len() <= bytes.len());
                prop_assert_eq!(decode(&encoded).unwrap().encode(), encoded);
            }
        }
    }
}
