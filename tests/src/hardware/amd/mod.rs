//! A simulated AMD: root key (ARK), signing key (ASK), chip certificates (VCEK) and revocation list, made at run time.
//!
//! The certificates have the shapes of AMD's own (KDS specification, publication 57230): RSASSA-PSS with SHA-384 over
//! RSA-4096, a P-384 chip key, and the extensions under 1.3.6.1.4.1.3704.1. The names say "simulated", so that nobody
//! takes them for AMD's. It trusts its caller for the clock, keeps no key in the source, and is never part of a product
//! binary.

use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::{HardwareError, der};
use rsa::{RsaKey, Trailer};
use x509::{Tbs, authority_key_id, basic_constraints, distribution_point, key_usage, name, subject_key_id, validity};

mod product;
mod report;
mod rsa;
mod store;
mod x509;

pub use product::{Product, Tcb};
pub use report::{AuxBlob, REPORT_LEN, SnpMachine};

const DAY: u64 = 24 * 60 * 60;
/// Serial numbers as AMD numbers its own Milan certificates; every VCEK has serial 0.
const ARK_SERIAL: u64 = 0x1_0000;
const ASK_SERIAL: u64 = 0x1_0001;
const VCEK_SERIAL: u64 = 0;

/// The root of trust of one simulated AMD product: self-signed ARK, ASK under it.
#[derive(Debug)]
pub struct AmdTestRoot {
    product: Product,
    created_at: u64,
    ark: RsaKey,
    ask: RsaKey,
    ark_der: Vec<u8>,
    ask_der: Vec<u8>,
}

/// What a chip certificate states. Filled by [`AmdTestRoot::vcek_fields`], then changed by a test that wants a
/// certificate at odds with its report.
#[derive(Debug, Clone)]
pub struct VcekFields {
    /// HWID as it stands in the certificate: 64 raw bytes on Milan and Genoa, 8 on Turin.
    pub hwid: Vec<u8>,
    /// Security patch levels.
    pub tcb: Tcb,
    /// Product name with stepping where AMD writes one, such as `Milan-B0`.
    pub product_name: String,
    /// First second of validity, unix time.
    pub not_before: u64,
    /// Last second of validity, unix time.
    pub not_after: u64,
}

/// A chip's Versioned Chip Endorsement Key with its certificate.
#[derive(Debug)]
pub struct Vcek {
    /// X.509 certificate, DER.
    pub certificate: Vec<u8>,
    key: EcdsaKeyPair,
}

impl AmdTestRoot {
    /// Fresh Milan root, valid from one day before `at` (unix seconds). Takes one to three seconds: two RSA-4096 keys.
    pub fn generate(at: u64) -> Result<Self, HardwareError> {
        Self::generate_for(Product::Milan, at)
    }

    /// Fresh root of the given product.
    pub fn generate_for(product: Product, at: u64) -> Result<Self, HardwareError> {
        let (ark, ask) = RsaKey::generate_two()?;
        Self::certify(product, at, ark, ask)
    }

    /// The Milan root kept in `dir`, made there when it is missing or no longer covers `at`.
    ///
    /// The folder then holds `ark.key.der` and `ask.key.der`, `ark.der`, `ask.der` and `created-at`; it is
    /// readable by its owner only and must not be committed. Two processes may race: one of the roots wins, both
    /// callers get that one.
    pub fn load_or_generate(dir: &Path, at: u64) -> Result<Self, HardwareError> {
        store::load_or_generate(dir, Product::Milan, at)
    }

    fn certify(product: Product, at: u64, ark: RsaKey, ask: RsaKey) -> Result<Self, HardwareError> {
        let from = at.saturating_sub(DAY);
        let until = from.saturating_add(20 * 365 * DAY);
        let ark_name = name(&format!("ARK-{}", product.name()));
        let ask_name = name(&format!("SEV-{}", product.name()));
        let validity = validity(from, until)?;
        let ark_der = ark.sign_certificate(
            Trailer::Explicit,
            &Tbs {
                serial: ARK_SERIAL,
                issuer: &ark_name,
                validity: &validity,
                subject: &ark_name,
                spki: ark.spki(),
                extensions: vec![
                    key_usage(&[1, 0x06]),
                    subject_key_id(&ark),
                    basic_constraints(&[]),
                    distribution_point(product),
                ],
            },
        )?;
        let ask_der = ark.sign_certificate(
            Trailer::Explicit,
            &Tbs {
                serial: ASK_SERIAL,
                issuer: &ark_name,
                validity: &validity,
                subject: &ask_name,
                spki: ask.spki(),
                extensions: vec![
                    subject_key_id(&ask),
                    authority_key_id(&ark),
                    basic_constraints(&der::integer(0)),
                    key_usage(&[1, 0x04]),
                    distribution_point(product),
                ],
            },
        )?;
        Ok(Self { product, created_at: at, ark, ask, ark_der, ask_der })
    }

    /// The product this root speaks for.
    pub fn product(&self) -> Product {
        self.product
    }

    /// Self-signed root certificate, DER. A verifier under test pins this one.
    pub fn ark_der(&self) -> &[u8] {
        &self.ark_der
    }

    /// Certificate of the signing key between root and chips, DER.
    pub fn ask_der(&self) -> &[u8] {
        &self.ask_der
    }

    /// Serial number of the ASK, the only certificate that AMD's list ever revokes.
    pub fn ask_serial(&self) -> u64 {
        ASK_SERIAL
    }

    /// The empty revocation list, signed by the ARK, current for 60 days around the root's creation.
    pub fn crl_der(&self) -> Result<Vec<u8>, HardwareError> {
        let from = self.created_at.saturating_sub(30 * DAY);
        self.crl_der_revoking(from, from.saturating_add(60 * DAY), &[])
    }

    /// A revocation list with the given window (unix seconds) that lists `serials`; [`Self::ask_serial`] is the one
    /// that matters.
    pub fn crl_der_revoking(
        &self,
        this_update: u64,
        next_update: u64,
        serials: &[u64],
    ) -> Result<Vec<u8>, HardwareError> {
        self.ark.sign_list(&x509::revocation_list(&self.ark, self.product, this_update, next_update, serials)?)
    }

    /// What the certificate of this chip at this TCB states; valid for seven years as AMD's are.
    pub fn vcek_fields(&self, chip_id: &[u8; 64], tcb: &Tcb) -> VcekFields {
        let not_before = self.created_at.saturating_sub(DAY);
        VcekFields {
            hwid: chip_id.iter().copied().take(self.product.hwid_len()).collect(),
            tcb: *tcb,
            product_name: self.product.vcek_product_name().to_owned(),
            not_before,
            not_after: not_before.saturating_add(7 * 365 * DAY),
        }
    }

    /// A fresh P-384 chip key with a certificate that states `fields`, signed by the ASK.
    pub fn issue_vcek(&self, fields: &VcekFields) -> Result<Vcek, HardwareError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random)
            .map_err(|_| HardwareError::Key("generate a P-384 chip key"))?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8.as_ref(), &random)
            .map_err(|_| HardwareError::Key("read back the P-384 chip key"))?;
        let curve = der::sequence(&[&der::object(&[1, 2, 840, 10045, 2, 1]), &der::object(&[1, 3, 132, 0, 34])]);
        let certificate = self.ask.sign_certificate(
            self.product.vcek_trailer(),
            &Tbs {
                serial: VCEK_SERIAL,
                issuer: &name(&format!("SEV-{}", self.product.name())),
                validity: &validity(fields.not_before, fields.not_after)?,
                subject: &name("SEV-VCEK"),
                spki: der::sequence(&[&curve, &der::bits(key.public_key().as_ref())]),
                extensions: x509::vcek_extensions(self.product, fields),
            },
        )?;
        Ok(Vcek { certificate, key })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use ring::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
    use rustls_pki_types::{
        AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime, alg_id,
    };
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::hardware::fixture::{DAY, NOW, amd_root, snp_machine, vectors};

    /// webpki compares algorithm identifiers byte by byte and knows only the form without trailer field.
    #[derive(Debug)]
    struct ExplicitTrailer(Vec<u8>);

    impl ExplicitTrailer {
        fn new() -> Self {
            // The content of the SEQUENCE, without its two bytes of tag and length.
            Self(Trailer::Explicit.algorithm()[2..].to_vec())
        }
    }

    impl SignatureVerificationAlgorithm for ExplicitTrailer {
        fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key);
            key.verify(message, signature).map_err(|_| InvalidSignature)
        }
        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::RSA_ENCRYPTION
        }
        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            // A leaked few bytes once a test: the type wants 'static.
            AlgorithmIdentifier::from_slice(self.0.clone().leak())
        }
    }

    fn verify(ark: &[u8], ask: &[u8], vcek: &[u8], crl: &[u8], now: u64) -> Result<(), webpki::Error> {
        let (ark, ask, vcek) = (CertificateDer::from(ark), CertificateDer::from(ask), CertificateDer::from(vcek));
        let anchors = [webpki::anchor_from_trusted_cert(&ark)?];
        let crl = webpki::CertRevocationList::from(webpki::BorrowedCertRevocationList::from_der(crl)?);
        let crls = [&crl];
        let revocation = webpki::RevocationOptionsBuilder::new(&crls)
            .unwrap()
            .with_depth(webpki::RevocationCheckDepth::Chain)
            .with_status_policy(webpki::UnknownStatusPolicy::Allow)
            .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
            .build();
        let explicit = ExplicitTrailer::new();
        webpki::EndEntityCert::try_from(&vcek)?
            .verify_for_usage(
                &[&explicit, webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
                &anchors,
                &[ask],
                UnixTime::since_unix_epoch(Duration::from_secs(now)),
                webpki::KeyUsage::client_auth(),
                Some(revocation),
                None,
            )
            .map(|_| ())
    }

    fn verify_machine(vcek: &[u8], crl: &[u8], now: u64) -> Result<(), webpki::Error> {
        let root = amd_root();
        verify(root.ark_der(), root.ask_der(), vcek, crl, now)
    }

    #[test]
    fn chain_verifies_within_its_dates_and_not_outside() {
        let vcek = snp_machine().vcek.certificate.clone();
        let crl = amd_root().crl_der().unwrap();
        assert_eq!(verify_machine(&vcek, &crl, NOW), Ok(()));
        let late = verify_machine(&vcek, &crl, NOW + 8 * 365 * DAY).unwrap_err();
        assert!(matches!(late, webpki::Error::CertExpired { .. }), "{late:?}");
        let stale = verify_machine(&vcek, &crl, NOW + 40 * DAY).unwrap_err();
        assert!(matches!(stale, webpki::Error::CrlExpired { .. }), "{stale:?}");
    }

    #[test]
    fn chain_of_another_root_is_refused() {
        let other = AmdTestRoot::generate(NOW).unwrap();
        let vcek = snp_machine().vcek.certificate.clone();
        let ours = amd_root();
        let crl = other.crl_der().unwrap();
        assert!(verify(other.ark_der(), ours.ask_der(), &vcek, &crl, NOW).is_err());
        assert!(verify(other.ark_der(), other.ask_der(), &vcek, &crl, NOW).is_err());
    }

    #[test]
    fn a_listed_signing_key_is_revoked() {
        let root = amd_root();
        let vcek = snp_machine().vcek.certificate.clone();
        let listed = root.crl_der_revoking(NOW - DAY, NOW + DAY, &[7, root.ask_serial()]).unwrap();
        assert_eq!(verify_machine(&vcek, &listed, NOW), Err(webpki::Error::CertRevoked));
        let other = root.crl_der_revoking(NOW - DAY, NOW + DAY, &[7]).unwrap();
        assert_eq!(verify_machine(&vcek, &other, NOW), Ok(()));
    }

    #[test]
    fn openssl_accepts_chain_and_list() {
        let root = amd_root();
        let dir = tempfile::tempdir().unwrap();
        let pem = |name: &str, form: &str, der: &[u8]| {
            let (input, output) = (dir.path().join("in.der"), dir.path().join(name));
            std::fs::write(&input, der).unwrap();
            let done = Command::new("openssl")
                .args([form, "-inform", "DER", "-in"])
                .arg(&input)
                .arg("-out")
                .arg(&output)
                .status()
                .unwrap();
            assert!(done.success(), "openssl {form} cannot read what should be {name}");
            output
        };
        let ark = pem("ark.pem", "x509", root.ark_der());
        let ask = pem("ask.pem", "x509", root.ask_der());
        let vcek = pem("vcek.pem", "x509", &snp_machine().vcek.certificate);
        let crl = pem("crl.pem", "crl", &root.crl_der().unwrap());
        let check = |extra: &[&str]| {
            let output = Command::new("openssl")
                .args(["verify", "-attime", &NOW.to_string(), "-CAfile"])
                .arg(&ark)
                .arg("-untrusted")
                .arg(&ask)
                .args(extra)
                .arg(&vcek)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        check(&[]);
        let list =
            Command::new("openssl").args(["crl", "-noout", "-in"]).arg(&crl).arg("-CAfile").arg(&ark).output().unwrap();
        assert!(String::from_utf8_lossy(&list.stderr).contains("verify OK"), "{list:?}");
    }

    /// Identifier, criticality and length of each extension, with the signature algorithm: what two certificates of
    /// one kind have in common.
    fn shape(der: &[u8]) -> Vec<String> {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        let mut shape = vec![
            format!("{:02x?}", certificate.signature_algorithm.parameters.as_ref().unwrap().data),
            format!("{} {}", certificate.serial, certificate.version),
            certificate.subject.iter_common_name().next().unwrap().as_str().unwrap().to_owned(),
            certificate.issuer.iter_common_name().next().unwrap().as_str().unwrap().to_owned(),
        ];
        // The distribution point holds a name of ours; patch levels above 127 are one byte longer.
        let dull = |length: usize, name: &str| match name {
            "2.5.29.31" => 0,
            _ if (3..=4).contains(&length) => 3,
            _ => length,
        };
        shape.extend(certificate.extensions().iter().map(|extension| {
            let name = extension.oid.to_id_string();
            format!("{name} {} {}", extension.critical, dull(extension.value.len(), &name))
        }));
        shape
    }

    #[test]
    fn certificates_have_the_shape_of_real_ones() {
        let Some(vectors) = vectors("shapes of AMD's certificates") else { return };
        let real = |path: &str| shape(&std::fs::read(vectors.join(path)).unwrap());
        let milan = amd_root();
        assert_eq!(shape(milan.ark_der()), real("_amd-roots/milan-ark.der"));
        assert_eq!(shape(milan.ask_der()), real("_amd-roots/milan-ask.der"));
        assert_eq!(shape(&snp_machine().vcek.certificate), real("virtee+sev/snp/v2-milan/vcek.der"));
        for (product, path) in [
            (Product::Genoa, "microsoft+TEE-Attestation-Verification/snp/v3-genoa-aci/vcek.der"),
            (Product::Turin, "microsoft+TEE-Attestation-Verification/snp/v5-turin-aci/vcek.der"),
        ] {
            let ask = RsaKey::from_der(milan.ask.private_der().to_vec()).unwrap();
            let ark = RsaKey::from_der(milan.ark.private_der().to_vec()).unwrap();
            let root = AmdTestRoot::certify(product, NOW, ark, ask).unwrap();
            let vcek = root.issue_vcek(&root.vcek_fields(&[1; 64], &Tcb::default())).unwrap();
            assert_eq!(shape(&vcek.certificate), real(path));
        }
    }

    #[test]
    fn a_stored_root_is_found_again_and_an_expired_one_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("amd");
        let first = AmdTestRoot::load_or_generate(&dir, NOW).unwrap();
        let again = AmdTestRoot::load_or_generate(&dir, NOW + 300 * DAY).unwrap();
        assert_eq!(first.ark_der(), again.ark_der());
        let vcek = again.issue_vcek(&again.vcek_fields(&[9; 64], &Tcb::default())).unwrap();
        let crl = again.crl_der().unwrap();
        assert_eq!(verify(first.ark_der(), first.ask_der(), &vcek.certificate, &crl, NOW + 300 * DAY), Ok(()));
        let later = AmdTestRoot::load_or_generate(&dir, NOW + 30 * 365 * DAY).unwrap();
        assert_ne!(first.ark_der(), later.ark_der());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1, "no staging folder may stay behind");
    }
}
