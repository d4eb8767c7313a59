//! `inwit-authority endorsements` as an operator runs it: the real program and a real state folder. What is imported is what
//! Evidence is then authenticated by.

mod evidence_support;

#[path = "cli_store/amd.rs"]
mod amd;
#[path = "cli_store/dates.rs"]
mod dates;
#[path = "cli_store/intel.rs"]
mod intel;

use inwit_authority::evidence::Endorsements;
use inwit_authority::state::State;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What one run of the program ended in.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// The JSON of a run that ended so.
    #[track_caller]
    fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// A run that ended with a line on stderr.
    #[track_caller]
    fn complained(&self, code: i32, of: &str) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(of), "{}", self.stderr);
    }
}

/// A fresh authority, and files to import.
struct Store {
    folder: TempDir,
}

impl Store {
    fn new() -> Self {
        let store = Self { folder: TempDir::new().unwrap() };
        assert_eq!(store.run(&["init", "--trust-domain", "demo.example"]).code, 0);
        store
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let state = self.state();
        let words = [&["--state", state.to_str().unwrap()], arguments].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_inwit-authority")).args(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// `endorsements` with JSON.
    fn endorsements(&self, words: &[&str]) -> Ended {
        self.run(&[&["--json", "endorsements"], words].concat())
    }

    /// A file to import.
    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join("files").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Imports one file that is named, and says how that ended.
    fn import(&self, name: &str, bytes: &[u8]) -> Ended {
        self.endorsements(&["import", &self.file(name, bytes)])
    }

    /// Every stored file.
    fn stored(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn below(folder: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    below(&path, all)
                } else {
                    drop(all.insert(path.clone(), std::fs::read(path).unwrap()))
                }
            }
        }
        let mut all = BTreeMap::new();
        below(&self.state().join("endorsements"), &mut all);
        all
    }

    /// A run that declined and changed nothing.
    #[track_caller]
    fn declines(&self, words: &[&str], cause: &str) -> Value {
        let before = self.stored();
        let json = self.endorsements(words).json(3);
        assert_eq!(json["imported"], false, "{json}");
        assert!(json["cause"].as_str().unwrap().contains(cause), "{json}");
        assert!(!json["next"].as_str().unwrap().is_empty(), "{json}");
        assert_eq!(self.stored(), before, "nothing was changed");
        json
    }

    /// What a server would authenticate by.
    fn loaded(&self) -> Endorsements {
        State::at(&self.state()).endorsements().unwrap()
    }

    /// Names in the store, in its order.
    fn names(&self) -> Vec<String> {
        let json = self.endorsements(&["list"]).json(0);
        names(&json["endorsements"])
    }

    /// States and names of what a check at a time finds.
    fn findings(&self, at: u64, more: &[&str]) -> Vec<(String, String)> {
        let at = at.to_string();
        let ended = self.endorsements(&[&["check", "--at", &at], more].concat());
        let json: Value = serde_json::from_str(&ended.stdout).unwrap();
        let findings = json["findings"].as_array().unwrap().clone();
        let current = findings.is_empty();
        assert_eq!((ended.code, json["current"].as_bool()), (if current { 0 } else { 3 }, Some(current)));
        let text = |json: &Value| json.as_str().unwrap().to_owned();
        findings.iter().map(|finding| (text(&finding["state"]), text(&finding["name"]))).collect()
    }
}

fn names(items: &Value) -> Vec<String> {
    let name = |item: &Value| item["name"].as_str().unwrap_or_else(|| panic!("{item}")).to_owned();
    items.as_array().unwrap().iter().map(name).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
