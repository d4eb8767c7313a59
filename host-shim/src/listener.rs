//! The guest side's door: a listening unix socket or `AF_VSOCK` socket.
//!
//! It takes connections and says nothing about who makes them: a peer's CID is reported, never trusted. It never
//! replaces a path that is not a dead socket, and it removes only the socket file that it made itself.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::libc::{EAFNOSUPPORT, VMADDR_CID_ANY};
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::stream::Stream;
use crate::watched::watch;

/// Connections that the kernel holds before they are accepted; a burst larger than this sees a refusal or waits.
const BACKLOG: i32 = 1024;

/// Why the guest side could not be opened. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers on this path.
    #[error("{} is in use by a process that answers: stop it, or listen on another path", .0.display())]
    InUse(PathBuf),
    /// The kernel knows no vsock.
    #[error(
        "this kernel has no AF_VSOCK (module vsock, with vhost_vsock for guests); with a vhost-user vsock backend use \
         --listen unix:<uds>_{port}, where it lands guests that dial host port {port}"
    )]
    NoVsock {
        /// The vsock port that was asked for.
        port: u32,
    },
    /// The path exists and is no socket.
    #[error("{} exists and is not a socket: it is left alone, choose another path or remove it", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("cannot {act} {address}: {source}")]
    System {
        /// What was tried.
        act: &'static str,
        /// On what.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: AsyncFd<Socket>,
    /// Held for its drop, which removes the file.
    _file: Option<SocketFile>,
}

/// The socket file that this process made, known by device and inode so that a successor's is not removed.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    /// Listens on a unix socket with mode 0600, replacing a socket that nobody answers on.
    ///
    /// # Errors
    /// [`BindError::InUse`], [`BindError::NotASocket`], [`BindError::System`].
    pub(crate) fn unix(path: &Path) -> Result<Self, BindError> {
        let failed = |act| move |source| BindError::System { act, address: path.display().to_string(), source };
        remove_if_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make a socket for"))?;
        // The file takes its mode from the socket's inode, so it is never there with a wider one (net/unix/af_unix.c).
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        fchmod(&socket, private).map_err(|errno| failed("restrict")(errno.into()))?;
        let address = SockAddr::unix(path).map_err(failed("use the path"))?;
        socket.bind(&address).map_err(failed("bind"))?;
        let file = SocketFile::remember(path).map_err(failed("look at"))?;
        Self::listen(socket, Some(file)).map_err(failed("listen on"))
    }

    /// Listens on a vsock port for every CID.
    ///
    /// # Errors
    /// [`BindError::NoVsock`], [`BindError::System`].
    pub(crate) fn vsock(port: u32) -> Result<Self, BindError> {
        let failed = |act| move |source| BindError::System { act, address: format!("vsock port {port}"), source };
        let socket = match Socket::new(Domain::VSOCK, Type::STREAM, None) {
            Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => return Err(BindError::NoVsock { port }),
            made => made.map_err(failed("make a socket for"))?,
        };
        socket.bind(&SockAddr::vsock(VMADDR_CID_ANY, port)).map_err(failed("bind"))?;
        Self::listen(socket, None).map_err(failed("listen on"))
    }

    fn listen(socket: Socket, file: Option<SocketFile>) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        Ok(Self { socket: watch(socket, Interest::READABLE)?, _file: file })
    }

    /// Waits for the next guest; with a vsock guest, its CID and port. Cancel safe: a guest is taken or not.
    ///
    /// # Errors
    /// As accept(2). None of them ends the listener: wait a little and call again.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<(u32, u32)>)> {
        let (socket, address) = self.socket.async_io(Interest::READABLE, Socket::accept).await?;
        match address.as_vsock_address() {
            Some(peer) => Ok((Stream::from_vsock_guest(socket)?, Some(peer))),
            None => Ok((Stream::from_unix(socket)?, None)),
        }
    }
}

/// Removes a socket file that nobody listens on any more; leaves everything else alone.
fn remove_if_stale(path: &Path) -> Result<(), BindError> {
    let failed = |act, source| BindError::System { act, address: path.display().to_string(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|error| failed("make a socket for", error))?;
    // Non-blocking: the listener may be alive with a full backlog, and then a connect would wait for it.
    probe.set_nonblocking(true).map_err(|error| failed("probe", error))?;
    let address = SockAddr::unix(path).map_err(|error| failed("use the path", error))?;
    match probe.connect(&address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| failed("remove the stale socket", error))
        }
        Ok(()) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(failed("probe", error)),
    }
}

impl SocketFile {
    fn remember(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(found) = fs::symlink_metadata(&self.path)
            && (found.dev(), found.ino()) == (self.device, self.inode)
        {
            // If it cannot be removed, the next start finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}
