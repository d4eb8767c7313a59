//! The bound credential: the guest's only exit from a mechanism. A credential for another key, another trust domain or
//! another identity is refused here, so it may come by any path.

use crate::config::MeasuredConfig;
use inwit_protocol::certificate::{self, Role, TrustBundle};
use inwit_protocol::message::Grant;
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::signed::Verified;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A clock that was set by the authority and runs on the monotonic clock; the host's wall clock is never read.
#[derive(Clone, Debug)]
pub struct AuthorityClock {
    then: u64,
    at: Instant,
}

impl AuthorityClock {
    fn set(then: u64) -> Self {
        Self { then, at: Instant::now() }
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        self.then.saturating_add(self.at.elapsed().as_secs())
    }
}

impl TimeProvider for AuthorityClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

/// A credential that belongs to the key held here. Made only by [`BoundCredential::bind`].
pub struct BoundCredential {
    chain: Vec<Vec<u8>>,
    bundle: TrustBundle,
    key: Arc<SigningKey>,
    clock: AuthorityClock,
}

impl BoundCredential {
    /// Binds the granted credential to `key`, or says why it does not belong to it.
    pub fn bind(grant: &Verified<Grant>, key: Arc<SigningKey>, config: &MeasuredConfig) -> Result<Self, Refusal> {
        let bundle = TrustBundle::new(config.trust_domain.clone(), grant.anchors.clone())?;
        let chain: Vec<&[u8]> = grant.chain.iter().map(Vec::as_slice).collect();
        let certificate = certificate::verify(&chain, &bundle, Role::Client, grant.now)?;
        if !certificate.is_for(key.public()) {
            return Err(Refusal::new(
                RefusalCode::CredentialMismatch,
                "the credential is for another key than the one held",
            ));
        }
        if *certificate.identifier() != config.identifier {
            let cause = format!("the credential names {} and not {}", certificate.identifier(), config.identifier);
            return Err(Refusal::new(RefusalCode::IdentityMismatch, cause));
        }
        Ok(Self { chain: grant.chain.clone(), bundle, key, clock: AuthorityClock::set(grant.now) })
    }

    /// Certificates, DER, leaf first.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The trust domain's anchors.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The key, for use by reference; there is no way to its bytes.
    pub fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.key)
    }

    /// The clock that the authority set.
    pub fn clock(&self) -> &AuthorityClock {
        &self.clock
    }
}
