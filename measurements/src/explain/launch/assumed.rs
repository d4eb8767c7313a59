//! Reference Values that do not say what they were made from: the files given now may be those of then.
//!
//! If they give the expected digest in some shape of guest, that is proof, and the search goes on from there. If they give
//! the measured one, it is proved what was booted, though not what was expected.
//!
//! Not trusted: files and digests. Bounded by the caller's budget.

use super::super::{Certainty, Component, Finding, Outcome, Question, Search};
use super::narrowed;
use super::shapes::{FEATURE_BITS, MOST_VCPUS, Shape, counted};
use crate::digest::Digest;
use crate::made_from::{Hexadecimal, MachineShape, MadeFrom, Role};
use crate::snp::{CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, Vmm};

use std::num::NonZeroU16;

/// The record that Reference Values would have if they were made from the files given now; or what is known without.
pub(super) fn record(
    question: &Question<'_>,
    expected: Digest<48>,
    actual: Digest<48>,
    search: &mut Search<'_>,
) -> Result<MadeFrom, Outcome> {
    let given = given(question).ok_or_else(nothing)?;
    if let Some(found) = shaped(&given, expected, search) {
        return Ok(found);
    }
    match shaped(&given, actual, search).as_ref().and_then(|found| Some((found, found.machine.vcpus?))) {
        Some((found, vcpus)) => {
            let cpu = found.machine.cpu_type.clone().unwrap_or_default();
            let answer =
                "What was measured are exactly the files given; the Reference Values were made from something else.";
            let vmm = found.machine.vmm.unwrap_or(Vmm::Qemu);
            let shape = format!("They were started by {vmm} with {vcpus} vCPUs of type {cpu}.");
            let findings = vec![Finding::new(Component::Unknown, answer).with(shape)];
            let next = "Make new Reference Values from these files, if they are the ones that should run.".to_owned();
            Err(Outcome { findings, certainty: Certainty::Recomputed, next: vec![next] })
        }
        None => {
            let answer =
                "The launch digests differ, and the files given lead to neither of them in any shape of guest.";
            Err(narrowed(answer, vec![REMAKE.to_owned()]))
        }
    }
}

const REMAKE: &str = "Make the Reference Values again with `inwit-measure snp ... --agent ... --config ... --name ...`: they then say \
                      what they were made from, and `explain` can search.";

fn nothing() -> Outcome {
    let answer = "The launch digests differ, and nothing says what the expected one was made from.";
    let files = "Or give the files of then: --ovmf, and with direct boot --kernel, --initrd and --append.";
    narrowed(answer, vec![REMAKE.to_owned(), files.to_owned()])
}

/// The first file of each role, without a shape.
fn given(question: &Question<'_>) -> Option<MadeFrom> {
    let files = question.candidates;
    let firmware = files.said(Role::Firmware)?;
    let mut record = MadeFrom { firmware: FirmwareLaunch::measure(&firmware.contents).ok(), ..MadeFrom::default() };
    record.firmware.as_ref()?;
    record.add_file(Role::Firmware, &firmware.name, &firmware.contents);
    if let Some(kernel) = files.said(Role::Kernel) {
        let initrd = files.said(Role::Initrd).map(|file| (file.name.as_str(), file.contents.as_slice()));
        let append = question.candidates.append.first().map(String::as_str).unwrap_or_default();
        record.add_direct_boot((&kernel.name, &kernel.contents), initrd.unwrap_or_default(), append);
    }
    Some(record)
}

/// The record with the shape in which it gives a digest.
fn shaped(given: &MadeFrom, target: Digest<48>, search: &mut Search<'_>) -> Option<MadeFrom> {
    let boot = boot_of(given);
    for vmm in Vmm::ALL {
        let Ok(before) = given.firmware.as_ref()?.before_vcpus(boot.as_ref(), vmm) else { continue };
        let features = [1].into_iter().chain(FEATURE_BITS.iter().map(|bit| 1 | 1 << bit));
        for features in features.filter_map(|raw| GuestFeatures::from_raw(raw).ok()) {
            for (name, cpu) in CpuSignature::named() {
                let shape = Shape { vcpus: NonZeroU16::MIN, cpu, features };
                let Some(found) = counted(&before, shape, MOST_VCPUS, target, search) else { continue };
                let machine = MachineShape {
                    vcpus: Some(found.vcpus),
                    cpu_type: Some(name.to_owned()),
                    cpu_signature: Some(Hexadecimal(cpu.raw().into())),
                    guest_features: Some(Hexadecimal(features.raw())),
                    vmm: Some(vmm),
                    ..MachineShape::default()
                };
                return Some(MadeFrom { machine, ..given.clone() });
            }
        }
    }
    None
}

/// Kernel, initrd and command line of a record, as they are measured.
pub(in crate::explain) fn boot_of(record: &MadeFrom) -> Option<DirectBoot> {
    let kernel = record.file(Role::Kernel)?;
    let append = record.command_line.as_deref().unwrap_or_default();
    let initrd_sha256 = record.file(Role::Initrd).map_or_else(|| crate::sha256(b""), |initrd| initrd.sha256);
    let append_sha256 = DirectBoot::append_digest(append).ok()?;
    Some(DirectBoot { kernel_sha256: kernel.sha256, initrd_sha256, append_sha256 })
}
