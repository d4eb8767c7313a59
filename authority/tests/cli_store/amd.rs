//! AMD's endorsements and TPM keys in the store: roots that somebody vouches for, everything else by its signature.

use std::sync::LazyLock;

use inwit_authority::evidence::{Product, authenticate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::sha256;

use super::evidence_support::amd::{ASK_SERIAL, Amd, DAY, NOW, Rsa};
use super::evidence_support::der::pem;
use super::evidence_support::evidence;
use super::evidence_support::snp::{GUID_ASK, GUID_VCEK, table};
use super::{Store, hex, names};

pub(super) static MILAN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Milan));

pub(super) fn list(from: u64, serials: &[u8]) -> Vec<u8> {
    MILAN.list(from, NOW + 30 * DAY, serials)
}

/// A store with the root and its intermediates.
pub(super) fn rooted() -> Store {
    let store = Store::new();
    let [ark, ask, asvk] = [("ark", &MILAN.ark_der), ("ask", &MILAN.ask_der), ("asvk", &MILAN.asvk_der)]
        .map(|(n, der)| store.file(n, der));
    let json = store.endorsements(&["import", &ark, &ask, &asvk]).json(0);
    assert_eq!(names(&json["taken"]), ["ARK-Milan", "ASK (SEV-Milan)", "ASVK (SEV-VLEK-Milan)"]);
    store
}

#[test]
fn what_was_imported_authenticates_a_report_from_a_host_that_sends_nothing() {
    let store = rooted();
    let vek = MILAN.issue(&MILAN.vcek_fields());
    let report = vek.report(&MILAN.body(&[0xda; 64], &[0x4d; 48]));
    let unheard = evidence(Platform::Snp, report, vec![], vec![]);
    assert!(authenticate(&unheard, &store.loaded(), NOW).is_err());
    let json = store.import("certificates", &table(&[(GUID_VCEK, &vek.der), (GUID_ASK, &MILAN.ask_der)])).json(0);
    assert!(names(&json["taken"])[0].starts_with("VCEK of Milan chip 5c5c"), "{json}");
    assert_eq!(names(&json["unchanged"]), ["ASK (SEV-Milan)"]);
    authenticate(&unheard, &store.loaded(), NOW).unwrap();
    store.import("milan.crl", &list(NOW - DAY, &[ASK_SERIAL])).json(0);
    assert_eq!(authenticate(&unheard, &store.loaded(), NOW).unwrap_err().code.text(), "endorsement-revoked");
}

#[test]
fn a_root_is_taken_by_its_file_or_its_digest_and_never_silently() {
    let store = Store::new();
    store.file("folder/ark.der", &MILAN.ark_der);
    store.file("folder/ask.der", &MILAN.ask_der);
    let (folder, digest) = (store.folder.path().join("files/folder"), hex(&sha256(&MILAN.ark_der)));
    let folder = folder.to_str().unwrap();
    let json = store.declines(&["import", folder], "nobody vouched for a root");
    assert_eq!(
        (&json["declined"][0]["sha256"], json["cause"].as_str().unwrap().contains(&digest)),
        (&digest.clone().into(), true)
    );
    store.declines(&["import", folder, "--trust-root", &"07".repeat(32)], "nobody vouched");
    let named = format!("{folder}/ark.der");
    store.declines(&["import", &named, "--trust-root", &"07".repeat(32)], "nobody vouched");
    let json = store.endorsements(&["import", folder, "--trust-root", &digest.to_uppercase()]).json(0);
    assert_eq!(names(&json["taken"]).len(), 2, "{json}");
    assert_eq!(store.endorsements(&["import", folder]).json(0)["taken"], serde_json::json!([]), "it is there already");
    let chain = [pem("CERTIFICATE", &MILAN.ask_der), pem("CERTIFICATE", &MILAN.ark_der)].concat();
    Store::new().declines(&["import", &store.file("chain.pem", &chain)], "nobody vouched");
    // Another root of the same name is another root.
    let namesake = Amd::new(Product::Milan);
    let table = table(&[(0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae, &namesake.ark_der), (GUID_ASK, &namesake.ask_der)]);
    store.declines(&["import", &store.file("table", &table)], "nobody vouched for a root");
    store.import("namesake.der", &namesake.ark_der).json(0);
    assert_eq!(store.loaded().snp.len(), 2);
    let text = store.run(&[
        "endorsements",
        "import",
        folder,
        &store.file("other", &Amd::new(Product::Genoa).ark_der),
        "--trust-root",
        &digest,
    ]);
    assert!(
        text.stdout.contains("not imported, nothing was changed") && text.stdout.contains("--trust-root"),
        "{}",
        text.stdout
    );
}

#[test]
fn an_older_list_is_declined_unless_it_is_asked_for() {
    let store = rooted();
    let (older, newer) = (list(NOW - 2 * DAY, &[]), list(NOW - DAY, &[9]));
    store.import("older.crl", &older).json(0);
    let json = store.import("newer.crl", &newer).json(0);
    assert_eq!(json["replaced"][0]["old"]["sha256"], hex(&sha256(&older)), "{json}");
    assert_eq!(store.names().iter().filter(|name| name.starts_with("revocation list")).count(), 1);
    let file = store.file("older.crl", &older);
    store.declines(&["import", &file], "older than what is stored");
    let json = store.import("same.crl", &newer).json(0);
    assert_eq!((names(&json["unchanged"]).len(), &json["taken"]), (1, &serde_json::json!([])));
    store.endorsements(&["import", &file, "--accept-older"]).json(0);
    assert!(
        store.stored().values().any(|bytes| *bytes == older) && !store.stored().values().any(|bytes| *bytes == newer)
    );
    // A newer list that forgets somebody stands beside the one that does not.
    store.import("newer.crl", &newer).json(0);
    store.import("newest.crl", &list(NOW, &[])).json(0);
    assert_eq!(store.names().iter().filter(|name| name.starts_with("revocation list")).count(), 2);
    // Both of one import: the newer one stays, in whatever order they are named.
    let store = rooted();
    store.endorsements(&["import", &store.file("a", &list(NOW, &[])), &store.file("b", &older)]).json(0);
    assert_eq!(store.names().iter().filter(|name| name.starts_with("revocation list")).count(), 1);
}

#[test]
fn a_folder_with_an_old_list_beside_a_new_one_is_imported_as_often_as_one_likes() {
    let store = rooted();
    let (older, newer) = (list(NOW - 2 * DAY, &[]), list(NOW - DAY, &[9]));
    store.file("folder/older.crl", &older);
    store.file("folder/newer.crl", &newer);
    let folder = store.folder.path().join("files/folder");
    let import = |flags: &[&str]| {
        let json = store.endorsements(&[&["import", folder.to_str().unwrap()], flags].concat()).json(0);
        assert!(json["set_aside"][0]["file"].as_str().unwrap().ends_with("older.crl"), "{json}");
        assert!(store.stored().values().any(|bytes| *bytes == newer), "{json}");
        assert!(!store.stored().values().any(|bytes| *bytes == older), "{json}");
        (names(&json["taken"]).len(), names(&json["unchanged"]).len())
    };
    assert_eq!([import(&[]), import(&[]), import(&["--accept-older"])], [(1, 0), (0, 1), (0, 1)]);
    // Both older than what is stored: declined as ever, by the newer of the two.
    let newest = list(NOW, &[9]);
    store.import("newest.crl", &newest).json(0);
    let json = store.declines(&["import", folder.to_str().unwrap()], "older than what is stored");
    assert_eq!(names(&json["declined"]).len(), 1, "{json}");
}

#[test]
fn a_bad_file_changes_nothing() {
    let store = rooted();
    let good = store.file("milan.crl", &list(NOW - DAY, &[]));
    let before = store.stored();
    let forged = Rsa::generate().list("ARK-Milan", NOW, NOW + DAY, &[]);
    for (name, bytes, cause) in [
        ("junk.der", b"\x30\x82\x00\x00".to_vec(), "junk.der"),
        ("empty", vec![], "empty"),
        ("forged.crl", forged, "not signed by an ARK-Milan that is trusted"),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec(), "PRIVATE KEY"),
    ] {
        let bad = store.file(name, &bytes);
        store.endorsements(&["import", &good, &bad]).complained(1, cause);
        assert_eq!(store.stored(), before, "{name}");
    }
    store.endorsements(&["import", "/nowhere"]).complained(1, "/nowhere");
    store.endorsements(&["import"]).complained(2, "PATH");
    let elsewhere = store.folder.path().join("no-authority");
    let ended = store.run(&["--state", elsewhere.to_str().unwrap(), "endorsements", "list"]);
    assert_ne!(ended.code, 0);
}

#[test]
fn what_has_no_root_here_is_told_of() {
    let store = Store::new();
    store.declines(&["import", &store.file("ask", &MILAN.ask_der)], "no ARK-Milan is stored or handed in");
    let store = rooted();
    let genoa = Amd::new(Product::Genoa);
    let json = store
        .endorsements(&["import", &store.file("ask", &genoa.ask_der), &store.file("milan", &list(NOW, &[]))])
        .json(0);
    assert!(json["set_aside"][0]["reason"].as_str().unwrap().contains("no ARK-Genoa"), "{json}");
    assert_eq!(names(&json["taken"]), ["revocation list of ARK-Milan"]);
}

#[test]
fn keys_of_tpms_are_roots_and_lines_of_one_file() {
    let store = Store::new();
    let keys = format!("# rack 7\n{}\n", "ab".repeat(32));
    store.file("folder/keys", keys.as_bytes());
    let folder = store.folder.path().join("files/folder");
    store.declines(&["import", folder.to_str().unwrap()], "nobody vouched");
    store.import("keys", keys.as_bytes()).json(0);
    store.import("more", "cd".repeat(32).as_bytes()).json(0);
    store.import("keys", keys.as_bytes()).json(0);
    assert_eq!(store.loaded().vtpm, [[0xab; 32], [0xcd; 32]]);
    assert_eq!(store.endorsements(&["list"]).json(0)["vtpm"], 2);
}

#[test]
fn the_older_word_and_its_layout_go_on_working() {
    let store = Store::new();
    let files = [("ark.der", &MILAN.ark_der), ("ask.der", &MILAN.ask_der), ("milan.crl", &list(NOW - DAY, &[]))]
        .map(|(name, bytes)| store.file(name, bytes));
    let words = ["add", "--platform", "snp", "--name", "milan", &files[0], &files[1], &files[2]];
    assert_eq!(store.endorsements(&words).json(0)["snp"], 1);
    assert_eq!(names(&store.endorsements(&["import", &files[0], &files[1]]).json(0)["unchanged"]).len(), 2);
    store.declines(&["import", &store.file("older", &list(NOW - 2 * DAY, &[]))], "older than what is stored");
    let json = store.import("newer", &list(NOW, &[])).json(0);
    assert_eq!(names(&json["taken"]), ["revocation list of ARK-Milan"]);
    assert_eq!(store.names(), ["ARK-Milan", "ASK (SEV-Milan)", "revocation list of ARK-Milan"]);
}
