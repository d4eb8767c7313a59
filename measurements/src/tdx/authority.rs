//! The entry of db that allows what is started, as firmware measures it when Secure Boot is on.
//!
//! Sources: UEFI 2.10 section 32.4.1 (EFI_SIGNATURE_LIST, EFI_SIGNATURE_DATA); edk2
//! `SecurityPkg/Library/DxeImageVerificationLib`, which measures the whole EFI_SIGNATURE_DATA: owner and certificate or
//! hash.
//!
//! Not trusted: db and the entry given. Never checks that the entry really allows an image; never picks one of several.

use crate::bytes::{array_at, index, u32_at};
use crate::ovmf::guid;

const HEADER: usize = 28;
const OWNER: usize = 16;
/// Types of lists in which firmware looks for what allows an image: X.509 certificates, and SHA-256, SHA-384 and SHA-512
/// of images.
const ALLOWING: [[u8; 16]; 4] = [
    guid(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072),
    guid(0xc1c4_1626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328),
    guid(0xff3e_5307, 0x9fd0, 0x48c9, 0x85f1_8ad5_6c70_1e01),
    guid(0x093e_0fae, 0xa6c4, 0x4f50, 0x9f1b_d41e_2b89_c19a),
];

/// The whole entry of `db` that `given` is: an EFI_SIGNATURE_DATA, or its certificate or hash without the owner.
///
/// # Errors
/// What is wrong with either.
pub(super) fn entry<'a>(db: &'a [u8], given: &[u8]) -> Result<&'a [u8], &'static str> {
    let entries = entries(db).ok_or("the firmware's db is no sequence of signature lists")?;
    if let Some(whole) = entries.iter().find(|entry| **entry == given) {
        return Ok(whole);
    }
    let mut bare = entries.iter().filter(|entry| entry.get(OWNER..) == Some(given));
    match (bare.next(), bare.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err("it is in several entries of the firmware's db: give the one that allows the kernel, \
                                   with its owner GUID")
        }
        (None, _) => Err("it is not an entry of the firmware's db"),
    }
}

/// Entries of the lists that may allow an image. Nothing unless all bytes are lists whose sizes agree.
fn entries(db: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    let mut rest = db;
    // Each turn moves on by at least a list's header, and each entry is longer than its owner.
    while !rest.is_empty() {
        let kind = array_at::<16>(rest, 0)?;
        let [size, header, entry] = [16, 20, 24].map(|at| u32_at(rest, at).and_then(index));
        let (list, next) = rest.split_at_checked(size?)?;
        let signatures = list.get(HEADER.checked_add(header?)?..)?;
        let entry = entry.filter(|entry| *entry > OWNER && signatures.len().is_multiple_of(*entry))?;
        if ALLOWING.contains(&kind) {
            found.extend(signatures.chunks_exact(entry));
        }
        rest = next;
    }
    Some(found)
}

/// A list of X.509 certificates for tests; never part of the product. All entries have the same length.
#[cfg(test)]
pub(super) fn sample(entries: &[&[u8]]) -> Vec<u8> {
    let entry = entries.first().map_or(17, |entry| entry.len());
    let sizes = [HEADER + entries.len() * entry, 0, entry].map(|size| (size as u32).to_le_bytes());
    [ALLOWING[0].as_slice(), &sizes.concat(), &entries.concat()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: &[u8] = b"owner of the keycertificate";
    const OTHER: &[u8] = b"owner of anothercertificata";
    const TWIN: &[u8] = b"owner of anothercertificate";

    /// The certificate alone and any other slice of db stand in it, too: none of them is what is measured.
    #[test]
    fn only_a_whole_entry_is_measured() {
        let db = [sample(&[FIRST]), sample(&[OTHER])].concat();
        for whole in [FIRST, OTHER] {
            assert_eq!(entry(&db, whole), Ok(whole));
            assert_eq!(entry(&db, &whole[OWNER..]), Ok(whole), "the entry, not the certificate");
        }
        for slice in [&db[..], &db[..28], &FIRST[..20], &FIRST[1..], &FIRST[17..], &FIRST[..16], b""] {
            assert_eq!(entry(&db, slice), Err("it is not an entry of the firmware's db"), "{slice:?}");
        }
        let twins = sample(&[FIRST, TWIN]);
        assert_eq!(entry(&twins, TWIN), Ok(TWIN));
        assert!(entry(&twins, b"certificate").unwrap_err().contains("several entries"));
        let mut other_kind = sample(&[FIRST]);
        other_kind[0] ^= 1;
        assert_eq!(entry(&other_kind, FIRST), Err("it is not an entry of the firmware's db"));
    }

    #[test]
    fn a_db_that_is_no_list_is_refused() {
        let good = sample(&[FIRST, OTHER]);
        for (at, bytes) in
            [(16, [0; 4]), (16, [0xff; 4]), (20, [0xff; 4]), (20, [1, 0, 0, 0]), (24, [0; 4]), (24, [16, 0, 0, 0])]
        {
            let mut db = good.clone();
            db[at..at + 4].copy_from_slice(&bytes);
            assert!(entry(&db, FIRST).unwrap_err().contains("no sequence"), "{at} {bytes:?}");
        }
        assert!(entry(&good[..good.len() - 1], FIRST).is_err());
        assert!(entry(&[good.as_slice(), b"x"].concat(), FIRST).is_err());
        assert_eq!(entry(b"", b""), Err("it is not an entry of the firmware's db"));
    }

    proptest! {
        #[test]
        fn changed_lists_never_panic(changes in proptest::collection::vec((0usize..82, any::<u8>()), 1..8)) {
            let mut db = sample(&[FIRST, OTHER]);
            for (at, byte) in changes {
                db[at] = byte;
            }
            let _ = entry(&db, FIRST);
        }
    }
}
