//! The record of what Reference Values were computed from: files, command line, machine shape, members of the initrd,
//! predicted events. It is there so that a mismatch can be explained later, when the files may be gone.
//!
//! Never compared with Evidence, and no part of what an authority registers: the measurements alone decide. It holds
//! names, sizes and digests, and the command line; never a file's contents.
//!
//! Not trusted: a record that is read; it is strict and bounded, and an explanation only believes what it recomputes
//! from it. Never done here: reading files.

mod hexadecimal;
mod member;

pub use hexadecimal::{EventDigest, Hexadecimal};
pub use member::{MemberRecord, MembersByPath};

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::{Digest, sha256};
use crate::initrd::{Initrd, Tree};
use crate::linux::{KernelHeader, QemuVersion, RamdiskOption};
use crate::snp::{FirmwareLaunch, Vmm};

/// Most input files of one record.
pub const MAX_FILES: usize = 64;
/// Most members of the initrd that are listed; how many are left out is told.
pub const MAX_LISTED: usize = 4096;
/// Most bytes of all listed paths together, so that a record fits into a Reference Values file.
const MAX_PATH_BYTES: usize = 256 << 10;
/// Most predicted events.
pub const MAX_PREDICTED: usize = 512;
/// Longest command line in bytes; the x86 boot protocol of Linux ends at 2048, unified images may go further.
pub const MAX_COMMAND_LINE_BYTES: usize = 64 << 10;
/// Longest name or description in bytes.
const MAX_TEXT_BYTES: usize = 255;

/// What one set of Reference Values was computed from. Every part may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeFrom {
    /// Command line as given to the hypervisor, or as a unified kernel image holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Shape of the machine.
    #[serde(default)]
    pub machine: MachineShape,
    /// Files that were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InputFile>,
    /// What the initial ramdisk holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<InitrdRecord>,
    /// What the firmware contributes to an SNP launch: with it, launch digests are computed without the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareLaunch>,
    /// Events that the registers are the result of, in the order of extension; empty for SNP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<PredictedEvent>,
}

/// The machine, as far as a measurement depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineShape {
    /// vCPUs at launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<NonZeroU16>,
    /// CPU model as named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_type: Option<String>,
    /// CPUID function 1 EAX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_signature: Option<Hexadecimal>,
    /// SEV_FEATURES.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_features: Option<Hexadecimal>,
    /// Flavour of the hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<Vmm>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Version of QEMU that was assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<QemuVersion>,
    /// What version and firmware make of a kernel's header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_header: Option<KernelHeader>,
    /// Where the firmware puts its option for the ramdisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk_option: Option<RamdiskOption>,
}

/// What a file was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Role {
    Firmware,
    Kernel,
    Initrd,
    Uki,
    Igvm,
    Svsm,
    /// Event log of a trusted boot.
    MachineLog,
    /// ACPI tables as the hypervisor hands them over.
    Acpi,
    Agent,
    Configuration,
}

/// A file, without its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// What it was for.
    pub role: Role,
    /// Its name, without folders.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 over all of it.
    pub sha256: Digest<32>,
}

/// What an initial ramdisk holds, as the kernel unpacks it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitrdRecord {
    /// Path of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Path of its measured configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Why nothing, or not everything, could be looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
    /// Members beyond [`MAX_LISTED`], which are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
    /// Members by path.
    #[serde(default)]
    pub members: MembersByPath,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape that serde asks for
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Which part of a system an event measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Code of the firmware, or its configuration volume.
    Firmware,
    /// Memory map, ACPI tables, hypervisor configuration: the shape of the machine.
    Machine,
    /// Secure Boot variables.
    SecureBoot,
    /// Boot order and boot options.
    BootVariable,
    /// Partition table of the disk that was booted from.
    Disk,
    /// Kernel, or the unified image that holds it.
    Kernel,
    /// Kernel command line.
    CommandLine,
    /// Initial ramdisk.
    Initrd,
    /// A section of a unified kernel image.
    Section,
    /// The agent's own event.
    Agent,
    /// Separators and actions, the same on every machine.
    Constant,
}

/// One event of the prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictedEvent {
    /// Register that it extends: `pcr0` to `pcr23`, `rtmr0` to `rtmr3`.
    pub register: String,
    /// What it measures.
    pub part: Part,
    /// The same in words, such as the name of a variable.
    pub measures: String,
    /// What the register is extended with: SHA-256 for a PCR, SHA-384 for an RTMR.
    pub digest: EventDigest,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// More entries than a record may have.
    #[error("made_from: too many {0}")]
    TooMany(&'static str),
    /// A text that is too long, empty, or would disturb a terminal.
    #[error("made_from: an unfit text in {0}")]
    Text(&'static str),
    /// A register that no platform has, or whose digests have another length.
    #[error("made_from: an event of an impossible register")]
    Register,
}

impl MadeFrom {
    /// Adds a file. The name is kept without folders, and without what would disturb a terminal.
    pub fn add_file(&mut self, role: Role, name: &str, contents: &[u8]) {
        let bytes = u64::try_from(contents.len()).unwrap_or(u64::MAX);
        self.files.push(InputFile {
            role,
            name: tame(name.rsplit('/').next().unwrap_or_default()),
            bytes,
            sha256: sha256(contents),
        });
    }

    /// Adds kernel, initial ramdisk (none when empty) and command line of a direct kernel boot, and looks into the ramdisk.
    pub fn add_direct_boot(&mut self, kernel: (&str, &[u8]), initrd: (&str, &[u8]), append: &str) {
        self.add_file(Role::Kernel, kernel.0, kernel.1);
        self.command_line = Some(append.to_owned());
        if !initrd.1.is_empty() {
            self.add_file(Role::Initrd, initrd.0, initrd.1);
            self.initrd = Some(InitrdRecord::of(initrd.1));
        }
    }

    /// Adds agent and configuration, and where they are in the ramdisk that was added before.
    pub fn add_agent(&mut self, agent: (&str, &[u8]), configuration: (&str, &[u8])) {
        self.add_file(Role::Agent, agent.0, agent.1);
        self.add_file(Role::Configuration, configuration.0, configuration.1);
        if let Some(initrd) = &mut self.initrd {
            let path = |contents: &[u8]| initrd.members.path_of(&sha256(contents)).map(ToOwned::to_owned);
            (initrd.agent, initrd.configuration) = (path(agent.1), path(configuration.1));
        }
    }

    /// Adds one event of the prediction.
    pub fn add_event(&mut self, register: &str, part: Part, measures: &str, digest: impl Into<EventDigest>) {
        let (register, measures, digest) = (register.to_owned(), tame(measures), digest.into());
        self.events.push(PredictedEvent { register, part, measures, digest });
    }

    /// Adds the events that were predicted for the registers of a TD.
    pub fn add_td_events(&mut self, events: &[crate::tdx::Event]) {
        for event in events {
            let register = format!("rtmr{}", event.index.saturating_sub(1));
            self.add_event(&register, event.part(), &event.description, event.digest);
        }
    }

    /// Adds the events that were predicted for the registers of a TPM.
    pub fn add_pcr_events(&mut self, events: &[crate::vtpm::PcrEvent]) {
        for event in events {
            self.add_event(&format!("pcr{}", event.pcr), event.part, &event.what, event.digest);
        }
    }

    /// The first file of a role.
    #[must_use]
    pub fn file(&self, role: Role) -> Option<&InputFile> {
        self.files.iter().find(|file| file.role == role)
    }

    /// Checks what the types do not.
    pub(crate) fn check(&self) -> Result<(), RecordFault> {
        let fits = |text: &str| (1..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        let within =
            |count: usize, most: usize, what| if count > most { Err(RecordFault::TooMany(what)) } else { Ok(()) };
        within(self.files.len(), MAX_FILES, "files")?;
        within(self.events.len(), MAX_PREDICTED, "events")?;
        within(self.command_line.as_ref().map_or(0, String::len), MAX_COMMAND_LINE_BYTES, "bytes of command_line")?;
        let named = self.files.iter().all(|file| fits(&file.name) && !file.name.contains('/'));
        named.then_some(()).ok_or(RecordFault::Text("files"))?;
        let machine = self.machine.cpu_type.as_ref().is_none_or(|name| fits(name));
        machine.then_some(()).ok_or(RecordFault::Text("machine"))?;
        for event in &self.events {
            let known = match (event.register.strip_prefix("pcr"), event.register.strip_prefix("rtmr"), &event.digest) {
                (Some(number), _, EventDigest::Sha256(_)) => canonical(number).is_some_and(|number| number <= 23),
                (_, Some(number), EventDigest::Sha384(_)) => canonical(number).is_some_and(|number| number <= 3),
                _ => false,
            };
            known.then_some(()).ok_or(RecordFault::Register)?;
            fits(&event.measures).then_some(()).ok_or(RecordFault::Text("events"))?;
        }
        let Some(initrd) = &self.initrd else { return Ok(()) };
        within(initrd.members.len(), MAX_LISTED, "members of the initrd")?;
        let texts = [&initrd.agent, &initrd.configuration, &initrd.opaque];
        let texts = texts.into_iter().flatten().all(|text| text.len() <= 4096 && !text.chars().any(char::is_control));
        texts.then_some(()).ok_or(RecordFault::Text("initrd"))
    }
}

impl InitrdRecord {
    /// Looks into an initrd. What cannot be read is said in the record, for it is no error there.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let initrd = match Initrd::read(bytes) {
            Ok(initrd) => initrd,
            Err(error) => return Self { opaque: Some(tame(&error.to_string())), ..Self::default() },
        };
        let opaque = initrd
            .opaque
            .map(|part| format!("compressed with {} from byte {} on: not looked into", part.compression, part.start));
        let tree = match Tree::unpack(&initrd) {
            Ok(tree) => tree,
            Err(error) => return Self { opaque: Some(tame(&error.to_string())), ..Self::default() },
        };
        let (mut members, mut left_out, mut path_bytes) = (MembersByPath::default(), 0u32, 0usize);
        for entry in tree.entries() {
            path_bytes = path_bytes.saturating_add(entry.path.len());
            if members.len() == MAX_LISTED || path_bytes > MAX_PATH_BYTES {
                left_out = left_out.saturating_add(1);
            } else {
                members.insert(entry.path, MemberRecord::of(entry.mode, entry.content));
            }
        }
        Self { agent: None, configuration: None, opaque, left_out, members }
    }
}

/// A number without sign and leading zeros.
fn canonical(text: &str) -> Option<u8> {
    text.parse().ok().filter(|number: &u8| number.to_string() == text)
}

/// A text that fits into a record.
fn tame(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars().map(|character| if character.is_control() { '?' } else { character }) {
        if out.len() + character.len_utf8() > MAX_TEXT_BYTES {
            break;
        }
        out.push(character);
    }
    if out.is_empty() { "?".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha384;
    use crate::initrd::sample::archive;
    use crate::ovmf::sample::Sample;
    use crate::reference::{AgentReference, Measured, ReferenceValues};

    fn record() -> MadeFrom {
        let initrd = archive(&[
            (1, 0o100_755, 1, "init", b"agent"),
            (2, 0o100_644, 1, "conf", b"configuration"),
            (3, 0o120_777, 1, "link", b"conf"),
        ]);
        let mut record = MadeFrom::default();
        record.add_file(Role::Firmware, "/somewhere/OVMF.fd", b"firmware");
        record.add_direct_boot(("vmlinuz", b"kernel"), ("a\u{7}b", &initrd), "console=ttyS0 quiet");
        record.add_agent(("inwit-guest", b"agent"), ("guest.toml", b"configuration"));
        record.add_event("pcr4", Part::Kernel, "kernel/patched", sha256(b"kernel"));
        record.add_event("rtmr3", Part::Agent, "agent", sha384(b"agent"));
        let (cpu_signature, guest_features) = (Some(Hexadecimal(0x80_0f12)), Some(Hexadecimal(1)));
        let cpu_type = Some("EPYC-v4".to_owned());
        record.machine = MachineShape {
            vcpus: NonZeroU16::new(4),
            cpu_type,
            cpu_signature,
            guest_features,
            vmm: Some(Vmm::Qemu),
            memory_mib: Some(512),
            qemu: Some(QemuVersion::new(10, 2)),
            kernel_header: Some(KernelHeader::AsBuilt),
            ramdisk_option: Some(RamdiskOption::BeforeCommandLine),
        };
        record.firmware = FirmwareLaunch::measure(&Sample::default().build()).ok();
        record
    }

    fn values(made_from: MadeFrom) -> ReferenceValues {
        let agent = AgentReference { executable: sha256(b"agent"), configuration: sha256(b"configuration") };
        let measured = Measured::Snp { launch_digest: sha384(b"launch") };
        ReferenceValues { name: "payments".into(), agent, measured, made_from: Some(made_from) }
    }

    #[test]
    fn a_record_survives_both_formats_and_names_no_folders() {
        let values = values(record());
        let toml = values.to_toml().unwrap();
        assert_eq!(ReferenceValues::from_toml(&toml).unwrap(), values);
        assert_eq!(ReferenceValues::from_json(&values.to_json().unwrap()).unwrap(), values);
        let member = format!("conf = \"100644 13 {}\"\n", sha256(b"configuration"));
        for expected in [
            "name = \"OVMF.fd\"",
            "agent = \"init\"",
            "name = \"a?b\"",
            &member,
            "vmm = \"qemu\"",
            "qemu = \"10.2\"",
            "as-built",
        ] {
            assert!(toml.contains(expected), "{expected} in {toml}");
        }
        assert!(!toml.contains("somewhere"));
        assert_eq!(values.clone().without_record().made_from, None);
    }

    #[test]
    fn a_spoiled_record_is_refused() {
        let good = serde_json::to_value(values(record())).unwrap();
        let event = good["made_from"]["events"][0].clone();
        for (pointer, value, expected) in [
            ("", serde_json::json!({"note": 1}), "unknown field"),
            ("/machine/note", 1.into(), "unknown field"),
            ("/machine/vcpus", 0.into(), "nonzero"),
            ("/machine/qemu", "ten".into(), "major and minor"),
            ("/machine/cpu_signature", "0x01".into(), "0x and lower-case"),
            ("/machine/cpu_type", "a\u{7}".into(), "machine"),
            ("/files/0/name", "a/b".into(), "files"),
            ("/files/0/role", "disk".into(), "unknown variant"),
            ("/files/0/sha256", "00".into(), "64 hexadecimal"),
            ("/initrd/members/init", "100755 5".into(), "mode bytes sha256"),
            ("/initrd/members/init", format!("0100755 5 {}", sha256(b"")).into(), "mode bytes sha256"),
            ("/events/0/register", "pcr24".into(), "impossible register"),
            ("/events/0/register", "pcr04".into(), "impossible register"),
            ("/events/0/register", "rtmr1".into(), "impossible register"),
            ("/events/0/measures", "".into(), "unfit text"),
            ("/events", vec![event; MAX_PREDICTED + 1].into(), "too many events"),
            ("/command_line", "x".repeat(MAX_COMMAND_LINE_BYTES + 1).into(), "too many bytes"),
        ] {
            let mut spoiled = good.clone();
            let record = &mut spoiled["made_from"];
            match pointer.rsplit_once('/') {
                Some((parent, key)) if record.pointer(pointer).is_none() => {
                    record.pointer_mut(parent).unwrap()[key] = value
                }
                _ => *record.pointer_mut(pointer).unwrap() = value,
            }
            let error = ReferenceValues::from_json(&spoiled.to_string()).unwrap_err().to_string();
            assert!(error.contains(expected), "{pointer}: {error}");
        }
        let twice = values(record()).to_json().unwrap().replace("\"conf\": \"100644", "\"init\": \"100644");
        assert!(ReferenceValues::from_json(&twice).unwrap_err().to_string().contains("given twice"));
    }

    #[test]
    fn a_record_of_a_large_initrd_fits_into_a_file() {
        let names: Vec<String> = (0..5000).map(|number| format!("{number:0>100}")).collect();
        let members: Vec<_> = names.iter().map(|name| (1, 0o100_644, 1, name.as_str(), &b"x"[..])).collect();
        let mut large = MadeFrom::default();
        large.add_direct_boot(("kernel", b""), ("initrd", &archive(&members)), "");
        let initrd = large.initrd.as_ref().unwrap();
        assert_eq!(initrd.members.len() + usize::try_from(initrd.left_out).unwrap(), 5000);
        let values = values(large);
        assert_eq!(ReferenceValues::from_json(&values.to_json().unwrap()).unwrap(), values);
    }
}
