//! A hostile relay between the real guest and the real authority: whatever it does to a record of the handshake, the
//! request or the reply, in either direction, no workload is started and no secret is released to anybody; and what TLS
//! lets a relay do without harm, harms nobody.

mod refusals_support;

use inwit_protocol::evidence::Platform::Snp;
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::refusal::RefusalCode::{self, AuthorityNotPinned, Malformed, NonceMismatch, Unreachable};
use inwit_protocol::tls;
use inwit_tests::stage::guest::End;
use inwit_tests::stage::play::{Between, Scene, Twist};
use inwit_tests::stage::tap::{Tamper, Way};
use refusals_support::impostor::{Rig, framed};
use refusals_support::records::{Act, HEADER, Plan};
use refusals_support::site::{Holder, Log, Site};
use refusals_support::{
    By, Ground, Trial, assert_nothing_started, assert_one_refusal, not_run, process_ground, slow_tests_run, told,
};
use ring::rand::SystemRandom;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Records of a session that is left alone, by direction: ClientHello or ServerHello, ChangeCipherSpec, the encrypted
/// handshake, then the request or the reply.
const RECORDS: usize = 4;
/// The one record that TLS 1.3 sends for old middleboxes alone and that peers ignore (RFC 8446 §5).
const CHANGE_CIPHER_SPEC: usize = 1;
/// The request, or the reply.
const MESSAGE: usize = 3;
/// What a tampering relay comes to. There is no third.
const CODES: [RefusalCode; 2] = [Malformed, Unreachable];
/// Plays at a time: most of their time is waiting.
const AT_A_TIME: usize = 4;

/// What is demanded of one tampering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// Refused.
    Refused,
    /// As if nothing had happened.
    Good,
    /// One of the two, for bytes that TLS tells its peers to ignore.
    Either,
}

fn assert_refused(trial: &Trial, plan: &Plan) {
    let run = &trial.outcome.run;
    let code = run.refusal().as_deref().and_then(RefusalCode::from_text);
    let code = code.unwrap_or_else(|| panic!("{plan:?}: not refused:\n{}", run.text()));
    assert!(CODES.contains(&code), "{plan:?}: {code}");
    assert_one_refusal(run, code);
    assert_eq!(run.end, End::Exited(3), "{plan:?}");
    assert_nothing_started(run);
    assert!(trial.outcome.visits.is_empty(), "{plan:?}");
    trial.assert_no_secret();
    // The authority grants only what it received whole. It may have granted where the relay lets the request pass and
    // spoils the reply, or sends the request a second time.
    let request_was_whole = plan.way == Way::Down && plan.record == MESSAGE
        || plan.way == Way::Up && plan.record == MESSAGE && plan.act == Act::Twice;
    assert!(trial.granted_in_log() <= usize::from(request_was_whole), "{plan:?}: {:#?}", trial.outcome.audit);
}

fn attempt(ground: &Ground, plan: &Plan, demand: Demand) {
    let trial = ground.play(Snp, Scene::Process, plan.twist());
    match demand {
        Demand::Refused => assert_refused(&trial, plan),
        Demand::Good => trial.assert_good(Scene::Process),
        Demand::Either if trial.outcome.run.refusal().is_some() => assert_refused(&trial, plan),
        Demand::Either => trial.assert_good(Scene::Process),
    }
}

/// Plays all, several at a time, and fails with the list of those that did not end as demanded.
fn sweep(ground: &Ground, plans: Vec<(Plan, Demand)>) {
    let (count, plans, failed) = (plans.len(), Mutex::new(plans.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some((plan, demand)) = plans.lock().unwrap().next() else { return };
                    if catch_unwind(AssertUnwindSafe(|| attempt(ground, &plan, demand))).is_err() {
                        failed.lock().unwrap().push((plan, demand));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {count} tamperings did not end as demanded: {failed:#?}", failed.len());
}

/// Every record of both directions.
fn records() -> impl Iterator<Item = (Way, usize)> {
    [Way::Up, Way::Down].into_iter().flat_map(|way| (0..RECORDS).map(move |record| (way, record)))
}

fn each_record(demand: Demand, act: impl Fn(Way, usize) -> Option<Act>) -> Vec<(Plan, Demand)> {
    let plan = |(way, record)| Some((Plan { way, record, act: act(way, record)? }, demand));
    records().filter_map(plan).collect()
}

#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    let Some(ground) = process_ground("flipped bits") else { return };
    // Of the header, the length's highest bit; of the content, the first, an early and the last byte. A
    // ChangeCipherSpec has one byte of content.
    let header = each_record(Demand::Refused, |_, _| Some(Act::Flip(3, 7)));
    let first = each_record(Demand::Refused, |_, _| Some(Act::Flip(5, 0)));
    let early = each_record(Demand::Refused, |_, record| (record != CHANGE_CIPHER_SPEC).then_some(Act::Flip(43, 0)));
    let last = each_record(Demand::Refused, |_, record| (record != CHANGE_CIPHER_SPEC).then_some(Act::Flip(-1, 7)));
    sweep(&ground, [header, first, early, last].concat());
}

#[test]
fn a_flipped_bit_that_tls_does_not_look_at_harms_nobody() {
    let Some(ground) = process_ground("flipped bits of headers") else { return };
    // RFC 8446 §5.1: legacy_record_version is ignored for all purposes; the outer type of an encrypted record says nothing.
    let version = each_record(Demand::Either, |_, _| Some(Act::Flip(2, 1)));
    let kind = each_record(Demand::Either, |_, record| (record > CHANGE_CIPHER_SPEC).then_some(Act::Flip(0, 0)));
    sweep(&ground, [version, kind].concat());
}

#[test]
fn a_record_that_is_cut_is_refused() {
    let Some(ground) = process_ground("cut records") else { return };
    let header = each_record(Demand::Refused, |_, _| Some(Act::Truncate(HEADER - 2)));
    let content =
        each_record(Demand::Refused, |_, record| (record != CHANGE_CIPHER_SPEC).then_some(Act::Truncate(HEADER + 60)));
    sweep(&ground, [header, content].concat());
}

#[test]
fn a_record_that_is_repeated_reordered_or_left_out_is_refused() {
    let Some(ground) = process_ground("repeated, reordered and missing records") else { return };
    let demand = |record| if record == CHANGE_CIPHER_SPEC { Demand::Either } else { Demand::Refused };
    let mut plans = Vec::new();
    for (way, record) in records() {
        // Each side reads one message; what comes behind it may come too late to be looked at.
        let twice = if record == MESSAGE { Demand::Either } else { demand(record) };
        plans.push((Plan { way, record, act: Act::Twice }, twice));
        // Where nothing follows until the other side has answered, both wait in vain: see the test of silence.
        let something_follows = !matches!((way, record), (Way::Up, 0 | MESSAGE) | (Way::Down, 2));
        if something_follows {
            plans.push((Plan { way, record, act: Act::Drop }, demand(record)));
            plans.push((Plan { way, record, act: Act::Swap }, Demand::Refused));
        }
    }
    sweep(&ground, plans);
}

#[test]
fn foreign_records_between_the_true_ones_are_refused() {
    let Some(ground) = process_ground("foreign records") else { return };
    let data = [&[23, 3, 3, 0, 40][..], &[0x5a; 40]].concat();
    let data = each_record(Demand::Refused, |_, _| Some(Act::Inject(data.clone())));
    let garbage = each_record(Demand::Refused, |_, _| Some(Act::Inject(vec![0x47; 64])));
    // An alert in the clear may end a handshake, which any cut does as well.
    let alert = each_record(Demand::Either, |_, _| Some(Act::Inject(vec![21, 3, 3, 0, 2, 1, 0])));
    sweep(&ground, [data, garbage, alert].concat());
}

#[test]
fn bytes_that_come_one_by_one_are_as_good_as_others() {
    let Some(ground) = process_ground("single bytes") else { return };
    sweep(&ground, each_record(Demand::Good, |_, _| Some(Act::Dribble)));
}

#[test]
fn a_delay_below_the_limits_is_no_refusal() {
    let Some(ground) = process_ground("delays") else { return };
    for way in [Way::Up, Way::Down] {
        let twist = Twist::Relay(Tamper::Delay(way, Duration::from_millis(700)));
        ground.play(Snp, Scene::Process, twist).assert_good(Scene::Process);
    }
}

#[test]
fn silence_is_refused_in_bounded_time() {
    let what = "a relay that falls silent";
    if !slow_tests_run() {
        return not_run(what, "takes the guest's whole patience, one minute; set INWIT_SLOW=1");
    }
    let Some(ground) = process_ground(what) else { return };
    let plans = [(Way::Up, 0), (Way::Down, 0), (Way::Up, MESSAGE), (Way::Down, MESSAGE)];
    let silent = |(way, record)| (Plan { way, record, act: Act::Silence }, Demand::Refused);
    sweep(&ground, plans.map(silent).into());
}

/// A relay with a key of its own: the authority talks to it as to any guest, the guest does not talk to it at all.
#[test]
fn a_relay_that_terminates_tls_itself_is_not_the_authority() {
    let Some(ground) = process_ground("a terminating relay") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (handle, story) = (runtime.handle().clone(), Arc::new(Mutex::new(Vec::new())));
    let teller = Arc::clone(&story);
    let open = move |authority| {
        let listener = handle.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let (address, teller) = (listener.local_addr()?, Arc::clone(&teller));
        handle.spawn(async move {
            let (guest, _) = listener.accept().await.unwrap();
            let key = Arc::new(SigningKey::generate(&SystemRandom::new()).unwrap());
            let up = refusals_support::tls::whoever(Arc::clone(&key));
            let up = TlsConnector::from(Arc::new(up));
            let far = TcpStream::connect(authority).await.unwrap();
            let far = up.connect("authority.invalid".try_into().unwrap(), far).await;
            teller.lock().unwrap().push(("authority", far.is_ok()));
            let down = TlsAcceptor::from(Arc::new(tls::authority_channel(key).unwrap()));
            let near = down.accept(guest).await;
            teller.lock().unwrap().push(("guest", near.is_ok()));
            if let (Ok(mut near), Ok(mut far)) = (near, far) {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
        Ok(address)
    };
    let twist = Twist::Between(Between(Arc::new(open)));
    ground.play(Snp, Scene::Process, twist).assert_refused(Scene::Process, AuthorityNotPinned, By::Guest);
    assert_eq!(told(&story, 2), [("authority", true), ("guest", false)], "the attack was a real one");
}

/// The worst of relays: the guest pins its key and tells it everything. Evidence is worth nothing on another connection all
/// the same, so it cannot have in the guest's name what it was told.
#[test]
fn a_relay_that_the_guest_trusts_cannot_pass_its_evidence_on() {
    let Some(ground) = process_ground("a trusted relay") else { return };
    let rig = Rig::on_snp(&ground);
    let site = Arc::new(Site::open_for(&ground, 256, |_| rig.agent()));
    let (authority, thief) = (Arc::clone(&site), Holder::new());
    let run = rig.run_against(move |asked| {
        let mut visit = authority.visit(&thief.key);
        visit.send(&framed(&asked.bytes));
        visit.frame()
    });
    rig.assert_refused(&run, NonceMismatch);
    drop(rig); // and with it the relay's hold on the authority
    let log = Arc::into_inner(site).unwrap().close();
    assert_eq!(log, Log { granted: 0, refused: vec!["nonce-mismatch".to_owned()] });
}
