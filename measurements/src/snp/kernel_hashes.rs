//! The kernel hashes that QEMU puts into guest memory for the firmware to check: kernel, initial ramdisk, command line.
//!
//! Sources: QEMU `target/i386/sev.c` (`sev_add_kernel_loader_hashes`), edk2 `OvmfPkg/AmdSev/BlobVerifierLibSevHashes`.
//! Not trusted: the command line and where the firmware wants the table. Never reads files.

use super::{FirmwareLaunch, MeasureError};
use crate::bytes::index;
use crate::digest::{Digest, sha256};
use crate::linux::given::plain_kernel;
use crate::ovmf::{HashTableArea, PAGE, SevSectionKind, guid};

const HASH_TABLE: [u8; 16] = guid(0x9438_d606, 0x4f22, 0x4cc9, 0xb479_a793_d411_fd21);
const HASH_CMDLINE: [u8; 16] = guid(0x97d0_2dd8, 0xbd20, 0x4c94, 0xaa78_e771_4d36_ab2a);
const HASH_INITRD: [u8; 16] = guid(0x44ba_f731, 0x3a2f, 0x4bd7, 0x9af1_41e2_9169_781d);
const HASH_KERNEL: [u8; 16] = guid(0x4de7_9437, 0xabd2, 0x427f, 0xb835_d5b1_72d2_045b);
/// Bytes of the hash table with its padding to a multiple of 16.
const HASH_TABLE_BYTES: usize = 176;

/// A kernel that QEMU loads directly (`-kernel`, `-initrd`, `-append`) and whose hashes the firmware checks.
///
/// The digests alone say everything: whoever has them needs the files no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectBoot {
    /// SHA-256 of the kernel file, unmodified.
    pub kernel_sha256: Digest<32>,
    /// SHA-256 of the initial ramdisk; without one, SHA-256 of nothing.
    pub initrd_sha256: Digest<32>,
    /// SHA-256 of the command line with one NUL at its end, as [`DirectBoot::append_digest`] computes it.
    pub append_sha256: Digest<32>,
}

impl DirectBoot {
    /// Hashes the files. `initrd` is empty when there is none; `append` is the command line exactly as given to QEMU,
    /// spaces at its ends included, without NUL.
    ///
    /// # Errors
    /// [`MeasureError::CommandLineNul`]; [`MeasureError::Kernel`] for a unified kernel image, which would not start with what
    /// is given beside it.
    pub fn measure(kernel: &[u8], initrd: &[u8], append: &str) -> Result<Self, MeasureError> {
        plain_kernel(kernel)?;
        let append_sha256 = Self::append_digest(append)?;
        Ok(Self { kernel_sha256: sha256(kernel), initrd_sha256: sha256(initrd), append_sha256 })
    }

    /// The same kernel and ramdisk with another command line.
    ///
    /// # Errors
    /// [`MeasureError::CommandLineNul`].
    pub fn with_append(self, append: &str) -> Result<Self, MeasureError> {
        Ok(Self { append_sha256: Self::append_digest(append)?, ..self })
    }

    /// What the hash table holds for a command line: QEMU hashes the C string that it hands over, with its NUL, even
    /// when it is empty.
    ///
    /// # Errors
    /// [`MeasureError::CommandLineNul`]: the guest would see less than what was measured.
    pub fn append_digest(append: &str) -> Result<Digest<32>, MeasureError> {
        if append.contains('\0') {
            return Err(MeasureError::CommandLineNul);
        }
        Ok(sha256(format!("{append}\0").as_bytes()))
    }

    /// The table itself: header and entries of {GUID, u16 length, SHA-256}, in the order the firmware defines.
    fn table(&self) -> [u8; HASH_TABLE_BYTES] {
        let mut table = [0; HASH_TABLE_BYTES];
        table[..16].copy_from_slice(&HASH_TABLE);
        table[16..18].copy_from_slice(&168u16.to_le_bytes());
        let entries =
            [(HASH_CMDLINE, self.append_sha256), (HASH_INITRD, self.initrd_sha256), (HASH_KERNEL, self.kernel_sha256)];
        for (slot, (guid, digest)) in table[18..].chunks_exact_mut(50).zip(entries) {
            slot[..16].copy_from_slice(&guid);
            slot[16..18].copy_from_slice(&50u16.to_le_bytes());
            slot[18..].copy_from_slice(digest.as_bytes());
        }
        table
    }

    /// The page of kernel hashes, after checking that this firmware looks at it.
    pub(super) fn page(&self, firmware: &FirmwareLaunch) -> Result<Box<[u8; PAGE]>, MeasureError> {
        let section = firmware.sections().iter().find(|section| section.kind == SevSectionKind::KernelHashes);
        let (Some(section), Some(area)) = (section, firmware.hash_table_area()) else {
            return Err(MeasureError::NoKernelHashes);
        };
        let HashTableArea { address, size } = area;
        let misplaced = MeasureError::MisplacedHashTable { address };
        let offset = address.checked_sub(section.address).and_then(index);
        let room = index(size).is_some_and(|size| size >= HASH_TABLE_BYTES);
        let offset = offset.filter(|offset| room && *offset <= PAGE - HASH_TABLE_BYTES).ok_or(misplaced)?;
        let mut page = Box::new([0; PAGE]);
        page[offset..offset + HASH_TABLE_BYTES].copy_from_slice(&self.table());
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ovmf::sample::Sample;

    fn boot() -> DirectBoot {
        DirectBoot::measure(b"kernel", b"initrd", "console=ttyS0").unwrap()
    }

    #[test]
    fn the_table_has_its_published_digest() {
        let table = "c1b2d6975c0ce0b6a60116dfc7710772454b8c44820d3e3ef310ad4f7c7f85a7";
        assert_eq!(sha256(&boot().table()).to_string(), table);
        assert_eq!(boot().with_append("").unwrap(), DirectBoot::measure(b"kernel", b"initrd", "").unwrap());
        assert_eq!(DirectBoot::append_digest("quiet\0 init=/bin/sh"), Err(MeasureError::CommandLineNul));
    }

    #[test]
    fn the_table_lies_where_the_firmware_looks() {
        let firmware = FirmwareLaunch::measure(&Sample::default().build()).unwrap();
        let page = boot().page(&firmware).unwrap();
        assert_eq!(page[0xc00..0xc00 + HASH_TABLE_BYTES], boot().table());
        assert!(page[..0xc00].iter().chain(&page[0xc00 + HASH_TABLE_BYTES..]).all(|byte| *byte == 0));
    }

    #[test]
    fn a_kernel_that_would_not_be_measured_is_refused() {
        let page = |sample: &Sample| boot().page(&FirmwareLaunch::measure(&sample.build()).unwrap());
        let no_entry = Sample { hash_table: [0, 0], ..Sample::default() };
        assert_eq!(page(&no_entry), Err(MeasureError::NoKernelHashes));
        let mut no_section = Sample::default();
        no_section.sev.retain(|[.., kind]| *kind != 0x10);
        assert_eq!(page(&no_section), Err(MeasureError::NoKernelHashes));
    }

    #[test]
    fn a_hash_table_outside_its_page_is_refused() {
        let page = |hash_table| {
            let image = Sample { hash_table, ..Sample::default() }.build();
            boot().page(&FirmwareLaunch::measure(&image).unwrap())
        };
        for hash_table in [[0x80_ffff, 0x400], [0x81_0f51, 0x400], [0x81_1000, 0x400], [0x81_0c00, 175]] {
            let refused = MeasureError::MisplacedHashTable { address: hash_table[0] };
            assert_eq!(page(hash_table), Err(refused), "{hash_table:x?}");
        }
        assert!(page([0x81_0f50, 176]).is_ok());
    }
}
