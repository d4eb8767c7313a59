//! `cargo check-all`: prepares what the tests need (packages, guest target, kernel, firmware, vsock backend), then runs every
//! test of the workspace, virtual machines included. A test that cannot run fails instead of being passed over.
#![allow(clippy::print_stderr, reason = "this is a command line")]

use inwit_tests::world::kernel::Kernel;
use inwit_tests::world::{Progress, World, setup};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let (world, progress) = (World::here(), Progress::on_stderr());
    match setup::prepare(&world, &progress) {
        Ok(outcomes) => {
            progress.rest();
            for outcome in outcomes {
                eprintln!("  {:>6.1} s  {}: {}", outcome.seconds, outcome.step.name(), outcome.detail);
            }
        }
        Err(error) => {
            progress.rest();
            eprintln!("inwit check: {error}");
            return ExitCode::FAILURE;
        }
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace"]).args(std::env::args_os().skip(1)).current_dir(world.repository());
    if let Some(kernel) = Kernel::cached(&world) {
        cargo.env("INWIT_KERNEL_HEADERS", kernel.headers);
    }
    match cargo.env("INWIT_WORLD", "required").status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("inwit check: cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
