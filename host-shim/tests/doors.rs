//! The guest side's doors: the socket file (whose it is, who may open it, what it may replace), the vsock port, and the
//! virtio port that somebody else listens on.

mod world;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use inwit_shim::{BindError, Limits, Listen, Phase, Upstream};
use world::{Authority, PATIENCE, Place, Running, echoes, read_all, tcp};

fn start(listen: Listen, to: Upstream) -> Result<Running, BindError> {
    Running::start(listen, to, Limits::default())
}

#[test]
fn the_socket_is_for_its_owner_only_and_leaves_with_the_relay() {
    let place = Place::new();
    let relay = place.relay(Authority::echoing(), Limits::default());
    let found = fs::symlink_metadata(place.path("guest.sock")).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    relay.finish(Phase::Draining);
    assert!(!place.path("guest.sock").exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.path("guest.sock")).unwrap());
    assert!(place.path("guest.sock").exists());
    let relay = place.relay(Authority::echoing(), Limits::default());
    assert!(echoes(&place.guest(), 1));
    relay.finish(Phase::Closing);
}

#[test]
fn a_living_socket_is_left_alone() {
    let place = Place::new();
    let path = place.path("guest.sock");
    let owner = UnixListener::bind(&path).unwrap();
    assert!(matches!(start(Listen::Unix(path.clone()), tcp(1)), Err(BindError::InUse(_))));
    owner.accept().expect("the probe");
    // Also one that is alive and too busy to answer.
    let _crowd: Vec<_> = std::iter::from_fn(|| {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&socket2::SockAddr::unix(&path).unwrap()).ok().map(|()| socket)
    })
    .collect();
    assert!(matches!(start(Listen::Unix(path.clone()), tcp(1)), Err(BindError::InUse(_))));
    assert!(path.exists());
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let place = Place::new();
    let (file, link, folder) = (place.path("file"), place.path("link"), place.path("folder"));
    fs::write(&file, "precious").unwrap();
    drop(UnixListener::bind(place.path("stale")).unwrap());
    symlink(place.path("stale"), &link).unwrap();
    fs::create_dir(&folder).unwrap();
    for path in [&file, &link, &folder] {
        let error = start(Listen::Unix(path.clone()), tcp(1)).err().expect("refused");
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(link.is_symlink() && place.path("stale").exists());
}

#[test]
fn a_successors_socket_is_not_removed() {
    let place = Place::new();
    let relay = place.relay(Authority::echoing(), Limits::default());
    fs::rename(place.path("guest.sock"), place.path("old.sock")).unwrap();
    let _successor = UnixListener::bind(place.path("guest.sock")).unwrap();
    relay.finish(Phase::Draining);
    assert!(place.path("guest.sock").exists());
}

#[test]
fn an_impossible_folder_is_named() {
    let place = Place::new();
    let error = start(Listen::Unix(place.path("missing/guest.sock")), tcp(1)).err().expect("cannot be bound");
    assert!(error.to_string().contains("missing/guest.sock"), "{error}");
}

#[test]
fn a_vsock_port_is_opened_or_its_absence_explained() {
    let port = 50_000 + std::process::id() % 10_000;
    match start(Listen::Vsock(port), tcp(1)) {
        Ok(relay) => {
            relay.wait_for(1, &[r#""event":"ready""#, &format!("vsock:{port}")]);
            let second = start(Listen::Vsock(port), tcp(1)).err().expect("the port is taken");
            assert!(second.to_string().contains(&port.to_string()), "{second}");
            relay.finish(Phase::Draining);
        }
        Err(error) => {
            writeln!(std::io::stderr(), "no vsock in this kernel: only the refusal was tested").unwrap();
            assert!(matches!(error, BindError::NoVsock { .. }), "{error}");
            assert!(error.to_string().contains("unix:"), "the way out is named: {error}");
        }
    }
}

/// The test plays QEMU: it listens on the port's socket and the relay dials.
struct Port(UnixListener);

impl Port {
    fn open(place: &Place) -> Self {
        Self(UnixListener::bind(place.path("port.sock")).unwrap())
    }

    fn dialled(&self) -> UnixStream {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

#[test]
fn a_virtio_port_is_dialled_again_after_every_stream() {
    let (place, authority) = (Place::new(), Authority::new());
    let port = Port::open(&place);
    let relay = start(Listen::Virtio(place.path("port.sock")), authority.address()).unwrap();
    for round in 0..3 {
        let mut near = port.dialled();
        thread::sleep(Duration::from_millis(100));
        assert!(authority.is_unvisited(), "an idle VM costs the authority nothing");
        near.write_all(b"first").unwrap();
        let mut far = authority.accept();
        let mut heard = [0; 5];
        far.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"first");
        far.write_all(b"answer").unwrap();
        // Either side may end the stream.
        if round == 1 {
            let mut heard = [0; 6];
            near.read_exact(&mut heard).unwrap();
            drop(near);
            assert_eq!(read_all(&far), b"");
        } else {
            drop(far);
            assert_eq!(read_all(&near), b"answer");
        }
    }
    relay.wait_for(3, &[r#""event":"closed""#]);
    let _idle = port.dialled();
    assert_eq!(relay.finish(Phase::Draining).opened, 3);
}

#[test]
fn a_vm_that_comes_later_or_goes_away_is_waited_for() {
    let place = Place::new();
    let relay = start(Listen::Virtio(place.path("port.sock")), Authority::echoing()).unwrap();
    relay.wait_for(1, &[r#""event":"trouble""#]);
    for seed in 0..2 {
        let port = Port::open(&place);
        drop(port.dialled());
        let near = port.dialled();
        assert!(echoes(&near, seed));
        drop((near, port));
        fs::remove_file(place.path("port.sock")).unwrap();
    }
    relay.finish(Phase::Draining);
}

#[test]
fn a_virtio_stream_may_finish_during_the_drain() {
    let place = Place::new();
    let port = Port::open(&place);
    let relay = start(Listen::Virtio(place.path("port.sock")), Authority::echoing()).unwrap();
    let near = port.dialled();
    assert!(echoes(&near, 1));
    relay.stop.send(Phase::Draining).unwrap();
    assert!(echoes(&near, 2));
    drop(near);
    assert_eq!(relay.finish(Phase::Draining).bytes_up, 2000);
    port.0.set_nonblocking(true).unwrap();
    assert!(port.0.accept().is_err(), "not dialled again");
}
