//! Real SNP reports under AMD's own roots: authentic at a time at which their certificate was valid, refused at another
//! time, under another root, with another chip's certificate, and after any change to any byte.

mod evidence_support;

use evidence_support::snp::{self, GENOA_3, GUID_ASK, GUID_VCEK, GUID_VLEK, MILAN_2, MILAN_3, TURIN_5, VECTORS, VLEK};
use evidence_support::{evidence, read, refused, refused_as, vectors_or_say};
use inwit_authority::evidence::{
    Claims, EndorsementError, Endorsements, Product, SnpClaims, SnpRoot, SnpSigner, VekCertificate, authenticate,
};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use x509_parser::pem::Pem;

/// 2026-11-22, after the VLEK's end and before that of every VCEK here.
const LATER: u64 = 1_795_305_600;

/// Authenticates a report with a certificate table.
fn claims(report: Vec<u8>, table: Vec<u8>, by: &Endorsements, at: u64) -> Result<SnpClaims, Refusal> {
    let authentic = authenticate(&evidence(Platform::Snp, report, table, vec![]), by, at)?;
    match authentic.claims() {
        Claims::Snp(claims) => Ok(SnpClaims::clone(claims)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_seven_real_reports_are_authentic_while_their_certificate_is_valid() {
    let Some(vectors) = vectors_or_say(VECTORS.len(), "real SNP reports") else { return };
    let by = snp::amd(&vectors);
    for vector in &VECTORS {
        let (at, _) = vector.times(&vectors);
        let claims = claims(vector.report(&vectors), vector.table(&vectors), &by, at)
            .unwrap_or_else(|refusal| panic!("{}: {refusal}", vector.folder));
        assert_eq!(claims.product, vector.product, "{}", vector.folder);
        assert_eq!(claims.version, vector.version, "{}", vector.folder);
        assert_eq!(claims.vmpl, vector.vmpl, "{}", vector.folder);
        assert_eq!(claims.signer != SnpSigner::Vcek, vector.vlek, "{}", vector.folder);
        assert_eq!(claims.migration_agent, None, "{}", vector.folder);
        assert_eq!(claims.policy.debug_allowed(), vector.folder.contains("DEBUG"), "{}", vector.folder);
    }
}

#[test]
fn a_report_is_refused_before_and_after_its_certificates_time() {
    let Some(vectors) = vectors_or_say(2 * VECTORS.len(), "expired SNP certificates") else { return };
    let by = snp::amd(&vectors);
    for vector in &VECTORS {
        let (good, last) = vector.times(&vectors);
        for at in [good - 31 * 86_400, last + 1] {
            let outcome = claims(vector.report(&vectors), vector.table(&vectors), &by, at);
            refused_as(outcome, RefusalCode::EndorsementExpired);
        }
        assert!(claims(vector.report(&vectors), vector.table(&vectors), &by, last).is_ok(), "{}", vector.folder);
        let now = claims(vector.report(&vectors), vector.table(&vectors), &by, LATER);
        assert_eq!(now.err().map(|refusal| refusal.code), vector.vlek.then_some(RefusalCode::EndorsementExpired));
    }
}

#[test]
fn every_flipped_byte_of_a_report_is_refused() {
    let Some(vectors) = vectors_or_say(1184, "flipped bytes") else { return };
    let by = snp::amd(&vectors);
    let vector = &VECTORS[MILAN_3];
    let (at, _) = vector.times(&vectors);
    let (report, table) = (vector.report(&vectors), vector.table(&vectors));
    assert!(claims(report.clone(), table.clone(), &by, at).is_ok());
    for position in 0..report.len() {
        let mut spoilt = report.clone();
        spoilt[position] ^= 1 << (position % 8);
        assert!(claims(spoilt, table.clone(), &by, at).is_err(), "byte {position:#x} may be changed");
    }
}

#[test]
fn another_length_or_a_broken_table_is_malformed() {
    let Some(vectors) = vectors_or_say(4, "spoilt SNP reports") else { return };
    let by = snp::amd(&vectors);
    let vector = &VECTORS[TURIN_5];
    let (at, _) = vector.times(&vectors);
    let (report, table) = (vector.report(&vectors), vector.table(&vectors));
    let longer = [report.clone(), vec![0]].concat();
    refused_as(claims(report[..1183].to_vec(), table.clone(), &by, at), RefusalCode::Malformed);
    refused_as(claims(longer, table.clone(), &by, at), RefusalCode::Malformed);
    refused_as(claims(report, table[..30].to_vec(), &by, at), RefusalCode::Malformed);
    refused_as(claims(vec![], table, &by, at), RefusalCode::EvidenceMissing);
}

#[test]
fn a_certificate_of_another_chip_tcb_product_or_kind_is_not_the_one() {
    let Some(vectors) = vectors_or_say(4, "mismatched SNP certificates") else { return };
    let by = snp::amd(&vectors);
    for (report, certificate, guid, cause) in [
        (MILAN_2, MILAN_3, GUID_VCEK, "another chip"),
        (GENOA_3, MILAN_3, GUID_VCEK, "another product"),
        (MILAN_3, VLEK, GUID_VCEK, "other kind"),
        (VLEK, MILAN_3, GUID_VLEK, "other kind"),
    ] {
        let table = snp::table(&[(guid, &VECTORS[certificate].certificate(&vectors))]);
        let refusal = refused(claims(VECTORS[report].report(&vectors), table, &by, LATER));
        assert_eq!(refusal.code, RefusalCode::EndorsementMissing, "{refusal}");
        assert!(refusal.cause.contains(cause), "{refusal}");
    }
}

#[test]
fn a_published_report_whose_certificates_belong_to_another_chip_is_refused() {
    let Some(vectors) = vectors_or_say(1, "mismatched Azure pair") else { return };
    let folder = vectors.join("kinvolk+azure-cvm-tooling");
    let report = read(folder.join("hcl-report-snp.bin"))[32..32 + 1184].to_vec();
    let pem = read(folder.join("certs.pem"));
    let vcek = Pem::iter_from_buffer(&pem).next().unwrap().unwrap().contents;
    let table = snp::table(&[(GUID_VCEK, &vcek)]);
    refused_as(claims(report, table, &snp::amd(&vectors), LATER), RefusalCode::EndorsementMissing);
}

#[test]
fn what_is_missing_is_named_and_what_is_stored_is_used() {
    let Some(vectors) = vectors_or_say(4, "missing SNP endorsements") else { return };
    let vector = &VECTORS[GENOA_3];
    let (at, _) = vector.times(&vectors);
    let report = vector.report(&vectors);
    let mut by = snp::amd(&vectors);

    let refusal = refused(claims(report.clone(), vec![], &by, at));
    assert_eq!(refusal.code, RefusalCode::EndorsementMissing);
    assert!(refusal.cause.contains("no VCEK certificate for Genoa chip b1e24a27bbc3a4d5"), "{refusal}");

    by.veks.push(VekCertificate::from_der(&VECTORS[MILAN_3].certificate(&vectors)).unwrap());
    by.veks.push(VekCertificate::from_der(&vector.certificate(&vectors)).unwrap());
    assert!(claims(report.clone(), vec![], &by, at).is_ok());

    by.snp.retain(|root| root.product() != Product::Genoa);
    let refusal = refused(claims(report.clone(), vector.table(&vectors), &by, at));
    assert_eq!(refusal.code, RefusalCode::EndorsementMissing);
    assert!(refusal.cause.contains("ARK-Genoa"), "{refusal}");
    refused_as(claims(report, vector.table(&vectors), &Endorsements::default(), at), RefusalCode::EndorsementMissing);
}

#[test]
fn an_intermediate_from_the_host_is_a_link_and_never_a_root() {
    let Some(vectors) = vectors_or_say(3, "SNP intermediates from a host") else { return };
    let vector = &VECTORS[MILAN_3];
    let (at, _) = vector.times(&vectors);
    let file = |name: &str| read(vectors.join("_amd-roots").join(name));
    let bare = SnpRoot::new(Product::Milan, &file("milan-ark.der"), &[], &[]).unwrap();
    let by = Endorsements { snp: vec![bare], ..Endorsements::default() };
    let vcek = vector.certificate(&vectors);
    let with = |ask: &str| snp::table(&[(GUID_VCEK, &vcek), (GUID_ASK, &file(ask))]);
    assert!(claims(vector.report(&vectors), with("milan-ask.der"), &by, at).is_ok());
    for other in ["genoa-ask.der", "milan-asvk.der"] {
        refused_as(claims(vector.report(&vectors), with(other), &by, at), RefusalCode::ChainUntrusted);
    }
}

#[test]
fn only_the_right_files_load_as_a_root() {
    let Some(vectors) = vectors_or_say(5, "AMD root files") else { return };
    let file = |name: &str| read(vectors.join("_amd-roots").join(name));
    let load = |product, ark: &[u8], ask: &[u8]| SnpRoot::new(product, ark, &[ask.to_vec()], &[]).map(|_| ());
    let (ark, ask) = (file("milan-ark.der"), file("milan-ask.der"));
    assert_eq!(load(Product::Milan, &ark, &ask), Ok(()));
    let wrong = |certificate, product| Err(EndorsementError::Product { certificate, product });
    assert_eq!(load(Product::Genoa, &ark, &ask), wrong("ARK", Product::Genoa));
    assert_eq!(load(Product::Milan, &ask, &ask), wrong("ARK", Product::Milan));
    assert_eq!(load(Product::Milan, &ark, &file("genoa-ask.der")), wrong("ASK or ASVK", Product::Milan));
    let mut spoilt = ask.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    assert!(matches!(load(Product::Milan, &ark, &spoilt), Err(EndorsementError::Amd { file: "ASK or ASVK", .. })));
    assert!(matches!(load(Product::Milan, &ark[1..], &ask), Err(EndorsementError::Amd { file: "ARK", .. })));
    let vlek = VECTORS[VLEK].certificate(&vectors);
    assert!(VekCertificate::from_der(&vlek).is_ok());
    assert!(VekCertificate::from_der(&ask).is_err());
    let turin = VekCertificate::from_der(&read(vectors.join("virtee+sev/certs/vcek_turin.der"))).unwrap();
    assert!(turin.dated()[0].name.starts_with("VCEK (Turin chip "), "{:?}", turin.dated());
}

#[test]
fn spoilt_certificates_that_others_publish_are_no_chips() {
    let Some(vectors) = vectors_or_say(2, "spoilt VCEKs") else { return };
    let (by, folder) = (snp::amd(&vectors), vectors.join("confidential-containers+trustee/snp-bad"));
    let vector = &VECTORS[MILAN_2];
    for (name, tcb) in [
        ("test-vcek-invalid-legacy.der", [3, 0, 0, 0, 0, 0, 10, 169]),
        ("test-vcek-invalid-new.der", [0, 0, 0, 0, 0, 0, 0, 30]),
    ] {
        let table = || snp::table(&[(GUID_VCEK, &read(folder.join(name)))]);
        let mut report = vector.report(&vectors);
        let refusal = refused(claims(report.clone(), table(), &by, vector.times(&vectors).0));
        assert_eq!(refusal.code, RefusalCode::EndorsementMissing, "{name}: {refusal}");
        assert!(refusal.cause.contains("another chip"), "{name}: {refusal}");
        // Even of the chip and the TCB that it names: AMD's ASK did not sign it.
        report[0x180..0x188].copy_from_slice(&tcb);
        report[0x1a0..0x1e0].copy_from_slice(&std::array::from_fn::<u8, 64, _>(|place| place.try_into().unwrap()));
        refused_as(claims(report, table(), &by, vector.times(&vectors).0), RefusalCode::ChainUntrusted);
    }
}
