//! The certificate table that a host hands out with an extended report (GHCB specification 56421): entries of GUID, offset
//! and length, a zero entry, then what they point to. It is told by its outer form; what is in it counts as anything else
//! that came from a host does: not at all, until a root has signed it.

use super::{Piece, SEQUENCE, der};

/// Bytes of one entry of a certificate table: GUID, offset, length (GHCB specification 56421).
const TABLE_ENTRY: usize = 24;
/// Entries read of a certificate table.
const TABLE_ENTRIES: usize = 16;
/// What a certificate table holds, each entry by its content; it is the host's word, roots in it too.
///
/// # Errors
/// The entry that is not understood.
pub(in super::super) fn table_pieces(table: &[u8]) -> Result<Vec<Piece>, String> {
    let (entries, _) = table.as_chunks::<TABLE_ENTRY>();
    let used = entries.iter().take(TABLE_ENTRIES).take_while(|entry| **entry != [0; TABLE_ENTRY]);
    used.map(|entry| {
        let range = table_range(entry).ok_or("an entry of the certificate table points outside of it")?;
        der(table.get(range).unwrap_or_default())
    })
    .collect()
}

/// Whether the bytes have the outer form of a certificate table: entries that point into it, then a zero entry. What is
/// in it is read, strictly, when Evidence is judged.
pub(super) fn is_table(bytes: &[u8]) -> bool {
    let (entries, _) = bytes.as_chunks::<TABLE_ENTRY>();
    let end = entries.iter().take(TABLE_ENTRIES).position(|entry| *entry == [0; TABLE_ENTRY]);
    let Some(count @ 1..) = end else { return false };
    let begins = |entry| table_range(entry).and_then(|range| bytes.get(range)).and_then(<[u8]>::first);
    entries.iter().take(count).all(|entry| begins(entry) == Some(&SEQUENCE))
}

/// Where an entry of a certificate table says that its certificate lies.
fn table_range(entry: &[u8; TABLE_ENTRY]) -> Option<std::ops::Range<usize>> {
    let [.., a, b, c, d, e, f, g, h] = *entry;
    let offset = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    let length = usize::try_from(u32::from_le_bytes([e, f, g, h])).ok()?;
    Some(offset..offset.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_points_into_itself_and_ends() {
        let entry = |offset: u32, length: u32| [&[7; 16][..], &offset.to_le_bytes(), &length.to_le_bytes()].concat();
        let table = |entry: Vec<u8>| [entry, vec![0; 24], vec![SEQUENCE, 0]].concat();
        assert!(is_table(&table(entry(48, 2))));
        assert!(!is_table(&table(entry(48, 3))), "beyond its end");
        assert!(!is_table(&table(entry(u32::MAX, u32::MAX))));
        assert!(!is_table(&table(entry(24, 2))), "not at a certificate");
        assert!(!is_table(&[0; 48]), "without an entry");
        assert!(!is_table(&entry(0, 1)), "without an end");
    }

    proptest! {
        #[test]
        fn arbitrary_tables_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (is_table(&bytes), table_pieces(&bytes));
        }
    }
}
