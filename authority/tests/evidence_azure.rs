//! The whole ladder for Azure VMs under simulated roots: paravisor, its key, TPM, binding, policy and agent; and each
//! thing that can be wrong on the way, truly signed where hardware or paravisor would have signed it.

mod evidence_support;

use std::sync::LazyLock;

use evidence_support::amd::{Amd, NOW};
use evidence_support::azure::{Paravisor, evidence, seal, td_report};
use evidence_support::intel::{ATTRIBUTES, Intel, Platform as Chip, Td, XFAM};
use evidence_support::policy::{self, agent, reference};
use evidence_support::snp::{GUID_VCEK, table};
use evidence_support::tpm::{SEPARATOR, Tpm};
use evidence_support::{refused, refused_as};
use inwit_authority::evidence::{
    AppraisalPolicy, Appraised, Authentic, AzurePolicy, Claims, Console, Endorsements, PolicyError, Product,
    Requirement, SnpPolicy, authenticate,
};
use inwit_measurements::Digest;
use inwit_measurements::reference::Measured;
use inwit_protocol::azure::{AzureQuote, TpmAttestation};
use inwit_protocol::binding::{EncodedBinding, qualifying_data};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use serde_json::json;

static AMD: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Genoa));
static INTEL: LazyLock<Intel> = LazyLock::new(|| Intel::new(&Chip::default()));
const LAUNCH: [u8; 48] = [0x4d; 48];
const PCRS: [u8; 4] = [0, 4, 7, 9];

fn binding() -> EncodedBinding {
    EncodedBinding::received(b"the binding of this connection".to_vec())
}

/// An Azure VM on SNP: paravisor and TPM after a boot.
struct Machine {
    paravisor: Paravisor,
    tpm: Tpm,
}

impl Machine {
    fn booted() -> Self {
        Self { paravisor: Paravisor::new(), tpm: Tpm::booted(&agent()) }
    }

    fn quoted(&self) -> TpmAttestation {
        self.paravisor.quote(&self.tpm, &qualifying_data(&binding()))
    }

    /// Evidence with an SNP report over these runtime claims, after a change to the report's body.
    fn snp_over(&self, claims: &[u8], change: impl FnOnce(&mut Vec<u8>), tpm: Option<TpmAttestation>) -> Evidence {
        let vek = AMD.issue(&AMD.vcek_fields());
        let mut body = AMD.body(&self.paravisor.report_data(claims), &LAUNCH);
        change(&mut body);
        let hcl_report = self.paravisor.index(&vek.report(&body), claims);
        let quote = AzureQuote { hcl_report, tpm, td_quote: None };
        evidence(Platform::AzureSnp, &quote, table(&[(GUID_VCEK, &vek.der)]), self.tpm.log())
    }

    fn snp(&self) -> Evidence {
        self.snp_over(&self.paravisor.claims(), |_| (), Some(self.quoted()))
    }

    fn td(&self) -> Td {
        let report_data = self.paravisor.report_data(&self.paravisor.claims());
        let (attributes, xfam) = (ATTRIBUTES, XFAM);
        Td { attributes, xfam, mrtd: LAUNCH, rtmrs: [[0; 48]; 4], report_data, ..Td::default() }
    }

    /// Evidence with a TDREPORT, and the quote of a TD.
    fn tdx_with(&self, report: &[u8], quoted: &Td) -> Evidence {
        let hcl_report = self.paravisor.index(report, &self.paravisor.claims());
        let quote = AzureQuote { hcl_report, tpm: Some(self.quoted()), td_quote: Some(INTEL.quote(quoted)) };
        evidence(Platform::AzureTdx, &quote, vec![], self.tpm.log())
    }

    fn tdx(&self) -> Evidence {
        self.tdx_with(&td_report(&self.td()), &self.td())
    }

    fn pcrs(&self) -> std::collections::BTreeMap<u8, Digest<32>> {
        PCRS.map(|pcr| (pcr, Digest::from_bytes(self.tpm.pcrs[usize::from(pcr)]))).into()
    }

    /// Policy that has this machine registered on both TEEs.
    fn registered(&self, snp: SnpPolicy, azure: AzurePolicy) -> AppraisalPolicy {
        let values = vec![
            reference("on snp", &agent(), Measured::AzureSnp { launch_digest: LAUNCH.into(), pcrs: self.pcrs() }),
            reference("on tdx", &agent(), Measured::AzureTdx { mrtd: LAUNCH.into(), pcrs: self.pcrs() }),
        ];
        AppraisalPolicy::new(values, snp, policy::tdx(), policy::vtpm(), azure).unwrap()
    }
}

fn endorsements() -> Endorsements {
    Endorsements { tdx: INTEL.endorsements().tdx, ..AMD.endorsements(&[]) }
}

fn authentic(evidence: &Evidence) -> Result<Authentic, Refusal> {
    authenticate(evidence, &endorsements(), NOW)
}

fn appraised(evidence: &Evidence, policy: &AppraisalPolicy) -> Result<Appraised, Refusal> {
    authentic(evidence)?.bound_to(&binding())?.appraise(policy, &agent())
}

#[test]
fn evidence_of_a_registered_image_on_each_tee_climbs_the_ladder() {
    let machine = Machine::booted();
    let policy = machine.registered(policy::snp(), policy::azure());
    for (evidence, platform, values) in
        [(machine.snp(), Platform::AzureSnp, "on snp"), (machine.tdx(), Platform::AzureTdx, "on tdx")]
    {
        let appraised = appraised(&evidence, &policy).unwrap_or_else(|refusal| panic!("{platform}: {refusal}"));
        assert_eq!((appraised.platform(), appraised.reference_values()), (platform, values));
        let Claims::Azure(claims) = appraised.claims() else { panic!() };
        assert_eq!(claims.tpm.as_ref().map(|tpm| tpm.events.len()), Some(12));
        assert_eq!(claims.runtime.user_data, Some([0; 64]));
        // A boot log may be left out: the registers are what is compared.
        let without_log = Evidence { event_log: vec![], ..evidence.clone() };
        assert!(appraised_ok(&without_log, &policy));
        let mut longer = Tpm::booted(&agent());
        longer.measure(3, SEPARATOR, &[0; 4]);
        refused_as(authentic(&Evidence { event_log: longer.log(), ..evidence }), RefusalCode::EventLogMismatch);
    }
}

fn appraised_ok(evidence: &Evidence, policy: &AppraisalPolicy) -> bool {
    appraised(evidence, policy).is_ok()
}

#[test]
fn the_runtime_claims_are_those_that_the_report_was_made_over_by_each_hash() {
    for hash in 1..=3 {
        let mut machine = Machine::booted();
        machine.paravisor.hash = hash;
        let claims = machine.paravisor.claims();
        let over = |claims: &[u8], change: fn(&mut Vec<u8>)| {
            authentic(&machine.snp_over(claims, change, Some(machine.quoted())))
        };
        assert!(over(&claims, |_| ()).is_ok(), "hash type {hash}");
        // Signed, but not the hash: the first byte of REPORT_DATA, and the last one, which is zero or the hash's own.
        refused_as(over(&claims, |body| body[0x50] ^= 1), RefusalCode::QuoteSignature);
        refused_as(over(&claims, |body| body[0x8f] ^= 1), RefusalCode::QuoteSignature);
    }
}

#[test]
fn another_writing_of_the_same_claims_is_refused() {
    let machine = Machine::booted();
    let claims = String::from_utf8(machine.paravisor.claims()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&claims).unwrap();
    let others = [
        format!("{claims} "),
        format!(" {claims}"),
        claims.replacen("\":", "\": ", 1),
        claims.replacen("HCLAkPub", "HCL\\u0041kPub", 1),
        claims.replacen("AQAB", "AQAB=", 1),
        serde_json::to_string_pretty(&value).unwrap(),
        claims.replacen("{\"e\":\"AQAB\",", "{", 1).replacen("\"kty\":\"RSA\"", "\"kty\":\"RSA\",\"e\":\"AQAB\"", 1),
        claims.replacen("{\"keys\"", "{\"more\":1,\"keys\"", 1),
    ];
    let vek = AMD.issue(&AMD.vcek_fields());
    let report = vek.report(&AMD.body(&machine.paravisor.report_data(claims.as_bytes()), &LAUNCH));
    let with = |claims: &str| {
        let hcl_report = machine.paravisor.index(&report, claims.as_bytes());
        let quote = AzureQuote { hcl_report, tpm: Some(machine.quoted()), td_quote: None };
        authentic(&evidence(Platform::AzureSnp, &quote, table(&[(GUID_VCEK, &vek.der)]), vec![]))
    };
    assert!(with(&claims).is_ok());
    for other in others {
        assert_ne!(other, claims);
        refused_as(with(&other), RefusalCode::QuoteSignature);
    }
}

#[test]
fn claims_that_are_signed_but_ambiguous_are_refused() {
    let machine = Machine::booted();
    let claims = String::from_utf8(machine.paravisor.claims()).unwrap();
    for (spoilt, code) in [
        (claims.replacen("\"keys\":[", "\"keys\":[],\"keys\":[", 1), RefusalCode::Malformed),
        (claims.replacen("HCLAkPub", "HCLEkPub", 1), RefusalCode::Malformed),
        (claims.replacen("\"AQAB\"", "\"Aw\"", 1), RefusalCode::Unsupported),
        (claims.replacen("\"AQAB\"", "\"AQAB=\"", 1), RefusalCode::Malformed),
        ("{}".to_owned(), RefusalCode::Malformed),
        ("\u{1}".to_owned(), RefusalCode::Malformed),
    ] {
        assert_ne!(spoilt, claims);
        let evidence = machine.snp_over(spoilt.as_bytes(), |_| (), Some(machine.quoted()));
        let refusal = refused(authentic(&evidence));
        assert_eq!(refusal.code, code, "{spoilt}: {refusal}");
    }
}

#[test]
fn a_quote_counts_under_the_key_of_its_own_paravisor() {
    let machine = Machine::booted();
    let other = Machine { paravisor: Paravisor::another(), ..Machine::booted() };
    let foreign = Some(other.quoted());
    refused_as(authentic(&machine.snp_over(&machine.paravisor.claims(), |_| (), foreign)), RefusalCode::QuoteSignature);
    let unlike = machine.paravisor.quote(&machine.tpm, b"another binding");
    let evidence = machine.snp_over(&machine.paravisor.claims(), |_| (), Some(unlike));
    refused_as(authentic(&evidence).and_then(|authentic| authentic.bound_to(&binding())), RefusalCode::BindingMismatch);
    let mut some = Machine::booted();
    some.tpm.selection = vec![0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0x7f];
    refused_as(authentic(&some.snp()), RefusalCode::Unsupported);
}

#[test]
fn nothing_is_accepted_without_a_tpm_quote() {
    let machine = Machine::booted();
    let evidence = machine.snp_over(&machine.paravisor.claims(), |_| (), None);
    refused_as(authentic(&evidence), RefusalCode::Malformed);
    let alone = authentic(&Evidence { event_log: vec![], ..evidence }).unwrap();
    let policy = machine.registered(policy::snp(), policy::azure());
    let refusal = refused(alone.judge(&policy));
    assert_eq!((refusal.code, refusal.cause.contains("TPM quote")), (RefusalCode::EvidenceMissing, true), "{refusal}");
}

#[test]
fn a_mode_configuration_or_level_that_policy_forbids_is_refused() {
    let machine = Machine::booted();
    // The policy's level is that of agents without a paravisor.
    let policy = machine.registered(SnpPolicy { vmpl: 2, ..policy::snp() }, policy::azure());
    let changed = |change: fn(&mut Vec<u8>)| {
        appraised(&machine.snp_over(&machine.paravisor.claims(), change, Some(machine.quoted())), &policy)
    };
    assert!(changed(|_| ()).is_ok());
    refused_as(changed(|body| body[0x30] = 2), RefusalCode::PolicyForbids);
    refused_as(changed(|body| body[0x0a] |= 1 << 3), RefusalCode::DebugEnabled);
    for (member, value) in [
        ("console-enabled", json!(true)),
        ("interactive-console-enabled", json!(true)),
        ("secure-boot", json!(false)),
        ("tpm-enabled", json!(false)),
    ] {
        let mut machine = Machine::booted();
        machine.paravisor.configuration[member] = value;
        for evidence in [machine.snp(), machine.tdx()] {
            let policy = machine.registered(policy::snp(), policy::azure());
            refused_as(appraised(&evidence, &policy), RefusalCode::PolicyForbids);
        }
    }
    let mut fresh = Machine::booted();
    fresh.paravisor.configuration["tpm-persisted"] = json!(false);
    let kept = AzurePolicy { tpm_persisted: Requirement::Demanded, ..policy::azure() };
    assert!(appraised(&fresh.snp(), &fresh.registered(policy::snp(), policy::azure())).is_ok());
    refused_as(appraised(&fresh.snp(), &fresh.registered(policy::snp(), kept)), RefusalCode::PolicyForbids);
    let debugged = Td { attributes: ATTRIBUTES | 1, ..machine.td() };
    let evidence = machine.tdx_with(&td_report(&debugged), &debugged);
    refused_as(appraised(&evidence, &machine.registered(policy::snp(), policy::azure())), RefusalCode::DebugEnabled);
}

#[test]
fn an_agent_that_is_not_in_its_register_is_refused() {
    let machine = Machine::booted();
    let policy = machine.registered(policy::snp(), policy::azure());
    for evidence in [machine.snp(), machine.tdx()] {
        for register in [AgentRegister::Absent, AgentRegister::Pcr(14), AgentRegister::Rtmr(3)] {
            let evidence = Evidence { agent_register: register, ..evidence.clone() };
            refused_as(appraised(&evidence, &policy), RefusalCode::AgentNotMeasured);
        }
    }
    let mut poisoned = Machine::booted();
    poisoned.tpm.extend(15, b"poison");
    let policy = poisoned.registered(policy::snp(), policy::azure());
    refused_as(appraised(&poisoned.snp(), &policy), RefusalCode::AgentNotMeasured);
}

#[test]
fn a_td_report_is_the_one_that_its_quote_was_made_from() {
    let machine = Machine::booted();
    let (report, td) = (td_report(&machine.td()), machine.td());
    // Offsets in the TDREPORT: what a quote states too is compared with it, though the report's own hashes are right.
    for (offset, field) in [
        (128, "REPORTDATA"),
        (264, "TEE_TCB_SVN"),
        (280, "MRSEAM"),
        (512, "TDATTRIBUTES"),
        (520, "XFAM"),
        (528, "MRTD"),
        (576, "MRCONFIGID"),
        (624, "MROWNER"),
        (672, "MROWNERCONFIG"),
        (720, "an RTMR"),
        (911, "an RTMR"),
        (912, "SERVTD_HASH"),
    ] {
        let mut spoilt = report.clone();
        spoilt[offset] ^= 1;
        seal(&mut spoilt);
        let refusal = refused(authentic(&machine.tdx_with(&spoilt, &td)));
        assert_eq!(refusal.code, RefusalCode::QuoteSignature, "{refusal}");
        assert!(refusal.cause.starts_with(field), "{refusal}");
    }
    let other = Td { mrtd: [0x4e; 48], ..machine.td() };
    refused_as(authentic(&machine.tdx_with(&report, &other)), RefusalCode::QuoteSignature);
    // What both agree on and the paravisor's claims are not in.
    let elsewhere = Td { report_data: [7; 64], ..machine.td() };
    let refusal = refused(authentic(&machine.tdx_with(&td_report(&elsewhere), &elsewhere)));
    assert_eq!((refusal.code, refusal.cause.contains("runtime claims")), (RefusalCode::QuoteSignature, true));
}

#[test]
fn every_byte_of_a_td_report_is_held_to_its_quote_or_to_its_form() {
    let machine = Machine::booted();
    let (report, td) = (td_report(&machine.td()), machine.td());
    let good = machine.tdx_with(&report, &td);
    let claims = authentic(&good).unwrap().claims().clone();
    let parsed = AzureQuote::parse(&good.quote).unwrap();
    let mut passed = Vec::new();
    for position in 0..1_024 {
        let mut quote = parsed.clone();
        quote.hcl_report[32 + position] ^= 0x10;
        if let Ok(authentic) = authentic(&Evidence { quote: quote.encode(), ..good.clone() }) {
            assert_eq!(*authentic.claims(), claims, "byte {position}");
            passed.push(position);
        }
    }
    // CPUSVN and MAC: no quote states them, and nothing is concluded from them.
    assert_eq!(passed, (16..32).chain(224..256).collect::<Vec<_>>());
}

#[test]
fn a_policy_that_leaves_out_what_booted_does_not_load() {
    let machine = Machine::booted();
    let load = |demanded: &[u8], named: &[u8]| {
        let pcrs = named.iter().map(|pcr| (*pcr, Digest::from_bytes([0; 32]))).collect();
        let measured = Measured::AzureTdx { mrtd: LAUNCH.into(), pcrs };
        let azure = AzurePolicy { demanded_pcrs: demanded.iter().copied().collect(), ..policy::azure() };
        let values = vec![reference("short", &agent(), measured)];
        AppraisalPolicy::new(values, policy::snp(), policy::tdx(), policy::vtpm(), azure).map(|_| ())
    };
    assert_eq!(load(&PCRS, &PCRS), Ok(()));
    assert_eq!(load(&[0, 4, 7], &PCRS), Err(PolicyError::Undemanded(9)));
    assert_eq!(load(&PCRS, &[0, 4, 7]), Err(PolicyError::Unnamed { name: "short".into(), pcr: 9 }));
    // A console that the host only reads may be let through by name.
    let mut output = machine;
    output.paravisor.configuration["console-enabled"] = json!(true);
    output.paravisor.configuration["interactive-console-enabled"] = json!(false);
    let azure = AzurePolicy { console: Console::OutputOnly, ..policy::azure() };
    assert!(appraised(&output.snp(), &output.registered(policy::snp(), azure)).is_ok());
}
