//! `inwit-measure snp`: its options, and from the files they name to launch digests.
//!
//! Not trusted: the words given and the files. Never starts a guest.

mod shapes;

use std::path::{Path, PathBuf};

use clap::Args;
use inwit_measurements::Digest;
use inwit_measurements::made_from::{MadeFrom, Role};
use inwit_measurements::reference::{Form, Measured};
use inwit_measurements::snp::{CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, MeasureError, SvsmImages, Vmm};
use serde_json::json;

use self::shapes::{Cpu, MAX_SHAPES, Shape, VcpuCounts, table};
use crate::arguments::OutputArguments;
use crate::files::{Failure, file_name, read, write};
use crate::progress::stage;
use crate::report::{Printed, Values, document, record, render, stated};

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
    #[arg(long, value_name = "NUMBER", requires_all = ["vcpu_model", "vcpu_stepping"])]
    vcpu_family: Option<u8>,
    /// CPU model number of that family.
    #[arg(long, value_name = "NUMBER", requires = "vcpu_family")]
    vcpu_model: Option<u8>,
    /// CPU stepping of that model.
    #[arg(long, value_name = "NUMBER", requires = "vcpu_family", value_parser = clap::value_parser!(u8).range(0..16))]
    vcpu_stepping: Option<u8>,
    /// SEV_FEATURES of the guest, or several: 0x1 is SNP alone, 0x21 adds debug swap.
    #[arg(long, value_name = "HEX", default_value = "0x1", value_delimiter = ',', value_parser = parse_features)]
    pub(crate) guest_features: Vec<GuestFeatures>,
    /// Who starts the guest: qemu, ec2 or gce.
    #[arg(long, value_name = "NAME", default_value = "qemu")]
    vmm_type: Vmm,
    /// SVSM image that starts in the firmware's stead (COCONUT); --ovmf then is the firmware without its variables.
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    svsm: Option<PathBuf>,
    /// Bytes of the firmware's variable store, which lies between firmware and SVSM.
    #[arg(long, value_name = "BYTES", requires = "svsm", conflicts_with = "vars_file")]
    vars_size: Option<u32>,
    /// That variable store, to take the size from.
    #[arg(long, value_name = "FILE", requires = "svsm")]
    vars_file: Option<PathBuf>,
    /// With --agent: write a Reference Values file for each combination into this folder.
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
}

/// Computes what the options describe, and gives what is to be printed.
pub(crate) fn run(arguments: &SnpArguments, output: &OutputArguments) -> Result<Printed, Failure> {
    let cpus = arguments.cpus();
    let combinations =
        arguments.vcpus.0.len().saturating_mul(cpus.len()).saturating_mul(arguments.guest_features.len());
    if combinations > MAX_SHAPES {
        return Err(Failure::Usage(format!("{combinations} combinations: at most {MAX_SHAPES} in one call")));
    }
    if combinations > 1 && output.agent.is_some() && arguments.output_dir.is_none() {
        let cause = format!("{combinations} combinations are as many Reference Values files: give --output-dir");
        return Err(Failure::Usage(cause));
    }
    if arguments.output_dir.is_some() && output.agent.is_none() {
        return Err(Failure::Usage("--output-dir is for Reference Values: give --agent, --config and --name".into()));
    }
    let inputs = Inputs::read(arguments)?;
    let firmware = inputs.firmware()?;
    let digests = arguments.digests(&cpus, &inputs, &firmware)?;
    let record = record(output, || Ok(inputs.made_from(arguments, firmware)))?;
    match (&arguments.output_dir, digests.as_slice()) {
        (Some(folder), all) => write_all(folder, all, record.as_ref(), output).map(Printed::Text),
        (None, [(shape, digest)]) => render(&whole(*digest), record.map(|record| shape.of(&record)), output),
        (None, all) => match output.form() {
            None => Ok(table(all).into()),
            Some(Form::Json) => {
                let rows: serde_json::Value = all.iter().map(|(shape, digest)| shape.json(digest)).collect();
                Ok(rows.to_string().into())
            }
            Some(form) => {
                let one =
                    |(_, digest): &(Shape, Digest<48>)| stated(Measured::Snp { launch_digest: *digest }, None, output);
                document(&all.iter().map(one).collect::<Result<Vec<_>, _>>()?, form, output)
            }
        },
    }
}

const fn whole(launch_digest: Digest<48>) -> Values {
    Values::Whole(Measured::Snp { launch_digest })
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
        let mut cpus: Vec<Cpu> = Vec::new();
        for cpu in named {
            if !cpus.contains(&cpu) {
                cpus.push(cpu);
            }
        }
        if cpus.is_empty() { vec![default()] } else { cpus }
    }

    fn variables_bytes(&self) -> Result<u32, Failure> {
        match (self.vars_size, &self.vars_file) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(path)) => u32::try_from(read(path)?.len()).map_err(|_| Failure::TooLarge(path.clone())),
            (None, None) => {
                Err(Failure::Usage("an SVSM lies below the variable store: give --vars-size or --vars-file".into()))
            }
        }
    }

    /// Every combination, CPU by CPU.
    fn digests(
        &self,
        cpus: &[Cpu],
        inputs: &Inputs,
        firmware: &FirmwareLaunch,
    ) -> Result<Vec<(Shape, Digest<48>)>, Failure> {
        let boot = inputs.direct_boot(&self.append)?;
        let before = firmware.before_vcpus(boot.as_ref(), self.vmm_type).map_err(Failure::refused)?;
        stage("computing launch digests");
        let mut all = Vec::new();
        for cpu in cpus {
            for features in &self.guest_features {
                let (features, vmm) = (*features, self.vmm_type);
                let digests = before.digests(&self.vcpus.0, cpu.signature, features).map_err(Failure::refused)?;
                all.extend(digests.map(|(vcpus, digest)| (Shape { vcpus, cpu: cpu.clone(), features, vmm }, digest)));
            }
        }
        Ok(all)
    }
}

/// The files that the options name.
struct Inputs {
    ovmf: Vec<u8>,
    /// The SVSM with the bytes of the variable store above it.
    svsm: Option<(Vec<u8>, u32)>,
    /// Kernel and initial ramdisk, which is empty when there is none.
    boot: Option<(Vec<u8>, Vec<u8>)>,
}

impl Inputs {
    fn read(arguments: &SnpArguments) -> Result<Self, Failure> {
        let svsm = match &arguments.svsm {
            Some(svsm) => Some((read(svsm)?, arguments.variables_bytes()?)),
            None => None,
        };
        let boot = match &arguments.kernel {
            Some(kernel) => {
                Some((read(kernel)?, arguments.initrd.as_deref().map(read).transpose()?.unwrap_or_default()))
            }
            None => None,
        };
        Ok(Self { ovmf: read(&arguments.ovmf)?, svsm, boot })
    }

    fn firmware(&self) -> Result<FirmwareLaunch, Failure> {
        stage("hashing the firmware");
        let firmware = match &self.svsm {
            None => FirmwareLaunch::measure(&self.ovmf),
            Some((svsm, variables_bytes)) => {
                SvsmImages { firmware: &self.ovmf, variables_bytes: *variables_bytes, svsm }.measure()
            }
        };
        firmware.map_err(Failure::refused)
    }

    fn direct_boot(&self, append: &str) -> Result<Option<DirectBoot>, Failure> {
        let Some((kernel, initrd)) = &self.boot else { return Ok(None) };
        stage("hashing kernel and initrd");
        DirectBoot::measure(kernel, initrd, append).map(Some).map_err(Failure::refused)
    }

    /// What the digests are computed from but for the shape, for explaining a mismatch later.
    fn made_from(&self, arguments: &SnpArguments, firmware: FirmwareLaunch) -> MadeFrom {
        stage("looking into the initrd");
        let mut record = MadeFrom::default();
        let name = |path: &Option<PathBuf>| path.as_deref().map(file_name).unwrap_or_default();
        record.add_file(Role::Firmware, &file_name(&arguments.ovmf), &self.ovmf);
        record.firmware = Some(firmware);
        if let Some((svsm, _)) = &self.svsm {
            record.add_file(Role::Svsm, &name(&arguments.svsm), svsm);
        }
        if let Some((kernel, initrd)) = &self.boot {
            let names = (name(&arguments.kernel), name(&arguments.initrd));
            record.add_direct_boot((&names.0, kernel), (&names.1, initrd), &arguments.append);
        }
        record
    }
}

/// A Reference Values file for each combination, named after it; gives the names of the files.
fn write_all(
    folder: &Path,
    digests: &[(Shape, Digest<48>)],
    record: Option<&MadeFrom>,
    output: &OutputArguments,
) -> Result<String, Failure> {
    let name = output.name.as_deref().unwrap_or_default();
    let ending = match output.form() {
        None | Some(Form::Toml) => "toml",
        Some(Form::Json) => "json",
        Some(Form::Corim) => "corim",
        Some(Form::Rvps) => "rvps.json",
    };
    let mut written = Vec::new();
    for (number, (shape, digest)) in digests.iter().enumerate() {
        stage(format!("writing Reference Values, {number} of {}", digests.len()));
        let one = OutputArguments { name: Some(format!("{name}-{shape}")), ..output.clone() };
        let path = folder.join(format!("{shape}.{ending}"));
        let printed = render(&whole(*digest), record.map(|record| shape.of(record)), &one)?;
        write(&path, &printed.into_bytes())?;
        let mut json = shape.json(digest);
        json["file"] = json!(path.display().to_string());
        written.push((path, json));
    }
    if output.json {
        return Ok(written.into_iter().map(|(_, json)| json).collect::<serde_json::Value>().to_string());
    }
    Ok(written.iter().map(|(path, _)| format!("{}\n", path.display())).collect())
}

/// Digits of a number in hexadecimal. Other calculators take bare digits for decimal ones: what could be meant in two ways
/// would give a digest that no guest has.
fn hexadecimal(text: &str) -> Result<&str, String> {
    match text.strip_prefix("0x") {
        Some(digits) => Ok(digits),
        None if text.len() == 1
            || text.contains(|digit: char| digit.is_ascii_hexdigit() && !digit.is_ascii_digit()) =>
        {
            Ok(text)
        }
        None => Err(format!("write 0x{text}, if that is what you mean: without 0x it could be decimal")),
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
        assert!(parse_features("33").unwrap_err().contains("decimal"));
        assert!(parse_features("0x20").unwrap_err().contains("bit 0"));
    }
}
