//! `inwit-measure explain` as its users meet it: the answer in the first line, JSON, forms of measurements, exit codes.
//!
//! Works on small made-up images; what it can name of real boots is tried in the workspace's tests.

#[path = "made_up/image.rs"]
mod image;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{archive, firmware};
use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues};
use inwit_measurements::sha256;

/// A folder of its own for each test, removed when it ends, with an image and the Reference Values of its launch.
struct Folder(PathBuf);

const SNP: &str = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd --vcpus 2";
const NAMED: &str = "--agent agent --config config --name payments";

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inwit-explain-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.write("OVMF.fd", &firmware());
        folder.write("kernel", b"kernel");
        folder.write("agent", b"agent");
        folder.write("config", b"config");
        folder.write("initrd", &archive(&[("init", b"agent"), ("conf", b"config"), ("motd", b"hello")]));
        folder.write("expected.toml", folder.measure(&format!("{SNP} {NAMED}"), "quiet panic=-1").as_bytes());
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    /// What a launch measures as, with a command line that may hold spaces.
    fn measure(&self, arguments: &str, append: &str) -> String {
        let output = run(&self.0, arguments, &["--append", append]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Text of an explanation that ends with this code.
    fn explain(&self, arguments: &str, code: i32) -> String {
        let output = run(&self.0, &format!("explain expected.toml {arguments}"), &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a call that is refused with this code.
    fn refused(&self, arguments: &str, code: i32) -> String {
        let output = run(&self.0, arguments, &[]);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(code), true), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(folder: &Path, arguments: &str, more: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_inwit-measure");
    Command::new(program).current_dir(folder).args(arguments.split_whitespace()).args(more).output().unwrap()
}

fn digest(text: &str) -> &str {
    text.trim().strip_prefix("launch_digest ").unwrap()
}

#[test]
fn the_first_line_is_the_answer() {
    let folder = Folder::new("answer");
    let same = folder.measure(SNP, "quiet panic=-1");
    assert!(folder.explain(digest(&same), 0).starts_with("They are the same: 1 of 1 registers compared.\n"));
    let other = folder.measure(SNP, "panic=-1");
    let told = folder.explain(digest(&other), 3);
    let mut lines = told.lines();
    assert_eq!(lines.next(), Some("The command line differs: the word `quiet` is missing."), "{told}");
    assert_eq!(lines.next(), Some("  Expected `quiet panic=-1`"), "{told}");
    assert_eq!(lines.next(), Some("  Actual   `panic=-1`"), "{told}");
    for part in ["launch_digest: expected ", "How sure: proved", "Tried: ", "its signature was not looked at"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&folder.explain(&format!("{} --json", digest(&other)), 3)).unwrap();
    assert_eq!(
        (&json["same"], &json["component"], &json["certainty"]),
        (&false.into(), &"command-line".into(), &"recomputed".into())
    );
    assert_eq!(json["actual"]["launch_digest"], digest(&other));
    assert!(json["tried"].as_u64().unwrap() > 1 && json["next"].as_array().unwrap().is_empty(), "{json}");
}

#[test]
fn a_measurement_is_read_in_many_forms() {
    let folder = Folder::new("forms");
    let other = folder.measure(&SNP.replace("--vcpus 2", "--vcpus 8"), "quiet panic=-1");
    let mut report = vec![0; 1184];
    report[0] = 3;
    let bytes: Vec<u8> =
        (0..48).map(|at| u8::from_str_radix(&digest(&other)[at * 2..at * 2 + 2], 16).unwrap()).collect();
    report[0x90..0xc0].copy_from_slice(&bytes);
    folder.write("report.bin", &report);
    folder.write("listing", other.as_bytes());
    let json =
        format!("{{\"authentic\": true, \"claims\": {{\"measured\": {{\"launch_digest\": \"{}\"}}}}}}", digest(&other));
    folder.write("claims.json", json.as_bytes());
    let named = folder.measure(&format!("{} {NAMED}", SNP.replace("--vcpus 2", "--vcpus 8")), "quiet panic=-1");
    folder.write("other.toml", named.as_bytes());
    let values = ReferenceValues::from_toml(&named).unwrap();
    folder.write("bare.json", values.clone().without_record().to_json().unwrap().as_bytes());
    let answer = "The number of vCPUs differs: the guest was started with 8 vCPUs instead of 2.";
    for form in ["report.bin", "listing", "claims.json", "other.toml", "bare.json"] {
        assert_eq!(folder.explain(form, 3).lines().next(), Some(answer), "{form}");
    }
    assert!(folder.explain("other.toml", 3).contains("told by the records"));
    assert!(matches!(values.measured, Measured::Snp { .. }));
}

#[test]
fn files_at_hand_are_tried() {
    let folder = Folder::new("files");
    folder.write("expected.cpio", &std::fs::read(folder.0.join("initrd")).unwrap());
    std::fs::create_dir(folder.0.join("builds")).unwrap();
    folder.write("builds/motd", b"good bye");
    folder.write("initrd", &archive(&[("init", b"agent"), ("conf", b"config"), ("motd", b"good bye")]));
    let other = folder.measure(SNP, "quiet panic=-1");
    let blind = folder.explain(&format!("{} --budget 2000", digest(&other)), 3);
    assert!(blind.contains("only narrowed down") && blind.contains("Next: Give the expected initrd"), "{blind}");
    let told = folder.explain(&format!("{} --initrd expected.cpio --try builds", digest(&other)), 3);
    assert!(told.starts_with("The initrd differs: its file `/motd` was replaced by `motd`.\n"), "{told}");
    let told = folder.explain(&format!("{} --initrd initrd", digest(&other)), 3);
    assert!(told.starts_with("The initrd differs: its file `/motd` has other contents.\n"), "{told}");
    assert!(told.contains("told by the record alone"), "{told}");
    let told = folder.explain(&format!("{} --initrd initrd --initrd expected.cpio", digest(&other)), 3);
    assert!(told.contains("`/motd` has other contents") && !told.contains("by the record alone"), "{told}");
    let told = folder.explain(&format!("{} --budget 10", digest(&other)), 3);
    assert!(told.contains("Tried: 10 combinations") && told.contains("--budget"), "{told}");
}

#[test]
fn unfit_inputs_are_refused_with_their_cause() {
    let folder = Folder::new("refused");
    folder.write("noise", &[7; 300]);
    let same = folder.measure(SNP, "quiet panic=-1");
    assert!(folder.refused("explain expected.toml noise", 3).contains("noise: this is no measurement that is known"));
    assert!(folder.refused("explain expected.toml absent", 3).contains("absent"));
    assert!(folder.refused(&format!("explain noise {}", digest(&same)), 3).contains("noise: "));
    let log = format!("explain expected.toml {} --log noise", digest(&same));
    assert!(folder.refused(&log, 3).contains("not a crypto-agile event log"));
    folder.refused("explain expected.toml", 2);
    assert!(folder.refused(&format!("explain expected.toml {} {NAMED}", digest(&same)), 2).contains("--agent-file"));
    let quote = [&[4, 0, 2, 0, 0, 0, 0, 0][..], &[0; 700]].concat();
    folder.write("sgx.quote", &quote);
    assert!(folder.refused("explain expected.toml sgx.quote", 3).contains("only TDX quotes"));
}

/// A measurement that lacks a register, or names another agent, is not the same; one that names more is.
#[test]
fn what_was_not_compared_is_not_the_same() {
    let folder = Folder::new("partial");
    let agent = AgentReference { executable: sha256(b"agent"), configuration: sha256(b"config") };
    let pcrs = BTreeMap::from([(4, sha256(b"4")), (7, sha256(b"7"))]);
    let values = ReferenceValues {
        name: "payments".to_owned(),
        agent: agent.clone(),
        measured: Measured::Vtpm { pcrs },
        made_from: None,
    };
    folder.write("expected.toml", values.to_toml().unwrap().as_bytes());
    let lines = |numbers: &[u8]| {
        numbers
            .iter()
            .map(|number| format!("pcr{number} {}\n", sha256(number.to_string().as_bytes())))
            .collect::<String>()
    };
    folder.write("part", lines(&[7]).as_bytes());
    let told = folder.explain("part", 3);
    assert!(told.starts_with("Nothing that was compared differs, but not everything was there: 1 of 2"), "{told}");
    assert!(told.contains("does not name them: pcr4"), "{told}");
    folder.write("more", lines(&[4, 7, 8]).as_bytes());
    assert!(folder.explain("more", 0).starts_with("They are the same: 2 of 2 registers compared.\n"));
    let other = AgentReference { configuration: sha256(b"other"), ..agent };
    folder.write("other.toml", ReferenceValues { agent: other, ..values }.to_toml().unwrap().as_bytes());
    let told = folder.explain("other.toml", 3);
    assert!(told.starts_with("The agent's configuration that the two name differs"), "{told}");
    folder.write("twice", format!("pcr7 {}\n{}", sha256(b"8"), lines(&[4, 7])).as_bytes());
    assert!(folder.refused("explain expected.toml twice", 3).contains("pcr7 is given twice"));
}

/// Without Reference Values the files of then stand in for a record; without these the next step is told.
#[test]
fn a_bare_measurement_may_be_expected() {
    let folder = Folder::new("bare");
    let (one, other) = (folder.measure(SNP, "quiet panic=-1"), folder.measure(SNP, "panic=-1"));
    let ask = |more: &[&str], code: i32| {
        let output = run(&folder.0, &format!("explain {} {}", digest(&one), digest(&other)), more);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let blind = ask(&[], 3);
    assert!(blind.contains("only narrowed down") && blind.contains("Next: "), "{blind}");
    let files = ["--ovmf", "OVMF.fd", "--kernel", "kernel", "--initrd", "initrd", "--append", "quiet panic=-1"];
    assert!(ask(&files, 3).starts_with("The command line differs: the word `quiet` is missing.\n"));
    let output = run(&folder.0, &format!("explain {0} {0}", digest(&one)), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    folder.write("part", format!("mrtd {}\n", digest(&one)).as_bytes());
    assert!(folder.refused("explain part part", 3).contains("needs one launch digest"));
}

/// What a record says is used only where it gives the registers that it stands beside.
#[test]
fn a_record_that_does_not_fit_proves_nothing() {
    let folder = Folder::new("misfit");
    let measures = |line: &str| {
        let wide: Vec<u8> = format!("{line}\0").encode_utf16().flat_map(u16::to_le_bytes).collect();
        sha256(&wide)
    };
    let register = |line: &str| sha256(&[[0; 32], *measures(line).as_bytes()].concat());
    let values = |file: &str, measured: &str, line: &str, events: bool| {
        let event = format!(
            "[{{\"register\": \"pcr9\", \"part\": \"command-line\", \"measures\": \"cmd\", \"digest\": \"{}\"}}]",
            measures(line)
        );
        let text = format!(
            "{{\"name\": \"n\", \"agent\": {{\"executable\": \"{0}\", \"configuration\": \"{0}\"}}, \"measured\": {{\"platform\": \
             \"vtpm\", \"pcrs\": {{\"9\": \"{measured}\"}}}}, \"made_from\": {{\"command_line\": \"{line}\", \"events\": {1}}}}}",
            sha256(b"agent"),
            if events { event.as_str() } else { "[]" }
        );
        folder.write(file, text.as_bytes());
    };
    let unrelated = sha256(b"unrelated").to_string();
    folder.write("actual", format!("pcr9 {}\n", register("ro")).as_bytes());
    values("expected.toml", &register("ro quiet").to_string(), "ro quiet", true);
    assert!(folder.explain("actual", 3).contains("How sure: proved"));
    values("expected.toml", &unrelated, "ro quiet", true);
    let told = folder.explain("actual", 3);
    assert!(!told.contains("proved") && told.contains("do not fit together: for pcr9"), "{told}");

    // Two records: believed where both give their registers, not where nothing does.
    values("expected.toml", &register("one two three").to_string(), "one two three", true);
    values("other", &register("four five six").to_string(), "four five six", true);
    let told = folder.explain("other", 3);
    assert!(told.starts_with("The command line differs: ") && told.contains("told by the records"), "{told}");
    values("expected.toml", &unrelated, "one two three", false);
    values("other", &register("four five six").to_string(), "four five six", false);
    let told = folder.explain("other", 3);
    assert!(told.contains("only narrowed down") && told.contains("nothing measured vouches for it"), "{told}");
    assert!(!told.starts_with("The command line differs: w"), "{told}");
}
