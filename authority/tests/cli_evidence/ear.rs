//! The EAR claims set beside an offline verdict: what it says for each platform, and what it must never hold.

use std::collections::BTreeSet;

use inwit_authority::policy::PolicyFile;
use inwit_protocol::primitives::sha256;
use serde_json::{Value, json};

use super::evidence_support::amd::{self, DAY};
use super::evidence_support::intel::Platform as Chip;
use super::evidence_support::policy::agent;
use super::evidence_support::tpm::{Tpm, evidence_of};
use super::simulated::{MILAN, snp, td, tdx};
use super::{Case, hex, lenient, naming};

/// The one submodule of the `ear` of evidence that `policy` accepts, after what every claims set has was found in it.
#[track_caller]
fn appraisal(case: &Case, policy: &PolicyFile) -> Value {
    let claims = case.claims();
    let json = case.appraise(&naming(policy, &claims)).json(0);
    let ear = &json["ear"];
    assert_eq!(ear["eat_profile"], "tag:ietf.org,2026:rats/ear#03");
    assert_eq!((&ear["iat"], &ear["ear_verifier_id"]["developer"]), (&case.at.into(), &"inwit".into()));
    assert!(ear["ear_verifier_id"]["build"].as_str().unwrap().starts_with("inwit-authority "), "{ear}");
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    // No nonce and no key: it was made for nobody.
    assert_eq!(names(ear), ["ear_verifier_id", "eat_profile", "iat", "submods"].map(str::to_owned).into());
    assert_eq!(names(&ear["submods"]), [case.platform.to_owned()].into());
    let appraisal = &ear["submods"][case.platform];
    let members = ["ear_appraisal_policy_ids", "ear_status", "ear_trustworthiness_vector"];
    assert_eq!(names(appraisal), members.map(str::to_owned).into());
    let policy_id = format!("inwit:policy:sha256:{}", hex(&policy.digest()));
    assert_eq!(appraisal["ear_appraisal_policy_ids"], json!([policy_id, "inwit:reference-values:release 1"]));
    holds_no_measurement(ear, &json);
    appraisal.clone()
}

/// No register, identifier of a chip, digest or report data that stands beside the claims set stands in it as well.
#[track_caller]
fn holds_no_measurement(ear: &Value, json: &Value) {
    fn texts(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
            Value::Object(members) => members.values().for_each(|value| texts(value, found)),
            _ => {}
        }
    }
    let (ear, mut beside) = (ear.to_string(), vec![]);
    texts(&json["claims"], &mut beside);
    texts(&json["report_data"], &mut beside);
    beside.retain(|text| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(beside.len() > 5, "{beside:?}");
    assert!(beside.iter().all(|measured| !ear.contains(measured)), "{ear}");
}

fn vector(values: [i8; 8]) -> Value {
    let [instance, configuration, executables, files, hardware, runtime, storage, data] = values;
    json!({
        "instance-identity": instance, "configuration": configuration, "executables": executables, "file-system": files,
        "hardware": hardware, "runtime-opaque": runtime, "storage-opaque": storage, "sourced-data": data,
    })
}

#[track_caller]
fn finds(case: &Case, policy: &PolicyFile, status: &str, values: [i8; 8]) {
    let appraisal = appraisal(case, policy);
    assert_eq!(appraisal["ear_status"], status);
    assert_eq!(appraisal["ear_trustworthiness_vector"], vector(values));
}

#[test]
fn snp_is_affirmed_where_revocation_was_looked_up_and_is_a_warning_where_it_was_not() {
    finds(&snp(0, &[]), &lenient(), "warning", [0, 0, 3, 0, -33, 2, 0, 0]);
    let list = MILAN.list(amd::NOW - DAY, amd::NOW + DAY, &[]);
    finds(&snp(0, &[]).holding("milan.crl", &list), &lenient(), "affirming", [0, 0, 3, 0, 2, 2, 0, 0]);
}

#[test]
fn tdx_is_affirmed_at_its_best_status_alone() {
    finds(&tdx(&Chip::default(), &td()), &lenient(), "affirming", [0, 0, 3, 0, 2, 2, 0, 0]);
    let mut policy = lenient();
    policy.tdx.accepted_advisories = vec!["INTEL-SA-00615".to_owned()];
    let old = Chip { status: "OutOfDate", advisories: &["INTEL-SA-00615"], ..Chip::default() };
    finds(&tdx(&old, &td()), &policy, "warning", [0, 0, 3, 0, 32, 2, 0, 0]);
    let misconfigured = Chip { status: "ConfigurationNeeded", ..Chip::default() };
    finds(&tdx(&misconfigured, &td()), &policy, "warning", [0, 32, 3, 0, 32, 2, 0, 0]);
}

#[test]
fn a_tpm_without_a_tee_is_never_affirmed() {
    let tpm = Tpm::booted(&agent());
    let evidence = evidence_of(&tpm.quote_over(&[0xee; 32]), tpm.log()).encode();
    let case = Case::new("vtpm", 0, &evidence).holding("attestation-keys", hex(&tpm.pin()).as_bytes());
    finds(&case, &lenient(), "warning", [0, 0, 3, 0, 0, 32, 0, 0]);
}

#[test]
fn only_what_policy_accepted_has_one_and_people_read_it_too() {
    let case = snp(0, &[]);
    assert_eq!(case.authenticate(&[]).json(0)["ear"], Value::Null);
    let policy = naming(&lenient(), &case.claims());
    assert_eq!(snp(0x90, &[0]).appraise(&policy).refused("measurement-unregistered")["ear"], Value::Null);
    let path = case.file("policy.toml", policy.as_bytes());
    let text = case.run("appraise", &["--policy", path.to_str().unwrap()]).stdout;
    let line = text.lines().find(|line| line.starts_with("ear.submods.snp.ear_trustworthiness_vector")).unwrap();
    assert!(
        line.ends_with("executables=3 file-system=0 hardware=-33 runtime-opaque=2 storage-opaque=0 sourced-data=0")
    );
}

#[test]
fn a_policy_has_one_name_and_another_policy_another() {
    let mut other = lenient();
    assert_eq!(other.digest(), lenient().digest());
    other.snp.minimum_abi = [1, 55];
    assert_ne!(other.digest(), lenient().digest());
    assert_ne!(other.digest(), sha256(b""));
}
