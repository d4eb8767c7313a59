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
use files::{Failure, file_name, read};
use inwit_measurements::initrd::{Initrd, Tree};
use inwit_measurements::made_from::MadeFrom;

fn main() -> ExitCode {
    let Arguments { command, output } = Arguments::parse();
    let held = agent_is_measured(&command, &output);
    let values = held.and_then(|()| match &command {
        Command::Snp(snp) => snp::measure(snp),
        Command::Tdx(tdx) => tdx::measure(tdx),
        Command::Vtpm(vtpm) => vtpm::measure(vtpm),
    });
    let text = match values.and_then(|values| report::render(&values, made_from(&command, &output)?, &output)) {
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
        Command::Snp(snp) => snp.initrd.as_ref().map(read).transpose()?,
        Command::Tdx(tdx) => tdx.boot.initrd.as_ref().map(read).transpose()?,
        Command::Vtpm(vtpm) => vtpm.initrd()?,
    };
    let bytes = initrd.ok_or(Failure::AgentUnmeasured)?;
    let initrd = Initrd::read(&bytes).map_err(Failure::refused)?;
    let tree = Tree::unpack(&initrd);
    for path in [Some(agent), output.config.as_ref()].into_iter().flatten() {
        if tree.file_with(&read(path)?).is_none() {
            let why = match initrd.opaque {
                Some(part) => format!("from byte {} on it is compressed with {}", part.start, part.compression),
                None => "is it built from another file?".to_owned(),
            };
            return Err(Failure::NotInside { path: path.clone(), why });
        }
    }
    Ok(())
}

/// What complete Reference Values are made from; none beside bare values.
fn made_from(command: &Command, output: &OutputArguments) -> Result<Option<MadeFrom>, Failure> {
    let (Some(agent), Some(config), false) = (&output.agent, &output.config, output.without_record) else {
        return Ok(None);
    };
    let mut record = match command {
        Command::Snp(snp) => snp::made_from(snp),
        Command::Tdx(tdx) => tdx::made_from(tdx),
        Command::Vtpm(vtpm) => vtpm::made_from(vtpm),
    }?;
    record.add_agent((&file_name(agent), &read(agent)?), (&file_name(config), &read(config)?));
    Ok(Some(record))
}
