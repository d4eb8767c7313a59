//! Foreign bytes as text that can be shown: nothing in it disturbs a terminal, and nothing is longer than a few lines.
//!
//! Not trusted: the bytes. Never drops a byte silently: what is not shown is counted.

use crate::bytes::u16_at;
use crate::printable::{escape_bytes, escape_characters};

/// Most bytes of one text.
const MAX_SHOWN: usize = 400;
/// Marks that would close a quotation around a text.
const CLOSING: &[char] = &['"', '`'];

/// ASCII text; other bytes as `\xNN`.
pub(super) fn shown(bytes: &[u8]) -> String {
    bounded(escape_bytes(bytes, CLOSING), bytes.len())
}

/// UTF-16LE text; what is not ASCII is escaped, as are broken pairs.
pub(super) fn shown_wide(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| u16_at(pair, 0));
    let characters = char::decode_utf16(units).map(|character| character.map_err(|broken| broken.unpaired_surrogate()));
    let odd = bytes.chunks_exact(2).remainder().iter().map(|byte| format!("\\x{byte:02x}"));
    bounded(escape_characters(characters, CLOSING).chain(odd), bytes.len())
}

/// Whether these bytes are UTF-16LE: every other byte zero, at least one character.
pub(super) fn is_wide(bytes: &[u8]) -> bool {
    bytes.len() >= 4
        && bytes.len().is_multiple_of(2)
        && bytes.chunks_exact(2).all(|pair| matches!(pair, [_, 0]))
        && bytes.chunks_exact(2).next().is_some_and(|pair| pair != [0, 0])
}

fn bounded(pieces: impl Iterator<Item = String>, length: usize) -> String {
    let mut out = String::new();
    for piece in pieces {
        if out.len() + piece.len() > MAX_SHOWN {
            return format!("{out}... ({length} bytes)");
        }
        out.push_str(&piece);
    }
    out
}

/// A GUID in its usual spelling.
pub(super) fn shown_guid(stored: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = stored;
    let (first, second, third) =
        (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
    let tail: Vec<String> = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let (node, last) = tail.split_at(2);
    format!("{first:08x}-{second:04x}-{third:04x}-{}-{}", node.concat(), last.concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_disturb_a_terminal_is_escaped() {
        assert_eq!(shown(b"a\x1b[2J\xff\n"), r"a\x1b[2J\xff\n");
        let wide: Vec<u8> = "a\u{1b}\u{202e}ä\\".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(shown_wide(&wide), r"a\u{1b}\u{202e}\u{e4}\");
        assert_eq!(shown_wide(b"a\0b"), r"a\x62", "no byte is dropped");
        assert_eq!(shown_wide(&[0, 0xd8, 0x41, 0]), r"\u{d800}A");
        assert!(shown(&[b'x'; 1000]).ends_with("... (1000 bytes)"));
    }

    #[test]
    fn guids_are_spelt_as_usual() {
        assert_eq!(shown_guid(crate::uefi::GLOBAL_VARIABLE), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
    }

    proptest! {
        #[test]
        fn only_single_spaces_and_graphic_ascii_are_left(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for text in [shown(&bytes), shown_wide(&bytes)] {
                prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", text);
                prop_assert!(!text.contains("  ") && !text.contains(['"', '`']), "{}", text);
            }
        }
    }
}
