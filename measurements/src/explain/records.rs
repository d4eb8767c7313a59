//! Records of both measurements, believed only as far as each gives the registers that it stands beside.
//!
//! Not trusted: both records. What nothing measured ties to a register is told as such, or not at all.

use super::launch::boot_of;
use super::log;
use super::{Certainty, Component, Finding, Outcome, Question, Registers, record};
use crate::digest::Digest;
use crate::made_from::{EventDigest, MachineShape, MadeFrom, Part, PredictedEvent, Role};
use crate::snp::{CpuSignature, GuestFeatures};

/// Most lines that are told of records that nothing vouches for.
const MAX_UNTIED: usize = 5;

/// The records of both, when both have one.
fn both<'a>(question: &Question<'a>) -> Option<[&'a MadeFrom; 2]> {
    let actual = question.actual.values.as_ref()?.made_from.as_ref()?;
    Some([question.expected.made_from.as_ref()?, actual])
}

/// What differs between the records of two SNP launches, if each record gives the launch digest that it stands beside.
pub(super) fn launched(question: &Question<'_>, expected: &Registers, actual: &Registers) -> Option<Vec<Finding>> {
    let records = both(question)?;
    for (record, registers) in records.into_iter().zip([expected, actual]) {
        let digest = EventDigest::from(launch_digest(record)?);
        registers.get("launch_digest").filter(|measured| **measured == digest)?;
    }
    let [before, after] = records;
    let other_firmware = before.firmware != after.firmware;
    let found = record::differences(&in_the_digest(before, other_firmware), &in_the_digest(after, other_firmware));
    (!found.is_empty()).then_some(found)
}

fn launch_digest(record: &MadeFrom) -> Option<Digest<48>> {
    let machine = &record.machine;
    let cpu = CpuSignature::from_raw(u32::try_from(machine.cpu_signature?.0).ok()?);
    let features = GuestFeatures::from_raw(machine.guest_features?.0).ok()?;
    let before = record.firmware.as_ref()?.before_vcpus(boot_of(record).as_ref(), machine.vmm?).ok()?;
    Some(before.digest(machine.vcpus?, cpu, features))
}

/// Those parts of a record that the launch digest depends on; the file of a firmware only where its pages differ.
fn in_the_digest(record: &MadeFrom, other_firmware: bool) -> MadeFrom {
    let counts = |role| match role {
        Role::Kernel | Role::Initrd => boot_of(record).is_some(),
        Role::Firmware | Role::Igvm | Role::Svsm => other_firmware,
        _ => false,
    };
    MadeFrom {
        command_line: record.command_line.clone().filter(|_| boot_of(record).is_some()),
        machine: MachineShape { memory_mib: None, ..record.machine.clone() },
        files: record.files.iter().filter(|file| counts(file.role)).cloned().collect(),
        initrd: record.initrd.clone(),
        ..MadeFrom::default()
    }
}

/// Adds what the records of two boots say to an outcome that the search did not settle.
pub(super) fn booted(question: &Question<'_>, expected: &Registers, actual: &Registers, outcome: Outcome) -> Outcome {
    let Some([before, after]) = both(question).filter(|_| outcome.certainty == Certainty::Narrowed) else {
        return outcome;
    };
    let mut outcome = outcome;
    let differences = record::differences(before, after);
    match parts([before, after], [expected, actual]) {
        Some(parts) => {
            let uki = before.file(Role::Uki).is_some() || after.file(Role::Uki).is_some();
            let mut found: Vec<Finding> =
                differences.into_iter().filter(|finding| shows_in(finding.component, &parts, uki)).collect();
            if !found.is_empty() {
                found.append(&mut outcome.findings);
                return Outcome { findings: found, certainty: Certainty::Record, ..outcome };
            }
        }
        None => {
            let told = differences.into_iter().take(MAX_UNTIED);
            let told =
                told.map(|finding| format!("The records say, and nothing measured vouches for it: {}", finding.answer));
            if let Some(first) = outcome.findings.first_mut() {
                first.detail.extend(told);
            }
        }
    }
    outcome
}

/// Parts whose events differ, if in every register that differs the events of both records give its two values.
fn parts(records: [&MadeFrom; 2], registers: [&Registers; 2]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    for name in registers.first()?.keys() {
        let events = records.map(|record| -> Vec<&PredictedEvent> {
            record.events.iter().filter(|event| event.register == *name).collect()
        });
        for (events, registers) in events.iter().zip(registers) {
            let fold = log::fold(events.iter().map(|event| &event.digest))?;
            registers.get(name).filter(|register| **register == fold)?;
        }
        let [before, after] = &events;
        for (these, those) in [(before, after), (after, before)] {
            let only = these.iter().filter(|event| !those.iter().any(|other| other.digest == event.digest));
            parts.extend(only.map(|event| event.part));
        }
    }
    Some(parts)
}

/// Whether a component can be what makes events of these parts differ.
fn shows_in(component: Component, parts: &[Part], uki: bool) -> bool {
    let any = |wanted: &[Part]| parts.iter().any(|part| wanted.contains(part));
    // All of a unified kernel image is hashed as one program, and by section.
    let image = any(&[Part::Section]) || (uki && any(&[Part::Kernel]));
    match component {
        Component::Firmware => any(&[Part::Firmware]),
        Component::Kernel => any(&[Part::Kernel]) || image,
        Component::CommandLine => any(&[Part::CommandLine]) || image,
        Component::Initrd | Component::InitrdFile => any(&[Part::Initrd]) || image,
        Component::Agent | Component::Configuration => any(&[Part::Initrd, Part::Agent]) || image,
        // QEMU writes the memory size into the kernel.
        Component::Memory => any(&[Part::Machine, Part::Kernel, Part::Firmware]),
        _ => any(&[Part::Machine]),
    }
}
