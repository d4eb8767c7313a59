//! The world outside the guest, prepared and run for real: packages, kernel, firmware, TPM, vsock, virtual machine.
//! Everything is kept under `target/world` and `target/tools`; nothing but `packages` changes the system, and only as root.
//! What is downloaded is believed because the package archive's signed index says so; what a guest prints is never believed.
//! Never runs a shell, never names a host: mirrors and keys come from the machine's own package sources.

pub mod accel;
mod apt;
mod cache;
pub mod calculator;
mod command;
mod console;
mod error;
pub mod firmware;
pub mod kernel;
pub mod modules;
pub mod packages;
mod process;
mod progress;
pub mod qemu;
mod qmp;
mod running;
pub mod setup;
mod slot;
mod sources;
pub mod swtpm;
pub mod toolchain;
pub mod vsock;

use std::path::{Path, PathBuf};

pub(crate) use command::find_program;
pub use console::Line;
pub use error::{Result, WorldError};
pub use progress::Progress;
pub use running::{ExitReport, How, Running};

/// Where prepared things live. Cheap to make; holds paths only.
#[derive(Debug, Clone)]
pub struct World {
    repository: PathBuf,
    target: PathBuf,
}

impl World {
    /// The world of this checkout: below `CARGO_TARGET_DIR` if that is set, else below `target/` at the repository's root.
    pub fn here() -> World {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) if !dir.is_empty() => repository.join(dir),
            _ => repository.join("target"),
        };
        World { repository, target }
    }

    /// A world below another folder; for tests of the preparation itself.
    pub fn below(target: impl Into<PathBuf>) -> World {
        World { target: target.into(), ..World::here() }
    }

    /// The repository's root, where the pinned toolchain holds.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// The folder for everything built; nothing in it needs to be kept.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// `target/world`: fetched and built things, all of which can be deleted and made again.
    pub fn root(&self) -> PathBuf {
        self.target.join("world")
    }

    /// `target/tools`: programs installed for the tests, in `bin/`.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }
}
