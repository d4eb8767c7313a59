//! The attestation key as TPMT_PUBLIC and its signatures as TPMT_SIGNATURE (TPM 2.0 library part 2 §12.2.4 and §11.3.4;
//! big-endian). Two kinds are taken, both with SHA-256: ECDSA P-256, and RSA of 2,048 to 4,096 bits with RSASSA or
//! RSAPSS. It has to be a restricted signing key that never leaves its TPM: an unrestricted one would sign whatever its
//! user wrote, a false quote included.
//!
//! A key is known by one of two digests. The digest of its SubjectPublicKeyInfo covers the key alone: its attributes are
//! then the guest's word, and the check finds a mistake, not a lie. The digest in its TPM Name covers TPMT_PUBLIC whole:
//! then the attributes are as enrolled. That only attestation keys are configured is for the operator to see to.

use inwit_protocol::primitives::{PublicKey, sha256};
use thiserror::Error;

use super::attest::SHA256;
use super::rsa::{EXPONENT, RsaError, RsaKey};
use crate::evidence::crypto::{RsaScheme, ecdsa_p256};
use crate::evidence::fields::{FieldError, Fields};

const PUBLIC: &str = "TPMT_PUBLIC";
const SIGNATURE: &str = "TPMT_SIGNATURE";
/// TPM_ALG_RSA, TPM_ALG_ECC, TPM_ALG_NULL, TPM_ALG_RSASSA, TPM_ALG_RSAPSS, TPM_ALG_ECDSA, TPM_ECC_NIST_P256.
const RSA: u16 = 0x0001;
const ECC: u16 = 0x0023;
const NULL: u16 = 0x0010;
const RSASSA: u16 = 0x0014;
const RSAPSS: u16 = 0x0016;
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
pub(in crate::evidence) enum KeyError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the attestation key is neither ECDSA P-256 nor RSASSA or RSAPSS, with SHA-256")]
    Algorithm,
    #[error("the attestation key: {0}")]
    Rsa(#[from] RsaError),
    #[error(
        "the attestation key has attributes {0:#010x}: it must be a restricted signing key that was made in its TPM and \
         cannot leave it, and must not decrypt"
    )]
    Attributes(u32),
    #[error("a number in the attestation key or signature has no or more bytes than it can have")]
    Number,
    #[error("the signature is of another scheme than the attestation key's, or not with SHA-256")]
    SignatureAlgorithm,
    #[error("the signature over the TPM quote does not verify with the attestation key")]
    Signature,
}

/// An attestation key of a kind that is taken. Whether it is trusted is still to be decided, by its digests.
#[derive(Clone, Debug)]
pub(super) struct AttestationKey {
    kind: Kind,
    pin: [u8; 32],
    name: [u8; 32],
}

#[derive(Clone, Debug)]
enum Kind {
    P256([u8; 65]),
    Rsa(RsaScheme, RsaKey),
}

impl AttestationKey {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Fields::of(bytes, PUBLIC);
        let (kind, name) = (fields.u16_be()?, fields.u16_be()?);
        let attributes = fields.u32_be()?;
        let policy = fields.counted_u16_be()?;
        if name != SHA256 || policy.len() > POLICY_LIMIT {
            return Err(KeyError::Algorithm);
        }
        let (kind, pin) = match kind {
            ECC => p256(&mut fields)?,
            RSA => rsa(&mut fields)?,
            _ => return Err(KeyError::Algorithm),
        };
        fields.end()?;
        if attributes & DEMANDED != DEMANDED || attributes & FORBIDDEN != 0 {
            return Err(KeyError::Attributes(attributes));
        }
        Ok(Self { kind, pin, name: sha256(bytes) })
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub(super) fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// The digest in the key's TPM Name: SHA-256 of TPMT_PUBLIC (TPM 2.0 library part 1, "Names").
    pub(super) fn name(&self) -> [u8; 32] {
        self.name
    }

    /// Verifies a TPMT_SIGNATURE over `message`.
    ///
    /// Whoever passes an ECDSA signature on can write it anew without the key: with n−s for s, as TPMs give either; and, where
    /// a number begins with zeros, in both of its lengths. It signs the same bytes, which are spent with their nonce. An RSA
    /// signature has one encoding.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let mut fields = Fields::of(signature, SIGNATURE);
        let scheme = (fields.u16_be()?, fields.u16_be()?);
        let good = match &self.kind {
            Kind::P256(point) if scheme == (ECDSA, SHA256) => {
                let halves = [number(fields.counted_u16_be()?)?, number(fields.counted_u16_be()?)?];
                fields.end()?;
                let mut fixed = [0; 64];
                fixed.iter_mut().zip(halves.as_flattened()).for_each(|(to, from)| *to = *from);
                ecdsa_p256(point, message, &fixed).is_ok()
            }
            Kind::Rsa(of_key, key) if scheme == (identifier(*of_key), SHA256) => {
                let signature = fields.counted_u16_be()?;
                fields.end()?;
                key.signed(*of_key, message, signature)
            }
            _ => return Err(KeyError::SignatureAlgorithm),
        };
        if good { Ok(()) } else { Err(KeyError::Signature) }
    }
}

fn identifier(scheme: RsaScheme) -> u16 {
    match scheme {
        RsaScheme::Pkcs1 => RSASSA,
        RsaScheme::Pss => RSAPSS,
    }
}

/// TPMS_ECC_PARMS and the point, with the digest of the key.
fn p256(fields: &mut Fields<'_>) -> Result<(Kind, [u8; 32]), KeyError> {
    // Symmetric (none for a signing key), scheme with its hash, curve, key derivation (none).
    let parameters = [fields.u16_be()?, fields.u16_be()?, fields.u16_be()?, fields.u16_be()?, fields.u16_be()?];
    if parameters != [NULL, ECDSA, SHA256, NIST_P256, NULL] {
        return Err(KeyError::Algorithm);
    }
    let (x, y) = (number(fields.counted_u16_be()?)?, number(fields.counted_u16_be()?)?);
    let mut point = [4; 65];
    point.iter_mut().skip(1).zip(x.iter().chain(&y)).for_each(|(to, from)| *to = *from);
    let pin = PublicKey::from_point(&point).map_err(|_| KeyError::Algorithm)?.pin();
    Ok((Kind::P256(point), pin))
}

/// TPMS_RSA_PARMS and the modulus, with the digest of the key.
fn rsa(fields: &mut Fields<'_>) -> Result<(Kind, [u8; 32]), KeyError> {
    let scheme = match [fields.u16_be()?, fields.u16_be()?, fields.u16_be()?] {
        [NULL, RSASSA, SHA256] => RsaScheme::Pkcs1,
        [NULL, RSAPSS, SHA256] => RsaScheme::Pss,
        _ => return Err(KeyError::Algorithm),
    };
    let bits = fields.u16_be()?;
    // Zero stands for the default (part 2 §12.2.3.5).
    let exponent = match fields.array()? {
        [0, 0, 0, 0] => EXPONENT.to_vec(),
        [0, exponent @ ..] => exponent.to_vec(),
        _ => return Err(RsaError::Exponent.into()),
    };
    let key = RsaKey::new(fields.counted_u16_be()?, &exponent)?;
    if u32::from(bits) != u32::from(key.size()) << 3 {
        return Err(RsaError::Modulus.into());
    }
    let pin = key.digest();
    Ok((Kind::Rsa(scheme, key), pin))
}

/// A big-endian number to 32 bytes. TPMs write all 32, or leave every leading zero byte out; nothing in between is taken.
fn number(bytes: &[u8]) -> Result<[u8; SCALAR], KeyError> {
    let padded = bytes.len() < SCALAR && bytes.first() == Some(&0);
    if bytes.is_empty() || padded || bytes.len() > SCALAR {
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
        let Kind::P256(point) = key.kind else { panic!("{key:?}") };
        assert_eq!(point[..3], [4, 0, 1], "a short coordinate is padded on the left");
        assert_eq!(key.name, sha256(&public(good)));
        for bit in [1, 4, 5, 16, 18] {
            let lacking = good & !(1 << bit);
            assert_eq!(AttestationKey::parse(&public(lacking)).err(), Some(KeyError::Attributes(lacking)));
        }
        let both = good | FORBIDDEN;
        assert_eq!(AttestationKey::parse(&public(both)).err(), Some(KeyError::Attributes(both)));
    }

    /// TPMT_PUBLIC of an RSA key of 2,048 bits.
    fn rsa_public(scheme: u16, exponent: u32, modulus: &[u8]) -> Vec<u8> {
        let parameters = [NULL, scheme, SHA256, 2_048].map(u16::to_be_bytes).concat();
        let length = u16::try_from(modulus.len()).unwrap().to_be_bytes();
        let head = [&RSA.to_be_bytes()[..], &SHA256.to_be_bytes(), &DEMANDED.to_be_bytes(), &[0, 0], &parameters];
        [&head.concat()[..], &exponent.to_be_bytes(), &length, modulus].concat()
    }

    #[test]
    fn an_rsa_key_is_taken_in_one_form_and_both_schemes() {
        let modulus = [[0x80].as_slice(), &[7; 255]].concat();
        let parse = |scheme, exponent, modulus: &[u8]| AttestationKey::parse(&rsa_public(scheme, exponent, modulus));
        let pin = parse(RSASSA, 0, &modulus).unwrap().pin();
        assert_eq!(parse(RSAPSS, 65_537, &modulus).unwrap().pin(), pin, "the default exponent, written out");
        let error = |key: Result<AttestationKey, KeyError>| key.unwrap_err();
        assert_eq!(error(parse(RSASSA, 3, &modulus)), KeyError::Rsa(RsaError::Exponent));
        assert_eq!(error(parse(RSASSA, 0x0101_0001, &modulus)), KeyError::Rsa(RsaError::Exponent));
        assert_eq!(error(parse(NULL, 0, &modulus)), KeyError::Algorithm);
        assert_eq!(error(parse(ECDSA, 0, &modulus)), KeyError::Algorithm);
        let longer = [[0x80].as_slice(), &[7; 383]].concat();
        assert_eq!(error(parse(RSASSA, 0, &longer)), KeyError::Rsa(RsaError::Modulus), "3,072 bits under another name");
        assert_eq!(error(parse(RSASSA, 0, &modulus[..128])), KeyError::Rsa(RsaError::Modulus));
        for offset in [1, 3, 11, 15] {
            let mut bytes = rsa_public(RSASSA, 0, &modulus);
            bytes[offset] ^= 1;
            assert_eq!(error(AttestationKey::parse(&bytes)), KeyError::Algorithm, "byte {offset}");
        }
        let trailing = [rsa_public(RSASSA, 0, &modulus), vec![0]].concat();
        assert_eq!(error(AttestationKey::parse(&trailing)), KeyError::Field(FieldError::Trailing(PUBLIC)));
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
        assert_eq!(number(&[[0].as_slice(), &[1; 30]].concat()), Err(KeyError::Number));
        assert_eq!(number(&[1; 30]), number(&[[0, 0].as_slice(), &[1; 30]].concat()));
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
            let rsa = rsa_public(RSASSA, 0, &[[0x80].as_slice(), &[7; 255]].concat());
            let key = AttestationKey::parse(&rsa).unwrap();
            prop_assert!(key.verify(b"message", &[&[0, 0x14, 0, 0x0b][..], &bytes].concat()).is_err());
            let mut rsa = rsa;
            rsa[position] = value;
            let _ = AttestationKey::parse(rsa.get(..cut.saturating_add(200)).unwrap_or(&rsa));
        }
    }
}
