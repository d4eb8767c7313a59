//! What is wrong with the command line or with the person's own files, and how it is told.

use super::{Case, lenient, naming, run};

/// Bytes that nothing accepts: enough where the command line is at fault, which is found first.
fn nothing(platform: &'static str) -> Case {
    Case::new(platform, 0, b"no evidence at all")
}

#[test]
fn wrong_words_are_usage() {
    let words = |more: &[&str]| run(&[&["authenticate", "--platform", "snp", "--evidence", "none"], more].concat());
    words(&[]).complained(2, "--at");
    for at in ["yesterday", "2026-06-01", "2026-06-01T00:00:00", "-1", "", "253402300800", "1969-12-31T23:59:59Z"] {
        words(&[&format!("--at={at}")]).complained(2, "RFC 3339");
    }
    for at in ["0", "2026-06-01T00:00:00Z", "2026-06-01T02:00:00+02:00", "253402300799"] {
        words(&["--at", at]).complained(1, "none");
    }
    for data in ["0", "0g", "+1", &"00".repeat(65), "0x00"] {
        words(&["--at", "0", "--report-data", data]).complained(2, "hex digits");
    }
    for data in ["", "00", &"00".repeat(63)] {
        words(&["--at", "0", "--report-data", data]).complained(2, "exactly 64 bytes");
    }
    for digest in ["", "00", &"0g".repeat(32), &"00".repeat(33)] {
        words(&["--at", "0", "--root-sha256", digest]).complained(2, "64 hex digits");
    }
    words(&["--at", "0", "--event-log", "none"]).complained(2, "SNP has no event log");
    words(&["--at", "0", "--policy", "none"]).complained(2, "--policy");
    run(&["authenticate", "--platform", "sgx", "--at", "0", "--evidence", "none"])
        .complained(2, "possible values: snp");
    nothing("snp").run("appraise", &["--json", "--policy"]).complained(2, "--policy");
}

#[test]
fn the_help_says_where_trust_comes_from_and_why_the_time_is_asked() {
    let help = run(&["authenticate", "--help"]);
    assert_eq!(help.code, 0);
    for said in ["only because you hand it in", "known by their digests", "--at is demanded because", "Exit codes"] {
        assert!(help.stdout.contains(said), "{said}");
    }
    let help = run(&["appraise", "--help"]);
    assert!(help.stdout.contains("[[reference_values]]") && help.stdout.contains("issues no credential"));
}

#[test]
fn evidence_that_does_not_parse_is_refused_and_a_file_that_is_not_there_is_a_fault() {
    for platform in ["snp", "vtpm"] {
        let json = nothing(platform).authenticate(&[]).refused("malformed");
        assert_eq!(json["authentic"], false);
        assert!(json.get("claims").is_none(), "{json}");
    }
    nothing("tdx").authenticate(&[]).refused("unsupported"); // bytes that say another quote version
    Case::new("tdx", 0, &[4, 0, 2, 0, 0x81, 0, 0, 0]).authenticate(&[]).refused("malformed");
    Case::new("snp", 0, b"").authenticate(&[]).refused("evidence-missing");
    Case::new("tdx", 0, &vec![0; 32_769]).authenticate(&[]).refused("oversized");
    Case::new("tdx", 0, &vec![0; 262_145]).authenticate(&[]).refused("oversized");
    let text = nothing("snp").run("authenticate", &[]);
    assert_eq!(text.code, 3);
    assert!(
        text.stdout.lines().last().unwrap().starts_with("verdict: refused: malformed (FC-13): "),
        "{}",
        text.stdout
    );
    run(&["authenticate", "--platform", "snp", "--at", "0", "--evidence", "/nowhere/report"]).complained(1, "/nowhere");
}

#[test]
fn a_named_file_that_is_not_understood_is_refused_and_one_that_is_not_there_a_fault() {
    let junk: [(&str, &[u8], &str); 9] = [
        ("license-milan.crl", b"hello", "no endorsement known here"),
        ("README.crl", b"", "empty"),
        ("junk.der", b"\x30\x82\x00\x00", "not a DER certificate"),
        ("empty", b"", "empty"),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PRIVATE KEY"),
        ("tcb.json", b"{\"tcbInfo\": {\"id\": \"TDX\"}}", "without its signature"),
        ("half.json", b"{\"tcb_info\": \"\"}", "qe_identity is missing"),
        ("metadata.json", b"{}", "no TDX collateral"),
        ("notes.txt", b"hello", "no endorsement known here"),
    ];
    for (name, bytes, cause) in junk {
        let ended = nothing("snp").holding(name, bytes).authenticate(&[]);
        let json = ended.refused_for("malformed", cause);
        assert!(json["cause"].as_str().unwrap().contains(name), "{json}");
    }
    nothing("snp").with("/nowhere/at/all").authenticate(&[]).complained(1, "/nowhere/at/all");
    let ended = nothing("snp").with("/nowhere/at/all").authenticate(&[]).json(1);
    assert_eq!(ended["verdict"], "fault");
    assert!(ended["cause"].as_str().unwrap().starts_with("/nowhere/at/all: "), "{ended}");
    let ended = nothing("snp").authenticate(&["--at"]).json(2);
    assert!(ended["verdict"] == "usage" && ended["cause"].as_str().unwrap().contains("--at"), "{ended}");
    let ended = nothing("snp").authenticate(&["--event-log", "none"]).json(2);
    assert!(ended["verdict"] == "usage" && ended["cause"] == "--event-log: SNP has no event log", "{ended}");
}

#[test]
fn a_policy_is_strict_and_demands_a_measurement() {
    let claims = serde_json::json!({"measured": {"platform": "snp", "launch_digest": "00".repeat(48)}});
    let good = naming(&lenient(), &claims);
    nothing("snp").appraise(&good).refused("malformed");
    let (without, _) = good.split_once("[[reference_values]]").unwrap();
    for (policy, cause) in [
        (without.to_owned(), "authenticate"),
        (good.replace("[[reference_values]]", "[[reference_value]]"), "unknown field"),
        (good.replace("reference_values.measured", "reference_values.measurement"), "unknown field"),
        (good.replace("accepted_advisories", "accepted_advisory"), "accepted_advisor"),
        (good.replace("release 1", ""), "1 to 128 bytes"),
        (good.replace("\"UpToDate\"", "\"Revoked\""), "Revoked is no TCB status"),
        ("policy".to_owned(), "policy.toml"),
    ] {
        assert_ne!(policy, good);
        nothing("snp").appraise(&policy).complained(1, cause);
    }
    nothing("snp").run("appraise", &["--policy", "/nowhere.toml"]).complained(1, "/nowhere.toml");
}
