//! What the Evidence tests share: the folder of real vectors, and Evidence around a quote. Never part of a product.
#![allow(dead_code, unreachable_pub)] // each test binary compiles this and uses its own part

pub mod amd;
pub mod azure;
pub mod der;
pub mod intel;
pub mod judge;
pub mod loose;
pub mod policy;
pub mod snp;
pub mod tdx;
pub mod tpm;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};

/// Real evidence from real hardware, outside of the repository: `INWIT_VECTORS`, or beside the repository.
pub fn vectors() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = std::env::var_os("INWIT_VECTORS").map_or_else(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// The folder, or a line on the terminal that says how many checks did not run.
pub fn vectors_or_say(missed: usize, of: &str) -> Option<PathBuf> {
    let folder = vectors();
    if folder.is_none() {
        // Straight to the terminal: the test harness swallows what a passing test prints.
        let line = format!("NOT RUN: {missed} {of} (no vectors; set INWIT_VECTORS)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    folder
}

pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

pub fn evidence(platform: Platform, quote: Vec<u8>, endorsements: Vec<u8>, event_log: Vec<u8>) -> Evidence {
    Evidence { platform, quote, endorsements, event_log, agent_register: AgentRegister::Absent }
}

/// The refusal of a result that must be one.
#[track_caller]
pub fn refused<T>(outcome: Result<T, Refusal>) -> Refusal {
    match outcome {
        Ok(_) => panic!("accepted what must be refused"),
        Err(refusal) => refusal,
    }
}

/// Asserts the code, showing the whole refusal when it is another.
#[track_caller]
pub fn refused_as<T>(outcome: Result<T, Refusal>, code: RefusalCode) {
    let refusal = refused(outcome);
    assert_eq!(refusal.code, code, "{refusal}");
}
