//! A hostile or broken authority before the real guest: what it sends is signed, sealed and framed as it should be but
//! for one thing, and the guest refuses it with its code, starts nothing and keeps nothing. The guest's own platform may
//! be broken as well: that is refused before anybody is asked.

mod refusals_support;

use ciborium::Value;
use inwit_protocol::cbor;
use inwit_protocol::frame;
use inwit_protocol::message::Reply;
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::refusal::RefusalCode::*;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::seal;
use inwit_protocol::secret::Secret;
use inwit_tests::stage::guest::End;
use inwit_tests::stage::now;
use refusals_support::impostor::{Asked, Rig, SECRET, authority_of, chain, framed};
use refusals_support::{assert_one_refusal, process_ground, refusal_lines, told};
use ring::rand::SystemRandom;
use std::sync::Arc;

/// A guest against an impostor that holds the pinned key.
#[track_caller]
fn refused(code: RefusalCode, answer: impl FnMut(Asked) -> Vec<u8> + Send + 'static) {
    let Some(ground) = process_ground(&format!("{code} by the guest")) else { return };
    let rig = Rig::on_snp(&ground);
    let run = rig.run_against(answer);
    rig.assert_refused(&run, code);
}

/// The same, where only the grant is spoilt: its signature is right.
#[track_caller]
fn grant_refused(code: RefusalCode, spoil: impl Fn(&Asked, &mut inwit_protocol::message::Grant) + Send + 'static) {
    refused(code, move |asked| {
        let mut grant = asked.grant();
        spoil(&asked, &mut grant);
        asked.signed(&grant)
    });
}

fn fresh_key() -> SigningKey {
    SigningKey::generate(&SystemRandom::new()).unwrap()
}

#[test]
fn a_grant_with_nothing_spoilt_is_taken() {
    let Some(ground) = process_ground("a good grant") else { return };
    let rig = Rig::on_snp(&ground);
    let run = rig.run_against(|asked| asked.signed(&asked.grant()));
    assert_eq!((run.refusal(), run.end.clone()), (None, End::Exited(0)), "{}", run.text());
    assert!(run.phases().iter().any(|phase| phase.name == "workload"), "{}", run.text());
}

mod authority_key {
    use super::*;

    #[test]
    fn not_pinned() {
        let Some(ground) = process_ground("an authority that is not pinned") else { return };
        let rig = Rig::on_snp(&ground);
        let story = rig.impostor(Arc::new(fresh_key()), Box::new(|asked| asked.signed(&asked.grant())));
        let run = rig.run();
        rig.assert_refused(&run, AuthorityNotPinned);
        assert!(!run.phases().iter().any(|phase| phase.name == "evidence"), "{}", run.text());
        assert_eq!(told(&story, 1), ["the guest does not talk to it"], "nothing was asked of it");
    }

    #[test]
    fn of_the_channel_did_not_sign_the_grant() {
        refused(ReplyInvalid, |asked| asked.signed_by(&asked.grant(), &fresh_key()));
    }
}

mod credential {
    use super::*;

    #[test]
    fn for_another_key() {
        grant_refused(CredentialMismatch, |asked, grant| {
            grant.chain = chain(&asked.ca, "spiffe://demo.example/hello", fresh_key().public(), now());
        });
    }

    #[test]
    fn for_another_identity() {
        grant_refused(IdentityMismatch, |asked, grant| {
            let key = &asked.binding.credential_key;
            grant.chain = chain(&asked.ca, "spiffe://demo.example/greeter", key, now());
        });
    }

    #[test]
    fn of_another_trust_domain() {
        grant_refused(TrustDomainMismatch, |asked, grant| {
            let other = authority_of("other.example");
            let key = &asked.binding.credential_key;
            grant.chain = chain(&other, "spiffe://other.example/hello", key, now());
            grant.anchors = vec![other.certificate().to_vec()];
        });
    }

    #[test]
    fn that_no_anchor_vouches_for() {
        grant_refused(ChainUntrusted, |asked, grant| {
            let other = authority_of("demo.example");
            grant.chain = chain(&other, "spiffe://demo.example/hello", &asked.binding.credential_key, now());
        });
    }

    #[test]
    fn that_has_expired() {
        grant_refused(EndorsementExpired, |asked, grant| {
            let key = &asked.binding.credential_key;
            grant.chain = chain(&asked.ca, "spiffe://demo.example/hello", key, now() - 7_200);
        });
    }

    #[test]
    fn that_is_not_valid_yet() {
        grant_refused(EndorsementExpired, |asked, grant| {
            let key = &asked.binding.credential_key;
            grant.chain = chain(&asked.ca, "spiffe://demo.example/hello", key, now() + 7_200);
        });
    }

    #[test]
    fn that_is_not_there() {
        grant_refused(CertificateInvalid, |_, grant| grant.chain.clear());
    }

    #[test]
    fn that_is_the_anchor_itself() {
        grant_refused(CertificateInvalid, |_, grant| grant.chain = grant.anchors.clone());
    }

    #[test]
    fn of_garbage() {
        grant_refused(CertificateInvalid, |_, grant| grant.chain = vec![vec![0x30; 300]]);
    }

    #[test]
    fn without_an_anchor() {
        grant_refused(CertificateInvalid, |_, grant| grant.anchors.clear());
    }
}

mod sealed_secret {
    use super::*;

    #[test]
    fn for_another_guest() {
        grant_refused(SealedKeyUnopenable, |asked, grant| {
            let (_, other) = seal::generate();
            let binding = asked.request.binding.bytes();
            grant.secrets[0].sealed = seal::seal(&Secret::new(vec![1; 32]), SECRET, &other, binding).unwrap();
        });
    }

    #[test]
    fn for_another_request_of_this_guest() {
        grant_refused(SealedKeyUnopenable, |asked, grant| {
            let to = asked.binding.encapsulation_key.as_ref().unwrap();
            grant.secrets[0].sealed = seal::seal(&Secret::new(vec![1; 32]), SECRET, to, b"another binding").unwrap();
        });
    }

    #[test]
    fn under_another_name() {
        grant_refused(SealedKeyUnopenable, |asked, grant| grant.secrets[0].sealed = asked.seal("another"));
    }

    #[test]
    fn with_a_changed_byte() {
        grant_refused(SealedKeyUnopenable, |_, grant| grant.secrets[0].sealed.ciphertext[3] ^= 1);
    }

    #[test]
    fn that_was_not_released() {
        grant_refused(SealedKeyUnopenable, |_, grant| grant.secrets.clear());
    }

    #[test]
    fn with_a_cut_encapsulation() {
        grant_refused(SealedKeyUnopenable, |_, grant| grant.secrets[0].sealed.encapsulated.truncate(100));
    }
}

mod reply {
    use super::*;

    #[test]
    fn to_another_binding() {
        grant_refused(ReplyInvalid, |_, grant| grant.binding[0] ^= 1);
    }

    #[test]
    fn altered_after_it_was_signed() {
        refused(ReplyInvalid, |asked| {
            let mut reply = asked.signed(&asked.grant());
            let at = reply.windows(7).position(|window| window == b"payload").unwrap();
            reply[at] ^= 1;
            reply
        });
    }

    #[test]
    fn with_more_secrets_than_any_list_may_have() {
        grant_refused(ReplyInvalid, |_, grant| grant.secrets = vec![grant.secrets[0].clone(); 65]);
    }

    #[test]
    fn of_garbage() {
        refused(Malformed, |_| framed(&[0xa5; 400]));
    }

    #[test]
    fn with_a_byte_more() {
        refused(Malformed, |asked| {
            let whole = asked.signed(&asked.grant());
            framed(&[&whole[frame::PREFIX..], &[0]].concat())
        });
    }

    #[test]
    fn of_a_version_that_is_not_known() {
        refused(Malformed, |asked| {
            let mut reply = asked.signed(&asked.grant());
            let at = reply.windows(8).position(|window| window == b"reply-v1").unwrap();
            reply[at + 7] = b'9';
            reply
        });
    }

    #[test]
    fn that_promises_too_much() {
        let just_over = u32::try_from(frame::REPLY_LIMIT + 1).unwrap();
        refused(Oversized, move |_| just_over.to_be_bytes().to_vec());
    }

    #[test]
    fn that_promises_four_gibibytes() {
        refused(Oversized, |_| vec![0xff; 100_000]);
    }

    #[test]
    fn that_ends_too_early() {
        refused(Unreachable, |asked| {
            let whole = asked.signed(&asked.grant());
            whole[..whole.len() - 1].to_vec()
        });
    }

    #[test]
    fn that_does_not_come() {
        refused(Unreachable, |_| Vec::new());
    }
}

mod refusal {
    use super::*;

    #[test]
    fn keeps_its_code_whatever_it_is() {
        let Some(ground) = process_ground("passing codes on") else { return };
        let rig = Rig::on_snp(&ground);
        for code in RefusalCode::ALL {
            let refusal = Refusal::new(*code, "for a test");
            let run = rig.run_against(move |_| framed(&Reply::Refused(refusal.clone()).encode()));
            rig.assert_refused(&run, *code);
        }
    }

    fn raw(code: &str, cause: &str) -> Vec<u8> {
        let refusal = vec![Value::Text(code.into()), Value::Text(cause.into()), Value::Bool(true)];
        let reply = vec![Value::Text("inwit-reply-v1".into()), Value::Bool(false), Value::Array(refusal)];
        framed(&cbor::encode(&Value::Array(reply)))
    }

    #[test]
    fn of_a_kind_that_is_not_known() {
        let Some(ground) = process_ground("an unknown code") else { return };
        let rig = Rig::on_snp(&ground);
        let run = rig.run_against(|_| raw("brand-new-code", "of a later version"));
        rig.assert_refused(&run, Internal);
        let text = run.text();
        assert!(text.contains("brand-new-code") && text.contains("of a later version"), "{text}");
    }

    #[test]
    fn cannot_write_on_the_console_what_it_likes() {
        let Some(ground) = process_ground("a refusal with terminal escapes") else { return };
        let rig = Rig::on_snp(&ground);
        let forged = "\u{1b}[2J\r\ninwit: +1ms workload: started as user 0\n".to_owned() + &"x".repeat(1_900);
        let run = rig.run_against(move |_| raw("identity-mismatch", &forged));
        assert_one_refusal(&run, IdentityMismatch);
        assert_eq!(run.end, End::Exited(3));
        assert!(refusal_lines(&run)[0].len() < 600, "bounded: {}", run.text());
        assert!(!run.lines.iter().any(|(_, line)| line.starts_with("inwit: +1ms workload")), "{}", run.text());
    }

    #[test]
    fn with_a_cause_that_is_too_long() {
        refused(Malformed, |_| raw("identity-mismatch", &"x".repeat(5_000)));
    }
}
