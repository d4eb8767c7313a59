//! The stage on which the whole path is played: product programs built and started, the host's tap between relay and
//! authority, a greeter to prove oneself to, and one guest, as a process or in a virtual machine. The demonstration and
//! the end-to-end tests stand on it alike.

pub mod greeter;
pub mod guest;
pub mod image;
pub mod office;
pub mod play;
pub mod programs;
pub mod recorder;
pub mod service;
pub mod tap;
pub mod trust;

use std::fmt;

/// What went wrong on the stage, in one line with its next step where there is one.
#[derive(Debug)]
pub struct StageError(pub String);

impl StageError {
    /// An error about a named thing.
    pub fn of(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self(format!("{what}: {cause}"))
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StageError {}

/// Shorthand.
pub type Result<T> = std::result::Result<T, StageError>;

macro_rules! from {
    ($($error:ty),*) => { $(impl From<$error> for StageError { fn from(error: $error) -> Self { Self(error.to_string()) } })* };
}
from!(
    crate::world::WorldError,
    crate::hardware::HardwareError,
    inwit_image::ImageError,
    std::io::Error,
    serde_json::Error
);

/// The trust domain of the stage.
pub const TRUST_DOMAIN: &str = "demo.example";
/// Identifier of the guest's workload.
pub const HELLO: &str = "spiffe://demo.example/hello";
/// Identifier of the host-side Relying Party.
pub const GREETER: &str = "spiffe://demo.example/greeter";
/// What only the workload and the greeter may ever see; its absence from what the host saw is checked.
pub const CONFIDENTIAL: &str = "the confidential payload of the demonstration: 7f4b6d1c-nobody-else-reads-this";

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
