//! The newc cpio format (Linux Documentation/driver-api/early-userspace/buffer-format): one encoder, one strict reader.
//!
//! A record is a 110-byte header of ASCII hexadecimal, the name with a closing NUL, zeros to a multiple of four, the
//! content, zeros to a multiple of four. The record named `TRAILER!!!` ends an archive; zeros may follow, and then, at
//! a multiple of four, another archive.
//!
//! Not trusted: every byte that the reader sees. Never done here: file access.

use thiserror::Error;

use crate::manifest::PATH_MAX;

/// Name of the record that ends an archive.
pub(crate) const TRAILER: &str = "TRAILER!!!";
const MAGIC: &[u8; 6] = b"070701";
/// Magic and thirteen fields of eight hexadecimal digits.
const HEADER_BYTES: usize = 6 + 13 * 8;

/// One record of an archive, borrowed from its bytes. All numbers are as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry<'a> {
    /// Name without a leading slash.
    pub name: &'a str,
    /// Inode number.
    pub inode: u32,
    /// File type and permission bits (`st_mode`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links.
    pub links: u32,
    /// Modification time, seconds since 1970.
    pub mtime: u32,
    /// Device number of a device node: major, minor.
    pub device: (u32, u32),
    /// File contents, or the target of a symbolic link.
    pub content: &'a [u8],
}

/// Why bytes are not a well-formed newc archive. Offsets count from the start of the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The bytes end inside a record, or no trailer was found.
    #[error("the archive is cut short at offset {0}: no trailer")]
    CutShort(usize),
    /// A record does not begin with `070701`.
    #[error("no newc record at offset {0}: compressed or foreign data")]
    Magic(usize),
    /// A header field is not eight hexadecimal digits.
    #[error("header field at offset {0} is not hexadecimal")]
    Field(usize),
    /// A name is empty, too long, without its closing NUL, with another NUL, or not UTF-8.
    #[error("the record at offset {0} has an ill-formed name")]
    Name(usize),
    /// Padding holds something other than zeros.
    #[error("padding at offset {0} is not zero: data hides there")]
    Padding(usize),
    /// The trailer has contents.
    #[error("the trailer at offset {0} has contents")]
    Trailer(usize),
}

/// Appends one record. `content` and `name` were checked to fit 32-bit sizes.
pub(crate) fn encode(out: &mut Vec<u8>, entry: &ArchiveEntry<'_>) {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let fields = [
        entry.inode,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.links,
        entry.mtime,
        length(entry.content.len()),
        0,
        0,
        entry.device.0,
        entry.device.1,
        length(entry.name.len() + 1),
        0,
    ];
    out.extend_from_slice(MAGIC);
    for field in fields {
        for shift in (0..8).rev() {
            let digit = u8::try_from((field >> (shift * 4)) & 0xf).unwrap_or(0);
            out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }
    out.extend_from_slice(entry.name.as_bytes());
    out.push(0);
    pad(out, 4);
    out.extend_from_slice(entry.content);
    pad(out, 4);
}

/// Appends the trailer record.
pub(crate) fn encode_trailer(out: &mut Vec<u8>) {
    let trailer = ArchiveEntry {
        name: TRAILER,
        inode: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        links: 1,
        mtime: 0,
        device: (0, 0),
        content: &[],
    };
    encode(out, &trailer);
}

/// Zeros up to the next multiple of `unit`.
pub(crate) fn pad(out: &mut Vec<u8>, unit: usize) {
    out.resize(out.len().next_multiple_of(unit), 0);
}

/// Bytes that one record takes, for checking limits before any content is read.
pub(crate) fn encoded_size(name: &str, content: u64) -> u64 {
    let head = (HEADER_BYTES + name.len() + 1).next_multiple_of(4) as u64;
    head.saturating_add(content.checked_next_multiple_of(4).unwrap_or(u64::MAX))
}

/// Reads every record of one archive or of several concatenated ones, trailers left out.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<ArchiveEntry<'_>>, ReadError> {
    let mut entries = Vec::new();
    let mut at = 0;
    // Each turn moves forward by at least one header, so the number of turns is bounded by the length.
    loop {
        let (entry, next) = read_record(bytes, at)?;
        if entry.name != TRAILER {
            entries.push(entry);
            at = next;
            continue;
        }
        if !entry.content.is_empty() {
            return Err(ReadError::Trailer(at));
        }
        let rest = bytes.get(next..).unwrap_or_default();
        let Some(zeros) = rest.iter().position(|byte| *byte != 0) else {
            return Ok(entries);
        };
        at = next + zeros;
        // The kernel looks for the next archive at multiples of four only.
        if !at.is_multiple_of(4) {
            return Err(ReadError::Padding(at));
        }
    }
}

fn read_record(bytes: &[u8], start: usize) -> Result<(ArchiveEntry<'_>, usize), ReadError> {
    let header = take(bytes, start, HEADER_BYTES)?;
    let Some(digits) = header.strip_prefix(MAGIC) else {
        return Err(ReadError::Magic(start));
    };
    let mut fields = [0u32; 13];
    for (index, (field, word)) in fields.iter_mut().zip(digits.chunks_exact(8)).enumerate() {
        *field = hexadecimal(word).ok_or(ReadError::Field(start + MAGIC.len() + index * 8))?;
    }
    let [inode, mode, uid, gid, links, mtime, size, _, _, major, minor, name_size, _] = fields;
    let name_size = usize::try_from(name_size).map_err(|_| ReadError::Name(start))?;
    if !(2..=PATH_MAX).contains(&name_size) {
        return Err(ReadError::Name(start));
    }
    let name_at = start + HEADER_BYTES;
    let name = match take(bytes, name_at, name_size)?.split_last() {
        Some((0, name)) if !name.contains(&0) => std::str::from_utf8(name).map_err(|_| ReadError::Name(start))?,
        _ => return Err(ReadError::Name(start)),
    };
    let content_at = skip_padding(bytes, name_at + name_size)?;
    let size = usize::try_from(size).map_err(|_| ReadError::CutShort(content_at))?;
    let content = take(bytes, content_at, size)?;
    let next = skip_padding(bytes, content_at + size)?;
    Ok((ArchiveEntry { name, inode, mode, uid, gid, links, mtime, device: (major, minor), content }, next))
}

fn take(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], ReadError> {
    let end = at.checked_add(length).ok_or(ReadError::CutShort(at))?;
    bytes.get(at..end).ok_or(ReadError::CutShort(at))
}

fn skip_padding(bytes: &[u8], at: usize) -> Result<usize, ReadError> {
    let end = at.next_multiple_of(4);
    if take(bytes, at, end - at)?.iter().any(|byte| *byte != 0) { Err(ReadError::Padding(at)) } else { Ok(end) }
}

fn hexadecimal(word: &[u8]) -> Option<u32> {
    word.iter().try_fold(0u32, |value, byte| Some((value << 4) | char::from(*byte).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<u8> {
        let entry = ArchiveEntry {
            name: "init",
            inode: 1,
            mode: 0o100755,
            uid: 0,
            gid: 0,
            links: 1,
            mtime: 0,
            device: (0, 0),
            content: b"hello",
        };
        let mut out = Vec::new();
        encode(&mut out, &entry);
        encode_trailer(&mut out);
        out
    }

    #[test]
    fn a_record_has_the_documented_bytes() {
        // In the order of the format: magic, inode, mode, uid, gid, links, mtime, size, device of the file system
        // (two), device number (two), name size, checksum.
        let header = concat!(
            "070701", "00000001", "000081ed", "00000000", "00000000", "00000001", "00000000", "00000005", "00000000",
            "00000000", "00000000", "00000000", "00000005", "00000000"
        );
        // 110 + 5 bytes of name are padded to 116; five bytes of content to eight.
        let expected = [header.as_bytes(), b"init\0\0", b"hello\0\0\0", MAGIC].concat();
        let bytes = sample();
        assert_eq!(&bytes[..expected.len()], expected.as_slice());
        assert_eq!(read(&bytes).unwrap()[0].content, b"hello");
    }

    #[test]
    fn spoiled_archives_are_refused_by_name() {
        let good = sample();
        let spoil = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(read(&[]), Err(ReadError::CutShort(0)));
        assert_eq!(read(&good[..124]), Err(ReadError::CutShort(124)), "no trailer");
        assert_eq!(read(&spoil(5, b'2')), Err(ReadError::Magic(0)));
        assert_eq!(read(&spoil(7, b'+')), Err(ReadError::Field(6)));
        assert_eq!(read(&spoil(114, b'x')), Err(ReadError::Name(0)), "name without its NUL");
        assert_eq!(read(&spoil(112, 0)), Err(ReadError::Name(0)), "NUL inside the name");
        assert_eq!(read(&spoil(112, 0xff)), Err(ReadError::Name(0)), "not UTF-8");
        assert_eq!(read(&spoil(115, 1)), Err(ReadError::Padding(115)));
        assert_eq!(read(&spoil(123, 1)), Err(ReadError::Padding(121)));
        assert_eq!(read(&[good.as_slice(), b"\0\0\0\0x"].concat()), Err(ReadError::CutShort(252)));
        assert_eq!(read(&[good.as_slice(), b"\0x"].concat()), Err(ReadError::Padding(249)));
        let long = [&good[..94], b"00001001", &good[102..]].concat();
        assert_eq!(read(&long), Err(ReadError::Name(0)), "a name over PATH_MAX");
        let huge = [&good[..54], b"ffffffff", &good[62..]].concat();
        assert_eq!(read(&huge), Err(ReadError::CutShort(116)), "content beyond the end");
    }

    #[test]
    fn a_trailer_with_contents_hides_data_and_is_refused() {
        let mut bytes = Vec::new();
        let entry = ArchiveEntry {
            name: TRAILER,
            inode: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            links: 1,
            mtime: 0,
            device: (0, 0),
            content: b"hidden",
        };
        encode(&mut bytes, &entry);
        assert_eq!(read(&bytes), Err(ReadError::Trailer(0)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
        }

        #[test]
        fn one_changed_byte_never_panics(at in 0usize..248, byte in any::<u8>()) {
            let mut bytes = sample();
            bytes[at] = byte;
            let _ = read(&bytes);
        }
    }
}
