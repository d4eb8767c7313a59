//! Endorsement files that are spoilt or another's: refused with the code that the fault deserves, never a fault of ours,
//! and never passed over where Evidence needs them. One byte of each file of real vectors after the other.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Case;
use super::evidence_support::amd::{self, Amd, DAY};
use super::evidence_support::intel::Platform as Chip;
use super::evidence_support::snp::{MILAN_3, VECTORS};
use super::evidence_support::tdx as real;
use super::evidence_support::{read, vectors_or_say};
use super::simulated::{MILAN, snp, td, tdx};

/// A certificate that names itself as issuer, under a key that no vendor uses.
fn self_issued(name: &str) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn a_root_of_the_same_name_that_is_none_is_set_aside_and_told_of() {
    let foreign = [self_issued("ARK-Milan"), self_issued("Intel SGX Root CA"), self_issued("Test Root CA")];
    for case in [snp(0, &[]), tdx(&Chip::default(), &td())] {
        let (claims, mut case) = (case.claims(), case);
        for (number, root) in foreign.iter().enumerate() {
            case = case.holding(&format!("{number}.der"), root);
        }
        let json = case.authenticate(&[]).json(0);
        assert_eq!(json["claims"], claims);
        assert_eq!(json["trusted_roots"].as_array().unwrap().len(), 1, "{json}");
        assert_eq!(json["set_aside"].as_array().unwrap().len(), 3, "{json}");
    }
    // Alone it is why the root is missing.
    for (mut case, root) in [(snp(0, &[]), &foreign[0]), (tdx(&Chip::default(), &td()), &foreign[1])] {
        case.endorsements
            .retain(|file| !file.ends_with("endorsements-ark.der") && !file.ends_with("endorsements-root"));
        let json = case.holding("foreign.der", root).authenticate(&[]).refused_for("chain-untrusted", "foreign.der: ");
        assert_eq!(json["trusted_roots"], serde_json::json!([]), "{json}");
    }
}

#[test]
fn a_list_that_the_trusted_root_did_not_sign_is_refused_and_anothers_is_set_aside() {
    let list = |of: &Amd| of.list(amd::NOW - DAY, amd::NOW + DAY, &[]);
    snp(0, &[]).holding("good.crl", &list(&MILAN)).authenticate(&[]).json(0);
    let mut spoilt = list(&MILAN);
    *spoilt.last_mut().unwrap() ^= 1;
    snp(0, &[]).holding("spoilt.crl", &spoilt).authenticate(&[]).refused_for("chain-untrusted", "spoilt.crl: ");
    // What is wrong with AMD's lists does not concern a quote of Intel's.
    tdx(&Chip::default(), &td()).holding("ark", &MILAN.ark_der).holding("crl", &spoilt).authenticate(&[]).json(0);
}

#[test]
fn spoilt_collateral_is_refused_for_what_is_wrong_with_it() {
    let case = tdx(&Chip::default(), &td());
    let file = case.endorsements[1].clone();
    let good: serde_json::Value = serde_json::from_slice(&read(&file)).unwrap();
    let flipped = |name: &str| {
        let text = good[name].as_str().unwrap();
        let (start, last) = text.split_at(text.len() - 1);
        format!("{start}{}", if last == "0" { '1' } else { '0' })
    };
    for name in ["tcb_info_signature", "qe_identity_signature", "root_ca_crl"] {
        let mut spoilt = good.clone();
        spoilt[name] = flipped(name).into();
        std::fs::write(&file, spoilt.to_string()).unwrap();
        case.authenticate(&[]).refused_for("chain-untrusted", "collateral: ");
    }
    for (name, value) in [("tcb_info", "{"), ("tcb_info_signature", "00"), ("root_ca_crl", "3000")] {
        let mut spoilt = good.clone();
        spoilt[name] = value.into();
        std::fs::write(&file, spoilt.to_string()).unwrap();
        case.authenticate(&[]).refused_for("malformed", "collateral: ");
    }
}

/// Spoils every `step`th byte of one of the files, each in another bit, and counts how the program ends.
#[allow(clippy::print_stdout, reason = "the counts are what the test shows")]
fn spoil(case: &Case, file: &Path, step: usize) -> BTreeMap<String, Vec<usize>> {
    let good = read(file);
    let mut ends: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (round, position) in (0..good.len()).step_by(step).enumerate() {
        let mut spoilt = good.clone();
        spoilt[position] ^= 1 << (round % 8);
        std::fs::write(file, &spoilt).unwrap();
        let ended = case.authenticate(&[]);
        let json = ended.json(ended.code);
        let said = if ended.code == 3 { &json["code"] } else { &json["verdict"] };
        let by = if ended.code == 0 { excuse(&json, file) } else { "" };
        ends.entry(format!("{} {}{by}", ended.code, said.as_str().unwrap())).or_default().push(position);
    }
    std::fs::write(file, good).unwrap();
    let counts: Vec<_> = ends.iter().map(|(end, positions)| (end, positions.len())).collect();
    println!("{}: {counts:?}", file.display());
    ends
}

/// Why a spoilt file may pass: it is not needed.
fn excuse(json: &serde_json::Value, file: &Path) -> &'static str {
    // Intel's own root is known by its digest, and collateral brings it along: it counts where the named one is spoilt,
    // which is told of.
    let aside = json["set_aside"][0]["file"] == file.to_str().unwrap();
    if aside && json["trusted_roots"][0]["sha256"] == real::INTEL_ROOT {
        return " by the vendor's own root";
    }
    ""
}

/// None may end in a fault of ours, and none may pass but for the reasons that are named.
#[track_caller]
fn all_refused(ends: &BTreeMap<String, Vec<usize>>, but: &[&str]) {
    for (end, positions) in ends {
        assert!(end.starts_with("3 ") || but.contains(&end.as_str()), "{end}: {positions:?}");
    }
    assert!(ends.keys().any(|end| end.starts_with("3 ")));
}

/// The case with each of these files handed in by name.
fn by_name(mut case: Case, files: &[PathBuf]) -> Case {
    for (number, file) in files.iter().enumerate() {
        case = case.holding(&number.to_string(), &read(file));
    }
    case
}

#[test]
fn every_spoilt_file_of_amd_is_refused_with_a_code() {
    let Some(vectors) = vectors_or_say(3, "spoilt files of AMD's on the command line") else { return };
    let vector = &VECTORS[MILAN_3];
    let (at, _) = vector.times(&vectors);
    let roots = ["ark", "ask"].map(|name| vectors.join(format!("_amd-roots/milan-{name}.der")));
    let files = [&roots[..], &[vectors.join(vector.folder).join("vcek.der")]].concat();
    let case = by_name(Case::new("snp", at, &vector.report(&vectors)), &files);
    case.claims();
    for file in &case.endorsements {
        all_refused(&spoil(&case, file, 29), &[]);
    }
}

#[test]
fn every_spoilt_file_of_intel_is_refused_with_a_code() {
    let Some(vectors) = vectors_or_say(2, "spoilt files of Intel's on the command line") else { return };
    let quote = real::named(&vectors, "509f50f85772");
    let root = super::evidence_support::der::pem("CERTIFICATE", &real::intel_root(&quote.collateral));
    let case = Case::new("tdx", quote.at, &quote.quote).holding("root.pem", &root);
    let case = case.holding("collateral.json", &quote.collateral);
    case.claims();
    let [root, collateral] = [0, 1].map(|index: usize| &case.endorsements[index]);
    all_refused(&spoil(&case, root, 7), &["0 authentic by the vendor's own root"]);
    all_refused(&spoil(&case, collateral, 121), &[]);
}
