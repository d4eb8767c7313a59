//! `inwit-authority workload add` as an owner runs it: the real program, with Reference Values in every form.

use inwit_measurements::reference::{AgentReference, Form, Measured, ReferenceValues, Stated, Validity};
use inwit_measurements::{sha256, sha384};
use std::process::{Command, Output};
use tempfile::TempDir;

const IDENTIFIER: &str = "spiffe://demo.example/hello";

fn values() -> ReferenceValues {
    ReferenceValues {
        name: "hello 1".into(),
        agent: AgentReference { executable: sha256(b"agent"), configuration: sha256(b"configuration") },
        measured: Measured::Snp { launch_digest: sha384(b"launch") },
        made_from: None,
    }
}

/// An authority whose policy has room for SNP, and a folder for files.
fn authority() -> TempDir {
    let folder = TempDir::new().unwrap();
    assert!(run(&folder, &["init", "--trust-domain", "demo.example"]).status.success());
    folder
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    let state = folder.path().join("state");
    let words = [&["--state", state.to_str().unwrap(), "--json"], arguments].concat();
    Command::new(env!("CARGO_BIN_EXE_inwit-authority")).args(words).output().unwrap()
}

fn add(folder: &TempDir, name: &str, reference: &[u8]) -> Output {
    let path = folder.path().join("reference");
    std::fs::write(&path, reference).unwrap();
    run(folder, &["workload", "add", name, "--identifier", IDENTIFIER, "--reference", path.to_str().unwrap()])
}

#[test]
fn every_form_registers_the_same_values() {
    for form in [Form::Toml, Form::Json, Form::Corim, Form::Rvps] {
        let folder = authority();
        let added = add(&folder, "hello", &Stated::from(values()).write(form).unwrap());
        assert!(added.status.success(), "{form}: {added:?}");
        let listed: serde_json::Value = serde_json::from_slice(&run(&folder, &["workload", "list"]).stdout).unwrap();
        let registered = listed["workloads"][0]["reference_values"][0].to_string();
        assert_eq!(ReferenceValues::from_json(&registered).unwrap(), values(), "{form}");
    }
}

/// Each refusal names the file, the form and the field, and nothing is registered.
#[test]
fn what_cannot_be_registered_is_refused_with_form_and_field() {
    let folder = authority();
    let foreign = Stated { agent: None, ..values().into() };
    let end = Validity { not_before: None, not_after: Some("2027-01-31T12:00:00Z".parse().unwrap()) };
    let limited = Stated { validity: end, ..values().into() };
    let unknown = br#"{"snp_launch_measurement": [], "snp_microcode": ["1"]}"#;
    for (reference, form, field) in [
        (foreign.write(Form::Corim).unwrap(), "CoRIM", "agent"),
        (foreign.write(Form::Rvps).unwrap(), "RVPS", "agent"),
        (limited.write(Form::Corim).unwrap(), "CoRIM", "until 2027-01-31T12:00:00Z"),
        (limited.write(Form::Rvps).unwrap(), "RVPS", "until 2027-01-31T12:00:00Z"),
        (unknown.to_vec(), "RVPS", "snp_launch_measurement"),
        (vec![0xd9, 0x01, 0xf5, 0xa0], "CoRIM", "corim-map: id (0)"),
        (vec![0xff; 8], "neither TOML, JSON, RVPS nor CoRIM", "reference"),
    ] {
        let refused = add(&folder, "hello", &reference);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
        assert!(!refused.status.success(), "{told}");
        assert!(told.contains(form) && told.contains(field), "{form}, {field}: {told}");
    }
    let listed: serde_json::Value = serde_json::from_slice(&run(&folder, &["workload", "list"]).stdout).unwrap();
    assert_eq!(listed["workloads"], serde_json::json!([]));
}
