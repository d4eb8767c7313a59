//! Judging Evidence from files: for people who hold a report and want to know, and for scripts that must not guess. It
//! needs no state folder, opens no connection and reads no clock: everything that decides stands on the command line.
//! Nothing that comes of it can issue or release.

use super::endorsement_sources::{Handed, Sources, gather};
use super::table::{Cell, Rows, json, row, text};
use super::{Done, claims_json, evidence_file, policy_file};
use crate::audit::hex;
use crate::endorsement_files::parse_pin;
use crate::evidence::{self, AppraisalPolicy, Authentic};
use crate::fault::{Fault, printable};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use inwit_protocol::evidence::{Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The end of the year 9999, where the dates of certificates end.
const LAST_SECOND: u64 = 253_402_300_799;
/// Bytes of REPORT_DATA, and the most that any platform holds.
const REPORT_DATA: usize = 64;

pub(super) const AUTHENTICATE_HELP: &str = "\
Roots are values: a root certificate (ARK-Milan, Intel SGX Root CA, …) is trusted in this act only because you hand it in
with --endorsements, and so are attestation keys. None is built in, none is fetched. Get them from the vendor, compare
their digests (they are printed), and never take them from where the evidence came from. Without revocation lists for an
ARK, revocation by AMD is not checked.

A root counts when you name its file, or a folder that it lies in or below. When a folder that you name also holds the
evidence or its event log, itself or deeper, no root in or below it counts, for whoever made the evidence may have put it
there; name the root file, or its own folder. A root inside of collateral does not count either. With --root-sha256 your
word is the digest: such roots count wherever they are found, the one inside of collateral too, and no others do.
Intermediates, keys of chips, revocation lists and collateral count from everywhere, for a root has signed them.

What a file holds is told by its content, not its name. A file that is not understood is an error, but for what lies in a
folder and is clearly no endorsement by its name either (README, *.txt, report.bin, quote.bin, …): it is passed over, and
said so.

--at is demanded because the outcome depends on it: certificates, revocation lists and collateral begin and end. A verdict
by the machine's clock could not be repeated tomorrow, and whoever sets the clock would set the verdict.

Without --report-data the verdict says that such evidence exists, not that it was made for you or now: anybody may have
copied it.

  inwit-authority authenticate --platform snp --evidence report.bin --endorsements amd/ --endorsements vcek.der \\
      --at 2026-06-01T00:00:00Z --report-data 00…
  inwit-authority authenticate --platform tdx --evidence quote.bin --endorsements intel-root.der \\
      --endorsements collateral.json --at $(date +%s) --json
  inwit-authority authenticate --platform tdx --evidence received/quote.bin --endorsements received/ \\
      --root-sha256 DIGEST-OF-INTEL-SGX-ROOT-CA --at 2026-06-01T00:00:00Z

Exit codes: 0 authentic, 1 a file of yours cannot be read or understood, 2 usage, 3 refused.";

pub(super) const APPRAISE_HELP: &str = "\
The policy file is TOML: [policy] with every key that `inwit-authority init` writes into authority.toml, and at least one
set of Reference Values, as inwit-measure writes them or without an agent:

  [[reference_values]]
  name = \"release 1\"
  measured = { platform = \"snp\", launch_digest = \"…96 hex digits…\" }

The measured part of authenticate's JSON has this shape; what makes it trustworthy is that you computed it yourself.
Debugging and migration are refused whatever the policy says. Binding and agent are not judged here: evidence from
elsewhere has none. So this verdict issues no credential and releases no secret; `serve` demands both.

Endorsements, roots, --at and --report-data are as in `authenticate --help`. Exit codes: 0 appraised, 1 a file of yours cannot be
read or understood, 2 usage, 3 refused.";

/// Evidence and what it is judged by.
#[derive(Args)]
pub(super) struct Submission {
    /// Platform that the evidence is from.
    #[arg(long, value_parser = platforms())]
    platform: Platform,
    /// The raw SNP report or TDX quote, or inwit Evidence (CBOR); for vtpm inwit Evidence or an inwit TPM quote (CBOR).
    #[arg(long, value_name = "FILE")]
    evidence: PathBuf,
    /// File or folder of certificates, revocation lists (DER, PEM), certificate table, TDX collateral (QuoteCollateralV3
    /// JSON), or attestation keys (lines of 64 hex digits); may be given several times.
    #[arg(long, value_name = "PATH")]
    endorsements: Vec<PathBuf>,
    /// SHA-256 of a root certificate in DER, or of an attestation key: only such roots count, wherever they are found; may
    /// be given several times.
    #[arg(long, value_name = "HEX", value_parser = digest)]
    root_sha256: Vec<Digest>,
    /// TCG event log beside the evidence (CCEL, TPM), which has to explain its registers. Not for snp.
    #[arg(long, value_name = "FILE")]
    event_log: Option<PathBuf>,
    /// Moment to judge at: RFC 3339 (2026-06-01T00:00:00Z) or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: u64,
    /// Data that the evidence must have been made over, in hex: the 64 bytes of REPORT_DATA, or a TPM quote's extraData.
    #[arg(long, value_name = "HEX", value_parser = Expected::parse)]
    report_data: Option<Expected>,
}

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

/// Data that evidence is expected to be made over.
#[derive(Clone)]
struct Expected(Vec<u8>);

impl Expected {
    fn parse(text: &str) -> Result<Self, String> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > REPORT_DATA || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("up to {REPORT_DATA} bytes are written as pairs of hex digits, without spaces"));
        }
        let byte = |pair: &[u8; 2]| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
        pairs.iter().map(byte).collect::<Option<_>>().map(Self).ok_or_else(|| "not hexadecimal".to_owned())
    }
}

/// SHA-256.
type Digest = [u8; 32];

fn digest(text: &str) -> Result<Digest, String> {
    parse_pin(text).ok_or_else(|| "a SHA-256 is written as 64 hex digits, without spaces".to_owned())
}

/// The platforms by their stable names.
fn platforms() -> impl TypedValueParser<Value = Platform> {
    let names = PossibleValuesParser::new([Platform::Snp, Platform::Tdx, Platform::Vtpm].map(Platform::text));
    names.try_map(|name| Platform::from_text(&name).ok_or("no platform"))
}

/// Seconds since 1970 of a moment.
fn moment(text: &str) -> Result<u64, String> {
    let seconds = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|time| u64::try_from(time.unix_timestamp()).ok())
    };
    seconds
        .filter(|seconds| *seconds <= LAST_SECOND)
        .ok_or_else(|| "a moment since 1970 is RFC 3339 with a time zone (2026-06-01T00:00:00Z), or seconds".to_owned())
}

/// `authenticate`.
pub(super) fn authenticate(submission: &Submission, form: Form) -> Result<Done, Fault> {
    judged(submission, None, form)
}

/// `appraise`.
pub(super) fn appraise(submission: &Submission, policy: &Path, form: Form) -> Result<Done, Fault> {
    judged(submission, Some(policy), form)
}

fn judged(submission: &Submission, policy: Option<&Path>, form: Form) -> Result<Done, Fault> {
    if let Some(words) = submission.incoherence() {
        return Ok(Done::Misused(words));
    }
    let (platform, log) = (submission.platform, submission.event_log.as_deref());
    let handed = Handed {
        paths: &submission.endorsements,
        sent: [Some(submission.evidence.as_path()), log].into_iter().flatten().collect(),
        policy,
        digests: &submission.root_sha256,
    };
    let policy = policy.map(policy_file::read).transpose()?;
    let sources = gather(&handed)?;
    if form == Form::Text {
        for (path, reason) in &sources.set_aside {
            eprintln!("inwit-authority: not used: {}", printable(&format!("{}: {reason}", path.display())));
        }
    }
    let mut said = vec![row("platform", platform.text()), row("at_unix_seconds", Cell::Number(submission.at))];
    let outcome = evidence_file::read(&submission.evidence, platform, log)
        .and_then(|evidence| verdict(submission, policy.as_ref(), evidence, &sources, &mut said));
    // Claims are told of once they are authentic, also where they are then refused.
    let authentic = said.iter().any(|(name, _)| name == "claims");
    said.insert(2, row("authentic", authentic));
    said.push(row("trusted_roots", roots(&sources, platform)));
    match outcome {
        Ok((verdict, sentence)) => {
            let text = format!("{}verdict: {verdict}: {sentence}", text(&said));
            said.insert(0, row("verdict", verdict));
            said.push(row("set_aside", set_aside(&sources)));
            Ok(Done::Said(text, json(&said)))
        }
        Err(Stop::Refused(refusal)) => {
            let refusal = advised(refusal, sources.advice(platform, &handed));
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
    policy: Option<&AppraisalPolicy>,
    mut evidence: Evidence,
    sources: &Sources,
    said: &mut Rows,
) -> Result<(&'static str, String), Stop> {
    if let Some(table) = sources.table.as_ref().filter(|_| evidence.platform == Platform::Snp) {
        if !evidence.endorsements.is_empty() && evidence.endorsements != *table {
            let words = "the Evidence holds a certificate table already: leave the other one out";
            return Err(Stop::Misused(words.to_owned()));
        }
        evidence.endorsements.clone_from(table);
    }
    let authentic = evidence::authenticate(&evidence, &sources.endorsements, submission.at)?;
    said.push(row("claims", claims_json::rows(authentic.claims())));
    said.push(row("report_data", authentic.data()));
    let authentic = compared(authentic, submission.report_data.as_ref())?;
    said.push(row("report_data_compared", submission.report_data.is_some()));
    let unasked = if submission.report_data.is_some() { "" } else { "; for whom or when it was made was not asked" };
    match policy {
        None => {
            let of = if evidence.platform == Platform::Vtpm { "a TPM whose key" } else { "hardware whose root" };
            said.push(row("not_judged", words(&["policy", "measurement", "binding", "agent"])));
            Ok(("authentic", format!("made by {of} you handed in; no policy was applied{unasked}")))
        }
        Some(policy) => {
            let judged = authentic.judge(policy)?;
            let names = judged.reference_values();
            said.push(row("reference_values", words(names)));
            said.push(row("not_judged", words(&["binding", "agent"])));
            let names = printable(&names.join(", "));
            Ok(("appraised", format!("as policy demands, and as in reference values {names}{unasked}")))
        }
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

impl Submission {
    /// Words that a platform does not have are not passed over: somebody would believe that they counted.
    fn incoherence(&self) -> Option<String> {
        let platform = self.platform;
        if platform == Platform::Snp && self.event_log.is_some() {
            return Some("--event-log: SNP has no event log".to_owned());
        }
        let other_length = self.report_data.as_ref().is_some_and(|expected| expected.0.len() != REPORT_DATA);
        (platform != Platform::Vtpm && other_length)
            .then(|| format!("--report-data: {platform} holds exactly {REPORT_DATA} bytes, two hex digits each"))
    }
}
