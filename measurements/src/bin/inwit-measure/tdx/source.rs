//! Where each event of a TD comes from, in words; and small types of the command line.
//!
//! Not trusted: the words given. Never computes a digest.

use std::path::PathBuf;
use std::str::FromStr;

use inwit_measurements::linux::{DirectKernel, KernelHeader, QemuVersion, RamdiskOption};
use inwit_measurements::made_from::Part;
use inwit_measurements::tdx::{Event, MemoryMap};
use inwit_measurements::vtpm::Start;

use super::PassArgument;
use super::inputs::Inputs;
use crate::files::{Failure, FileKind, read};
use crate::report::TdEvent;

/// Pages are added and measured one by one since this version.
const SINGLE_PASS: QemuVersion = QemuVersion::new(9, 0);

/// In which order this version adds and measures pages.
pub(super) fn pass_of(qemu: QemuVersion) -> PassArgument {
    if qemu < SINGLE_PASS { PassArgument::TwoPass } else { PassArgument::Single }
}

/// A name and the file with its contents.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    name: String,
    path: PathBuf,
}

impl FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').ok_or("expected NAME=FILE")?;
        if name.is_empty() || path.is_empty() {
            return Err("expected NAME=FILE");
        }
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

/// Names and contents.
pub(super) fn named(list: &[Named]) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    list.iter().map(|Named { name, path }| Ok((name.clone(), read(path, FileKind::Small)?.to_vec()))).collect()
}

/// The event, and where it comes from. `recorded` is there when the event is one of a recorded log.
pub(super) fn source_of(inputs: &Inputs, start: &Start<'_>, event: Event, recorded: Option<MemoryMap>) -> TdEvent {
    let arguments = inputs.arguments;
    let given = |flag: bool, option: &'static str, otherwise: &'static str| if flag { option } else { otherwise };
    let part = event.part();
    let direct = match start {
        Start::Direct(direct) => Some(direct),
        Start::Unified { .. } => None,
    };
    if let (Some(direct), Part::Kernel) = (direct, part) {
        let source = header_source(direct, arguments.qemu);
        return TdEvent { event, source };
    }
    let source = match (part, recorded) {
        (Part::Constant, _) => "the same in every boot",
        (Part::Firmware, _) => "--ovmf",
        (Part::Machine, Some(MemoryMap::Compared)) if event.description.starts_with("TD HOB") => {
            "--machine-log, equal to --memory and --ovmf"
        }
        (Part::Machine, Some(_)) => "--machine-log",
        (_, Some(_)) => "--machine-log, whose data give this digest",
        (Part::Machine, None) => match event.description.as_str() {
            text if text.starts_with("TD HOB") => "--memory and --ovmf",
            text if text.starts_with("ACPI") => {
                given(arguments.acpi_loader.is_some(), "the ACPI files", "--acpi-tables, as QEMU makes it")
            }
            text if text.starts_with("SMBIOS") => "--smbios-digest",
            _ => given(arguments.fw_cfg.is_empty(), "QEMU's default", "--fw-cfg or QEMU's default"),
        },
        (Part::SecureBoot, None) => {
            let authority = event.description.starts_with("key");
            given(authority, "--authority", "the variables in --ovmf")
        }
        (Part::BootVariable, None) => {
            given(arguments.boot_variable.is_empty(), "the applications in --ovmf", "--boot-variable")
        }
        (Part::CommandLine, _) => direct.map_or("--uki", line_source),
        (Part::Initrd, _) => given(arguments.uki.is_some(), "--uki", "--initrd"),
        (Part::Disk, _) => "--disk",
        _ => "--uki",
    };
    TdEvent { event, source: source.to_owned() }
}

/// What the kernel's digest is of, and what was assumed for it.
pub(crate) fn header_source(direct: &DirectKernel<'_>, qemu: QemuVersion) -> String {
    let files = match direct.header {
        KernelHeader::AsBuilt => "--kernel as built",
        KernelHeader::FilledIn => "--kernel, --initrd and --memory: its header filled in",
    };
    format!("{files}, by QEMU {qemu} and --ovmf")
}

/// What the command line consists of.
pub(crate) fn line_source(direct: &DirectKernel<'_>) -> &'static str {
    match direct.ramdisk_option {
        _ if direct.initrd.is_empty() => "--append",
        RamdiskOption::BeforeCommandLine => "--append after `initrd=initrd `, by --ovmf",
        RamdiskOption::AfterCommandLine => "--append before ` initrd=initrd`, by --ovmf",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_qemu_decide_the_order() {
        let pass = |text: &str| pass_of(text.parse().unwrap());
        assert!(pass("8.2.2") == PassArgument::TwoPass && pass("9.0") == PassArgument::Single);
    }

    #[test]
    fn named_files_need_both_parts() {
        let named: Named = "etc/a=b=c".parse().unwrap();
        assert_eq!((named.name.as_str(), named.path), ("etc/a", PathBuf::from("b=c")));
        assert!(["a", "=b", "a="].iter().all(|text| text.parse::<Named>().is_err()));
    }
}
