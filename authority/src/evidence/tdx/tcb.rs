//! The status of a platform: what it is, by its PCK certificate and its quote, against the levels that Intel signed
//! (Intel's quote verification library, 4.1.2.4.11 and .17; specification of this repository's authority, TDX). Pure; says
//! what is, and judges only that a revoked part is never authentic.

use dcap_qvl::TcbStatus as Word;
use thiserror::Error;

use super::attributes::TcbStatus;
use super::documents::{ModuleIdentity, ModuleRule, PlatformLevel, Standing, SvnLevel, TcbDocument};
use crate::evidence::fields::Short;

/// Why the platform has no status.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum TcbError {
    #[error("PCEID of the PCK certificate and of the TCB info differ")]
    PceId,
    #[error("the TCB info knows no TDX module TDX_{0:02X}: import a newer one")]
    UnknownModule(u8),
    #[error("the TDX module's signer {0} is not the one that the TCB info names")]
    ModuleSigner(String),
    #[error("SEAMATTRIBUTES of the TDX module are not those that the TCB info names")]
    ModuleAttributes,
    #[error("SEAMATTRIBUTES are not zero: the TDX module is not a production one")]
    DevelopmentModule,
    #[error("the platform is below every TCB level that Intel names")]
    NoLevel,
    #[error("the TDX module {id} of ISVSVN {isvsvn} is below every level that Intel names")]
    NoModuleLevel { id: String, isvsvn: u8 },
    #[error("the TCB info or QE identity gives {0} the status {1}, which it cannot have")]
    Status(&'static str, Word),
    #[error("Intel has revoked {0}")]
    Revoked(&'static str),
}

/// What a status is found for.
pub(super) struct Measured<'a> {
    /// SVNs of the PCK certificate.
    pub(super) components: &'a [u8; 16],
    pub(super) pce_svn: u16,
    /// From the quote.
    pub(super) tee_tcb_svn: &'a [u8; 16],
    pub(super) tee_tcb_svn2: Option<&'a [u8; 16]>,
    /// Status of the quoting enclave's level.
    pub(super) enclave: &'a Standing,
}

/// What was found: each part for itself, and the whole.
#[derive(Debug)]
pub(super) struct Evaluated<'d> {
    pub(super) status: TcbStatus,
    pub(super) platform: &'d Standing,
    pub(super) module: Option<(&'d ModuleIdentity, &'d SvnLevel)>,
    /// The same for TEE_TCB_SVN2 of a TD 1.5: what runs now, where the first is what the TD was launched on.
    pub(super) current: Option<Current<'d>>,
}

/// State of what runs now.
#[derive(Debug)]
pub(super) struct Current<'d> {
    pub(super) status: TcbStatus,
    pub(super) advisory_ids: Vec<&'d [String]>,
}

/// One evaluation, for the TD's SVNs at launch or now.
struct One<'d> {
    converged: Word,
    platform: &'d Standing,
    module: Option<(&'d ModuleIdentity, &'d SvnLevel)>,
}

/// Compares the TDX module of a quote with what the TCB info says of it.
///
/// # Errors
/// [`TcbError`] names what differs.
pub(super) fn module(
    info: &TcbDocument,
    tee_tcb_svn: &[u8; 16],
    signer: &[u8; 48],
    attributes: [u8; 8],
) -> Result<(), TcbError> {
    let attributes = u64::from_le_bytes(attributes);
    let rule: &ModuleRule = identity(info, tee_tcb_svn)?.map_or(&info.module, |identity| &identity.rule);
    if *signer != rule.signer {
        return Err(TcbError::ModuleSigner(Short(signer).to_string()));
    }
    // Intel's library demands all of the value and ignores the mask, others mask the value: both have to hold.
    if attributes & rule.mask != rule.attributes & rule.mask || attributes != rule.attributes {
        return Err(TcbError::ModuleAttributes);
    }
    if attributes != 0 {
        return Err(TcbError::DevelopmentModule);
    }
    Ok(())
}

/// The module identity that the SVNs ask for; none of version 0, which tdxModule stands for.
fn identity<'d>(info: &'d TcbDocument, tee_tcb_svn: &[u8; 16]) -> Result<Option<&'d ModuleIdentity>, TcbError> {
    let [_, version, ..] = *tee_tcb_svn;
    if version == 0 {
        return Ok(None);
    }
    let named = info.modules.iter().find(|identity| identity.version == version);
    named.map(Some).ok_or(TcbError::UnknownModule(version))
}

/// Finds the status of everything together.
///
/// # Errors
/// [`TcbError`] when Intel names no level for it, or has revoked a part.
pub(super) fn evaluate<'d>(info: &'d TcbDocument, measured: &Measured<'_>) -> Result<Evaluated<'d>, TcbError> {
    let launch = one(info, measured, measured.tee_tcb_svn)?;
    let enclave = component(measured.enclave.status, "the quoting enclave")?;
    let with_enclave = converge(launch.converged, enclave);
    let now = measured.tee_tcb_svn2.map(|svn| one(info, measured, svn)).transpose()?;
    let now = now.map(|now| (converge(now.converged, enclave), now));
    let mut status = with_enclave;
    if let (Some(svn2), Some((current, _))) = (measured.tee_tcb_svn2, &now)
        && relaunch(info, measured, &launch, enclave, svn2)
    {
        status = relaunched(with_enclave, *current);
    }
    let current = now.map(|(status, now)| {
        let advisory_ids = [Some(now.platform), now.module.map(|(_, level)| &level.standing)];
        let advisory_ids = advisory_ids.into_iter().flatten().map(|one| one.advisory_ids.as_slice()).collect();
        Ok(Current { status: word(status)?, advisory_ids })
    });
    let (platform, module) = (launch.platform, launch.module);
    Ok(Evaluated { status: word(status)?, platform, module, current: current.transpose()? })
}

/// The level that the platform reaches, converged with that of its module.
fn one<'d>(info: &'d TcbDocument, measured: &Measured<'_>, svn: &[u8; 16]) -> Result<One<'d>, TcbError> {
    let [isvsvn, version, ..] = *svn;
    // Components 0 and 1 of a versioned module are the module identity's business.
    let skipped = if version == 0 { 0 } else { 2 };
    let reaches = |have: &[u8; 16], need: &[u8; 16], skipped: usize| {
        have.iter().zip(need).skip(skipped).all(|(have, need)| have >= need)
    };
    let level = info.levels.iter().find(|level| sgx(level, measured) && reaches(svn, &level.tdx, skipped));
    let platform = &level.ok_or(TcbError::NoLevel)?.standing;
    if matches!(platform.status, Word::TDRelaunchAdvised | Word::TDRelaunchAdvisedConfigurationNeeded) {
        return Err(TcbError::Status("the platform", platform.status));
    }
    let Some(identity) = identity(info, svn)? else {
        return Ok(One { converged: platform.status, platform, module: None });
    };
    let level = first_reached(&identity.levels, isvsvn.into());
    let level = level.ok_or_else(|| TcbError::NoModuleLevel { id: identity.id.clone(), isvsvn })?;
    let status = component(level.standing.status, "the TDX module")?;
    Ok(One { converged: converge(platform.status, status), platform, module: Some((identity, level)) })
}

fn sgx(level: &PlatformLevel, measured: &Measured<'_>) -> bool {
    measured.pce_svn >= level.pce_svn && measured.components.iter().zip(&level.sgx).all(|(have, need)| have >= need)
}

/// The highest level that is reached, whatever their order in the document.
fn first_reached(levels: &[SvnLevel], isvsvn: u16) -> Option<&SvnLevel> {
    levels.iter().filter(|level| level.isvsvn <= isvsvn).max_by_key(|level| level.isvsvn)
}

/// Status of a part that is one of three things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Component {
    UpToDate,
    OutOfDate,
    Revoked,
}

fn component(word: Word, what: &'static str) -> Result<Component, TcbError> {
    match word {
        Word::UpToDate => Ok(Component::UpToDate),
        Word::OutOfDate => Ok(Component::OutOfDate),
        Word::Revoked => Ok(Component::Revoked),
        other => Err(TcbError::Status(what, other)),
    }
}

/// The worse of the platform's status and that of a part.
fn converge(platform: Word, part: Component) -> Word {
    match (part, platform) {
        (Component::Revoked, _) => Word::Revoked,
        (Component::OutOfDate, Word::UpToDate | Word::SWHardeningNeeded) => Word::OutOfDate,
        (Component::OutOfDate, Word::ConfigurationNeeded | Word::ConfigurationAndSWHardeningNeeded) => {
            Word::OutOfDateConfigurationNeeded
        }
        (Component::OutOfDate | Component::UpToDate, other) => other,
    }
}

/// Whether relaunching the TD would be enough: everything but the module that it was launched on is in order, and the one
/// that runs now is the newest that Intel names (4.1.2.4.17, TDRelaunchAdvised).
fn relaunch(
    info: &TcbDocument,
    measured: &Measured<'_>,
    launch: &One<'_>,
    enclave: Component,
    svn2: &[u8; 16],
) -> bool {
    let [isvsvn, version, third, ..] = *svn2;
    let outdated = |status| matches!(status, Word::OutOfDate | Word::OutOfDateConfigurationNeeded);
    let module = launch.module.is_some_and(|(_, level)| level.standing.status == Word::OutOfDate);
    let sgx_level = info.levels.iter().find(|level| sgx(level, measured));
    let sgx_in_order = sgx_level.is_some_and(|level| in_order(level.standing.status));
    let newest = info.levels.first().is_some_and(|level| {
        let [first, _, latest, ..] = level.tdx;
        let module = info.modules.iter().find(|identity| identity.version == version);
        let newest = module.and_then(|identity| identity.levels.iter().map(|level| level.isvsvn).max());
        let newest = if version == 0 { Some(first.into()) } else { newest };
        newest.is_some_and(|newest| u16::from(isvsvn) >= newest) && third >= latest
    });
    enclave == Component::UpToDate && module && outdated(launch.converged) && sgx_in_order && newest
}

fn in_order(status: Word) -> bool {
    matches!(
        status,
        Word::UpToDate | Word::SWHardeningNeeded | Word::ConfigurationNeeded | Word::ConfigurationAndSWHardeningNeeded
    )
}

/// The status at launch, made milder where what runs now is in order.
fn relaunched(launch: Word, current: Word) -> Word {
    let configuration = |status| {
        matches!(
            status,
            Word::ConfigurationNeeded | Word::ConfigurationAndSWHardeningNeeded | Word::OutOfDateConfigurationNeeded
        )
    };
    match (launch, current) {
        (Word::OutOfDate | Word::OutOfDateConfigurationNeeded, now) if in_order(now) => {
            if configuration(launch) || configuration(now) {
                Word::TDRelaunchAdvisedConfigurationNeeded
            } else {
                Word::TDRelaunchAdvised
            }
        }
        _ => launch,
    }
}

/// Our word for it; nothing revoked has one.
fn word(status: Word) -> Result<TcbStatus, TcbError> {
    TcbStatus::of(status).ok_or(TcbError::Revoked("the platform, its TDX module or its quoting enclave"))
}
