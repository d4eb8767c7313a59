//! ATTESTATION_REPORT of SEV-SNP, 1,184 bytes, read strictly (firmware ABI 56860: revision 1.55 for version 2, 1.56 and
//! 1.57 for version 3, 1.58 for version 5; version 4 has the layout of 3). All integers little-endian. Every byte is read
//! and every reserved field must be zero, so that what is signed has one form. Its signature has two, as any of ECDSA's
//! has, (r, s) and (r, n - s): a report is not to be told by the digest of all of its bytes. Parsing authenticates nothing:
//! no field is worth anything before the signature over it is verified.

use thiserror::Error;

use super::policy_bits::{GuestPolicy, PlatformInfo};
use crate::evidence::fields::{FieldError, Fields};

/// Length of a report in bytes.
pub(crate) const REPORT_LENGTH: usize = 0x4a0;
/// Length of what the signature covers, in bytes.
const SIGNED_LENGTH: usize = 0x2a0;
/// Bytes of R and of S as the report holds them, little-endian; a P-384 scalar needs 48.
const SCALAR_FIELD: usize = 72;
const REPORT: &str = "the SNP report";
const SIGNATURE: &str = "the signature of the SNP report";
/// SIGNATURE_ALGO of ECDSA P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
/// VMPL of a report that the host asked for.
const HOST_REQUESTED: u32 = u32::MAX;

/// Why bytes are not a report that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ReportError {
    #[error("an SNP report has 1184 bytes, this quote has {0}")]
    Length(usize),
    #[error("SNP report version {0} is not known here (2 to 5 are)")]
    Version(u32),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the SNP report names signature algorithm {0}, not ECDSA P-384 with SHA-384")]
    Algorithm(u32),
    #[error("VMPL {0} does not exist")]
    Vmpl(u32),
    #[error("bit 17 of the guest policy is zero, or a bit is set that is not known here")]
    Policy,
    #[error("a reserved bit beside SIGNING_KEY is set")]
    KeyBits,
    #[error("SIGNING_KEY {0} is not known here")]
    SigningKey(u32),
    #[error("the host masked the chip key, so the report is signed by nobody")]
    Unsigned,
}

/// Which kind of endorsement key signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SigningKey {
    Vcek,
    Vlek,
}

/// The fields of a report as written; TCB_VERSIONs stay bytes until the product, which gives their layout, is known.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) version: u32,
    pub(crate) guest_svn: u32,
    pub(crate) policy: GuestPolicy,
    pub(crate) family_id: [u8; 16],
    pub(crate) image_id: [u8; 16],
    pub(crate) vmpl: u32,
    pub(crate) current_tcb: [u8; 8],
    pub(crate) platform_info: PlatformInfo,
    pub(crate) signing_key: SigningKey,
    pub(crate) report_data: [u8; 64],
    pub(crate) measurement: [u8; 48],
    pub(crate) host_data: [u8; 32],
    pub(crate) id_key_digest: [u8; 48],
    pub(crate) author_key_digest: [u8; 48],
    pub(crate) report_id: [u8; 32],
    pub(crate) report_id_ma: [u8; 32],
    pub(crate) reported_tcb: [u8; 8],
    /// CPUID family, model and stepping; absent in version 2.
    pub(crate) cpuid: Option<[u8; 3]>,
    pub(crate) chip_id: [u8; 64],
    pub(crate) committed_tcb: [u8; 8],
    /// Build, minor, major.
    pub(crate) current_firmware: [u8; 3],
    /// Build, minor, major.
    pub(crate) committed_firmware: [u8; 3],
    pub(crate) launch_tcb: [u8; 8],
    /// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR; absent before version 5.
    pub(crate) mitigations: Option<(u64, u64)>,
    /// R ‖ S, big-endian, 48 bytes each.
    pub(crate) signature: [u8; 96],
}

impl Report {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let report: &[u8; REPORT_LENGTH] = bytes.try_into().map_err(|_| ReportError::Length(bytes.len()))?;
        let mut fields = Fields::of(report, REPORT);
        let version = match fields.u32_le()? {
            known @ 2..=5 => known,
            other => return Err(ReportError::Version(other)),
        };
        let guest_svn = fields.u32_le()?;
        let policy = GuestPolicy::parse(fields.u64_le()?).ok_or(ReportError::Policy)?;
        let (family_id, image_id) = (fields.array()?, fields.array()?);
        let vmpl = match fields.u32_le()? {
            level @ (0..=3 | HOST_REQUESTED) => level,
            other => return Err(ReportError::Vmpl(other)),
        };
        match fields.u32_le()? {
            ECDSA_P384_SHA384 => {}
            other => return Err(ReportError::Algorithm(other)),
        }
        let current_tcb = fields.array()?;
        let platform_info = PlatformInfo::of(fields.u64_le()?);
        let signing_key = signing_key(fields.u32_le()?)?;
        fields.zeros(4)?;
        let (report_data, measurement, host_data) = (fields.array()?, fields.array()?, fields.array()?);
        let (id_key_digest, author_key_digest) = (fields.array()?, fields.array()?);
        let (report_id, report_id_ma, reported_tcb) = (fields.array()?, fields.array()?, fields.array()?);
        let cpuid = cpuid(&mut fields, version)?;
        let (chip_id, committed_tcb) = (fields.array()?, fields.array()?);
        let (current_firmware, committed_firmware) = (firmware(&mut fields)?, firmware(&mut fields)?);
        let (launch_tcb, mitigations) = (fields.array()?, mitigations(&mut fields, version)?);
        fields.zeros(152)?;
        let signature = signature(fields.remainder())?;
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform_info,
            signing_key,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            cpuid,
            chip_id,
            committed_tcb,
            current_firmware,
            committed_firmware,
            launch_tcb,
            mitigations,
            signature,
        })
    }

    /// The bytes that the signature covers, of a report that [`Report::parse`] took.
    pub(crate) fn signed(bytes: &[u8]) -> &[u8] {
        bytes.get(..SIGNED_LENGTH).unwrap_or_default()
    }
}

/// Bit 0 AUTHOR_KEY_EN, bit 1 MASK_CHIP_KEY, bits 4:2 SIGNING_KEY, the rest reserved.
fn signing_key(bits: u32) -> Result<SigningKey, ReportError> {
    if bits >> 5 != 0 {
        return Err(ReportError::KeyBits);
    }
    match (bits >> 1 & 1, bits >> 2 & 7) {
        (1, _) | (0, 7) => Err(ReportError::Unsigned),
        (_, 0) => Ok(SigningKey::Vcek),
        (_, 1) => Ok(SigningKey::Vlek),
        (_, other) => Err(ReportError::SigningKey(other)),
    }
}

/// CPUID bytes at 188h with the reserved bytes after them; version 2 reserves all of it.
fn cpuid(fields: &mut Fields<'_>, version: u32) -> Result<Option<[u8; 3]>, FieldError> {
    if version < 3 {
        fields.zeros(24)?;
        return Ok(None);
    }
    let cpuid = fields.array()?;
    fields.zeros(21)?;
    Ok(Some(cpuid))
}

fn firmware(fields: &mut Fields<'_>) -> Result<[u8; 3], FieldError> {
    let version = fields.array()?;
    fields.zeros(1)?;
    Ok(version)
}

fn mitigations(fields: &mut Fields<'_>, version: u32) -> Result<Option<(u64, u64)>, FieldError> {
    if version < 5 {
        fields.zeros(16)?;
        return Ok(None);
    }
    Ok(Some((fields.u64_le()?, fields.u64_le()?)))
}

/// R and S to the form that a verification takes. Their padding and the tail lie outside of what is signed: were they
/// not checked, one report would have many forms.
fn signature(bytes: &[u8]) -> Result<[u8; 96], FieldError> {
    let mut fields = Fields::of(bytes, SIGNATURE);
    let mut out = [0; 96];
    for half in out.chunks_exact_mut(48) {
        let scalar: [u8; 48] = fields.array()?;
        fields.zeros(SCALAR_FIELD.saturating_sub(48))?;
        half.iter_mut().zip(scalar.iter().rev()).for_each(|(to, from)| *to = *from);
    }
    let tail = fields.remainder().len();
    fields.zeros(tail)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A version 3 report with nothing in it but what the parser demands.
    fn bare(version: u32) -> Vec<u8> {
        let mut report = vec![0; REPORT_LENGTH];
        report[0..4].copy_from_slice(&version.to_le_bytes());
        report[0x0a] = 2; // policy bit 17
        report[0x34] = 1;
        report
    }

    fn with(version: u32, offset: usize, value: u8) -> Result<Report, ReportError> {
        let mut report = bare(version);
        report[offset] = value;
        Report::parse(&report)
    }

    #[test]
    fn versions_2_to_5_are_read_and_no_other() {
        for version in 2..=5 {
            assert_eq!(Report::parse(&bare(version)).unwrap().version, version);
        }
        for version in [0, 1, 6, 0x0300_0000] {
            assert_eq!(Report::parse(&bare(version)).err(), Some(ReportError::Version(version)));
        }
        assert_eq!(Report::parse(&bare(3)[..1183]).err(), Some(ReportError::Length(1183)));
        assert_eq!(Report::parse(&[bare(3), vec![0]].concat()).err(), Some(ReportError::Length(1185)));
    }

    #[test]
    fn what_a_version_reserves_must_be_zero_and_later_versions_may_use_it() {
        let reserved = Some(ReportError::Field(FieldError::Reserved(REPORT)));
        for (version, offset, refused) in [
            (2, 0x188, true),
            (3, 0x188, false),
            (3, 0x18b, true),
            (3, 0x1f8, true),
            (4, 0x188, false),
            (4, 0x1f8, true),
            (5, 0x1f8, false),
            (3, 0x207, true),
            (5, 0x207, false),
            (5, 0x208, true),
            (5, 0x29f, true),
            (3, 0x04c, true),
            (3, 0x1eb, true),
            (3, 0x1ef, true),
        ] {
            assert_eq!(with(version, offset, 1).err(), reserved.filter(|_| refused), "v{version} at {offset:x}");
        }
    }

    #[test]
    fn signature_padding_and_tail_must_be_zero_and_scalars_turn_around() {
        let reserved = Some(ReportError::Field(FieldError::Reserved(SIGNATURE)));
        for offset in [0x2a0 + 48, 0x2e7, 0x2e8 + 48, 0x330, 0x49f] {
            assert_eq!(with(3, offset, 1).err(), reserved, "{offset:x}");
        }
        assert_eq!(with(3, 0x2a0, 7).unwrap().signature[47], 7);
        assert_eq!(with(3, 0x2e8 + 47, 9).unwrap().signature[48], 9);
    }

    #[test]
    fn the_signing_key_is_read_and_an_unsigned_report_is_refused() {
        assert_eq!(with(3, 0x48, 0).unwrap().signing_key, SigningKey::Vcek);
        assert_eq!(with(3, 0x48, 1).unwrap().signing_key, SigningKey::Vcek); // AUTHOR_KEY_EN
        assert_eq!(with(3, 0x48, 4).unwrap().signing_key, SigningKey::Vlek);
        assert_eq!(with(3, 0x48, 2).err(), Some(ReportError::Unsigned));
        assert_eq!(with(3, 0x48, 28).err(), Some(ReportError::Unsigned));
        assert_eq!(with(3, 0x48, 8).err(), Some(ReportError::SigningKey(2)));
        assert_eq!(with(3, 0x48, 32).err(), Some(ReportError::KeyBits));
    }

    #[test]
    fn algorithm_policy_and_vmpl_are_checked() {
        assert_eq!(with(3, 0x34, 2).err(), Some(ReportError::Algorithm(2)));
        assert_eq!(with(3, 0x0a, 0).err(), Some(ReportError::Policy));
        assert_eq!(with(3, 0x0b, 0x80).err(), Some(ReportError::Policy));
        assert_eq!(with(3, 0x30, 4).err(), Some(ReportError::Vmpl(4)));
    }

    proptest! {
        #[test]
        fn random_reports_never_panic(bytes in proptest::collection::vec(any::<u8>(), REPORT_LENGTH),
                                      version in 0u8..7) {
            let mut report = bytes.clone();
            report[..4].copy_from_slice(&u32::from(version).to_le_bytes());
            let _ = Report::parse(&report);
            let _ = Report::parse(&bytes[..usize::from(bytes[0])]);
        }
    }
}
