//! The one file that knows with which library the signatures on Evidence and Endorsements are verified: aws-lc-rs, because a
//! P-384 verification with it costs a third of one with ring, and every SNP report is one (`just bench-beside`).
//! Keys, issuing and TLS stay with ring, in `inwit_protocol::primitives`; the guest has no part of this.
//!
//! Verifies only: it holds no key, makes no signature and decides nothing about whose key it is.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

/// A signature that does not verify. It says no more: why one does not is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadSignature;

fn verify(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Verdict {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).map_err(|_| BadSignature)
}

type Verdict = Result<(), BadSignature>;

/// A P-384 key that was read once and found to be a point of the curve, for many verifications.
#[derive(Debug)]
pub(crate) struct P384Key(ParsedPublicKey);

impl P384Key {
    /// `point` uncompressed, 97 bytes.
    ///
    /// # Errors
    /// When it is not on the curve.
    pub(crate) fn new(point: &[u8; 97]) -> Result<Self, BadSignature> {
        ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).map(Self).map_err(|_| BadSignature)
    }

    /// ECDSA with SHA-384: `signature` R ‖ S of 48 bytes each, big-endian.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 96]) -> Verdict {
        self.0.verify_sig(message, signature).map_err(|_| BadSignature)
    }
}

/// ECDSA P-256 with SHA-256: `key` an uncompressed point of 65 bytes, `signature` r ‖ s of 32 bytes each, big-endian.
pub(crate) fn ecdsa_p256(key: &[u8; 65], message: &[u8], signature: &[u8; 64]) -> Verdict {
    verify(&ECDSA_P256_SHA256_FIXED, key, message, signature)
}

/// RSASSA-PSS with SHA-384 and a salt of 48 bytes: `key` an RSAPublicKey in DER, 2,048 to 8,192 bits.
pub(crate) fn rsa_pss_sha384(key: &[u8], message: &[u8], signature: &[u8]) -> Verdict {
    verify(&RSA_PSS_2048_8192_SHA384, key, message, signature)
}

/// How a TPM signs with an RSA key (TPM 2.0 library part 2, TPMI_ALG_RSA_SCHEME), SHA-256 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RsaScheme {
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
    /// RSASSA-PSS, salt as long as the hash.
    Pss,
}

/// RSA with SHA-256: `modulus` and `exponent` big-endian without leading zeros, 2,048 to 8,192 bits.
pub(crate) fn rsa_sha256(
    scheme: RsaScheme,
    modulus: &[u8],
    exponent: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Verdict {
    let key = RsaPublicKeyComponents { n: modulus, e: exponent };
    let algorithm = match scheme {
        RsaScheme::Pkcs1 => &RSA_PKCS1_2048_8192_SHA256,
        RsaScheme::Pss => &RSA_PSS_2048_8192_SHA256,
    };
    key.verify(algorithm, message, signature).map_err(|_| BadSignature)
}

/// What AMD signs certificates with, in both of the forms that its AlgorithmIdentifiers take.
pub(crate) static AMD_CHAIN: [&dyn SignatureVerificationAlgorithm; 2] =
    [&AmdPss, webpki::aws_lc_rs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY];

/// What Intel signs certificates and revocation lists with.
pub(crate) static INTEL_CHAIN: [&dyn SignatureVerificationAlgorithm; 1] = [webpki::aws_lc_rs::ECDSA_P256_SHA256];

/// RSASSA-PSS with SHA-384 under an AlgorithmIdentifier that writes the trailer field, as AMD's ARK, ASK, ASVK and
/// older VCEK certificates do although DER leaves a default out. webpki compares identifiers byte for byte and knows
/// only the other form.
#[derive(Debug)]
struct AmdPss;

/// Content of that AlgorithmIdentifier (RFC 4055 §3.1).
#[rustfmt::skip]
const AMD_PSS_IDENTIFIER: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, // id-RSASSA-PSS
    0x30, 0x39, // parameters
    0xa0, 0x0f, // [0] hash
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, // SHA-384
    0xa1, 0x1c, // [1] mask generation
    0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, // MGF1
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, // SHA-384
    0xa2, 0x03, 0x02, 0x01, 0x30, // [2] salt of 48 bytes
    0xa3, 0x03, 0x02, 0x01, 0x01, // [3] trailer field, the default written out
];

impl SignatureVerificationAlgorithm for AmdPss {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        webpki::aws_lc_rs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(AMD_PSS_IDENTIFIER)
    }
}
