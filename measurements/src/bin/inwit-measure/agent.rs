//! The check that Reference Values name the agent that the kernel starts from what is measured.
//!
//! Not trusted: initrd, command line and unified image; what cannot be looked into holds no agent. Never computes a
//! measurement. Never seen here: what is built into the kernel, and what the agent would need beside itself.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use inwit_measurements::initrd::{Initrd, Opaque, StartedError, Tree, started};
use inwit_measurements::printable::escaped;
use inwit_measurements::uki::{UkiError, UnifiedImage};
use thiserror::Error;

use crate::arguments::{Command, OutputArguments};
use crate::files::{Failure, FileKind, read};

/// Where agent and configuration are in the initrd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) agent: String,
    pub(crate) configuration: String,
}

/// Why what is measured does not stand for the agent.
#[derive(Debug, Error)]
enum AgentError {
    #[error(
        "from byte {} on the initrd is compressed with {}: what is inside would replace what stands before it. Give an initrd \
         that is not compressed", .0.start, .0.compression
    )]
    Opaque(Opaque),
    #[error(transparent)]
    CommandLine(#[from] StartedError),
    #[error(
        "the kernel starts {started:?} of this initrd, and that is not {agent:?}: {why}. If a service starts the agent, say \
         where it is with --agent-path"
    )]
    NotStarted { started: String, agent: PathBuf, why: &'static str },
    #[error("{path:?} of this initrd is not {agent:?}: {why}")]
    NotThere { path: String, agent: PathBuf, why: &'static str },
}

/// What the kernel is given to start from.
#[derive(Debug, PartialEq, Eq)]
struct Booted {
    initrd: Cow<'static, [u8]>,
    command_line: String,
}

/// Reference Values that name an agent whose bytes are not what a measured kernel starts would let any image speak for it:
/// the host could boot its own, and have it name the registered agent.
pub(crate) fn check(command: &Command, output: &OutputArguments) -> Result<Option<Inside>, Failure> {
    let Some(agent) = &output.agent else { return Ok(None) };
    let Some(configuration) = &output.config else {
        return Err(Failure::Usage("--agent needs --config: both are in Reference Values".to_owned()));
    };
    let booted = match command {
        Command::Snp(snp) => direct(snp.measured_initrd()?, &snp.append),
        Command::Tdx(tdx) => booted(tdx.uki.as_deref(), tdx.profile, tdx.initrd.as_deref(), &tdx.append)?,
        // What is replayed came from the log.
        Command::Vtpm(vtpm) if vtpm.log.is_some() => None,
        Command::Vtpm(vtpm) => booted(vtpm.uki.as_deref(), vtpm.profile, vtpm.initrd.as_deref(), &vtpm.append)?,
        Command::Convert(_) if output.agent_path.is_some() => {
            return Err(Failure::Usage("convert looks into no image: leave --agent-path out".to_owned()));
        }
        // The image is not there: its owner says what is in it.
        Command::Convert(_) => return Ok(None),
        Command::Log(_) => return Err(Failure::Usage("a log names no agent".to_owned())),
        Command::IdBlock(_) => return Err(Failure::Usage("an ID block names no agent".to_owned())),
        Command::Explain(_) => {
            return Err(Failure::Usage("explain writes no Reference Values: give --agent-file".to_owned()));
        }
    };
    let booted = booted.ok_or(Failure::AgentUnmeasured)?;
    let initrd = Initrd::read(&booted.initrd).map_err(Failure::refused)?;
    if let Some(opaque) = initrd.opaque {
        return Err(Failure::refused(AgentError::Opaque(opaque)));
    }
    let tree = Tree::unpack(&initrd).map_err(Failure::refused)?;
    let bytes = read(agent, FileKind::Agent)?;
    let first = started(&booted.command_line).map_err(Failure::refused)?;
    let at = match &output.agent_path {
        None => program(&tree, first, bytes).map_err(|why| {
            Failure::refused(AgentError::NotStarted { started: first.to_owned(), agent: agent.clone(), why })
        })?,
        Some(path) => program(&tree, path, bytes)
            .map_err(|why| Failure::refused(AgentError::NotThere { path: path.clone(), agent: agent.clone(), why }))?,
    };
    if output.agent_path.is_some() && program(&tree, first, bytes).is_err() {
        let (at, first) = (escaped(at, &[]), escaped(first, &[]));
        let _ = writeln!(
            std::io::stderr(),
            "inwit-measure: nothing makes the kernel start the agent at /{at}: it starts {first}, and that this starts the \
             agent, and nothing that speaks in its place, is only your word"
        );
    }
    let why = || "is it built from another file?".to_owned();
    let not_inside = || Failure::NotInside { path: configuration.clone(), why: why() };
    let configured = tree.file_with(read(configuration, FileKind::Configuration)?).ok_or_else(not_inside)?;
    Ok(Some(Inside { agent: at.to_owned(), configuration: configured.to_owned() }))
}

/// Where a path leads, if the program there is these bytes; otherwise what is wrong.
fn program<'t>(tree: &'t Tree<'_>, path: &str, bytes: &[u8]) -> Result<&'t str, &'static str> {
    let file = tree.file_at(path).ok_or("there is no plain file that the kernel unpacks")?;
    if file.content != bytes || bytes.is_empty() {
        return Err("there is another file");
    }
    if file.mode & 0o111 == 0 { Err("it is not executable there") } else { Ok(file.path) }
}

/// Initial ramdisk and command line, each of its own or inside the unified image.
fn booted(
    uki: Option<&Path>,
    profile: Option<usize>,
    initrd: Option<&Path>,
    append: &str,
) -> Result<Option<Booted>, Failure> {
    let Some(path) = uki else {
        return Ok(direct(initrd.map(|path| read(path, FileKind::Initrd)).transpose()?, append));
    };
    let image = read(path, FileKind::Image)?;
    let unified = |error: UkiError| Failure::refused(error);
    let sections = UnifiedImage::parse(image).and_then(|image| image.taken(profile)).map_err(unified)?;
    let section = |wanted| sections.iter().find(|(name, _)| *name == wanted).map(|(_, all)| all.bytes().into_owned());
    unified_boot(section(".ucode"), section(".initrd"), section(".cmdline")).map_err(Failure::refused)
}

fn direct(initrd: Option<&'static [u8]>, append: &str) -> Option<Booted> {
    initrd.map(|initrd| Booted { initrd: initrd.into(), command_line: append.to_owned() })
}

/// What systemd-stub hands to the kernel: microcode first, filled up to a multiple of four, as the same initrd.
fn unified_boot(
    ucode: Option<Vec<u8>>,
    initrd: Option<Vec<u8>>,
    command_line: Option<Vec<u8>>,
) -> Result<Option<Booted>, &'static str> {
    let Some(initrd) = initrd else { return Ok(None) };
    let mut all = ucode.unwrap_or_default();
    all.resize(all.len().next_multiple_of(4), 0);
    all.extend(initrd);
    let command_line = String::from_utf8(command_line.unwrap_or_default());
    let command_line = command_line.map_err(|_| "the image's command line is not UTF-8")?;
    let command_line = command_line.trim_end_matches(['\0', '\n']).to_owned();
    Ok(Some(Booted { initrd: all.into(), command_line }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microcode_stands_before_the_initrd_of_a_unified_image() {
        let boot = unified_boot(Some(vec![1, 2, 3]), Some(vec![4]), Some(b"rdinit=/a\n\0".to_vec()));
        let expected = Booted { initrd: vec![1, 2, 3, 0, 4].into(), command_line: "rdinit=/a".to_owned() };
        assert_eq!(boot, Ok(Some(expected)));
        assert_eq!(unified_boot(Some(vec![1]), None, None), Ok(None), "microcode alone holds no agent");
        assert!(unified_boot(None, Some(vec![]), Some(vec![0xff])).is_err());
    }
}
