//! Folders as people have them: what lies beside endorsements neither ends the act nor counts, and what looks like an
//! endorsement and is spoilt is not passed over.

use std::os::unix::fs::symlink;

use super::evidence_support::amd::{self, DAY};
use super::evidence_support::der::pem;
use super::evidence_support::intel::Platform as Chip;
use super::evidence_support::policy::agent;
use super::evidence_support::snp::{MILAN_3, VECTORS};
use super::evidence_support::tdx as real;
use super::evidence_support::tpm::{Tpm, evidence_of};
use super::evidence_support::{read, vectors_or_say};
use super::simulated::{MILAN, snp, td, tdx};
use super::{Case, hex};

/// What lies in real folders beside endorsements.
fn neighbours() -> Vec<(&'static str, Vec<u8>)> {
    let key = |label: &str| pem(label, &[0x30, 0x03, 0x02, 0x01, 0x01]);
    vec![
        ("metadata.json", b"{}".to_vec()),
        ("log_out.json", b"{\"uefi_event_logs\": []}".to_vec()),
        ("list.json", b"[1]".to_vec()),
        ("half.json", b"{\"report\": ".to_vec()),
        ("report.hex", hex(&[3; 1_184]).into_bytes()),
        ("report-bad.bin", vec![3, 0, 0, 0]),
        ("Makefile", b"all:\n".to_vec()),
        ("sha256sums", format!("{}  report.bin\n", "30".repeat(32)).into_bytes()),
        ("report.sha256", "30".repeat(32).into_bytes()),
        ("vcek.der.bak", b"x".to_vec()),
        ("test.key", key("PRIVATE KEY")),
        ("akpub.pem", key("PUBLIC KEY")),
        ("akpub.der", vec![0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09]),
        ("vlek.pem", Vec::new()),
        ("log.gz", vec![0x1f, 0x8b, 8, 0, 0]),
        ("id-block", vec![0; 96]),
        ("auxblob.bin", vec![0; 24]),
        ("quote.part", [&[0; 9][..], &pem("CERTIFICATE", &[1; 40])].concat()),
        ("big", vec![7; 4_194_305]),
    ]
}

#[test]
fn what_lies_beside_endorsements_ends_no_act_and_is_told_of() {
    for case in [snp(0, &[]), tdx(&Chip::default(), &td())] {
        let claims = case.claims();
        let mut names: Vec<&str> = Vec::new();
        for (name, bytes) in neighbours() {
            case.file(&format!("mine/{name}"), &bytes);
            names.push(name);
        }
        let mine = case.folder.path().join("mine");
        symlink("/nowhere/at/all", mine.join("dangling")).unwrap();
        names.push("dangling");
        let json = case.with(mine).authenticate(&[]).json(0);
        assert_eq!(json["claims"], claims);
        let told = json["set_aside"].as_array().unwrap();
        for name in names {
            let told = told.iter().any(|entry| entry["file"].as_str().unwrap().ends_with(&format!("/{name}")));
            assert!(told, "{name}: {json}");
        }
        assert_eq!(json["trusted_roots"].as_array().unwrap().len(), 1, "{json}");
    }
}

#[test]
fn what_looks_like_an_endorsement_and_is_spoilt_is_refused_in_a_folder_too() {
    let list = MILAN.list(amd::NOW - DAY, amd::NOW + DAY, &[]);
    let short = list.split_last().unwrap().1.to_vec();
    let torn = pem("X509 CRL", &list);
    let (torn, _) = torn.split_at(torn.len() / 2);
    let half = b"{\"tcb_info\": \"".to_vec();
    for (name, bytes) in [("list", short.clone()), ("list.txt", torn.to_vec()), ("hex", hex(&short).into_bytes())] {
        let case = snp(0, &[]);
        case.file(&format!("mine/{name}"), &bytes);
        let mine = case.folder.path().join("mine");
        let json = case.with(mine).authenticate(&[]).refused("malformed");
        assert!(json["cause"].as_str().unwrap().contains(&format!("/mine/{name}: ")), "{json}");
    }
    // It matters to whom it is for.
    let (case, other) = (tdx(&Chip::default(), &td()), snp(0, &[]));
    for case in [&case, &other] {
        case.file("mine/collateral.json", &half);
    }
    let [mine, others] = [&case, &other].map(|case| case.folder.path().join("mine"));
    case.with(mine).authenticate(&[]).refused("malformed");
    other.with(others).authenticate(&[]).json(0);
}

#[test]
fn a_digest_in_a_folder_is_a_key_by_the_name_of_its_file_alone() {
    let tpm = Tpm::booted(&agent());
    let case = || Case::new("vtpm", 0, &evidence_of(&tpm.quote_over(&[]), tpm.log()).encode());
    let of = |name: &str, more: &[&str]| {
        let case = case();
        case.file(&format!("mine/{name}"), hex(&tpm.pin()).as_bytes());
        let mine = case.folder.path().join("mine");
        case.with(mine).authenticate(more)
    };
    of("attestation-keys", &[]).json(0);
    let json = of("image.sha256", &[]).refused("endorsement-missing");
    assert!(json["set_aside"].to_string().contains("attestation-keys"), "{json}");
    of("image.sha256", &["--root-sha256", &hex(&tpm.pin())]).json(0);
    case().holding("image.sha256", hex(&tpm.pin()).as_bytes()).authenticate(&[]).json(0);
}

#[test]
fn a_mark_of_byte_order_before_text_changes_nothing() {
    let marked = |bytes: &[u8]| ["\u{feff}".as_bytes(), bytes].concat();
    let mut case = tdx(&Chip::default(), &td());
    let claims = case.claims();
    let [root, collateral] = [0, 1].map(|index: usize| read(&case.endorsements[index]));
    case.endorsements.clear();
    let case = case.holding("root.pem", &marked(&pem("CERTIFICATE", &root))).holding("c.json", &marked(&collateral));
    assert_eq!(case.claims(), claims);
}

#[test]
fn real_folders_are_handed_in_as_they_are() {
    let Some(vectors) = vectors_or_say(8, "real folders with neighbours on the command line") else { return };
    let vector = &VECTORS[MILAN_3];
    let (at, _) = vector.times(&vectors);
    let report = || Case::new("snp", at, &vector.report(&vectors));
    let needed = || report().with(vectors.join("_amd-roots")).with(vectors.join(vector.folder));
    let claims = needed().claims();
    let quote = real::named(&vectors, "509f50f85772");
    for folder in [
        "kinvolk+azure-cvm-tooling",
        "Phala-Network+dcap-qvl",
        "confidential-containers+trustee",
        "google+go-eventlog",
        "virtee+sev",
        "",
    ] {
        let folder = vectors.join(folder);
        assert_eq!(needed().with(&folder).claims(), claims, "{}", folder.display());
        let case = Case::new("tdx", quote.at, &quote.quote).with(&quote.folder).with(&folder);
        let json = case.authenticate(&["--root-sha256", super::evidence_support::tdx::INTEL_ROOT]).json(0);
        assert_eq!(json["verdict"], "authentic", "{}", folder.display());
    }
}

#[test]
fn the_answer_of_azures_metadata_service_is_an_endorsement() {
    let Some(vectors) = vectors_or_say(1, "certificates as Azure's metadata service answers") else { return };
    let vector = &VECTORS[MILAN_3];
    let (at, _) = vector.times(&vectors);
    let text = |der: &[u8]| String::from_utf8(pem("CERTIFICATE", der)).unwrap();
    let [ark, ask] = ["ark", "ask"].map(|name| text(&read(vectors.join(format!("_amd-roots/milan-{name}.der")))));
    let vcek = text(&read(vectors.join(vector.folder).join("vcek.der")));
    let answer = |chain: String| serde_json::json!({"vcekCert": vcek, "tcbm": "DB18000000000004", "certificateChain": chain, "cacheControl": "1"});
    let whole = serde_json::to_vec(&answer([ask, ark].concat())).unwrap();
    Case::new("snp", at, &vector.report(&vectors)).holding("thim.json", &whole).claims();
}
