//! One run of the unmodified inwit-guest, as a process or in a virtual machine, and what its console said.

use super::programs::Programs;
use super::{Result, StageError};
use crate::world::qemu::Boot;
use crate::world::{How, Line};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest run of a process.
const PROCESS_LIMIT: Duration = Duration::from_secs(90);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The machine powered itself off.
    PoweredOff,
    /// The process exited.
    Exited(i32),
    /// Anything else.
    Other(String),
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Console lines with the seconds since the start.
    pub lines: Vec<(f64, String)>,
    /// How it ended.
    pub end: End,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// One completed step, as the guest's console names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Milliseconds since the guest's program started.
    pub at_ms: u64,
    /// Name.
    pub name: String,
    /// Text.
    pub text: String,
}

/// Parses `inwit: +<n>ms <name>: <text>`.
pub fn phase(line: &str) -> Option<Phase> {
    let (at, rest) = line.split_once("inwit: +")?.1.split_once("ms ")?;
    let (name, text) = rest.split_once(':')?;
    Some(Phase { at_ms: at.parse().ok()?, name: name.to_owned(), text: text.trim().to_owned() })
}

impl Run {
    /// The steps that were completed.
    pub fn phases(&self) -> Vec<Phase> {
        self.lines
            .iter()
            .filter_map(|(_, line)| phase(line))
            .filter(|phase| !phase.name.starts_with("REFUSED"))
            .collect()
    }

    /// The code of the one refusal line, if there is one.
    pub fn refusal(&self) -> Option<String> {
        let line =
            self.lines.iter().find_map(|(_, line)| line.split_once("REFUSED ").map(|(_, rest)| rest.to_owned()))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    /// The one refusal line as it was printed, without its time.
    pub fn refusal_line(&self) -> Option<String> {
        self.lines.iter().find_map(|(_, line)| line.split_once("REFUSED ").map(|(_, rest)| rest.to_owned()))
    }

    /// Everything that was printed.
    pub fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    /// Peak resident memory as the guest counted it, in bytes; 0 if it did not say.
    pub fn peak_rss_bytes(&self) -> u64 {
        let phases = self.phases();
        let text =
            phases.iter().find(|phase| phase.name == "peak-rss").map(|phase| phase.text.as_str()).unwrap_or_default();
        text.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

/// Runs the guest as a service with this configuration file; each line is also given to `follow`.
pub fn run_process(programs: &Programs, configuration: &Path, mut follow: impl FnMut(f64, &str)) -> Result<Run> {
    let started = Instant::now();
    let mut child = Command::new(&programs.guest)
        .arg("--config")
        .arg(configuration)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| StageError::of("inwit-guest", error))?;
    let output = child.stdout.take().ok_or_else(|| StageError::of("inwit-guest", "no output"))?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            let _ = send.send(line);
        }
    });
    let mut lines = Vec::new();
    while let Ok(line) = receive.recv_timeout(PROCESS_LIMIT.saturating_sub(started.elapsed())) {
        let at = started.elapsed().as_secs_f64();
        follow(at, &line);
        lines.push((at, line));
    }
    if started.elapsed() >= PROCESS_LIMIT {
        child.kill()?;
        child.wait()?;
        return Ok(Run {
            lines,
            end: End::Other("it did not end in time".into()),
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    let status = child.wait()?;
    let end = status.code().map_or_else(|| End::Other(status.to_string()), End::Exited);
    Ok(Run { lines, end, seconds: started.elapsed().as_secs_f64() })
}

/// Boots a virtual machine and follows its console to the end.
pub fn run_machine(boot: &Boot, mut follow: impl FnMut(f64, &str)) -> Result<Run> {
    let running = boot.start()?;
    let lines = running.lines();
    let mut seen = Vec::new();
    for Line { at, text } in lines.iter() {
        let seconds = at.as_secs_f64();
        follow(seconds, &text);
        seen.push((seconds, text));
    }
    let report = running.wait_exit(boot.limit());
    let end = match report.how {
        How::PoweredOff => End::PoweredOff,
        other => End::Other(format!("{other:?}")),
    };
    Ok(Run { lines: seen, end, seconds: report.seconds })
}
