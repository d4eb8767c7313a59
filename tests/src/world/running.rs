//! A virtual machine that runs: its console live, its end with the reason, its life bounded.
//! Does not trust the guest to end, to print, or to print the truth. Never leaves the machine behind: a time limit, the
//! owner's end and this process's end all end it.

use std::{
    io::Read,
    path::PathBuf,
    process::{Child, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;

use super::{Line, Result, console::Console, error::WorldError, process, qmp::Reasons, slot::Slot};

const TAIL: usize = 25;

/// How a virtual machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// The guest powered off: the only good end.
    PoweredOff,
    /// The guest reset itself; with `panic=-1` that is a kernel panic, or an init that ended.
    Reset,
    /// It ran into its time limit and was ended.
    LimitReached,
    /// The owner stopped it.
    Stopped,
    /// QEMU itself ended badly: its status and its words.
    Failed(String),
}

/// All that is left of a virtual machine.
#[derive(Debug, Clone)]
pub struct ExitReport {
    /// The serial console, without escape sequences.
    pub console: Vec<Line>,
    /// From start to end.
    pub seconds: f64,
    /// How it ended.
    pub how: How,
}

impl ExitReport {
    /// The console as one text.
    pub fn text(&self) -> String {
        self.console.iter().map(|line| format!("{}\n", line.text)).collect()
    }
}

/// What belongs to a machine besides its process, kept until the end.
pub(crate) struct Belongings {
    pub(crate) scratch: TempDir,
    pub(crate) slot: Slot,
    pub(crate) reasons: Reasons,
    pub(crate) qmp_socket: PathBuf,
    pub(crate) limit: Duration,
}

/// A virtual machine that runs. Ended when dropped.
pub struct Running {
    console: Arc<Console>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<(How, f64)>>,
    pid: u32,
}

impl Running {
    pub(crate) fn watch(mut child: Child, belongings: Belongings) -> Running {
        let (console, stop) = (Arc::new(Console::starting_now()), Arc::new(AtomicBool::new(false)));
        let pid = child.id();
        let output = child.stdout.take();
        let complaints = child.stderr.take();
        let reader = {
            let console = console.clone();
            thread::spawn(move || read_console(output, &console))
        };
        let complaints = thread::spawn(move || read_complaints(complaints));
        let watcher = {
            let (console, stop) = (console.clone(), stop.clone());
            thread::spawn(move || {
                let cut_short = wait_for_end(&mut child, &console, &stop, belongings.limit);
                let seconds = console.elapsed().as_secs_f64();
                let _ = reader.join();
                let complaints = complaints.join().unwrap_or_default();
                let reason = belongings.reasons.last(&belongings.qmp_socket);
                let how = cut_short.unwrap_or_else(|| judge(child.wait().ok(), reason.as_deref(), &complaints));
                drop((belongings.scratch, belongings.slot));
                console.end();
                (how, seconds)
            })
        };
        Running { console, stop, watcher: Some(watcher), pid }
    }

    /// All console lines so far and from now on, live; the channel closes when the machine has ended.
    pub fn lines(&self) -> mpsc::Receiver<Line> {
        self.console.listen()
    }

    /// Waits for the first console line that contains the pattern; lines printed before the call count.
    ///
    /// # Errors
    /// Time is up, or the machine ended without printing it; with the console's last lines. The machine is not stopped.
    pub fn wait_for(&self, pattern: &str, limit: Duration) -> Result<Line> {
        self.console.wait_for(pattern, limit).ok_or_else(|| {
            let ended = self.watcher.as_ref().is_none_or(JoinHandle::is_finished);
            let why = if ended { "the machine has ended".into() } else { format!("waited {} s", limit.as_secs()) };
            WorldError::NotSeen { pattern: pattern.into(), why, tail: self.console.tail(TAIL) }
        })
    }

    /// Waits for the end; after `limit` the machine is ended and the report says [`How::LimitReached`].
    pub fn wait_exit(mut self, limit: Duration) -> ExitReport {
        let deadline = self.console.elapsed() + limit;
        let mut cut_short = None;
        while self.watcher.as_ref().is_some_and(|watcher| !watcher.is_finished()) {
            if self.console.elapsed() >= deadline && cut_short.is_none() {
                self.stop.store(true, Ordering::Release);
                cut_short = Some(How::LimitReached);
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.report(cut_short)
    }

    /// Ends the machine now.
    pub fn stop(mut self) -> ExitReport {
        self.stop.store(true, Ordering::Release);
        self.report(None)
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The console so far.
    pub fn console(&self) -> Vec<Line> {
        self.console.lines()
    }

    fn report(&mut self, cut_short: Option<How>) -> ExitReport {
        let lost = || (How::Failed("its watcher ended early".into()), self.console.elapsed().as_secs_f64());
        let ended = self.watcher.take().and_then(|watcher| watcher.join().ok());
        let (how, seconds) = ended.unwrap_or_else(lost);
        let how = if how == How::Stopped { cut_short.unwrap_or(how) } else { how };
        ExitReport { console: self.console.lines(), seconds, how }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// Waits until the process has ended. `Some` says that it had to be ended, and why.
fn wait_for_end(child: &mut Child, console: &Console, stop: &AtomicBool, limit: Duration) -> Option<How> {
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return None;
        }
        let stopped = stop.load(Ordering::Acquire);
        if stopped || console.elapsed() >= limit {
            process::end(child);
            return Some(if stopped { How::Stopped } else { How::LimitReached });
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn judge(status: Option<ExitStatus>, reason: Option<&str>, complaints: &str) -> How {
    let succeeded = status.is_some_and(|status| status.success());
    match (succeeded, reason) {
        (true, Some("guest-shutdown")) => How::PoweredOff,
        (true, Some("guest-reset" | "guest-panic")) => How::Reset,
        _ => {
            let status = status.map_or_else(|| "status lost".into(), |status| status.to_string());
            How::Failed(format!("{status}, reason {}: {}", reason.unwrap_or("not told"), complaints.trim()))
        }
    }
}

fn read_console(stream: Option<impl Read>, console: &Console) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        console.feed(buffer.get(..count).unwrap_or_default());
    }
}

fn read_complaints(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.by_ref().take(64 << 10).read_to_end(&mut bytes);
        // Keep the pipe empty, or QEMU would stop at a full one.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
