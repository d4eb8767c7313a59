//! The whole ladder for a plain TPM: quote, binding, policy and agent; and each thing that can be wrong on the way.

mod evidence_support;

use evidence_support::policy::{self, agent, measured_pcrs, reference};
use evidence_support::tpm::{
    AK_ATTRIBUTES, EVENT_TAG, RSAPSS, RSASSA, SEPARATOR, Tpm, evidence_of, log_header, rsa_public,
};
use evidence_support::{azure, read, refused, refused_as, vectors_or_say};
use inwit_authority::evidence::{
    AppraisalPolicy, Appraised, AttestationKeyTrust, Bound, Claims, Endorsements, PolicyError, VtpmPolicy, authenticate,
};
use inwit_protocol::binding::{EncodedBinding, qualifying_data};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform, TpmQuote};
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::{Refusal, RefusalCode};

fn binding() -> EncodedBinding {
    EncodedBinding::received(b"the binding of this connection".to_vec())
}

fn trusting(tpm: &Tpm) -> Endorsements {
    Endorsements { vtpm: vec![[9; 32], tpm.pin()], ..Endorsements::default() }
}

fn authentic(evidence: &Evidence, tpm: &Tpm) -> Result<Bound, Refusal> {
    authenticate(evidence, &trusting(tpm), 0)?.bound_to(&binding())
}

fn image(tpm: &Tpm) -> AppraisalPolicy {
    policy::of(vec![reference("payments 1.4", &agent(), measured_pcrs(&tpm.pcrs, &[0, 4, 7, 9]))])
}

fn appraised(tpm: &Tpm, policy: &AppraisalPolicy) -> Result<Appraised, Refusal> {
    authentic(&tpm.evidence(&binding()), tpm)?.appraise(policy, &agent())
}

#[test]
fn evidence_of_a_registered_image_with_its_agent_climbs_the_ladder() {
    let tpm = Tpm::booted(&agent());
    let appraised = appraised(&tpm, &image(&tpm)).unwrap();
    assert_eq!((appraised.reference_values(), appraised.platform()), ("payments 1.4", Platform::Vtpm));
    let Claims::Vtpm(claims) = appraised.claims() else { panic!("{:?}", appraised.claims()) };
    assert_eq!(claims.pcrs, tpm.pcrs);
    assert_eq!((claims.reset_count, claims.restart_count, claims.clock), (3, 1, 1_000));
    assert_eq!(claims.attestation_key, tpm.pin());
    assert_eq!(claims.events.len(), 12);
    assert_eq!((claims.events[2].pcr, claims.events[2].data.as_slice()), (4, &b"kernel"[..]));
}

#[test]
fn only_a_configured_key_counts() {
    let tpm = Tpm::booted(&agent());
    let evidence = tpm.evidence(&binding());
    let other = trusting(&Tpm::booted(&agent()));
    refused_as(authenticate(&evidence, &other, 0), RefusalCode::ChainUntrusted);
    refused_as(authenticate(&evidence, &Endorsements::default(), 0), RefusalCode::EndorsementMissing);
}

#[test]
fn a_key_is_trusted_by_its_digest_or_by_its_name_which_covers_its_attributes() {
    for tpm in [Tpm::booted(&agent()), Tpm::booted_with_rsa(&agent(), RSASSA), Tpm::booted_with_rsa(&agent(), RSAPSS)] {
        let evidence = tpm.evidence(&binding());
        let trusted = |evidence: &Evidence, pins: &[[u8; 32]]| {
            let by = Endorsements { vtpm: pins.to_vec(), ..Endorsements::default() };
            let authentic = authenticate(evidence, &by, 0)?;
            let Claims::Vtpm(claims) = authentic.claims() else { panic!() };
            assert_eq!((claims.attestation_key, authentic.data().len()), (tpm.pin(), 32));
            Ok::<_, Refusal>(claims.attestation_key_trust)
        };
        let (pin, name) = (tpm.pin(), tpm.name());
        assert_eq!(trusted(&evidence, &[pin]), Ok(AttestationKeyTrust::ConfiguredKey));
        assert_eq!(trusted(&evidence, &[name]), Ok(AttestationKeyTrust::ConfiguredName));
        assert_eq!(trusted(&evidence, &[pin, name]), Ok(AttestationKeyTrust::ConfiguredName));
        // The same key with noDA as well: another object by its Name, the same one by its key.
        let mut quote = TpmQuote::parse(&evidence.quote).unwrap();
        quote.attestation_key[6] ^= 0x04;
        let other = evidence_of(&quote, tpm.log());
        assert_eq!(trusted(&other, &[pin]), Ok(AttestationKeyTrust::ConfiguredKey));
        refused_as(trusted(&other, &[name]), RefusalCode::ChainUntrusted);
        assert!(appraised(&tpm, &image(&tpm)).is_ok());
    }
}

#[test]
fn every_changed_byte_of_an_rsa_quote_is_refused() {
    let tpm = Tpm::booted_with_rsa(&agent(), RSAPSS);
    let good = tpm.quote_over(&qualifying_data(&binding()));
    for position in 0..good.signature.len() {
        let mut spoilt = good.clone();
        spoilt.signature[position] ^= 1 << (position % 8);
        assert!(authentic(&evidence_of(&spoilt, tpm.log()), &tpm).is_err(), "byte {position}");
        spoilt.signature.truncate(position);
        assert!(authentic(&evidence_of(&spoilt, tpm.log()), &tpm).is_err(), "cut at {position}");
    }
    // As RSASSA, which the key does not sign by.
    let mut other = good.clone();
    other.signature[1] = 0x14;
    refused_as(authentic(&evidence_of(&other, tpm.log()), &tpm), RefusalCode::Unsupported);
    for position in (0..4).chain(8..good.attestation_key.len()) {
        let mut spoilt = good.clone();
        spoilt.attestation_key[position] ^= 0xff;
        assert!(authentic(&evidence_of(&spoilt, tpm.log()), &tpm).is_err(), "key byte {position}");
    }
}

/// Two real TPMs whose keys are RSA. Their public areas were not kept: with the attributes of any attestation key put
/// around the key it is pinned by itself.
#[test]
fn quotes_of_real_tpms_with_rsa_keys_are_verified() {
    let Some(vectors) = vectors_or_say(2, "real TPM quotes with RSA keys") else { return };
    // 33 bytes before the modulus in a SubjectPublicKeyInfo of 2,048 bits, five after it.
    let key = |spki: &[u8]| rsa_public(RSASSA, AK_ATTRIBUTES, &spki[33..spki.len() - 5]);
    let judged = |quote: &TpmQuote, spki: &[u8], log: Vec<u8>| {
        let by = Endorsements { vtpm: vec![sha256(spki)], ..Endorsements::default() };
        authenticate(&evidence_of(quote, log), &by, 0)
    };
    let json: serde_json::Value =
        serde_json::from_slice(&read(vectors.join("confidential-containers+trustee/tpm_evidence.json"))).unwrap();
    let bytes = |value: &serde_json::Value| azure::base64(value.as_str().unwrap());
    let (spki, parts) = (bytes(&json["ak_public"]), &json["tpm_quote"]);
    let pcrs = azure::attestation(&serde_json::json!({ "pcrs": parts["pcrs"], "message": "", "signature": "" })).pcrs;
    let (attest, signature) = (bytes(&parts["message"]), bytes(&parts["signature"]));
    let good = TpmQuote { attest, signature, attestation_key: key(&spki), pcrs };
    // Its PCRs 0 to 9 were never extended, which a log without events explains.
    let untouched = log_header();
    let authentic = judged(&good, &spki, untouched.clone()).unwrap();
    let Claims::Vtpm(claims) = authentic.claims() else { panic!() };
    assert_eq!((authentic.data().len(), claims.reset_count, claims.pcrs[17]), (64, 2, [0xff; 32]));
    let mut spoilt = good.clone();
    spoilt.signature[100] ^= 1;
    refused_as(judged(&spoilt, &spki, untouched.clone()), RefusalCode::QuoteSignature);
    let mut spoilt = good;
    spoilt.pcrs[23][0] ^= 1;
    refused_as(judged(&spoilt, &spki, untouched.clone()), RefusalCode::EventLogMismatch);

    // Another one, of which the boot log is not known: its signature and PCRs hold, and then the log is missed.
    let spki = azure::certificate(&read(vectors.join(azure::KINVOLK).join("akpub.pem")));
    let stored = azure::stored_quote(&vectors.join(azure::KINVOLK).join("quote.bin"));
    let signature = [&RSASSA.to_be_bytes()[..], &[0, 0x0b, 1, 0], &stored.signature].concat();
    let good = TpmQuote { attest: stored.attest, signature, attestation_key: key(&spki), pcrs: stored.pcrs };
    let refusal = refused(judged(&good, &spki, untouched.clone()));
    assert_eq!((refusal.code, refusal.cause.contains("PCR 0")), (RefusalCode::EventLogMismatch, true), "{refusal}");
    let mut spoilt = good;
    spoilt.attest[60] ^= 1;
    refused_as(judged(&spoilt, &spki, untouched), RefusalCode::QuoteSignature);
}

#[test]
fn a_key_that_signs_anything_is_refused_though_it_is_configured() {
    // Without `restricted` its owner could write the whole quote; with `decrypt` it signs what others choose.
    for attributes in [AK_ATTRIBUTES & !(1 << 16), AK_ATTRIBUTES & !(1 << 1), AK_ATTRIBUTES | 1 << 17] {
        let mut tpm = Tpm::booted(&agent());
        tpm.attributes = attributes;
        refused_as(authentic(&tpm.evidence(&binding()), &tpm), RefusalCode::ChainUntrusted);
    }
}

#[test]
fn every_changed_byte_of_the_quote_is_refused() {
    let tpm = Tpm::booted(&agent());
    let good = tpm.quote_over(&qualifying_data(&binding()));
    assert!(authentic(&evidence_of(&good, tpm.log()), &tpm).is_ok());
    let parts: [fn(&mut TpmQuote) -> &mut Vec<u8>; 2] = [|quote| &mut quote.attest, |quote| &mut quote.signature];
    for part in parts {
        for position in 0..part(&mut good.clone()).len() {
            let mut spoilt = good.clone();
            part(&mut spoilt)[position] ^= 1 << (position % 8);
            assert!(authentic(&evidence_of(&spoilt, tpm.log()), &tpm).is_err(), "byte {position}");
            part(&mut spoilt).truncate(position);
            assert!(authentic(&evidence_of(&spoilt, tpm.log()), &tpm).is_err(), "cut at {position}");
        }
    }
    // The attributes (bytes 4 to 7) are not covered by the pin, which is of the key alone.
    for position in (0..4).chain(8..good.attestation_key.len()) {
        let mut spoilt = good.clone();
        spoilt.attestation_key[position] ^= 0xff;
        assert!(authentic(&evidence_of(&spoilt, tpm.log()), &tpm).is_err(), "key byte {position}");
    }
    for pcr in 0..24 {
        let mut spoilt = good.clone();
        spoilt.pcrs[pcr][0] ^= 1;
        refused_as(authentic(&evidence_of(&spoilt, tpm.log()), &tpm), RefusalCode::EventLogMismatch);
    }
}

#[test]
fn another_selection_is_refused_though_it_is_signed() {
    for selection in [
        vec![0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0x7f],
        vec![0, 0, 0, 1, 0, 0x04, 3, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 0, 0, 0x0b, 3, 0xff, 0xff, 0xff],
    ] {
        let mut tpm = Tpm::booted(&agent());
        tpm.selection = selection;
        refused_as(authentic(&tpm.evidence(&binding()), &tpm), RefusalCode::Unsupported);
    }
}

#[test]
fn a_quote_for_another_binding_is_refused() {
    let tpm = Tpm::booted(&agent());
    for extra in [&[][..], &[1; 32], &qualifying_data(&binding())[..31]] {
        let evidence = evidence_of(&tpm.quote_over(extra), tpm.log());
        refused_as(authentic(&evidence, &tpm), RefusalCode::BindingMismatch);
    }
}

#[test]
fn a_log_that_does_not_lead_to_the_quoted_registers_is_refused() {
    let tpm = Tpm::booted(&agent());
    let with_log = |log: Vec<u8>| authentic(&Evidence { event_log: log, ..tpm.evidence(&binding()) }, &tpm);
    let log = tpm.log();
    let last_event = 4 + 4 + 4 + 2 + 32 + 4 + 4;
    refused_as(with_log(vec![]), RefusalCode::EventLogMismatch);
    refused_as(with_log(log[..log.len() - last_event].to_vec()), RefusalCode::EventLogMismatch);
    refused_as(with_log(log[..log.len() - 1].to_vec()), RefusalCode::EventLogMismatch);
    let mut longer = Tpm::booted(&agent());
    longer.measure(3, SEPARATOR, &[0; 4]);
    refused_as(with_log(longer.log()), RefusalCode::EventLogMismatch);
    let mut hidden = Tpm::booted(&agent());
    hidden.extend(2, b"an option ROM that the log does not show");
    refused_as(authentic(&hidden.evidence(&binding()), &hidden), RefusalCode::EventLogMismatch);
}

#[test]
fn events_of_a_register_that_the_log_does_not_explain_are_left_out() {
    let mut tpm = Tpm::booted(&agent());
    let measured = |tpm: &Tpm, pcr| {
        let appraised = appraised(tpm, &image(tpm)).unwrap();
        let Claims::Vtpm(claims) = appraised.claims() else { panic!("{:?}", appraised.claims()) };
        claims.events.iter().filter(|event| event.pcr == pcr).count()
    };
    // A loader's record, as it was made; and one of an image that never ran.
    tpm.measure(14, EVENT_TAG, b"MokList");
    let quoted = tpm.pcrs[11];
    tpm.measure(11, EVENT_TAG, b"the image that should have run");
    tpm.pcrs[11] = quoted;
    assert_eq!((measured(&tpm, 14), measured(&tpm, 11), measured(&tpm, 4)), (1, 0, 2));
    // The register goes on after the boot: what the log says of it can no longer be told from inventions.
    tpm.extend(14, b"at run time");
    assert_eq!((measured(&tpm, 14), measured(&tpm, 4)), (0, 2));
}

#[test]
fn an_unregistered_image_is_refused_with_the_register_that_differs() {
    let registered = image(&Tpm::booted(&agent()));
    let mut other = Tpm::booted(&agent());
    other.measure(4, 6, b"another kernel");
    let refusal = refused(appraised(&other, &registered));
    assert_eq!(refusal.code, RefusalCode::MeasurementUnregistered);
    assert!(refusal.cause.contains("pcr4") && refusal.cause.contains("reference values payments 1.4"), "{refusal}");
    assert!(!refusal.cause.contains("pcr7"), "{refusal}");
    let refusal = refused(appraised(&other, &policy::of(vec![])));
    assert_eq!(refusal.code, RefusalCode::MeasurementUnregistered);
}

#[test]
fn an_agent_that_is_not_in_the_measured_set_is_refused() {
    let tpm = Tpm::booted(&agent());
    let policy = image(&tpm);
    let bound = |register| {
        let evidence = Evidence { agent_register: register, ..tpm.evidence(&binding()) };
        authentic(&evidence, &tpm).unwrap()
    };
    for register in [AgentRegister::Absent, AgentRegister::Pcr(14), AgentRegister::Rtmr(3)] {
        refused_as(bound(register).appraise(&policy, &agent()), RefusalCode::AgentNotMeasured);
    }
    let mut other = agent();
    other.configuration[0] ^= 1;
    let refusal = refused(bound(AgentRegister::Pcr(15)).appraise(&policy, &other));
    assert_eq!((refusal.code, refusal.cause.contains("configuration")), (RefusalCode::AgentNotMeasured, true));

    // The binding names the registered agent, but the TPM measured another one.
    let lying = Tpm::booted(&other);
    refused_as(appraised(&lying, &image(&lying)), RefusalCode::AgentNotMeasured);

    // A poison event after the agent's ends acceptance until the next boot.
    let mut poisoned = Tpm::booted(&agent());
    poisoned.extend(15, b"poison");
    refused_as(appraised(&poisoned, &image(&poisoned)), RefusalCode::AgentNotMeasured);
}

#[test]
fn two_agents_may_share_a_boot_and_each_finds_its_own_set() {
    let tpm = Tpm::booted(&agent());
    let mut older = agent();
    older.executable = [0x0e; 32];
    let measured = || measured_pcrs(&tpm.pcrs, &[0, 4, 7, 9]);
    let policy = policy::of(vec![reference("older", &older, measured()), reference("ours", &agent(), measured())]);
    assert_eq!(appraised(&tpm, &policy).unwrap().reference_values(), "ours");
}

#[test]
fn a_policy_that_leaves_out_what_booted_does_not_load() {
    let tpm = Tpm::booted(&agent());
    let load = |demanded: &[u8], named: &[u8]| {
        let values = vec![reference("short", &agent(), measured_pcrs(&tpm.pcrs, named))];
        let vtpm = VtpmPolicy { demanded_pcrs: demanded.iter().copied().collect() };
        AppraisalPolicy::new(values, policy::snp(), policy::tdx(), vtpm, policy::azure()).map(|_| ())
    };
    assert_eq!(load(&[0, 4, 7, 9], &[0, 4, 7, 9]), Ok(()));
    assert_eq!(load(&[0, 4, 7], &[0, 4, 7, 9]), Err(PolicyError::Undemanded(9)));
    assert_eq!(load(&[0, 4, 7, 9], &[0, 4, 9]), Err(PolicyError::Unnamed { name: "short".into(), pcr: 7 }));
    assert_eq!(load(&[0, 2, 4, 7, 9], &[0, 4, 7, 9]), Err(PolicyError::Unnamed { name: "short".into(), pcr: 2 }));
}
