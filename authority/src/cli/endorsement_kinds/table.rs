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
    used.filter(|entry| of_amd(entry))
        .map(|entry| {
            let range = table_range(entry).ok_or("an entry of the certificate table points outside of it")?;
            der(table.get(range).unwrap_or_default()).map_err(|error| error.to_string())
        })
        .collect()
}

/// Whether the bytes have the outer form of a certificate table: entries that point into it, one of AMD's among them, then
/// a zero entry. What is in it is read, strictly, when Evidence is judged.
pub(super) fn is_table(bytes: &[u8]) -> bool {
    let (entries, _) = bytes.as_chunks::<TABLE_ENTRY>();
    let end = entries.iter().take(TABLE_ENTRIES).position(|entry| *entry == [0; TABLE_ENTRY]);
    let used = entries.get(..end.unwrap_or_default()).unwrap_or_default();
    let held = |entry| table_range(entry).and_then(|range| bytes.get(range));
    let begins = |entry| held(entry).and_then(<[u8]>::first) == Some(&SEQUENCE);
    used.iter().any(of_amd)
        && used.iter().all(|entry| if of_amd(entry) { begins(entry) } else { held(entry).is_some() })
}

/// Whether AMD says what the entry holds: VCEK, VLEK, ASK, ARK, CRL. A host may put in others, which are nobody's business.
/// The first three groups of a GUID are found in either order of bytes.
fn of_amd(entry: &[u8; TABLE_ENTRY]) -> bool {
    const KNOWN: [u128; 5] = [
        0x63da758d_e664_4564_adc5_f4b93be8accd,
        0xa8074bc2_a25a_483e_aae6_39c045a0b8a1,
        0x4ab7b379_bbac_4fe4_a02f_05aef327c782,
        0xc0b406a4_a803_4952_9743_3fb6014cd0ae,
        0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea,
    ];
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *entry;
    let orders = [[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]];
    orders.iter().any(|guid| KNOWN.contains(&u128::from_be_bytes(*guid)))
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
        let vcek = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
        let of = |guid: [u8; 16], offset: u32, length: u32| {
            [&guid[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
        };
        let entry = |offset, length| of(vcek, offset, length);
        let table = |entry: Vec<u8>| [entry, vec![0; 24], vec![SEQUENCE, 0]].concat();
        assert!(is_table(&table(entry(48, 2))));
        assert!(!is_table(&table(entry(48, 3))), "beyond its end");
        assert!(!is_table(&table(entry(u32::MAX, u32::MAX))));
        assert!(!is_table(&table(entry(24, 2))), "not at a certificate");
        assert!(!is_table(&[0; 48]), "without an entry");
        assert!(!is_table(&entry(0, 1)), "without an end");
        assert!(!is_table(&table(of([7; 16], 48, 2))), "nothing of AMD's");
        // Another's entry is nobody's business, but for its range.
        let two = |end| [entry(72, 2), of([7; 16], 74, end), vec![0; 24], vec![SEQUENCE, 0, 1]].concat();
        assert!(is_table(&two(1)) && !is_table(&two(2)));
    }

    proptest! {
        #[test]
        fn arbitrary_tables_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (is_table(&bytes), table_pieces(&bytes));
        }
    }
}
