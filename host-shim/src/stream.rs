//! One end of a connection: a non-blocking stream socket of any family (unix, TCP, vsock) known to the runtime.
//!
//! All families share one type, so a connection costs two of these and no generic code. Nothing here looks at a byte
//! that passes; a socket is only ever asked whether it is ready.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::path::Path;
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};

use crate::address::Upstream;
use crate::lane::{FILL_MOST, Lane, Manner};
use crate::watched::watch;

/// Largest single write towards a vsock guest, bytes. The kernel passes a larger one on as several descriptors, which
/// vhost-user backends in the field do not take apart: the connection then hangs for ever.
pub(crate) const VSOCK_WRITE_MOST: usize = 16 * 1024;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: AsyncFd<Socket>,
    family: Family,
}

/// What about a socket's family matters to the one who writes into it.
#[derive(Debug, Clone, Copy)]
enum Family {
    Tcp,
    Unix,
    Vsock,
}

/// What the next byte of a stream is, without taking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// At least one byte waits.
    Byte,
    /// The peer has ended the stream.
    End,
}

impl Stream {
    /// Takes over a connected unix socket.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn from_unix(socket: Socket) -> io::Result<Self> {
        Self::new(socket, Family::Unix)
    }

    /// Takes over a connection from a vsock guest: single writes are at most [`VSOCK_WRITE_MOST`].
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn from_vsock_guest(socket: Socket) -> io::Result<Self> {
        Self::new(socket, Family::Vsock)
    }

    fn new(socket: Socket, family: Family) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE | Interest::WRITABLE)?, family })
    }

    /// Connects to the authority side within `limit`, resolving a name if there is one.
    ///
    /// # Errors
    /// As connect(2) and getaddrinfo(3); `TimedOut` when `limit` has passed.
    pub(crate) async fn dial(upstream: &Upstream, limit: Duration) -> io::Result<Self> {
        let reached = async {
            match upstream {
                Upstream::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    // Handshake messages are small and each waits for its answer: never hold one back.
                    stream.set_nodelay(true)?;
                    Self::new(stream.into_std()?.into(), Family::Tcp)
                }
                Upstream::Unix(path) => Self::dial_unix(path).await,
            }
        };
        tokio::time::timeout(limit, reached).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Connects to a unix stream socket.
    ///
    /// # Errors
    /// As connect(2).
    pub(crate) async fn dial_unix(path: &Path) -> io::Result<Self> {
        Self::from_unix(UnixStream::connect(path).await?.into_std()?.into())
    }

    /// Waits until a read would give bytes, the end, or an error.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await.map(drop)
    }

    /// Waits until a write would take bytes or give an error.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await.map(drop)
    }

    /// [`Lane::fill`] from this stream.
    pub(crate) fn fill(&self, lane: &mut Lane<'_>, most: usize) -> io::Result<usize> {
        self.socket.try_io(Interest::READABLE, |socket| lane.fill(socket, most))
    }

    /// [`Lane::drain`] into this stream, at most one write's worth.
    pub(crate) fn drain(&self, lane: &mut Lane<'_>) -> io::Result<usize> {
        let most = match self.family {
            Family::Tcp | Family::Unix => FILL_MOST,
            Family::Vsock => VSOCK_WRITE_MOST,
        };
        self.socket.try_io(Interest::WRITABLE, |socket| lane.drain(socket, most))
    }

    /// How bytes for this stream are best moved.
    pub(crate) fn manner(&self) -> Manner {
        match self.family {
            // A spliced page stays a fragment of its own in a TCP segment and is cold when it is read: measured, a copy
            // costs less processor time on both sides (benches/against_socat.rs).
            Family::Tcp => Manner::Copy,
            Family::Unix | Family::Vsock => Manner::Splice,
        }
    }

    /// Waits for the first byte or the end and leaves it where it is.
    ///
    /// # Errors
    /// As recv(2).
    pub(crate) async fn peek(&self) -> io::Result<Peeked> {
        loop {
            self.readable().await?;
            let mut byte = [MaybeUninit::uninit()];
            match self.socket.try_io(Interest::READABLE, |socket| socket.peek(&mut byte)) {
                Ok(0) => return Ok(Peeked::End),
                Ok(_) => return Ok(Peeked::Byte),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells the peer that no more bytes will come (half-close). A peer that has gone already needs no telling.
    pub(crate) fn end_writing(&self) {
        let _ = self.socket.get_ref().shutdown(Shutdown::Write);
    }

    /// Tells a local peer that its bytes have nowhere to go; on TCP this sends nothing.
    pub(crate) fn end_reading(&self) {
        let _ = self.socket.get_ref().shutdown(Shutdown::Read);
    }

    /// Makes the coming close a reset where the family knows one (TCP), so that a broken stream does not look ended.
    pub(crate) fn reset_on_close(&self) {
        let _ = self.socket.get_ref().set_linger(Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Lanes;
    use socket2::{Domain, Type};
    use std::io::Write;

    #[tokio::test(flavor = "current_thread")]
    async fn one_write_to_a_vsock_guest_stays_small() {
        let pair = || Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let ((near, mut far), (out, _kept)) = (pair(), pair());
        far.write_all(&vec![7; 40_000]).unwrap();
        let (from, to) = (Stream::from_unix(near).unwrap(), Stream::from_vsock_guest(out).unwrap());
        for manner in [to.manner(), Manner::Copy] {
            let lanes = Lanes::new(4);
            let mut lane = lanes.lend(manner);
            from.readable().await.unwrap();
            assert_eq!(from.fill(&mut lane, 20_000).unwrap(), 20_000);
            to.writable().await.unwrap();
            assert_eq!(to.drain(&mut lane).unwrap(), VSOCK_WRITE_MOST);
            assert_eq!(to.drain(&mut lane).unwrap(), 20_000 - VSOCK_WRITE_MOST);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn peeking_leaves_the_byte_and_sees_the_end() {
        let (near, mut far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let near = Stream::from_unix(near).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(near.peek().await.unwrap(), Peeked::Byte);
        assert_eq!(near.peek().await.unwrap(), Peeked::Byte);
        let lanes = Lanes::new(0);
        let mut lane = lanes.lend(Manner::Copy);
        assert_eq!(near.fill(&mut lane, 10).unwrap(), 1);
        drop(far);
        assert_eq!(near.peek().await.unwrap(), Peeked::End);
    }
}
