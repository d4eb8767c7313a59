//! `inwit-measure snp`: its options, and from the files they name to launch digests.
//!
//! Not trusted: the words given and the files. Never starts a guest.

mod inputs;
mod rows;
mod rules;
mod shapes;

use std::path::PathBuf;

use clap::Args;
use inwit_measurements::snp::{CpuSignature, FirmwareLaunch, GuestFeatures, MeasureError, Vmm};

use self::inputs::Inputs;
use self::rows::Row;
use self::shapes::{Cpu, MAX_SHAPES, Shape, VcpuCounts};
use crate::arguments::OutputArguments;
use crate::files::Failure;
use crate::id_block::{IdBlockArguments, Signer};
use crate::igvm::{self, IgvmArguments};
use crate::progress::stage;
use crate::report::{Printed, record};

#[derive(Args)]
pub(crate) struct SnpArguments {
    /// The whole firmware image, as given to -bios.
    #[arg(long, value_name = "FILE", required_unless_present = "igvm")]
    pub(crate) ovmf: Option<PathBuf>,
    #[command(flatten)]
    igvm: IgvmArguments,
    /// Directly loaded kernel, as given to -kernel.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial ramdisk, as given to -initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line, exactly as given to -append.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) append: String,
    /// vCPUs present at launch: a number, or several and ranges, such as 1,2,4-8.
    #[arg(long, value_name = "NUMBERS", default_value = "1")]
    pub(crate) vcpus: VcpuCounts,
    /// QEMU CPU model, or several, such as EPYC-v4,EPYC-Milan [default: EPYC-v4]. EC2 and GCE hand over none.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["vcpu_sig", "vcpu_family"])]
    vcpu_type: Vec<Cpu>,
    /// CPUID function 1 EAX of any other model, or several, such as 0x00a20f10.
    #[arg(long, value_name = "HEX", value_delimiter = ',', value_parser = parse_signature, conflicts_with = "vcpu_family")]
    vcpu_sig: Vec<CpuSignature>,
    /// CPU family of any other model, with --vcpu-model and --vcpu-stepping, in decimal.
    #[arg(long, value_name = "NUMBER", requires_all = ["vcpu_model", "vcpu_stepping"], conflicts_with_all = ["vcpu_type", "vcpu_sig"])]
    vcpu_family: Option<u8>,
    /// CPU model number of that family.
    #[arg(long, value_name = "NUMBER", requires = "vcpu_family", conflicts_with_all = ["vcpu_type", "vcpu_sig"])]
    vcpu_model: Option<u8>,
    /// CPU stepping of that model.
    #[arg(
        long, value_name = "NUMBER", requires = "vcpu_family", conflicts_with_all = ["vcpu_type", "vcpu_sig"],
        value_parser = clap::value_parser!(u8).range(0..16)
    )]
    vcpu_stepping: Option<u8>,
    /// SEV_FEATURES of the guest, or several: 0x1 is SNP alone, 0x21 adds debug swap.
    #[arg(long, value_name = "HEX", default_value = "0x1", value_delimiter = ',', value_parser = parse_features)]
    pub(crate) guest_features: Vec<GuestFeatures>,
    /// What other calculators call the kind of guest: snp, which is all there is here, or snp:svsm with --svsm.
    #[arg(long, value_name = "NAME", value_parser = parse_mode)]
    mode: Option<String>,
    /// Who starts the guest: qemu, ec2 or gce.
    #[arg(long, value_name = "NAME", default_value = "qemu")]
    vmm_type: Vmm,
    /// SVSM image that starts in the firmware's stead (COCONUT); --ovmf then is the firmware without its variables.
    ///
    /// An unproven digest: FCW of each vCPU is taken as 0, as in the independent calculator, but the KVM of today sets
    /// 0x37f. That calculator takes no heed of guest features here; with other ones than 0x1 it says something else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd"])]
    svsm: Option<PathBuf>,
    /// Bytes of the firmware's variable store, which lies between firmware and SVSM.
    #[arg(long, value_name = "BYTES", requires = "svsm", conflicts_with = "vars_file")]
    vars_size: Option<u32>,
    /// That variable store, to take the size from.
    #[arg(long, value_name = "FILE", requires = "svsm")]
    vars_file: Option<PathBuf>,
    /// Write Reference Values (with --agent) and ID blocks (with --id-key) into this folder, for each combination.
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
    #[command(flatten)]
    id_block: IdBlockArguments,
}

/// Computes what the options describe, and gives what is to be printed.
pub(crate) fn run(arguments: &SnpArguments, output: &OutputArguments) -> Result<Printed, Failure> {
    if let Some(printed) = igvm::run(&arguments.igvm, output) {
        return printed;
    }
    let cpus = arguments.cpus();
    let features = distinct(arguments.guest_features.clone());
    let combinations = arguments.vcpus.0.len().saturating_mul(cpus.len()).saturating_mul(features.len());
    if combinations > MAX_SHAPES {
        return Err(Failure::Usage(format!("{combinations} combinations: at most {MAX_SHAPES} in one call")));
    }
    let signer = arguments.id_block.signer()?;
    let text = output.form().is_none();
    let cause = match (&arguments.output_dir, output.agent.is_some(), signer.is_some()) {
        (Some(_), false, false) => Some("--output-dir is for Reference Values and ID blocks: give --agent or --id-key"),
        (None, true, true) => Some("Reference Values and ID blocks are several files: give --output-dir"),
        (None, true, false) if combinations > 1 => {
            Some("several combinations are as many Reference Values files: give --output-dir")
        }
        (None, false, true) if combinations > 1 && text => {
            Some("several combinations are as many ID blocks: give --output-dir, or --json")
        }
        (None, false, true) if !text && !output.json => Some("an ID block is written as text, as JSON or into files"),
        _ => None,
    };
    if let Some(cause) = cause {
        return Err(Failure::Usage(cause.to_owned()));
    }
    let inputs = Inputs::read(arguments)?;
    let firmware = inputs.firmware()?;
    let rows = arguments.rows(&cpus, &features, signer.as_ref(), &inputs, &firmware)?;
    let record = record(output, || Ok(inputs.made_from(arguments, firmware)))?;
    match &arguments.output_dir {
        Some(folder) => rows::write_all(folder, &rows, record.as_ref(), output),
        None => rows::print(&rows, record.as_ref(), output),
    }
}

impl SnpArguments {
    /// The CPUs that were named, each once.
    fn cpus(&self) -> Vec<Cpu> {
        let parts = (self.vcpu_family, self.vcpu_model, self.vcpu_stepping);
        let named = match parts {
            (Some(family), Some(model), Some(stepping)) => {
                vec![Cpu::unnamed(CpuSignature::encode(family, model, stepping))]
            }
            _ if !self.vcpu_sig.is_empty() => self.vcpu_sig.iter().copied().map(Cpu::unnamed).collect(),
            _ => self.vcpu_type.clone(),
        };
        let default = || Cpu { name: "EPYC-v4".into(), signature: CpuSignature::EPYC_V4 };
        if named.is_empty() { vec![default()] } else { distinct(named) }
    }

    /// Every combination, CPU by CPU.
    fn rows(
        &self,
        cpus: &[Cpu],
        features: &[GuestFeatures],
        signer: Option<&Signer<'_>>,
        inputs: &Inputs,
        firmware: &FirmwareLaunch,
    ) -> Result<Vec<Row>, Failure> {
        let boot = inputs.direct_boot(&self.append)?;
        let before = firmware.before_vcpus(boot.as_ref(), self.vmm_type).map_err(Failure::refused)?;
        stage("computing launch digests");
        let mut rows = Vec::new();
        for cpu in cpus {
            for features in features {
                let (features, vmm) = (*features, self.vmm_type);
                for (vcpus, digest) in before.digests(&self.vcpus.0, cpu.signature, features) {
                    let id_block = signer.map(|signer| signer.sign(digest)).transpose()?;
                    rows.push(Row { shape: Shape { vcpus, cpu: cpu.clone(), features, vmm }, digest, id_block });
                }
            }
        }
        Ok(rows)
    }
}

/// Each once, in the order given.
fn distinct<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}

/// Digits of a number in hexadecimal. Other calculators take bare digits for decimal ones: what could be meant in two ways
/// would give a digest that no guest has.
fn hexadecimal(text: &str) -> Result<&str, String> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => Ok(digits),
        None if text.len() == 1
            || text.contains(|digit: char| digit.is_ascii_hexdigit() && !digit.is_ascii_digit()) =>
        {
            Ok(text)
        }
        None => Err(format!("write 0x{text}, if that is what you mean: without 0x it could be decimal")),
    }
}

/// sev-snp-measure's option, as far as it means something here.
fn parse_mode(text: &str) -> Result<String, String> {
    match text {
        "snp" | "snp:svsm" => Ok(text.to_owned()),
        _ => Err("only SEV-SNP guests are measured here: snp, or snp:svsm with --svsm".to_owned()),
    }
}

fn parse_signature(text: &str) -> Result<CpuSignature, String> {
    u32::from_str_radix(hexadecimal(text)?, 16)
        .map(CpuSignature::from_raw)
        .map_err(|_| "expected up to 8 hexadecimal digits".to_owned())
}

fn parse_features(text: &str) -> Result<GuestFeatures, String> {
    let raw = u64::from_str_radix(hexadecimal(text)?, 16);
    let raw = raw.map_err(|_| "expected up to 16 hexadecimal digits".to_owned())?;
    GuestFeatures::from_raw(raw).map_err(|error: MeasureError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hexadecimal_and_never_ambiguous() {
        assert_eq!(parse_signature("0x00a20f10"), Ok(CpuSignature::from_raw(0x00a2_0f10)));
        assert_eq!(parse_signature("a20f10"), Ok(CpuSignature::from_raw(0x00a2_0f10)));
        assert!(parse_signature("8392466").unwrap_err().contains("0x8392466"), "a decimal number elsewhere");
        assert!(parse_signature("EPYC").is_err());
        assert!(parse_signature("0x100000000").is_err());
        assert_eq!(parse_features("0x21"), Ok(GuestFeatures::from_raw(0x21).unwrap()));
        assert_eq!(parse_features("1"), Ok(GuestFeatures::SNP));
        assert_eq!(parse_features("0X21"), Ok(GuestFeatures::from_raw(0x21).unwrap()));
        assert!(parse_features("33").unwrap_err().contains("decimal"));
        assert!(parse_features("0x20").unwrap_err().contains("bit 0"));
    }
}
