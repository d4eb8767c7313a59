//! The check that Reference Values name an agent that is in what is measured.
//!
//! Not trusted: initrd and unified image; what cannot be looked into holds no agent. Never computes a measurement.

use std::borrow::Cow;
use std::path::Path;

use inwit_measurements::initrd::{Initrd, Tree};
use inwit_measurements::uki::UnifiedImage;

use crate::arguments::{Command, OutputArguments};
use crate::files::{Failure, FileKind, read};

/// Reference Values that name an agent whose bytes are not in what is measured would let any image speak for it: the host
/// could boot its own, and have it name the registered agent.
pub(crate) fn check(command: &Command, output: &OutputArguments) -> Result<(), Failure> {
    let Some(agent) = &output.agent else { return Ok(()) };
    let initrd = match command {
        Command::Snp(snp) => snp.measured_initrd()?.map(Cow::Borrowed),
        Command::Tdx(tdx) => initrd(tdx.uki.as_deref(), tdx.profile, tdx.initrd.as_deref())?,
        // What is replayed came from the log.
        Command::Vtpm(vtpm) if vtpm.log.is_some() => None,
        Command::Vtpm(vtpm) => initrd(vtpm.uki.as_deref(), vtpm.profile, vtpm.initrd.as_deref())?,
        // The image is not there: its owner says what is in it.
        Command::Convert(_) => return Ok(()),
        Command::Log(_) => return Err(Failure::Usage("a log names no agent".to_owned())),
        Command::IdBlock(_) => return Err(Failure::Usage("an ID block names no agent".to_owned())),
        Command::Explain(_) => {
            return Err(Failure::Usage("explain writes no Reference Values: give --agent-file".to_owned()));
        }
    };
    let bytes = initrd.ok_or(Failure::AgentUnmeasured)?;
    let initrd = Initrd::read(&bytes).map_err(Failure::refused)?;
    let tree = Tree::unpack(&initrd).map_err(Failure::refused)?;
    let config = output.config.as_ref().map(|path| (path, FileKind::Configuration));
    for (path, kind) in [Some((agent, FileKind::Agent)), config].into_iter().flatten() {
        if tree.file_with(read(path, kind)?).is_none() {
            let why = match initrd.opaque {
                Some(part) => format!("from byte {} on it is compressed with {}", part.start, part.compression),
                None => "is it built from another file?".to_owned(),
            };
            return Err(Failure::NotInside { path: path.clone(), why });
        }
    }
    Ok(())
}

/// The initial ramdisk, of its own or inside the unified image.
fn initrd(
    uki: Option<&Path>,
    profile: Option<usize>,
    initrd: Option<&Path>,
) -> Result<Option<Cow<'static, [u8]>>, Failure> {
    let Some(path) = uki else {
        return Ok(initrd.map(|path| read(path, FileKind::Initrd)).transpose()?.map(Cow::Borrowed));
    };
    let image = read(path, FileKind::Image)?;
    let sections = UnifiedImage::parse(image).and_then(|image| image.taken(profile)).map_err(Failure::refused)?;
    Ok(sections.iter().find(|(name, _)| *name == ".initrd").map(|(_, all)| Cow::Owned(all.bytes().into_owned())))
}
