//! The event log that came with Evidence against the registers that the hardware signed. The log is the guest's and the
//! host's word until its replay leads to exactly those registers; then its events may be read.

use std::collections::BTreeSet;

use inwit_measurements::eventlog::{LogError, replay_ccel, replay_sha256};
use thiserror::Error;

use super::claims::BootEvent;

/// TPM_ALG_SHA256 in the TCG algorithm registry.
const SHA256: u16 = 0x000b;
/// EV_NO_ACTION: a note in the log that extends nothing (TCG PC client platform firmware profile §10.4.1).
const NO_ACTION: u32 = 3;
/// PCRs that firmware, boot loader and kernel stub extend, and that the log therefore has to explain.
const LOGGED_PCRS: u32 = 10;

/// Why a log does not explain the registers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum BootLogError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the event log does not lead to {0}{1} of the quote")]
    Register(&'static str, u32),
}

/// Compares a CCEL log with RTMR0 to RTMR2. RTMR3 belongs to user space and is looked at by itself, but a log that
/// speaks of it has to be right as well.
pub(crate) fn explains_rtmrs(log: &[u8], rtmrs: &[[u8; 48]; 4]) -> Result<(), BootLogError> {
    let replay = replay_ccel(log)?;
    let [_, _, _, last] = replay.rtmrs;
    let compared = if last == [0; 48] { 3 } else { 4 };
    let mut pairs = (0u32..).zip(replay.rtmrs.iter().zip(rtmrs)).take(compared);
    match pairs.find(|(_, (replayed, quoted))| replayed != quoted) {
        Some((number, _)) => Err(BootLogError::Register("RTMR", number)),
        None => Ok(()),
    }
}

/// Compares a TPM log with PCRs 0 to 9, and gives the events of every PCR that it explains. PCRs from 10 on are extended
/// after the boot too, by IMA or the agent for example, so that the log may rightly lead elsewhere; but then nothing says
/// that its records of them are true, and they are left out.
pub(crate) fn explains_pcrs(log: &[u8], pcrs: &[[u8; 32]; 24]) -> Result<Vec<BootEvent>, BootLogError> {
    let replay = replay_sha256(log)?;
    for (number, quoted) in (0..LOGGED_PCRS).zip(pcrs) {
        // A PCR of this range that nothing extended is still zero.
        if replay.pcrs.get(&number).unwrap_or(&[0; 32]) != quoted {
            return Err(BootLogError::Register("PCR ", number));
        }
    }
    let explained: BTreeSet<u32> = (0u32..)
        .zip(pcrs)
        .filter(|(number, quoted)| replay.pcrs.get(number) == Some(*quoted))
        .map(|(number, _)| number)
        .collect();
    let extending = replay.events.iter().filter(|event| event.event_type != NO_ACTION);
    let events = extending.filter(|event| explained.contains(&event.index)).filter_map(|event| {
        let digest = event.digest(SHA256)?;
        Some(BootEvent { pcr: event.index, kind: event.event_type, digest, data: event.data.to_vec() })
    });
    Ok(events.collect())
}
