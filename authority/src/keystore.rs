//! The Key Store: secrets encrypted at rest, released only on a verified Attestation Result, sealed to the encapsulation
//! key that the Evidence binds, and recorded in the same log as every other decision.

use crate::fault::Fault;
use crate::store::Store;
use crate::vault::{Kind, Vault};
use inwit_protocol::binding::EncodedBinding;
use inwit_protocol::message::SealedSecret;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::result::AttestationResult;
use inwit_protocol::seal;
use inwit_protocol::secret::Secret;
use inwit_protocol::signed::Verified;
use ring::rand::SecureRandom;
use std::sync::Arc;

/// The Key Store.
pub struct KeyStore {
    store: Arc<Store>,
    vault: Vault,
    /// Who this Key Store is to a Verifier.
    audience: String,
}

impl KeyStore {
    pub(crate) fn new(store: Arc<Store>, vault: Vault, audience: String) -> Self {
        Self { store, vault, audience }
    }

    /// Stores a new secret.
    pub(crate) fn insert(&self, name: &str, secret: &Secret, now: u64, random: &dyn SecureRandom) -> Result<(), Fault> {
        let wrapped = self.vault.wrap(Kind::WorkloadSecret, name, secret, random)?;
        self.store.insert_secret(name, &wrapped, now)
    }

    /// Releases the secrets `names` to the guest that `on` is about. The encapsulation key is taken from the result,
    /// never from a field that Evidence does not cover.
    pub(crate) fn release(
        &self,
        names: &[String],
        on: &Verified<AttestationResult>,
        binding: &EncodedBinding,
        now: u64,
    ) -> Result<Vec<SealedSecret>, Refusal> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        on.usable(&self.audience, now)?;
        if on.binding != inwit_protocol::primitives::sha256(binding.bytes()) {
            return Err(Refusal::new(RefusalCode::BindingMismatch, "the attestation result is about another binding"));
        }
        let to = on.encapsulation_key.as_ref().ok_or_else(|| {
            Refusal::new(RefusalCode::Malformed, "the workload has secrets, and the binding names no encapsulation key")
        })?;
        names.iter().map(|name| self.seal_one(name, to, binding)).collect()
    }

    fn seal_one(
        &self,
        name: &str,
        to: &seal::EncapsulationKey,
        binding: &EncodedBinding,
    ) -> Result<SealedSecret, Refusal> {
        let internal =
            |error: &dyn std::fmt::Display| Refusal::new(RefusalCode::Internal, format_args!("secret {name}: {error}"));
        let wrapped = self.store.secret(name).map_err(|error| internal(&error))?;
        let wrapped = wrapped.ok_or_else(|| internal(&"registered with the workload and not in the store"))?;
        let secret = self.vault.unwrap(Kind::WorkloadSecret, name, &wrapped).map_err(|error| internal(&error))?;
        let sealed = seal::seal(&secret, name, to, binding.bytes()).map_err(|error| internal(&error))?;
        Ok(SealedSecret { name: name.to_owned(), sealed })
    }
}
