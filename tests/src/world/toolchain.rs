//! Rust parts that the pinned toolchain does not bring by itself: the static target of the guest.
//! Never installs a toolchain and never changes the default one.

use std::{path::PathBuf, time::Duration};

use super::{Progress, Result, World, command::Call, error::WorldError};

/// The guest's target: static, without a C library on the machine it runs on.
pub const GUEST_TARGET: &str = "x86_64-unknown-linux-musl";

/// Whether the toolchain that builds this repository has the guest's target.
pub fn has_guest_target(world: &World) -> Result<bool> {
    Ok(sysroot(world)?.join("lib/rustlib").join(GUEST_TARGET).join("lib").is_dir())
}

/// Adds the guest's target to the pinned toolchain if it is missing.
///
/// # Errors
/// No rustup here (a distribution's own Rust), or no network.
pub fn prepare(world: &World, progress: &Progress) -> Result<()> {
    if has_guest_target(world)? {
        return Ok(());
    }
    let rustup = Call::to("rustup").map_err(|_| {
        let cause = format!("this Rust has no {GUEST_TARGET} and there is no rustup to add it");
        WorldError::unusable("Rust", cause, "install the distribution's package for that target, or use rustup")
    })?;
    progress.note(&format!("adding {GUEST_TARGET}"));
    let rustup = rustup.args(["target", "add", GUEST_TARGET]).within(world.repository());
    rustup.limit(Duration::from_secs(600)).run_retrying(3, |line| progress.note(line))?;
    if has_guest_target(world)? {
        return Ok(());
    }
    let next = "run `rustup show` in the repository and compare with rust-toolchain.toml";
    Err(WorldError::unusable("Rust", "the target was added, but not to the toolchain in use", next))
}

/// Folder of the toolchain in use. Under cargo its place is told by the environment, which saves starting rustc.
fn sysroot(world: &World) -> Result<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".rustup")));
    let told = home.zip(std::env::var_os("RUSTUP_TOOLCHAIN")).map(|(home, name)| home.join("toolchains").join(name));
    if let Some(folder) = told.filter(|folder| folder.is_dir()) {
        return Ok(folder);
    }
    let rustc = Call::to("rustc").map_err(|_| {
        WorldError::unusable("Rust", "there is no rustc here", "install Rust as rust-toolchain.toml pins it")
    })?;
    let said = rustc.args(["--print", "sysroot"]).within(world.repository()).text()?;
    Ok(PathBuf::from(said.trim_end()))
}
