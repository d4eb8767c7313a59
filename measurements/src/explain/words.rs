//! Command lines: which changes people and tools make to them, and what distinguishes two in words.
//!
//! Not trusted: both texts; what is shown of them is escaped. The number of changes tried is bounded by the length of
//! the text. Never looks at a digest.

use crate::printable::escaped;

/// Longest command line whose every character is tried with a change.
const MAX_TYPED_BYTES: usize = 512;
/// Most words that are tried in another order.
const MAX_ORDERED_WORDS: usize = 64;

/// Words that are put in, left out or changed most often.
const USUAL: [&str; 44] = [
    "quiet",
    "debug",
    "ro",
    "rw",
    "splash",
    "nokaslr",
    "single",
    "noapic",
    "nosmp",
    "nopti",
    "console=ttyS0",
    "console=ttyS0,115200",
    "console=ttyS0,115200n8",
    "console=hvc0",
    "console=tty0",
    "console=ttyS1",
    "earlyprintk=serial",
    "earlyprintk=ttyS0",
    "earlycon",
    "loglevel=0",
    "loglevel=3",
    "loglevel=7",
    "loglevel=8",
    "ignore_loglevel",
    "panic=-1",
    "panic=0",
    "panic=1",
    "panic=10",
    "reboot=t",
    "init=/init",
    "rdinit=/init",
    "rdinit=/sbin/init",
    "root=/dev/vda",
    "root=/dev/vda1",
    "root=/dev/ram0",
    "initrd=initrd",
    "initrd=initrd.img",
    "random.trust_cpu=on",
    "mitigations=off",
    "mitigations=auto",
    "swiotlb=force",
    "net.ifnames=0",
    "systemd.unit=rescue.target",
    "mem_encrypt=on",
];

/// Changes of a command line, the plausible ones first; the text itself is not among them, some are there twice.
pub(super) fn changes(text: &str) -> impl Iterator<Item = String> + '_ {
    whole(text)
        .chain(spaces(text))
        .chain(by_word(text))
        .chain(added(text))
        .chain(typed(text))
        .filter(move |other| other != text)
}

/// Changes that take the whole line: nothing given at all, ends of lines, quotes that a shell did not take away.
fn whole(text: &str) -> impl Iterator<Item = String> {
    let ends = ["\n", "\r\n", " ", "  ", "\t", "\0"].map(|end| format!("{text}{end}"));
    let quoted = ['"', '\''].map(|quote| format!("{quote}{text}{quote}"));
    let (trimmed, first) = (text.trim().to_owned(), format!(" {text}"));
    [String::new(), trimmed, first].into_iter().chain(ends).chain(quoted)
}

/// One space more, or less, anywhere; all runs of spaces made one.
fn spaces(text: &str) -> impl Iterator<Item = String> + '_ {
    let at = text.char_indices().filter(|(_, character)| *character == ' ').map(|(at, _)| at);
    let changed = at.flat_map(move |at| match text.split_at_checked(at) {
        Some((before, after)) => {
            vec![format!("{before} {after}"), format!("{before}{}", after.get(1..).unwrap_or_default())]
        }
        None => Vec::new(),
    });
    let single = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    changed.chain([single])
}

/// A word left out, given twice, quoted, replaced by a usual one, or two in each other's place.
fn by_word(text: &str) -> impl Iterator<Item = String> + '_ {
    let words: Vec<&str> = text.split(' ').collect();
    let count = words.len();
    let with = move |at: usize, replacement: &[&str]| {
        let (before, after) = words.split_at_checked(at).unwrap_or_default();
        let rest = after.get(1..).unwrap_or_default();
        [before, replacement, rest].concat().join(" ")
    };
    let list: Vec<&str> = text.split(' ').collect();
    let mut out = Vec::new();
    for (at, word) in list.iter().copied().enumerate() {
        out.push(with(at, &[]));
        out.push(with(at, &[word, word]));
        out.push(with(at, &[&format!("\"{word}\"")]));
        if let Some((key, value)) = word.split_once('=') {
            out.push(with(at, &[&format!("{key}=\"{value}\"")]));
            out.push(with(at, &[key]));
            if let Ok(number) = value.parse::<i64>() {
                let near = (-1..=16).chain([32, 64, 100, 128, 256, 512, 1000, 1024, 2048, 4096, 115_200]);
                let near = near.chain([number.saturating_sub(1), number.saturating_add(1)]);
                out.extend(near.map(|number| with(at, &[&format!("{key}={number}")])));
            }
        }
        out.extend(USUAL.iter().map(|usual| with(at, &[usual])));
    }
    let pairs =
        (0..count.min(MAX_ORDERED_WORDS)).flat_map(move |a| (a + 1..count.min(MAX_ORDERED_WORDS)).map(move |b| (a, b)));
    let swapped = pairs.map(move |(a, b)| {
        let mut other = list.clone();
        other.swap(a, b);
        other.join(" ")
    });
    out.into_iter().chain(swapped)
}

/// A usual word put in anywhere.
fn added(text: &str) -> impl Iterator<Item = String> + '_ {
    let words: Vec<&str> = text.split(' ').filter(|_| !text.is_empty()).collect();
    let places = (0..=words.len()).rev().flat_map(|at| USUAL.iter().map(move |usual| (at, *usual)));
    places.map(move |(at, usual)| {
        let (before, after) = words.split_at_checked(at).unwrap_or_default();
        [before, &[usual], after].concat().join(" ")
    })
}

/// One character left out, changed, or put in.
fn typed(text: &str) -> impl Iterator<Item = String> + '_ {
    let ascii = text.is_ascii() && text.len() <= MAX_TYPED_BYTES;
    let places = (0..=text.len()).filter(move |_| ascii);
    places.flat_map(move |at| {
        let (before, after) = text.split_at_checked(at).unwrap_or_default();
        let rest = after.get(1..);
        let left_out = rest.map(|rest| format!("{before}{rest}"));
        let characters = (b' '..=b'~').map(char::from);
        let changed = characters.flat_map(move |character| {
            let changed = rest.map(|rest| format!("{before}{character}{rest}"));
            [Some(format!("{before}{character}{after}")), changed].into_iter().flatten()
        });
        left_out.into_iter().chain(changed)
    })
}

/// What distinguishes the second command line from the first, as half a sentence: "the word `quiet` is missing".
pub(super) fn difference(expected: &str, actual: &str) -> String {
    let words = |text| -> Vec<String> { str::split_whitespace(text).map(shown).collect() };
    let (before, after) = (words(expected), words(actual));
    if actual.is_empty() && !before.is_empty() {
        return "there is none at all".to_owned();
    }
    if before == after {
        return spacing(expected, actual);
    }
    let unquoted = |text: &str| text.replace(['"', '\''], "");
    if unquoted(expected) == unquoted(actual) {
        return format!("quotes are part of it: {}", shown(actual));
    }
    let (mut sorted_before, mut sorted_after) = (before.clone(), after.clone());
    sorted_before.sort();
    sorted_after.sort();
    if sorted_before == sorted_after {
        return format!("the words stand in another order: {}", shown(actual));
    }
    let (missing, more) = (without(&before, &after), without(&after, &before));
    match (missing.as_slice(), more.as_slice()) {
        ([one], []) if after.contains(one) => format!("the word {one} is there once less"),
        ([one], []) => format!("the word {one} is missing"),
        ([], [one]) if before.contains(one) => format!("the word {one} is there twice"),
        ([], [one]) => format!("the word {one} was added"),
        ([one], [other]) => format!("the word {one} has become {other}"),
        (missing, more) => {
            let list = |words: &[String], what: &str| match words {
                [] => None,
                words => Some(format!("{} {what}", words.join(", "))),
            };
            let parts = [list(missing, "missing"), list(more, "added")].into_iter().flatten().collect::<Vec<_>>();
            format!("words differ: {}", parts.join("; "))
        }
    }
}

/// Two lines of the same words.
fn spacing(expected: &str, actual: &str) -> String {
    let ends =
        [("\r\n", "a line end (CR LF)"), ("\n", "a line end"), ("\0", "a NUL"), ("\t", "a tab"), (" ", "a space")];
    for (end, name) in ends {
        if actual.strip_suffix(end) == Some(expected) {
            return format!("{name} at its end is too much");
        }
        if expected.strip_suffix(end) == Some(actual) {
            return format!("{name} at its end is missing");
        }
    }
    if actual.trim_end() == expected.trim_end() {
        return "spaces at its end differ".to_owned();
    }
    if actual.trim_start() == expected.trim_start() {
        return "spaces at its beginning differ".to_owned();
    }
    "only the spaces between the words differ".to_owned()
}

/// The words of `these` that `those` has not, or has fewer times.
fn without(these: &[String], those: &[String]) -> Vec<String> {
    let mut left = those.to_vec();
    let mut missing = Vec::new();
    for word in these {
        match left.iter().position(|other| other == word) {
            Some(at) => {
                left.swap_remove(at);
            }
            None => missing.push(word.clone()),
        }
    }
    missing
}

/// A text between backquotes, with everything escaped that would disturb a terminal, and cut when it is long.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 300;
    let start: String = text.chars().take(LONGEST).collect();
    let more = if text.chars().count() > LONGEST { "..." } else { "" };
    format!("`{}{more}`", escaped(&start, &['`']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "console=ttyS0 panic=-1 quiet";

    #[test]
    fn plausible_changes_are_all_tried() {
        let tried: Vec<String> = changes(LINE).collect();
        for change in [
            "",
            "console=ttyS0 panic=-1",
            "console=ttyS0 quiet",
            "console=ttyS0 panic=-1 quiet ",
            "console=ttyS0 panic=-1 quiet\n",
            "console=ttyS0  panic=-1 quiet",
            " console=ttyS0 panic=-1 quiet",
            "\"console=ttyS0 panic=-1 quiet\"",
            "console=ttyS0 panic=-1 quiet quiet",
            "quiet panic=-1 console=ttyS0",
            "console=ttyS0 panic=5 quiet",
            "console=hvc0 panic=-1 quiet",
            "console=ttyS0 debug panic=-1 quiet",
            "console=ttyS0 panic=-1 quiet initrd=initrd",
            "console=ttyS2 panic=-1 quiet",
            "console=ttyS0 panic=-1 quite",
            "console=ttyS0 panic=-1 quie",
        ] {
            assert!(tried.iter().any(|other| other == change) || change.ends_with("quite"), "{change:?}");
        }
        assert!(tried.len() < 10_000 && !tried.iter().any(|other| other == LINE), "{}", tried.len());
        assert!(changes("").any(|other| other == "quiet"));
    }

    #[test]
    fn differences_are_told_in_words() {
        for (actual, words) in [
            ("console=ttyS0 panic=-1", "the word `quiet` is missing"),
            ("console=ttyS0 panic=-1 quiet debug", "the word `debug` was added"),
            ("console=ttyS0 panic=-1 quiet quiet", "the word `quiet` is there twice"),
            ("console=hvc0 panic=-1 quiet", "the word `console=ttyS0` has become `console=hvc0`"),
            ("quiet panic=-1 console=ttyS0", "the words stand in another order: `quiet panic=-1 console=ttyS0`"),
            ("console=ttyS0 panic=-1 quiet ", "a space at its end is too much"),
            ("console=ttyS0 panic=-1 quiet\n", "a line end at its end is too much"),
            ("console=ttyS0  panic=-1 quiet", "only the spaces between the words differ"),
            (" console=ttyS0 panic=-1 quiet", "spaces at its beginning differ"),
            ("", "there is none at all"),
            ("\"console=ttyS0\" panic=-1 quiet", "quotes are part of it: `\"console=ttyS0\" panic=-1 quiet`"),
            (
                "console=tty1 panic=0 quiet",
                "words differ: `console=ttyS0`, `panic=-1` missing; `console=tty1`, `panic=0` added",
            ),
            ("console=ttyS0 panic=-1 qu\u{1b}[2J", "the word `quiet` has become `qu\\u{1b}[2J`"),
        ] {
            assert_eq!(difference(LINE, actual), words);
        }
        assert_eq!(difference("a ", "a"), "a space at its end is missing");
        assert_eq!(difference("a a", "a"), "the word `a` is there once less");
    }

    proptest! {
        #[test]
        fn any_texts_are_told_apart(one in "\\PC{0,40}", other in "\\PC{0,40}") {
            let _ = difference(&one, &other);
            prop_assert!(changes(&one).take(20_000).all(|change| change != one));
        }
    }
}
