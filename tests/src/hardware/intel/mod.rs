//! A simulated Intel: root, platform CA and TCB signer, made at run time; platforms (PCK) are issued under them.
//!
//! The certificates have the shapes of Intel's "SGX PCK Certificate and CRL Profile", P-256 throughout. The names say
//! "Simulated". It trusts its caller for the clock, keeps no key in the source, and is never part of a product binary.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, CustomExtension,
    DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::{HardwareError, der, random};
pub use collateral::Endorsements;
pub use pck::{Pck, PckFields};
pub use quote::{QuoteVersion, TdxMachine};

mod collateral;
mod pck;
mod quote;

const DAY: u64 = 24 * 60 * 60;
const YEAR: u64 = 365 * DAY;

/// The root of trust of a simulated Intel.
#[derive(Debug)]
pub struct IntelTestRoot {
    created_at: u64,
    root: Issuer<'static, KeyPair>,
    root_der: Vec<u8>,
    root_pem: String,
    platform: Issuer<'static, KeyPair>,
    platform_pem: String,
    signer: EcdsaKeyPair,
    signer_pem: String,
}

/// Which certificates a revocation list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revoked {
    /// None.
    #[default]
    Nothing,
    /// The machine's PCK certificate, on the platform CA's list.
    Pck,
    /// The platform CA, on the root's list.
    PlatformCa,
}

const PLATFORM_CA_SERIAL: u64 = 0x51a7;

impl IntelTestRoot {
    /// Fresh keys and certificates, valid from one day before `at` (unix seconds) for twenty years. Milliseconds.
    pub fn generate(at: u64) -> Result<Self, HardwareError> {
        let (root_key, platform_key, signer_key) = (new_key()?, new_key()?, new_key()?);
        let root_params = params("Simulated SGX Root CA", Role::Root, at, 20 * YEAR)?;
        let root_certificate = root_params.self_signed(&root_key).map_err(|_| HardwareError::Key("sign a root CA"))?;
        let root = Issuer::new(root_params, root_key);

        let mut platform_params = params("Simulated SGX PCK Platform CA", Role::Intermediate, at, 15 * YEAR)?;
        platform_params.serial_number = Some(SerialNumber::from(PLATFORM_CA_SERIAL));
        let platform_certificate =
            platform_params.signed_by(&platform_key, &root).map_err(|_| HardwareError::Key("sign a platform CA"))?;

        let signer_certificate = params("Simulated SGX TCB Signing", Role::Leaf, at, 7 * YEAR)?
            .signed_by(&signer_key, &root)
            .map_err(|_| HardwareError::Key("certify a TCB signer"))?;
        Ok(Self {
            created_at: at,
            root,
            root_der: root_certificate.der().to_vec(),
            root_pem: root_certificate.pem(),
            platform: Issuer::new(platform_params, platform_key),
            platform_pem: platform_certificate.pem(),
            signer: raw_signer(&signer_key)?,
            signer_pem: signer_certificate.pem(),
        })
    }

    /// Self-signed root certificate, DER. A verifier under test pins this one.
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// A platform: its provisioning certification key with a certificate that states `fields`.
    pub fn issue_pck(&self, fields: &PckFields) -> Result<Pck, HardwareError> {
        let key = new_key()?;
        let mut params = params("Simulated SGX PCK Certificate", Role::Leaf, self.created_at, 7 * YEAR)?;
        let serial = SerialNumber::from(random::<16>()?.to_vec());
        params.serial_number = Some(serial.clone());
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], fields.extension())];
        let certificate =
            params.signed_by(&key, &self.platform).map_err(|_| HardwareError::Key("certify a platform"))?;
        Ok(Pck {
            fields: fields.clone(),
            serial,
            // A quote carries the chain as text that ends with a NUL, as Intel's quote library writes it.
            chain: [certificate.pem().as_str(), &self.platform_pem, &self.root_pem, "\0"].concat(),
            key: raw_signer(&key)?,
        })
    }

    /// The root's list and the platform CA's list, DER, with the given window in unix seconds.
    fn revocation_lists(
        &self,
        pck: &Pck,
        revoked: Revoked,
        this_update: u64,
        next_update: u64,
    ) -> Result<(Vec<u8>, Vec<u8>), HardwareError> {
        let list = |issuer: &Issuer<'static, KeyPair>, serials: Vec<SerialNumber>| {
            let this_update = der::calendar(this_update)?;
            let revoked_certs = serials.into_iter().map(|serial_number| RevokedCertParams {
                serial_number,
                revocation_time: this_update,
                reason_code: None,
                invalidity_date: None,
            });
            CertificateRevocationListParams {
                this_update,
                next_update: der::calendar(next_update)?,
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: revoked_certs.collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            }
            .signed_by(issuer)
            .map(|list| list.der().to_vec())
            .map_err(|_| HardwareError::Key("sign a revocation list"))
        };
        let (of_root, of_platform) = match revoked {
            Revoked::Nothing => (vec![], vec![]),
            Revoked::Pck => (vec![], vec![pck.serial.clone()]),
            Revoked::PlatformCa => (vec![SerialNumber::from(PLATFORM_CA_SERIAL)], vec![]),
        };
        Ok((list(&self.root, of_root)?, list(&self.platform, of_platform)?))
    }

    /// r and s of the TCB signer over these bytes, big-endian, 64 bytes together.
    fn sign_document(&self, document: &str) -> Result<Vec<u8>, HardwareError> {
        sign(&self.signer, document.as_bytes())
    }
}

enum Role {
    Root,
    Intermediate,
    Leaf,
}

fn params(common_name: &str, role: Role, at: u64, lifetime: u64) -> Result<CertificateParams, HardwareError> {
    let mut params =
        CertificateParams::new(Vec::new()).map_err(|_| HardwareError::Key("prepare a certificate without names"))?;
    let from = at.saturating_sub(DAY);
    params.not_before = der::calendar(from)?;
    params.not_after = der::calendar(from.saturating_add(lifetime))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "inwit tests");
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::Sha256;
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec!["https://pcs.invalid/crl".to_owned()] }];
    (params.is_ca, params.key_usages) = match role {
        Role::Root => (IsCa::Ca(BasicConstraints::Constrained(1)), ca_usages()),
        Role::Intermediate => (IsCa::Ca(BasicConstraints::Constrained(0)), ca_usages()),
        Role::Leaf => (IsCa::ExplicitNoCa, vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment]),
    };
    Ok(params)
}

fn ca_usages() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
}

fn new_key() -> Result<KeyPair, HardwareError> {
    KeyPair::generate().map_err(|_| HardwareError::Key("generate a P-256 key"))
}

/// The same key for signatures in r‖s form, which certificates do not use and quotes do.
fn raw_signer(key: &KeyPair) -> Result<EcdsaKeyPair, HardwareError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &SystemRandom::new())
        .map_err(|_| HardwareError::Key("read back a P-256 key"))
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, HardwareError> {
    key.sign(&SystemRandom::new(), message)
        .map(|signature| signature.as_ref().to_vec())
        .map_err(|_| HardwareError::Key("sign with a P-256 key"))
}
