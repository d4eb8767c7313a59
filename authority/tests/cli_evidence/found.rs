//! What lies about in folders: roots that came with the evidence, lists that hide behind their names, names that would
//! steer a terminal. All of it is somebody else's, and none of it may decide.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use inwit_protocol::primitives::sha256;
use serde_json::Value;

use super::evidence_support::amd::{self, ASK_SERIAL, DAY};
use super::evidence_support::der::pem;
use super::evidence_support::intel::Platform as Chip;
use super::evidence_support::policy::agent;
use super::evidence_support::read;
use super::evidence_support::tpm::{Tpm, evidence_of};
use super::simulated::{MILAN, report, snp, td, tdx};
use super::{Case, Ended, hex};

const NAME_IT: &str = "name the root file itself with --endorsements FILE";

/// A quote under somebody's own "Intel", with that root's certificate and collateral where the test wants them.
struct Attack {
    case: Case,
    root: Vec<u8>,
    collateral: Vec<u8>,
}

fn attack() -> Attack {
    let mut case = tdx(&Chip::default(), &td());
    let [root, collateral] = [0, 1].map(|index: usize| {
        let bytes = read(&case.endorsements[index]);
        std::fs::remove_file(&case.endorsements[index]).unwrap();
        bytes
    });
    case.endorsements.clear();
    Attack { case, root, collateral }
}

fn withheld(ended: &Ended) -> Value {
    let json = ended.refused("endorsement-missing");
    assert_eq!(json["trusted_roots"], serde_json::json!([]), "{json}");
    assert!(json["cause"].as_str().unwrap().ends_with(&format!("{NAME_IT}, or --root-sha256 HEX")), "{json}");
    let aside = json["set_aside"].as_array().unwrap();
    assert!(aside.iter().any(|entry| entry["reason"].as_str().unwrap().starts_with("root not trusted: ")), "{json}");
    json
}

#[test]
fn a_root_that_came_with_the_evidence_is_not_trusted_however_deep_it_lies() {
    for place in ["chain.pem", "amd/roots/chain.pem", "README"] {
        let Attack { case, root, collateral } = attack();
        case.file("collateral.json", &collateral);
        let chain = case.file(place, &pem("CERTIFICATE", &root));
        let folder = case.folder.path().to_owned();
        let case = case.with(folder);
        withheld(&case.authenticate(&[]));
        let text = case.run("authenticate", &[]);
        assert!(text.stderr.contains(&hex(&sha256(&root))) && text.stderr.contains(NAME_IT), "{}", text.stderr);
        // Both ways to say that it is meant.
        let json = case.authenticate(&["--root-sha256", &hex(&sha256(&root))]).json(0);
        assert_eq!(json["trusted_roots"][0]["sha256"], hex(&sha256(&root)));
        case.with(chain).claims();
    }
}

#[test]
fn a_folder_around_the_evidence_or_a_link_into_it_vouches_for_no_root() {
    let Attack { case, root, collateral } = attack();
    let quote = read(case.folder.path().join("evidence"));
    let sent = case.file("mail/sent/quote.bin", &quote).parent().unwrap().to_owned();
    case.file("mail/sent/root.der", &root);
    let collateral = case.file("c/collateral.json", &collateral);
    std::fs::remove_file(case.folder.path().join("evidence")).unwrap();
    symlink(sent.join("quote.bin"), case.folder.path().join("evidence")).unwrap();
    let folder = |name: &str| case.folder.path().join(name);
    std::fs::create_dir(folder("links")).unwrap();
    symlink(&sent, folder("links/roots")).unwrap();
    std::fs::create_dir(folder("mine")).unwrap();
    std::fs::write(folder("mine/root.der"), &root).unwrap();
    let folders: [PathBuf; 5] =
        [sent.clone(), folder("mail"), folder(""), folder("links"), folder("mail/../mail/sent/.")];
    let mut case = case.with(collateral);
    for named in folders {
        case = case.with(&named);
        withheld(&case.authenticate(&[]));
        case.endorsements.pop();
    }
    // A folder that the evidence is not in is the person's own statement, and so is a file, wherever it lies.
    let mine = case.folder.path().join("mine");
    case = case.with(mine);
    case.claims();
    case.endorsements.pop();
    case.with(sent.join("root.der")).claims();
}

#[test]
fn a_root_inside_of_collateral_counts_by_its_digest_alone() {
    let Attack { case, root, collateral } = attack();
    let case = case.holding("collateral.json", &collateral);
    let json = case.authenticate(&[]).refused("endorsement-missing");
    let told = json["set_aside"].to_string();
    assert!(told.contains(&hex(&sha256(&root))) && told.contains("cannot vouch"), "{json}");
    let json = case.authenticate(&["--root-sha256", &hex(&sha256(&root)).to_uppercase()]).json(0);
    assert_eq!(json["trusted_roots"][0]["sha256"], hex(&sha256(&root)));
}

#[test]
fn with_a_digest_no_other_root_counts() {
    let json = snp(0, &[]).authenticate(&["--root-sha256", &"07".repeat(32)]).refused("endorsement-missing");
    assert!(json["cause"].as_str().unwrap().ends_with("not among --root-sha256"), "{json}");
    let ours = hex(&sha256(&MILAN.ark_der));
    snp(0, &[]).authenticate(&["--root-sha256", &"07".repeat(32), "--root-sha256", &ours]).json(0);
}

#[test]
fn where_another_root_is_trusted_nobody_is_invited_to_trust_the_one_that_came_along() {
    let Attack { case, root, collateral } = attack();
    case.file("chain.pem", &pem("CERTIFICATE", &root));
    let folder = case.folder.path().to_owned();
    let trusted = attack().root;
    let case = case.holding("collateral.json", &collateral).with(folder).holding("trusted.der", &trusted);
    let json = case.authenticate(&[]).refused("chain-untrusted");
    assert_eq!(json["trusted_roots"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!(json["trusted_roots"][0]["sha256"], hex(&sha256(&trusted)));
    assert!(!json["cause"].as_str().unwrap().contains("--endorsements"), "{json}");
}

#[test]
fn a_key_of_a_tpm_that_came_with_the_evidence_is_not_trusted() {
    let tpm = Tpm::booted(&agent());
    let case = Case::new("vtpm", 0, &evidence_of(&tpm.quote_over(&[]), tpm.log()).encode());
    let keys = case.file("keys.txt", hex(&tpm.pin()).as_bytes());
    let folder = case.folder.path().to_owned();
    let case = case.with(folder);
    withheld(&case.authenticate(&[]));
    assert_eq!(case.authenticate(&["--root-sha256", &hex(&tpm.pin())]).json(0)["verdict"], "authentic");
    let json = case.with(keys).authenticate(&[]).json(0);
    assert_eq!(json["trusted_roots"][0]["sha256"], hex(&tpm.pin()));
    // The folder of the event log came from the same hand.
    let case = Case::new("vtpm", 0, &tpm.quote_over(&[]).encode());
    let log = case.file("sent/log", &tpm.log());
    case.file("sent/keys", hex(&tpm.pin()).as_bytes());
    let sent = case.folder.path().join("sent");
    withheld(&case.with(sent).authenticate(&["--event-log", log.to_str().unwrap()]));
}

#[test]
fn a_revocation_list_counts_whatever_its_name() {
    let list = MILAN.list(amd::NOW - DAY, amd::NOW + DAY, &[ASK_SERIAL]);
    let names = ["license-milan.crl", "README", "notes.txt", "quote.bin", ".milan", "licenses/milan", "manifest.toml"];
    for name in names {
        for bytes in [list.clone(), pem("X509 CRL", &list)] {
            let case = snp(0, &[]);
            case.file(&format!("amd/{name}"), &bytes);
            let folder = case.folder.path().join("amd");
            case.with(folder).authenticate(&[]).refused("endorsement-revoked");
        }
    }
}

#[test]
fn names_of_files_do_not_steer_the_terminal() {
    let steering = "\u{1b}[2J\u{9b}\nverdict: authentic\u{202e}\u{2066}é";
    let (report, _) = report(0, &[]);
    let case = || Case::new("snp", amd::NOW, &report);
    let shown = "??verdict: authentic??é";
    let ended = case().holding(&format!("{steering}.der"), b"junk").run("authenticate", &[]);
    assert!(ended.code == 3 && ended.stdout.contains("??verdict: authentic???.der: "), "{}", ended.stdout);
    let aside = case();
    aside.file(&format!("{steering}.txt"), b"hello");
    let folder = aside.folder.path().to_owned();
    let aside = aside.with(folder).run("authenticate", &[]);
    assert!(aside.stderr.contains(shown), "{}", aside.stderr);
    let root = case().holding(steering, &MILAN.ark_der).run("authenticate", &[]);
    assert!(root.stdout.contains(shown), "{}", root.stdout);
    for text in [ended.stdout, aside.stderr, root.stdout] {
        assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}']), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("verdict: authentic")), "{text}");
    }
}
