//! One target run for so many seconds, and all of them, several at once. What libFuzzer says is kept in a file; a find is
//! told with the file that holds the input and the command that tries it again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Fuzzing;
use crate::world::{Result, WorldError};

/// One input may take this long, in seconds: honest ones take milliseconds, so longer is a finding.
const INPUT_SECONDS: u32 = 10;
/// A process may grow to this, in MiB: the largest honest input, with all that is made of it, needs a quarter.
const MEMORY_MIB: u32 = 1_024;
/// Longest input in bytes: beyond the limit of every part of Evidence but the event log.
const INPUT_BYTES: u32 = 65_536;
/// Inputs are made for this many seconds longer than asked before the target is ended from outside.
const GRACE: Duration = Duration::from_secs(60);
/// Lines of a failed target's words that are told.
const TOLD_LINES: usize = 40;

/// How to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Wall clock for each target, in seconds.
    pub seconds: u32,
    /// Targets that run at the same time.
    pub at_once: usize,
    /// Where libFuzzer's choices begin; the same number and the same corpus give the same inputs.
    pub seed: Option<u32>,
}

/// What became of one target.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its name.
    pub target: String,
    /// Inputs tried.
    pub inputs: u64,
    /// Processor time in seconds.
    pub processor: f64,
    /// Blocks of code reached.
    pub blocks: u64,
    /// Largest memory in MiB.
    pub memory: u64,
    /// What was found: the target's last words and how to try again. `None` is good.
    pub found: Option<String>,
}

/// Runs all programs and gives the outcomes in their order; `tell` hears of each as it ends.
///
/// # Errors
/// A program cannot be started or its words cannot be kept. A find is no error but an outcome.
pub fn run_all(
    fuzzing: &Fuzzing,
    programs: &[(String, PathBuf)],
    run: &Run,
    tell: impl Fn(&Outcome) + Sync,
) -> Result<Vec<Outcome>> {
    let (next, done) = (Mutex::new(programs.iter().enumerate()), Mutex::new(Vec::new()));
    let worker = || -> Result<()> {
        loop {
            let Some((place, (name, program))) = next.lock().unwrap_or_else(|p| p.into_inner()).next() else {
                return Ok(());
            };
            let outcome = run_one(fuzzing, name, program, run)?;
            tell(&outcome);
            done.lock().unwrap_or_else(|p| p.into_inner()).push((place, outcome));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..run.at_once.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            let stopped = || WorldError::unusable("fuzzing", "a thread of ours panicked", "report it");
            worker.join().unwrap_or_else(|_| Err(stopped()))
        })
    })?;
    let mut done = done.into_inner().unwrap_or_else(|p| p.into_inner());
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
}

fn run_one(fuzzing: &Fuzzing, name: &str, program: &Path, run: &Run) -> Result<Outcome> {
    let (corpus, finds) = (fuzzing.folder("corpus", name)?, fuzzing.folder("finds", name)?);
    let words = fuzzing.folder("words", name)?.join("last");
    let log = || File::create(&words).map_err(WorldError::file("write", &words));
    let log = log()?;
    let mut command = Command::new(program);
    command.arg(&corpus).arg(format!("-artifact_prefix={}/", finds.display()));
    command.arg(format!("-max_total_time={}", run.seconds)).arg("-print_final_stats=1");
    command.arg(format!("-timeout={INPUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg(format!("-max_len={INPUT_BYTES}"));
    command.args(run.seed.map(|seed| format!("-seed={seed}")));
    let start = |source| WorldError::Start { command: name.to_owned(), source };
    let out = log.try_clone().map_err(WorldError::file("write", &words))?;
    let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().map_err(start)?;
    let limit = Duration::from_secs(run.seconds.into()) + GRACE;
    let (status, processor) = watch(child, limit).map_err(start)?;
    let said = String::from_utf8_lossy(&std::fs::read(&words).map_err(WorldError::file("read", &words))?).into_owned();
    Ok(outcome(name, &said, status, processor, &format!("{} {}/FILE", program.display(), finds.display())))
}

/// Waits for the end, or brings it about; gives the processor time that was last seen, in seconds.
fn watch(mut child: Child, limit: Duration) -> std::io::Result<(Option<ExitStatus>, f64)> {
    let (begun, mut processor) = (Instant::now(), 0.0);
    loop {
        // Read first: a process that has ended is counted until it has been waited for.
        processor = processor_seconds(child.id()).unwrap_or(processor);
        if let Some(status) = child.try_wait()? {
            return Ok((Some(status), processor));
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok((None, processor));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// User and system time (proc_pid_stat(5), fields 14 and 15, counted after the name in parentheses; hundredths of a second).
fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / 100.0)
}

fn outcome(name: &str, said: &str, status: Option<ExitStatus>, processor: f64, again: &str) -> Outcome {
    let number = |key: &str| -> u64 {
        let after = said.rfind(key).and_then(|at| said.get(at + key.len()..)).unwrap_or_default().trim_start();
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after.get(..digits).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    };
    let inputs = number("stat::number_of_executed_units:");
    let found = match status {
        Some(status) if status.success() && inputs > 0 => None,
        status => {
            let how = match status {
                None => "did not end".to_owned(),
                Some(status) if status.success() => "tried no input".to_owned(),
                Some(status) => status.to_string(),
            };
            let lines: Vec<&str> = said.lines().collect();
            let last = lines.iter().skip(lines.len().saturating_sub(TOLD_LINES)).copied().collect::<Vec<_>>();
            Some(format!("{name}: {how}\n{}\nagain: {again}", last.join("\n")))
        }
    };
    Outcome {
        target: name.to_owned(),
        inputs,
        processor,
        blocks: number(" cov:"),
        memory: number("stat::peak_rss_mb:"),
        found,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const SAID: &str = "#8 INITED cov: 12 ft: 13\n#99\tDONE   cov: 34 ft: 56 corp: 7/8b\n\
        stat::number_of_executed_units: 99\nstat::peak_rss_mb:              47\n";

    #[test]
    fn an_ordinary_end_is_good_and_its_numbers_are_read() {
        let good = outcome("t", SAID, Some(ExitStatus::from_raw(0)), 1.5, "t FILE");
        assert_eq!((good.inputs, good.blocks, good.memory, good.found), (99, 34, 47, None));
    }

    #[test]
    fn every_other_end_is_told() {
        for (said, status, told) in [
            (SAID, Some(ExitStatus::from_raw(77 << 8)), "exit status: 77"),
            (SAID, Some(ExitStatus::from_raw(6)), "signal: 6"),
            (SAID, None, "did not end"),
            ("", Some(ExitStatus::from_raw(0)), "tried no input"),
        ] {
            let found = outcome("t", said, status, 0.0, "t FILE").found.unwrap();
            assert!(found.contains(told) && found.ends_with("again: t FILE"), "{found}");
        }
    }

    #[test]
    fn a_process_that_does_not_end_is_ended() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let (status, _) = watch(child, Duration::from_millis(10)).unwrap();
        assert!(status.is_none());
    }
}
