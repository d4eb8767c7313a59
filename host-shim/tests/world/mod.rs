//! The world around a relay under test: guests, authorities, and the relay on a thread of its own. Everything here
//! blocks with a time limit, so a relay that hangs fails a test instead of stopping it. It measures no time.
#![allow(dead_code)] // Each test file uses its own part of this.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use inwit_shim::{BindError, Limits, Listen, Phase, Relay, Route, Totals, Upstream, Watcher};
use tokio::sync::watch;

/// How long anything may take before the test gives up; far beyond what is ever needed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A relay running on its own thread.
pub(crate) struct Running {
    pub(crate) stop: watch::Sender<Phase>,
    events: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<Totals>,
}

impl Running {
    /// Binds and runs; the events are kept in their JSON form.
    pub(crate) fn start(listen: Listen, to: Upstream, limits: Limits) -> Result<Self, BindError> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&events);
        let watcher: Watcher = Arc::new(move |event| kept.lock().unwrap().push(event.to_json()));
        let (stop, seen) = watch::channel(Phase::Relaying);
        let (bound, outcome) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                match Relay::bind(Route { listen, to }, limits, watcher) {
                    Ok(relay) => {
                        bound.send(Ok(())).unwrap();
                        relay.run(seen).await
                    }
                    Err(error) => {
                        bound.send(Err(error)).unwrap();
                        Totals::default()
                    }
                }
            })
        });
        outcome.recv_timeout(PATIENCE).expect("binding ends")?;
        Ok(Self { stop, events, thread })
    }

    /// Waits for `count` events with all of `parts` in them and returns the last.
    pub(crate) fn wait_for(&self, count: usize, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let matching: Vec<String> = {
                let events = self.events.lock().unwrap();
                events.iter().filter(|event| parts.iter().all(|part| event.contains(part))).cloned().collect()
            };
            match matching.last() {
                Some(last) if matching.len() >= count => return last.clone(),
                _ if Instant::now() > deadline => panic!("no {count} events with {parts:?}: {:#?}", self.events()),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    /// Stops, if it has not ended by itself, and returns the totals.
    pub(crate) fn finish(self, phase: Phase) -> Totals {
        let _ = self.stop.send(phase);
        self.thread.join().expect("the relay did not panic")
    }
}

/// A folder for sockets, and the usual route in it.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A relay from `guest.sock` here to `to`.
    pub(crate) fn relay(&self, to: Upstream, limits: Limits) -> Running {
        Running::start(Listen::Unix(self.path("guest.sock")), to, limits).expect("binds")
    }

    /// A new guest of that relay.
    pub(crate) fn guest(&self) -> UnixStream {
        guest(&self.path("guest.sock"))
    }
}

pub(crate) fn guest(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the relay listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An authority side that the test plays by hand.
pub(crate) struct Authority {
    listener: TcpListener,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
    }

    pub(crate) fn address(&self) -> Upstream {
        tcp(self.listener.local_addr().unwrap().port())
    }

    pub(crate) fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Whether nobody has connected so far.
    pub(crate) fn is_unvisited(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        let visited = self.listener.accept().is_ok();
        self.listener.set_nonblocking(false).unwrap();
        !visited
    }

    /// An authority that answers every connection with its own bytes until the process ends.
    pub(crate) fn echoing() -> Upstream {
        let authority = Self::new();
        let address = authority.address();
        thread::spawn(move || {
            loop {
                let stream = authority.accept();
                thread::spawn(move || echo(stream));
            }
        });
        address
    }
}

pub(crate) fn tcp(port: u16) -> Upstream {
    Upstream::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// Returns every byte, and the end when it comes. Errors are the peer's choice and end it.
fn echo(mut stream: TcpStream) {
    let mut block = vec![0; 50_000];
    while let Ok(count @ 1..) = stream.read(&mut block) {
        if stream.write_all(&block[..count]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// `length` bytes that repeat nowhere soon and differ by `seed` (xorshift64).
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// Writes in pieces of changing size, so that no boundary is special.
pub(crate) fn write_in_pieces(mut to: impl Write, mut bytes: &[u8]) {
    let mut size = 1;
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        to.write_all(piece).expect("the peer takes it");
        bytes = rest;
        size = size * 7 % 99_991 + 1;
    }
}

/// Reads to the end.
pub(crate) fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("the stream ends in order");
    bytes
}

/// One question, one answer, over a connection that stays open.
pub(crate) fn echoes(mut guest: &UnixStream, seed: u64) -> bool {
    let said = noise(1000, seed);
    let mut heard = vec![0; said.len()];
    guest.write_all(&said).and_then(|()| guest.read_exact(&mut heard)).is_ok() && heard == said
}
