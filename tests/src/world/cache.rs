//! Folders that are made once and then only read: filled beside their place, moved there when complete.
//! Does not trust that a fill is ever finished: what an interrupted one left is thrown away by the next.
//! Never changes a folder that is already there.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::{Progress, Result, error::WorldError};

/// A folder of such folders. Many processes may use it at once; one at a time fills.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// Proof that this process alone fills the cache; given up when dropped.
pub(crate) struct Filling<'a> {
    cache: &'a Cache,
    _lock: File,
}

impl Cache {
    pub(crate) fn at(folder: PathBuf) -> Cache {
        Cache { folder }
    }

    /// The folder of that name, if it is complete. Needs no lock, because a move is all or nothing.
    pub(crate) fn complete(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name)).filter(|folder| folder.is_dir())
    }

    /// Names of all complete folders, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    /// Waits until no other process fills this cache. Look again with [`Cache::complete`] afterwards.
    pub(crate) fn lock(&self, progress: &Progress) -> Result<Filling<'_>> {
        fs::create_dir_all(&self.folder).map_err(WorldError::file("make", &self.folder))?;
        let path = self.folder.join(".lock");
        let file = File::create(&path).map_err(WorldError::file("make", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.line("another process is preparing the same; waiting for it");
                file.lock().map_err(WorldError::file("lock", &path))?;
            }
            Err(TryLockError::Error(source)) => return Err(WorldError::file("lock", &path)(source)),
        }
        Ok(Filling { cache: self, _lock: file })
    }
}

impl Filling<'_> {
    /// Lets `fill` work in an empty folder beside the final place and moves it there when it succeeded.
    pub(crate) fn fill(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let partial = self.cache.folder.join(format!(".partial-{name}"));
        let done = self.cache.folder.join(name);
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(WorldError::file("remove", &partial))?;
        }
        fs::create_dir_all(&partial).map_err(WorldError::file("make", &partial))?;
        fill(&partial)?;
        fs::rename(&partial, &done).map_err(WorldError::file("move into place", &done))?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_fill_leaves_nothing_behind_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("things"));
        let filling = cache.lock(&Progress::silent()).unwrap();
        let broken = filling.fill("a", |dir| {
            fs::write(dir.join("half"), b"x").unwrap();
            Err(WorldError::unusable("a", "interrupted", "try again"))
        });
        assert!(broken.is_err() && cache.complete("a").is_none() && cache.names().is_empty());
        let whole = filling.fill("a", |dir| {
            assert!(!dir.join("half").exists(), "the next fill starts empty");
            fs::write(dir.join("whole"), b"x").map_err(WorldError::file("write", dir))
        });
        assert_eq!(fs::read(whole.unwrap().join("whole")).unwrap(), b"x");
        assert_eq!(cache.names(), ["a"]);
    }

    #[test]
    fn only_one_fills_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().into());
        let filling = cache.lock(&Progress::silent()).unwrap();
        let second = File::open(dir.path().join(".lock")).unwrap();
        assert!(second.try_lock().is_err());
        drop(filling);
        second.lock().unwrap();
    }
}
