//! Decisions: a request in, a grant or a refusal out, each recorded before it leaves. All roles of one process meet here,
//! and still stand on each other's signed statements. It knows no sockets.

use crate::audit::{Event, hex};
use crate::ca::CredentialAuthority;
use crate::fault::Fault;
use crate::keystore::KeyStore;
use crate::state::{KeyRole, State};
use crate::store::Store;
use crate::vault::Vault;
use crate::verifier::{Outstanding, Verifier};
use inwit_protocol::message::{AcquireRequest, Grant, Reply};
use inwit_protocol::primitives::{SigningKey, sha256};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use ring::rand::SystemRandom;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far the clock may be behind the newest record, in seconds, before nothing is judged by it (FC-15).
const CLOCK_TOLERANCE: u64 = 300;
/// Refusals that are listed one by one in a minute; further ones are counted. Anybody can be refused, and each record is
/// durable: without a bound, strangers would fill the disk.
const LISTED_A_MINUTE: u64 = 120;

/// Every role in one process.
pub struct Authority {
    state: State,
    /// What is judged by, replaced as a whole when the operator asks for it.
    verifier: RwLock<Arc<Verifier>>,
    ca: CredentialAuthority,
    keys: KeyStore,
    store: Arc<Store>,
    /// The key that guests pin.
    channel: Arc<SigningKey>,
    /// The latest moment that was seen, seconds since 1970.
    latest: AtomicU64,
    refusals: Mutex<Refusals>,
}

/// How many refusals there were in the minute that began at `since`.
#[derive(Default)]
struct Refusals {
    since: u64,
    listed: u64,
    unlisted: u64,
}

fn read_verifier(state: &State, vault: &Vault, ca: &CredentialAuthority) -> Result<Verifier, Fault> {
    let config = state.config()?;
    let key = state.key(vault, KeyRole::Verifier)?;
    let (endorsements, registry) = (state.endorsements()?, state.registry()?);
    // A policy that cannot be applied is found now and not at the first guest.
    config.policy.with(registry.reference_values()).map_err(|refusal| Fault::new(refusal.cause))?;
    Ok(Verifier::new(key, endorsements, registry, config.policy, config.result_seconds, ca.audience()))
}

/// Seconds since 1970.
pub(crate) fn now() -> Result<u64, Fault> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.map_err(|_| Fault::new("the clock is before 1970: set it"))?.as_secs())
}

impl Authority {
    /// Opens the state folder for serving.
    pub fn open(state: &State) -> Result<Self, Fault> {
        let vault = state.vault()?;
        let ca = state.credential_authority(&vault)?;
        let channel = Arc::new(state.key(&vault, KeyRole::Channel)?);
        let store = Arc::new(state.store()?);
        let verifier = RwLock::new(Arc::new(read_verifier(state, &vault, &ca)?));
        let keys = KeyStore::new(Arc::clone(&store), vault, ca.audience());
        let latest = AtomicU64::new(store.last_time()?);
        let refusals = Mutex::default();
        Ok(Self { state: state.clone(), verifier, ca, keys, store, channel, latest, refusals })
    }

    /// Reads policy, registry and endorsements anew. If any of them is wrong, what was read before stays in force, except
    /// for workloads whose file is gone: a withdrawal does not wait for somebody to mend another file.
    pub fn reload(&self) -> Result<usize, Fault> {
        let read = self.state.vault().and_then(|vault| read_verifier(&self.state, &vault, &self.ca));
        let mut current = self.verifier.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(verifier) => *current = Arc::new(verifier),
            Err(fault) => {
                let vault = self.state.vault()?;
                let key = self.state.key(&vault, KeyRole::Verifier)?;
                *current = Arc::new(current.without_removed(key, &self.state.workloads()));
                return Err(fault);
            }
        }
        Ok(current.registry().entries().len())
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that guests pin, for use by reference.
    pub(crate) fn channel_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.channel)
    }

    /// SHA-256 of the pinned key's SubjectPublicKeyInfo.
    pub fn pin(&self) -> [u8; 32] {
        self.channel.public().pin()
    }

    /// How many workloads are registered.
    pub fn workloads(&self) -> usize {
        self.verifier().registry().entries().len()
    }

    /// The time, if it can be judged by: a clock that was set back would revive what has expired.
    fn time(&self) -> Result<u64, Refusal> {
        let unavailable = |cause: &str| Refusal::new(RefusalCode::ClockUnavailable, cause);
        let time = now().map_err(|_| unavailable("the authority has no clock"))?;
        let latest = self.latest.fetch_max(time, Ordering::AcqRel);
        if time.saturating_add(CLOCK_TOLERANCE) < latest {
            return Err(unavailable("the authority's clock is behind its own records"));
        }
        Ok(time)
    }

    /// Answers one request, spending the connection's nonce, and records the decision before the reply leaves.
    pub(crate) fn answer(&self, request: &[u8], asked: Outstanding) -> Reply {
        let outcome = self.time().and_then(|time| self.grant(request, asked, time));
        outcome.unwrap_or_else(|refusal| self.refuse(refusal))
    }

    /// Records a refusal and gives the reply that the guest may see: the code always, the cause where it is about the
    /// guest's own request. What is about the authority or about other workloads stays in the log.
    pub(crate) fn refuse(&self, refusal: Refusal) -> Reply {
        tracing::info!(code = refusal.code.text(), cause = refusal.cause, "refused");
        self.record_refusal(&refusal);
        let told = match refusal.code {
            RefusalCode::Internal => Refusal::new(refusal.code, "a fault of the authority; its log says more"),
            RefusalCode::MeasurementUnregistered => Refusal::new(
                refusal.code,
                "what was measured is registered for no workload; the authority's log says what comes nearest",
            ),
            _ => refusal,
        };
        Reply::Refused(told)
    }

    fn record_refusal(&self, refusal: &Refusal) {
        let time = now().unwrap_or_default();
        let unlisted = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            let mut unlisted = 0;
            if time.saturating_sub(refusals.since) >= 60 {
                unlisted = refusals.unlisted;
                *refusals = Refusals { since: time, ..Refusals::default() };
            }
            if refusals.listed >= LISTED_A_MINUTE {
                refusals.unlisted = refusals.unlisted.saturating_add(1);
                return;
            }
            refusals.listed = refusals.listed.saturating_add(1);
            unlisted
        };
        let listed = Event::Refused { code: refusal.code.text().to_owned(), cause: refusal.cause.clone() };
        let counted = (unlisted > 0).then_some(Event::RefusalsUnlisted { count: unlisted });
        for event in counted.into_iter().chain([listed]) {
            if let Err(fault) = self.store.record(event, time) {
                tracing::error!(%fault, "a refusal could not be recorded");
            }
        }
    }

    fn grant(&self, request: &[u8], asked: Outstanding, time: u64) -> Result<Reply, Refusal> {
        let random = SystemRandom::new();
        let request = AcquireRequest::parse(request).map_err(|error| Refusal::new(RefusalCode::Malformed, error))?;
        // One request is judged by one reading of the files, whatever is reloaded meanwhile.
        let verifier = self.verifier();
        let result = verifier.verify(&request, asked, time, &random)?;
        // Between neighbours too: issuing and releasing stand on a verified signature, as they do in separate processes.
        let internal = |what: &dyn std::fmt::Display| Refusal::new(RefusalCode::Internal, what);
        let result = result
            .verify(std::slice::from_ref(verifier.public_key()))
            .map_err(|error| internal(&format_args!("own attestation result: {error:?}")))?;
        let entry = verifier.registry().entries().iter().find(|entry| entry.workload.name == result.workload);
        let workload = &entry.ok_or_else(|| internal(&"the workload left the registry"))?.workload;
        let secrets = self.keys.release(&workload.secrets, &result, &request.binding, time)?;
        let issued = self.ca.issue(&result, workload.lifetime_seconds, time, &random)?;
        let grant = Grant {
            binding: sha256(request.binding.bytes()),
            chain: issued.chain,
            anchors: vec![self.ca.certificate().to_vec()],
            secrets,
            now: time,
        };
        let reply = Reply::grant(&grant, &self.channel, &random).map_err(|error| internal(&error))?;
        let event = Event::Granted {
            workload: result.workload.clone(),
            identifier: result.identifier.uri().to_owned(),
            platform: result.platform.text().to_owned(),
            reference_values: result.reference_values.clone(),
            evidence: hex(&result.evidence),
            binding: hex(&result.binding),
            policy: hex(&result.policy),
            serial: hex(&issued.serial),
            secrets: workload.secrets.clone(),
        };
        // No grant without its record: if the log cannot be written, nothing is granted.
        self.store.record(event, time).map_err(|fault| internal(&fault))?;
        tracing::info!(identifier = result.identifier.uri(), reference_values = result.reference_values, "granted");
        Ok(reply)
    }
}
