//! Why a guest measured otherwise than expected: names the component that differs, and how sure that is.
//!
//! Four ways, the surest first. By recomputation: plausible changes are tried until one gives exactly what was measured;
//! a hash that fits is proof. By event log: event by event against the predicted ones. By two records of what was
//! measured. And where nothing more is known, by what lies in each register.
//!
//! Not trusted: the measurement, the log, the record and the files, all of which are read as hostile bytes; nothing here
//! authenticates anything. Never decides whether a guest is acceptable, never reads files.

mod actual;
mod archive;
mod boot;
mod files;
mod launch;
mod log;
mod record;
mod records;
mod words;

pub use actual::{Actual, ActualError, Registers, registers};
pub use files::{Candidate, Candidates};

use serde::Serialize;

use crate::reference::{Measured, Stated};

/// Combinations that are tried at most unless told otherwise; a few seconds.
pub const USUAL_BUDGET: u64 = 3_000_000;

/// Further differences that are told beside the first.
const MAX_TOLD: usize = 40;

/// What is to be explained.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What was expected, best with the record of what it was made from.
    pub expected: &'a Stated,
    /// What was measured.
    pub actual: &'a Actual,
    /// Event log of the boot that was measured.
    pub log: Option<&'a [u8]>,
    /// Files and command lines that may have been booted.
    pub candidates: &'a Candidates,
    /// Combinations to try at most.
    pub budget: u64,
}

/// A part of a system that can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Component {
    Nothing,
    Platform,
    Firmware,
    Kernel,
    /// The initial ramdisk as a whole.
    Initrd,
    /// One file inside it.
    InitrdFile,
    CommandLine,
    Agent,
    Configuration,
    VcpuCount,
    VcpuType,
    GuestFeatures,
    Vmm,
    Memory,
    /// Memory map, ACPI tables or devices, as far as no more is known.
    Machine,
    SecureBoot,
    BootVariable,
    Disk,
    /// A section of a unified kernel image.
    Section,
    Unknown,
}

/// How sure an explanation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// With this change the computation gives exactly what was measured.
    Recomputed,
    /// The event log, whose replay gives the measured registers, says so.
    Log,
    /// The event log says so, but its replay does not give the measured registers, or none were there to compare.
    LogAlone,
    /// The records of both measurements say so.
    Record,
    /// Only narrowed down to this.
    Narrowed,
}

impl Certainty {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Recomputed => "proved: with this change the computation gives exactly what was measured",
            Self::Log => "told by the event log, whose replay gives the measured registers",
            Self::LogAlone => "told by the event log alone: nothing measured vouches for it",
            Self::Record => "told by the records of what both were made from",
            Self::Narrowed => "only narrowed down",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether everything that is expected was measured, and is equal.
    pub same: bool,
    /// The part that differs; the first of several.
    pub component: Component,
    /// The answer in one line.
    pub answer: String,
    /// More lines: what was expected and what is there, further differences.
    pub detail: Vec<String>,
    /// How sure it is.
    pub certainty: Certainty,
    /// Registers that differ, as expected.
    pub expected: Registers,
    /// The same as measured.
    pub actual: Registers,
    /// Combinations that were computed.
    pub tried: u64,
    /// What to do next.
    pub next: Vec<String>,
}

/// One difference that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    component: Component,
    /// A whole sentence.
    answer: String,
    detail: Vec<String>,
}

impl Finding {
    fn new(component: Component, answer: impl Into<String>) -> Self {
        Self { component, answer: answer.into(), detail: Vec::new() }
    }

    fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail.push(detail.into());
        self
    }
}

/// Counts combinations, stops at the budget, and lets somebody watch.
struct Search<'p> {
    tried: u64,
    budget: u64,
    watch: &'p mut dyn FnMut(u64),
}

impl Search<'_> {
    /// Whether one more may be tried.
    fn goes_on(&mut self) -> bool {
        if self.tried >= self.budget {
            return false;
        }
        self.tried += 1;
        if self.tried.is_multiple_of(256) {
            (self.watch)(self.tried);
        }
        true
    }
}

/// Explains a difference. `watch` is told now and then how many combinations were tried.
pub fn explain(question: &Question<'_>, watch: &mut dyn FnMut(u64)) -> Explanation {
    let mut search = Search { tried: 0, budget: question.budget, watch };
    let measured = log::measured(question);
    let (expected, actual) = differing(&registers(&question.expected.measured), &measured);
    let answer = |findings: &[Finding], certainty, tried, next: Vec<String>| {
        let first =
            findings.first().cloned().unwrap_or_else(|| Finding::new(Component::Unknown, "The reason was not found."));
        let further = findings.iter().skip(1).take(MAX_TOLD).flat_map(|finding| {
            std::iter::once(format!("Also: {}", finding.answer)).chain(finding.detail.iter().cloned())
        });
        let detail = first.detail.iter().cloned().chain(further).collect();
        let (expected, actual) = (expected.clone(), actual.clone());
        Explanation {
            same: false,
            component: first.component,
            answer: first.answer,
            detail,
            certainty,
            expected,
            actual,
            tried,
            next,
        }
    };
    if let Some(finding) = incomparable(question, &measured) {
        return answer(
            &[finding],
            Certainty::Narrowed,
            0,
            vec!["Give the measurement of the same platform.".to_owned()],
        );
    }
    if expected.is_empty() {
        return alike(question, &measured);
    }
    if let Some(findings) = records::launched(question, &expected, &actual) {
        return answer(&findings, Certainty::Record, 0, Vec::new());
    }
    let outcome = match &question.expected.measured {
        Measured::Snp { .. } => launch::explain(question, &actual, &mut search),
        Measured::Tdx { .. } | Measured::Vtpm { .. } => boot::explain(question, &expected, &measured, &mut search),
        Measured::AzureSnp { .. } | Measured::AzureTdx { .. } => match paravisor(&expected) {
            Some(finding) => Outcome { findings: vec![finding], certainty: Certainty::Narrowed, next: Vec::new() },
            None => boot::explain(question, &expected, &measured, &mut search),
        },
    };
    let outcome = records::booted(question, &expected, &actual, outcome);
    answer(&outcome.findings, outcome.certainty, search.tried, outcome.next)
}

/// What one way of explaining gave.
struct Outcome {
    findings: Vec<Finding>,
    certainty: Certainty,
    next: Vec<String>,
}

/// The registers that both name and that differ.
fn differing(expected: &Registers, actual: &Registers) -> (Registers, Registers) {
    let differ = |name: &&String| actual.get(*name).is_some_and(|digest| expected.get(*name) != Some(digest));
    let names: Vec<&String> = expected.keys().filter(differ).collect();
    let of = |all: &Registers| names.iter().filter_map(|name| Some(((*name).clone(), *all.get(*name)?))).collect();
    (of(expected), of(actual))
}

fn incomparable(question: &Question<'_>, measured: &Registers) -> Option<Finding> {
    let expected = registers(&question.expected.measured);
    let common = expected.keys().any(|name| measured.contains_key(name));
    let names = |registers: &Registers| registers.keys().cloned().collect::<Vec<_>>().join(", ");
    (!common).then(|| {
        Finding::new(Component::Platform, "The two are of different platforms: they have no register in common.")
            .with(format!("Expected names {}; what was measured names {}.", names(&expected), names(measured)))
    })
}

/// No register that both name differs. The same they are only if what was measured names all that are expected, and the
/// agents are the same; registers that only the measurement names were left out of the Reference Values on purpose.
fn alike(question: &Question<'_>, measured: &Registers) -> Explanation {
    let expected = registers(&question.expected.measured);
    let absent: Vec<&str> =
        expected.keys().filter(|name| !measured.contains_key(*name)).map(|name| name.as_str()).collect();
    let compared = format!("{} of {} registers compared", expected.len() - absent.len(), expected.len());
    let missing = format!("Not compared, because the measurement does not name them: {}.", absent.join(", "));
    let mut answer = Explanation {
        same: false,
        component: Component::Unknown,
        answer: format!("Nothing that was compared differs, but not everything was there: {compared}."),
        detail: if absent.is_empty() { Vec::new() } else { vec![missing] },
        certainty: Certainty::Narrowed,
        expected: Registers::new(),
        actual: Registers::new(),
        tried: 0,
        next: Vec::new(),
    };
    if let Some((component, which)) = other_agent(question) {
        let certainty = Certainty::Record;
        let told = format!("The {which} that the two name differs, though no register that was compared does.");
        return Explanation { component, answer: told, certainty, ..answer };
    }
    if absent.is_empty() {
        let (component, told) = (Component::Nothing, format!("They are the same: {compared}."));
        return Explanation { same: true, component, answer: told, certainty: Certainty::Recomputed, ..answer };
    }
    answer.next.push("Give a measurement that names all registers that are expected.".to_owned());
    answer
}

/// The agent, or its configuration, where both name one and they differ.
fn other_agent(question: &Question<'_>) -> Option<(Component, &'static str)> {
    let expected = question.expected.agent.as_ref()?;
    let actual = question.actual.values.as_ref()?.agent.as_ref()?;
    match (expected.executable == actual.executable, expected.configuration == actual.configuration) {
        (false, _) => Some((Component::Agent, "agent")),
        (true, false) => Some((Component::Configuration, "agent's configuration")),
        (true, true) => None,
    }
}

/// On Azure the hardware measures the paravisor, which is Azure's and of which no file is at hand.
fn paravisor(expected: &Registers) -> Option<Finding> {
    let hardware = ["launch_digest", "mrtd"].into_iter().find(|name| expected.contains_key(*name))?;
    Some(
        Finding::new(Component::Firmware, "Azure's paravisor or its firmware is another version.")
            .with(format!("{hardware} is that of the paravisor, which Azure replaces from time to time."))
            .with("Compare with the value that Azure publishes before registering it."),
    )
}
