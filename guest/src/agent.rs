//! The agent measures itself: the digest of its own executable file and of its configuration. What makes the statement
//! worth something is that the code which makes it is part of what the hardware measured (CAM-8).

use crate::config::MeasuredConfig;
use inwit_protocol::binding::Agent;
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest executable that is read, in bytes.
const EXECUTABLE_LIMIT: usize = 67_108_864;

/// Reads a whole file of at most `limit` bytes.
pub fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let over = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(over).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// The agent's own digests.
pub fn measure(config: &MeasuredConfig) -> Result<Agent, Refusal> {
    let own = Path::new("/proc/self/exe");
    let executable = read_bounded(own, EXECUTABLE_LIMIT)
        .map_err(|error| Refusal::new(RefusalCode::Internal, format_args!("own executable: {error}")))?;
    Ok(Agent {
        name: "inwit-guest".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        executable: sha256(&executable),
        configuration: config.digest,
    })
}
