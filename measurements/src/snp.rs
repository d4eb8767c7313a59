//! The SEV-SNP launch digest: MEASUREMENT of the attestation report, for a guest started from an OVMF image.
//!
//! Source: AMD SEV-SNP Firmware ABI (56860) sections 8.17 and 8.18, QEMU `target/i386/sev.c`. Each page of the launch
//! extends the digest. Order: the whole firmware image below 4 GiB, the sections of its SEV metadata in table order,
//! one VMSA page for each vCPU.
//!
//! Not trusted: the firmware image. Never done here: files, deciding what is acceptable.

mod firmware;
pub mod id_block;
mod kernel_hashes;
pub(crate) mod launch;
mod svsm;

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::linux::KernelError;
use crate::ovmf::FirmwareError;

pub use crate::cpu::{CpuSignature, UnknownCpu};
pub use firmware::{BeforeVcpus, FirmwareLaunch};
pub use kernel_hashes::DirectBoot;
pub use svsm::SvsmImages;

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
///
/// Written `qemu`, `ec2`, `gce`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl Vmm {
    /// All that are known.
    pub const ALL: [Self; 3] = [Self::Qemu, Self::Ec2, Self::Gce];

    /// How it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Ec2 => "ec2",
            Self::Gce => "gce",
        }
    }
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A hypervisor that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown hypervisor {0:?}: expected qemu, ec2 or gce")]
pub struct UnknownVmm(String);

/// The name, in capitals or not: other tools write `QEMU`.
impl FromStr for Vmm {
    type Err = UnknownVmm;

    fn from_str(text: &str) -> Result<Self, UnknownVmm> {
        let found = Self::ALL.into_iter().find(|vmm| vmm.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownVmm(text.to_owned()))
    }
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
    /// A unified kernel image in the place of a kernel: its stub takes its own ramdisk and command line.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The firmware does not say where all vCPUs but the first start: no SEV-ES reset block, or zero in it. QEMU ends then,
    /// with one vCPU too.
    #[error(
        "this firmware has no SEV-ES reset block, or one with the address zero: QEMU does not start an SNP guest from it, \
         and none that does is known; is it a build for x86-64 with SEV?"
    )]
    NoApReset,
    /// An SVSM below another hypervisor than QEMU.
    #[error("how {0} starts an SVSM is not known: an SVSM's launch can be told for QEMU only")]
    SvsmVmm(Vmm),
    /// SEV_FEATURES without bit 0.
    #[error("guest features {0:#x} lack bit 0 (SNP active): an SNP guest has at least 0x1")]
    NotSnp(u64),
}

/// The launch digest that the report of this guest carries as MEASUREMENT, in one call.
///
/// `firmware` is the whole image given to QEMU as `-bios`; `boot` the directly loaded kernel, or none; `vcpus` all
/// vCPUs present at launch; `cpu` the signature of the CPU model; `features` SEV_FEATURES as KVM sets them. For more
/// than one shape of guest, measure the firmware once: [`FirmwareLaunch`].
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
    let digest = FirmwareLaunch::measure(firmware)?.digest(boot, vcpus, cpu, features, vmm)?;
    Ok(*digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ovmf::sample::Sample;

    const ONE: NonZeroU16 = NonZeroU16::MIN;

    fn digest(firmware: &[u8], boot: Option<&DirectBoot>, vcpus: u16) -> Result<[u8; 48], MeasureError> {
        let vcpus = NonZeroU16::new(vcpus).unwrap();
        launch_digest(firmware, boot, vcpus, CpuSignature::EPYC_V4, GuestFeatures::SNP, Vmm::Qemu)
    }

    fn boot() -> DirectBoot {
        DirectBoot::measure(b"kernel", b"initrd", "console=ttyS0").unwrap()
    }

    #[test]
    fn everything_that_is_measured_changes_the_digest() {
        let image = Sample::default().build();
        let base = digest(&image, Some(&boot()), 1).unwrap();
        let mut other_firmware = image.clone();
        other_firmware[0] ^= 1;
        let measure = |kernel: &[u8], initrd: &[u8], append| {
            digest(&image, Some(&DirectBoot::measure(kernel, initrd, append).unwrap()), 1).unwrap()
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
    fn impossible_guests_are_refused() {
        let no_reset = Sample { ap_reset: None, ..Sample::default() }.build();
        let zero = Sample { ap_reset: Some(0), ..Sample::default() }.build();
        for (image, vmm) in [&no_reset, &zero].into_iter().flat_map(|image| Vmm::ALL.map(|vmm| (image, vmm))) {
            for vcpus in [ONE, NonZeroU16::MAX] {
                let refused = launch_digest(image, None, vcpus, CpuSignature::EPYC_V4, GuestFeatures::SNP, vmm);
                assert_eq!(refused, Err(MeasureError::NoApReset), "{vmm}, {vcpus} vCPUs");
            }
        }
        let no_hashes = Sample { hash_table: [0, 0], ..Sample::default() }.build();
        assert_eq!(digest(&no_hashes, Some(&boot()), 1), Err(MeasureError::NoKernelHashes));
        assert!(digest(&no_hashes, None, 1).is_ok(), "without a kernel there is nothing to miss");
        assert_eq!(GuestFeatures::from_raw(0x20), Err(MeasureError::NotSnp(0x20)));
    }

    #[test]
    fn hypervisors_have_names() {
        for (text, vmm) in [("qemu", Vmm::Qemu), ("QEMU", Vmm::Qemu), ("ec2", Vmm::Ec2), ("gce", Vmm::Gce)] {
            assert_eq!(text.parse(), Ok(vmm));
        }
        assert_eq!("xen".parse::<Vmm>(), Err(UnknownVmm("xen".into())));
        for vmm in Vmm::ALL {
            assert_eq!(serde_json::to_value(vmm).unwrap(), vmm.name());
        }
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
