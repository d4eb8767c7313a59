//! Says on standard error what the program is at when it takes longer than people like to wait in silence.
//!
//! Nothing foreign is trusted here. Never writes to standard output, and nothing at all in a short run.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Runs that end sooner stay silent; longer ones speak this often.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is being done: one program, one thing at a time.
static STAGE: Mutex<String> = Mutex::new(String::new());

/// Names what is done from now on, such as `hashing initrd.img`.
pub(crate) fn stage(what: impl Into<String>) {
    *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
}

/// Speaks until it is dropped.
pub(crate) struct Progress {
    _ended_by_drop: Sender<()>,
}

impl Progress {
    /// Begins to watch the clock.
    pub(crate) fn begin() -> Self {
        let (ended_by_drop, ended) = channel();
        // Left to itself: it ends with the channel, or with the program.
        drop(thread::spawn(move || speak(&ended)));
        Self { _ended_by_drop: ended_by_drop }
    }
}

fn speak(ended: &Receiver<()>) {
    let begun = Instant::now();
    while ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        let stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _ = writeln!(std::io::stderr(), "inwit-measure: {stage} ({} s)", begun.elapsed().as_secs());
    }
}
