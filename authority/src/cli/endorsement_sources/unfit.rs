//! What is wrong with an endorsement, told apart by whose fault it is: a file that cannot be read is the machine's, content
//! that does not parse or stands under no trusted root is a refusal with a code. What was set aside is kept as a suspicion:
//! where the act then lacks an endorsement, that is why. Decides nothing about trust.

use super::super::endorsement_kinds::Spoilt;
use crate::fault::Fault;
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use std::path::{Path, PathBuf};

/// Why endorsements cannot be put together.
pub(in super::super) enum Unfit {
    /// A file or folder cannot be read.
    Fault(Fault),
    /// What a file holds is refused.
    Refused(Refusal),
}

impl From<Fault> for Unfit {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// For acts that change something, which end in any case.
impl From<Unfit> for Fault {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Fault(fault) => fault,
            Unfit::Refused(refusal) => Self::new(refusal.cause),
        }
    }
}

impl Unfit {
    /// A refusal of what a file holds.
    pub(super) fn refused(code: RefusalCode, file: &Path, cause: impl std::fmt::Display) -> Self {
        Self::Refused(Refusal::new(code, Fault::of(file.display(), cause)))
    }
}

/// Something that was set aside and that Evidence may lack for it.
pub(in super::super) struct Suspicion {
    pub(super) file: PathBuf,
    pub(super) spoilt: Spoilt,
    /// A word that the cause of a refusal holds when this is what is missing; empty where any may be.
    pub(super) about: String,
}

/// The refusal that the first fitting suspicion explains, and why.
pub(in super::super) fn explained(refusal: &Refusal, suspicions: &[Suspicion], platform: Platform) -> Option<Refusal> {
    // Where the cause does not say for which family, it may be any.
    let any_family = platform == Platform::Tdx && !refusal.cause.contains("FMSPC");
    let fits = |one: &&Suspicion| {
        let about = any_family || refusal.cause.contains(one.about.as_str());
        about && one.spoilt.platform.is_none_or(|other| other == platform)
    };
    let Suspicion { file, spoilt, .. } = suspicions.iter().find(fits)?;
    let cause = format!("{}; so {}", Fault::of(file.display(), &spoilt.cause), refusal.cause);
    Some(Refusal::new(spoilt.code, cause))
}
