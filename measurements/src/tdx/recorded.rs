//! A machine recorded from the log of a trusted boot, held against the firmware and memory size that are named beside it.
//!
//! A log tells what some firmware measured on some machine. Taken for another, it gives an RTMR0 that no boot has: so what
//! can be compared is compared, and a contradiction is refused.
//!
//! Not trusted: log and image. Never says that a boot was one to trust.

use thiserror::Error;

use super::build::Build;
use super::hob::{HobError, td_hob};
use super::machine::{MachineError, MachineEvents, recorded_volume};
use super::rtmr::cfv_digest;
use crate::digest::{Digest, sha384};
use crate::ovmf::{Firmware, FirmwareError};

/// Whether a recorded memory map was compared with a computed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMap {
    /// It is the one of the memory size given.
    Compared,
    /// None can be computed for this firmware, whose metadata has no one place for it: the size given is not proved.
    Unknown,
}

/// Why a log is not taken for the machine that is described.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordedError {
    /// The log.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The image.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// No machine has this memory size.
    #[error(transparent)]
    Hob(#[from] HobError),
    /// The log names another empty variable store.
    #[error(
        "the log is one of another firmware: its configuration volume has the digest {logged}, that of the image given \
         {given}. Record a boot of this image"
    )]
    Volume {
        /// Digest in the log.
        logged: Digest<48>,
        /// Digest of the image's.
        given: Digest<48>,
    },
    /// The build measures other things than the log has.
    #[error(
        "the log is one of another firmware: {what}, unlike what the image given does. Record a boot of this image"
    )]
    Build {
        /// What the log has or lacks.
        what: &'static str,
    },
    /// The memory map is another one.
    #[error(
        "the log is one of a machine with another memory size, or of another firmware or hypervisor: its TD HOB is not the \
         one of {memory_mib} MiB. Record a boot of this shape"
    )]
    Memory {
        /// The size that was given.
        memory_mib: u32,
    },
}

impl MachineEvents {
    /// Records a machine, and refuses a log that contradicts the image, its build or the memory size.
    ///
    /// # Errors
    /// [`RecordedError`].
    pub fn record_of(
        log: &[u8],
        image: &[u8],
        build: &Build,
        memory_mib: u32,
    ) -> Result<(Self, MemoryMap), RecordedError> {
        let (machine, logged, given) = (Self::record(log)?, recorded_volume(log)?, cfv_digest(image)?);
        if logged != given {
            return Err(RecordedError::Volume { logged, given });
        }
        machine.check_build(build)?;
        match td_hob(&Firmware::parse(image)?, memory_mib) {
            Ok(hob) if machine.td_hob == sha384(&hob) => Ok((machine, MemoryMap::Compared)),
            Ok(_) => Err(RecordedError::Memory { memory_mib }),
            Err(HobError::Place(_)) => Ok((machine, MemoryMap::Unknown)),
            Err(error) => Err(error.into()),
        }
    }

    fn check_build(&self, build: &Build) -> Result<(), RecordedError> {
        let facts = [
            ((!self.fw_cfg.is_empty(), build.fw_cfg), ["it has configuration items", "it has no configuration items"]),
            ((self.smbios.is_some(), build.smbios), ["it has SMBIOS tables", "it has no SMBIOS tables"]),
            (
                (self.secure_boot.enabled.is_some(), build.secure_boot),
                ["it knows Secure Boot", "it does not know Secure Boot"],
            ),
        ];
        for ((logged, measured), [there, missing]) in facts {
            if logged != measured {
                return Err(RecordedError::Build { what: if logged { there } else { missing } });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventlog::encode_ccel;
    use crate::linux::LoaderError;
    use crate::ovmf::sample::Sample;
    use crate::tdx::{Separators, rtmr0_events};
    use crate::uefi::{SecureBoot, SecureBootVariables};

    fn image(places: usize) -> Vec<u8> {
        let mut tdvf = vec![[0x1000, 0x1000, 0xffff_f000, 0x1000, 0, 1], [0, 0x800, 0xffff_e000, 0x1000, 1, 0]];
        tdvf.extend([[0, 0, 0x80_9000, 0x2000, 2, 0]].repeat(places));
        Sample { tdvf, ..Sample::default() }.build()
    }

    fn build() -> Build {
        let loader = Err(LoaderError::Ambiguous("neither"));
        Build { secure_boot: true, fw_cfg: false, smbios: false, boot_options: Vec::new(), loader }
    }

    fn machine(image: &[u8]) -> MachineEvents {
        let hob = td_hob(&Firmware::parse(image).unwrap(), 512).unwrap_or_default();
        MachineEvents {
            td_hob: sha384(&hob),
            fw_cfg: Vec::new(),
            secure_boot: SecureBootVariables::without_keys(SecureBoot::Off),
            acpi: vec![sha384(b"loader")],
            authorities: Vec::new(),
            smbios: None,
            boot: Vec::new(),
            separators: Separators::Rtmr0AndRtmr1,
        }
    }

    #[test]
    fn a_log_of_another_machine_or_firmware_is_refused() {
        let image = image(1);
        let cfv = cfv_digest(&image).unwrap();
        let log = |cfv, machine: &MachineEvents| encode_ccel(&rtmr0_events(cfv, machine));
        let sound = log(cfv, &machine(&image));
        let of = |log: &[u8], build: &Build, memory| MachineEvents::record_of(log, &image, build, memory);
        assert_eq!(of(&sound, &build(), 512), Ok((machine(&image), MemoryMap::Compared)));
        assert_eq!(of(&sound, &build(), 777), Err(RecordedError::Memory { memory_mib: 777 }));
        assert!(matches!(of(&sound, &build(), 1), Err(RecordedError::Hob(_))), "no machine is so small");
        let other = sha384(b"another store");
        let refused = of(&log(other, &machine(&image)), &build(), 512);
        assert_eq!(refused, Err(RecordedError::Volume { logged: other, given: cfv }));
        for (build, expected) in [
            (Build { fw_cfg: true, ..build() }, "it has no configuration items"),
            (Build { smbios: true, ..build() }, "it has no SMBIOS tables"),
            (Build { secure_boot: false, ..build() }, "it knows Secure Boot"),
        ] {
            assert_eq!(of(&sound, &build, 512), Err(RecordedError::Build { what: expected }));
        }
        let more = MachineEvents { smbios: Some(sha384(b"smbios")), ..machine(&image) };
        assert_eq!(of(&log(cfv, &more), &build(), 512), Err(RecordedError::Build { what: "it has SMBIOS tables" }));
    }

    #[test]
    fn a_size_that_cannot_be_compared_is_not_proved() {
        let image = image(0);
        let log = encode_ccel(&rtmr0_events(cfv_digest(&image).unwrap(), &machine(&image)));
        let recorded = MachineEvents::record_of(&log, &image, &build(), 512).map(|(_, map)| map);
        assert_eq!(recorded, Ok(MemoryMap::Unknown));
    }
}
