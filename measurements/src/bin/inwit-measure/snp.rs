//! `inwit-measure snp`: its options, and from the files they name to a launch digest.
//!
//! Not trusted: the words given and the files. Never starts a guest.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args;
use inwit_measurements::made_from::{Hexadecimal, MachineShape, MadeFrom, Role};
use inwit_measurements::reference::Measured;
use inwit_measurements::snp::{CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, Vmm, launch_digest};

use crate::files::{Failure, file_name, read};
use crate::report::Values;

#[derive(Args)]
pub(crate) struct SnpArguments {
    /// The whole firmware image, as given to -bios.
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: PathBuf,
    /// Directly loaded kernel, as given to -kernel.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial ramdisk, as given to -initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line, exactly as given to -append.
    #[arg(long, value_name = "TEXT", default_value = "", requires = "kernel", hide_default_value = true)]
    pub(crate) append: String,
    /// vCPUs present at launch.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub(crate) vcpus: NonZeroU16,
    /// QEMU CPU model, such as EPYC-v4 or EPYC-Milan.
    #[arg(long, value_name = "NAME", default_value = "EPYC-v4", conflicts_with = "vcpu_sig")]
    vcpu_type: CpuSignature,
    /// CPUID function 1 EAX of any other model, in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = parse_signature)]
    vcpu_sig: Option<CpuSignature>,
    /// SEV_FEATURES of the guest, in hexadecimal; 1 is SNP alone, 21 adds debug swap.
    #[arg(long, value_name = "HEX", default_value = "0x1", value_parser = parse_features)]
    pub(crate) guest_features: GuestFeatures,
}

impl SnpArguments {
    /// The signature that was given directly, or that of the model.
    pub(crate) fn cpu(&self) -> CpuSignature {
        self.vcpu_sig.unwrap_or(self.vcpu_type)
    }
}

/// The launch digest of the guest that the options describe.
pub(crate) fn measure(arguments: &SnpArguments) -> Result<Values, Failure> {
    let firmware = read(&arguments.ovmf)?;
    let boot = match &arguments.kernel {
        None => None,
        Some(kernel) => {
            let initrd = arguments.initrd.as_deref().map(read).transpose()?.unwrap_or_default();
            Some(DirectBoot::measure(&read(kernel)?, &initrd, &arguments.append).map_err(Failure::refused)?)
        }
    };
    let (cpu, features) = (arguments.cpu(), arguments.guest_features);
    let digest =
        launch_digest(&firmware, boot.as_ref(), arguments.vcpus, cpu, features, Vmm::Qemu).map_err(Failure::refused)?;
    Ok(Values::Whole(Measured::Snp { launch_digest: digest.into() }))
}

/// What the digest is computed from, for explaining a mismatch later.
pub(crate) fn made_from(arguments: &SnpArguments) -> Result<MadeFrom, Failure> {
    let mut record = MadeFrom::default();
    let firmware = read(&arguments.ovmf)?;
    record.add_file(Role::Firmware, &file_name(&arguments.ovmf), &firmware);
    record.firmware = Some(FirmwareLaunch::measure(&firmware).map_err(Failure::refused)?);
    if let Some(kernel) = &arguments.kernel {
        let initrd = arguments.initrd.as_deref().map(read).transpose()?.unwrap_or_default();
        let name = arguments.initrd.as_deref().map(file_name).unwrap_or_default();
        record.add_direct_boot((&file_name(kernel), &read(kernel)?), (&name, &initrd), &arguments.append);
    }
    record.machine = MachineShape {
        vcpus: Some(arguments.vcpus),
        cpu_signature: Some(Hexadecimal(arguments.cpu().raw().into())),
        guest_features: Some(Hexadecimal(arguments.guest_features.raw())),
        vmm: Some(Vmm::Qemu),
        ..MachineShape::default()
    };
    Ok(record)
}

fn parse_signature(text: &str) -> Result<CpuSignature, String> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16)
        .map(CpuSignature::from_raw)
        .map_err(|_| "expected up to 8 hexadecimal digits".to_owned())
}

fn parse_features(text: &str) -> Result<GuestFeatures, String> {
    let raw = u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16)
        .map_err(|_| "expected up to 16 hexadecimal digits".to_owned())?;
    GuestFeatures::from_raw(raw).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hexadecimal_with_or_without_prefix() {
        assert_eq!(parse_signature("0x00a20f10"), Ok(CpuSignature::from_raw(0x00a2_0f10)));
        assert_eq!(parse_signature("a20f10"), Ok(CpuSignature::from_raw(0x00a2_0f10)));
        assert!(parse_signature("EPYC").is_err());
        assert_eq!(parse_features("21"), Ok(GuestFeatures::from_raw(0x21).unwrap()));
        assert!(parse_features("0x20").unwrap_err().contains("bit 0"));
    }
}
