//! The Verifier: Evidence in, a signed Attestation Result out (an EAR), by the ladder and in one order. It compares the
//! binding with the connection that it came over, has the Evidence authenticated and appraised, and maps what was measured
//! to an identity. It issues nothing and releases nothing.

use crate::evidence::{AppraisalPolicy, Endorsements, authenticate};
use crate::policy::PolicyFile;
use crate::registry::Registry;
use crate::tpm_history::TpmAge;
use inwit_protocol::binding::{Binding, BindingError, Purpose};
use inwit_protocol::message::AcquireRequest;
use inwit_protocol::primitives::{PublicKey, SigningKey, sha256};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::result::AttestationResult;
use inwit_protocol::signed::Signed;
use ring::rand::SecureRandom;
use std::path::Path;
use std::sync::Arc;

/// Name and version of this program, as Attestation Results name their Verifier.
pub(crate) const BUILD: &str = concat!("inwit-authority ", env!("CARGO_PKG_VERSION"));

/// One connection's nonce, not yet spent. Verification consumes it: replay protection is ownership.
pub struct Outstanding {
    nonce: [u8; 32],
    peer: PublicKey,
}

impl Outstanding {
    /// For a connection whose handshake is complete: its exporter value, and the key that the peer authenticated with.
    pub fn of_connection(nonce: [u8; 32], peer: PublicKey) -> Self {
        Self { nonce, peer }
    }
}

/// What one request was found to be.
pub struct Verdict {
    /// For whoever issues or releases.
    pub result: Signed<AttestationResult>,
    /// How far the TPM that vouched had come; to be compared with its history before anything is granted.
    pub(crate) tpm: TpmAge,
}

/// The Verifier, with everything that it judges by, read at one moment.
pub struct Verifier {
    key: Arc<SigningKey>,
    endorsements: Endorsements,
    registry: Registry,
    policy: PolicyFile,
    /// The policy with the registry's Reference Values, or why they do not go together: then every request is refused.
    demands: Result<AppraisalPolicy, Refusal>,
    /// Seconds that a result may be acted on.
    result_seconds: u64,
    audience: String,
}

impl Verifier {
    /// A Verifier whose results are for `audience`.
    pub fn new(
        key: Arc<SigningKey>,
        endorsements: Endorsements,
        registry: Registry,
        policy: PolicyFile,
        result_seconds: u64,
        audience: String,
    ) -> Self {
        let demands = policy.with(registry.reference_values());
        Self { key, endorsements, registry, policy, demands, result_seconds, audience }
    }

    /// The same Verifier without the workloads whose file is gone from `folder`.
    pub(crate) fn without_removed(&self, folder: &Path) -> Self {
        let (key, registry) = (Arc::clone(&self.key), self.registry.without_removed(folder));
        let (endorsements, policy) = (self.endorsements.clone(), self.policy.clone());
        Self::new(key, endorsements, registry, policy, self.result_seconds, self.audience.clone())
    }

    /// The registry that it maps with.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The key that its results verify under.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    /// Verifies one request at `now` (seconds since 1970).
    pub fn verify(
        &self,
        request: &AcquireRequest,
        asked: Outstanding,
        now: u64,
        random: &dyn SecureRandom,
    ) -> Result<Verdict, Refusal> {
        let binding = Binding::parse(&request.binding).map_err(binding_refusal)?;
        if binding.nonce != asked.nonce {
            return Err(Refusal::new(RefusalCode::NonceMismatch, "the binding was made for another connection"));
        }
        if binding.credential_key != asked.peer {
            return Err(Refusal::new(
                RefusalCode::KeyMismatch,
                "the binding names another key than the one that opened this connection",
            ));
        }
        if binding.purpose != Purpose::CertifyKey {
            return Err(Refusal::new(RefusalCode::Unsupported, "this request is to certify the guest's own key"));
        }
        let bound = authenticate(&request.evidence, &self.endorsements, now)?.bound_to(&request.binding)?;
        let demands = self.demands.as_ref().map_err(Refusal::clone)?;
        let appraised = bound.appraise(demands, &binding.agent)?;
        let entry = self
            .registry
            .entry_of(appraised.reference_values())
            .ok_or_else(|| Refusal::new(RefusalCode::Internal, "the matched reference values belong to no workload"))?;
        if entry.identifier != request.identifier {
            let cause = format!("the request names {}, the mapping gives {}", request.identifier, entry.identifier);
            return Err(Refusal::new(RefusalCode::IdentityMismatch, cause));
        }
        let result = AttestationResult {
            workload: entry.workload.name.clone(),
            identifier: entry.identifier.clone(),
            platform: appraised.platform(),
            reference_values: appraised.reference_values().to_owned(),
            trustworthiness: *appraised.trustworthiness(),
            credential_key: binding.credential_key,
            encapsulation_key: binding.encapsulation_key,
            nonce: binding.nonce,
            binding: sha256(request.binding.bytes()),
            evidence: sha256(&request.evidence.encode()),
            policy: entry.digest,
            appraisal_policy: self.policy.digest(),
            verifier_build: BUILD.to_owned(),
            audience: self.audience.clone(),
            issued_at: now,
            expires_at: now.saturating_add(self.result_seconds),
        };
        let signed = Signed::sign(&result, &self.key, random);
        let result = signed.map_err(|error| Refusal::new(RefusalCode::Internal, error))?;
        Ok(Verdict { result, tpm: TpmAge::of(appraised.claims()) })
    }
}

fn binding_refusal(error: BindingError) -> Refusal {
    match error {
        BindingError::Malformed(error) => Refusal::new(RefusalCode::Malformed, error),
        BindingError::Key(error) => Refusal::new(RefusalCode::Malformed, error),
        BindingError::Possession => {
            Refusal::new(RefusalCode::PopInvalid, "the binding's proof of possession does not verify")
        }
    }
}
