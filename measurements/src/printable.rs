//! The one way in which foreign text is made fit to be printed: no terminal is steered by it, no line forged, and no
//! quotation closed.
//!
//! Not trusted: the text. Lists of what is dangerous grow with Unicode, so the list is of what is not: graphic ASCII and
//! single spaces. Never drops a character: each other one stands there as its number.

/// Text in which only graphic ASCII and single spaces stand for themselves; everything else, and what would close the
/// quotation around it, as an escape (`\n`, `\u{202e}`). Backslashes stand for themselves, for paths have many.
#[must_use]
pub fn escaped(text: &str, closing: &[char]) -> String {
    escape_characters(text.chars().map(Ok), closing).collect()
}

/// The pieces of such a text; `Err` is a unit that is no character.
pub(crate) fn escape_characters<'a>(
    characters: impl Iterator<Item = Result<char, u16>> + 'a,
    closing: &'a [char],
) -> impl Iterator<Item = String> + 'a {
    let mut before = None;
    characters.map(move |character| {
        let plain = character.is_ok_and(|character| is_plain(character, before, closing));
        before = character.ok();
        match character {
            Ok(character) if plain => character.to_string(),
            Ok(special @ ('\n' | '\r' | '\t')) => special.escape_default().to_string(),
            Ok(other) => other.escape_unicode().to_string(),
            Err(broken) => format!("\\u{{{broken:x}}}"),
        }
    })
}

/// The pieces of bytes as text; those that are not graphic ASCII as `\xNN`.
pub(crate) fn escape_bytes<'a>(bytes: &'a [u8], closing: &'a [char]) -> impl Iterator<Item = String> + 'a {
    let mut before = None;
    bytes.iter().map(move |byte| {
        let plain = is_plain(char::from(*byte), before, closing);
        before = Some(char::from(*byte));
        match byte {
            byte if plain => char::from(*byte).to_string(),
            b'\n' | b'\r' | b'\t' => byte.escape_ascii().to_string(),
            other => format!("\\x{other:02x}"),
        }
    })
}

/// Whether a character stands for itself. Many spaces would push what follows to the start of a line.
fn is_plain(character: char, before: Option<char>, closing: &[char]) -> bool {
    match character {
        ' ' => before != Some(' '),
        other => other.is_ascii_graphic() && !closing.contains(&other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What may be printed, said another way than above.
    fn fit(text: &str) -> bool {
        text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && !text.contains("  ")
    }

    #[test]
    fn everything_but_graphic_ascii_and_single_spaces_is_a_number() {
        for (text, shown) in [
            ("a b\\c", "a b\\c"),
            ("a\n\u{1b}[2K\u{7f}", "a\\n\\u{1b}[2K\\u{7f}"),
            ("\u{61c}\u{ad}\u{5d0}\u{180e}\u{e0041}ä", "\\u{61c}\\u{ad}\\u{5d0}\\u{180e}\\u{e0041}\\u{e4}"),
            ("a   b", "a \\u{20}\\u{20}b"),
            ("\"`", "\\u{22}`"),
        ] {
            assert_eq!(escaped(text, &['"']), shown);
        }
        assert_eq!(escape_bytes(b"a  \"\xff\x1b\n", &['"']).collect::<String>(), r"a \x20\x22\xff\x1b\n");
        assert_eq!(escape_characters([Err(0xd800)].into_iter(), &[]).collect::<String>(), r"\u{d800}");
    }

    proptest! {
        #[test]
        fn nothing_else_is_left(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for shown in [escaped(&text, &['"', '`']), escape_bytes(&bytes, &['"', '`']).collect()] {
                prop_assert!(fit(&shown) && !shown.contains(['"', '`']), "{shown}");
            }
            prop_assert_eq!(escaped(&escaped(&text, &[]), &[]), escaped(&text, &[]), "twice is once");
        }
    }
}
