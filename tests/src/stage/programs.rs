//! The programs under test, built from this checkout: the guest alone and static, the authority and the shim as a
//! developer builds them, the workload by the bare compiler.

use super::{Result, StageError};
use crate::world::{Progress, World};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the built programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `inwit-guest`, static musl, profile `guest`.
    pub guest: PathBuf,
    /// `inwit-authority`.
    pub authority: PathBuf,
    /// `inwit-shim`.
    pub shim: PathBuf,
    /// The demonstration's workload, static musl.
    pub hello: PathBuf,
}

const TARGET: &str = "x86_64-unknown-linux-musl";

impl Programs {
    /// Builds what is not built; one build a process.
    pub fn build(world: &World, progress: &Progress) -> Result<&'static Self> {
        static BUILT: OnceLock<std::result::Result<Programs, String>> = OnceLock::new();
        let built = BUILT.get_or_init(|| Self::build_now(world, progress).map_err(|error| error.0));
        built.as_ref().map_err(|error| StageError(error.clone()))
    }

    fn build_now(world: &World, progress: &Progress) -> Result<Self> {
        let target = world.root().parent().map(Path::to_path_buf).unwrap_or_default();
        progress.note("building inwit-guest (static, alone)");
        cargo(world, &["guest", "--quiet"])?;
        progress.note("building inwit-authority and inwit-shim");
        cargo(world, &["build", "--quiet", "--package", "inwit-authority", "--package", "inwit-shim"])?;
        progress.note("building the workload");
        let hello = compile(world, "hello")?;
        Ok(Self {
            guest: target.join(TARGET).join("guest/inwit-guest"),
            authority: target.join("debug/inwit-authority"),
            shim: target.join("debug/inwit-shim"),
            hello,
        })
    }
}

/// Compiles one file of `tests/workload` into a static program, unless it is there and newer than its source. In a folder
/// of its own first: another process may be doing the same.
pub(super) fn compile(world: &World, name: &str) -> Result<PathBuf> {
    let program = world.root().join(name);
    let source = world.repository().join("tests/workload").join(format!("{name}.rs"));
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    if changed(&program).is_ok_and(|built| changed(&source).is_ok_and(|written| written < built)) {
        return Ok(program);
    }
    std::fs::create_dir_all(world.root())?;
    let folder = tempfile::Builder::new().prefix("compile-").tempdir_in(world.root())?;
    let built = folder.path().join(name);
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "-C", "strip=symbols", "-C", "panic=abort", "--target", TARGET, "-o"]);
    run(rustc.arg(&built).arg(&source).current_dir(world.repository()))?;
    std::fs::rename(&built, &program)?;
    Ok(program)
}

fn cargo(world: &World, arguments: &[&str]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo set for the test that runs us would leak into the build and make it rebuild.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name.to_string_lossy().starts_with("CARGO_MANIFEST") {
            cargo.env_remove(name);
        }
    }
    run(cargo.args(arguments).current_dir(world.repository()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().map_err(|error| StageError::of(format!("{:?}", command.get_program()), error))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = errors.lines().rev().take(20).collect();
    Err(StageError::of("build failed", tail.into_iter().rev().collect::<Vec<_>>().join("\n")))
}
