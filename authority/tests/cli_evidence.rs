//! `inwit-authority authenticate` and `appraise` as a person or a script runs them: the real program, files in, exit code
//! and output. Real evidence where the vectors are, and evidence of simulated hardware everywhere.

mod evidence_support;

#[path = "cli_evidence/azure.rs"]
mod azure;
#[path = "cli_evidence/ear.rs"]
mod ear;
#[path = "cli_evidence/found.rs"]
mod found;
#[path = "cli_evidence/loose.rs"]
mod loose;
#[path = "cli_evidence/neighbours.rs"]
mod neighbours;
#[path = "cli_evidence/simulated.rs"]
mod simulated;
#[path = "cli_evidence/spoilt.rs"]
mod spoilt;
#[path = "cli_evidence/usage.rs"]
mod usage;
#[path = "cli_evidence/vectors.rs"]
mod vectors;

use inwit_authority::evidence::TcbStatus;
use inwit_authority::policy::{ConsoleFile, PermissionFile, PolicyFile, RequirementFile, TcbFile};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What one run of the program ended in.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_inwit-authority")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ended {
    /// The JSON of a run that ended so.
    #[track_caller]
    fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The JSON of a refusal with this code, whose promised keys are all there.
    #[track_caller]
    fn refused(&self, code: &str) -> Value {
        let json = self.json(3);
        assert_eq!((&json["verdict"], &json["code"]), (&"refused".into(), &code.into()), "{json}");
        for key in ["cause", "next", "case"] {
            assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {json}");
        }
        json
    }

    /// A refusal with this code, whose cause says this.
    #[track_caller]
    fn refused_for(&self, code: &str, cause: &str) -> Value {
        let json = self.refused(code);
        assert!(json["cause"].as_str().unwrap().contains(cause), "{cause}: {json}");
        json
    }

    /// A run that ended with a line on stderr and no judgement, in JSON too where that was asked for.
    #[track_caller]
    fn complained(&self, code: i32, of: &str) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(of), "{}", self.stderr);
        if !self.stdout.is_empty() {
            let json = self.json(code);
            assert_eq!(json["verdict"], if code == 2 { "usage" } else { "fault" }, "{json}");
            assert!(json["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{json}");
        }
    }
}

/// Evidence with everything that it is judged by, as files.
struct Case {
    folder: TempDir,
    platform: &'static str,
    at: u64,
    endorsements: Vec<PathBuf>,
}

impl Case {
    fn new(platform: &'static str, at: u64, evidence: &[u8]) -> Self {
        let case = Self { folder: TempDir::new().unwrap(), platform, at, endorsements: vec![] };
        case.file("evidence", evidence);
        case
    }

    /// Writes a file beside the evidence.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Hands in a path that exists.
    fn with(mut self, path: impl AsRef<Path>) -> Self {
        self.endorsements.push(path.as_ref().to_owned());
        self
    }

    /// Hands in a file with these bytes.
    fn holding(self, name: &str, bytes: &[u8]) -> Self {
        let path = self.file(&format!("endorsements-{name}"), bytes);
        self.with(path)
    }

    fn run(&self, act: &str, more: &[&str]) -> Ended {
        let (evidence, at) = (self.folder.path().join("evidence"), self.at.to_string());
        let mut arguments =
            vec![act, "--platform", self.platform, "--at", &at, "--evidence", evidence.to_str().unwrap()];
        for path in &self.endorsements {
            arguments.extend(["--endorsements", path.to_str().unwrap()]);
        }
        arguments.extend(more);
        run(&arguments)
    }

    /// `authenticate --json`.
    fn authenticate(&self, more: &[&str]) -> Ended {
        self.run("authenticate", &[&["--json"], more].concat())
    }

    /// `appraise --json` under this policy.
    fn appraise(&self, policy: &str) -> Ended {
        let path = self.file("policy.toml", policy.as_bytes());
        self.run("appraise", &["--json", "--policy", path.to_str().unwrap()])
    }

    /// `appraise --json` under the policy that `init` writes.
    fn appraise_by_default(&self) -> Ended {
        self.run("appraise", &["--json"])
    }

    /// The claims of evidence that must be authentic.
    #[track_caller]
    fn claims(&self) -> Value {
        let json = self.authenticate(&[]).json(0);
        assert_eq!((&json["verdict"], &json["authentic"]), (&"authentic".into(), &true.into()), "{json}");
        json["claims"].clone()
    }
}

/// A policy that accepts every platform that has no forbidden mode; what is measured is for each test to name.
fn lenient() -> PolicyFile {
    let mut policy = PolicyFile::strict();
    let zero = TcbFile { boot_loader: 0, tee: 0, snp: 0, microcode: 0, fmc: None };
    let turin = TcbFile { fmc: Some(0), ..zero };
    policy.snp.minimum_tcb =
        [("milan", zero), ("genoa", zero), ("turin", turin)].map(|(product, tcb)| (product.to_owned(), tcb)).into();
    policy.snp.minimum_abi = [0, 0];
    policy.snp.without_revocation_list = PermissionFile::Allowed;
    policy.tdx.accepted_status = TcbStatus::ALL.map(|status| status.text().to_owned()).to_vec();
    policy.tdx.dynamic_platform = PermissionFile::Allowed;
    policy.tdx.cached_keys = PermissionFile::Allowed;
    policy.azure.console = ConsoleFile::Allowed;
    policy.azure.secure_boot = RequirementFile::NotDemanded;
    policy
}

/// A policy file that demands what these claims measured, as somebody writes it who computed the same.
fn naming(policy: &PolicyFile, claims: &Value) -> String {
    let reference = json!({ "name": "release 1", "measured": claims["measured"] });
    toml::to_string(&json!({ "policy": policy, "reference_values": [reference] })).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
