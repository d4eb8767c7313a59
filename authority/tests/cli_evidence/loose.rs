//! Loose parts of Intel's collateral: the same verdict as the assembled document, in every form in which people have them;
//! parts of another root and parts that lack their signer are told of. And names in certificates that would steer a
//! terminal.

use inwit_protocol::primitives::sha256;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use serde_json::Value;

use super::evidence_support::der::pem;
use super::evidence_support::intel::Platform as Chip;
use super::evidence_support::loose::{Loose, loose};
use super::evidence_support::tdx::{self as real, INTEL_ROOT};
use super::evidence_support::{read, vectors_or_say};
use super::simulated::{td, tdx};
use super::{Case, hex};

/// A quote with its root, and its collateral in loose parts, not handed in yet.
fn apart() -> (Case, Loose, Value) {
    let mut case = tdx(&Chip::default(), &td());
    let assembled = case.claims();
    let collateral = case.endorsements.pop().unwrap();
    let parts = loose(&read(&collateral));
    std::fs::remove_file(collateral).unwrap();
    (case, parts, assembled)
}

#[test]
fn loose_parts_give_the_verdict_of_the_assembled_document() {
    let (mut case, parts, assembled) = apart();
    for (name, bytes) in parts.files() {
        case = case.holding(name, bytes);
    }
    assert_eq!(case.claims(), assembled);

    let (case, parts, assembled) = apart();
    for (name, bytes) in [("tcb", &parts.tcb_info), ("qe", &parts.qe_identity), ("chain", &parts.signing_chain)] {
        case.file(&format!("intel/{name}"), bytes);
    }
    case.file("intel/root", &pem("X509 CRL", &parts.root_list));
    case.file("intel/pck", hex(&parts.pck_list).as_bytes());
    let folder = case.folder.path().join("intel");
    assert_eq!(case.with(folder).claims(), assembled, "other forms, from a folder, the PCK CA from the quote");
}

#[test]
fn what_is_missing_of_the_parts_is_named() {
    for (without, code, said) in [
        ("tcb-info", "endorsement-missing", "TCB info"),
        ("qe-identity", "endorsement-missing", "QE identity"),
        ("root.crl", "endorsement-missing", "Root CA"),
        ("pck.crl", "endorsement-missing", "PCK Platform CA"),
        ("signing-chain.pem", "endorsement-missing", "TCB info"),
    ] {
        let (mut case, parts, _) = apart();
        for (name, bytes) in parts.files().into_iter().filter(|(name, _)| *name != without) {
            case = case.holding(name, bytes);
        }
        let json = case.authenticate(&[]).refused(code);
        assert!(json["cause"].as_str().unwrap().contains(said), "{without}: {json}");
        if without == "signing-chain.pem" {
            assert!(json["set_aside"].to_string().contains("SGX TCB Signing"), "{json}");
        }
    }
}

#[test]
fn parts_of_another_root_are_set_aside_and_told_of() {
    let (mut case, parts, assembled) = apart();
    let (_, foreign, _) = apart();
    for (name, bytes) in parts.files() {
        case = case.holding(name, bytes);
    }
    let root = case.endorsements[0].clone();
    for (name, bytes) in foreign.files() {
        case.file(&format!("foreign/{name}"), bytes);
    }
    let folder = case.folder.path().join("foreign");
    let trusted = hex(&sha256(&read(root)));
    let json = case.with(folder).authenticate(&["--root-sha256", &trusted]).json(0);
    assert_eq!(json["claims"], assembled);
    assert_eq!(json["trusted_roots"].as_array().unwrap().len(), 1);
    let told = json["set_aside"].as_array().unwrap();
    assert!(told.len() >= 6, "every part of it: {json}");
    assert!(json["set_aside"].to_string().contains("not signed under the root"), "{json}");
}

#[test]
fn documents_for_sgx_are_told_of() {
    let sgx = br#"{"enclaveIdentity":{"id":"QE","version":2},"signature":"00"}"#;
    let json = tdx(&Chip::default(), &td()).holding("sgx", sgx).authenticate(&[]).json(0);
    assert_eq!(json["set_aside"][0]["reason"], "for SGX, not for TDX");
}

#[test]
fn names_in_certificates_steer_no_terminal_in_text_nor_in_json() {
    let steering = "SGX Root CA \u{1b}[2J\u{9b}\u{202e}\u{2066}é";
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, steering);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let case = tdx(&Chip::default(), &td()).holding("steering", root.der());
    let (text, json) = (case.run("authenticate", &[]), case.authenticate(&[]));
    for shown in [&text.stdout, &text.stderr, &json.stdout] {
        assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}']), "{shown}");
    }
    assert!(text.stdout.contains("SGX Root CA ?[2J???é"), "{}", text.stdout);
    let json = json.json(0);
    let names: Vec<_> = json["trusted_roots"].as_array().unwrap().iter().map(|root| &root["name"]).collect();
    assert!(names.contains(&&Value::from(steering)), "programs read what is there: {json}");
}

#[test]
fn real_loose_parts_give_the_verdict_of_the_assembled_documents() {
    let Some(vectors) = vectors_or_say(3, "loose parts of real collateral on the command line") else { return };
    let older = real::named(&vectors, "12b401a88a51");
    let folder = vectors.join("confidential-dot-ai+attestation-rs/collateral");
    let judged = |quote: &[u8]| Case::new("tdx", older.at, quote).with(&folder);
    let assembled = Case::new("tdx", older.at, &older.quote).with(older.folder.join("collateral.json"));
    let assembled = assembled.authenticate(&["--root-sha256", INTEL_ROOT]).json(0);
    assert_eq!(judged(&older.quote).claims(), assembled["claims"]);
    // The other family that lies there.
    let other = real::named(&vectors, "509f50f85772");
    assert_eq!(judged(&other.quote).claims()["tcb_status"], "UpToDate");
    // What another service collected in 2023, the signer's chain from elsewhere.
    let collected = vectors.join("google+go-tdx-guest");
    let mut case = judged(&older.quote);
    for name in ["pckcrl", "rootcrl.der", "sample_tcbInfo_response", "sample_qeIdentity_response"] {
        case = case.with(collected.join(name));
    }
    assert_eq!(case.claims(), assembled["claims"], "what has ended is not used");
}

#[test]
fn the_folders_of_the_vectors_are_handed_in_as_they_are() {
    let Some(vectors) = vectors_or_say(2, "whole folders of vectors on the command line") else { return };
    let live = vectors.join("confidential-dot-ai+attestation-rs/tdx-live");
    let collateral = real::named(&vectors, "0c699dd4533f"); // the same platform family
    let case = Case::new("tdx", collateral.at, &read(live.join("quote.bin"))).with(&live).with(&collateral.folder);
    let json = case.authenticate(&["--root-sha256", INTEL_ROOT]).json(0);
    let told = json["set_aside"].to_string();
    for kind in ["an event log", "a TDREPORT", "a TDX or SGX quote"] {
        assert!(told.contains(kind), "{kind}: {told}");
    }
    let sample = vectors.join("intel+QuoteVerificationLibrary-tdx-sample");
    let case = Case::new("tdx", collateral.at, &read(live.join("quote.bin"))).with(sample);
    case.authenticate(&[]).refused("chain-untrusted");
}
