//! The release that a kernel file names, and whether kernels of that release measure what they are given.
//!
//! Sources: Linux Documentation/arch/x86/boot.rst (`kernel_version`, a pointer from 0x200 on), Linux 6.9
//! `drivers/firmware/efi/libstub` (first to use the measurement protocol of confidential guests), Linux 5.17 (first to
//! measure command line and ramdisk into a TPM).
//!
//! Not trusted: the kernel file, whose word is taken for its own release alone: another file has another digest. Never
//! assumes a release.

use super::KernelError;
use crate::bytes::u16_at;

/// First release whose EFI stub measures command line and ramdisk in a TD.
const MEASURES_SINCE: (u16, u16) = (6, 9);
/// The same on a TPM, in PCR 9.
const MEASURES_ON_TPM_SINCE: (u16, u16) = (5, 17);
const LONGEST: usize = 64;

/// Refuses a kernel that would leave RTMR2 at zero.
pub(crate) fn measures_in_td(kernel: &[u8]) -> Result<(), KernelError> {
    let (major, minor) = release(kernel).ok_or(KernelError::NoRelease)?;
    if (major, minor) < MEASURES_SINCE { Err(KernelError::Unmeasured { major, minor }) } else { Ok(()) }
}

/// Refuses a kernel that would leave PCR 9 at zero.
pub(crate) fn measures_on_tpm(kernel: &[u8]) -> Result<(), KernelError> {
    let (major, minor) = release(kernel).ok_or(KernelError::NoRelease)?;
    if (major, minor) < MEASURES_ON_TPM_SINCE { Err(KernelError::UnmeasuredOnTpm { major, minor }) } else { Ok(()) }
}

/// The first two numbers of the release.
fn release(kernel: &[u8]) -> Option<(u16, u16)> {
    if kernel.get(0x202..0x206) != Some(b"HdrS") {
        return None;
    }
    let sectors = match *kernel.get(0x1f1)? {
        0 => 4,
        sectors => u32::from(sectors),
    };
    // The pointer leads into the setup code.
    let pointer = u16_at(kernel, 0x20e).filter(|pointer| *pointer != 0 && u32::from(*pointer) < sectors * 0x200)?;
    let rest = kernel.get(usize::from(pointer) + 0x200..)?;
    let text = rest.split(|byte| *byte == 0 || *byte == b' ').next().filter(|text| text.len() <= LONGEST)?;
    let mut numbers = std::str::from_utf8(text).ok()?.split(|letter: char| !letter.is_ascii_digit());
    let (major, minor) = (numbers.next()?, numbers.next()?);
    // Exactly a dot between them.
    (text.get(major.len()) == Some(&b'.')).then_some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::linux::sample_kernel;

    fn named(text: &str) -> Result<(), KernelError> {
        let mut kernel = sample_kernel();
        kernel[0x3a0..].fill(0);
        kernel[0x3a0..0x3a0 + text.len()].copy_from_slice(text.as_bytes());
        measures_in_td(&kernel)
    }

    #[test]
    fn kernels_that_measure_nothing_are_refused_by_name() {
        for text in ["6.9.0", "6.9-rc1 (x@y) #1 SMP", "6.12.117+deb12-cloud-amd64 (a@b)", "7.0", "10.1"] {
            assert_eq!(named(text), Ok(()), "{text}");
        }
        let old = named("6.1.0-28-amd64 (debian)").unwrap_err();
        assert_eq!(old, KernelError::Unmeasured { major: 6, minor: 1 });
        assert!(old.to_string().starts_with("Linux 6.1 does not measure"), "{old}");
        assert_eq!(named("5.14.0"), Err(KernelError::Unmeasured { major: 5, minor: 14 }));
        for text in ["", "6", "6.", "6-9", "v6.9", ".6.9", "6..9", "99999.1"] {
            assert_eq!(named(text), Err(KernelError::NoRelease), "{text}");
        }
        let mut kernel = sample_kernel();
        for pointer in [0u16, 0x200, 0xffff] {
            kernel[0x20e..0x210].copy_from_slice(&pointer.to_le_bytes());
            assert_eq!(measures_in_td(&kernel), Err(KernelError::NoRelease), "{pointer:#x}");
        }
        assert_eq!(measures_in_td(b"MZ"), Err(KernelError::NoRelease));
        assert_eq!(measures_on_tpm(b"MZ"), Err(KernelError::NoRelease));
    }

    #[test]
    fn a_tpm_is_told_earlier_than_a_td() {
        let named = |text: &str| {
            let mut kernel = sample_kernel();
            kernel[0x3a0..].fill(0);
            kernel[0x3a0..0x3a0 + text.len()].copy_from_slice(text.as_bytes());
            measures_on_tpm(&kernel)
        };
        assert_eq!(named("5.17.1 (a@b)"), Ok(()));
        assert_eq!(named("6.1.0-28-amd64 (debian)"), Ok(()));
        let old = named("5.15.0-91-generic (ubuntu)").unwrap_err();
        assert_eq!(old, KernelError::UnmeasuredOnTpm { major: 5, minor: 15 });
        assert!(old.to_string().contains("5.17 or later"), "{old}");
    }

    proptest! {
        #[test]
        fn changed_kernels_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0x60), length in 0x1f0usize..0x400) {
            let mut kernel = sample_kernel();
            kernel[0x3a0..].copy_from_slice(&bytes);
            kernel[0x20e] = bytes[0];
            let _ = measures_in_td(&kernel[..length]);
        }
    }
}
