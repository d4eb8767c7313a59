//! Event lines on the standard streams, written by a thread of their own.
//!
//! A reader that stops reading must not stop the relay: events wait in a bounded queue, and what does not fit is
//! counted and dropped. This file adds nothing to the events and knows nothing of connections.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use inwit_shim::{Event, Reason};

/// Events that may wait for the writing thread.
const QUEUE: usize = 1024;

/// How long the end of the program waits for a reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Every event as a JSON object on standard output.
    Json,
    /// The ready and stopped lines on standard output; troubles on standard error, at most one a second.
    Text,
}

/// A line and its stream.
enum Line {
    Error(String),
    Output(String),
}

/// The sending half.
pub(crate) struct Lines {
    form: Form,
    queue: SyncSender<Line>,
    lost: AtomicU64,
    started: Instant,
    /// Second, counted from `started`, in which the last trouble line was written, plus one.
    troubled: AtomicU64,
}

/// Tells when the writing thread is done.
pub(crate) struct Written(Receiver<()>);

impl Lines {
    /// Starts the writing thread.
    pub(crate) fn start(form: Form) -> (Self, Written) {
        let (queue, waiting) = sync_channel(QUEUE);
        let (alive, done) = channel();
        thread::spawn(move || {
            write_all(&waiting);
            drop::<std::sync::mpsc::Sender<()>>(alive);
        });
        let lines = Self { form, queue, lost: AtomicU64::new(0), started: Instant::now(), troubled: AtomicU64::new(0) };
        (lines, Written(done))
    }

    /// Queues what is to be written of the event. Never blocks but for the very last event, and then not for long.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        let Some(line) = self.line(event) else { return };
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && self.queue.try_send(self.loss(lost)).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        let deadline = match event {
            Event::Stopped(_) => Instant::now() + LAST_WORDS,
            _ => Instant::now(),
        };
        let mut unsent = Some(line);
        while let Some(line) = unsent.take() {
            match self.queue.try_send(line) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(line)) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                    unsent = Some(line);
                }
                Err(TrySendError::Full(_)) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    fn line(&self, event: &Event<'_>) -> Option<Line> {
        match (self.form, event) {
            (Form::Json, event) => Some(Line::Output(event.to_json())),
            (Form::Text, Event::Ready(_) | Event::Stopped(_)) => Some(Line::Output(format!("inwit-shim: {event}"))),
            (
                Form::Text,
                Event::Trouble { .. } | Event::Refused { .. } | Event::Closed { reason: Reason::Unreachable, .. },
            ) => self.may_trouble().then(|| Line::Error(format!("inwit-shim: {event}"))),
            (Form::Text, Event::Opened { .. } | Event::Closed { .. }) => None,
        }
    }

    fn may_trouble(&self) -> bool {
        let now = self.started.elapsed().as_secs() + 1;
        self.troubled.swap(now, Ordering::Relaxed) != now
    }

    fn loss(&self, lost: u64) -> Line {
        match self.form {
            Form::Json => Line::Output(format!(r#"{{"event":"lost","lost":{lost}}}"#)),
            Form::Text => Line::Error(format!("inwit-shim: {lost} lines were dropped because nobody read them")),
        }
    }
}

impl Written {
    /// Waits until every queued line was written, at most a second.
    pub(crate) fn wait(self) {
        // The thread never sends: it ends, or the time does.
        let (Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)) =
            self.0.recv_timeout(LAST_WORDS);
    }
}

fn write_all(waiting: &Receiver<Line>) {
    for line in waiting {
        // A closed stream is its reader's wish; the relay goes on.
        let _ = match line {
            Line::Error(text) => writeln!(io::stderr(), "{text}"),
            Line::Output(text) => writeln!(io::stdout(), "{text}"),
        };
    }
}
