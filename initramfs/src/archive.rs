//! From a manifest to the bytes of an archive.
//!
//! Canonical form: records sorted by path (byte order), inode number = position from 1, owner, group and time 0, one
//! link (folders two), names without a leading slash, a trailer, zeros to a multiple of 512.
//!
//! Not trusted: source files may change or be something else than files while they are read. Never done here:
//! compression, because then each measurement would depend on a compressor's version; writing to disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use ring::digest::{SHA256, SHA384, digest};

use crate::error::ImageError;
use crate::manifest::{self, Device, Inode, MAX_ENTRIES, Manifest, Source};
use crate::newc::{self, ArchiveEntry, ReadError};

/// Largest archive in bytes: the x86 boot protocol gives the size of the initial ramdisk in 32 bits.
pub const MAX_ARCHIVE_BYTES: u64 = u32::MAX as u64;

/// Archives end on a multiple of this, as other cpio writers do; it also keeps whatever is appended aligned.
const BLOCK: usize = 512;

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;
const TYPE_CHARACTER: u32 = 0o020_000;
const TYPE_BLOCK: u32 = 0o060_000;

/// A finished, uncompressed newc archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// The archive as the kernel gets it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The archive, given away.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// SHA-256 over all bytes: what SNP kernel hashes and PCR 9 of the SHA-256 bank are made from.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, &self.bytes).as_ref());
        out
    }

    /// SHA-384 over all bytes: the event digest that TDX RTMR2 is extended with.
    #[must_use]
    pub fn sha384(&self) -> [u8; 48] {
        let mut out = [0; 48];
        out.copy_from_slice(digest(&SHA384, &self.bytes).as_ref());
        out
    }

    /// Reads the records of an archive, or of several concatenated ones, in stored order and without trailers.
    ///
    /// Accepts any uncompressed newc archive, not only canonical ones; a kernel with the same bytes sees these records.
    ///
    /// # Errors
    /// [`ReadError`] with the offset of the first byte that does not fit.
    pub fn entries(bytes: &[u8]) -> Result<Vec<ArchiveEntry<'_>>, ReadError> {
        newc::read(bytes)
    }
}

/// Joins archives so that the kernel unpacks them one after the other into the same root; a later file replaces an
/// earlier one of the same name. Each begins at a multiple of four, as the kernel demands.
///
/// # Errors
/// [`ImageError::Concatenate`] when one is not a well-formed newc archive (it could swallow its successor),
/// [`ImageError::ArchiveTooLarge`].
pub fn concatenate(archives: &[&[u8]]) -> Result<Vec<u8>, ImageError> {
    let size = archives.iter().fold(0u64, |sum, archive| sum.saturating_add(archive.len() as u64 + 3));
    check_total(size)?;
    let mut out = Vec::new();
    for (index, archive) in archives.iter().enumerate() {
        newc::read(archive).map_err(|cause| ImageError::Concatenate { position: index + 1, cause })?;
        newc::pad(&mut out, 4);
        out.extend_from_slice(archive);
    }
    Ok(out)
}

impl Manifest {
    /// Builds the archive. Relative sources are looked up under `root`.
    ///
    /// # Errors
    /// [`ImageError`]: an inode that breaks a rule, a duplicate, a missing folder, an unfit source, a size limit.
    pub fn build(&self, root: &Path) -> Result<Archive, ImageError> {
        let sorted = self.sorted()?;
        let mut total = newc::encoded_size(newc::TRAILER, 0);
        let mut bytes = Vec::new();
        for (position, (path, inode)) in (1u32..).zip(&sorted) {
            let name = path.strip_prefix('/').unwrap_or(path);
            let size = declared_size(path, inode, root)?;
            if size > u64::from(u32::MAX) {
                return Err(ImageError::FileTooLarge { path: (*path).to_owned(), size });
            }
            // Checked before the content is read, so that an endless list of large files stops early.
            total = total.saturating_add(newc::encoded_size(name, size));
            check_total(total.saturating_add(BLOCK as u64))?;
            let content = content(path, inode, root, size)?;
            let (mode, links, device) = attributes(inode);
            let entry = ArchiveEntry {
                name,
                inode: position,
                mode,
                uid: 0,
                gid: 0,
                links,
                mtime: 0,
                device,
                content: content.as_ref(),
            };
            newc::encode(&mut bytes, &entry);
        }
        newc::encode_trailer(&mut bytes);
        newc::pad(&mut bytes, BLOCK);
        Ok(Archive { bytes })
    }

    /// Canonical order, with every rule checked that needs no file.
    fn sorted(&self) -> Result<BTreeMap<&str, &Inode>, ImageError> {
        if self.entries.len() > MAX_ENTRIES {
            return Err(ImageError::TooManyEntries { limit: MAX_ENTRIES });
        }
        let mut sorted = BTreeMap::new();
        for (path, inode) in &self.entries {
            manifest::check(path, inode).map_err(|fault| ImageError::Entry { path: path.clone(), fault })?;
            if sorted.insert(path.as_str(), inode).is_some() {
                return Err(ImageError::Duplicate { path: path.clone() });
            }
        }
        for path in sorted.keys() {
            let parent = match path.rsplit_once('/') {
                Some(("", _)) | None => continue,
                Some((parent, _)) => parent,
            };
            let (path, parent_name) = ((*path).to_owned(), parent.to_owned());
            match sorted.get(parent) {
                Some(Inode::Directory { .. }) => {}
                Some(_) => return Err(ImageError::ParentNotDirectory { path, parent: parent_name }),
                None => return Err(ImageError::MissingParent { path, parent: parent_name }),
            }
        }
        Ok(sorted)
    }
}

fn check_total(size: u64) -> Result<(), ImageError> {
    if size > MAX_ARCHIVE_BYTES {
        return Err(ImageError::ArchiveTooLarge { size, limit: MAX_ARCHIVE_BYTES });
    }
    Ok(())
}

/// `st_mode`, link count and device number of an inode.
fn attributes(inode: &Inode) -> (u32, u32, (u32, u32)) {
    match inode {
        Inode::Directory { mode } => (TYPE_DIRECTORY | mode, 2, (0, 0)),
        Inode::File { mode, .. } => (TYPE_FILE | mode, 1, (0, 0)),
        Inode::Link { .. } => (TYPE_LINK | 0o777, 1, (0, 0)),
        Inode::Node { mode, device: Device::Character { major, minor } } => {
            (TYPE_CHARACTER | mode, 1, (*major, *minor))
        }
        Inode::Node { mode, device: Device::Block { major, minor } } => (TYPE_BLOCK | mode, 1, (*major, *minor)),
    }
}

fn declared_size(path: &str, inode: &Inode, root: &Path) -> Result<u64, ImageError> {
    match inode {
        Inode::Directory { .. } | Inode::Node { .. } => Ok(0),
        Inode::Link { target } => Ok(target.len() as u64),
        Inode::File { source: Source::Bytes(bytes), .. } => Ok(bytes.len() as u64),
        Inode::File { source: Source::Path(source), .. } => {
            let source_path = root.join(source);
            // Asked before opening: opening a pipe would wait for a writer.
            match fs::symlink_metadata(&source_path) {
                Ok(found) if found.is_file() => Ok(found.len()),
                Ok(_) => Err(ImageError::SourceNotRegular { path: path.to_owned(), source_path }),
                Err(cause) => Err(ImageError::SourceUnreadable { path: path.to_owned(), source_path, cause }),
            }
        }
    }
}

/// The bytes that belong to an inode: borrowed where the manifest holds them, read where it names a file.
fn content<'a>(path: &str, inode: &'a Inode, root: &Path, size: u64) -> Result<std::borrow::Cow<'a, [u8]>, ImageError> {
    match inode {
        Inode::Directory { .. } | Inode::Node { .. } => Ok((&[][..]).into()),
        Inode::Link { target } => Ok(target.as_bytes().into()),
        Inode::File { source: Source::Bytes(bytes), .. } => Ok(bytes.as_slice().into()),
        Inode::File { source: Source::Path(source), .. } => {
            let source_path = root.join(source);
            let mut bytes = Vec::new();
            // One byte more than announced is asked for, so that growth is seen and never followed.
            let read =
                File::open(&source_path).and_then(|file| file.take(size.saturating_add(1)).read_to_end(&mut bytes));
            match read {
                Ok(_) if bytes.len() as u64 == size => Ok(bytes.into()),
                Ok(_) => Err(ImageError::SourceChanged { source_path }),
                Err(cause) => Err(ImageError::SourceUnreadable { path: path.to_owned(), source_path, cause }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::EntryFault;

    fn small() -> Manifest {
        Manifest::new()
            .node("/dev/console", 0o600, Device::Character { major: 5, minor: 1 })
            .file("/init", 0o755, *b"#!/bin/true\n")
            .link("/sbin", "bin")
            .directory("/dev", 0o755)
            .directory("/bin", 0o755)
            .node("/dev/vda", 0o600, Device::Block { major: 254, minor: 0 })
    }

    fn build(manifest: &Manifest) -> Result<Archive, ImageError> {
        manifest.build(Path::new("/nonexistent"))
    }

    #[test]
    fn order_of_lines_does_not_matter() {
        let mut reversed = small();
        reversed.entries.reverse();
        assert_eq!(build(&small()).unwrap(), build(&reversed).unwrap());
    }

    #[test]
    fn records_are_canonical() {
        let archive = build(&small()).unwrap();
        assert_eq!(archive.bytes().len() % 512, 0);
        let entries = Archive::entries(archive.bytes()).unwrap();
        let seen: Vec<_> = entries.iter().map(|e| (e.inode, e.name, e.mode, e.links, e.device)).collect();
        let expected = [
            (1, "bin", 0o040755, 2, (0, 0)),
            (2, "dev", 0o040755, 2, (0, 0)),
            (3, "dev/console", 0o020600, 1, (5, 1)),
            (4, "dev/vda", 0o060600, 1, (254, 0)),
            (5, "init", 0o100755, 1, (0, 0)),
            (6, "sbin", 0o120777, 1, (0, 0)),
        ];
        assert_eq!(seen, expected);
        assert!(entries.iter().all(|e| (e.uid, e.gid, e.mtime) == (0, 0, 0)));
        assert_eq!(entries.last().unwrap().content, b"bin");
    }

    #[test]
    fn relations_between_inodes_are_checked() {
        let twice = small().file("/init", 0o755, *b"other");
        assert!(matches!(build(&twice), Err(ImageError::Duplicate { path }) if path == "/init"));
        let orphan = Manifest::new().file("/etc/inwit/config", 0o600, *b"x").directory("/etc", 0o755);
        let error = build(&orphan).unwrap_err();
        assert!(error.to_string().contains("`dir /etc/inwit 0755`"), "{error}");
        let under_link = small().file("/sbin/x", 0o755, *b"x");
        assert!(matches!(build(&under_link), Err(ImageError::ParentNotDirectory { parent, .. }) if parent == "/sbin"));
    }

    #[test]
    fn inodes_made_in_memory_keep_the_same_rules() {
        let fault = |manifest: Manifest| match build(&manifest) {
            Err(ImageError::Entry { fault, .. }) => fault,
            other => panic!("expected a refused inode, got {other:?}"),
        };
        assert_eq!(fault(Manifest::new().directory("etc", 0o755)), EntryFault::NotAbsolute("etc".into()));
        assert_eq!(fault(Manifest::new().directory("/etc", 0o10000)), EntryFault::Mode("10000".into()));
        assert_eq!(fault(Manifest::new().link("/l", "")), EntryFault::Target(0));
        assert_eq!(fault(Manifest::new().file("/TRAILER!!!", 0o644, *b"")), EntryFault::Reserved);
    }

    #[test]
    fn a_concatenation_keeps_both_and_aligns_the_second() {
        let production = build(&small()).unwrap();
        let unaligned = &production.bytes()[..production.bytes().len() - 1];
        let second = build(&Manifest::new().file("/extra", 0o644, *b"x")).unwrap();
        let joined = concatenate(&[unaligned, second.bytes()]).unwrap();
        assert!(joined.starts_with(unaligned), "the first archive stays byte-identical");
        assert!(joined.ends_with(second.bytes()));
        let names: Vec<_> = Archive::entries(&joined).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["bin", "dev", "dev/console", "dev/vda", "init", "sbin", "extra"]);
        let refused = concatenate(&[production.bytes(), b"\x1f\x8b"]);
        assert!(matches!(refused, Err(ImageError::Concatenate { position: 2, .. })));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            files in proptest::collection::btree_map("[a-z]{1,8}( [a-z]{1,3})?", (0u32..0o10000, proptest::collection::vec(any::<u8>(), 0..200)), 0..12),
            target in "[a-z./]{1,40}",
        ) {
            let mut manifest = Manifest::new().directory("/d", 0o700).link("/UPPER", &target);
            for (name, (mode, content)) in &files {
                manifest = manifest.file(&format!("/d/{name}"), *mode, content.clone());
            }
            let archive = build(&manifest).unwrap();
            let entries = Archive::entries(archive.bytes()).unwrap();
            prop_assert_eq!(entries.len(), files.len() + 2);
            prop_assert_eq!(entries[0].content, target.as_bytes());
            for (entry, (name, (mode, content))) in entries.iter().skip(2).zip(&files) {
                prop_assert_eq!(entry.name, format!("d/{name}"));
                prop_assert_eq!(entry.mode, 0o100_000 | mode);
                prop_assert_eq!(entry.content, content.as_slice());
            }
        }
    }
}
