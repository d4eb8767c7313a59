//! `inwit-measure convert`: Reference Values from any form to another.
//!
//! Not trusted: the files. Never computes a measurement, never checks a signature.

use std::path::PathBuf;

use clap::Args;
use inwit_measurements::reference::{Form, Stated, Validity};

use crate::arguments::{FormArgument, OutputArguments};
use crate::files::{Failure, FileKind, read};
use crate::report::{Printed, document, stated};

#[derive(Args)]
pub(crate) struct ConvertArguments {
    /// The Reference Values; several only to RVPS, which keeps a list of values for each name.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The form to write.
    #[arg(long, value_name = "FORM", value_enum)]
    pub(crate) to: FormArgument,
    /// Take the values for good although the document says when they hold: our own forms, and the authority's registry,
    /// have no place for that. With --expires another end is set instead, even a later one.
    #[arg(long)]
    forget_validity: bool,
}

/// Reads, completes and writes.
pub(crate) fn run(arguments: &ConvertArguments, output: &OutputArguments) -> Result<Printed, Failure> {
    if output.form().is_some() {
        return Err(Failure::Usage("convert takes its form from --to".into()));
    }
    let all: Vec<Stated> = arguments.files.iter().map(|path| one(path, arguments, output)).collect::<Result<_, _>>()?;
    document(&all, Form::from(arguments.to), output)
}

fn one(path: &PathBuf, arguments: &ConvertArguments, output: &OutputArguments) -> Result<Stated, Failure> {
    let in_file = |error| Failure::Refused(format!("{}: {error}", path.display()));
    let mut found = Stated::read(read(path, FileKind::Small)?).map_err(in_file)?;
    if arguments.forget_validity {
        found.validity = Validity::default();
    }
    let given = stated(found.measured.clone(), None, output)?;
    if given.agent.is_none() {
        return Ok(found);
    }
    if found.agent.is_some() {
        return Err(Failure::Refused(format!("{}: it names its agent already: leave --agent out", path.display())));
    }
    Ok(Stated { name: given.name, agent: given.agent, ..found })
}
