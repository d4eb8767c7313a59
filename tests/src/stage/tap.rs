//! The host's tap: everything that passes between the shim and the authority goes through here, is kept, and may be
//! tampered with. It is what a hostile host has: the bytes, and all the time in the world.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which way a chunk went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the guest to the authority.
    Up,
    /// From the authority to the guest.
    Down,
}

/// What the host does to the bytes of one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// Passes everything on.
    Nothing,
    /// Flips a bit of the byte at this offset.
    Flip(Way, usize),
    /// Passes on so many bytes, then closes.
    Truncate(Way, usize),
    /// Sends the chunk that holds this offset twice.
    Duplicate(Way, usize),
    /// Holds back the chunk that holds this offset until the next has passed.
    Reorder(Way, usize),
    /// Waits before each chunk.
    Delay(Way, Duration),
    /// Puts so many foreign bytes in front.
    Inject(Way, usize),
}

/// One chunk that passed.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Which connection, from 0.
    pub connection: usize,
    /// Its direction.
    pub way: Way,
    /// Its bytes, before tampering.
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Seen {
    chunks: Vec<Chunk>,
    connections: usize,
}

/// A running tap.
pub struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Tap {
    /// Listens on a free loopback port and passes on to `to`.
    pub fn start(to: SocketAddr, tamper: Tamper) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (record, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(near), Ok(far)) = (stream, TcpStream::connect(to)) else { continue };
                let number = {
                    let mut seen = record.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    seen.connections += 1;
                    seen.connections - 1
                };
                pass(&near, &far, number, Way::Up, tamper, &record);
                pass(&far, &near, number, Way::Down, tamper, &record);
            }
        });
        Ok(Self { address, seen, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that passed so far.
    pub fn chunks(&self) -> Vec<Chunk> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).chunks.clone()
    }

    /// How many bytes passed.
    pub fn bytes(&self) -> usize {
        self.chunks().iter().map(|chunk| chunk.bytes.len()).sum()
    }

    /// Round trips of a connection after the TLS handshake's one: how often the direction turned from up to down, less one.
    pub fn exchanges(&self, connection: usize) -> usize {
        let chunks = self.chunks();
        let ways: Vec<Way> =
            chunks.iter().filter(|c| c.connection == connection && !c.bytes.is_empty()).map(|c| c.way).collect();
        let turns = ways.windows(2).filter(|pair| matches!(pair, [Way::Up, Way::Down])).count();
        turns.saturating_sub(1)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address); // wakes the accepting thread
    }
}

fn pass(from: &TcpStream, to: &TcpStream, connection: usize, way: Way, tamper: Tamper, record: &Arc<Mutex<Seen>>) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let _ = to.set_nodelay(true);
    let record = Arc::clone(record);
    std::thread::spawn(move || {
        let (mut offset, mut held) = (0, None::<Vec<u8>>);
        let mut buffer = vec![0; 65_536];
        if let Tamper::Inject(w, count) = tamper
            && w == way
        {
            let _ = to.write_all(&vec![0x16; count]);
        }
        while let Ok(count) = from.read(&mut buffer) {
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            let chunk = Chunk { connection, way, bytes: bytes.to_vec() };
            record.lock().unwrap_or_else(std::sync::PoisonError::into_inner).chunks.push(chunk);
            if send(&mut to, bytes, offset, way, tamper, &mut held).is_err() {
                break;
            }
            offset += count;
        }
        if let Some(late) = held {
            let _ = to.write_all(&late);
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Sends one chunk as the tampering says; an error ends the way.
fn send(
    to: &mut TcpStream,
    bytes: &[u8],
    offset: usize,
    way: Way,
    tamper: Tamper,
    held: &mut Option<Vec<u8>>,
) -> std::io::Result<()> {
    let within = |at: usize| (offset..offset + bytes.len()).contains(&at);
    match tamper {
        Tamper::Flip(w, at) if w == way && within(at) => {
            let mut bytes = bytes.to_vec();
            if let Some(byte) = bytes.get_mut(at - offset) {
                *byte ^= 1;
            }
            to.write_all(&bytes)
        }
        Tamper::Truncate(w, at) if w == way && offset + bytes.len() > at => {
            to.write_all(bytes.get(..at.saturating_sub(offset)).unwrap_or_default())?;
            let _ = to.shutdown(Shutdown::Both);
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Tamper::Duplicate(w, at) if w == way && within(at) => {
            to.write_all(bytes)?;
            to.write_all(bytes)
        }
        Tamper::Reorder(w, at) if w == way && within(at) && held.is_none() => {
            // Within one chunk as well: its halves change places, so that a single chunk is not just delayed.
            let (first, second) = bytes.split_at(bytes.len() / 2);
            to.write_all(second)?;
            *held = Some(first.to_vec());
            to.write_all(&held.take().unwrap_or_default())
        }
        Tamper::Delay(w, time) if w == way => {
            std::thread::sleep(time);
            to.write_all(bytes)
        }
        _ => to.write_all(bytes),
    }
}
