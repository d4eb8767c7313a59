//! Second encodings of one meaning: of the signature's numbers, of the report, of certificates outside of what is signed, and
//! of the host's certificate table. Only the table has some, because it is a place to look things up and nothing more.

use super::evidence_support::der::tlv;
use super::*;
use x509_parser::pem::Pem;

/// The order of P-384 (SEC 2 §2.5.1), big-endian.
const ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0,
    0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];
const R: usize = 0x2a0;
const S: usize = 0x2e8;

/// R or S of a report, 48 bytes little-endian.
fn scalar(report: &[u8], at: usize) -> [u8; 48] {
    report[at..at + 48].try_into().unwrap()
}

/// `n − value`, little-endian.
fn negated(value: [u8; 48]) -> [u8; 48] {
    let mut borrow = 0_i16;
    let mut out = [0; 48];
    for (position, byte) in out.iter_mut().enumerate() {
        let difference = i16::from(ORDER[47 - position]) - i16::from(value[position]) - borrow;
        borrow = i16::from(difference < 0);
        *byte = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    out
}

/// `value + n` in the 72 bytes that the field has, little-endian.
fn raised(value: [u8; 48]) -> [u8; 72] {
    let mut carry = 0_u16;
    let mut out = [0; 72];
    for (position, byte) in out.iter_mut().enumerate() {
        let order = if position < 48 { ORDER[47 - position] } else { 0 };
        let sum = u16::from(order) + u16::from(*value.get(position).unwrap_or(&0)) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    out
}

#[test]
fn the_numbers_of_a_signature_have_one_form() {
    let mut changes = 0;
    for good in real().iter().chain(&simulated()) {
        let (by, table) = (good.root(), good.table());
        let with = |at: usize, bytes: &[u8]| {
            let mut report = good.report.clone();
            report[at..at + bytes.len()].copy_from_slice(bytes);
            outcome(&report, &table, &by, good.at)
        };
        let mut order = ORDER;
        order.reverse();
        let mut above = order;
        above[0] += 1;
        for at in [R, S] {
            let value = scalar(&good.report, at);
            let mut reversed = value;
            reversed.reverse();
            let wide = raised(value);
            for (what, bytes) in [
                ("zero", &[0; 48][..]),
                ("one", &[&[1][..], &[0; 47]].concat()),
                ("the order", &order),
                ("the order and one", &above),
                ("the largest number", &[0xff; 48]),
                ("itself and the order", &wide),
                ("big-endian", &reversed),
                ("shifted by its padding", &[&[0; 24][..], &value].concat()),
            ] {
                assert!(with(at, bytes).is_err(), "{}: {at:#x} as {what}", good.name);
                changes += 1;
            }
        }
        let swapped = [&good.report[S..S + 72], &good.report[R..R + 72]].concat();
        assert!(with(R, &swapped).is_err(), "{}: R and S in the other order", good.name);
        // ECDSA itself has a second form: whoever sees (r, s) can write (r, n − s), and both verify everywhere. It says the
        // same. So a report's hash is no identity of it, and nothing here takes it for one.
        let twin = with(S, &negated(scalar(&good.report, S))).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(twin, good.claims(), "{}", good.name);
        changes += 2;
    }
    say(&format!("SNP signatures: {changes} forms, all refused but (r, n - s), which ECDSA cannot tell apart"));
}

#[test]
fn nothing_before_after_or_instead_of_a_report() {
    for good in real().iter().chain(&simulated()) {
        let (by, table, report) = (good.root(), good.table(), &good.report);
        let hex: String = report.iter().map(|byte| format!("{byte:02x}")).collect();
        for (what, spoilt) in [
            ("a byte after it", [&report[..], &[0]].concat()),
            ("a byte before it", [&[0], &report[..]].concat()),
            ("its end missing", report[..1_183].to_vec()),
            ("only what is signed", report[..0x2a0].to_vec()),
            ("itself twice", report.repeat(2)),
            ("a page", [&report[..], &[0; 4_096 - 1_184]].concat()),
            ("a response header", [&[0, 0, 0, 0, 0xa0, 4, 0, 0][..], &[0; 24], report].concat()),
            ("a CBOR byte string", [&[0x59, 0x04, 0xa0], &report[..]].concat()),
            ("hexadecimal", hex.into_bytes()),
            ("nothing", vec![]),
        ] {
            assert!(outcome(&spoilt, &table, &by, good.at).is_err(), "{}: {what}", good.name);
        }
    }
}

/// The content of the outermost SEQUENCE.
fn content(der: &[u8]) -> &[u8] {
    assert_eq!(der[..2], [0x30, 0x82]);
    &der[4..]
}

/// Second encodings of a certificate that leave what is signed alone.
fn encodings(der: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let content = content(der);
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let signed = 4 + usize::from(u16::from_be_bytes([content[2], content[3]]));
    let (tbs, rest) = content.split_at(signed);
    let algorithm = 2 + usize::from(rest[1]);
    let (algorithm, signature) = rest.split_at(algorithm);
    let bits = &signature[5..];
    let outer = |parts: &[&[u8]]| tlv(0x30, &parts.concat());
    let pem = {
        use std::fmt::Write;
        let hex = der.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        format!("-----BEGIN CERTIFICATE-----\n{hex}\n-----END CERTIFICATE-----\n").into_bytes()
    };
    vec![
        ("a byte after it", [der, &[0]].concat()),
        ("a byte before it", [&[0], der].concat()),
        ("a byte within it after the signature", outer(&[tbs, algorithm, signature, &[5, 0]])),
        ("its length in three bytes", [&[0x30, 0x83, 0], &length[..], content].concat()),
        ("its length in four bytes", [&[0x30, 0x84, 0, 0], &length[..], content].concat()),
        ("an indefinite length", [&[0x30, 0x80], content, &[0, 0]].concat()),
        ("a SET", [&[0x31, 0x82], &length[..], content].concat()),
        ("the algorithm without parameters", outer(&[tbs, &tlv(0x30, &algorithm[2..13]), signature])),
        ("the algorithm's length in two bytes", {
            let long = [&[0x30, 0x81, algorithm[1]], &algorithm[2..]].concat();
            outer(&[tbs, &long, signature])
        }),
        ("a signature of seven bits less", outer(&[tbs, algorithm, &tlv(3, &[&[7], bits].concat())])),
        ("a signature with a zero before it", outer(&[tbs, algorithm, &tlv(3, &[&[0, 0], bits].concat())])),
        ("a signature with a zero after it", outer(&[tbs, algorithm, &tlv(3, &[&[0], bits, &[0]].concat())])),
        ("a signature in two parts", {
            let (first, second) = bits.split_at(bits.len() / 2);
            let parts = [tlv(3, &[&[0], first].concat()), tlv(3, &[&[0], second].concat())].concat();
            outer(&[tbs, algorithm, &tlv(0x23, &parts)])
        }),
        ("an OCTET STRING as signature", outer(&[tbs, algorithm, &tlv(4, bits)])),
        ("PEM", pem),
        ("nothing", vec![]),
    ]
}

#[test]
fn a_certificate_has_one_form() {
    let mut forms = 0;
    for good in real().iter().chain(&simulated()) {
        let by = good.root();
        let bare = SnpRoot::new(good.product, &good.ark, &[], &[]).unwrap();
        let bare = Endorsements { snp: vec![bare], ..Endorsements::default() };
        for (what, vek) in encodings(&good.vek) {
            let table = table(&[(good.guid, &vek)]);
            assert!(outcome(&good.report, &table, &by, good.at).is_err(), "{}: VEK: {what}", good.name);
            forms += 1;
        }
        for (what, ask) in encodings(&good.ask) {
            let sent = table(&[(good.guid, &good.vek), (GUID_ASK, &ask)]);
            assert!(outcome(&good.report, &sent, &bare, good.at).is_err(), "{}: ASK: {what}", good.name);
            forms += 1;
        }
    }
    say(&format!("SNP certificates: {forms} second encodings, all refused"));
    // The helper above writes real PEM, so that it is refused for being PEM.
    let pem = encodings(&MILAN.ark_der).into_iter().find(|(what, _)| *what == "PEM").unwrap().1;
    assert!(Pem::iter_from_buffer(&pem).next().is_some());
}

/// GUID, offset, length, as the table has it.
fn entry(guid: u128, offset: usize, length: usize) -> Vec<u8> {
    let word = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    [&guid.to_be_bytes()[..], &word(offset), &word(length)].concat()
}

#[test]
fn a_table_is_a_place_to_look_and_says_nothing_itself() {
    const UNKNOWN: u128 = 0x1234;
    for good in simulated() {
        let (by, claims, vek, ask) = (good.root(), good.claims(), &good.vek[..], &good.ask[..]);
        let (guid, end) = (good.guid, [0; 24]);
        let two = |first: (u128, &[u8]), second: (u128, &[u8])| table(&[first, second]);
        let mixed = {
            let mut bytes = guid.to_be_bytes();
            bytes[0..4].reverse();
            bytes[4..6].reverse();
            bytes[6..8].reverse();
            u128::from_be_bytes(bytes)
        };
        for (what, table) in [
            ("as hosts write it", table(&[(guid, vek)])),
            ("with its ASK", two((guid, vek), (GUID_ASK, ask))),
            ("in another order", two((GUID_ASK, ask), (guid, vek))),
            ("with the GUID in mixed byte order", table(&[(mixed, vek)])),
            ("with an entry that nobody knows", two((UNKNOWN, b"?"), (guid, vek))),
            ("with a gap", [&entry(guid, 64, vek.len())[..], &end, &[0x55; 16], vek].concat()),
            ("with bytes after it", [&table(&[(guid, vek)])[..], &[0; 4_096]].concat()),
            ("with an unknown entry over the certificate", {
                [&entry(UNKNOWN, 72, vek.len())[..], &entry(guid, 72, vek.len()), &end, vek].concat()
            }),
            ("with the other kind's certificate beside it", two((guid, vek), (GUID_VLEK, b"no certificate"))),
            ("with an ASK that is none", two((guid, vek), (GUID_ASK, b"no certificate"))),
        ] {
            let accepted = outcome(&good.report, &table, &by, good.at);
            assert_eq!(accepted.as_ref(), Ok(&claims), "{}: {what}", good.name);
            if good.product == Product::Milan {
                say(&format!("SNP certificate table, accepted with the same claims: {what}"));
            }
        }
        for (what, table) in [
            ("a certificate twice", two((guid, vek), (guid, vek))),
            ("a certificate twice, in both byte orders", two((guid, vek), (mixed, vek))),
            ("a certificate that ends early", [&entry(guid, 48, vek.len() - 1)[..], &end, vek].concat()),
            ("a certificate that begins late", [&entry(guid, 49, vek.len() - 1)[..], &end, vek].concat()),
            ("a certificate and a byte", [&entry(guid, 48, vek.len() + 1)[..], &end, vek, &[0]].concat()),
            ("a certificate beyond its end", [&entry(guid, 48, vek.len() + 1)[..], &end, vek].concat()),
            ("an offset beyond any end", [&entry(guid, 0xffff_ffff, vek.len())[..], &end, vek].concat()),
            ("no end", [&entry(guid, 24, vek.len())[..], vek].concat()),
            ("half an end", [&entry(guid, 24, 0)[..], &[0; 12]].concat()),
            ("seventeen entries", [&entry(UNKNOWN, 0, 0).repeat(17)[..], &end].concat()),
            ("no certificate", end.to_vec()),
            ("the certificate alone", vek.to_vec()),
        ] {
            assert!(outcome(&good.report, &table, &by, good.at).is_err(), "{}: {what}", good.name);
        }
    }
}
