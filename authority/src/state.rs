//! The state folder of an authority: its configuration, keys, registry, endorsements and store.
//!
//! ```text
//! authority.toml      trust domain and limits; text, no secret
//! keys/kek            key-encryption key, 32 bytes, mode 0600: keep it on other media if the folder is backed up
//! keys/*.sealed       the authority's channel key, the Verifier's key, the CA's key, encrypted under it
//! ca.der              the trust domain's anchor
//! workloads/*.toml    the registry
//! endorsements/       vendors' roots and collateral
//! store.redb          encrypted secrets and the audit chain
//! ```

use crate::ca::CredentialAuthority;
use crate::endorsement_files;
use crate::evidence::Endorsements;
use crate::fault::Fault;
use crate::files;
use crate::policy::PolicyFile;
use crate::registry::Registry;
use crate::store::Store;
use crate::vault::{Kind, Vault};
use inwit_protocol::identity::TrustDomain;
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::secret::Secret;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Longest configuration file, in bytes.
const CONFIG_LIMIT: usize = 65_536;
/// Longest stored key, in bytes.
const KEY_LIMIT: usize = 1_024;
/// Longest CA certificate, in bytes.
const CERTIFICATE_LIMIT: usize = 8_192;

/// `authority.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// The trust domain.
    pub trust_domain: String,
    /// How long an Attestation Result may be acted on, in seconds.
    pub result_seconds: u64,
    /// Most guests served at a time.
    pub connections: usize,
    /// What is demanded of platforms.
    pub policy: PolicyFile,
}

/// The keys of an authority, by what they are for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyRole {
    /// Authenticates the channel and signs grants: the key that guests pin.
    Channel,
    /// Signs Attestation Results.
    Verifier,
    /// Signs certificates.
    Ca,
}

impl KeyRole {
    const ALL: [Self; 3] = [Self::Channel, Self::Verifier, Self::Ca];

    fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel-key",
            Self::Verifier => "verifier-key",
            Self::Ca => "ca-key",
        }
    }
}

/// A state folder.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

impl State {
    /// The folder at `path`; whether it holds an authority is found out by use.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes fresh keys and a configuration with safe defaults: no endorsement, no workload, everything refused.
    pub fn create(path: &Path, domain: &TrustDomain, now: u64) -> Result<Self, Fault> {
        let state = Self::at(path);
        if state.0.join("authority.toml").exists() {
            return Err(Fault::of(path.display(), "holds an authority already; choose another folder"));
        }
        for folder in ["", "keys", "workloads", "endorsements"] {
            let folder = state.0.join(folder);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| Fault::of(folder.display(), error))?;
        }
        let random = SystemRandom::new();
        let vault = Vault::create(&state.0.join("keys/kek"), &random)?;
        for role in KeyRole::ALL {
            let key = SigningKey::generate_pkcs8(&random).map_err(|error| Fault::of(role.name(), error))?;
            let wrapped = vault.wrap(Kind::AuthorityKey, role.name(), &Secret::new(key.to_vec()), &random)?;
            files::create_private(&state.key_path(role), &wrapped)?;
        }
        let certificate = CredentialAuthority::create_certificate(domain, state.key(&vault, KeyRole::Ca)?, now)?;
        files::create_private(&state.0.join("ca.der"), &certificate)?;
        Store::create(&state.0.join("store.redb"))?;
        let config = AuthorityConfig {
            trust_domain: domain.name().to_owned(),
            result_seconds: 120,
            connections: 256,
            policy: PolicyFile::strict(),
        };
        let text = toml::to_string_pretty(&config).map_err(|error| Fault::of("authority.toml", error))?;
        // Last, so that a folder with it is whole.
        files::create_private(&state.0.join("authority.toml"), text.as_bytes())?;
        Ok(state)
    }

    /// The configuration.
    pub fn config(&self) -> Result<AuthorityConfig, Fault> {
        let path = self.0.join("authority.toml");
        let text = files::read_text(&path, CONFIG_LIMIT)
            .map_err(|fault| Fault::new(format!("{fault}; make one with `inwit-authority init`")))?;
        toml::from_str(&text).map_err(|error| Fault::of(path.display(), error))
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> Result<TrustDomain, Fault> {
        TrustDomain::parse(&self.config()?.trust_domain).map_err(|error| Fault::of("authority.toml", error))
    }

    /// The registry folder.
    pub fn workloads(&self) -> PathBuf {
        self.0.join("workloads")
    }

    /// The endorsement folder.
    pub fn endorsement_folder(&self) -> PathBuf {
        self.0.join("endorsements")
    }

    /// The registry as its files are now.
    pub fn registry(&self) -> Result<Registry, Fault> {
        Registry::load(&self.workloads())
    }

    /// The endorsements as their files are now.
    pub fn endorsements(&self) -> Result<Endorsements, Fault> {
        endorsement_files::load(&self.endorsement_folder())
    }

    fn key_path(&self, role: KeyRole) -> PathBuf {
        self.0.join(format!("keys/{}.sealed", role.name()))
    }

    pub(crate) fn vault(&self) -> Result<Vault, Fault> {
        Vault::open(&self.0.join("keys/kek"))
    }

    pub(crate) fn store(&self) -> Result<Store, Fault> {
        Store::open(&self.0.join("store.redb"))
    }

    pub(crate) fn key(&self, vault: &Vault, role: KeyRole) -> Result<SigningKey, Fault> {
        let wrapped = files::read(&self.key_path(role), KEY_LIMIT)?;
        let pkcs8 = vault.unwrap(Kind::AuthorityKey, role.name(), &wrapped)?;
        SigningKey::from_pkcs8(pkcs8.expose(), &SystemRandom::new()).map_err(|error| Fault::of(role.name(), error))
    }

    /// SHA-256 of the channel key's SubjectPublicKeyInfo: what a guest's configuration pins.
    pub fn pin(&self) -> Result<[u8; 32], Fault> {
        Ok(self.key(&self.vault()?, KeyRole::Channel)?.public().pin())
    }

    /// The trust domain's anchor, DER.
    pub fn anchor(&self) -> Result<Vec<u8>, Fault> {
        files::read(&self.0.join("ca.der"), CERTIFICATE_LIMIT)
    }

    /// The Credential Authority.
    pub(crate) fn credential_authority(&self, vault: &Vault) -> Result<CredentialAuthority, Fault> {
        CredentialAuthority::open(self.trust_domain()?, self.key(vault, KeyRole::Ca)?, self.anchor()?)
    }
}
