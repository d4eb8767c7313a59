//! A simulated Azure confidential VM: a paravisor that holds the hardware's report interface, runs the guest's TPM, and
//! leaves in its NV memory a report that vouches for the TPM's key.
//!
//! Source: OpenHCL's attestation protocol ("HCL report"); its integers are little-endian. The TPM is a real software TPM in
//! a folder, its key is made inside of it, and the hardware's report is signed by a simulated [`Machine`]. Every field is
//! public so that a test can state a falsehood that is then truly signed. Two things differ from Azure's: the index holds
//! 2,048 bytes instead of 2,600 (the software TPM's limit), so HCLEkPub has no place beside HCLAkPub; and the report is not
//! renewed when it is read.

use ring::digest::{SHA256, digest};
use serde_json::json;

use super::{HardwareError, Machine};
use crate::world::swtpm::Swtpm;
pub use maker::{Maker, OWNER, PLATFORM};
pub use quote_service::{QuoteFault, QuoteService};

mod maker;
mod quote_service;

/// NV index of the report.
pub const REPORT_INDEX: u32 = 0x0140_0001;
/// Persistent handle of the attestation key.
pub const ATTESTATION_KEY: u32 = 0x8100_0003;
/// Size of the NV index, the largest that libtpms allows.
const INDEX_LEN: usize = 2_048;
/// Bytes of the slot for the hardware's report: as long as an SNP report.
const SLOT_LEN: usize = 1_184;
const REPORT_TYPE_SNP: u32 = 2;
const REPORT_TYPE_TDX: u32 = 4;
const HASH_SHA256: u32 = 1;

/// One simulated Azure machine, as its paravisor describes it.
#[derive(Debug, Clone)]
pub struct Paravisor {
    /// The hardware below.
    pub machine: Machine,
    /// `report_type` of the request data: 2 for SNP, 4 for TDX.
    pub report_type: u32,
    /// `hash_type` of the request data; 1 is SHA-256.
    pub hash_type: u32,
    /// The modulus that the runtime claims name as HCLAkPub; that of the TPM's own key where there is none.
    pub named_key: Option<Vec<u8>>,
    /// REPORT_DATA of the hardware's report; the digest of the runtime claims where there is none.
    pub report_data: Option<[u8; 64]>,
    /// `console-enabled` of the runtime claims.
    pub console_enabled: bool,
    /// `secure-boot` of the runtime claims.
    pub secure_boot: bool,
    /// `tpm-persisted` of the runtime claims.
    pub tpm_persisted: bool,
}

/// What a paravisor left in a TPM.
#[derive(Debug, Clone)]
pub struct Provisioned {
    /// The report, as long as it is by its own word: without the padding of the NV index.
    pub hcl_report: Vec<u8>,
    /// The attestation key's modulus, big-endian, 256 bytes. Its exponent is 65,537.
    pub attestation_key: Vec<u8>,
    /// `azure-tdx` only: what the host's quoting service gives for the TDREPORT in the report.
    pub td_quote: Option<Vec<u8>>,
}

impl Paravisor {
    /// A paravisor on this hardware that a strict policy accepts.
    pub fn on(machine: Machine) -> Self {
        let report_type = match &machine {
            Machine::Snp(_) => REPORT_TYPE_SNP,
            Machine::Tdx(_) => REPORT_TYPE_TDX,
        };
        Self {
            machine,
            report_type,
            hash_type: HASH_SHA256,
            named_key: None,
            report_data: None,
            console_enabled: false,
            secure_boot: true,
            tpm_persisted: false,
        }
    }

    /// Makes the attestation key and writes the report that names it, in a TPM that was manufactured and just started.
    pub fn provision(&self, tpm: &Swtpm) -> Result<Provisioned, HardwareError> {
        let mut maker = Maker::connect(tpm)?;
        let attestation_key = maker.make_attestation_key(ATTESTATION_KEY)?;
        let provisioned = self.describe(&attestation_key)?;
        let mut content = provisioned.hcl_report.clone();
        content.resize(INDEX_LEN, 0);
        maker.define_for_the_platform(REPORT_INDEX, &content)?;
        maker.shut_down()?;
        Ok(provisioned)
    }

    /// The report and, on TDX, the quote for a TPM with this attestation key.
    pub fn describe(&self, attestation_key: &[u8]) -> Result<Provisioned, HardwareError> {
        let claims = self.runtime_claims(self.named_key.as_deref().unwrap_or(attestation_key)).to_string();
        let mut report_data = [0; 64];
        let (hash, _) = report_data.split_at_mut(32);
        hash.copy_from_slice(digest(&SHA256, claims.as_bytes()).as_ref());
        let report_data = self.report_data.unwrap_or(report_data);
        let (mut slot, td_quote) = match &self.machine {
            Machine::Snp(machine) => (machine.report(&report_data, 0)?.to_vec(), None),
            Machine::Tdx(machine) => (machine.td_report(&report_data), Some(machine.quote(&report_data)?)),
        };
        slot.resize(SLOT_LEN, 0);
        let hcl_report = self.lay_out(&slot, claims.as_bytes())?;
        Ok(Provisioned { hcl_report, attestation_key: attestation_key.to_vec(), td_quote })
    }

    fn runtime_claims(&self, modulus: &[u8]) -> serde_json::Value {
        json!({
            "keys": [{ "kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": base64url(modulus) }],
            "vm-configuration": {
                "console-enabled": self.console_enabled,
                "secure-boot": self.secure_boot,
                "tpm-enabled": true,
                "tpm-persisted": self.tpm_persisted,
                "vmUniqueId": "51A7ED00-0000-4000-8000-000000000001",
            },
        })
    }

    fn lay_out(&self, slot: &[u8], claims: &[u8]) -> Result<Vec<u8>, HardwareError> {
        let length = u32::try_from(claims.len()).map_err(|_| HardwareError::Key("lay out a report"))?;
        let (request, whole) = (20 + length, 32 + 1_184 + 20 + length);
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        // Version, size, request type AK_CERT, status, three reserved; then size, version, types, length of the claims.
        let header = words(&[1, whole, 2, 0, 0, 0, 0]);
        let request = words(&[request, 1, self.report_type, self.hash_type, length]);
        let report = [b"HCLA".as_slice(), &header, slot, &request, claims].concat();
        if report.len() > INDEX_LEN {
            return Err(HardwareError::Key("lay out a report: it is longer than the TPM's NV index"));
        }
        Ok(report)
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding (RFC 4648 section 5).
fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().chain([&0; 3]).take(3).fold(0usize, |number, byte| number << 8 | usize::from(*byte));
        for digit in (0..=group.len()).map(|digit| number >> (18 - 6 * digit) & 0x3f) {
            text.push(char::from(DIGITS[digit]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use inwit_guest::tpm::{Tpm, response};

    use super::*;
    use crate::hardware::fixture::{snp_machine, tdx_machine};
    use crate::world::World;
    use crate::world::setup::{Step, ready_or_told};
    use crate::world::swtpm::EkCertificate;

    fn sha256(bytes: &[u8]) -> Vec<u8> {
        digest(&SHA256, bytes).as_ref().to_vec()
    }

    /// SubjectPublicKeyInfo of an RSA-2048 key, PEM.
    fn public_key(modulus: &[u8], folder: &std::path::Path) -> std::path::PathBuf {
        use crate::hardware::der;
        let key = der::sequence(&[&der::element(0x02, &[&[0], modulus].concat()), &der::integer(65_537)]);
        let algorithm = der::sequence(&[&der::object(&[1, 2, 840, 113_549, 1, 1, 1]), &der::element(0x05, &[])]);
        let path = folder.join("key.der");
        std::fs::write(&path, der::sequence(&[&algorithm, &der::bits(&key)])).unwrap();
        path
    }

    #[test]
    fn base64url_as_in_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    /// The guest's own client against the provisioned TPM, judged by openssl: report, quote, PCR digest and nonce belong
    /// together, and nobody but the platform can write the report.
    #[test]
    fn a_provisioned_tpm_quotes_with_the_key_that_its_report_names() {
        if !ready_or_told(&World::here(), "an Azure-like TPM", &[Step::Packages]).unwrap() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        Swtpm::manufacture(folder.path(), EkCertificate::Absent).unwrap();
        let provisioned = Paravisor::on(Machine::from(snp_machine())).provision(&Swtpm::serve(folder.path()).unwrap());
        let provisioned = provisioned.unwrap();

        let served = Swtpm::serve(folder.path()).unwrap();
        drop(served.connect().unwrap());
        let mut tpm = Tpm::open(served.socket()).unwrap();
        assert_eq!(tpm.nv_size(REPORT_INDEX).unwrap(), Some(2_048));
        assert_eq!(tpm.nv_size(REPORT_INDEX + 1).unwrap(), None);
        let report = tpm.nv_read(REPORT_INDEX, 2_048).unwrap();
        let (said, padding) = report.split_at(provisioned.hcl_report.len());
        assert_eq!(said, provisioned.hcl_report);
        assert!(padding.iter().all(|byte| *byte == 0) && !padding.is_empty());
        assert_eq!(report[32 + 0x50..][..32], sha256(&said[1_236..]), "REPORT_DATA is the digest of the claims");

        let nonce = [0x5a; 32];
        let (attest, signature) = tpm.quote(ATTESTATION_KEY, &nonce).unwrap();
        let pcrs = tpm.pcrs().unwrap();
        assert_eq!(response::qualifying_data(&attest).unwrap(), nonce);
        assert!(attest.ends_with(&sha256(pcrs.as_flattened())), "the quote is over the PCRs");
        let key = public_key(&provisioned.attestation_key, folder.path());
        let (message, bare) = (folder.path().join("attest"), folder.path().join("signature"));
        std::fs::write(&message, &attest).unwrap();
        std::fs::write(&bare, response::rsassa(&signature).unwrap()).unwrap();
        let mut openssl = Command::new("openssl");
        openssl
            .args(["dgst", "-sha256", "-keyform", "DER", "-verify"])
            .arg(key)
            .arg("-signature")
            .arg(bare)
            .arg(message);
        let output = openssl.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        drop(tpm);
        let mut forger = Maker::connect(&served).unwrap();
        assert_eq!(forger.write(OWNER, REPORT_INDEX, 0, b"forged").unwrap(), Err(0x149), "TPM_RC_NV_AUTHORIZATION");
        assert!(forger.undefine(OWNER, REPORT_INDEX).unwrap().is_err());
        // Only while nobody has set the platform's password, as firmware does: see the boot of a forger.
        assert_eq!(forger.write(PLATFORM, REPORT_INDEX, 0, b"forged").unwrap(), Ok(()));
    }

    #[test]
    fn a_td_report_and_its_quote_say_the_same() {
        let machine = tdx_machine();
        let mrtd = machine.mrtd;
        let described = Paravisor::on(Machine::from(machine)).describe(&[0xd5; 256]).unwrap();
        let (report, quote) = (&described.hcl_report[32..32 + 1_024], described.td_quote.unwrap());
        assert_eq!((&report[..4], &report[512 + 16..][..48]), (&[0x81, 0, 0, 0][..], &mrtd[..]));
        assert_eq!(report[128..192], quote[568..632], "REPORTDATA");
        assert_eq!(report[528..576], quote[48 + 136..][..48], "MRTD");
        assert_eq!(report[1_024 - 512 + 16 + 4 * 48..][..192], quote[48 + 328..][..192], "RTMRs");
        assert_eq!(described.hcl_report[1_224], 4);
    }
}
