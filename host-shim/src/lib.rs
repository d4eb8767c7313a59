//! The untrusted host relay: it copies bytes between a guest and the authority side, and knows ports and addresses but
//! no protocols.
//!
//! # What it is trusted with
//! Nothing. It runs on the host, which is the adversary (design.md section 1): whoever owns it can drop, delay, replay,
//! reorder and rewrite all that passes, and can connect where it likes. What protects the guest is the TLS session
//! that passes *through* the relay and the Evidence bound to it. So nothing here authenticates, encrypts or filters; it
//! parses no relayed byte, holds no key, and needs no code of the other crates. A replaced or malicious shim gains
//! denial of service, which the host has anyway, and traffic sizes and times.
//!
//! # What it does promise
//! Availability among peers, none of which it trusts: a guest (or somebody on the authority's network) that stalls,
//! floods, half-opens, half-closes, resets or sends garbage harms its own connection only.
//! - One route: a guest cannot choose the destination, so the relay is not a way into the host's network.
//! - Bounds on connections, connect time, idle time, bandwidth and memory ([`Limits`]); a guest over the limit
//!   is closed at once and never queued.
//! - Bytes are read only after the earlier ones were delivered: back-pressure reaches the sender and nobody else.
//! - An accept error is answered by a pause, a failed connection by a closed socket, never by the end of the process.
//!
//! # How bytes move
//! Through a kernel pipe with splice(2) where that is the faster way, else through a buffer; either is lent only while
//! bytes are in flight. An idle connection is two registered sockets and one small task.
//!
//! # Use
//! [`Relay::bind`] opens the guest side of one [`Route`], [`Relay::run`] relays until its [`Phase`] watch says stop.
//! Several relays can run in one runtime; they share nothing.

mod address;
mod connection;
mod descriptors;
mod event;
mod lane;
mod limits;
mod listener;
mod pace;
mod relay;
mod stream;
mod watched;

pub use address::{AddressError, Listen, Route, Upstream};
pub use descriptors::allow_descriptors;
pub use event::{Event, Reason, Totals, Watcher};
pub use limits::Limits;
pub use listener::BindError;
pub use relay::{Phase, Relay};
