//! What a TD report body says (TDX module ABI 348551, TDINFO; TDX DCAP quote format, "TD Report Body"). Fields by their
//! place; nothing here is believed before the quote's signature verifies.

use crate::evidence::claims::TdExtension;
use crate::evidence::fields::{FieldError, Fields};

/// A TD report body. 1.0 has 584 bytes, 1.5 has 64 more, and its extension another 237.
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
    /// The extension of a TD 1.5.
    pub(super) extension: Option<TdExtension>,
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
            extension: None,
        };
        if !fields.remainder().is_empty() {
            body.later = Some((fields.array()?, fields.array()?));
        }
        if !fields.remainder().is_empty() {
            body.extension = Some(extension(&mut fields)?);
        }
        fields.end()?;
        Ok(body)
    }
}

fn extension(fields: &mut Fields<'_>) -> Result<TdExtension, FieldError> {
    let vm_id = fields.byte()?;
    let (td_id, device_info, initial_service_td) = (fields.array()?, fields.array()?, fields.array()?);
    fields.block(8)?; // attributes of the service TDs at the creation
    fields.block(16 + 16 + 12)?; // CPUSVN, TEE_TCB_SVN and FMSPC of the platform that the TD was created on
    let current_service_td = fields.array()?;
    fields.block(8)?; // attributes of the service TDs that are bound now
    Ok(TdExtension { vm_id, td_id, device_info, initial_service_td, current_service_td })
}
