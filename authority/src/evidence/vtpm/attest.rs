//! TPMS_ATTEST of a quote (TPM 2.0 library part 2 §10.12; big-endian), read to its last byte. The magic value is what
//! keeps it apart from anything else that the key could have signed: a restricted key signs foreign bytes only when
//! they do not begin with it.

use thiserror::Error;

use crate::evidence::fields::{FieldError, Fields};

const ATTEST: &str = "TPMS_ATTEST";
/// TPM_GENERATED_VALUE.
const MAGIC: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
const QUOTE: u16 = 0x8018;
/// TPM_ALG_SHA256.
pub(super) const SHA256: u16 = 0x000b;
/// Longest Name, in bytes: algorithm and SHA-512.
const NAME_LIMIT: usize = 66;
/// Longest extraData, in bytes: TPM2B_DATA holds what the largest digest needs.
const EXTRA_DATA_LIMIT: usize = 66;
/// One bank, PCRs 0 to 23 all selected: hash, size of bitmap, bitmap.
const ALL_PCRS: (u16, [u8; 4]) = (SHA256, [3, 0xff, 0xff, 0xff]);

/// Why bytes are not a quote that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::evidence) enum AttestError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the attested structure was not made by a TPM (magic value)")]
    Magic,
    #[error("the attested structure is of type {0:#06x}, not a quote")]
    Type(u16),
    #[error("a name or nonce in the TPM quote is too long")]
    Length,
    #[error("the quote does not select exactly PCRs 0 to 23 of the SHA-256 bank")]
    Selection,
}

/// What the TPM says in a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attest {
    pub(super) extra_data: Vec<u8>,
    pub(super) clock: u64,
    pub(super) reset_count: u32,
    pub(super) restart_count: u32,
    pub(super) clock_safe: bool,
    pub(super) firmware_version: u64,
    pub(super) pcr_digest: [u8; 32],
}

impl Attest {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut fields = Fields::of(bytes, ATTEST);
        if fields.u32_be()? != MAGIC {
            return Err(AttestError::Magic);
        }
        match fields.u16_be()? {
            QUOTE => {}
            other => return Err(AttestError::Type(other)),
        }
        let name = fields.counted_u16_be()?;
        let extra_data = fields.counted_u16_be()?;
        if name.len() > NAME_LIMIT || extra_data.len() > EXTRA_DATA_LIMIT {
            return Err(AttestError::Length);
        }
        let (clock, reset_count, restart_count) = (fields.u64_be()?, fields.u32_be()?, fields.u32_be()?);
        let clock_safe = match fields.byte()? {
            0 => false,
            1 => true,
            _ => return Err(FieldError::Reserved(ATTEST).into()),
        };
        let firmware_version = fields.u64_be()?;
        if fields.u32_be()? != 1 || (fields.u16_be()?, fields.array()?) != ALL_PCRS {
            return Err(AttestError::Selection);
        }
        let pcr_digest = fields.counted_u16_be()?.try_into().map_err(|_| AttestError::Length)?;
        fields.end()?;
        let extra_data = extra_data.to_vec();
        Ok(Self { extra_data, clock, reset_count, restart_count, clock_safe, firmware_version, pcr_digest })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attest() -> Vec<u8> {
        [
            &MAGIC.to_be_bytes()[..],
            &QUOTE.to_be_bytes(),
            &[0, 2, 7, 7],
            &[0, 3, 1, 2, 3],
            &9u64.to_be_bytes(),
            &4u32.to_be_bytes(),
            &5u32.to_be_bytes(),
            &[1],
            &6u64.to_be_bytes(),
            &1u32.to_be_bytes(),
            &[0, 0x0b, 3, 0xff, 0xff, 0xff],
            &[0, 32],
            &[8; 32],
        ]
        .concat()
    }

    #[test]
    fn a_quote_is_read_to_its_last_byte() {
        let read = Attest::parse(&attest()).unwrap();
        assert_eq!((read.extra_data.as_slice(), read.clock, read.reset_count), (&[1, 2, 3][..], 9, 4));
        assert_eq!((read.restart_count, read.clock_safe, read.firmware_version), (5, true, 6));
        assert_eq!(read.pcr_digest, [8; 32]);
        for end in 0..attest().len() {
            assert!(Attest::parse(&attest()[..end]).is_err(), "cut at {end}");
        }
        let longer = [attest(), vec![0]].concat();
        assert_eq!(Attest::parse(&longer), Err(AttestError::Field(FieldError::Trailing(ATTEST))));
    }

    #[test]
    fn other_structures_and_selections_are_refused() {
        for (offset, value, error) in [
            (0, 0, AttestError::Magic),
            (5, 0x17, AttestError::Type(0x8017)),
            (31, 2, AttestError::Field(FieldError::Reserved(ATTEST))),
            (43, 2, AttestError::Selection),
            (45, 0x0c, AttestError::Selection),
            (47, 0x7f, AttestError::Selection),
        ] {
            let mut bytes = attest();
            bytes[offset] = value;
            assert_eq!(Attest::parse(&bytes), Err(error), "byte {offset}");
        }
    }

    #[test]
    fn a_quote_of_a_real_tpm_is_read() {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
        let folder = std::env::var_os("INWIT_VECTORS").unwrap_or_else(|| beside.into());
        let folder = std::path::Path::new(&folder).join("confidential-containers+trustee/az-snp-vtpm");
        let (Ok(bytes), Ok(some_pcrs)) =
            (std::fs::read(folder.join("quote.bin")), std::fs::read(folder.join("tpm-quote.msg")))
        else {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), b"NOT RUN: 2 real TPM quotes (set INWIT_VECTORS)\n");
            return;
        };
        // Length and signature of 256 bytes, length and attestation of 122 bytes, count and values of the PCRs.
        let (attest, pcrs) = (&bytes[272..394], &bytes[402..402 + 24 * 32]);
        let read = Attest::parse(attest).unwrap();
        assert_eq!(read.extra_data, b"challenge");
        assert_eq!(read.pcr_digest, inwit_protocol::primitives::sha256(pcrs));
        assert_eq!(Attest::parse(&some_pcrs), Err(AttestError::Selection), "PCRs 0 to 9 and some others only");
    }

    proptest! {
        #[test]
        fn damaged_quotes_never_panic(position in 0usize..90, value: u8, tail in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = attest();
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
            bytes.truncate(position.max(20));
            bytes.extend(tail);
            let _ = Attest::parse(&bytes);
        }
    }
}
