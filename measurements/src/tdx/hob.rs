//! The hand-off block list (TD HOB) that QEMU writes for the firmware of a TD: which memory there is, and which part of
//! it was added before launch. Its bytes are the first event of RTMR0.
//!
//! Sources: UEFI Platform Initialization 1.8 volume 3 (hand-off blocks), Intel TDX Virtual Firmware Design Guide
//! section 4.2, QEMU 10.1 `hw/i386/tdvf-hob.c`, `target/i386/kvm/tdx.c` and `hw/i386/pc_q35.c`. Compared with event logs
//! of real TDs of 2, 8 and 10 GiB. QEMU 10.1 and later and the older trees for TDX write the same list; a memory size
//! that QEMU changes (`max-ram-below-4g`, memory devices) is not modelled.
//!
//! Not trusted: the firmware's metadata, which other code has checked for overlaps and sizes. Never guesses memory.

use thiserror::Error;

use crate::ovmf::{FOUR_GIB, Firmware, FirmwareError};

/// Section types of the TDVF metadata.
const TD_HOB: u32 = 2;
const TEMPORARY_MEMORY: u32 = 3;
/// The q35 machine keeps memory under this size in one piece; from there on it is split at [`Q35_SPLIT`].
const Q35_WHOLE_LIMIT: u64 = 0xb000_0000;
const Q35_SPLIT: u64 = 0x8000_0000;

const HANDOFF: u16 = 1;
const HANDOFF_BYTES: u16 = 56;
const HANDOFF_VERSION: u32 = 9;
const RESOURCE: u16 = 3;
const RESOURCE_BYTES: u16 = 48;
/// Resource types: system memory, and memory that the guest has to accept before use.
const SYSTEM_MEMORY: u32 = 0;
const UNACCEPTED_MEMORY: u32 = 7;
/// Present, initialised and tested: what QEMU says of either type.
const RESOURCE_ATTRIBUTES: u32 = 7;
/// The closing block. Firmware leaves it out of the measurement, but the end address counts it.
const END_BYTES: u64 = 8;

/// Why no hand-off block list can be computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HobError {
    /// The firmware's metadata cannot be read.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The metadata has no place for the list, or several.
    #[error("the firmware's TDVF metadata names {0} places for the TD HOB, expected one")]
    Place(usize),
    /// A section that QEMU adds before launch does not lie in memory: it would refuse to start.
    #[error(
        "{memory_mib} MiB of memory do not hold the firmware's section at {address:#x}: give the size that -m gets"
    )]
    Memory {
        /// Memory size asked for.
        memory_mib: u32,
        /// Guest physical address of the section.
        address: u64,
    },
}

/// A piece of memory as the list describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    start: u64,
    end: u64,
    kind: u32,
}

/// The list as firmware measures it: without its closing block. `memory_mib` is what QEMU's `-m` gets, in MiB.
///
/// # Errors
/// [`HobError`].
pub fn td_hob(firmware: &Firmware<'_>, memory_mib: u32) -> Result<Vec<u8>, HobError> {
    let sections = firmware.tdvf_sections()?;
    let places: Vec<_> = sections.iter().filter(|section| section.kind == TD_HOB).collect();
    let [place] = places.as_slice() else { return Err(HobError::Place(places.len())) };
    let mut ranges = memory(memory_mib);
    for section in sections.iter().filter(|section| matches!(section.kind, TD_HOB | TEMPORARY_MEMORY)) {
        let (start, end) = (section.address, section.address.saturating_add(section.size));
        accept(&mut ranges, start, end).ok_or(HobError::Memory { memory_mib, address: start })?;
    }
    ranges.sort_unstable();
    let length = u64::from(HANDOFF_BYTES) + u64::from(RESOURCE_BYTES) * ranges.len() as u64;
    let end_of_list = place.address.saturating_add(length + END_BYTES);
    let mut list = header(HANDOFF, HANDOFF_BYTES);
    list.extend(HANDOFF_VERSION.to_le_bytes());
    // Boot mode, then the four memory limits that this firmware ignores.
    list.extend([0; 4 + 4 * 8]);
    list.extend(end_of_list.to_le_bytes());
    for Range { start, end, kind } in ranges {
        list.extend(header(RESOURCE, RESOURCE_BYTES));
        list.extend([0; 16]); // owner
        list.extend(kind.to_le_bytes());
        list.extend(RESOURCE_ATTRIBUTES.to_le_bytes());
        list.extend(start.to_le_bytes());
        list.extend((end - start).to_le_bytes());
    }
    Ok(list)
}

/// Type and length u16, reserved u32.
fn header(kind: u16, length: u16) -> Vec<u8> {
    [kind.to_le_bytes(), length.to_le_bytes(), [0; 2], [0; 2]].concat()
}

/// Memory of a q35 machine before anything is accepted.
fn memory(memory_mib: u32) -> Vec<Range> {
    let size = u64::from(memory_mib) << 20;
    let low = if size < Q35_WHOLE_LIMIT { size } else { Q35_SPLIT };
    let unaccepted = |start, size| Range { start, end: start + size, kind: UNACCEPTED_MEMORY };
    let high = (size > low).then(|| unaccepted(FOUR_GIB, size - low));
    [unaccepted(0, low)].into_iter().chain(high).collect()
}

/// Splits the range that holds `start..end` and marks the middle as accepted; nothing when no range holds it whole.
fn accept(ranges: &mut Vec<Range>, start: u64, end: u64) -> Option<()> {
    let holder = ranges.iter_mut().find(|range| range.start <= start && end <= range.end)?;
    if holder.kind == SYSTEM_MEMORY {
        return Some(());
    }
    let (before, after) = (Range { end: start, ..*holder }, Range { start: end, ..*holder });
    *holder = Range { start, end, kind: SYSTEM_MEMORY };
    ranges.extend([before, after].into_iter().filter(|range| range.start < range.end));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha384;
    use crate::ovmf::sample::Sample;

    /// Sections of OVMF builds before 2025, in their order.
    fn sections() -> Vec<[u64; 6]> {
        vec![
            [0x1000, 0x1000, 0xffff_f000, 0x1000, 0, 1],
            [0, 0x1000, 0xffff_e000, 0x1000, 1, 0],
            [0, 0, 0x81_0000, 0x1_0000, 3, 0],
            [0, 0, 0x80_b000, 0x2000, 3, 0],
            [0, 0, 0x80_9000, 0x2000, 2, 0],
            [0, 0, 0x80_0000, 0x6000, 3, 0],
        ]
    }

    fn list(tdvf: Vec<[u64; 6]>, memory_mib: u32) -> Result<Vec<u8>, HobError> {
        let image = Sample { tdvf, ..Sample::default() }.build();
        td_hob(&Firmware::parse(&image).unwrap(), memory_mib)
    }

    /// Starts of the digests in event logs of real TDs of these sizes.
    #[test]
    fn lists_have_the_digests_that_real_hardware_measured() {
        for (mib, digest) in [(2048, "0b8772e5b0b41b83"), (8192, "2e070cda358b5aa0"), (10240, "05dc148f05a03508")] {
            assert!(sha384(&list(sections(), mib).unwrap()).to_string().starts_with(digest), "{mib}");
        }
        let mut newer = sections();
        newer[2] = [0, 0, 0x81_1000, 0xf000, 3, 0];
        assert!(sha384(&list(newer, 2048).unwrap()).to_string().starts_with("0e35f1b315ba6c91"));
    }

    #[test]
    fn memory_is_split_where_q35_splits_it() {
        let ranges = |mib| memory(mib).iter().map(|range| (range.start, range.end)).collect::<Vec<_>>();
        assert_eq!(ranges(2815), [(0, 0xaff0_0000)]);
        assert_eq!(ranges(2816), [(0, Q35_SPLIT), (FOUR_GIB, FOUR_GIB + 0x3000_0000)]);
        assert_eq!(ranges(u32::MAX)[1].1, FOUR_GIB + (u64::from(u32::MAX) << 20) - Q35_SPLIT);
    }

    #[test]
    fn the_list_is_well_formed() {
        let list = list(sections(), 4096).unwrap();
        // Eight pieces below 4 GiB (adjacent accepted ones stay apart), one above.
        assert_eq!(list.len(), 56 + 9 * 48);
        assert_eq!(list[48..56], (0x80_9000u64 + 56 + 9 * 48 + 8).to_le_bytes());
        let field = |piece: usize, at: usize| u64::from_le_bytes(list[56 + piece * 48 + at..][..8].try_into().unwrap());
        let total: u64 = (0..9).map(|piece| field(piece, 40)).sum();
        assert_eq!(total, 4 << 30);
        assert!((1..9).all(|piece| field(piece - 1, 32) + field(piece - 1, 40) <= field(piece, 32)));
    }

    #[test]
    fn what_cannot_be_started_is_refused() {
        assert_eq!(list(sections(), 8), Err(HobError::Memory { memory_mib: 8, address: 0x81_0000 }));
        assert_eq!(list(sections(), 0), Err(HobError::Memory { memory_mib: 0, address: 0x81_0000 }));
        let mut none = sections();
        none.remove(4);
        assert_eq!(list(none, 2048), Err(HobError::Place(0)));
        let mut two = sections();
        two[3][4] = 2;
        assert_eq!(list(two, 2048), Err(HobError::Place(2)));
        assert!(matches!(list(vec![], 2048), Err(HobError::Place(0) | HobError::Firmware(_))));
    }
}
