//! The host's end of the simulated mailbox: the kernel module of a QEMU guest asks, a [`Device`] answers.
//!
//! QEMU connects the guest's second UART to a unix socket on which a [`Mailbox`] listens. The guest is the system under
//! test and may send anything; connections, frames and memory are bounded. It never measures a guest: what the machine
//! states was put there by the test.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;

use super::{Device, HardwareError};
use frame::Parsed;

mod frame;

/// A test boots one or two guests at a time; a restarted guest comes as a new connection.
const MAX_CONNECTIONS: usize = 8;

/// A listening mailbox. Dropping it ends every connection and removes the socket.
#[derive(Debug)]
pub struct Mailbox {
    path: PathBuf,
    device: Device,
    shared: Arc<Mutex<Connections>>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Connections {
    closing: bool,
    next: u64,
    open: BTreeMap<u64, UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Mailbox {
    /// Listens on a unix socket at `path`; a socket file left there by a killed process is replaced.
    pub fn listen(path: &Path, device: impl Into<Device>) -> Result<Self, HardwareError> {
        let io_error = |source: io::Error| HardwareError::Io { path: path.to_owned(), source };
        if UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path).map_err(io_error)?;
        }
        let listener = UnixListener::bind(path).map_err(io_error)?;
        let device = device.into();
        let shared = Arc::new(Mutex::new(Connections::default()));
        let acceptor = {
            let (shared, device) = (Arc::clone(&shared), device.clone());
            thread::spawn(move || accept(&listener, &shared, &device))
        };
        Ok(Self { path: path.to_owned(), device, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device behind it.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        lock(&self.shared).closing = true;
        // A connection of our own wakes the accepting thread.
        let _ = UnixStream::connect(&self.path);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let threads = {
            let mut connections = lock(&self.shared);
            connections.open.values().for_each(|stream| {
                let _ = stream.shutdown(Shutdown::Both);
            });
            std::mem::take(&mut connections.threads)
        };
        for thread in threads {
            // Repeated, because a request read before the shutdown may begin its wait after the first interrupt.
            while !thread.is_finished() {
                self.device.interrupt();
                thread::sleep(Duration::from_millis(1));
            }
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// QEMU arguments that give the guest a mailbox UART at the module's default port, connected to the socket at `path`.
///
/// Commas in the path are doubled, as QEMU's option syntax demands. The mailbox must listen before QEMU starts. The
/// guest's first UART, usually its console, has to be declared before this one.
pub fn qemu_arguments(path: &Path) -> [String; 4] {
    let path = path.display().to_string().replace(',', ",,");
    [
        "-chardev".to_owned(),
        format!("socket,id=inwit-tsm,path={path}"),
        "-device".to_owned(),
        "isa-serial,chardev=inwit-tsm,iobase=0x2f8,irq=3".to_owned(),
    ]
}

/// Answers requests on `stream` until the other side closes it. Ends with the error of a broken connection.
pub fn serve(mut stream: UnixStream, device: &Device) -> io::Result<()> {
    let mut kept = Vec::with_capacity(frame::REQUEST_MAX);
    let mut chunk = [0; frame::REQUEST_MAX];
    loop {
        match frame::parse(&kept) {
            Parsed::Incomplete => {
                let count = stream.read(&mut chunk)?;
                if count == 0 {
                    return Ok(());
                }
                kept.extend(chunk.iter().take(count));
            }
            Parsed::Noise(count) => drop(kept.drain(..count)),
            Parsed::Request(request, count) => {
                kept.drain(..count);
                // A guest that loaded the wrong driver finds no such device, as on hardware.
                let outcome = if request.provider == device.machine().provider_name() {
                    device.answer(&request.inblob, request.privlevel)
                } else {
                    Err(Errno::ENXIO)
                };
                stream.write_all(&frame::answer(request.sequence, &outcome))?;
            }
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Mutex<Connections>>, device: &Device) {
    for stream in listener.incoming() {
        let mut connections = lock(shared);
        if connections.closing {
            return;
        }
        connections.threads.retain(|thread| !thread.is_finished());
        let Ok(stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else { continue };
        if connections.open.len() >= MAX_CONNECTIONS {
            continue;
        }
        connections.next += 1;
        let number = connections.next;
        connections.open.insert(number, handle);
        let (shared, device) = (Arc::clone(shared), device.clone());
        connections.threads.push(thread::spawn(move || {
            // A broken connection is the guest's end, not an event worth telling.
            let _ = serve(stream, &device);
            lock(&shared).open.remove(&number);
        }));
    }
}

fn lock(shared: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::fixture::{snp_machine, tdx_machine};
    use crate::hardware::{Fault, Machine, RawEvidence};

    /// The module's part, with a patience that ends a broken test.
    struct Guest(UnixStream);

    impl Guest {
        fn connect(mailbox: &Mailbox) -> Self {
            Self::over(UnixStream::connect(mailbox.path()).unwrap())
        }

        fn over(stream: UnixStream) -> Self {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            Self(stream)
        }

        fn send(&mut self, sequence: u32, provider: u8, privlevel: u8, inblob: &[u8]) {
            let length = u16::try_from(inblob.len()).unwrap().to_be_bytes();
            let frame = [b"IWQ1", &sequence.to_be_bytes()[..], &[provider, privlevel], &length, inblob].concat();
            self.0.write_all(&frame).unwrap();
        }

        fn receive(&mut self, sequence: u32) -> Result<RawEvidence, u32> {
            let mut header = [0; 20];
            self.0.read_exact(&mut header).unwrap();
            let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            assert_eq!((&header[..4], number(4)), (&b"IWA1"[..], sequence));
            let mut blob = |length: u32| {
                let mut bytes = vec![0; length as usize];
                self.0.read_exact(&mut bytes).unwrap();
                bytes
            };
            match number(8) {
                0 => Ok(RawEvidence { outblob: blob(number(12)), auxblob: blob(number(16)) }),
                errno => Err(errno),
            }
        }
    }

    fn listening(machine: impl Into<Machine>) -> (tempfile::TempDir, Mailbox) {
        let dir = tempfile::tempdir().unwrap();
        let mailbox = Mailbox::listen(&dir.path().join("tsm"), machine.into()).unwrap();
        (dir, mailbox)
    }

    #[test]
    fn a_guest_gets_evidence_over_its_bytes_and_finds_its_way_through_noise() {
        let (_dir, mailbox) = listening(snp_machine());
        let mut guest = Guest::connect(&mailbox);
        guest.0.write_all(b"\0\0\xffIWQ\x01IWQ1\0\0\0\0\x09junk").unwrap();
        guest.send(1, 1, 2, &[0x5a; 64]);
        let evidence = guest.receive(1).unwrap();
        assert_eq!((evidence.outblob.len(), &evidence.outblob[0x50..0x90]), (1184, &[0x5a; 64][..]));
        assert_eq!(evidence.outblob[0x30], 2);
        let Machine::Snp(machine) = mailbox.device().machine() else { unreachable!() };
        assert_eq!(evidence.auxblob, machine.certificate_table());
        guest.send(2, 1, 0, &[1; 63]);
        assert_eq!(guest.receive(2), Err(22));
        guest.send(3, 2, 0, &[1; 64]);
        assert_eq!(guest.receive(3), Err(6), "the driver of the other platform");
        guest.send(4, 1, 4, &[1; 64]);
        assert_eq!(guest.receive(4), Err(22), "a level that does not exist");
        assert_eq!(mailbox.device().request_count(), 3);
    }

    #[test]
    fn a_quote_comes_through_a_socket_pair() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let device = Device::from(tdx_machine());
        let thread = thread::spawn({
            let device = device.clone();
            move || serve(theirs, &device)
        });
        let mut guest = Guest::over(ours);
        guest.send(9, 2, 0, &[7; 64]);
        let evidence = guest.receive(9).unwrap();
        assert_eq!((&evidence.outblob[568..632], evidence.auxblob.len()), (&[7; 64][..], 0));
        device.set_fault(Fault::FlipSignature);
        guest.send(10, 2, 0, &[7; 64]);
        assert_eq!(guest.receive(10).unwrap().outblob[..632], evidence.outblob[..632]);
        drop(guest);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn dropping_ends_a_stuck_request_and_frees_the_path() {
        let (_dir, mailbox) = listening(tdx_machine());
        let path = mailbox.path().to_owned();
        mailbox.device().set_fault(Fault::Stuck(Duration::from_secs(600)));
        let mut guest = Guest::connect(&mailbox);
        guest.send(1, 2, 0, &[1; 64]);
        while mailbox.device().request_count() == 0 {
            thread::yield_now();
        }
        drop(mailbox);
        let mut rest = Vec::new();
        guest.0.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "nothing may arrive after the end");
        let again = Mailbox::listen(&path, tdx_machine()).unwrap();
        Guest::connect(&again).send(1, 2, 0, &[1; 64]);
    }

    #[test]
    fn a_socket_file_left_behind_is_replaced_but_a_living_one_is_not() {
        let (dir, mailbox) = listening(tdx_machine());
        assert!(Mailbox::listen(mailbox.path(), tdx_machine()).is_err());
        let left = dir.path().join("left");
        drop(UnixListener::bind(&left).unwrap());
        assert!(Mailbox::listen(&left, tdx_machine()).is_ok());
    }

    #[test]
    fn more_connections_than_guests_are_closed() {
        let (_dir, mailbox) = listening(tdx_machine());
        let mut guests: Vec<Guest> = (0..MAX_CONNECTIONS).map(|_| Guest::connect(&mailbox)).collect();
        let mut refused = Guest::connect(&mailbox);
        assert_eq!(refused.0.read(&mut [0; 1]).unwrap(), 0);
        let last = guests.last_mut().unwrap();
        last.send(1, 2, 0, &[1; 64]);
        assert!(last.receive(1).is_ok());
    }
}
