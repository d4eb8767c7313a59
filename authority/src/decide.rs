//! Decisions: a request in, a grant or a refusal out. A grant is recorded before it leaves; so is a refusal, up to a rate,
//! above which refusals are counted. All roles of one process meet here,
//! and still stand on each other's signed statements. It knows no sockets.

use crate::audit::{Event, hex};
use crate::ca::CredentialAuthority;
use crate::fault::Fault;
use crate::keystore::KeyStore;
use crate::state::{KeyRole, State};
use crate::store::Store;
use crate::vault::Vault;
use crate::verifier::{Outstanding, Verifier};
use inwit_protocol::ear::TrustworthinessVector;
use inwit_protocol::message::{AcquireRequest, Grant, Reply};
use inwit_protocol::primitives::{SigningKey, sha256};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use ring::rand::SystemRandom;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far the clock may be behind the newest record, in seconds, before nothing is judged by it (FC-15).
const CLOCK_TOLERANCE: u64 = 300;
/// Refusals that are listed one by one in a minute; further ones are counted. Anybody can be refused, and each record is
/// durable: without a bound, strangers would fill the disk.
const LISTED_A_MINUTE: u64 = 120;
const MINUTE: Duration = Duration::from_secs(60);

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

/// How many refusals there were in the minute that began at `since`, by a clock that nobody sets.
struct Refusals {
    since: Instant,
    listed: u64,
    unlisted: u64,
}

impl Refusals {
    fn from_now() -> Self {
        Self { since: Instant::now(), listed: 0, unlisted: 0 }
    }
}

fn read_verifier(state: &State, vault: &Vault, ca: &CredentialAuthority) -> Result<Verifier, Fault> {
    let config = state.config()?;
    let key = Arc::new(state.key(vault, KeyRole::Verifier)?);
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
        let refusals = Mutex::new(Refusals::from_now());
        Ok(Self { state: state.clone(), verifier, ca, keys, store, channel, latest, refusals })
    }

    /// Reads policy, registry and endorsements anew. If any of them is wrong, what was read before stays in force, except
    /// for workloads whose file is gone: a withdrawal does not wait for somebody to mend another file.
    pub fn reload(&self) -> Result<usize, Fault> {
        let read = self.state.vault().and_then(|vault| read_verifier(&self.state, &vault, &self.ca));
        // Everything is read before the lock is taken; under it only a pointer changes.
        let (next, outcome) = match read {
            Ok(verifier) => {
                let workloads = verifier.registry().entries().len();
                (verifier, Ok(workloads))
            }
            Err(fault) => (self.verifier().without_removed(&self.state.workloads()), Err(fault)),
        };
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        outcome
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
            return Err(unavailable(
                "the authority's clock is behind its own records: set it, or `inwit-authority audit accept-clock`",
            ));
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
        let unlisted = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            let mut unlisted = 0;
            if refusals.since.elapsed() >= MINUTE {
                unlisted = refusals.unlisted;
                *refusals = Refusals::from_now();
            }
            if refusals.listed >= LISTED_A_MINUTE {
                refusals.unlisted = refusals.unlisted.saturating_add(1);
                return;
            }
            refusals.listed = refusals.listed.saturating_add(1);
            unlisted
        };
        self.record_unlisted(unlisted);
        self.record(Event::Refused { code: refusal.code.text().to_owned(), cause: refusal.cause.clone() });
    }

    /// Records what was only counted so far; called when serving ends.
    pub(crate) fn record_counted(&self) {
        let refusals =
            std::mem::replace(&mut *self.refusals.lock().unwrap_or_else(PoisonError::into_inner), Refusals::from_now());
        self.record_unlisted(refusals.unlisted);
    }

    fn record_unlisted(&self, count: u64) {
        if count > 0 {
            self.record(Event::RefusalsUnlisted { count });
        }
    }

    fn record(&self, event: Event) {
        if let Err(fault) = self.store.record(event, now().unwrap_or_default()) {
            tracing::error!(%fault, "a refusal could not be recorded");
        }
    }

    fn grant(&self, request: &[u8], asked: Outstanding, time: u64) -> Result<Reply, Refusal> {
        let random = SystemRandom::new();
        let request = AcquireRequest::parse(request).map_err(|error| Refusal::new(RefusalCode::Malformed, error))?;
        // One request is judged by one reading of the files, whatever is reloaded meanwhile.
        let verifier = self.verifier();
        let verdict = verifier.verify(&request, asked, time, &random)?;
        // Between neighbours too: issuing and releasing stand on a verified signature, as they do in separate processes.
        let internal = |what: &dyn std::fmt::Display| Refusal::new(RefusalCode::Internal, what);
        let result = verdict
            .result
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
            status: Some(result.trustworthiness.status().text().to_owned()),
            trustworthiness: asserted(&result.trustworthiness),
            serial: hex(&issued.serial),
            secrets: workload.secrets.clone(),
        };
        // No grant without its record: if the log cannot be written, nothing is granted. Nor to a TPM whose state is older
        // than one that was granted something: found here, so that no other grant comes in between.
        let recorded = self.store.record_grant(event, &verdict.tpm, time).map_err(|fault| internal(&fault))?;
        recorded.map_err(|rolled_back| Refusal::new(RefusalCode::TpmRolledBack, rolled_back))?;
        tracing::info!(identifier = result.identifier.uri(), reference_values = result.reference_values, "granted");
        Ok(reply)
    }
}

/// The claims of a vector that say something, by name.
fn asserted(vector: &TrustworthinessVector) -> BTreeMap<String, i8> {
    let said = vector.values().into_iter().filter(|(_, value)| *value != 0);
    said.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the tests of Evidence, which use more of it")]
#[path = "../tests/evidence_support/tpm.rs"]
mod simulated_tpm;

#[cfg(test)]
mod tests {
    use super::simulated_tpm::Tpm;
    use super::*;
    use crate::registry::{Registry, Workload};
    use inwit_measurements::Digest;
    use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues};
    use inwit_protocol::binding::{Agent, Binding, Purpose};
    use inwit_protocol::identity::{TrustDomain, WorkloadIdentifier};

    fn authority() -> (tempfile::TempDir, State, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("demo.example").unwrap();
        let state = State::create(&folder.path().join("state"), &domain, now().unwrap()).unwrap();
        let authority = Authority::open(&state).unwrap();
        (folder, state, authority)
    }

    fn code(reply: &Reply) -> RefusalCode {
        match reply {
            Reply::Refused(refusal) => refusal.code,
            Reply::Granted(_) => panic!("granted"),
        }
    }

    fn asked() -> Outstanding {
        let key = SigningKey::generate(&SystemRandom::new()).unwrap();
        Outstanding::of_connection([0; 32], key.public().clone())
    }

    #[test]
    fn a_clock_behind_the_records_judges_nothing_until_it_is_accepted() {
        let (_folder, state, authority) = authority();
        assert_eq!(code(&authority.answer(b"", asked())), RefusalCode::Malformed);
        // As if the newest record had been written an hour later than now.
        authority.store.record(Event::SecretStored { name: "later".into() }, now().unwrap() + 3_600).unwrap();
        drop(authority);
        let reopened = Authority::open(&state).unwrap();
        assert_eq!(code(&reopened.answer(b"", asked())), RefusalCode::ClockUnavailable);
        drop(reopened);
        let again = Authority::open(&state).unwrap();
        assert_eq!(
            code(&again.answer(b"", asked())),
            RefusalCode::ClockUnavailable,
            "its own refusal must not heal it"
        );
        again.store.record(Event::ClockAccepted, now().unwrap()).unwrap();
        drop(again);
        assert_eq!(code(&Authority::open(&state).unwrap().answer(b"", asked())), RefusalCode::Malformed);
    }

    fn agent() -> Agent {
        Agent { name: "inwit-guest".into(), version: "1".into(), executable: [0xa1; 32], configuration: [0xc2; 32] }
    }

    /// Enrols the TPM's key and registers what it booted.
    fn enrol(state: &State, tpm: &Tpm) {
        let keys = state.endorsement_folder().join("vtpm");
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::write(keys.join("attestation-keys"), hex(&tpm.pin())).unwrap();
        let pcr = |pcr: u8| (pcr, Digest::from_bytes(tpm.pcrs[usize::from(pcr)]));
        let values = ReferenceValues {
            name: "1.4".into(),
            agent: AgentReference {
                executable: agent().executable.into(),
                configuration: agent().configuration.into(),
            },
            measured: Measured::Vtpm { pcrs: [0, 4, 7, 9].map(pcr).into() },
            made_from: None,
        };
        let workload = Workload {
            name: "payments".into(),
            identifier: "spiffe://demo.example/payments".into(),
            secrets: vec![],
            lifetime_seconds: 600,
            attributes: [].into(),
            reference_values: vec![values],
        };
        Registry::write(&state.workloads(), &workload).unwrap();
    }

    /// A new connection of the machine with that TPM.
    fn asks(authority: &Authority, tpm: &Tpm) -> Reply {
        let (key, random) = (SigningKey::generate(&SystemRandom::new()).unwrap(), SystemRandom::new());
        let nonce = sha256(key.public().point());
        let credential_key = key.public().clone();
        let binding =
            Binding { purpose: Purpose::CertifyKey, nonce, credential_key, encapsulation_key: None, agent: agent() };
        let binding = binding.make(&key, &random).unwrap();
        let evidence = tpm.evidence(&binding);
        let identifier = WorkloadIdentifier::parse("spiffe://demo.example/payments").unwrap();
        let request = AcquireRequest { binding, evidence, identifier }.encode();
        authority.answer(&request, Outstanding::of_connection(nonce, key.public().clone()))
    }

    #[test]
    fn a_tpm_whose_state_was_put_back_is_granted_nothing_until_it_is_forgotten() {
        let (_folder, state, authority) = authority();
        let mut tpm = Tpm::booted(&agent());
        enrol(&state, &tpm);
        assert_eq!(authority.reload().unwrap(), 1);
        let granted = |tpm: &Tpm| match asks(&authority, tpm) {
            Reply::Granted(_) => Ok(()),
            Reply::Refused(refusal) => Err(refusal),
        };
        assert_eq!(granted(&tpm), Ok(()));
        tpm.reset_count = 4;
        assert_eq!(granted(&tpm), Ok(()));
        tpm.reset_count = 3;
        let refusal = granted(&tpm).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::TpmRolledBack, "{refusal}");
        assert!(refusal.cause.contains(&hex(&tpm.pin())) && refusal.to_string().contains("tpm forget"), "{refusal}");
        let events = |kind: &str| {
            let records = authority.store.audit_records().unwrap();
            records.iter().filter(|record| String::from_utf8_lossy(record).contains(kind)).count()
        };
        assert_eq!((events("\"event\":\"granted\""), events("\"event\":\"refused\"")), (2, 1));
        assert!(authority.store.forget_tpm(&tpm.pin(), now().unwrap()).unwrap());
        assert_eq!(granted(&tpm), Ok(()));
    }

    #[test]
    fn a_flood_of_refusals_is_counted_and_the_count_is_recorded() {
        let (_folder, _state, authority) = authority();
        for _ in 0..LISTED_A_MINUTE + 30 {
            authority.answer(b"", asked());
        }
        let listed = authority.store.audit_records().unwrap().len() as u64;
        assert_eq!(listed, LISTED_A_MINUTE);
        authority.record_counted();
        let last = authority.store.audit_records().unwrap().pop().unwrap();
        assert!(String::from_utf8(last).unwrap().contains("\"count\":30"));
        authority.store.verify_audit().unwrap().unwrap();
    }

    #[test]
    fn a_withdrawal_does_not_wait_for_another_file_to_be_mended() {
        let (_folder, state, authority) = authority();
        let workload = |name: &str, digit: &str| {
            let digest = digit.repeat(96);
            format!(
                "name = \"{name}\"\nidentifier = \"spiffe://demo.example/{name}\"\nlifetime_seconds = 600\n[[reference_values]]\nname = \"r\"\n[reference_values.agent]\nexecutable = \"{0}\"\nconfiguration = \"{0}\"\n[reference_values.measured]\nplatform = \"snp\"\nlaunch_digest = \"{digest}\"\n",
                digit.repeat(64)
            )
        };
        let path = |name: &str| state.workloads().join(format!("{name}.toml"));
        std::fs::write(path("one"), workload("one", "1")).unwrap();
        std::fs::write(path("two"), workload("two", "2")).unwrap();
        assert_eq!(authority.reload().unwrap(), 2);
        std::fs::write(path("two"), "not a workload").unwrap();
        crate::registry::Registry::remove(&state.workloads(), "one").unwrap();
        assert!(authority.reload().is_err());
        let left: Vec<_> = authority.verifier().registry().entries().iter().map(|e| e.workload.name.clone()).collect();
        assert_eq!(left, ["two"], "the withdrawn one is gone, the broken one stays as it was read");
    }
}
