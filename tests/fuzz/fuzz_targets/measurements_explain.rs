//! A measurement in any form, a record and an event log, all hostile: recognised or refused, and explained within a budget.
#![no_main]

use inwit_fuzz::{joined, parts};
use inwit_measurements::eventlog::encode_ccel;
use inwit_measurements::explain::{Actual, Candidate, Candidates, Question, explain};
use inwit_measurements::linux::{DirectKernel, KernelHeader, RamdiskOption};
use inwit_measurements::made_from::{MadeFrom, Role};
use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues, Stated};
use inwit_measurements::tdx::{extend_register, rtmr2_events};
use inwit_measurements::{Digest, sha256, sha384};
use libfuzzer_sys::fuzz_target;

/// Reference Values of a TD with a record, and lines of what another boot of it measured as.
fn first() -> Vec<Vec<u8>> {
    // No more of a kernel than its release.
    let mut kernel = vec![0; 0x400];
    kernel[0x1f1] = 1;
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e] = 0x80;
    kernel[0x280..0x285].copy_from_slice(b"6.9.0");
    let (ramdisk_option, header) = (RamdiskOption::BeforeCommandLine, KernelHeader::AsBuilt);
    let boot =
        |append| DirectKernel { kernel: &kernel, initrd: b"initrd", append, memory_mib: 512, ramdisk_option, header };
    let rtmr2 = |append| rtmr2_events(&boot(append)).map(|events| (extend_register(&events), events));
    let (Ok((before, events)), Ok((after, _))) = (rtmr2("quiet"), rtmr2("loud")) else { return Vec::new() };
    let zero = Digest::from_bytes([0; 48]);
    let measured = Measured::Tdx { mrtd: sha384(b"td"), rtmr0: zero, rtmr1: zero, rtmr2: before };
    let mut record = MadeFrom::default();
    record.add_direct_boot(("kernel", b"kernel"), ("initrd", b"initrd"), "quiet");
    record.add_td_events(&events);
    let agent = AgentReference { executable: sha256(b"agent"), configuration: sha256(b"configuration") };
    let values = ReferenceValues { name: "fuzz".to_owned(), agent, measured, made_from: Some(record) };
    let Ok(expected) = values.to_toml() else { return Vec::new() };
    let lines = format!("mrtd {}\nrtmr2 {after}\n", sha384(b"other"));
    let log = encode_ccel(&events);
    vec![
        joined(&[expected.as_bytes(), lines.as_bytes(), &[]]),
        joined(&[expected.as_bytes(), lines.as_bytes(), &log]),
        joined(&[expected.as_bytes(), &[], &log]),
    ]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [expected, actual, log] = parts(input);
    let Ok(expected) = Stated::read(expected) else {
        let _ = Actual::read(actual);
        return;
    };
    let actual = if actual.is_empty() { log } else { actual };
    let Ok(actual) = Actual::read(actual) else { return };
    let files = vec![Candidate::new(None, "file", log.to_vec()), Candidate::new(Some(Role::Initrd), "initrd", b"x".to_vec())];
    let candidates = Candidates { files, append: vec!["panic=1".to_owned()] };
    let question = Question { expected: &expected, actual: &actual, log: Some(log), candidates: &candidates, budget: 50 };
    let explanation = explain(&question, &mut |_| {});
    // Registers that were not measured, or another agent, make a difference that no register shows.
    assert!(!explanation.answer.is_empty() && (!explanation.same || explanation.expected.is_empty()));
    assert!(!explanation.answer.chars().any(char::is_control), "{:?}", explanation.answer);
    assert!(explanation.detail.iter().all(|line| !line.chars().any(char::is_control)), "{:?}", explanation.detail);
});
