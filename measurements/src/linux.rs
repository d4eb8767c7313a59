//! A Linux kernel that QEMU hands to OVMF (`-kernel`, `-initrd`, `-append`): what the firmware and the kernel's EFI
//! stub get to see, which is not quite what was given.
//!
//! Sources: QEMU 10 `hw/i386/x86-common.c` (`x86_load_linux`), Linux Documentation/arch/x86/boot.rst (setup header),
//! edk2 `OvmfPkg/Library/GenericQemuLoadImageLib` (command line). QEMU writes the loader type, heap and the addresses
//! of command line and initial ramdisk into the setup header, so the kernel's digest depends on memory size and on the
//! size of the ramdisk. It does not do so for SEV guests, nor for files without a setup header; and newer firmware asks for
//! the file as built ([`KernelLoader`]).
//!
//! Not trusted: the kernel file. Never done here: hashing.

pub(crate) mod given;
mod loader;
mod release;

use std::borrow::Cow;

use thiserror::Error;

use crate::bytes::{u16_at, u32_at};
use crate::pe::PeError;

pub use loader::{KernelHeader, KernelLoader, KernelSource, LoaderError, QemuVersion, RamdiskOption};
pub(crate) use release::{measures_in_td, measures_on_tpm};

/// Where QEMU puts the real-mode kernel and the command line for every protocol since 2.02.
const REAL_MODE_ADDRESS: u32 = 0x1_0000;
const COMMAND_LINE_ADDRESS: u32 = 0x2_0000;
/// Memory that the `pc` machines keep below the end of low memory for ACPI tables (`acpi_data_size`).
const ACPI_BYTES: u32 = 0x2_8000;
/// The q35 machine splits memory of this size or more at [`Q35_SPLIT`]; less stays in one piece.
const Q35_WHOLE_LIMIT: u32 = 0xb000_0000;
const Q35_SPLIT: u32 = 0x8000_0000;
/// XLF_CAN_BE_LOADED_ABOVE_4G in `xloadflags`.
const ABOVE_4G: u16 = 2;
/// Last byte of the setup header that is read or written.
const HEADER_END: usize = 0x238;

/// What is handed to QEMU for a direct kernel boot on the q35 machine.
#[derive(Debug, Clone, Copy)]
pub struct DirectKernel<'a> {
    /// The kernel file; a unified kernel image is none.
    pub kernel: &'a [u8],
    /// The initial ramdisk; empty when there is none.
    pub initrd: &'a [u8],
    /// The command line, ASCII, without NUL.
    pub append: &'a str,
    /// Guest memory in MiB (`-m`).
    pub memory_mib: u32,
    /// Where the firmware puts its option for the ramdisk ([`KernelLoader`]).
    pub ramdisk_option: RamdiskOption,
    /// What became of the kernel's header on its way ([`KernelLoader::header_in_td`], [`KernelLoader::header`]).
    pub header: KernelHeader,
}

/// Why a direct kernel boot cannot be predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KernelError {
    /// The kernel cannot be measured by the firmware.
    #[error("kernel: {0}")]
    Pe(#[from] PeError),
    /// The file ends before its setup header or setup code does.
    #[error("the kernel file is cut short")]
    CutShort,
    /// A boot protocol before 2.03 is loaded in other ways.
    #[error("the kernel speaks boot protocol {0:#x}: only 0x203 (Linux 2.4.18) and later can be predicted")]
    Protocol(u16),
    /// The initial ramdisk does not fit below the end of low memory.
    #[error("{memory_mib} MiB of memory cannot hold an initrd of {initrd} bytes: QEMU would refuse to start")]
    Memory {
        /// Guest memory in MiB.
        memory_mib: u32,
        /// Bytes of the initial ramdisk.
        initrd: usize,
    },
    /// QEMU parses this option itself and patches a video mode into the kernel.
    #[error("the command line contains `vga=`, which QEMU patches into the kernel: leave it out")]
    VideoOption,
    /// A unified kernel image in the place of a kernel.
    #[error(
        "the kernel has a section {0}: a unified kernel image starts the kernel inside of it, with its own ramdisk and command \
         line: give it as --uki, or give a plain kernel"
    )]
    UnifiedImage(&'static str),
    /// A PE image that is no Linux kernel: what it does with ramdisk and command line is not known.
    #[error("the kernel has no Linux setup header (HdrS): give a bzImage, or a unified kernel image as --uki")]
    NoSetupHeader,
    /// A word that changes what is measured after the start.
    #[error("the command line contains `{0}`, which changes what the kernel measures: leave it out")]
    Word(&'static str),
    /// The command line cannot be turned into the UTF-16 that the kernel sees without a rule that nobody wrote down.
    #[error("the command line must be ASCII without NUL")]
    CommandLine,
    /// The command line inside a unified kernel image, which releases of systemd-stub treat differently.
    #[error("the image's command line must be printable ASCII without line end and without space at its ends")]
    UnifiedCommandLine,
    /// A kernel that measures nothing in a TD.
    #[error(
        "Linux {major}.{minor} does not measure its command line and ramdisk in a TD, so RTMR2 would not tell what was \
         booted: use Linux 6.9 or later"
    )]
    Unmeasured {
        /// First number of the release.
        major: u16,
        /// Second number.
        minor: u16,
    },
    /// A kernel whose EFI stub does not measure what it is given into a TPM.
    #[error(
        "Linux {major}.{minor} does not measure its command line and ramdisk into a TPM, so PCR 9 would not tell what was \
         booted: use Linux 5.17 or later"
    )]
    UnmeasuredOnTpm {
        /// First number of the release.
        major: u16,
        /// Second number.
        minor: u16,
    },
    /// Nothing tells whether the kernel measures what it is given.
    #[error(
        "the kernel's setup header names no release, so whether it measures its command line (Linux 5.17 and later on a \
         TPM, 6.9 and later in a TD) is not known"
    )]
    NoRelease,
}

impl<'a> DirectKernel<'a> {
    /// The kernel as the firmware gets it.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn loaded(&self) -> Result<Cow<'a, [u8]>, KernelError> {
        self.check_given()?;
        match self.header {
            KernelHeader::AsBuilt => Ok(Cow::Borrowed(self.kernel)),
            KernelHeader::FilledIn => self.patched(),
        }
    }

    /// The kernel after QEMU wrote into its header, whatever `header` says.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn patched(&self) -> Result<Cow<'a, [u8]>, KernelError> {
        self.check_given()?;
        if self.kernel.get(0x202..0x206) != Some(b"HdrS") {
            return Ok(Cow::Borrowed(self.kernel));
        }
        let (protocol, initrd_limit) = self.setup_header()?;
        if protocol < 0x203 {
            return Err(KernelError::Protocol(protocol));
        }
        let mut kernel = self.kernel.to_vec();
        let header = kernel.first_chunk_mut::<HEADER_END>().ok_or(KernelError::CutShort)?;
        header[0x210] = 0xb0; // loader type: QEMU
        header[0x211] |= 0x80; // CAN_USE_HEAP
        let heap_end = (COMMAND_LINE_ADDRESS - REAL_MODE_ADDRESS - 0x200).to_le_bytes();
        header[0x224..0x226].copy_from_slice(&heap_end[..2]);
        header[0x228..0x22c].copy_from_slice(&COMMAND_LINE_ADDRESS.to_le_bytes());
        if !self.initrd.is_empty() {
            let (address, size) = self.place_initrd(initrd_limit)?;
            header[0x218..0x21c].copy_from_slice(&address.to_le_bytes());
            header[0x21c..0x220].copy_from_slice(&size.to_le_bytes());
        }
        Ok(Cow::Owned(kernel))
    }

    /// LOAD_OPTIONS as OVMF builds them, in UTF-16LE with NUL; none when there is neither command line nor ramdisk.
    ///
    /// # Errors
    /// [`KernelError::CommandLine`], [`KernelError::VideoOption`].
    pub fn load_options(&self) -> Result<Option<Vec<u8>>, KernelError> {
        self.check_given()?;
        let append = self.append;
        // The option tells the kernel's stub to ask the firmware for the ramdisk.
        let text = match self.ramdisk_option {
            _ if self.initrd.is_empty() => append.to_owned(),
            RamdiskOption::BeforeCommandLine => format!("initrd=initrd {append}"),
            RamdiskOption::AfterCommandLine => format!("{append} initrd=initrd"),
        };
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()))
    }

    fn check_given(&self) -> Result<(), KernelError> {
        given::plain_kernel(self.kernel)?;
        given::same_ramdisk(self.append)?;
        if !self.append.is_ascii() || self.append.contains('\0') {
            return Err(KernelError::CommandLine);
        }
        if self.append.contains("vga=") { Err(KernelError::VideoOption) } else { Ok(()) }
    }

    /// Boot protocol and highest address for the ramdisk that the kernel allows, after checking that the setup is whole.
    fn setup_header(&self) -> Result<(u16, u32), KernelError> {
        let whole = || {
            let sectors = match *self.kernel.get(0x1f1)? {
                0 => 4,
                sectors => usize::from(sectors),
            };
            self.kernel.get(..(sectors + 1) * 512)?;
            let protocol = u16_at(self.kernel, 0x206)?;
            let above = protocol >= 0x20c && u16_at(self.kernel, 0x236)? & ABOVE_4G != 0;
            let limit = if above { u32::MAX } else { u32_at(self.kernel, 0x22c)? };
            Some((protocol, limit))
        };
        whole().ok_or(KernelError::CutShort)
    }

    /// Address and size of the ramdisk: as high as kernel and low memory allow, on a page boundary.
    fn place_initrd(&self, kernel_limit: u32) -> Result<(u32, u32), KernelError> {
        let does_not_fit = KernelError::Memory { memory_mib: self.memory_mib, initrd: self.initrd.len() };
        let memory = self.memory_mib.saturating_mul(1 << 20);
        let low = if memory < Q35_WHOLE_LIMIT { memory } else { Q35_SPLIT };
        let room = low.checked_sub(ACPI_BYTES).filter(|room| *room > 0).ok_or(does_not_fit)?;
        let limit = if kernel_limit >= room { room - 1 } else { kernel_limit };
        let size = u32::try_from(self.initrd.len()).ok().filter(|size| *size < limit).ok_or(does_not_fit)?;
        Ok(((limit - size) & !0xfff, size))
    }
}

/// A small kernel with setup header and EFI stub for tests; never part of the product.
#[cfg(test)]
pub(crate) fn sample_kernel() -> Vec<u8> {
    let mut kernel = vec![0; 0x400];
    kernel[..0x398].copy_from_slice(&crate::pe::sample::image(0x40));
    kernel[0x1f1] = 1;
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    kernel[0x211] = 1;
    kernel[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    kernel[0x236..0x238].copy_from_slice(&0x7fu16.to_le_bytes());
    kernel[0x20e..0x210].copy_from_slice(&0x1a0u16.to_le_bytes());
    kernel[0x3a0..0x3aa].copy_from_slice(b"6.9.0-test");
    kernel
}

/// A boot of it through earlier releases of firmware and QEMU; for tests.
#[cfg(test)]
pub(crate) fn sample_boot<'a>(
    kernel: &'a [u8],
    initrd: &'a [u8],
    append: &'a str,
    memory_mib: u32,
) -> DirectKernel<'a> {
    let (ramdisk_option, header) = (RamdiskOption::AfterCommandLine, KernelHeader::FilledIn);
    DirectKernel { kernel, initrd, append, memory_mib, ramdisk_option, header }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn direct<'a>(kernel: &'a [u8], initrd: &'a [u8], append: &'a str) -> DirectKernel<'a> {
        sample_boot(kernel, initrd, append, 512)
    }

    #[test]
    fn qemu_patches_exactly_these_fields() {
        let kernel = sample_kernel();
        let initrd = vec![7; 0x1_2345];
        let patched = direct(&kernel, &initrd, "quiet").patched().unwrap();
        let mut expected = kernel.clone();
        expected[0x210] = 0xb0;
        expected[0x211] = 0x81;
        expected[0x224..0x226].copy_from_slice(&[0x00, 0xfe]);
        expected[0x228..0x22c].copy_from_slice(&[0, 0, 2, 0]);
        // 512 MiB - 0x28000 - 1 - 0x12345, down to a page: 0x1ffc5000.
        expected[0x218..0x21c].copy_from_slice(&[0x00, 0x50, 0xfc, 0x1f]);
        expected[0x21c..0x220].copy_from_slice(&[0x45, 0x23, 0x01, 0x00]);
        assert_eq!(patched, expected);
        let without = direct(&kernel, &[], "quiet").patched().unwrap();
        assert_eq!(without[0x218..0x220], kernel[0x218..0x220], "no ramdisk, no address");
    }

    #[test]
    fn the_place_of_the_ramdisk_follows_memory_and_kernel() {
        let mut kernel = sample_kernel();
        let address = |kernel: &[u8], memory_mib| {
            let direct = sample_boot(kernel, &[1; 4096], "", memory_mib);
            u32_at(&direct.patched().unwrap(), 0x218).unwrap()
        };
        assert_eq!(address(&kernel, 1024), 0x3ffd_6000);
        assert_eq!(address(&kernel, 2815), 0xaff0_0000 - 0x2_8000 - 0x2000);
        let split = 0x8000_0000 - 0x2_8000 - 0x2000;
        assert_eq!([address(&kernel, 2816), address(&kernel, 8192)], [split; 2], "memory is split at 2 GiB");
        kernel[0x236] = 0;
        kernel[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes());
        assert_eq!(address(&kernel, 8192), 0x37ff_e000, "the kernel's own limit");
    }

    #[test]
    fn a_unified_image_is_no_kernel() {
        use crate::uki::sample;
        let mut sections = sample::stub("252.39", sample::NAMES_252);
        sections.push((".linux", sample_kernel()));
        let with_mark = sample::image(&sections);
        let without_mark = sample::image(&[(".linux", sample_kernel())]);
        for (image, section) in [(with_mark, ".sdmagic"), (without_mark, ".linux")] {
            let direct = direct(&image, b"initrd", "");
            assert_eq!(direct.patched(), Err(KernelError::UnifiedImage(section)));
            assert_eq!(direct.load_options(), Err(KernelError::UnifiedImage(section)));
        }
    }

    #[test]
    fn load_options_are_what_the_stub_measures() {
        let wide = |text: &str| Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        assert_eq!(direct(&[], b"x", "quiet").load_options(), Ok(wide("quiet initrd=initrd\0")));
        assert_eq!(direct(&[], b"x", "").load_options(), Ok(wide(" initrd=initrd\0")));
        assert_eq!(direct(&[], b"", "quiet ").load_options(), Ok(wide("quiet \0")));
        assert_eq!(direct(&[], b"", "").load_options(), Ok(None));
        // Newer firmware, as booted: `Command line: initrd=initrd console=ttyS0 panic=-1 marker=1`.
        let newer = |initrd, append| {
            let ramdisk_option = RamdiskOption::BeforeCommandLine;
            DirectKernel { ramdisk_option, ..direct(&[], initrd, append) }.load_options()
        };
        assert_eq!(newer(b"x", "quiet"), Ok(wide("initrd=initrd quiet\0")));
        assert_eq!(newer(b"x", ""), Ok(wide("initrd=initrd \0")));
        assert_eq!((newer(b"", "quiet"), newer(b"", "")), (Ok(wide("quiet\0")), Ok(None)));
    }

    #[test]
    fn a_kernel_is_loaded_as_built_or_filled_in() {
        let kernel = sample_kernel();
        let filled = direct(&kernel, b"initrd", "");
        assert_eq!(filled.loaded(), filled.patched());
        let built = DirectKernel { header: KernelHeader::AsBuilt, ..filled };
        assert_eq!(built.loaded().unwrap(), kernel);
        assert_eq!(DirectKernel { append: "vga=1", ..built }.loaded(), Err(KernelError::VideoOption));
    }

    #[test]
    fn what_cannot_be_predicted_is_refused() {
        let kernel = sample_kernel();
        let patched = |append, memory_mib| sample_boot(&kernel, &[0; 4096], append, memory_mib).patched();
        assert_eq!(patched("vga=ask", 512), Err(KernelError::VideoOption));
        assert_eq!(patched("a\0b", 512), Err(KernelError::CommandLine));
        assert_eq!(patched("name=ä", 512), Err(KernelError::CommandLine));
        assert_eq!(patched("", 0), Err(KernelError::Memory { memory_mib: 0, initrd: 4096 }));
        assert!(patched("", u32::MAX).is_ok());
        let big = vec![0; 1 << 20];
        let small = sample_boot(&kernel, &big, "", 1);
        assert_eq!(small.patched(), Err(KernelError::Memory { memory_mib: 1, initrd: 1 << 20 }));
        let mut old = kernel.clone();
        old[0x206] = 2;
        old[0x207] = 2;
        assert_eq!(direct(&old, b"", "").patched(), Err(KernelError::Protocol(0x202)));
        for length in [0x206, 0x220, 0x3ff] {
            assert_eq!(direct(&kernel[..length], b"", "").patched(), Err(KernelError::CutShort), "{length:#x}");
        }
    }

    proptest! {
        #[test]
        fn changed_kernels_never_panic(changes in proptest::collection::vec((0x1f0usize..0x240, any::<u8>()), 1..8), length in 0usize..0x400, memory_mib: u32) {
            let mut kernel = sample_kernel();
            for (at, byte) in changes {
                kernel[at] = byte;
            }
            kernel.truncate(length);
            let direct = sample_boot(&kernel, b"x", "quiet", memory_mib);
            let _ = direct.patched();
        }
    }
}
