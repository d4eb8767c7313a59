//! Every way in which an image is refused, each with its cause and the next step.
//!
//! Not trusted: the paths and words quoted here come from a manifest; they are printed escaped.
//! Never holds file contents.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::newc::ReadError;

/// Why no image was made.
#[derive(Debug, Error)]
pub enum ImageError {
    /// One line of a manifest text cannot be read as an inode. Lines count from 1.
    #[error("manifest line {line}: {fault}")]
    Line {
        /// Line in the manifest text, counted from 1.
        line: usize,
        /// What is wrong on it.
        fault: EntryFault,
    },
    /// An inode that was put into the manifest in memory breaks a rule.
    #[error("inode {path:?}: {fault}")]
    Entry {
        /// Path of the inode as given.
        path: String,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// Two lines name the same path; the kernel would silently keep the later one.
    #[error("{path:?} is listed twice: keep one line")]
    Duplicate {
        /// The repeated path.
        path: String,
    },
    /// The folder of an inode is not in the manifest, so the kernel could not create the inode.
    #[error("{path:?} needs its folder: add the line `dir {parent} 0755`")]
    MissingParent {
        /// The inode without a folder.
        path: String,
        /// The folder that must be listed.
        parent: String,
    },
    /// The parent of an inode is listed, but is a file, link or device.
    #[error("{path:?} lies under {parent:?}, which is listed but is not a `dir`")]
    ParentNotDirectory {
        /// The inode.
        path: String,
        /// Its listed parent.
        parent: String,
    },
    /// A source file cannot be opened or read.
    #[error("source {source_path:?} of {path:?} cannot be read: {cause}")]
    SourceUnreadable {
        /// Path inside the image.
        path: String,
        /// File on this machine.
        source_path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A source is a folder, a symbolic link, a device or a pipe.
    #[error("source {source_path:?} of {path:?} is not a regular file: name the file itself")]
    SourceNotRegular {
        /// Path inside the image.
        path: String,
        /// File on this machine.
        source_path: PathBuf,
    },
    /// A source grew or shrank between its size being taken and its bytes being read.
    #[error("source {source_path:?} changed while it was read: build again when nothing writes to it")]
    SourceChanged {
        /// File on this machine.
        source_path: PathBuf,
    },
    /// newc stores a file size in 32 bits.
    #[error("{path:?} has {size} bytes: a newc archive holds files of at most 4294967295 bytes")]
    FileTooLarge {
        /// Path inside the image.
        path: String,
        /// Size in bytes.
        size: u64,
    },
    /// The archive would not fit the boot protocol's 32-bit initial ramdisk size.
    #[error("the archive would have {size} bytes, more than {limit}: move large content to a disk")]
    ArchiveTooLarge {
        /// Size in bytes that the archive would reach.
        size: u64,
        /// [`crate::MAX_ARCHIVE_BYTES`].
        limit: u64,
    },
    /// The manifest text is longer than [`crate::MAX_MANIFEST_BYTES`].
    #[error("the manifest has {size} bytes, more than {limit}")]
    ManifestTooLarge {
        /// Size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The manifest names more inodes than [`crate::MAX_ENTRIES`].
    #[error("the manifest names more than {limit} inodes")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// An archive that was to be concatenated is not a well-formed newc archive.
    #[error("archive number {position} cannot be appended: {cause}")]
    Concatenate {
        /// Position in the list, counted from 1.
        position: usize,
        /// What the strict reader found.
        cause: ReadError,
    },
    /// The finished image could not be put in its place.
    #[error("cannot write {path:?}: {cause}")]
    Write {
        /// The output path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// What is wrong with one inode of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryFault {
    /// The first word is none of the four kinds.
    #[error("unknown kind {0:?}: expected `dir`, `file`, `link` or `node`")]
    UnknownKind(String),
    /// A line has too few or too many words.
    #[error("expected `{0}`, fields separated by spaces")]
    Fields(&'static str),
    /// A mode is not octal or sets bits above 07777.
    #[error("mode {0:?} is not an octal number from 0 to 7777, as in 0755")]
    Mode(String),
    /// The path does not start at the root of the image.
    #[error("path {0:?} is not absolute: begin it with `/`")]
    NotAbsolute(String),
    /// The path has an empty, `.` or `..` component, or is the root itself.
    #[error("path {0:?} is not canonical: no empty, `.` or `..` component, no trailing `/`, not `/` itself")]
    NotCanonical(String),
    /// A component is longer than 255 bytes, or the path longer than 4095 bytes after its first slash (Linux NAME_MAX and PATH_MAX).
    #[error("path of {0} bytes is overlong: at most 255 bytes in a component and 4095 after the first `/`")]
    Overlong(usize),
    /// The path or link target holds a NUL byte, which would end it early in the guest.
    #[error("a path or link target holds a NUL byte")]
    Nul,
    /// `TRAILER!!!` ends a cpio archive: everything after it would be lost.
    #[error("the name `TRAILER!!!` is reserved: it marks the end of the archive")]
    Reserved,
    /// A link target is empty or longer than 4095 bytes.
    #[error("link target of {0} bytes: expected 1 to 4095")]
    Target(usize),
    /// A device is neither character (`c`) nor block (`b`).
    #[error("device kind {0:?}: expected `c` or `b`")]
    DeviceKind(String),
    /// A device number is not a number, or exceeds 12 (major) or 20 (minor) bits.
    #[error("device number {0:?}: expected a major up to 4095 and a minor up to 1048575")]
    DeviceNumber(String),
}
