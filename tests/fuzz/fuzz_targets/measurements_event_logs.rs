//! Event logs of firmware, in both forms: parsed, replayed, and asked what a verifier or an operator asks of them.
#![no_main]

use inwit_fuzz::vector;
use inwit_measurements::eventlog::{EventLog, describe, encode_ccel, replay_ccel, replay_sha256};
use inwit_measurements::sha384;
use inwit_measurements::tdx::{Event, MachineEvents};
use inwit_measurements::vtpm::record_pei_volume;
use libfuzzer_sys::fuzz_target;

const SEPARATOR: u32 = 4;
const CRTM_VERSION: u32 = 8;

/// A TPM's log with one SHA-256 bank: PCR 0 as OVMF measures it, then a separator in PCR 1.
fn tpm_log() -> Vec<u8> {
    let spec = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0b\0\x20\0\0";
    let mut log = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &[spec.len() as u8, 0, 0, 0], spec].concat();
    for (pcr, kind, data) in [
        (0u32, CRTM_VERSION, &b"\0\0"[..]),
        (0, 0x8000_0008, b"pei"),
        (0, 0x8000_0008, b"dxe"),
        (0, SEPARATOR, &[0; 4]),
        (1, SEPARATOR, &[0; 4]),
    ] {
        log.extend([pcr, kind, 1].map(u32::to_le_bytes).concat());
        log.extend([0x0b, 0]);
        log.extend(inwit_measurements::sha256(data).as_bytes());
        log.extend((data.len() as u32).to_le_bytes());
        log.extend(data);
    }
    log
}

fn first() -> Vec<Vec<u8>> {
    let event = |index, event_type, data: &[u8]| Event {
        index,
        event_type,
        digest: sha384(data),
        data: data.to_vec(),
        description: String::new(),
    };
    let ccel =
        encode_ccel(&[event(1, 0x8000_000b, b"hob"), event(1, SEPARATOR, &[0; 4]), event(2, SEPARATOR, &[0; 4])]);
    let real =
        ["confidential-dot-ai+attestation-rs/tdx-live/ccel-match.bin", "google+go-eventlog/CCEL_unpadded.data.bin"];
    [ccel, tpm_log()].into_iter().chain(real.map(vector)).collect()
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let parsed = EventLog::parse(input).is_ok();
    for event in EventLog::parse(input).iter().flat_map(|log| &log.events) {
        let words = describe(event).words;
        assert!(!words.is_empty() && !words.chars().any(char::is_control), "{words:?}");
    }
    assert!(replay_sha256(input).is_err() || parsed);
    assert!(replay_ccel(input).is_err() || parsed);
    let _ = record_pei_volume(input);
    let _ = MachineEvents::record(input);
});
