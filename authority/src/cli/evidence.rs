//! Judging Evidence from files: for people who hold a report and want to know, and for scripts that must not guess. It
//! needs no state folder, opens no connection and reads no clock: everything that decides stands on the command line.
//! Nothing that comes of it can issue or release.

use super::endorsement_sources::{Handed, Place, Sources, Unfit, explained, gather};
use super::policy_file::OfflinePolicy;
use super::submission::{Expected, Submission};
use super::table::{Cell, Rows, json, row, text};
use super::{Done, claims_json, ear_json, evidence_file, policy_file};
use crate::audit::hex;
use crate::evidence::{self, Authentic, Claims};
use crate::fault::{Fault, printable};
use inwit_protocol::evidence::{Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use std::path::{Path, PathBuf};

/// How the outcome is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

/// Why no verdict was reached, or which.
pub(super) enum Stop {
    /// Words on the command line that do not go together.
    Misused(String),
    /// A file of the person's that cannot be used.
    Fault(Fault),
    /// The evidence is refused.
    Refused(Refusal),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// `authenticate`.
pub(super) fn authenticate(submission: &Submission, form: Form) -> Result<Done, Fault> {
    judged(submission, None, None, form)
}

/// `appraise`.
pub(super) fn appraise(submission: &Submission, policy: Option<&Path>, form: Form) -> Result<Done, Fault> {
    let demands = policy.map_or_else(policy_file::strict, policy_file::read)?;
    judged(submission, Some(&demands), policy, form)
}

fn judged(
    submission: &Submission,
    demands: Option<&OfflinePolicy>,
    policy: Option<&Path>,
    form: Form,
) -> Result<Done, Fault> {
    if let Some(words) = submission.incoherence() {
        return Ok(Done::Misused(words));
    }
    let platform = submission.platform;
    let (paths, digests) = (&submission.endorsements, &submission.root_sha256);
    let handed = Handed { paths, sent: submission.sent(), policy, digests, platform: Some(hardware(platform)) };
    let mut sources = Sources::default();
    let unfit = match gather(&handed, &mut sources) {
        Ok(()) => None,
        Err(Unfit::Refused(refusal)) => Some(refusal),
        Err(Unfit::Fault(fault)) => return Err(fault),
    };
    if form == Form::Text {
        for (path, reason) in &sources.set_aside {
            eprintln!("inwit-authority: not used: {}", printable(&format!("{}: {reason}", path.display())));
        }
    }
    let mut said = vec![row("platform", platform.text()), row("at_unix_seconds", Cell::Number(submission.at))];
    let outcome = match (unfit, evidence_file::read(submission)) {
        (Some(unfit), Ok(_) | Err(Stop::Refused(_))) => Err(Stop::Refused(unfit)),
        (_, read) => read.and_then(|evidence| verdict(submission, demands, evidence, &sources, &mut said)),
    };
    // Claims are told of once they are authentic, also where they are then refused.
    let authentic = said.iter().any(|(name, _)| name == "claims");
    said.insert(2, row("authentic", authentic));
    said.push(row("trusted_roots", roots(&sources, hardware(platform))));
    match outcome {
        Ok((verdict, sentence)) => {
            let text = format!("{}verdict: {verdict}: {sentence}", text(&said));
            said.insert(0, row("verdict", verdict));
            said.push(row("set_aside", set_aside(&sources)));
            Ok(Done::Said(text, json(&said)))
        }
        Err(Stop::Refused(refusal)) => {
            let refusal = if authentic { refusal } else { cleared(refusal, &sources, &handed, hardware(platform)) };
            let text = format!("{}verdict: refused: {refusal}", text(&said));
            let mut all = refused(&refusal);
            all.extend(said);
            all.push(row("set_aside", set_aside(&sources)));
            Ok(Done::Refused(text, json(&all)))
        }
        Err(Stop::Misused(words)) => Ok(Done::Misused(words)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// Climbs as far as it is asked to, and says what it sees on the way.
fn verdict(
    submission: &Submission,
    policy: Option<&OfflinePolicy>,
    mut evidence: Evidence,
    sources: &Sources,
    said: &mut Rows,
) -> Result<(&'static str, String), Stop> {
    if let Some((place, table)) = sources.table.as_ref().filter(|_| hardware(evidence.platform) == Platform::Snp) {
        match (evidence.endorsements.is_empty() || evidence.endorsements == *table, place) {
            (true, _) => evidence.endorsements.clone_from(table),
            (false, Place::Named) => {
                let words = "the Evidence holds a certificate table already: leave the other one out";
                return Err(Stop::Misused(words.to_owned()));
            }
            // Nobody meant a table that lies in a folder.
            (false, _) => {}
        }
    }
    let authentic = evidence::authenticate(&evidence, &sources.endorsements, submission.at)?;
    said.push(row("claims", claims_json::rows(authentic.claims())));
    let unbooted = without_tpm(authentic.claims());
    let signed = matches!(authentic.claims(), Claims::Vtpm(_) | Claims::Azure(_)) && unbooted.is_empty();
    said.push(row("report_data", authentic.data()));
    said.push(row("report_data_is", if signed { "extraData of the TPM quote" } else { "REPORT_DATA" }));
    let authentic = compared(authentic, submission.report_data.as_ref())?;
    said.push(row("report_data_compared", submission.report_data.is_some()));
    let unasked = if submission.report_data.is_some() { "" } else { "; for whom or when it was made was not asked" };
    match policy {
        None => {
            let of = if evidence.platform == Platform::Vtpm { "a TPM whose key" } else { "hardware whose root" };
            said.push(row("not_judged", words(&["policy", "measurement", "binding", "agent"])));
            Ok(("authentic", format!("made by {of} you handed in; no policy was applied{unbooted}{unasked}")))
        }
        Some(policy) => {
            let judged = authentic.judge(&policy.demands)?;
            let names = judged.reference_values();
            said.push(row("reference_values", words(names)));
            said.push(row("not_judged", words(&["binding", "agent"])));
            said.push(row("ear", ear_json::rows(&judged, &policy.digest, submission.at)));
            let names = printable(&names.join(", "));
            Ok(("appraised", format!("as policy demands, and as in reference values {names}{unasked}")))
        }
    }
}

/// What has to be said of an Azure VM whose TPM signed nothing.
fn without_tpm(claims: &Claims) -> &'static str {
    match claims {
        Claims::Azure(claims) if claims.tpm.is_none() => "; without a TPM's quote nothing says what booted",
        _ => "",
    }
}

/// The platform whose root stands behind one: behind Azure's virtual TPM it is the processor's.
fn hardware(platform: Platform) -> Platform {
    match platform {
        Platform::AzureSnp => Platform::Snp,
        Platform::AzureTdx => Platform::Tdx,
        itself => itself,
    }
}

fn words<T: AsRef<str>>(words: &[T]) -> Cell {
    words.iter().map(|word| Cell::from(word.as_ref())).collect()
}

fn compared(authentic: Authentic, expected: Option<&Expected>) -> Result<Authentic, Refusal> {
    match expected {
        Some(expected) => authentic.made_over(&expected.0),
        None => Ok(authentic),
    }
}

/// The roots and attestation keys that are trusted in this act, with their digests, so that people can compare them with the vendor's.
fn roots(sources: &Sources, platform: Platform) -> Cell {
    let ours = sources.roots.iter().filter(|root| root.platform == platform);
    let root = |root: &super::endorsement_sources::Root| {
        let file = root.file.display().to_string();
        Cell::from(vec![row("name", root.name.as_str()), row("sha256", hex(&root.digest)), row("file", file)])
    };
    ours.map(root).collect()
}

fn set_aside(sources: &Sources) -> Cell {
    let entry = |(path, reason): &(PathBuf, String)| {
        Cell::from(vec![row("file", path.display().to_string()), row("reason", reason.as_str())])
    };
    sources.set_aside.iter().map(entry).collect()
}

/// A refusal for want of an endorsement: for what is wrong with the one that was handed in, or with advice.
fn cleared(refusal: Refusal, sources: &Sources, handed: &Handed<'_>, platform: Platform) -> Refusal {
    if refusal.code != RefusalCode::EndorsementMissing {
        return refusal;
    }
    let explained = explained(&refusal, &sources.suspicions, platform);
    explained.unwrap_or_else(|| advised(refusal, sources.advice(platform, handed)))
}

/// A refusal for want of a root, with what can be done about it. Where another root is trusted and did not fit, nobody is
/// invited to trust one more.
fn advised(refusal: Refusal, advice: Option<&str>) -> Refusal {
    match advice.filter(|_| refusal.code == RefusalCode::EndorsementMissing) {
        Some(advice) => Refusal::new(refusal.code, format_args!("{}; {advice}", refusal.cause)),
        None => refusal,
    }
}

/// A refusal as programs read it.
fn refused(refusal: &Refusal) -> Rows {
    let code = refusal.code;
    vec![
        row("verdict", "refused"),
        row("code", code.text()),
        row("cause", refusal.cause.as_str()),
        row("next", code.next_step()),
        row("case", code.case()),
    ]
}
