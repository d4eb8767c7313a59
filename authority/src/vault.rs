//! Encryption at rest: AES-256-GCM under one key-encryption key, a fresh 96-bit nonce each time, and as associated data what
//! it is and its name: one stored secret cannot be passed off as another, nor a key of the authority as a tenant's secret.
//!
//! It does not protect against somebody who reads the key-encryption key's file; keep that on other media, or in a token.

use crate::fault::Fault;
use crate::files;
use inwit_protocol::secret::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::SecureRandom;
use std::path::Path;
use zeroize::Zeroizing;

/// Length of the key-encryption key, in bytes.
const KEY_LEN: usize = 32;

/// Encrypts what is stored.
pub(crate) struct Vault(LessSafeKey);

/// What is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A key of the authority itself; never released.
    AuthorityKey,
    /// A secret that a workload may be entitled to.
    WorkloadSecret,
}

impl Kind {
    fn associated(self, name: &str) -> Vec<u8> {
        let kind: &[u8] = match self {
            Self::AuthorityKey => b"authority-key",
            Self::WorkloadSecret => b"workload-secret",
        };
        [kind, &[0], name.as_bytes()].concat()
    }
}

impl Vault {
    /// Writes a fresh key-encryption key to `path` (mode 0600; the file must not exist) and opens it.
    pub(crate) fn create(path: &Path, random: &dyn SecureRandom) -> Result<Self, Fault> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random.fill(key.as_mut_slice()).map_err(|_| Fault::new("no randomness for the key-encryption key"))?;
        files::create_private(path, key.as_slice())?;
        Self::of(key.as_slice())
    }

    /// Reads the key-encryption key.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let key = files::read_secret(path, KEY_LEN)?;
        Self::of(key.expose()).map_err(|_| Fault::new(format!("{}: not a 32-byte key-encryption key", path.display())))
    }

    fn of(key: &[u8]) -> Result<Self, Fault> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Fault::new("not a 32-byte key"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts `secret` for storage under `name`.
    pub(crate) fn wrap(
        &self,
        kind: Kind,
        name: &str,
        secret: &Secret,
        random: &dyn SecureRandom,
    ) -> Result<Vec<u8>, Fault> {
        let failed = || Fault::new(format!("encrypting {name} failed"));
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce).map_err(|_| failed())?;
        // Encrypted in place: the buffer that held the plain text holds the ciphertext afterwards.
        let mut buffer = secret.expose().to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(kind.associated(name)),
                &mut buffer,
            )
            .map_err(|_| failed())?;
        Ok([nonce.as_slice(), &buffer].concat())
    }

    /// Decrypts what was stored under `name`.
    pub(crate) fn unwrap(&self, kind: Kind, name: &str, stored: &[u8]) -> Result<Secret, Fault> {
        let failed = || Fault::new(format!("{name} does not decrypt: wrong key-encryption key, or altered"));
        let (nonce, ciphertext) = stored.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length =
            self.0.open_in_place(nonce, Aad::from(kind.associated(name)), &mut buffer).map_err(|_| failed())?.len();
        buffer.truncate(length);
        Ok(Secret::new(std::mem::take(&mut *buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[test]
    fn comes_back_only_under_its_name_and_unaltered() {
        let random = SystemRandom::new();
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::create(&dir.path().join("kek"), &random).unwrap();
        let mut stored = vault.wrap(Kind::WorkloadSecret, "disk", &Secret::new(b"plain".to_vec()), &random).unwrap();
        assert!(!stored.windows(5).any(|window| window == b"plain"));
        let reopened = Vault::open(&dir.path().join("kek")).unwrap();
        assert_eq!(reopened.unwrap(Kind::WorkloadSecret, "disk", &stored).unwrap().expose(), b"plain");
        assert!(vault.unwrap(Kind::WorkloadSecret, "other", &stored).is_err());
        assert!(vault.unwrap(Kind::AuthorityKey, "disk", &stored).is_err());
        *stored.last_mut().unwrap() ^= 1;
        assert!(vault.unwrap(Kind::WorkloadSecret, "disk", &stored).is_err());
        assert!(vault.unwrap(Kind::WorkloadSecret, "disk", &stored[..5]).is_err());
        assert!(Vault::create(&dir.path().join("kek"), &random).is_err(), "an existing key must not be overwritten");
    }
}
