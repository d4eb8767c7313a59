//! Evidence from a file: the bytes that hardware or kernel handed out, or Evidence of ours as it travels. Every byte is
//! the other side's word; nothing here judges it. A file that cannot be opened is our fault, bytes that cannot be
//! Evidence are a refusal.

use super::evidence::Stop;
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

/// Reads Evidence of `platform`, with an event log from beside it.
pub(super) fn read(path: &Path, platform: Platform, event_log: Option<&Path>) -> Result<Evidence, Stop> {
    let bytes = bounded(path)?;
    let log = event_log.map(|path| files::read(path, MAX_LOG_BYTES)).transpose()?;
    if bytes.get(2..).is_some_and(|rest| rest.starts_with(LABEL)) {
        return travelled(&bytes, platform, log);
    }
    if bytes.len() > BLOB_LIMIT {
        let cause = format!("a quote has {BLOB_LIMIT} bytes at most, this file has {}", bytes.len());
        return Err(Refusal::new(RefusalCode::Oversized, cause).into());
    }
    let (endorsements, event_log) = (Vec::new(), log.unwrap_or_default());
    Ok(Evidence { platform, quote: bytes, endorsements, event_log, agent_register: AgentRegister::Absent })
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
