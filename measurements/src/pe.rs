//! The Authenticode digest of a PE image: what firmware measures when it loads a kernel or boot loader.
//!
//! Sources: Microsoft "Windows Authenticode Portable Executable Signature Format"; edk2
//! `SecurityPkg/Library/DxeTpm2MeasureBootLib`, whose order of steps is followed: headers without the checksum and the
//! certificate table entry, sections by file offset, then what lies between them and the certificates.
//!
//! Not trusted: the image; every offset is checked and overlapping sections, which would be hashed twice or not at
//! all, are refused. Never done here: checking a signature.

use std::ops::Range;

use ring::digest::{Algorithm, Context, SHA256, SHA384};
use thiserror::Error;

use crate::bytes::{array_at, index, slice_at, u16_at, u32_at};
use crate::digest::{Digest, finish};

/// Data directory number of the certificate table (PE format, optional header data directories).
const CERTIFICATES: usize = 4;
/// Machine type of x86-64.
pub(crate) const X86_64: u16 = 0x8664;
/// The PE format allows 96 sections to be loaded.
const MAX_SECTIONS: u16 = 96;

/// Why a file has no Authenticode digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PeError {
    /// No `MZ`, no `PE\0\0`, or no PE32/PE32+ optional header.
    #[error("not a PE image: give a kernel with an EFI stub, or a unified kernel image")]
    NotPe,
    /// A header, section or certificate table reaches beyond the file.
    #[error("the PE image is cut short or malformed: {0} does not fit into the file")]
    Malformed(&'static str),
    /// Two sections, or a section and the headers, share bytes of the file.
    #[error("sections of the PE image overlap in the file")]
    Overlap,
    /// More sections than the format allows.
    #[error("the PE image has {0} sections, more than 96")]
    Sections(u16),
    /// An image for other processors.
    #[error("the PE image is for machine type {found:#06x}, not {expected:#06x}: give one for this processor")]
    Machine {
        /// Machine type that was asked for (PE format, "Machine Types").
        expected: u16,
        /// Machine type of the image.
        found: u16,
    },
}

/// Authenticode SHA-256, as in PCR 4 of the SHA-256 bank.
///
/// # Errors
/// [`PeError`].
pub fn authenticode_sha256(image: &[u8]) -> Result<Digest<32>, PeError> {
    Ok(finish(authenticode(image, &SHA256)?))
}

/// Authenticode SHA-384, as in TDX RTMR1.
///
/// # Errors
/// [`PeError`].
pub fn authenticode_sha384(image: &[u8]) -> Result<Digest<48>, PeError> {
    Ok(finish(authenticode(image, &SHA384)?))
}

fn authenticode(image: &[u8], algorithm: &'static Algorithm) -> Result<Context, PeError> {
    let mut context = Context::new(algorithm);
    for range in hashed_ranges(image)? {
        context.update(image.get(range).ok_or(PeError::Malformed("a hashed range"))?);
    }
    Ok(context)
}

/// One line of the section table, as written; nothing of it is checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeSection {
    /// Padded with NUL; a name of eight bytes has none.
    pub(crate) name: [u8; 8],
    /// Bytes in memory.
    pub(crate) virtual_size: u32,
    /// Where in memory, from the image's base.
    pub(crate) virtual_address: u32,
    /// Bytes in the file.
    pub(crate) raw_size: u32,
    /// Where in the file.
    pub(crate) raw_offset: u32,
}

/// SizeOfHeaders, and the section table in its own order, of an image for the machine with this number.
pub(crate) fn section_table(image: &[u8], machine: u16) -> Result<(usize, Vec<PeSection>), PeError> {
    let headers = headers(image)?;
    if headers.machine != machine {
        return Err(PeError::Machine { expected: machine, found: headers.machine });
    }
    let cut = PeError::Malformed("the section table");
    let line = |header| {
        Some(PeSection {
            name: array_at(header, 0)?,
            virtual_size: u32_at(header, 8)?,
            virtual_address: u32_at(header, 12)?,
            raw_size: u32_at(header, 16)?,
            raw_offset: u32_at(header, 20)?,
        })
    };
    let table = image.get(headers.sections).ok_or(cut)?.chunks_exact(40);
    let sections: Result<_, _> = table.map(|header| line(header).ok_or(cut)).collect();
    Ok((headers.size, sections?))
}

/// The first section that a unified kernel image or its stub has, and a kernel never has. Nothing for what is no PE image.
pub(crate) fn unified_section(image: &[u8]) -> Option<&'static str> {
    let table = image.get(headers(image).ok()?.sections)?;
    let named = |name: &str| table.chunks_exact(40).any(|line| line.starts_with(name.as_bytes()));
    // Old stubs compare no further than the name is long.
    [".sdmagic", ".linux"].into_iter().find(|name| named(name))
}

/// MajorImageVersion: what kernels state their EFI stub's abilities with.
pub(crate) fn major_image_version(image: &[u8]) -> Result<u16, PeError> {
    let headers = headers(image)?;
    u16_at(image, headers.optional + 44).ok_or(PeError::Malformed("the COFF or optional header"))
}

/// Address in memory and size of what a data directory names; nothing where the image does not have so many.
pub(crate) fn directory(image: &[u8], number: usize) -> Result<Option<(u32, u32)>, PeError> {
    let headers = headers(image)?;
    if number >= headers.directory_count {
        return Ok(None);
    }
    let entry = headers.directories + number * 8;
    let both = u32_at(image, entry).zip(u32_at(image, entry + 4));
    both.map(Some).ok_or(PeError::Malformed("the data directories"))
}

/// Offsets in the file of what the headers say.
struct Headers {
    machine: u16,
    /// The optional header, its data directories and their number as written.
    optional: usize,
    directories: usize,
    directory_count: usize,
    checksum: usize,
    /// The certificate table entry, where the image has one, and the bytes of certificates that it names.
    certificates: Option<(usize, usize)>,
    size: usize,
    sections: Range<usize>,
}

fn headers(image: &[u8]) -> Result<Headers, PeError> {
    if !image.starts_with(b"MZ") {
        return Err(PeError::NotPe);
    }
    let pe = u32_at(image, 0x3c).and_then(index).ok_or(PeError::NotPe)?;
    if slice_at(image, pe, 4) != Some(b"PE\0\0") {
        return Err(PeError::NotPe);
    }
    let cut = PeError::Malformed("the COFF or optional header");
    // `pe` is inside the file, so small additions cannot overflow.
    let (count, optional_size) = (u16_at(image, pe + 6).ok_or(cut)?, u16_at(image, pe + 20).ok_or(cut)?);
    let machine = u16_at(image, pe + 4).ok_or(cut)?;
    if count > MAX_SECTIONS {
        return Err(PeError::Sections(count));
    }
    let optional = pe + 24;
    // PE32+ has wider fields before its directories than PE32.
    let directories = match u16_at(image, optional) {
        Some(0x20b) => optional + 112,
        Some(0x10b) => optional + 96,
        _ => return Err(PeError::NotPe),
    };
    let directory_count = u32_at(image, directories - 4).and_then(index).ok_or(cut)?;
    let entry = directories + CERTIFICATES * 8;
    let certificates = if directory_count > CERTIFICATES {
        Some((entry, u32_at(image, entry + 4).and_then(index).ok_or(cut)?))
    } else {
        None
    };
    let sections = optional + usize::from(optional_size);
    let table_end = sections + usize::from(count) * 40;
    let size = u32_at(image, optional + 60).and_then(index).ok_or(cut)?;
    let last = certificates.map_or(optional + 68, |(entry, _)| entry + 8).max(table_end);
    if size > image.len() || size < last {
        return Err(PeError::Malformed("SizeOfHeaders"));
    }
    let (checksum, sections) = (optional + 64, sections..table_end);
    Ok(Headers { machine, optional, directories, directory_count, checksum, certificates, size, sections })
}

/// The parts of the file that are hashed, in the order in which they are.
fn hashed_ranges(image: &[u8]) -> Result<Vec<Range<usize>>, PeError> {
    let headers = headers(image)?;
    let after_checksum = headers.checksum + 4;
    let mut ranges = match headers.certificates {
        Some((entry, _)) => vec![0..headers.checksum, after_checksum..entry, entry + 8..headers.size],
        None => vec![0..headers.checksum, after_checksum..headers.size],
    };
    let mut end = headers.size;
    let mut hashed = headers.size;
    for section in section_ranges(image, headers.sections)? {
        if section.start < end {
            return Err(PeError::Overlap);
        }
        end = section.end;
        hashed += section.len();
        ranges.push(section);
    }
    // Firmware counts the bytes hashed so far and continues there, whether or not gaps shifted the sections.
    let certificates = headers.certificates.map_or(0, |(_, size)| size);
    let tail = image.len().checked_sub(certificates).filter(|tail| *tail >= hashed);
    ranges.push(hashed..tail.ok_or(PeError::Malformed("the certificate table"))?);
    Ok(ranges)
}

/// File ranges of the sections that have contents, sorted by offset.
fn section_ranges(image: &[u8], table: Range<usize>) -> Result<Vec<Range<usize>>, PeError> {
    let cut = PeError::Malformed("a section");
    let mut ranges = Vec::new();
    for header in image.get(table).ok_or(cut)?.chunks_exact(40) {
        let size = u32_at(header, 16).and_then(index).ok_or(cut)?;
        let start = u32_at(header, 20).and_then(index).ok_or(cut)?;
        if size == 0 {
            continue;
        }
        let end = start.checked_add(size).filter(|end| *end <= image.len()).ok_or(cut)?;
        ranges.push(start..end);
    }
    ranges.sort_unstable_by_key(|range| range.start);
    Ok(ranges)
}

/// A small PE32+ image for tests; never part of the product.
#[cfg(test)]
pub(crate) mod sample {
    /// Headers of 0x200 bytes with the PE header at `pe`, two sections stored in reverse order, 16 bytes after them
    /// and 8 of certificates.
    pub(crate) fn image(pe: usize) -> Vec<u8> {
        let mut image: Vec<u8> = (0..0x400).map(|at| (at % 253) as u8).collect();
        image[..2].copy_from_slice(b"MZ");
        image[0x3c..0x40].copy_from_slice(&(pe as u32).to_le_bytes());
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(pe, b"PE\0\0");
        put(pe + 6, &2u16.to_le_bytes());
        put(pe + 20, &160u16.to_le_bytes()); // optional header: 112 and six directories
        put(pe + 24, &0x20bu16.to_le_bytes());
        put(pe + 24 + 60, &0x200u32.to_le_bytes());
        put(pe + 24 + 108, &6u32.to_le_bytes());
        put(pe + 24 + 112 + 36, &8u32.to_le_bytes()); // certificate bytes
        for (number, (size, offset)) in [(0x80u32, 0x300u32), (0x100, 0x200)].into_iter().enumerate() {
            let header = pe + 24 + 160 + number * 40;
            put(header + 16, &size.to_le_bytes());
            put(header + 20, &offset.to_le_bytes());
        }
        image.truncate(0x380 + 16 + 8);
        image
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sample::image;
    use super::*;
    use crate::digest::{sha256, sha384};

    const PE: usize = 0x40;
    const OPTIONAL: usize = PE + 24;

    fn put(at: usize, value: u32) -> Vec<u8> {
        let mut image = image(PE);
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        image
    }

    #[test]
    fn the_digest_leaves_out_checksum_certificate_entry_and_certificates() {
        let image = image(PE);
        let entry = OPTIONAL + 112 + 32;
        let hashed = [
            &image[..OPTIONAL + 64],
            &image[OPTIONAL + 68..entry],
            &image[entry + 8..0x380], // sections lie behind each other
            &image[0x380..0x390],
        ]
        .concat();
        assert_eq!(authenticode_sha256(&image), Ok(sha256(&hashed)));
        assert_eq!(authenticode_sha384(&image), Ok(sha384(&hashed)));
        for unmeasured in [OPTIONAL + 64, entry, 0x390] {
            let mut other = image.clone();
            other[unmeasured] ^= 1;
            assert_eq!(authenticode_sha256(&other), authenticode_sha256(&image));
        }
    }

    #[test]
    fn an_image_without_a_certificate_entry_is_hashed_to_its_end() {
        let image = put(OPTIONAL + 108, 4);
        let hashed = [&image[..OPTIONAL + 64], &image[OPTIONAL + 68..]].concat();
        assert_eq!(authenticode_sha256(&image), Ok(sha256(&hashed)));
    }

    #[test]
    fn spoiled_images_are_refused() {
        let section = OPTIONAL + 160;
        for (image, fault) in [
            (vec![], PeError::NotPe),
            (b"\x7fELF".to_vec(), PeError::NotPe),
            (put(0x3c, u32::MAX), PeError::NotPe),
            (put(0x3c, 0x41), PeError::NotPe),
            (put(OPTIONAL, 0x107), PeError::NotPe),
            (put(PE + 6, 97), PeError::Sections(97)),
            (put(OPTIONAL + 60, 0x100), PeError::Malformed("SizeOfHeaders")),
            (put(OPTIONAL + 60, 0x10_000), PeError::Malformed("SizeOfHeaders")),
            (put(section + 16, 0x1000), PeError::Malformed("a section")),
            (put(section + 20, u32::MAX), PeError::Malformed("a section")),
            (put(section + 20, 0x2ff), PeError::Overlap),
            (put(section + 60, 0x1ff), PeError::Overlap),
            (put(OPTIONAL + 112 + 36, 0x19), PeError::Malformed("the certificate table")),
            (image(PE)[..0x37f].to_vec(), PeError::Malformed("a section")),
        ] {
            assert_eq!(authenticode_sha256(&image), Err(fault));
        }
    }

    proptest! {
        #[test]
        fn changed_images_never_panic(changes in proptest::collection::vec((0usize..0x200, any::<u8>()), 1..8), length in 0usize..0x398) {
            let mut image = image(PE);
            for (at, byte) in changes {
                image[at] = byte;
            }
            image.truncate(length);
            let _ = authenticode_sha256(&image);
        }
    }
}
