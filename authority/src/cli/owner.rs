//! Acts of the Workload Owner and the operator: workloads, secrets, disks, endorsements, enrolment, the audit log.

use super::Done;
use crate::audit::{Event, hex};
use crate::decide::now;
use crate::disk;
use crate::fault::Fault;
use crate::files;
use crate::keystore::KeyStore;
use crate::registry::{Registry, Workload};
use crate::state::State;
use clap::{Args, Subcommand};
use inwit_measurements::reference::ReferenceValues;
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a running server needs to be told.
const RELOAD: &str = "; send a running server SIGHUP";
/// Longest secret, in bytes: it travels in one reply.
const SECRET_LIMIT: usize = 8_192;
/// Longest file system image, in bytes.
const IMAGE_LIMIT: usize = 1 << 33;

#[derive(Subcommand)]
pub(super) enum WorkloadAct {
    /// Add a workload, or replace the one of this name.
    Add(WorkloadAdd),
    /// Withdraw a workload. A running server grants it nothing more after SIGHUP.
    Remove {
        /// Its name.
        name: String,
    },
    /// List the registered workloads.
    List,
}

#[derive(Args)]
pub(super) struct WorkloadAdd {
    /// Name: letters, digits, - and _.
    name: String,
    /// Stable Workload Identifier, for example spiffe://demo.example/hello.
    #[arg(long)]
    identifier: String,
    /// Reference Values file (TOML, JSON, CoRIM or RVPS), as inwit-measure writes it; may be given several times.
    #[arg(long = "reference", required = true)]
    references: Vec<PathBuf>,
    /// Secret that it is entitled to; may be given several times.
    #[arg(long = "secret")]
    secrets: Vec<String>,
    /// Attribute as key=value; may be given several times.
    #[arg(long = "attribute", value_parser = key_value)]
    attributes: Vec<(String, String)>,
    /// Lifetime of its credentials, in seconds.
    #[arg(long, default_value_t = 3_600)]
    lifetime: u64,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("an attribute is key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn workload(state: &State, act: &WorkloadAct) -> Result<Done, Fault> {
    match act {
        WorkloadAct::Add(add) => {
            let references: Result<Vec<_>, _> = add.references.iter().map(|path| reference(path)).collect();
            let workload = Workload {
                name: add.name.clone(),
                identifier: add.identifier.clone(),
                secrets: add.secrets.clone(),
                lifetime_seconds: add.lifetime,
                attributes: add.attributes.iter().cloned().collect::<BTreeMap<_, _>>(),
                reference_values: references?,
            };
            let identifier = workload.validate()?;
            if *identifier.trust_domain() != state.trust_domain()? {
                return Err(Fault::of(
                    identifier,
                    format_args!("not in this authority's trust domain {}", state.trust_domain()?),
                ));
            }
            state
                .config()?
                .policy
                .with(workload.reference_values.clone())
                .map_err(|refusal| Fault::new(refusal.cause))?;
            Registry::write(&state.workloads(), &workload)?;
            let text = format!(
                "workload {} registered as {identifier}, {} sets of reference values{RELOAD}",
                add.name,
                add.references.len()
            );
            Ok(Done::Said(text, json!({"workload": add.name, "identifier": identifier.uri()})))
        }
        WorkloadAct::Remove { name } => {
            Registry::remove(&state.workloads(), name)?;
            let text = format!("workload {name} withdrawn{RELOAD}");
            Ok(Done::Said(text, json!({"workload": name, "withdrawn": true})))
        }
        WorkloadAct::List => {
            let registry = state.registry()?;
            let line = |w: &Workload| {
                format!(
                    "{}\t{}\t{} sets\tsecrets: {}",
                    w.name,
                    w.identifier,
                    w.reference_values.len(),
                    w.secrets.join(", ")
                )
            };
            let lines: Vec<_> = registry.entries().iter().map(|entry| line(&entry.workload)).collect();
            let all: Vec<_> = registry.entries().iter().map(|entry| &entry.workload).collect();
            Ok(Done::Said(lines.join("\n"), json!({"workloads": all})))
        }
    }
}

fn reference(path: &Path) -> Result<ReferenceValues, Fault> {
    let bytes = files::read(path, inwit_measurements::reference::MAX_REFERENCE_BYTES)?;
    // What the values were made from stays with the owner's file: it is never compared, and names files and options.
    ReferenceValues::read(&bytes).map(ReferenceValues::without_record).map_err(|error| Fault::of(path.display(), error))
}

#[derive(Subcommand)]
pub(super) enum SecretAct {
    /// Store a secret under a new name.
    Add {
        /// Name: letters, digits, - and _.
        name: String,
        /// Take it from this file.
        #[arg(long, conflicts_with = "generate", required_unless_present = "generate")]
        file: Option<PathBuf>,
        /// Make this many random bytes.
        #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(16..=4096))]
        generate: Option<u16>,
    },
}

fn keystore(state: &State) -> Result<KeyStore, Fault> {
    Ok(KeyStore::new(Arc::new(state.store()?), state.vault()?, state.trust_domain()?.uri()))
}

pub(super) fn secret(state: &State, act: &SecretAct) -> Result<Done, Fault> {
    let SecretAct::Add { name, file, generate } = act;
    let random = SystemRandom::new();
    let secret = match (file, generate) {
        (Some(path), _) => files::read_secret(path, SECRET_LIMIT)?,
        (None, Some(length)) => {
            let mut bytes = vec![0; usize::from(*length)];
            random.fill(&mut bytes).map_err(|_| Fault::new("no randomness"))?;
            Secret::new(bytes)
        }
        (None, None) => return Err(Fault::new("give --file or --generate")),
    };
    keystore(state)?.insert(name, &secret, now()?, &random)?;
    Ok(Done::Said(format!("secret {name} stored"), json!({"secret": name})))
}

#[derive(Subcommand)]
pub(super) enum DiskAct {
    /// Encrypt a file system image with a fresh key, add its hash tree, and store the secret that opens it.
    Seal {
        /// Name for the secret: letters, digits, - and _.
        #[arg(long)]
        secret: String,
        /// File system image (ext4).
        #[arg(long)]
        input: PathBuf,
        /// Disk to write.
        #[arg(long, short)]
        output: PathBuf,
    },
}

pub(super) fn disk(state: &State, act: &DiskAct) -> Result<Done, Fault> {
    let DiskAct::Seal { secret: name, input, output } = act;
    let random = SystemRandom::new();
    let keys = keystore(state)?;
    let (bytes, secret) = disk::seal(files::read(input, IMAGE_LIMIT)?, &random)?;
    // The secret first: a disk whose key was lost is no use to anybody.
    keys.insert(name, &secret.encode(), now()?, &random)?;
    files::replace(output, &bytes)?;
    let root = hex(&secret.id());
    let text = format!("{} sealed: {} bytes, root hash {root}, secret {name}", output.display(), bytes.len());
    Ok(Done::Said(text, json!({"disk": output, "bytes": bytes.len(), "root_hash": root, "secret": name})))
}

pub(super) fn enroll(state: &State, identifier: &str, lifetime: u64, output: &Path) -> Result<Done, Fault> {
    let identifier = WorkloadIdentifier::parse(identifier).map_err(|error| Fault::of(identifier, error))?;
    // A Relying Party could not tell the two apart.
    if state.registry()?.entries().iter().any(|entry| entry.identifier == identifier) {
        return Err(Fault::of(
            identifier,
            "belongs to a registered workload, which gets its credential by attestation",
        ));
    }
    let random = SystemRandom::new();
    let (vault, store, time) = (state.vault()?, state.store()?, now()?);
    let ca = state.credential_authority(&vault)?;
    let failed = |error: inwit_protocol::primitives::CryptoError| Fault::of("key", error);
    let pkcs8 = SigningKey::generate_pkcs8(&random).map_err(failed)?;
    let key = SigningKey::from_pkcs8(&pkcs8, &random).map_err(failed)?;
    let issued = ca.enroll(&identifier, key.public(), lifetime, time, &random)?;
    store.record(Event::Enrolled { identifier: identifier.uri().to_owned(), serial: hex(&issued.serial) }, time)?;
    std::fs::create_dir_all(output).map_err(|error| Fault::of(output.display(), error))?;
    files::create_private(&output.join("key.pk8"), &pkcs8)?;
    files::replace(&output.join("certificate.der"), &issued.chain.concat())?;
    files::replace(&output.join("anchor.der"), ca.certificate())?;
    let text =
        format!("{identifier} enrolled on your word, without attestation; key and certificate in {}", output.display());
    Ok(Done::Said(text, json!({"identifier": identifier.uri(), "serial": hex(&issued.serial)})))
}

#[derive(Subcommand)]
pub(super) enum AuditAct {
    /// Walk the chain and print its head, or locate the first record that does not fit.
    Verify,
    /// Accept the clock as it is now, although the newest record is later: after a clock ran ahead and was set right.
    AcceptClock,
    /// Print every record, a JSON line each.
    Show,
}

pub(super) fn audit(state: &State, act: &AuditAct) -> Result<Done, Fault> {
    let store = state.store()?;
    match act {
        AuditAct::Verify => Ok(match store.verify_audit()? {
            Ok(head) => {
                let text = format!("audit log of {} records is whole, head {}", head.length, hex(&head.digest));
                Done::Said(text, json!({"whole": true, "records": head.length, "head": hex(&head.digest)}))
            }
            Err(broken) => Done::Refused(
                broken.to_string(),
                json!({"whole": false, "record": broken.sequence, "cause": broken.cause}),
            ),
        }),
        AuditAct::AcceptClock => {
            let time = now()?;
            store.record(Event::ClockAccepted, time)?;
            Ok(Done::Said(format!("the clock is accepted: {time} seconds since 1970"), json!({"accepted": time})))
        }
        AuditAct::Show => {
            let records = store.audit_records()?;
            let text: Vec<_> = records.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect();
            let json: Result<Vec<serde_json::Value>, _> =
                records.iter().map(|record| serde_json::from_slice(record)).collect();
            Ok(Done::Said(text.join("\n"), json!({"records": json.map_err(|error| Fault::of("audit log", error))?})))
        }
    }
}
