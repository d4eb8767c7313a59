//! What a PCK certificate says of its platform: Intel's SGX extension (1.2.840.113741.1.13.1 of "SGX PCK Certificate and
//! Certificate Revocation List Profile Specification"). The signature over the certificate is the chain's business.

use dcap_qvl::intel::{PckExtension, parse_pck_extension};
use dcap_qvl::oids;
use thiserror::Error;

use crate::evidence::claims::PckFlag;

/// Why the extension does not say what a quote is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PckError {
    #[error("the PCK certificate holds no readable SGX extension")]
    Extension,
    #[error("the PCK certificate does not state {0} as Intel's profile demands")]
    Field(&'static str),
}

/// Fields of the extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PckFields {
    pub(super) fmspc: [u8; 6],
    pub(super) pce_id: [u8; 2],
    pub(super) pce_svn: u16,
    /// SVNs of the sixteen TCB components, which Intel's algorithm compares; CPUSVN itself is opaque.
    pub(super) components: [u8; 16],
    pub(super) dynamic_platform: PckFlag,
    pub(super) cached_keys: PckFlag,
    pub(super) smt_enabled: PckFlag,
}

/// Reads the extension of a PCK certificate in DER.
///
/// # Errors
/// [`PckError`] names what it does not state.
pub(super) fn fields(certificate: &[u8]) -> Result<PckFields, PckError> {
    let extension = parse_pck_extension(certificate).map_err(|_| PckError::Extension)?;
    let mut components = [0; 16];
    for (number, svn) in (1u32..).zip(&mut components) {
        *svn = component(&extension, number).ok_or(PckError::Field("the SVN of each TCB component"))?;
    }
    Ok(PckFields {
        fmspc: extension.fmspc,
        pce_id: extension.pce_id.as_slice().try_into().map_err(|_| PckError::Field("PCEID"))?,
        pce_svn: extension.pce_svn,
        components,
        dynamic_platform: flag(extension.dynamic_platform),
        cached_keys: flag(extension.cached_keys),
        smt_enabled: flag(extension.smt_enabled),
    })
}

/// SVN of one component: a DER INTEGER from 0 to 255.
fn component(extension: &PckExtension, number: u32) -> Option<u8> {
    let identifier = oids::TCB.push_arc(number).ok()?;
    match extension.get_value(&identifier).ok()??.as_slice() {
        [svn @ 0..0x80] | [0, svn @ 0x80..=0xff] => Some(*svn),
        _ => None,
    }
}

fn flag(stated: Option<bool>) -> PckFlag {
    match stated {
        None => PckFlag::Unstated,
        Some(false) => PckFlag::No,
        Some(true) => PckFlag::Yes,
    }
}
