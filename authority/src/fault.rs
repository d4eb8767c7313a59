//! A fault of ours or of the operator's input: one line that names the cause, and the next step where there is one. What a
//! guest is told is a `Refusal`, never a fault's text. Does not trust what it is made of: names of files and words from
//! files can be somebody else's, and never reach the terminal with characters that would steer it.

use std::fmt;

/// One line of cause.
#[derive(Debug)]
pub struct Fault(String);

impl Fault {
    /// A fault with its cause.
    pub fn new(cause: impl Into<String>) -> Self {
        Self(cause.into())
    }

    /// A fault about a file or another named thing. The lines of a cause become one; those of a name do not count as such.
    pub fn of(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        let lines: Vec<&str> = cause.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self(format!("{what}: {}", lines.join(" ")))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl std::error::Error for Fault {}

/// Text for a terminal: control characters, and the formatting characters that reorder what is read (Unicode Standard
/// Annex 9, section 2), become `?`; everything else stays.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '?' } else { c }).collect()
}

/// JSON for a terminal: the same characters as JSON's own escapes, so that programs read what was there and a terminal is
/// not steered. Outside of strings JSON has none of them.
pub(crate) fn escaped(json: &serde_json::Value) -> String {
    let mut text = String::new();
    for c in json.to_string().chars() {
        if steers(c) {
            // None of them lies above the basic plane, where an escape would need two halves.
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

fn steers(c: char) -> bool {
    let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}');
    reorders || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_replaced_and_other_unicode_stays() {
        let name = "a\u{1b}[2J\u{9b}31m\u{7f}\r\nverdict: authentic\u{202e}fdp.\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}";
        let shown = "a?[2J?31m???verdict: authentic?fdp.?????";
        assert_eq!(Fault::of(name, "é 漢 \u{1f512} \u{627}").to_string(), format!("{shown}: é 漢 \u{1f512} \u{627}"));
        assert_eq!(Fault::new(name).to_string(), shown);
        assert_eq!(printable("é 漢 \u{1f512}\u{200d}"), "é 漢 \u{1f512}\u{200d}");
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain('\0'..' ') {
            assert_eq!(printable(&c.to_string()), "?", "{:x}", u32::from(c));
        }
    }

    #[test]
    fn json_reads_the_same_and_steers_nothing() {
        let name = "a\u{1b}[2J\u{9b}31m\u{7f}\r\n\u{202e}fdp.\u{2066}\u{61c} é 漢 \u{1f512}";
        let json = serde_json::json!({name: [name]});
        let text = escaped(&json);
        assert!(!text.chars().any(steers), "{text}");
        assert!(text.contains("\\u202e") && text.contains("é 漢 \u{1f512}"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), json);
    }

    #[test]
    fn a_cause_of_several_lines_becomes_one() {
        assert_eq!(Fault::of("f", "line 1\n  |\n\n1 | x\n").to_string(), "f: line 1 | 1 | x");
    }
}
