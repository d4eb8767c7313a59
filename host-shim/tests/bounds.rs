//! What a route may use is bounded, and hitting a bound harms only the one who hit it: connections, idle time, connect
//! time, drain time, and floods of everything at once. Times here are only ever lower bounds or patience.

mod world;

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use inwit_shim::{Limits, Phase};
use socket2::{Domain, SockRef, Socket, Type};
use world::{Authority, Place, echoes, noise, tcp};

#[test]
fn one_guest_too_many_is_closed_and_a_freed_place_is_taken() {
    let place = Place::new();
    let relay = place.relay(Authority::echoing(), Limits { connections: 2, ..Limits::default() });
    let (first, second) = (place.guest(), place.guest());
    assert!(echoes(&first, 1) && echoes(&second, 2));
    for count in 1..=3 {
        let mut third = place.guest();
        assert!(matches!(third.read(&mut [0]), Ok(0) | Err(_)), "closed, not queued");
        relay.wait_for(1, &[r#""event":"refused""#, &format!(r#""refused":{count}"#)]);
    }
    drop(first);
    relay.wait_for(1, &[r#""event":"closed""#]);
    assert!(echoes(&place.guest(), 3));
    assert!(echoes(&second, 4), "the refusals did not touch who was there");
    let totals = relay.finish(Phase::Closing);
    assert_eq!((totals.opened, totals.refused), (3, 3));
}

#[test]
fn an_idle_connection_is_closed_and_a_slow_talker_is_not() {
    let (place, authority) = (Place::new(), Authority::echoing());
    let relay = place.relay(authority, Limits { idle: Some(Duration::from_secs(2)), ..Limits::default() });
    let (mut silent, talker) = (place.guest(), place.guest());
    for seed in 0..30 {
        assert!(echoes(&talker, seed), "closed though it spoke");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    relay.wait_for(1, &[r#""reason":"idle""#, r#""bytes_up":0"#]);
    assert!(echoes(&talker, 99));
    relay.finish(Phase::Closing);
}

#[test]
fn a_stalled_transfer_counts_as_idle() {
    let (place, authority) = (Place::new(), Authority::new());
    let relay = place.relay(authority.address(), Limits { idle: Some(Duration::from_secs(1)), ..Limits::default() });
    let (_never_reads, far) = (place.guest(), authority.accept());
    let block = noise(1 << 20, 4);
    let mut far_writing = &far;
    while far_writing.write(&block).is_ok() {}
    relay.wait_for(1, &[r#""reason":"idle""#]);
    relay.finish(Phase::Draining);
}

#[test]
fn an_authority_that_never_answers_costs_the_connect_time_only() {
    // A listener with a full queue: the kernel drops further attempts without a word.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let fillers: Vec<_> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    let place = Place::new();
    let to = tcp(address.as_socket().unwrap().port());
    let relay = place.relay(to, Limits { connect: Duration::from_millis(500), ..Limits::default() });
    let mut near = place.guest();
    assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)));
    relay.wait_for(1, &[r#""reason":"unreachable""#, "timed out"]);
    drop(fillers);
    relay.finish(Phase::Draining);
}

#[test]
fn two_thousand_visitors_leave_nothing_behind() {
    let place = Place::new();
    let relay = place.relay(Authority::echoing(), Limits { connections: 64, ..Limits::default() });
    let steady = place.guest();
    assert!(echoes(&steady, 0));
    let garbage = noise(5000, 1);
    for visit in 0..2000 {
        let mut guest = place.guest();
        match visit % 4 {
            // Refused guests may see an error here, which is theirs to bear.
            0 => drop(guest.write(&garbage)),
            1 => drop(guest.shutdown(std::net::Shutdown::Write)),
            2 => drop(guest.shutdown(std::net::Shutdown::Read)),
            _ => {}
        }
    }
    assert!(echoes(&steady, 1), "the flood closed somebody else");
    drop(steady);
    let deadline = std::time::Instant::now() + world::PATIENCE;
    let count = |kind: &str| relay.events().iter().filter(|event| event.contains(kind)).count();
    while count(r#""opened""#) + count(r#""refused""#) < 2001 || count(r#""closed""#) < count(r#""opened""#) {
        assert!(std::time::Instant::now() < deadline, "some visitors were lost");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(echoes(&place.guest(), 2));
    let totals = relay.finish(Phase::Draining);
    assert_eq!(totals.opened + totals.refused, 2002);
}

#[test]
fn draining_takes_nobody_new_and_lets_the_others_finish() {
    let place = Place::new();
    let relay = place.relay(Authority::echoing(), Limits { drain: Duration::from_secs(600), ..Limits::default() });
    let guest = place.guest();
    assert!(echoes(&guest, 1));
    relay.stop.send(Phase::Draining).unwrap();
    while place.path("guest.sock").exists() {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(std::os::unix::net::UnixStream::connect(place.path("guest.sock")).is_err());
    assert!(echoes(&guest, 2));
    drop(guest);
    let totals = relay.finish(Phase::Draining);
    assert_eq!((totals.opened, totals.bytes_up, totals.bytes_down), (1, 2000, 2000));
}

#[test]
fn what_does_not_finish_is_closed_after_the_drain_or_at_once() {
    let cases = [(Phase::Draining, Duration::from_millis(200)), (Phase::Closing, Duration::from_secs(600))];
    for (phase, drain) in cases {
        let place = Place::new();
        let relay = place.relay(Authority::echoing(), Limits { drain, ..Limits::default() });
        let mut guest = place.guest();
        assert!(echoes(&guest, 1));
        relay.stop.send(phase).unwrap();
        assert_eq!(guest.read(&mut [0]).unwrap(), 0);
        relay.wait_for(1, &[r#""reason":"drained""#, r#""bytes_up":1000"#]);
        relay.finish(phase);
    }
}

#[test]
fn a_guest_that_leaves_during_the_connect_is_forgotten() {
    let (place, authority) = (Place::new(), Authority::new());
    let relay = place.relay(authority.address(), Limits::default());
    drop(place.guest());
    let far = authority.accept();
    let mut byte = [MaybeUninit::uninit()];
    assert_eq!(SockRef::from(&far).recv(&mut byte).unwrap(), 0);
    drop(far);
    relay.wait_for(1, &[r#""event":"closed""#]);
    relay.finish(Phase::Draining);
}
