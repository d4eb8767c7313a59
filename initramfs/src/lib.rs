//! Reproducible images: a [`Manifest`] in, a byte-identical newc [`Archive`] out; and a [`UnifiedKernel`] of that archive,
//! a kernel and a command line.
//!
//! The archive is what a guest's launch is measured over, so its bytes depend on the manifest and on the contents of
//! the named files, and on nothing else: no clock, no owner, no umask, no order of creation, no folder it was built in.
//! It is never compressed: a compressed image would make every Reference Value depend on one compressor's version.
//!
//! Not trusted: manifests (bounded, refused line by line) and archives that are read back (strict reader).
//! Never done here: following symbolic links at a source, running programs, reading an inode that no line names.
//!
//! This crate knows no other crate of the workspace.

mod archive;
mod error;
mod manifest;
mod newc;
mod uki;
mod write;

pub use archive::{Archive, MAX_ARCHIVE_BYTES, concatenate};
pub use error::{EntryFault, ImageError};
pub use manifest::{Device, Inode, MAX_ENTRIES, MAX_MANIFEST_BYTES, Manifest, Source};
pub use newc::{ArchiveEntry, ReadError};
pub use uki::{UkiError, UnifiedKernel, UnifiedParts};
pub use write::write_atomically;
