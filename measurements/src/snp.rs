//! The SEV-SNP launch digest: MEASUREMENT of the attestation report, for a guest that QEMU starts.
//!
//! Source: AMD SEV-SNP Firmware ABI (56860) sections 8.17 and 8.18, QEMU `target/i386/sev.c`. Each page of the launch
//! extends the digest: `LD = SHA-384(PAGE_INFO)`. Order: the whole firmware image below 4 GiB, the sections of its SEV
//! metadata in table order, one VMSA page for each vCPU.
//!
//! Not trusted: the firmware image. Never done here: files, IGVM launches, deciding what is acceptable.

use std::num::NonZeroU16;

use thiserror::Error;

use crate::digest::{Digest, sha256, sha384};
use crate::ovmf::{Firmware, FirmwareError, HashTableArea, PAGE, SevSection, SevSectionKind, guid};
use crate::vmsa;

pub use crate::cpu::{CpuSignature, UnknownCpu};

/// Guest physical address that the measurement of every VMSA page carries (SEV-SNP ABI 8.18).
const VMSA_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

const HASH_TABLE: [u8; 16] = guid(0x9438_d606, 0x4f22, 0x4cc9, 0xb479_a793_d411_fd21);
const HASH_CMDLINE: [u8; 16] = guid(0x97d0_2dd8, 0xbd20, 0x4c94, 0xaa78_e771_4d36_ab2a);
const HASH_INITRD: [u8; 16] = guid(0x44ba_f731, 0x3a2f, 0x4bd7, 0x9af1_41e2_9169_781d);
const HASH_KERNEL: [u8; 16] = guid(0x4de7_9437, 0xabd2, 0x427f, 0xb835_d5b1_72d2_045b);
/// Bytes of the hash table with its padding to a multiple of 16.
const HASH_TABLE_BYTES: usize = 176;

/// A kernel that QEMU loads directly (`-kernel`, `-initrd`, `-append`) and whose hashes the firmware checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectBoot {
    /// SHA-256 of the kernel file, unmodified.
    pub kernel_sha256: Digest<32>,
    /// SHA-256 of the initial ramdisk; without one, SHA-256 of nothing.
    pub initrd_sha256: Digest<32>,
    /// Command line exactly as given to QEMU, spaces at its ends included, without NUL.
    pub append: String,
}

impl DirectBoot {
    /// Hashes the files. `initrd` is empty when there is none.
    #[must_use]
    pub fn measure(kernel: &[u8], initrd: &[u8], append: &str) -> Self {
        Self { kernel_sha256: sha256(kernel), initrd_sha256: sha256(initrd), append: append.to_owned() }
    }
}

/// SEV_FEATURES of every VMSA (AMD64 APM volume 2, appendix B): bit 0 SNP active, bit 5 debug swap, bit 9 secure TSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestFeatures(u64);

impl GuestFeatures {
    /// Only SNP active: what QEMU starts guests with when no option adds to it.
    pub const SNP: Self = Self(1);

    /// Takes raw SEV_FEATURES.
    ///
    /// # Errors
    /// [`MeasureError::NotSnp`] when bit 0 is missing: such a guest is not an SNP guest and has no SNP launch digest.
    pub fn from_raw(features: u64) -> Result<Self, MeasureError> {
        if features & 1 == 0 { Err(MeasureError::NotSnp(features)) } else { Ok(Self(features)) }
    }

    /// Raw SEV_FEATURES.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// Whose launch is computed; hypervisors differ in register state and in the order of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
}

/// Why no launch digest can be given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MeasureError {
    /// The firmware image cannot be used.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// A kernel is given, but this build does not check kernel hashes: the launch digest would not cover the kernel.
    #[error(
        "this firmware does not check kernel hashes, so the launch digest would not cover kernel, initrd and command \
         line: use an AmdSev build of OVMF, or leave the kernel out"
    )]
    NoKernelHashes,
    /// The hash table does not lie in the page that the metadata reserves for it.
    #[error("the firmware's kernel hash table at {address:#x} does not fit into the page reserved for it")]
    MisplacedHashTable {
        /// Guest physical address that the footer entry names.
        address: u32,
    },
    /// The command line holds a NUL byte: the guest would see less than what was measured.
    #[error("the command line holds a NUL byte")]
    CommandLineNul,
    /// More than one vCPU, but the firmware does not say where the others start.
    #[error("this firmware has no SEV-ES reset block and can start one vCPU only")]
    NoApReset,
    /// SEV_FEATURES without bit 0.
    #[error("guest features {0:#x} lack bit 0 (SNP active): an SNP guest has at least 0x1")]
    NotSnp(u64),
}

/// The launch digest that the report of this guest carries as MEASUREMENT.
///
/// `firmware` is the whole image given to QEMU as `-bios`; `boot` the directly loaded kernel, or none; `vcpus` all
/// vCPUs present at launch; `cpu` the signature of the CPU model; `features` SEV_FEATURES as KVM sets them.
///
/// # Errors
/// [`MeasureError`].
pub fn launch_digest(
    firmware: &[u8],
    boot: Option<&DirectBoot>,
    vcpus: NonZeroU16,
    cpu: CpuSignature,
    features: GuestFeatures,
    vmm: Vmm,
) -> Result<[u8; 48], MeasureError> {
    let Vmm::Qemu = vmm;
    let firmware = Firmware::parse(firmware)?;
    let sections = firmware.sev_sections()?;
    let hashes = boot.map(|boot| hash_page(boot, &firmware, &sections)).transpose()?;
    let ap_reset = match firmware.ap_reset_eip()? {
        None if vcpus.get() > 1 => return Err(MeasureError::NoApReset),
        found => found.unwrap_or_default(),
    };

    let mut launch = Launch::default();
    for (page, address) in firmware.image().chunks_exact(PAGE).zip(addresses(firmware.address())) {
        launch.contents(PageType::Normal, page, address);
    }
    for section in &sections {
        let pages = addresses(section.address.into()).take(pages_of(section));
        match (section.kind, &hashes) {
            (SevSectionKind::KernelHashes, Some(page)) => {
                launch.contents(PageType::Normal, page.as_ref(), section.address.into());
            }
            (SevSectionKind::SecMem | SevSectionKind::SvsmCaa | SevSectionKind::KernelHashes, _) => {
                pages.for_each(|address| launch.page(PageType::Zero, NO_CONTENTS, address));
            }
            (SevSectionKind::Secrets, _) => {
                pages.for_each(|address| launch.page(PageType::Secrets, NO_CONTENTS, address));
            }
            (SevSectionKind::Cpuid, _) => {
                pages.for_each(|address| launch.page(PageType::Cpuid, NO_CONTENTS, address));
            }
        }
    }
    launch.vcpus(vcpus, cpu, features, ap_reset);
    Ok(launch.digest)
}

fn addresses(first: u64) -> impl Iterator<Item = u64> {
    (first..).step_by(PAGE)
}

fn pages_of(section: &SevSection) -> usize {
    crate::bytes::index(section.size).unwrap_or(0) / PAGE
}

/// What PAGE_INFO says of a page (SEV-SNP ABI, PAGE_TYPE).
#[derive(Debug, Clone, Copy)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

/// The CONTENTS field of pages whose contents are not measured.
const NO_CONTENTS: [u8; 48] = [0; 48];

/// The running launch digest.
struct Launch {
    digest: [u8; 48],
}

impl Default for Launch {
    fn default() -> Self {
        Self { digest: [0; 48] }
    }
}

impl Launch {
    fn contents(&mut self, kind: PageType, page: &[u8], address: u64) {
        self.page(kind, *sha384(page).as_bytes(), address);
    }

    /// PAGE_INFO: current digest 48, contents 48, length u16, type u8, IMI u8, three VMPL permissions and a reserved
    /// byte, all zero, guest physical address u64.
    fn page(&mut self, kind: PageType, contents: [u8; 48], address: u64) {
        let mut info = [0; 0x70];
        info[..48].copy_from_slice(&self.digest);
        info[48..96].copy_from_slice(&contents);
        info[96..98].copy_from_slice(&0x70u16.to_le_bytes());
        info[98] = kind as u8;
        info[104..].copy_from_slice(&address.to_le_bytes());
        self.digest = *sha384(&info).as_bytes();
    }

    fn vcpus(&mut self, vcpus: NonZeroU16, cpu: CpuSignature, features: GuestFeatures, ap_reset: u32) {
        let boot = vmsa::page(vmsa::RESET_EIP, cpu.raw(), features.raw());
        self.contents(PageType::Vmsa, boot.as_ref(), VMSA_ADDRESS);
        if vcpus.get() > 1 {
            // All other vCPUs start from equal pages: hashed once, then each only extends the digest.
            let application = sha384(vmsa::page(ap_reset, cpu.raw(), features.raw()).as_ref());
            (1..vcpus.get()).for_each(|_| self.page(PageType::Vmsa, *application.as_bytes(), VMSA_ADDRESS));
        }
    }
}

/// The page of kernel hashes, after checking that this firmware looks at it.
fn hash_page(
    boot: &DirectBoot,
    firmware: &Firmware<'_>,
    sections: &[SevSection],
) -> Result<Box<[u8; PAGE]>, MeasureError> {
    let section = sections.iter().find(|section| section.kind == SevSectionKind::KernelHashes);
    let (Some(section), Some(area)) = (section, firmware.hash_table_area()?) else {
        return Err(MeasureError::NoKernelHashes);
    };
    let HashTableArea { address, size } = area;
    let misplaced = MeasureError::MisplacedHashTable { address };
    let offset = address.checked_sub(section.address).and_then(crate::bytes::index);
    let room = crate::bytes::index(size).is_some_and(|size| size >= HASH_TABLE_BYTES);
    let offset = offset.filter(|offset| room && *offset <= PAGE - HASH_TABLE_BYTES).ok_or(misplaced)?;
    let mut page = Box::new([0; PAGE]);
    page[offset..offset + HASH_TABLE_BYTES].copy_from_slice(&hash_table(boot)?);
    Ok(page)
}

/// The table itself: header and entries of {GUID, u16 length, SHA-256}, in the order the firmware defines.
fn hash_table(boot: &DirectBoot) -> Result<[u8; HASH_TABLE_BYTES], MeasureError> {
    if boot.append.contains('\0') {
        return Err(MeasureError::CommandLineNul);
    }
    // QEMU hashes the command line as the C string that it hands over: with its NUL, even when empty.
    let append = sha256(format!("{}\0", boot.append).as_bytes());
    let mut table = [0; HASH_TABLE_BYTES];
    table[..16].copy_from_slice(&HASH_TABLE);
    table[16..18].copy_from_slice(&168u16.to_le_bytes());
    let entries = [(HASH_CMDLINE, append), (HASH_INITRD, boot.initrd_sha256), (HASH_KERNEL, boot.kernel_sha256)];
    for (slot, (guid, digest)) in table[18..].chunks_exact_mut(50).zip(entries) {
        slot[..16].copy_from_slice(&guid);
        slot[16..18].copy_from_slice(&50u16.to_le_bytes());
        slot[18..].copy_from_slice(digest.as_bytes());
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ovmf::sample::Sample;

    const ONE: NonZeroU16 = NonZeroU16::MIN;

    fn hexadecimal(digest: [u8; 48]) -> String {
        Digest::from_bytes(digest).to_string()
    }

    fn digest(firmware: &[u8], boot: Option<&DirectBoot>, vcpus: u16) -> Result<[u8; 48], MeasureError> {
        let vcpus = NonZeroU16::new(vcpus).unwrap();
        launch_digest(firmware, boot, vcpus, CpuSignature::EPYC_V4, GuestFeatures::SNP, Vmm::Qemu)
    }

    fn boot() -> DirectBoot {
        DirectBoot::measure(b"kernel", b"initrd", "console=ttyS0")
    }

    /// Step by step, each value computed with an independent calculator.
    #[test]
    fn each_kind_of_page_extends_the_digest_as_published() {
        let mut launch = Launch::default();
        let mut expect = |step: &dyn Fn(&mut Launch), value: &str| {
            step(&mut launch);
            assert_eq!(hexadecimal(launch.digest), value);
        };
        expect(
            &|l| l.contents(PageType::Normal, &[0; PAGE], 0xffff_f000),
            "46c510442a54cc32344cef32e14dc3d6312fc4a010780dd11fd33204df5550590356b069e6c6ca5bbfca71561f370399",
        );
        expect(
            &|l| l.page(PageType::Zero, NO_CONTENTS, 0x80_0000),
            "58bcd0444a7ed18b2f83cdbec58255f3e4e9439735fc13bcb00ad80b5c9ec9b21abecc3fa389c02781e68496e720bc70",
        );
        expect(
            &|l| l.page(PageType::Secrets, NO_CONTENTS, 0x80_d000),
            "4a1be0fd7e5f2abff17ed5d7f59e9258f6ae28795b4093a13a13cccd42dae7a314536932ab943d68f2240073a3c8748b",
        );
        expect(
            &|l| l.page(PageType::Cpuid, NO_CONTENTS, 0x80_e000),
            "680559cbc8a791969911e957369343df96022341d7443bc553e300411c68f043c6ab1eb6b66c15f4f1878431ee74fad6",
        );
        let image = Sample::default().build();
        let firmware = Firmware::parse(&image).unwrap();
        let page = hash_page(&boot(), &firmware, &firmware.sev_sections().unwrap()).unwrap();
        assert_eq!(
            sha256(&hash_table(&boot()).unwrap()).to_string(),
            "c1b2d6975c0ce0b6a60116dfc7710772454b8c44820d3e3ef310ad4f7c7f85a7"
        );
        expect(
            &|l| l.contents(PageType::Normal, page.as_ref(), 0x81_0000),
            "b505d014444b524a7b3be4c8d859bca14705cec1268aefc3a726689646a3573cb33b41168c2012c61d90bc7df4182310",
        );
        let two = NonZeroU16::new(2).unwrap();
        let mut one = Launch { digest: launch.digest };
        one.vcpus(ONE, CpuSignature::EPYC_V4, GuestFeatures::SNP, 0);
        assert_eq!(
            hexadecimal(one.digest),
            "214b3727c4c2a43aec435268a267d5bae038e2c179658e0dbef48b176800a82ee9533881eee7c5032894c3613882205f"
        );
        launch.vcpus(two, CpuSignature::EPYC_V4, GuestFeatures::SNP, 0x0080_b004);
        assert_eq!(
            hexadecimal(launch.digest),
            "d5fa430148127b95554620aabe3314a86c461df85767ece6a03ca65a5e332de014444feedd132788c438a899d7e082eb"
        );
    }

    #[test]
    fn everything_that_is_measured_changes_the_digest() {
        let image = Sample::default().build();
        let base = digest(&image, Some(&boot()), 1).unwrap();
        let mut other_firmware = image.clone();
        other_firmware[0] ^= 1;
        let measure = |kernel: &[u8], initrd: &[u8], append| {
            digest(&image, Some(&DirectBoot::measure(kernel, initrd, append)), 1).unwrap()
        };
        let with = |cpu, features| launch_digest(&image, Some(&boot()), ONE, cpu, features, Vmm::Qemu).unwrap();
        let milan = "EPYC-Milan".parse().unwrap();
        let others = [
            digest(&other_firmware, Some(&boot()), 1).unwrap(),
            digest(&image, Some(&boot()), 2).unwrap(),
            digest(&image, None, 1).unwrap(),
            measure(b"Kernel", b"initrd", "console=ttyS0"),
            measure(b"kernel", b"Initrd", "console=ttyS0"),
            measure(b"kernel", b"initrd", "console=ttyS0 "),
            measure(b"kernel", b"initrd", ""),
            with(milan, GuestFeatures::SNP),
            with(CpuSignature::EPYC_V4, GuestFeatures::from_raw(0x21).unwrap()),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(*other, base, "variation {index}");
            assert!(!others[..index].contains(other), "variation {index} equals an earlier one");
        }
        assert_eq!(measure(b"kernel", b"initrd", "console=ttyS0"), base);
    }

    #[test]
    fn a_kernel_that_would_not_be_measured_is_refused() {
        let no_entry = Sample { hash_table: [0, 0], ..Sample::default() };
        assert_eq!(digest(&no_entry.build(), Some(&boot()), 1), Err(MeasureError::NoKernelHashes));
        assert!(digest(&no_entry.build(), None, 1).is_ok(), "without a kernel there is nothing to miss");
        let mut no_section = Sample::default();
        no_section.sev.retain(|[.., kind]| *kind != 0x10);
        assert_eq!(digest(&no_section.build(), Some(&boot()), 1), Err(MeasureError::NoKernelHashes));
    }

    #[test]
    fn a_hash_table_outside_its_page_is_refused() {
        for hash_table in [[0x80_ffff, 0x400], [0x81_0f51, 0x400], [0x81_1000, 0x400], [0x81_0c00, 175]] {
            let image = Sample { hash_table, ..Sample::default() }.build();
            let refused = MeasureError::MisplacedHashTable { address: hash_table[0] };
            assert_eq!(digest(&image, Some(&boot()), 1), Err(refused), "{hash_table:x?}");
        }
        let last = Sample { hash_table: [0x81_0f50, 176], ..Sample::default() }.build();
        assert!(digest(&last, Some(&boot()), 1).is_ok());
    }

    #[test]
    fn impossible_guests_are_refused() {
        let no_reset = Sample { ap_reset: None, ..Sample::default() }.build();
        assert!(digest(&no_reset, None, 1).is_ok());
        assert_eq!(digest(&no_reset, None, 2), Err(MeasureError::NoApReset));
        assert_eq!(GuestFeatures::from_raw(0x20), Err(MeasureError::NotSnp(0x20)));
        let nul = DirectBoot::measure(b"kernel", b"", "quiet\0 init=/bin/sh");
        assert_eq!(digest(&Sample::default().build(), Some(&nul), 1), Err(MeasureError::CommandLineNul));
    }

    proptest! {
        #[test]
        fn a_changed_image_never_panics(changes in proptest::collection::vec((0usize..0x500, any::<u8>()), 1..4)) {
            let mut image = Sample::default().build();
            let end = image.len();
            for (distance, byte) in changes {
                image[end - 1 - distance] = byte;
            }
            let _ = digest(&image, Some(&boot()), 2);
        }
    }
}
