//! What an import says: everything that was taken, what it replaced and what was there already, each with its dates and
//! its digest; and where it was declined, why, and what somebody can do who meant it.

use super::Done;
use super::endorsement_store::{self as store, Declined, Item, Plan};
use super::table::{Cell, Rows, json, row};
use crate::audit::hex;
use crate::fault::printable;
use std::path::PathBuf;

/// For programs.
pub(super) fn imported(plan: &Plan) -> Rows {
    let told = |item: &Item| Cell::from(store::told(item));
    let mut replaced = Vec::new();
    for taken in &plan.taken {
        for kept in &taken.replaced {
            replaced.push(Cell::from(vec![row("old", told(&kept.item)), row("new", told(&taken.item))]));
        }
    }
    vec![
        row("imported", true),
        row("taken", plan.taken.iter().map(|taken| told(&taken.item)).collect::<Cell>()),
        row("replaced", replaced.into_iter().collect::<Cell>()),
        row("unchanged", plan.unchanged.iter().map(told).collect::<Cell>()),
        row("set_aside", aside(&plan.set_aside)),
    ]
}

fn aside(set_aside: &[(PathBuf, String)]) -> Cell {
    let entry = |(path, reason): &(PathBuf, String)| {
        Cell::from(vec![row("file", path.display().to_string()), row("reason", reason.as_str())])
    };
    set_aside.iter().map(entry).collect()
}

/// One endorsement on a line.
fn short(item: &Item) -> String {
    let until = item.window.map(|window| format!(", {} to {}", store::date(window.from), store::date(window.until)));
    format!("{}{}, SHA-256 {}", item.name, until.unwrap_or_default(), hex(&item.digest()))
}

/// For people.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for taken in &plan.taken {
        let act = if taken.item.kind.is_root() { "trusted" } else { "taken" };
        lines.push(format!("{act}: {}", short(&taken.item)));
        lines.extend(taken.replaced.iter().map(|kept| format!("  in place of: {}", short(&kept.item))));
    }
    lines.extend(plan.unchanged.iter().map(|item| format!("there already: {}", short(item))));
    lines.extend(plan.set_aside.iter().map(|(path, reason)| format!("not used: {}: {reason}", path.display())));
    lines.iter().map(|line| printable(line)).collect()
}

/// What the person can do about it, and that nothing was changed.
pub(super) fn declined(why: &Declined) -> Done {
    let (cause, each, next, what) = match why {
        Declined::Roots(roots) => {
            let each = roots.iter().map(|(path, item)| format!("{}: {}", path.display(), short(item))).collect();
            let next = "compare each digest with the vendor's, then name a file of the root alone, or its digest with --trust-root";
            let items = roots.iter().map(|(_, item)| Cell::from(store::told(item))).collect::<Cell>();
            ("nobody vouched for a root", each, next, items)
        }
        Declined::Older(older) => {
            let each = older.iter().map(|(path, item, stored)| {
                format!("{}: {} {}, stored is that {}", path.display(), item.name, age(item), age(stored))
            });
            let items = older.iter().map(|(_, item, _)| Cell::from(store::told(item))).collect::<Cell>();
            let next = "import a newer one; only if you mean to go back, --accept-older";
            ("older than what is stored", each.collect(), next, items)
        }
        Declined::Unusable(unusable) => {
            let each = unusable.iter().map(|(path, reason)| format!("{}: {reason}", path.display())).collect();
            ("not usable under a trusted root", each, "import whole answers with their issuer chains", aside(unusable))
        }
        Declined::Nothing(set_aside) => {
            let each = set_aside.iter().map(|(path, reason)| format!("{}: {reason}", path.display())).collect();
            let next = "import the root first, or together with what it signed";
            ("nothing in it counts here", each, next, aside(set_aside))
        }
    };
    let each: Vec<String> = each;
    let lines: String = each.iter().map(|line| format!("  {}\n", printable(line))).collect();
    let text = format!("not imported, nothing was changed: {cause}\n{lines}next: {next}");
    let cause = format!("{cause}: {}", each.join("; "));
    let said = vec![row("imported", false), row("cause", cause), row("next", next), row("declined", what)];
    Done::Refused(text, json(&said))
}

/// How new one is, as the order of replacement sees it.
fn age(item: &Item) -> String {
    let from = item.window.map(|window| store::date(window.from)).unwrap_or_default();
    match item.rank.0 {
        0 => format!("of {from}"),
        number => format!("of {from} with tcbEvaluationDataNumber {number}"),
    }
}
