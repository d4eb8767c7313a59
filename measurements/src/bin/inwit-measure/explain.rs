//! `inwit-measure explain`: its options, and from the files they name to an answer in words.
//!
//! Not trusted: the words given and the files, names included. Never starts a guest, never says that one is trustworthy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use inwit_measurements::explain::{Actual, Candidate, Candidates, Explanation, Question, USUAL_BUDGET, explain};
use inwit_measurements::made_from::{EventDigest, Role};
use inwit_measurements::printable::escaped;
use inwit_measurements::reference::Stated;

use crate::arguments::OutputArguments;
use crate::files::{Failure, FileKind, file_name, read, read_apart};
use crate::progress::stage;
use crate::report::Printed;

/// Most files that are taken from folders, and most bytes of them together.
const MAX_FILES: usize = 1024;
const MAX_BYTES: u64 = 4 << 30;
/// How often the number of tries is told to whoever watches.
const TELL: Duration = Duration::from_millis(200);
/// How the line below `Expected` begins.
const ACTUAL: &str = "Actual   ";

#[derive(Args)]
pub(crate) struct ExplainArguments {
    /// What was expected: Reference Values in any form. Those that `inwit-measure` wrote with --agent, --config and --name
    /// say what they were made from, and give the best answers.
    /// A bare measurement of any form that ACTUAL may have is taken, too: then the files that options name stand in.
    expected: String,
    /// What was measured: other Reference Values, an SNP report, a TDX quote (version 4 or 5), a TD report, an Azure HCL
    /// report, an event log, lines like `pcr4 <hex>`, JSON of `inwit-authority authenticate --json`, or a digest (in a
    /// file, or itself). It is read, not authenticated.
    actual: String,
    /// Event log of the measured boot: CCEL, or binary_bios_measurements.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Firmware that may have been booted; may be given several times, as all options for files.
    #[arg(long, alias = "firmware", value_name = "FILE")]
    ovmf: Vec<PathBuf>,
    /// Kernel that may have been booted.
    #[arg(long, value_name = "FILE")]
    kernel: Vec<PathBuf>,
    /// Initial ramdisk that may have been booted. With the expected one changes inside it are tried, too.
    #[arg(long, value_name = "FILE")]
    initrd: Vec<PathBuf>,
    /// Unified kernel image that may have been booted.
    #[arg(long, value_name = "FILE")]
    uki: Vec<PathBuf>,
    /// IGVM file that the guest may have been loaded from.
    #[arg(long, value_name = "FILE")]
    igvm: Vec<PathBuf>,
    /// Command line that may have been given.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Agent that may be inside the initrd. Names no Reference Values here.
    #[arg(long = "agent-file", value_name = "FILE")]
    agent_file: Vec<PathBuf>,
    /// Configuration that may be inside the initrd.
    #[arg(long = "config-file", value_name = "FILE")]
    config_file: Vec<PathBuf>,
    /// Any other file, or a folder of files, that may stand anywhere: builds of firmware, kernels, files of the initrd.
    #[arg(long = "try", value_name = "PATH")]
    others: Vec<PathBuf>,
    /// Combinations to try at most.
    #[arg(long, value_name = "NUMBER", default_value_t = USUAL_BUDGET)]
    budget: u64,
}

/// Computes the answer.
pub(crate) fn run(arguments: &ExplainArguments, output: &OutputArguments) -> Result<Printed, Failure> {
    if output.format.is_some() {
        return Err(Failure::Usage("explain prints text, or JSON with --json".to_owned()));
    }
    let expected = expected(&arguments.expected)?;
    let bytes = actual_bytes(&arguments.actual)?;
    let actual = Actual::read(&bytes).map_err(|error| named(Path::new(&arguments.actual), error))?;
    let log = arguments.log.as_deref().map(|path| read(path, FileKind::Small)).transpose()?;
    if let Some(path) = &arguments.log {
        let log = log.unwrap_or_default();
        inwit_measurements::eventlog::EventLog::parse(log).map_err(|error| named(path, error))?;
    }
    let log = log.or(actual.is_log.then_some(bytes.as_slice()));
    let candidates = candidates(arguments)?;
    let question =
        Question { expected: &expected, actual: &actual, log, candidates: &candidates, budget: arguments.budget };
    stage("comparing");
    let mut told = Instant::now();
    let explanation = explain(&question, &mut |tried| {
        if told.elapsed() > TELL {
            told = Instant::now();
            stage(format!("searching: {tried} combinations tried"));
        }
    });
    let text = if output.json {
        serde_json::to_string_pretty(&explanation).map_err(Failure::refused)?
    } else {
        text(&explanation, actual.form)
    };
    Ok(if explanation.same { Printed::Text(text) } else { Printed::Differ(text) })
}

fn named(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Refused(format!("{}: {error}", path.display()))
}

/// Reference Values; or a bare measurement, of which nothing says what it was made from.
fn expected(given: &str) -> Result<Stated, Failure> {
    let bytes = actual_bytes(given)?;
    Stated::read(&bytes).or_else(|error| {
        let bare = Actual::read(&bytes).map_err(|_| named(Path::new(given), error))?;
        bare.stated().ok_or_else(|| {
            let needs = "as what was expected it needs one launch digest, PCRs, or MRTD with RTMR0 to RTMR2";
            named(Path::new(given), format!("{}: {needs}", bare.form))
        })
    })
}

/// A file's bytes; a digest may stand for itself.
fn actual_bytes(actual: &str) -> Result<Vec<u8>, Failure> {
    let digest = actual.to_ascii_lowercase().parse::<EventDigest>().is_ok();
    if digest { Ok(actual.as_bytes().to_vec()) } else { read_apart(Path::new(actual), FileKind::Small) }
}

fn candidates(arguments: &ExplainArguments) -> Result<Candidates, Failure> {
    let mut files = Vec::new();
    let roles = [
        (Role::Firmware, &arguments.ovmf),
        (Role::Kernel, &arguments.kernel),
        (Role::Initrd, &arguments.initrd),
        (Role::Uki, &arguments.uki),
        (Role::Igvm, &arguments.igvm),
        (Role::Agent, &arguments.agent_file),
        (Role::Configuration, &arguments.config_file),
    ];
    for (role, paths) in roles {
        for path in paths {
            files.push(Candidate::new(Some(role), &file_name(path), read_apart(path, FileKind::Candidate)?));
        }
    }
    let mut bytes = 0;
    for path in arguments.others.iter().map(|path| listed(path)).collect::<Result<Vec<_>, _>>()?.concat() {
        let contents = read_apart(&path, FileKind::Candidate)?;
        bytes += contents.len() as u64;
        if files.len() == MAX_FILES || bytes > MAX_BYTES {
            return Err(Failure::Usage(format!(
                "--try names more than {MAX_FILES} files or {MAX_BYTES} bytes: name fewer"
            )));
        }
        files.push(Candidate::new(None, &file_name(&path), contents));
    }
    Ok(Candidates { files, append: arguments.append.clone() })
}

/// A file itself; the plain files of a folder, by name, without those of folders inside it.
fn listed(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |cause| Failure::Unreadable { path: path.to_owned(), cause };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.truncate(MAX_FILES + 1);
    Ok(files)
}

/// A line; what stands below another keeps its distance.
fn plain(line: &str) -> String {
    let (distance, rest) = line.strip_prefix(ACTUAL).map_or(("", line), |rest| (ACTUAL, rest));
    format!("{distance}{}", escaped(rest, &[]))
}

/// The answer first, then why, then what to do.
fn text(explanation: &Explanation, form: &str) -> String {
    let Explanation { same, answer, detail, certainty, expected, actual, tried, next, .. } = explanation;
    let mut out = format!("{}\n", plain(answer));
    for line in detail {
        out += &format!("  {}\n", plain(line));
    }
    if !same {
        out += "\n";
        for (name, digest) in expected {
            out += &format!("{name}: expected {digest}\n");
            if let Some(digest) = actual.get(name) {
                out += &format!("{:width$}  measured {digest}\n", "", width = name.len());
            }
        }
        out += &format!("\nHow sure: {}.\n", certainty.words());
        if *tried > 0 {
            out += &format!("Tried: {tried} combinations.\n");
        }
    }
    out += &format!("Read as: {form}; its signature was not looked at.\n");
    for step in next {
        out += &format!("Next: {}\n", plain(step));
    }
    out
}
