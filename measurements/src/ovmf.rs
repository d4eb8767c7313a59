//! What an OVMF image says about itself: the footer table of GUIDs, and the launch metadata that it points to.
//!
//! Sources: edk2 OvmfPkg/ResetVector (footer table, `OvmfSevMetadata.asm`, `IntelTdxMetadata.asm`), QEMU
//! `hw/i386/pc_sysfw_ovmf.c`. All numbers are little-endian; addresses are guest physical.
//!
//! Not trusted: every byte; offsets, lengths and counts are checked against the image before use, overlapping or
//! absurd sections are refused. Never done here: hashing.

mod error;
#[cfg(test)]
pub(crate) mod sample;
mod sections;

pub use error::FirmwareError;
pub use sections::{SevSection, SevSectionKind, TdvfSection};

use serde::{Deserialize, Serialize};

use crate::bytes::{array_at, u16_at, u32_at};

/// Bytes of a guest page.
pub const PAGE: usize = 4096;
/// The same, for addresses and sizes of 64 bits.
pub(crate) const PAGE_BYTES: u64 = PAGE as u64;
/// Largest image that is read, in bytes. QEMU maps at most 8 MiB unless told otherwise; builds have 2 to 16 MiB.
pub const MAX_FIRMWARE_BYTES: usize = 64 << 20;
/// Firmware ends here in guest physical memory.
pub const FOUR_GIB: u64 = 1 << 32;

/// The footer table ends this far before the end of the image: after it comes the reset vector.
const FOOTER_DISTANCE: usize = 0x20;
/// Every footer entry ends with its length (u16) and GUID.
const ENTRY_TAIL: usize = 18;
const FOOTER: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
const SEV_HASH_TABLE: [u8; 16] = guid(0x7255_371f, 0x3a3b, 0x4b04, 0x927b_1da6_efa8_d454);
const SEV_ES_RESET: [u8; 16] = guid(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);
const SVSM_INFO: [u8; 16] = guid(0xa789_a612, 0x0597, 0x4c4b, 0xa49f_cbb1_fe9d_1ddd);

/// A GUID in its stored, mixed-endian form; `last` holds the two groups that are stored as written.
pub(crate) const fn guid(first: u32, second: u16, third: u16, last: u64) -> [u8; 16] {
    let (a, b, c, d) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes(), last.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// A firmware image whose footer table has been read.
#[derive(Debug, Clone)]
pub struct Firmware<'a> {
    image: &'a [u8],
    address: u64,
    entries: Vec<([u8; 16], &'a [u8])>,
}

/// Where the firmware looks for the hashes of kernel, initial ramdisk and command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashTableArea {
    /// Guest physical address.
    pub address: u32,
    /// Bytes reserved.
    pub size: u32,
}

impl<'a> Firmware<'a> {
    /// Reads the footer table of an image that ends at 4 GiB.
    ///
    /// # Errors
    /// [`FirmwareError::Size`], [`FirmwareError::NoFooter`], [`FirmwareError::OtherFile`], [`FirmwareError::Footer`],
    /// [`FirmwareError::RepeatedEntry`].
    pub fn parse(image: &'a [u8]) -> Result<Self, FirmwareError> {
        Self::parse_below(image, 0)
    }

    /// The same for an image that ends this many bytes before 4 GiB.
    pub(crate) fn parse_below(image: &'a [u8], distance: usize) -> Result<Self, FirmwareError> {
        let address = u64::try_from(distance.saturating_add(image.len())).ok();
        let address = address.and_then(|bytes| FOUR_GIB.checked_sub(bytes)).ok_or(FirmwareError::Size(image.len()))?;
        if image.is_empty() || image.len() > MAX_FIRMWARE_BYTES || !image.len().is_multiple_of(PAGE) {
            return Err(other_file(image).unwrap_or(FirmwareError::Size(image.len())));
        }
        let table_end = image.len() - FOOTER_DISTANCE;
        let mut table = match image.get(..table_end).and_then(|head| split_entry(head).ok().flatten()) {
            Some((_, FOOTER, body)) => body,
            _ => return Err(other_file(image).unwrap_or(FirmwareError::NoFooter)),
        };
        let mut entries: Vec<([u8; 16], &[u8])> = Vec::new();
        // Each turn removes at least 18 bytes of a table whose length is a u16.
        while let Some((rest, guid, data)) = split_entry(table)? {
            if entries.iter().any(|(known, _)| *known == guid) {
                return Err(FirmwareError::RepeatedEntry);
            }
            entries.push((guid, data));
            table = rest;
        }
        Ok(Self { image, address, entries })
    }

    /// The whole image.
    #[must_use]
    pub fn image(&self) -> &'a [u8] {
        self.image
    }

    /// Guest physical address of the first byte: a firmware image ends at 4 GiB.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Where kernel hashes are expected; none when the build does not check them (entry absent, or base 0).
    ///
    /// # Errors
    /// [`FirmwareError::ShortEntry`].
    pub fn hash_table_area(&self) -> Result<Option<HashTableArea>, FirmwareError> {
        let Some(entry) = self.entry(&SEV_HASH_TABLE) else { return Ok(None) };
        let short = FirmwareError::ShortEntry("SEV hash table");
        let (Some(address), Some(size)) = (u32_at(entry, 0), u32_at(entry, 4)) else { return Err(short) };
        Ok((address != 0).then_some(HashTableArea { address, size }))
    }

    /// Where application processors start (SEV-ES reset block); none when the build does not say.
    ///
    /// # Errors
    /// [`FirmwareError::ShortEntry`].
    pub fn ap_reset_eip(&self) -> Result<Option<u32>, FirmwareError> {
        let Some(entry) = self.entry(&SEV_ES_RESET) else { return Ok(None) };
        u32_at(entry, 0).map(Some).ok_or(FirmwareError::ShortEntry("SEV-ES reset block"))
    }

    /// Where an SVSM starts, from its first byte; none when the image is no SVSM.
    pub(crate) fn svsm_start(&self) -> Result<Option<u32>, FirmwareError> {
        let Some(entry) = self.entry(&SVSM_INFO) else { return Ok(None) };
        u32_at(entry, 0).map(Some).ok_or(FirmwareError::ShortEntry("SVSM info"))
    }

    fn entry(&self, guid: &[u8; 16]) -> Option<&'a [u8]> {
        self.entries.iter().find(|(known, _)| known == guid).map(|(_, data)| *data)
    }
}

/// What an image is that cannot be used, if its first bytes tell.
fn other_file(image: &[u8]) -> Option<FirmwareError> {
    let kind = match image {
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file",
        [b'M', b'Z', ..] => "a PE image (a kernel, or a unified kernel image)",
        [b'I', b'G', b'V', b'M', ..] => "an IGVM file",
        // An EFI firmware volume: its signature stands behind a zero vector and a GUID.
        _ if array_at(image, 0x28) == Some(*b"_FVH") => {
            "a part of a UEFI build (a variable store), or a build for another architecture"
        }
        _ => return None,
    };
    Some(FirmwareError::OtherFile(kind))
}

/// Splits the last entry {data, u16 length of all, GUID} off a table; nothing when the table is empty.
#[allow(clippy::type_complexity)]
fn split_entry(table: &[u8]) -> Result<Option<(&[u8], [u8; 16], &[u8])>, FirmwareError> {
    if table.is_empty() {
        return Ok(None);
    }
    let tail = table.len().checked_sub(ENTRY_TAIL).ok_or(FirmwareError::Footer)?;
    let (Some(length), Some(guid)) = (u16_at(table, tail), array_at(table, tail + 2)) else {
        return Err(FirmwareError::Footer);
    };
    let data = usize::from(length).checked_sub(ENTRY_TAIL).ok_or(FirmwareError::Footer)?;
    let start = tail.checked_sub(data).ok_or(FirmwareError::Footer)?;
    match (table.get(..start), table.get(start..tail)) {
        (Some(rest), Some(data)) => Ok(Some((rest, guid, data))),
        _ => Err(FirmwareError::Footer),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sample::Sample;
    use super::*;

    #[test]
    fn guids_are_stored_mixed_endian() {
        let stored = [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
        assert_eq!(FOOTER, stored);
    }

    #[test]
    fn the_footer_entries_are_found() {
        let image = Sample::default().build();
        let firmware = Firmware::parse(&image).unwrap();
        assert_eq!(firmware.ap_reset_eip(), Ok(Some(0x0080_b004)));
        assert_eq!(firmware.hash_table_area(), Ok(Some(HashTableArea { address: 0x81_0c00, size: 0x400 })));
        assert_eq!(firmware.address(), 0xffff_e000);
        let without = Sample { hash_table: [0, 0], ap_reset: None, ..Sample::default() }.build();
        let firmware = Firmware::parse(&without).unwrap();
        assert_eq!((firmware.hash_table_area(), firmware.ap_reset_eip()), (Ok(None), Ok(None)));
    }

    #[test]
    fn images_of_an_impossible_size_are_refused() {
        for size in [0, 1, 31, 4095, 4097] {
            assert_eq!(Firmware::parse(&vec![0; size]).unwrap_err(), FirmwareError::Size(size));
        }
        assert_eq!(Firmware::parse(&[0; 4096]).unwrap_err(), FirmwareError::NoFooter);
    }

    #[test]
    fn a_spoiled_footer_table_is_refused() {
        let good = Sample::default().build();
        let end = good.len();
        let spoil = |distance: usize, bytes: &[u8]| {
            let mut image = good.clone();
            image[end - distance..][..bytes.len()].copy_from_slice(bytes);
            Firmware::parse(&image).map(|_| ())
        };
        assert_eq!(spoil(0x30, b"other guid"), Err(FirmwareError::NoFooter));
        // The footer's own length, then the length of the entry before it (the reset block of 22 bytes).
        assert_eq!(spoil(0x32, &[0, 0]), Err(FirmwareError::NoFooter), "shorter than itself");
        assert_eq!(spoil(0x32, &[0xff, 0xff]), Err(FirmwareError::NoFooter), "longer than the image");
        assert_eq!(spoil(0x44, &[0, 0]), Err(FirmwareError::Footer), "an entry without length would never end");
        assert_eq!(spoil(0x44, &[17, 0]), Err(FirmwareError::Footer));
        assert_eq!(spoil(0x44, &[0xff, 0]), Err(FirmwareError::Footer));
        assert_eq!(spoil(0x44, &[23, 0]), Err(FirmwareError::Footer), "lengths do not add up");
        assert_eq!(spoil(0x42, &SEV_HASH_TABLE), Err(FirmwareError::RepeatedEntry));
    }

    #[test]
    fn short_entries_are_named() {
        let mut image = Sample { hash_table: [0, 0], ap_reset: None, ..Sample::default() }.build();
        // The last entry now is the hash table, 8 bytes; calling it the reset block is fine, 4 are enough.
        let end = image.len();
        image[end - 0x42..][..16].copy_from_slice(&SEV_ES_RESET);
        assert_eq!(Firmware::parse(&image).unwrap().ap_reset_eip(), Ok(Some(0)));
        let mut image = Sample::default().build();
        image[end - 0x42..][..16].copy_from_slice(&SEV_HASH_TABLE);
        image[end - 0x42 - 0x1a + 4..][..16].copy_from_slice(&[7; 16]);
        let firmware = Firmware::parse(&image).unwrap();
        assert_eq!(firmware.hash_table_area(), Err(FirmwareError::ShortEntry("SEV hash table")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut image in proptest::collection::vec(any::<u8>(), 4096), table in any::<u16>()) {
            // With a footer in place the walk is entered; the rest is noise.
            image[4096 - 0x30..][..16].copy_from_slice(&FOOTER);
            image[4096 - 0x32..][..2].copy_from_slice(&(table % 4096).to_le_bytes());
            if let Ok(firmware) = Firmware::parse(&image) {
                let _ = (firmware.hash_table_area(), firmware.ap_reset_eip());
                let _ = (firmware.sev_sections(), firmware.tdvf_sections());
            }
        }

        #[test]
        fn a_changed_image_never_panics(changes in proptest::collection::vec((0usize..0x900, any::<u8>()), 1..6)) {
            let mut image = Sample::default().build();
            let end = image.len();
            for (distance, byte) in changes {
                image[end - 1 - distance] = byte;
            }
            if let Ok(firmware) = Firmware::parse(&image) {
                let _ = (firmware.sev_sections(), firmware.tdvf_sections());
            }
        }
    }
}
