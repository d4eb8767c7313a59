//! Files of the state folder: private, bounded, and written whole or not at all.

use crate::fault::Fault;
use inwit_protocol::secret::Secret;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let over = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let file = File::open(path).map_err(|error| Fault::of(path.display(), error))?;
    file.take(over).read_to_end(&mut bytes).map_err(|error| Fault::of(path.display(), error))?;
    if bytes.len() > limit {
        return Err(Fault::of(path.display(), format_args!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads text of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: usize) -> Result<String, Fault> {
    String::from_utf8(read(path, limit)?).map_err(|_| Fault::of(path.display(), "not UTF-8"))
}

/// Reads a secret of at most `limit` bytes; the bytes are never in a buffer that is not wiped.
pub(crate) fn read_secret(path: &Path, limit: usize) -> Result<Secret, Fault> {
    read(path, limit).map(Secret::new)
}

/// Creates a file that must not exist yet, readable by its owner alone, and has it on the disk before it returns.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::of(path.display(), error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// Replaces a file in one step: a reader sees the old bytes or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::of(path.display(), error);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&name).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&name, path).map_err(failed)
}
