//! Bytes through the relay: the same ones, in order, to the end, in both directions, whatever their number; ends and
//! resets passed on; a slow or broken peer felt by its own connection only.

mod world;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::thread;

use inwit_shim::{Limits, Phase, Upstream};
use socket2::SockRef;
use std::time::Duration;
use world::{Authority, Place, echoes, noise, read_all, write_in_pieces};

const SIZES: [usize; 6] = [0, 1, 4096, 65_537, 300_001, 8 << 20];

#[test]
fn every_size_arrives_unchanged_in_both_directions_at_once() {
    for lanes in [0, 1, 64] {
        let (place, authority) = (Place::new(), Authority::new());
        let relay = place.relay(authority.address(), Limits { lanes, ..Limits::default() });
        for (index, size) in SIZES.into_iter().enumerate() {
            let (up, down) = (noise(size, index as u64), noise(size, 1000 + index as u64));
            let (near, far) = (place.guest(), authority.accept());
            let (heard_far, heard_near) = thread::scope(|scope| {
                let heard = [scope.spawn(|| read_all(&far)), scope.spawn(|| read_all(&near))];
                scope.spawn(|| {
                    write_in_pieces(&near, &up);
                    near.shutdown(Shutdown::Write).unwrap();
                });
                write_in_pieces(&far, &down);
                far.shutdown(Shutdown::Write).unwrap();
                let [far, near] = heard.map(|thread| thread.join().unwrap());
                (far, near)
            });
            assert!(heard_far == up, "{size} bytes up, {lanes} lanes: {} arrived", heard_far.len());
            assert!(heard_near == down, "{size} bytes down, {lanes} lanes: {} arrived", heard_near.len());
            let counts = format!(r#""bytes_up":{size},"bytes_down":{size},"reason":"ended""#);
            relay.wait_for(1, &[&counts]);
        }
        let totals = relay.finish(Phase::Draining);
        let sum = SIZES.iter().sum::<usize>() as u64;
        assert_eq!((totals.opened, totals.bytes_up, totals.bytes_down), (SIZES.len() as u64, sum, sum));
    }
}

#[test]
fn a_unix_authority_gets_the_same_bytes() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path("authority.sock")).unwrap();
    let relay = place.relay(Upstream::Unix(place.path("authority.sock")), Limits::default());
    let sent = noise(3 << 20, 5);
    let near = place.guest();
    let (mut far, _) = listener.accept().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            write_in_pieces(&near, &sent);
            near.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&far) == sent);
    });
    far.write_all(b"done").unwrap();
    drop(far);
    assert_eq!(read_all(&near), b"done");
    relay.finish(Phase::Draining);
}

#[test]
fn after_the_guests_end_the_answer_still_comes() {
    let (place, authority) = (Place::new(), Authority::new());
    let relay = place.relay(authority.address(), Limits::default());
    let (mut near, mut far) = (place.guest(), authority.accept());
    near.write_all(b"question").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&far), b"question");
    let answer = noise(1 << 20, 1);
    thread::scope(|scope| {
        scope.spawn(|| far.write_all(&answer).and_then(|()| far.shutdown(Shutdown::Write)).unwrap());
        assert!(read_all(&near) == answer);
    });
    relay.finish(Phase::Draining);
}

#[test]
fn after_the_authoritys_end_the_guest_may_still_speak() {
    let (place, authority) = (Place::new(), Authority::new());
    let relay = place.relay(authority.address(), Limits::default());
    let (near, mut far) = (place.guest(), authority.accept());
    far.write_all(b"bye").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&near), b"bye");
    let last = noise(1 << 20, 2);
    thread::scope(|scope| {
        scope.spawn(|| {
            write_in_pieces(&near, &last);
            near.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&far) == last);
    });
    relay.wait_for(1, &[r#""reason":"ended""#]);
    relay.finish(Phase::Draining);
}

#[test]
fn a_reset_by_the_authority_closes_the_guest() {
    let (place, authority) = (Place::new(), Authority::new());
    let relay = place.relay(authority.address(), Limits::default());
    let (mut near, mut far) = (place.guest(), authority.accept());
    // A reset before the relay has seen the connection would only make the authority unreachable.
    far.write_all(b"!").unwrap();
    near.read_exact(&mut [0]).unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    // End or error: the point is that it does not wait for the idle time.
    assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)));
    relay.wait_for(1, &[r#""event":"closed""#, r#""reason":"broken""#]);
    relay.finish(Phase::Draining);
}

#[test]
fn a_broken_guest_does_not_look_finished_to_the_authority() {
    let (place, authority) = (Place::new(), Authority::new());
    let relay = place.relay(authority.address(), Limits::default());
    let (near, mut far) = (place.guest(), authority.accept());
    far.write_all(b"never read").unwrap();
    // Wait until the bytes lie in the guest's socket: closing it then is a reset.
    while SockRef::from(&near).peek(&mut [std::mem::MaybeUninit::uninit()]).unwrap() == 0 {}
    drop(near);
    let error = far.read(&mut [0]).expect_err("a clean end would be a lie");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    relay.finish(Phase::Draining);
}

#[test]
fn slow_readers_are_held_back_and_stall_nobody_else() {
    let (place, authority) = (Place::new(), Authority::new());
    // Fewer lanes than slow readers: the others must not depend on what these hold.
    let relay = place.relay(authority.address(), Limits { lanes: 2, ..Limits::default() });
    let slow: Vec<_> = (0..6).map(|_| (place.guest(), authority.accept())).collect();
    let mut sent = Vec::new();
    for (_, far) in &slow {
        let mut far = far;
        far.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let (block, mut count) = (noise(64 * 1024, 9), 0);
        while let Ok(more @ 1..) = far.write(&block[count % block.len()..]) {
            count += more;
            assert!(count < 256 << 20, "nobody reads, yet everything is taken: where does it go?");
        }
        sent.push(count);
    }
    let (near, mut far) = (place.guest(), authority.accept());
    for seed in 0..20 {
        let said = noise(100_000, seed);
        let mut heard = vec![0; said.len()];
        (&near).write_all(&said).unwrap();
        far.read_exact(&mut heard).unwrap();
        assert!(heard == said);
    }
    // What was held back is all there once the reader reads.
    for ((near, far), sent) in slow.into_iter().zip(sent) {
        far.shutdown(Shutdown::Write).unwrap();
        let heard = read_all(&near);
        let expected: Vec<u8> = noise(64 * 1024, 9).into_iter().cycle().take(sent).collect();
        assert!(heard == expected, "{} of {sent} bytes came through unchanged", heard.len());
    }
    relay.finish(Phase::Closing);
}

#[test]
fn an_absent_authority_closes_the_guest_and_a_later_one_is_found() {
    let place = Place::new();
    let port = Authority::new().address();
    let relay = place.relay(port.clone(), Limits::default());
    let mut near = place.guest();
    assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)));
    relay.wait_for(1, &[r#""reason":"unreachable""#, "refused"]);
    let Upstream::Tcp { port, .. } = port else { unreachable!() };
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut near = place.guest();
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(b"here").unwrap();
    let mut heard = [0; 4];
    near.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"here");
    drop((near, far));
    assert_eq!(relay.finish(Phase::Draining).unreachable, 1);
}

#[test]
fn a_name_is_resolved() {
    let (place, authority) = (Place::new(), Authority::echoing());
    let Upstream::Tcp { port, .. } = authority else { unreachable!() };
    let relay = place.relay(Upstream::Tcp { host: "localhost".to_owned(), port }, Limits::default());
    assert!(echoes(&place.guest(), 3));
    relay.finish(Phase::Closing);
}

#[test]
fn a_limited_connection_still_delivers_everything() {
    let place = Place::new();
    let bandwidth = std::num::NonZeroU64::new(4 << 20);
    let relay = place.relay(Authority::echoing(), Limits { bandwidth, ..Limits::default() });
    let (near, sent) = (place.guest(), noise(1 << 20, 7));
    thread::scope(|scope| {
        scope.spawn(|| {
            write_in_pieces(&near, &sent);
            near.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&near) == sent);
    });
    relay.finish(Phase::Draining);
}
