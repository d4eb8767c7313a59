//! Prepares everything that the demo and the virtual-machine tests need, or tells what is missing.
//! Trusts the machine's own package sources. Changes the system only by installing packages, and only as root.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use inwit_tests::world::{
    Progress, World, WorldError,
    setup::{Standing, Step},
};
use serde_json::json;

/// Prepares what the demo and the virtual-machine tests need; a second run finds everything done.
///
/// Installs missing packages (as root; otherwise it prints the one line to run), adds the guest's Rust target, fetches
/// a pinned kernel with headers, two firmware builds and a calculator of launch digests without installing them, and
/// builds the vsock backend. All but the packages goes below target/. Exit status: 0 ready, 2 wrong use, 3 something is missing or needs root, 1 failed.
#[derive(Parser)]
#[command(name = "inwit-setup", version)]
struct Options {
    /// Only tell what is missing; change nothing and use no network.
    #[arg(long)]
    check: bool,
    /// Tell the result as one JSON object per line on standard output.
    #[arg(long)]
    json: bool,
    /// Prepare only this step (may be repeated): packages, rust-target, kernel, launch-firmware, launch-calculator,
    /// vsock-backend.
    #[arg(long, value_parser = step_named)]
    only: Vec<Step>,
}

fn step_named(name: &str) -> Result<Step, String> {
    let names = Step::ALL.map(Step::name).join(", ");
    Step::ALL.into_iter().find(|step| step.name() == name).ok_or(format!("not one of {names}"))
}

/// What became of one step.
enum Fate {
    Ready,
    Missing,
    NeedsRoot,
    Failed,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (world, progress) = (World::here(), Progress::on_stderr());
    let steps = if options.only.is_empty() { Step::ALL.to_vec() } else { options.only.clone() };
    let mut code = 0;
    for step in steps {
        let begun = Instant::now();
        let (fate, detail) = if options.check { look(step, &world) } else { prepare(step, &world, &progress) };
        progress.rest();
        if tell(&options, step, &fate, &detail, begun.elapsed().as_secs_f64()).is_err() {
            return ExitCode::from(1);
        }
        match fate {
            Fate::Ready => {}
            Fate::Missing => code = 3,
            // What comes after may need it.
            Fate::NeedsRoot => return ExitCode::from(3),
            Fate::Failed => return ExitCode::from(1),
        }
    }
    ExitCode::from(code)
}

fn look(step: Step, world: &World) -> (Fate, String) {
    match step.look(world) {
        Ok(Standing::Ready(detail)) => (Fate::Ready, detail),
        Ok(Standing::Missing(detail)) => (Fate::Missing, detail),
        Err(error) => (Fate::Failed, error.to_string()),
    }
}

fn prepare(step: Step, world: &World, progress: &Progress) -> (Fate, String) {
    match step.prepare(world, progress) {
        Ok(outcome) => (Fate::Ready, outcome.detail),
        Err(error @ WorldError::NeedsRoot { .. }) => (Fate::NeedsRoot, error.to_string()),
        Err(error) => (Fate::Failed, error.to_string()),
    }
}

fn tell(options: &Options, step: Step, fate: &Fate, detail: &str, seconds: f64) -> io::Result<()> {
    let word = match fate {
        Fate::Ready => "ready",
        Fate::Missing => "missing",
        Fate::NeedsRoot => "needs-root",
        Fate::Failed => "failed",
    };
    let mut out = io::stdout().lock();
    if options.json {
        let line = json!({"step": step.name(), "standing": word, "detail": detail, "seconds": seconds});
        return writeln!(out, "{line}");
    }
    writeln!(out, "{word:10} {:15} {seconds:6.1} s  {detail}", step.name())
}
