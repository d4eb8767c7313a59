//! Files of the state folder: private, bounded, and written whole or not at all.

use crate::fault::Fault;
use inwit_protocol::secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};
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

/// Reads a secret of at most `limit` bytes. Its last buffer is wiped; one that it outgrew while reading is not.
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
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| Fault::of(path.display(), "no randomness"))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.new", u64::from_be_bytes(random)));
    // New and under a name that nobody can have prepared, so that no link is followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&name, path).map_err(failed)?;
    // The new name is durable when its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
