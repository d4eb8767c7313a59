//! RSA-4096 keys of the simulated ARK and ASK, and their RSASSA-PSS signatures.
//!
//! ring signs but cannot make RSA keys, so the `openssl` program makes them; nothing else of it is used. The keys are
//! test keys: made at run time, worth nothing outside it, never a constant.

use std::fmt;
use std::process::{Child, Command, Stdio};

use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PSS_SHA384, RsaKeyPair};

use super::HardwareError;
use super::x509::Tbs;
use crate::hardware::der::{self, context};

/// How the algorithm identifier writes the PSS trailer field, whose only value DER would omit as a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trailer {
    /// `[3] 1` is written although it is the default: ARK, ASK, revocation list and Milan VCEK.
    Explicit,
    /// As DER demands: Genoa and Turin VCEK.
    Omitted,
}

impl Trailer {
    /// AlgorithmIdentifier: RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 4055 section 3.1).
    pub(super) fn algorithm(self) -> Vec<u8> {
        let null = der::element(0x05, &[]);
        let sha384 = der::sequence(&[&der::object(&[2, 16, 840, 1, 101, 3, 4, 2, 2]), &null]);
        let mgf1 = der::sequence(&[&der::object(&[1, 2, 840, 113_549, 1, 1, 8]), &sha384]);
        let trailer = match self {
            Self::Explicit => der::element(context(3), &der::integer(1)),
            Self::Omitted => Vec::new(),
        };
        let parameters = der::sequence(&[
            &der::element(context(0), &sha384),
            &der::element(context(1), &mgf1),
            &der::element(context(2), &der::integer(48)),
            &trailer,
        ]);
        der::sequence(&[&der::object(&[1, 2, 840, 113_549, 1, 1, 10]), &parameters])
    }
}

pub(super) struct RsaKey {
    pair: RsaKeyPair,
    private: Vec<u8>,
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RsaKey").field("public", self.pair.public_key()).finish_non_exhaustive()
    }
}

impl RsaKey {
    /// Two fresh keys, made side by side because each takes about a second.
    pub(super) fn generate_two() -> Result<(Self, Self), HardwareError> {
        let (first, second) = (start_generation()?, start_generation()?);
        Ok((finish_generation(first)?, finish_generation(second)?))
    }

    /// `private` is an unencrypted private key, DER: RSAPrivateKey or PKCS #8, since versions of openssl differ.
    pub(super) fn from_der(private: Vec<u8>) -> Result<Self, HardwareError> {
        let pair = RsaKeyPair::from_pkcs8(&private)
            .or_else(|_| RsaKeyPair::from_der(&private))
            .map_err(|_| HardwareError::Key("read an RSA-4096 key"))?;
        Ok(Self { pair, private })
    }

    pub(super) fn private_der(&self) -> &[u8] {
        &self.private
    }

    /// SubjectPublicKeyInfo, DER.
    pub(super) fn spki(&self) -> Vec<u8> {
        let algorithm = der::sequence(&[&der::object(&[1, 2, 840, 113_549, 1, 1, 1]), &der::element(0x05, &[])]);
        der::sequence(&[&algorithm, &der::bits(self.pair.public_key().as_ref())])
    }

    /// Key identifier: the leftmost 160 bits of SHA-256 of the public key (RFC 7093 section 2, method 1).
    pub(super) fn identifier(&self) -> Vec<u8> {
        digest(&SHA256, self.pair.public_key().as_ref()).as_ref().iter().copied().take(20).collect()
    }

    pub(super) fn sign_certificate(&self, trailer: Trailer, tbs: &Tbs<'_>) -> Result<Vec<u8>, HardwareError> {
        self.envelope(trailer, &tbs.encode(&trailer.algorithm()))
    }

    /// Signs an encoded list whose inner algorithm identifier is [`Trailer::Explicit`].
    pub(super) fn sign_list(&self, tbs: &[u8]) -> Result<Vec<u8>, HardwareError> {
        self.envelope(Trailer::Explicit, tbs)
    }

    /// SEQUENCE of signed part, algorithm and signature, the outer form of certificates and lists alike.
    fn envelope(&self, trailer: Trailer, tbs: &[u8]) -> Result<Vec<u8>, HardwareError> {
        let mut signature = vec![0; self.pair.public_key().modulus_len()];
        self.pair
            .sign(&RSA_PSS_SHA384, &SystemRandom::new(), tbs, &mut signature)
            .map_err(|_| HardwareError::Key("sign with an RSA-4096 key"))?;
        Ok(der::sequence(&[tbs, &trailer.algorithm(), &der::bits(&signature)]))
    }
}

fn start_generation() -> Result<Child, HardwareError> {
    Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096", "-outform", "DER"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| HardwareError::Tool { tool: "openssl", next: "install the openssl program", source })
}

fn finish_generation(child: Child) -> Result<RsaKey, HardwareError> {
    let output = child.wait_with_output().map_err(|source| HardwareError::Tool {
        tool: "openssl",
        next: "run `openssl genpkey -algorithm RSA` by hand",
        source,
    })?;
    if !output.status.success() {
        return Err(HardwareError::Failed {
            tool: "openssl genpkey",
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    RsaKey::from_der(output.stdout)
}
