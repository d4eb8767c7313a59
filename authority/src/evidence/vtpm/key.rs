//! The attestation key as TPMT_PUBLIC and its signatures as TPMT_SIGNATURE (TPM 2.0 library part 2 §12.2.4 and §11.3.4;
//! big-endian). Only one kind is taken: a restricted ECDSA P-256 signing key that never leaves its TPM. An unrestricted
//! one would sign whatever its user wrote, a false quote included.
//!
//! The attributes are the guest's word, because the pin is of the key alone: the check finds a mistake, not a lie. That
//! only attestation keys are configured is for the operator to see to, where the key is enrolled.

use inwit_protocol::primitives::PublicKey;
use thiserror::Error;

use super::attest::SHA256;
use crate::evidence::crypto::ecdsa_p256;
use crate::evidence::fields::{FieldError, Fields};

const PUBLIC: &str = "TPMT_PUBLIC";
const SIGNATURE: &str = "TPMT_SIGNATURE";
/// TPM_ALG_ECC, TPM_ALG_NULL, TPM_ALG_ECDSA, TPM_ECC_NIST_P256.
const ECC: u16 = 0x0023;
const NULL: u16 = 0x0010;
const ECDSA: u16 = 0x0018;
const NIST_P256: u16 = 0x0003;
/// fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign (part 2 §8.3, TPMA_OBJECT).
const DEMANDED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18;
/// decrypt: a key that does both could be asked to sign what it was given to decrypt.
const FORBIDDEN: u32 = 1 << 17;
/// Longest authorization policy digest, in bytes (SHA-512).
const POLICY_LIMIT: usize = 64;
/// Bytes of a P-256 coordinate or scalar.
const SCALAR: usize = 32;

/// Why a key or signature cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum KeyError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the attestation key is not an ECDSA P-256 key with SHA-256")]
    Algorithm,
    #[error(
        "the attestation key has attributes {0:#010x}: it must be a restricted signing key that was made in its TPM and \
         cannot leave it, and must not decrypt"
    )]
    Attributes(u32),
    #[error("a number in the attestation key or signature has no or more than 32 bytes")]
    Number,
    #[error("the signature is not ECDSA with SHA-256")]
    SignatureAlgorithm,
    #[error("the signature over the TPM quote does not verify with the attestation key")]
    Signature,
}

/// An attestation key of the one kind that is taken. Whether it is trusted is still to be decided, by its pin.
#[derive(Clone, Debug)]
pub(crate) struct AttestationKey {
    point: [u8; 65],
    pin: [u8; 32],
}

impl AttestationKey {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Fields::of(bytes, PUBLIC);
        let (kind, name) = (fields.u16_be()?, fields.u16_be()?);
        let attributes = fields.u32_be()?;
        let policy = fields.counted_u16_be()?;
        if kind != ECC || name != SHA256 || policy.len() > POLICY_LIMIT {
            return Err(KeyError::Algorithm);
        }
        if attributes & DEMANDED != DEMANDED || attributes & FORBIDDEN != 0 {
            return Err(KeyError::Attributes(attributes));
        }
        // Symmetric (none for a signing key), scheme with its hash, curve, key derivation (none).
        let parameters = [fields.u16_be()?, fields.u16_be()?, fields.u16_be()?, fields.u16_be()?, fields.u16_be()?];
        if parameters != [NULL, ECDSA, SHA256, NIST_P256, NULL] {
            return Err(KeyError::Algorithm);
        }
        let (x, y) = (number(fields.counted_u16_be()?)?, number(fields.counted_u16_be()?)?);
        fields.end()?;
        let mut point = [4; 65];
        point.iter_mut().skip(1).zip(x.iter().chain(&y)).for_each(|(to, from)| *to = *from);
        let pin = PublicKey::from_point(&point).map_err(|_| KeyError::Algorithm)?.pin();
        Ok(Self { point, pin })
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub(crate) fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// Verifies a TPMT_SIGNATURE over `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let mut fields = Fields::of(signature, SIGNATURE);
        if (fields.u16_be()?, fields.u16_be()?) != (ECDSA, SHA256) {
            return Err(KeyError::SignatureAlgorithm);
        }
        let halves = [number(fields.counted_u16_be()?)?, number(fields.counted_u16_be()?)?];
        let mut fixed = [0; 64];
        fixed.iter_mut().zip(halves.as_flattened()).for_each(|(to, from)| *to = *from);
        fields.end()?;
        ecdsa_p256(&self.point, message, &fixed).map_err(|_| KeyError::Signature)
    }
}

/// A big-endian number to 32 bytes. A TPM may leave leading zero bytes out.
fn number(bytes: &[u8]) -> Result<[u8; SCALAR], KeyError> {
    if bytes.is_empty() || bytes.len() > SCALAR {
        return Err(KeyError::Number);
    }
    let mut out = [0; SCALAR];
    out.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn public(attributes: u32) -> Vec<u8> {
        let parameters = [NULL, ECDSA, SHA256, NIST_P256, NULL].map(u16::to_be_bytes).concat();
        let unique = [&[0, 31][..], &[1; 31], &[0, 32], &[2; 32]].concat();
        [&ECC.to_be_bytes()[..], &SHA256.to_be_bytes(), &attributes.to_be_bytes(), &[0, 0], &parameters, &unique]
            .concat()
    }

    #[test]
    fn only_a_restricted_signing_key_that_stays_in_its_tpm_is_taken() {
        let good = DEMANDED | 1 << 6 | 1 << 10;
        let key = AttestationKey::parse(&public(good)).unwrap();
        assert_eq!(key.point[..3], [4, 0, 1], "a short coordinate is padded on the left");
        for bit in [1, 4, 5, 16, 18] {
            let lacking = good & !(1 << bit);
            assert_eq!(AttestationKey::parse(&public(lacking)).err(), Some(KeyError::Attributes(lacking)));
        }
        let both = good | FORBIDDEN;
        assert_eq!(AttestationKey::parse(&public(both)).err(), Some(KeyError::Attributes(both)));
    }

    #[test]
    fn another_algorithm_is_refused_and_every_byte_is_read() {
        for offset in [1, 3, 11, 13, 15, 17, 19] {
            let mut bytes = public(DEMANDED);
            bytes[offset] ^= 1;
            assert_eq!(AttestationKey::parse(&bytes).err(), Some(KeyError::Algorithm), "byte {offset}");
        }
        let trailing = [public(DEMANDED), vec![0]].concat();
        assert_eq!(AttestationKey::parse(&trailing).err(), Some(KeyError::Field(FieldError::Trailing(PUBLIC))));
        assert_eq!(number(&[1; 33]), Err(KeyError::Number));
        assert_eq!(number(&[]), Err(KeyError::Number));
    }

    proptest! {
        #[test]
        fn damaged_keys_and_signatures_never_panic(position in 0usize..90, value: u8, cut in 0usize..100) {
            let mut bytes = public(DEMANDED);
            let key = AttestationKey::parse(&bytes).unwrap();
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
            let _ = AttestationKey::parse(bytes.get(..cut).unwrap_or(&bytes));
            let signature = [&[0, 0x18, 0, 0x0b][..], &bytes].concat();
            prop_assert!(key.verify(b"message", &signature).is_err());
        }
    }
}
