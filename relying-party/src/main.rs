//! `inwit-verify`: checks a workload identity certificate against a trust bundle on the command line, and says which rule
//! failed. Reads files, writes nothing.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line")]

use clap::{Parser, Subcommand, ValueEnum};
use inwit_relying_party::{Refusal, Role, TrustBundle, TrustDomain, WorkloadIdentifier, verify};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest file, in bytes.
const FILE_LIMIT: u64 = 65_536;

/// Verifies what a peer shows against the rules of workload identity.
#[derive(Parser)]
#[command(name = "inwit-verify", version, after_help = "Exit codes: 0 good, 1 own fault, 2 usage, 3 refused.")]
struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Check a certificate: chain, dates, usage, trust domain, identifier.
    Certificate {
        /// Leaf certificate, DER.
        leaf: PathBuf,
        /// Intermediate certificates, DER.
        intermediates: Vec<PathBuf>,
        /// Trust domain that the peer must be in.
        #[arg(long)]
        trust_domain: String,
        /// Anchor of the trust domain, DER; may be given several times.
        #[arg(long = "anchor", required = true)]
        anchors: Vec<PathBuf>,
        /// Complete identifier that is expected.
        #[arg(long)]
        identifier: String,
        /// Which side of the connection the peer is on.
        #[arg(long, value_enum)]
        role: RoleName,
        /// Judge at this time, seconds since 1970, instead of now.
        #[arg(long)]
        at: Option<u64>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    Client,
    Server,
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if length > FILE_LIMIT {
        return Err(format!("{}: longer than {FILE_LIMIT} bytes", path.display()));
    }
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

enum Outcome {
    Accepted(WorkloadIdentifier),
    Refused(Refusal),
}

fn act(act: &Act) -> Result<Outcome, String> {
    let Act::Certificate { leaf, intermediates, trust_domain, anchors, identifier, role, at } = act;
    let domain = TrustDomain::parse(trust_domain).map_err(|error| format!("{trust_domain}: {error}"))?;
    let expected = WorkloadIdentifier::parse(identifier).map_err(|error| format!("{identifier}: {error}"))?;
    let now = match at {
        Some(at) => *at,
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| format!("clock: {error}"))?.as_secs(),
    };
    let anchors = anchors.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let chain = std::iter::once(leaf).chain(intermediates).map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let role = match role {
        RoleName::Client => Role::Client,
        RoleName::Server => Role::Server,
    };
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let verified = TrustBundle::new(domain, anchors).and_then(|bundle| verify(&chain, &bundle, role, now));
    Ok(match verified {
        Ok(certificate) if *certificate.identifier() == expected => Outcome::Accepted(expected),
        Ok(certificate) => Outcome::Refused(Refusal::new(
            inwit_relying_party::RefusalCode::IdentityMismatch,
            format_args!("the certificate is for {}", certificate.identifier()),
        )),
        Err(refusal) => Outcome::Refused(refusal),
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match act(&cli.act) {
        Ok(Outcome::Accepted(identifier)) => {
            let json = serde_json::json!({"verdict": "accepted", "identifier": identifier.uri()});
            println!("{}", if cli.json { json.to_string() } else { format!("accepted: {identifier}") });
            ExitCode::SUCCESS
        }
        Ok(Outcome::Refused(refusal)) => {
            let json = serde_json::json!({"verdict": "refused", "code": refusal.code.text(), "cause": refusal.cause, "next": refusal.code.next_step()});
            println!("{}", if cli.json { json.to_string() } else { format!("refused: {refusal}") });
            ExitCode::from(3)
        }
        Err(fault) => {
            eprintln!("inwit-verify: {fault}");
            ExitCode::FAILURE
        }
    }
}
