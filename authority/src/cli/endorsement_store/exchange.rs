//! A new store beside the one in force, loaded as a whole, and only then in its place: a bad file changes nothing, and an
//! import that is cut off loses nothing. One import at a time.

use super::plan::Plan;
use super::stored::{self, Kept};
use crate::audit::hex;
use crate::endorsement_files;
use crate::fault::Fault;
use crate::files;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest endorsement file, in bytes.
const FILE_LIMIT: usize = 4_194_304;
/// Deepest folder below the store: platform, then name, then keys of chips.
const DEPTH: usize = 3;

/// The right to change a store, until it is dropped.
pub(in super::super) struct Lock(#[expect(dead_code, reason = "held for what its drop does")] fs::File);

/// Waits for whoever changes the same store.
pub(in super::super) fn lock(store: &Path) -> Result<Lock, Fault> {
    let parent = store.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error| Fault::of(parent.display(), error);
    let folder = fs::File::open(parent).map_err(failed)?;
    folder.lock().map_err(failed)?;
    // An earlier import that was cut off between its two renames left the folder that was in force under the other name.
    let last = store.with_extension("last");
    if !store.exists() && last.exists() {
        fs::rename(&last, store).map_err(|error| Fault::of(last.display(), error))?;
    }
    Ok(Lock(folder))
}

/// Puts files into one folder of the store under their own names, for who knows the layout.
pub(in super::super) fn add_files(_held: &Lock, store: &Path, place: &Path, sources: &[PathBuf]) -> Result<(), Fault> {
    exchange(store, |next| {
        for source in sources {
            let name = source.file_name().ok_or_else(|| Fault::of(source.display(), "not a file"))?;
            write(&next.join(place).join(name), &files::read(source, FILE_LIMIT)?)?;
        }
        Ok(())
    })
}

/// Carries out what was planned.
pub(in super::super) fn apply(_held: &Lock, store: &Path, plan: &Plan) -> Result<(), Fault> {
    if plan.taken.is_empty() {
        return Ok(());
    }
    exchange(store, |next| {
        let mut gone: BTreeMap<&Path, Vec<&Kept>> = BTreeMap::new();
        for kept in plan.taken.iter().flat_map(|taken| &taken.replaced) {
            gone.entry(&kept.path).or_default().push(kept);
        }
        let (stored, _) = stored::read(next)?;
        for (path, gone) in gone {
            // What else the same file holds stays, in files of its own.
            let of_file = stored.iter().filter(|kept| kept.path == path);
            for kept in of_file.filter(|kept| !gone.iter().any(|other| other.item == kept.item)) {
                write(&next.join(&kept.folder).join(kept.item.file()), &kept.item.bytes)?;
            }
            let path = next.join(path);
            fs::remove_file(&path).map_err(|error| Fault::of(path.display(), error))?;
        }
        for taken in &plan.taken {
            let path = next.join(&taken.folder).join(taken.item.file());
            if taken.item.kind == super::Kind::AttestationKey {
                append_line(&path, &hex(&taken.item.digest()))?;
            } else {
                write(&path, &taken.item.bytes)?;
            }
        }
        Ok(())
    })
}

fn append_line(path: &Path, line: &str) -> Result<(), Fault> {
    let mut text = if path.exists() { files::read_text(path, FILE_LIMIT)? } else { String::new() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    write(path, format!("{text}{line}\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| Fault::of(folder.display(), error))?;
    files::replace(path, bytes)
}

/// Builds the store anew with a change, checks it, and exchanges it for the one in force.
fn exchange(store: &Path, change: impl FnOnce(&Path) -> Result<(), Fault>) -> Result<(), Fault> {
    let (next, last) = (store.with_extension("next"), store.with_extension("last"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Fault::of(path.display(), error)
    };
    for left_over in [&next, &last].into_iter().filter(|path| path.exists()) {
        fs::remove_dir_all(left_over).map_err(failed(left_over))?;
    }
    copy(store, &next, DEPTH)?;
    if let Err(fault) = change(&next).and_then(|()| endorsement_files::load(&next).map(drop)) {
        fs::remove_dir_all(&next).map_err(failed(&next))?;
        return Err(Fault::new(format!("{fault}; nothing was changed")));
    }
    fs::set_permissions(&next, fs::Permissions::from_mode(0o700)).map_err(failed(&next))?;
    fs::rename(store, &last).map_err(failed(store))?;
    fs::rename(&next, store).map_err(failed(&next))?;
    let parent = store.parent().unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed(parent))?;
    fs::remove_dir_all(&last).map_err(failed(&last))
}

/// Copies plain files and folders.
fn copy(from: &Path, to: &Path, depth: usize) -> Result<(), Fault> {
    fs::create_dir_all(to).map_err(|error| Fault::of(to.display(), error))?;
    for entry in fs::read_dir(from).map_err(|error| Fault::of(from.display(), error))? {
        let path = entry.map_err(|error| Fault::of(from.display(), error))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        match depth.checked_sub(1) {
            Some(depth) if path.is_dir() => copy(&path, &target, depth)?,
            _ => files::replace(&target, &files::read(&path, FILE_LIMIT)?)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("endorsements");
        fs::create_dir_all(&folder).unwrap();
        let keys = root.path().join("attestation-keys");
        fs::write(&keys, "ab".repeat(32)).unwrap();
        (root, folder, keys)
    }

    fn import(folder: &Path, place: &str, sources: &[PathBuf]) -> Result<(), Fault> {
        add_files(&lock(folder).unwrap(), folder, Path::new(place), sources)
    }

    #[test]
    fn a_bad_file_changes_nothing() {
        let (root, folder, keys) = folders();
        import(&folder, "vtpm", std::slice::from_ref(&keys)).unwrap();
        fs::write(&keys, "not a key").unwrap();
        let fault = import(&folder, "vtpm", &[keys]).unwrap_err();
        assert!(fault.to_string().contains("nothing was changed"));
        assert_eq!(endorsement_files::load(&folder).unwrap().vtpm, [[0xab; 32]]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn an_import_that_was_cut_off_loses_nothing() {
        let (_root, folder, keys) = folders();
        import(&folder, "vtpm", std::slice::from_ref(&keys)).unwrap();
        // As a crash between the two renames leaves it.
        fs::rename(&folder, folder.with_extension("last")).unwrap();
        assert!(endorsement_files::load(&folder).is_err(), "a folder that is gone is not an empty one");
        let other = keys.with_file_name("ignored");
        fs::write(&other, "").unwrap();
        import(&folder, "notes", &[other]).unwrap();
        assert_eq!(endorsement_files::load(&folder).unwrap().vtpm, [[0xab; 32]]);
    }
}
