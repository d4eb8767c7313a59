//! The certificate table that a host hands over beside an extended report (GHCB specification 56421, "extended guest
//! request"): entries of GUID, offset and length, a zero entry, then the certificates. It comes from the host and is a
//! cache: what is in it counts only after its chain has been verified to a configured root.

use thiserror::Error;

use crate::evidence::fields::{FieldError, Fields};

const TABLE: &str = "the host's certificate table";
/// Entries read at most; AMD defines five.
const ENTRY_LIMIT: usize = 16;

const VCEK: u128 = 0x63da758d_e664_4564_adc5_f4b93be8accd;
const VLEK: u128 = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1;
const ASK: u128 = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782;

/// Why bytes are not a certificate table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TableError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the host's certificate table has more than {ENTRY_LIMIT} entries")]
    Entries,
    #[error("an entry of the host's certificate table points outside of it")]
    Range,
    #[error("the host's certificate table names the same certificate twice")]
    Twice,
}

/// What was found. All of it unauthenticated DER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CertificateTable<'a> {
    pub(crate) vcek: Option<&'a [u8]>,
    pub(crate) vlek: Option<&'a [u8]>,
    /// ASK or ASVK, whichever signed the key above.
    pub(crate) ask: Option<&'a [u8]>,
}

impl<'a> CertificateTable<'a> {
    /// Reads a table. No bytes at all are a table without entries: the host has no certificates.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let mut table = Self::default();
        if bytes.is_empty() {
            return Ok(table);
        }
        let mut fields = Fields::of(bytes, TABLE);
        for _ in 0..=ENTRY_LIMIT {
            let (guid, offset, length) = (fields.array()?, fields.u32_le()?, fields.u32_le()?);
            if guid == [0; 16] && offset == 0 && length == 0 {
                return Ok(table);
            }
            let slot = match text_order(guid) {
                Some(VCEK) => &mut table.vcek,
                Some(VLEK) => &mut table.vlek,
                Some(ASK) => &mut table.ask,
                // Among them the ARK: a root is never taken from a host, not even to compare.
                _ => continue,
            };
            if slot.is_some() {
                return Err(TableError::Twice);
            }
            *slot = Some(slice(bytes, offset, length).ok_or(TableError::Range)?);
        }
        Err(TableError::Entries)
    }
}

fn slice(bytes: &[u8], offset: u32, length: u32) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    bytes.get(start..end)
}

/// A known GUID as a number. Most hosts write the bytes in the order of the text; some write the first three groups
/// little-endian. Both name the same certificate.
fn text_order(guid: [u8; 16]) -> Option<u128> {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let [i, j, k, l, m, n, o, p] = rest;
    let mixed = u128::from_be_bytes([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]);
    [u128::from_be_bytes(guid), mixed].into_iter().find(|number| [VCEK, VLEK, ASK].contains(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(guid: [u8; 16], offset: u32, length: u32) -> Vec<u8> {
        [&guid[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
    }

    fn table(entries: &[Vec<u8>]) -> Vec<u8> {
        [entries.concat(), vec![0; 24], b"certificate".to_vec()].concat()
    }

    #[test]
    fn certificates_are_found_in_either_byte_order_and_unknown_ones_passed_over() {
        let mut mixed = ASK.to_be_bytes();
        mixed[0..4].reverse();
        mixed[4..6].reverse();
        mixed[6..8].reverse();
        let bytes = table(&[entry(VCEK.to_be_bytes(), 96, 4), entry([7; 16], 0, 0), entry(mixed, 100, 7)]);
        let read = CertificateTable::parse(&bytes).unwrap();
        assert_eq!((read.vcek, read.ask), (Some(&b"cert"[..]), Some(&b"ificate"[..])));
        assert_eq!(read.vlek, None);
        assert_eq!(CertificateTable::parse(&[]).unwrap(), CertificateTable::default());
    }

    #[test]
    fn ranges_ends_and_repetitions_are_checked() {
        let vcek = |offset, length| entry(VCEK.to_be_bytes(), offset, length);
        assert_eq!(CertificateTable::parse(&table(&[vcek(48, 12)])), Err(TableError::Range));
        assert_eq!(CertificateTable::parse(&table(&[vcek(u32::MAX, u32::MAX)])), Err(TableError::Range));
        assert_eq!(CertificateTable::parse(&table(&[vcek(72, 1), vcek(72, 1)])), Err(TableError::Twice));
        assert_eq!(CertificateTable::parse(&vcek(0, 1)), Err(TableError::Field(FieldError::Short(TABLE))));
        let many = entry([9; 16], 0, 0).repeat(17);
        assert_eq!(CertificateTable::parse(&many), Err(TableError::Entries));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = CertificateTable::parse(&bytes);
            let _ = CertificateTable::parse(&[&VCEK.to_be_bytes(), &bytes[..]].concat());
        }
    }
}
