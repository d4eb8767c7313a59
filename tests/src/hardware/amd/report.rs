//! A simulated SEV-SNP machine: attestation reports in the firmware's binary layout, and the host's certificate table.
//!
//! Source: SEV-SNP firmware ABI (publication 56860), table "ATTESTATION_REPORT"; all integers little-endian. Every field
//! is public so that a test can state a falsehood that is then truly signed. The caller's bytes are copied, not judged.

use std::sync::Arc;

use ring::rand::SystemRandom;

use super::{AmdTestRoot, Tcb, Vcek};
use crate::hardware::{HardwareError, random};

/// Length of an attestation report in bytes.
pub const REPORT_LEN: usize = 0x4a0;
const SIGNED_LEN: usize = 0x2a0;
/// GUIDs of the certificate table, bytes in the order of their text form.
const GUID_VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
const GUID_ASK: [u8; 16] = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
const GUID_ARK: [u8; 16] = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes();
const ENTRY_LEN: u32 = 24;

/// What the host hands over beside the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuxBlob {
    /// VCEK, ASK and ARK.
    CertificateTable,
    /// Nothing: the host has no certificates, and the verifier must fetch them.
    Empty,
    /// Bytes of the test's choice.
    Other(Vec<u8>),
}

/// One simulated chip with one guest on it. Cheap to clone; clones share the chip key.
#[derive(Debug, Clone)]
pub struct SnpMachine {
    /// The AMD whose chip this is.
    pub root: Arc<AmdTestRoot>,
    /// Chip key and certificate. Reports are signed with it whatever the fields below say.
    pub vcek: Arc<Vcek>,
    /// VERSION of the report layout: 2, 3 or 5; CPUID is written from 3 on, the mitigation vectors from 5 on.
    pub version: u32,
    /// GUEST_SVN.
    pub guest_svn: u32,
    /// Guest POLICY; bit 17 must be one, bit 19 is DEBUG.
    pub policy: u64,
    /// FAMILY_ID.
    pub family_id: [u8; 16],
    /// IMAGE_ID.
    pub image_id: [u8; 16],
    /// SIGNATURE_ALGO; 1 is ECDSA P-384 with SHA-384.
    pub signature_algo: u32,
    /// PLATFORM_INFO; bit 0 is SMT_EN.
    pub platform_info: u64,
    /// Bit 0 AUTHOR_KEY_EN, bit 1 MASK_CHIP_KEY, bits 4:2 SIGNING_KEY (0 is VCEK).
    pub key_info: u32,
    /// MEASUREMENT of the launch.
    pub launch_digest: [u8; 48],
    /// HOST_DATA.
    pub host_data: [u8; 32],
    /// ID_KEY_DIGEST.
    pub id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST.
    pub author_key_digest: [u8; 48],
    /// REPORT_ID, random for each machine.
    pub report_id: [u8; 32],
    /// CURRENT_TCB.
    pub current_tcb: Tcb,
    /// REPORTED_TCB, which the VCEK has to match.
    pub reported_tcb: Tcb,
    /// COMMITTED_TCB.
    pub committed_tcb: Tcb,
    /// LAUNCH_TCB.
    pub launch_tcb: Tcb,
    /// CPUID family, model, stepping.
    pub cpuid: [u8; 3],
    /// CHIP_ID; all zero when masked.
    pub chip_id: [u8; 64],
    /// Build, minor and major version of the firmware, current and committed alike.
    pub firmware: [u8; 3],
    /// LAUNCH_MIT_VECTOR.
    pub launch_mitigations: u64,
    /// CURRENT_MIT_VECTOR.
    pub current_mitigations: u64,
    /// Lowest privilege level that a request may name.
    pub privlevel_floor: u32,
    /// What comes beside the report.
    pub auxblob: AuxBlob,
}

impl SnpMachine {
    /// A chip with a random identity, running a guest with this launch digest, in a state that a strict policy accepts.
    pub fn new(root: &Arc<AmdTestRoot>, launch_digest: [u8; 48]) -> Result<Self, HardwareError> {
        let mut chip_id: [u8; 64] = random()?;
        chip_id.iter_mut().skip(root.product().hwid_len()).for_each(|byte| *byte = 0);
        Self::on_chip(root, chip_id, Tcb::default(), launch_digest)
    }

    /// The same on a chip of the caller's choice, patched to `tcb`.
    pub fn on_chip(
        root: &Arc<AmdTestRoot>,
        chip_id: [u8; 64],
        tcb: Tcb,
        launch_digest: [u8; 48],
    ) -> Result<Self, HardwareError> {
        Ok(Self {
            root: Arc::clone(root),
            vcek: Arc::new(root.issue_vcek(&root.vcek_fields(&chip_id, &tcb))?),
            version: 3,
            guest_svn: 0,
            policy: 0x3_0000,
            family_id: [0; 16],
            image_id: [0; 16],
            signature_algo: 1,
            platform_info: 0x25,
            key_info: 0,
            launch_digest,
            host_data: [0; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: random()?,
            current_tcb: tcb,
            reported_tcb: tcb,
            committed_tcb: tcb,
            launch_tcb: tcb,
            cpuid: root.product().cpuid(),
            chip_id,
            firmware: [29, 55, 1],
            launch_mitigations: 0,
            current_mitigations: 0,
            privlevel_floor: 0,
            auxblob: AuxBlob::CertificateTable,
        })
    }

    /// An ATTESTATION_REPORT over `report_data` at privilege level `vmpl`, signed by the chip key.
    pub fn report(&self, report_data: &[u8; 64], vmpl: u32) -> Result<[u8; REPORT_LEN], HardwareError> {
        self.sign(self.body(report_data, vmpl))
    }

    /// A report with these bytes before its signature, zeros after them, signed by the chip key whatever they say.
    pub fn sign(&self, mut body: Vec<u8>) -> Result<[u8; REPORT_LEN], HardwareError> {
        body.resize(SIGNED_LEN, 0);
        let signature = self
            .vcek
            .key
            .sign(&SystemRandom::new(), &body)
            .map_err(|_| HardwareError::Key("sign a report with the chip key"))?;
        // ring writes R and S big-endian in 48 bytes each; the firmware writes them little-endian in 72.
        let (r, s) = signature.as_ref().split_at(48);
        let little_endian = |number: &[u8]| number.iter().rev().copied().chain([0; 24]).collect::<Vec<u8>>();
        let mut report = [body, little_endian(r), little_endian(s)].concat();
        report.resize(REPORT_LEN, 0);
        report.try_into().map_err(|_| HardwareError::Key("lay out a report"))
    }

    /// Bytes 0 to 29Fh: everything that the signature covers.
    fn body(&self, report_data: &[u8; 64], vmpl: u32) -> Vec<u8> {
        let product = self.root.product();
        let tcb = |tcb: &Tcb| product.tcb_bytes(tcb);
        let [family, model, stepping] = if self.version >= 3 { self.cpuid } else { [0; 3] };
        let (launch, current) =
            if self.version >= 5 { (self.launch_mitigations, self.current_mitigations) } else { (0, 0) };
        let mut out = Vec::with_capacity(REPORT_LEN);
        out.extend(self.version.to_le_bytes());
        out.extend(self.guest_svn.to_le_bytes());
        out.extend(self.policy.to_le_bytes());
        out.extend(self.family_id);
        out.extend(self.image_id);
        out.extend(vmpl.to_le_bytes());
        out.extend(self.signature_algo.to_le_bytes());
        out.extend(tcb(&self.current_tcb));
        out.extend(self.platform_info.to_le_bytes());
        out.extend(self.key_info.to_le_bytes());
        out.extend([0; 4]);
        out.extend(report_data);
        out.extend(self.launch_digest);
        out.extend(self.host_data);
        out.extend(self.id_key_digest);
        out.extend(self.author_key_digest);
        out.extend(self.report_id);
        out.extend([0xff; 32]); // REPORT_ID_MA: no migration agent
        out.extend(tcb(&self.reported_tcb));
        out.extend([family, model, stepping]);
        out.extend([0; 21]);
        out.extend(self.chip_id);
        out.extend(tcb(&self.committed_tcb));
        out.extend(self.firmware);
        out.push(0);
        out.extend(self.firmware);
        out.push(0);
        out.extend(tcb(&self.launch_tcb));
        out.extend(launch.to_le_bytes());
        out.extend(current.to_le_bytes());
        out.resize(SIGNED_LEN, 0);
        out
    }

    /// The host's certificate table: 24-byte entries (GUID, offset, length), a zero entry, then the certificates, DER.
    pub fn certificate_table(&self) -> Vec<u8> {
        let certificates = [
            (GUID_VCEK, self.vcek.certificate.as_slice()),
            (GUID_ASK, self.root.ask_der()),
            (GUID_ARK, self.root.ark_der()),
        ];
        let mut offset = ENTRY_LEN * 4;
        let mut table = Vec::new();
        for (guid, certificate) in certificates {
            let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX);
            table.extend(guid);
            table.extend(offset.to_le_bytes());
            table.extend(length.to_le_bytes());
            offset = offset.saturating_add(length);
        }
        table.extend([0; 24]);
        certificates.iter().for_each(|(_, certificate)| table.extend_from_slice(certificate));
        table
    }

    /// What the host hands over beside a report.
    pub fn auxblob(&self) -> Vec<u8> {
        match &self.auxblob {
            AuxBlob::CertificateTable => self.certificate_table(),
            AuxBlob::Empty => Vec::new(),
            AuxBlob::Other(bytes) => bytes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
    use sev::firmware::guest::AttestationReport;
    use sev::parser::ByteParser;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use crate::hardware::fixture::{amd_root, snp_machine};

    /// The check a verifier makes: raw bytes, little-endian numbers with nothing above 48 bytes, nothing after them.
    fn signature_holds(report: &[u8], certificate: &[u8]) -> bool {
        let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
        let point = certificate.public_key().subject_public_key.data.to_vec();
        let big_endian = |at: usize| -> Vec<u8> { report[at..at + 48].iter().rev().copied().collect() };
        let signature = [big_endian(0x2a0), big_endian(0x2e8)].concat();
        let padding = [&report[0x2d0..0x2e8], &report[0x318..]].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point);
        padding.iter().all(|byte| *byte == 0) && key.verify(&report[..0x2a0], &signature).is_ok()
    }

    #[test]
    fn the_signature_covers_the_raw_bytes() {
        let machine = snp_machine();
        let report = machine.report(&[0x5a; 64], 0).unwrap();
        assert!(signature_holds(&report, &machine.vcek.certificate));
        for at in [0x08, 0x50, 0x90, 0x180, 0x29f, 0x2a0, 0x2e8] {
            let mut changed = report;
            changed[at] ^= 1;
            assert!(!signature_holds(&changed, &machine.vcek.certificate), "byte {at:#x} is not covered");
        }
        assert!(!signature_holds(&report, &snp_machine().vcek.certificate), "another chip's key");
    }

    #[test]
    fn an_independent_parser_reads_every_field() {
        let mut machine = snp_machine();
        machine.guest_svn = 3;
        machine.policy |= 1 << 19;
        machine.host_data = [0xd0; 32];
        machine.committed_tcb.microcode = 7;
        let parsed = AttestationReport::from_bytes(&machine.report(&[0x5a; 64], 2).unwrap()).unwrap();
        assert_eq!((parsed.version, parsed.guest_svn, parsed.vmpl), (3, 3, 2));
        assert!(parsed.policy.debug_allowed());
        assert_eq!(parsed.report_data.as_slice(), [0x5a; 64]);
        assert_eq!(parsed.measurement.as_slice(), machine.launch_digest);
        assert_eq!(parsed.host_data.as_slice(), [0xd0; 32]);
        assert_eq!(parsed.chip_id.as_slice(), machine.chip_id);
        assert_eq!((parsed.cpuid_fam_id, parsed.cpuid_mod_id), (Some(0x19), Some(1)));
        assert_eq!((parsed.reported_tcb.bootloader, parsed.reported_tcb.snp), (4, 24));
        assert_eq!((parsed.reported_tcb.microcode, parsed.committed_tcb.microcode), (219, 7));
        assert_eq!(parsed.current.major, 1);
    }

    #[test]
    fn other_layouts_parse_too() {
        let mut machine = snp_machine();
        (machine.launch_mitigations, machine.current_mitigations) = (0x0b, 0x0f);
        for (version, mitigations, family) in [(2, None, None), (3, None, Some(0x19)), (5, Some(0x0f), Some(0x19))] {
            machine.version = version;
            let parsed = AttestationReport::from_bytes(&machine.report(&[1; 64], 0).unwrap()).unwrap();
            assert_eq!(parsed.version, version);
            assert_eq!(parsed.current_mit_vector, mitigations);
            assert_eq!(parsed.cpuid_fam_id, family);
        }
    }

    #[test]
    fn the_certificate_table_leads_to_three_certificates() {
        let machine = snp_machine();
        let table = machine.certificate_table();
        let number = |at: usize| u32::from_le_bytes(table[at..at + 4].try_into().unwrap()) as usize;
        let entry = |at: usize| &table[number(at + 16)..][..number(at + 20)];
        assert_eq!(table[..4], [0x63, 0xda, 0x75, 0x8d]);
        assert_eq!(entry(0), machine.vcek.certificate);
        assert_eq!(entry(24), amd_root().ask_der());
        assert_eq!(entry(48), amd_root().ark_der());
        assert_eq!(table[72..96], [0; 24]);
        assert_eq!(number(64) + number(68), table.len());
    }

    #[test]
    fn a_chip_states_what_its_certificate_states() {
        let machine = snp_machine();
        let (_, certificate) = X509Certificate::from_der(&machine.vcek.certificate).unwrap();
        let value = |oid: &str| {
            certificate.extensions().iter().find(|one| one.oid.to_id_string() == oid).unwrap().value.to_vec()
        };
        assert_eq!(value("1.3.6.1.4.1.3704.1.4"), machine.chip_id);
        assert_eq!(value("1.3.6.1.4.1.3704.1.2"), [&[0x16, 8][..], b"Milan-B0"].concat());
        assert_eq!(value("1.3.6.1.4.1.3704.1.3.8"), [2, 2, 0, 219]);
        assert_eq!(value("1.3.6.1.4.1.3704.1.3.3"), [2, 1, 24]);
    }
}
