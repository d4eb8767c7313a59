//! What one route may use: connections, time, bandwidth, lanes. Set by the operator, never by a peer.
//!
//! Every number here bounds something that a hostile peer could otherwise make grow. There is no unlimited number of
//! connections and no unlimited connect time.

use std::num::NonZeroU64;
use std::time::Duration;

/// The bounds of one route. [`Limits::default`] is what the command line uses when nothing is given.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at a time, those still being connected included. One more is closed at once and counted.
    /// 0 counts as 1; a `virtio:` route has one whatever stands here.
    pub connections: usize,
    /// A connection in which no byte moves in either direction for this long is closed; `None` for never.
    pub idle: Option<Duration>,
    /// Bytes per second of one connection, both directions together; `None` for no limit.
    pub bandwidth: Option<NonZeroU64>,
    /// Time allowed to reach the authority side, name resolution included.
    pub connect: Duration,
    /// Time that open connections have after the first stop signal.
    pub drain: Duration,
    /// Most kernel pipes at a time, and as many buffers, of 256 KiB each, lent while bytes are in flight. A connection
    /// that finds none left copies through 16 KiB until one is free; with 0 all do.
    pub lanes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            idle: Some(Duration::from_secs(300)),
            bandwidth: None,
            connect: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            lanes: 64,
        }
    }
}

impl Limits {
    /// File descriptors that a route with these limits may need at once: two sockets per connection, two ends per
    /// pipe, and some for the runtime, the listener, name resolution and the standard streams.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        let sockets = self.connections.saturating_mul(2);
        let ends = self.lanes.saturating_mul(2);
        u64::try_from(sockets.saturating_add(ends).saturating_add(32)).unwrap_or(u64::MAX)
    }
}
