//! Everything that crosses a wire between the guest, the authority and a Relying Party: the binding that goes into the
//! hardware report, Evidence, the request and its reply, identities, sealed secrets, and the primitives they stand on.
//!
//! Pure: no I/O, no clock, no async; time is an argument. It trusts no byte it parses. It never holds a platform's
//! trust anchors and never decides whether Evidence is acceptable: that is the authority's.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod azure;
pub mod binding;
pub mod cbor;
pub mod certificate;
mod cose;
pub mod disk;
pub mod ear;
pub mod evidence;
mod extensions;
pub mod frame;
pub mod identity;
pub mod message;
pub mod primitives;
pub mod refusal;
pub mod result;
pub mod seal;
pub mod secret;
pub mod signed;
pub mod tls;

/// The TLS application protocol. The highest version both sides offer is used; an old decoder stays as long as its name.
pub const ALPN: &[u8] = b"inwit/1";

/// TLS exporter label (RFC 8446 §7.5) whose 32-byte value is the verifier's nonce: it depends on the server's random.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-inwit-evidence-v1";
