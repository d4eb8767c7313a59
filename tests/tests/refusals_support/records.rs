//! A hostile relay that knows what TLS records are: it alters, drops, repeats, swaps, cuts or puts in single records of one
//! direction. It sees ciphertext only, as any host does; it judges nothing.

use inwit_tests::stage::play::{Between, Twist};
use inwit_tests::stage::tap::Way;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of a record's header: type, legacy version (2), length (2, big-endian).
pub const HEADER: usize = 5;

/// What is done to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Passed on, byte by byte.
    Dribble,
    /// Withheld; everything after it passes.
    Drop,
    /// This bit of this byte is inverted, the header counted in; from the end where negative.
    Flip(isize, u8),
    /// Preceded by these bytes.
    Inject(Vec<u8>),
    /// Withheld, and everything after it.
    Silence,
    /// Changes places with the next one.
    Swap,
    /// Cut after so many bytes, then both ways are closed.
    Truncate(usize),
    /// Sent twice.
    Twice,
}

/// One record of one direction, counted from 0, and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub way: Way,
    pub record: usize,
    pub act: Act,
}

/// Whole records as they arrived, before anything was done to them.
pub type Seen = Arc<Mutex<Vec<(Way, Vec<u8>)>>>;

impl Plan {
    /// The twist that puts this relay before the authority.
    pub fn twist(&self) -> Twist {
        self.recording().0
    }

    /// The same, with what passes.
    pub fn recording(&self) -> (Twist, Seen) {
        let (plan, seen) = (self.clone(), Seen::default());
        let record = Arc::clone(&seen);
        let open = move |authority| listen(authority, plan.clone(), Arc::clone(&record));
        (Twist::Between(Between(Arc::new(open))), seen)
    }
}

fn listen(authority: SocketAddr, plan: Plan, seen: Seen) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    // Ends with the test process; a play makes one connection.
    thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let Ok(far) = TcpStream::connect(authority) else { continue };
            for (way, from, to) in [(Way::Up, &near, &far), (Way::Down, &far, &near)] {
                let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
                let _ = to.set_nodelay(true);
                let (plan, seen) = (plan.clone(), Arc::clone(&seen));
                thread::spawn(move || pass(way, from, to, &plan, &seen));
            }
        }
    });
    Ok(address)
}

fn pass(way: Way, mut from: TcpStream, mut to: TcpStream, plan: &Plan, seen: &Seen) {
    let mut held = None;
    for number in 0.. {
        let Some(record) = read_record(&mut from) else { break };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push((way, record.clone()));
        let done = if way == plan.way && number == plan.record {
            tamper(&mut to, record, &plan.act, &mut held)
        } else {
            to.write_all(&record)
        };
        let late = if way == plan.way && number > plan.record { held.take() } else { None };
        let late = late.map_or(Ok(()), |late: Vec<u8>| to.write_all(&late));
        if done.is_err() || late.is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// An error ends the direction.
fn tamper(to: &mut TcpStream, mut record: Vec<u8>, act: &Act, held: &mut Option<Vec<u8>>) -> std::io::Result<()> {
    match act {
        Act::Dribble => record.chunks(1).try_for_each(|byte| {
            thread::sleep(Duration::from_micros(50));
            to.write_all(byte)
        }),
        Act::Drop => Ok(()),
        Act::Flip(at, bit) => {
            let at = if *at < 0 { record.len().saturating_add_signed(*at) } else { at.unsigned_abs() };
            record[at] ^= 1 << bit;
            to.write_all(&record)
        }
        Act::Inject(bytes) => to.write_all(bytes).and_then(|()| to.write_all(&record)),
        Act::Silence => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        Act::Swap => {
            *held = Some(record);
            Ok(())
        }
        Act::Truncate(length) => {
            to.write_all(record.get(..*length).unwrap_or(&record))?;
            let _ = to.shutdown(Shutdown::Both);
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Act::Twice => to.write_all(&record).and_then(|()| to.write_all(&record)),
    }
}

fn read_record(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; HEADER];
    from.read_exact(&mut record).ok()?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(HEADER + length, 0);
    from.read_exact(&mut record[HEADER..]).ok()?;
    Some(record)
}
