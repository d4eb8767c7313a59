//! The endorsement store of a state folder: import from files and folders, what is in it, and what is missing or ends soon.
//! Everything is recognised by content, belongs to a root by a signature, and replaces only what is older. A root is taken
//! because the person named its file or its digest, never because it came along. Nothing is fetched, and a bad file
//! changes nothing.

mod check;
mod exchange;
mod homes;
mod item;
mod list;
mod plan;
mod precedence;
mod stored;

pub(super) use check::{Demands, check};
pub(super) use exchange::{add_files, apply, lock};
pub(super) use item::{Item, Kind};
pub(super) use list::{date, list, told};
pub(super) use plan::{Declined, Older, Plan, plan};
pub(super) use stored::read;
