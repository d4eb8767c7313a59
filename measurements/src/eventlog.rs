//! Crypto-agile TCG event logs: `binary_bios_measurements` of a vTPM and the CCEL area of a confidential VM.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06 section 10, ACPI 6.5 section 5.2.34 (CCEL), Intel GHCI. The
//! first record has the old SHA-1 form and lists the algorithms of all later ones. Integers are little-endian.
//!
//! Not trusted: the whole log. It says nothing until its replay equals the registers of authentic Evidence. Every
//! length and count is bounded, unknown algorithms and trailing bytes are refused. Never fetches a log.

mod describe;
mod encode;
mod path;
mod proof;
mod replay;
mod text;

pub use describe::{Description, describe};
pub use encode::encode_ccel;
#[cfg(test)]
pub(crate) use encode::{header, record};
pub use proof::Proof;
pub use replay::{CcReplay, Replay, replay_ccel, replay_sha256};

use thiserror::Error;

use crate::bytes::{array_at, index, slice_at, u16_at, u32_at};
use crate::uefi::event_type;

/// Longest log in bytes. Firmware reserves 64 KiB to 1 MiB; Linux gives what was used.
pub const MAX_LOG_BYTES: usize = 16 << 20;
/// Most records. Logs of real boots have 20 to 200.
pub const MAX_EVENTS: usize = 1 << 16;
/// Most hash banks; TPMs have up to five.
const MAX_BANKS: u32 = 8;
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";

/// TCG algorithm registry.
pub(crate) const ALG_SHA256: u16 = 0x000b;
pub(crate) const ALG_SHA384: u16 = 0x000c;
/// Algorithms and digest lengths that a log may use: SHA-1, SHA-256, SHA-384, SHA-512, SM3.
const BANKS: [(u16, usize); 5] = [(0x0004, 20), (ALG_SHA256, 32), (ALG_SHA384, 48), (0x000d, 64), (0x0012, 32)];

/// Why a log is refused. Numbers of events count from 0 after the header record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    /// Longer than [`MAX_LOG_BYTES`].
    #[error("the event log has {0} bytes, more than 16 MiB")]
    TooLarge(usize),
    /// The first record is no crypto-agile header.
    #[error("not a crypto-agile event log: {0}")]
    Header(&'static str),
    /// A record reaches beyond the end of the log.
    #[error("event {0} is cut short")]
    CutShort(usize),
    /// More than [`MAX_EVENTS`] records.
    #[error("the event log has more than {MAX_EVENTS} events")]
    TooMany,
    /// A record does not carry exactly one digest of each algorithm of the header.
    #[error("event {0} does not carry one digest for each bank of the header")]
    Banks(usize),
    /// What follows the last record is neither all 0xFF nor all zero.
    #[error("bytes after the last event, at offset {0}, are not padding")]
    Tail(usize),
    /// The wanted algorithm has no bank in this log.
    #[error("the event log has no {0} bank")]
    NoBank(&'static str),
    /// A register number that the platform does not have, or that cannot be extended.
    #[error("event {event} extends register {index}, which this platform does not have")]
    Register {
        /// Number of the event.
        event: usize,
        /// Register as logged.
        index: u32,
    },
    /// The data of an event does not hash to its digest, though its type says that it does.
    #[error("event {0} shows other data than what was measured")]
    Preimage(usize),
    /// A StartupLocality event in the wrong place, repeated, or with an impossible locality.
    #[error("event {0} is a misplaced or impossible StartupLocality")]
    Locality(usize),
}

/// One record, borrowed from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent<'a> {
    /// PCR number in a TPM log; RTMR number plus 1 in a CCEL log.
    pub index: u32,
    /// Event type of the firmware profile.
    pub event_type: u32,
    /// Algorithm identifiers and digests, in log order.
    pub digests: Vec<(u16, &'a [u8])>,
    /// Event data; only for some types do they determine the digest.
    pub data: &'a [u8],
}

/// A parsed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog<'a> {
    /// Algorithm identifiers and digest lengths of the header.
    pub banks: Vec<(u16, usize)>,
    /// All records after the header.
    pub events: Vec<LogEvent<'a>>,
}

impl<'a> LogEvent<'a> {
    /// The digest for one algorithm, of exactly `N` bytes.
    #[must_use]
    pub fn digest<const N: usize>(&self, algorithm: u16) -> Option<[u8; N]> {
        let (_, digest) = self.digests.iter().find(|(known, _)| *known == algorithm)?;
        (*digest).try_into().ok()
    }
}

impl<'a> EventLog<'a> {
    /// Parses a whole log. Padding after the last record must be all 0xFF or all zero.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn parse(log: &'a [u8]) -> Result<Self, LogError> {
        if log.len() > MAX_LOG_BYTES {
            return Err(LogError::TooLarge(log.len()));
        }
        let mut reader = Reader { rest: log };
        let banks = parse_header(&mut reader)?;
        let mut events = Vec::new();
        // Each turn consumes at least the 16 bytes of a record's fixed fields.
        while !reader.rest.is_empty() {
            if at_padding(reader.rest) {
                let offset = log.len() - reader.rest.len();
                let fill = reader.rest.first().copied();
                let uniform = reader.rest.iter().all(|byte| Some(*byte) == fill);
                return if uniform { Ok(Self { banks, events }) } else { Err(LogError::Tail(offset)) };
            }
            let number = events.len();
            if number == MAX_EVENTS {
                return Err(LogError::TooMany);
            }
            events.push(parse_event(&mut reader, &banks, number)?);
        }
        Ok(Self { banks, events })
    }
}

/// Whether padding begins here: a record never begins with eight bytes of 0xFF (no such register) or of zero (no such
/// event type).
fn at_padding(rest: &[u8]) -> bool {
    let head = rest.get(..8).unwrap_or(rest);
    head.iter().all(|byte| *byte == 0xff) || head.iter().all(|byte| *byte == 0)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4).and_then(|bytes| u32_at(bytes, 0))
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes(2).and_then(|bytes| u16_at(bytes, 0))
    }

    /// A length u32 and as many bytes.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = index(self.u32()?)?;
        self.bytes(length)
    }
}

/// The first record: {index, type, SHA-1 of zeros, size, Spec ID event}, of which the banks are kept.
fn parse_header(reader: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, LogError> {
    let fields = |reader: &mut Reader<'_>| Some((reader.u32()?, reader.u32()?, array_at::<20>(reader.bytes(20)?, 0)?));
    let (_, event_type, digest) = fields(reader).ok_or(LogError::Header("shorter than its first record"))?;
    if event_type != event_type::NO_ACTION || digest != [0; 20] {
        return Err(LogError::Header("the first record is no EV_NO_ACTION without digest"));
    }
    let spec = reader.sized().ok_or(LogError::Header("the first record is cut short"))?;
    let Some(rest) = spec.strip_prefix(SIGNATURE) else {
        return Err(LogError::Header("no Spec ID signature"));
    };
    // Platform class u32, version minor and major, errata, size of UINTN, then the banks.
    if rest.get(4..6) != Some(&[0, 2]) {
        return Err(LogError::Header("another version than 2.0"));
    }
    let count = u32_at(rest, 8).filter(|count| (1..=MAX_BANKS).contains(count)).and_then(index);
    let count = count.ok_or(LogError::Header("an impossible number of banks"))?;
    let mut banks: Vec<(u16, usize)> = Vec::new();
    let table = slice_at(rest, 12, count * 4).ok_or(LogError::Header("the list of banks is cut short"))?;
    for entry in table.chunks_exact(4) {
        let bank = u16_at(entry, 0).zip(u16_at(entry, 2)).map(|(id, size)| (id, usize::from(size)));
        let bank = bank.filter(|bank| BANKS.contains(bank)).ok_or(LogError::Header("an unknown bank"))?;
        if banks.contains(&bank) {
            return Err(LogError::Header("a repeated bank"));
        }
        banks.push(bank);
    }
    let vendor = rest.get(12 + count * 4..).unwrap_or_default();
    match vendor.split_first() {
        Some((length, info)) if info.len() == usize::from(*length) => Ok(banks),
        _ => Err(LogError::Header("vendor information of another length than stated")),
    }
}

fn parse_event<'a>(reader: &mut Reader<'a>, banks: &[(u16, usize)], number: usize) -> Result<LogEvent<'a>, LogError> {
    let cut = LogError::CutShort(number);
    let fields = |reader: &mut Reader<'_>| Some((reader.u32()?, reader.u32()?, reader.u32()?));
    let (register, event_type, count) = fields(reader).ok_or_else(|| cut.clone())?;
    if index(count) != Some(banks.len()) {
        return Err(LogError::Banks(number));
    }
    let mut digests: Vec<(u16, &[u8])> = Vec::with_capacity(banks.len());
    for _ in banks {
        let algorithm = reader.u16().ok_or_else(|| cut.clone())?;
        let bank = banks.iter().find(|(known, _)| *known == algorithm);
        let repeated = digests.iter().any(|(known, _)| *known == algorithm);
        let (_, length) = bank.filter(|_| !repeated).ok_or(LogError::Banks(number))?;
        digests.push((algorithm, reader.bytes(*length).ok_or_else(|| cut.clone())?));
    }
    let data = reader.sized().ok_or(cut)?;
    Ok(LogEvent { index: register, event_type, digests, data })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::encode::sample;
    use super::*;

    fn spoil(at: usize, bytes: &[u8]) -> Result<(), LogError> {
        let mut log = sample();
        log[at..at + bytes.len()].copy_from_slice(bytes);
        EventLog::parse(&log).map(|_| ())
    }

    #[test]
    fn a_sound_log_is_read_with_either_padding() {
        let log = sample();
        let parsed = EventLog::parse(&log).unwrap();
        assert_eq!(parsed.banks, [(ALG_SHA384, 48)]);
        assert_eq!(parsed.events.len(), 2);
        assert_eq!((parsed.events[1].index, parsed.events[1].data), (2, b"second".as_slice()));
        for fill in [0xff, 0] {
            for length in [1, 7, 8, 1000] {
                let padded = [log.as_slice(), &vec![fill; length]].concat();
                assert_eq!(EventLog::parse(&padded).as_ref(), Ok(&parsed), "{length} of {fill:#x}");
            }
        }
        let hiding = [log.as_slice(), &[0xff; 12], b"x"].concat();
        assert_eq!(EventLog::parse(&hiding), Err(LogError::Tail(log.len())));
    }

    #[test]
    fn a_spoiled_header_is_refused() {
        assert_eq!(spoil(4, &[8]), Err(LogError::Header("the first record is no EV_NO_ACTION without digest")));
        assert_eq!(spoil(8, &[1]), Err(LogError::Header("the first record is no EV_NO_ACTION without digest")));
        assert_eq!(spoil(28, &[0xff; 4]), Err(LogError::Header("the first record is cut short")));
        assert_eq!(spoil(32, b"Spec ID Event02"), Err(LogError::Header("no Spec ID signature")));
        assert_eq!(spoil(53, &[1]), Err(LogError::Header("another version than 2.0")));
        assert_eq!(spoil(56, &[0]), Err(LogError::Header("an impossible number of banks")));
        assert_eq!(spoil(56, &[9]), Err(LogError::Header("an impossible number of banks")));
        assert_eq!(spoil(56, &[2]), Err(LogError::Header("the list of banks is cut short")));
        assert_eq!(spoil(60, &[0xff]), Err(LogError::Header("an unknown bank")));
        assert_eq!(spoil(62, &[32]), Err(LogError::Header("an unknown bank")), "SHA-384 of 32 bytes");
        assert_eq!(spoil(64, &[1]), Err(LogError::Header("vendor information of another length than stated")));
        assert_eq!(EventLog::parse(&sample()[..31]), Err(LogError::Header("the first record is cut short")));
        assert_eq!(EventLog::parse(&[]), Err(LogError::Header("shorter than its first record")));
    }

    #[test]
    fn spoiled_records_are_refused() {
        // The header ends at 65; then index, type, count, algorithm, digest, size, data.
        let first = 65;
        assert_eq!(spoil(first + 8, &[0]), Err(LogError::Banks(0)));
        assert_eq!(spoil(first + 8, &[0xff; 4]), Err(LogError::Banks(0)), "no room is reserved for a claimed count");
        assert_eq!(spoil(first + 12, &[0x0b]), Err(LogError::Banks(0)), "a bank that the header does not list");
        assert_eq!(spoil(first + 62, &[0xff; 4]), Err(LogError::CutShort(0)), "data beyond the end");
        let log = sample();
        for cut in 1..6 {
            assert_eq!(EventLog::parse(&log[..log.len() - cut]), Err(LogError::CutShort(1)));
        }
        let large = vec![0; MAX_LOG_BYTES + 1];
        assert_eq!(EventLog::parse(&large), Err(LogError::TooLarge(MAX_LOG_BYTES + 1)));
    }

    proptest! {
        #[test]
        fn changed_logs_never_panic(changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..6), tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut log = sample();
            for (at, byte) in changes {
                if let Some(place) = log.get_mut(at) {
                    *place = byte;
                }
            }
            log.extend(tail);
            let _ = EventLog::parse(&log);
            let _ = replay_ccel(&log);
            let _ = replay_sha256(&log);
        }
    }
}
