//! `inwit-measure log`: an event log in words, the registers that it leads to, and whether they are those of a quote.
//!
//! Not trusted: the log and the quote; the quote's signature is not looked at. Never says that a boot was good.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use inwit_measurements::eventlog::{CcReplay, LogError, LogEvent, Proof, Replay, describe, replay_ccel, replay_sha256};
use inwit_measurements::explain::Actual;
use serde_json::{Value, json};

use crate::arguments::OutputArguments;
use crate::files::{Failure, read};
use crate::report::Printed;

#[derive(Args)]
pub(crate) struct LogArguments {
    /// Event log: /sys/firmware/acpi/tables/data/CCEL of a TD, or binary_bios_measurements of a TPM.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the hardware reported: a TDX quote or TD report, lines like `rtmr1 <hex>` and `pcr4 <hex>`, or any other form
    /// that `explain` reads. Says which registers match; when one does not, the exit code is 3. Signatures are not checked.
    #[arg(long, value_name = "FILE", visible_alias = "registers")]
    quote: Option<PathBuf>,
}

/// A log, replayed.
struct Log<'a> {
    kind: &'static str,
    events: Vec<LogEvent<'a>>,
    /// Values by name, of those that the log extends.
    registers: Vec<(String, String)>,
}

/// What the log says.
pub(crate) fn run(arguments: &LogArguments, output: &OutputArguments) -> Result<Printed, Failure> {
    let bytes = read(&arguments.file)?;
    let log = replay(&bytes).map_err(Failure::refused)?;
    let reported = match &arguments.quote {
        Some(path) => Some(reported(&read(path)?)?),
        None => None,
    };
    let compared: Vec<(&str, &str, Option<bool>)> = log
        .registers
        .iter()
        .map(|(name, value)| {
            let same = reported.as_ref().and_then(|reported| reported.get(name)).map(|other| other == value);
            (name.as_str(), value.as_str(), same)
        })
        .collect();
    if reported.is_some() && compared.iter().all(|(_, _, same)| same.is_none()) {
        return Err(Failure::Refused("the log and what was reported have no register in common".to_owned()));
    }
    let text = if output.json { in_json(&log, &compared).to_string() } else { in_words(&log, &compared) };
    let differ = compared.iter().any(|(_, _, same)| *same == Some(false));
    Ok(if differ { Printed::Differ(text) } else { Printed::Text(text) })
}

/// A log with a SHA-256 bank is a TPM's; CCEL logs have SHA-384 alone.
fn replay(bytes: &[u8]) -> Result<Log<'_>, LogError> {
    match replay_sha256(bytes) {
        Ok(Replay { pcrs, events }) => {
            let registers = pcrs.iter().map(|(pcr, value)| (format!("pcr{pcr}"), hex(value))).collect();
            Ok(Log { kind: "TPM event log, SHA-256", events, registers })
        }
        Err(LogError::NoBank(_)) => {
            let CcReplay { rtmrs, events } = replay_ccel(bytes)?;
            let registers = rtmrs.iter().enumerate().map(|(number, value)| (format!("rtmr{number}"), hex(value)));
            // RTMR3 belongs to user space, which keeps its own log.
            let registers = registers.filter(|(_, value)| value.bytes().any(|digit| digit != b'0')).collect();
            Ok(Log { kind: "CC event log, SHA-384", events, registers })
        }
        Err(other) => Err(other),
    }
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
    match (log.kind.starts_with("CC"), event.index) {
        (true, 0) => "mrtd".to_owned(),
        (true, index) => format!("rtmr{}", index.saturating_sub(1)),
        (false, index) => format!("pcr{index}"),
    }
}

const fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::Data => "proved",
        Proof::Elsewhere => "claimed",
        Proof::NotMeasured => "not measured",
    }
}

fn in_words(log: &Log<'_>, compared: &[(&str, &str, Option<bool>)]) -> String {
    let mut text = format!("{}, {} events\n\n", log.kind, log.events.len());
    for (number, event) in log.events.iter().enumerate() {
        let description = describe(event);
        let (register, proof) = (register(log, event), proof(description.proof));
        text += &format!("{number:>4} {register:<6} {proof:<8} {}\n", description.words);
    }
    text += "\nproved: the digest is that of the data in the log. claimed: it is of something that the log does not hold.\n\n";
    for (name, value, same) in compared {
        let same = match same {
            Some(true) => " matches",
            Some(false) => " DIFFERS from what was reported",
            None => "",
        };
        text += &format!("{name} {value}{same}\n");
    }
    text
}

fn in_json(log: &Log<'_>, compared: &[(&str, &str, Option<bool>)]) -> Value {
    let events = log.events.iter().map(|event| {
        let description = describe(event);
        let digests = event.digests.iter().map(|(algorithm, digest)| (format!("{algorithm:#06x}"), json!(hex(digest))));
        json!({
            "register": register(log, event),
            "type": description.type_name,
            "type_number": event.event_type,
            "digests": digests.collect::<serde_json::Map<_, _>>(),
            "what": description.words,
            "proof": proof(description.proof),
        })
    });
    let registers =
        compared.iter().map(|(name, value, same)| ((*name).to_owned(), json!({"value": value, "matches": same})));
    json!({
        "kind": log.kind,
        "events": events.collect::<Vec<_>>(),
        "registers": registers.collect::<serde_json::Map<_, _>>(),
    })
}
