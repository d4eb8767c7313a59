//! What an initial ramdisk holds, as the kernel will unpack it.
//!
//! Sources: Linux `init/initramfs.c` and Documentation/driver-api/early-userspace/buffer-format. An initrd is one newc
//! archive or several behind each other, each at a multiple of four bytes with zeros between; a later member replaces
//! an earlier one of the same path. From the first compressed byte on nothing can be looked into, and that is said.
//!
//! Not trusted: every byte; sizes, counts and names are bounded, and what the kernel would drop or guess at is refused
//! by name. Never done here: decompression, file access.

#[cfg(test)]
mod kernel;
mod started;
mod tree;

pub use started::{StartedError, started};
pub use tree::{Entry, Tree};

use std::fmt;

use thiserror::Error;

/// Most members of all archives together; images of distributions have under 10,000.
pub const MAX_MEMBERS: usize = 1 << 18;
/// Longest name that the kernel takes, with its closing NUL.
const PATH_MAX: usize = 4096;
/// Magic and thirteen fields of eight hexadecimal digits.
const HEADER_BYTES: usize = 6 + 13 * 8;
/// Longest part of a path that Linux looks up (`NAME_MAX`).
const NAME_MAX: usize = 255;
const TRAILER: &str = "TRAILER!!!";

/// File type bits of a member's mode.
pub(crate) const TYPE_MASK: u32 = 0o170_000;
pub(crate) const TYPE_FILE: u32 = 0o100_000;
pub(crate) const TYPE_DIRECTORY: u32 = 0o040_000;
pub(crate) const TYPE_LINK: u32 = 0o120_000;
/// Devices, pipes and sockets.
const TYPES_OTHER: [u32; 4] = [0o010_000, 0o020_000, 0o060_000, 0o140_000];

/// One member, borrowed from the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Name as stored, without the NULs behind it.
    pub name: &'a str,
    /// Inode number, with [`Member::device`] and within one archive the same for all names of one file.
    pub inode: u32,
    /// File type and permission bits (`st_mode`).
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Device that the file was on: major, minor.
    pub device: (u32, u32),
    /// File contents, or the target of a symbolic link.
    pub content: &'a [u8],
    /// Which archive it stands in, from 0.
    pub archive: usize,
    /// Offset of its header in the initrd.
    pub start: usize,
    /// Offset of what comes after it, padding included.
    pub end: usize,
}

/// A form of compression that the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

/// First bytes, as `lib/decompress.c` tells them apart.
const COMPRESSIONS: [(&[u8], Compression); 8] = [
    (&[0x1f, 0x8b], Compression::Gzip),
    (&[0x1f, 0x9e], Compression::Gzip),
    (&[0x42, 0x5a], Compression::Bzip2),
    (&[0x5d, 0x00], Compression::Lzma),
    (&[0xfd, 0x37], Compression::Xz),
    (&[0x89, 0x4c], Compression::Lzo),
    (&[0x02, 0x21], Compression::Lz4),
    (&[0x28, 0xb5], Compression::Zstd),
];

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// A part that cannot be looked into: everything from `start` on, because only a decompressor could tell where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opaque {
    /// How it is compressed.
    pub compression: Compression,
    /// Offset of its first byte.
    pub start: usize,
}

/// An initrd that was read to its end, or to its first compressed byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initrd<'a> {
    /// Members in stored order, trailers left out.
    pub members: Vec<Member<'a>>,
    /// How many archives were read.
    pub archives: usize,
    /// What follows them compressed.
    pub opaque: Option<Opaque>,
}

/// Why bytes are no initrd. Offsets count from their first byte.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InitrdError {
    /// Nothing there.
    #[error("the initrd is empty")]
    Empty,
    /// The bytes end inside a member, or before a trailer.
    #[error("the initrd is cut short at offset {0}: no trailer")]
    CutShort(usize),
    /// Neither a newc member nor a compression that the kernel knows.
    #[error("no newc archive at offset {0}, and no compression that the kernel knows")]
    Foreign(usize),
    /// A header field is not eight hexadecimal digits.
    #[error("the header field at offset {0} is not hexadecimal")]
    Field(usize),
    /// A name is empty, too long, without its closing NUL, with another NUL, not UTF-8, or climbs with `..`.
    #[error("the member at offset {0} has an ill-formed name")]
    Name(usize),
    /// Padding holds something else than zeros.
    #[error("padding at offset {0} is not zero: data hides there")]
    Padding(usize),
    /// A trailer, folder or device with contents, or a link longer than a path: the kernel would skip it.
    #[error("the member at offset {0} has contents that the kernel skips")]
    Contents(usize),
    /// A `070702` member whose sum does not fit.
    #[error("the checksum of the member at offset {0} does not fit its contents")]
    Checksum(usize),
    /// Linux makes something of it that no honest writer wants and that is not followed here, such as a file named `a/`.
    #[error("the member at offset {offset} is {what}: what the kernel makes of that is not foreseen here")]
    Ambiguous {
        /// Offset of the member.
        offset: usize,
        /// What it is.
        what: &'static str,
    },
    /// More than [`MAX_MEMBERS`].
    #[error("the initrd has more than {MAX_MEMBERS} members")]
    TooMany,
    /// Paths that are too long together for a bounded search.
    #[error("the paths of the initrd, with links followed, are too long together")]
    TooMuch,
}

impl<'a> Initrd<'a> {
    /// Reads all archives.
    ///
    /// # Errors
    /// [`InitrdError`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, InitrdError> {
        let mut initrd = Self { members: Vec::new(), archives: 0, opaque: None };
        let mut at = 0;
        // Each turn reads an archive of at least one header, or ends.
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(zeros) = rest.iter().position(|byte| *byte != 0) else {
                let read = initrd.archives > 0;
                return if read { Ok(initrd) } else { Err(InitrdError::Empty) };
            };
            at += zeros;
            if let Some(compression) = compression(rest.get(zeros..).unwrap_or_default()) {
                initrd.opaque = Some(Opaque { compression, start: at });
                return Ok(initrd);
            }
            // The kernel takes an archive at multiples of four only.
            if !at.is_multiple_of(4) {
                return Err(InitrdError::Padding(at));
            }
            at = initrd.archive(bytes, at)?;
            initrd.archives += 1;
        }
    }

    /// Reads one archive to its trailer; gives the offset behind it.
    fn archive(&mut self, bytes: &'a [u8], mut at: usize) -> Result<usize, InitrdError> {
        loop {
            let member = member(bytes, at, self.archives)?;
            at = member.end;
            if member.name == TRAILER {
                let empty = member.content.is_empty();
                return if empty { Ok(at) } else { Err(InitrdError::Contents(member.start)) };
            }
            if self.members.len() == MAX_MEMBERS {
                return Err(InitrdError::TooMany);
            }
            self.members.push(member);
        }
    }
}

fn compression(bytes: &[u8]) -> Option<Compression> {
    COMPRESSIONS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, compression)| *compression)
}

/// What a newc header begins with, without and with a checksum.
const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];

fn member(bytes: &[u8], start: usize, archive: usize) -> Result<Member<'_>, InitrdError> {
    let magic = bytes.get(start..).unwrap_or_default();
    let magic = magic.get(..MAGICS[0].len()).unwrap_or(magic);
    // Any other file is told as such, however short it is.
    if !MAGICS.iter().any(|whole| whole.starts_with(magic)) {
        return Err(InitrdError::Foreign(start));
    }
    let header = take(bytes, start, HEADER_BYTES)?;
    let (digits, summed) = match (header.strip_prefix(b"070701"), header.strip_prefix(b"070702")) {
        (Some(digits), _) => (digits, false),
        (_, Some(digits)) => (digits, true),
        _ => return Err(InitrdError::Foreign(start)),
    };
    let mut fields = [0u32; 13];
    for (index, (field, word)) in fields.iter_mut().zip(digits.chunks_exact(8)).enumerate() {
        *field = hexadecimal(word).ok_or(InitrdError::Field(start + 6 + index * 8))?;
    }
    let [inode, mode, _, _, links, _, size, major, minor, _, _, name_size, sum] = fields;
    let name_size = usize::try_from(name_size).ok().filter(|size| (2..=PATH_MAX).contains(size));
    let name_size = name_size.ok_or(InitrdError::Name(start))?;
    let name = match take(bytes, start + HEADER_BYTES, name_size)?.split_last() {
        // Writers that align contents fill names up with NULs, where the kernel stops reading.
        Some((0, name)) => std::str::from_utf8(name).map_err(|_| InitrdError::Name(start))?.trim_end_matches('\0'),
        _ => return Err(InitrdError::Name(start)),
    };
    if name.is_empty() || name.contains('\0') || name.split('/').any(|part| part == "..") {
        return Err(InitrdError::Name(start));
    }
    let content_at = skip_padding(bytes, start + HEADER_BYTES + name_size)?;
    let size = usize::try_from(size).map_err(|_| InitrdError::CutShort(content_at))?;
    let content = take(bytes, content_at, size)?;
    let end = skip_padding(bytes, content_at + size)?;
    let room = match mode & TYPE_MASK {
        TYPE_FILE => usize::MAX,
        // With its NUL it must fit into a page.
        TYPE_LINK => PATH_MAX - 1,
        _ => 0,
    };
    if content.len() > room {
        return Err(InitrdError::Contents(start));
    }
    // The kernel sums up files alone, and writers leave zero elsewhere.
    if summed
        && mode & TYPE_MASK == TYPE_FILE
        && sum != content.iter().fold(0u32, |sum, byte| sum.wrapping_add((*byte).into()))
    {
        return Err(InitrdError::Checksum(start));
    }
    let member = Member { name, inode, mode, links, device: (major, minor), content, archive, start, end };
    ambiguity(&member).map_or(Ok(member), |what| Err(InitrdError::Ambiguous { offset: start, what }))
}

/// What makes a member mean something else to Linux than to its reader, whatever stands before it.
fn ambiguity(member: &Member<'_>) -> Option<&'static str> {
    let (name, kind) = (member.name, member.mode & TYPE_MASK);
    let folder = kind == TYPE_DIRECTORY;
    let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if name == TRAILER {
        // As a link it ends nothing: the kernel makes a link of that name, and goes on with the same archive.
        return (kind == TYPE_LINK).then_some("a trailer that is a symbolic link");
    }
    if name.split('/').any(|part| part.len() > NAME_MAX) {
        return Some("named by a part of more than 255 bytes");
    }
    if !folder && (name.ends_with('/') || last == ".") {
        return Some("no folder, but named as one");
    }
    if folder && last == "." && name.split('/').any(|part| !matches!(part, "" | ".")) {
        return Some("a folder named by what is inside it");
    }
    match kind {
        TYPE_LINK if member.content.is_empty() => Some("a symbolic link to nothing"),
        TYPE_LINK if member.content.contains(&0) => Some("a symbolic link with a NUL in its target"),
        TYPE_LINK if std::str::from_utf8(member.content).is_err() => Some("a symbolic link whose target is not UTF-8"),
        TYPE_FILE | TYPE_DIRECTORY | TYPE_LINK => None,
        kind if TYPES_OTHER.contains(&kind) => None,
        _ => Some("of no known type"),
    }
}

fn take(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], InitrdError> {
    let end = at.checked_add(length).ok_or(InitrdError::CutShort(at))?;
    bytes.get(at..end).ok_or(InitrdError::CutShort(at))
}

fn skip_padding(bytes: &[u8], at: usize) -> Result<usize, InitrdError> {
    let end = at.checked_next_multiple_of(4).ok_or(InitrdError::CutShort(at))?;
    if take(bytes, at, end - at)?.iter().any(|byte| *byte != 0) { Err(InitrdError::Padding(at)) } else { Ok(end) }
}

fn hexadecimal(word: &[u8]) -> Option<u32> {
    word.iter().try_fold(0u32, |value, byte| Some((value << 4) | char::from(*byte).to_digit(16)?))
}

/// A writer for tests; never part of the product.
#[cfg(test)]
pub(crate) mod sample {
    /// One member: inode, mode, links, name, contents.
    pub(crate) type Sample<'a> = (u32, u32, u32, &'a str, &'a [u8]);

    pub(crate) fn archive(members: &[Sample<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, mode, links, name, content) in members.iter().chain([&(0, 0, 1, super::TRAILER, &b""[..])]) {
            out.extend(b"070701");
            let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
            for field in [*inode, *mode, 0, 0, *links, 0, size, 0, 0, 0, 0, name_size, 0] {
                out.extend(format!("{field:08x}").bytes());
            }
            out.extend(name.bytes().chain([0]));
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sample::archive;
    use super::*;

    fn good() -> Vec<u8> {
        archive(&[(1, 0o100_755, 1, "init", b"hello")])
    }

    #[test]
    fn archives_behind_each_other_are_all_read() {
        let second = archive(&[(1, 0o040_755, 2, "etc", b""), (2, 0o100_644, 1, "etc/conf", b"x")]);
        let joined = [good().as_slice(), &[0; 8], &second, &[0; 3]].concat();
        let initrd = Initrd::read(&joined).unwrap();
        let seen: Vec<_> = initrd.members.iter().map(|member| (member.archive, member.name, member.content)).collect();
        assert_eq!(seen, [(0, "init", &b"hello"[..]), (1, "etc", b""), (1, "etc/conf", b"x")]);
        assert_eq!((initrd.archives, initrd.opaque), (2, None));
    }

    #[test]
    fn a_compressed_part_is_named_and_ends_the_reading() {
        for (magic, compression) in COMPRESSIONS {
            let joined = [good().as_slice(), magic, b"and so on"].concat();
            let initrd = Initrd::read(&joined).unwrap();
            assert_eq!(initrd.opaque, Some(Opaque { compression, start: good().len() }), "{compression}");
            assert_eq!(initrd.members.len(), 1);
        }
        assert_eq!(Initrd::read(&[0x1f, 0x8b, 8]).unwrap().opaque.unwrap().start, 0);
    }

    #[test]
    fn spoiled_initrds_are_refused_by_name() {
        let good = good();
        let spoil = |at: usize, bytes: &[u8]| {
            let mut spoiled = good.clone();
            spoiled[at..at + bytes.len()].copy_from_slice(bytes);
            Initrd::read(&spoiled).map(|_| ()).unwrap_err()
        };
        assert_eq!(Initrd::read(&[]), Err(InitrdError::Empty));
        assert_eq!(Initrd::read(&[0; 64]), Err(InitrdError::Empty));
        for text in [&b"not an archive"[..], b"x", &[b'x'; 200]] {
            assert_eq!(Initrd::read(text), Err(InitrdError::Foreign(0)), "not cut short: it is none");
        }
        assert_eq!(Initrd::read(&good[..4]), Err(InitrdError::CutShort(0)));
        assert_eq!(Initrd::read(&good[..124]), Err(InitrdError::CutShort(124)), "no trailer");
        assert_eq!(spoil(5, b"3"), InitrdError::Foreign(0));
        assert_eq!(spoil(7, b"+"), InitrdError::Field(6));
        assert_eq!(spoil(94, b"00001001"), InitrdError::Name(0), "over PATH_MAX");
        assert_eq!(spoil(94, b"00000001"), InitrdError::Name(0), "no name");
        assert_eq!(spoil(114, b"x"), InitrdError::Name(0), "no NUL");
        assert_eq!(spoil(112, b"\0"), InitrdError::Name(0), "NUL inside");
        assert_eq!(spoil(110, b"\0\0\0\0"), InitrdError::Name(0), "nothing but NULs");
        assert_eq!(spoil(112, b"\xff"), InitrdError::Name(0), "not UTF-8");
        assert_eq!(spoil(110, b"../x"), InitrdError::Name(0), "climbs");
        assert_eq!(spoil(115, b"x"), InitrdError::Padding(115));
        assert_eq!(spoil(121, b"x"), InitrdError::Padding(121));
        assert_eq!(spoil(54, b"ffffffff"), InitrdError::CutShort(116), "contents beyond the end");
        assert_eq!(spoil(14, b"000041ed"), InitrdError::Contents(0), "a folder with contents");
        assert_eq!(spoil(0, b"070702"), InitrdError::Checksum(0));
        let trailer = archive(&[(0, 0o100_644, 1, TRAILER, b"hidden")]);
        assert_eq!(Initrd::read(&trailer), Err(InitrdError::Contents(0)));
        assert_eq!(Initrd::read(&[good.as_slice(), b"\0x"].concat()), Err(InitrdError::Padding(good.len() + 1)));
        assert_eq!(Initrd::read(&[good.as_slice(), b"noise"].concat()), Err(InitrdError::Foreign(good.len())));
        let noise = [good.as_slice(), &[b'n'; HEADER_BYTES]].concat();
        assert_eq!(Initrd::read(&noise), Err(InitrdError::Foreign(good.len())));
    }

    #[test]
    fn what_honest_writers_do_is_read() {
        let sum = |bytes: &mut Vec<u8>| bytes[..6].copy_from_slice(b"070702");
        let mut link = archive(&[(1, TYPE_LINK | 0o777, 1, "a", b"b")]);
        sum(&mut link);
        assert!(Initrd::read(&link).is_ok(), "cpio -H crc leaves the sum of a link at zero");
        let padded = archive(&[(1, 0o100_644, 1, "conf\0\0\0\0\0", b"x"), (2, 0o100_644, 1, "b", b"y")]);
        let names: Vec<_> = Initrd::read(&padded).unwrap().members.iter().map(|member| member.name).collect();
        assert_eq!(names, ["conf", "b"], "dracut-cpio --data-align fills names up");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Initrd::read(&bytes).map(|initrd| Tree::unpack(&initrd).is_ok());
        }

        #[test]
        fn changed_archives_never_panic(changes in proptest::collection::vec((0usize..360, any::<u8>()), 1..5)) {
            let mut bytes = archive(&[(1, 0o120_777, 1, "a", b"b"), (1, 0o100_644, 2, "a/c", b"x")]);
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = Initrd::read(&bytes).map(|initrd| Tree::unpack(&initrd).is_ok());
        }
    }
}
