//! A TPM that exists only in tests: it writes TPMS_ATTEST, TPMT_PUBLIC, TPMT_SIGNATURE and a boot log as a real one
//! would, or as a test wants them spoilt. Its key is made anew for each test.

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use inwit_protocol::binding::{Agent, EncodedBinding, qualifying_data};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform, TpmQuote};
use inwit_protocol::primitives::{PublicKey, sha256};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
pub const AK_ATTRIBUTES: u32 = 0x0005_0072;
pub const EVENT_TAG: u32 = 6;
pub const SEPARATOR: u32 = 4;

/// TPM_ALG_RSASSA and TPM_ALG_RSAPSS.
pub const RSASSA: u16 = 0x0014;
pub const RSAPSS: u16 = 0x0016;

enum Key {
    P256(Box<EcdsaKeyPair>),
    Rsa(RsaKeyPair, u16),
}

pub struct Tpm {
    key: Key,
    pub attributes: u32,
    pub pcrs: [[u8; 32]; 24],
    /// Selection as TPML_PCR_SELECTION.
    pub selection: Vec<u8>,
    /// How often it was reset.
    pub reset_count: u32,
    log: Vec<u8>,
}

impl Tpm {
    /// A TPM after a boot: firmware, kernel, Secure Boot state and initramfs measured, and the agent in PCR 15.
    pub fn booted(agent: &Agent) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self::with(Key::P256(Box::new(key)), agent)
    }

    /// The same with an RSA key of 2,048 bits that signs by `scheme`.
    pub fn booted_with_rsa(agent: &Agent, scheme: u16) -> Self {
        Self::with(Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), scheme), agent)
    }

    fn with(key: Key, agent: &Agent) -> Self {
        let mut pcrs = [[0; 32]; 24];
        pcrs[17..23].fill([0xff; 32]);
        let selection = vec![0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff];
        let mut tpm = Self { key, attributes: AK_ATTRIBUTES, pcrs, selection, reset_count: 3, log: log_header() };
        for (pcr, what) in [(0, "firmware"), (7, "secure boot"), (4, "kernel"), (9, "initramfs")] {
            tpm.measure(pcr, EVENT_TAG, what.as_bytes());
        }
        for pcr in 0..8 {
            tpm.measure(pcr, SEPARATOR, &[0; 4]);
        }
        tpm.extend(15, &agent.event());
        tpm
    }

    /// Extends a PCR with the digest of `event`, leaving no trace in the boot log.
    pub fn extend(&mut self, pcr: usize, event: &[u8]) {
        self.pcrs[pcr] = sha256(&[self.pcrs[pcr], sha256(event)].concat());
    }

    /// Extends a PCR as firmware does: with a record in the boot log.
    pub fn measure(&mut self, pcr: usize, kind: u32, data: &[u8]) {
        self.extend(pcr, data);
        self.log.extend(u32::try_from(pcr).unwrap().to_le_bytes());
        self.log.extend(kind.to_le_bytes());
        self.log.extend([1, 0, 0, 0, 0x0b, 0]);
        self.log.extend(sha256(data));
        self.log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.log.extend(data);
    }

    pub fn log(&self) -> Vec<u8> {
        self.log.clone()
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo: one form in which it is configured as trusted.
    pub fn pin(&self) -> [u8; 32] {
        match &self.key {
            Key::P256(key) => PublicKey::from_point(key.public_key().as_ref()).unwrap().pin(),
            Key::Rsa(key, _) => sha256(&public_key(&modulus(key))),
        }
    }

    /// The digest in the key's TPM Name: the other form.
    pub fn name(&self) -> [u8; 32] {
        sha256(&self.public())
    }

    fn public(&self) -> Vec<u8> {
        let attributes = self.attributes.to_be_bytes();
        match &self.key {
            Key::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                let parameters = [0x0010u16, 0x0018, 0x000b, 0x0003, 0x0010].map(u16::to_be_bytes).concat();
                [&[0, 0x23, 0, 0x0b], &attributes[..], &[0, 0], &parameters, &[0, 32], x, &[0, 32], y].concat()
            }
            Key::Rsa(key, scheme) => rsa_public(*scheme, self.attributes, &modulus(key)),
        }
    }

    /// TPMS_ATTEST over bytes of the test's choice.
    pub fn attest(&self, extra: &[u8]) -> Vec<u8> {
        let name = [&[0, 34, 0, 0x0b][..], &[7; 32]].concat();
        let extra_length = u16::try_from(extra.len()).unwrap().to_be_bytes();
        let clock = [&1_000u64.to_be_bytes()[..], &self.reset_count.to_be_bytes(), &1u32.to_be_bytes(), &[1]].concat();
        let digest = sha256(self.pcrs.as_flattened());
        [
            &[0xff, 0x54, 0x43, 0x47, 0x80, 0x18][..],
            &name,
            &extra_length,
            extra,
            &clock,
            &[0x20; 8],
            &self.selection,
            &[0, 32],
            &digest,
        ]
        .concat()
    }

    /// A quote over bytes of the test's choice.
    pub fn quote_over(&self, extra: &[u8]) -> TpmQuote {
        let attest = self.attest(extra);
        let signature = self.sign(&attest);
        TpmQuote { attest, signature, attestation_key: self.public(), pcrs: self.pcrs }
    }

    /// TPMT_SIGNATURE with SHA-256.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Key::P256(key) => {
                let signature = key.sign(&SystemRandom::new(), message).unwrap();
                let (r, s) = signature.as_ref().split_at(32);
                [&[0, 0x18, 0, 0x0b, 0, 32][..], r, &[0, 32], s].concat()
            }
            Key::Rsa(key, scheme) => {
                let encoding: &'static dyn RsaEncoding =
                    if *scheme == RSASSA { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
                let mut signature = vec![0; 256];
                key.sign(encoding, &aws_lc_rs::rand::SystemRandom::new(), message, &mut signature).unwrap();
                [&scheme.to_be_bytes()[..], &[0, 0x0b, 1, 0], &signature].concat()
            }
        }
    }

    /// Evidence for a binding, as the guest sends it.
    pub fn evidence(&self, binding: &EncodedBinding) -> Evidence {
        evidence_of(&self.quote_over(&qualifying_data(binding)), self.log())
    }
}

pub fn evidence_of(quote: &TpmQuote, event_log: Vec<u8>) -> Evidence {
    Evidence {
        platform: Platform::Vtpm,
        quote: quote.encode(),
        endorsements: vec![],
        event_log,
        agent_register: AgentRegister::Pcr(15),
    }
}

/// First record of a log with one SHA-256 bank.
pub fn log_header() -> Vec<u8> {
    let spec = [&b"Spec ID Event03\0"[..], &[0; 4], &[0, 2, 0, 2], &[1, 0, 0, 0, 0x0b, 0, 32, 0], &[0]].concat();
    let length = u32::try_from(spec.len()).unwrap();
    [&0u32.to_le_bytes()[..], &3u32.to_le_bytes(), &[0; 20], &length.to_le_bytes(), &spec].concat()
}

/// The modulus: what RSAPublicKey holds between two headers with a zero, and the exponent.
fn modulus(key: &RsaKeyPair) -> Vec<u8> {
    let der = aws_lc_rs::signature::KeyPair::public_key(key).as_ref();
    der[9..der.len() - 5].to_vec()
}

/// TPMT_PUBLIC of an RSA key of 2,048 bits with the default exponent.
pub fn rsa_public(scheme: u16, attributes: u32, modulus: &[u8]) -> Vec<u8> {
    let parameters = [0x0010, scheme, 0x000b, 2_048].map(u16::to_be_bytes).concat();
    [&[0, 1, 0, 0x0b], &attributes.to_be_bytes()[..], &[0, 0], &parameters, &[0; 4], &[1, 0], modulus].concat()
}

/// SubjectPublicKeyInfo in DER of an RSA key of 2,048 bits with exponent 65,537.
pub fn public_key(modulus: &[u8]) -> Vec<u8> {
    // SEQUENCE of rsaEncryption and a BIT STRING around SEQUENCE of modulus, with a zero before it, and exponent.
    let head = [
        &[0x30, 0x82, 1, 0x22, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0][..],
        &[3, 0x82, 1, 0x0f, 0, 0x30, 0x82, 1, 0x0a, 2, 0x82, 1, 1, 0],
    ];
    [&head.concat(), modulus, &[2, 3, 1, 0, 1]].concat()
}
