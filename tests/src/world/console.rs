//! A guest's serial console as lines with times, kept and passed on while it runs.
//! Does not trust the guest: a line and the whole are bounded, and what would move a terminal's cursor is taken out.
//! Never judges what a line says.

use std::{
    sync::{Condvar, Mutex, MutexGuard, mpsc},
    time::{Duration, Instant},
};

/// A longer line is cut into pieces of this many bytes.
const LINE_LIMIT: usize = 4096;
/// After this many lines nothing more is kept: an honest boot prints some hundreds.
const LINES_LIMIT: usize = 100_000;

/// One line of the serial console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Since the virtual machine was started.
    pub at: Duration,
    /// Without line end, control characters and escape sequences; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// What a [`Console`] knows of its source.
#[derive(Debug, Default)]
struct Kept {
    lines: Vec<Line>,
    listeners: Vec<mpsc::Sender<Line>>,
    partial: Vec<u8>,
    ended: bool,
}

/// Filled by one reader, watched by any number of others.
#[derive(Debug)]
pub(crate) struct Console {
    started: Instant,
    kept: Mutex<Kept>,
    changed: Condvar,
}

impl Console {
    pub(crate) fn starting_now() -> Console {
        Console { started: Instant::now(), kept: Mutex::default(), changed: Condvar::new() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes bytes as they come.
    pub(crate) fn feed(&self, bytes: &[u8]) {
        let mut kept = self.kept();
        for &byte in bytes {
            if byte != b'\n' {
                kept.partial.push(byte);
            }
            if byte == b'\n' || kept.partial.len() >= LINE_LIMIT {
                self.finish_line(&mut kept);
            }
        }
        self.changed.notify_all();
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        let mut kept = self.kept();
        if !kept.partial.is_empty() {
            self.finish_line(&mut kept);
        }
        kept.ended = true;
        kept.listeners.clear();
        self.changed.notify_all();
    }

    fn finish_line(&self, kept: &mut Kept) {
        let text = readable(&String::from_utf8_lossy(&std::mem::take(&mut kept.partial)));
        let line = Line { at: self.elapsed(), text };
        if kept.lines.len() < LINES_LIMIT {
            kept.listeners.retain(|listener| listener.send(line.clone()).is_ok());
            kept.lines.push(line);
        }
    }

    /// All lines so far and from now on; the channel closes when the console ends.
    pub(crate) fn listen(&self) -> mpsc::Receiver<Line> {
        let mut kept = self.kept();
        let (sender, receiver) = mpsc::channel();
        let sent = kept.lines.iter().all(|line| sender.send(line.clone()).is_ok());
        if sent && !kept.ended {
            kept.listeners.push(sender);
        }
        receiver
    }

    /// The first line that contains the pattern, or `None` once time is up or the console has ended without it.
    pub(crate) fn wait_for(&self, pattern: &str, limit: Duration) -> Option<Line> {
        let deadline = Instant::now() + limit;
        let mut kept = self.kept();
        let mut seen = 0;
        loop {
            let fresh = kept.lines.get(seen..).unwrap_or_default();
            if let Some(line) = fresh.iter().find(|line| line.text.contains(pattern)) {
                return Some(line.clone());
            }
            seen = kept.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if kept.ended || left.is_zero() {
                return None;
            }
            kept = match self.changed.wait_timeout(kept, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.kept().lines.clone()
    }

    /// The last lines as text, for errors.
    pub(crate) fn tail(&self, count: usize) -> String {
        let kept = self.kept();
        let skip = kept.lines.len().saturating_sub(count);
        let lines = kept.lines.iter().skip(skip);
        lines.map(|line| format!("  {:7.2} {}", line.at.as_secs_f64(), line.text)).collect::<Vec<_>>().join("\n")
    }

    /// A panic elsewhere while holding the lock leaves whole lines: go on.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Takes out escape sequences (ECMA-48 CSI: `ESC [ … final`; any other escape with its next character) and controls.
fn readable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            if characters.next() == Some('[') {
                characters.by_ref().find(|c| ('@'..='~').contains(c));
            }
        } else if character == '\t' || !character.is_control() {
            clean.push(character);
        }
    }
    clean.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn lines_are_found_whether_they_come_before_or_after_the_question() {
        let console = Console::starting_now();
        console.feed(b"early\r\nla");
        assert_eq!(console.wait_for("early", SOON).unwrap().text, "early");
        assert_eq!(console.wait_for("la", SOON), None, "half a line is not a line");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| console.wait_for("later", Duration::from_secs(10)));
            console.feed(b"ter\n");
            assert_eq!(waiting.join().unwrap().unwrap().text, "later");
        });
        console.feed(b"cut off");
        console.end();
        assert!(console.wait_for("cut off", SOON).is_some());
        assert_eq!(console.wait_for("never", Duration::from_secs(600)), None, "an ended console is not waited for");
    }

    #[test]
    fn listeners_get_everything_and_then_the_end() {
        let console = Console::starting_now();
        console.feed(b"one\n");
        let listener = console.listen();
        console.feed(b"two\n");
        console.end();
        let texts: Vec<String> = listener.iter().map(|line| line.text).collect();
        assert_eq!(texts, ["one", "two"]);
    }

    #[test]
    fn firmware_screens_become_text() {
        assert_eq!(
            readable("\u{1b}[2J\u{1b}[01;01H\u{1b}[=3hBdsDxe: loading\u{7} Boot0001 \r"),
            "BdsDxe: loading Boot0001"
        );
        assert_eq!(readable("a\u{1b}[31"), "a");
    }

    proptest! {
        #[test]
        fn no_bytes_from_a_guest_break_the_console_or_reach_the_terminal(bytes: Vec<u8>) {
            let console = Console::starting_now();
            console.feed(&bytes);
            console.feed(&vec![b'x'; LINE_LIMIT]);
            console.end();
            for line in console.lines() {
                let is_readable = line.text.len() <= LINE_LIMIT * 3 && !line.text.contains('\u{1b}');
                prop_assert!(is_readable);
            }
        }
    }
}
