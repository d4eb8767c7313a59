//! Real evidence through the program: authentic at a time at which its endorsements were valid, and refused otherwise.

use std::path::Path;

use super::evidence_support::amd::{Amd, NOW};
use super::evidence_support::snp::{DEBUG, MILAN_3, VECTORS, VLEK, Vector as Report};
use super::evidence_support::tdx::{self, Vector as Quote, intel_root};
use super::evidence_support::{read, vectors_or_say};
use super::{Case, hex, lenient, naming, run};

/// SHA-256 of Intel's SGX Root CA in DER, which the tests of the library compare too.
const INTEL_ROOT: &str = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3";

/// A real report with AMD's roots and the folder that it lies in.
fn snp(vectors: &Path, report: &Report) -> Case {
    let (at, _) = report.times(vectors);
    let case = Case::new("snp", at, &report.report(vectors));
    case.with(vectors.join("_amd-roots")).with(vectors.join(report.folder))
}

/// A real quote with Intel's root and the folder that it lies in.
fn tdx(quote: &Quote) -> Case {
    let case = Case::new("tdx", quote.at, &quote.quote);
    case.holding("intel-root.der", &intel_root(&quote.collateral)).with(&quote.folder)
}

#[test]
fn every_real_report_is_authentic_and_shows_what_it_claims() {
    let Some(vectors) = vectors_or_say(VECTORS.len(), "real SNP reports on the command line") else { return };
    for vector in &VECTORS {
        let case = snp(&vectors, vector);
        let claims = case.claims();
        assert_eq!(claims["product"], vector.product.name(), "{}", vector.folder);
        assert_eq!(claims["report_version"], vector.version, "{}", vector.folder);
        assert_eq!(claims["vmpl"], vector.vmpl, "{}", vector.folder);
        assert_eq!(claims["signing_key"], if vector.vlek { "vlek" } else { "vcek" }, "{}", vector.folder);
        let debug = vector.folder.contains("DEBUG");
        assert_eq!(claims["guest_policy"]["debug_allowed"], debug, "{}", vector.folder);
        assert_eq!(claims["reported_tcb"]["fmc"].is_number(), vector.product.name() == "Turin", "{}", vector.folder);

        // By default the agent runs at VMPL 0 and a revocation list is demanded; debugging is seen before both.
        let code = match vector.vmpl {
            _ if debug => "debug-enabled",
            0 => "endorsement-missing",
            _ => "policy-forbids",
        };
        let refused = case.appraise_by_default().refused(code);
        assert_eq!(refused["authentic"], true, "{}", vector.folder);
        let mut policy = lenient();
        policy.snp.vmpl = vector.vmpl;
        policy.snp.providers.extend(claims["csp_id"].as_str().map(str::to_owned));
        let appraised = case.appraise(&naming(&policy, &claims));
        if debug {
            assert_eq!(appraised.refused("debug-enabled")["claims"], claims);
        } else {
            assert_eq!(appraised.json(0)["verdict"], "appraised", "{}", vector.folder);
        }
    }
}

#[test]
fn an_expired_key_certificate_is_refused() {
    let Some(vectors) = vectors_or_say(2, "expired SNP certificates on the command line") else { return };
    let mut case = snp(&vectors, &VECTORS[VLEK]);
    case.at = 1_795_305_600; // 2026-11-22
    case.authenticate(&[]).refused("endorsement-expired");
    let mut case = snp(&vectors, &VECTORS[MILAN_3]);
    case.at = 0;
    case.authenticate(&[]).refused("endorsement-expired");
}

#[test]
fn a_root_of_the_same_name_that_somebody_made_is_refused() {
    let Some(vectors) = vectors_or_say(1, "SNP reports under a made-up root") else { return };
    let vector = &VECTORS[MILAN_3];
    let made_up = Amd::new(vector.product);
    // When both the made-up root and the chip's certificate are valid.
    let case = Case::new("snp", NOW, &vector.report(&vectors)).with(vectors.join(vector.folder));
    let case = case.holding("ark", &made_up.ark_der).with(vectors.join("_amd-roots/milan-ask.der"));
    case.authenticate(&[]).refused("chain-untrusted");
}

#[test]
fn spoilt_evidence_is_refused() {
    let Some(vectors) = vectors_or_say(4, "spoilt evidence on the command line") else { return };
    for (position, code) in [(0x90, "quote-signature"), (0x2a0, "quote-signature"), (0x33f, "malformed")] {
        let case = snp(&vectors, &VECTORS[MILAN_3]);
        let mut report = VECTORS[MILAN_3].report(&vectors);
        report[position] ^= 1;
        case.file("evidence", &report);
        case.authenticate(&[]).refused(code);
    }
    let quote = tdx::named(&vectors, "509f50f85772");
    let case = tdx(&quote);
    let mut spoilt = quote.quote.clone();
    spoilt[600] ^= 1;
    case.file("evidence", &spoilt);
    case.authenticate(&[]).refused("quote-signature");
}

#[test]
fn what_is_missing_is_named() {
    let Some(vectors) = vectors_or_say(4, "missing endorsements on the command line") else { return };
    let vector = &VECTORS[DEBUG + 1];
    let (at, _) = vector.times(&vectors);
    let report = || Case::new("snp", at, &vector.report(&vectors));
    let quote = tdx::named(&vectors, "509f50f85772");
    let other = tdx::named(&vectors, "b789d779386f");
    let bare = || Case::new("tdx", quote.at, &quote.quote);
    for (case, missing) in [
        (report().with(vectors.join(vector.folder)), "import ARK-Milan"),
        (report().with(vectors.join("_amd-roots")), "no VCEK certificate for Milan chip"),
        (bare(), "import Intel's SGX root certificate"),
        (tdx(&other), "no TDX collateral for FMSPC 90c06f000000"),
    ] {
        if missing.contains("FMSPC") {
            case.file("evidence", &quote.quote);
        }
        let json = case.authenticate(&[]).refused("endorsement-missing");
        assert!(json["cause"].as_str().unwrap().contains(missing), "{json}");
    }
}

#[test]
fn every_real_quote_shows_its_status_and_forbidden_modes_are_refused() {
    let Some(vectors) = vectors_or_say(10, "real TDX quotes on the command line") else { return };
    for quote in tdx::all(&vectors) {
        let (name, case) = (quote.name(), tdx(&quote));
        let policy = |claims: &serde_json::Value| {
            let mut policy = lenient();
            let advisories = claims["advisory_ids"].as_array().into_iter().flatten();
            policy.tdx.accepted_advisories = advisories.map(|id| id.as_str().unwrap().to_owned()).collect();
            naming(&policy, claims)
        };
        let claims = case.claims();
        assert_eq!(claims["td_attributes"]["under_debug"], name.contains("Debug"), "{name}");
        assert_eq!(claims["td_attributes"]["sept_ve_disable"], !name.contains("SEPT-VE"), "{name}");
        if let Some(status @ ("UpToDate" | "OutOfDate")) = name.split('-').nth(1) {
            assert_eq!(claims["tcb_status"], status, "{name}");
            assert_eq!(case.appraise(&policy(&claims)).json(0)["verdict"], "appraised", "{name}");
        } else {
            let code = if name.contains("Debug") { "debug-enabled" } else { "policy-forbids" };
            case.appraise(&policy(&claims)).refused(code);
        }
        // Up to date, and dynamic platforms are forbidden where no word is said of them; or nobody named its measurements.
        let by_default = match name.split('-').nth(1) {
            Some("OutOfDate") => "tcb-too-old",
            Some("UpToDate") if claims["dynamic_platform"] != "yes" && claims["cached_keys"] != "yes" => {
                "measurement-unregistered"
            }
            _ if name.contains("Debug") => "debug-enabled",
            _ => "policy-forbids",
        };
        let refused = case.appraise_by_default().refused(by_default);
        assert_eq!(refused["authentic"], true, "{name}");
    }
}

#[test]
fn quotes_and_roots_of_others_do_not_mix() {
    let Some(vectors) = vectors_or_say(2, "TDX quotes under another root on the command line") else { return };
    let sample = vectors.join("intel+QuoteVerificationLibrary-tdx-sample");
    let quote = tdx::named(&vectors, "509f50f85772");
    let other_root = Case::new("tdx", quote.at, &quote.quote).with(sample.join("trustedRootCaCert.pem"));
    other_root.with(&quote.folder).authenticate(&[]).refused("chain-untrusted");
    let case = tdx(&quote);
    case.file("evidence", &read(sample.join("quote.dat")));
    case.authenticate(&[]).refused("chain-untrusted");
}

#[test]
fn a_padded_quote_is_read_and_its_data_compared() {
    let Some(vectors) = vectors_or_say(3, "quotes with known data on the command line") else { return };
    let machine = vectors.join("google+go-tdx-guest/cos-113");
    let case = tdx(&tdx::named(&vectors, "00b2526ab190"));
    case.file("evidence", &read(machine.join("quote-padded-8000.bin")));
    let mut data = read(machine.join("nonce.dat"));
    assert_eq!(case.authenticate(&["--report-data", &hex(&data)]).json(0)["report_data_compared"], true);
    data[0] ^= 1;
    case.authenticate(&["--report-data", &hex(&data)]).refused("binding-mismatch");
}

#[test]
fn an_event_log_has_to_explain_the_quote_beside_it() {
    let Some(vectors) = vectors_or_say(2, "CCEL logs on the command line") else { return };
    let live = vectors.join("confidential-dot-ai+attestation-rs/tdx-live");
    let case = tdx(&tdx::named(&vectors, "0c699dd4533f")); // the same platform family
    case.file("evidence", &read(live.join("quote.bin")));
    let with = |log: &str| case.authenticate(&["--event-log", live.join(log).to_str().unwrap()]);
    with("ccel-match.bin").json(0);
    with("ccel-mismatch-rtmr2.bin").refused("event-log-mismatch");
}

#[test]
fn evidence_is_judged_where_it_lies() {
    let Some(vectors) = vectors_or_say(17, "evidence beside its endorsements on the command line") else { return };
    let act = |platform, at: u64, evidence: &Path, more: &[&str]| {
        let (folder, at) = (evidence.parent().unwrap().to_str().unwrap(), at.to_string());
        let evidence = evidence.to_str().unwrap();
        let words = ["authenticate", "--json", "--platform", platform, "--at", &at, "--evidence", evidence];
        run(&[&words[..], &["--endorsements", folder], more].concat())
    };
    let roots = vectors.join("_amd-roots");
    for vector in &VECTORS {
        let (report, (at, _)) = (vectors.join(vector.folder).join("report.bin"), vector.times(&vectors));
        let json = act("snp", at, &report, &["--endorsements", roots.to_str().unwrap()]).json(0);
        assert_eq!(json["verdict"], "authentic", "{}", vector.folder);
    }
    for quote in tdx::all(&vectors) {
        let file = quote.folder.join("quote.bin");
        let collateral = quote.folder.join("collateral.json");
        let ended = act("tdx", quote.at, &file, &["--root-sha256", INTEL_ROOT]);
        assert_eq!(ended.json(0)["trusted_roots"][0]["sha256"], INTEL_ROOT, "{}", quote.name());
        // Intel's own root is known by its digest: it counts inside of collateral that lies with the evidence, too.
        for more in [&[][..], &["--endorsements", collateral.to_str().unwrap()]] {
            let json = act("tdx", quote.at, &file, more).json(0);
            assert_eq!(json["trusted_roots"][0]["sha256"], INTEL_ROOT, "{}", quote.name());
        }
    }
}
