//! SNP launch digests: one opaque value, so what differs is found by trying plausible changes until one fits.
//!
//! Single changes first (machine shape, then files, then every change of the command line), then pairs of them. A launch
//! digest that comes out is proof: nobody finds another guest with the same one.
//!
//! Not trusted: record, files and digest. The number of combinations is bounded by the caller's budget.

mod assumed;
mod shapes;

pub(super) use self::assumed::boot_of;

use self::shapes::{MOST_VCPUS, Shape, feature_values, pairs_of_shapes, shapes_beside, single_shapes, unnamed_cpus};
use super::words::changes;
use super::{Certainty, Component, Finding, Outcome, Question, Registers, Search, archive, record};
use crate::digest::{Digest, sha256};
use crate::igvm::{Igvm, Loader};
use crate::made_from::{EventDigest, InputFile, MadeFrom, Role};
use crate::snp::{BeforeVcpus, CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, Vmm};

/// Everything of a guest that comes before its vCPUs.
#[derive(Debug, Clone, Copy)]
struct Launched<'a> {
    firmware: &'a FirmwareLaunch,
    boot: Option<DirectBoot>,
    vmm: Vmm,
}

impl Launched<'_> {
    fn before(&self) -> Option<BeforeVcpus> {
        self.firmware.before_vcpus(self.boot.as_ref(), self.vmm).ok()
    }
}

/// One change of what comes before the vCPUs; told in words only when it is the one.
enum Change {
    Firmware(usize),
    NoKernelHashes,
    Vmm(Vmm),
    Kernel(Digest<32>, String),
    Initrd(Digest<32>, Box<Finding>),
    Append(String),
}

/// What is searched in.
struct Space<'a> {
    /// The expected guest first, then candidates: firmware with its name.
    firmware: Vec<(FirmwareLaunch, InputFile)>,
    base: (Option<DirectBoot>, Vmm, Shape),
    append: String,
    record: &'a MadeFrom,
}

/// Explains a launch digest.
pub(super) fn explain(question: &Question<'_>, actual: &Registers, search: &mut Search<'_>) -> Outcome {
    let Some(EventDigest::Sha384(target)) = actual.get("launch_digest") else {
        return narrowed("The launch digests differ.", vec![]);
    };
    let expected = expected_digest(question);
    if let Some(finding) = igvm(question, *target, search) {
        return Outcome { findings: vec![finding], certainty: Certainty::Recomputed, next: Vec::new() };
    }
    let assumed;
    let record = match &question.expected.made_from {
        Some(record) => record,
        None => match assumed::record(question, expected, *target, search) {
            Ok(found) => {
                assumed = found;
                &assumed
            }
            Err(outcome) => return outcome,
        },
    };
    let Some(space) = space(question, record) else {
        let answer = "The launch digests differ, and the record of what the expected one was made from lacks a part.";
        return narrowed(answer, vec!["Make the Reference Values again with `inwit-measure snp`.".to_owned()]);
    };
    if space.digest(search) != Some(expected) {
        let answer = "The record of what the Reference Values were made from does not give their own launch digest.";
        return narrowed(answer, vec!["Make the Reference Values again with `inwit-measure snp`.".to_owned()]);
    }
    let changes = space.changes(question);
    let found = space.find(*target, &changes, question, search);
    match found {
        Some(findings) => Outcome { findings, certainty: Certainty::Recomputed, next: Vec::new() },
        None => space.not_found(question, search),
    }
}

fn expected_digest(question: &Question<'_>) -> Digest<48> {
    match question.expected.measured {
        crate::reference::Measured::Snp { launch_digest } => launch_digest,
        _ => Digest::from_bytes([0; 48]),
    }
}

/// An IGVM file that gives the digest: it holds the whole guest, so nothing of the record is left to vary.
fn igvm(question: &Question<'_>, target: Digest<48>, search: &mut Search<'_>) -> Option<Finding> {
    for file in question.candidates.of(Role::Igvm) {
        let Ok(read) = Igvm::parse(&file.contents) else { continue };
        for (loader, name) in [(Loader::Qemu, "QEMU"), (Loader::Format, "a loader that does as the format prescribes")]
        {
            search.goes_on();
            if read.snp_launch(loader).is_ok_and(|launch| launch.digest == target) {
                let answer =
                    format!("The guest was loaded from another IGVM file: {}.", super::words::shown(&file.name));
                return Some(Finding::new(Component::Firmware, answer).with(format!("It was loaded by {name}.")));
            }
        }
    }
    None
}

fn narrowed(answer: &str, next: Vec<String>) -> Outcome {
    Outcome { findings: vec![Finding::new(Component::Unknown, answer)], certainty: Certainty::Narrowed, next }
}

/// The expected guest, from its record.
fn space<'a>(question: &Question<'_>, record: &'a MadeFrom) -> Option<Space<'a>> {
    let machine = &record.machine;
    let file = |role| record.file(role).cloned();
    let cpu = u32::try_from(machine.cpu_signature?.0).ok().map(CpuSignature::from_raw)?;
    let features = GuestFeatures::from_raw(machine.guest_features?.0).ok()?;
    let shape = Shape { vcpus: machine.vcpus?, cpu, features };
    let append = record.command_line.clone().unwrap_or_default();
    let boot = boot_of(record);
    let mut firmware = vec![(record.firmware.clone()?, file(Role::Firmware)?)];
    for candidate in question.candidates.of(Role::Firmware) {
        let launch = FirmwareLaunch::measure(&candidate.contents).ok().filter(|launch| *launch != firmware[0].0);
        let bytes = candidate.contents.len() as u64;
        let named = InputFile { role: Role::Firmware, name: candidate.name.clone(), bytes, sha256: candidate.sha256() };
        firmware.extend(launch.map(|launch| (launch, named)));
    }
    Some(Space { firmware, base: (boot, machine.vmm?, shape), append, record })
}

impl Space<'_> {
    fn launched(&self) -> Option<Launched<'_>> {
        let (boot, vmm, _) = self.base;
        self.firmware.first().map(|(firmware, _)| Launched { firmware, boot, vmm })
    }

    /// What the record itself gives.
    fn digest(&self, search: &mut Search<'_>) -> Option<Digest<48>> {
        let Shape { vcpus, cpu, features } = self.base.2;
        search.goes_on();
        Some(self.launched()?.before()?.digest(vcpus, cpu, features))
    }

    /// Single changes, the plausible ones first.
    fn changes(&self, question: &Question<'_>) -> Vec<Change> {
        let mut all: Vec<Change> = (1..self.firmware.len()).map(Change::Firmware).collect();
        all.extend(Vmm::ALL.into_iter().filter(|vmm| *vmm != self.base.1).map(Change::Vmm));
        let Some(boot) = &self.base.0 else { return all };
        all.push(Change::NoKernelHashes);
        self.other_kernels(boot, question, &mut all);
        self.other_initrds(boot, question, &mut all);
        all.extend(question.candidates.append.iter().cloned().map(Change::Append));
        all.extend(changes(&self.append).map(Change::Append));
        all
    }

    fn other_kernels(&self, boot: &DirectBoot, question: &Question<'_>, all: &mut Vec<Change>) {
        let files = question.candidates.of(Role::Kernel).filter(|file| file.sha256() != boot.kernel_sha256);
        all.extend(files.map(|file| Change::Kernel(file.sha256(), file.name.clone())));
        all.push(Change::Kernel(sha256(b""), "an empty file".to_owned()));
        all.push(Change::Kernel(boot.initrd_sha256, "the initrd".to_owned()));
    }

    fn other_initrds(&self, boot: &DirectBoot, question: &Question<'_>, all: &mut Vec<Change>) {
        let mut add = |digest, finding| all.push(Change::Initrd(digest, Box::new(finding)));
        let whole = |answer: &str| Finding::new(Component::Initrd, answer);
        let at_hand = question.candidates;
        for file in at_hand.of(Role::Initrd).filter(|file| file.sha256() != boot.initrd_sha256) {
            add(file.sha256(), archive::other(self.record, file, at_hand));
        }
        add(sha256(b""), whole("The initrd is missing: none was given, or an empty one."));
        add(boot.kernel_sha256, whole("The initrd differs: the kernel was given in its place."));
        let Some(original) = at_hand.with(&boot.initrd_sha256) else { return };
        for changed in archive::changes(&original.contents, self.record.initrd.as_ref(), at_hand) {
            add(sha256(&changed.bytes), changed.finding);
        }
    }

    /// The base with one change.
    fn with<'s>(&'s self, launched: Launched<'s>, change: &Change) -> Option<Launched<'s>> {
        let mut changed = launched;
        match (change, &mut changed.boot) {
            (Change::Firmware(number), _) => changed.firmware = &self.firmware.get(*number)?.0,
            (Change::Vmm(vmm), _) => changed.vmm = *vmm,
            (Change::NoKernelHashes, boot) => *boot = None,
            (Change::Kernel(digest, _), Some(boot)) => boot.kernel_sha256 = *digest,
            (Change::Initrd(digest, _), Some(boot)) => boot.initrd_sha256 = *digest,
            (Change::Append(append), Some(boot)) => boot.append_sha256 = append_digest(append),
            _ => return None,
        }
        Some(changed)
    }

    fn find(
        &self,
        target: Digest<48>,
        changes: &[Change],
        question: &Question<'_>,
        search: &mut Search<'_>,
    ) -> Option<Vec<Finding>> {
        let (base, shape) = (self.launched()?, self.base.2);
        let before = base.before()?;
        let features = feature_values(shape.features);
        if let Some(found) = single_shapes(&before, shape, &features, target, search) {
            return Some(self.told(&[], found));
        }
        for change in changes {
            let Some(before) = self.with(base, change).and_then(|launched| launched.before()) else { continue };
            if !search.goes_on() {
                return None;
            }
            if before.digest(shape.vcpus, shape.cpu, shape.features) == target {
                return Some(self.told(&[change], shape));
            }
        }
        if let Some(found) = pairs_of_shapes(&before, shape, &features, target, search) {
            return Some(self.told(&[], found));
        }
        if let Some(found) = unnamed_cpus(&before, shape, target, search) {
            return Some(self.told(&[], found));
        }
        self.pairs(target, changes, question, search)
    }

    /// A change together with another shape, then two changes of different parts.
    fn pairs(
        &self,
        target: Digest<48>,
        changes: &[Change],
        question: &Question<'_>,
        search: &mut Search<'_>,
    ) -> Option<Vec<Finding>> {
        let (base, shape) = (self.launched()?, self.base.2);
        let features = feature_values(shape.features);
        for change in changes {
            let Some(before) = self.with(base, change).and_then(|launched| launched.before()) else { continue };
            if search.tried >= search.budget {
                return None;
            }
            let few = features.get(..4).unwrap_or(&features);
            if let Some(found) = shapes_beside(&before, shape, few, target, search) {
                return Some(self.told(&[change], found));
            }
        }
        let (lines, files): (Vec<&Change>, Vec<&Change>) =
            changes.iter().partition(|change| matches!(change, Change::Append(_)));
        let given = question.candidates.append.len();
        for (at, first) in files.iter().enumerate() {
            let Some(once) = self.with(base, first) else { continue };
            for second in files.iter().skip(at + 1).chain(lines.iter().take(given)).chain(lines.iter().skip(given)) {
                let Some(before) = self.with(once, second).and_then(|twice| twice.before()) else { continue };
                if !search.goes_on() {
                    return None;
                }
                if before.digest(shape.vcpus, shape.cpu, shape.features) == target {
                    return Some(self.told(&[first, second], shape));
                }
            }
        }
        None
    }

    /// The findings for a combination that gives the digest.
    fn told(&self, changes: &[&Change], shape: Shape) -> Vec<Finding> {
        let mut found: Vec<Finding> = changes.iter().map(|change| self.finding(change)).collect();
        let before = self.base.2;
        let mut differs = |component, answer| found.push(Finding::new(component, answer));
        if before.vcpus != shape.vcpus {
            differs(Component::VcpuCount, record::vcpus(before.vcpus.get(), shape.vcpus.get()));
        }
        if before.cpu != shape.cpu {
            differs(Component::VcpuType, record::cpu(before.cpu, shape.cpu));
        }
        if before.features != shape.features {
            differs(Component::GuestFeatures, record::guest_features(before.features.raw(), shape.features.raw()));
        }
        found
    }

    fn finding(&self, change: &Change) -> Finding {
        match change {
            Change::Firmware(number) => match (self.firmware.first(), self.firmware.get(*number)) {
                (Some((_, before)), Some((_, after))) => {
                    let digest = after.sha256.to_string();
                    record::other_file(Component::Firmware, "firmware", before, (&after.name, after.bytes, &digest))
                }
                _ => Finding::new(Component::Firmware, "The firmware differs."),
            },
            Change::Vmm(vmm) => {
                let before = self.base.1;
                Finding::new(
                    Component::Vmm,
                    format!("The hypervisor differs: the guest was started as on {vmm}, not {before}."),
                )
            }
            Change::NoKernelHashes => Finding::new(
                Component::Kernel,
                "Kernel, initrd and command line are not measured: the guest was started without kernel hashes.",
            )
            .with("With QEMU, `kernel-hashes=on` belongs to the sev-snp-guest object."),
            Change::Kernel(digest, name) => match self.record.file(Role::Kernel) {
                Some(before) => {
                    let answer = format!(
                        "The kernel differs: {} was used instead of {}.",
                        super::words::shown(name),
                        super::words::shown(&before.name)
                    );
                    let expected = format!("Expected SHA-256 {}", before.sha256);
                    Finding::new(Component::Kernel, answer).with(expected).with(format!("Actual   SHA-256 {digest}"))
                }
                None => Finding::new(Component::Kernel, "The kernel differs."),
            },
            Change::Initrd(_, finding) => (**finding).clone(),
            Change::Append(after) => record::command_line(&self.append, after),
        }
    }

    /// What was tried without success, and what would help.
    fn not_found(&self, question: &Question<'_>, search: &Search<'_>) -> Outcome {
        let mut finding = Finding::new(
            Component::Unknown,
            "The launch digests differ, and none of the changes that were tried explains it.",
        );
        let mut tried =
            vec![format!("1 to {MOST_VCPUS} vCPUs, every CPU type, guest feature and hypervisor that is known")];
        if self.base.0.is_some() {
            tried.push("changes of the command line, a missing kernel, initrd or hash table".to_owned());
        }
        tried.push(match question.candidates.files.len() {
            0 => "no other file, because none was given".to_owned(),
            count => format!("{count} files in place of firmware, kernel and initrd"),
        });
        finding = finding.with(format!("Tried: {}.", tried.join("; ")));
        let mut next = vec![
            "Give the files that were really booted: --ovmf, --kernel, --initrd, --append, and --try for a folder of builds."
                .to_owned(),
        ];
        if let Some(initrd) =
            self.record.file(Role::Initrd).filter(|file| question.candidates.with(&file.sha256).is_none())
        {
            next.push(format!(
                "Give the expected initrd ({}) with --initrd: then changes inside it are tried, too.",
                initrd.name
            ));
        }
        if search.tried >= search.budget {
            next.push("The search ended at its budget: allow more with --budget.".to_owned());
        }
        Outcome { findings: vec![finding], certainty: Certainty::Narrowed, next }
    }
}

/// SHA-256 of a command line with its NUL; one that holds a NUL is measured up to it.
fn append_digest(append: &str) -> Digest<32> {
    let seen = append.split('\0').next().unwrap_or_default();
    DirectBoot::append_digest(seen).unwrap_or_else(|_| sha256(b"\0"))
}
