//! The lock file of `tests/fuzz` says what that of the workspace says: what is fuzzed is what is shipped. It is made from
//! it and never committed; only libFuzzer's own two crates are foreign to the workspace, and their versions are fixed in
//! the manifest.

use std::collections::BTreeSet;
use std::path::Path;

use crate::world::{Result, WorldError};

/// The package itself, and what it alone brings.
const OWN: [&str; 3] = ["inwit-fuzz", "libfuzzer-sys", "arbitrary"];

/// Puts the workspace's lock file in place of one that is missing or says something else. Cargo adds what is [`OWN`].
pub(super) fn follow(workspace: &Path, fuzz: &Path) -> Result<()> {
    if fuzz.is_file() && compare(workspace, fuzz).is_ok() {
        return Ok(());
    }
    std::fs::copy(workspace, fuzz).map(drop).map_err(WorldError::file("write", fuzz))
}

/// Whether every package of the one is in the other, in the same version.
pub(super) fn compare(workspace: &Path, fuzz: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(WorldError::file("read", path));
    match strangers(&read(workspace)?, &read(fuzz)?).as_slice() {
        [] => Ok(()),
        strangers => {
            let cause = format!("it has versions that the workspace does not ship: {}", strangers.join(", "));
            let next = "name the same version in tests/fuzz/Cargo.toml as in the workspace's lock file";
            Err(WorldError::unusable("tests/fuzz/Cargo.lock", cause, next))
        }
    }
}

fn strangers(workspace: &str, fuzz: &str) -> Vec<String> {
    let shipped = packages(workspace);
    let fuzzed = packages(fuzz).into_iter().filter(|(name, _)| !OWN.contains(name));
    fuzzed.filter(|package| !shipped.contains(package)).map(|(name, version)| format!("{name} {version}")).collect()
}

/// Names and versions: two lines that follow each other.
fn packages(lock: &str) -> BTreeSet<(&str, &str)> {
    let lines = lock.lines();
    lines
        .clone()
        .zip(lines.skip(1))
        .filter_map(|(name, version)| Some((text("name", name)?, text("version", version)?)))
        .collect()
}

fn text<'a>(key: &str, line: &'a str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_and_another_package_are_found() {
        let shipped =
            "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
        let own = "[[package]]\nname = \"arbitrary\"\nversion = \"9.0.0\"\n";
        assert_eq!(strangers(shipped, &[shipped, own].concat()), [""; 0]);
        let other = shipped.replace("2.0.0", "2.0.1") + "[[package]]\nname = \"c\"\nversion = \"1.0.0\"\n";
        assert_eq!(strangers(shipped, &other), ["b 2.0.1", "c 1.0.0"]);
    }
}
