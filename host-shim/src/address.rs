//! The two addresses of a route: where guests arrive ([`Listen`]) and where their bytes go ([`Upstream`]).
//!
//! Both come from the operator's command line, never from a guest or from the network, and are checked for shape only.
//! This file opens no socket and resolves no name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path that fits `sockaddr_un.sun_path` with its terminating NUL (108 bytes; unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

/// Where guests reach the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `unix:PATH`: a listening unix socket, mode 0600. Also the landing place of vhost-user vsock backends, which
    /// connect to `<uds>_PORT` for a guest that dials host port `PORT`.
    Unix(PathBuf),
    /// `virtio:PATH`: the host-side unix socket of a virtio-serial port, which somebody else (QEMU) listens on.
    Virtio(PathBuf),
    /// `vsock:PORT`: an `AF_VSOCK` listener for every local CID, port in host byte order (vsock(7)).
    Vsock(u32),
}

/// Where the authority side is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// `tcp:HOST:PORT`; an IPv6 address stands in brackets. A name is resolved anew for each connection.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// TCP port, 1 to 65535.
        port: u16,
    },
    /// `unix:PATH`: a unix stream socket.
    Unix(PathBuf),
}

/// One allowed way through the relay: everything that arrives at `listen` goes to `to` and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Guest side.
    pub listen: Listen,
    /// Authority side.
    pub to: Upstream,
}

/// Why an address was not understood. Each text names the expected shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The host part of `tcp:HOST:PORT` is missing or its brackets do not pair.
    #[error("no usable host in `{0}`: write tcp:HOST:PORT, or tcp:[IPV6]:PORT")]
    Host(String),
    /// The path is empty, relative to nothing (NUL), or too long for a socket address.
    #[error("no usable socket path in `{0}`: 1 to {LONGEST_SOCKET_PATH} bytes, no NUL")]
    Path(String),
    /// The port is not a number of the allowed range.
    #[error("no usable port in `{0}`: TCP ports are 1 to 65535, vsock ports 0 to 4294967294")]
    Port(String),
    /// The part before the first colon is not known here.
    #[error("`{given}` does not start with one of {known}")]
    Scheme {
        /// What was given.
        given: String,
        /// What would be understood.
        known: &'static str,
    },
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some(("unix", path)) => parse_path(path).map(Self::Unix),
            Some(("virtio", path)) => parse_path(path).map(Self::Virtio),
            // The highest number is VMADDR_PORT_ANY: the kernel would pick a port that no guest can know.
            Some(("vsock", port)) => match port.parse() {
                Ok(number) if number != u32::MAX => Ok(Self::Vsock(number)),
                _ => Err(AddressError::Port(port.to_owned())),
            },
            _ => Err(AddressError::Scheme { given: text.to_owned(), known: "vsock:, unix:, virtio:" }),
        }
    }
}

impl FromStr for Upstream {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some(("tcp", rest)) => parse_host_and_port(rest),
            Some(("unix", path)) => parse_path(path).map(Self::Unix),
            _ => Err(AddressError::Scheme { given: text.to_owned(), known: "tcp:, unix:" }),
        }
    }
}

fn parse_path(text: &str) -> Result<PathBuf, AddressError> {
    if text.is_empty() || text.len() > LONGEST_SOCKET_PATH || text.contains('\0') {
        return Err(AddressError::Path(text.to_owned()));
    }
    Ok(PathBuf::from(text))
}

fn parse_host_and_port(text: &str) -> Result<Upstream, AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::Port(text.to_owned()))?;
    let port = match port.parse::<u16>() {
        Ok(number) if number != 0 => number,
        _ => return Err(AddressError::Port(port.to_owned())),
    };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').unwrap_or(""),
        // Without brackets a colon means that the port was cut out of the middle of an IPv6 address.
        None if host.contains([':', ']']) => "",
        None => host,
    };
    if bare.is_empty() {
        return Err(AddressError::Host(host.to_owned()));
    }
    Ok(Upstream::Tcp { host: bare.to_owned(), port })
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Virtio(path) => write!(out, "virtio:{}", path.display()),
            Self::Vsock(port) => write!(out, "vsock:{port}"),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(out, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(out, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_given_again() {
        for text in ["unix:/run/a:b", "virtio:port.sock", "vsock:0", "vsock:4294967294"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["tcp:authority.example:443", "tcp:[2001:db8::1]:8443", "tcp:127.0.0.1:1", "unix:/run/up"] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_listen_addresses_are_named() {
        for text in ["unix:", "virtio:", "unix:a\0b"] {
            assert!(matches!(text.parse::<Listen>(), Err(AddressError::Path(_))), "{text}");
        }
        assert!(matches!(format!("unix:{}", "x".repeat(108)).parse::<Listen>(), Err(AddressError::Path(_))));
        assert!(format!("unix:{}", "x".repeat(107)).parse::<Listen>().is_ok());
        for text in ["vsock:", "vsock:-1", "vsock:4294967295", "vsock:4294967296", "vsock:2:5"] {
            assert!(matches!(text.parse::<Listen>(), Err(AddressError::Port(_))), "{text}");
        }
        for text in ["", "tcp:1.2.3.4:5", "/run/x", "UNIX:/x"] {
            assert!(matches!(text.parse::<Listen>(), Err(AddressError::Scheme { .. })), "{text}");
        }
    }

    #[test]
    fn malformed_upstreams_are_named() {
        for text in ["tcp:host", "tcp:host:", "tcp:host:0", "tcp:host:65536", "tcp:"] {
            assert!(matches!(text.parse::<Upstream>(), Err(AddressError::Port(_))), "{text}");
        }
        for text in ["tcp::80", "tcp:[]:80", "tcp:[::1:80", "tcp:2001:db8::1:80", "tcp:::1]:80"] {
            assert!(matches!(text.parse::<Upstream>(), Err(AddressError::Host(_))), "{text}");
        }
        assert!(matches!("vsock:2:5".parse::<Upstream>(), Err(AddressError::Scheme { .. })));
    }
}
