//! A hostile guest before the real authority: bindings, Evidence and requests that are not what they should be, each
//! otherwise perfect, are refused with their code, and the audit log says the same. The hardware that signs is the
//! genuine simulated machine: what is refused here is refused although every signature in it verifies.

mod refusals_support;

use inwit_protocol::binding::{EncodedBinding, Purpose};
use inwit_protocol::certificate::{self, Role, TrustBundle};
use inwit_protocol::evidence::{AgentRegister, Platform};
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::refusal::RefusalCode;
use inwit_protocol::refusal::RefusalCode::*;
use inwit_tests::stage::{CONFIDENTIAL, HELLO};
use inwit_tests::world::setup::Step;
use refusals_support::site::{Answer, Draft, Holder, Log, SECRET, Site, snp_evidence};
use refusals_support::{Ground, ground};

const CONNECTIONS: usize = 256;

fn stage(test: &str) -> Option<Ground> {
    ground(test, &[Step::Packages, Step::RustTarget])
}

fn log(granted: usize, refused: &[RefusalCode]) -> Log {
    Log { granted, refused: refused.iter().map(|code| code.text().to_owned()).collect() }
}

/// A guest whose draft is changed before it is hashed into the report.
#[track_caller]
fn refused(code: RefusalCode, change: impl FnOnce(&mut Draft)) {
    let Some(ground) = stage(code.text()) else { return };
    let site = Site::open(&ground, CONNECTIONS);
    site.ask(&Holder::new(), change).assert_refused(code.text());
    assert_eq!(site.close(), log(0, &[code]));
}

#[test]
fn an_honest_guest_is_granted_what_is_its_own() {
    let Some(ground) = stage("an honest guest") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let (holder, other) = (Holder::new(), Holder::new());
    let mut visit = site.visit(&holder.key);
    let request = site.honest(&visit, &holder).request();
    let Answer::Granted(grant) = visit.ask(&request) else { panic!("not granted") };
    let hello = WorkloadIdentifier::parse(HELLO).unwrap();
    let bundle = TrustBundle::new(hello.trust_domain().clone(), grant.anchors.clone()).unwrap();
    let chain: Vec<&[u8]> = grant.chain.iter().map(Vec::as_slice).collect();
    let credential = certificate::verify(&chain, &bundle, Role::Client, grant.now).unwrap();
    assert_eq!(*credential.identifier(), hello);
    assert!(credential.is_for(holder.key.public()) && !credential.is_for(other.key.public()));
    let [secret] = grant.secrets.as_slice() else { panic!("{} secrets", grant.secrets.len()) };
    let opened = holder.decapsulation.open(&secret.sealed, SECRET, request.binding.bytes()).unwrap();
    assert_eq!(opened.expose(), CONFIDENTIAL.as_bytes());
    assert!(other.decapsulation.open(&secret.sealed, SECRET, request.binding.bytes()).is_err());
    assert_eq!(site.close(), log(1, &[]));
}

#[test]
fn a_proof_of_possession_by_another_key() {
    refused(PopInvalid, |draft| draft.prover = Holder::new().key);
}

#[test]
fn a_binding_over_another_key_than_the_connections() {
    refused(KeyMismatch, |draft| {
        let other = Holder::new().key;
        draft.binding.credential_key = other.public().clone();
        draft.prover = other; // it is held, and proves itself: it is another one all the same
    });
}

#[test]
fn a_binding_for_another_purpose() {
    refused(Unsupported, |draft| draft.binding.purpose = Purpose::ReleaseKey);
}

#[test]
fn a_binding_without_a_key_to_seal_to() {
    refused(Malformed, |draft| draft.binding.encapsulation_key = None);
}

#[test]
fn an_agent_that_is_not_the_measured_one() {
    refused(AgentNotMeasured, |draft| draft.binding.agent.executable[0] ^= 1);
}

#[test]
fn a_report_from_another_privilege_level() {
    refused(PolicyForbids, |draft| draft.level = 1);
}

#[test]
fn another_identity_of_the_same_trust_domain() {
    refused(IdentityMismatch, |draft| draft.identifier = "spiffe://demo.example/greeter".to_owned());
}

#[test]
fn an_identity_of_another_trust_domain() {
    refused(IdentityMismatch, |draft| draft.identifier = "spiffe://other.example/hello".to_owned());
}

/// The guest's request reaches the authority over a connection other than the one that it was made for.
#[test]
fn a_binding_from_another_connection() {
    let Some(ground) = stage("replay") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let (victim, thief) = (Holder::new(), Holder::new());
    let mut first = site.visit(&victim.key);
    let request = site.honest(&first, &victim).request();

    // While the first connection is still open and unspent: by the victim's own key, and by a thief's.
    site.visit(&victim.key).ask(&request).assert_refused("nonce-mismatch");
    site.visit(&thief.key).ask(&request).assert_refused("nonce-mismatch");
    // On its own connection it is good; afterwards it is as useless as before.
    assert!(matches!(first.ask(&request), Answer::Granted(_)));
    site.visit(&victim.key).ask(&request).assert_refused("nonce-mismatch");
    // A thief who makes the binding itself, over the victim's nonce, gains nothing.
    let draft = site.honest(&site.visit(&victim.key), &thief);
    site.visit(&thief.key).ask(&draft.request()).assert_refused("nonce-mismatch");
    assert_eq!(site.close(), log(1, &[NonceMismatch; 4]));
}

#[test]
fn a_second_request_on_the_same_connection() {
    let Some(ground) = stage("a spent nonce") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    // The same again after a grant.
    let mut visit = site.visit(&holder.key);
    let request = site.honest(&visit, &holder).request();
    assert!(matches!(visit.ask(&request), Answer::Granted(_)));
    visit.ask(&request).assert_refused("nonce-reused");
    visit.assert_over();
    // A good one after a bad one: the first request spends the nonce, whatever came of it.
    let mut visit = site.visit(&holder.key);
    let mut draft = site.honest(&visit, &holder);
    let good = draft.request();
    draft.identifier = "spiffe://demo.example/greeter".to_owned();
    visit.ask(&draft.request()).assert_refused("identity-mismatch");
    visit.ask(&good).assert_refused("nonce-reused");
    visit.assert_over();
    assert_eq!(site.close().granted, 1);
}

#[test]
fn evidence_that_does_not_fit_its_binding() {
    let Some(ground) = stage("evidence") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let earlier = {
        let visit = site.visit(&holder.key);
        site.honest(&visit, &holder).request().evidence
    };
    let mut codes = Vec::new();
    let mut ask = |code: RefusalCode, change: &dyn Fn(&mut inwit_protocol::message::AcquireRequest)| {
        site.ask_changed(&holder, change).assert_refused(code.text());
        codes.push(code);
    };
    // A genuine report over another binding, and one of this very guest from an earlier connection.
    let other = EncodedBinding::received(b"another binding".to_vec());
    let over_another = snp_evidence(&site.machine, &other, 0);
    ask(BindingMismatch, &|request| request.evidence = over_another.clone());
    ask(BindingMismatch, &|request| request.evidence = earlier.clone());
    // No quote; parts that the platform does not have; another platform's name on it.
    ask(EvidenceMissing, &|request| request.evidence.quote.clear());
    ask(Malformed, &|request| request.evidence.event_log = vec![0; 64]);
    ask(Malformed, &|request| request.evidence.platform = Platform::Tdx);
    ask(Malformed, &|request| request.evidence.platform = Platform::Vtpm);
    ask(AgentNotMeasured, &|request| request.evidence.agent_register = AgentRegister::Pcr(15));
    ask(AgentNotMeasured, &|request| request.evidence.agent_register = AgentRegister::Rtmr(3));
    // A good certificate and a report that it did not sign.
    ask(QuoteSignature, &|request| request.evidence.quote[0x2a0] ^= 1);
    assert_eq!(site.close(), log(0, &codes));
}

#[test]
fn a_changed_byte_anywhere_in_binding_quote_or_certificates() {
    let Some(ground) = stage("changed bytes") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let mut asked = 0;
    let mut ask = |part: &str, at: usize, answer: Answer| {
        let Answer::Refused(_) = answer else { panic!("{part}, byte {at}: {answer:?}") };
        asked += 1;
    };
    for at in (0..1_400).step_by(61) {
        let answer = site.ask_changed(&holder, |request| {
            let mut bytes = request.binding.bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1;
            request.binding = EncodedBinding::received(bytes);
        });
        ask("binding", at, answer);
    }
    // The signed part, and of the signature its two numbers (0x2a0, 72 bytes each of which 48 are used).
    for at in (0..0x2a0).step_by(31).chain([0x2a0, 0x2cf, 0x2e8, 0x317]) {
        ask("quote", at, site.ask_changed(&holder, |request| request.evidence.quote[at] ^= 0x10));
    }
    // The chip's certificate is the first in the table, behind its four entries of 24 bytes.
    for at in (96..1_200).step_by(79) {
        ask("certificates", at, site.ask_changed(&holder, |request| request.evidence.endorsements[at] ^= 0x10));
    }
    let closed = site.close();
    assert_eq!((closed.granted, closed.refused.len()), (0, asked));
}
