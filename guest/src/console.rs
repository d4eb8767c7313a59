//! What the guest says, one line at a time. The host reads the console, so nothing secret is ever given to this file,
//! and foreign text is already reduced to printable ASCII by [`Refusal`].
#![allow(clippy::print_stdout, reason = "this is the one file that prints")]

use inwit_protocol::refusal::Refusal;
use std::process::ExitCode;
use std::time::Instant;

/// The console, with the time since the program started.
pub struct Console {
    started: Instant,
}

impl Console {
    /// Starts the clock.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// `inwit: +<milliseconds>ms <name>: <text>`: a step that was completed.
    pub fn phase(&self, name: &str, text: &str) {
        println!("inwit: +{}ms {name}: {text}", self.started.elapsed().as_millis());
    }

    /// `inwit: REFUSED <code> (<case>): <cause>; next: <step>`: the one line that says why it ends here.
    pub fn refusal(&self, refusal: &Refusal) {
        println!("inwit: +{}ms REFUSED {refusal}", self.started.elapsed().as_millis());
    }
}

/// Prints one text and passes the exit code through.
pub fn line(text: &str, code: ExitCode) -> ExitCode {
    println!("{text}");
    code
}

/// Lower-case hex, for digests.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
