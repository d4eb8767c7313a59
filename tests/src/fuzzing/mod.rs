//! The fuzz targets of `tests/fuzz`, built and run with the pinned compiler: coverage counters are a pass of its code
//! generator, and libFuzzer comes as source with a crate. So neither a nightly toolchain nor cargo-fuzz is needed.
//!
//! Trusts the targets' sources as it trusts this repository. What they are fed is hostile, and they run as ordinary
//! processes: nothing here confines them. Never judges by time, but for libFuzzer's own limit of ten seconds an input.

mod lock;
mod run;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::world::{Result, World, WorldError};

pub use run::{Outcome, Run, run_all};

/// What finds more than panics. Our own crates contain no `unsafe`; some of their dependencies do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sanitizer {
    /// None: overflow checks, debug assertions and limits of time and memory only. Fast, and nothing but stable options.
    None,
    /// AddressSanitizer with its leak check. An unstable option, which the pinned compiler takes when told that it may.
    Address,
}

/// Options of the compiler that give every block, comparison and call a counter (LLVM, "SanitizerCoverage"): those that
/// libFuzzer reads.
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
];

/// Where targets are and what belongs to them goes. Holds paths only.
#[derive(Debug, Clone)]
pub struct Fuzzing {
    package: PathBuf,
    workspace: PathBuf,
    target: PathBuf,
    sanitizer: Sanitizer,
}

impl Fuzzing {
    /// The targets of this checkout; corpora, finds and logs below `target/fuzz`.
    pub fn here(world: &World, sanitizer: Sanitizer) -> Fuzzing {
        let folder = match sanitizer {
            Sanitizer::None => "plain",
            Sanitizer::Address => "address",
        };
        Fuzzing {
            package: world.repository().join("tests/fuzz"),
            workspace: world.repository().to_path_buf(),
            target: world.target().join("fuzz").join(folder),
            sanitizer,
        }
    }

    /// Names of all targets, sorted: one for each file of `fuzz_targets`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn targets(&self) -> Result<Vec<String>> {
        let folder = self.package.join("fuzz_targets");
        let listing = std::fs::read_dir(&folder).map_err(WorldError::file("read", &folder))?;
        let mut names = Vec::new();
        for entry in listing {
            let path = entry.map_err(WorldError::file("read", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Builds `targets` and gives the program of each. Foreign crates have the versions that are shipped.
    ///
    /// # Errors
    /// The build fails, a version differs, or a file of `fuzz_targets` has no `[[bin]]`.
    pub fn build(&self, targets: &[String]) -> Result<Vec<(String, PathBuf)>> {
        lock::follow(&self.workspace.join("Cargo.lock"), &self.package.join("Cargo.lock"))?;
        let tuple = self.host_tuple()?;
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--release", "--target", &tuple, "--target-dir"]).arg(&self.target);
        for name in targets {
            cargo.args(["--bin", name]);
        }
        // With a target named, these options are not for build scripts and macros.
        let mut options = COVERAGE.to_vec();
        if self.sanitizer == Sanitizer::Address {
            options.push("-Zsanitizer=address");
            cargo.env("RUSTC_BOOTSTRAP", "1");
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", options.join("\x1f")).current_dir(&self.package).stdin(Stdio::null());
        let status = cargo.status().map_err(|source| WorldError::Start { command: "cargo build".into(), source })?;
        if !status.success() {
            let next = "read what cargo said above; libFuzzer is compiled by `c++`, which the package g++ brings";
            return Err(WorldError::unusable("tests/fuzz", "it does not build", next));
        }
        lock::compare(&self.workspace.join("Cargo.lock"), &self.package.join("Cargo.lock"))?;
        let folder = self.target.join(tuple).join("release");
        targets.iter().map(|name| program(&folder, name)).collect()
    }

    /// The folder that a target's inputs, its finds or its words are kept in; made if it is missing.
    fn folder(&self, kind: &str, target: &str) -> Result<PathBuf> {
        let folder = self.target.join(kind).join(target);
        std::fs::create_dir_all(&folder).map_err(WorldError::file("make", &folder))?;
        Ok(folder)
    }

    fn host_tuple(&self) -> Result<String> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
        let said = Command::new(rustc).args(["--print", "host-tuple"]).current_dir(&self.workspace).output();
        let said = said.map_err(|source| WorldError::Start { command: "rustc --print host-tuple".into(), source })?;
        let tuple = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        if tuple.is_empty() {
            return Err(WorldError::unusable("rustc", "it does not say what it runs on", "use the pinned toolchain"));
        }
        Ok(tuple)
    }
}

fn program(folder: &Path, name: &str) -> Result<(String, PathBuf)> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok((name.to_owned(), path));
    }
    let next = "give it a [[bin]] in tests/fuzz/Cargo.toml";
    Err(WorldError::unusable("tests/fuzz", format!("{name} was not built"), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_target_and_every_target_is_a_file() {
        let fuzzing = Fuzzing::here(&World::here(), Sanitizer::None);
        let manifest = std::fs::read_to_string(fuzzing.package.join("Cargo.toml")).unwrap();
        let mut named: Vec<&str> = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
            .collect();
        named.sort_unstable();
        assert_eq!(fuzzing.targets().unwrap(), named);
        assert!(named.len() > 17, "{named:?}");
    }
}
