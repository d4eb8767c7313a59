//! The agent inside the confidential VM. It proves what booted, obtains a credential bound to a key that never leaves
//! this memory, opens the workload's disk with a key released to it alone, and runs the workload.
//!
//! It trusts what is measured (itself, its configuration) and the authority's pinned key. It does not trust the host:
//! not its disk, network, clock, kernel command line or arguments. It has no features and no fallback: what is missing
//! is a refusal, and a refusal is a power-off.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]

pub mod acquire;
pub mod agent;
pub mod attester;
pub mod channel;
pub mod config;
pub mod console;
pub mod credential;
mod disk;
mod hardening;
mod init;
mod outlet;
pub mod sys;
pub mod tpm;
mod workload;

use acquire::{Acquired, Parts};
use attester::Attester;
use config::MeasuredConfig;
use console::Console;
use inwit_protocol::binding::Agent;
use inwit_protocol::evidence::AgentRegister;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use std::path::Path;
use std::process::ExitCode;
use workload::Outcome;

/// Where the measured configuration lies in the initramfs.
pub const CONFIG_PATH: &str = "/etc/inwit/guest.conf";
/// Longest configuration file, in bytes.
const CONFIG_LIMIT: usize = 65_536;

/// Runs as PID 1. Never returns to the kernel: every way out is a power-off.
pub fn run_as_init() -> ExitCode {
    let console = Console::of_the_kernel();
    init::power_off_on_panic();
    let outcome = init::mount_early().and_then(|()| run(&console, Path::new(CONFIG_PATH), Mode::Init));
    report(&console, &outcome);
    init::power_off()
}

/// Runs as a service: no mounts, no modules, no power-off.
pub fn run_as_service(config: &Path) -> ExitCode {
    let console = Console::start();
    let outcome = run(&console, config, Mode::Service);
    report(&console, &outcome);
    match outcome {
        Ok(Outcome::Ended | Outcome::ToldToStop) => ExitCode::SUCCESS,
        Ok(Outcome::Failed(_)) => ExitCode::FAILURE,
        Err(_) => ExitCode::from(3),
    }
}

/// Parses a configuration file and prints what an Owner registers: its digest and identity.
pub fn check(path: &Path) -> ExitCode {
    match read_config(path) {
        Ok((config, _)) => {
            let text =
                format!("configuration {} is good: identity {}", console::hex(&config.digest), config.identifier);
            console::line(&text, ExitCode::SUCCESS)
        }
        Err(refusal) => console::line(&refusal.to_string(), ExitCode::from(3)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Init,
    Service,
}

fn report(console: &Console, outcome: &Result<Outcome, Refusal>) {
    match outcome {
        Ok(Outcome::Ended) => console.phase("end", "the workload ended well"),
        Ok(Outcome::ToldToStop) => console.phase("end", "told to stop; the workload was stopped"),
        Ok(Outcome::Failed(how)) => console.refusal(&Refusal::new(RefusalCode::WorkloadFailed, how)),
        Err(refusal) => console.refusal(refusal),
    }
    console.phase("peak-rss", &format!("{} kB", hardening::peak_rss_kib()));
}

fn read_config(path: &Path) -> Result<(MeasuredConfig, Vec<u8>), Refusal> {
    let invalid = |cause: String| Refusal::new(RefusalCode::ConfigurationInvalid, cause);
    let bytes =
        agent::read_bounded(path, CONFIG_LIMIT).map_err(|error| invalid(format!("{}: {error}", path.display())))?;
    let config = MeasuredConfig::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
    Ok((config, bytes))
}

/// Boot order, one call a line.
fn run(console: &Console, path: &Path, mode: Mode) -> Result<Outcome, Refusal> {
    hardening::harden()?;
    let (config, _) = read_config(path)?;
    console.phase("config", &format!("{} for {}", console::hex(&config.digest), config.identifier));
    if mode == Mode::Init {
        init::load_modules(&config)?;
        init::mount_late()?;
        init::close_the_kernel()?;
        console.phase("modules", &format!("{} loaded", config.modules.len()));
    }
    let agent = agent::measure(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Refusal::new(RefusalCode::Internal, format_args!("runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let (attester, register) = measured_platform(&config, &agent).await?;
        console.phase("platform", &attester.describe());
        console.phase("agent", &format!("executable {} register {register:?}", console::hex(&agent.executable)));
        let parts = Parts { attester, agent, register, config: &config, console };
        let Acquired { credential, secrets } = acquire::c_background_check(parts).await?;
        disk::open_configured(&config, &secrets, console)?;
        let outlets = outlet::open_all(&config, &credential)?;
        let ended = workload::run(&config, secrets, outlets, console).await;
        drop(credential);
        ended
    });
    // A device that never answers holds a thread; the end does not wait for it.
    runtime.shutdown_background();
    outcome
}

/// Finds the platform and has the agent measured into its register, in bounded time.
async fn measured_platform(config: &MeasuredConfig, agent: &Agent) -> Result<(Attester, AgentRegister), Refusal> {
    let (config, agent) = (config.clone(), agent.clone());
    let found = tokio::task::spawn_blocking(move || {
        let attester = attester::find(&config)?;
        let register = attester.extend_agent(&agent)?;
        Ok((attester, register))
    });
    let found = tokio::time::timeout(acquire::REPORT_TIMEOUT, found).await;
    let found =
        found.map_err(|_| Refusal::new(RefusalCode::AttesterFailed, "the platform's device does not answer"))?;
    found.map_err(|error| Refusal::new(RefusalCode::Internal, error))?
}
