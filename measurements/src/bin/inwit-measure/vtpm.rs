//! `inwit-measure vtpm`: its options, and from the files they name, or from an event log alone, to PCRs.
//!
//! Not trusted: the words given and the files. Never talks to a TPM.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};
use inwit_measurements::eventlog::replay_sha256;
use inwit_measurements::linux::{DirectKernel, KernelLoader, QemuVersion};
use inwit_measurements::made_from::{MadeFrom, Part, Role};
use inwit_measurements::reference::{AgentReference, Measured};
use inwit_measurements::uki::UnifiedImage;
use inwit_measurements::vtpm::{
    Ima, MeasuredBoot, PcrEvent, Start, agent_event, check_recorded, compute_pei_volume, extend_all, image_events,
    logged_events, predict, record_pei_volume,
};
use inwit_measurements::{Digest, sha256};

use crate::arguments::OutputArguments;
use crate::files::{Failure, FileKind, file_name, read};
use crate::report::Values;
use crate::tdx::{header_source, line_source};

#[derive(Args)]
#[command(group(ArgGroup::new("boot").required(true).args(["kernel", "uki", "log"])))]
pub(crate) struct VtpmArguments {
    /// The firmware code image (OVMF_CODE). Without it a unified image's PCR 11 alone is printed.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["log", "uki"])]
    pub(crate) ovmf: Option<PathBuf>,
    /// Kernel, as given to -kernel.
    #[arg(long, value_name = "FILE", requires = "memory")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial ramdisk, as given to -initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line, exactly as given to -append.
    #[arg(long, value_name = "TEXT", default_value = "", requires = "kernel", hide_default_value = true)]
    pub(crate) append: String,
    /// Guest memory in MiB, as given to -m. PCR 4 depends on it for a kernel, PCR 0 always (by the recorded digest).
    #[arg(long, value_name = "MIB", conflicts_with = "log")]
    pub(crate) memory: Option<u32>,
    /// Version of QEMU. From 10.0 on the kernel's header is as built for firmware that asks for that file (--ovmf tells).
    #[arg(long, value_name = "VERSION", default_value = "10.2", conflicts_with = "log")]
    pub(crate) qemu: QemuVersion,
    /// Unified kernel image, as given to -kernel, without -initrd and -append.
    #[arg(long, value_name = "FILE")]
    pub(crate) uki: Option<PathBuf>,
    /// Which profile of the image is booted, from 0, if it has profiles.
    #[arg(long, value_name = "NUMBER", requires = "uki")]
    pub(crate) profile: Option<usize>,
    /// vCPUs, for PCR 0 of a firmware build whose PEI volume is computed.
    #[arg(long, value_name = "NUMBER", default_value = "1", conflicts_with = "log")]
    pub(crate) vcpus: NonZeroU16,
    /// SHA-256 of the PEI volume in memory: the second event of PCR 0 in the log of a trusted boot.
    #[arg(long, value_name = "SHA256", conflicts_with = "log")]
    pub(crate) pei_digest: Option<Digest<32>>,
    /// That log itself (binary_bios_measurements), to take the digest from; what else firmware and machine measured in it has
    /// to be as predicted.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pei_digest", "log"])]
    pub(crate) machine_log: Option<PathBuf>,
    /// Compute that digest from --memory and --vcpus, for Debian 12's OVMF_CODE_4M.fd on a machine of this kind. Nothing here
    /// can tell whether the machine is one: on another, PCR 0 comes out otherwise.
    #[arg(long, value_enum, conflicts_with_all = ["pei_digest", "machine_log", "log"])]
    pub(crate) pei: Option<PeiArgument>,
    /// Event digest that the agent extends PCR 15 with. With --agent and --config it is computed from them; with neither,
    /// PCR 15 is that of a boot before the agent.
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["log", "agent"])]
    pub(crate) agent_event: Option<Digest<32>>,
    /// What the kernel's integrity subsystem records in PCR 10 (IMA_DEFAULT_TEMPLATE of its configuration).
    #[arg(long, value_enum, default_value = "sig", conflicts_with = "log")]
    pub(crate) ima: ImaArgument,
    /// Replay this event log (binary_bios_measurements) instead of predicting: PCRs as firmware and kernel stub left them.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Print which event each extend came from, too.
    #[arg(long)]
    pub(crate) events: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PeiArgument {
    /// QEMU's q35 with smm=off, no vCPUs to be added later, CPUs of 40 physical address bits (the default under emulation;
    /// -cpu host has others).
    #[value(name = "computed-q35-nosmm-40bit")]
    ComputedQ35NoSmm40Bit,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ImaArgument {
    /// boot_aggregate of the template ima-sig (Debian, Fedora).
    Sig,
    /// boot_aggregate of the template ima-ng (upstream default).
    Ng,
    /// Nothing: a kernel without IMA.
    Absent,
}

impl From<ImaArgument> for Ima {
    fn from(argument: ImaArgument) -> Self {
        match argument {
            ImaArgument::Sig => Self::Sig,
            ImaArgument::Ng => Self::Ng,
            ImaArgument::Absent => Self::Absent,
        }
    }
}

/// The PCRs of the machine, or of the log, that the options name.
pub(crate) fn measure(arguments: &VtpmArguments, output: &OutputArguments) -> Result<Values, Failure> {
    let (whole, (pcrs, events)) = match &arguments.log {
        Some(log) => (Completeness::Some, replayed(log)?),
        None if arguments.ovmf.is_none() => (Completeness::Some, sections_alone(arguments, output)?),
        None => {
            let (pcrs, mut events, assumed) = predicted(arguments, output)?;
            for event in &mut events {
                if let Some((_, source)) = assumed.iter().find(|(part, _)| *part == event.part) {
                    event.what = format!("{} [{source}]", event.what);
                }
            }
            (Completeness::All, (pcrs, events))
        }
    };
    let measured = Measured::Vtpm { pcrs };
    let values = if arguments.events { Values::Explained(measured, events) } else { Values::Whole(measured) };
    match whole {
        Completeness::All => Ok(values),
        Completeness::Some => Ok(Values::SomePcrs(Box::new(values))),
    }
}

/// Whether the PCRs are those of a whole boot, predicted.
enum Completeness {
    All,
    Some,
}

type Registers = (BTreeMap<u8, Digest<32>>, Vec<PcrEvent>);
/// Registers, and what was assumed of each part.
type Predicted = (BTreeMap<u8, Digest<32>>, Vec<PcrEvent>, Vec<(Part, String)>);

fn replayed(log: &Path) -> Result<Registers, Failure> {
    let log = read(log, FileKind::Small)?;
    let replay = replay_sha256(log).map_err(Failure::refused)?;
    // The replay refuses registers that a TPM does not have.
    let pcrs = replay.pcrs.iter().filter_map(|(pcr, value)| Some((u8::try_from(*pcr).ok()?, (*value).into())));
    Ok((pcrs.collect(), logged_events(&replay)))
}

/// PCR 11 of a unified image: the only register that the image itself determines under any firmware.
fn sections_alone(arguments: &VtpmArguments, output: &OutputArguments) -> Result<Registers, Failure> {
    if output.agent.is_some() {
        let cause = "Reference Values of PCR 11 alone would hold for every machine that extends it so: give --ovmf";
        return Err(Failure::Usage(cause.to_owned()));
    }
    let image = arguments.uki.as_deref().map(|path| read(path, FileKind::Image)).transpose()?.unwrap_or_default();
    let events = image_events(image, arguments.profile).map_err(Failure::refused)?;
    let register = extend_all(&events.iter().map(|event| event.digest).collect::<Vec<_>>());
    Ok(([(11, register)].into(), events))
}

fn predicted(arguments: &VtpmArguments, output: &OutputArguments) -> Result<Predicted, Failure> {
    let agent = agent(arguments, output)?;
    with_start(arguments, |firmware, start| {
        let log = arguments.machine_log.as_deref().map(|path| read(path, FileKind::Small)).transpose()?;
        let pei_volume = match (log, arguments.pei_digest) {
            (Some(log), _) => record_pei_volume(log).map_err(Failure::refused)?,
            (None, Some(digest)) => digest,
            (None, None) => computed_pei_volume(arguments, firmware)?,
        };
        let ima = arguments.ima.into();
        let boot = MeasuredBoot { firmware, pei_volume, start, ima, agent };
        let prediction = predict(&boot).map_err(Failure::refused)?;
        if let Some(log) = log {
            check_recorded(log, &prediction).map_err(Failure::refused)?;
        }
        Ok((prediction.pcrs(), prediction.events, assumed(start, arguments.qemu)))
    })
}

/// What was assumed of a kernel and its command line, for people.
fn assumed(start: Start<'_>, qemu: QemuVersion) -> Vec<(Part, String)> {
    let Start::Direct(direct) = start else { return Vec::new() };
    vec![(Part::Kernel, header_source(&direct, qemu)), (Part::CommandLine, line_source(&direct).to_owned())]
}

fn computed_pei_volume(arguments: &VtpmArguments, firmware: &[u8]) -> Result<Digest<32>, Failure> {
    let (Some(PeiArgument::ComputedQ35NoSmm40Bit), Some(memory_mib)) = (arguments.pei, arguments.memory) else {
        let cause =
            "give --pei-digest or --machine-log, or --memory and --pei computed-q35-nosmm-40bit if the machine is one";
        return Err(Failure::Usage(cause.to_owned()));
    };
    compute_pei_volume(firmware, memory_mib, arguments.vcpus)
        .map_err(|error| Failure::refused(format_args!("{error}: give --pei-digest or --machine-log")))
}

/// The agent's event: the one given, or that of the agent whose Reference Values are asked for.
fn agent(arguments: &VtpmArguments, output: &OutputArguments) -> Result<Option<Digest<32>>, Failure> {
    match (arguments.agent_event, &output.agent, &output.config) {
        (None, Some(agent), Some(config)) => {
            let (executable, configuration) =
                (sha256(read(agent, FileKind::Agent)?), sha256(read(config, FileKind::Configuration)?));
            Ok(Some(agent_event(&AgentReference { executable, configuration })))
        }
        (event, _, _) => Ok(event),
    }
}

/// Reads what the options name, and hands the firmware's bytes and what it starts to `next`.
fn with_start<T>(
    arguments: &VtpmArguments,
    next: impl FnOnce(&[u8], Start<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let read_given = |path: &Option<PathBuf>, kind| {
        path.as_deref().map(|path| read(path, kind)).transpose().map(Option::unwrap_or_default)
    };
    let firmware = read_given(&arguments.ovmf, FileKind::Firmware)?;
    let (Some(path), Some(memory_mib)) = (&arguments.kernel, arguments.memory) else {
        let image = read_given(&arguments.uki, FileKind::Image)?;
        return next(firmware, Start::Unified { image, profile: arguments.profile });
    };
    let (kernel, initrd) = (read(path, FileKind::Kernel)?, read_given(&arguments.initrd, FileKind::Initrd)?);
    let loader = KernelLoader::inspect(firmware).map_err(Failure::refused)?;
    let (ramdisk_option, header, append) =
        (loader.ramdisk_option, loader.header(arguments.qemu), arguments.append.as_str());
    next(firmware, Start::Direct(DirectKernel { kernel, initrd, append, memory_mib, ramdisk_option, header }))
}

/// What the registers are computed from, for explaining a mismatch later.
pub(crate) fn made_from(arguments: &VtpmArguments, output: &OutputArguments) -> Result<MadeFrom, Failure> {
    let named = |path: &Option<PathBuf>| path.as_deref().map(file_name).unwrap_or_default();
    let mut record = with_start(arguments, |firmware, start| {
        let mut record = MadeFrom::default();
        record.add_file(Role::Firmware, &named(&arguments.ovmf), firmware);
        match start {
            Start::Direct(direct) => {
                let (kernel, initrd) = (named(&arguments.kernel), named(&arguments.initrd));
                record.add_direct_boot((&kernel, direct.kernel), (&initrd, direct.initrd), direct.append);
                record.machine.qemu = Some(arguments.qemu);
                record.machine.kernel_header = Some(direct.header);
                record.machine.ramdisk_option = Some(direct.ramdisk_option);
            }
            Start::Unified { image, profile } => {
                record.add_file(Role::Uki, &named(&arguments.uki), image);
                let sections = UnifiedImage::parse(image).and_then(|image| image.taken(profile));
                let sections = sections.map_err(Failure::refused)?;
                let section = |wanted: &str| sections.iter().find(|(name, _)| *name == wanted);
                let bytes = |name| section(name).map(|(_, contents)| contents.bytes()).unwrap_or_default();
                let (kernel, initrd, append) = (bytes(".linux"), bytes(".initrd"), bytes(".cmdline"));
                let append = String::from_utf8_lossy(&append);
                record.add_direct_boot((".linux", &kernel), (".initrd", &initrd), &append);
            }
        }
        Ok(record)
    })?;
    if let Some(path) = &arguments.machine_log {
        record.add_file(Role::MachineLog, &file_name(path), read(path, FileKind::Small)?);
    }
    record.machine.memory_mib = arguments.memory;
    record.add_pcr_events(&predicted(arguments, output)?.1);
    Ok(record)
}

impl VtpmArguments {
    /// Refuses what nothing here would look at: the parser of the command line waives what an option requires once that
    /// conflicts with another one given, and does not compare options of all subcommands with those of one.
    pub(crate) fn check(&self, output: &OutputArguments) -> Result<(), Failure> {
        let rules = [
            (self.initrd.is_some() && self.kernel.is_none(), "--initrd goes with --kernel"),
            (!self.append.is_empty() && self.kernel.is_none(), "--append goes with --kernel"),
            (self.profile.is_some() && self.uki.is_none(), "--profile goes with --uki"),
            (
                self.agent_event.is_some() && output.agent.is_some(),
                "--agent-event cannot be used with --agent, from which the event is computed",
            ),
            (self.log.is_some() && output.agent.is_some(), "--agent cannot be used with --log: a log names no agent"),
            (self.log.is_some() && self.ovmf.is_some(), "--ovmf cannot be used with --log, which is replayed alone"),
        ];
        let broken = rules.into_iter().find(|(broken, _)| *broken);
        broken.map_or(Ok(()), |(_, cause)| Err(Failure::Usage(cause.to_owned())))
    }
}
