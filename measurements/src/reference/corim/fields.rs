//! The parts that manifests are made of, each taken with the path at which it stood.
//!
//! Not trusted: the items. What is not taken is refused at the end of its map.

use std::collections::BTreeMap;

use super::{SHA256, SHA384};
use crate::cbor::Item;
use crate::digest::Digest;
use crate::reference::ReferenceError;
use crate::reference::form::Form;

pub(super) type Read<T> = Result<T, ReferenceError>;

pub(super) fn refuse(field: &str, problem: &str) -> ReferenceError {
    Form::Corim.refuse(field, problem)
}

/// The fields of a map, each to be taken by its number.
pub(super) struct Fields<'a> {
    entries: Vec<(Item<'a>, Item<'a>)>,
    at: String,
}

impl<'a> Fields<'a> {
    pub(super) fn of(item: Item<'a>, at: &str) -> Read<Self> {
        match item {
            Item::Map(entries) => Ok(Self { entries, at: at.to_owned() }),
            other => Err(refuse(at, &format!("expected a map, found {}", shown(&other)))),
        }
    }

    pub(super) fn take(&mut self, key: u64) -> Option<Item<'a>> {
        let position = self.entries.iter().position(|(entry, _)| *entry == Item::Unsigned(key))?;
        Some(self.entries.swap_remove(position).1)
    }

    pub(super) fn need(&mut self, key: u64, name: &str) -> Read<Item<'a>> {
        self.take(key).ok_or_else(|| refuse(&self.at, &format!("{name} ({key}) is missing")))
    }

    /// Refuses what was not taken.
    pub(super) fn end(self) -> Read<()> {
        match self.entries.first() {
            None => Ok(()),
            Some((key, _)) => {
                let problem = format!("field {} is not understood here: what it demands would be lost", shown(key));
                Err(refuse(&self.at, &problem))
            }
        }
    }
}

pub(super) fn array<'a>(item: Item<'a>, at: &str) -> Read<Vec<Item<'a>>> {
    match item {
        Item::Array(items) => Ok(items),
        other => Err(refuse(at, &format!("expected a list, found {}", shown(&other)))),
    }
}

pub(super) fn text(item: Item<'_>, at: &str) -> Read<String> {
    match item {
        Item::Text(text) => Ok(text.into_owned()),
        other => Err(refuse(at, &format!("expected a text, found {}", shown(&other)))),
    }
}

/// The only digest of a list, of the algorithm that its length is of.
pub(super) fn digest<const N: usize>(item: Item<'_>, at: &str) -> Read<Digest<N>> {
    let list = array(item, at)?;
    let count = list.len();
    let Ok([digest]) = <[_; 1]>::try_from(list) else {
        return Err(refuse(at, &format!("expected one digest, found {count}")));
    };
    let Ok([algorithm, value]) = <[_; 2]>::try_from(array(digest, at)?) else {
        return Err(refuse(at, "a digest is [algorithm, value]"));
    };
    let (number, name) = if N == 32 { (SHA256, "sha-256") } else { (SHA384, "sha-384") };
    if algorithm != Item::Unsigned(number) && algorithm != Item::text(name) {
        return Err(refuse(at, &format!("the algorithm is {}, not {name} ({number})", shown(&algorithm))));
    }
    let Item::Bytes(value) = value else { return Err(refuse(at, "the value of a digest is a byte string")) };
    let value = <[u8; N]>::try_from(&*value)
        .map_err(|_| refuse(at, &format!("a digest of {name} has {N} bytes, not {}", value.len())))?;
    Ok(value.into())
}

/// `integrity-registers`: one digest for each number.
pub(super) fn registers<const N: usize>(item: Item<'_>, at: &str) -> Read<BTreeMap<u64, Digest<N>>> {
    let Item::Map(entries) = item else { return Err(refuse(at, "integrity-registers are a map")) };
    let register = |(index, value)| match index {
        Item::Unsigned(index) => Ok((index, digest(value, &format!("{at}[{index}]"))?)),
        other => Err(refuse(at, &format!("the register {} is not known", shown(&other)))),
    };
    entries.into_iter().map(register).collect()
}

/// An item in a few words.
pub(super) fn shown(item: &Item<'_>) -> String {
    match item {
        Item::Unsigned(number) => number.to_string(),
        Item::Negative(number) => format!("-1-{number}"),
        Item::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Item::Text(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        Item::Array(_) => "a list".to_owned(),
        Item::Map(_) => "a map".to_owned(),
        Item::Tag(tag, _) => format!("something with tag {tag}"),
        Item::Simple(value) => format!("simple value {value}"),
    }
}
