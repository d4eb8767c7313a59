//! The TD quoting enclave, which holds the attestation key: its report signed by the platform's PCK, the key in its report
//! data, and the report against the identity that Intel signed (Intel SGX REPORT body, 384 bytes; numbers little-endian).

use thiserror::Error;

use super::documents::{EnclaveDocument, SvnLevel};
use super::issued::PublicKey;
use crate::evidence::cache::Cache;
use crate::evidence::crypto::ecdsa_p256;
use crate::evidence::fields::{FieldError, Fields};
use crate::evidence::x509::Window;
use inwit_protocol::primitives::sha256;

use super::parts::framed;

/// DEBUG in the enclave's attributes.
const DEBUG: u8 = 0x02;

/// Why the quoting enclave is not the one that Intel names.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum EnclaveError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the quoting enclave's report is not signed with the key of the PCK certificate")]
    Signature,
    #[error("the quoting enclave's report was made for another attestation key")]
    AttestationKey,
    #[error("the quoting enclave's report data is not zero after the key digest")]
    ReportData,
    #[error("{0} of the quoting enclave is not the one in Intel's QE identity")]
    Identity(&'static str),
    #[error("the quoting enclave runs in debug mode")]
    Debug,
    #[error("the quoting enclave of ISVSVN {0} is below every level of the QE identity")]
    Level(u16),
}

/// The report as the quote carries it, with what it is verified with.
pub(super) struct Presented<'a> {
    pub(super) report: &'a [u8; 384],
    pub(super) signature: &'a [u8; 64],
    pub(super) attestation_key: &'a [u8; 64],
    pub(super) authentication_data: &'a [u8],
}

/// Fields of a report that was signed by a platform and speaks for the attestation key.
#[derive(Debug)]
pub(super) struct Enclave {
    misc_select: [u8; 4],
    attributes: [u8; 16],
    signer: [u8; 32],
    product: u16,
    pub(super) isvsvn: u16,
}

impl Presented<'_> {
    /// Verifies that `pck` signed the report and that the report names the attestation key. The same bytes come with every
    /// quote of one platform, and their signature is verified once.
    ///
    /// # Errors
    /// [`EnclaveError`].
    pub(super) fn verify(&self, pck: &PublicKey, verified: &Cache<()>) -> Result<Enclave, EnclaveError> {
        let inputs = [pck.as_slice(), self.report, self.signature];
        // No date has a part in it.
        let always = Window { from: 0, until: u64::MAX };
        verified.get_or_verify(framed(inputs.into_iter()), 0, || {
            ecdsa_p256(pck, self.report, self.signature).map_err(|_| EnclaveError::Signature)?;
            Ok::<_, EnclaveError>((always, ()))
        })?;
        let (enclave, report_data) = Enclave::read(self.report)?;
        let (digest, rest) = report_data.split_at(32);
        if digest != sha256(&[self.attestation_key, self.authentication_data].concat()) {
            return Err(EnclaveError::AttestationKey);
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(EnclaveError::ReportData);
        }
        Ok(enclave)
    }
}

impl Enclave {
    fn read(report: &[u8; 384]) -> Result<(Self, [u8; 64]), FieldError> {
        let mut fields = Fields::of(report, "the quoting enclave's report");
        fields.block(16)?; // CPUSVN
        let misc_select = fields.array()?;
        fields.block(28)?;
        let attributes = fields.array()?;
        fields.block(32 + 32)?; // MRENCLAVE, which changes with every release; reserved
        let signer = fields.array()?;
        fields.block(96)?;
        let (product, isvsvn) = (fields.u16_le()?, fields.u16_le()?);
        fields.block(60)?;
        let report_data = fields.array()?;
        fields.end()?;
        Ok((Self { misc_select, attributes, signer, product, isvsvn }, report_data))
    }

    /// Compares the report with Intel's identity and gives the level that it reaches.
    ///
    /// # Errors
    /// [`EnclaveError`] names what differs.
    pub(super) fn level<'d>(&self, identity: &'d EnclaveDocument) -> Result<&'d SvnLevel, EnclaveError> {
        let [first, ..] = self.attributes;
        let differs = |have: &[u8], expected: &[u8], mask: &[u8]| {
            have.iter().zip(expected).zip(mask).any(|((have, expected), mask)| have & mask != expected & mask)
        };
        if self.signer != identity.signer {
            return Err(EnclaveError::Identity("MRSIGNER"));
        }
        if self.product != identity.product {
            return Err(EnclaveError::Identity("ISVPRODID"));
        }
        if differs(&self.misc_select, &identity.misc_select, &identity.misc_select_mask) {
            return Err(EnclaveError::Identity("MISCSELECT"));
        }
        if differs(&self.attributes, &identity.attributes, &identity.attributes_mask) {
            return Err(EnclaveError::Identity("ATTRIBUTES"));
        }
        // Whatever the identity's mask leaves out: a debugger reads the attestation key.
        if first & DEBUG != 0 {
            return Err(EnclaveError::Debug);
        }
        let reached = identity.levels.iter().filter(|level| level.isvsvn <= self.isvsvn);
        reached.max_by_key(|level| level.isvsvn).ok_or(EnclaveError::Level(self.isvsvn))
    }
}
