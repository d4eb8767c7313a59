//! SNP chains in time: what is trusted before what is dated, revocation in whatever order lists and roots stand, what the
//! cache may never change, and which certificate a refusal tells of.

mod evidence_support;

use std::sync::LazyLock;

use evidence_support::amd::{ASK_SERIAL, Amd, DAY, NOW, Vek, VekFields};
use evidence_support::der::{CRITICAL, extension, int, name, pem, seq, tlv};
use evidence_support::snp::{GUID_ASK, GUID_VCEK, GUID_VLEK, table};
use evidence_support::{evidence, refused, refused_as};
use inwit_authority::evidence::{
    Claims, Endorsements, Product, Revocation, SnpClaims, SnpRoot, VekCertificate, authenticate,
};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};

static MILAN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Milan));
static TURIN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Turin));

fn body(amd: &Amd) -> Vec<u8> {
    amd.body(&[0xda; 64], &[0x4d; 48])
}

fn judged(report: &[u8], table: Vec<u8>, by: &Endorsements, at: u64) -> Result<SnpClaims, Refusal> {
    let authentic = authenticate(&evidence(Platform::Snp, report.to_vec(), table, vec![]), by, at)?;
    match authentic.claims() {
        Claims::Snp(claims) => Ok(SnpClaims::clone(claims)),
        other => panic!("{other:?}"),
    }
}

/// A chip's report and its table, after changes.
fn reported(amd: &Amd, fields: &VekFields, change: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    let vek = amd.issue(fields);
    let mut body = body(amd);
    change(&mut body);
    let guid = if body[0x48] >> 2 == 1 { GUID_VLEK } else { GUID_VCEK };
    (vek.report(&body), table(&[(guid, &vek.der)]))
}

#[test]
fn a_version_4_report_is_read_as_a_version_3_one() {
    let (report, table) = reported(&MILAN, &MILAN.vcek_fields(), |body| body[0] = 4);
    let claims = judged(&report, table, &MILAN.endorsements(&[]), NOW).unwrap();
    assert_eq!((claims.version, claims.mitigations), (4, None));
}

#[test]
fn a_masked_chip_is_nobodys_under_a_vcek_and_its_providers_under_a_vlek() {
    for version in [2, 3] {
        let masked = |body: &mut Vec<u8>| {
            body[0] = version;
            body[0x1a0..0x1e0].fill(0);
            if version == 2 {
                body[0x188..0x18b].fill(0);
            }
        };
        let (report, table) = reported(&MILAN, &MILAN.vcek_fields(), masked);
        let refusal = refused(judged(&report, table, &MILAN.endorsements(&[]), NOW));
        assert_eq!(refusal.code, RefusalCode::Unsupported);
        assert!(refusal.cause.contains("masks CHIP_ID"), "{refusal}");
        // Nor is there anything to import.
        assert_eq!(refused(judged(&report, vec![], &MILAN.endorsements(&[]), NOW)), refusal);
        let (report, table) = reported(&MILAN, &MILAN.vlek_fields(), |body| {
            masked(body);
            body[0x48] = 1 << 2;
        });
        let claims = judged(&report, table, &MILAN.endorsements(&[]), NOW).unwrap();
        assert_eq!((claims.version, claims.chip_id), (u32::from(version), [0; 64]));
    }
}

#[test]
fn a_report_of_a_generation_to_come_is_unsupported_by_name() {
    for (cpuid, named) in [([0x1a, 0x50], "Venice"), ([0x1a, 0x9f], "Venice"), ([0x1a, 0x20], "no product known")] {
        let (report, table) = reported(&TURIN, &TURIN.vcek_fields(), |body| body[0x188..0x18a].copy_from_slice(&cpuid));
        let refusal = refused(judged(&report, table, &TURIN.endorsements(&[]), NOW));
        assert_eq!(refusal.code, RefusalCode::Unsupported);
        assert!(refusal.cause.contains(named), "{refusal}");
    }
}

#[test]
fn an_intermediate_that_nobody_handed_in_is_named_and_one_that_did_not_issue_is_not_missing() {
    let root = |intermediates: &[&Vec<u8>]| {
        let intermediates: Vec<Vec<u8>> = intermediates.iter().map(|der| der.to_vec()).collect();
        let root = SnpRoot::new(Product::Milan, &MILAN.ark_der, &intermediates, &[]).unwrap();
        Endorsements { snp: vec![root], ..Endorsements::default() }
    };
    let vlek = |body: &mut Vec<u8>| body[0x48] = 1 << 2;
    let (by_chip, by_provider) =
        (reported(&MILAN, &MILAN.vcek_fields(), |_| {}), reported(&MILAN, &MILAN.vlek_fields(), vlek));
    let names =
        [("SEV-Milan (ASK)", &by_chip, &MILAN.asvk_der), ("SEV-VLEK-Milan (ASVK)", &by_provider, &MILAN.ask_der)];
    for (named, (report, table), other) in names {
        for by in [root(&[]), root(&[other])] {
            let refusal = refused(judged(report, table.clone(), &by, NOW));
            assert_eq!(refusal.code, RefusalCode::EndorsementMissing);
            assert!(refusal.cause.contains(named), "{refusal}");
        }
    }
    // One of the name is there, and issued another's key.
    let (report, table) = reported(&Amd::new(Product::Milan), &MILAN.vcek_fields(), |_| {});
    refused_as(judged(&report, table, &root(&[&MILAN.ask_der]), NOW), RefusalCode::ChainUntrusted);
}

#[test]
fn an_untrusted_chain_is_never_said_to_have_expired() {
    let namesake = Amd::new(Product::Milan);
    let ended = VekFields { window: (NOW - 9 * DAY, NOW - DAY), ..namesake.vcek_fields() };
    for (fields, at) in [(ended, NOW), (namesake.vcek_fields(), NOW + 5_000 * DAY), (namesake.vcek_fields(), 0)] {
        let (report, table) = reported(&namesake, &fields, |_| {});
        let by = MILAN.endorsements(&[MILAN.list(NOW - 9 * DAY, NOW - DAY, &[])]);
        refused_as(judged(&report, table, &by, at), RefusalCode::ChainUntrusted);
    }
}

#[test]
fn the_certificate_that_ended_is_named_with_its_dates() {
    let fields = VekFields { window: (NOW - 9 * DAY, NOW - DAY), ..MILAN.vcek_fields() };
    let (report, table) = reported(&MILAN, &fields, |_| {});
    let refusal = refused(judged(&report, table, &MILAN.endorsements(&[]), NOW));
    assert!(refusal.cause.contains("VEK is valid from 2026-05-23 to 2026-05-31"), "{refusal}");
    let fields = VekFields { window: (NOW - 30 * DAY, NOW + 4_000 * DAY), ..MILAN.vcek_fields() };
    let (report, table) = reported(&MILAN, &fields, |_| {});
    let refusal = refused(judged(&report, table, &MILAN.endorsements(&[]), NOW + 3_005 * DAY));
    assert!(refusal.cause.contains("the ARK is valid"), "{refusal}");
}

#[test]
fn a_listed_issuer_is_revoked_whoever_else_is_not() {
    let vek = MILAN.issue_changed(&MILAN.vcek_fields(), |parts| parts.serial = vec![2, 1, 0x4d]);
    let report = vek.report(&body(&MILAN));
    let table = || table(&[(GUID_VCEK, &vek.der)]);
    let list = |serials: &[u8]| MILAN.list(NOW - DAY, NOW + DAY, serials);
    let outcome = |lists: &[Vec<u8>]| judged(&report, table(), &MILAN.endorsements(lists), NOW);
    assert_eq!(
        outcome(&[list(&[3, 9])]).unwrap().revocation,
        Revocation::Checked,
        "an ASVK's revocation is not an ASK's"
    );
    // A VEK's number is one of its ASK's: what the ARK lists by that number is another certificate.
    assert_eq!(outcome(&[list(&[0x4d, 0])]).unwrap().revocation, Revocation::Checked);
    refused_as(outcome(&[list(&[1])]), RefusalCode::EndorsementRevoked);
    refused_as(outcome(&[list(&[]), list(&[ASK_SERIAL])]), RefusalCode::EndorsementRevoked);
    // Revoked before expired: the harder word.
    let old = MILAN.list(NOW - 9 * DAY, NOW - DAY, &[ASK_SERIAL]);
    refused_as(
        judged(&report, table(), &MILAN.endorsements(&[old]), NOW + 4_000 * DAY),
        RefusalCode::EndorsementRevoked,
    );
}

#[test]
fn a_list_that_is_not_current_is_named_with_its_dates() {
    let (report, table) = reported(&MILAN, &MILAN.vcek_fields(), |_| {});
    for (from, until, dates) in [
        (NOW - 9 * DAY, NOW - DAY, "valid from 2026-05-23 to 2026-05-31 only"),
        (NOW + DAY, NOW + 9 * DAY, "valid from 2026-06-02 to 2026-06-10 only"),
    ] {
        let by = MILAN.endorsements(&[MILAN.list(from, until, &[])]);
        let refusal = refused(judged(&report, table.clone(), &by, NOW));
        assert_eq!(refusal.code, RefusalCode::EndorsementExpired);
        assert!(refusal.cause.contains(dates), "{refusal}");
    }
}

#[test]
fn a_list_of_part_of_what_is_revoked_does_not_load() {
    let load = |list: Vec<u8>| SnpRoot::new(Product::Milan, &MILAN.ark_der, &[], &[list]).map(|_| ());
    let with = |extensions: &[u8]| MILAN.ark.list_with("ARK-Milan", (NOW - DAY, NOW + DAY), &[], extensions);
    let number = extension(&[2, 5, 29, 20], &[], &int(4));
    assert_eq!(load(with(&number)), Ok(()));
    // Issuing distribution point, and delta list indicator (RFC 5280 sections 5.2.5 and 5.2.4).
    for arc in [28, 27] {
        let partial = extension(&[2, 5, 29, arc], CRITICAL, &seq(&[]));
        assert!(load(with(&[number.clone(), partial].concat())).is_err(), "2.5.29.{arc}");
    }
    let place = |value: &[u8]| with(&extension(&[2, 5, 29, 28], CRITICAL, &seq(&[value])));
    let uri = tlv(0x86, b"https://crl.example/milan");
    let full = tlv(0xa0, &tlv(0xa0, &uri));
    let authorities = [0x82, 1, 0xff];
    for whole in [&full[..], &authorities, &[&full[..], &authorities].concat()] {
        assert_eq!(load(place(whole)), Ok(()), "{whole:x?}");
    }
    let users = [0x81, 1, 0xff];
    let reasons = tlv(0x83, &[1, 0x40]);
    let (indirect, attributes) = ([0x84, 1, 0xff], [0x85, 1, 0xff]);
    let relative = tlv(0xa0, &tlv(0xa1, &name("part")[4..]));
    for part in [&users[..], &reasons, &indirect, &attributes, &relative] {
        assert!(load(place(part)).is_err(), "{part:x?}");
        assert!(load(place(&[&full, part].concat())).is_err(), "{part:x?}");
    }
    // A root whose key usage does not include lists.
    let mut parts = MILAN.ark_parts.clone();
    parts.extensions[1] = extension(&[2, 5, 29, 15], CRITICAL, &tlv(3, &[1, 0x04]));
    let ark = parts.signed(&MILAN.ark);
    assert!(SnpRoot::new(Product::Milan, &ark, &[], &[]).is_ok());
    assert!(SnpRoot::new(Product::Milan, &ark, &[], &[with(&number)]).is_err());
}

#[test]
fn one_root_configured_twice_is_judged_by_all_of_its_lists_in_any_order() {
    let (report, table) = reported(&MILAN, &MILAN.vcek_fields(), |_| {});
    let current = || MILAN.root(&[MILAN.list(NOW - DAY, NOW + DAY, &[])]);
    let stale = || MILAN.root(&[MILAN.list(NOW - 9 * DAY, NOW - DAY, &[])]);
    let revoking = || MILAN.root(&[MILAN.list(NOW - DAY, NOW + DAY, &[ASK_SERIAL])]);
    let none = || MILAN.root(&[]);
    let foreign = || Amd::new(Product::Milan).root(&[]);
    let expired = Err(RefusalCode::EndorsementExpired);
    for (roots, expected) in [
        ([none(), current()], Ok(Revocation::Checked)),
        ([stale(), current()], Ok(Revocation::Checked)),
        ([none(), stale()], expired),
        ([none(), revoking()], Err(RefusalCode::EndorsementRevoked)),
        ([current(), revoking()], Err(RefusalCode::EndorsementRevoked)),
        ([stale(), revoking()], Err(RefusalCode::EndorsementRevoked)),
        ([foreign(), none()], Ok(Revocation::NoList)),
        ([foreign(), stale()], expired),
    ] {
        let [first, second] = &roots;
        for snp in [vec![first.clone(), second.clone()], vec![second.clone(), first.clone()]] {
            let by = Endorsements { snp, ..Endorsements::default() };
            let outcome = judged(&report, table.clone(), &by, NOW);
            assert_eq!(outcome.map(|claims| claims.revocation).map_err(|refusal| refusal.code), expected);
        }
    }
}

#[test]
fn what_a_host_sends_along_never_changes_what_is_imported() {
    let vek = MILAN.issue(&MILAN.vcek_fields());
    let report = vek.report(&body(&MILAN));
    let mut twin = MILAN.ask_parts.clone();
    twin.serial = vec![2, 1, 0x55];
    let twin = twin.signed(&MILAN.ark);
    let sent = || table(&[(GUID_VCEK, &vek.der), (GUID_ASK, &twin)]);
    let revoked = MILAN.endorsements(&[MILAN.list(NOW - DAY, NOW + DAY, &[ASK_SERIAL])]);
    // A second certificate of the same signing key does not wash the first one's revocation off.
    refused_as(judged(&report, sent(), &revoked, NOW), RefusalCode::EndorsementRevoked);
    // Nor does a revoked one that a host sends hurt while the imported one is good: it is not used.
    let other = MILAN.endorsements(&[MILAN.list(NOW - DAY, NOW + DAY, &[0x55])]);
    assert!(judged(&report, sent(), &other, NOW).is_ok());
    // Without an imported one, the one that is sent is looked up.
    let root = |lists: &[Vec<u8>]| Endorsements {
        snp: vec![SnpRoot::new(Product::Milan, &MILAN.ark_der, &[], lists).unwrap()],
        ..Endorsements::default()
    };
    assert!(judged(&report, sent(), &root(&[]), NOW).is_ok());
    let bare = root(&[MILAN.list(NOW - DAY, NOW + DAY, &[0x55])]);
    refused_as(judged(&report, sent(), &bare, NOW), RefusalCode::EndorsementRevoked);
}

#[test]
fn a_warm_root_says_at_any_time_what_a_fresh_one_says() {
    let fields = VekFields { window: (NOW - 20 * DAY, NOW + 20 * DAY), ..MILAN.vcek_fields() };
    let (report, table) = reported(&MILAN, &fields, |_| {});
    let lists = || [MILAN.list(NOW - 10 * DAY, NOW + 10 * DAY, &[]), MILAN.list(NOW + 5 * DAY, NOW + 15 * DAY, &[])];
    let warm = MILAN.endorsements(&lists());
    let mut accepted = 0;
    for round in 0..2 {
        for day in (0..60).map(|day| NOW - 30 * DAY + day * DAY).chain([0, NOW + 20 * DAY, NOW + 20 * DAY + 1]) {
            for at in [day.saturating_sub(1), day, day + 1] {
                let fresh = judged(&report, table.clone(), &MILAN.endorsements(&lists()), at);
                assert_eq!(judged(&report, table.clone(), &warm, at), fresh, "round {round}, at {at}");
                accepted += u32::from(fresh.is_ok());
            }
        }
    }
    assert!(accepted > 50, "{accepted}");
}

#[test]
fn a_warm_root_forgives_nothing() {
    let (report, table) = reported(&MILAN, &MILAN.vcek_fields(), |_| {});
    let by = MILAN.endorsements(&[]);
    let good = judged(&report, table.clone(), &by, NOW).unwrap();
    for position in [0x50, 0x90, 0x2a0, 0x2e8] {
        let mut spoilt = report.clone();
        spoilt[position] ^= 1;
        refused_as(judged(&spoilt, table.clone(), &by, NOW), RefusalCode::QuoteSignature);
    }
    let mut spoilt = table.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    refused_as(judged(&report, spoilt, &by, NOW), RefusalCode::ChainUntrusted);
    // Another chip's certificate of the same statements, and this one under another root.
    let (other, _) = reported(&MILAN, &MILAN.vcek_fields(), |_| {});
    refused_as(judged(&other, table.clone(), &by, NOW), RefusalCode::QuoteSignature);
    let foreign = Amd::new(Product::Milan).endorsements(&[]);
    refused_as(judged(&report, table.clone(), &foreign, NOW), RefusalCode::ChainUntrusted);
    assert_eq!(judged(&report, table, &by, NOW), Ok(good));
}

#[test]
fn of_several_certificates_the_nearest_is_told_of() {
    let good = MILAN.vcek_fields();
    let other_chip = VekFields { hwid: Some(vec![0x5d; 64]), ..good.clone() };
    let other_tcb = VekFields { tcb: [4, 0, 0, 0, 0, 0, 24, 218], ..good.clone() };
    let report = MILAN.issue(&good).report(&body(&MILAN));
    let stored = |veks: &[&Vek]| {
        let veks = veks.iter().map(|vek| VekCertificate::from_der(&vek.der).unwrap()).collect();
        refused(judged(&report, vec![], &Endorsements { veks, ..MILAN.endorsements(&[]) }, NOW))
    };
    let [chip, tcb, provider] = [&other_chip, &other_tcb, &MILAN.vlek_fields()].map(|fields| MILAN.issue(fields));
    let turin = TURIN.issue(&TURIN.vcek_fields());
    for (veks, cause) in [
        (vec![], "no VCEK certificate for "),
        (vec![&provider, &turin], "no VCEK certificate for "),
        (vec![&turin, &chip], "the VCEK at hand is another chip's: import that of "),
        (vec![&chip, &tcb], "the VCEK at hand is for another TCB: import that of "),
        (vec![&tcb, &chip], "the VCEK at hand is for another TCB: import that of "),
    ] {
        let refusal = stored(&veks);
        assert_eq!(refusal.code, RefusalCode::EndorsementMissing, "{refusal}");
        let wanted = format!("Milan chip {} at blSPL=4&teeSPL=0&snpSPL=24&ucodeSPL=219", "5c".repeat(64));
        assert!(refusal.cause.contains(&format!("{cause}{wanted}")), "{refusal}");
    }
    let (report, _) = reported(&MILAN, &MILAN.vlek_fields(), |body| body[0x48] = 1 << 2);
    let refusal = refused(judged(&report, vec![], &MILAN.endorsements(&[]), NOW));
    assert!(refusal.cause.contains("no VLEK certificate for Milan"), "{refusal}");
}

#[test]
fn what_is_to_be_imported_is_named_whole_for_every_product_and_version() {
    let nothing = |amd: &Amd, body: &[u8]| {
        let report = amd.issue(&amd.vcek_fields()).report(body);
        refused(judged(&report, vec![], &amd.endorsements(&[]), NOW)).cause
    };
    let turin = nothing(&TURIN, &body(&TURIN));
    assert!(turin.contains(&format!("Turin chip {} at fmcSPL=", "5c".repeat(8))), "{turin}");
    // The longest that there can be.
    let mut highest = body(&MILAN);
    highest[0x180..0x188].copy_from_slice(&[255, 255, 0, 0, 0, 0, 255, 255]);
    assert!(nothing(&MILAN, &highest).ends_with("ucodeSPL=255 is at hand: import it"));
    let stored = VekCertificate::from_der(&MILAN.issue(&MILAN.vcek_fields()).der).unwrap();
    let by = Endorsements { veks: vec![stored], ..MILAN.endorsements(&[]) };
    let report = MILAN.issue(&MILAN.vcek_fields()).report(&highest);
    assert!(refused(judged(&report, vec![], &by, NOW)).cause.ends_with("ucodeSPL=255"));
    // Version 2 names no product, and without it the TCB is bytes.
    let mut unnamed = body(&MILAN);
    unnamed[0] = 2;
    unnamed[0x188..0x18b].fill(0);
    let wanted = format!("chip {} (product not stated) at TCB 04000000000018db is at hand: import it", "5c".repeat(64));
    assert!(nothing(&MILAN, &unnamed).ends_with(&wanted), "{}", nothing(&MILAN, &unnamed));
}

#[test]
fn a_stored_vlek_that_did_not_sign_is_not_the_one_and_the_hosts_own_is_a_forgery() {
    let [here, elsewhere] = ["CN=here.example", "CN=elsewhere.example"]
        .map(|provider| MILAN.issue(&VekFields { provider: Some(provider), ..MILAN.vlek_fields() }));
    let mut body = body(&MILAN);
    body[0x48] = 1 << 2;
    let report = here.report(&body);
    let by = |veks: &[&Vek]| {
        let veks = veks.iter().map(|vek| VekCertificate::from_der(&vek.der).unwrap()).collect();
        Endorsements { veks, ..MILAN.endorsements(&[]) }
    };
    let sent = |vek: &Vek| table(&[(GUID_VLEK, &vek.der)]);
    let refusal = refused(judged(&report, vec![], &by(&[&elsewhere]), NOW));
    assert_eq!(refusal.code, RefusalCode::EndorsementMissing);
    assert!(refusal.cause.contains("VLEK of CN=elsewhere.example at blSPL=4"), "{refusal}");
    assert!(judged(&report, vec![], &by(&[&elsewhere, &here]), NOW).is_ok());
    assert!(judged(&report, sent(&here), &by(&[&elsewhere]), NOW).is_ok());
    for stored in [by(&[]), by(&[&elsewhere]), by(&[&here, &elsewhere])] {
        let mut spoilt = report.clone();
        spoilt[0x90] ^= 1;
        refused_as(judged(&spoilt, sent(&here), &stored, NOW), RefusalCode::QuoteSignature);
    }
    // Under a chip's own key there is no other one.
    let (mut report, _) = reported(&MILAN, &MILAN.vcek_fields(), |_| {});
    report[0x90] ^= 1;
    let vcek = MILAN.issue(&MILAN.vcek_fields());
    refused_as(judged(&report, vec![], &by(&[&vcek]), NOW), RefusalCode::QuoteSignature);
}

#[test]
fn a_certificate_as_pem_is_told_to_be_one() {
    let vek = MILAN.issue(&MILAN.vcek_fields());
    let sent = table(&[(GUID_VCEK, &pem("CERTIFICATE", &vek.der))]);
    let refusal = refused(judged(&vek.report(&body(&MILAN)), sent, &MILAN.endorsements(&[]), NOW));
    assert!(refusal.cause.contains("it is PEM, and DER is needed"), "{refusal}");
}

#[test]
fn everything_with_dates_is_told_of() {
    let root = MILAN.root(&[MILAN.list(NOW - DAY, NOW + DAY, &[7, 9])]);
    let dated = root.dated();
    let names: Vec<&str> = dated.iter().map(|dated| dated.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "ARK (ARK-Milan)",
            "ASK (SEV-Milan)",
            "ASVK (SEV-VLEK-Milan)",
            "revocation list number 1, 2 revoked (ARK-Milan)"
        ]
    );
    let last = dated.last().unwrap();
    assert_eq!((last.from, last.until), (NOW - DAY, NOW + DAY));
    let fields = MILAN.vcek_fields();
    let [vcek] = &VekCertificate::from_der(&MILAN.issue(&fields).der).unwrap().dated()[..] else { panic!() };
    assert_eq!((vcek.from, vcek.until), fields.window);
    assert!(vcek.name.contains("VCEK (Milan chip 5c5c5c5c5c5c5c5c, blSPL=4"), "{}", vcek.name);
    let [vlek] = &VekCertificate::from_der(&MILAN.issue(&MILAN.vlek_fields()).der).unwrap().dated()[..] else {
        panic!()
    };
    assert!(vlek.name.contains("VLEK (Milan, CN=cloud.example"), "{}", vlek.name);
}
