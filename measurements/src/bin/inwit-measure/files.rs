//! Reading input files, each once and bounded, and saying what was wrong with them; writing what is asked for.
//!
//! Not trusted: size and contents, and that a path means the same bytes twice: a pipe is empty the second time, and a file
//! can be swapped. What is checked, recorded and hashed must be the same bytes. Never writes but where it is told to.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use inwit_measurements::ovmf::MAX_FIRMWARE_BYTES;
use inwit_measurements::snp::Vmm;
use inwit_measurements::snp::id_block::MAX_KEY_FILE;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::progress::stage;

/// Longest input: the boot protocol gives the size of the largest, an initial ramdisk, in 32 bits.
const MAX_FILE_BYTES: usize = u32::MAX as usize;
/// Most bytes that are kept in one run, of all files together.
const MAX_KEPT_BYTES: usize = 3 * MAX_FILE_BYTES;
/// Longest kernel: far above any built, far below what a device file would go on giving.
const MAX_KERNEL_BYTES: usize = 1 << 30;
/// Longest file of those that people write or copy from a machine: configurations, keys, logs, tables, Reference Values.
const MAX_SMALL_BYTES: usize = 64 << 20;

/// Why nothing was computed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("cannot read {path:?}: {cause}")]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{path:?} has more than {most} bytes: it is another kind of file")]
    TooLarge { path: PathBuf, most: usize },
    #[error("the files have more than {MAX_KEPT_BYTES} bytes together")]
    TooMany,
    #[error("{0:?} is empty: leave its option out if that is meant, and give a pipe's path once")]
    Empty(PathBuf),
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
        "{0} starts no kernel of its customers' choice: Reference Values with an agent need --vmm-type qemu, or leave --agent out"
    )]
    NoKernel(Vmm),
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
    #[error(
        "Reference Values of PCR 11 alone, or of what an event log says, would hold for machines that nobody looked at: give \
         --ovmf with --kernel or --uki"
    )]
    MissingPcrs,
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

/// What a file is for: how long it may be, and whether it may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Firmware,
    Kernel,
    Initrd,
    /// A unified kernel image: a kernel with its initrd. Also an IGVM file.
    Image,
    Agent,
    Configuration,
    /// What may be any of them, and is only tried.
    Candidate,
    /// Any that is neither firmware nor booted nor an agent.
    Small,
}

impl FileKind {
    const fn most(self) -> usize {
        match self {
            Self::Firmware => MAX_FIRMWARE_BYTES,
            Self::Kernel | Self::Agent => MAX_KERNEL_BYTES,
            Self::Initrd | Self::Image | Self::Candidate => MAX_FILE_BYTES,
            Self::Configuration | Self::Small => MAX_SMALL_BYTES,
        }
    }

    /// No bytes at all would be measured as if the option were not there, or name nothing.
    const fn must_hold_bytes(self) -> bool {
        matches!(self, Self::Kernel | Self::Initrd | Self::Image | Self::Agent | Self::Configuration)
    }

    fn allows(self, path: &Path, length: usize) -> Result<(), Failure> {
        match length {
            length if length > self.most() => Err(Failure::TooLarge { path: path.to_owned(), most: self.most() }),
            0 if self.must_hold_bytes() => Err(Failure::Empty(path.to_owned())),
            _ => Ok(()),
        }
    }
}

/// What was read so far. The bytes stay until the program ends, which is soon after.
#[derive(Default)]
struct Kept {
    files: HashMap<PathBuf, &'static [u8]>,
    /// First bytes of files that are not read whole.
    starts: HashMap<(PathBuf, usize), &'static [u8]>,
    bytes: usize,
}

static KEPT: OnceLock<Mutex<Kept>> = OnceLock::new();

/// The whole file, read the first time it is asked for: everything in one run is given the same bytes for a path.
pub(crate) fn read(path: impl AsRef<Path>, kind: FileKind) -> Result<&'static [u8], Failure> {
    let path = path.as_ref();
    let mut kept = KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = kept.files.get(path) {
        kind.allows(path, bytes.len())?;
        return Ok(bytes);
    }
    let bytes = read_apart(path, kind)?;
    kept.bytes = kept.bytes.checked_add(bytes.len()).filter(|all| *all <= MAX_KEPT_BYTES).ok_or(Failure::TooMany)?;
    let bytes: &'static [u8] = bytes.leak();
    kept.files.insert(path.to_owned(), bytes);
    Ok(bytes)
}

/// The first bytes of a file, at most so many, such as those of a disk; read once, as [`read`] does.
pub(crate) fn read_start(path: &Path, most: usize) -> Result<&'static [u8], Failure> {
    let mut kept = KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let key = (path.to_owned(), most);
    if let Some(bytes) = kept.starts.get(&key) {
        return Ok(bytes);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most as u64).read_to_end(&mut bytes))
        .map_err(|cause| Failure::Unreadable { path: path.to_owned(), cause })?;
    let bytes: &'static [u8] = bytes.leak();
    kept.starts.insert(key, bytes);
    Ok(bytes)
}

/// The whole file, read again each time: for what is only tried, never checked, recorded or hashed for a value.
pub(crate) fn read_apart(path: &Path, kind: FileKind) -> Result<Vec<u8>, Failure> {
    stage(format!("reading {}", path.display()));
    let most = kind.most() as u64;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            // One piece of memory for a file that tells its length; the rest is read all the same, and bounded.
            let told = file.metadata().map_or(0, |metadata| metadata.len().min(most));
            let _ = bytes.try_reserve_exact(usize::try_from(told).unwrap_or(0));
            file.take(most + 1).read_to_end(&mut bytes)
        })
        .map_err(|cause| Failure::Unreadable { path: path.to_owned(), cause })?;
    kind.allows(path, bytes.len())?;
    Ok(bytes)
}

/// A private key's file, wiped when it is let go: it is read apart from all others, which stay until the end.
pub(crate) fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Room for all of it at once: memory that is grown leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_KEY_FILE));
    File::open(path)
        .and_then(|file| file.take(MAX_KEY_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|cause| Failure::Unreadable { path: path.to_owned(), cause })?;
    if bytes.len() > MAX_KEY_FILE {
        return Err(Failure::TooLarge { path: path.to_owned(), most: MAX_KEY_FILE });
    }
    Ok(bytes)
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
