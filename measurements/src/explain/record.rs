//! Two records side by side: what both say they were made from.
//!
//! Not trusted: both; what they say is repeated with that source named. Never computes a measurement.

use super::words::{difference, shown};
use super::{Component, Finding, archive};
use crate::made_from::{InputFile, MadeFrom, Role};
use crate::snp::CpuSignature;

/// Everything that differs, causes before consequences.
pub(super) fn differences(expected: &MadeFrom, actual: &MadeFrom) -> Vec<Finding> {
    let mut found = Vec::new();
    file(Role::Firmware, Component::Firmware, "firmware", [expected, actual], &mut found);
    file(Role::Svsm, Component::Firmware, "SVSM", [expected, actual], &mut found);
    file(Role::Igvm, Component::Firmware, "IGVM file", [expected, actual], &mut found);
    file(Role::Kernel, Component::Kernel, "kernel", [expected, actual], &mut found);
    file(Role::Uki, Component::Kernel, "unified kernel image", [expected, actual], &mut found);
    initrd(expected, actual, &mut found);
    if let (Some(before), Some(after)) = (&expected.command_line, &actual.command_line)
        && before != after
    {
        found.push(command_line(before, after));
    }
    machine(expected, actual, &mut found);
    file(Role::Acpi, Component::Machine, "ACPI tables", [expected, actual], &mut found);
    file(Role::MachineLog, Component::Machine, "log of a trusted boot", [expected, actual], &mut found);
    found
}

/// Two command lines that differ.
pub(super) fn command_line(before: &str, after: &str) -> Finding {
    Finding::new(Component::CommandLine, format!("The command line differs: {}.", difference(before, after)))
        .with(format!("Expected {}", shown(before)))
        .with(format!("Actual   {}", shown(after)))
}

/// Two files that should be one.
pub(super) fn other_file(component: Component, what: &str, before: &InputFile, after: (&str, u64, &str)) -> Finding {
    let (name, bytes, digest) = after;
    let answer = if before.name == name {
        format!("The {what} differs: {} is another build or was changed.", shown(name))
    } else {
        format!("The {what} differs: {} was used instead of {}.", shown(name), shown(&before.name))
    };
    Finding::new(component, answer)
        .with(format!("Expected {} bytes, SHA-256 {}", before.bytes, before.sha256))
        .with(format!("Actual   {bytes} bytes, SHA-256 {digest}"))
}

fn file(role: Role, component: Component, what: &str, [expected, actual]: [&MadeFrom; 2], found: &mut Vec<Finding>) {
    match (expected.file(role), actual.file(role)) {
        (Some(before), Some(after)) if before.sha256 != after.sha256 => {
            let digest = after.sha256.to_string();
            found.push(other_file(component, what, before, (&after.name, after.bytes, &digest)));
        }
        (Some(before), None) => {
            found.push(Finding::new(component, format!("The {what} {} is not there at all.", shown(&before.name))));
        }
        (None, Some(after)) => {
            found.push(Finding::new(component, format!("The {what} {} was not expected at all.", shown(&after.name))));
        }
        _ => {}
    }
}

fn initrd(expected: &MadeFrom, actual: &MadeFrom, found: &mut Vec<Finding>) {
    let digest = |record: &MadeFrom| record.file(Role::Initrd).map(|file| file.sha256);
    let members = match (&expected.initrd, &actual.initrd) {
        // One file has one list: where the lists of one differ, one of them lies.
        (Some(before), Some(after)) if digest(expected) != digest(actual) => archive::differences(before, after),
        _ => Vec::new(),
    };
    if members.is_empty() {
        file(Role::Initrd, Component::Initrd, "initrd", [expected, actual], found);
    }
    found.extend(members);
}

fn machine(expected: &MadeFrom, actual: &MadeFrom, found: &mut Vec<Finding>) {
    let (before, after) = (&expected.machine, &actual.machine);
    let mut differs =
        |component, answer: Option<String>| found.extend(answer.map(|answer| Finding::new(component, answer)));
    let counts = before.vcpus.zip(after.vcpus).filter(|(a, b)| a != b);
    differs(Component::VcpuCount, counts.map(|(a, b)| vcpus(a.get(), b.get())));
    let cpus = before.cpu_signature.zip(after.cpu_signature).filter(|(a, b)| a != b);
    let signature = |raw: u64| CpuSignature::from_raw(u32::try_from(raw).unwrap_or(u32::MAX));
    differs(Component::VcpuType, cpus.map(|(a, b)| cpu(signature(a.0), signature(b.0))));
    let features = before.guest_features.zip(after.guest_features).filter(|(a, b)| a != b);
    differs(Component::GuestFeatures, features.map(|(a, b)| guest_features(a.0, b.0)));
    let vmms = before.vmm.zip(after.vmm).filter(|(a, b)| a != b);
    differs(
        Component::Vmm,
        vmms.map(|(a, b)| format!("The hypervisor differs: the guest was started as on {b}, not {a}.")),
    );
    let memory = before.memory_mib.zip(after.memory_mib).filter(|(a, b)| a != b);
    differs(Component::Memory, memory.map(|(a, b)| memory_mib(Some(a), b)));
}

/// "4 vCPUs instead of 2".
pub(super) fn vcpus(before: u16, after: u16) -> String {
    let plural = if after == 1 { "" } else { "s" };
    format!("The number of vCPUs differs: the guest was started with {after} vCPU{plural} instead of {before}.")
}

/// Two CPU signatures, by name where they have one.
pub(super) fn cpu(before: CpuSignature, after: CpuSignature) -> String {
    let name = |cpu: CpuSignature| match cpu.name() {
        Some(name) => format!("{name} ({cpu})"),
        None => format!("signature {cpu}"),
    };
    format!("The vCPU type differs: the guest was started as {} instead of {}.", name(after), name(before))
}

/// SEV_FEATURES, with the bits that differ by name (AMD64 APM volume 2, appendix B).
pub(super) fn guest_features(before: u64, after: u64) -> String {
    const NAMES: [(u64, &str); 12] = [
        (1, "virtual TOM"),
        (2, "reflect VC"),
        (3, "restricted injection"),
        (4, "alternate injection"),
        (5, "debug swap"),
        (6, "prevent host IBS"),
        (7, "BTB isolation"),
        (8, "VMPL SSS"),
        (9, "secure TSC"),
        (12, "IBS virtualization"),
        (14, "VMSA register protection"),
        (15, "SMT protection"),
    ];
    let differing = NAMES.iter().filter(|(bit, _)| (before ^ after) >> bit & 1 == 1);
    let words: Vec<String> = differing
        .map(|(bit, name)| format!("{name} is {}", if after >> bit & 1 == 1 { "on" } else { "off" }))
        .collect();
    let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
    format!("The guest features differ: they are {after:#x} instead of {before:#x}{words}.")
}

/// Memory sizes.
pub(super) fn memory_mib(before: Option<u32>, after: u32) -> String {
    let before = before.map_or(String::new(), |before| format!(" instead of {before} MiB"));
    format!("The memory size differs: the machine had {after} MiB{before}.")
}
