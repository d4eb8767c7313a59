//! What the store holds now, file by file, in the layout that `endorsement_files` describes. A file that is not understood
//! is named, for it has no effect.

use super::super::endorsement_kinds::{Piece, recognise};
use super::super::endorsement_sources::Place;
use super::item::{Item, Kind, items};
use crate::fault::Fault;
use crate::files;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest endorsement file, in bytes.
const FILE_LIMIT: usize = 4_194_304;
/// Deepest folder below a root's.
const DEPTH: usize = 2;

/// One stored endorsement.
#[derive(Clone, Debug)]
pub(in super::super) struct Kept {
    /// The file, from the store's folder on.
    pub(in super::super) path: PathBuf,
    /// The folder of its root, from the store's folder on.
    pub(in super::super) folder: PathBuf,
    pub(in super::super) item: Item,
}

/// Everything in the store, and the files in it that have no effect.
///
/// # Errors
/// What cannot be read.
pub(in super::super) fn read(store: &Path) -> Result<(Vec<Kept>, Vec<PathBuf>), Fault> {
    let mut folders: Vec<PathBuf> = entries(&store.join("snp"))?.into_iter().collect();
    folders.extend(entries(&store.join("tdx"))?);
    folders.push(store.join("vtpm"));
    let relative = |path: &Path| path.strip_prefix(store).unwrap_or(path).to_owned();
    let (mut kept, mut without_effect) = (Vec::new(), Vec::new());
    for folder in folders {
        for path in below(&folder, DEPTH)? {
            let items = of_file(&path, &files::read(&path, FILE_LIMIT)?);
            if items.is_empty() {
                without_effect.push(relative(&path));
            }
            let of = |item| Kept { path: relative(&path), folder: relative(&folder), item };
            kept.extend(items.into_iter().map(of));
        }
    }
    kept.sort_by_cached_key(|kept| (kept.folder.clone(), kept.item.kind.depth(), kept.item.name.clone()));
    Ok((kept, without_effect))
}

/// What one stored file holds, each thing once.
fn of_file(path: &Path, bytes: &[u8]) -> Vec<Item> {
    let inside = |piece: Piece| items(piece, Place::Named).unwrap_or_default();
    let found = recognise(bytes).unwrap_or_default().into_iter().flat_map(inside).map(|(item, _)| item);
    let root = path.file_name().is_some_and(|name| name == "root.der" || name == "ark.der");
    let mut all: Vec<Item> = Vec::new();
    for item in found {
        // A root counts in its own file alone: the one that collateral brings along is nothing to the store.
        let counts = root || !item.kind.is_root() || item.kind == Kind::AttestationKey;
        if counts && !all.contains(&item) {
            all.push(item);
        }
    }
    all
}

/// The files of a folder, those of the folders in it last.
fn below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>, Fault> {
    let (folders, mut files): (Vec<_>, Vec<_>) = entries(folder)?.into_iter().partition(|path| path.is_dir());
    for folder in folders {
        match depth.checked_sub(1) {
            Some(depth) => files.extend(below(&folder, depth)?),
            None => return Err(Fault::of(folder.display(), "a folder deeper than the store has any: take it away")),
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<BTreeSet<PathBuf>, Fault> {
    if !folder.is_dir() {
        return Ok(BTreeSet::new());
    }
    let failed = |error| Fault::of(folder.display(), error);
    let listing = fs::read_dir(folder).map_err(failed)?;
    listing.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}
