//! What reaches the authority's port and is no honest guest's session at all: frames and messages of any form, clients
//! with other credentials than a P-256 raw public key, recorded bytes, and crowds. Nobody of them is granted anything,
//! and honest guests are served all the while.

mod refusals_support;

use inwit_protocol::binding::EncodedBinding;
use inwit_protocol::refusal::RefusalCode::{self, *};
use inwit_protocol::{ALPN, frame};
use inwit_tests::stage::tap::{Tamper, Tap, Way};
use inwit_tests::world::setup::Step;
use refusals_support::site::{Answer, Holder, Log, Site};
use refusals_support::tls::{self, Credential};
use refusals_support::{Ground, ground};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

const CONNECTIONS: usize = 256;

fn stage(test: &str) -> Option<Ground> {
    ground(test, &[Step::Packages, Step::RustTarget])
}

fn log(granted: usize, refused: &[RefusalCode]) -> Log {
    Log { granted, refused: refused.iter().map(|code| code.text().to_owned()).collect() }
}

/// Any bytes as the first that come over a good connection.
fn say(site: &Site, holder: &Holder, bytes: &[u8]) -> Answer {
    let mut visit = site.visit(&holder.key);
    visit.send(bytes);
    let answer = visit.answer(&EncodedBinding::received(Vec::new()));
    if matches!(answer, Answer::Refused(_)) {
        visit.send_end();
        visit.assert_over();
    }
    answer
}

/// Messages in good frames.
#[test]
fn messages_that_do_not_parse() {
    let Some(ground) = stage("malformed messages") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let good = site.honest(&site.visit(&holder.key), &holder).request().encode();
    let relabelled = {
        let mut message = good.clone();
        let at = message.windows(5).position(|window| window == b"re-v1").unwrap();
        message[at + 4] = b'9';
        message
    };
    // The outer array's head, 0x84 in one byte, written in two; its last element, the identifier, left out.
    let longer_head = [&[0x98, 0x04], &good[1..]].concat();
    let identifier = 2 + "spiffe://demo.example/hello".len();
    let one_less = [&[0x83], &good[1..good.len() - identifier]].concat();
    let messages: [(&str, Vec<u8>); 9] = [
        ("garbage", vec![0xa5; 500]),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
        ("not deterministic", longer_head),
        ("an unknown label", relabelled),
        ("an element less", one_less),
        ("nested without end", vec![0x81; 5_000]),
        ("a length without bytes", vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (what, message) in &messages {
        let answer = say(&site, &holder, &frame::wrap(message, usize::MAX).unwrap());
        assert!(matches!(answer, Answer::Refused("malformed")), "{what}: {answer:?}");
    }
    site.assert_serves();
    assert_eq!(site.close(), log(1, &[Malformed; 9]));
}

#[test]
fn frames_that_promise_too_much_or_nothing() {
    let Some(ground) = stage("frames") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let just_over = u32::try_from(frame::REQUEST_LIMIT + 1).unwrap();
    for promised in [just_over, u32::MAX] {
        say(&site, &holder, &promised.to_be_bytes()).assert_refused("oversized");
    }
    let answer = say(&site, &holder, &[0; frame::PREFIX]);
    assert!(matches!(answer, Answer::Refused("oversized" | "malformed")), "{answer:?}");
    site.assert_serves();
    assert_eq!(site.close().granted, 1);
}

#[test]
fn refusals_that_need_no_judging_are_in_the_audit_log() {
    let Some(ground) = stage("refusals that are not recorded") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    say(&site, &holder, &u32::MAX.to_be_bytes()).assert_refused("oversized");
    let mut visit = site.visit(&holder.key);
    let request = site.honest(&visit, &holder).request();
    assert!(matches!(visit.ask(&request), Answer::Granted(_)));
    visit.ask(&request).assert_refused("nonce-reused");
    assert_eq!(site.close(), log(1, &[Oversized, NonceReused]));
}

#[test]
fn a_promised_message_that_does_not_come() {
    let Some(ground) = stage("half a message") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let good = frame::wrap(&site.honest(&site.visit(&holder.key), &holder).request().encode(), usize::MAX).unwrap();
    for length in [0, 1, frame::PREFIX, frame::PREFIX + 1, good.len() - 1] {
        let mut visit = site.visit(&holder.key);
        visit.send(&good[..length]);
        visit.send_end();
        visit.answer(&EncodedBinding::received(Vec::new())).assert_ended();
    }
    site.assert_serves();
    assert_eq!(site.close(), log(1, &[]));
}

#[test]
fn clients_with_other_credentials_or_none() {
    let Some(ground) = stage("other credentials") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let rsa = ground.world.root().join("amd-test-root/ark.key.der");
    let credentials = [
        ("nobody", Credential::none()),
        ("an Ed25519 raw key", Credential::ed25519_raw()),
        ("a P-384 raw key", Credential::p384_raw()),
        ("an RSA raw key", Credential::rsa_raw(&std::fs::read(rsa).unwrap())),
        ("a P-256 certificate", Credential::certificate()),
        ("two P-256 raw keys", Credential::two_raw()),
        ("the raw key of somebody else", Credential::stolen_raw(&holder.key)),
    ];
    for (who, credential) in credentials {
        // TLS 1.3 lets a client finish before it is judged: what it may say then is heard by nobody.
        if let Ok(mut visit) = site.visit_with(tls::client(credential, &[ALPN])) {
            let request = site.honest(&visit, &holder).request();
            let answer = visit.ask(&request);
            assert!(matches!(answer, Answer::Ended(_)), "{who}: {answer:?}");
        }
    }
    site.assert_serves();
    assert_eq!(site.close(), log(1, &[]));
}

#[test]
fn clients_that_speak_another_version() {
    let Some(ground) = stage("other versions") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let other = tls::client(Credential::p256_raw(), &[b"inwit/9"]);
    assert!(site.visit_with(other).is_err(), "no application protocol in common");
    if let Ok(mut visit) = site.visit_with(tls::client(Credential::p256_raw(), &[])) {
        let request = site.honest(&visit, &Holder::new()).request();
        visit.ask(&request).assert_ended();
    }
    for version in ["-tls1_2", "-tls1_1"] {
        let address = site.address.to_string();
        let arguments = ["s_client", version, "-connect", &address];
        let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !said.contains("BEGIN CERTIFICATE"), "{version}: {said}");
    }
    for plain in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4_096], &[0x16, 3, 1, 0xff, 0xff]] {
        let mut stream = TcpStream::connect(site.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(plain).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() <= 7, "an alert at most: {answer:02x?}");
    }
    site.assert_serves();
    assert_eq!(site.close(), log(1, &[]));
}

/// The bytes of a whole good session, recorded on the wire and sent again.
#[test]
fn recorded_bytes_of_a_session() {
    let Some(ground) = stage("recorded bytes") else { return };
    let mut site = Site::open(&ground, CONNECTIONS);
    let (authority, tap) = (site.address, Tap::start(site.address, Tamper::Nothing).unwrap());
    site.address = tap.address();
    site.assert_serves();
    site.address = authority;
    let recorded: Vec<u8> =
        tap.chunks().into_iter().filter(|chunk| chunk.way == Way::Up).flat_map(|chunk| chunk.bytes).collect();
    assert!(recorded.len() > 4_000, "handshake and request: {} bytes", recorded.len());
    for _ in 0..3 {
        let mut stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&recorded).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 1_000, "the authority's half of a handshake and an alert, not {} bytes", answer.len());
    }
    site.assert_serves();
    assert_eq!(site.close(), log(2, &[]));
}

/// A flood of refusals is listed up to a bound and then counted: strangers cannot fill the disk, nor push a grant out of
/// the log.
#[test]
fn a_flood_of_refusals_does_not_flood_the_log() {
    let Some(ground) = stage("a flood of refusals") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let garbage = frame::wrap(&[0xa5; 100], usize::MAX).unwrap();
    for _ in 0..150 {
        let mut visit = site.visit(&holder.key);
        visit.send(&garbage);
        visit.answer(&EncodedBinding::received(Vec::new())).assert_refused("malformed");
    }
    site.assert_serves();
    let closed = site.close();
    assert_eq!(closed.granted, 1);
    // More than a minute's bound only if the flood took longer than a minute.
    assert!((100..150).contains(&closed.refused.len()), "{} refusals are listed", closed.refused.len());
}

#[test]
fn a_crowd_of_idlers_does_not_stop_the_others() {
    let Some(ground) = stage("idlers") else { return };
    let site = Site::open(&ground, CONNECTIONS);
    let holder = Holder::new();
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(site.address).unwrap()).collect();
    let mut slow: Vec<_> = (0..20).map(|_| site.visit(&holder.key)).collect();
    for byte in frame::wrap(&[0x84; 64], usize::MAX).unwrap().iter().take(6) {
        for visit in &mut slow {
            visit.send(&[*byte]);
        }
        site.assert_serves();
    }
    drop((silent, slow));
    site.assert_serves();
    assert_eq!(site.close(), log(7, &[]));
}

#[test]
fn no_more_are_served_at_a_time_than_there_are_places() {
    let Some(ground) = stage("too many connections") else { return };
    let places = 3;
    let site = Site::open(&ground, places);
    let holder = Holder::new();
    let mut seated: Vec<_> = (0..places).map(|_| site.visit(&holder.key)).collect();
    // One too many is connected by the kernel and heard by nobody, until a place is given back.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| site.assert_serves());
        std::thread::sleep(Duration::from_millis(500));
        assert!(!waiting.is_finished(), "a fourth guest was served beside three");
        drop(seated.pop());
        waiting.join().unwrap();
    });
    // Whoever sits there is served, too.
    let mut visit = seated.pop().unwrap();
    let request = site.honest(&visit, &holder).request();
    assert!(matches!(visit.ask(&request), Answer::Granted(_)));
    drop((visit, seated));
    assert_eq!(site.close(), log(2, &[]));
}
