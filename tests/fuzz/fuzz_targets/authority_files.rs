//! Files on the command line of offline acts: evidence in every form that people have, and endorsements told by their
//! content. Parts are the platform, the event log (none where empty), endorsements, evidence. Each is written into memory
//! and the act is done as `inwit-authority` does it; it ends in one of its four exit codes, with words.
#![no_main]

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::LazyLock;

use inwit_authority::cli;
use inwit_fuzz::simulated::{CHIP, TD};
use inwit_fuzz::{joined, parts, vector};
use libfuzzer_sys::fuzz_target;

/// A folder of this process alone, in memory where the system has such a place. libFuzzer ends without a word, so what
/// ended processes left is removed by the next one.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let above = if memory.is_dir() { memory } else { std::env::temp_dir() };
    for entry in std::fs::read_dir(&above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("inwit-fuzz-"));
        if process.is_some_and(|number| !PathBuf::from("/proc").join(number).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let folder = above.join(format!("inwit-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder in memory");
    folder
});

const PLATFORMS: [&str; 5] = ["snp", "tdx", "vtpm", "azure-snp", "azure-tdx"];

fn first() -> Vec<Vec<u8>> {
    let collateral = TD.collateral_json().expect("collateral");
    let report = CHIP.report(&[0x5a; 64], 0).expect("a report");
    let quote = TD.quote(&[0x5a; 64]).expect("a quote");
    let azure = |name: &str| vector(&format!("confidential-containers+trustee/{name}"));
    let root = CHIP.root.ark_der();
    vec![
        joined(&[&[0], &[], root, &report]),
        joined(&[&[0], &[], &CHIP.certificate_table(), &report]),
        joined(&[&[0], &[], &CHIP.root.crl_der().expect("a list"), &report]),
        joined(&[&[1], &[], collateral.as_bytes(), &quote]),
        joined(&[&[1], &[], TD.root.root_der(), &quote]),
        joined(&[&[1], &[], TD.pck.chain.as_bytes(), &quote]),
        joined(&[&[2], &[], "5a".repeat(32).as_bytes(), &azure("tpm_evidence.json")]),
        joined(&[&[3], &[], root, &azure("az-snp-vtpm/evidence-v1.json")]),
        joined(&[&[3], &[], root, &azure("az-snp-vtpm/evidence-v0.json")]),
        joined(&[&[3], &[], root, &azure("az-snp-vtpm/hcl-report.bin")]),
        joined(&[&[4], &[], collateral.as_bytes(), &azure("az-tdx-vtpm/evidence-v1.json")]),
    ]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [platform, log, endorsements, evidence] = parts(input);
    let platform = PLATFORMS[platform.first().map_or(0, |byte| usize::from(*byte)) % PLATFORMS.len()];
    let files = ["log", "endorsements", "evidence"].map(|name| FOLDER.join(name));
    for (path, bytes) in files.iter().zip([log, endorsements, evidence]) {
        std::fs::write(path, bytes).expect("a file in memory");
    }
    let [log_file, endorsement_file, evidence_file] = &files;
    let word = OsStr::new;
    let mut arguments = ["inwit-authority", "authenticate", "--json", "--at", "1795348800", "--platform"].map(word).to_vec();
    arguments.extend([word(platform), word("--evidence"), evidence_file.as_os_str()]);
    arguments.extend([word("--endorsements"), endorsement_file.as_os_str()]);
    if !log.is_empty() {
        arguments.extend([word("--event-log"), log_file.as_os_str()]);
    }
    let (code, words) = cli::run(&arguments);
    assert!(code <= 3 && !words.is_empty());
    assert!(code != 3 || serde_json::from_str::<serde_json::Value>(&words).is_ok(), "{words}");
});
