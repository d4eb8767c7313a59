//! The preparation as a list of steps, each of which can say whether it is done and do what is missing.
//! Done steps cost milliseconds, so the list may stand at the head of anything that needs the world.
//! Never does more than its step says: looking changes nothing.

use std::{io::Write, time::Instant};

use super::{
    Progress, Result, World, WorldError, calculator,
    firmware::{self, Launch},
    kernel::{self, Kernel},
    packages, toolchain, vsock,
};

/// Whether a step's thing is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is, and what exactly.
    Ready(String),
    /// It is not, and what is missing.
    Missing(String),
}

/// One step of the preparation, in the order in which they build on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Programs and files from the distribution. The only step that needs root.
    Packages,
    /// The guest's Rust target.
    RustTarget,
    /// The guest's kernel and its headers.
    Kernel,
    /// Firmware builds that launch digests are computed from.
    LaunchFirmware,
    /// The calculator that launch digests are compared with.
    Calculator,
    /// The vsock backend.
    Vsock,
}

/// What a step came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which.
    pub step: Step,
    /// What is there now.
    pub detail: String,
    /// How long it took.
    pub seconds: f64,
}

impl Step {
    /// All, in order.
    pub const ALL: [Step; 6] =
        [Step::Packages, Step::RustTarget, Step::Kernel, Step::LaunchFirmware, Step::Calculator, Step::Vsock];

    /// For people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Step::Packages => "packages",
            Step::RustTarget => "rust-target",
            Step::Kernel => "kernel",
            Step::LaunchFirmware => "launch-firmware",
            Step::Calculator => "launch-calculator",
            Step::Vsock => "vsock-backend",
        }
    }

    /// Looks, changes nothing, uses no network.
    ///
    /// # Errors
    /// Something is there that cannot be read.
    pub fn look(self, world: &World) -> Result<Standing> {
        let ready = |detail: String| Ok(Standing::Ready(detail));
        let missing = |detail: String| Ok(Standing::Missing(detail));
        match self {
            Step::Packages => match packages::missing() {
                none if none.is_empty() => ready(format!("all {}", packages::REQUIREMENTS.len())),
                some => {
                    let lines = some.iter().map(|need| format!("{} ({})", need.name(), need.purpose));
                    missing(lines.collect::<Vec<_>>().join(", "))
                }
            },
            Step::RustTarget if toolchain::has_guest_target(world)? => ready(toolchain::GUEST_TARGET.into()),
            Step::RustTarget => missing(toolchain::GUEST_TARGET.into()),
            Step::Kernel => match Kernel::cached(world) {
                Some(kernel) => ready(kernel.version),
                None => missing(format!("{} or the newest {}* offered (52 MB)", kernel::PINNED, kernel::SERIES)),
            },
            Step::LaunchFirmware => {
                let found: Vec<_> = Launch::ALL.iter().map(|launch| launch.cached(world)).collect::<Result<_>>()?;
                match found.into_iter().collect::<Option<Vec<_>>>() {
                    Some(all) => ready(describe(&all)),
                    None => missing(Launch::ALL.map(Launch::package).join(", ")),
                }
            }
            Step::Calculator if calculator::installed(world).is_some() => {
                ready(format!("{} {}", calculator::PACKAGE, calculator::VERSION))
            }
            Step::Calculator => missing(format!("{} {}", calculator::PACKAGE, calculator::VERSION)),
            Step::Vsock if vsock::installed(world).is_some() => ready(format!("{} {}", vsock::CRATE, vsock::VERSION)),
            Step::Vsock => missing(format!("{} {} (builds for some minutes)", vsock::CRATE, vsock::VERSION)),
        }
    }

    /// Does what is missing.
    ///
    /// # Errors
    /// As the step's own module says; for packages [`WorldError::NeedsRoot`](super::WorldError) among them.
    pub fn prepare(self, world: &World, progress: &Progress) -> Result<Outcome> {
        let begun = Instant::now();
        match self {
            Step::Packages => packages::prepare(progress)?,
            Step::RustTarget => toolchain::prepare(world, progress)?,
            Step::Kernel => drop(Kernel::prepare(world, progress)?),
            Step::LaunchFirmware => {
                for launch in Launch::ALL {
                    launch.prepare(world, progress)?;
                }
                firmware::ovmf()?;
            }
            Step::Calculator => drop(calculator::prepare(world, progress)?),
            Step::Vsock => drop(vsock::prepare(world, progress)?),
        }
        let detail = match self.look(world)? {
            Standing::Ready(detail) | Standing::Missing(detail) => detail,
        };
        Ok(Outcome { step: self, detail, seconds: begun.elapsed().as_secs_f64() })
    }
}

/// Prepares everything that is missing.
///
/// # Errors
/// Of the first step that fails.
pub fn prepare(world: &World, progress: &Progress) -> Result<Vec<Outcome>> {
    Step::ALL.iter().map(|step| step.prepare(world, progress)).collect()
}

/// For tests that need the world and must not make it: whether these steps' things are there. If not, it is told on
/// standard error, past the test runner's capture, that this test did not run.
///
/// # Errors
/// With `INWIT_WORLD=required` in the environment, where a test that does not run must not pass.
pub fn ready_or_told(world: &World, test: &str, steps: &[Step]) -> Result<bool> {
    let standing = |step: &Step| match step.look(world) {
        Ok(Standing::Ready(_)) => None,
        Ok(Standing::Missing(what)) => Some(format!("{}: {what}", step.name())),
        Err(error) => Some(format!("{}: {error}", step.name())),
    };
    let unready: Vec<String> = steps.iter().filter_map(standing).collect();
    if unready.is_empty() {
        return Ok(true);
    }
    let cause = unready.join("; ");
    if std::env::var_os("INWIT_WORLD").is_some_and(|value| value == "required") {
        return Err(WorldError::unusable(test, format!("cannot run without {cause}"), "run inwit-setup"));
    }
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: needs {cause}; run inwit-setup");
    Ok(false)
}

fn describe(all: &[firmware::LaunchFirmware]) -> String {
    let one = |f: &firmware::LaunchFirmware| {
        format!("{} {} sha256 {}", f.package, f.version, f.sha256.get(..16).unwrap_or_default())
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_world_is_missing_what_is_fetched_and_says_what() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::below(dir.path());
        for (step, word) in [
            (Step::Kernel, kernel::PINNED),
            (Step::LaunchFirmware, "ovmf-amdsev"),
            (Step::Calculator, calculator::PACKAGE),
            (Step::Vsock, vsock::CRATE),
        ] {
            match step.look(&world).unwrap() {
                Standing::Missing(what) => assert!(what.contains(word), "{what}"),
                Standing::Ready(what) => panic!("{what} cannot be ready"),
            }
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "looking makes nothing");
    }
}
