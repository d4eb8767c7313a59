//! The one place that names primitives: SHA-2, ECDSA P-256 with SHA-256, and the SubjectPublicKeyInfo that carries its
//! public key. It never chooses by negotiation: an algorithm is in the type or nowhere.

use core::fmt;
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use zeroize::Zeroizing;

/// DER before the 65-byte uncompressed point of a P-256 SubjectPublicKeyInfo (RFC 5480 §2): fixed, since the only
/// optional parts (curve, point form) are fixed by us.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Length of a P-256 SubjectPublicKeyInfo in this form, in bytes.
pub const P256_SPKI_LEN: usize = 91;
/// Longest DER-encoded ECDSA P-256 signature, in bytes.
pub const P256_SIGNATURE_MAX: usize = 72;
/// Length of a P-256 coordinate or scalar, in bytes.
pub const P256_SCALAR_LEN: usize = 32;
/// Length of an ECDSA P-256 signature as r ‖ s, in bytes, each big-endian.
pub const P256_FIXED_SIGNATURE_LEN: usize = 64;

/// A 32-byte digest of a file, a key or a message.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    fixed(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// SHA-512, as REPORT_DATA wants 64 bytes.
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    fixed(ring::digest::digest(&ring::digest::SHA512, bytes).as_ref())
}

/// A digest's bytes; its length is the algorithm's, so nothing is cut.
fn fixed<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(digest) {
        *to = *from;
    }
    out
}

/// A primitive failed. Says nothing more: the cause of a cryptographic failure is not for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoError(&'static str);

impl CryptoError {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self(what)
    }
}

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for CryptoError {}

/// A P-256 public key as its 91-byte DER SubjectPublicKeyInfo, the form RFC 7250 puts on the wire.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; P256_SPKI_LEN]);

impl PublicKey {
    /// Accepts exactly the DER form of an uncompressed P-256 point. Whether the point is on the curve is seen at the
    /// first verification, before which a public key is good for nothing.
    pub fn from_spki(der: &[u8]) -> Result<Self, CryptoError> {
        let key: [u8; P256_SPKI_LEN] = der.try_into().map_err(|_| CryptoError("not a P-256 SubjectPublicKeyInfo"))?;
        let point = key.strip_prefix(&P256_SPKI_PREFIX).ok_or(CryptoError("not a P-256 SubjectPublicKeyInfo"))?;
        if point.first() != Some(&4) {
            return Err(CryptoError("not an uncompressed P-256 point"));
        }
        Ok(Self(key))
    }

    /// The key of a point in SEC 1 uncompressed form (04 ‖ x ‖ y, 65 bytes).
    pub fn from_point(point: &[u8]) -> Result<Self, CryptoError> {
        Self::from_spki(&[&P256_SPKI_PREFIX, point].concat())
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the form in which keys are pinned.
    pub fn pin(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    /// The point in SEC 1 uncompressed form (04 ‖ x ‖ y, 65 bytes).
    pub fn point(&self) -> &[u8] {
        self.0.get(P256_SPKI_PREFIX.len()..).unwrap_or_default()
    }

    /// Verifies a DER-encoded ECDSA signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point())
            .verify(message, signature)
            .map_err(|_| CryptoError("signature does not verify"))
    }

    /// Verifies an ECDSA signature given as r ‖ s, as COSE and JOSE write it, over `message`.
    pub fn verify_fixed(&self, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.point())
            .verify(message, signature)
            .map_err(|_| CryptoError("signature does not verify"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(sha256:")?;
        self.pin().iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, ")")
    }
}

/// A P-256 signing key. It cannot be cloned, printed or encoded; there is no way to its bytes once it is made.
pub struct SigningKey {
    pair: Box<EcdsaKeyPair>,
    public: PublicKey,
}

impl SigningKey {
    /// A fresh key from `random`; its PKCS#8 form exists only in memory that is wiped.
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, CryptoError> {
        let pkcs8 = Self::generate_pkcs8(random)?;
        Self::from_pkcs8(&pkcs8, random)
    }

    /// A fresh key in PKCS#8 form, for those who must store it (an authority's own keys). The caller wipes it.
    pub fn generate_pkcs8(random: &dyn SecureRandom) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, random)
            .map_err(|_| CryptoError("no randomness for a new key"))?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Reads a PKCS#8 P-256 key.
    pub fn from_pkcs8(pkcs8: &[u8], random: &dyn SecureRandom) -> Result<Self, CryptoError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, random)
            .map_err(|_| CryptoError("not a PKCS#8 P-256 key"))?;
        let public = PublicKey::from_point(pair.public_key().as_ref())?;
        Ok(Self { pair: Box::new(pair), public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A DER-encoded ECDSA signature over `message`.
    pub fn sign(&self, message: &[u8], random: &dyn SecureRandom) -> Result<Vec<u8>, CryptoError> {
        let signature = self.pair.sign(random, message).map_err(|_| CryptoError("signing failed"))?;
        Ok(signature.as_ref().to_vec())
    }

    /// An ECDSA signature over `message` as r ‖ s, as COSE and JOSE write it. `ring` binds the form to the key pair, and a
    /// second pair would be a second copy of the secret; so the DER form is rewritten.
    pub fn sign_fixed(
        &self,
        message: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<[u8; P256_FIXED_SIGNATURE_LEN], CryptoError> {
        fixed_of_der(&self.sign(message, random)?).ok_or(CryptoError("signing failed"))
    }
}

/// r ‖ s of `SEQUENCE { INTEGER r, INTEGER s }`, all lengths below 128.
fn fixed_of_der(der: &[u8]) -> Option<[u8; P256_FIXED_SIGNATURE_LEN]> {
    let (&[0x30, length], body) = der.split_first_chunk()? else { return None };
    if usize::from(length) != body.len() {
        return None;
    }
    let (r, rest) = scalar_of_der(body)?;
    let (s, rest) = scalar_of_der(rest)?;
    if !rest.is_empty() {
        return None;
    }
    [r, s].concat().try_into().ok()
}

/// A positive DER INTEGER of at most 32 bytes, padded to 32, and what follows it.
fn scalar_of_der(der: &[u8]) -> Option<([u8; P256_SCALAR_LEN], &[u8])> {
    let (&[0x02, length], rest) = der.split_first_chunk()? else { return None };
    let (digits, rest) = rest.split_at_checked(usize::from(length))?;
    let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
    let start = P256_SCALAR_LEN.checked_sub(digits.len())?;
    let mut scalar = [0; P256_SCALAR_LEN];
    scalar.get_mut(start..)?.copy_from_slice(digits);
    Some((scalar, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[test]
    fn signs_and_verifies_and_refuses_a_flipped_bit() {
        let random = SystemRandom::new();
        let key = SigningKey::generate(&random).unwrap();
        let mut signature = key.sign(b"message", &random).unwrap();
        assert!(signature.len() <= P256_SIGNATURE_MAX);
        key.public().verify(b"message", &signature).unwrap();
        assert!(key.public().verify(b"massage", &signature).is_err());
        *signature.last_mut().unwrap() ^= 1;
        assert!(key.public().verify(b"message", &signature).is_err());
    }

    #[test]
    fn the_fixed_form_is_the_same_signature_padded() {
        let random = SystemRandom::new();
        let key = SigningKey::generate(&random).unwrap();
        // One signature in 128 has a scalar with a leading zero byte.
        for number in 0..600u32 {
            let message = number.to_be_bytes();
            let mut signature = key.sign_fixed(&message, &random).unwrap();
            key.public().verify_fixed(&message, &signature).unwrap();
            signature[40] ^= 1;
            assert!(key.public().verify_fixed(&message, &signature).is_err());
        }
        let der = key.sign(b"message", &random).unwrap();
        assert!(key.public().verify_fixed(b"message", &der).is_err());
        assert!(fixed_of_der(&[&der[..], &[0]].concat()).is_none());
        assert!((0..der.len()).all(|length| fixed_of_der(&der[..length]).is_none()));
        let padded = fixed_of_der(&[0x30, 7, 2, 2, 0, 0x80, 2, 1, 5]).unwrap();
        assert_eq!((padded[31], padded[63], padded[..31].iter().all(|byte| *byte == 0)), (0x80, 5, true));
    }

    #[test]
    fn only_the_one_spki_form_is_a_public_key() {
        let key = SigningKey::generate(&SystemRandom::new()).unwrap();
        let spki = key.public().spki().to_vec();
        assert_eq!(PublicKey::from_spki(&spki).unwrap(), *key.public());
        assert!(PublicKey::from_spki(&spki[..90]).is_err());
        let mut compressed = spki.clone();
        compressed[26] = 2;
        assert!(PublicKey::from_spki(&compressed).is_err());
        let mut other_curve = spki;
        other_curve[22] ^= 1;
        assert!(PublicKey::from_spki(&other_curve).is_err());
    }
}
