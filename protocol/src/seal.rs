//! Sealing secrets to a guest: HPKE (RFC 9180) base mode with X-Wing (X25519 + ML-KEM-768), HKDF-SHA256, AES-256-GCM.
//! Hybrid because a key released today is recorded by the host today. The binding is part of the associated data, so a
//! sealed secret opens only in the guest, and only for the request, that it was sealed for. HPKE base mode does not say
//! who sealed: the reply that carries it is signed.

use crate::primitives::{CryptoError, sha256};
use crate::secret::Secret;
use core::fmt;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

/// HPKE `info`: what the encapsulation is for.
const INFO: &[u8] = b"inwit-seal-v1";
/// Length of an X-Wing encapsulation (public) key, in bytes.
pub const ENCAPSULATION_KEY_LEN: usize = 1_216;
/// Length of an X-Wing encapsulated key, in bytes.
pub const ENCAPSULATED_LEN: usize = 1_120;
/// Longest sealed secret, ciphertext with tag, in bytes.
pub const CIPHERTEXT_MAX: usize = 16_384;

/// The public half of a one-shot key to which secrets are sealed. Named in the binding.
#[derive(Clone, PartialEq, Eq)]
pub struct EncapsulationKey(Vec<u8>);

impl EncapsulationKey {
    /// Parses the 1,216-byte form.
    pub fn parse(bytes: &[u8]) -> Result<Self, CryptoError> {
        <XWing as Kem>::PublicKey::from_bytes(bytes).map_err(|_| FAILED)?;
        Ok(Self(bytes.to_vec()))
    }

    /// The 1,216-byte form.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EncapsulationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncapsulationKey(sha256:")?;
        sha256(&self.0).iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, ")")
    }
}

/// The private half; opening consumes it only when the guest drops it, after the one reply it was made for.
pub struct DecapsulationKey(<XWing as Kem>::PrivateKey);

/// A fresh one-shot pair, from the system's randomness (the `hpke` crate draws it itself).
pub fn generate() -> (DecapsulationKey, EncapsulationKey) {
    let (private, public) = XWing::gen_keypair();
    (DecapsulationKey(private), EncapsulationKey(public.to_bytes().to_vec()))
}

/// A secret that may cross the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key.
    pub encapsulated: Vec<u8>,
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

const FAILED: CryptoError = CryptoError::new("HPKE failed");

/// Associated data: label, digest of the binding, then the secret's name. Fixed lengths first, so nothing can shift.
fn associated(binding: &[u8], name: &str) -> Vec<u8> {
    [INFO, &sha256(binding), name.as_bytes()].concat()
}

/// Seals `secret`, named `name`, to the encapsulation key of `binding` (the exact bytes that were transmitted).
pub fn seal(secret: &Secret, name: &str, to: &EncapsulationKey, binding: &[u8]) -> Result<Sealed, CryptoError> {
    let to = <XWing as Kem>::PublicKey::from_bytes(&to.0).map_err(|_| FAILED)?;
    let (encapsulated, mut context) =
        hpke::setup_sender::<AesGcm256, HkdfSha256, XWing>(&OpModeS::Base, &to, INFO).map_err(|_| FAILED)?;
    let ciphertext = context.seal(secret.expose(), &associated(binding, name)).map_err(|_| FAILED)?;
    Ok(Sealed { encapsulated: encapsulated.to_bytes().to_vec(), ciphertext })
}

impl DecapsulationKey {
    /// Opens what was sealed to this key for this binding under this name, or fails without saying why.
    pub fn open(&self, sealed: &Sealed, name: &str, binding: &[u8]) -> Result<Secret, CryptoError> {
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(&sealed.encapsulated).map_err(|_| FAILED)?;
        let mut context =
            hpke::setup_receiver::<AesGcm256, HkdfSha256, XWing>(&OpModeR::Base, &self.0, &encapsulated, INFO)
                .map_err(|_| FAILED)?;
        let plain = context.open(&sealed.ciphertext, &associated(binding, name)).map_err(|_| FAILED)?;
        Ok(Secret::new(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_where_when_and_as_what_it_was_sealed() {
        let (private, public) = generate();
        let secret = Secret::new(b"disk key".to_vec());
        let sealed = seal(&secret, "disk", &public, b"binding").unwrap();
        assert_eq!(public.bytes().len(), ENCAPSULATION_KEY_LEN);
        assert_eq!(sealed.encapsulated.len(), ENCAPSULATED_LEN);
        assert_eq!(private.open(&sealed, "disk", b"binding").unwrap().expose(), b"disk key");
        assert!(private.open(&sealed, "disk", b"other binding").is_err());
        assert!(private.open(&sealed, "name", b"binding").is_err());
        assert!(generate().0.open(&sealed, "disk", b"binding").is_err());
        let mut flipped = sealed.clone();
        *flipped.ciphertext.first_mut().unwrap() ^= 1;
        assert!(private.open(&flipped, "disk", b"binding").is_err());
    }

    #[test]
    fn an_encapsulation_key_of_another_length_is_refused() {
        assert!(EncapsulationKey::parse(&[0; 32]).is_err());
        assert!(EncapsulationKey::parse(&[]).is_err());
    }
}
