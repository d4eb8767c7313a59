//! The whole ladder for SNP on simulated hardware, and each thing that can be wrong on the way: what real reports cannot
//! be made to say, because nobody but AMD can sign it.

mod evidence_support;

use std::sync::LazyLock;

use evidence_support::amd::{ASK_SERIAL, Amd, DAY, NOW, Rsa, Trailer, Vek, VekFields};
use evidence_support::der::tlv;
use evidence_support::policy::{self, agent, reference};
use evidence_support::snp::{GUID_VCEK, GUID_VLEK, table};
use evidence_support::{evidence, refused, refused_as};
use inwit_authority::evidence::{
    AppraisalPolicy, Appraised, Authentic, Claims, Demanded, EndorsementError, Endorsements, Permission, Product,
    SnpPolicy, SnpRoot, SnpTcb, authenticate,
};
use inwit_measurements::Digest;
use inwit_measurements::reference::Measured;
use inwit_protocol::binding::{EncodedBinding, ReportData};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use proptest::collection::vec;
use proptest::prelude::*;

static MILAN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Milan));
static TURIN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Turin));
const LAUNCH: [u8; 48] = [0x4d; 48];

fn binding() -> EncodedBinding {
    EncodedBinding::received(b"the binding of this connection".to_vec())
}

fn body(amd: &Amd) -> Vec<u8> {
    amd.body(ReportData::of(&binding()).bytes(), &LAUNCH)
}

/// Evidence of a report with this body, with the certificate that signed it.
fn signed(vek: &Vek, body: &[u8]) -> Evidence {
    let guid = if body[0x48] >> 2 == 1 { GUID_VLEK } else { GUID_VCEK };
    evidence(Platform::Snp, vek.report(body), table(&[(guid, &vek.der)]), vec![])
}

fn authentic(amd: &Amd, fields: &VekFields, body: &[u8], by: &Endorsements) -> Result<Authentic, Refusal> {
    authenticate(&signed(&amd.issue(fields), body), by, NOW)
}

/// Authenticates what a good Milan chip says, after a change to the body.
fn changed(offset: usize, bytes: &[u8]) -> Result<Authentic, Refusal> {
    let mut body = body(&MILAN);
    body[offset..offset + bytes.len()].copy_from_slice(bytes);
    authentic(&MILAN, &MILAN.vcek_fields(), &body, &MILAN.endorsements(&[]))
}

fn registered(snp: SnpPolicy) -> AppraisalPolicy {
    let measured = Measured::Snp { launch_digest: Digest::from_bytes(LAUNCH) };
    let values = vec![reference("payments 1.4", &agent(), measured)];
    AppraisalPolicy::new(values, snp, policy::tdx(), policy::vtpm(), policy::azure()).unwrap()
}

fn appraised(offset: usize, bytes: &[u8], snp: SnpPolicy) -> Result<Appraised, Refusal> {
    changed(offset, bytes)?.bound_to(&binding())?.appraise(&registered(snp), &agent())
}

#[test]
fn evidence_of_a_registered_launch_climbs_the_ladder() {
    let appraised = appraised(0, &[], policy::snp()).unwrap();
    assert_eq!((appraised.reference_values(), appraised.platform()), ("payments 1.4", Platform::Snp));
    let Claims::Snp(claims) = appraised.claims() else { panic!("{:?}", appraised.claims()) };
    assert_eq!((claims.measurement, claims.product, claims.vmpl), (LAUNCH, Product::Milan, 0));
    assert_eq!(claims.reported_tcb, SnpTcb { fmc: None, boot_loader: 4, tee: 0, snp: 24, microcode: 219 });
    assert_eq!((claims.committed_firmware.major, claims.committed_firmware.minor), (1, 55));
}

#[test]
fn both_forms_of_the_signature_algorithm_and_of_the_chip_identity_are_read() {
    for amd in [&*MILAN, &*TURIN] {
        for trailer in [Trailer::Explicit, Trailer::Omitted] {
            let fields = VekFields { trailer, ..amd.vcek_fields() };
            assert!(authentic(amd, &fields, &body(amd), &amd.endorsements(&[])).is_ok(), "{} {trailer:?}", amd.product);
        }
        let wrapped = amd.vcek_fields().hwid.map(|hwid| tlv(4, &hwid));
        let fields = VekFields { hwid: wrapped, ..amd.vcek_fields() };
        assert!(authentic(amd, &fields, &body(amd), &amd.endorsements(&[])).is_ok(), "{} wrapped", amd.product);
    }
}

#[test]
fn a_vlek_needs_the_provider_to_be_named_by_policy() {
    let mut body = body(&MILAN);
    body[0x48] = 1 << 2;
    body[0x1a0..0x1e0].fill(0);
    let climb = |snp: SnpPolicy| {
        let authentic = authentic(&MILAN, &MILAN.vlek_fields(), &body, &MILAN.endorsements(&[]))?;
        authentic.bound_to(&binding())?.appraise(&registered(snp), &agent())
    };
    refused_as(climb(policy::snp()), RefusalCode::PolicyForbids);
    let named = SnpPolicy { providers: ["CN=cloud.example".to_owned()].into(), ..policy::snp() };
    assert!(climb(named).is_ok());
}

#[test]
fn a_truly_signed_report_of_another_form_is_refused() {
    for (offset, bytes, code) in [
        (0x000, &[6][..], RefusalCode::Unsupported),
        (0x034, &[2], RefusalCode::Unsupported),
        (0x008, &[0, 0, 0], RefusalCode::Malformed), // policy without bit 17
        (0x00b, &[0x80], RefusalCode::Malformed),
        (0x04c, &[1], RefusalCode::Malformed),
        (0x182, &[1], RefusalCode::Malformed), // reserved byte of REPORTED_TCB
        (0x1e2, &[1], RefusalCode::Malformed), // and of COMMITTED_TCB
        (0x29f, &[1], RefusalCode::Malformed),
        (0x048, &[2], RefusalCode::Unsupported),           // masked chip key
        (0x048, &[28], RefusalCode::Unsupported),          // signed by nobody
        (0x189, &[0x70], RefusalCode::Unsupported),        // a product not known here
        (0x189, &[0x11], RefusalCode::EndorsementMissing), // says Genoa, whose root is not configured
    ] {
        let refusal = refused(changed(offset, bytes));
        assert_eq!(refusal.code, code, "{offset:#x}: {refusal}");
    }
}

#[test]
fn a_certificate_that_does_not_fit_the_report_is_refused() {
    let good = MILAN.vcek_fields();
    let chip = VekFields { hwid: Some(vec![0x5d; 64]), ..good.clone() };
    let tcb = VekFields { tcb: [4, 0, 0, 0, 0, 0, 24, 218], ..good.clone() };
    for (fields, cause) in
        [(chip, "another chip's: import that of Milan chip 5c5c"), (tcb, "another TCB: import that of Milan chip 5c5c")]
    {
        let refusal = refused(authentic(&MILAN, &fields, &body(&MILAN), &MILAN.endorsements(&[])));
        assert_eq!(refusal.code, RefusalCode::EndorsementMissing, "{refusal}");
        assert!(refusal.cause.contains(cause), "{refusal}");
    }
    // A masked chip is nobody's chip: no certificate can stand for it.
    refused_as(changed(0x1a0, &[0; 64]), RefusalCode::Unsupported);
    for fields in [
        VekFields { hwid: None, ..good.clone() },
        VekFields { hwid: Some(vec![0; 64]), ..good.clone() },
        VekFields { hwid: Some(vec![0x5c; 8]), ..good.clone() },
        VekFields { provider: Some("CN=cloud.example"), ..good.clone() },
        VekFields { version: 1, ..good.clone() },
        VekFields { product_name: "Genoa".into(), ..good.clone() },
        VekFields { subject: "SEV-VLEK", ..good.clone() },
        VekFields { issuer: "SEV-Genoa".into(), ..good },
    ] {
        let outcome = authentic(&MILAN, &fields, &body(&MILAN), &MILAN.endorsements(&[]));
        assert!(outcome.is_err(), "{fields:?}");
    }
}

#[test]
fn a_root_of_the_same_name_is_another_root() {
    let other = Amd::new(Product::Milan);
    let outcome = authentic(&other, &other.vcek_fields(), &body(&other), &MILAN.endorsements(&[]));
    refused_as(outcome, RefusalCode::ChainUntrusted);
    let both = Endorsements { snp: vec![MILAN.root(&[]), other.root(&[])], ..Endorsements::default() };
    assert!(authentic(&other, &other.vcek_fields(), &body(&other), &both).is_ok());
}

#[test]
fn a_signature_by_another_chip_with_the_same_statements_is_refused() {
    let (vek, twin) = (MILAN.issue(&MILAN.vcek_fields()), MILAN.issue(&MILAN.vcek_fields()));
    let evidence = evidence(Platform::Snp, vek.report(&body(&MILAN)), table(&[(GUID_VCEK, &twin.der)]), vec![]);
    refused_as(authenticate(&evidence, &MILAN.endorsements(&[]), NOW), RefusalCode::QuoteSignature);
}

#[test]
fn certificates_count_only_in_their_time() {
    for window in [(NOW - 9 * DAY, NOW - 1), (NOW + 1, NOW + 9 * DAY)] {
        let fields = VekFields { window, ..MILAN.vcek_fields() };
        let outcome = authentic(&MILAN, &fields, &body(&MILAN), &MILAN.endorsements(&[]));
        refused_as(outcome, RefusalCode::EndorsementExpired);
    }
    let fields = VekFields { window: (NOW - 310 * DAY, NOW + 3_010 * DAY), ..MILAN.vcek_fields() };
    let evidence = signed(&MILAN.issue(&fields), &body(&MILAN));
    assert!(authenticate(&evidence, &MILAN.endorsements(&[]), NOW).is_ok());
    for outside_of_the_root in [NOW - 301 * DAY, NOW + 3_001 * DAY] {
        let outcome = authenticate(&evidence, &MILAN.endorsements(&[]), outside_of_the_root);
        refused_as(outcome, RefusalCode::EndorsementExpired);
    }
}

#[test]
fn revocation_is_found_on_any_list_and_freshness_needs_a_current_one() {
    let evidence = signed(&MILAN.issue(&MILAN.vcek_fields()), &body(&MILAN));
    let outcome = |lists: &[Vec<u8>]| authenticate(&evidence, &MILAN.endorsements(lists), NOW).map(|_| ());
    let current = MILAN.list(NOW - DAY, NOW + DAY, &[]);
    let others = MILAN.list(NOW - DAY, NOW + DAY, &[ASK_SERIAL + 7]);
    let stale = MILAN.list(NOW - 9 * DAY, NOW - DAY, &[]);
    let future = MILAN.list(NOW + DAY, NOW + 9 * DAY, &[]);
    let revoking = MILAN.list(NOW - DAY, NOW + DAY, &[ASK_SERIAL]);
    let once_revoked = MILAN.list(NOW - 9 * DAY, NOW - DAY, &[ASK_SERIAL]);
    assert_eq!(outcome(std::slice::from_ref(&current)), Ok(()));
    assert_eq!(outcome(&[others]), Ok(()));
    assert_eq!(outcome(&[stale.clone(), current.clone()]), Ok(()));
    refused_as(outcome(&[stale]), RefusalCode::EndorsementExpired);
    refused_as(outcome(&[future]), RefusalCode::EndorsementExpired);
    refused_as(outcome(&[revoking]), RefusalCode::EndorsementRevoked);
    refused_as(outcome(&[once_revoked, current]), RefusalCode::EndorsementRevoked);
    let revoking = MILAN.list(NOW - DAY, NOW + DAY, &[ASK_SERIAL]);
    let twice = Endorsements { snp: vec![MILAN.root(&[]), MILAN.root(&[revoking])], ..Endorsements::default() };
    refused_as(authenticate(&evidence, &twice, NOW), RefusalCode::EndorsementRevoked);
}

#[test]
fn a_list_by_anybody_else_does_not_load() {
    let load = |list: Vec<u8>| {
        SnpRoot::new(Product::Milan, &MILAN.ark_der, std::slice::from_ref(&MILAN.ask_der), &[list]).map(|_| ())
    };
    let forged = Rsa::generate().list("ARK-Milan", NOW - DAY, NOW + DAY, &[]);
    let renamed = MILAN.ark.list("ARK-Genoa", NOW - DAY, NOW + DAY, &[]);
    let by_the_ask = MILAN.ask.list("SEV-Milan", NOW - DAY, NOW + DAY, &[]);
    let mut trailing = MILAN.list(NOW - DAY, NOW + DAY, &[]);
    trailing.push(0);
    for list in [forged, renamed, by_the_ask, trailing] {
        assert!(matches!(load(list), Err(EndorsementError::Amd { file: "revocation list", .. })));
    }
    let other = Amd::new(Product::Milan);
    let foreign = SnpRoot::new(Product::Milan, &MILAN.ark_der, &[other.ask_der], &[]);
    assert!(matches!(foreign.map(|_| ()), Err(EndorsementError::Amd { file: "ASK or ASVK", .. })));
}

#[test]
fn a_report_for_another_binding_is_refused() {
    let other = EncodedBinding::received(b"another binding".to_vec());
    refused_as(changed(0, &[]).unwrap().bound_to(&other), RefusalCode::BindingMismatch);
}

#[test]
fn what_policy_forbids_is_refused_under_its_own_code() {
    for (offset, bytes, code) in [
        (0x00a, &[0x0a][..], RefusalCode::DebugEnabled),
        (0x00a, &[0x06], RefusalCode::DebugEnabled), // migration agent allowed
        (0x160, &[0; 32], RefusalCode::DebugEnabled), // migration agent bound
        (0x030, &[1], RefusalCode::PolicyForbids),
        (0x030, &[0xff; 4], RefusalCode::PolicyForbids), // asked for by the host
        (0x1ed, &[48], RefusalCode::TcbTooOld),          // committed firmware 1.48
        (0x1e9, &[48], RefusalCode::TcbTooOld),          // running firmware 1.48
        (0x1e0, &[0], RefusalCode::TcbTooOld),           // committed boot loader 0
        (0x1f6, &[3], RefusalCode::TcbTooOld),           // launched on SNP firmware 3
        (0x03f, &[218], RefusalCode::TcbTooOld),         // runs below what is committed
        (0x090, &[0], RefusalCode::MeasurementUnregistered),
    ] {
        let refusal = refused(appraised(offset, bytes, policy::snp()));
        assert_eq!(refusal.code, code, "{offset:#x}: {refusal}");
    }
}

#[test]
fn smt_mitigations_and_products_are_as_policy_says() {
    let no_smt = || SnpPolicy { smt: Permission::Forbidden, ..policy::snp() };
    assert!(appraised(0, &[], no_smt()).is_ok());
    refused_as(appraised(0x00a, &[0x03], no_smt()), RefusalCode::PolicyForbids);
    refused_as(appraised(0x040, &[0x25], no_smt()), RefusalCode::PolicyForbids);
    assert!(appraised(0x040, &[0x25], policy::snp()).is_ok());

    let demanding = || SnpPolicy { demanded_mitigations: 0b101, ..policy::snp() };
    refused_as(appraised(0, &[], demanding()), RefusalCode::TcbTooOld); // version 3 states none
    let version_5 = |launch: u8, current: u8| {
        let mut body = body(&MILAN);
        (body[0], body[0x1f8], body[0x200]) = (5, launch, current);
        let authentic = authentic(&MILAN, &MILAN.vcek_fields(), &body, &MILAN.endorsements(&[]))?;
        authentic.bound_to(&binding())?.appraise(&registered(demanding()), &agent())
    };
    assert!(version_5(0b111, 0b101).is_ok());
    refused_as(version_5(0b101, 0b100), RefusalCode::TcbTooOld);

    let no_milan = SnpPolicy { minimum_tcb: [].into(), ..policy::snp() };
    refused_as(appraised(0, &[], no_milan), RefusalCode::PolicyForbids);
}

#[test]
fn what_host_and_owner_stated_at_launch_is_as_policy_names_it() {
    let owner = || SnpPolicy { id_keys: Demanded::OneOf([[0x1d; 48]].into()), ..policy::snp() };
    let author = || SnpPolicy { author_keys: Demanded::OneOf([[0xaa; 48]].into()), ..policy::snp() };
    let host = || SnpPolicy { host_data: Demanded::OneOf([[0; 32], [0x40; 32]].into()), ..policy::snp() };
    assert!(appraised(0x0e0, &[0x1d; 48], owner()).is_ok());
    assert!(appraised(0x110, &[0xaa; 48], author()).is_ok());
    assert!(appraised(0x0c0, &[0x40; 32], host()).is_ok());
    assert!(appraised(0, &[], host()).is_ok());
    for (offset, bytes, policy, cause) in [
        (0x0e0, &[0x1e; 48][..], owner(), "key that signed the ID block"),
        (0, &[], owner(), "launched without"),
        (0x110, &[0xab; 48], author(), "key that signed the ID key"),
        (0, &[], author(), "launched without"),
        // No list admits zero: it is how a report says that nobody signed.
        (0, &[], SnpPolicy { id_keys: Demanded::OneOf([[0; 48]].into()), ..policy::snp() }, "launched without"),
        (0x0c0, &[0x41; 32], host(), "HOST_DATA"),
        (0, &[], SnpPolicy { host_data: Demanded::OneOf([].into()), ..policy::snp() }, "HOST_DATA"),
        (0x00a, &[0x03], SnpPolicy { demanded_policy_bits: 1 << 20, ..policy::snp() }, "0x100000"),
    ] {
        let refusal = refused(appraised(offset, bytes, policy));
        assert_eq!(refusal.code, RefusalCode::PolicyForbids, "{refusal}");
        assert!(refusal.cause.contains(cause), "{refusal}");
    }
    assert!(appraised(0x00a, &[0x13], SnpPolicy { demanded_policy_bits: 1 << 20, ..policy::snp() }).is_ok());
}

#[test]
fn an_older_image_of_the_same_owner_is_refused_by_its_guest_svn() {
    let climb = |svn: u8| {
        let mut body = body(&MILAN);
        body[0x004] = svn;
        body[0x0e0..0x110].fill(0x1d);
        let policy = SnpPolicy { id_keys: Demanded::OneOf([[0x1d; 48]].into()), minimum_guest_svn: 4, ..policy::snp() };
        let authentic = authentic(&MILAN, &MILAN.vcek_fields(), &body, &MILAN.endorsements(&[]))?;
        authentic.bound_to(&binding())?.appraise(&registered(policy), &agent())
    };
    assert!(climb(4).is_ok());
    refused_as(climb(3), RefusalCode::TcbTooOld);
}

#[test]
fn an_agent_outside_of_the_launch_is_refused() {
    let mut other = agent();
    other.executable[0] ^= 1;
    let bound = |evidence: &Evidence| authenticate(evidence, &MILAN.endorsements(&[]), NOW)?.bound_to(&binding());
    let evidence = signed(&MILAN.issue(&MILAN.vcek_fields()), &body(&MILAN));
    let policy = registered(policy::snp());
    refused_as(bound(&evidence).unwrap().appraise(&policy, &other), RefusalCode::AgentNotMeasured);
    let claiming = Evidence { agent_register: AgentRegister::Rtmr(3), ..evidence };
    refused_as(bound(&claiming).unwrap().appraise(&policy, &agent()), RefusalCode::AgentNotMeasured);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any bytes anywhere in the host's table: a refusal or the same claims, never a panic.
    #[test]
    fn damaged_tables_are_refused_or_say_the_same(position in 0usize..1_100, bytes in vec(any::<u8>(), 1..4), cut: bool) {
        static GOOD: LazyLock<Evidence> = LazyLock::new(|| signed(&MILAN.issue(&MILAN.vcek_fields()), &body(&MILAN)));
        let mut spoilt = GOOD.clone();
        let table = &mut spoilt.endorsements;
        table.iter_mut().skip(position).zip(&bytes).for_each(|(to, from)| *to = *from);
        table.truncate(if cut { position } else { table.len() });
        if let Ok(authentic) = authenticate(&spoilt, &MILAN.endorsements(&[]), NOW) {
            let good = authenticate(&GOOD, &MILAN.endorsements(&[]), NOW).unwrap();
            prop_assert_eq!(authentic.claims(), good.claims());
        }
    }
}
