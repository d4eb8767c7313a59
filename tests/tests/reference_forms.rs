//! Reference Values as CoRIM beside the independent `corim` crate: it reads ours, and we read what it writes.

use std::collections::BTreeMap;

use corim::builder::{ComidBuilder, CorimBuilder};
use corim::types::common::ClassIdChoice;
use corim::types::common::{MeasuredElement, TagIdChoice};
use corim::types::corim::{CorimId, ProfileChoice};
use corim::types::environment::{ClassMap, EnvironmentMap};
use corim::types::measurement::{Digest, IntegrityRegisterId, MeasurementMap, MeasurementValuesMap};
use corim::types::triples::ReferenceTriple;
use inwit_measurements::reference::{AgentReference, Form, Measured, ReferenceValues, Stated, Validity};
use inwit_measurements::{sha256, sha384};

const SHA256: i64 = 1;
const SHA384: i64 = 7;

fn agent() -> AgentReference {
    AgentReference { executable: sha256(b"agent"), configuration: sha256(b"configuration") }
}

fn platforms() -> [Measured; 5] {
    let pcrs = || BTreeMap::from([(4, sha256(b"kernel")), (11, sha256(b"uki"))]);
    let digest = |text: &str| sha384(text.as_bytes());
    [
        Measured::Snp { launch_digest: digest("launch") },
        Measured::Tdx { mrtd: digest("td"), rtmr0: digest("0"), rtmr1: digest("1"), rtmr2: digest("2") },
        Measured::Vtpm { pcrs: pcrs() },
        Measured::AzureSnp { launch_digest: digest("paravisor"), pcrs: pcrs() },
        Measured::AzureTdx { mrtd: digest("paravisor"), pcrs: pcrs() },
    ]
}

/// What a manifest states, as the independent reader finds it: vendor, model, measurement, register, algorithm, value.
type Found = (String, String, String, Option<u64>, i64, Vec<u8>);

fn independently(bytes: &[u8], now: i64) -> (String, Vec<Found>) {
    let (corim, comids) = corim::validate::decode_and_validate_at(bytes, now).unwrap();
    assert_eq!((comids.len(), corim.profile), (1, None));
    let mut found = Vec::new();
    for triple in comids[0].triples.reference_triples.as_ref().unwrap() {
        let class = triple.environment().class.as_ref().unwrap();
        let (vendor, model) = (class.vendor.clone().unwrap(), class.model.clone().unwrap());
        for measurement in triple.measurements() {
            let Some(MeasuredElement::Text(mkey)) = &measurement.mkey else { panic!("{measurement:?}") };
            let mut put = |register, digest: &Digest| {
                let algorithm = digest.alg().as_int().unwrap();
                found.push((vendor.clone(), model.clone(), mkey.clone(), register, algorithm, digest.value().to_vec()));
            };
            for digest in measurement.mval.digests.iter().flatten() {
                put(None, digest);
            }
            for (register, digests) in measurement.mval.integrity_registers.iter().flat_map(|all| &all.0) {
                let IntegrityRegisterId::Uint(register) = register else { panic!("{register:?}") };
                digests.iter().for_each(|digest| put(Some(*register), digest));
            }
        }
    }
    (corim.id.to_string(), found)
}

#[test]
fn an_independent_reader_finds_what_was_written() {
    let amd = |text: &str| found(["AMD", "SEV-SNP", "MEASUREMENT"], None, SHA384, sha384(text.as_bytes()).as_bytes());
    let mrtd = |text: &str| found(["Intel", "TDX", "MRTD"], None, SHA384, sha384(text.as_bytes()).as_bytes());
    let rtmr = |index: u64| {
        let value = sha384(index.to_string().as_bytes());
        found(["Intel", "TDX", "RTMR"], Some(index), SHA384, value.as_bytes())
    };
    let pcrs = [(4, sha256(b"kernel")), (11, sha256(b"uki"))]
        .map(|(index, value)| found(["TCG", "TPM 2.0", "PCR"], Some(index), SHA256, value.as_bytes()));
    let expected = [
        vec![amd("launch")],
        vec![mrtd("td"), rtmr(0), rtmr(1), rtmr(2)],
        pcrs.to_vec(),
        [vec![amd("paravisor")], pcrs.to_vec()].concat(),
        [vec![mrtd("paravisor")], pcrs.to_vec()].concat(),
    ];
    for (measured, mut expected) in platforms().into_iter().zip(expected) {
        let values = ReferenceValues { name: "payments 1.4".into(), agent: agent(), measured, made_from: None };
        let bytes = Stated::from(values).write(Form::Corim).unwrap();
        let (name, found_there) = independently(&bytes, 0);
        let file = |mkey, text: &[u8]| found(["inwit", "inwit-guest", mkey], None, SHA256, sha256(text).as_bytes());
        expected.extend([file("executable", b"agent"), file("configuration", b"configuration")]);
        assert_eq!((name.as_str(), found_there), ("payments 1.4", expected));
    }
}

fn found([vendor, model, mkey]: [&str; 3], register: Option<u64>, algorithm: i64, value: &[u8]) -> Found {
    (vendor.into(), model.into(), mkey.into(), register, algorithm, value.to_vec())
}

#[test]
fn an_independent_reader_keeps_to_the_end_of_validity() {
    let [measured, ..] = platforms();
    let values = ReferenceValues { name: "limited".into(), agent: agent(), measured, made_from: None };
    let end = "2027-01-31T12:00:00Z".parse().unwrap();
    let validity = Validity { not_before: None, not_after: Some(end) };
    let bytes = Stated { validity, ..values.into() }.write(Form::Corim).unwrap();
    let seconds = i64::try_from(end.seconds()).unwrap();
    assert!(corim::validate::decode_and_validate_at(&bytes, seconds).is_ok());
    assert!(corim::validate::decode_and_validate_at(&bytes, seconds + 1).is_err());
}

fn measurement(mkey: MeasuredElement, algorithm: i64, value: &[u8]) -> MeasurementMap {
    let mut mval = MeasurementValuesMap::default();
    mval.digests = Some(vec![Digest::new(algorithm, value.to_vec())]);
    MeasurementMap { mkey: Some(mkey), mval, authorized_by: None }
}

fn builder() -> ComidBuilder {
    ComidBuilder::new(TagIdChoice::Text("of another maker".into())).set_tag_version(2).set_language("en")
}

/// Whole Reference Values of another maker's writer, agent included.
#[test]
fn foreign_manifests_are_read() {
    let text = |mkey: &str| MeasuredElement::Text(mkey.into());
    let launch = sha384(b"launch");
    let guest = vec![measurement(text("MEASUREMENT"), SHA384, launch.as_bytes())];
    let files = vec![
        measurement(text("configuration"), SHA256, agent().configuration.as_bytes()),
        measurement(text("executable"), SHA256, agent().executable.as_bytes()),
    ];
    let comid = builder()
        .add_reference_triple(ReferenceTriple::new(EnvironmentMap::for_class("inwit", "inwit-guest"), files))
        .add_reference_triple(ReferenceTriple::new(EnvironmentMap::for_class("AMD", "SEV-SNP"), guest))
        .build()
        .unwrap();
    let corim = CorimBuilder::new(CorimId::Text("theirs".into())).add_comid_tag(comid).unwrap();
    let values = ReferenceValues::read(&corim.build_bytes().unwrap()).unwrap();
    assert_eq!((values.name.as_str(), values.agent), ("theirs", agent()));
    assert_eq!(values.measured, Measured::Snp { launch_digest: launch });

    // In the profile of AMD: by class and numbers.
    let class = |class_id| {
        let class = ClassMap { class_id: Some(class_id), ..ClassMap::default() };
        EnvironmentMap { class: Some(class), instance: None, group: None }
    };
    let oid = vec![0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 2];
    let value = vec![measurement(MeasuredElement::Uint(641), SHA384, launch.as_bytes())];
    let comid =
        builder().add_reference_triple(ReferenceTriple::new(class(ClassIdChoice::Oid(oid)), value)).build().unwrap();
    let profile = ProfileChoice::Uri("tag:amd.com,2024:snp-corim-profile".into());
    let corim = CorimBuilder::new(CorimId::Uuid([7; 16])).set_profile(profile).add_comid_tag(comid).unwrap();
    let stated = Stated::read(&corim.build_bytes().unwrap()).unwrap();
    assert_eq!((stated.measured, stated.agent), (Measured::Snp { launch_digest: launch }, None));
}

/// What a foreign manifest demands beside digests is not dropped in silence.
#[test]
fn what_would_be_lost_of_a_foreign_manifest_is_refused() {
    let mut more = measurement(MeasuredElement::Text("MEASUREMENT".into()), SHA384, sha384(b"launch").as_bytes());
    more.mval.svn = Some(corim::types::measurement::SvnChoice::MinValue(3));
    let comid = builder()
        .add_reference_triple(ReferenceTriple::new(EnvironmentMap::for_class("AMD", "SEV-SNP"), vec![more]))
        .build()
        .unwrap();
    let bytes = CorimBuilder::new(CorimId::Text("theirs".into())).add_comid_tag(comid).unwrap().build_bytes().unwrap();
    let error = Stated::read(&bytes).unwrap_err().to_string();
    assert!(error.contains("MEASUREMENT: field 1 is not understood"), "{error}");
}
