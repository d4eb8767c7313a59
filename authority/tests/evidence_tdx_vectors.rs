//! Real TDX quotes under Intel's root, with Intel's collateral of their time: authentic then, refused at another time,
//! under another root, without collateral, and after any change to what is signed.

mod evidence_support;

use std::io::Read;
use std::path::Path;

use evidence_support::policy;
use evidence_support::tdx::{self, Vector};
use evidence_support::{evidence, read, refused, refused_as, vectors_or_say};
use inwit_authority::evidence::{
    Claims, EndorsementError, Endorsements, TcbStatus, TdxClaims, TdxPart, TdxRoot, authenticate,
};
use inwit_measurements::Digest;
use inwit_measurements::reference::Measured;
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use x509_parser::pem::Pem;

/// Header and TD 1.0 body of a version 4 quote: what its signature covers.
const SIGNED: usize = 632;

fn claims(quote: &[u8], log: &[u8], by: &Endorsements, at: u64) -> Result<TdxClaims, Refusal> {
    let authentic = authenticate(&evidence(Platform::Tdx, quote.to_vec(), vec![], log.to_vec()), by, at)?;
    match authentic.claims() {
        Claims::Tdx(claims) => Ok(TdxClaims::clone(claims)),
        other => panic!("{other:?}"),
    }
}

fn claims_of(vector: &Vector) -> Result<TdxClaims, Refusal> {
    claims(&vector.quote, &[], &vector.endorsements(), vector.at)
}

#[test]
fn real_quotes_have_the_status_that_two_other_verifiers_found() {
    let Some(vectors) = vectors_or_say(10, "real TDX quotes") else { return };
    for (name, version, status) in [
        ("00b2526ab190", 4, TcbStatus::UpToDate),
        ("0c699dd4533f", 4, TcbStatus::UpToDate),
        ("140cbd8ced39", 4, TcbStatus::UpToDate),
        ("4b23198ac885", 4, TcbStatus::OutOfDate),
        ("509f50f85772", 4, TcbStatus::UpToDate),
        ("b789d779386f", 4, TcbStatus::OutOfDate),
        ("cf77a6e91e48", 5, TcbStatus::UpToDate),
    ] {
        let claims = claims_of(&tdx::named(&vectors, name)).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!((claims.version, claims.tcb_status), (version, status), "{name}");
        assert!(claims.td_attributes.sept_ve_disable() && !claims.td_attributes.under_debug(), "{name}");
    }
    let debug = claims_of(&tdx::named(&vectors, "12b401a88a51")).unwrap();
    assert!(debug.td_attributes.under_debug(), "authentic, and for the appraisal to refuse");
    let bound = claims_of(&tdx::named(&vectors, "d0010db6f7b8")).unwrap();
    assert!(bound.mr_service_td.is_some_and(|digest| digest != [0; 48]));
    let open = claims_of(&tdx::named(&vectors, "a187b0da057d")).unwrap();
    assert!(!open.td_attributes.sept_ve_disable());
}

#[test]
fn collateral_counts_only_while_it_is_current() {
    let Some(vectors) = vectors_or_say(20, "TDX collateral outside of its time") else { return };
    for vector in tdx::all(&vectors) {
        let by = vector.endorsements();
        for at in [vector.at - 60 * 86_400, vector.at + 60 * 86_400] {
            refused_as(claims(&vector.quote, &[], &by, at), RefusalCode::EndorsementExpired);
        }
    }
}

#[test]
fn the_newest_current_collateral_of_the_platform_is_chosen() {
    let Some(vectors) = vectors_or_say(10, "choices of TDX collateral") else { return };
    let all = tdx::all(&vectors);
    let documents: Vec<TdxPart<'_>> = all.iter().map(|vector| TdxPart::Collateral(&vector.collateral)).collect();
    let root = TdxRoot::new(&tdx::intel_root(&all[0].collateral), &documents).unwrap();
    let together = Endorsements { tdx: vec![root], ..Endorsements::default() };
    let mut apart = Endorsements::default();
    all.iter().for_each(|vector| apart.tdx.extend(vector.endorsements().tdx));
    for vector in &all {
        for by in [&together, &apart] {
            assert_eq!(claims(&vector.quote, &[], by, vector.at), claims_of(vector), "{}", vector.name());
        }
    }
}

#[test]
fn what_the_hardware_admits_is_refused_by_policy() {
    let Some(vectors) = vectors_or_say(10, "real TDX quotes before a policy") else { return };
    for vector in tdx::all(&vectors) {
        let (name, claims) = (vector.name(), claims_of(&vector).unwrap());
        let [rtmr0, rtmr1, rtmr2, _] = claims.rtmrs.map(Digest::from_bytes);
        let measured = Measured::Tdx { mrtd: Digest::from_bytes(claims.mrtd), rtmr0, rtmr1, rtmr2 };
        let policy = policy::of(vec![policy::reference("this one", &policy::agent(), measured)]);
        let quote = evidence(Platform::Tdx, vector.quote.clone(), vec![], vec![]);
        let judged = authenticate(&quote, &vector.endorsements(), vector.at).unwrap().judge(&policy);
        match name.split_once('-').unwrap().1 {
            "UpToDate" => assert_eq!(judged.unwrap().reference_values(), ["this one"], "{name}"),
            "OutOfDate" => refused_as(judged, RefusalCode::TcbTooOld),
            "REJECT-Debug-mode-is-enabled" => refused_as(judged, RefusalCode::DebugEnabled),
            _ => refused_as(judged, RefusalCode::PolicyForbids),
        }
    }
}

/// Everything of Intel's that lies among the vectors, whole and loose, under one root.
fn store(vectors: &Path) -> Endorsements {
    let all = tdx::all(vectors);
    let loose = vectors.join("confidential-dot-ai+attestation-rs/collateral");
    let google = vectors.join("google+go-tdx-guest");
    let trustee = vectors.join("confidential-containers+trustee");
    let chain = tdx::certificates(&read(loose.join("tcb_signing_chain.pem")));
    let infos = [
        loose.join("tcb_info_50806f000000.json"),
        loose.join("tcb_info_90c06f000000.json"),
        google.join("sample_tcbInfo_response"),
        google.join("sample_tcbinfo_response_v5"),
        trustee.join("tcbInfo.json"),
    ];
    let identities = [
        loose.join("td_qe_identity.json"),
        google.join("sample_qeIdentity_response"),
        trustee.join("enclaveIdentity.json"),
    ];
    let lists = [
        loose.join("root_ca_crl.der"),
        loose.join("pck_crl_platform.der"),
        google.join("rootcrl.der"),
        google.join("pckcrl"),
    ];
    let (infos, identities, lists) = (infos.map(read), identities.map(read), lists.map(read));
    let mut parts: Vec<TdxPart<'_>> = lists.iter().map(|list| TdxPart::List(list)).collect();
    parts.extend(infos.iter().map(|info| TdxPart::TcbInfo(info)));
    parts.extend(identities.iter().map(|identity| TdxPart::QeIdentity(identity)));
    parts.extend(chain.iter().map(|certificate| TdxPart::Certificate(certificate)));
    parts.extend(all.iter().map(|vector| TdxPart::Collateral(&vector.collateral)));
    let root = TdxRoot::new(&tdx::intel_root(&all[0].collateral), &parts).unwrap();
    assert!(root.dated().iter().any(|dated| dated.name == "TCB info for FMSPC 50806f000000 (evaluation 15)"));
    Endorsements { tdx: vec![root], ..Endorsements::default() }
}

#[test]
fn loose_parts_of_every_year_lie_together_and_the_right_ones_are_taken() {
    let Some(vectors) = vectors_or_say(14, "TDX quotes under loose parts of collateral") else { return };
    let by = store(&vectors);
    let (mid_2023, mid_2025, early_2026, march_2026, mid_2026) =
        (1_688_000_000, 1_753_175_614, 1_769_530_199, 1_774_995_904, 1_783_993_735);
    let february_2026 = 1_770_200_000;
    use RefusalCode::{ChainUntrusted, EndorsementExpired, Malformed, TcbTooOld};
    for (quote, at, expected) in [
        ("Phala-Network+dcap-qvl/tdx_quote", mid_2026, Ok("UpToDate")),
        ("google+go-tdx-guest/cos-113/quote-padded-8000.bin", mid_2025, Ok("UpToDate")),
        ("google+go-tdx-guest/quote_v5_sample.dat", february_2026, Ok("UpToDate")), // loose TCB info of that month
        ("confidential-dot-ai+attestation-rs/tdx-live/quote.bin", mid_2026, Ok("UpToDate")),
        ("confidential-containers+trustee/tdx_quote_4.dat", march_2026, Ok("OutOfDate")),
        ("confidential-containers+trustee/tdx_quote_6.dat", early_2026, Ok("OutOfDate")),
        ("confidential-containers+trustee/az-tdx-vtpm/td-quote.bin", mid_2025, Ok("OutOfDate")),
        ("automata-network+automata-dcap-attestation/alibaba_quote_5.dat", mid_2026, Ok("OutOfDate")),
        // One component of these platforms is below every level.
        ("Phala-Network+dcap-qvl/tdx_quote_outdated", march_2026, Err(TcbTooOld)),
        ("confidential-containers+trustee/tdx_quote_5.dat", mid_2026, Err(TcbTooOld)),
        // The documents of 2023 are here, but not the certificate that their signer had then.
        ("confidential-containers+trustee/tdx_quote_4.dat", mid_2023, Err(EndorsementExpired)),
        // A text was put after the quote, "only for testing purpose".
        ("google+go-tdx-guest/tdx_prod_quote_SPR_E4.dat", mid_2023, Err(Malformed)),
        ("intel+QuoteVerificationLibrary-tdx-sample/quote.dat", mid_2026, Err(ChainUntrusted)),
    ] {
        let found = claims(&read(vectors.join(quote)), &[], &by, at);
        match expected {
            Ok(status) => assert_eq!(found.map(|claims| claims.tcb_status.text()), Ok(status), "{quote}"),
            Err(code) => refused_as(found, code),
        }
    }
}

#[test]
fn parts_for_sgx_and_of_another_root_are_named() {
    let Some(vectors) = vectors_or_say(4, "parts that are not Intel's for TDX") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let (intel, sample) =
        (tdx::intel_root(&vector.collateral), vectors.join("intel+QuoteVerificationLibrary-tdx-sample"));
    let outcome = |part: TdxPart<'_>| TdxRoot::new(&intel, &[part]).unwrap_err();
    let sgx = read(vectors.join("Phala-Network+dcap-qvl/sgx_quote_collateral.json"));
    assert!(outcome(TdxPart::Collateral(&sgx)).to_string().contains("for SGX, not for TDX"));
    let signer = tdx::certificates(&read(sample.join("tcbSignChain.pem")));
    for certificate in &signer {
        let error = outcome(TdxPart::Certificate(certificate));
        assert!(matches!(error, EndorsementError::Foreign { file: "certificate", .. }), "{error}");
    }
    let list = read(sample.join("rootCaCrl.der"));
    let error = outcome(TdxPart::List(&list));
    assert!(matches!(error, EndorsementError::Foreign { file: "revocation list", .. }), "{error}");
    let info = read(vectors.join("confidential-containers+trustee/tcbInfo.json"));
    assert!(outcome(TdxPart::TcbInfo(&info)).to_string().contains("its signer"), "without a signer");
}

#[test]
fn what_is_missing_is_named() {
    let Some(vectors) = vectors_or_say(3, "missing TDX endorsements") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let other = tdx::named(&vectors, "b789d779386f");
    refused_as(claims(&vector.quote, &[], &Endorsements::default(), vector.at), RefusalCode::EndorsementMissing);
    let refusal = refused(claims(&vector.quote, &[], &other.endorsements(), vector.at));
    assert_eq!(refusal.code, RefusalCode::EndorsementMissing);
    assert!(refusal.cause.contains("FMSPC 90c06f000000"), "{refusal}");
}

#[test]
fn another_root_is_refused_in_both_directions() {
    let Some(vectors) = vectors_or_say(2, "TDX quotes under another root") else { return };
    let sample = vectors.join("intel+QuoteVerificationLibrary-tdx-sample");
    let pem = read(sample.join("trustedRootCaCert.pem"));
    let test_root = Pem::iter_from_buffer(&pem).next().unwrap().unwrap().contents;
    let vector = tdx::named(&vectors, "509f50f85772");
    let under_test_root = TdxRoot::new(&test_root, &[]).unwrap();
    let by = Endorsements { tdx: vec![under_test_root], ..Endorsements::default() };
    refused_as(claims(&vector.quote, &[], &by, vector.at), RefusalCode::ChainUntrusted);
    let quote = read(sample.join("quote.dat"));
    refused_as(claims(&quote, &[], &vector.endorsements(), vector.at), RefusalCode::ChainUntrusted);
}

#[test]
fn any_change_to_what_is_signed_is_refused() {
    let Some(vectors) = vectors_or_say(632, "flipped bytes of a TDX quote") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let by = vector.endorsements();
    // Header and body, signature, attestation key, QE report with its signature and authentication data.
    let end = SIGNED + 4 + 128 + 6 + 384 + 64 + 2 + 32 + 6;
    for position in (0..SIGNED).step_by(3).chain(SIGNED..end) {
        let mut spoilt = vector.quote.clone();
        spoilt[position] ^= 1 << (position % 8);
        assert!(claims(&spoilt, &[], &by, vector.at).is_err(), "byte {position} may be changed");
    }
    for length in [0, 47, SIGNED, vector.quote.len() - 1] {
        assert!(claims(&vector.quote[..length], &[], &by, vector.at).is_err(), "cut to {length}");
    }
}

#[test]
fn zero_padding_is_passed_over_and_any_other_byte_is_not() {
    let Some(vectors) = vectors_or_say(2, "padded TDX quotes") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let by = vector.endorsements();
    let mut padded = vector.quote.clone();
    padded.resize(8_000, 0);
    assert_eq!(claims(&padded, &[], &by, vector.at), claims_of(&vector));
    padded[7_999] = 1;
    refused_as(claims(&padded, &[], &by, vector.at), RefusalCode::Malformed);
}

#[test]
fn a_real_boot_log_explains_its_quote_and_no_other_does() {
    let Some(vectors) = vectors_or_say(4, "CCEL logs") else { return };
    let live = vectors.join("confidential-dot-ai+attestation-rs/tdx-live");
    let quote = read(live.join("quote.bin"));
    // Another machine of the same platform family, whose collateral therefore fits.
    let family = tdx::named(&vectors, "0c699dd4533f");
    let by = family.endorsements();
    let bare = claims(&quote, &[], &by, family.at).unwrap();
    assert_eq!(claims(&quote, &read(live.join("ccel-match.bin")), &by, family.at).unwrap(), bare);
    let other_boot = read(live.join("ccel-mismatch-rtmr2.bin"));
    let refusal = refused(claims(&quote, &other_boot, &by, family.at));
    assert_eq!((refusal.code, refusal.cause.contains("RTMR2")), (RefusalCode::EventLogMismatch, true), "{refusal}");
    refused_as(claims(&quote, b"no log", &by, family.at), RefusalCode::EventLogMismatch);
}

#[test]
fn a_log_with_a_moved_separator_is_refused() {
    let Some(vectors) = vectors_or_say(2, "COS boot logs") else { return };
    let vector = tdx::named(&vectors, "00b2526ab190");
    let by = vector.endorsements();
    let log = |name: &str| gunzip(&vectors.join("google+go-eventlog").join(name));
    assert_eq!(vector.quote, read(vectors.join("google+go-tdx-guest/cos-113/quote.bin")));
    assert!(claims(&vector.quote, &log("cos-113-intel-tdx.bin.gz"), &by, vector.at).is_ok());
    let moved = log("cos-113-intel-tdx-dupe-separator.bin.gz");
    refused_as(claims(&vector.quote, &moved, &by, vector.at), RefusalCode::EventLogMismatch);
}

/// Unpacks with the `gzip` program: the vectors are stored packed, and nothing else here needs a decoder.
fn gunzip(path: &std::path::Path) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("install the gzip program");
    let mut unpacked = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut unpacked).unwrap();
    assert!(child.wait().unwrap().success());
    unpacked
}
