//! A place for one virtual machine: at most two run at once on a machine, across all processes of a user.
//! Translated guests want a processor each; more at once only make all of them run into their time limits.
//! Does not trust a process to give its place back: the kernel does when the process ends.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{Result, error::WorldError};

const PLACES: usize = 2;
const PATIENCE: Duration = Duration::from_secs(1800);

/// Held while a virtual machine runs.
#[derive(Debug)]
pub(crate) struct Slot {
    _lock: File,
}

impl Slot {
    /// Waits for a place, up to half an hour.
    pub(crate) fn take() -> Result<Slot> {
        let user = nix::unistd::geteuid();
        take_in(&std::env::temp_dir().join(format!("inwit-vm-places-{user}")), PATIENCE)
    }
}

fn take_in(folder: &Path, patience: Duration) -> Result<Slot> {
    if !folder.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(WorldError::file("make", folder))?;
    }
    let deadline = Instant::now() + patience;
    let places: Vec<PathBuf> = (0..PLACES).map(|number| folder.join(number.to_string())).collect();
    loop {
        for place in &places {
            let lock = File::create(place).map_err(WorldError::file("make", place))?;
            if lock.try_lock().is_ok() {
                return Ok(Slot { _lock: lock });
            }
        }
        if Instant::now() >= deadline {
            let cause = format!("{PLACES} others have been running for {} s", patience.as_secs());
            return Err(WorldError::unusable("virtual machine", cause, "end them or try again later"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_waits_until_one_of_two_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let take = || take_in(dir.path(), Duration::from_millis(1));
        let first = take().unwrap();
        let _second = take().unwrap();
        assert!(take().is_err());
        drop(first);
        // A child that another test is just starting may hold a copy of the lock for a moment.
        take_in(dir.path(), Duration::from_secs(5)).unwrap();
    }
}
