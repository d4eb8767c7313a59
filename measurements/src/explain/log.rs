//! The event log of the boot that was measured: its events by register, and in words.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06 section 10, Linux `drivers/firmware/efi/libstub`. Not trusted: the log; whether its replay gives the measured registers is always said.
//! Never decides what an event means for trust.

use super::{Question, Registers};
use crate::digest::{Digest, sha256, sha384};
use crate::eventlog::{ALG_SHA256, ALG_SHA384, EventLog, LogEvent, describe};
use crate::made_from::{EventDigest, Part};
use crate::uefi::{event_type, parse_variable};

/// Tags of the Linux EFI stub's events.
const TAG_INITRD: u32 = 0x8f3b_22ec;
/// One event that extended a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logged<'a> {
    pub(super) register: String,
    pub(super) digest: EventDigest,
    event: LogEvent<'a>,
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
        Some(Logged { register, digest, event })
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
        match self.event.event_type {
            event_type::S_CRTM_VERSION | event_type::PLATFORM_FIRMWARE_BLOB | event_type::PLATFORM_FIRMWARE_BLOB2 => {
                Part::Firmware
            }
            event_type::HANDOFF_TABLES | event_type::HANDOFF_TABLES2 | event_type::PLATFORM_CONFIG_FLAGS => {
                Part::Machine
            }
            event_type::VARIABLE_DRIVER_CONFIG | event_type::VARIABLE_AUTHORITY => Part::SecureBoot,
            event_type::VARIABLE_BOOT | event_type::VARIABLE_BOOT2 => Part::BootVariable,
            event_type::BOOT_SERVICES_APPLICATION => Part::Kernel,
            event_type::GPT => Part::Disk,
            event_type::EVENT_TAG if self.event.data.starts_with(&TAG_INITRD.to_le_bytes()) => Part::Initrd,
            event_type::EVENT_TAG => Part::CommandLine,
            event_type::IPL => Part::Section,
            _ => Part::Constant,
        }
    }

    /// What it measures, as the log tells; where the digest is not that of the log's data it is a claim.
    pub(super) fn words(&self) -> String {
        describe(&self.event).words
    }

    /// Name and contents of a UEFI variable, in words.
    pub(super) fn variable(&self) -> Option<(String, String)> {
        let (_, name, _) = parse_variable(self.event.data)?;
        let words = self.words();
        Some((name, words.split_once(": ").map(|(_, contents)| contents.to_owned())?))
    }
}

#[cfg(test)]
impl Logged<'_> {
    /// An event of which nothing matters but its digest.
    pub(super) fn sample(digest: Digest<32>) -> Self {
        let event = LogEvent { index: 4, event_type: event_type::EVENT_TAG, digests: Vec::new(), data: &[] };
        Self { register: "pcr4".to_owned(), digest: digest.into(), event }
    }
}
