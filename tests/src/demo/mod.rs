//! The demonstration: prepares what is missing, builds, boots, shows each step as it happens, and ends in a summary. With
//! `--json` it prints one object and nothing else on standard output. It shows only what it saw.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line")]

mod summary;

use crate::stage::guest::{End, phase};
use crate::stage::play::{Outcome, Play, Scene, Telling, Twist};
use crate::stage::programs::Programs;
use crate::world::setup::Step;
use crate::world::{Progress, World, packages};
use clap::{Parser, ValueEnum};
use inwit_protocol::evidence::Platform;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;
use summary::Summary;

/// Watch a confidential VM prove itself, get its credential, open its disk and run its workload.
#[derive(Parser)]
#[command(name = "cargo demo", version, after_help = AFTER_HELP)]
struct Options {
    /// Which platform the guest runs on.
    #[arg(long, value_enum, default_value = "snp")]
    platform: PlatformName,
    /// What the VM is given to boot; a unified image needs a TPM to be measured by (--platform vtpm and azure-*).
    #[arg(long, value_enum, default_value = "kernel", conflicts_with = "process")]
    boot: BootWay,
    /// No VM: the same guest binary as an ordinary process against the same simulated device. Nothing is measured.
    #[arg(long)]
    process: bool,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// Leave everything that was made, and say where.
    #[arg(long)]
    keep: bool,
}

const AFTER_HELP: &str = "\
What is real: QEMU, the kernel, its report interface, the TPM (swtpm, with --platform vtpm and azure-* also OVMF's measured
boot), the disk, every program of inwit. What is simulated: the SNP and TDX signing hardware, under test roots made on the
spot, and with azure-* the paravisor that leaves its report in the TPM.
The first run installs Debian packages (as root, or prints the line that would), fetches a kernel and builds: minutes.
Exit codes: 0 the workload answered, 1 a fault here, 2 usage, 3 the guest was refused.";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlatformName {
    Snp,
    Tdx,
    Vtpm,
    AzureSnp,
    AzureTdx,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BootWay {
    /// Kernel, initramfs and command line.
    Kernel,
    /// One unified kernel image of them.
    Uki,
}

impl From<PlatformName> for Platform {
    fn from(name: PlatformName) -> Self {
        match name {
            PlatformName::Snp => Self::Snp,
            PlatformName::Tdx => Self::Tdx,
            PlatformName::Vtpm => Self::Vtpm,
            PlatformName::AzureSnp => Self::AzureSnp,
            PlatformName::AzureTdx => Self::AzureTdx,
        }
    }
}

/// Parses the arguments and plays.
pub fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(summary) => {
            if options.json {
                println!("{}", summary.json());
            } else {
                print!("{}", summary.text());
            }
            ExitCode::from(summary.exit_code())
        }
        Err(cause) => {
            if options.json {
                println!("{}", serde_json::json!({ "error": cause }));
            }
            eprintln!("inwit demo: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// Programs that a run without a VM needs; the other packages are left alone then.
const FOR_A_PROCESS: [&str; 4] = ["musl-tools", "openssl", "swtpm", "swtpm-tools"];

fn prepare(options: &Options, world: &World, progress: &Progress) -> Result<(), String> {
    let failed = |error: crate::world::WorldError| error.to_string();
    let steps: &[Step] = if options.process { &[Step::RustTarget] } else { &Step::ALL };
    if options.process && packages::missing().iter().any(|need| FOR_A_PROCESS.contains(&need.name())) {
        Step::Packages.prepare(world, progress).map_err(failed)?;
    }
    // The calculator is for tests only.
    for step in steps.iter().filter(|step| **step != Step::Calculator) {
        let outcome = step.prepare(world, progress).map_err(failed)?;
        if outcome.seconds > 1.0 {
            progress.line(&format!("  {:>6.1} s  {}: {}", outcome.seconds, step.name(), outcome.detail));
        }
    }
    Ok(())
}

fn run(options: &Options) -> Result<Summary, String> {
    if !nix::unistd::geteuid().is_root() && options.process {
        return Err(
            "the report device of --process is a FUSE mount and the workload gets a user of its own: run as root"
                .into(),
        );
    }
    if options.boot == BootWay::Uki && matches!(options.platform, PlatformName::Snp | PlatformName::Tdx) {
        return Err("--boot uki is for --platform vtpm, azure-snp and azure-tdx".into());
    }
    let (world, progress) = (World::here(), Progress::on_stderr());
    prepare(options, &world, &progress)?;
    let programs = Programs::build(&world, &progress).map_err(|error| error.to_string())?;
    progress.rest();
    let folder = tempfile::Builder::new().prefix("inwit-demo-").tempdir().map_err(|error| error.to_string())?;
    let mut show = Show::new(options);
    show.title(options);
    let scene = match (options.process, options.boot) {
        (true, _) => Scene::Process,
        (false, BootWay::Kernel) => Scene::Machine,
        (false, BootWay::Uki) => Scene::UnifiedMachine,
    };
    let play = Play {
        world: &world,
        programs,
        platform: options.platform.into(),
        scene,
        twist: Twist::None,
        folder: folder.path().to_path_buf(),
        tell: Box::new(|telling| show.telling(&telling)),
    };
    let outcome: Outcome = play.play().map_err(|error| error.to_string())?;
    if options.keep {
        eprintln!("kept: {}", folder.keep().display());
    }
    if let End::Other(how) = &outcome.run.end
        && outcome.run.refusal().is_none()
    {
        return Err(format!(
            "the guest ended in an unexpected way: {how}; its last lines:\n{}",
            tail(&outcome.run.text())
        ));
    }
    let guest_bytes = std::fs::metadata(&programs.guest).map_err(|error| error.to_string())?.len();
    Ok(Summary::of(options.platform.into(), scene, &outcome, guest_bytes))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}

/// The live sequence, for people.
struct Show {
    started: Instant,
    quiet: bool,
    bold: (&'static str, &'static str),
}

impl Show {
    fn new(options: &Options) -> Self {
        let bold = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        Self { started: Instant::now(), quiet: options.json, bold }
    }

    fn title(&self, options: &Options) {
        if self.quiet {
            return;
        }
        let what = if options.process {
            "an ordinary process: no VM, nothing measured, for machines without QEMU"
        } else {
            "a real VM under QEMU"
        };
        println!("\n{}inwit demo · {} · {what}{}\n", self.bold.0, Platform::from(options.platform), self.bold.1);
        println!("  seconds  who        what");
    }

    fn telling(&mut self, telling: &Telling<'_>) {
        if self.quiet {
            return;
        }
        let at = self.started.elapsed().as_secs_f64();
        match telling {
            Telling::Step(text) => println!("{at:>9.2}  host       {text}"),
            Telling::Console(_, line) => match phase(line) {
                Some(phase) => {
                    println!("{at:>9.2}  {}guest{}      {}: {}", self.bold.0, self.bold.1, phase.name, phase.text)
                }
                None if line.starts_with("hello: ") => {
                    println!("{at:>9.2}  workload   {}", line.trim_start_matches("hello: "))
                }
                None => println!("{at:>9.2}  console    {line}"),
            },
        }
    }
}
