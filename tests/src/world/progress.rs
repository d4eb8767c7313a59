//! Signs of life on standard error for things that take more than two seconds.
//! A spinner on a terminal, plain lines elsewhere. Never writes to standard output, which belongs to results.

use std::{
    io::{IsTerminal, Write},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Where nobody watches a spinner, fleeting notes are shown at most this often.
const NOTE_PAUSE: Duration = Duration::from_secs(10);

/// Takes lines that stay and notes that pass by.
pub struct Progress {
    look: Look,
}

enum Look {
    Silent,
    Lines(Mutex<Instant>),
    Spinner(ProgressBar),
}

impl Progress {
    /// Shows nothing.
    pub fn silent() -> Progress {
        Progress { look: Look::Silent }
    }

    /// Shows on standard error in the way that fits it.
    pub fn on_stderr() -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { look: Look::Lines(Mutex::new(Instant::now())) };
        }
        let style = ProgressStyle::with_template("  {spinner} {elapsed} {wide_msg}");
        let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Progress { look: Look::Spinner(bar) }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.look {
            Look::Silent => {}
            Look::Lines(_) => drop(writeln!(std::io::stderr(), "{text}")),
            Look::Spinner(bar) => bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}"))),
        }
    }

    /// What is being done right now; the next note replaces it.
    pub fn note(&self, text: &str) {
        match &self.look {
            Look::Silent => {}
            Look::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if last.elapsed() >= NOTE_PAUSE {
                    *last = Instant::now();
                    let _ = writeln!(std::io::stderr(), "  … {text}");
                }
            }
            Look::Spinner(bar) => {
                bar.enable_steady_tick(Duration::from_millis(120));
                bar.set_message(text.to_owned());
            }
        }
    }

    /// Ends the spinner until the next note.
    pub fn rest(&self) {
        if let Look::Spinner(bar) = &self.look {
            bar.disable_steady_tick();
            bar.finish_and_clear();
            bar.reset();
        }
    }
}
