//! Which of two endorsements for the same thing stays. The newer one replaces the older, an older one is declined, and a
//! revocation list of AMD's goes only for one that names everything that it named: AMD signs several lists with one key,
//! and whoever is on any of them is revoked.

use super::item::{Item, Kind};
use super::plan::{Older, Plan, Taken};
use super::stored::Kept;
use std::path::{Path, PathBuf};

/// Takes `item` into the folder of its root; `same_root` are all folders of that root.
///
/// # Errors
/// What is stored and newer.
pub(super) fn place(
    item: Item,
    folder: &Path,
    same_root: &[PathBuf],
    stored: &[Kept],
    older: Older,
    plan: &mut Plan,
) -> Result<(), Box<Kept>> {
    let for_the_same = |folder: &PathBuf, other: &Item| same_root.contains(folder) && same_thing(&item, other);
    let peers: Vec<&Kept> = stored.iter().filter(|kept| for_the_same(&kept.folder, &kept.item)).collect();
    if peers.iter().any(|kept| kept.item.bytes == item.bytes) {
        plan.unchanged.push(item);
        return Ok(());
    }
    // What anybody can have written replaces nothing, and nothing is older for it.
    if plan.unverified.contains(&item.digest()) {
        plan.taken.push(Taken { folder: folder.to_owned(), item, replaced: Vec::new() });
        return Ok(());
    }
    let peers: Vec<&Kept> = peers.into_iter().filter(|kept| !plan.unverified.contains(&kept.item.digest())).collect();
    let newer = |kept: &&&Kept| kept.item.rank > item.rank && covers(&kept.item, &item);
    let newest = peers.iter().filter(newer).max_by_key(|kept| kept.item.rank);
    if let (Some(newest), Older::Declined) = (newest, older) {
        return Err(Box::new((**newest).clone()));
    }
    let goes = |kept: &&Kept| {
        let superseded = kept.item.rank <= item.rank && covers(&item, &kept.item);
        let put_back = older == Older::Accepted && kept.item.rank > item.rank && covers(&kept.item, &item);
        superseded || put_back
    };
    let mut replaced: Vec<Kept> = peers.iter().copied().filter(goes).cloned().collect();
    // What came in the same import and is older, with what it would have replaced.
    let (gone, stays): (Vec<Taken>, Vec<Taken>) = std::mem::take(&mut plan.taken)
        .into_iter()
        .partition(|taken| for_the_same(&taken.folder, &taken.item) && covers(&item, &taken.item));
    plan.taken = stays;
    for kept in gone.into_iter().flat_map(|taken| taken.replaced) {
        if !replaced.iter().any(|other| other.path == kept.path && other.item == kept.item) {
            replaced.push(kept);
        }
    }
    plan.taken.push(Taken { folder: folder.to_owned(), item, replaced });
    Ok(())
}

/// Whether `offered`, which one import brings in for the same root as `item`, makes it pointless: newer, and saying all
/// that it says. A folder that keeps old lists beside new ones is as good as the new ones alone, the second time too.
pub(super) fn outdone(item: &Item, offered: &Item) -> bool {
    same_thing(item, offered) && offered.rank > item.rank && covers(offered, item)
}

fn same_thing(one: &Item, other: &Item) -> bool {
    one.kind == other.kind && one.slot == other.slot
}

/// Whether `one` says everything that `other` does, so that it can stand in its place.
fn covers(one: &Item, other: &Item) -> bool {
    !matches!(one.kind, Kind::AmdList(_)) || one.serials.is_superset(&other.serials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Product;
    use std::collections::BTreeSet;

    fn list(from: u64, serials: &[u8]) -> Item {
        Item {
            kind: Kind::AmdList(Product::Milan),
            name: "revocation list of ARK-Milan".to_owned(),
            issuer: "ARK-Milan".to_owned(),
            window: None,
            rank: (0, from),
            slot: "ARK-Milan".to_owned(),
            serials: serials.iter().map(|serial| vec![*serial]).collect::<BTreeSet<_>>(),
            bytes: [&from.to_be_bytes()[..], serials].concat(),
        }
    }

    /// Begin and serials of what is there after an import.
    fn after(stored: &[Item], offered: Item, older: Older) -> Result<Vec<u64>, u64> {
        let folder = PathBuf::from("snp/milan");
        let kept = |(number, item): (usize, &Item)| Kept {
            path: folder.join(number.to_string()),
            folder: folder.clone(),
            item: item.clone(),
        };
        let stored: Vec<Kept> = stored.iter().enumerate().map(kept).collect();
        let mut plan = Plan::default();
        place(offered, &folder, std::slice::from_ref(&folder), &stored, older, &mut plan)
            .map_err(|newest| newest.item.rank.1)?;
        let gone: Vec<&PathBuf> = plan.taken.iter().flat_map(|taken| &taken.replaced).map(|kept| &kept.path).collect();
        let stays = stored.iter().filter(|kept| !gone.contains(&&kept.path)).map(|kept| kept.item.rank.1);
        let mut all: Vec<u64> = stays.chain(plan.taken.iter().map(|taken| taken.item.rank.1)).collect();
        all.sort_unstable();
        Ok(all)
    }

    #[test]
    fn a_newer_list_replaces_an_older_one_unless_it_forgets_somebody() {
        assert_eq!(after(&[list(1, &[7])], list(2, &[7, 8]), Older::Declined), Ok(vec![2]));
        assert_eq!(after(&[list(1, &[7])], list(2, &[8]), Older::Declined), Ok(vec![1, 2]));
        assert_eq!(after(&[list(1, &[7]), list(2, &[8])], list(3, &[7, 8]), Older::Declined), Ok(vec![3]));
        assert_eq!(after(&[list(1, &[7])], list(1, &[7]), Older::Declined), Ok(vec![1]), "unchanged");
    }

    #[test]
    fn what_comes_with_a_newer_one_of_its_kind_is_outdone_unless_it_adds_somebody() {
        let newer = list(2, &[7]);
        assert!(outdone(&list(1, &[7]), &newer) && outdone(&list(1, &[]), &newer));
        assert!(!outdone(&list(1, &[8]), &newer), "it adds somebody");
        assert!(!outdone(&newer, &newer) && !outdone(&list(3, &[]), &newer), "it is not older");
        assert!(!outdone(&Item { slot: "another".to_owned(), ..list(1, &[]) }, &newer));
    }

    #[test]
    fn an_older_list_is_declined_unless_it_adds_somebody_or_is_asked_for() {
        assert_eq!(after(&[list(2, &[7])], list(1, &[7]), Older::Declined), Err(2));
        assert_eq!(after(&[list(2, &[7])], list(1, &[]), Older::Declined), Err(2));
        assert_eq!(after(&[list(2, &[7])], list(1, &[8]), Older::Declined), Ok(vec![1, 2]));
        assert_eq!(after(&[list(2, &[7])], list(1, &[]), Older::Accepted), Ok(vec![1]));
        assert_eq!(after(&[list(2, &[7])], list(1, &[8]), Older::Accepted), Ok(vec![1, 2]), "nobody is forgotten");
    }
}
