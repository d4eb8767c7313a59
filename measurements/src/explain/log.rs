//! The event log of the boot that was measured: its events by register, and in words.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06 section 10, UEFI 2.10 section 3.1 (boot variables), Linux
//! `drivers/firmware/efi/libstub`. Not trusted: the log; whether its replay gives the measured registers is always said.
//! Never decides what an event means for trust.

use super::words::shown;
use super::{Question, Registers};
use crate::bytes::{index, u16_at, u64_at};
use crate::digest::{Digest, sha256, sha384};
use crate::eventlog::{ALG_SHA256, ALG_SHA384, EventLog};
use crate::made_from::{EventDigest, Part};
use crate::uefi::event_type;

/// Tags of the Linux EFI stub's events.
const TAG_INITRD: u32 = 0x8f3b_22ec;
/// An action of a boot loader (EV_IPL): systemd-stub and GRUB say in it what they measure.
const IPL: u32 = 0xd;

/// One event that extended a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logged<'a> {
    pub(super) register: String,
    pub(super) digest: EventDigest,
    pub(super) event_type: u32,
    pub(super) data: &'a [u8],
}

/// Events of a log, if there is one and it can be read. A log without SHA-256 is one of a TD.
pub(super) fn events<'a>(question: &Question<'a>) -> Option<Vec<Logged<'a>>> {
    let log = EventLog::parse(question.log?).ok()?;
    let tpm = log.banks.iter().any(|(bank, _)| *bank == ALG_SHA256);
    let extends = log.events.into_iter().filter(|event| event.event_type != event_type::NO_ACTION);
    let logged = extends.filter_map(|event| {
        let (register, digest) = if tpm {
            let digest = event.digest(ALG_SHA256).map(|bytes| EventDigest::Sha256(Digest::from_bytes(bytes)));
            (format!("pcr{}", event.index), digest?)
        } else {
            let digest = event.digest(ALG_SHA384).map(|bytes| EventDigest::Sha384(Digest::from_bytes(bytes)));
            (format!("rtmr{}", event.index.checked_sub(1)?), digest?)
        };
        Some(Logged { register, digest, event_type: event.event_type, data: event.data })
    });
    Some(logged.collect())
}

/// What was measured: the registers given, or where only a log was given those of its replay.
pub(super) fn measured(question: &Question<'_>) -> Registers {
    let mut registers = question.actual.registers.clone();
    if question.actual.is_log {
        let events = events(question).unwrap_or_default();
        let names: Vec<String> = events.iter().map(|event| event.register.clone()).collect();
        registers.extend(names.into_iter().filter_map(|name| Some((name.clone(), replay(&name, &events)?))));
    }
    registers
}

/// A register after all its logged events.
pub(super) fn replay(register: &str, events: &[Logged<'_>]) -> Option<EventDigest> {
    fold(events.iter().filter(|event| event.register == register).map(|event| &event.digest))
}

/// A register that starts at zero, after these digests; `None` without any.
pub(super) fn fold<'a>(digests: impl IntoIterator<Item = &'a EventDigest>) -> Option<EventDigest> {
    let mut register = None;
    for digest in digests {
        register = Some(extended(register, digest));
    }
    register
}

/// A register after one more digest. Digests of two algorithms in one register do not happen; the register starts anew.
pub(super) fn extended(register: Option<EventDigest>, digest: &EventDigest) -> EventDigest {
    match (register, digest) {
        (Some(EventDigest::Sha256(register)), EventDigest::Sha256(digest)) => {
            crate::vtpm::extend(&register, digest).into()
        }
        (_, EventDigest::Sha256(digest)) => crate::vtpm::extend(&Digest::from_bytes([0; 32]), digest).into(),
        (Some(EventDigest::Sha384(register)), EventDigest::Sha384(digest)) => {
            crate::tdx::extend(&register, digest).into()
        }
        (_, EventDigest::Sha384(digest)) => crate::tdx::extend(&Digest::from_bytes([0; 48]), digest).into(),
    }
}

/// A hash of the same algorithm as `like`.
pub(super) fn hash(like: &EventDigest, bytes: &[u8]) -> EventDigest {
    match like {
        EventDigest::Sha256(_) => sha256(bytes).into(),
        EventDigest::Sha384(_) => sha384(bytes).into(),
    }
}

impl Logged<'_> {
    /// Which part of a system it measures.
    pub(super) fn part(&self) -> Part {
        match self.event_type {
            event_type::S_CRTM_VERSION | 0x8000_0008 | event_type::PLATFORM_FIRMWARE_BLOB2 => Part::Firmware,
            0x8000_0009 | event_type::HANDOFF_TABLES2 | event_type::PLATFORM_CONFIG_FLAGS => Part::Machine,
            event_type::VARIABLE_DRIVER_CONFIG | event_type::VARIABLE_AUTHORITY => Part::SecureBoot,
            event_type::VARIABLE_BOOT | event_type::VARIABLE_BOOT2 => Part::BootVariable,
            event_type::BOOT_SERVICES_APPLICATION => Part::Kernel,
            event_type::GPT => Part::Disk,
            event_type::EVENT_TAG if self.data.starts_with(&TAG_INITRD.to_le_bytes()) => Part::Initrd,
            event_type::EVENT_TAG => Part::CommandLine,
            IPL => Part::Section,
            _ => Part::Constant,
        }
    }

    /// What it measures, as the log tells.
    pub(super) fn words(&self) -> String {
        match (self.variable(), self.event_type) {
            (Some((name, data)), _) => format!("the variable {}{}", shown(&name), meaning(&name, data)),
            (None, event_type::SEPARATOR) => "a separator".to_owned(),
            (None, event_type::BOOT_SERVICES_APPLICATION) => "a program that the firmware started".to_owned(),
            (None, event_type::ACTION) => format!("the action {}", shown(&String::from_utf8_lossy(self.data))),
            (None, IPL) => format!("what a boot loader calls {}", shown(&text(self.data))),
            (None, event_type::EVENT_TAG) => {
                let name = self.data.get(8..).unwrap_or_default();
                format!("what the kernel's stub calls {}", shown(&text(name)))
            }
            (None, event_type::S_CRTM_VERSION) => "the firmware's version".to_owned(),
            (None, 0x8000_0008 | event_type::PLATFORM_FIRMWARE_BLOB2) => "a firmware volume".to_owned(),
            (None, event_type::PLATFORM_CONFIG_FLAGS) => {
                format!("what the firmware calls {}", shown(&text(self.data)))
            }
            (None, kind) => format!("an event of type {kind:#x}"),
        }
    }

    /// Name and data of a UEFI variable: GUID, lengths of name (in characters) and data as u64, name in UTF-16LE, data.
    pub(super) fn variable(&self) -> Option<(String, &[u8])> {
        if !matches!(self.part(), Part::SecureBoot | Part::BootVariable) {
            return None;
        }
        let name = u64_at(self.data, 16).and_then(|count| u32::try_from(count).ok()).and_then(index)?;
        let start = 32usize.checked_add(name.checked_mul(2)?)?;
        let wide = self.data.get(32..start)?;
        let name: Vec<u16> = wide.chunks_exact(2).filter_map(|unit| u16_at(unit, 0)).take(64).collect();
        Some((String::from_utf16_lossy(&name), self.data.get(start..)?))
    }
}

/// Text of an event's data, in UTF-16LE or bytes, up to a NUL.
fn text(data: &[u8]) -> String {
    let wide = data.len() >= 2 && data.iter().skip(1).step_by(2).all(|byte| *byte == 0);
    let text: String = if wide {
        let units: Vec<u16> = data.chunks_exact(2).filter_map(|unit| u16_at(unit, 0)).collect();
        String::from_utf16_lossy(&units)
    } else {
        String::from_utf8_lossy(data).into_owned()
    };
    text.split('\0').next().unwrap_or_default().to_owned()
}

/// What a variable says, for those that people turn.
pub(super) fn meaning(name: &str, data: &[u8]) -> String {
    match (name, data) {
        ("SecureBoot", [1]) => ": Secure Boot is on".to_owned(),
        ("SecureBoot", [0]) => ": Secure Boot is off".to_owned(),
        ("SecureBoot", []) => ": there is no Secure Boot".to_owned(),
        ("PK" | "KEK" | "db" | "dbx", []) => ": no key is enrolled".to_owned(),
        ("PK" | "KEK" | "db" | "dbx", keys) => format!(": keys are enrolled ({} bytes)", keys.len()),
        ("BootOrder", order) => {
            let options: Vec<String> =
                order.chunks_exact(2).filter_map(|unit| u16_at(unit, 0)).take(32).map(|n| format!("{n:04X}")).collect();
            format!(": {}", options.join(", "))
        }
        (name, option) if name.starts_with("Boot0") || name.starts_with("Boot1") => {
            // Attributes u32, length of the path u16, then a description in UTF-16.
            let description = option.get(6..).map(|wide| {
                let units = wide.chunks_exact(2).filter_map(|unit| u16_at(unit, 0)).take_while(|unit| *unit != 0);
                String::from_utf16_lossy(&units.take(64).collect::<Vec<_>>())
            });
            description.map(|description| format!(": {}", shown(&description))).unwrap_or_default()
        }
        _ => String::new(),
    }
}
