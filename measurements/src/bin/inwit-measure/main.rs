//! `inwit-measure`: says what a guest will measure as, before it is started. A file for each subcommand.
//!
//! Not trusted: all input files. Never starts a guest, never asks a network.

mod agent;
mod arguments;
mod convert;
mod explain;
mod files;
mod id_block;
mod igvm;
mod log;
mod progress;
mod report;
mod snp;
mod tdx;
mod vtpm;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use arguments::{Arguments, Command, OutputArguments};
use clap::Parser;
use files::Failure;
use id_block::IdBlockCommand;
use inwit_measurements::printable::escaped;
use inwit_measurements::reference::Form;
use report::Printed;

fn main() -> ExitCode {
    let Arguments { command, mut output } = Arguments::parse();
    let progress = progress::Progress::begin();
    let printed = admissible(&command, &output)
        .and_then(|()| agent::check(&command, &output))
        .and_then(|inside| {
            output.inside = inside;
            computed(&command, &output)
        })
        .and_then(printable);
    drop(progress);
    let differ = matches!(printed, Ok(Printed::Differ(_)));
    let bytes = match printed {
        Ok(printed) => printed.into_bytes(),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "inwit-measure: {}", told(&failure));
            return ExitCode::from(failure.exit_code());
        }
    };
    match std::io::stdout().write_all(&bytes) {
        Ok(()) if differ => ExitCode::from(3),
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

/// A cause, which may quote a file. Its lines and their spaces stay: parsers of text point at places with them.
fn told(failure: &Failure) -> String {
    failure.to_string().split_inclusive(['\n', ' ']).fold(String::new(), |told, word| {
        let plain = word.trim_end_matches(['\n', ' ']);
        told + &escaped(plain, &[]) + word.get(plain.len()..).unwrap_or_default()
    })
}

/// Nobody wants binary bytes in a terminal.
fn printable(printed: Printed) -> Result<Printed, Failure> {
    match printed {
        Printed::Bytes(_) if std::io::stdout().is_terminal() => {
            Err(Failure::Usage("CoRIM is binary: send it into a file with > FILE".to_owned()))
        }
        printed => Ok(printed),
    }
}

/// Refuses options that contradict each other, before anything is read.
fn admissible(command: &Command, output: &OutputArguments) -> Result<(), Failure> {
    if output.json && output.format.is_some() {
        return Err(Failure::Usage("--json cannot be used with --format: it is --format json".to_owned()));
    }
    match command {
        Command::Snp(snp) => snp.check(output),
        Command::Tdx(tdx) => tdx.check(),
        Command::Vtpm(vtpm) => vtpm.check(output),
        _ => Ok(()),
    }
}

/// What is to be printed.
fn computed(command: &Command, output: &OutputArguments) -> Result<Printed, Failure> {
    let form = match command {
        Command::Convert(convert) => Some(convert.to.into()),
        _ => output.form(),
    };
    if output.expires.is_some() && !matches!(form, Some(Form::Corim | Form::Rvps)) {
        return Err(Failure::Usage("--expires is for --format corim and rvps: no other form says an end".to_owned()));
    }
    match command {
        Command::Snp(snp) => snp::run(snp, output),
        Command::IdBlock(IdBlockCommand::Check(check)) => id_block::check(check, output),
        Command::Tdx(tdx) => {
            report::render(&tdx::measure(tdx)?, report::record(output, || tdx::made_from(tdx))?, output)
        }
        Command::Vtpm(vtpm) => {
            let record = report::record(output, || vtpm::made_from(vtpm, output))?;
            report::render(&vtpm::measure(vtpm, output)?, record, output)
        }
        Command::Convert(convert) => convert::run(convert, output),
        Command::Explain(explain) => explain::run(explain, output),
        Command::Log(log) => log::run(log, output),
    }
}
