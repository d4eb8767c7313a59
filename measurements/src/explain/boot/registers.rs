//! One register: event by event against its log, or by search; and in words what lies in it.
//!
//! Not trusted: log and registers. Whether a log's replay gives the register is told with everything it says.

use std::collections::HashMap;

use super::super::log::{self, Logged};
use super::super::words::shown;
use super::super::{Certainty, Component, Finding, Question, Search};
use super::event::Guess;
use super::{component, replaced};
use crate::made_from::{EventDigest, MadeFrom, Part, PredictedEvent, Role};

/// Events of one register that are told apart.
const MAX_NAMED: usize = 32;

/// Names every event of the log that is not as predicted.
pub(super) fn by_log(
    events: &[&PredictedEvent],
    logged: &[&Logged<'_>],
    actual: &EventDigest,
    question: &Question<'_>,
    guess: &mut Guess<'_>,
    search: &mut Search<'_>,
) -> Vec<(Finding, Certainty)> {
    let vouched =
        log::fold(logged.iter().map(|event| &event.digest)).as_ref() == Some(actual) && !question.actual.is_log;
    let told = if vouched { Certainty::Log } else { Certainty::LogAlone };
    let proved = if vouched { Certainty::Recomputed } else { Certainty::LogAlone };
    if events.is_empty() {
        let register = logged.first().map(|event| event.register.clone()).unwrap_or_default();
        let list = logged.iter().map(|event| event.words()).collect::<Vec<_>>().join("; ");
        let answer = format!("{register} differs, and nothing says which events were expected in it.");
        return vec![(
            Finding::new(Component::Unknown, answer).with(format!("In the log it holds: {list}.")),
            Certainty::Narrowed,
        )];
    }
    let mut found = Vec::new();
    for (expected, actual) in aligned(events, logged).into_iter().take(MAX_NAMED) {
        match (expected, actual) {
            (Some(event), Some(logged)) => {
                let hit = guess.event(event, search, &mut |digest| *digest == logged.digest);
                let certainty = if hit.is_some() { proved } else { told };
                found.push((hit.unwrap_or_else(|| changed(event, logged)), certainty));
            }
            (Some(event), None) => {
                let answer = format!("{} is missing: the log has no such event.", capital(&event.measures));
                found.push((Finding::new(component(event.part), answer), told));
            }
            (None, Some(logged)) => {
                let answer = format!("{} was measured, which was not expected.", capital(&logged.words()));
                found.push((Finding::new(component(logged.part()), answer), told));
            }
            (None, None) => {}
        }
    }
    if found.is_empty() {
        let answer = "The log has exactly the expected events, yet the register differs: it is the log of another boot, or \
                      something extended the register without logging it.";
        found.push((Finding::new(Component::Unknown, answer), Certainty::Narrowed));
    }
    found
}

/// Expected and logged events side by side, where they differ: equal ones are matched first, in order; what lies between
/// two matches is paired one by one.
fn aligned<'e, 'l, 'd>(
    events: &[&'e PredictedEvent],
    logged: &[&'l Logged<'d>],
) -> Vec<(Option<&'e PredictedEvent>, Option<&'l Logged<'d>>)> {
    let mut places: HashMap<&EventDigest, Vec<usize>> = HashMap::new();
    for (place, log) in logged.iter().enumerate() {
        places.entry(&log.digest).or_default().push(place);
    }
    let mut out = Vec::new();
    let (mut e, mut l) = (0, 0);
    while e < events.len() || l < logged.len() {
        // The nearest equal pair from here. A record has few events; a hostile log may have many.
        let pairs = events.iter().enumerate().skip(e).filter_map(|(at, event)| {
            let places = places.get(&event.digest)?;
            let place = places.get(places.partition_point(|place| *place < l))?;
            Some((at, *place))
        });
        let next = pairs.min_by_key(|(at, place)| (at - e) + (place - l));
        let (to_e, to_l) = next.unwrap_or((events.len(), logged.len()));
        let gap_e = events.get(e..to_e).unwrap_or_default();
        let gap_l = logged.get(l..to_l).unwrap_or_default();
        for at in 0..gap_e.len().max(gap_l.len()) {
            out.push((gap_e.get(at).copied(), gap_l.get(at).copied()));
        }
        (e, l) = (to_e + 1, to_l + 1);
    }
    out
}

/// An event that was expected otherwise.
fn changed(event: &PredictedEvent, logged: &Logged<'_>) -> Finding {
    let (measures, words) = (&event.measures, logged.words());
    let answer = match (event.part, logged.variable()) {
        (Part::SecureBoot, Some((name, is))) => {
            format!("The Secure Boot variable {} differs: it is {is}.", shown(&name))
        }
        (Part::BootVariable, Some((name, is))) if name == "BootOrder" => {
            format!("The boot order differs: it is {is}.")
        }
        (Part::BootVariable, Some((name, is))) => {
            format!("The boot variable {} differs: it is {is}.", shown(&name))
        }
        (Part::Firmware, _) => format!("The firmware differs: {measures}."),
        (Part::Machine, _) => {
            format!("The machine differs: {measures} (memory size, vCPUs, devices or the hypervisor's version).")
        }
        (Part::Kernel, _) => {
            "The kernel differs, or what the hypervisor writes into it: memory size or size of the initrd.".to_owned()
        }
        (Part::CommandLine, _) => "The command line differs, by more than one usual change.".to_owned(),
        (Part::Initrd, _) => "The initrd differs.".to_owned(),
        (Part::Agent, _) => "The agent or its configuration differs.".to_owned(),
        (Part::Section, _) => format!("The unified kernel image differs: {measures}."),
        (Part::Disk, _) => "The disk's partition table differs.".to_owned(),
        (Part::SecureBoot, None) => format!("A Secure Boot variable differs: {measures}."),
        (Part::BootVariable, None) => format!("A boot variable differs: {measures}."),
        (Part::Constant, _) => format!("{} was expected, {words} was measured.", capital(measures)),
    };
    Finding::new(component(event.part), answer)
        .with(format!("Expected {} in {}: {}", measures, event.register, event.digest))
        .with(format!("Actual   {words}: {}", logged.digest))
}

/// Tries others in place of each event, the changeable ones first.
pub(super) fn by_search(
    events: &[&PredictedEvent],
    actual: &EventDigest,
    guess: &mut Guess<'_>,
    search: &mut Search<'_>,
) -> Option<Finding> {
    for (at, event) in events.iter().enumerate().filter(|(_, event)| event.part != Part::Constant) {
        let hit = guess.event(event, search, &mut |digest| replaced(events, at, digest, actual));
        if hit.is_some() {
            return hit;
        }
        let without = events.iter().enumerate().filter(|(number, _)| *number != at).map(|(_, event)| &event.digest);
        if log::fold(without).as_ref() == Some(actual) {
            let answer = format!("{} is missing: nothing was measured in its place.", capital(&event.measures));
            return Some(Finding::new(component(event.part), answer));
        }
    }
    guess.line_and_initrd(events, actual, search)
}

/// Whether a register that nothing explains differs anyway when this component does.
pub(super) fn follows(record: &MadeFrom, register: &str, cause: Component) -> bool {
    // A unified kernel image is hashed as a whole, too.
    let whole = record.file(Role::Uki).is_some() && matches!(register, "pcr4" | "pcr11" | "rtmr1" | "rtmr2");
    let agent = matches!(cause, Component::Agent | Component::Configuration);
    match cause {
        Component::CommandLine
        | Component::Kernel
        | Component::Initrd
        | Component::InitrdFile
        | Component::Agent
        | Component::Configuration
        | Component::Section => whole || (agent && matches!(register, "pcr15" | "rtmr3")),
        Component::Memory | Component::VcpuCount => matches!(register, "pcr0" | "rtmr0"),
        Component::Firmware => matches!(register, "pcr0" | "pcr1" | "pcr4" | "pcr7" | "rtmr0" | "mrtd"),
        _ => false,
    }
}

/// What lies in registers that nothing more is known of.
pub(super) fn narrowed(record: &MadeFrom, registers: &[&String]) -> Finding {
    let has = |name: &str| registers.iter().any(|register| *register == name);
    let (component, answer) = match registers {
        _ if (has("pcr0") && has("pcr4") && !has("mrtd")) || (has("rtmr0") && has("rtmr1") && !has("mrtd")) => {
            (Component::Machine, "The machine differs, most likely its memory size; or firmware and kernel both do.")
        }
        _ if has("mrtd") => (Component::Firmware, "The firmware differs, or how the hypervisor measures it."),
        _ if has("pcr0") => (Component::Firmware, "The firmware differs, or the number of vCPUs or the memory size."),
        _ if has("rtmr0") => {
            (Component::Machine, "The machine differs: memory size, vCPUs, devices, boot variables or Secure Boot.")
        }
        _ if has("rtmr1") || has("pcr4") => {
            (Component::Kernel, "The kernel differs, or the memory size, or the size of the initrd.")
        }
        _ if has("rtmr2") || has("pcr9") => {
            (Component::Initrd, "The initrd differs, or the command line by more than a usual change.")
        }
        _ if has("pcr11") || has("pcr12") => {
            (Component::Section, "The unified kernel image or its command line differs.")
        }
        _ if has("pcr7") => (Component::SecureBoot, "The Secure Boot variables differ."),
        _ if has("pcr1") => (Component::BootVariable, "The boot order or a boot option differs."),
        _ if has("pcr15") || has("rtmr3") => {
            (Component::Agent, "The agent or its configuration differs, or it did not run.")
        }
        _ => (Component::Unknown, "The reason was not found."),
    };
    let mut finding = Finding::new(component, answer);
    for register in registers {
        let events: Vec<&str> = record
            .events
            .iter()
            .filter(|event| event.register == **register && event.part != Part::Constant)
            .map(|event| event.measures.as_str())
            .collect();
        let holds = if events.is_empty() { contents(register).to_owned() } else { events.join(", ") };
        finding = finding.with(format!("{register} differs; it holds: {holds}."));
    }
    finding
}

/// What a register holds by its definition.
fn contents(register: &str) -> &'static str {
    match register {
        "mrtd" => "the firmware as the hypervisor loads it",
        "rtmr0" => "memory map, configuration, ACPI tables, Secure Boot and boot variables",
        "rtmr1" => "the kernel or boot loader",
        "rtmr2" => "command line and initrd",
        "rtmr3" | "pcr15" => "what the agent extends it with",
        "pcr0" => "the firmware's code",
        "pcr1" => "boot order and boot options",
        "pcr4" => "the kernel or boot loader",
        "pcr7" => "the Secure Boot variables",
        "pcr9" => "command line and initrd",
        "pcr11" => "the sections of a unified kernel image",
        "pcr12" => "command line and credentials for a unified kernel image",
        _ => "nothing but what every machine measures",
    }
}

/// What would help to know more.
pub(super) fn next_steps(question: &Question<'_>, record: &MadeFrom, left: &[&String], with_log: bool) -> Vec<String> {
    let mut next = Vec::new();
    if !with_log {
        let (path, what) = match left.first().is_some_and(|name| name.starts_with("pcr")) {
            true => ("/sys/kernel/security/tpm0/binary_bios_measurements", "TPM"),
            false => ("/sys/firmware/acpi/tables/data/CCEL", "TD"),
        };
        next.push(format!(
            "Give the event log of the measured boot with --log; in the guest of a {what} it is {path}."
        ));
    }
    if record.events.is_empty() {
        next.push(
            "Make the Reference Values again with `inwit-measure ... --agent ... --config ... --name ...`: they then say which events \
             were predicted, and one event can be named."
                .to_owned(),
        );
    }
    for role in [Role::Kernel, Role::Initrd, Role::Firmware] {
        if let Some(file) = record.file(role).filter(|file| question.candidates.with(&file.sha256).is_none()) {
            next.push(format!(
                "Give the files that may have been booted; the expected {} is not among them.",
                shown(&file.name)
            ));
            break;
        }
    }
    next
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().collect::<String>() + characters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256;

    fn event(name: &str) -> PredictedEvent {
        let (register, digest) = ("pcr4".to_owned(), sha256(name.as_bytes()).into());
        PredictedEvent { register, part: Part::Kernel, measures: name.to_owned(), digest }
    }

    /// What differs between the events of two boots, as letters, `-` where one has none.
    fn differing(expected: &str, logged: &str) -> Vec<String> {
        let events: Vec<_> = expected.chars().map(|letter| event(&letter.to_string())).collect();
        let log: Vec<_> = logged.chars().map(|letter| Logged::sample(sha256(letter.to_string().as_bytes()))).collect();
        let letter = |digest: &EventDigest| {
            let all = expected.chars().chain(logged.chars());
            all.into_iter().find(|letter| EventDigest::from(sha256(letter.to_string().as_bytes())) == *digest).unwrap()
        };
        let (events, log) = (events.iter().collect::<Vec<_>>(), log.iter().collect::<Vec<_>>());
        let pairs = aligned(&events, &log).into_iter();
        pairs
            .map(|(event, log)| {
                let side = |digest: Option<&EventDigest>| digest.map_or('-', letter);
                format!("{}{}", side(event.map(|event| &event.digest)), side(log.map(|log| &log.digest)))
            })
            .collect()
    }

    #[test]
    fn events_are_paired_in_order() {
        assert_eq!(differing("abc", "abc"), [""; 0]);
        assert_eq!(differing("abc", "axc"), ["bx"]);
        assert_eq!(differing("abc", "ac"), ["b-"]);
        assert_eq!(differing("abc", "abbc"), ["-b"]);
        assert_eq!(differing("abcd", "axyd"), ["bx", "cy"]);
        assert_eq!(differing("abc", "xyz"), ["ax", "by", "cz"]);
        assert_eq!(differing("", "x"), ["-x"]);
        assert_eq!(differing("abc", ""), ["a-", "b-", "c-"]);
    }

    /// Hostile: many events that occur nowhere, and one that occurs everywhere.
    #[test]
    fn long_logs_cost_little() {
        let events: Vec<_> = (0..500).map(|number| event(&format!("{}", number % 2))).collect();
        let log: Vec<_> = (0..60_000).map(|number: u32| Logged::sample(sha256(&number.to_le_bytes()))).collect();
        let (events, log) = (events.iter().collect::<Vec<_>>(), log.iter().collect::<Vec<_>>());
        assert_eq!(aligned(&events, &log).len(), 60_000);
    }
}
