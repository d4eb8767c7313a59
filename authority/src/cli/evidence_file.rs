//! Evidence from files: the bytes that hardware, kernel or paravisor handed out, or Evidence of ours as it travels. Every
//! byte is the other side's word; nothing here judges it. A file that cannot be opened is our fault, bytes that cannot be
//! Evidence are a refusal.

use super::azure_file;
use super::evidence::Stop;
use super::submission::Submission;
use crate::fault::Fault;
use crate::files;
use inwit_measurements::eventlog::MAX_LOG_BYTES;
use inwit_protocol::evidence::{AgentRegister, BLOB_LIMIT, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest evidence file, in bytes: encoded Evidence with each of its parts at its limit.
const FILE_LIMIT: u64 = 1 << 18;
/// How the label of our Evidence begins, whatever its version, after the two bytes of array and text.
const LABEL: &[u8] = b"inwit-evidence-";

/// Reads the Evidence that the command line names, with what lies beside it.
pub(super) fn read(submission: &Submission) -> Result<Evidence, Stop> {
    let platform = submission.platform;
    let bytes = bounded(&submission.evidence)?;
    let log = submission.event_log.as_deref().map(|path| files::read(path, MAX_LOG_BYTES)).transpose()?;
    let [tpm, td] = [&submission.tpm_quote, &submission.td_quote].map(|path| path.as_deref().map(bounded).transpose());
    let (tpm, td) = (tpm?, td?);
    if labelled(&bytes, LABEL) {
        if tpm.is_some() || td.is_some() {
            let words = "the Evidence holds its quotes itself: leave --tpm-quote and --td-quote out";
            return Err(Stop::Misused(words.to_owned()));
        }
        return travelled(&bytes, platform, log);
    }
    let (quote, endorsements) = match platform {
        Platform::AzureSnp | Platform::AzureTdx => {
            let arrived = azure_file::read(&bytes, platform, tpm.as_deref(), td)?;
            azure_file::coherent(&arrived, submission)?;
            (arrived.quote.encode(), arrived.certificates)
        }
        Platform::Snp | Platform::Tdx | Platform::Vtpm => (bytes, Vec::new()),
    };
    if quote.len() > BLOB_LIMIT {
        let cause = format!("a quote has {BLOB_LIMIT} bytes at most, this one has {}", quote.len());
        return Err(Refusal::new(RefusalCode::Oversized, cause).into());
    }
    let event_log = log.unwrap_or_default();
    Ok(Evidence { platform, quote, endorsements, event_log, agent_register: AgentRegister::Absent })
}

/// Whether bytes are an array of ours with this label.
pub(super) fn labelled(bytes: &[u8], label: &[u8]) -> bool {
    bytes.get(2..).is_some_and(|rest| rest.starts_with(label))
}

/// Evidence of ours, which says itself where it is from.
fn travelled(bytes: &[u8], platform: Platform, log: Option<Vec<u8>>) -> Result<Evidence, Stop> {
    let evidence = Evidence::parse(bytes).map_err(|error| Refusal::new(RefusalCode::Malformed, error))?;
    if evidence.platform != platform {
        let cause = format!("the Evidence says it is from {}, the command line says {platform}", evidence.platform);
        return Err(Refusal::new(RefusalCode::Unsupported, cause).into());
    }
    match log {
        None => Ok(evidence),
        Some(event_log) if evidence.event_log.is_empty() => Ok(Evidence { event_log, ..evidence }),
        Some(_) => Err(Stop::Misused("the Evidence holds an event log already: leave --event-log out".to_owned())),
    }
}

fn bounded(path: &Path) -> Result<Vec<u8>, Stop> {
    let fault = |error: std::io::Error| Fault::of(path.display(), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fault)?;
    let read = file.take(FILE_LIMIT.saturating_add(1)).read_to_end(&mut bytes).map_err(fault)?;
    if u64::try_from(read).is_ok_and(|read| read <= FILE_LIMIT) {
        return Ok(bytes);
    }
    Err(Refusal::new(RefusalCode::Oversized, format_args!("evidence has {FILE_LIMIT} bytes at most")).into())
}
