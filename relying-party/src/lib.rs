//! The Relying Party's side: proves a peer before any byte of application data is read or written.
//!
//! A connection that was accepted exists only as [`AcceptedConnection`], which is made by one function after the chain,
//! the trust domain, the usage and the complete identifier were verified (MT-1 … MT-13). It trusts the bundle that it is
//! configured with, and nothing that a peer says about itself.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod connection;

pub use connection::{AcceptedConnection, Own, RelyingParty, WallClock};
pub use inwit_protocol::certificate::{Role, TrustBundle, WorkloadCertificate, verify};
pub use inwit_protocol::identity::{TrustDomain, WorkloadIdentifier};
pub use inwit_protocol::refusal::{Refusal, RefusalCode};
pub use inwit_protocol::tls::AcceptedPeers;
