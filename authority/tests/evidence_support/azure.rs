//! Real Evidence of Azure VMs, from the JSON forms of Confidential Containers' attesters and from raw files; and a
//! simulated Azure: a paravisor's report with an RSA key made at run time, over simulated AMD and Intel roots.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use inwit_authority::evidence::Endorsements;
use inwit_protocol::azure::{AzureQuote, TpmAttestation};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::primitives::sha256;
use serde_json::{Value, json};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::snp::{GUID_VCEK, table};
use super::{read, tdx};

const DAY: u64 = 86_400;
/// The folders of real Evidence.
pub const SNP: &str = "confidential-containers+trustee/az-snp-vtpm";
pub const TDX: &str = "confidential-containers+trustee/az-tdx-vtpm";
pub const KINVOLK: &str = "kinvolk+azure-cvm-tooling";
/// The quote of `TDX` with Intel's collateral of its time.
pub const TDX_QUOTE: &str = "a187b0da057d";

/// Bytes as a JSON attester writes them: a list of numbers, hexadecimal, or base64 of either alphabet.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Array(numbers) => numbers.iter().map(|n| u8::try_from(n.as_u64().unwrap()).unwrap()).collect(),
        Value::String(text) => base64(text),
        other => panic!("{other}"),
    }
}

fn hex_or_numbers(value: &Value) -> Vec<u8> {
    match value.as_str() {
        Some(hex) => (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect(),
        None => bytes(value),
    }
}

pub fn base64(text: &str) -> Vec<u8> {
    let standard: String = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    let padding = "=".repeat((4 - standard.len() % 4) % 4);
    let pem = format!("-----BEGIN BYTES-----\n{standard}{padding}\n-----END BYTES-----\n");
    Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap().contents
}

/// One attester's JSON.
pub struct Collected {
    pub quote: AzureQuote,
    pub vcek: Option<Vec<u8>>,
}

/// Reads `evidence-*.json`, of whatever version.
pub fn collected(path: &Path) -> Collected {
    let json: Value = serde_json::from_slice(&read(path)).unwrap();
    let either = |first: &str, second: &str| json.get(first).or_else(|| json.get(second)).cloned().unwrap();
    let vcek = json.get("vcek").map(|vcek| {
        let text = vcek.as_str().unwrap();
        if text.starts_with("-----") { certificate(text.as_bytes()) } else { base64(text) }
    });
    let quote = AzureQuote {
        hcl_report: bytes(&either("hcl_report", "report")),
        tpm: Some(attestation(&either("tpm_quote", "quote"))),
        td_quote: json.get("td_quote").map(bytes),
    };
    Collected { quote, vcek }
}

/// Reads the JSON form of a TPM quote.
pub fn attestation(quote: &Value) -> TpmAttestation {
    let pcrs: Vec<[u8; 32]> =
        quote["pcrs"].as_array().unwrap().iter().map(|pcr| hex_or_numbers(pcr).try_into().unwrap()).collect();
    TpmAttestation {
        attest: hex_or_numbers(&quote["message"]),
        signature: hex_or_numbers(&quote["signature"]),
        pcrs: pcrs.try_into().unwrap(),
    }
}

/// Reads `quote.bin`: signature, message, then a count of PCRs, each with its length before it (u64, little-endian).
pub fn stored_quote(path: &Path) -> TpmAttestation {
    let stored = read(path);
    let mut rest = stored.as_slice();
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk::<8>().unwrap();
        *rest = tail;
        usize::try_from(u64::from_le_bytes(*head)).unwrap()
    };
    let sized = |rest: &mut &[u8]| {
        let length = number(rest);
        let (head, tail) = rest.split_at(length);
        *rest = tail;
        head.to_vec()
    };
    let (signature, attest) = (sized(&mut rest), sized(&mut rest));
    let pcrs = rest[8..].as_chunks::<32>().0.to_vec();
    TpmAttestation { attest, signature, pcrs: pcrs.try_into().unwrap() }
}

/// The first certificate of a PEM file.
pub fn certificate(pem: &[u8]) -> Vec<u8> {
    Pem::iter_from_buffer(pem).next().unwrap().unwrap().contents
}

/// Thirty days after a certificate began to be valid.
pub fn time_of(der: &[u8]) -> u64 {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    u64::try_from(certificate.validity().not_before.timestamp()).unwrap() + 30 * DAY
}

pub fn snp(quote: &AzureQuote, vcek: &[u8]) -> Evidence {
    evidence(Platform::AzureSnp, quote, table(&[(GUID_VCEK, vcek)]), vec![])
}

pub fn tdx(quote: &AzureQuote) -> Evidence {
    evidence(Platform::AzureTdx, quote, vec![], vec![])
}

pub fn evidence(platform: Platform, quote: &AzureQuote, endorsements: Vec<u8>, event_log: Vec<u8>) -> Evidence {
    Evidence { platform, quote: quote.encode(), endorsements, event_log, agent_register: AgentRegister::Pcr(15) }
}

/// Intel's root with the collateral of the real TDX VM, and its time.
pub fn intel(vectors: &Path) -> (Endorsements, u64) {
    let vector = tdx::named(vectors, TDX_QUOTE);
    (vector.endorsements(), vector.at)
}

/// A simulated paravisor: the attestation key that it made, and what it says of the VM.
pub struct Paravisor {
    key: Arc<RsaKeyPair>,
    pub configuration: Value,
    /// Hash type of the request data: 1 to 3.
    pub hash: u32,
}

impl Paravisor {
    /// Of a VM that a strict policy accepts. All have one key, because it takes long to make.
    pub fn new() -> Self {
        static KEY: LazyLock<Arc<RsaKeyPair>> =
            LazyLock::new(|| Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
        Self::with(Arc::clone(&KEY))
    }

    /// One with a key of its own.
    pub fn another() -> Self {
        Self::with(Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    fn with(key: Arc<RsaKeyPair>) -> Self {
        let configuration = json!({
            "console-enabled": false, "secure-boot": true, "tpm-enabled": true, "tpm-persisted": true,
            "vmUniqueId": "00000000-0000-0000-0000-000000000001",
        });
        Self { key, configuration, hash: 1 }
    }

    /// The modulus, big-endian: what RSAPublicKey holds between two headers with a zero, and the exponent.
    pub fn modulus(&self) -> Vec<u8> {
        let der = self.key.public_key().as_ref();
        der[9..der.len() - 5].to_vec()
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; 256];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    /// Runtime claims.
    pub fn claims(&self) -> Vec<u8> {
        let key = json!({ "kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": base64url(&self.modulus()) });
        json!({ "keys": [key], "vm-configuration": self.configuration, "user-data": "00".repeat(64) })
            .to_string()
            .into_bytes()
    }

    /// REPORT_DATA for some runtime claims, by the hash type.
    pub fn report_data(&self, claims: &[u8]) -> [u8; 64] {
        use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
        let hash = digest([&SHA256, &SHA384, &SHA512][usize::try_from(self.hash).unwrap() - 1], claims);
        let mut data = [0; 64];
        data[..hash.as_ref().len()].copy_from_slice(hash.as_ref());
        data
    }

    /// The NV index around a hardware report: SNP where it has 1,184 bytes, else TDREPORT.
    pub fn index(&self, hardware: &[u8], claims: &[u8]) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let length = u32::try_from(claims.len()).unwrap();
        let kind = if hardware.len() == 1_184 { 2 } else { 4 };
        let mut index = [&b"HCLA"[..], &words(&[2, 1_236 + length, 2, 0, 0, 0, 0]), hardware].concat();
        index.resize(1_216, 0);
        index.extend(words(&[20 + length, 1, kind, self.hash, length]));
        index.extend(claims);
        index.resize(2_600, 0);
        index
    }

    /// A TPM quote over bytes of the test's choice.
    pub fn quote(&self, tpm: &super::tpm::Tpm, extra: &[u8]) -> TpmAttestation {
        let attest = tpm.attest(extra);
        TpmAttestation { signature: self.sign(&attest), attest, pcrs: tpm.pcrs }
    }
}

pub fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().chain(&[0, 0]).take(3).fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        (0..=three.len()).for_each(|digit| text.push(DIGITS[word >> (18 - 6 * digit) & 63].into()));
    }
    text
}

/// SHA-256 of a SubjectPublicKeyInfo in PEM.
pub fn key_digest(pem: &[u8]) -> [u8; 32] {
    sha256(&certificate(pem))
}

/// A TDREPORT that says what a quote of `td` says, with a MAC that nobody can check.
pub fn td_report(td: &super::intel::Td) -> Vec<u8> {
    let tcb = [&[0xff, 1, 3, 0, 0, 0, 0, 0][..], &[0; 231]].concat();
    let info = [
        &td.attributes.to_le_bytes()[..],
        &td.xfam.to_le_bytes(),
        &td.mrtd,
        &[0; 3 * 48],
        td.rtmrs.as_flattened(),
        &[0; 112],
    ]
    .concat();
    let mut report = [&[0x81][..], &[0; 15], &[6; 16], &[0; 96], &td.report_data, &[0; 32], &[0xac; 32]].concat();
    report.extend([tcb, vec![0; 17], info].concat());
    seal(&mut report);
    report
}

/// Puts the hashes inside of a TDREPORT right.
pub fn seal(report: &mut [u8]) {
    use aws_lc_rs::digest::{SHA384, digest};
    let (tcb, info) = (digest(&SHA384, &report[256..495]), digest(&SHA384, &report[512..]));
    report[32..80].copy_from_slice(tcb.as_ref());
    report[80..128].copy_from_slice(info.as_ref());
}
