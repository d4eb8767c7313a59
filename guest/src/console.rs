//! What the guest says, one line at a time. The host reads the console, so nothing secret is ever given to this file, and
//! foreign text is already reduced to printable ASCII by [`Refusal`]. The host may also stop reading it: a line that
//! cannot be written in a moment is dropped, so that nobody can hold up the agent, or its power-off, by not listening.

use inwit_protocol::refusal::Refusal;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long one line may take before the rest of it is dropped.
const LINE: Duration = Duration::from_millis(200);

/// The kernel's console, once PID 1 has opened it; standard output otherwise.
static KERNEL: OnceLock<File> = OnceLock::new();

/// The console, with the time since the program started.
pub struct Console {
    started: Instant,
}

impl Console {
    /// Starts the clock; lines go to standard output.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// As [`Console::start`], with lines to the kernel's console and without waiting for it.
    pub(crate) fn of_the_kernel() -> Self {
        if let Ok(file) = OpenOptions::new().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open("/dev/console") {
            let _ = KERNEL.set(file); // set once: there is one PID 1
        }
        Self::start()
    }

    /// `inwit: +<milliseconds>ms <name>: <text>`: a step that was completed.
    pub fn phase(&self, name: &str, text: &str) {
        say(&format!("inwit: +{}ms {name}: {text}", self.started.elapsed().as_millis()));
    }

    /// `inwit: REFUSED <code> (<case>): <cause>; next: <step>`: the one line that says why it ends here.
    pub fn refusal(&self, refusal: &Refusal) {
        say(&format!("inwit: +{}ms REFUSED {refusal}", self.started.elapsed().as_millis()));
    }
}

/// One line. Errors are ignored: there is nobody else to tell.
pub(crate) fn say(text: &str) {
    let line = format!("{text}\n");
    let _ = match KERNEL.get() {
        Some(console) => write_without_waiting(console, line.as_bytes()),
        None => io::stdout().write_all(line.as_bytes()),
    };
}

fn write_without_waiting(mut console: &File, mut bytes: &[u8]) -> io::Result<()> {
    let started = Instant::now();
    while !bytes.is_empty() {
        match console.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && started.elapsed() < LINE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says one text and passes the exit code through.
pub fn line(text: &str, code: ExitCode) -> ExitCode {
    say(text);
    code
}

/// Lower-case hex, for digests.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
