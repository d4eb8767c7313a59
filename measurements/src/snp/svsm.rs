//! A launch with an SVSM (COCONUT) that QEMU places below the firmware, and that starts in its stead.
//!
//! Source: what COCONUT's QEMU and the independent calculator sev-snp-measure 0.0.13 do: the pages of the firmware, those of
//! the SVSM, then the sections of the SVSM's own metadata; every vCPU starts in the SVSM, in protected mode. That
//! calculator knows SEV_FEATURES 0x1 only; here they are what is given.
//!
//! Not trusted: both images. Never done here: SVSMs in IGVM files, which carry their own directives.

use super::FirmwareLaunch;
use super::launch::{Launch, PageType};
use crate::bytes::index;
use crate::ovmf::{Firmware, FirmwareError, MAX_FIRMWARE_BYTES, PAGE};

/// How the SVSM's images lie in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SvsmImages<'a> {
    /// The firmware that the SVSM starts later, without its variables (OVMF_CODE).
    pub firmware: &'a [u8],
    /// Bytes of the variable store (OVMF_VARS) that QEMU maps between the two; whole pages.
    pub variables_bytes: u32,
    /// The SVSM's image.
    pub svsm: &'a [u8],
}

impl SvsmImages<'_> {
    /// Reads the metadata of the SVSM, and hashes firmware and SVSM.
    ///
    /// # Errors
    /// [`FirmwareError`]; [`FirmwareError::NoSvsm`] when the image is not one.
    pub fn measure(&self) -> Result<FirmwareLaunch, FirmwareError> {
        // Only its footer is asked for: what it wants from the hypervisor is the SVSM's to ask for.
        let firmware = Firmware::parse(self.firmware)?;
        let variables = index(self.variables_bytes).filter(|bytes| bytes.is_multiple_of(PAGE));
        let variables = variables.ok_or(FirmwareError::Variables(self.variables_bytes))?;
        let below_4_gib = self.firmware.len().saturating_add(variables);
        let svsm = Firmware::parse_below(self.svsm, below_4_gib)?;
        let sections = svsm.sev_sections()?;
        let all = below_4_gib.saturating_add(self.svsm.len());
        let too_large = || FirmwareError::Size(all);
        let image_bytes = u32::try_from(all).map_err(|_| too_large())?;
        if all > MAX_FIRMWARE_BYTES {
            return Err(too_large());
        }
        let start = u32::try_from(svsm.address()).map_err(|_| too_large())?;
        let entry = svsm.svsm_start()?.ok_or(FirmwareError::NoSvsm)?;
        let svsm_eip = start.checked_add(entry).ok_or(FirmwareError::NoSvsm)?;
        let mut launch = Launch::begin();
        launch.contents(PageType::Normal, self.firmware, firmware.address());
        launch.contents(PageType::Normal, self.svsm, svsm.address());
        Ok(FirmwareLaunch {
            image_bytes,
            image_digest: launch.digest(),
            sections,
            hash_table: None,
            ap_reset_eip: None,
            svsm_eip: Some(svsm_eip),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::ovmf::sample::Sample;
    use crate::snp::{CpuSignature, DirectBoot, GuestFeatures, MeasureError, Vmm};

    fn svsm_image() -> Vec<u8> {
        Sample { svsm: Some(0x1000), ..Sample::default() }.build()
    }

    fn measure(firmware: &[u8], variables_bytes: u32, svsm: &[u8]) -> Result<FirmwareLaunch, FirmwareError> {
        SvsmImages { firmware, variables_bytes, svsm }.measure()
    }

    #[test]
    fn place_and_both_images_are_measured() {
        let (firmware, svsm) = (Sample::default().build(), svsm_image());
        let launch = measure(&firmware, 0x3000, &svsm).unwrap();
        assert_eq!(launch.address(), 0xffff_9000, "two pages below three below two");
        assert_eq!(launch.svsm_eip(), Some(0xffff_a000));
        let digest = |launch: &FirmwareLaunch, vcpus| {
            let vcpus = NonZeroU16::new(vcpus).unwrap();
            launch.digest(None, vcpus, CpuSignature::EPYC_V4, GuestFeatures::SNP, Vmm::Qemu).unwrap()
        };
        let mut other_firmware = firmware.clone();
        other_firmware[0] ^= 1;
        let mut other_svsm = svsm.clone();
        other_svsm[0] ^= 1;
        let all = [
            digest(&launch, 1),
            digest(&launch, 2),
            digest(&measure(&firmware, 0x4000, &svsm).unwrap(), 1),
            digest(&measure(&other_firmware, 0x3000, &svsm).unwrap(), 1),
            digest(&measure(&firmware, 0x3000, &other_svsm).unwrap(), 1),
            digest(&FirmwareLaunch::measure(&svsm).unwrap(), 1),
        ];
        assert!((1..all.len()).all(|index| !all[..index].contains(&all[index])), "{all:?}");
        let json = serde_json::to_string(&launch).unwrap();
        assert_eq!(serde_json::from_str::<FirmwareLaunch>(&json).unwrap(), launch);
    }

    #[test]
    fn what_cannot_be_an_svsm_is_refused() {
        let (firmware, svsm) = (Sample::default().build(), svsm_image());
        assert_eq!(measure(&firmware, 0x3000, &firmware), Err(FirmwareError::NoSvsm));
        assert_eq!(measure(&firmware, 1, &svsm), Err(FirmwareError::Variables(1)));
        assert_eq!(measure(&firmware, 0, &svsm[1..]), Err(FirmwareError::Size(svsm.len() - 1)));
        assert!(matches!(measure(&firmware, 0xffff_f000, &svsm), Err(FirmwareError::Size(_))));
        assert!(matches!(measure(&firmware, 0x0800_0000, &svsm), Err(FirmwareError::Size(_))));
        let beyond = Sample { svsm: Some(u32::MAX), ..Sample::default() }.build();
        assert_eq!(measure(&firmware, 0, &beyond), Err(FirmwareError::NoSvsm));
        let launch = measure(&firmware, 0, &svsm).unwrap();
        assert_eq!(launch.before_vcpus(None, Vmm::Ec2), Err(MeasureError::SvsmVmm(Vmm::Ec2)));
        let boot = DirectBoot::measure(b"kernel", b"", "").unwrap();
        assert_eq!(launch.before_vcpus(Some(&boot), Vmm::Qemu), Err(MeasureError::NoKernelHashes));
    }
}
