//! A socket of any family under the runtime's eye. The one file with `unsafe` in it.
//!
//! tokio has types of its own for TCP and unix sockets and none for vsock. One type for all of them needs `AsyncFd`,
//! whose constructor is unsafe because it takes anything that can name a descriptor, closed ones included. Only an
//! owned socket gets through here, so no caller can break the rule. Nothing is read, written or decided here.
#![allow(unsafe_code)] // AsyncFd::register_with_interest has no safe form; see above.

use std::io;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes `socket` non-blocking and registers it with the current runtime.
///
/// # Errors
/// As fcntl(2) and epoll_ctl(2); the socket is closed then.
pub(crate) fn watch(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    socket.set_nonblocking(true)?;
    // SAFETY: `Socket` owns its descriptor: it stays open until the socket is dropped, which only the AsyncFd can do
    // now, and `as_raw_fd` names the same descriptor every time. The crate never takes the socket out or exchanges it.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watched.map_err(|error| error.into_parts().1)
}
