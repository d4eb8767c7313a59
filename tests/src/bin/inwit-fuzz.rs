//! Builds the fuzz targets with the pinned compiler and runs them: a few seconds each before every merge, longer by hand.
//! Changes nothing but `target/fuzz` and the lock file of `tests/fuzz`, which is not committed.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use inwit_tests::fuzzing::{Fuzzing, Outcome, Run, Sanitizer, run_all};
use inwit_tests::world::{World, WorldError};

/// Runs fuzz targets. Needs neither a nightly toolchain nor cargo-fuzz; libFuzzer is compiled with `c++`.
///
/// What was tried and reached new code is kept below target/fuzz, and the next run goes on from there. First inputs are
/// made by our own encoders and simulated hardware, and from real evidence where the folder INWIT_VECTORS (by default
/// ../shared/vectors) exists. Exit status: 0 no find, 3 a find, 2 wrong use, 1 a target cannot be built or started.
#[derive(Parser)]
#[command(name = "inwit-fuzz", version)]
struct Options {
    /// Targets to run; without any, all of them.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Targets that run at the same time; without it, one for each processor.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// What watches memory. The pinned compiler takes AddressSanitizer when told that it may (RUSTC_BOOTSTRAP=1).
    #[arg(long, value_enum, default_value = "none")]
    sanitizer: Watch,
    /// Begin libFuzzer's choices here, so that a run on an empty corpus can be repeated.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
    /// Only print the names of the targets.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Watch {
    None,
    Address,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (mut out, mut err) = (io::stdout(), io::stderr());
    match fuzz(&options) {
        Ok(Ended::Said(text)) => match writeln!(out, "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(Ended::Found(finds)) => {
            let _ = writeln!(err, "{finds}");
            ExitCode::from(3)
        }
        Ok(Ended::Misused(words)) => {
            let _ = writeln!(err, "inwit-fuzz: {words}");
            ExitCode::from(2)
        }
        Err(error) => {
            let _ = writeln!(err, "inwit-fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Ended {
    Said(String),
    Found(String),
    Misused(String),
}

fn fuzz(options: &Options) -> Result<Ended, WorldError> {
    let sanitizer = match options.sanitizer {
        Watch::None => Sanitizer::None,
        Watch::Address => Sanitizer::Address,
    };
    let fuzzing = Fuzzing::here(&World::here(), sanitizer);
    let all = fuzzing.targets()?;
    if options.list {
        return Ok(Ended::Said(all.join("\n")));
    }
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        return Ok(Ended::Misused(format!("no target is called {unknown}; there are:\n{}", all.join("\n"))));
    }
    let targets = if options.targets.is_empty() { all } else { options.targets.clone() };
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let at_once = options.jobs.unwrap_or_else(processors);
    let programs = fuzzing.build(&targets)?;
    let run = Run { seconds: options.seconds, at_once, seed: options.seed };
    let outcomes = run_all(&fuzzing, &programs, &run, tell)?;
    let finds: Vec<String> = outcomes.iter().filter_map(|outcome| outcome.found.clone()).collect();
    let (number, seconds) = (outcomes.len(), options.seconds);
    if finds.is_empty() {
        return Ok(Ended::Said(format!("{number} targets, each {seconds} s: no crash")));
    }
    let summary = format!("{number} targets, each {seconds} s: {} with a find", finds.len());
    Ok(Ended::Found(format!("{}\n\n{summary}", finds.join("\n\n"))))
}

fn tell(outcome: &Outcome) {
    let Outcome { target, inputs, processor, blocks, memory, found } = outcome;
    let verdict = if found.is_some() { "FIND" } else { "ok" };
    let line = format!(
        "  {verdict:4} {target}: {inputs} inputs in {processor:.1} s of processor time, {blocks} blocks, {memory} MiB"
    );
    let _ = writeln!(io::stderr(), "{line}");
}
