//! The partition table of the disk that firmware boots from, as it is measured into RTMR1.
//!
//! Sources: UEFI 2.10 section 5.3 (GPT), TCG PC Client Platform Firmware Profile 1.06 section 10.4.4 (UEFI_GPT_DATA), edk2
//! `SecurityPkg/Library/DxeTpm2MeasureBootLib`: the primary header, the number of entries in use, and these entries.
//! Compared with the partition tables in event logs of real TDs. Sectors of 512 bytes, as QEMU's disks have by default.
//!
//! Not trusted: the disk. Checksums are not looked at: firmware does, and boots from no disk where they are wrong. Never
//! reads a file system.

use thiserror::Error;

use crate::bytes::{array_at, index, slice_at, u32_at, u64_at};

const SECTOR: usize = 512;
const HEADER: usize = 92;
/// Most entries, and bytes of one. Tools make 128 of 128.
const MAX_ENTRIES: usize = 1024;
const MAX_ENTRY: usize = 4096;

/// Why a disk has no partition table that could be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DiskError {
    /// No header in the second sector.
    #[error("the disk has no GUID partition table: give a raw image, not one of a container format such as qcow2")]
    NoTable,
    /// The header names entries of an impossible number, size or place.
    #[error("the disk's partition table is malformed: {0}")]
    Malformed(&'static str),
}

/// UEFI_GPT_DATA: what firmware hashes. `disk` is the beginning of the image, at least up to the end of the entries (the
/// first mebibyte holds any usual table).
///
/// # Errors
/// [`DiskError`].
pub fn gpt_event(disk: &[u8]) -> Result<Vec<u8>, DiskError> {
    let header = slice_at(disk, SECTOR, HEADER).filter(|header| header.starts_with(b"EFI PART"));
    let header = header.ok_or(DiskError::NoTable)?;
    let place = u64_at(header, 72).and_then(|sector| usize::try_from(sector).ok()?.checked_mul(SECTOR));
    let (count, size) = (u32_at(header, 80).and_then(index), u32_at(header, 84).and_then(index));
    let place = place.filter(|place| *place >= 2 * SECTOR).ok_or(DiskError::Malformed("the place of its entries"))?;
    let count = count.filter(|count| (1..=MAX_ENTRIES).contains(count)).ok_or(DiskError::Malformed("their number"))?;
    // Entries have 128 bytes times a power of two.
    let size = size.filter(|size| (128..=MAX_ENTRY).contains(size) && size.is_power_of_two());
    let size = size.ok_or(DiskError::Malformed("their size"))?;
    let entries = slice_at(disk, place, count * size).ok_or(DiskError::Malformed("its entries end beyond the disk"))?;
    // An entry whose type is zero is not in use.
    let used: Vec<&[u8]> = entries.chunks_exact(size).filter(|entry| array_at(entry, 0) != Some([0u8; 16])).collect();
    Ok([header, &(used.len() as u64).to_le_bytes(), &used.concat()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 4 * SECTOR];
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80] = 8;
        disk[512 + 84] = 128;
        disk[1024] = 9;
        disk[1024 + 3 * 128 + 15] = 9;
        disk
    }

    #[test]
    fn entries_in_use_follow_the_header() {
        let disk = disk();
        let event = gpt_event(&disk).unwrap();
        let expected =
            [&disk[512..604], &2u64.to_le_bytes(), &disk[1024..1152], &disk[1024 + 384..1024 + 512]].concat();
        assert_eq!(event, expected);
    }

    #[test]
    fn impossible_tables_are_refused() {
        let spoil = |at: usize, bytes: &[u8]| {
            let mut disk = disk();
            disk[at..at + bytes.len()].copy_from_slice(bytes);
            gpt_event(&disk)
        };
        assert_eq!(spoil(512, b"x"), Err(DiskError::NoTable));
        assert_eq!(gpt_event(b"QFI"), Err(DiskError::NoTable));
        assert_eq!(spoil(512 + 72, &[1]), Err(DiskError::Malformed("the place of its entries")));
        assert_eq!(spoil(512 + 72, &[0xff; 8]), Err(DiskError::Malformed("the place of its entries")));
        assert_eq!(spoil(512 + 80, &[0]), Err(DiskError::Malformed("their number")));
        assert_eq!(spoil(512 + 80, &[0xff; 4]), Err(DiskError::Malformed("their number")));
        assert_eq!(spoil(512 + 84, &[0]), Err(DiskError::Malformed("their size")));
        assert_eq!(spoil(512 + 84, &[129]), Err(DiskError::Malformed("their size")));
        assert_eq!(spoil(512 + 80, &[9]), Err(DiskError::Malformed("its entries end beyond the disk")));
    }

    proptest! {
        #[test]
        fn changed_disks_never_panic(changes in proptest::collection::vec((512usize..620, any::<u8>()), 1..6)) {
            let mut disk = disk();
            for (at, byte) in changes {
                disk[at] = byte;
            }
            let _ = gpt_event(&disk);
        }
    }
}
