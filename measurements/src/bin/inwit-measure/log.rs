//! `inwit-measure log`: an event log in words, the registers that it leads to, and whether they are those of a quote.
//!
//! Not trusted: the log and the quote; the quote's signature is not looked at. Never says that a boot was good.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use inwit_measurements::eventlog::{CcReplay, LogError, LogEvent, Proof, Replay, describe, replay_ccel, replay_sha256};
use inwit_measurements::explain::Actual;
use inwit_measurements::printable::escaped;
use serde_json::{Value, json};

use crate::arguments::OutputArguments;
use crate::files::{Failure, FileKind, read};
use crate::report::Printed;

#[derive(Args)]
pub(crate) struct LogArguments {
    /// Event log: /sys/firmware/acpi/tables/data/CCEL of a TD, or binary_bios_measurements of a TPM.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the hardware reported: a TDX quote or TD report, lines like `rtmr1 <hex>` and `pcr4 <hex>`, or any other form
    /// that `explain` reads. Says which registers match; when one does not,
    /// or was extended without an event in the log, the exit code is 3. Signatures are not checked.
    #[arg(long, value_name = "FILE", visible_alias = "registers")]
    quote: Option<PathBuf>,
}

/// Which platform keeps a log, and so the names and start values of its registers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tpm,
    Cc,
}

/// A log, replayed.
struct Log<'a> {
    kind: Kind,
    events: Vec<LogEvent<'a>>,
    /// Values by name, of those that the log extends.
    registers: Vec<(String, String)>,
}

/// What a register of the log, or of what was reported, comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing was reported to compare with.
    Alone,
    Matches,
    Differs,
    /// It was extended, as reported, and the log has no event of it.
    NotExplained,
    /// Firmware logs do not hold what extends it.
    RunningSystem,
}

/// A register, its value by the log, and as reported.
struct Compared<'a> {
    name: &'a str,
    value: Option<&'a str>,
    reported: Option<&'a str>,
    outcome: Outcome,
}

/// What the log says.
pub(crate) fn run(arguments: &LogArguments, output: &OutputArguments) -> Result<Printed, Failure> {
    let bytes = read(&arguments.file, FileKind::Small)?;
    let log = replay(bytes)?;
    let reported = match &arguments.quote {
        Some(path) => Some(reported(read(path, FileKind::Small)?)?),
        None => None,
    };
    let compared = compare(&log, reported.as_ref());
    if reported.is_some() && compared.iter().all(|register| register.reported.is_none()) {
        return Err(Failure::Refused("the log and what was reported have no register in common".to_owned()));
    }
    let text = if output.json { in_json(&log, &compared).to_string() } else { in_words(&log, &compared) };
    let differ = compared.iter().any(|one| matches!(one.outcome, Outcome::Differs | Outcome::NotExplained));
    Ok(if differ { Printed::Differ(text) } else { Printed::Text(text) })
}

impl Kind {
    /// Prefix of the names of its registers.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Tpm => "pcr",
            Self::Cc => "rtmr",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Tpm => "TPM event log, SHA-256",
            Self::Cc => "CC event log of a TD, SHA-384 (a TPM's log would need a SHA-256 bank)",
        }
    }

    /// Whether what extends a register is never in a firmware's log: the running system does, and keeps its own.
    ///
    /// PCR 10 is IMA's, 15 the system's (systemd, and the agent of inwit), 16 for debugging, 23 an application's. PCRs 17
    /// to 22 are those of a dynamic launch, which is no part of a boot that is explained here.
    fn running_system(self, number: u8) -> bool {
        match self {
            Self::Tpm => matches!(number, 10 | 15 | 16 | 23),
            Self::Cc => number == 3,
        }
    }

    /// Whether a register that nothing extended has this value.
    fn at_start(self, number: u8, value: &str) -> bool {
        let digit = if self == Self::Tpm && (17..=22).contains(&number) { b'f' } else { b'0' };
        value.bytes().all(|other| other == digit)
    }
}

/// Every register that the log extends, then every one that was reported as extended and has no event in the log.
fn compare<'a>(log: &'a Log<'_>, reported: Option<&'a BTreeMap<String, String>>) -> Vec<Compared<'a>> {
    let with_events = log.registers.iter().map(|(name, value)| {
        let reported = reported.and_then(|reported| reported.get(name)).map(String::as_str);
        let outcome = match reported {
            None => Outcome::Alone,
            Some(other) if other == value => Outcome::Matches,
            Some(_) => Outcome::Differs,
        };
        Compared { name, value: Some(value), reported, outcome }
    });
    let logged = |name: &str| log.registers.iter().any(|(other, _)| other == name);
    let mut without: Vec<(u8, &str, &str)> = reported
        .into_iter()
        .flatten()
        .filter(|(name, _)| !logged(name))
        .filter_map(|(name, value)| Some((name.strip_prefix(log.kind.prefix())?.parse().ok()?, &**name, &**value)))
        .filter(|(number, _, value)| !log.kind.at_start(*number, value))
        .collect();
    without.sort_unstable();
    let without = without.into_iter().map(|(number, name, value)| {
        let running = log.kind.running_system(number);
        let outcome = if running { Outcome::RunningSystem } else { Outcome::NotExplained };
        Compared { name, value: None, reported: Some(value), outcome }
    });
    with_events.chain(without).collect()
}

/// A log with a SHA-256 bank is read as a TPM's, one with SHA-384 alone as a TD's, as CCEL logs are.
fn replay(bytes: &[u8]) -> Result<Log<'_>, Failure> {
    match replay_sha256(bytes) {
        Ok(Replay { pcrs, events }) => {
            let registers = pcrs.iter().map(|(pcr, value)| (format!("pcr{pcr}"), hex(value))).collect();
            Ok(Log { kind: Kind::Tpm, events, registers })
        }
        Err(LogError::NoBank(_)) => {
            let CcReplay { rtmrs, events } = replay_ccel(bytes).map_err(|error| neither(&error))?;
            let registers = rtmrs.iter().enumerate().map(|(number, value)| (format!("rtmr{number}"), hex(value)));
            // RTMR3 belongs to user space, which keeps its own log.
            let registers = registers.filter(|(_, value)| value.bytes().any(|digit| digit != b'0')).collect();
            Ok(Log { kind: Kind::Cc, events, registers })
        }
        Err(other) => Err(Failure::refused(other)),
    }
}

/// Why a log without SHA-256 is neither a TPM's that can be replayed nor a TD's.
fn neither(error: &LogError) -> Failure {
    let cause = format!(
        "the event log has no SHA-256 bank. If it is a TPM's: only SHA-256 is replayed, let the firmware measure into that \
         bank, too. If it is the CC event log of a TD: {error}"
    );
    Failure::Refused(cause)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Registers of what the hardware reported.
fn reported(bytes: &[u8]) -> Result<BTreeMap<String, String>, Failure> {
    let actual = Actual::read(bytes).map_err(Failure::refused)?;
    if actual.is_log {
        return Err(Failure::Usage("--quote takes what the hardware reported, not another log".to_owned()));
    }
    Ok(actual.registers.iter().map(|(name, digest)| (name.clone(), digest.to_string())).collect())
}

/// Name of the register that an event extends, in the log's own numbering.
fn register(log: &Log<'_>, event: &LogEvent<'_>) -> String {
    match (log.kind, event.index) {
        (Kind::Cc, 0) => "mrtd".to_owned(),
        (Kind::Cc, index) => format!("rtmr{}", index.saturating_sub(1)),
        (Kind::Tpm, index) => format!("pcr{index}"),
    }
}

const fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::Data => "proved",
        Proof::Label => "label",
        Proof::Elsewhere => "claimed",
        Proof::NotMeasured => "not measured",
    }
}

impl Outcome {
    const fn words(self) -> &'static str {
        match self {
            Self::Alone => "",
            Self::Matches => " matches",
            Self::Differs => " DIFFERS from what was reported",
            Self::NotExplained => " was reported and is NOT EXPLAINED by this log, which has no event of it",
            Self::RunningSystem => " was reported; not compared: the running system extends it and keeps its own log",
        }
    }

    /// Nothing where there was nothing to compare.
    const fn matches(self) -> Option<bool> {
        match self {
            Self::Matches => Some(true),
            Self::Differs | Self::NotExplained => Some(false),
            Self::Alone | Self::RunningSystem => None,
        }
    }
}

fn in_words(log: &Log<'_>, compared: &[Compared<'_>]) -> String {
    let mut text = format!("{}, {} events\n\n", log.kind.words(), log.events.len());
    for (number, event) in log.events.iter().enumerate() {
        let description = describe(event);
        let (register, proof) = (register(log, event), proof(description.proof));
        text += &format!("{number:>4} {register:<6} {proof:<8} {}\n", escaped(&description.words, &[]));
    }
    text += "\nproved: the digest is that of the data in the log. claimed: it is of something that the log does not hold. \
             label: it is that of a name in the log; what is named was not measured.\n\n";
    for Compared { name, value, reported, outcome } in compared {
        text += &format!("{name} {}{}\n", value.or(*reported).unwrap_or_default(), outcome.words());
    }
    text
}

fn in_json(log: &Log<'_>, compared: &[Compared<'_>]) -> Value {
    let events = log.events.iter().map(|event| {
        let description = describe(event);
        let digests = event.digests.iter().map(|(algorithm, digest)| (format!("{algorithm:#06x}"), json!(hex(digest))));
        json!({
            "register": register(log, event),
            "type": description.type_name,
            "type_number": event.event_type,
            "digests": digests.collect::<serde_json::Map<_, _>>(),
            "what": escaped(&description.words, &[]),
            "proof": proof(description.proof),
        })
    });
    let registers = compared.iter().map(|Compared { name, value, reported, outcome }| {
        let mut register = json!({"value": value, "reported": reported, "matches": outcome.matches()});
        if matches!(outcome, Outcome::NotExplained | Outcome::RunningSystem) {
            register["why"] = json!(outcome.words().trim_start());
        }
        ((*name).to_owned(), register)
    });
    json!({
        "kind": log.kind.words(),
        "events": events.collect::<Vec<_>>(),
        "registers": registers.collect::<serde_json::Map<_, _>>(),
    })
}
