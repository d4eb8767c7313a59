//! What Linux's integrity measurement architecture extends PCR 10 with by itself, before any policy is loaded.
//!
//! Source: Linux `security/integrity/ima` (`ima_init.c`, `ima_crypto.c`, `ima_template.c`): one record that binds PCRs
//! 0 to 9, hashed for each bank since 5.8. Which template it has is a choice of the kernel's configuration
//! (IMA_DEFAULT_TEMPLATE), and so is whether there is one.
//!
//! Nothing foreign is parsed. Never models a policy: `ima_policy=` on the command line measures files as they are read.

use std::collections::BTreeMap;

use super::PcrEvent;
use crate::digest::{Digest, sha256};
use crate::made_from::Part;

/// What the kernel records of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ima {
    /// One record of the template ima-sig, as kernels of Debian and Fedora make it.
    #[default]
    Sig,
    /// One record of the template ima-ng, the upstream default.
    Ng,
    /// None: a kernel without IMA.
    Absent,
}

const NAME: &[u8] = b"boot_aggregate\0";

impl Ima {
    /// The record over these registers, of which 0 to 9 are taken.
    pub(super) fn events(self, pcrs: &BTreeMap<u8, Digest<32>>) -> Option<PcrEvent> {
        let signature: &[&[u8]] = match self {
            Self::Sig => &[b""],
            Self::Ng => &[],
            Self::Absent => return None,
        };
        let registers: Vec<u8> = pcrs.range(0..=9).flat_map(|(_, value)| *value.as_bytes()).collect();
        let aggregate = [b"sha256:\0", sha256(&registers).as_bytes().as_slice()].concat();
        let fields = [&aggregate, NAME].into_iter().chain(signature.iter().copied());
        let record: Vec<u8> = fields.flat_map(|field| [&length(field), field].concat()).collect();
        Some(PcrEvent::new(10, Part::Constant, "integrity record boot_aggregate over PCRs 0 to 9", sha256(&record)))
    }
}

/// A field's length, u32 little-endian; no field of the record has more than 40 bytes.
fn length(field: &[u8]) -> [u8; 4] {
    u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes()
}
