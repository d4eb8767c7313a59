//! A simulated Intel for tests: root, PCK platform CA, PCK certificate, TCB signer, collateral, and quotes of version 4
//! that are truly signed, whatever they say. Keys are made at run time; nothing of it is Intel's.

use inwit_authority::evidence::{Endorsements, TdxPart, TdxRoot};
use inwit_protocol::primitives::sha256;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair as CertificateKey, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::der::{int, tlv};

/// 2026-06-01, inside of every date here.
pub const NOW: u64 = 1_780_272_000;
pub const FMSPC: [u8; 6] = [0x50, 0x80, 0x6f, 0, 0, 0];
/// SEPT_VE_DISABLE.
pub const ATTRIBUTES: u64 = 1 << 28;
pub const XFAM: u64 = 0x6_1ae7;
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
    /// Whether the PCK certificate is on its CA's revocation list.
    pub revoked: bool,
    /// Last day of the PCK certificate's validity.
    pub pck_until: (i32, u8, u8),
    /// dynamicPlatform, cachedKeys, SMTEnabled.
    pub flags: [bool; 3],
    /// tdxModule attributes that the collateral names; zero in Intel's.
    pub module_attributes: u64,
    /// tcbEvaluationDataNumber of the collateral.
    pub evaluation: u32,
    /// First and last day of the collateral's TCB info.
    pub current: [&'static str; 2],
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            pce_id: [0, 0],
            svn: 5,
            status: "UpToDate",
            advisories: &[],
            revoked: false,
            pck_until: (2035, 1, 1),
            flags: [false; 3],
            module_attributes: 0,
            evaluation: 20,
            current: ["2026-05-20T00:00:00Z", "2026-06-19T00:00:00Z"],
        }
    }
}

/// What a quote says.
#[derive(Clone, Debug)]
pub struct Td {
    pub attributes: u64,
    pub xfam: u64,
    pub seam_attributes: u64,
    pub mrtd: [u8; 48],
    pub rtmrs: [[u8; 48]; 4],
    pub report_data: [u8; 64],
    /// Last byte of the quoting enclave's report data, zero on real ones.
    pub qe_tail: u8,
}

pub struct Intel {
    root: Vec<u8>,
    chain: String,
    collateral: Vec<u8>,
    pck: EcdsaKeyPair,
    signer: EcdsaKeyPair,
}

impl Intel {
    pub fn new(platform: &Platform) -> Self {
        let root_key = CertificateKey::generate().unwrap();
        let root_params = authority("Simulated SGX Root CA");
        let root_certificate = root_params.self_signed(&root_key).unwrap();
        let root = Issuer::new(root_params, root_key);
        let ca_key = CertificateKey::generate().unwrap();
        let ca_params = authority("Simulated SGX PCK Platform CA");
        let ca_certificate = ca_params.signed_by(&ca_key, &root).unwrap();
        let ca = Issuer::new(ca_params, ca_key);
        let pck_key = CertificateKey::generate().unwrap();
        let mut pck = params("Simulated SGX PCK Certificate", platform.pck_until);
        pck.serial_number = Some(SerialNumber::from(77));
        pck.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], sgx(platform))];
        let pck_certificate = pck.signed_by(&pck_key, &ca).unwrap();
        let signer_key = CertificateKey::generate().unwrap();
        let signer = params("Simulated SGX TCB Signing", (2035, 1, 1)).signed_by(&signer_key, &root).unwrap();

        let pem = root_certificate.pem();
        let revoked: &[u64] = if platform.revoked { &[77] } else { &[] };
        let collateral = json!({
            "pck_crl_issuer_chain": ca_certificate.pem() + &pem,
            "root_ca_crl": hex(&list(&root, &[])),
            "pck_crl": hex(&list(&ca, revoked)),
            "tcb_info_issuer_chain": signer.pem() + &pem,
            "qe_identity_issuer_chain": signer.pem() + &pem,
        });
        let mut intel = Self {
            root: root_certificate.der().to_vec(),
            chain: pck_certificate.pem() + &ca_certificate.pem() + &pem,
            collateral: collateral.to_string().into_bytes(),
            pck: signing_key(&pck_key),
            signer: signing_key(&signer_key),
        };
        intel.collateral = intel.collateral(platform);
        intel
    }

    /// Collateral for the same platforms that says something else.
    pub fn collateral(&self, platform: &Platform) -> Vec<u8> {
        let mut json: serde_json::Value = serde_json::from_slice(&self.collateral).unwrap();
        for (name, text) in [("tcb_info", tcb_info(platform)), ("qe_identity", qe_identity())] {
            json[format!("{name}_signature")] = hex(&sign(&self.signer, text.as_bytes())).into();
            json[name] = text.into();
        }
        json.to_string().into_bytes()
    }

    /// The root with these collateral documents and no others.
    pub fn with(&self, documents: &[&[u8]]) -> Endorsements {
        let parts: Vec<TdxPart<'_>> = documents.iter().map(|document| TdxPart::Collateral(document)).collect();
        Endorsements { tdx: vec![TdxRoot::new(&self.root, &parts).unwrap()], ..Endorsements::default() }
    }

    pub fn endorsements(&self) -> Endorsements {
        self.with(&[&self.collateral])
    }

    pub fn quote(&self, td: &Td) -> Vec<u8> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let signed = [header(), body(td)].concat();
        let attestation_key = &key.public_key().as_ref()[1..];
        let data = [0x42; 32];
        let mut enclave = vec![0; 384];
        enclave[128..160].fill(0xaa);
        enclave[256..260].copy_from_slice(&[2, 0, 4, 0]);
        enclave[320..352].copy_from_slice(&sha256(&[attestation_key, &data[..]].concat()));
        enclave[383] = td.qe_tail;
        let chain = self.chain.as_bytes();
        let inner =
            [&enclave, &sign(&self.pck, &enclave)[..], &[32, 0], &data, &[5, 0], &length(chain), chain].concat();
        let signature = sign(&key, &signed);
        let data = [&signature[..], attestation_key, &[6, 0], &length(&inner), &inner].concat();
        [&signed[..], &length(&data), &data].concat()
    }
}

fn header() -> Vec<u8> {
    let vendor = [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
    [&[4, 0, 2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0][..], &vendor, &[0; 20]].concat()
}

/// TD report body 1.0, 584 bytes.
fn body(td: &Td) -> Vec<u8> {
    [
        &[0; 16 + 48 + 48][..],
        &td.seam_attributes.to_le_bytes(),
        &td.attributes.to_le_bytes(),
        &td.xfam.to_le_bytes(),
        &td.mrtd,
        &[0; 3 * 48],
        td.rtmrs.as_flattened(),
        &td.report_data,
    ]
    .concat()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_le_bytes()
}

fn params(name: &str, until: (i32, u8, u8)) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(until.0, until.1, until.2);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name, (2036, 1, 1));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn list(issuer: &Issuer<'_, CertificateKey>, serials: &[u64]) -> Vec<u8> {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 2, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2035, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().der().to_vec()
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

fn tcb_info(platform: &Platform) -> String {
    let components = |svn: u8| vec![json!({ "svn": svn }); 16];
    json!({
        "id": "TDX", "version": 3, "issueDate": platform.current[0], "nextUpdate": platform.current[1],
        "fmspc": hex(&FMSPC), "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": platform.evaluation,
        "tdxModule": {
            "mrsigner": hex(&[0; 48]),
            "attributes": hex(&platform.module_attributes.to_le_bytes()),
            "attributesMask": hex(&[0xff; 8]),
        },
        "tdxModuleIdentities": [],
        "tcbLevels": [{
            "tcb": { "sgxtcbcomponents": components(5), "pcesvn": 11, "tdxtcbcomponents": components(0) },
            "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": platform.status, "advisoryIDs": platform.advisories,
        }],
    })
    .to_string()
}

fn qe_identity() -> String {
    json!({
        "id": "TD_QE", "version": 2, "issueDate": "2026-05-20T00:00:00Z", "nextUpdate": "2026-06-19T00:00:00Z",
        "tcbEvaluationDataNumber": 20, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": hex(&[0; 16]), "attributesMask": hex(&[0xff; 16]), "mrsigner": hex(&[0xaa; 32]), "isvprodid": 2,
        "tcbLevels": [{ "tcb": { "isvsvn": 4 }, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate" }],
    })
    .to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn signing_key(key: &CertificateKey) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random).unwrap()
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}
