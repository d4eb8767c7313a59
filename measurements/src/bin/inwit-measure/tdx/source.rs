//! Where each event of a TD comes from, in words; and small types of the command line.
//!
//! Not trusted: the words given. Never computes a digest.

use std::path::PathBuf;
use std::str::FromStr;

use inwit_measurements::Digest;
use inwit_measurements::made_from::Part;
use inwit_measurements::tdx::Event;

use super::PassArgument;
use super::inputs::Inputs;
use crate::files::{Failure, FileKind, read};
use crate::report::TdEvent;

/// A version of QEMU, as far as measurements depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Qemu {
    major: u16,
    minor: u16,
}

impl Qemu {
    /// Confidential guests get the kernel's header as built since this version.
    const HEADER_AS_BUILT: Self = Self { major: 10, minor: 2 };
    /// Pages are added and measured one by one since this version.
    const SINGLE_PASS: Self = Self { major: 9, minor: 0 };

    pub(super) fn fills_in_header(self) -> bool {
        self < Self::HEADER_AS_BUILT
    }

    pub(super) fn pass(self) -> PassArgument {
        if self < Self::SINGLE_PASS { PassArgument::TwoPass } else { PassArgument::Single }
    }
}

impl FromStr for Qemu {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err("expected major and minor version, such as 10.1");
        };
        // A third number changes nothing here; what is none is a slip.
        if numbers.all(|number| number.is_ok()) { Ok(Self { major, minor }) } else { Err("expected numbers and dots") }
    }
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

/// The event, and where it comes from. `computable` is there when the event is one of a recorded log: what of it can be
/// computed without.
pub(super) fn source_of(inputs: &Inputs, event: Event, computable: Option<&[Digest<48>]>) -> TdEvent {
    let arguments = inputs.arguments;
    let given = |flag: bool, option: &'static str, otherwise: &'static str| if flag { option } else { otherwise };
    let part = event.part();
    let source = match (part, computable) {
        (Part::Constant, _) => "the same in every boot",
        (Part::Firmware, _) => "--ovmf",
        (Part::Machine, Some(computable)) => {
            given(computable.contains(&event.digest), "--machine-log, equal to --memory and --ovmf", "--machine-log")
        }
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
        (Part::CommandLine, _) => given(arguments.uki.is_some(), "--uki", "--append"),
        (Part::Initrd, _) => given(arguments.uki.is_some(), "--uki", "--initrd"),
        (Part::Disk, _) => "--disk",
        (Part::Kernel, _) if arguments.uki.is_none() => {
            given(arguments.qemu.fills_in_header(), "--kernel, --initrd and --memory", "--kernel")
        }
        _ => "--uki",
    };
    TdEvent { event, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_qemu_decide_header_and_order() {
        let facts = |text: &str| text.parse::<Qemu>().map(|qemu| (qemu.fills_in_header(), qemu.pass()));
        assert!(matches!(facts("8.2.2"), Ok((true, PassArgument::TwoPass))));
        assert!(matches!(facts("10.1"), Ok((true, PassArgument::Single))));
        assert!(matches!(facts("10.10"), Ok((false, PassArgument::Single))));
        for text in ["", "10", "10.", "10.x", "10.2.x", "-1.2", "10,2"] {
            assert!(facts(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn named_files_need_both_parts() {
        let named: Named = "etc/a=b=c".parse().unwrap();
        assert_eq!((named.name.as_str(), named.path), ("etc/a", PathBuf::from("b=c")));
        assert!(["a", "=b", "a="].iter().all(|text| text.parse::<Named>().is_err()));
    }
}
