//! Lanes: what bytes travel in between two sockets. A pipe for splice(2), or a buffer.
//!
//! A lane is lent by [`Lanes`] only while bytes are in flight, so an idle connection owns none. It never interprets
//! what is in it. A pipe goes back to the pool only when it is empty: with a remainder in it, it would hand one
//! connection's bytes to the next, so it is closed instead.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use socket2::Socket;

/// Most bytes that one fill takes: the size of a large buffer and the wished capacity of a pipe. Large enough that
/// system calls do not dominate, small enough that a slow reader pins little.
pub(crate) const FILL_MOST: usize = 256 * 1024;

/// Size of the buffer that is lent when no large lane is left, bytes. Any number of connections may hold one.
const SMALL: usize = 16 * 1024;

/// Empty pipes kept open for the next lender; more are closed when they come back.
const PIPES_KEPT: usize = 16;

/// Empty large buffers kept, that is 1 MiB of the process; more are freed when they come back.
const BUFFERS_KEPT: usize = 4;

/// How bytes are best moved into a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Through user memory.
    Copy,
    /// Through a pipe, without copying where the kernel can.
    Splice,
}

/// The pool of large lanes shared by all connections of a route.
#[derive(Debug)]
pub(crate) struct Lanes {
    pipes: Mutex<Shelf<Pipe>>,
    buffers: Mutex<Shelf<Vec<u8>>>,
}

/// At most `most` things at a time, of which at most `kept` wait for a lender.
#[derive(Debug)]
struct Shelf<T> {
    most: usize,
    kept: usize,
    /// Things that exist, lent or waiting.
    open: usize,
    waiting: Vec<T>,
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
    Buffer { bytes: Vec<u8>, at: usize, end: usize, owner: Owner },
}

/// Where a buffer goes when its lane is given back.
#[derive(Debug, Clone, Copy)]
enum Owner {
    /// Nowhere: it is freed.
    Lane,
    Pool,
}

/// What a lane is once its pipe or buffer has left; it owns no memory.
const NOTHING: Kind = Kind::Buffer { bytes: Vec::new(), at: 0, end: 0, owner: Owner::Lane };

impl Lanes {
    /// A pool of at most `most` pipes and as many large buffers; none is made before it is needed.
    pub(crate) fn new(most: usize) -> Self {
        Self { pipes: Mutex::new(Shelf::new(most, PIPES_KEPT)), buffers: Mutex::new(Shelf::new(most, BUFFERS_KEPT)) }
    }

    /// Lends a lane. Never fails: without a pipe (all lent, no descriptors left, not wanted) it is a buffer, and without
    /// a large buffer a small one.
    pub(crate) fn lend(&self, manner: Manner) -> Lane<'_> {
        let pipe = match manner {
            Manner::Copy => None,
            Manner::Splice => locked(&self.pipes).take(|| Pipe::open().ok()),
        };
        let kind = match pipe {
            Some(pipe) => Kind::Pipe { pipe, held: 0 },
            None => {
                let large = locked(&self.buffers).take(|| Some(vec![0; FILL_MOST]));
                let (bytes, owner) = large.map_or((vec![0; SMALL], Owner::Lane), |bytes| (bytes, Owner::Pool));
                Kind::Buffer { bytes, at: 0, end: 0, owner }
            }
        };
        Lane { lanes: self, kind }
    }

    fn give_back(&self, kind: Kind) {
        match kind {
            Kind::Pipe { pipe, held: 0 } => locked(&self.pipes).put_back(pipe),
            Kind::Pipe { .. } => locked(&self.pipes).discard(),
            Kind::Buffer { bytes, owner: Owner::Pool, .. } => locked(&self.buffers).put_back(bytes),
            Kind::Buffer { owner: Owner::Lane, .. } => {}
        }
    }
}

impl<T> Shelf<T> {
    fn new(most: usize, kept: usize) -> Self {
        Self { most, kept, open: 0, waiting: Vec::new() }
    }

    fn take(&mut self, make: impl FnOnce() -> Option<T>) -> Option<T> {
        if let Some(thing) = self.waiting.pop() {
            return Some(thing);
        }
        if self.open >= self.most {
            return None;
        }
        let made = make()?;
        self.open += 1;
        Some(made)
    }

    fn put_back(&mut self, thing: T) {
        if self.waiting.len() < self.kept {
            self.waiting.push(thing);
        } else {
            self.discard();
        }
    }

    fn discard(&mut self) {
        self.open = self.open.saturating_sub(1);
    }
}

fn locked<T>(shelf: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code that can panic runs under the lock, and a count that is off by one would do no harm.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipe {
    fn open() -> io::Result<Self> {
        let (out, into) = io::pipe()?;
        // Best effort: an unprivileged user over pipe-user-pages-soft keeps the default of 16 pages, or gets fewer.
        let wished = i32::try_from(FILL_MOST).unwrap_or(i32::MAX);
        let size = fcntl(&into, FcntlArg::F_SETPIPE_SZ(wished)).or_else(|_| fcntl(&into, FcntlArg::F_GETPIPE_SZ))?;
        Ok(Self { out, into, capacity: usize::try_from(size).unwrap_or(FILL_MOST) })
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
            Kind::Buffer { bytes, at, end, .. } => {
                let (mut from, most) = (from, most.min(bytes.len()));
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
            Kind::Buffer { bytes, at, end, .. } => {
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
        let end = bytes.len();
        let pipe = mem::replace(&mut self.kind, Kind::Buffer { bytes, at: 0, end, owner: Owner::Lane });
        self.lanes.give_back(pipe);
        Ok(())
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.lanes.give_back(mem::replace(&mut self.kind, NOTHING));
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
    fn beyond_the_last_pipe_comes_a_large_buffer_and_then_a_small_one() {
        let lanes = Lanes::new(1);
        let lent: Vec<_> = (0..4).map(|_| lanes.lend(Manner::Splice)).collect();
        let sizes = lent.iter().map(|lane| match &lane.kind {
            Kind::Pipe { .. } => 0,
            Kind::Buffer { bytes, .. } => bytes.len(),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [0, FILL_MOST, SMALL, SMALL]);
        drop(lent);
        assert!(matches!(lanes.lend(Manner::Splice).kind, Kind::Pipe { .. }), "what came back is lent again");
    }

    #[test]
    fn only_few_empty_lanes_are_kept() {
        let lanes = Lanes::new(100);
        for manner in [Manner::Splice, Manner::Copy] {
            drop((0..50).map(|_| lanes.lend(manner)).collect::<Vec<_>>());
        }
        let (pipes, buffers) = (locked(&lanes.pipes), locked(&lanes.buffers));
        assert_eq!((pipes.open, pipes.waiting.len()), (PIPES_KEPT, PIPES_KEPT));
        assert_eq!((buffers.open, buffers.waiting.len()), (BUFFERS_KEPT, BUFFERS_KEPT));
    }
}
