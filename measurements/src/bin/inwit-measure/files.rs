//! Reading input files, bounded, and saying what was wrong with them; writing what is asked for.
//!
//! Not trusted: size and contents. Never writes but where it is told to.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::progress::stage;

/// Longest input: the boot protocol gives the size of the largest, an initial ramdisk, in 32 bits.
const MAX_FILE_BYTES: u64 = u32::MAX as u64;

/// Why nothing was computed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("cannot read {path:?}: {cause}")]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{0:?} has more than 4294967295 bytes")]
    TooLarge(PathBuf),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
    #[error("cannot write {path:?}: {cause}")]
    Unwritable { path: PathBuf, cause: io::Error },
    #[error(
        "Reference Values name the agent, and what is measured here holds none: give --kernel and --initrd, or leave --agent out"
    )]
    AgentUnmeasured,
    #[error(
        "{path:?} is not inside the initrd as a plain file that the kernel unpacks: whoever boots this initrd would not be \
         held to it ({why})"
    )]
    NotInside { path: PathBuf, why: String },
    #[error(
        "a TDX Reference Values file needs one MRTD and RTMR0: give --acpi-tables, or the event log of a trusted boot with \
         --machine-log, and leave --pass both out"
    )]
    MissingRtmr0,
}

impl Failure {
    pub(crate) fn refused(error: impl Display) -> Self {
        Self::Refused(error.to_string())
    }

    /// What the program ends with, as its help says.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unwritable { .. } => 1,
            _ => 3,
        }
    }
}

/// The whole file.
pub(crate) fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, Failure> {
    let path = path.as_ref();
    stage(format!("reading {}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            // One piece of memory for a file that tells its length; the rest is read all the same, and bounded.
            let told = file.metadata().map_or(0, |metadata| metadata.len().min(MAX_FILE_BYTES));
            let _ = bytes.try_reserve_exact(usize::try_from(told).unwrap_or(0));
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)
        })
        .map_err(|cause| Failure::Unreadable { path: path.to_owned(), cause })?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(Failure::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

/// A path's last part, for a record.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A file with these contents, and its folder if there is none; an earlier file of the name is replaced.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    folder
        .and_then(|()| std::fs::write(path, contents))
        .map_err(|cause| Failure::Unwritable { path: path.to_owned(), cause })
}
