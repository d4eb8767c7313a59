//! A simulated Intel for tests: root, PCK platform CA, PCK certificate, TCB signer, collateral, and quotes of version 4 and
//! 5 that are truly signed, whatever they say. Keys are made at run time; nothing of it is Intel's.

mod documents;
mod quote;

#[allow(unused_imports)] // each test binary uses its own part
pub use quote::{Enclave, Td};

use inwit_authority::evidence::{Endorsements, TdxPart, TdxRoot};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair as CertificateKey, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;

use super::der::{int, tlv};

/// 2026-06-01, inside of every date here.
pub const NOW: u64 = 1_780_272_000;
pub const FMSPC: [u8; 6] = [0x50, 0x80, 0x6f, 0, 0, 0];
/// SEPT_VE_DISABLE.
pub const ATTRIBUTES: u64 = 1 << 28;
pub const XFAM: u64 = 0x6_1ae7;
/// When Intel's documents are current.
pub const CURRENT: [&str; 2] = ["2026-05-20T00:00:00Z", "2026-06-19T00:00:00Z"];
/// Serial numbers: root, PCK CA, PCK, signer.
const SERIALS: [u64; 4] = [74, 75, 77, 78];
/// DER content of 1.2.840.113741.1.13.1, Intel's SGX extension.
const SGX: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 13, 1];

/// What is to be different from a platform that a strict policy accepts.
#[derive(Clone, Debug)]
pub struct Platform {
    pub pce_id: [u8; 2],
    /// Security version of the platform's components; the collateral's best level demands 5.
    pub svn: u8,
    /// Status and advisories of the level that the platform matches.
    pub status: &'static str,
    pub advisories: &'static [&'static str],
    /// Whose certificate is on its issuer's revocation list.
    pub revoked: Revoked,
    /// Last day of each certificate's validity.
    pub root_until: Day,
    pub ca_until: Day,
    pub pck_until: Day,
    pub signer_until: Day,
    /// When the next list of the root and of the PCK CA is due.
    pub lists_until: [Day; 2],
    /// dynamicPlatform, cachedKeys, SMTEnabled.
    pub flags: [bool; 3],
    /// tdxModule attributes that the collateral names; zero in Intel's.
    pub module_attributes: u64,
    /// tcbEvaluationDataNumber of the collateral.
    pub evaluation: u32,
    /// First and last day of the collateral's TCB info.
    pub current: [&'static str; 2],
    /// The same of its QE identity.
    pub qe_current: [&'static str; 2],
    /// Levels as SGX component, PCESVN, TDX components, status; where there are none, one that demands 5, 11, zeros.
    pub levels: Vec<(u8, u16, [u8; 16], &'static str)>,
    /// TDX module identities as version and levels of ISVSVN and status.
    pub modules: Vec<(u8, Vec<(u8, &'static str)>)>,
    /// Status of the quoting enclave's level, which demands ISVSVN 4.
    pub qe_status: &'static str,
    /// First byte of the QE identity's attributesMask.
    pub qe_mask: u8,
}

/// A date.
pub type Day = (i32, u8, u8);

/// Whose certificate is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Nobody,
    Pck,
    Ca,
    Signer,
    Root,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            pce_id: [0, 0],
            svn: 5,
            status: "UpToDate",
            advisories: &[],
            revoked: Revoked::Nobody,
            root_until: (2036, 1, 1),
            ca_until: (2036, 1, 1),
            pck_until: (2035, 1, 1),
            signer_until: (2035, 1, 1),
            lists_until: [(2035, 1, 1); 2],
            flags: [false; 3],
            module_attributes: 0,
            evaluation: 20,
            current: CURRENT,
            qe_current: CURRENT,
            levels: vec![],
            modules: vec![],
            qe_status: "UpToDate",
            qe_mask: 0xff,
        }
    }
}

pub struct Intel {
    pub root: Vec<u8>,
    /// PEM of PCK certificate, CA and root.
    pub chain: String,
    /// QuoteCollateralV3.
    pub collateral: Vec<u8>,
    pck: EcdsaKeyPair,
    signer: EcdsaKeyPair,
    ca: Issuer<'static, CertificateKey>,
}

impl Intel {
    pub fn new(platform: &Platform) -> Self {
        let [root_serial, ca_serial, pck_serial, signer_serial] = SERIALS;
        let root_key = CertificateKey::generate().unwrap();
        let root_params = authority("Simulated SGX Root CA", platform.root_until, root_serial);
        let root_certificate = root_params.self_signed(&root_key).unwrap();
        let root = Issuer::new(root_params, root_key);
        let ca_key = CertificateKey::generate().unwrap();
        let ca_params = authority("Simulated SGX PCK Platform CA", platform.ca_until, ca_serial);
        let ca_certificate = ca_params.signed_by(&ca_key, &root).unwrap();
        let ca = Issuer::new(ca_params, ca_key);
        let pck_key = CertificateKey::generate().unwrap();
        let mut pck = params("Simulated SGX PCK Certificate", platform.pck_until, pck_serial);
        pck.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], sgx(platform))];
        let pck_certificate = pck.signed_by(&pck_key, &ca).unwrap();
        let signer_key = CertificateKey::generate().unwrap();
        let signer = params("Simulated SGX TCB Signing", platform.signer_until, signer_serial);
        let signer = signer.signed_by(&signer_key, &root).unwrap();

        let pem = root_certificate.pem();
        let (by_root, by_ca): (&[u64], &[u64]) = match platform.revoked {
            Revoked::Nobody => (&[], &[]),
            Revoked::Pck => (&[], &[pck_serial]),
            Revoked::Ca => (&[ca_serial], &[]),
            Revoked::Signer => (&[signer_serial], &[]),
            Revoked::Root => (&[root_serial], &[]),
        };
        let [root_due, ca_due] = platform.lists_until;
        let collateral = json!({
            "pck_crl_issuer_chain": ca_certificate.pem() + &pem,
            "root_ca_crl": lower(&list(&root, root_due, by_root)),
            "pck_crl": lower(&list(&ca, ca_due, by_ca)),
            "tcb_info_issuer_chain": signer.pem() + &pem,
            "qe_identity_issuer_chain": signer.pem() + &pem,
        });
        let mut intel = Self {
            root: root_certificate.der().to_vec(),
            chain: pck_certificate.pem() + &ca_certificate.pem() + &pem,
            collateral: collateral.to_string().into_bytes(),
            pck: signing_key(&pck_key),
            signer: signing_key(&signer_key),
            ca,
        };
        intel.collateral = intel.collateral(platform);
        intel
    }

    /// Collateral for the same platforms that says something else.
    pub fn collateral(&self, platform: &Platform) -> Vec<u8> {
        let mut json: serde_json::Value = serde_json::from_slice(&self.collateral).unwrap();
        for (name, text) in
            [("tcb_info", documents::tcb_info(platform)), ("qe_identity", documents::qe_identity(platform))]
        {
            json[format!("{name}_signature")] = lower(&sign(&self.signer, text.as_bytes())).into();
            json[name] = text.into();
        }
        json.to_string().into_bytes()
    }

    /// Another list of the PCK CA's, on which the chip is.
    #[allow(dead_code)] // each test binary uses its own part
    pub fn list_with_the_chip(&self) -> Vec<u8> {
        let [_, _, pck_serial, _] = SERIALS;
        list(&self.ca, (2035, 1, 1), &[pck_serial])
    }

    /// The root with these collateral documents and no others.
    pub fn with(&self, documents: &[&[u8]]) -> Endorsements {
        let parts: Vec<TdxPart<'_>> = documents.iter().map(|document| TdxPart::Collateral(document)).collect();
        Endorsements { tdx: vec![TdxRoot::new(&self.root, &parts).unwrap()], ..Endorsements::default() }
    }

    pub fn endorsements(&self) -> Endorsements {
        self.with(&[&self.collateral])
    }
}

fn params(name: &str, until: Day, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(until.0, until.1, until.2);
    params
}

fn authority(name: &str, until: Day, serial: u64) -> CertificateParams {
    let mut params = params(name, until, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn list(issuer: &Issuer<'_, CertificateKey>, due: Day, serials: &[u64]) -> Vec<u8> {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 2, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(due.0, due.1, due.2),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().der().to_vec()
}

/// A list of nobody that somebody signed under the name of an authority, as of 2040.
#[allow(dead_code)] // each test binary uses its own part
pub fn planted_list(name: &str, organization: Option<&str>) -> Vec<u8> {
    let mut impostor = authority(name, (2045, 1, 1), 1);
    if let Some(organization) = organization {
        impostor.distinguished_name.push(DnType::OrganizationName, organization);
    }
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2040, 1, 1),
        next_update: date_time_ymd(2041, 1, 1),
        crl_number: SerialNumber::from(99),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let impostor = Issuer::new(impostor, CertificateKey::generate().unwrap());
    params.signed_by(&impostor).unwrap().der().to_vec()
}

/// Intel's SGX extension of a PCK certificate.
fn sgx(platform: &Platform) -> Vec<u8> {
    let oid = |tail: &[u8]| tlv(6, &[&SGX, tail].concat());
    let pair = |tail: &[u8], value: Vec<u8>| tlv(0x30, &[oid(tail), value].concat());
    let mut tcb: Vec<u8> = (1..=16).flat_map(|component| pair(&[2, component], int(platform.svn))).collect();
    tcb.extend(pair(&[2, 17], int(11)));
    tcb.extend(pair(&[2, 18], tlv(4, &[platform.svn; 16])));
    let flags = (1u8..).zip(platform.flags);
    let flags: Vec<u8> = flags.flat_map(|(flag, on)| pair(&[7, flag], tlv(1, &[if on { 0xff } else { 0 }]))).collect();
    let parts = [
        pair(&[1], tlv(4, &[7; 16])),
        pair(&[2], tlv(0x30, &tcb)),
        pair(&[3], tlv(4, &platform.pce_id)),
        pair(&[4], tlv(4, &FMSPC)),
        pair(&[5], tlv(10, &[1])),
        pair(&[6], tlv(4, &[8; 16])),
        pair(&[7], tlv(0x30, &flags)),
    ];
    tlv(0x30, &parts.concat())
}

/// As Intel's service writes what nobody signs.
fn lower(bytes: &[u8]) -> String {
    hex(bytes).to_lowercase()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn signing_key(key: &CertificateKey) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random).unwrap()
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}
