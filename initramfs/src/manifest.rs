//! The manifest: which inodes an image holds, as text or built in memory.
//!
//! Text form, one inode per line, fields separated by spaces, `#` starts a comment line:
//! ```text
//! dir  PATH MODE
//! file PATH MODE SOURCE
//! link PATH TARGET
//! node PATH MODE c|b MAJOR MINOR
//! ```
//! PATH is absolute inside the image, MODE octal. The order of lines has no effect on the image.
//!
//! Not trusted: the text. Never done here: opening a source; that is the archive's step.

use std::path::PathBuf;

use crate::error::{EntryFault, ImageError};

/// Longest manifest text that is read, in bytes: far above any initramfs, far below what would hurt.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// Most inodes in one image; a full distribution initramfs has a few thousand.
pub const MAX_ENTRIES: usize = 1 << 16;

/// Linux NAME_MAX: longest path component in bytes.
const NAME_MAX: usize = 255;
/// Linux PATH_MAX including the closing NUL: the kernel's unpacker skips longer names and targets without a word.
pub(crate) const PATH_MAX: usize = 4096;

/// The inodes of an image, in any order; [`Manifest::build`] brings them into canonical order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub(crate) entries: Vec<(String, Inode)>,
}

/// One inode. Modes are the low 12 bits of `st_mode` (permission, set-id and sticky bits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inode {
    /// A folder.
    Directory {
        /// Permission bits, at most 0o7777.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permission bits, at most 0o7777.
        mode: u32,
        /// Where its contents come from.
        source: Source,
    },
    /// A symbolic link; its mode is always 0777, as Linux shows it.
    Link {
        /// What it points to, 1 to 4095 bytes, not resolved here.
        target: String,
    },
    /// A device node.
    Node {
        /// Permission bits, at most 0o7777.
        mode: u32,
        /// Kind and numbers.
        device: Device,
    },
}

/// A device number: major up to 12 bits, minor up to 20 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Device {
    /// Character device.
    Character { major: u32, minor: u32 },
    /// Block device.
    Block { major: u32, minor: u32 },
}

/// Where the contents of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A regular file on this machine, relative to the root given to [`Manifest::build`].
    Path(PathBuf),
    /// Contents given directly.
    Bytes(Vec<u8>),
}

impl Manifest {
    /// An empty manifest, to be filled with the methods below. Rules are checked by [`Manifest::build`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder. `path` is absolute, `mode` at most 0o7777.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.with(path, Inode::Directory { mode })
    }

    /// Adds a regular file with these contents.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, contents: impl Into<Vec<u8>>) -> Self {
        self.with(path, Inode::File { mode, source: Source::Bytes(contents.into()) })
    }

    /// Adds a regular file whose contents are read from `source` at build time.
    #[must_use]
    pub fn file_from(self, path: &str, mode: u32, source: impl Into<PathBuf>) -> Self {
        self.with(path, Inode::File { mode, source: Source::Path(source.into()) })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.with(path, Inode::Link { target: target.to_owned() })
    }

    /// Adds a device node.
    #[must_use]
    pub fn node(self, path: &str, mode: u32, device: Device) -> Self {
        self.with(path, Inode::Node { mode, device })
    }

    /// Adds any inode.
    #[must_use]
    pub fn with(mut self, path: &str, inode: Inode) -> Self {
        self.entries.push((path.to_owned(), inode));
        self
    }

    /// The inodes in the order in which they were added.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &Inode)> {
        self.entries.iter().map(|(path, inode)| (path.as_str(), inode))
    }

    /// Parses the text form. Blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`ImageError::Line`] with the line number, [`ImageError::ManifestTooLarge`], [`ImageError::TooManyEntries`].
    /// Relations between lines (duplicates, missing folders) are checked by [`Manifest::build`].
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ImageError::ManifestTooLarge { size: text.len(), limit: MAX_MANIFEST_BYTES });
        }
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = parse_line(line).map_err(|fault| ImageError::Line { line: number + 1, fault })?;
            if entries.len() == MAX_ENTRIES {
                return Err(ImageError::TooManyEntries { limit: MAX_ENTRIES });
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

fn parse_line(line: &str) -> Result<(String, Inode), EntryFault> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (path, inode) = match fields.as_slice() {
        ["dir", path, mode] => (path, Inode::Directory { mode: parse_mode(mode)? }),
        ["file", path, mode, source] => {
            (path, Inode::File { mode: parse_mode(mode)?, source: Source::Path(PathBuf::from(source)) })
        }
        ["link", path, target] => (path, Inode::Link { target: (*target).to_owned() }),
        ["node", path, mode, kind, major, minor] => {
            let (major, minor) = (parse_number(major)?, parse_number(minor)?);
            let device = match *kind {
                "c" => Device::Character { major, minor },
                "b" => Device::Block { major, minor },
                other => return Err(EntryFault::DeviceKind(other.to_owned())),
            };
            (path, Inode::Node { mode: parse_mode(mode)?, device })
        }
        ["dir", ..] => return Err(EntryFault::Fields("dir PATH MODE")),
        ["file", ..] => return Err(EntryFault::Fields("file PATH MODE SOURCE")),
        ["link", ..] => return Err(EntryFault::Fields("link PATH TARGET")),
        ["node", ..] => return Err(EntryFault::Fields("node PATH MODE c|b MAJOR MINOR")),
        [kind, ..] => return Err(EntryFault::UnknownKind((*kind).to_owned())),
        [] => return Err(EntryFault::UnknownKind(String::new())),
    };
    check(path, &inode)?;
    Ok(((*path).to_owned(), inode))
}

fn parse_mode(word: &str) -> Result<u32, EntryFault> {
    let octal = !word.is_empty() && word.len() <= 5 && word.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = if octal { u32::from_str_radix(word, 8).ok() } else { None };
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| EntryFault::Mode(word.to_owned()))
}

fn parse_number(word: &str) -> Result<u32, EntryFault> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    if digits { word.parse().ok() } else { None }.ok_or_else(|| EntryFault::DeviceNumber(word.to_owned()))
}

/// The rules that one inode must keep by itself, whether it came from text or from memory.
pub(crate) fn check(path: &str, inode: &Inode) -> Result<(), EntryFault> {
    check_path(path)?;
    match inode {
        Inode::Directory { mode } | Inode::File { mode, .. } => check_mode(*mode),
        Inode::Link { target } if target.is_empty() || target.len() >= PATH_MAX => {
            Err(EntryFault::Target(target.len()))
        }
        Inode::Link { target } if target.contains('\0') => Err(EntryFault::Nul),
        Inode::Link { .. } => Ok(()),
        Inode::Node { mode, device } => {
            let (Device::Character { major, minor } | Device::Block { major, minor }) = *device;
            if major > 0xfff || minor > 0xf_ffff {
                return Err(EntryFault::DeviceNumber(format!("{major}:{minor}")));
            }
            check_mode(*mode)
        }
    }
}

fn check_mode(mode: u32) -> Result<(), EntryFault> {
    if mode > 0o7777 { Err(EntryFault::Mode(format!("{mode:o}"))) } else { Ok(()) }
}

fn check_path(path: &str) -> Result<(), EntryFault> {
    let Some(name) = path.strip_prefix('/') else {
        return Err(EntryFault::NotAbsolute(path.to_owned()));
    };
    if name.contains('\0') {
        return Err(EntryFault::Nul);
    }
    // The archive stores the name without its first slash and with a closing NUL.
    if name.len() >= PATH_MAX || name.split('/').any(|component| component.len() > NAME_MAX) {
        return Err(EntryFault::Overlong(path.len()));
    }
    if name.split('/').any(|component| matches!(component, "" | "." | "..")) {
        return Err(EntryFault::NotCanonical(path.to_owned()));
    }
    if name == crate::newc::TRAILER { Err(EntryFault::Reserved) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, EntryFault) {
        match Manifest::parse(text) {
            Err(ImageError::Line { line, fault }) => (line, fault),
            other => panic!("expected a refused line, got {other:?}"),
        }
    }

    #[test]
    fn every_kind_is_read_and_comments_are_skipped() {
        let text =
            "# the image\n\ndir /dev 0755\nfile /init 755 out/init\nlink /sbin/x ../init\nnode /dev/tty 0666 c 5 0\n";
        let expected = Manifest::new()
            .directory("/dev", 0o755)
            .file_from("/init", 0o755, "out/init")
            .link("/sbin/x", "../init")
            .node("/dev/tty", 0o666, Device::Character { major: 5, minor: 0 });
        assert_eq!(Manifest::parse(text).unwrap(), expected);
    }

    #[test]
    fn refusals_name_the_line_and_the_fault() {
        assert_eq!(fault("dir /a 0755\npipe /b 0644"), (2, EntryFault::UnknownKind("pipe".into())));
        assert_eq!(fault("dir /a"), (1, EntryFault::Fields("dir PATH MODE")));
        assert_eq!(fault("file /a b 0644 x y"), (1, EntryFault::Fields("file PATH MODE SOURCE")));
        assert_eq!(fault("dir a 0755"), (1, EntryFault::NotAbsolute("a".into())));
        for path in ["/", "/a/", "//a", "/a//b", "/./a", "/a/../b", "/.."] {
            assert_eq!(fault(&format!("dir {path} 0755")), (1, EntryFault::NotCanonical(path.into())));
        }
        for mode in ["0o755", "888", "10000", "-1", "+7", "000755"] {
            assert_eq!(fault(&format!("dir /a {mode}")), (1, EntryFault::Mode(mode.into())));
        }
        assert_eq!(fault("file /TRAILER!!! 0644 x"), (1, EntryFault::Reserved));
        assert_eq!(fault("dir /a\0b 0755"), (1, EntryFault::Nul));
        assert_eq!(fault("link /a b\0c"), (1, EntryFault::Nul));
        assert_eq!(fault("node /a 0600 p 1 1"), (1, EntryFault::DeviceKind("p".into())));
        assert_eq!(fault("node /a 0600 c 4096 1"), (1, EntryFault::DeviceNumber("4096:1".into())));
        assert_eq!(fault("node /a 0600 c +1 1"), (1, EntryFault::DeviceNumber("+1".into())));
    }

    #[test]
    fn overlong_names_are_refused_at_the_kernel_limits() {
        let component = "c".repeat(255);
        assert!(Manifest::parse(&format!("dir /{component} 0755")).is_ok());
        assert_eq!(fault(&format!("dir /{component}c 0755")), (1, EntryFault::Overlong(257)));
        let path = format!("/{}", vec![component.as_str(); 16].join("/"));
        assert_eq!(path.len(), 4096, "4095 bytes after the slash and a NUL are exactly PATH_MAX");
        assert!(Manifest::parse(&format!("dir {path} 0755")).is_ok());
        assert_eq!(fault(&format!("dir {path}/x 0755")), (1, EntryFault::Overlong(4098)));
        assert!(Manifest::parse(&format!("link /l {}", "t".repeat(4095))).is_ok());
        assert_eq!(fault(&format!("link /l {}", "t".repeat(4096))), (1, EntryFault::Target(4096)));
    }

    #[test]
    fn a_manifest_text_is_bounded() {
        assert!(matches!(
            Manifest::parse(&"#".repeat(MAX_MANIFEST_BYTES + 1)),
            Err(ImageError::ManifestTooLarge { .. })
        ));
        let many = "dir /a 0755\n".repeat(MAX_ENTRIES + 1);
        assert!(matches!(Manifest::parse(&many), Err(ImageError::TooManyEntries { .. })));
    }
}
