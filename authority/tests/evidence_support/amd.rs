//! A simulated AMD for tests: ARK, ASK and ASVK with RSA keys made at run time, revocation lists, VEK certificates and
//! reports that are truly signed, whatever they say. Nothing of it is a constant key, and none of it is AMD's.

use std::process::Command;

use inwit_authority::evidence::{Endorsements, Product, SnpRoot};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use x509_parser::pem::Pem;

use super::der::{CRITICAL, bits, extension, int, name, oid, seq, tlv, utc};

pub const DAY: u64 = 86_400;
/// 2026-06-01.
pub const NOW: u64 = 1_780_272_000;
pub const ASK_SERIAL: u8 = 2;
/// TCB_VERSION of a Milan or Genoa: boot loader 4, TEE 0, SNP 24, microcode 219.
pub const TCB: [u8; 8] = [4, 0, 0, 0, 0, 0, 24, 219];
/// The same levels on Turin, with FMC 1.
pub const TURIN_TCB: [u8; 8] = [1, 4, 0, 24, 0, 0, 0, 219];

/// How the PSS trailer field is written in an algorithm identifier.
#[derive(Clone, Copy, Debug)]
pub enum Trailer {
    Explicit,
    Omitted,
}

pub fn pss(trailer: Trailer) -> Vec<u8> {
    let sha384 = seq(&[&oid(&[2, 16, 840, 1, 101, 3, 4, 2, 2]), &[5, 0]]);
    let mgf = seq(&[&oid(&[1, 2, 840, 113_549, 1, 1, 8]), &sha384]);
    let last = match trailer {
        Trailer::Explicit => tlv(0xa3, &int(1)),
        Trailer::Omitted => vec![],
    };
    let parameters = seq(&[&tlv(0xa0, &sha384), &tlv(0xa1, &mgf), &tlv(0xa2, &int(48)), &last]);
    seq(&[&oid(&[1, 2, 840, 113_549, 1, 1, 10]), &parameters])
}

pub struct Rsa(RsaKeyPair);

impl Rsa {
    /// 2,048 bits, where AMD has 4,096: what is tested does not depend on it, and making it takes a tenth of the time.
    pub fn generate() -> Self {
        Self::of_bits(2_048)
    }

    fn of_bits(bits: u32) -> Self {
        // As PEM: for DER, some versions write the older form without the algorithm.
        let output = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")])
            .output()
            .expect("install the openssl program: ring makes no RSA keys");
        let pem = Pem::iter_from_buffer(&output.stdout).next().unwrap().unwrap();
        Self(RsaKeyPair::from_pkcs8(&pem.contents).expect("a PKCS #8 key from openssl"))
    }

    pub fn spki(&self) -> Vec<u8> {
        let algorithm = seq(&[&oid(&[1, 2, 840, 113_549, 1, 1, 1]), &[5, 0]]);
        seq(&[&algorithm, &bits(self.0.public_key().as_ref())])
    }

    fn sign(&self, tbs: &[u8], trailer: Trailer) -> Vec<u8> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0.sign(&RSA_PSS_SHA384, &SystemRandom::new(), tbs, &mut signature).unwrap();
        seq(&[tbs, &pss(trailer), &bits(&signature)])
    }

    /// A revocation list that this key signs in the name of `issuer`.
    pub fn list(&self, issuer: &str, from: u64, until: u64, serials: &[u8]) -> Vec<u8> {
        self.list_with(issuer, (from, until), serials, &extension(&[2, 5, 29, 20], &[], &int(1)))
    }

    /// The same with other extensions, in DER.
    pub fn list_with(&self, issuer: &str, (from, until): (u64, u64), serials: &[u8], extensions: &[u8]) -> Vec<u8> {
        let entries: Vec<u8> = serials.iter().flat_map(|serial| seq(&[&int(*serial), &utc(from)])).collect();
        let revoked = if entries.is_empty() { vec![] } else { seq(&[&entries]) };
        let extensions = tlv(0xa0, &seq(&[extensions]));
        let algorithm = pss(Trailer::Explicit);
        let tbs = seq(&[&int(1), &algorithm, &name(issuer), &utc(from), &utc(until), &revoked, &extensions]);
        self.sign(&tbs, Trailer::Explicit)
    }
}

/// A certificate in parts, each in DER, so that a test can change one of them before it is signed.
#[derive(Clone)]
pub struct Parts {
    pub version: Vec<u8>,
    pub serial: Vec<u8>,
    pub algorithm: Vec<u8>,
    pub issuer: Vec<u8>,
    pub validity: Vec<u8>,
    pub subject: Vec<u8>,
    pub spki: Vec<u8>,
    pub extensions: Vec<Vec<u8>>,
    /// The algorithm beside the signature.
    pub outer: Trailer,
}

impl Parts {
    fn new(serial: u8, names: [&str; 2], window: (u64, u64), spki: Vec<u8>, trailer: Trailer) -> Self {
        let [issuer, subject] = names.map(name);
        Self {
            version: tlv(0xa0, &int(2)),
            serial: int(serial),
            algorithm: pss(trailer),
            issuer,
            validity: seq(&[&utc(window.0), &utc(window.1)]),
            subject,
            spki,
            extensions: vec![],
            outer: trailer,
        }
    }

    pub fn signed(&self, by: &Rsa) -> Vec<u8> {
        let Self { version, serial, algorithm, issuer, validity, subject, spki, .. } = self;
        let extensions = tlv(0xa3, &seq(&[&self.extensions.concat()]));
        let tbs = seq(&[version, serial, algorithm, issuer, validity, subject, spki, &extensions]);
        by.sign(&tbs, self.outer)
    }
}

fn authority_extensions(key_usage: u8) -> Vec<Vec<u8>> {
    let constraints = extension(&[2, 5, 29, 19], CRITICAL, &seq(&[&[1, 1, 0xff]]));
    vec![constraints, extension(&[2, 5, 29, 15], CRITICAL, &tlv(3, &[1, key_usage]))]
}

/// An extension of AMD's, by the arcs after 1.3.6.1.4.1.3704.1.
pub fn amd_extension(tail: &[u32], value: &[u8]) -> Vec<u8> {
    extension(&[&[1, 3, 6, 1, 4, 1, 3704, 1], tail].concat(), &[], value)
}

/// One product's root with what was issued under it.
pub struct Amd {
    pub product: Product,
    pub ark: Rsa,
    pub ask: Rsa,
    pub ark_der: Vec<u8>,
    pub ask_der: Vec<u8>,
    pub asvk_der: Vec<u8>,
    pub ark_parts: Parts,
    pub ask_parts: Parts,
}

/// What a VEK certificate states.
#[derive(Clone, Debug)]
pub struct VekFields {
    pub issuer: String,
    pub subject: &'static str,
    pub version: u8,
    pub product_name: String,
    /// TCB_VERSION in the product's layout.
    pub tcb: [u8; 8],
    /// Value of the hwID extension.
    pub hwid: Option<Vec<u8>>,
    pub provider: Option<&'static str>,
    pub window: (u64, u64),
    pub trailer: Trailer,
}

pub struct Vek {
    pub der: Vec<u8>,
    key: EcdsaKeyPair,
}

impl Amd {
    pub fn new(product: Product) -> Self {
        Self::of_bits(product, 2_048)
    }

    /// For measuring: AMD's own keys have 4,096 bits.
    pub fn of_bits(product: Product, bits: u32) -> Self {
        let (ark, ask) = (Rsa::of_bits(bits), Rsa::of_bits(bits));
        let (root, chip, cloud) = (format!("ARK-{product}"), format!("SEV-{product}"), format!("SEV-VLEK-{product}"));
        // What is under the root is valid for longer than the root, so that a test can be outside of the root's time only.
        let issue = |serial, subject: &str, key: &Rsa, usage| {
            let longer = if serial == 1 { 0 } else { 10 * DAY };
            let window = (NOW - 300 * DAY - longer, NOW + 3_000 * DAY + longer);
            let mut parts = Parts::new(serial, [&root, subject], window, key.spki(), Trailer::Explicit);
            parts.extensions = authority_extensions(usage);
            parts
        };
        let ark_parts = issue(1, &root, &ark, 0x06);
        let ask_parts = issue(ASK_SERIAL, &chip, &ask, 0x04);
        let asvk_der = issue(3, &cloud, &ask, 0x04).signed(&ark);
        let (ark_der, ask_der) = (ark_parts.signed(&ark), ask_parts.signed(&ark));
        Self { product, ark_der, ask_der, asvk_der, ark, ask, ark_parts, ask_parts }
    }

    pub fn list(&self, from: u64, until: u64, serials: &[u8]) -> Vec<u8> {
        self.ark.list(&format!("ARK-{}", self.product), from, until, serials)
    }

    pub fn root(&self, lists: &[Vec<u8>]) -> SnpRoot {
        SnpRoot::new(self.product, &self.ark_der, &[self.ask_der.clone(), self.asvk_der.clone()], lists).unwrap()
    }

    pub fn endorsements(&self, lists: &[Vec<u8>]) -> Endorsements {
        Endorsements { snp: vec![self.root(lists)], ..Endorsements::default() }
    }

    pub fn tcb(&self) -> [u8; 8] {
        if self.product == Product::Turin { TURIN_TCB } else { TCB }
    }

    /// CHIP_ID of the simulated chip.
    pub fn chip(&self) -> [u8; 64] {
        let mut chip = [0; 64];
        chip[..if self.product == Product::Turin { 8 } else { 64 }].fill(0x5c);
        chip
    }

    pub fn vcek_fields(&self) -> VekFields {
        let turin = self.product == Product::Turin;
        VekFields {
            issuer: format!("SEV-{}", self.product),
            subject: "SEV-VCEK",
            version: u8::from(turin),
            product_name: if self.product == Product::Milan { "Milan-B0".into() } else { self.product.to_string() },
            tcb: self.tcb(),
            hwid: Some(self.chip()[..if turin { 8 } else { 64 }].to_vec()),
            provider: None,
            window: (NOW - 30 * DAY, NOW + 2_000 * DAY),
            trailer: Trailer::Omitted,
        }
    }

    pub fn vlek_fields(&self) -> VekFields {
        VekFields {
            issuer: format!("SEV-VLEK-{}", self.product),
            subject: "SEV-VLEK",
            product_name: self.product.to_string(),
            hwid: None,
            provider: Some("CN=cloud.example"),
            ..self.vcek_fields()
        }
    }

    pub fn issue(&self, fields: &VekFields) -> Vek {
        self.issue_changed(fields, |_| {})
    }

    /// Issues a VEK after a change to its certificate's parts.
    pub fn issue_changed(&self, fields: &VekFields, change: impl FnOnce(&mut Parts)) -> Vek {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let curve = seq(&[&oid(&[1, 2, 840, 10_045, 2, 1]), &oid(&[1, 3, 132, 0, 34])]);
        let spki = seq(&[&curve, &bits(key.public_key().as_ref())]);
        let mut parts = Parts::new(0, [&fields.issuer, fields.subject], fields.window, spki, fields.trailer);
        parts.extensions = self.vek_extensions(fields);
        change(&mut parts);
        Vek { der: parts.signed(&self.ask), key }
    }

    fn vek_extensions(&self, fields: &VekFields) -> Vec<Vec<u8>> {
        let amd = amd_extension;
        let mut out = vec![amd(&[1], &int(fields.version)), amd(&[2], &tlv(0x16, fields.product_name.as_bytes()))];
        let [a, b, c, d, .., g, h] = fields.tcb;
        let levels = match self.product {
            Product::Turin => vec![(9, a), (1, b), (2, c), (3, d), (5, 0), (6, 0), (7, 0), (8, h)],
            _ => vec![(1, a), (2, b), (4, 0), (5, 0), (6, 0), (7, 0), (3, g), (8, h)],
        };
        out.extend(levels.iter().map(|(level, value)| amd(&[3, *level], &int(*value))));
        out.extend(fields.hwid.iter().map(|hwid| amd(&[4], hwid)));
        out.extend(fields.provider.iter().map(|provider| amd(&[5], &tlv(0x16, provider.as_bytes()))));
        out
    }

    /// The signed part of a version 3 report that a strict policy accepts, at VMPL 0.
    pub fn body(&self, report_data: &[u8; 64], measurement: &[u8; 48]) -> Vec<u8> {
        let mut body = vec![0; 0x2a0];
        let mut put = |offset: usize, bytes: &[u8]| body[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0x000, &[3]);
        put(0x008, &0x2_0000u64.to_le_bytes());
        put(0x034, &[1]);
        put(0x040, &[0x24]);
        put(0x050, report_data);
        put(0x090, measurement);
        put(0x160, &[0xff; 32]);
        put(
            0x188,
            match self.product {
                Product::Genoa => &[0x19, 0x11, 1],
                Product::Milan => &[0x19, 1, 1],
                Product::Turin => &[0x1a, 2, 1],
            },
        );
        put(0x1a0, &self.chip());
        for tcb in [0x038, 0x180, 0x1e0, 0x1f0] {
            put(tcb, &self.tcb());
        }
        for firmware in [0x1e8, 0x1ec] {
            put(firmware, &[29, 55, 1]);
        }
        body
    }
}

impl Vek {
    /// Signs whatever the body says.
    pub fn report(&self, body: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(&SystemRandom::new(), body).unwrap();
        let mut report = body.to_vec();
        for scalar in signature.as_ref().chunks(48) {
            report.extend(scalar.iter().rev());
            report.extend([0; 24]);
        }
        report.resize(1184, 0);
        report
    }
}
