//! What is in the store, as a table for people and as rows for programs: what it is, who issued it, from when until when it
//! counts, how old it is, and its digest. Judges nothing; the moment is an argument.

use super::super::table::{Cell, Rows, row};
use super::homes::unverified;
use super::item::Item;
use super::stored::Kept;
use crate::audit::hex;
use crate::evidence::x509::Window;
use crate::fault::printable;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const DAY: u64 = 86_400;

/// A moment as RFC 3339; a number where it lies outside of the years that have a date.
pub(in super::super) fn date(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

/// The day of a moment.
pub(super) fn day(seconds: u64) -> String {
    date(seconds).split('T').next().unwrap_or_default().to_owned()
}

/// Whole days from one moment to a later one.
pub(super) fn days(from: u64, to: u64) -> u64 {
    to.saturating_sub(from).checked_div(DAY).unwrap_or(0)
}

/// One endorsement as it is told of everywhere.
pub(in super::super) fn told(item: &Item) -> Rows {
    let moment = |of: fn(Window) -> u64| item.window.map(|window| date(of(window)));
    vec![
        row("platform", item.kind.platform().text()),
        row("name", item.name.as_str()),
        row("issuer", Some(item.issuer.as_str()).filter(|issuer| !issuer.is_empty())),
        row("from", moment(|window| window.from)),
        row("until", moment(|window| window.until)),
        row("sha256", hex(&item.digest())),
    ]
}

/// Everything in the store: text with a line each, and the same as rows.
pub(in super::super) fn list(kept: &[Kept], at: u64) -> (String, Cell) {
    let mut lines = vec![["PLATFORM", "WHAT", "ISSUER", "FROM", "UNTIL", "AGE", "SHA-256"].map(str::to_owned)];
    let mut rows = Vec::new();
    let unverified = unverified(kept);
    for Kept { path, item, .. } in kept {
        let is_unverified = unverified.contains(&item.digest());
        let age = item.window.map(|window| days(window.from, at));
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        lines.push([
            item.kind.platform().text().to_owned(),
            if is_unverified { format!("{} (unverified)", item.name) } else { item.name.clone() },
            if item.issuer.is_empty() { "-".to_owned() } else { item.issuer.clone() },
            or_none(item.window.map(|window| day(window.from))),
            or_none(item.window.map(|window| day(window.until))),
            or_none(age.map(|days| format!("{days} d"))),
            hex(&item.digest()),
        ]);
        let mut told = told(item);
        told.push(row("standing", is_unverified.then_some("unverified")));
        told.push(row("age_days", age.map(Cell::Number)));
        told.push(row("file", path.display().to_string()));
        rows.push(Cell::from(told));
    }
    (columns(&lines), rows.into_iter().collect())
}

/// Lines of words in columns as wide as their longest word.
pub(super) fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let shown: Vec<[String; N]> = lines.iter().map(|line| line.each_ref().map(|word| printable(word))).collect();
    let mut widths = [0; N];
    for line in &shown {
        for (width, word) in widths.iter_mut().zip(line) {
            *width = word.chars().count().max(*width);
        }
    }
    let line = |line: &[String; N]| {
        let words: Vec<String> = line.iter().zip(widths).map(|(word, width)| format!("{word:width$}")).collect();
        words.join("  ").trim_end().to_owned()
    };
    shown.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_people_and_programs_read_them() {
        assert_eq!(
            (date(1_780_272_000), day(1_780_272_000)),
            ("2026-06-01T00:00:00Z".to_owned(), "2026-06-01".to_owned())
        );
        assert_eq!(date(u64::MAX), u64::MAX.to_string());
        assert_eq!((days(0, 86_399), days(0, 86_400), days(5, 0)), (0, 1, 0));
    }

    #[test]
    fn columns_are_aligned_and_steer_nothing() {
        let lines = [["a", "bcd", "e"], ["\u{202e}xy", "b", "\u{1b}["]].map(|line| line.map(str::to_owned));
        assert_eq!(columns(&lines), "a    bcd  e\n?xy  b    ?[");
    }
}
