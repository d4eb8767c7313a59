//! Certificates: every byte of VEK, ASK and ARK, and every part of each made anew and truly signed with one thing wrong.

use super::evidence_support::amd::{Amd, DAY, NOW, Parts, Rsa, Trailer, VekFields, amd_extension, pss};
use super::evidence_support::der::{CRITICAL, bits, extension, int, name, oid, seq, tlv, utc};
use super::*;

#[test]
fn no_byte_of_a_certificate_can_be_changed() {
    let all: Vec<Good> = real().into_iter().chain(simulated()).collect();
    let changes: usize = std::thread::scope(|scope| {
        let running: Vec<_> = all.iter().map(|good| scope.spawn(|| flip_every_byte(good))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    say(&format!("SNP certificates: {changes} flipped bytes, all refused"));
}

/// Flips a bit of every byte of each certificate in turn, and gives how many there were.
fn flip_every_byte(good: &Good) -> usize {
    let by = good.root();
    let flipped = |der: &[u8], position: usize| {
        let mut spoilt = der.to_vec();
        spoilt[position] ^= 1 << (position % 8);
        spoilt
    };
    for position in 0..good.vek.len() {
        let table = table(&[(good.guid, &flipped(&good.vek, position))]);
        assert!(outcome(&good.report, &table, &by, good.at).is_err(), "{}: VEK byte {position}", good.name);
    }
    let bare = SnpRoot::new(good.product, &good.ark, &[], &[]).unwrap();
    let bare = Endorsements { snp: vec![bare], ..Endorsements::default() };
    for position in 0..good.ask.len() {
        let spoilt = flipped(&good.ask, position);
        let table = table(&[(good.guid, &good.vek), (GUID_ASK, &spoilt)]);
        assert!(outcome(&good.report, &table, &bare, good.at).is_err(), "{}: ASK byte {position}", good.name);
        let loaded = SnpRoot::new(good.product, &good.ark, &[spoilt], &[]);
        assert!(loaded.is_err(), "{}: ASK byte {position} loads", good.name);
    }
    for position in 0..good.ark.len() {
        let loaded = SnpRoot::new(good.product, &flipped(&good.ark, position), &[], &[]);
        assert!(loaded.is_err(), "{}: ARK byte {position} loads", good.name);
    }
    let sent = table(&[(good.guid, &good.vek), (GUID_ASK, &good.ask)]);
    assert!(outcome(&good.report, &sent, &bare, good.at).is_ok(), "{}", good.name);
    good.vek.len() + 2 * good.ask.len() + good.ark.len()
}

/// One change to the parts of a good certificate before it is signed.
type Change = (&'static str, Box<dyn Fn(&mut Parts)>);

fn change(what: &'static str, change: impl Fn(&mut Parts) + 'static) -> Change {
    (what, Box::new(change))
}

/// The place of AMD's extension in a certificate.
fn place(parts: &Parts, tail: &[u32]) -> usize {
    let arcs = oid(&[&[1, 3, 6, 1, 4, 1, 3704, 1], tail].concat());
    let found = |extension: &Vec<u8>| extension.windows(arcs.len()).any(|window| window == arcs);
    parts.extensions.iter().position(found).unwrap_or_else(|| panic!("no extension {tail:?}"))
}

fn with_value(tail: &'static [u32], value: Vec<u8>) -> impl Fn(&mut Parts) {
    move |parts: &mut Parts| {
        let place = place(parts, tail);
        parts.extensions[place] = amd_extension(tail, &value);
    }
}

/// Wrong in any certificate whatever it is for.
fn wrong_anywhere() -> Vec<Change> {
    let constraints = || extension(&[2, 5, 29, 19], CRITICAL, &seq(&[&[1, 1, 0xff]]));
    vec![
        change("version 1", |parts| parts.version = vec![]),
        change("version 2", |parts| parts.version = tlv(0xa0, &int(1))),
        change("version 4", |parts| parts.version = tlv(0xa0, &int(3))),
        change("issuer of another product", |parts| parts.issuer = name("SEV-Genoa")),
        change("issuer without a name", |parts| parts.issuer = seq(&[])),
        change("two issuers", |parts| parts.issuer = [name("SEV-Milan"), name("SEV-Milan")].concat()),
        change("issuer with two names", |parts| parts.issuer = twice(&parts.issuer)),
        change("subject with two names", |parts| parts.subject = twice(&parts.subject)),
        change("begins tomorrow", |parts| parts.validity = seq(&[&utc(NOW + DAY), &utc(NOW + 9 * DAY)])),
        change("ended yesterday", |parts| parts.validity = seq(&[&utc(NOW - 9 * DAY), &utc(NOW - DAY)])),
        change("ends before it begins", |parts| parts.validity = seq(&[&utc(NOW + DAY), &utc(NOW - DAY)])),
        change("one date", |parts| parts.validity = seq(&[&utc(NOW - DAY)])),
        change("three dates", |parts| parts.validity = seq(&[&utc(NOW - DAY), &utc(NOW + DAY), &utc(NOW + DAY)])),
        change("a date that is none", |parts| parts.validity = seq(&[&tlv(0x17, b"261341000000Z"), &utc(NOW + DAY)])),
        change("an algorithm inside other than outside", |parts| parts.algorithm = pss(other(parts.outer))),
        change("no key", |parts| parts.spki = seq(&[])),
        change("an unknown critical extension", |parts| {
            parts.extensions.push(extension(&[1, 2, 3], CRITICAL, &[5, 0]))
        }),
        change("an unknown extension twice", |parts| {
            parts.extensions.extend([extension(&[1, 2, 3], &[], &[5, 0]), extension(&[1, 2, 3], &[], &[5, 0])]);
        }),
        change("an extension more that is no extension", |parts| parts.extensions.push(int(1))),
        change("basic constraints twice", move |parts| parts.extensions.extend([constraints(), constraints()])),
        change("an extended key usage for servers only", |parts| {
            let server = seq(&[&oid(&[1, 3, 6, 1, 5, 5, 7, 3, 1])]);
            parts.extensions.push(extension(&[2, 5, 29, 37], &[], &server));
        }),
        change("a unique identifier", |parts| parts.spki.extend(tlv(0x81, &[0, 1]))),
    ]
}

/// A Name of one short common name, with that name in it twice.
fn twice(one: &[u8]) -> Vec<u8> {
    seq(&[&one[2..], &one[2..]])
}

fn other(trailer: Trailer) -> Trailer {
    match trailer {
        Trailer::Explicit => Trailer::Omitted,
        Trailer::Omitted => Trailer::Explicit,
    }
}

/// The same extension, said to be critical. DER writes no FALSE, so that it stands there only now.
fn critical(extension: &[u8]) -> Vec<u8> {
    let long = usize::from(extension[1] & 0x80 != 0);
    let (oid, value) = extension[2 + long..].split_at(2 + usize::from(extension[3 + long]));
    seq(&[oid, CRITICAL, value])
}

/// Wrong in a Milan VCEK.
fn wrong_in_a_vek() -> Vec<Change> {
    let mut all = wrong_anywhere();
    const TAILS: [&[u32]; 7] = [&[1], &[2], &[3, 1], &[3, 2], &[3, 3], &[3, 8], &[4]];
    for tail in TAILS {
        all.push(change("an extension missing", move |parts| drop(parts.extensions.remove(place(parts, tail)))));
        all.push(change("an extension twice", move |parts| {
            let again = parts.extensions[place(parts, tail)].clone();
            parts.extensions.push(again);
        }));
        all.push(change("an extension empty", with_value(tail, vec![])));
        all.push(change("an extension critical", move |parts| {
            let place = place(parts, tail);
            parts.extensions[place] = critical(&parts.extensions[place]);
        }));
    }
    for (level, value) in [(1, 4_u8), (2, 0), (3, 24), (8, 219)] {
        let tail: &'static [u32] = Vec::leak(vec![3, level]);
        all.push(change("a patch level one higher", with_value(tail, int(value + 1))));
        all.push(change("a patch level of four bytes", with_value(tail, [&[2, 4, 0, 0, 0], &[value][..]].concat())));
        all.push(change("a patch level as OCTET STRING", with_value(tail, vec![4, 1, value])));
        all.push(change("a patch level with a byte after it", with_value(tail, [int(value), vec![0]].concat())));
    }
    all.extend([
        change("patch level 219 as a negative number", with_value(&[3, 8], vec![2, 1, 219])),
        change("a reserved patch level that is not zero", with_value(&[3, 5], int(1))),
        change("a reserved patch level twice", |parts| parts.extensions.push(amd_extension(&[3, 5], &int(0)))),
        change("a patch level that only Turin has", |parts| parts.extensions.push(amd_extension(&[3, 9], &int(1)))),
        change("an extension of AMD's that nobody knows", |parts| parts.extensions.push(amd_extension(&[6], &int(0)))),
        change("the structure version of another family", with_value(&[1], int(1))),
        change("another product", with_value(&[2], tlv(0x16, b"Genoa"))),
        change("a product that begins alike", with_value(&[2], tlv(0x16, b"MilanX"))),
        change("the product as UTF8String", with_value(&[2], tlv(0x0c, b"Milan-B0"))),
        change("another chip", with_value(&[4], vec![0x5d; 64])),
        change("no chip", with_value(&[4], vec![0; 64])),
        change("a chip of 63 bytes", with_value(&[4], vec![0x5c; 63])),
        change("a chip of 65 bytes", with_value(&[4], vec![0x5c; 65])),
        change("a chip as Turin's", with_value(&[4], vec![0x5c; 8])),
        change("a chip in a long OCTET STRING", with_value(&[4], [&[4, 0x81, 64][..], &[0x5c; 64]].concat())),
        change("a chip of a provider", |parts| {
            parts.extensions.push(amd_extension(&[5], &tlv(0x16, b"CN=cloud.example")));
        }),
        change("the subject of the other kind", |parts| parts.subject = name("SEV-VLEK")),
        change("the subject of an ASK", |parts| parts.subject = name("SEV-Milan")),
        change("the issuer of the other kind", |parts| parts.issuer = name("SEV-VLEK-Milan")),
        change("an issuer that is the root", |parts| parts.issuer = name("ARK-Milan")),
        change("an authority", |parts| {
            parts.extensions.push(extension(&[2, 5, 29, 19], CRITICAL, &seq(&[&[1, 1, 0xff]])));
        }),
        change("an RSA key", |parts| parts.spki = MILAN.ask.spki()),
        change("a key said to be of P-256", |parts| parts.spki = ec_key(&[1, 2, 840, 10_045, 3, 1, 7], &[4; 97])),
        change("a point beside the curve", |parts| parts.spki = ec_key(&[1, 3, 132, 0, 34], &[4; 97])),
        change("a compressed point", |parts| parts.spki = ec_key(&[1, 3, 132, 0, 34], &[2; 49])),
        change("a hybrid point", |parts| {
            let place = parts.spki.len() - 97;
            parts.spki[place] = 6;
        }),
    ]);
    all
}

fn ec_key(curve: &[u32], point: &[u8]) -> Vec<u8> {
    seq(&[&seq(&[&oid(&[1, 2, 840, 10_045, 2, 1]), &oid(curve)]), &bits(point)])
}

/// A report by a VEK whose certificate was changed, under the good Milan root.
fn under(amd: &Amd, change: impl FnOnce(&mut Parts), by: &Endorsements) -> Outcome {
    let vek = amd.issue_changed(&amd.vcek_fields(), change);
    let report = vek.report(&amd.body(&[0xda; 64], &[0x4d; 48]));
    outcome(&report, &table(&[(GUID_VCEK, &vek.der)]), by, NOW)
}

#[test]
fn a_truly_issued_vek_with_one_thing_wrong_is_refused() {
    let by = MILAN.endorsements(&[]);
    assert!(under(&MILAN, |_| {}, &by).is_ok());
    let all = wrong_in_a_vek();
    for (what, change) in &all {
        assert!(under(&MILAN, change, &by).is_err(), "{what}");
    }
    let turin = TURIN.endorsements(&[]);
    let on_turin = [
        change("the structure version of another family", with_value(&[1], int(0))),
        change("no fmcSPL", |parts| drop(parts.extensions.remove(place(parts, &[3, 9])))),
        change("another fmcSPL", with_value(&[3, 9], int(2))),
        change("a chip of 64 bytes", with_value(&[4], [&[0x5c; 8][..], &[0; 56]].concat())),
        change("half a chip", with_value(&[4], vec![0x5c; 4])),
    ];
    assert!(under(&TURIN, |_| {}, &turin).is_ok());
    for (what, change) in &on_turin {
        assert!(under(&TURIN, change, &turin).is_err(), "Turin: {what}");
    }
    say(&format!("SNP certificates: {} VEKs issued with one thing wrong, all refused", all.len() + on_turin.len()));
}

#[test]
fn an_ask_with_one_thing_wrong_neither_loads_nor_links() {
    let bare = Endorsements { snp: vec![bare_root()], ..Endorsements::default() };
    let good = Good::simulated(&MILAN);
    let mut all = wrong_anywhere();
    all.extend([
        change("the subject of another product", |parts| parts.subject = name("SEV-Genoa")),
        change("the subject of an ASVK", |parts| parts.subject = name("SEV-VLEK-Milan")),
        change("no basic constraints", |parts| drop(parts.extensions.remove(0))),
        change("no key usage", |parts| drop(parts.extensions.remove(1))),
        change("no authority", |parts| parts.extensions[0] = extension(&[2, 5, 29, 19], CRITICAL, &seq(&[]))),
        change("a key that signs no certificates", |parts| {
            parts.extensions[1] = extension(&[2, 5, 29, 15], CRITICAL, &tlv(3, &[1, 0x02]));
        }),
        change("another key", |parts| parts.spki = Rsa::generate().spki()),
        change("the root's key", |parts| parts.spki = MILAN.ark.spki()),
    ]);
    for (what, change) in &all {
        let mut parts = MILAN.ask_parts.clone();
        change(&mut parts);
        let ask = parts.signed(&MILAN.ark);
        let sent = table(&[(GUID_VCEK, &good.vek), (GUID_ASK, &ask)]);
        assert!(outcome(&good.report, &sent, &bare, NOW).is_err(), "sent along: {what}");
        if let Ok(root) = SnpRoot::new(Product::Milan, &MILAN.ark_der, &[ask], &[]) {
            let by = Endorsements { snp: vec![root], ..Endorsements::default() };
            assert!(outcome(&good.report, &good.table(), &by, NOW).is_err(), "imported: {what}");
        }
    }
    let by_another = MILAN.ask_parts.signed(&Rsa::generate());
    let sent = table(&[(GUID_VCEK, &good.vek), (GUID_ASK, &by_another)]);
    assert!(outcome(&good.report, &sent, &bare, NOW).is_err());
    say(&format!("SNP certificates: {} ASKs with one thing wrong, none links", all.len() + 1));
}

fn bare_root() -> SnpRoot {
    SnpRoot::new(Product::Milan, &MILAN.ark_der, &[], &[]).unwrap()
}

#[test]
fn an_ark_with_one_thing_wrong_is_no_root() {
    let mut all = wrong_anywhere();
    // A third date says nothing, and nobody but its maker can add one: the root is pinned byte for byte.
    all.retain(|(what, _)| *what != "three dates");
    all.extend([
        change("the subject of another product", |parts| parts.subject = name("ARK-Genoa")),
        change("another issuer", |parts| parts.issuer = name("ARK-Milan ")),
        change("no basic constraints", |parts| drop(parts.extensions.remove(0))),
        change("no key usage", |parts| drop(parts.extensions.remove(1))),
        change("another key", |parts| parts.spki = Rsa::generate().spki()),
    ]);
    let good = Good::simulated(&MILAN);
    for (what, change) in &all {
        let mut parts = MILAN.ark_parts.clone();
        change(&mut parts);
        if let Ok(root) =
            SnpRoot::new(Product::Milan, &parts.signed(&MILAN.ark), std::slice::from_ref(&MILAN.ask_der), &[])
        {
            let by = Endorsements { snp: vec![root], ..Endorsements::default() };
            let ended = outcome(&good.report, &good.table(), &by, NOW);
            assert!(ended.is_err(), "{what}");
        }
    }
    say(&format!("SNP certificates: {} ARKs with one thing wrong, none is a root", all.len()));
}

/// What may differ between two certificates of the same meaning, because AMD signs it: none of it is a host's choice.
#[test]
fn what_amd_may_write_in_two_ways_says_the_same() {
    let by = MILAN.endorsements(&[]);
    let (good, _) = under(&MILAN, |_| {}, &by).unwrap();
    let ways = [
        change("the HWID inside of an OCTET STRING", with_value(&[4], tlv(4, &[0x5c; 64]))),
        change("the product without its stepping", with_value(&[2], tlv(0x16, b"Milan"))),
        change("another serial number", |parts| parts.serial = int(77)),
        change("an unknown extension that is not critical", |parts| {
            parts.extensions.push(extension(&[1, 2, 3], &[], &[5, 0]));
        }),
        change("extensions in another order", |parts| parts.extensions.reverse()),
        change("no reserved patch levels", |parts| drop(parts.extensions.remove(place(parts, &[3, 5])))),
        change("dates as GeneralizedTime", |parts| {
            parts.validity = seq(&[&tlv(0x18, b"20250101000000Z"), &tlv(0x18, b"20300101000000Z")]);
        }),
    ];
    for (what, change) in &ways {
        let (claims, _) = under(&MILAN, change, &by).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
        assert_eq!(claims, good, "{what}");
        say(&format!("SNP certificates, accepted with the same claims: {what}"));
    }
    let fields = VekFields { trailer: Trailer::Explicit, ..MILAN.vcek_fields() };
    let vek = MILAN.issue(&fields);
    let report = vek.report(&MILAN.body(&[0xda; 64], &[0x4d; 48]));
    assert_eq!(outcome(&report, &table(&[(GUID_VCEK, &vek.der)]), &by, NOW).unwrap().0, good);
}
