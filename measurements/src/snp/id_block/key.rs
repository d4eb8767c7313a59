//! Keys and signatures in the security processor's form, and signing keys as files.
//!
//! Sources: AMD SEV-SNP Firmware ABI (56860), ECDSA P-384 public key and signature; RFC 5208 (PKCS #8), RFC 5915 (EC
//! private keys), RFC 7468 (PEM). Numbers of P-384 are stored little-endian in 72 bytes, of which the last 24 are zero.
//!
//! Not trusted: key files and keys of foreign blocks. Never encrypts, decrypts or stores a key.

use data_encoding::BASE64;
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{IdBlockError, is_zero};
use crate::bytes::{slice_at, u32_at};
use crate::digest::{Digest, sha384};

/// Bytes of a stored public key: curve u32, x and y of 72, zeros.
pub(super) const KEY_BYTES: usize = 0x404;
/// Bytes of a stored signature: r and s of 72, zeros.
pub(super) const SIGNATURE_BYTES: usize = 512;
/// Bytes of a stored number, and of one of P-384.
const STORED: usize = 72;
const NUMBER: usize = 48;
const CURVE_P384: u32 = 2;
/// Longest key file that is read, in bytes; a real one has under 400.
pub const MAX_KEY_FILE: usize = 16 << 10;

/// A public key as the security processor stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    stored: Box<[u8; KEY_BYTES]>,
}

impl PublicKey {
    /// The stored form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.stored
    }

    /// ID_KEY_DIGEST or AUTHOR_KEY_DIGEST of the attestation report.
    #[must_use]
    pub fn digest(&self) -> Digest<48> {
        sha384(self.stored.as_slice())
    }

    /// From an uncompressed point: 04, x, y, big-endian.
    fn from_point(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(NUMBER)?;
        let mut stored = Box::new([0; KEY_BYTES]);
        stored[..4].copy_from_slice(&CURVE_P384.to_le_bytes());
        stored[4..4 + STORED].copy_from_slice(&stored_number(x)?);
        stored[4 + STORED..4 + 2 * STORED].copy_from_slice(&stored_number(y)?);
        Some(Self { stored })
    }

    /// Reads the stored form of `key`, a name for errors. Whether the point is on the curve shows when it verifies.
    pub(super) fn parse(key: &'static str, stored: &[u8]) -> Result<Self, IdBlockError> {
        let reserved = IdBlockError::Reserved(key);
        let curve = u32_at(stored, 0).ok_or_else(|| reserved.clone())?;
        if curve != CURVE_P384 {
            return Err(IdBlockError::Curve { key, curve });
        }
        let rest = stored.get(4 + 2 * STORED..).filter(|rest| is_zero(rest));
        let sound = rest.is_some() && number_at(stored, 4).is_some() && number_at(stored, 4 + STORED).is_some();
        let stored = stored.try_into().ok().filter(|_| sound).map(Box::new).ok_or(reserved)?;
        Ok(Self { stored })
    }

    /// Verifies a stored signature of this key; `what` names it in errors.
    pub(super) fn verify(&self, what: &'static str, message: &[u8], signature: &[u8]) -> Result<(), IdBlockError> {
        let zero = signature.get(2 * STORED..).is_some_and(is_zero);
        let numbers = number_at(signature, 0).zip(number_at(signature, STORED)).filter(|_| zero);
        let point = number_at(self.stored.as_slice(), 4).zip(number_at(self.stored.as_slice(), 4 + STORED));
        let (Some((r, s)), Some((x, y))) = (numbers, point) else {
            return Err(IdBlockError::Reserved(what));
        };
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, [[4].as_slice(), &x, &y].concat());
        key.verify(message, &[r, s].concat()).map_err(|_| IdBlockError::Signature(what))
    }
}

/// 48 big-endian bytes as stored: 72 little-endian ones.
fn stored_number(number: &[u8]) -> Option<[u8; STORED]> {
    let mut stored = [0; STORED];
    let number: [u8; NUMBER] = number.try_into().ok()?;
    for (to, from) in stored.iter_mut().zip(number.iter().rev()) {
        *to = *from;
    }
    Some(stored)
}

/// The big-endian bytes of a stored number; nothing when it has more than 48 bytes.
fn number_at(stored: &[u8], at: usize) -> Option<[u8; NUMBER]> {
    let (number, above) = slice_at(stored, at, STORED)?.split_first_chunk::<NUMBER>()?;
    let mut number = *number;
    number.reverse();
    is_zero(above).then_some(number)
}

/// Why a file is no key that can sign an ID block.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Nothing that looks like a key.
    #[error("no private key: expected PKCS #8 or an EC private key, as PEM or DER")]
    NotAKey,
    /// A key under a password.
    #[error("the private key is encrypted: decrypt it first, for instance with `openssl pkcs8 -in KEY -out PLAIN`")]
    Encrypted,
    /// A key of another kind, or one without its public half.
    #[error(
        "no ECDSA P-384 key with its public key: make one with `openssl genpkey -algorithm EC -pkeyopt \
         ec_paramgen_curve:P-384`"
    )]
    Unfit,
}

/// A private key that signs ID blocks, or the keys of those who do.
#[derive(Debug)]
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Reads a key file: PKCS #8 or EC private key (RFC 5915), PEM or DER, not encrypted. `random` guards the arithmetic.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(file: &[u8], random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let pkcs8 = pkcs8(file)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &pkcs8, random);
        let pair = pair.map_err(|_| KeyError::Unfit)?;
        let public = PublicKey::from_point(pair.public_key().as_ref()).ok_or(KeyError::Unfit)?;
        Ok(Self { pair, public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// A signature in its stored form.
    pub(super) fn sign(
        &self,
        message: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<[u8; SIGNATURE_BYTES], IdBlockError> {
        let signature = self.pair.sign(random, message).map_err(|_| IdBlockError::Signing)?;
        let (r, s) = signature.as_ref().split_at_checked(NUMBER).ok_or(IdBlockError::Signing)?;
        let (r, s) = stored_number(r).zip(stored_number(s)).ok_or(IdBlockError::Signing)?;
        let mut stored = [0; SIGNATURE_BYTES];
        stored[..STORED].copy_from_slice(&r);
        stored[STORED..2 * STORED].copy_from_slice(&s);
        Ok(stored)
    }
}

/// The PKCS #8 form of whatever form a key file has.
fn pkcs8(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if file.len() > MAX_KEY_FILE {
        return Err(KeyError::NotAKey);
    }
    if let Ok(text) = str::from_utf8(file)
        && text.contains("-----BEGIN ")
    {
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        if let Some(der) = pem(text, "PRIVATE KEY")? {
            return Ok(der);
        }
        return wrap(&pem(text, "EC PRIVATE KEY")?.ok_or(KeyError::NotAKey)?);
    }
    // Both are sequences that begin with a version: 0 in PKCS #8, 1 in an EC private key.
    let version = match file {
        [0x30, length, rest @ ..] if *length < 0x80 => rest,
        [0x30, 0x81, _, rest @ ..] | [0x30, 0x82, _, _, rest @ ..] => rest,
        _ => return Err(KeyError::NotAKey),
    };
    match version {
        [2, 1, 0, ..] => Ok(file.to_vec().into()),
        [2, 1, 1, ..] => wrap(file),
        _ => Err(KeyError::NotAKey),
    }
}

/// The contents of the first PEM block with this label, if there is one.
fn pem(text: &str, label: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let Some((_, rest)) = text.split_once(&begin) else { return Ok(None) };
    let (body, _) = rest.split_once(&end).ok_or(KeyError::NotAKey)?;
    // Room for all of it at once: memory that is grown leaves a copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(body.len()));
    plain.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    BASE64.decode(&plain).map(|der| Some(der.into())).map_err(|_| KeyError::NotAKey)
}

/// PKCS #8 around an EC private key of P-384: version 0, the algorithm with its curve, the key as octets.
fn wrap(ec_private_key: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    const ID_EC_PUBLIC_KEY_P384: [u8; 18] =
        [0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];
    let octets = der(4, ec_private_key)?;
    der(0x30, &Zeroizing::new([[2, 1, 0].as_slice(), &ID_EC_PUBLIC_KEY_P384, &octets].concat()))
}

/// Tag, length and contents.
fn der(tag: u8, contents: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let length = u16::try_from(contents.len()).map_err(|_| KeyError::NotAKey)?.to_be_bytes();
    let header = match length {
        [0, short @ 0..0x80] => vec![tag, short],
        [0, long] => vec![tag, 0x81, long],
        [high, low] => vec![tag, 0x82, high, low],
    };
    Ok([header.as_slice(), contents].concat().into())
}
