//! What the event log of a trusted boot says of a machine: the PEI volume's digest, and whether everything else that the
//! firmware measures of itself and of the machine is as predicted.
//!
//! Source: TCG PC Client Platform Firmware Profile 1.06 section 3.3.4. Registers that depend on what is booted (4, 5, 8, 9
//! and later ones) are not compared: the recorded boot may have been one of another kernel.
//!
//! Not trusted: the log, beyond what the operator says of the boot that it comes from. Never takes a value out of a log that
//! contradicts the prediction.

use thiserror::Error;

use super::{Prediction, logged_events};
use crate::digest::Digest;
use crate::eventlog::{ALG_SHA256, LogError, Replay, replay_sha256};
use crate::uefi::SEPARATOR;
use crate::uefi::event_type::{NO_ACTION, S_CRTM_VERSION};

/// Registers that firmware and machine alone determine, whatever is booted.
const COMPARED: [u8; 6] = [0, 1, 2, 3, 6, 7];

/// Why a log gives no PEI volume, or not for this prediction.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The log itself is refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// PCR 0 does not hold what OVMF measures into it.
    #[error("PCR 0 of the log is not the one of an OVMF boot: expected the version, two firmware volumes, a separator")]
    NotOvmf,
    /// The log is of another firmware, machine or set-up than the prediction.
    #[error(
        "PCR {pcr} of the log is not as predicted: {what}. The log is of another firmware or machine, or one of a kind that \
         cannot be predicted"
    )]
    Contradicts {
        /// The register.
        pcr: u8,
        /// The first difference.
        what: String,
    },
}

/// The PEI volume's digest, out of the event log (`binary_bios_measurements`) of a trusted boot of the same machine
/// shape. Whether that boot was one to trust is the operator's word; whether it was one of the predicted firmware and machine,
/// [`check_recorded`] says.
///
/// # Errors
/// [`RecordError`].
pub fn record_pei_volume(log: &[u8]) -> Result<Digest<32>, RecordError> {
    let events = replay_sha256(log)?.events;
    let zero: Vec<_> = events.iter().filter(|event| event.index == 0 && event.event_type != NO_ACTION).collect();
    match zero.as_slice() {
        [version, pei, _dxe, separator] if version.event_type == S_CRTM_VERSION && separator.data == SEPARATOR => {
            pei.digest(ALG_SHA256).map(Digest::from_bytes).ok_or(RecordError::NotOvmf)
        }
        _ => Err(RecordError::NotOvmf),
    }
}

/// That a recorded boot measured of firmware and machine what is predicted: each extend of PCRs 0, 1, 2, 3, 6 and 7, and the
/// value that PCR 0 begins with.
///
/// # Errors
/// [`RecordError::Contradicts`] with the first register that differs; [`RecordError::Log`].
pub fn check_recorded(log: &[u8], prediction: &Prediction) -> Result<(), RecordError> {
    let replay = replay_sha256(log)?;
    COMPARED.into_iter().try_for_each(|pcr| same(pcr, &replay, prediction))
}

fn same(pcr: u8, replay: &Replay<'_>, prediction: &Prediction) -> Result<(), RecordError> {
    let logged = logged_events(replay);
    let mut logged = logged.iter().filter(|event| event.pcr == pcr);
    let contradicts = |what| Err(RecordError::Contradicts { pcr, what });
    for expected in prediction.events.iter().filter(|event| event.pcr == pcr) {
        match logged.next() {
            Some(found) if found.digest == expected.digest => {}
            Some(_) => return contradicts(format!("another value for the {}", expected.what)),
            None => return contradicts(format!("it ends before the {}", expected.what)),
        }
    }
    if let Some(more) = logged.next() {
        return contradicts(format!("one event more, {}", more.what));
    }
    // The extends are the same, so only what they began with can differ.
    let value = replay.pcrs.get(&u32::from(pcr)).copied().map(Digest::from_bytes);
    if value != Some(prediction.pcr(pcr)) {
        return contradicts("it begins with another value (StartupLocality)".to_owned());
    }
    Ok(())
}
