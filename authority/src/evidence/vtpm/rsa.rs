//! RSA keys that sign TPM quotes: of a plain TPM, or the HCLAkPub that Azure's paravisor vouches for. Holds a key to one
//! form, so that each key has one digest. Verifies only, and decides nothing about whose key it is.

use inwit_protocol::primitives::sha256;
use thiserror::Error;

use crate::evidence::crypto::{RsaScheme, rsa_sha256};

/// The only exponent, 65,537, big-endian: what TPMs call the default.
pub(in crate::evidence) const EXPONENT: [u8; 3] = [1, 0, 1];
/// Bytes of a modulus of 2,048, 3,072 or 4,096 bits.
const SIZES: [u16; 3] = [256, 384, 512];
/// AlgorithmIdentifier of rsaEncryption (RFC 8017 A.1) in DER.
const RSA_ENCRYPTION: [u8; 15] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 5, 0];

/// Why numbers are no usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::evidence) enum RsaError {
    #[error("the RSA modulus is not one of 2048, 3072 or 4096 bits")]
    Modulus,
    #[error("the RSA exponent is not 65537")]
    Exponent,
}

/// An RSA public key with exponent 65,537.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::evidence) struct RsaKey {
    modulus: Vec<u8>,
    size: u16,
}

impl RsaKey {
    /// Both numbers big-endian, as short as they can be written.
    pub(in crate::evidence) fn new(modulus: &[u8], exponent: &[u8]) -> Result<Self, RsaError> {
        let size = SIZES.into_iter().find(|size| usize::from(*size) == modulus.len()).ok_or(RsaError::Modulus)?;
        // Neither shorter than it says nor even, which no product of two primes is.
        let ends =
            (modulus.first().is_some_and(|byte| *byte >= 0x80), modulus.last().is_some_and(|byte| byte % 2 == 1));
        if ends != (true, true) {
            return Err(RsaError::Modulus);
        }
        if exponent != EXPONENT {
            return Err(RsaError::Exponent);
        }
        Ok(Self { modulus: modulus.to_vec(), size })
    }

    /// SHA-256 of the SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7, RFC 8017 A.1.1).
    pub(in crate::evidence) fn digest(&self) -> [u8; 32] {
        // Every length is between 256 and 65,535 and so is written in two bytes.
        let long = |tag: u8, more: u16| [&[tag, 0x82][..], &self.size.saturating_add(more).to_be_bytes()].concat();
        let exponent = [&[2, 3][..], &EXPONENT].concat();
        let key = [long(0x30, 10), long(2, 1), vec![0], self.modulus.clone(), exponent].concat();
        sha256(&[long(0x30, 34), RSA_ENCRYPTION.to_vec(), long(3, 15), vec![0], key].concat())
    }

    /// Bytes of a signature by this key.
    pub(in crate::evidence) fn size(&self) -> u16 {
        self.size
    }

    /// The modulus, big-endian, without leading zeros.
    pub(in crate::evidence) fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// Whether this key signed `message`, with SHA-256. A signature of another length than the modulus is none.
    pub(in crate::evidence) fn signed(&self, scheme: RsaScheme, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == self.modulus.len()
            && rsa_sha256(scheme, &self.modulus, &EXPONENT, message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};

    use super::*;

    fn key(pair: &RsaKeyPair) -> RsaKey {
        // RSAPublicKey in DER: two headers, a zero, the modulus, and five bytes of exponent.
        let der = pair.public_key().as_ref();
        RsaKey::new(&der[9..der.len() - 5], &EXPONENT).unwrap()
    }

    #[test]
    fn the_digest_is_that_of_the_key_as_another_library_writes_it() {
        for size in [KeySize::Rsa2048, KeySize::Rsa3072, KeySize::Rsa4096] {
            let pair = RsaKeyPair::generate(size).unwrap();
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            assert_eq!(key(&pair).digest(), sha256(der.as_ref()), "{size:?}");
        }
    }

    #[test]
    fn a_signature_counts_under_its_own_scheme_and_length_only() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = key(&pair);
        let sign = |scheme: &'static dyn RsaEncoding| {
            let mut signature = vec![0; 256];
            pair.sign(scheme, &SystemRandom::new(), b"message", &mut signature).unwrap();
            signature
        };
        let (pkcs1, pss) = (sign(&RSA_PKCS1_SHA256), sign(&RSA_PSS_SHA256));
        assert!(key.signed(RsaScheme::Pkcs1, b"message", &pkcs1) && key.signed(RsaScheme::Pss, b"message", &pss));
        assert!(!key.signed(RsaScheme::Pss, b"message", &pkcs1) && !key.signed(RsaScheme::Pkcs1, b"message", &pss));
        assert!(!key.signed(RsaScheme::Pkcs1, b"massage", &pkcs1));
        assert!(!key.signed(RsaScheme::Pkcs1, b"message", &[&[0], pkcs1.as_slice()].concat()));
        assert!(!key.signed(RsaScheme::Pkcs1, b"message", &pkcs1[..255]));
    }

    #[test]
    fn numbers_of_another_form_are_no_key() {
        let good = [[0x80].as_slice(), &[7; 255]].concat();
        assert!(RsaKey::new(&good, &EXPONENT).is_ok());
        for (modulus, exponent, error) in [
            (vec![7; 256], vec![1, 0, 1], RsaError::Modulus),
            ([[0x80].as_slice(), &[8; 255]].concat(), vec![1, 0, 1], RsaError::Modulus),
            (good[..255].to_vec(), vec![1, 0, 1], RsaError::Modulus),
            ([[0].as_slice(), &good].concat(), vec![1, 0, 1], RsaError::Modulus),
            (vec![0xff; 128], vec![1, 0, 1], RsaError::Modulus),
            (vec![], vec![1, 0, 1], RsaError::Modulus),
            (good.clone(), vec![0, 1, 0, 1], RsaError::Exponent),
            (good.clone(), vec![3], RsaError::Exponent),
            (good, vec![], RsaError::Exponent),
        ] {
            assert_eq!(RsaKey::new(&modulus, &exponent), Err(error));
        }
    }
}
