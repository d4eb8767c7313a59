//! Writing an event log, for tools and tests that play the firmware's part.
//!
//! Nothing foreign is parsed. Never writes a log that the parser beside it would refuse.

use super::{ALG_SHA384, SIGNATURE};
use crate::tdx::Event;
use crate::uefi::event_type;

/// A CCEL log of these events, without padding: header record with one SHA-384 bank, then the events in order.
#[must_use]
pub fn encode_ccel(events: &[Event]) -> Vec<u8> {
    let mut log = header(1, &[(ALG_SHA384, 48)]);
    for event in events {
        let digests = [(ALG_SHA384, event.digest.as_bytes().as_slice())];
        record(&mut log, event.index, event.event_type, &digests, &event.data);
    }
    log
}

/// The header record. A CCEL log carries register 1 in it, a TPM log register 0.
pub(crate) fn header(register: u32, banks: &[(u16, u16)]) -> Vec<u8> {
    let mut spec = SIGNATURE.to_vec();
    spec.extend([0; 4]); // platform class: client
    spec.extend([0, 2, 0, 2]); // version 2.0, errata 0, UINTN of 8 bytes
    spec.extend(length(banks.len()).to_le_bytes());
    for (algorithm, size) in banks {
        spec.extend(algorithm.to_le_bytes());
        spec.extend(size.to_le_bytes());
    }
    spec.push(0); // no vendor information
    let mut log = Vec::new();
    log.extend(register.to_le_bytes());
    log.extend(event_type::NO_ACTION.to_le_bytes());
    log.extend([0; 20]);
    log.extend(length(spec.len()).to_le_bytes());
    log.extend(spec);
    log
}

/// One crypto-agile record.
pub(crate) fn record(log: &mut Vec<u8>, register: u32, event_type: u32, digests: &[(u16, &[u8])], data: &[u8]) {
    log.extend(register.to_le_bytes());
    log.extend(event_type.to_le_bytes());
    log.extend(length(digests.len()).to_le_bytes());
    for (algorithm, digest) in digests {
        log.extend(algorithm.to_le_bytes());
        log.extend(*digest);
    }
    log.extend(length(data.len()).to_le_bytes());
    log.extend(data);
}

/// Event data are a few hundred bytes; a length over 32 bits cannot be asked for.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A small sound log for tests: two events in registers 1 and 2.
#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    let event = |index, text: &str| Event {
        index,
        event_type: event_type::PLATFORM_CONFIG_FLAGS,
        digest: crate::digest::sha384(text.as_bytes()),
        data: text.as_bytes().to_vec(),
        description: String::new(),
    };
    encode_ccel(&[event(1, "first"), event(2, "second")])
}
