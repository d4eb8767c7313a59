//! Evidence of simulated hardware under roots made on the spot: every outcome, without the folder of real vectors.

use std::sync::LazyLock;

use inwit_authority::evidence::Product;
use inwit_protocol::evidence::Platform;
use serde_json::Value;
use x509_parser::pem::Pem;

use super::evidence_support::amd::{self, ASK_SERIAL, Amd, DAY, Rsa};
use super::evidence_support::der::pem;
use super::evidence_support::intel::{self, ATTRIBUTES, Intel, Platform as Chip, Revoked, Td};
use super::evidence_support::policy::agent;
use super::evidence_support::snp::{GUID_ASK, GUID_VCEK, table};
use super::evidence_support::tpm::{Tpm, evidence_of};
use super::evidence_support::{evidence, read};
use super::{Case, hex, lenient, naming};

pub(super) static MILAN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Milan));
const DATA: [u8; 64] = [0xda; 64];
const LAUNCH: [u8; 48] = [0x4d; 48];

/// A report and the certificate of the chip that signed it, after a change to what it says.
pub(super) fn report(offset: usize, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let vek = MILAN.issue(&MILAN.vcek_fields());
    let mut body = MILAN.body(&DATA, &LAUNCH);
    body[offset..offset + bytes.len()].copy_from_slice(bytes);
    (vek.report(&body), vek.der)
}

/// The same as a case with the simulated AMD's root.
pub(super) fn snp(offset: usize, bytes: &[u8]) -> Case {
    let (report, vcek) = report(offset, bytes);
    let case = Case::new("snp", amd::NOW, &report).holding("vcek", &vcek);
    case.holding("ark.der", &MILAN.ark_der).holding("ask.der", &MILAN.ask_der)
}

#[test]
fn an_authentic_report_is_told_of_in_words_and_in_json() {
    let case = snp(0, &[]);
    let json = case.authenticate(&[]).json(0);
    assert_eq!((&json["verdict"], &json["platform"]), (&"authentic".into(), &"snp".into()));
    assert_eq!(json["at_unix_seconds"], amd::NOW);
    assert_eq!((&json["report_data"], &json["report_data_compared"]), (&hex(&DATA).into(), &false.into()));
    assert_eq!(json["trusted_roots"][0]["name"], "ARK-Milan");
    assert_eq!(json["trusted_roots"][0]["sha256"].as_str().map(str::len), Some(64));
    let claims = &json["claims"];
    assert_eq!(claims["measured"], serde_json::json!({"platform": "snp", "launch_digest": hex(&LAUNCH)}));
    assert_eq!((&claims["vmpl"], &claims["guest_policy"]["debug_allowed"]), (&0.into(), &false.into()));
    assert_eq!((&claims["reported_tcb"]["microcode"], &claims["revocation"]), (&219.into(), &"no-list".into()));

    let text = case.run("authenticate", &[]);
    assert_eq!((text.code, text.stderr.as_str()), (0, ""));
    let last = text.stdout.lines().last().unwrap();
    assert!(last.starts_with("verdict: authentic: ") && last.contains("for whom"), "{last}");
    let shown = |name: &str, value: &str| {
        text.stdout.lines().any(|line| line.split_once(' ').is_some_and(|(n, v)| n == name && v.trim() == value))
    };
    assert!(shown("claims.guest_policy.debug_allowed", "no"), "{}", text.stdout);
    assert!(shown("claims.measured.launch_digest", &hex(&LAUNCH)), "{}", text.stdout);
    assert!(shown("claims.current_firmware", "major=1 minor=55 build=29"), "{}", text.stdout);
}

#[test]
fn report_data_is_compared_where_it_is_given() {
    let case = snp(0, &[]);
    let json = case.authenticate(&["--report-data", &hex(&DATA)]).json(0);
    assert_eq!(json["report_data_compared"], true);
    let mut other = DATA;
    other[63] ^= 1;
    let json = case.authenticate(&["--report-data", &hex(&other)]).refused("binding-mismatch");
    assert_eq!(json["authentic"], true);
}

#[test]
fn certificates_are_known_by_what_they_are_in_every_form() {
    let (report, vcek) = report(0, &[]);
    let case = || Case::new("snp", amd::NOW, &report);
    let bundle = [
        b"The chain, as the key service gives it.\n".to_vec(),
        pem("CERTIFICATE", &MILAN.ask_der),
        pem("CERTIFICATE", &MILAN.ark_der),
        pem("CERTIFICATE", &vcek),
    ];
    case().holding("chain", &bundle.concat()).claims();
    let host = table(&[(GUID_VCEK, &vcek), (GUID_ASK, &MILAN.ask_der)]);
    case().holding("certificates.bin", &host).holding("ark", &MILAN.ark_der).claims();
    // In one folder with the evidence and what people keep beside it, some of it deeper.
    let case = case();
    case.file("amd/milan/ark", &MILAN.ark_der);
    case.file("amd/milan/ask", &MILAN.ask_der);
    case.file("vcek.cer", &vcek);
    case.file("README", b"where all of this is from");
    let folder = case.folder.path().to_owned();
    // The root lies below the evidence: the folder that it is in has to be named.
    let case = case.with(&folder).with(folder.join("amd"));
    case.claims();
    let text = case.run("authenticate", &[]);
    assert!(text.stderr.contains("README: no endorsement known here\n"), "{}", text.stderr);
    assert_eq!(text.stderr.lines().count(), 2, "README and the evidence: {}", text.stderr);
}

#[test]
fn evidence_of_ours_brings_its_certificates_and_says_its_platform() {
    let (report, vcek) = report(0, &[]);
    let host = table(&[(GUID_VCEK, &vcek), (GUID_ASK, &MILAN.ask_der)]);
    let travelled = evidence(Platform::Snp, report, host.clone(), vec![]).encode();
    let case = |platform| Case::new(platform, amd::NOW, &travelled).holding("ark", &MILAN.ark_der);
    case("snp").claims();
    case("snp").holding("table", &host).claims();
    let other = table(&[(GUID_VCEK, &vcek)]);
    case("snp").holding("table", &other).authenticate(&[]).complained(2, "holds a certificate table already");
    let json = case("tdx").authenticate(&[]).refused("unsupported");
    assert!(json["cause"].as_str().unwrap().contains("from snp"), "{json}");
    let cut = Case::new("snp", amd::NOW, &travelled[..travelled.len() - 1]).holding("ark", &MILAN.ark_der);
    cut.authenticate(&[]).refused("malformed");
}

#[test]
fn what_is_missing_or_wrong_in_the_chain_is_named() {
    let (report, vcek) = report(0, &[]);
    let bare = || Case::new("snp", amd::NOW, &report);
    let cause = |json: Value| json["cause"].as_str().unwrap().to_owned();
    assert!(cause(bare().authenticate(&[]).refused("endorsement-missing")).contains("ARK-Milan"));
    let without_root = bare().holding("ask", &MILAN.ask_der).holding("vcek", &vcek).authenticate(&[]);
    assert_eq!(without_root.json(3)["set_aside"][0]["reason"], "no ARK-Milan was handed in");
    assert!(cause(without_root.refused("endorsement-missing")).contains("ARK-Milan"));
    let without_key = bare().holding("ark", &MILAN.ark_der).authenticate(&[]);
    assert!(cause(without_key.refused("endorsement-missing")).contains("no VCEK certificate for Milan chip 5c5c"));
    let namesake = Amd::new(Product::Milan);
    let wrong = bare().holding("ark", &namesake.ark_der).holding("ask", &MILAN.ask_der).holding("vcek", &vcek);
    let wrong = wrong.authenticate(&[]).refused("chain-untrusted");
    assert!(wrong["set_aside"][0]["reason"].as_str().unwrap().contains("not issued by the ARK-Milan"), "{wrong}");
    // With both roots handed in each intermediate finds its own.
    snp(0, &[]).holding("namesake", &namesake.ark_der).holding("its-ask", &namesake.ask_der).claims();
}

#[test]
fn revocation_lists_count_and_a_list_of_somebody_else_is_refused() {
    let list = |serials: &[u8]| MILAN.list(amd::NOW - DAY, amd::NOW + DAY, serials);
    assert_eq!(snp(0, &[]).holding("milan.crl", &list(&[])).claims()["revocation"], "checked");
    assert_eq!(snp(0, &[]).holding("milan.crl", &pem("X509 CRL", &list(&[]))).claims()["revocation"], "checked");
    snp(0, &[]).holding("milan.crl", &list(&[ASK_SERIAL])).authenticate(&[]).refused("endorsement-revoked");
    let forged = Rsa::generate().list("ARK-Milan", amd::NOW - DAY, amd::NOW + DAY, &[]);
    snp(0, &[])
        .holding("milan.crl", &forged)
        .authenticate(&[])
        .refused_for("chain-untrusted", "endorsements-milan.crl: this revocation");
}

#[test]
fn a_policy_that_names_the_measurement_accepts_it_and_nothing_else() {
    let case = snp(0, &[]);
    let policy = naming(&lenient(), &case.claims());
    let json = case.appraise(&policy).json(0);
    assert_eq!((&json["verdict"], &json["reference_values"][0]), (&"appraised".into(), &"release 1".into()));
    assert_eq!(json["not_judged"], serde_json::json!(["binding", "agent"]));

    let json = snp(0x90, &[0]).appraise(&policy).refused("measurement-unregistered");
    assert!(json["cause"].as_str().unwrap().contains("release 1"), "{json}");
    assert!(json["claims"]["measured"]["launch_digest"].as_str().unwrap().starts_with("004d4d"), "{json}");
    snp(0x0a, &[0x0a]).appraise(&policy).refused("debug-enabled");
    assert_eq!(snp(0x0a, &[0x0a]).claims()["guest_policy"]["debug_allowed"], true);
    snp(0x30, &[2]).appraise(&policy).refused("policy-forbids");
    let mut demanding = lenient();
    demanding.snp.minimum_abi = [1, 56];
    case.appraise(&naming(&demanding, &case.claims())).refused("tcb-too-old");
    // Data is compared before policy: evidence for somebody else is not worth an opinion.
    let path = case.file("policy.toml", policy.as_bytes());
    let more = ["--json", "--policy", path.to_str().unwrap(), "--report-data", &"00".repeat(64)];
    case.run("appraise", &more).refused("binding-mismatch");
}

pub(super) fn td() -> Td {
    let (rtmrs, mrtd) = ([[0xd1; 48], [0xd2; 48], [0xd3; 48], [0; 48]], [0xd0; 48]);
    Td { mrtd, rtmrs, report_data: DATA, ..Td::default() }
}

/// A quote with the simulated Intel's root, found in its collateral, and the collateral of this chip.
pub(super) fn tdx(chip: &Chip, td: &Td) -> Case {
    let intel = Intel::new(chip);
    let collateral = intel.collateral(chip);
    let json: Value = serde_json::from_slice(&collateral).unwrap();
    let chain = json["tcb_info_issuer_chain"].as_str().unwrap();
    let root = Pem::iter_from_buffer(chain.as_bytes()).last().unwrap().unwrap().contents;
    Case::new("tdx", intel::NOW, &intel.quote(td)).holding("root", &root).holding("collateral", &collateral)
}

#[test]
fn a_quote_is_told_of_and_judged_by_status_and_modes() {
    let case = tdx(&Chip::default(), &td());
    let claims = case.claims();
    assert_eq!((&claims["tcb_status"], &claims["td_attributes"]["under_debug"]), (&"UpToDate".into(), &false.into()));
    assert_eq!((&claims["measured"]["rtmr2"], &claims["rtmr3"]), (&"d3".repeat(48).into(), &"00".repeat(48).into()));
    let policy = naming(&lenient(), &claims);
    assert_eq!(case.appraise(&policy).json(0)["verdict"], "appraised");
    case.authenticate(&["--report-data", &hex(&DATA)]).json(0);

    let debug = tdx(&Chip::default(), &Td { attributes: ATTRIBUTES | 1, ..td() });
    assert_eq!(debug.claims()["td_attributes"]["under_debug"], true);
    debug.appraise(&policy).refused("debug-enabled");
    let old = Chip { status: "OutOfDate", advisories: &["INTEL-SA-00615"], ..Chip::default() };
    let old = tdx(&old, &td());
    assert_eq!(old.claims()["advisory_ids"], serde_json::json!(["INTEL-SA-00615"]));
    old.appraise(&policy).refused("tcb-too-old");
    tdx(&Chip { revoked: Revoked::Pck, ..Chip::default() }, &td()).authenticate(&[]).refused("endorsement-revoked");
}

#[test]
fn without_a_root_collateral_is_no_endorsement() {
    let mut case = tdx(&Chip::default(), &td());
    let root = case.endorsements.remove(0);
    let json = case.authenticate(&[]).refused("endorsement-missing");
    assert!(json["cause"].as_str().unwrap().contains("import Intel's SGX root certificate"), "{json}");
    assert_eq!(json["set_aside"][0]["reason"], "no root certificate for TDX was handed in");
    let other = tdx(&Chip::default(), &td());
    std::fs::copy(&other.endorsements[0], &root).unwrap();
    case.with(root).authenticate(&[]).refused("chain-untrusted");
}

#[test]
fn a_tpm_quote_needs_its_log_and_a_trusted_key() {
    let tpm = Tpm::booted(&agent());
    let keys = format!("# rack 7\n{}\n", hex(&tpm.pin()));
    let quote = tpm.quote_over(&[0xee; 32]);
    let case = Case::new("vtpm", 0, &quote.encode()).holding("attestation-keys", keys.as_bytes());
    let log = case.file("log", &tpm.log());
    let with_log = ["--event-log", log.to_str().unwrap()];
    case.authenticate(&[]).refused("event-log-mismatch");
    let json = case.authenticate(&with_log).json(0);
    assert_eq!(json["report_data"], "ee".repeat(32));
    let claims = &json["claims"];
    assert_eq!(claims["measured"]["pcrs"]["4"], hex(&tpm.pcrs[4]));
    assert_eq!((&claims["clock_milliseconds"], &claims["boot_events"][2]["pcr"]), (&1_000.into(), &4.into()));
    for (data, code) in [("ee".repeat(32), 0), ("ee".repeat(31), 3), (String::new(), 3)] {
        let ended = case.authenticate(&[&with_log[..], &["--report-data", &data]].concat());
        assert_eq!(ended.code, code, "{data}: {}{}", ended.stdout, ended.stderr);
    }

    let whole = Case::new("vtpm", 0, &evidence_of(&quote, tpm.log()).encode());
    whole.authenticate(&[]).refused("endorsement-missing");
    let whole = whole.holding("attestation-keys", "07".repeat(32).as_bytes());
    whole.authenticate(&[]).refused("chain-untrusted");
    let whole = whole.holding("more-keys", keys.as_bytes());
    assert_eq!(whole.appraise(&naming(&lenient(), &whole.claims())).json(0)["verdict"], "appraised");
    whole.authenticate(&with_log).complained(2, "holds an event log already");
    let mut other = Tpm::booted(&agent());
    other.measure(4, 6, b"another kernel");
    let other_case = Case::new("vtpm", 0, &evidence_of(&other.quote_over(&[]), other.log()).encode());
    let other_case = other_case.holding("keys", hex(&other.pin()).as_bytes());
    let policy = String::from_utf8(read(whole.folder.path().join("policy.toml"))).unwrap();
    let json = other_case.appraise(&policy).refused("measurement-unregistered");
    assert!(json["cause"].as_str().unwrap().contains("pcr4"), "{json}");
}
