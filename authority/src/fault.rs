//! A fault of ours or of the operator's input: one line that names the cause, and the next step where there is one. What a
//! guest is told is a `Refusal`, never a fault's text.

use std::fmt;

/// One line of cause.
#[derive(Debug)]
pub struct Fault(String);

impl Fault {
    /// A fault with its cause.
    pub fn new(cause: impl Into<String>) -> Self {
        Self(cause.into())
    }

    /// A fault about a file or another named thing.
    pub fn of(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self(format!("{what}: {cause}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}
