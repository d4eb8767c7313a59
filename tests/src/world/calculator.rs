//! An independent calculator of SNP launch digests, for tests to compare with: the Python package sev-snp-measure.
//! One release, told by the digest of its file, kept in `target/tools`; nothing of it is part of a product.
//! Never believed for anything but that comparison, never installed for the system's own Python.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Progress, Result, World, cache::Cache, command::Call, error::WorldError, find_program};

/// The package.
pub const PACKAGE: &str = "sev-snp-measure";
/// The release that was compared with.
pub const VERSION: &str = "0.0.13";
/// SHA-256 of its wheel.
const SHA256: &str = "feda1aebe69dcbf38e9c636ed1d082bb7dc741fc6969f197d39faddb72b2762d";

/// The folder that holds the Python package, if it is there.
pub fn installed(world: &World) -> Option<PathBuf> {
    cache(world).complete(&name())
}

/// Fetches the package if it is not there. What it needs for launch digests is Python alone: nothing else is fetched.
///
/// # Errors
/// No pip or no network; with pip's last words.
pub fn prepare(world: &World, progress: &Progress) -> Result<PathBuf> {
    if let Some(folder) = installed(world) {
        return Ok(folder);
    }
    let cache = cache(world);
    let filling = cache.lock(progress)?;
    if let Some(folder) = installed(world) {
        return Ok(folder);
    }
    progress.note(&format!("fetching {PACKAGE} {VERSION}"));
    filling.fill(&name(), |folder| fetch(folder, progress))
}

fn fetch(folder: &Path, progress: &Progress) -> Result<()> {
    let pinned = folder.join("requirements.txt");
    let text = format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n");
    fs::write(&pinned, text).map_err(WorldError::file("write", &pinned))?;
    let options = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"];
    let call = Call::to("pip3")?.args(options).arg("--requirement").arg(&pinned).arg("--target").arg(folder);
    let call = call.set("PIP_ROOT_USER_ACTION", "ignore").set("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    call.limit(Duration::from_secs(120)).run_retrying(3, |line| progress.note(line)).map(drop)
}

/// Python with the package in its path and a script to run.
///
/// # Errors
/// Not prepared yet, or no Python.
pub fn python(world: &World, script: &str) -> Result<Command> {
    let folder = installed(world).ok_or_else(|| WorldError::unusable(PACKAGE, "not installed", "run inwit-setup"))?;
    let python = find_program("python3").ok_or_else(|| WorldError::NoProgram { program: "python3".into() })?;
    let mut command = Command::new(python);
    command.args(["-B", "-c", script]).env("PYTHONPATH", folder);
    Ok(command)
}

fn cache(world: &World) -> Cache {
    Cache::at(world.tools().join("python"))
}

fn name() -> String {
    format!("{PACKAGE}-{VERSION}")
}

#[cfg(test)]
mod tests {
    use super::super::setup::{Step, ready_or_told};
    use super::*;

    #[test]
    fn the_pinned_release_answers() {
        let world = World::here();
        if !ready_or_told(&world, "launch calculator", &[Step::Calculator]).unwrap() {
            return;
        }
        let script = "from sevsnpmeasure import cli, guest; print(cli.VERSION)";
        let output = python(&world, script).unwrap().output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), VERSION, "{output:?}");
    }
}
