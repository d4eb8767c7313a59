//! Putting a finished image in its place in one step.
//!
//! Not trusted: the disk may be full, the folder may hold leftovers. Never leaves half an image under the final name:
//! a truncated archive would be measured and then fail far from its cause.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::ImageError;

/// Writes `bytes` beside `path`, flushes them to disk and renames them to `path`, replacing what was there.
///
/// # Errors
/// [`ImageError::Write`]; then `path` is as it was before.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let fail = |cause| ImageError::Write { path: path.to_owned(), cause };
    let Some(name) = path.file_name() else {
        return Err(fail(std::io::Error::other("the output path names no file")));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|cause| {
        // A leftover of another process with our number is not ours to remove.
        if cause.kind() != std::io::ErrorKind::AlreadyExists {
            let _ = fs::remove_file(&temporary);
        }
        fail(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_old_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.cpio");
        fs::write(&path, "old and longer than the new one").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_keeps_what_was_there_and_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("occupied");
        fs::create_dir(&path).unwrap();
        let error = write_atomically(&path, b"new").unwrap_err();
        assert!(error.to_string().contains("occupied"), "{error}");
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
