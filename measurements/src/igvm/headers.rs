//! The fixed header of an IGVM file, and the walk over its variable headers.
//!
//! Not trusted: the file. Never looks into a header's fields.

use super::error::IgvmError;
use super::{MAX_FILE_BYTES, MAX_HEADER_BYTES};
use crate::bytes::{array_at, index, slice_at, u32_at};
use crate::ovmf::PAGE_BYTES;

const MAGIC: [u8; 4] = *b"IGVM";
const X64: u32 = 0;
/// Offset and length of the checksum in the fixed header.
const CHECKSUM: usize = 20;
/// Set in the type of headers that a loader may skip.
const OPTIONAL: u32 = 1 << 31;

/// Where the parts of a file are.
pub(super) struct Regions<'a> {
    /// The variable headers.
    pub(super) headers: &'a [u8],
    /// Their offset in the file.
    pub(super) headers_start: usize,
    /// Offset of the first byte behind them.
    pub(super) data_start: usize,
}

/// Checks the fixed header and its checksum.
pub(super) fn regions(file: &[u8]) -> Result<Regions<'_>, IgvmError> {
    if file.first_chunk() != Some(&MAGIC) {
        return Err(IgvmError::Magic);
    }
    if file.len() > MAX_FILE_BYTES {
        return Err(IgvmError::TooLong(file.len()));
    }
    let field = |offset| u32_at(file, offset).ok_or(IgvmError::Magic);
    let fixed_bytes = match field(4)? {
        1 => 24,
        2 => 32,
        version => return Err(IgvmError::Version(version)),
    };
    let (offset, size, said, checksum) = (field(8)?, field(12)?, field(16)?, field(20)?);
    if index(said) != Some(file.len()) {
        return Err(IgvmError::FileSize { said, has: file.len() });
    }
    let fixed = file.get(..fixed_bytes).ok_or(IgvmError::Magic)?;
    if fixed_bytes == 32 {
        match (field(24)?, field(28)?) {
            (X64, bytes) if u64::from(bytes) == PAGE_BYTES => (),
            (X64, bytes) => return Err(IgvmError::PageSize(bytes)),
            (architecture, _) => return Err(IgvmError::Architecture(architecture)),
        }
    }
    if index(size).is_none_or(|size| size > MAX_HEADER_BYTES) {
        return Err(IgvmError::TooManyHeaders(size));
    }
    let misplaced = || IgvmError::Headers { offset, size };
    let start = index(offset).filter(|start| *start >= fixed_bytes && start.is_multiple_of(8)).ok_or_else(misplaced)?;
    let length = index(size).filter(|length| length.is_multiple_of(8)).ok_or_else(misplaced)?;
    let headers = slice_at(file, start, length).ok_or_else(misplaced)?;
    let zeroed =
        fixed.iter().enumerate().map(|(at, byte)| if (CHECKSUM..CHECKSUM + 4).contains(&at) { 0 } else { *byte });
    let computed = crc32(zeroed.chain(headers.iter().copied()));
    if computed != checksum {
        return Err(IgvmError::Checksum { said: checksum, computed });
    }
    Ok(Regions { headers, headers_start: start, data_start: start.saturating_add(length) })
}

/// CRC-32 as Ethernet and zlib have it: reflected polynomial 0xEDB88320, all ones before and inverted after.
pub(super) fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        let mut seed = 0;
        while at < 256 {
            let (mut value, mut bit) = (seed, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
            seed += 1;
        }
        table
    };
    let step = |crc: u32, byte: u8| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default()
    };
    !bytes.into_iter().fold(u32::MAX, step)
}

/// The three parts of the variable headers, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Platform,
    Initialization,
    Directive,
}

/// One variable header.
pub(super) struct Header<'a> {
    /// Offset in the file.
    pub(super) at: usize,
    /// Its type, without the mark of those that may be skipped.
    pub(super) kind: u32,
    /// Its contents.
    pub(super) contents: &'a [u8],
    may_be_skipped: bool,
}

impl Header<'_> {
    /// The part it belongs to; nothing for an unknown one that may be skipped.
    ///
    /// # Errors
    /// An unknown type, or a known one that is marked so that loaders differ over it.
    pub(super) fn section(&self) -> Result<Option<Section>, IgvmError> {
        let (at, kind) = (self.at, self.kind);
        let section = match kind {
            0x1 => Section::Platform,
            0x101..=0x107 => Section::Initialization,
            0x301..=0x305 | 0x307..=0x313 => Section::Directive,
            _ if self.may_be_skipped => return Ok(None),
            _ => return Err(IgvmError::Kind { at, kind }),
        };
        if self.may_be_skipped { Err(IgvmError::Optional { at, kind }) } else { Ok(Some(section)) }
    }

    /// The contents, which must have this length.
    pub(super) fn exactly<const N: usize>(&self) -> Result<&[u8; N], IgvmError> {
        let (at, kind, length) = (self.at, self.kind, self.contents.len());
        self.contents.try_into().map_err(|_| IgvmError::Length { at, kind, length, expected: N })
    }
}

/// Walks over the headers; ends with the first error.
pub(super) fn all(headers: &[u8], start: usize) -> impl Iterator<Item = Result<Header<'_>, IgvmError>> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        if offset >= headers.len() {
            return None;
        }
        let next = header(headers, offset, start.saturating_add(offset));
        offset = next.as_ref().map_or(headers.len(), |(_, after)| *after);
        Some(next.map(|(header, _)| header))
    })
}

/// The header at an offset, and the offset behind it.
fn header(headers: &[u8], offset: usize, at: usize) -> Result<(Header<'_>, usize), IgvmError> {
    let truncated = || IgvmError::Truncated { at };
    let kind = u32_at(headers, offset).ok_or_else(truncated)?;
    let length: [u8; 4] = array_at(headers, offset.saturating_add(4)).ok_or_else(truncated)?;
    let length = index(u32::from_le_bytes(length)).ok_or_else(truncated)?;
    let begin = offset.saturating_add(8);
    let contents = slice_at(headers, begin, length).ok_or_else(truncated)?;
    let end = begin.saturating_add(length);
    let after = end.checked_next_multiple_of(8).ok_or_else(truncated)?;
    let padding = headers.get(end..after).ok_or_else(truncated)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(IgvmError::Padding { at });
    }
    let may_be_skipped = kind & OPTIONAL != 0;
    Ok((Header { at, kind: kind & !OPTIONAL, contents, may_be_skipped }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of this CRC in every catalogue of them.
    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(*b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32([]), 0);
    }
}
