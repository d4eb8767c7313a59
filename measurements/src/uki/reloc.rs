//! Base relocations that would change what the stub measures: firmware applies them before the stub runs, so what it hashes
//! would not be the bytes of the file any more.
//!
//! Sources: Microsoft PE format (`.reloc` section), edk2 `BasePeCoffLib` (`PeCoffLoaderRelocateImage`).
//!
//! Not trusted: the table; it is bounded and every block is consumed. Never applies a relocation: one that touches a section
//! with a name of the stub's order, or the table itself, is refused.

use std::ops::Range;

use super::{ORDER, UkiError, padded};
use crate::bytes::{index, slice_at, u16_at, u32_at};
use crate::pe::{PeSection, directory};

/// Data directory number of the table.
const BASE_RELOCATIONS: usize = 5;
/// Longest table; stubs have 10 to 1000 bytes.
const MAX_BYTES: u32 = 1 << 18;
// Types (PE format, "Base Relocation Types") and the bytes that each changes.
const ABSOLUTE: u16 = 0;
const HIGHLOW: (u16, u64) = (3, 4);
const DIR64: (u16, u64) = (10, 8);

/// That no relocation touches a section that is measured.
pub(super) fn check(image: &[u8], table: &[PeSection]) -> Result<(), UkiError> {
    let Some((address, size)) = directory(image, BASE_RELOCATIONS)?.filter(|(_, size)| *size > 0) else {
        return Ok(());
    };
    let bytes = stored(image, table, address, size).ok_or(UkiError::Relocations("it does not lie in one section"))?;
    let extent = |start: u32, size: u32| u64::from(start)..u64::from(start) + u64::from(size);
    let mut kept = vec![("its relocations", extent(address, size))];
    for line in table {
        if let Some(name) = ORDER.iter().find(|known| padded(known) == line.name) {
            kept.push((name, extent(line.virtual_address, line.virtual_size)));
        }
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = block(rest, &kept)?;
    }
    Ok(())
}

/// The bytes of the file that a range of memory is loaded from.
fn stored<'a>(image: &'a [u8], table: &[PeSection], address: u32, size: u32) -> Option<&'a [u8]> {
    let end = address.checked_add(size).filter(|_| size <= MAX_BYTES)?;
    table.iter().find_map(|line| {
        let loaded = if line.virtual_size == 0 { line.raw_size } else { line.raw_size.min(line.virtual_size) };
        let offset = address.checked_sub(line.virtual_address)?;
        (end - line.virtual_address <= loaded).then_some(())?;
        slice_at(image, index(line.raw_offset.checked_add(offset)?)?, index(size)?)
    })
}

/// Checks one block and gives what follows it.
fn block<'a>(bytes: &'a [u8], kept: &[(&'static str, Range<u64>)]) -> Result<&'a [u8], UkiError> {
    let cut = UkiError::Relocations("a block is cut short");
    let (page, size) = u32_at(bytes, 0).zip(u32_at(bytes, 4)).ok_or(cut.clone())?;
    let size = index(size).filter(|size| *size >= 8 && size % 2 == 0).ok_or(cut.clone())?;
    let (block, rest) = bytes.split_at_checked(size).ok_or(cut)?;
    for entry in block.chunks_exact(2).skip(4).filter_map(|entry| u16_at(entry, 0)) {
        let width = match entry >> 12 {
            ABSOLUTE => continue,
            kind if kind == HIGHLOW.0 => HIGHLOW.1,
            kind if kind == DIR64.0 => DIR64.1,
            _ => return Err(UkiError::Relocations("it holds a type that x86-64 does not have")),
        };
        let start = u64::from(page) + u64::from(entry & 0xfff);
        if let Some((name, _)) = kept.iter().find(|(_, range)| start < range.end && start + width > range.start) {
            return Err(UkiError::Relocated(name));
        }
    }
    Ok(rest)
}
