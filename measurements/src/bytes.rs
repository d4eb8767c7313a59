//! Little-endian reads at an offset of foreign bytes, none of which can panic.
//!
//! Not trusted: offsets and lengths, which come from the bytes themselves. Never reads outside the slice.

/// `length` bytes at `offset`, or nothing when they are not all there.
pub(crate) fn slice_at(bytes: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(length)?)
}

/// `N` bytes at `offset`.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// A little-endian 16-bit number at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

/// A little-endian 32-bit number at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// A little-endian 64-bit number at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// A 32-bit length or offset as this machine's index type; only a machine under 32 bits could refuse.
pub(crate) fn index(value: u32) -> Option<usize> {
    usize::try_from(value).ok()
}

/// Whether `mark` is somewhere inside.
pub(crate) fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    let Some(first) = mark.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let Some(tail) = rest.get(at..) else { return false };
        if tail.starts_with(mark) {
            return true;
        }
        rest = tail.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end_and_at_overflow() {
        let bytes = [1, 2, 3, 4];
        assert_eq!(u32_at(&bytes, 0), Some(0x0403_0201));
        assert_eq!(u16_at(&bytes, 2), Some(0x0403));
        assert_eq!(u32_at(&bytes, 1), None);
        assert_eq!(u16_at(&bytes, usize::MAX), None);
        assert_eq!(slice_at(&bytes, 4, 0), Some(&[][..]));
        assert_eq!(slice_at(&bytes, 1, usize::MAX), None);
        assert_eq!(slice_at(&bytes, 5, 0), None);
    }

    #[test]
    fn a_mark_is_found_wherever_it_begins() {
        assert!(contains(b"aab", b"ab") && contains(b"ab", b"ab") && !contains(b"aa", b"ab") && !contains(b"", b"a"));
    }
}
