//! What the relay tells about itself: typed events, with one line of text or one JSON object for each.
//!
//! Events carry counts, addresses from the command line, CIDs and operating system errors; never a relayed byte, so
//! nothing that a guest sends can reach a log line.

use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::Route;

/// Receives every event, on the relay's own thread: it must not block, or all connections wait.
pub type Watcher = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The relay accepts guests (or, for `virtio:`, dials the port from now on).
    Ready(&'a Route),
    /// A guest connection was taken.
    Opened {
        /// Number of the connection, from 1, unique within the route.
        connection: u64,
        /// CID and port of a vsock peer.
        peer: Option<(u32, u32)>,
    },
    /// A guest connection and its authority side are closed.
    Closed {
        /// Number given when it was opened.
        connection: u64,
        /// Bytes delivered from the guest to the authority side.
        bytes_up: u64,
        /// Bytes delivered from the authority side to the guest.
        bytes_down: u64,
        /// Why.
        reason: Reason,
        /// What the operating system said, if it was an error.
        cause: Option<&'a io::Error>,
    },
    /// A guest connection was closed at once because the limit was reached.
    Refused {
        /// How many were refused so far.
        refused: u64,
    },
    /// Something hinders the relay while it goes on.
    Trouble {
        /// What was attempted and what to do about it.
        what: &'static str,
        /// What the operating system said.
        cause: fmt::Arguments<'a>,
    },
    /// The relay has ended.
    Stopped(Totals),
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A side was reset, or went away while bytes for it were on their way.
    Broken,
    /// Time ran out after the first stop signal, or a second one came.
    Drained,
    /// Both sides ended their stream.
    Ended,
    /// No byte moved for the idle time.
    Idle,
    /// The authority side could not be reached.
    Unreachable,
}

/// Sums over the life of a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections taken.
    pub opened: u64,
    /// Connections refused at the limit.
    pub refused: u64,
    /// Connections of `opened` whose authority side could not be reached.
    pub unreachable: u64,
    /// Bytes delivered from guests to the authority side.
    pub bytes_up: u64,
    /// Bytes delivered from the authority side to guests.
    pub bytes_down: u64,
}

/// The running form of [`Totals`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) bytes_up: AtomicU64,
    pub(crate) bytes_down: AtomicU64,
}

impl Tally {
    pub(crate) fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            opened: read(&self.opened),
            refused: read(&self.refused),
            unreachable: read(&self.unreachable),
            bytes_up: read(&self.bytes_up),
            bytes_down: read(&self.bytes_down),
        }
    }
}

/// Adds and returns the new sum.
pub(crate) fn add(count: &AtomicU64, more: u64) -> u64 {
    count.fetch_add(more, Ordering::Relaxed).wrapping_add(more)
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Broken => "broken",
            Self::Drained => "drained",
            Self::Ended => "ended",
            Self::Idle => "idle",
            Self::Unreachable => "unreachable",
        })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(route) => write!(out, "relaying {} → {}", route.listen, route.to),
            Self::Opened { connection, peer: None } => write!(out, "connection {connection} opened"),
            Self::Opened { connection, peer: Some((cid, port)) } => {
                write!(out, "connection {connection} opened by vsock {cid}:{port}")
            }
            Self::Closed { connection, bytes_up, bytes_down, reason, cause } => {
                write!(out, "connection {connection} closed: {reason}, {bytes_up} bytes up, {bytes_down} down")?;
                cause.map_or(Ok(()), |cause| write!(out, " ({cause})"))
            }
            Self::Refused { refused } => write!(out, "connection limit reached, {refused} refused so far"),
            Self::Trouble { what, cause } => write!(out, "{what}: {cause}"),
            Self::Stopped(sum) => write!(
                out,
                "stopped: {} connections, {} refused, {} unreachable, {} bytes up, {} down",
                sum.opened, sum.refused, sum.unreachable, sum.bytes_up, sum.bytes_down
            ),
        }
    }
}

impl Event<'_> {
    /// The event as one JSON object without a line end. `event` names it; the other members are those of the variant.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Ready(route) => {
                let (listen, to) = (quote(&route.listen), quote(&route.to));
                format!(r#"{{"event":"ready","listen":{listen},"to":{to}}}"#)
            }
            Self::Opened { connection, peer: None } => format!(r#"{{"event":"opened","connection":{connection}}}"#),
            Self::Opened { connection, peer: Some((cid, port)) } => {
                format!(r#"{{"event":"opened","connection":{connection},"cid":{cid},"port":{port}}}"#)
            }
            Self::Closed { connection, bytes_up, bytes_down, reason, cause } => {
                let cause = cause.map(|cause| format!(r#","cause":{}"#, quote(cause))).unwrap_or_default();
                format!(
                    r#"{{"event":"closed","connection":{connection},"bytes_up":{bytes_up},"bytes_down":{bytes_down},"reason":"{reason}"{cause}}}"#
                )
            }
            Self::Refused { refused } => format!(r#"{{"event":"refused","refused":{refused}}}"#),
            Self::Trouble { what, cause } => {
                format!(r#"{{"event":"trouble","what":{},"cause":{}}}"#, quote(what), quote(cause))
            }
            Self::Stopped(sum) => format!(
                r#"{{"event":"stopped","totals":{{"opened":{},"refused":{},"unreachable":{},"bytes_up":{},"bytes_down":{}}}}}"#,
                sum.opened, sum.refused, sum.unreachable, sum.bytes_up, sum.bytes_down
            ),
        }
    }
}

/// A JSON string (RFC 8259 section 7).
fn quote(value: impl fmt::Display) -> String {
    let mut text = String::from("\"");
    for letter in value.to_string().chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            // Writing to a String cannot fail.
            control if control < ' ' => drop(write!(text, "\\u{:04x}", u32::from(control))),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_path_stays_inside_its_json_string() {
        let route = Route { listen: "unix:/a\"b\\c\nd".parse().unwrap(), to: "tcp:[::1]:5".parse().unwrap() };
        assert_eq!(
            Event::Ready(&route).to_json(),
            r#"{"event":"ready","listen":"unix:/a\"b\\c\u000ad","to":"tcp:[::1]:5"}"#
        );
    }

    #[test]
    fn a_closed_connection_tells_its_bytes_and_cause() {
        let cause = io::Error::other("gone");
        let event =
            Event::Closed { connection: 7, bytes_up: 1, bytes_down: 2, reason: Reason::Broken, cause: Some(&cause) };
        assert_eq!(
            event.to_json(),
            r#"{"event":"closed","connection":7,"bytes_up":1,"bytes_down":2,"reason":"broken","cause":"gone"}"#
        );
        assert_eq!(event.to_string(), "connection 7 closed: broken, 1 bytes up, 2 down (gone)");
    }
}
