//! One ordered table that is printed as text for people and as JSON for programs, so that the two never say different
//! things. Text is cleaned of what would steer a terminal. Knows nothing of what it shows.

use crate::audit::hex;
use crate::fault::printable;
use serde_json::Value;

/// What stands beside a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Text, or bytes in lower-case hexadecimal.
    Text(String),
    /// A number below 2^53, which JSON readers keep; larger ones are written with [`bits`].
    Number(u64),
    /// A small number of either sign.
    Signed(i8),
    /// Yes or no.
    Truth(bool),
    /// Not stated.
    Absent,
    /// Several of a kind.
    List(Vec<Cell>),
    /// A table inside of the table.
    Group(Rows),
}

/// Names and what stands beside them, in the order in which people read them.
pub(super) type Rows = Vec<(String, Cell)>;

/// A row.
pub(super) fn row(name: impl Into<String>, cell: impl Into<Cell>) -> (String, Cell) {
    (name.into(), cell.into())
}

/// A 64-bit field as hexadecimal text: JSON numbers lose its high bits.
pub(super) fn bits(value: u64) -> Cell {
    Cell::Text(format!("{value:#x}"))
}

impl From<&[u8]> for Cell {
    fn from(bytes: &[u8]) -> Self {
        Self::Text(hex(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Cell {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Text(hex(bytes))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Cell {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<Rows> for Cell {
    fn from(rows: Rows) -> Self {
        Self::Group(rows)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::Absent, Into::into)
    }
}

impl FromIterator<Cell> for Cell {
    fn from_iter<I: IntoIterator<Item = Cell>>(cells: I) -> Self {
        Self::List(cells.into_iter().collect())
    }
}

impl From<&Cell> for Value {
    fn from(cell: &Cell) -> Self {
        match cell {
            Cell::Text(text) => Self::from(text.as_str()),
            Cell::Number(number) => Self::from(*number),
            Cell::Signed(number) => Self::from(*number),
            Cell::Truth(truth) => Self::from(*truth),
            Cell::Absent => Self::Null,
            Cell::List(cells) => Self::Array(cells.iter().map(Self::from).collect()),
            Cell::Group(rows) => rows.iter().map(|(name, cell)| (name.clone(), Self::from(cell))).collect(),
        }
    }
}

/// The rows as JSON.
pub(super) fn json(rows: &Rows) -> Value {
    rows.iter().map(|(name, cell)| (name.clone(), Value::from(cell))).collect()
}

/// The rows as lines, a name and its value each; a group's names stand after the group's, with a point between them.
pub(super) fn text(rows: &Rows) -> String {
    let mut lines = Vec::new();
    flatten("", rows, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| format!("{name:width$}  {value}\n");
    lines.iter().map(line).collect()
}

fn flatten(within: &str, rows: &Rows, lines: &mut Vec<(String, String)>) {
    for (name, cell) in rows {
        let name = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
        match cell {
            Cell::Group(rows) if !short(rows) => flatten(&name, rows, lines),
            Cell::List(cells) if cells.iter().any(|cell| matches!(cell, Cell::Group(_))) => {
                for (number, cell) in cells.iter().enumerate() {
                    lines.push((format!("{name}[{number}]"), inline(cell)));
                }
            }
            cell => lines.push((name, inline(cell))),
        }
    }
}

/// Whether a group is read best on one line: a version, a row of patch levels.
fn short(rows: &Rows) -> bool {
    rows.iter().all(|(_, cell)| matches!(cell, Cell::Number(_) | Cell::Signed(_) | Cell::Absent))
}

/// A cell on one line.
fn inline(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => printable(text),
        Cell::Number(number) => number.to_string(),
        Cell::Signed(number) => number.to_string(),
        Cell::Truth(true) => "yes".to_owned(),
        Cell::Truth(false) => "no".to_owned(),
        Cell::Absent => "-".to_owned(),
        Cell::List(cells) if cells.is_empty() => "none".to_owned(),
        Cell::List(cells) => cells.iter().map(inline).collect::<Vec<_>>().join(" "),
        Cell::Group(rows) => {
            rows.iter().map(|(name, cell)| format!("{name}={}", inline(cell))).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Rows {
        let event = |pcr: u32| Cell::from(vec![row("pcr", pcr), row("digest", &[0xab; 2])]);
        vec![
            row("platform", "tdx"),
            row("attributes", vec![row("debug", false), row("bits", bits(u64::MAX))]),
            row("version", vec![row("major", 1u32), row("minor", None::<u32>)]),
            row("owner", None::<&str>),
            row("advisories", ["a", "b"].map(Cell::from).into_iter().collect::<Cell>()),
            row("events", [event(0), event(7)].into_iter().collect::<Cell>()),
            row("name", "\u{1b}[2J\u{202e}"),
        ]
    }

    #[test]
    fn text_is_aligned_flat_and_cannot_steer_a_terminal() {
        let expected = "\
platform          tdx
attributes.debug  no
attributes.bits   0xffffffffffffffff
version           major=1 minor=-
owner             -
advisories        a b
events[0]         pcr=0 digest=abab
events[1]         pcr=7 digest=abab
name              ?[2J?
";
        assert_eq!(text(&sample()), expected);
    }

    #[test]
    fn json_keeps_types_and_structure() {
        let expected = serde_json::json!({
            "platform": "tdx", "attributes": {"debug": false, "bits": "0xffffffffffffffff"},
            "version": {"major": 1, "minor": null}, "owner": null,
            "advisories": ["a", "b"], "events": [{"pcr": 0, "digest": "abab"}, {"pcr": 7, "digest": "abab"}],
            "name": "\u{1b}[2J\u{202e}",
        });
        assert_eq!(json(&sample()), expected);
    }
}
