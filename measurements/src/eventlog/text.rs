//! Foreign bytes as text that can be shown: nothing in it disturbs a terminal, and nothing is longer than a few lines.
//!
//! Not trusted: the bytes. Never drops a byte silently: what is not shown is counted.

use crate::bytes::u16_at;

/// Most characters of one text.
const MAX_SHOWN: usize = 400;

/// ASCII text; other bytes as `\xNN`.
pub(super) fn shown(bytes: &[u8]) -> String {
    bounded(bytes.iter().map(|byte| byte.escape_ascii().to_string()), bytes.len())
}

/// UTF-16LE text; control characters and broken pairs are escaped.
pub(super) fn shown_wide(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| u16_at(pair, 0));
    let pieces = char::decode_utf16(units).map(|character| match character {
        Ok(plain) if !plain.is_control() && !hidden(plain) => plain.to_string(),
        Ok(other) => other.escape_default().to_string(),
        Err(broken) => format!("\\u{{{:x}}}", broken.unpaired_surrogate()),
    });
    bounded(pieces, bytes.len())
}

/// Whether these bytes are UTF-16LE: every other byte zero, at least one character.
pub(super) fn is_wide(bytes: &[u8]) -> bool {
    bytes.len() >= 4
        && bytes.len().is_multiple_of(2)
        && bytes.chunks_exact(2).all(|pair| matches!(pair, [_, 0]))
        && bytes.chunks_exact(2).next().is_some_and(|pair| pair != [0, 0])
}

/// Characters that change the direction of text or have no width.
fn hidden(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn bounded(pieces: impl Iterator<Item = String>, length: usize) -> String {
    let mut out = String::new();
    for piece in pieces {
        if out.len() + piece.len() > MAX_SHOWN {
            return format!("{out}… ({length} bytes)");
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
        assert_eq!(shown_wide(&wide), r"a\u{1b}\u{202e}ä\");
        assert_eq!(shown_wide(&[0, 0xd8, 0x41, 0]), r"\u{d800}A");
        assert!(shown(&[b'x'; 1000]).ends_with("… (1000 bytes)"));
    }

    #[test]
    fn guids_are_spelt_as_usual() {
        assert_eq!(shown_guid(crate::uefi::GLOBAL_VARIABLE), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
    }

    proptest! {
        #[test]
        fn no_control_character_is_left(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(!shown(&bytes).chars().any(char::is_control));
            prop_assert!(!shown_wide(&bytes).chars().any(|character| character.is_control() || hidden(character)));
        }
    }
}
