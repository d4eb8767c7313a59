//! `inwit-measure`: says what a guest will measure as, before it is started. A file for each subcommand.
//!
//! Not trusted: all input files. Never starts a guest, never asks a network.

mod arguments;
mod files;
mod report;
mod snp;
mod tdx;
mod vtpm;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Arguments, Command, OutputArguments};
use clap::Parser;
use files::{Failure, read};

fn main() -> ExitCode {
    let Arguments { command, output } = Arguments::parse();
    let held = agent_is_measured(&command, &output);
    let values = held.and_then(|()| match &command {
        Command::Snp(snp) => snp::measure(snp),
        Command::Tdx(tdx) => tdx::measure(tdx),
        Command::Vtpm(vtpm) => vtpm::measure(vtpm),
    });
    let text = match values.and_then(|values| report::render(&values, &output)) {
        Ok(text) => text,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "inwit-measure: {failure}");
            return ExitCode::from(3);
        }
    };
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

/// Reference Values that name an agent whose bytes are not in what is measured would let any image speak for it: the host
/// could boot its own, and have it name the registered agent.
fn agent_is_measured(command: &Command, output: &OutputArguments) -> Result<(), Failure> {
    let Some(agent) = &output.agent else { return Ok(()) };
    let initrd = match command {
        Command::Snp(snp) => snp.initrd.as_ref(),
        Command::Tdx(tdx) => tdx.boot.initrd.as_ref(),
        Command::Vtpm(vtpm) => vtpm.boot.initrd.as_ref(),
    };
    let initrd = read(initrd.ok_or(Failure::AgentUnmeasured)?)?;
    for file in [Some(agent), output.config.as_ref()].into_iter().flatten() {
        if !holds(&initrd, &read(file)?) {
            return Err(Failure::NotInside(file.clone()));
        }
    }
    Ok(())
}

/// Whether the archive holds these contents in one piece. Files of a newc archive start at multiples of four bytes.
fn holds(archive: &[u8], contents: &[u8]) -> bool {
    !contents.is_empty()
        && archive.chunks(4).enumerate().any(|(word, start)| {
            contents.starts_with(start.get(..contents.len().min(4)).unwrap_or(start))
                && archive.get(word * 4..).is_some_and(|rest| rest.starts_with(contents))
        })
}
