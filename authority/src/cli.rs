//! The command line: acts of the Workload Owner and the operator on a state folder. Text for people, `--json` for scripts;
//! exit 0 good, 1 our own fault or a file that cannot be read, 2 usage, 3 refused. With `--json` each of them prints JSON.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]

mod azure_file;
mod claims_json;
mod coco_evidence;
mod ear_json;
mod endorsement_kinds;
mod endorsement_sources;
mod endorsement_store;
mod evidence;
mod evidence_file;
mod import_told;
mod imports;
mod intel_parts;
mod owner;
mod policy_file;
mod submission;
mod table;
mod tpm;
mod vendor_roots;

use crate::audit::hex;
use crate::decide::{Authority, now};
use crate::fault::{Fault, escaped};
use crate::serve::serve;
use crate::state::State;
use clap::{Parser, Subcommand, ValueEnum};
use inwit_protocol::identity::TrustDomain;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Verifies guests' Evidence, issues credentials bound to their keys, and releases secrets sealed to them.
#[derive(Parser)]
#[command(name = "inwit-authority", version, after_help = AFTER_HELP)]
struct Cli {
    /// Folder that holds this authority's keys, registry and store.
    #[arg(long, global = true, default_value = "inwit-authority-state", value_name = "DIR")]
    state: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

const AFTER_HELP: &str = "\
A first authority, in order:
  inwit-authority init --trust-domain demo.example
  (state the accepted patch levels in authority.toml, [policy.snp.minimum_tcb.milan])
  inwit-authority endorsements import ark-milan.der milan-cert-chain.pem milan.crl
  inwit-authority secret add disk --generate 32
  inwit-authority workload add hello --identifier spiffe://demo.example/hello --reference hello.toml --secret disk
  inwit-authority serve --listen 0.0.0.0:4050

Exit codes: 0 good, 1 own fault or a bad file, 2 usage, 3 refused.";

#[derive(Subcommand)]
enum Act {
    /// Make a new authority: fresh keys, nothing trusted, nothing registered.
    Init {
        /// Name of the trust domain, for example demo.example.
        #[arg(long)]
        trust_domain: String,
    },
    /// Print the pin of the channel key, which guests' configurations hold.
    Pin,
    /// Write the trust domain's anchor (DER) for Relying Parties.
    Bundle {
        /// File to write.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Serve guests. SIGHUP reads policy, registry and endorsements anew; SIGTERM ends in order.
    Serve {
        /// Roles to serve in this process.
        #[arg(long, value_enum, default_value = "all")]
        roles: Roles,
        /// Address to listen on; port 0 takes a free one and prints it.
        #[arg(long, default_value = "127.0.0.1:4050")]
        listen: SocketAddr,
    },
    /// Register workloads.
    #[command(subcommand)]
    Workload(owner::WorkloadAct),
    /// Store secrets that workloads are entitled to.
    #[command(subcommand)]
    Secret(owner::SecretAct),
    /// Seal a workload disk.
    #[command(subcommand)]
    Disk(owner::DiskAct),
    /// The endorsement store: import vendors' roots and collateral, list them, check how old they are.
    #[command(subcommand)]
    Endorsements(imports::EndorsementsAct),
    /// Issue a certificate to a service that is not attested, on your word; recorded as such.
    Enroll {
        /// The service's identifier, in this trust domain.
        #[arg(long)]
        identifier: String,
        /// Lifetime in seconds.
        #[arg(long, default_value_t = 86_400)]
        lifetime: u64,
        /// Folder to write key.pk8 (mode 0600), certificate.der and anchor.der to.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// How far the TPMs had come that were granted something, and forgetting it.
    #[command(subcommand)]
    Tpm(tpm::TpmAct),
    /// Read and verify the audit log.
    #[command(subcommand)]
    Audit(owner::AuditAct),
    /// Say whether evidence in a file is authentic, and what it claims. Offline; needs no authority.
    #[command(after_help = submission::AUTHENTICATE_HELP)]
    Authenticate(submission::Submission),
    /// Authenticate evidence in a file and judge it by a policy file. Offline; needs no authority, and issues nothing.
    #[command(after_help = submission::APPRAISE_HELP)]
    Appraise {
        #[command(flatten)]
        submission: submission::Submission,
        /// Policy and Reference Values (TOML). Without it, the policy that `init` writes and no Reference Values, under which
        /// everything is refused: the cause says what it would fail for first.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

impl Cli {
    fn form(&self) -> evidence::Form {
        if self.json { evidence::Form::Json } else { evidence::Form::Text }
    }
}

/// Which roles a process serves.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Roles {
    /// Verifier, Credential Authority and Key Store.
    All,
}

/// What an act ends in.
enum Done {
    /// Text and the same as JSON.
    Said(String, serde_json::Value),
    /// A check that failed: exit 3.
    Refused(String, serde_json::Value),
    /// Words that do not go together: exit 2.
    Misused(String),
}

/// Parses the arguments and acts.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // What was not understood may stand before it: the word itself says what the caller reads.
            if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                println!("{}", unjudged(2, &error.to_string()));
            }
            error.exit()
        }
    };
    let (code, words) = outcome(&cli);
    match code {
        0 | 3 => println!("{words}"),
        _ => {
            if cli.json {
                println!("{}", unjudged(code, &words));
            }
            eprintln!("inwit-authority: {words}");
        }
    }
    ExitCode::from(code)
}

/// What programs read where nothing was judged.
fn unjudged(code: u8, words: &str) -> String {
    let verdict = if code == 2 { "usage" } else { "fault" };
    let lines = words.lines().map(str::trim).filter(|line| !line.is_empty());
    let cause: Vec<&str> =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more ")).collect();
    let cause = cause.join(" ");
    escaped(&serde_json::json!({"verdict": verdict, "cause": cause.strip_prefix("error: ").unwrap_or(&cause)}))
}

/// The same with these arguments, the program's name the first of them: gives the exit code and what would be printed.
pub fn run(arguments: &[&OsStr]) -> (u8, String) {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => outcome(&cli),
        Err(error) => (if error.use_stderr() { 2 } else { 0 }, error.to_string()),
    }
}

fn outcome(cli: &Cli) -> (u8, String) {
    let form = |text, json: &serde_json::Value| if cli.json { escaped(json) } else { text };
    match act(cli) {
        Ok(Done::Said(text, json)) => (0, form(text, &json)),
        Ok(Done::Refused(text, json)) => (3, form(text, &json)),
        Ok(Done::Misused(words)) => (2, format!("{words}\nFor more information, try '--help'.")),
        Err(fault) => (1, fault.to_string()),
    }
}

fn act(cli: &Cli) -> Result<Done, Fault> {
    let state = State::at(&cli.state);
    match &cli.act {
        Act::Init { trust_domain } => {
            let domain = TrustDomain::parse(trust_domain).map_err(|error| Fault::of(trust_domain, error))?;
            let state = State::create(&cli.state, &domain, now()?)?;
            let pin = hex(&state.pin()?);
            let text = format!("authority of {domain} in {}\nauthority-pin = {pin}", cli.state.display());
            Ok(Done::Said(text, serde_json::json!({"trust_domain": domain.name(), "authority_pin": pin})))
        }
        Act::Pin => {
            let pin = hex(&state.pin()?);
            Ok(Done::Said(format!("authority-pin = {pin}"), serde_json::json!({"authority_pin": pin})))
        }
        Act::Bundle { output } => {
            crate::files::replace(output, &state.anchor()?)?;
            let domain = state.trust_domain()?;
            let text = format!("anchor of {domain} written to {}", output.display());
            Ok(Done::Said(text, serde_json::json!({"trust_domain": domain.name(), "anchor": output})))
        }
        Act::Serve { roles: Roles::All, listen } => run_server(&state, *listen, cli.json),
        Act::Workload(act) => owner::workload(&state, act),
        Act::Secret(act) => owner::secret(&state, act),
        Act::Disk(act) => owner::disk(&state, act),
        Act::Endorsements(act) => imports::endorsements(&state, act),
        Act::Enroll { identifier, lifetime, output } => owner::enroll(&state, identifier, *lifetime, output),
        Act::Tpm(act) => tpm::tpm(&state, act),
        Act::Audit(act) => owner::audit(&state, act),
        Act::Authenticate(submission) => evidence::authenticate(submission, cli.form()),
        Act::Appraise { submission, policy } => evidence::appraise(submission, policy.as_deref(), cli.form()),
    }
}

fn run_server(state: &State, listen: SocketAddr, json: bool) -> Result<Done, Fault> {
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    if json {
        subscriber.json().init()
    } else {
        subscriber.init()
    }
    let connections = state.config()?.connections;
    let authority = Arc::new(Authority::open(state)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Fault::of("runtime", error))?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| Fault::of(listen, error))?;
        let address = listener.local_addr().map_err(|error| Fault::of(listen, error))?;
        let (pin, workloads) = (hex(&authority.pin()), authority.workloads());
        if json {
            println!(
                "{}",
                serde_json::json!({"event": "ready", "listen": address, "authority_pin": pin, "workloads": workloads})
            );
        } else {
            println!("inwit-authority: serving all roles on {address}, {workloads} workloads, authority-pin = {pin}");
        }
        tokio::spawn(reload_when_told(Arc::clone(&authority)));
        serve(authority, listener, connections, told_to_stop()).await
    })?;
    Ok(Done::Said("inwit-authority: stopped".to_owned(), serde_json::json!({"event": "stopped"})))
}

/// At each SIGHUP reads policy, registry and endorsements anew.
async fn reload_when_told(authority: Arc<Authority>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        let authority = Arc::clone(&authority);
        let reloaded = tokio::task::spawn_blocking(move || authority.reload()).await;
        match reloaded.unwrap_or_else(|error| Err(Fault::of("reload", error))) {
            Ok(workloads) => tracing::info!(workloads, "reloaded"),
            Err(fault) => {
                tracing::error!(%fault, "not reloaded: what was read before stays, less the workloads whose file is gone")
            }
        }
    }
}

/// Completes at SIGTERM or SIGINT.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received: stop the process by force");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
