//! CoRIM documents that are read, and those that are refused.

use proptest::prelude::*;

use super::super::super::sample::samples;
use super::super::{DIGESTS, SHA256, SHA384, write};
use super::*;
use crate::cbor::map;
use crate::digest::{sha256, sha384};

fn digests(algorithm: u64, value: &[u8]) -> Item<'static> {
    Item::Array(vec![Item::Array(vec![Item::Unsigned(algorithm), Item::bytes(value)])])
}

fn measurement(mkey: Item<'static>, mval: Vec<(u64, Item<'static>)>) -> Item<'static> {
    map([(0, mkey), (1, map(mval))])
}

fn launch() -> Item<'static> {
    measurement(Item::text("MEASUREMENT"), vec![(DIGESTS, digests(SHA384, sha384(b"launch").as_bytes()))])
}

fn class(vendor: &str, model: &str) -> Item<'static> {
    map([(0, map([(1, Item::text(vendor)), (2, Item::text(model))]))])
}

fn triple(environment: Item<'static>, measurements: Vec<Item<'static>>) -> Item<'static> {
    Item::Array(vec![environment, Item::Array(measurements)])
}

/// A manifest around triples, with more fields in each map if asked for.
struct Manifest {
    id: Item<'static>,
    corim: Vec<(u64, Item<'static>)>,
    comid: Vec<(u64, Item<'static>)>,
    triples: Vec<(u64, Item<'static>)>,
}

impl Manifest {
    fn of(reference: Vec<Item<'static>>) -> Self {
        let triples = vec![(0, Item::Array(reference))];
        Self { id: Item::text("foreign"), corim: vec![], comid: vec![], triples }
    }

    fn build(self) -> Vec<u8> {
        let identity = map([(0, Item::text("tag")), (1, Item::Unsigned(3))]);
        let comid = map([(1, identity), (4, map(self.triples))].into_iter().chain(self.comid));
        let tags = Item::Array(vec![Item::bytes(&comid.encode()).tagged(506)]);
        map([(0, self.id), (1, tags)].into_iter().chain(self.corim)).tagged(501).encode()
    }
}

fn snp() -> Manifest {
    Manifest::of(vec![triple(class("AMD", "SEV-SNP"), vec![launch()])])
}

fn uri(text: &str) -> Item<'static> {
    Item::text(text).tagged(32)
}

#[test]
fn manifests_of_the_published_profiles_are_read() {
    let expected = Measured::Snp { launch_digest: sha384(b"launch") };
    let plain = read(&snp().build()).unwrap();
    assert_eq!((plain.measured, plain.agent, plain.name.as_deref()), (expected.clone(), None, Some("foreign")));

    let mut launch_profile = snp();
    launch_profile.corim.push((3, uri(LAUNCH_MEASUREMENT)));
    launch_profile.triples.push((8, Item::Array(vec![])));
    assert_eq!(read(&launch_profile.build()).unwrap().measured, expected);

    let oid = Item::bytes(&[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 1]).tagged(111);
    let uuid = Item::bytes(&0x89a7_a1f0_e704_4faa_acbd_81c8_6df8_a961_u128.to_be_bytes()).tagged(37);
    for class in [oid, uuid] {
        let value = vec![(DIGESTS, digests(SHA384, sha384(b"launch").as_bytes()))];
        let environment = map([(0, map([(0, class)]))]);
        let mut amd = Manifest::of(vec![triple(environment, vec![measurement(Item::Unsigned(641), value)])]);
        assert!(read(&Manifest { triples: amd.triples.clone(), ..snp() }.build()).is_err(), "without its profile");
        amd.corim.push((3, uri("tag:amd.com,2024:snp-corim-profile")));
        assert_eq!(read(&amd.build()).unwrap().measured, expected);
    }

    let mut informed = snp();
    informed.id = Item::bytes(&[0xab; 16]).tagged(37);
    informed.corim.push((5, Item::Array(vec![])));
    informed.corim.push((4, map([(0, Item::Unsigned(0).tagged(1)), (1, Item::Unsigned(86_400).tagged(1))])));
    informed.comid.push((0, Item::text("en")));
    let informed = read(&informed.build()).unwrap();
    assert_eq!(informed.name.as_deref(), Some("abababababababababababababababab"));
    assert_eq!(informed.validity.to_string(), "from 1970-01-01T00:00:00Z until 1970-01-02T00:00:00Z");
}

#[test]
fn each_fault_is_named_with_its_field() {
    let of = |environment, measurements| Manifest::of(vec![triple(environment, measurements)]).build();
    let amd = || class("AMD", "SEV-SNP");
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = snp();
        change(&mut manifest);
        manifest.build()
    };
    let value = |mval| of(amd(), vec![measurement(Item::text("MEASUREMENT"), mval)]);
    let good = || digests(SHA384, sha384(b"launch").as_bytes());
    let pcrs = |index| {
        let registers = map([(index, digests(SHA256, sha256(b"pcr").as_bytes()))]);
        of(class("TCG", "TPM 2.0"), vec![measurement(Item::text("PCR"), vec![(REGISTERS, registers)])])
    };
    let two = |one: u64| Item::Array(vec![Item::Unsigned(one), Item::bytes(&[0; 48])]);
    let signed = Item::Array(vec![]).tagged(18).encode();
    for (bytes, field, problem) in [
        (signed, "the document", "signed"),
        (Item::Unsigned(0).tagged(502).encode(), "the document", "signed"),
        (Item::Unsigned(0).tagged(500).encode(), "the document", "501"),
        (map([]).encode(), "the document", "501"),
        (map([]).tagged(501).encode(), "corim-map", "id (0) is missing"),
        (map([(0, Item::text("a")), (1, Item::Array(vec![]))]).tagged(501).encode(), "tags", "exactly one"),
        (with(&|m| m.id = Item::Unsigned(7)), "id", "found 7"),
        (with(&|m| m.corim.push((2, Item::Array(vec![])))), "corim-map", "field 2 is not understood"),
        (with(&|m| m.corim.push((3, uri("tag:else")))), "profile", "tag:else"),
        (with(&|m| m.corim.push((3, Item::bytes(&[1]).tagged(111)))), "profile", "URI"),
        (with(&|m| m.corim.push((4, map([])))), "rim-validity", "not-after (1) is missing"),
        (with(&|m| m.corim.push((4, map([(1, Item::Unsigned(1))])))), "rim-validity", "tag 1"),
        (with(&|m| m.comid.push((3, Item::Array(vec![])))), "CoMID", "field 3"),
        (with(&|m| m.triples.push((1, Item::Array(vec![])))), "triples", "field 1"),
        (with(&|m| m.triples.push((8, Item::Array(vec![])))), "triples", "field 8"),
        (Manifest::of(vec![Item::Array(vec![])]).build(), "reference-triples[0]", "environment"),
        (Manifest::of(vec![]).build(), "reference-triples", "single platform"),
        (of(class("ACME", "Widget"), vec![]), "reference-triples[0].environment", "ACME"),
        (of(map([]), vec![]), "reference-triples[0].environment", "class (0) is missing"),
        (of(map([(0, map([(0, Item::Unsigned(1))]))]), vec![]), "class-id", "not known"),
        (of(map([(0, map([(1, Item::text("AMD"))]))]), vec![]), "environment.class", "model (2)"),
        (of(map([(0, map([])), (1, Item::Unsigned(1))]), vec![]), "environment", "field 1"),
        (of(amd(), vec![launch(), launch()]), "MEASUREMENT", "given twice"),
        (of(amd(), vec![measurement(Item::Unsigned(0), vec![])]), "mkey", "0 is not known"),
        (of(amd(), vec![measurement(Item::text("MRTD"), vec![])]), "MRTD", "no such measurement"),
        (of(amd(), vec![map([(1, map([]))])]), "reference-triples[0]", "mkey (0) is missing"),
        (value(vec![]), "MEASUREMENT", "digests (2) is missing"),
        (value(vec![(DIGESTS, good()), (1, Item::Unsigned(3))]), "MEASUREMENT", "field 1 is not understood"),
        (value(vec![(DIGESTS, Item::Array(vec![]))]), "MEASUREMENT", "found 0"),
        (value(vec![(DIGESTS, Item::Array(vec![two(7), two(7)]))]), "MEASUREMENT", "found 2"),
        (value(vec![(DIGESTS, digests(SHA256, &[0; 48]))]), "MEASUREMENT", "the algorithm is 1"),
        (value(vec![(DIGESTS, digests(SHA384, &[0; 32]))]), "MEASUREMENT", "48 bytes, not 32"),
        (pcrs(24), "PCR", "24 is not a PCR number"),
        (pcrs(256), "PCR", "256 is not a PCR number"),
    ] {
        let error = Stated::read(&bytes).unwrap_err().to_string();
        assert!(error.contains("CoRIM") && error.contains(field) && error.contains(problem), "{problem}: {error}");
    }
}

#[test]
fn half_of_a_platform_is_refused() {
    let value = || vec![(DIGESTS, digests(SHA384, sha384(b"td").as_bytes()))];
    let registers = |indices: std::ops::Range<u64>| {
        let registers = indices.map(|index| (index, digests(SHA384, sha384(b"r").as_bytes())));
        measurement(Item::text("RTMR"), vec![(REGISTERS, map(registers))])
    };
    let tdx = |more: Vec<Item<'static>>| {
        let all = [measurement(Item::text("MRTD"), value())].into_iter().chain(more).collect();
        Stated::read(&Manifest::of(vec![triple(class("Intel", "TDX"), all)]).build())
    };
    assert!(tdx(vec![registers(0..3)]).is_ok());
    for (error, problem) in [
        (tdx(vec![]), "MRTD alone"),
        (tdx(vec![registers(0..2)]), "RTMR: 2 is missing"),
        (tdx(vec![registers(0..4)]), "only 0, 1 and 2"),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let file = measurement(Item::text("executable"), vec![(DIGESTS, digests(SHA256, sha256(b"a").as_bytes()))]);
    let agent = triple(class("inwit", "inwit-guest"), vec![file]);
    let half = Manifest::of(vec![triple(class("AMD", "SEV-SNP"), vec![launch()]), agent]).build();
    assert!(Stated::read(&half).unwrap_err().to_string().contains("one is missing"));
}

#[test]
fn every_shortened_manifest_is_refused() {
    for values in samples() {
        let whole = write(&values.into()).unwrap();
        for length in 0..whole.len() {
            assert!(Stated::read(whole.get(..length).unwrap()).is_err(), "{length}");
        }
        assert!(Stated::read(&[whole, vec![0]].concat()).is_err(), "a byte more");
    }
}

proptest! {
    #[test]
    fn a_changed_manifest_never_panics(which in 0usize..5, changes in proptest::collection::vec((0usize..600, any::<u8>()), 1..4)) {
        let mut bytes = write(&samples()[which].clone().into()).unwrap();
        let length = bytes.len();
        for (position, byte) in changes {
            bytes[position % length] = byte;
        }
        let _ = Stated::read(&bytes);
    }
}
