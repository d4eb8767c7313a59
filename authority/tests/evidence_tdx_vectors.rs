//! Real TDX quotes under Intel's root, with Intel's collateral of their time: authentic then, refused at another time,
//! under another root, without collateral, and after any change to what is signed.

mod evidence_support;

use std::io::Read;

use evidence_support::tdx::{self, Vector};
use evidence_support::{evidence, read, refused, refused_as, vectors_or_say};
use inwit_authority::evidence::{Claims, Endorsements, TcbStatus, TdxClaims, TdxPart, TdxRoot, authenticate};
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
