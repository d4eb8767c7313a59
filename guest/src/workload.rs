//! The workload: a supervised child under its own user, started only after everything before it succeeded. As PID 1 the
//! agent also reaps what the workload leaves behind. When it ends, or when told to, the run is over.

use crate::config::MeasuredConfig;
use crate::console::Console;
use crate::outlet::{self, Open};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::secret::Secret;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, chown};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long a workload that was told to stop may take.
const GRACE: Duration = Duration::from_secs(10);

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
    let files = hand_over(config, &secrets)?;
    drop(secrets); // wiped: what the workload needs is on its disk or in its files
    let child = command(config, &outlets, &files)?.spawn().map_err(|error| failed("starting it", error))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|error| failed("pid", error))?);
    console.phase("workload", &format!("started as user {}", config.workload_user));
    let mut told = false;
    loop {
        tokio::select! {
            _ = children.recv() => {}
            _ = terminate.recv(), if !told => told = stop(pid, &mut children).await,
            _ = interrupt.recv(), if !told => told = stop(pid, &mut children).await,
        }
        if let Some(outcome) = reap(pid) {
            for file in files.iter() {
                let _ = std::fs::remove_file(file); // on tmpfs, gone with the machine in any case
            }
            return Ok(if told { Outcome::ToldToStop } else { outcome });
        }
    }
}

/// Asks the workload to end, and ends it if it does not.
async fn stop(pid: Pid, children: &mut tokio::signal::unix::Signal) -> bool {
    let _ = kill(pid, Signal::SIGTERM); // gone already: the reaping that follows sees it
    if tokio::time::timeout(GRACE, children.recv()).await.is_err() {
        let _ = kill(pid, Signal::SIGKILL);
        children.recv().await;
    }
    true
}

/// Reaps every child that ended; says how the workload ended if it was among them.
fn reap(workload: Pid) -> Option<Outcome> {
    let mut outcome = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, 0)) if pid == workload => outcome = Some(Outcome::Ended),
            Ok(WaitStatus::Exited(pid, code)) if pid == workload => {
                outcome = Some(Outcome::Failed(format!("it exited with code {code}")));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == workload => {
                outcome = Some(Outcome::Failed(format!("it was ended by {signal}")));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return outcome,
            Ok(_) => {}
        }
    }
}

fn command(config: &MeasuredConfig, outlets: &[Open], files: &[PathBuf]) -> Result<Command, Refusal> {
    let (program, arguments) = config.workload.split_first().ok_or_else(|| failed("configuration", "no program"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("INWIT_IDENTIFIER", config.identifier.uri());
    for outlet in outlets {
        command.env(format!("INWIT_OUTLET_{}", outlet.name.to_uppercase().replace('-', "_")), &outlet.path);
    }
    if !files.is_empty() {
        command.env("INWIT_SECRETS", config.run.join("secrets"));
    }
    if Uid::effective().is_root() {
        // Setting a user as root also clears the supplementary groups.
        command.uid(config.workload_user).gid(config.workload_user);
    }
    Ok(command)
}

/// Writes the secrets that the workload is to have as files, readable by its user alone.
fn hand_over(config: &MeasuredConfig, secrets: &BTreeMap<String, Secret>) -> Result<Vec<PathBuf>, Refusal> {
    let directory = config.run.join("secrets");
    if config.secret_files.is_empty() {
        return Ok(Vec::new());
    }
    outlet::make_run_directory(&directory)?;
    let mut files = Vec::new();
    for name in &config.secret_files {
        let secret = secrets.get(name).ok_or_else(|| {
            Refusal::new(RefusalCode::SealedKeyUnopenable, format_args!("no secret {name} was released"))
        })?;
        let path = directory.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .map_err(|error| failed("secret file", error))?;
        file.write_all(secret.expose()).map_err(|error| failed("secret file", error))?;
        if Uid::effective().is_root() {
            chown(&path, Some(Uid::from_raw(config.workload_user)), None)
                .map_err(|error| failed("secret file", error))?;
        }
        files.push(path);
    }
    Ok(files)
}
