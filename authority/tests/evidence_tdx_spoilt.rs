//! Real quotes with one thing changed: every field, every byte, every certificate and every document, in turn. Nothing that
//! was changed may be authentic, and no second way to write the same may be either, but for the few that are named here.

mod evidence_support;

use std::io::Write;

use evidence_support::loose;
use evidence_support::tdx::{self, Layout, Vector, certificates, chain, intel_root, with_chain, written};
use evidence_support::{evidence, refused, refused_as, vectors_or_say};
use inwit_authority::evidence::{Claims, Endorsements, TdxClaims, TdxPart, TdxRoot, authenticate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use serde_json::Value;

fn claims(quote: &[u8], by: &Endorsements, at: u64) -> Result<TdxClaims, Refusal> {
    match authenticate(&evidence(Platform::Tdx, quote.to_vec(), vec![], vec![]), by, at)?.claims() {
        Claims::Tdx(claims) => Ok(TdxClaims::clone(claims)),
        other => panic!("{other:?}"),
    }
}

/// Straight to the terminal: the test harness swallows what a passing test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// One bit of a byte, another one for each position.
fn flipped(bytes: &[u8], position: usize) -> Vec<u8> {
    let mut spoilt = bytes.to_vec();
    spoilt[position] ^= 1 << (position % 8);
    spoilt
}

/// Fields of header and TD 1.0 body, with their lengths in bytes; then what follows the signed part up to the chain.
const HEADER: [(&str, usize); 6] = [
    ("version", 2),
    ("attestation key type", 2),
    ("TEE type", 4),
    ("reserved", 4),
    ("QE vendor", 16),
    ("user data", 20),
];
const BODY: [(&str, usize); 15] = [
    ("TEE_TCB_SVN", 16),
    ("MRSEAM", 48),
    ("MRSIGNERSEAM", 48),
    ("SEAMATTRIBUTES", 8),
    ("TDATTRIBUTES", 8),
    ("XFAM", 8),
    ("MRTD", 48),
    ("MRCONFIGID", 48),
    ("MROWNER", 48),
    ("MROWNERCONFIG", 48),
    ("RTMR0", 48),
    ("RTMR1", 48),
    ("RTMR2", 48),
    ("RTMR3", 48),
    ("REPORTDATA", 64),
];
const LATER: [(&str, usize); 2] = [("TEE_TCB_SVN2", 16), ("MRSERVICETD", 48)];
const SIGNATURE: [(&str, usize); 26] = [
    ("signature data length", 4),
    ("r", 32),
    ("s", 32),
    ("attestation key x", 32),
    ("attestation key y", 32),
    ("certification type", 2),
    ("certification size", 4),
    ("QE CPUSVN", 16),
    ("QE MISCSELECT", 4),
    ("QE reserved 1", 28),
    ("QE ATTRIBUTES", 16),
    ("QE MRENCLAVE", 32),
    ("QE reserved 2", 32),
    ("QE MRSIGNER", 32),
    ("QE reserved 3", 96),
    ("QE ISVPRODID", 2),
    ("QE ISVSVN", 2),
    ("QE reserved 4", 60),
    ("QE key digest", 32),
    ("QE rest of report data", 32),
    ("QE report r", 32),
    ("QE report s", 32),
    ("authentication data length", 2),
    ("authentication data", 32),
    ("inner certification type", 2),
    ("inner certification size", 4),
];

fn fields(version: u8) -> Vec<(&'static str, usize)> {
    let body = [("body type", 2), ("body size", 4)];
    let (before, after) = if version == 5 { (&body[..], &LATER[..]) } else { (&[][..], &[][..]) };
    [&HEADER[..], before, &BODY, after, &SIGNATURE].concat()
}

#[test]
fn no_field_can_be_zero_or_ones() {
    let Some(vectors) = vectors_or_say(2, "TDX quotes with spoilt fields") else { return };
    let mut count = 0;
    for name in ["509f50f85772", "cf77a6e91e48"] {
        let vector = tdx::named(&vectors, name);
        let (by, mut start) = (vector.endorsements(), 0);
        for (field, length) in fields(vector.quote[0]) {
            for fill in [0, 0xff] {
                let mut spoilt = vector.quote.clone();
                spoilt[start..start + length].fill(fill);
                if spoilt != vector.quote {
                    let refusal = refused(claims(&spoilt, &by, vector.at));
                    let signed =
                        start >= 48 && start + length <= Layout::of(&vector.quote).signed && !field.starts_with("body");
                    assert!(!signed || refusal.code == RefusalCode::QuoteSignature, "{field}: {refusal}");
                    count += 1;
                }
            }
            start += length;
        }
        assert_eq!(start, Layout::of(&vector.quote).chain, "every byte before the chain belongs to a field");
    }
    say(&format!("{count} fields of two real TDX quotes set to zeros or ones: all refused"));
}

#[test]
fn no_byte_of_a_quote_can_change() {
    let Some(vectors) = vectors_or_say(2, "TDX quotes with flipped bits") else { return };
    let mut count = 0;
    for (name, step) in [("509f50f85772", 1), ("cf77a6e91e48", 7)] {
        let vector = tdx::named(&vectors, name);
        let by = vector.endorsements();
        assert!(claims(&vector.quote, &by, vector.at).is_ok(), "warm");
        let nul = vector.quote.len() - 1;
        for position in (0..vector.quote.len()).step_by(step) {
            let spoilt = flipped(&vector.quote, position);
            assert!(claims(&spoilt, &by, vector.at).is_err(), "{name}: byte {position} can change");
            count += 1;
        }
        assert_eq!(vector.quote[nul], 0);
        for length in (0..vector.quote.len()).step_by(97) {
            refused(claims(&vector.quote[..length], &by, vector.at));
            count += 1;
        }
    }
    say(&format!("{count} real TDX quotes with one bit flipped, or cut: all refused"));
}

#[test]
fn no_byte_of_a_certificate_in_the_chain_can_change() {
    let Some(vectors) = vectors_or_say(3, "TDX certificates with flipped bits") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let by = vector.endorsements();
    let ders = certificates(chain(&vector.quote));
    let same = with_chain(&vector.quote, &[&written(&ders)[..], b"\0"].concat());
    assert_eq!(same, vector.quote, "the chain is rebuilt as it was");
    let mut count = 0;
    for (which, der) in ders.iter().enumerate() {
        for position in 0..der.len() {
            let mut spoilt = ders.clone();
            spoilt[which] = flipped(der, position);
            let quote = with_chain(&vector.quote, &written(&spoilt));
            assert!(claims(&quote, &by, vector.at).is_err(), "certificate {which}: byte {position} can change");
            count += 1;
        }
    }
    for order in [[0, 2, 1], [1, 0, 2], [2, 1, 0], [0, 1, 1], [0, 0, 2], [0, 2, 2]] {
        let mixed = order.map(|which: usize| ders[which].clone());
        refused_as(claims(&with_chain(&vector.quote, &written(&mixed)), &by, vector.at), RefusalCode::ChainUntrusted);
        count += 1;
    }
    say(&format!("{count} PCK chains with one bit of a certificate flipped, or in another order: all refused"));
}

#[test]
fn the_chain_is_written_in_one_way() {
    let Some(vectors) = vectors_or_say(9, "TDX quotes with a chain written anew") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let by = vector.endorsements();
    let good = claims(&vector.quote, &by, vector.at).unwrap();
    let text = String::from_utf8(written(&certificates(chain(&vector.quote)))).unwrap();
    let outcome = |text: &str| claims(&with_chain(&vector.quote, text.as_bytes()), &by, vector.at);
    // Both occur in quotes of Intel's library.
    assert_eq!(outcome(&text), Ok(good.clone()));
    assert_eq!(outcome(&(text.clone() + "\0")), Ok(good));
    let joined = text.replacen('\n', "\u{1}", 1).replacen('\n', "", 1).replace('\u{1}', "\n");
    let between = "-----END CERTIFICATE-----\n";
    for (what, other) in [
        ("CRLF", text.replace('\n', "\r\n")),
        ("a longer line", joined),
        ("an empty line", text.replacen(between, "-----END CERTIFICATE-----\n\n", 1)),
        ("text between", text.replacen(between, "-----END CERTIFICATE-----\nhello\n", 1)),
        ("no last newline", text.trim_end().to_owned()),
        ("two zero bytes", text.clone() + "\0\0"),
        ("a space", text.replacen("\nMII", "\nMII ", 1)),
        ("a byte in the padding", text.clone() + "\0x"),
        ("base 64 with a bit too many", padded(&text)),
    ] {
        assert_ne!(other, text, "{what}");
        let refusal = refused(outcome(&other));
        assert_eq!(refusal.code, RefusalCode::Malformed, "{what}: {refusal}");
    }
}

/// The text with a bit set that no byte takes, at the end of a certificate in which there is one.
fn padded(text: &str) -> String {
    let end = text.find("=\n").expect("a certificate whose length is no multiple of three");
    let mut bytes = text.as_bytes().to_vec();
    let last = bytes[..end].iter().rposition(|byte| *byte != b'=').unwrap();
    bytes[last] += 1;
    String::from_utf8(bytes).unwrap()
}

/// The one thing that nobody can refuse: with (r, s), the pair (r, n − s) is a signature too, of the same key over the same
/// bytes. So a quote's bytes are no identity, and what counts is what it says.
#[test]
fn the_other_half_of_a_signature_is_the_same_statement() {
    let Some(vectors) = vectors_or_say(2, "TDX signatures in their other form") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let by = vector.endorsements();
    let layout = Layout::of(&vector.quote);
    for start in [layout.signed + 4 + 32, layout.outer + 4 + 384 + 32] {
        let mut other = vector.quote.clone();
        let negated = negated(other[start..start + 32].try_into().unwrap());
        other[start..start + 32].copy_from_slice(&negated);
        assert_eq!(claims(&other, &by, vector.at), claims(&vector.quote, &by, vector.at));
    }
}

/// n − s for the order n of P-256 (SEC 2, secp256r1), big-endian.
fn negated(s: [u8; 32]) -> [u8; 32] {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (mut out, mut borrow) = ([0; 32], 0i16);
    for at in (0..32).rev() {
        let difference = i16::from(ORDER[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(difference < 0);
        out[at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    out
}

/// The collateral of a vector in loose parts, with the certificates by themselves.
struct Loose {
    root: Vec<u8>,
    ca: Vec<u8>,
    signer: Vec<u8>,
    rest: loose::Loose,
}

impl Loose {
    fn of(vector: &Vector) -> Self {
        let rest = loose::loose(&vector.collateral);
        let (mut signing, mut issuing) = (certificates(&rest.signing_chain), certificates(&rest.pck_chain));
        let (ca, signer) = (issuing.swap_remove(0), signing.swap_remove(0));
        Self { root: intel_root(&vector.collateral), ca, signer, rest }
    }

    fn parts(&self) -> [TdxPart<'_>; 6] {
        [
            TdxPart::Certificate(&self.ca),
            TdxPart::Certificate(&self.signer),
            TdxPart::List(&self.rest.root_list),
            TdxPart::List(&self.rest.pck_list),
            TdxPart::TcbInfo(&self.rest.tcb_info),
            TdxPart::QeIdentity(&self.rest.qe_identity),
        ]
    }
}

#[test]
fn no_byte_of_collateral_can_change() {
    let Some(vectors) = vectors_or_say(7, "parts of TDX collateral with flipped bits") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let loose = Loose::of(&vector);
    let judged = |root: &[u8], parts: &[TdxPart<'_>]| {
        let root = TdxRoot::new(root, parts).ok()?;
        let by = Endorsements { tdx: vec![root], ..Endorsements::default() };
        claims(&vector.quote, &by, vector.at).ok()
    };
    let good = judged(&loose.root, &loose.parts()).unwrap();
    let mut count = 0;
    for which in 0..6 {
        let bytes = match loose.parts()[which] {
            TdxPart::Certificate(bytes)
            | TdxPart::List(bytes)
            | TdxPart::TcbInfo(bytes)
            | TdxPart::QeIdentity(bytes) => bytes,
            TdxPart::Collateral(_) => unreachable!(),
        };
        // The long list and the long document repeat themselves; their signatures, at the end, do not.
        let (step, end) = ([1, 1, 1, 5, 3, 1][which], bytes.len() - 160);
        for position in (0..end).step_by(step).chain(end..bytes.len()) {
            let spoilt = flipped(bytes, position);
            let mut parts = loose.parts();
            parts[which] = match parts[which] {
                TdxPart::Certificate(_) => TdxPart::Certificate(&spoilt),
                TdxPart::List(_) => TdxPart::List(&spoilt),
                TdxPart::TcbInfo(_) => TdxPart::TcbInfo(&spoilt),
                _ => TdxPart::QeIdentity(&spoilt),
            };
            // A document needs its signer alone, and nothing else is looked at before it is loaded.
            let root = TdxRoot::new(&loose.root, &[parts[1], parts[which]]);
            let root = if which == 3 { TdxRoot::new(&loose.root, &[parts[0], parts[which]]) } else { root };
            count += 1;
            // A list in a name that nobody here has is kept for the chain that may have it, and is then of no use.
            let Some(found) = root.ok().and_then(|_| judged(&loose.root, &parts)) else { continue };
            panic!("part {which}: byte {position} can change: {}", found == good);
        }
    }
    for position in 0..loose.root.len() {
        assert!(judged(&flipped(&loose.root, position), &loose.parts()).is_none(), "root: byte {position} can change");
        count += 1;
    }
    say(&format!("{count} parts of TDX collateral with one bit flipped: all refused"));
}

#[test]
fn collateral_in_one_document_is_no_weaker() {
    let Some(vectors) = vectors_or_say(1, "TDX collateral documents with flipped bits") else { return };
    let vector = tdx::named(&vectors, "509f50f85772");
    let root = intel_root(&vector.collateral);
    let good = claims(&vector.quote, &vector.endorsements(), vector.at).unwrap();
    let meaning = |json: &[u8]| -> Option<Vec<String>> {
        let json: Value = serde_json::from_slice(json).ok()?;
        // What is written around the signed bytes: certificates with any text around them.
        let plain = |name: &str, value: &str| match name {
            name if name.ends_with("_chain") => format!("{:?}", certificates(value.as_bytes())),
            _ => value.to_owned(),
        };
        Some(json.as_object()?.iter().map(|(name, value)| plain(name, value.as_str().unwrap_or_default())).collect())
    };
    let (mut count, mut same) = (0, 0);
    for position in (0..vector.collateral.len()).step_by(29) {
        let spoilt = flipped(&vector.collateral, position);
        count += 1;
        let Ok(root) = TdxRoot::new(&root, &[TdxPart::Collateral(&spoilt)]) else { continue };
        let by = Endorsements { tdx: vec![root], ..Endorsements::default() };
        if let Ok(found) = claims(&vector.quote, &by, vector.at) {
            assert_eq!(found, good, "byte {position}");
            assert!(meaning(&spoilt) == meaning(&vector.collateral), "byte {position}");
            same += 1;
        }
    }
    say(&format!(
        "{count} collateral documents with one bit flipped: all refused but {same} that are written otherwise"
    ));
}
