//! A simulated TDX machine: TD quotes in Intel's binary layout, versions 4 and 5.
//!
//! Source: Intel TDX DCAP Quote Generation Library, appendix "Quote format"; integers little-endian, signatures and
//! points big-endian. Every field is public so that a test can state a falsehood that is then truly signed. The caller's
//! bytes are copied, not judged.

use std::sync::Arc;

use ring::digest::{SHA256, SHA384, digest};
use ring::signature::{EcdsaKeyPair, KeyPair as _};

use super::{Endorsements, IntelTestRoot, Pck, PckFields, new_key, random, raw_signer, sign};
use crate::hardware::HardwareError;

const HEADER_LEN: usize = 48;
const ATTESTATION_KEY_ECDSA_P256: u16 = 2;
const TEE_TDX: u32 = 0x81;
const VENDOR_INTEL: [u8; 16] = 0x939a7233_f79c4ca9_940a0db3_957f0607_u128.to_be_bytes();
const CERTIFICATION_PCK_CHAIN: u16 = 5;
const CERTIFICATION_QE_REPORT: u16 = 6;
const QE_REPORT_LEN: usize = 384;
const QE_AUTH_DATA: [u8; 32] = [0x42; 32];
const QE_ATTRIBUTES: [u8; 16] = [0x15, 0, 0, 0, 0, 0, 0, 0, 0xe7, 0, 0, 0, 0, 0, 0, 0];
pub(super) const QE_MISC_SELECT: [u8; 4] = [0; 4];
pub(super) const QE_ISV_PROD_ID: u16 = 2;

/// Layout of a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteVersion {
    /// Version 4, TDX 1.0 body.
    V4,
    /// Version 5, TDX 1.0 body.
    V5Td10,
    /// Version 5, TDX 1.5 body.
    V5Td15,
}

impl QuoteVersion {
    /// Bytes that the attestation key signs: everything before the signature's length.
    pub fn signed_len(self) -> usize {
        match self {
            Self::V4 => HEADER_LEN + 584,
            Self::V5Td10 => HEADER_LEN + 6 + 584,
            Self::V5Td15 => HEADER_LEN + 6 + 648,
        }
    }
}

/// One simulated platform with one Trust Domain on it. Cheap to clone; clones share the keys.
#[derive(Debug, Clone)]
pub struct TdxMachine {
    /// The Intel whose platform this is.
    pub root: Arc<IntelTestRoot>,
    /// Platform key and certificate.
    pub pck: Arc<Pck>,
    /// Layout of the quotes.
    pub version: QuoteVersion,
    /// TEE_TCB_SVN: module SVN, module version, late microcode, then reserved.
    pub tee_tcb_svn: [u8; 16],
    /// MRSEAM.
    pub mr_seam: [u8; 48],
    /// MRSIGNERSEAM; zero for Intel's module.
    pub mr_signer_seam: [u8; 48],
    /// SEAMATTRIBUTES.
    pub seam_attributes: u64,
    /// TDATTRIBUTES; bit 0 is DEBUG, bit 28 SEPT_VE_DISABLE.
    pub td_attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// MRTD.
    pub mrtd: [u8; 48],
    /// MRCONFIGID.
    pub mr_config_id: [u8; 48],
    /// MROWNER.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG.
    pub mr_owner_config: [u8; 48],
    /// RTMR0 to RTMR3.
    pub rtmrs: [[u8; 48]; 4],
    /// MRSERVICETD of a 1.5 body.
    pub mr_service_td: [u8; 48],
    /// MRSIGNER of the quoting enclave.
    pub qe_mr_signer: [u8; 32],
    /// ISVSVN of the quoting enclave.
    pub qe_isv_svn: u16,
    /// What the simulated Intel says about this platform.
    pub endorsements: Endorsements,
    attestation_key: Arc<EcdsaKeyPair>,
    qe_id: [u8; 16],
}

impl TdxMachine {
    /// A patched platform running a Trust Domain with these measurements, in a state that a strict policy accepts.
    pub fn new(root: &Arc<IntelTestRoot>, mrtd: [u8; 48], rtmrs: [[u8; 48]; 4]) -> Result<Self, HardwareError> {
        Self::on_platform(root, &PckFields { ppid: random()?, ..PckFields::default() }, mrtd, rtmrs)
    }

    /// The same on a platform of the caller's choice.
    pub fn on_platform(
        root: &Arc<IntelTestRoot>,
        platform: &PckFields,
        mrtd: [u8; 48],
        rtmrs: [[u8; 48]; 4],
    ) -> Result<Self, HardwareError> {
        Ok(Self {
            root: Arc::clone(root),
            pck: Arc::new(root.issue_pck(platform)?),
            version: QuoteVersion::V4,
            tee_tcb_svn: [6, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            mr_seam: [0x5e; 48],
            mr_signer_seam: [0; 48],
            seam_attributes: 0,
            td_attributes: 1 << 28,
            xfam: 0x0006_02e7,
            mrtd,
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            rtmrs,
            mr_service_td: [0; 48],
            qe_mr_signer: [0x9e; 32],
            qe_isv_svn: 6,
            endorsements: Endorsements::up_to_date(root.created_at),
            attestation_key: Arc::new(raw_signer(&new_key()?)?),
            qe_id: random()?,
        })
    }

    /// Extends RTMR `index` as the module does: SHA-384 over old value and digest. Nothing happens beyond RTMR3.
    pub fn extend_rtmr(&mut self, index: usize, measurement: &[u8; 48]) {
        if let Some(register) = self.rtmrs.get_mut(index) {
            let extended = digest(&SHA384, &[register.as_slice(), measurement].concat());
            register.copy_from_slice(extended.as_ref());
        }
    }

    /// A quote over `report_data`, signed by the attestation key that the platform's certificate vouches for.
    pub fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, HardwareError> {
        self.sign(self.signed_part(report_data), &QE_AUTH_DATA)
    }

    /// A quote with these bytes as header and body, and these as the quoting enclave's authentication data, signed
    /// whatever they say. At most 65,535 bytes of authentication data.
    pub fn sign(&self, header_and_body: Vec<u8>, authentication_data: &[u8]) -> Result<Vec<u8>, HardwareError> {
        let mut quote = header_and_body;
        let signature = sign(&self.attestation_key, &quote)?;
        // The first byte of a SEC 1 point says that it is uncompressed; a quote leaves it out.
        let (_, point) = self.attestation_key.public_key().as_ref().split_at(1);
        let qe_report = self.qe_report(point, authentication_data);
        let counted = u16::try_from(authentication_data.len()).map_err(|_| HardwareError::Key("lay out a quote"))?;
        let chain = sized(CERTIFICATION_PCK_CHAIN, self.pck.chain.as_bytes())?;
        let certification = [
            qe_report.as_slice(),
            &sign(&self.pck.key, &qe_report)?,
            &counted.to_le_bytes(),
            authentication_data,
            &chain,
        ]
        .concat();
        let outer = sized(CERTIFICATION_QE_REPORT, &certification)?;
        let authentication = [signature.as_slice(), point, &outer].concat();
        quote.extend(length(&authentication)?);
        quote.extend(authentication);
        Ok(quote)
    }

    /// A TDREPORT (Intel TDX Module ABI, TDREPORT_STRUCT) over `report_data`, 1,024 bytes. Its MAC, which only the same
    /// platform can check, is made up: what counts outside is the quote made from it.
    pub fn td_report(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let sha384 = |bytes: &[u8]| digest(&SHA384, bytes).as_ref().to_vec();
        // TEE_TCB_INFO: valid fields, TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM, attributes, reserved; TDINFO.
        let mut tcb_info =
            [&0x3f_u64.to_le_bytes()[..], &self.tee_tcb_svn, &self.mr_seam, &self.mr_signer_seam].concat();
        tcb_info.extend(self.seam_attributes.to_le_bytes());
        tcb_info.resize(239, 0);
        let mut info = [self.td_attributes.to_le_bytes(), self.xfam.to_le_bytes()].concat();
        for register in
            [&self.mrtd, &self.mr_config_id, &self.mr_owner, &self.mr_owner_config].into_iter().chain(&self.rtmrs)
        {
            info.extend(register);
        }
        info.resize(512, 0);
        let mut report = [&[TEE_TDX as u8, 0, 0, 0][..], &[0; 12], &self.pck.fields.cpu_svn].concat();
        report.extend(sha384(&tcb_info));
        report.extend(sha384(&info));
        report.extend(report_data);
        report.extend([[0; 32], [0x3a; 32]].concat());
        report.extend(tcb_info);
        report.extend([0; 17]);
        report.extend(info);
        report
    }

    fn signed_part(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let (version, body): (u16, Option<(u16, u32)>) = match self.version {
            QuoteVersion::V4 => (4, None),
            QuoteVersion::V5Td10 => (5, Some((2, 584))),
            QuoteVersion::V5Td15 => (5, Some((3, 648))),
        };
        let mut out = Vec::with_capacity(8192);
        out.extend(version.to_le_bytes());
        out.extend(ATTESTATION_KEY_ECDSA_P256.to_le_bytes());
        out.extend(TEE_TDX.to_le_bytes());
        out.extend([0; 4]);
        out.extend(VENDOR_INTEL);
        out.extend(self.qe_id);
        out.extend([0; 4]);
        if let Some((kind, size)) = body {
            out.extend(kind.to_le_bytes());
            out.extend(size.to_le_bytes());
        }
        out.extend(self.tee_tcb_svn);
        out.extend(self.mr_seam);
        out.extend(self.mr_signer_seam);
        out.extend(self.seam_attributes.to_le_bytes());
        out.extend(self.td_attributes.to_le_bytes());
        out.extend(self.xfam.to_le_bytes());
        out.extend(self.mrtd);
        out.extend(self.mr_config_id);
        out.extend(self.mr_owner);
        out.extend(self.mr_owner_config);
        out.extend(self.rtmrs.as_flattened());
        out.extend(report_data);
        if self.version == QuoteVersion::V5Td15 {
            out.extend(self.tee_tcb_svn);
            out.extend(self.mr_service_td);
        }
        out
    }

    /// The quoting enclave's own report, whose data names the attestation key.
    fn qe_report(&self, attestation_point: &[u8], authentication_data: &[u8]) -> Vec<u8> {
        let mut report = Vec::with_capacity(QE_REPORT_LEN);
        report.extend(self.pck.fields.cpu_svn);
        report.extend(QE_MISC_SELECT);
        report.extend([0; 28]);
        report.extend(QE_ATTRIBUTES);
        report.extend([0xe5; 32]); // MRENCLAVE
        report.extend([0; 32]);
        report.extend(self.qe_mr_signer);
        report.extend([0; 96]);
        report.extend(QE_ISV_PROD_ID.to_le_bytes());
        report.extend(self.qe_isv_svn.to_le_bytes());
        report.extend([0; 60]);
        report.extend(digest(&SHA256, &[attestation_point, authentication_data].concat()).as_ref());
        report.resize(QE_REPORT_LEN, 0);
        report
    }
}

fn length(bytes: &[u8]) -> Result<[u8; 4], HardwareError> {
    u32::try_from(bytes.len()).map(u32::to_le_bytes).map_err(|_| HardwareError::Key("lay out a quote"))
}

/// Certification data: type, size, content.
fn sized(kind: u16, content: &[u8]) -> Result<Vec<u8>, HardwareError> {
    Ok([&kind.to_le_bytes(), length(content)?.as_slice(), content].concat())
}

#[cfg(test)]
mod tests {
    use dcap_qvl::quote::Quote;
    use dcap_qvl::verify::QuoteVerifier;
    use dcap_qvl::{QuoteClaims, QuotePolicy, TcbStatus};

    use super::*;
    use crate::hardware::fixture::{DAY, NOW, intel_root, tdx_machine};
    use crate::hardware::intel::Revoked;

    fn verify(machine: &TdxMachine, quote: &[u8], at: u64) -> Result<QuoteClaims, String> {
        QuoteVerifier::new(intel_root().root_der().to_vec())
            .verify_with_policy(quote, machine.collateral().unwrap(), at, &QuotePolicy::strict(at))
            .map_err(|error| format!("{error:#}"))
    }

    fn refused(machine: &TdxMachine, reason: &str) {
        let outcome = verify(machine, &machine.quote(&[0x5a; 64]).unwrap(), NOW);
        let error = outcome.expect_err(reason);
        assert!(error.contains(reason), "refused for another reason: {error}");
    }

    #[test]
    fn an_unmodified_verifier_accepts_every_layout() {
        for version in [QuoteVersion::V4, QuoteVersion::V5Td10, QuoteVersion::V5Td15] {
            let mut machine = tdx_machine();
            machine.version = version;
            machine.extend_rtmr(3, &[7; 48]);
            let quote = machine.quote(&[0x5a; 64]).unwrap();
            let claims = verify(&machine, &quote, NOW).unwrap();
            assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
            assert_eq!(claims.platform.pck.ppid, machine.pck.fields.ppid);
            let parsed = Quote::parse(&quote).unwrap();
            let body = parsed.report.as_td10().unwrap();
            assert_eq!((body.report_data, body.mr_td), ([0x5a; 64], machine.mrtd));
            assert_eq!([body.rt_mr0, body.rt_mr1, body.rt_mr2, body.rt_mr3], machine.rtmrs);
            assert_ne!(machine.rtmrs[3], [0; 48]);
            assert_eq!(body.xfam, machine.xfam.to_le_bytes());
        }
    }

    #[test]
    fn intels_own_root_refuses_it() {
        let machine = tdx_machine();
        let quote = machine.quote(&[0x5a; 64]).unwrap();
        let outcome = QuoteVerifier::new_prod().verify(&quote, &machine.collateral().unwrap(), NOW);
        assert!(outcome.is_err());
        let other = IntelTestRoot::generate(NOW).unwrap();
        let outcome = QuoteVerifier::new(other.root_der().to_vec()).verify(&quote, &machine.collateral().unwrap(), NOW);
        assert!(outcome.is_err());
    }

    #[test]
    fn no_signed_byte_can_change() {
        let machine = tdx_machine();
        let quote = machine.quote(&[0x5a; 64]).unwrap();
        let body = HEADER_LEN;
        let qe_report = machine.version.signed_len() + 4 + 128 + 6;
        for (what, at) in [
            ("user data", 28),
            ("td attributes", body + 120),
            ("mrtd", body + 136),
            ("rtmr0", body + 328),
            ("rtmr3", body + 519),
            ("report data", body + 583),
            ("signature r", body + 584 + 4),
            ("signature s", body + 584 + 4 + 63),
            ("attestation key", body + 584 + 4 + 64),
            ("qe report", qe_report + 260),
            ("qe signature", qe_report + 384),
            ("qe auth data", qe_report + 384 + 64 + 2),
        ] {
            let mut changed = quote.clone();
            changed[at] ^= 1;
            assert!(verify(&machine, &changed, NOW).is_err(), "{what} at {at} is not protected");
        }
        assert!(verify(&machine, &quote[..quote.len() - 1], NOW).is_err());
    }

    #[test]
    fn a_truly_signed_bad_state_is_refused_for_that_state() {
        let mut machine = tdx_machine();
        machine.td_attributes |= 1;
        refused(&machine, "Debug mode");
        let mut machine = tdx_machine();
        machine.td_attributes = 0;
        refused(&machine, "SEPT_VE_DISABLE");
        let mut machine = tdx_machine();
        machine.endorsements.tcb_status = TcbStatus::OutOfDate;
        machine.endorsements.advisory_ids = vec!["INTEL-SA-00000".to_owned()];
        refused(&machine, "OutOfDate");
        let mut machine = tdx_machine();
        machine.endorsements.module_status = TcbStatus::OutOfDate;
        refused(&machine, "OutOfDate");
        let mut machine = tdx_machine();
        machine.endorsements.qe_status = TcbStatus::Revoked;
        refused(&machine, "Revoked");
        let platform = PckFields { smt_enabled: true, ..PckFields::default() };
        refused(&TdxMachine::on_platform(&intel_root(), &platform, [1; 48], [[0; 48]; 4]).unwrap(), "SMT");
    }

    #[test]
    fn revocation_and_dates_are_honoured() {
        for revoked in [Revoked::Pck, Revoked::PlatformCa] {
            let mut machine = tdx_machine();
            machine.endorsements.revoked = revoked;
            refused(&machine, "Revoked");
        }
        let machine = tdx_machine();
        let quote = machine.quote(&[0x5a; 64]).unwrap();
        assert!(verify(&machine, &quote, NOW + 28 * DAY).is_ok());
        assert!(verify(&machine, &quote, NOW + 30 * DAY).is_err());
        assert!(verify(&machine, &quote, NOW - 2 * DAY).is_err());
    }

    #[test]
    fn collateral_survives_json() {
        let machine = tdx_machine();
        let read: dcap_qvl::QuoteCollateralV3 = serde_json::from_str(&machine.collateral_json().unwrap()).unwrap();
        let quote = machine.quote(&[1; 64]).unwrap();
        let verifier = QuoteVerifier::new(intel_root().root_der().to_vec());
        assert_eq!(verifier.verify(&quote, &read, NOW).unwrap().status, "UpToDate");
    }
}
