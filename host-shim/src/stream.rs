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
use crate::lane::{FILL_MOST, Lane};
use crate::watched::watch;

/// Largest single write towards a vsock guest, bytes. The kernel passes a larger one on as several descriptors, which
/// vhost-user backends in the field do not take apart: the connection then hangs for ever.
pub(crate) const VSOCK_WRITE_MOST: usize = 16 * 1024;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: AsyncFd<Socket>,
    write_most: usize,
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
    /// Takes over a connected socket whose single writes may be of any size.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        Self::with_write_most(socket, FILL_MOST)
    }

    /// Takes over a connection from a vsock guest: as [`Stream::new`], with writes of at most [`VSOCK_WRITE_MOST`].
    pub(crate) fn from_vsock_guest(socket: Socket) -> io::Result<Self> {
        Self::with_write_most(socket, VSOCK_WRITE_MOST)
    }

    fn with_write_most(socket: Socket, write_most: usize) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE | Interest::WRITABLE)?, write_most })
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
                    Self::new(stream.into_std()?.into())
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
        Self::new(UnixStream::connect(path).await?.into_std()?.into())
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
        self.socket.try_io(Interest::WRITABLE, |socket| lane.drain(socket, self.write_most))
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
