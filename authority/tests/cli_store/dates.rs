//! How old the store is: listed, and checked so that cron can act on it.

use super::amd::{MILAN, list, rooted};
use super::evidence_support::amd::{DAY, NOW};
use super::{Store, hex};
use inwit_protocol::primitives::sha256;

fn found(state: &str, name: &str) -> (String, String) {
    (state.to_owned(), name.to_owned())
}

#[test]
fn a_list_says_what_is_there_how_old_it_is_and_its_digest() {
    let store = rooted();
    store.import("milan.crl", &list(NOW - 3 * DAY, &[])).json(0);
    let at = NOW.to_string();
    let json = store.endorsements(&["list", "--at", &at]).json(0);
    assert_eq!(
        (&json["snp"], &json["clock"], &json["at"]),
        (&1.into(), &"--at".into(), &"2026-06-01T00:00:00Z".into())
    );
    let rows = json["endorsements"].as_array().unwrap();
    let list = rows.iter().find(|row| row["name"] == "revocation list of ARK-Milan").unwrap();
    assert_eq!((&list["age_days"], &list["from"]), (&3.into(), &"2026-05-29T00:00:00Z".into()), "{list}");
    assert_eq!((&list["issuer"], &list["until"]), (&"ARK-Milan".into(), &"2026-07-01T00:00:00Z".into()));
    let root = rows.iter().find(|row| row["name"] == "ARK-Milan").unwrap();
    assert_eq!(root["sha256"], hex(&sha256(&MILAN.ark_der)));
    let text = store.run(&["endorsements", "list", "--at", &at]).stdout;
    let line = text.lines().find(|line| line.contains("revocation list of ARK-Milan")).unwrap();
    assert!(line.contains("2026-05-29  2026-07-01  3 d"), "{text}");
    assert!(store.run(&["endorsements", "list"]).stdout.contains("this machine's clock"));
}

#[test]
fn a_check_names_what_is_missing_has_ended_or_ends_soon() {
    let list_name = "revocation list of ARK-Milan";
    let store = rooted();
    assert_eq!(store.findings(NOW, &[]), [found("missing", list_name)]);
    store.import("milan.crl", &list(NOW - 3 * DAY, &[])).json(0);
    assert_eq!(store.findings(NOW, &[]), []);
    // It lasts thirty days.
    assert_eq!(store.findings(NOW + 22 * DAY, &[]), []);
    assert_eq!(store.findings(NOW + 24 * DAY, &[]), [found("ends-soon", list_name)]);
    assert_eq!(store.findings(NOW + 24 * DAY, &["--within", "0"]), []);
    assert_eq!(store.findings(NOW + 31 * DAY, &["--within", "0"]), [found("ended", list_name)]);
    assert_eq!(store.findings(NOW - 4 * DAY, &[]), [found("not-yet-valid", list_name)]);
    let later = (NOW + 31 * DAY).to_string();
    let text = store.run(&["endorsements", "check", "--at", &later]);
    assert_eq!(text.code, 3);
    assert!(text.stdout.contains("ended") && text.stdout.contains("vcek/v1/Milan/crl"), "{}", text.stdout);
    // For cloud providers' keys AMD publishes a list of its own.
    assert!(!text.stdout.contains("vlek/v1/Milan/crl"), "{}", text.stdout);
    let config = store.state().join("authority.toml");
    let strict = std::fs::read_to_string(&config).unwrap();
    let with_providers = strict.replace("providers = []", "providers = [\"CN=cloud.example\"]");
    assert_ne!(strict, with_providers);
    std::fs::write(&config, with_providers).unwrap();
    let text = store.run(&["endorsements", "check", "--at", &later]);
    for path in ["vcek/v1/Milan/crl", "vlek/v1/Milan/crl"] {
        assert!(text.stdout.contains(path), "{}", text.stdout);
    }
    // Beside a list that has ended one that has not is enough.
    store.import("newer.crl", &MILAN.list(NOW, NOW + 60 * DAY, &[])).json(0);
    assert_eq!(store.findings(NOW + 31 * DAY, &[]), []);
}

#[test]
fn platforms_count_when_something_of_them_is_there_or_they_are_named() {
    let empty = Store::new();
    assert_eq!(empty.findings(NOW, &[]).len(), 3);
    let store = rooted();
    store.import("milan.crl", &list(NOW, &[])).json(0);
    assert_eq!(store.findings(NOW, &["--platform", "tdx"]), [found("missing", "Intel SGX Root CA")]);
    assert_eq!(store.findings(NOW, &["--platform", "snp"]), []);
    // What the policy does not demand is not missing.
    let config = store.state().join("authority.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let lenient = text.replace("without_revocation_list = \"forbidden\"", "without_revocation_list = \"allowed\"");
    assert_ne!(text, lenient);
    let other = rooted();
    std::fs::write(other.state().join("authority.toml"), &lenient).unwrap();
    assert_eq!(other.findings(NOW, &[]), []);
}

#[test]
fn the_help_says_what_is_trusted_and_what_is_never_put_back() {
    let store = Store::new();
    let import = store.run(&["endorsements", "import", "--help"]).stdout;
    for said in ["--trust-root", "--accept-older", "undo a revocation", "a bad file changes nothing", "Exit codes"] {
        assert!(import.contains(said), "{said}: {import}");
    }
    let check = store.run(&["endorsements", "check", "--help"]).stdout;
    assert!(check.contains("Exit 3") && check.contains("this machine's clock"), "{check}");
}
