//! The workload: a supervised child under its own user, started only after everything before it succeeded. As PID 1 the
//! agent also reaps what the workload leaves behind. When it ends, or when told to, the run is over: it cannot hide its own
//! end. Under PID 1 nothing outlives the agent; under a service a descendant that leaves the workload's process group can.

use crate::config::MeasuredConfig;
use crate::console::Console;
use crate::outlet::{self, Open};
use crate::sys;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::secret::Secret;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid, chown};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::time::{Instant, timeout_at};

/// How long a workload that was told to stop may take.
const GRACE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end one that was killed.
const KILL: Duration = Duration::from_secs(5);

/// How a run ended.
pub(crate) enum Outcome {
    /// The workload exited with 0.
    Ended,
    /// The workload exited otherwise.
    Failed(String),
    /// A signal asked for the end.
    ToldToStop,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::WorkloadFailed, format_args!("{what}: {error}"))
}

/// Starts the workload and stays until it ends.
pub(crate) async fn run(
    config: &MeasuredConfig,
    secrets: BTreeMap<String, Secret>,
    outlets: Vec<Open>,
    console: &Console,
) -> Result<Outcome, Refusal> {
    let mut children = signal(SignalKind::child()).map_err(|error| failed("signals", error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed("signals", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed("signals", error))?;
    let files = SecretFiles::write(config, &secrets)?;
    drop(secrets); // wiped: what the workload needs is on its disk or in its files
    let child = command(config, &outlets, &files)?.spawn().map_err(|error| failed("starting it", error))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|error| failed("pid", error))?);
    console.phase("workload", &format!("started as user {}", config.workload_user));
    let outcome = loop {
        tokio::select! {
            _ = children.recv() => {
                if let Some(outcome) = reap(pid) {
                    break Ok(outcome);
                }
            }
            _ = terminate.recv() => break stop(pid, &mut children, GRACE).await,
            _ = interrupt.recv() => break stop(pid, &mut children, GRACE).await,
        }
    };
    let _ = killpg(pid, Signal::SIGKILL); // none left is as good
    outcome
}

/// Asks the workload to end, and ends it if it does not. Other children's ends do not distract from the deadline.
async fn stop(pid: Pid, children: &mut Stream, grace: Duration) -> Result<Outcome, Refusal> {
    for (how, limit) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, KILL)] {
        let _ = kill(pid, how); // gone already: the reaping that follows sees it
        let deadline = Instant::now().checked_add(limit).unwrap_or_else(Instant::now);
        loop {
            if reap(pid).is_some() {
                return Ok(Outcome::ToldToStop);
            }
            if timeout_at(deadline, children.recv()).await.is_err() {
                break;
            }
        }
    }
    Err(failed("told to stop", "it survived SIGKILL"))
}

/// Reaps every child that ended; says how the workload ended if it was among them.
fn reap(workload: Pid) -> Option<Outcome> {
    let mut outcome = None;
    while let Some((pid, status)) = sys::reap_one() {
        if pid == workload.as_raw() {
            // wait(2): the low seven bits are the signal, none for an exit, whose code is in the next byte.
            outcome = Some(match (status & 0x7f, (status >> 8) & 0xff) {
                (0, 0) => Outcome::Ended,
                (0, code) => Outcome::Failed(format!("it exited with code {code}")),
                (signal, _) => Outcome::Failed(format!("it was ended by signal {signal}")),
            });
        }
    }
    outcome
}

fn command(config: &MeasuredConfig, outlets: &[Open], files: &SecretFiles) -> Result<Command, Refusal> {
    let (program, arguments) = config.workload.split_first().ok_or_else(|| failed("configuration", "no program"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("INWIT_IDENTIFIER", config.identifier.uri()).stdin(Stdio::null());
    for outlet in outlets {
        command.env(&outlet.variable, &outlet.path);
    }
    if !files.0.is_empty() {
        command.env("INWIT_SECRETS", config.run.join("secrets"));
    }
    if Uid::effective().is_root() {
        // Setting a user as root also clears the supplementary groups.
        command.uid(config.workload_user).gid(config.workload_user);
    } else if Uid::effective().as_raw() != config.workload_user {
        let cause = "run the agent as root, or as the configured workload-user";
        return Err(Refusal::new(RefusalCode::ConfigurationInvalid, cause));
    }
    // A group of its own, so that it ends with what it started; a descendant that leaves the group is PID 1's to end.
    command.process_group(0);
    sys::die_with_the_agent(&mut command);
    Ok(command)
}

/// Secrets that the workload is to have as files, readable by its user alone; removed when dropped.
struct SecretFiles(Vec<PathBuf>);

impl SecretFiles {
    fn write(config: &MeasuredConfig, secrets: &BTreeMap<String, Secret>) -> Result<Self, Refusal> {
        let directory = config.run.join("secrets");
        let mut files = Self(Vec::new());
        if !config.secret_files.is_empty() {
            outlet::make_run_directory(&directory)?;
        }
        for name in &config.secret_files {
            let secret = secrets.get(name).ok_or_else(|| {
                Refusal::new(RefusalCode::SealedKeyUnopenable, format_args!("no secret {name} was released"))
            })?;
            let path = directory.join(name);
            let _ = std::fs::remove_file(&path); // left by an agent that was killed; none is as good
            let file_failed = |error: std::io::Error| failed("secret file", error);
            let opened = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path);
            let mut file = opened.map_err(file_failed)?;
            files.0.push(path.clone());
            file.write_all(secret.expose()).map_err(file_failed)?;
            if Uid::effective().is_root() {
                chown(&path, Some(Uid::from_raw(config.workload_user)), None)
                    .map_err(|error| failed("secret file", error))?;
            }
        }
        Ok(files)
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = std::fs::remove_file(file); // gone is as good
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Pid {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Pid::from_raw(command.spawn().unwrap().id() as i32)
    }

    async fn ended(pid: Pid, children: &mut Stream) -> Outcome {
        loop {
            if let Some(outcome) = reap(pid) {
                return outcome;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), children.recv()).await;
        }
    }

    /// One test, for reaping takes every child of the process.
    #[tokio::test]
    async fn a_workload_can_neither_hide_its_end_nor_put_it_off() {
        let mut children = signal(SignalKind::child()).unwrap();
        // A real-time signal is one that nix cannot name; an orphan's end comes in the same batch.
        let pid = shell("(sleep 0.01 &) ; kill -40 $$");
        assert!(matches!(ended(pid, &mut children).await, Outcome::Failed(how) if how.contains("signal 40")));
        let pid = shell("exit 7");
        assert!(matches!(ended(pid, &mut children).await, Outcome::Failed(how) if how.contains("code 7")));
        let pid = shell("true");
        assert!(matches!(ended(pid, &mut children).await, Outcome::Ended));
        // Deaf to SIGTERM, with children that end all the time to distract from the deadline.
        let pid = shell("trap '' TERM; while :; do (true &) ; sleep 0.01; done");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(matches!(stop(pid, &mut children, Duration::from_millis(300)).await, Ok(Outcome::ToldToStop)));
        assert_eq!(kill(pid, None), Err(nix::Error::ESRCH));
    }
}
