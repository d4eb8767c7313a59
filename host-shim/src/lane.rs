//! Lanes: what bytes travel in between two sockets. A pipe for splice(2) where the kernel allows, else a buffer.
//!
//! A lane is lent by [`Lanes`] only while bytes are in flight, so an idle connection owns none. It never interprets
//! what is in it. A lane goes back to the pool only when it is empty: a pipe with a remainder would hand one
//! connection's bytes to the next, so it is closed instead.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use socket2::Socket;

/// Most bytes that one fill takes; also the wished pipe capacity. Large enough that system calls do not dominate,
/// small enough that a slow reader pins little.
pub(crate) const FILL_MOST: usize = 256 * 1024;

/// Size of a copy buffer, bytes.
const BUFFER_SIZE: usize = 64 * 1024;

/// Empty pipes kept open for the next lender. More are closed when they come back.
const PIPES_KEPT: usize = 16;

/// How a direction wishes to move its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Through user memory: this pair of sockets was found not to splice.
    Copy,
    /// Without copying, if a pipe is to be had.
    Splice,
}

/// The pool of pipes shared by all connections of a route.
#[derive(Debug)]
pub(crate) struct Lanes {
    most: usize,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Pipes that exist, lent or not.
    open: usize,
    empty: Vec<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    out: PipeReader,
    into: PipeWriter,
    capacity: usize,
}

/// A lane on loan; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lane<'pool> {
    lanes: &'pool Lanes,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// `held` bytes sit in the pipe.
    Pipe { pipe: Pipe, held: usize },
    /// `bytes[at..end]` has yet to be written.
    Buffer { bytes: Vec<u8>, at: usize, end: usize },
}

/// What a lane becomes when its pipe leaves; it owns no memory.
const NOTHING: Kind = Kind::Buffer { bytes: Vec::new(), at: 0, end: 0 };

impl Lanes {
    /// A pool of at most `most` pipes; none is made before it is needed.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, pool: Mutex::default() }
    }

    /// Lends a lane. Never fails: without a pipe (all lent, no descriptors left, not wanted) it is a buffer.
    pub(crate) fn lend(&self, manner: Manner) -> Lane<'_> {
        let pipe = match manner {
            Manner::Copy => None,
            Manner::Splice => self.take_pipe(),
        };
        let kind = match pipe {
            Some(pipe) => Kind::Pipe { pipe, held: 0 },
            None => NOTHING,
        };
        Lane { lanes: self, kind }
    }

    fn take_pipe(&self) -> Option<Pipe> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pool.empty.pop() {
            return Some(pipe);
        }
        if pool.open >= self.most {
            return None;
        }
        let pipe = Pipe::open().ok()?;
        pool.open += 1;
        Some(pipe)
    }

    fn give_back(&self, pipe: Pipe, held: usize) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if held == 0 && pool.empty.len() < PIPES_KEPT {
            pool.empty.push(pipe);
        } else {
            pool.open = pool.open.saturating_sub(1);
        }
    }
}

impl Pipe {
    fn open() -> io::Result<Self> {
        let (out, into) = io::pipe()?;
        // Best effort: an unprivileged user over pipe-user-pages-soft keeps the default of 16 pages, or gets one page.
        let wished = i32::try_from(FILL_MOST).unwrap_or(i32::MAX);
        let capacity = match fcntl(&into, FcntlArg::F_SETPIPE_SZ(wished)) {
            Ok(size) => usize::try_from(size).unwrap_or(FILL_MOST),
            Err(_) => FILL_MOST,
        };
        Ok(Self { out, into, capacity })
    }
}

impl Lane<'_> {
    /// Whether nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Pipe { held, .. } => *held == 0,
            Kind::Buffer { at, end, .. } => at >= end,
        }
    }

    /// Takes at most `most` bytes from `from`; 0 is the end of the stream. Call it only on an empty lane: a full pipe
    /// and a silent socket give the same `WouldBlock`.
    ///
    /// # Errors
    /// As recv(2) and splice(2). `InvalidInput` (EINVAL) from a pipe lane means that this socket cannot splice; no byte
    /// was taken then.
    pub(crate) fn fill(&mut self, from: &Socket, most: usize) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Pipe { pipe, held } => {
                let most = most.min(pipe.capacity);
                let taken = move_pages(from, &pipe.into, most)?;
                *held += taken;
                Ok(taken)
            }
            Kind::Buffer { bytes, at, end } => {
                bytes.resize(BUFFER_SIZE, 0);
                let (mut from, most) = (from, most.min(BUFFER_SIZE));
                let taken = from.read(bytes.get_mut(..most).unwrap_or_default())?;
                (*at, *end) = (0, taken);
                Ok(taken)
            }
        }
    }

    /// Writes at most `most` of the held bytes to `to` and returns how many went.
    ///
    /// # Errors
    /// As send(2) and splice(2); nothing is lost by an error. `InvalidInput` (EINVAL): see [`Lane::salvage`].
    pub(crate) fn drain(&mut self, to: &Socket, most: usize) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Pipe { pipe, held } => {
                let gone = move_pages(&pipe.out, to, most.min(*held))?;
                *held = held.saturating_sub(gone);
                Ok(gone)
            }
            Kind::Buffer { bytes, at, end } => {
                let (mut to, rest) = (to, bytes.get(*at..*end).unwrap_or_default());
                let gone = to.write(rest.get(..most).unwrap_or(rest))?;
                *at += gone;
                Ok(gone)
            }
        }
    }

    /// Moves what a pipe holds into a buffer, for a destination that turned out not to splice.
    ///
    /// # Errors
    /// As read(2) on the pipe; then the bytes are lost and the connection has to end.
    pub(crate) fn salvage(&mut self) -> io::Result<()> {
        let Kind::Pipe { pipe, held } = &mut self.kind else { return Ok(()) };
        let mut bytes = vec![0; *held];
        pipe.out.read_exact(&mut bytes)?;
        *held = 0;
        self.return_pipe();
        self.kind = Kind::Buffer { at: 0, end: bytes.len(), bytes };
        Ok(())
    }

    fn return_pipe(&mut self) {
        if let Kind::Pipe { pipe, held } = std::mem::replace(&mut self.kind, NOTHING) {
            self.lanes.give_back(pipe, held);
        }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.return_pipe();
    }
}

fn move_pages(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    splice(from, None, to, None, most, flags).map_err(|errno: Errno| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    fn pair() -> (Socket, Socket) {
        let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        near.set_nonblocking(true).unwrap();
        (near, far)
    }

    fn read_now(mut from: &Socket) -> Vec<u8> {
        let mut bytes = [0; 64];
        let count = from.read(&mut bytes).unwrap();
        bytes[..count].to_vec()
    }

    #[test]
    fn both_manners_carry_the_same_bytes() {
        for (manner, most) in [(Manner::Splice, 4), (Manner::Copy, 4), (Manner::Splice, 0)] {
            let lanes = Lanes::new(most);
            let ((near, far), (out, outer)) = (pair(), pair());
            (&far).write_all(b"evidence").unwrap();
            let mut lane = lanes.lend(manner);
            assert_eq!(lane.fill(&near, FILL_MOST).unwrap(), 8);
            assert_eq!(lane.drain(&out, 3).unwrap(), 3);
            assert!(!lane.is_empty());
            assert_eq!(lane.drain(&out, FILL_MOST).unwrap(), 5);
            assert!(lane.is_empty());
            assert_eq!(read_now(&outer), b"evidence");
            drop(far);
            assert_eq!(lane.fill(&near, FILL_MOST).unwrap(), 0, "the end is a zero, not an error");
        }
    }

    #[test]
    fn a_silent_socket_would_block_in_both_manners() {
        let lanes = Lanes::new(1);
        let (near, _far) = pair();
        for manner in [Manner::Splice, Manner::Copy] {
            let error = lanes.lend(manner).fill(&near, 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_pipe_with_a_remainder_is_never_lent_again() {
        let lanes = Lanes::new(1);
        let (near, far) = pair();
        (&far).write_all(b"of another guest").unwrap();
        let mut lane = lanes.lend(Manner::Splice);
        lane.fill(&near, FILL_MOST).unwrap();
        drop(lane);
        (&far).write_all(b"mine").unwrap();
        let mut lane = lanes.lend(Manner::Splice);
        assert!(matches!(lane.kind, Kind::Pipe { .. }), "the closed pipe no longer counts");
        lane.fill(&near, FILL_MOST).unwrap();
        let (out, outer) = pair();
        lane.drain(&out, FILL_MOST).unwrap();
        assert_eq!(read_now(&outer), b"mine");
    }

    #[test]
    fn salvaged_bytes_keep_their_order_and_free_the_pipe() {
        let lanes = Lanes::new(1);
        let ((near, far), (out, outer)) = (pair(), pair());
        (&far).write_all(b"0123456789").unwrap();
        let mut lane = lanes.lend(Manner::Splice);
        lane.fill(&near, FILL_MOST).unwrap();
        lane.drain(&out, 4).unwrap();
        lane.salvage().unwrap();
        lane.drain(&out, FILL_MOST).unwrap();
        assert!(lane.is_empty());
        assert_eq!(read_now(&outer), b"0123456789");
        assert!(matches!(lanes.lend(Manner::Splice).kind, Kind::Pipe { .. }));
    }

    #[test]
    fn beyond_the_last_pipe_a_buffer_is_lent() {
        let lanes = Lanes::new(2);
        let lent: Vec<_> = (0..3).map(|_| lanes.lend(Manner::Splice)).collect();
        let pipes = lent.iter().filter(|lane| matches!(lane.kind, Kind::Pipe { .. })).count();
        assert_eq!(pipes, 2);
    }
}
