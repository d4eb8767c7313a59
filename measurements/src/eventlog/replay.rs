//! Replaying a log: the register values that its events would have led to.
//!
//! Source: TCG PC Client Platform Firmware Profile 1.06 sections 3.3 and 10.4. `register = H(register || digest)`; an
//! EV_NO_ACTION event extends nothing.
//!
//! Not trusted: the log. Where an event's type says that its digest is the hash of its data, that is checked as well,
//! because a reader of the log acts on the data and not on the digest. Never compares with a quote: the caller does.

use std::collections::BTreeMap;

use ring::digest::{Algorithm, SHA256, SHA384, digest};

use super::{ALG_SHA256, ALG_SHA384, EventLog, LogError, LogEvent};
use crate::bytes::index;
use crate::uefi::{event_type, parse_variable};

/// PCRs 0 to 23 (TCG PC Client Platform TPM Profile).
const LAST_PCR: u32 = 23;
/// The registers of a dynamic launch start with all bits set until such a launch happens.
const DYNAMIC_PCRS: std::ops::RangeInclusive<u32> = 17..=22;
/// RTMRs of a TD; a CCEL log numbers them from 1, because 0 stands for MRTD, which nothing extends.
const RTMRS: usize = 4;
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// What a TPM log leads to in the SHA-256 bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay<'a> {
    /// Final values of the PCRs that the log touches; all others were never extended by firmware or kernel stub.
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// The events, in log order.
    pub events: Vec<LogEvent<'a>>,
}

/// What a CCEL log leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CcReplay<'a> {
    /// RTMR0 to RTMR3; zero where the log extends nothing. RTMR3 belongs to user space, which keeps its own log.
    pub rtmrs: [[u8; 48]; RTMRS],
    /// The events, in log order.
    pub events: Vec<LogEvent<'a>>,
}

/// Parses a TPM log and replays its SHA-256 bank.
///
/// # Errors
/// [`LogError`].
pub fn replay_sha256(log: &[u8]) -> Result<Replay<'_>, LogError> {
    let EventLog { banks, events } = EventLog::parse(log)?;
    if !banks.iter().any(|(algorithm, _)| *algorithm == ALG_SHA256) {
        return Err(LogError::NoBank("SHA-256"));
    }
    let mut pcrs = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        if event.event_type == event_type::NO_ACTION {
            if let Some(data) = event.data.strip_prefix(STARTUP_LOCALITY) {
                let start = startup_value(event, data).ok_or(LogError::Locality(number))?;
                // Firmware writes it before anything is measured into PCR 0, and once.
                if pcrs.insert(0, start).is_some() {
                    return Err(LogError::Locality(number));
                }
            }
            continue;
        }
        if event.index > LAST_PCR {
            return Err(LogError::Register { event: number, index: event.index });
        }
        let measured: [u8; 32] = event.digest(ALG_SHA256).ok_or(LogError::Banks(number))?;
        check_preimage(event, &SHA256, &measured, number)?;
        let start = if DYNAMIC_PCRS.contains(&event.index) { [0xff; 32] } else { [0; 32] };
        let register = pcrs.entry(event.index).or_insert(start);
        *register = extended(&SHA256, register, &measured);
    }
    Ok(Replay { pcrs, events })
}

/// Parses a CCEL log (the area that the ACPI table CCEL points to) and replays it.
///
/// # Errors
/// [`LogError`].
pub fn replay_ccel(log: &[u8]) -> Result<CcReplay<'_>, LogError> {
    let EventLog { banks, events } = EventLog::parse(log)?;
    if !banks.iter().any(|(algorithm, _)| *algorithm == ALG_SHA384) {
        return Err(LogError::NoBank("SHA-384"));
    }
    let mut rtmrs = [[0; 48]; RTMRS];
    for (number, event) in events.iter().enumerate() {
        if event.event_type == event_type::NO_ACTION {
            continue;
        }
        let register = event.index.checked_sub(1).and_then(index).and_then(|rtmr| rtmrs.get_mut(rtmr));
        let register = register.ok_or(LogError::Register { event: number, index: event.index })?;
        let measured: [u8; 48] = event.digest(ALG_SHA384).ok_or(LogError::Banks(number))?;
        check_preimage(event, &SHA384, &measured, number)?;
        *register = extended(&SHA384, register, &measured);
    }
    Ok(CcReplay { rtmrs, events })
}

/// PCR 0 of a TPM that was started at a locality: zeros, and the locality in the last byte.
fn startup_value(event: &LogEvent<'_>, data: &[u8]) -> Option<[u8; 32]> {
    let [locality @ (0 | 3 | 4)] = *data else { return None };
    let mut start = [0; 32];
    start[31] = locality;
    (event.index == 0).then_some(start)
}

fn extended<const N: usize>(algorithm: &'static Algorithm, register: &[u8; N], measured: &[u8; N]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(digest(algorithm, &[register.as_slice(), measured].concat()).as_ref());
    out
}

/// Checks the types whose digest is, by definition, the hash of what the record shows.
fn check_preimage(
    event: &LogEvent<'_>,
    algorithm: &'static Algorithm,
    measured: &[u8],
    number: usize,
) -> Result<(), LogError> {
    let is = |data: &[u8]| digest(algorithm, data).as_ref() == measured;
    let sound = match event.event_type {
        event_type::SEPARATOR
        | event_type::S_CRTM_VERSION
        | event_type::VARIABLE_DRIVER_CONFIG
        | event_type::VARIABLE_BOOT2
        | event_type::VARIABLE_AUTHORITY
        | event_type::GPT
        | event_type::ACTION => is(event.data),
        // Older firmware hashes the variable's data alone, newer the whole structure.
        event_type::VARIABLE_BOOT => is(event.data) || parse_variable(event.data).is_some_and(|(_, _, data)| is(data)),
        _ => true,
    };
    if sound { Ok(()) } else { Err(LogError::Preimage(number)) }
}

#[cfg(test)]
mod tests {
    use super::super::encode::{header, record, sample};
    use super::*;
    use crate::digest::{Digest, sha256, sha384};
    use crate::tdx::extend_all;
    use crate::uefi::{BOOT_ORDER, GLOBAL_VARIABLE, variable};

    /// A TPM log with SHA-1 and SHA-256 banks; SHA-1 digests are left zero, they are not looked at.
    fn tpm_log(events: &[(u32, u32, Digest<32>, &[u8])]) -> Vec<u8> {
        let mut log = header(0, &[(4, 20), (ALG_SHA256, 32)]);
        for (register, event_type, digest, data) in events {
            record(&mut log, *register, *event_type, &[(4, &[0; 20]), (ALG_SHA256, digest.as_bytes())], data);
        }
        log
    }

    fn extend(register: [u8; 32], digest: Digest<32>) -> [u8; 32] {
        *sha256(&[register.as_slice(), digest.as_bytes()].concat()).as_bytes()
    }

    #[test]
    fn registers_are_extended_in_log_order() {
        let log = tpm_log(&[
            (4, event_type::BOOT_SERVICES_APPLICATION, sha256(b"kernel"), b"path"),
            (9, event_type::EVENT_TAG, sha256(b"initrd"), b""),
            (4, event_type::SEPARATOR, sha256(&[0; 4]), &[0; 4]),
        ]);
        let replay = replay_sha256(&log).unwrap();
        let four = extend(extend([0; 32], sha256(b"kernel")), sha256(&[0; 4]));
        assert_eq!(replay.pcrs, [(4, four), (9, extend([0; 32], sha256(b"initrd")))].into());
        let sample = sample();
        let cc = replay_ccel(&sample).unwrap();
        let expected = ["first", "second"].map(|text| *extend_all([&sha384(text.as_bytes())]).as_bytes());
        assert_eq!(cc.rtmrs, [expected[0], expected[1], [0; 48], [0; 48]]);
    }

    #[test]
    fn starting_values_follow_the_profile() {
        let locality = |n: u8| [STARTUP_LOCALITY.as_slice(), &[n]].concat();
        let none = Digest::from_bytes([0; 32]);
        let version = (0, event_type::S_CRTM_VERSION, sha256(b"\0\0"), b"\0\0".as_slice());
        let three = locality(3);
        let log = tpm_log(&[(0, 3, none, &three), version]);
        let mut start = [0; 32];
        start[31] = 3;
        assert_eq!(replay_sha256(&log).unwrap().pcrs[&0], extend(start, sha256(b"\0\0")));
        let dynamic = tpm_log(&[(17, event_type::EVENT_TAG, sha256(b"x"), b"")]);
        assert_eq!(replay_sha256(&dynamic).unwrap().pcrs[&17], extend([0xff; 32], sha256(b"x")));

        let one = locality(1);
        for (misplaced, at) in [
            (vec![version, (0, 3, none, three.as_slice())], 1),
            (vec![(0, 3, none, &three), (0, 3, none, &three)], 1),
            (vec![(0, 3, none, &one)], 0),
            (vec![(1, 3, none, &three)], 0),
        ] {
            assert_eq!(replay_sha256(&tpm_log(&misplaced)), Err(LogError::Locality(at)));
        }
    }

    #[test]
    fn data_that_lies_about_its_digest_is_refused() {
        let lie = sha256(b"something else");
        for kind in [
            event_type::SEPARATOR,
            event_type::S_CRTM_VERSION,
            event_type::VARIABLE_DRIVER_CONFIG,
            event_type::VARIABLE_BOOT,
            event_type::VARIABLE_BOOT2,
            event_type::VARIABLE_AUTHORITY,
            event_type::GPT,
            event_type::ACTION,
        ] {
            assert_eq!(replay_sha256(&tpm_log(&[(7, kind, lie, b"data")])), Err(LogError::Preimage(0)), "{kind:#x}");
            assert!(replay_sha256(&tpm_log(&[(7, kind, sha256(b"data"), b"data")])).is_ok());
        }
        let logged = variable(GLOBAL_VARIABLE, "BootOrder", &BOOT_ORDER);
        let boot = |digest| replay_sha256(&tpm_log(&[(1, event_type::VARIABLE_BOOT, digest, &logged)])).map(|_| ());
        assert_eq!(boot(sha256(&BOOT_ORDER)), Ok(()));
        assert_eq!(boot(sha256(&logged)), Ok(()));
        assert_eq!(boot(sha256(b"BootOrder")), Err(LogError::Preimage(0)));
    }

    #[test]
    fn registers_that_do_not_exist_are_refused() {
        let log = tpm_log(&[(24, event_type::EVENT_TAG, sha256(b"x"), b"")]);
        assert_eq!(replay_sha256(&log), Err(LogError::Register { event: 0, index: 24 }));
        assert_eq!(replay_ccel(&log), Err(LogError::NoBank("SHA-384")));
        let sample = sample();
        assert_eq!(replay_sha256(&sample), Err(LogError::NoBank("SHA-256")));
        for register in [0u8, 5] {
            let mut log = sample.clone();
            log[65] = register;
            assert_eq!(replay_ccel(&log), Err(LogError::Register { event: 0, index: register.into() }));
        }
    }
}
