//! `inwit-measure tdx`: its options, and from the files they name to the registers of a TD.
//!
//! Not trusted: the words given and the files. Never starts a guest.

mod caveats;
mod inputs;
mod rules;
mod source;

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use inwit_measurements::Digest;
use inwit_measurements::linux::QemuVersion;
use inwit_measurements::made_from::{MadeFrom, Role};
use inwit_measurements::reference::Measured;
use inwit_measurements::tdx::{
    Event, Machine, MachineEvents, MemoryMap, Pass, Separators, extend_register, mrtd, rtmr0_events, rtmr1_of_disk,
    rtmr1_of_start, rtmr2_of_start,
};
use inwit_measurements::uki::UnifiedImage;
use inwit_measurements::vtpm::Start;

use crate::files::{Failure, FileKind, file_name, read};
use crate::report::{TdEvent, Values};
use inputs::Inputs;
use source::{Named, named, pass_of, source_of};
pub(crate) use source::{header_source, line_source};

#[derive(Args)]
#[command(group(ArgGroup::new("started").required(true).args(["kernel", "uki"])))]
pub(crate) struct TdxArguments {
    /// The whole firmware image, variables included (a split CODE file gives wrong offsets).
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: PathBuf,
    /// Kernel, as given to -kernel.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial ramdisk, as given to -initrd.
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with = "uki")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line, exactly as given to -append. Kernels from Linux 6.9 on measure it in a TD.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        requires = "kernel",
        conflicts_with = "uki",
        hide_default_value = true
    )]
    pub(crate) append: String,
    /// Unified kernel image, as given to -kernel, without -initrd and -append.
    #[arg(long, value_name = "FILE")]
    pub(crate) uki: Option<PathBuf>,
    /// Which profile of the image is booted, from 0, if it has profiles.
    #[arg(long, value_name = "NUMBER", requires = "uki")]
    pub(crate) profile: Option<usize>,
    /// Raw image of the disk from which firmware starts the unified image itself, where it is not given to -kernel. RTMR0
    /// then needs the disk's --boot-variable.
    #[arg(long, value_name = "FILE", requires = "uki", conflicts_with = "kernel")]
    pub(crate) disk: Option<PathBuf>,
    /// Guest memory in MiB, as given to -m.
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: u32,
    /// vCPUs, as given to -smp. They change the ACPI tables alone, and are checked against those given.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) vcpus: Option<std::num::NonZeroU16>,
    /// Version of QEMU. From 10.2 on it leaves the kernel's header as built, from 10.0 on for firmware that asks for the
    /// file as built (--ovmf tells); before 9.0 it added pages in two passes.
    #[arg(long, value_name = "VERSION", default_value = "10.2")]
    pub(crate) qemu: QemuVersion,
    /// In which order the hypervisor adds and measures pages; by default what the version of QEMU does.
    #[arg(long, value_enum)]
    pub(crate) pass: Option<PassArgument>,
    /// ACPI tables of this machine shape (fw_cfg file etc/acpi/tables of any guest of it), for RTMR0.
    #[arg(long, value_name = "FILE", conflicts_with = "machine_log")]
    pub(crate) acpi_tables: Option<PathBuf>,
    /// fw_cfg file etc/table-loader; without it and --acpi-rsdp both are derived from the tables as QEMU makes them.
    #[arg(long, value_name = "FILE", requires = "acpi_tables", requires = "acpi_rsdp")]
    pub(crate) acpi_loader: Option<PathBuf>,
    /// fw_cfg file etc/acpi/rsdp.
    #[arg(long, value_name = "FILE", requires = "acpi_loader")]
    pub(crate) acpi_rsdp: Option<PathBuf>,
    /// Any other file that the loader script loads, by its fw_cfg name.
    #[arg(long, value_name = "NAME=FILE", requires = "acpi_loader")]
    pub(crate) acpi_file: Vec<Named>,
    /// A configuration item that differs from QEMU's default, by its fw_cfg name (firmware from edk2-stable202505 on
    /// measures etc/extra-pci-roots, BootMenu, etc/boot-menu-wait, etc/reserved-memory-end, opt/ovmf/X-PciMmio64Mb and
    /// bootorder; an empty file stands for an absent item).
    #[arg(long, value_name = "NAME=FILE", requires = "acpi_tables")]
    pub(crate) fw_cfg: Vec<Named>,
    /// SHA-384 of the SMBIOS tables, for firmware that measures them (edk2-stable202505 and later).
    #[arg(long, value_name = "SHA384", requires = "acpi_tables")]
    pub(crate) smbios_digest: Option<Digest<48>>,
    /// With Secure Boot on, the entry of db that allows the kernel: owner GUID and certificate, or the certificate in DER.
    #[arg(long, value_name = "FILE", requires = "acpi_tables")]
    pub(crate) authority: Option<PathBuf>,
    /// A boot variable of a machine with boot devices: BootOrder and each option that it names.
    #[arg(long, value_name = "NAME=FILE", requires = "acpi_tables")]
    pub(crate) boot_variable: Vec<Named>,
    /// Where the firmware measures the separator at ready-to-boot: rtmr1 since edk2-stable202411, rtmr0 before. A
    /// --machine-log tells it.
    #[arg(long, value_enum, default_value = "rtmr1", conflicts_with = "machine_log")]
    pub(crate) separator: SeparatorArgument,
    /// CCEL event log of a trusted boot of the same firmware, memory size and machine shape, to take RTMR0 from instead.
    /// One that contradicts --ovmf or --memory is refused; it does not tell the number of vCPUs.
    #[arg(long, value_name = "FILE")]
    pub(crate) machine_log: Option<PathBuf>,
    /// Print the events of each register, too, and where each comes from.
    #[arg(long)]
    pub(crate) events: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PassArgument {
    /// Each page is added and measured before the next (QEMU with merged TDX support).
    Single,
    /// All pages of a section are added, then all are measured (older QEMU trees).
    TwoPass,
    /// Print both values, where the hypervisor is not known.
    Both,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SeparatorArgument {
    /// RTMR1, as the mapping of PCRs demands.
    Rtmr1,
    /// RTMR0 a second time.
    Rtmr0,
}

/// Events of the registers, in order; RTMR0 where it could be had.
struct Computed {
    /// Whether memory size was only claimed: nothing that is measured was computed from it.
    memory_unproved: bool,
    vcpus_checked: bool,
    mrtd: Vec<(&'static str, Digest<48>)>,
    rtmr0: Option<Vec<TdEvent>>,
    rtmr1: Vec<TdEvent>,
    rtmr2: Vec<TdEvent>,
}

/// The registers of the TD that the options describe.
pub(crate) fn measure(arguments: &TdxArguments) -> Result<Values, Failure> {
    let Computed { mrtd, rtmr0, rtmr1, rtmr2, .. } = Inputs::read(arguments)?.with(compute)?;
    let register = |events: &[TdEvent]| {
        let events: Vec<Event> = events.iter().map(|event| event.event.clone()).collect();
        extend_register(&events)
    };
    let whole = match (mrtd.as_slice(), &rtmr0) {
        ([(_, mrtd)], Some(rtmr0)) => {
            let (rtmr0, rtmr1, rtmr2) = (register(rtmr0), register(&rtmr1), register(&rtmr2));
            Values::Whole(Measured::Tdx { mrtd: *mrtd, rtmr0, rtmr1, rtmr2 })
        }
        _ => {
            let rtmr0 = rtmr0.as_ref().map(|events| ("rtmr0", register(events)));
            let rest = [("rtmr1", register(&rtmr1)), ("rtmr2", register(&rtmr2))];
            Values::Parts(mrtd.into_iter().chain(rtmr0).chain(rest).collect())
        }
    };
    let caveats = caveats::of(rtmr0.as_deref().unwrap_or_default(), arguments.machine_log.as_deref());
    caveats::tell(&caveats);
    let events = rtmr0.into_iter().flatten().chain(rtmr1).chain(rtmr2).collect();
    Ok(if arguments.events { Values::Td(Box::new(whole), events, caveats) } else { whole })
}

fn compute(inputs: &Inputs, start: &Start<'_>) -> Result<Computed, Failure> {
    let arguments = inputs.arguments;
    let value = |pass| mrtd(inputs.firmware, pass).map_err(Failure::refused);
    let mrtd = match arguments.pass.unwrap_or_else(|| pass_of(arguments.qemu)) {
        PassArgument::Single => vec![("mrtd", value(Pass::Single)?)],
        PassArgument::TwoPass => vec![("mrtd", value(Pass::TwoPass)?)],
        PassArgument::Both => vec![("mrtd_single", value(Pass::Single)?), ("mrtd_two_pass", value(Pass::TwoPass)?)],
    };
    let MachinePart { events: machine, compared, vcpus_checked } = machine(inputs)?;
    let given = match arguments.separator {
        SeparatorArgument::Rtmr1 => Separators::Rtmr0AndRtmr1,
        SeparatorArgument::Rtmr0 => Separators::Rtmr0Twice,
    };
    let separators = machine.as_ref().map_or(given, |machine| machine.separators);
    let rtmr1 = match (&inputs.gpt, start) {
        (Some(gpt), Start::Unified { image, profile }) => rtmr1_of_disk(image, *profile, gpt, separators),
        _ => rtmr1_of_start(start, separators),
    };
    let rtmr1 = rtmr1.map_err(Failure::refused)?;
    let events = |events: Vec<Event>| events.into_iter().map(|event| source_of(inputs, start, event, None)).collect();
    let rtmr0 = machine.map(|machine| {
        let events = rtmr0_events(inputs.cfv, &machine).into_iter();
        events.map(|event| source_of(inputs, start, event, compared)).collect()
    });
    let memory_unproved = compared == Some(MemoryMap::Unknown);
    Ok(Computed {
        memory_unproved,
        vcpus_checked,
        mrtd,
        rtmr0,
        rtmr1: events(rtmr1),
        rtmr2: events(rtmr2_of_start(start).map_err(Failure::refused)?),
    })
}

/// The machine's part of RTMR0.
struct MachinePart {
    events: Option<MachineEvents>,
    /// Of a recorded one, whether its memory map was compared.
    compared: Option<MemoryMap>,
    /// Whether something told the number of vCPUs.
    vcpus_checked: bool,
}

/// The part, computed or recorded.
fn machine(inputs: &Inputs) -> Result<MachinePart, Failure> {
    if let Some(log) = &inputs.machine_log {
        let machine = MachineEvents::record_of(log, inputs.firmware, &inputs.build, inputs.arguments.memory);
        let (machine, compared) = machine.map_err(Failure::refused)?;
        return Ok(MachinePart { events: Some(machine), compared: Some(compared), vcpus_checked: false });
    }
    let Some(acpi) = inputs.acpi()? else {
        return Ok(MachinePart { events: None, compared: None, vcpus_checked: false });
    };
    let vcpus_checked = acpi.vcpus().is_some();
    let arguments = inputs.arguments;
    let separators = match arguments.separator {
        SeparatorArgument::Rtmr1 => Separators::Rtmr0AndRtmr1,
        SeparatorArgument::Rtmr0 => Separators::Rtmr0Twice,
    };
    let authority = arguments.authority.as_deref().map(|path| read(path, FileKind::Small)).transpose()?;
    let (fw_cfg, boot) = (named(&arguments.fw_cfg)?, named(&arguments.boot_variable)?);
    if arguments.disk.is_some() {
        check_disk(inputs, &fw_cfg, &boot)?;
    }
    let machine = Machine {
        firmware: inputs.firmware,
        build: &inputs.build,
        memory_mib: arguments.memory,
        acpi: &acpi,
        fw_cfg: &fw_cfg,
        secure_boot: None,
        authority,
        smbios: arguments.smbios_digest,
        boot: &boot,
        separators,
    };
    let events = Some(machine.events().map_err(Failure::refused)?);
    Ok(MachinePart { events, compared: None, vcpus_checked })
}

/// With a disk, what firmware and QEMU do without one is no default.
fn check_disk(inputs: &Inputs, fw_cfg: &[(String, Vec<u8>)], boot: &[(String, Vec<u8>)]) -> Result<(), Failure> {
    if boot.is_empty() {
        return Err(Failure::Usage(
            "a disk has a boot option: give --boot-variable for BootOrder and each of it".into(),
        ));
    }
    let orders = fw_cfg.iter().any(|(name, _)| name == "bootorder");
    if !orders && inputs.build.fw_cfg {
        let cause = "this firmware measures the order in which QEMU names boot devices: give --fw-cfg bootorder=FILE, an empty \
                     file if no device has a bootindex";
        return Err(Failure::Usage(cause.to_owned()));
    }
    Ok(())
}

/// What the registers are computed from, for explaining a mismatch later.
pub(crate) fn made_from(arguments: &TdxArguments) -> Result<MadeFrom, Failure> {
    let mut record = MadeFrom::default();
    let name = |path: &Option<PathBuf>| path.as_deref().map(file_name).unwrap_or_default();
    let inputs = Inputs::read(arguments)?;
    record.add_file(Role::Firmware, &file_name(&arguments.ovmf), inputs.firmware);
    let computed = inputs.with(|inputs, start| {
        match start {
            Start::Direct(direct) => {
                let (kernel, initrd) = (name(&arguments.kernel), name(&arguments.initrd));
                record.add_direct_boot((&kernel, direct.kernel), (&initrd, direct.initrd), direct.append);
                record.machine.kernel_header = Some(direct.header);
                record.machine.ramdisk_option = Some(direct.ramdisk_option);
            }
            Start::Unified { image, profile } => {
                record.add_file(Role::Uki, &name(&arguments.uki), image);
                let sections = UnifiedImage::parse(image).and_then(|image| image.taken(*profile));
                let sections = sections.map_err(Failure::refused)?;
                let section = |wanted: &str| sections.iter().find(|(name, _)| *name == wanted);
                let bytes = |name| section(name).map(|(_, contents)| contents.bytes()).unwrap_or_default();
                let (kernel, initrd, append) = (bytes(".linux"), bytes(".initrd"), bytes(".cmdline"));
                let append = String::from_utf8_lossy(&append);
                record.add_direct_boot((".linux", &kernel), (".initrd", &initrd), &append);
            }
        }
        compute(inputs, start)
    })?;
    if let (Some(path), Some(log)) = (&arguments.machine_log, &inputs.machine_log) {
        record.add_file(Role::MachineLog, &file_name(path), log);
    }
    for path in [&arguments.acpi_loader, &arguments.acpi_rsdp, &arguments.acpi_tables].into_iter().flatten() {
        record.add_file(Role::Acpi, &file_name(path), read(path, FileKind::Small)?);
    }
    record.machine.memory_mib = (!computed.memory_unproved).then_some(arguments.memory);
    record.machine.qemu = Some(arguments.qemu);
    // Nothing but the ACPI tables tells the number.
    record.machine.vcpus = arguments.vcpus.filter(|_| computed.vcpus_checked);
    let events = computed.rtmr0.into_iter().flatten().chain(computed.rtmr1).chain(computed.rtmr2);
    record.add_td_events(&events.map(|event| event.event).collect::<Vec<_>>());
    Ok(record)
}
