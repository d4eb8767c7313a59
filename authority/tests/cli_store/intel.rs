//! Intel's endorsements in the store: whole collateral and loose parts become the same, newer replaces older, and what
//! another root signed stays out.

use inwit_authority::evidence::authenticate;
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::RefusalCode;
use serde_json::Value;
use x509_parser::pem::Pem;

use super::evidence_support::intel::{Intel, NOW, Platform as Chip, Revoked, Td, planted_list};
use super::evidence_support::loose::loose;
use super::evidence_support::{evidence, read, tdx, vectors_or_say};
use super::{Store, hex, names};

const PARTS: [&str; 7] = [
    "Simulated SGX Root CA",
    "Simulated SGX PCK Platform CA",
    "Simulated SGX TCB Signing",
    "revocation list of Simulated SGX PCK Platform CA",
    "revocation list of Simulated SGX Root CA",
    "TCB info for FMSPC 50806f000000",
    "identity of the TD quoting enclave",
];

fn quote(intel: &Intel) -> inwit_protocol::evidence::Evidence {
    let (rtmrs, mrtd) = ([[0xd1; 48], [0xd2; 48], [0xd3; 48], [0; 48]], [0xd0; 48]);
    let td = Td { mrtd, rtmrs, ..Td::default() };
    evidence(Platform::Tdx, intel.quote(&td), vec![], vec![])
}

/// The root of a collateral document, DER.
fn root(collateral: &[u8]) -> Vec<u8> {
    let json: Value = serde_json::from_slice(collateral).unwrap();
    let chain = json["tcb_info_issuer_chain"].as_str().unwrap();
    Pem::iter_from_buffer(chain.as_bytes()).last().unwrap().unwrap().contents
}

fn rooted(collateral: &[u8]) -> Store {
    let store = Store::new();
    let digest = hex(&sha256(&root(collateral)));
    let file = store.file("collateral.json", collateral);
    store.declines(&["import", &file], &digest);
    store.endorsements(&["import", &file, "--trust-root", &digest]).json(0);
    store
}

fn evaluation(number: u32) -> Chip {
    Chip { evaluation: number, ..Chip::default() }
}

#[test]
fn collateral_whole_or_in_loose_parts_becomes_the_same_store() {
    let intel = Intel::new(&Chip::default());
    let collateral = intel.collateral(&Chip::default());
    let whole = rooted(&collateral);
    assert_eq!(whole.names(), PARTS);
    authenticate(&quote(&intel), &whole.loaded(), NOW).unwrap();

    let parts = Store::new();
    let files = loose(&collateral).files().map(|(name, bytes)| parts.file(&format!("loose/{name}"), bytes));
    let folder = parts.folder.path().join("files/loose");
    let root = parts.file("root.der", &root(&collateral));
    parts.endorsements(&["import", &root, folder.to_str().unwrap()]).json(0);
    let bytes = |store: &Store| store.stored().into_values().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(bytes(&parts), bytes(&whole));
    authenticate(&quote(&intel), &parts.loaded(), NOW).unwrap();
    // Once more, one by one: nothing is new.
    for file in &files {
        assert_eq!(parts.endorsements(&["import", file]).json(0)["taken"], serde_json::json!([]), "{file}");
    }
    assert_eq!(parts.findings(NOW, &[]), []);
}

#[test]
fn lists_are_taken_as_hexadecimal_too() {
    let intel = Intel::new(&Chip::default());
    let collateral = intel.collateral(&Chip::default());
    let store = rooted(&collateral);
    let loose = loose(&collateral);
    // In lines as long as a key's digest is.
    let digits = hex(&loose.pck_list);
    let lines: Vec<&str> = digits.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let json = store.import("pckcrl", lines.join("\n").as_bytes()).json(0);
    assert_eq!(names(&json["unchanged"]), ["revocation list of Simulated SGX PCK Platform CA"]);
}

#[test]
fn newer_documents_replace_older_ones_and_older_ones_are_declined() {
    let intel = Intel::new(&Chip::default());
    let store = rooted(&intel.collateral(&evaluation(20)));
    let part = |number: u32| loose(&intel.collateral(&evaluation(number))).tcb_info;
    let json = store.import("newer", &part(21)).json(0);
    assert_eq!(names(&json["taken"]), ["TCB info for FMSPC 50806f000000"]);
    assert_eq!(store.names(), PARTS, "one of each");
    let nineteen = part(19);
    let older = store.file("older", &nineteen);
    let json = store.declines(&["import", &older], "tcbEvaluationDataNumber 19");
    assert!(json["cause"].as_str().unwrap().contains("tcbEvaluationDataNumber 21"), "{json}");
    store.endorsements(&["import", &older, "--accept-older"]).json(0);
    assert!(store.stored().values().any(|bytes| *bytes == nineteen));
    assert_eq!(store.names(), PARTS, "in its place");
    // Another platform family stands beside.
    let sooner = Chip { current: ["2026-05-21T00:00:00Z", "2026-06-20T00:00:00Z"], ..evaluation(19) };
    let json = store.import("same-number", &loose(&intel.collateral(&sooner)).tcb_info).json(0);
    assert_eq!(json["replaced"].as_array().unwrap().len(), 1, "the same number, issued later: {json}");
}

#[test]
fn a_whole_document_of_the_older_layout_is_taken_apart_when_a_part_is_replaced() {
    let intel = Intel::new(&Chip::default());
    let collateral = intel.collateral(&evaluation(20));
    let store = Store::new();
    let files =
        [("root.der", &root(&collateral)), ("collateral.json", &collateral)].map(|(n, bytes)| store.file(n, bytes));
    store.endorsements(&["add", "--platform", "tdx", "--name", "intel", &files[0], &files[1]]).json(0);
    assert_eq!(store.names(), PARTS);
    let before = store.stored();
    store.endorsements(&["import", &files[1]]).json(0);
    assert_eq!(store.stored(), before, "the same again");
    store.import("newer", &loose(&intel.collateral(&evaluation(21))).tcb_info).json(0);
    assert_eq!(store.names(), PARTS);
    assert!(!store.stored().keys().any(|path| path.ends_with("collateral.json")));
    authenticate(&quote(&intel), &store.loaded(), NOW).unwrap();
    store.declines(&["import", &files[1]], "older than what is stored");
}

#[test]
fn what_is_signed_by_another_or_by_nobody_stays_out() {
    let intel = Intel::new(&Chip::default());
    let (collateral, other) = (intel.collateral(&evaluation(20)), Intel::new(&Chip::default()));
    let store = rooted(&collateral);
    let foreign = loose(&other.collateral(&evaluation(30)));
    store.declines(&["import", &store.file("list", &foreign.root_list)], "not signed under the root");
    store.declines(&["import", &store.file("chain", &foreign.signing_chain)], "nobody vouched for a root");
    store.declines(&["import", &store.file("info", &foreign.tcb_info)], "none of the TCB signers under this root");
    let good = loose(&intel.collateral(&evaluation(21)));
    let spoilt = String::from_utf8(good.tcb_info).unwrap().replacen("UpToDate", "OutOfDat", 1);
    let spoilt = store.file("spoilt", spoilt.as_bytes());
    let before = store.stored();
    assert_ne!(store.endorsements(&["import", &spoilt]).code, 0);
    assert_eq!(store.stored(), before);
    // A root alone, and what only a signer can vouch for.
    let alone = Store::new();
    alone.import("root.der", &root(&collateral)).json(0);
    alone.declines(&["import", &alone.file("info", &loose(&collateral).tcb_info)], "SGX TCB Signing");
    assert_eq!(alone.findings(NOW, &[]).len(), 5);
}

const PCK_CA: &str = "Simulated SGX PCK Platform CA";
const PCK_LIST: &str = "revocation list of Simulated SGX PCK Platform CA";

/// Everything but the PCK CA's certificate, which quotes bring.
fn without_pck_ca(collateral: &[u8]) -> Store {
    let store = Store::new();
    store.import("root.der", &root(collateral)).json(0);
    let parts = loose(collateral);
    store.import("signing-chain.pem", &parts.signing_chain).json(0);
    for (name, bytes) in parts.files().into_iter().filter(|(name, _)| *name != "pck-chain.pem") {
        store.import(name, bytes).json(0);
    }
    store
}

#[test]
fn a_list_that_anybody_can_have_written_stands_in_for_no_other_and_is_told_of() {
    let intel = Intel::new(&Chip { revoked: Revoked::Pck, ..Chip::default() });
    let parts = loose(&intel.collateral);
    let revoked = |store: &Store| authenticate(&quote(&intel), &store.loaded(), NOW).unwrap_err().code;
    let unverified = ("unverified".to_owned(), PCK_LIST.to_owned());

    let store = without_pck_ca(&intel.collateral);
    assert_eq!(revoked(&store), RefusalCode::EndorsementRevoked);
    assert_eq!(store.findings(NOW, &[]), std::slice::from_ref(&unverified));
    let planted = planted_list(PCK_CA, None);
    let json = store.import("planted", &planted).json(0);
    assert_eq!((names(&json["taken"]), &json["replaced"]), (vec![PCK_LIST.to_owned()], &serde_json::json!([])));
    assert!(json["next"].to_string().contains("issuer chain"), "{json}");
    assert!(store.stored().values().any(|bytes| *bytes == parts.pck_list), "the genuine one is still there");
    assert_eq!(revoked(&store), RefusalCode::EndorsementRevoked);
    assert_eq!(store.findings(NOW, &[]), [unverified.clone(), unverified.clone()]);
    let listed = store.endorsements(&["list"]).json(0);
    let marked = |item: &&Value| item["standing"] == "unverified" && item["name"] == PCK_LIST;
    assert_eq!(listed["endorsements"].as_array().unwrap().iter().filter(marked).count(), 2, "{listed}");

    // The certificate tells them apart.
    let json = store.import("chain", &parts.pck_chain).json(0);
    let replaced = json["replaced"].as_array().unwrap();
    assert_eq!(replaced.len(), 1, "{json}");
    assert_eq!(replaced[0]["old"]["sha256"], hex(&sha256(&planted)));
    assert_eq!(store.names(), PARTS);
    assert_eq!((store.findings(NOW, &[]), revoked(&store)), (vec![], RefusalCode::EndorsementRevoked));
    store.declines(&["import", &store.file("planted", &planted)], "not signed under the root");
}

#[test]
fn a_planted_list_keeps_no_genuine_one_out() {
    let intel = Intel::new(&Chip { revoked: Revoked::Pck, ..Chip::default() });
    let parts = loose(&intel.collateral);
    for together in [false, true] {
        let store = Store::new();
        store.import("root.der", &root(&intel.collateral)).json(0);
        store.import("planted", &planted_list(PCK_CA, None)).json(0);
        if together {
            store.import("collateral", &intel.collateral).json(0);
        } else {
            store.import("signing-chain.pem", &parts.signing_chain).json(0);
            for (name, bytes) in parts.files() {
                store.import(name, bytes).json(0);
            }
        }
        assert_eq!(store.names(), PARTS, "{together}");
        let refusal = authenticate(&quote(&intel), &store.loaded(), NOW).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::EndorsementRevoked);
    }
    // In one folder with it, and nobody who could tell them apart.
    let store = Store::new();
    store.file("one/planted", &planted_list(PCK_CA, None));
    for (name, bytes) in parts.files().into_iter().filter(|(name, _)| *name != "pck-chain.pem") {
        store.file(&format!("one/{name}"), bytes);
    }
    let folder = store.folder.path().join("files/one");
    let root = store.file("root.der", &root(&intel.collateral));
    store.endorsements(&["import", &root, folder.to_str().unwrap()]).json(0);
    let refusal = authenticate(&quote(&intel), &store.loaded(), NOW).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::EndorsementRevoked);
}

#[test]
fn a_name_written_in_another_way_is_not_its_bearers() {
    let intel = Intel::new(&Chip::default());
    let store = rooted(&intel.collateral);
    for name in ["Simulated SGX Root CA", PCK_CA] {
        let planted = store.file("planted", &planted_list(name, Some("Somebody")));
        store.declines(&["import", &planted], "not signed under the root");
    }
    assert_eq!((store.names(), store.findings(NOW, &[])), (PARTS.map(str::to_owned).to_vec(), vec![]));
    // Nobody but the root may be the root, whatever else is in the store.
    let alone = Store::new();
    alone.import("root.der", &root(&intel.collateral)).json(0);
    let planted = alone.file("planted", &planted_list("Another SGX Root CA", None));
    alone.declines(&["import", &planted], "not signed under the root");
}

#[test]
fn the_same_thing_many_times_is_one_thing() {
    let intel = Intel::new(&Chip::default());
    let store = Store::new();
    let chain = loose(&intel.collateral).signing_chain;
    for number in 0..40 {
        store.file(&format!("many/{number}"), &chain.repeat(20));
    }
    let many = store.folder.path().join("files/many");
    let collateral = store.file("collateral.json", &intel.collateral);
    let digest = hex(&sha256(&root(&intel.collateral)));
    store.endorsements(&["import", &collateral, many.to_str().unwrap(), "--trust-root", &digest]).json(0);
    assert_eq!(store.names(), PARTS);
}

#[test]
fn documents_for_sgx_have_no_effect() {
    let store = Store::new();
    let sgx = br#"{"tcbInfo":{"id":"SGX","version":3},"signature":"00"}"#;
    store.declines(&["import", &store.file("sgx", sgx)], "for SGX, not for TDX");
}

#[test]
fn real_collateral_ages_and_is_not_put_back() {
    let Some(vectors) = vectors_or_say(4, "imports of real collateral") else { return };
    let newer = tdx::named(&vectors, "509f50f85772");
    let store = rooted(&newer.collateral);
    assert_eq!(store.findings(newer.at, &[]), []);
    authenticate(&evidence(Platform::Tdx, newer.quote.clone(), vec![], vec![]), &store.loaded(), newer.at).unwrap();
    let ended = store.findings(newer.at + 60 * 86_400, &[]);
    assert_eq!(ended.len(), 3, "PCK list, TCB info, QE identity: {ended:?}");
    assert!(ended.iter().all(|(state, _)| state == "ended"));
    let folder = vectors.join("confidential-dot-ai+attestation-rs/collateral");
    let loose = folder.to_str().unwrap();
    store.declines(&["import", loose], "stored is that of");
    // In a store of its own the loose parts are enough for both families that they are for.
    let own = Store::new();
    own.endorsements(&["import", loose, "--trust-root", tdx::INTEL_ROOT]).json(0);
    let older = tdx::named(&vectors, "12b401a88a51");
    for quote in [&newer.quote, &older.quote] {
        authenticate(&evidence(Platform::Tdx, quote.clone(), vec![], vec![]), &own.loaded(), older.at).unwrap();
    }
    let sample = vectors.join("intel+QuoteVerificationLibrary-tdx-sample");
    own.declines(&["import", sample.to_str().unwrap()], "nobody vouched for a root");
    let list = own.file("list", &read(sample.join("rootCaCrl.der")));
    own.declines(&["import", &list], "not signed under the root");
}
