//! The whole ladder for TDX on simulated hardware, and each thing that can be wrong on the way: what real quotes cannot
//! be made to say, because nobody but Intel's chips can sign it.

mod evidence_support;

use std::sync::LazyLock;

use evidence_support::intel::{ATTRIBUTES, Intel, NOW, Platform as Chip, Revoked, Td, XFAM};
use evidence_support::policy::{self, agent, reference};
use evidence_support::{refused, refused_as};
use inwit_authority::evidence::{
    AppraisalPolicy, Appraised, Bound, Claims, Demanded, PckFlag, Permission, TcbStatus, TdxPolicy, authenticate,
};
use inwit_measurements::reference::Measured;
use inwit_measurements::{Digest, sha384};
use inwit_protocol::binding::{EncodedBinding, ReportData};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use proptest::collection::vec;
use proptest::prelude::*;

fn binding() -> EncodedBinding {
    EncodedBinding::received(b"the binding of this connection".to_vec())
}

/// RTMR3 after the agent's event.
fn agent_rtmr() -> [u8; 48] {
    *sha384(&[&[0; 48], sha384(&agent().event()).as_bytes().as_slice()].concat()).as_bytes()
}

fn td() -> Td {
    Td {
        rtmrs: [[0xd1; 48], [0xd2; 48], [0xd3; 48], agent_rtmr()],
        report_data: *ReportData::of(&binding()).bytes(),
        ..Td::default()
    }
}

fn bound(intel: &Intel, td: &Td, agent_register: AgentRegister) -> Result<Bound, Refusal> {
    let (quote, endorsements, event_log) = (intel.quote(td), vec![], vec![]);
    let evidence = Evidence { platform: Platform::Tdx, quote, endorsements, event_log, agent_register };
    authenticate(&evidence, &intel.endorsements(), NOW)?.bound_to(&binding())
}

fn registered(tdx: TdxPolicy) -> AppraisalPolicy {
    let [rtmr0, rtmr1, rtmr2, _] = td().rtmrs.map(Digest::from_bytes);
    let measured = Measured::Tdx { mrtd: Digest::from_bytes(td().mrtd), rtmr0, rtmr1, rtmr2 };
    let values = vec![reference("payments 1.4", &agent(), measured)];
    AppraisalPolicy::new(values, policy::snp(), tdx, policy::vtpm(), policy::azure()).unwrap()
}

fn appraised(chip: &Chip, td: &Td, tdx: TdxPolicy) -> Result<Appraised, Refusal> {
    bound(&Intel::new(chip), td, AgentRegister::Rtmr(3))?.appraise(&registered(tdx), &agent())
}

#[test]
fn evidence_of_a_registered_td_with_its_agent_climbs_the_ladder() {
    let appraised = appraised(&Chip::default(), &td(), policy::tdx()).unwrap();
    assert_eq!((appraised.reference_values(), appraised.platform()), ("payments 1.4", Platform::Tdx));
    let Claims::Tdx(claims) = appraised.claims() else { panic!("{:?}", appraised.claims()) };
    assert_eq!((claims.mrtd, claims.rtmrs), (td().mrtd, td().rtmrs));
    assert_eq!((claims.tcb_status, claims.tcb_evaluation_number), (TcbStatus::UpToDate, 20));
    assert_eq!((claims.dynamic_platform, claims.smt_enabled), (PckFlag::No, PckFlag::No));
}

#[test]
fn a_truly_signed_quote_in_a_forbidden_mode_is_refused() {
    for (change, code) in [
        (Td { attributes: ATTRIBUTES | 1, ..td() }, RefusalCode::DebugEnabled),
        (Td { attributes: ATTRIBUTES | 1 << 5, ..td() }, RefusalCode::DebugEnabled), // profiling
        (Td { attributes: ATTRIBUTES | 1 << 29, ..td() }, RefusalCode::DebugEnabled), // migratable
        (Td { attributes: 0, ..td() }, RefusalCode::PolicyForbids),                  // SEPT_VE_DISABLE off
        (Td { attributes: ATTRIBUTES | 1 << 1, ..td() }, RefusalCode::PolicyForbids), // reserved bit
        (Td { attributes: ATTRIBUTES | 1 << 17, ..td() }, RefusalCode::PolicyForbids), // service TDs
        (Td { seam_attributes: 1, ..td() }, RefusalCode::ChainUntrusted),            // not the module that Intel names
        (Td { xfam: XFAM | 1 << 40, ..td() }, RefusalCode::Unsupported),
        (Td { xfam: XFAM & !1, ..td() }, RefusalCode::Unsupported),
        (Td { qe_tail: 1, ..td() }, RefusalCode::QuoteSignature),
    ] {
        let refusal = refused(appraised(&Chip::default(), &change, policy::tdx()));
        assert_eq!(refusal.code, code, "{refusal}");
    }
}

#[test]
fn the_extension_of_a_td_report_is_read_and_judged() {
    let extended = |extension| Td { later: Some(([0; 16], 0)), extension: Some(extension), ..td() };
    let good = appraised(&Chip::default(), &extended([0; 4]), policy::tdx()).unwrap();
    let Claims::Tdx(claims) = good.claims() else { panic!("{:?}", good.claims()) };
    assert_eq!(claims.extension.map(|told| (told.vm_id, told.td_id)), Some((0, [0x1d; 32])));
    for extension in [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] {
        let refusal = refused(appraised(&Chip::default(), &extended(extension), policy::tdx()));
        assert_eq!(refusal.code, RefusalCode::PolicyForbids, "{extension:?}: {refusal}");
    }
}

#[test]
fn what_runs_now_is_judged_beside_what_the_td_was_launched_on() {
    let level = |first, status| (5, 11, [[first; 1].as_slice(), &[0; 15]].concat().try_into().unwrap(), status);
    let chip = Chip { levels: vec![level(4, "UpToDate"), level(2, "OutOfDate")], ..Chip::default() };
    let svn = |first| [[first; 1].as_slice(), &[0; 15]].concat().try_into().unwrap();
    let launched = |launch, now| Td { tee_tcb_svn: svn(launch), later: Some((svn(now), 0)), ..td() };
    appraised(&chip, &launched(4, 4), policy::tdx()).unwrap();
    let refusal = refused(appraised(&chip, &launched(4, 2), policy::tdx()));
    assert_eq!(refusal.code, RefusalCode::TcbTooOld, "{refusal}");
    assert!(refusal.cause.contains("of what runs now"), "{refusal}");
}

#[test]
fn a_platform_that_the_collateral_does_not_carry_is_refused() {
    for (chip, code) in [
        (Chip { svn: 4, ..Chip::default() }, RefusalCode::TcbTooOld),
        (Chip { status: "Revoked", ..Chip::default() }, RefusalCode::TcbTooOld),
        (Chip { revoked: Revoked::Pck, ..Chip::default() }, RefusalCode::EndorsementRevoked),
        (Chip { pck_until: (2026, 5, 31), ..Chip::default() }, RefusalCode::EndorsementExpired),
        (Chip { pce_id: [0, 1], ..Chip::default() }, RefusalCode::ChainUntrusted),
    ] {
        let refusal = refused(appraised(&chip, &td(), policy::tdx()));
        assert_eq!(refusal.code, code, "{refusal}");
    }
}

#[test]
fn a_module_in_development_is_refused_though_the_collateral_names_it() {
    let chip = Chip { module_attributes: 1, ..Chip::default() };
    let outcome = appraised(&chip, &Td { seam_attributes: 1, ..td() }, policy::tdx());
    refused_as(outcome, RefusalCode::DebugEnabled);
}

#[test]
fn older_collateral_does_not_hide_what_newer_says_nor_take_its_place() {
    let old = Chip { evaluation: 18, ..Chip::default() };
    let new = Chip { evaluation: 19, status: "OutOfDate", ..Chip::default() };
    let gone = Chip { current: ["2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"], ..new.clone() };
    let intel = Intel::new(&old);
    let [old, new, gone] = [old, new, gone].map(|chip| intel.collateral(&chip));
    let evidence = evidence_support::evidence(Platform::Tdx, intel.quote(&td()), vec![], vec![]);
    let status = |documents: &[&[u8]]| match authenticate(&evidence, &intel.with(documents), NOW)?.claims() {
        Claims::Tdx(claims) => Ok(claims.tcb_status),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(&[&old]), Ok(TcbStatus::UpToDate));
    assert_eq!(status(&[&old, &new]), Ok(TcbStatus::OutOfDate));
    assert_eq!(status(&[&new, &old]), Ok(TcbStatus::OutOfDate));
    refused_as(status(&[&gone, &old]), RefusalCode::EndorsementExpired);
    refused_as(status(&[&gone]), RefusalCode::EndorsementExpired);
}

#[test]
fn a_quote_of_another_intel_is_refused() {
    let (ours, other) = (Intel::new(&Chip::default()), Intel::new(&Chip::default()));
    let (quote, agent_register) = (other.quote(&td()), AgentRegister::Rtmr(3));
    let evidence = Evidence { platform: Platform::Tdx, quote, endorsements: vec![], event_log: vec![], agent_register };
    refused_as(authenticate(&evidence, &ours.endorsements(), NOW), RefusalCode::ChainUntrusted);
    assert!(authenticate(&evidence, &other.endorsements(), NOW).is_ok());
    let with_more = Evidence { endorsements: vec![1], ..evidence };
    refused_as(authenticate(&with_more, &other.endorsements(), NOW), RefusalCode::Malformed);
}

#[test]
fn status_advisories_and_collateral_age_are_accepted_by_name_only() {
    let hardening = Chip { status: "SWHardeningNeeded", advisories: &["INTEL-SA-00615"], ..Chip::default() };
    let accepting = |status: &[TcbStatus], advisories: &[&str]| TdxPolicy {
        accepted_status: status.iter().copied().collect(),
        accepted_advisories: advisories.iter().map(|advisory| (*advisory).to_owned()).collect(),
        ..policy::tdx()
    };
    let outcome = |tdx| appraised(&hardening, &td(), tdx).map(|_| ());
    let hardened = [TcbStatus::SwHardeningNeeded];
    refused_as(outcome(policy::tdx()), RefusalCode::TcbTooOld);
    refused_as(outcome(accepting(&[], &["INTEL-SA-00615"])), RefusalCode::TcbTooOld);
    let refusal = refused(outcome(accepting(&hardened, &["INTEL-SA-00614"])));
    assert_eq!((refusal.code, refusal.cause.contains("INTEL-SA-00615")), (RefusalCode::TcbTooOld, true), "{refusal}");
    assert_eq!(outcome(accepting(&hardened, &["INTEL-SA-00615"])), Ok(()));
    let newer = TdxPolicy { minimum_tcb_evaluation_number: 21, ..policy::tdx() };
    refused_as(appraised(&Chip::default(), &td(), newer), RefusalCode::EndorsementExpired);
}

#[test]
fn each_platform_flag_has_its_own_permission() {
    let forbidden = || TdxPolicy {
        dynamic_platform: Permission::Forbidden,
        cached_keys: Permission::Forbidden,
        smt: Permission::Forbidden,
        ..policy::tdx()
    };
    assert!(appraised(&Chip::default(), &td(), forbidden()).is_ok());
    for flag in 0..3 {
        let mut flags = [false; 3];
        flags[flag] = true;
        let chip = Chip { flags, ..Chip::default() };
        assert!(appraised(&chip, &td(), policy::tdx()).is_ok(), "flag {flag}");
        refused_as(appraised(&chip, &td(), forbidden()), RefusalCode::PolicyForbids);
    }
}

#[test]
fn what_the_host_chose_at_launch_is_demanded_by_value() {
    let td = Td { owners: [1, 2, 3], ..td() };
    let one_of = |bytes: &[u8]| Demanded::OneOf(bytes.iter().map(|byte| [*byte; 48]).collect());
    let all = |config: u8, owner: u8, owner_config: u8, seam: u8| TdxPolicy {
        mr_config_id: one_of(&[0xee, config]),
        mr_owner: one_of(&[owner]),
        mr_owner_config: one_of(&[owner_config]),
        mr_seam: one_of(&[seam]),
        ..policy::tdx()
    };
    let outcome = |tdx| appraised(&Chip::default(), &td, tdx).map(|_| ());
    assert_eq!(outcome(policy::tdx()), Ok(()));
    assert_eq!(outcome(all(1, 2, 3, 0)), Ok(()));
    for (tdx, name) in [
        (all(9, 2, 3, 0), "MRCONFIGID"),
        (all(1, 9, 3, 0), "MROWNER "),
        (all(1, 2, 9, 0), "MROWNERCONFIG"),
        (all(1, 2, 3, 9), "MRSEAM"),
        (TdxPolicy { mr_owner: one_of(&[]), ..policy::tdx() }, "MROWNER "),
    ] {
        let refusal = refused(outcome(tdx));
        assert_eq!((refusal.code, refusal.cause.contains(name)), (RefusalCode::PolicyForbids, true), "{refusal}");
    }
}

#[test]
fn an_unregistered_td_is_refused_with_the_register_that_differs() {
    let mut other = td();
    other.rtmrs[2] = [0xee; 48];
    let refusal = refused(appraised(&Chip::default(), &other, policy::tdx()));
    assert_eq!(refusal.code, RefusalCode::MeasurementUnregistered);
    assert_eq!(refusal.cause, "rtmr2 (eeeeeeeeeeeeeeee) of tdx differs from reference values payments 1.4");
}

#[test]
fn the_agents_register_holds_its_event_alone_or_nothing() {
    let intel = Intel::new(&Chip::default());
    let outcome = |rtmr3: [u8; 48], register: AgentRegister| {
        let mut td = td();
        td.rtmrs[3] = rtmr3;
        bound(&intel, &td, register)?.appraise(&registered(policy::tdx()), &agent()).map(|_| ())
    };
    let poisoned = *sha384(&[agent_rtmr().as_slice(), sha384(b"poison").as_bytes()].concat()).as_bytes();
    assert_eq!(outcome(agent_rtmr(), AgentRegister::Rtmr(3)), Ok(()));
    assert_eq!(outcome([0; 48], AgentRegister::Absent), Ok(()));
    for (rtmr3, register) in [
        ([0; 48], AgentRegister::Rtmr(3)),
        (agent_rtmr(), AgentRegister::Absent), // who hides the register hides a poison event
        (poisoned, AgentRegister::Rtmr(3)),
        (agent_rtmr(), AgentRegister::Rtmr(2)),
        (agent_rtmr(), AgentRegister::Pcr(15)),
    ] {
        refused_as(outcome(rtmr3, register), RefusalCode::AgentNotMeasured);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any bytes anywhere in a quote, certificates included: a refusal or the same claims, never a panic.
    #[test]
    fn damaged_quotes_are_refused_or_say_the_same(position in 0usize..4_500, bytes in vec(any::<u8>(), 1..4), cut: bool) {
        static INTEL: LazyLock<(Intel, Vec<u8>)> = LazyLock::new(|| {
            let intel = Intel::new(&Chip::default());
            let quote = intel.quote(&td());
            (intel, quote)
        });
        let (intel, quote) = &*INTEL;
        let mut spoilt = quote.clone();
        spoilt.iter_mut().skip(position).zip(&bytes).for_each(|(to, from)| *to = *from);
        spoilt.truncate(if cut { position } else { spoilt.len() });
        let evidence = |quote: &[u8]| {
            let evidence = evidence_support::evidence(Platform::Tdx, quote.to_vec(), vec![], vec![]);
            authenticate(&evidence, &intel.endorsements(), NOW)
        };
        if let Ok(authentic) = evidence(&spoilt) {
            let good = evidence(quote).unwrap();
            prop_assert_eq!(authentic.claims(), good.claims());
        }
    }
}
