//! What a TD report body says (TDX module ABI 348551, TDINFO; TDX DCAP quote format, "TD Report Body"). Fields by their
//! place; nothing here is believed before the quote's signature verifies.

use crate::evidence::fields::{FieldError, Fields};

/// A TD report body. 1.0 has 584 bytes, 1.5 has 64 more.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) tee_tcb_svn: [u8; 16],
    pub(super) mr_seam: [u8; 48],
    pub(super) mr_signer_seam: [u8; 48],
    pub(super) seam_attributes: [u8; 8],
    pub(super) td_attributes: [u8; 8],
    pub(super) xfam: [u8; 8],
    pub(super) mrtd: [u8; 48],
    pub(super) mr_config_id: [u8; 48],
    pub(super) mr_owner: [u8; 48],
    pub(super) mr_owner_config: [u8; 48],
    pub(super) rtmrs: [[u8; 48]; 4],
    pub(super) report_data: [u8; 64],
    /// TEE_TCB_SVN2 and MRSERVICETD of a TD 1.5.
    pub(super) later: Option<([u8; 16], [u8; 48])>,
}

impl Body {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut fields = Fields::of(bytes, "the TD report body");
        let mut body = Self {
            tee_tcb_svn: fields.array()?,
            mr_seam: fields.array()?,
            mr_signer_seam: fields.array()?,
            seam_attributes: fields.array()?,
            td_attributes: fields.array()?,
            xfam: fields.array()?,
            mrtd: fields.array()?,
            mr_config_id: fields.array()?,
            mr_owner: fields.array()?,
            mr_owner_config: fields.array()?,
            rtmrs: [fields.array()?, fields.array()?, fields.array()?, fields.array()?],
            report_data: fields.array()?,
            later: None,
        };
        if !fields.remainder().is_empty() {
            body.later = Some((fields.array()?, fields.array()?));
        }
        fields.end()?;
        Ok(body)
    }
}
