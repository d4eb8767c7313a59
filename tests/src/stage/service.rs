//! A product program that serves: started with its output followed line by line, told to stop when dropped.

use super::{Result, StageError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for a line or an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A started program.
pub struct Service {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Service {
    /// Starts a program, merging nothing: standard error goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &std::path::Path) -> Result<Self> {
        let log = std::fs::File::create(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| StageError::of(name, error))?;
        let output = child.stdout.take().ok_or_else(|| StageError::of(name, "no output"))?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, lines })
    }

    /// The next line that contains `pattern`.
    pub fn wait_for(&self, pattern: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(pattern) {
                return Ok(line);
            }
            last = line;
        }
        Err(StageError::of(&self.name, format!("did not say {pattern:?}; last line: {last:?}")))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop and waits; gives its exit code.
    pub fn stop(mut self) -> Result<Option<i32>> {
        self.tell();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(StageError::of(&self.name, "does not stop when told to"))
    }

    fn tell(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.tell();
            std::thread::sleep(Duration::from_millis(20));
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
