//! One event: which plausible other thing would have been measured with another digest.
//!
//! Not trusted: files and record. Bounded by the search's budget; kernels are hashed once for each memory size only.

use super::super::words::changes;
use super::super::{Candidate, Candidates, Component, Finding, Search, archive, record};
use super::super::{log, words};
use super::replaced;
use super::unified::Unified;
use crate::digest::{Digest, sha384};
use crate::linux::{DirectKernel, KernelHeader, RamdiskOption};
use crate::made_from::{EventDigest, InitrdRecord, InputFile, MadeFrom, Part, PredictedEvent, Role};
use crate::pe::{authenticode_sha256, authenticode_sha384};
use crate::reference::AgentReference;
use crate::tdx::{Pass, cfv_digest, mrtd};
use crate::uefi::{SecureBoot, secure_boot_variables};
use crate::vtpm::agent_event;

/// Memory sizes in MiB that are tried: those that people give. From 2816 MiB on a q35 machine has 2048 MiB below 4 GiB.
const MEMORY: [u32; 24] = [
    128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920, 2048, 2176, 2304,
    2432, 2560, 2688,
];
const SPLIT_MIB: u32 = 2048;

/// Whether a digest is the one that is looked for.
type Hit<'h> = &'h mut dyn FnMut(&EventDigest) -> bool;

/// How a command line is measured: the bytes that are hashed.
type Encoding = fn(&str) -> Vec<u8>;
const ENCODINGS: [Encoding; 7] = [
    |text| wide(&format!("initrd=initrd {text}\0")),
    |text| wide(&format!("{text} initrd=initrd\0")),
    |text| wide(&format!("{text}\0")),
    wide,
    |text| text.as_bytes().to_vec(),
    |text| [text.as_bytes(), b"\0"].concat(),
    |text| [text.as_bytes(), b"\n"].concat(),
];

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// What guesses are made from, and what was found already that explains others.
pub(super) struct Guess<'a> {
    record: &'a MadeFrom,
    at_hand: &'a Candidates,
    /// Length of the initrd that was found to have been booted.
    initrd_bytes: Option<usize>,
    /// Memory size that was found.
    memory_mib: Option<u32>,
}

impl<'a> Guess<'a> {
    pub(super) fn new(record: &'a MadeFrom, at_hand: &'a Candidates) -> Self {
        Self { record, at_hand, initrd_bytes: None, memory_mib: None }
    }

    /// Another thing in place of one event.
    pub(super) fn event(&mut self, event: &PredictedEvent, search: &mut Search<'_>, hit: Hit<'_>) -> Option<Finding> {
        if let Some(encoding) = self.encoding(event) {
            let found = self.line(encoding, event, search, hit);
            if found.is_some() {
                return found;
            }
        }
        match event.part {
            Part::Initrd => self.initrd(event, search, hit),
            Part::Kernel => self.kernel(event, search, hit),
            Part::SecureBoot => secure_boot(event, hit),
            Part::Firmware => self.firmware_event(event, search, hit),
            Part::Machine => self.memory_map(event, search, hit),
            Part::Section => self.section(event, search, hit),
            Part::Agent => self.agent(event, search, hit),
            _ => None,
        }
    }

    /// How this event measures the command line, if it does.
    fn encoding(&self, event: &PredictedEvent) -> Option<Encoding> {
        let line = self.record.command_line.as_deref()?;
        ENCODINGS.into_iter().find(|encoding| log::hash(&event.digest, &encoding(line)) == event.digest)
    }

    fn line(
        &self,
        encoding: Encoding,
        event: &PredictedEvent,
        search: &mut Search<'_>,
        hit: Hit<'_>,
    ) -> Option<Finding> {
        let before = self.record.command_line.as_deref()?;
        let given = self.at_hand.append.iter().cloned();
        for after in given.chain(changes(before)) {
            if !search.goes_on() {
                return None;
            }
            if hit(&log::hash(&event.digest, &encoding(&after))) {
                return Some(record::command_line(before, &after));
            }
        }
        None
    }

    fn initrd(&mut self, event: &PredictedEvent, search: &mut Search<'_>, hit: Hit<'_>) -> Option<Finding> {
        let original = self.record.file(Role::Initrd)?;
        for file in self.at_hand.of(Role::Initrd).filter(|file| file.sha256() != original.sha256) {
            search.goes_on();
            if hit(&log::hash(&event.digest, &file.contents)) {
                self.initrd_bytes = Some(file.contents.len());
                return Some(archive::other(self.record, file, self.at_hand));
            }
        }
        let measured = |file: &&Candidate| log::hash(&event.digest, &file.contents) == event.digest;
        let original = self.at_hand.with(&original.sha256).filter(measured)?;
        for changed in archive::changes(&original.contents, self.record.initrd.as_ref(), self.at_hand) {
            if !search.goes_on() {
                return None;
            }
            if hit(&log::hash(&event.digest, &changed.bytes)) {
                self.initrd_bytes = Some(changed.bytes.len());
                return Some(changed.finding);
            }
        }
        None
    }

    /// The kernel as the firmware sees it: QEMU writes memory size and size of the ramdisk into it.
    fn kernel(&mut self, event: &PredictedEvent, search: &mut Search<'_>, hit: Hit<'_>) -> Option<Finding> {
        let expected = self.record.file(Role::Kernel)?;
        let length = |file: &InputFile| usize::try_from(file.bytes).unwrap_or(0);
        let initrd = self.initrd_bytes.unwrap_or_else(|| self.record.file(Role::Initrd).map_or(0, length));
        let memory = self.record.machine.memory_mib;
        let zeros = vec![0; initrd];
        let mut fits_as = |file: &Candidate, memory_mib: Option<u32>| {
            // Firmware and QEMU may have left the kernel as built.
            let digest = match memory_mib {
                None => authenticode(&event.digest, &file.contents),
                Some(memory_mib) => {
                    let direct = patched_for(&file.contents, &zeros, memory_mib);
                    direct.patched().ok().and_then(|kernel| authenticode(&event.digest, &kernel))
                }
            };
            search.goes_on() && digest.is_some_and(|digest| hit(&digest))
        };
        let mut fits = |file: &Candidate, memory_mib: u32| fits_as(file, Some(memory_mib));
        if let Some(original) = self.at_hand.with(&expected.sha256) {
            // Another initrd or memory size, once found, is no further cause where it only shows again.
            let known = self.memory_mib.or(memory.filter(|_| self.initrd_bytes.is_some()));
            if known.is_some_and(|known| fits(original, known)) {
                return Some(Finding::new(Component::Nothing, ""));
            }
            let size = MEMORY.into_iter().find(|size| Some(*size) != memory && fits(original, *size));
            if let Some(size) = size {
                self.memory_mib = Some(size);
                let finding = Finding::new(Component::Memory, record::memory_mib(memory, size));
                let split =
                    "The kernel is the same for 2048 MiB and for every size from 2816 MiB on: it may be any of them.";
                return Some(if size == SPLIT_MIB { finding.with(split) } else { finding });
            }
        }
        let others = self.at_hand.of(Role::Kernel).filter(|file| file.sha256() != expected.sha256);
        let sizes = memory.map_or_else(|| MEMORY.to_vec(), |memory| vec![memory]);
        let other = others
            .into_iter()
            .find(|file| fits_as(file, None) || sizes.iter().any(|size| fits_as(file, Some(*size))))?;
        let digest = other.sha256().to_string();
        let after = (other.name.as_str(), other.contents.len() as u64, digest.as_str());
        Some(record::other_file(Component::Kernel, "kernel", expected, after))
    }

    /// Another unified kernel image in place of the first event that measures a program; and what differs inside.
    pub(super) fn unified(
        &mut self,
        events: &[&PredictedEvent],
        actual: &EventDigest,
        search: &mut Search<'_>,
    ) -> Option<Finding> {
        let expected = self.record.file(Role::Uki)?;
        for file in self.at_hand.of(Role::Uki).filter(|file| file.sha256() != expected.sha256) {
            let Some(image) = Unified::read(&file.contents) else { continue };
            search.goes_on();
            let programs = events.iter().filter(|event| event.part == Part::Kernel).count();
            let mut kernels = [file.contents.as_slice(), &image.kernel].into_iter().take(programs);
            let digests: Option<Vec<EventDigest>> = events
                .iter()
                .map(|event| match event.part {
                    Part::Kernel => kernels.next().and_then(|program| authenticode(&event.digest, program)),
                    _ => Some(event.digest),
                })
                .collect();
            if digests.and_then(|digests| log::fold(&digests)).as_ref() == Some(actual) {
                let digest = file.sha256().to_string();
                let after = (file.name.as_str(), file.contents.len() as u64, digest.as_str());
                let whole = record::other_file(Component::Kernel, "unified kernel image", expected, after);
                let original = self.at_hand.with(&expected.sha256);
                let original = original.and_then(|original| Unified::read(&original.contents));
                return Some(image.inside(self.record, original.as_ref(), whole));
            }
        }
        None
    }

    /// MRTD of another firmware, or of the same in another order.
    pub(super) fn firmware(&self, actual: &EventDigest, search: &mut Search<'_>) -> Option<Finding> {
        let expected = self.record.file(Role::Firmware)?;
        for file in self.at_hand.of(Role::Firmware) {
            for pass in [Pass::Single, Pass::TwoPass] {
                search.goes_on();
                if mrtd(&file.contents, pass).ok().map(EventDigest::from).as_ref() != Some(actual) {
                    continue;
                }
                if file.sha256() == expected.sha256 {
                    let answer = "The hypervisor measures the firmware's pages in another order (see `tdx --pass`).";
                    return Some(Finding::new(Component::Vmm, answer));
                }
                return Some(self.other_firmware(file));
            }
        }
        None
    }

    fn other_firmware(&self, file: &Candidate) -> Finding {
        let digest = file.sha256().to_string();
        match self.record.file(Role::Firmware) {
            Some(expected) => {
                let after = (file.name.as_str(), file.contents.len() as u64, digest.as_str());
                record::other_file(Component::Firmware, "firmware", expected, after)
            }
            None => Finding::new(Component::Firmware, format!("The firmware is {}.", words::shown(&file.name))),
        }
    }

    /// The configuration volume of a TD's firmware, or the DXE volume that PCR 0 holds.
    fn firmware_event(&self, event: &PredictedEvent, search: &mut Search<'_>, hit: Hit<'_>) -> Option<Finding> {
        let expected = self.record.file(Role::Firmware).map(|file| file.sha256);
        for file in self.at_hand.of(Role::Firmware).filter(|file| Some(file.sha256()) != expected) {
            search.goes_on();
            let digest: Option<EventDigest> = match event.digest {
                EventDigest::Sha384(_) => cfv_digest(&file.contents).ok().map(Into::into),
                EventDigest::Sha256(_) => crate::volume::dxe_volume_sha256(&file.contents).ok().map(Into::into),
            };
            if digest.is_some_and(|digest| hit(&digest)) {
                return Some(self.other_firmware(file));
            }
        }
        None
    }

    /// The memory map of a TD, computed from its firmware for other memory sizes.
    fn memory_map(&mut self, event: &PredictedEvent, search: &mut Search<'_>, hit: Hit<'_>) -> Option<Finding> {
        let EventDigest::Sha384(_) = event.digest else { return None };
        let firmware = self.at_hand.with(&self.record.file(Role::Firmware)?.sha256)?;
        let parsed = crate::ovmf::Firmware::parse(&firmware.contents).ok()?;
        let before = self.record.machine.memory_mib;
        let large =
            (1..=64u32).map(|gib| gib * 1024).chain([96, 128, 192, 256, 384, 512, 768, 1024].map(|gib| gib * 1024));
        for size in MEMORY.into_iter().chain(large).filter(|size| Some(*size) != before) {
            if !search.goes_on() {
                return None;
            }
            let hob = crate::tdx::td_hob(&parsed, size).ok();
            if hob.is_some_and(|hob| hit(&sha384(&hob).into())) {
                self.memory_mib = Some(size);
                return Some(Finding::new(Component::Memory, record::memory_mib(before, size)));
            }
        }
        None
    }

    /// A section of a unified kernel image whose contents may be one of the files at hand.
    fn section(&self, event: &PredictedEvent, search: &mut Search<'_>, hit: Hit<'_>) -> Option<Finding> {
        let what = event.measures.clone();
        for file in &self.at_hand.files {
            search.goes_on();
            if hit(&log::hash(&event.digest, &file.contents)) {
                let answer = format!("The unified kernel image differs: {what} is {}.", words::shown(&file.name));
                return Some(Finding::new(Component::Section, answer));
            }
        }
        None
    }

    /// The agent's own event: another executable or configuration, as files or inside the initrds at hand.
    fn agent(&self, event: &PredictedEvent, search: &mut Search<'_>, hit: Hit<'_>) -> Option<Finding> {
        let known = |role| Some((self.record.file(role)?.name.clone(), self.record.file(role)?.sha256));
        let (before, configured) = (known(Role::Agent)?, known(Role::Configuration)?);
        let of = |role| self.at_hand.of(role).map(|file| (file.name.clone(), file.sha256()));
        let inside = |path: &Option<String>| -> Vec<(String, Digest<32>)> {
            let Some(path) = path else { return Vec::new() };
            let initrds = self.at_hand.of(Role::Initrd).map(|file| InitrdRecord::of(&file.contents));
            initrds.filter_map(|initrd| Some((path.clone(), initrd.members.get(path)?.sha256))).collect()
        };
        let paths = self.record.initrd.clone().unwrap_or_default();
        let agents = [before.clone()].into_iter().chain(of(Role::Agent)).chain(inside(&paths.agent));
        let configurations: Vec<_> = [configured.clone()]
            .into_iter()
            .chain(of(Role::Configuration))
            .chain(inside(&paths.configuration))
            .collect();
        for (agent, executable) in agents {
            for (configuration, digest) in &configurations {
                let reference = AgentReference { executable, configuration: *digest };
                if !search.goes_on() {
                    return None;
                }
                if event.digest == EventDigest::from(agent_event(&reference)) || !hit(&agent_event(&reference).into()) {
                    continue;
                }
                let (component, what, name) = match executable == before.1 {
                    true => (Component::Configuration, "agent's configuration", configuration),
                    false => (Component::Agent, "agent", &agent),
                };
                return Some(Finding::new(component, format!("The {what} differs: it is {}.", words::shown(name))));
            }
        }
        None
    }

    /// Command line and initrd both, which lie in one register.
    pub(super) fn line_and_initrd(
        &mut self,
        events: &[&PredictedEvent],
        actual: &EventDigest,
        search: &mut Search<'_>,
    ) -> Option<Finding> {
        let (at, initrd) = events.iter().enumerate().find(|(_, event)| event.part == Part::Initrd)?;
        let line = events.iter().position(|event| event.part == Part::CommandLine)?;
        let expected = self.record.file(Role::Initrd)?.sha256;
        for file in self.at_hand.of(Role::Initrd).filter(|file| file.sha256() != expected) {
            let other = PredictedEvent { digest: log::hash(&initrd.digest, &file.contents), ..(*initrd).clone() };
            let mut both = events.to_vec();
            *both.get_mut(at)? = &other;
            let event = *events.get(line)?;
            let encoding = self.encoding(event)?;
            if let Some(found) = self.line(encoding, event, search, &mut |digest| replaced(&both, line, digest, actual))
            {
                self.initrd_bytes = Some(file.contents.len());
                let initrd = archive::other(self.record, file, self.at_hand);
                return Some(found.with(format!("Also: {}", initrd.answer)));
            }
        }
        None
    }
}

fn authenticode(like: &EventDigest, image: &[u8]) -> Option<EventDigest> {
    match like {
        EventDigest::Sha256(_) => authenticode_sha256(image).ok().map(Into::into),
        EventDigest::Sha384(_) => authenticode_sha384(image).ok().map(Into::into),
    }
}

/// A kernel that QEMU writes into; the command line is of no matter here.
fn patched_for<'k>(kernel: &'k [u8], initrd: &'k [u8], memory_mib: u32) -> DirectKernel<'k> {
    let (ramdisk_option, header) = (RamdiskOption::AfterCommandLine, KernelHeader::FilledIn);
    DirectKernel { kernel, initrd, append: "", memory_mib, ramdisk_option, header }
}

/// Secure Boot there without keys, or not there at all.
fn secure_boot(event: &PredictedEvent, hit: Hit<'_>) -> Option<Finding> {
    let states =
        [(SecureBoot::Absent, "a build without Secure Boot"), (SecureBoot::Off, "Secure Boot is there, but off")];
    for (state, words) in states {
        for (name, data) in
            secure_boot_variables(state).iter().filter(|(name, _)| event.measures.rsplit(' ').next() == Some(name))
        {
            let digest = log::hash(&event.digest, data);
            if digest != event.digest && hit(&digest) {
                let answer = format!("The Secure Boot variable {} differs: {words}.", words::shown(name));
                return Some(Finding::new(Component::SecureBoot, answer));
            }
        }
    }
    None
}
