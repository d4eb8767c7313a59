//! Measured boots: RTMRs of a TD and PCRs of a TPM, each the result of a few events that were predicted one by one.
//!
//! With the event log of the boot the first event that differs is named. Without it each event of a register is replaced
//! by plausible others until the register comes out as measured. What neither explains is narrowed down to what lies in
//! the register.
//!
//! Not trusted: record, log, files and registers. Never decides whether a guest is acceptable.

mod event;
mod registers;
mod unified;

use super::log::{self, Logged};
use super::{Certainty, Component, Finding, Outcome, Question, Registers, Search};
use crate::made_from::{EventDigest, MadeFrom, Part, PredictedEvent};
use event::Guess;

/// Registers in the order in which causes are looked for: what is changed most often comes first, and what it changes
/// elsewhere is then known.
const ORDER: [&str; 21] = [
    "rtmr2",
    "pcr9",
    "pcr12",
    "pcr11",
    "pcr13",
    "mrtd",
    "rtmr0",
    "rtmr1",
    "pcr4",
    "pcr7",
    "pcr1",
    "pcr0",
    "pcr5",
    "pcr2",
    "pcr3",
    "pcr6",
    "pcr8",
    "pcr14",
    "rtmr3",
    "pcr15",
    "launch_digest",
];
/// Registers that a unified kernel image goes into.
const OF_IMAGE: [&str; 6] = ["pcr4", "pcr9", "pcr11", "pcr12", "rtmr1", "rtmr2"];
/// Explains registers that differ.
pub(super) fn explain(
    question: &Question<'_>,
    differing: &Registers,
    measured: &Registers,
    search: &mut Search<'_>,
) -> Outcome {
    let (record, misfits) = fitting(question);
    let record = &record;
    let log = log::events(question);
    let mut guess = Guess::new(record, question.candidates);
    let place = |name: &&String| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len());
    let mut names: Vec<&String> = differing.keys().collect();
    names.sort_by_key(place);
    let mut found: Vec<(Finding, Certainty)> = Vec::new();
    if let Some(finding) = unified(record, differing, measured, &mut guess, search) {
        found.push((finding, Certainty::Recomputed));
        names.retain(|name| !OF_IMAGE.contains(&name.as_str()));
    }
    // The kernel's integrity record in PCR 10 is a hash over PCRs 0 to 9.
    if names.len() > 1 || !found.is_empty() {
        names.retain(|name| *name != "pcr10");
    }
    let mut unexplained: Vec<&String> = Vec::new();
    for name in names {
        let Some(actual) = measured.get(name) else { continue };
        let events: Vec<&PredictedEvent> = record.events.iter().filter(|event| event.register == *name).collect();
        let logged: Option<Vec<&Logged<'_>>> =
            log.as_ref().map(|log| log.iter().filter(|event| event.register == *name).collect());
        let known = |(finding, _): &(Finding, Certainty)| registers::follows(record, name, finding.component);
        let explained = if log.is_none() && found.iter().any(known) {
            None
        } else if name == "mrtd" {
            guess.firmware(actual, search).map(|finding| vec![(finding, Certainty::Recomputed)])
        } else {
            match logged.filter(|logged| !logged.is_empty()) {
                Some(logged) => Some(registers::by_log(&events, &logged, actual, question, &mut guess, search)),
                None => registers::by_search(&events, actual, &mut guess, search)
                    .map(|finding| vec![(finding, Certainty::Recomputed)]),
            }
        };
        match explained {
            Some(more) => found.extend(more.into_iter().filter(|(finding, _)| finding.component != Component::Nothing)),
            None => unexplained.push(name),
        }
    }
    let mut outcome = conclude(question, record, found, &unexplained, log.is_some());
    if let (Some(first), false) = (outcome.findings.first_mut(), misfits.is_empty()) {
        let names = misfits.into_iter().filter(|name| differing.contains_key(name)).collect::<Vec<_>>().join(", ");
        if !names.is_empty() {
            let told = "the record of what they were made from does not give their own value, and was not believed";
            first.detail.push(format!("The Reference Values do not fit together: for {names} {told}."));
            outcome.next.push("Make the Reference Values again with `inwit-measure`.".to_owned());
        }
    }
    outcome
}

/// The record with the events of those registers only that are the result of them, and the names of the others. Whoever
/// wrote a record can write anything; what is proved from it must begin at the values that are expected.
fn fitting(question: &Question<'_>) -> (MadeFrom, Vec<String>) {
    let mut record = question.expected.made_from.clone().unwrap_or_default();
    let expected = super::registers(&question.expected.measured);
    let misfits: Vec<String> = expected
        .iter()
        .filter(|(name, digest)| {
            let events = || record.events.iter().filter(|event| event.register == **name);
            events().next().is_some() && log::fold(events().map(|event| &event.digest)).as_ref() != Some(digest)
        })
        .map(|(name, _)| name.clone())
        .collect();
    record.events.retain(|event| expected.contains_key(&event.register) && !misfits.contains(&event.register));
    (record, misfits)
}

/// Another unified kernel image, recognised in the register of what the firmware started.
fn unified(
    record: &MadeFrom,
    differing: &Registers,
    measured: &Registers,
    guess: &mut Guess<'_>,
    search: &mut Search<'_>,
) -> Option<Finding> {
    record.file(crate::made_from::Role::Uki)?;
    let name = ["pcr4", "rtmr1"].into_iter().find(|name| differing.contains_key(*name))?;
    let events: Vec<&PredictedEvent> = record.events.iter().filter(|event| event.register == name).collect();
    guess.unified(&events, measured.get(name)?, search)
}

/// Puts what was found first, then what is only narrowed down.
fn conclude(
    question: &Question<'_>,
    record: &MadeFrom,
    mut found: Vec<(Finding, Certainty)>,
    unexplained: &[&String],
    with_log: bool,
) -> Outcome {
    // One cause shows in several registers.
    let mut seen: Vec<String> = Vec::new();
    found.retain(|(finding, _)| {
        let new = !seen.contains(&finding.answer);
        seen.push(finding.answer.clone());
        new
    });
    found.sort_by_key(|(finding, certainty)| {
        (*certainty, matches!(finding.component, Component::Machine | Component::Unknown))
    });
    let certainty = found.first().map_or(Certainty::Narrowed, |(_, certainty)| *certainty);
    let causes: Vec<Component> = found.iter().map(|(finding, _)| finding.component).collect();
    let mut findings: Vec<Finding> = found.into_iter().map(|(finding, _)| finding).collect();
    let (follows, left): (Vec<&String>, Vec<&String>) =
        unexplained.iter().partition(|name| causes.iter().any(|cause| registers::follows(record, name, *cause)));
    if let (Some(first), false) = (findings.first_mut(), follows.is_empty()) {
        let names: Vec<&str> = follows.iter().map(|name| name.as_str()).collect();
        first.detail.push(format!("With it differs {}.", names.join(", ")));
    }
    if !left.is_empty() {
        findings.push(registers::narrowed(record, &left));
    }
    let mut next = Vec::new();
    if !left.is_empty() || certainty == Certainty::Narrowed {
        next = registers::next_steps(question, record, &left, with_log);
    }
    Outcome { findings, certainty, next }
}

/// Which component an event's part is.
fn component(part: Part) -> Component {
    match part {
        Part::Firmware => Component::Firmware,
        Part::Machine => Component::Machine,
        Part::SecureBoot => Component::SecureBoot,
        Part::BootVariable => Component::BootVariable,
        Part::Disk => Component::Disk,
        Part::Kernel => Component::Kernel,
        Part::CommandLine => Component::CommandLine,
        Part::Initrd => Component::Initrd,
        Part::Section => Component::Section,
        Part::Agent => Component::Agent,
        Part::Constant => Component::Unknown,
    }
}

/// Whether a digest put in place of one event gives the register.
fn replaced(events: &[&PredictedEvent], at: usize, digest: &EventDigest, register: &EventDigest) -> bool {
    let digests = events.iter().enumerate().map(|(number, event)| if number == at { digest } else { &event.digest });
    log::fold(digests).as_ref() == Some(register)
}
