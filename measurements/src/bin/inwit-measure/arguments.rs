//! The command line of `inwit-measure`.
//!
//! Not trusted: the words given; each is parsed into its own type before anything is read. Never reads files.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use inwit_measurements::Digest;
use inwit_measurements::snp::{CpuSignature, GuestFeatures};
use inwit_measurements::tdx::Pass;

/// Predicts launch measurements and writes Reference Values.
///
/// Give the files exactly as the hypervisor gets them. Without --agent the bare values are printed; with --agent,
/// --config and --name a complete Reference Values file, as TOML or with --json as JSON, ready to be registered.
///
/// Exit codes: 0 done, 1 own fault, 2 usage, 3 an input is refused.
#[derive(Parser)]
#[command(name = "inwit-measure", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// AMD SEV-SNP: the launch digest of a guest started by QEMU.
    ///
    /// The digest depends on the number of vCPUs, the CPU model and the guest features: make one file for each shape.
    /// A kernel is covered only by firmware that checks kernel hashes (an AmdSev build of OVMF); with any other
    /// firmware a kernel is refused here.
    Snp(SnpArguments),
    /// Intel TDX: MRTD and RTMR0 to RTMR2 of a direct kernel boot through OVMF on QEMU's q35 machine.
    ///
    /// RTMR0 holds the memory map and ACPI tables, which no file tells: record them once for each machine shape by
    /// giving the event log of a trusted boot. Without --machine-log RTMR0 is left out.
    Tdx(TdxArguments),
    /// vTPM: PCRs 0 to 9 (SHA-256) of a direct kernel boot through OVMF on QEMU's q35 machine.
    ///
    /// PCR 0 holds the PEI volume as it is in memory, which depends on memory size and vCPUs: record it once for each
    /// machine shape, from the event log of a trusted boot.
    Vtpm(VtpmArguments),
}

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

#[derive(Args)]
pub(crate) struct TdxArguments {
    /// The whole firmware image, variables included (a split CODE file gives wrong offsets).
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: PathBuf,
    #[command(flatten)]
    pub(crate) boot: BootArguments,
    /// CCEL event log of a trusted boot of the same machine shape, for RTMR0.
    #[arg(long, value_name = "FILE")]
    pub(crate) machine_log: Option<PathBuf>,
    /// In which order the hypervisor adds and measures pages.
    #[arg(long, value_enum, default_value = "single")]
    pub(crate) pass: PassArgument,
}

#[derive(Args)]
pub(crate) struct VtpmArguments {
    /// The firmware code image (OVMF_CODE).
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: PathBuf,
    #[command(flatten)]
    pub(crate) boot: BootArguments,
    /// SHA-256 of the PEI volume in memory: the second event of PCR 0 in the log of a trusted boot.
    #[arg(long, value_name = "SHA256", required_unless_present = "machine_log")]
    pub(crate) pei_digest: Option<Digest<32>>,
    /// That log itself (binary_bios_measurements), to take the digest from.
    #[arg(long, value_name = "FILE", conflicts_with = "pei_digest")]
    pub(crate) machine_log: Option<PathBuf>,
    /// Event digest that the agent extends PCR 15 with; adds PCR 15.
    #[arg(long, value_name = "SHA256")]
    pub(crate) agent_event: Option<Digest<32>>,
}

/// A direct kernel boot whose kernel the firmware measures.
#[derive(Args)]
pub(crate) struct BootArguments {
    /// Kernel, as given to -kernel.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,
    /// Initial ramdisk, as given to -initrd.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line, exactly as given to -append.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) append: String,
    /// Guest memory in MiB, as given to -m.
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: u32,
}

#[derive(Args)]
pub(crate) struct OutputArguments {
    /// The inwit-guest file inside the image.
    #[arg(long, value_name = "FILE", global = true, requires_all = ["config", "name"])]
    pub(crate) agent: Option<PathBuf>,
    /// Its measured configuration file.
    #[arg(long, value_name = "FILE", global = true, requires = "agent")]
    pub(crate) config: Option<PathBuf>,
    /// Name of the Reference Values.
    #[arg(long, global = true, requires = "agent")]
    pub(crate) name: Option<String>,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PassArgument {
    /// Each page is added and measured before the next (QEMU with merged TDX support).
    Single,
    /// All pages of a section are added, then all are measured (older QEMU trees).
    TwoPass,
}

impl From<PassArgument> for Pass {
    fn from(argument: PassArgument) -> Self {
        match argument {
            PassArgument::Single => Self::Single,
            PassArgument::TwoPass => Self::TwoPass,
        }
    }
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn numbers_are_hexadecimal_with_or_without_prefix() {
        assert_eq!(parse_signature("0x00a20f10"), Ok(CpuSignature::from_raw(0x00a2_0f10)));
        assert_eq!(parse_signature("a20f10"), Ok(CpuSignature::from_raw(0x00a2_0f10)));
        assert!(parse_signature("EPYC").is_err());
        assert_eq!(parse_features("21"), Ok(GuestFeatures::from_raw(0x21).unwrap()));
        assert!(parse_features("0x20").unwrap_err().contains("bit 0"));
    }
}
