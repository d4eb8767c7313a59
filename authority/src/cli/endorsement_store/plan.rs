//! What an import would change, decided before anything is written: which root each thing belongs to, what it replaces,
//! and what it must not replace. Old signed lists and documents stay genuine for ever, so that whoever could put one back
//! would undo a revocation: an older one is declined unless the person says otherwise.

use super::super::endorsement_kinds::Piece;
use super::super::endorsement_sources::{Handed, Place, found};
use super::homes::{Homeless, Homes};
use super::item::{Item, Kind, items};
use super::precedence::{outdone, place};
use super::stored::Kept;
use crate::audit::hex;
use crate::evidence::Product;
use crate::fault::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What becomes of things that are older than what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Older {
    Declined,
    Accepted,
}

/// One thing that is taken in.
#[derive(Debug)]
pub(in super::super) struct Taken {
    /// The folder of its root, from the store's folder on.
    pub(in super::super) folder: PathBuf,
    pub(in super::super) item: Item,
    /// What goes for it.
    pub(in super::super) replaced: Vec<Kept>,
}

/// What an import changes.
#[derive(Debug, Default)]
pub(in super::super) struct Plan {
    pub(in super::super) taken: Vec<Taken>,
    /// Stored already, byte for byte.
    pub(in super::super) unchanged: Vec<Item>,
    /// Without effect, and why.
    pub(in super::super) set_aside: Vec<(PathBuf, String)>,
    /// Digests of revocation lists, taken or stored, whose issuer's certificate is not at hand.
    pub(in super::super) unverified: BTreeSet<[u8; 32]>,
}

/// Why nothing is imported. Nothing is changed then.
#[derive(Debug)]
pub(in super::super) enum Declined {
    /// Roots that nobody vouched for, with the files that they are in.
    Roots(Vec<(PathBuf, Item)>),
    /// Things older than what is stored: the file, the thing, and the stored one.
    Older(Vec<(PathBuf, Item, Item)>),
    /// Things that the signatures under a trusted root do not let be used, and why.
    Unusable(Vec<(PathBuf, String)>),
    /// No file holds anything that counts here; with what was set aside.
    Nothing(Vec<(PathBuf, String)>),
}

/// Something that is offered.
pub(super) struct Offered {
    pub(super) path: PathBuf,
    place: Place,
    pub(super) item: Item,
}

/// A root that is stored or about to be.
pub(super) struct Root {
    pub(super) folder: PathBuf,
    pub(super) item: Item,
}

/// Decides what of the files that are handed in is taken.
///
/// # Errors
/// A file that cannot be read or understood, or a revocation list that its own root did not sign.
pub(in super::super) fn plan(
    stored: &[Kept],
    handed: &Handed<'_>,
    older: Older,
) -> Result<Result<Plan, Declined>, Fault> {
    let mut plan = Plan::default();
    let offered = offered(handed, &mut plan)?;
    let (new_roots, mut parts): (Vec<_>, Vec<_>) = offered.into_iter().partition(|offer| offer.item.kind.is_root());
    let mut roots: Vec<Root> = stored.iter().filter(|kept| kept.item.kind.is_root()).map(Root::of).collect();
    if let Err(declined) = take_roots(new_roots, handed, &mut roots, &mut plan) {
        return Ok(Err(declined));
    }
    // Ascending, so that of two new ones of a kind the newer replaces the older.
    parts.sort_by_key(|offer| offer.item.rank);
    let Homes { of, unverified, refuted } = Homes::of(&parts, &roots, stored)?;
    plan.unverified = unverified;
    let (disproved, in_force): (Vec<Kept>, Vec<Kept>) =
        stored.iter().cloned().partition(|kept| refuted.contains(&(kept.path.clone(), kept.item.digest())));
    // What anybody can have written makes nothing pointless.
    let verified = parts.iter().zip(&of).filter(|(offer, _)| !plan.unverified.contains(&offer.item.digest()));
    let at_home = verified.filter_map(|(offer, home)| Some((home.as_ref().ok()?.clone(), offer.item.clone())));
    let at_home: Vec<(PathBuf, Item)> = at_home.collect();
    let (mut declined, mut unusable) = (Vec::new(), Vec::new());
    for (offer, home) in parts.into_iter().zip(of) {
        match home {
            Ok(folder) => {
                let same_root = same_root(&folder, &roots);
                let Offered { path, item, .. } = offer;
                if at_home.iter().any(|(other, newer)| same_root.contains(other) && outdone(&item, newer)) {
                    plan.set_aside.push((path, format!("{}: a newer one is handed in with it", item.name)));
                    continue;
                }
                let shown = item.clone();
                if let Err(newer) = place(item, &folder, &same_root, &in_force, older, &mut plan) {
                    declined.push((path, shown, newer.item));
                }
            }
            Err(Homeless::Elsewhere(reason)) => plan.set_aside.push((offer.path, reason)),
            Err(Homeless::Unusable(reason)) => unusable.push((offer.path, reason)),
        }
    }
    drop_refuted(&mut plan, disproved, &roots);
    if !unusable.is_empty() {
        return Ok(Err(Declined::Unusable(unusable)));
    }
    if !declined.is_empty() {
        return Ok(Err(Declined::Older(declined)));
    }
    if plan.taken.is_empty() && plan.unchanged.is_empty() {
        return Ok(Err(Declined::Nothing(plan.set_aside)));
    }
    Ok(Ok(plan))
}

/// Everything in the files, each thing once; where it also lies in a better place, from there.
fn offered(handed: &Handed<'_>, plan: &mut Plan) -> Result<Vec<Offered>, Fault> {
    let mut found = Vec::new();
    for found::Held { path, place, piece } in found::read(handed, &mut plan.set_aside)? {
        if let Piece::Unneeded(reason) = piece {
            plan.set_aside.push((path, reason.to_owned()));
            continue;
        }
        let items = items(piece, place).map_err(|cause| Fault::of(path.display(), cause))?;
        found.extend(items.into_iter().map(|(item, place)| Offered { path: path.clone(), place, item }));
    }
    // Who names a file of roots means them. A chain that somebody fetched brings one along.
    let mixed: BTreeSet<PathBuf> =
        found.iter().filter(|offer| !offer.item.kind.is_root()).map(|offer| offer.path.clone()).collect();
    let mut all: Vec<Offered> = Vec::new();
    // By their bytes: a folder may hold the same thing any number of times.
    let mut places: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
    for mut offer in found {
        if offer.item.kind.is_root() && mixed.contains(&offer.path) {
            offer.place = Place::Carried;
        }
        let same_bytes = places.entry(offer.item.digest()).or_default();
        let same = same_bytes.iter().copied().find(|at| all.get(*at).is_some_and(|other| other.item == offer.item));
        match same.and_then(|at| all.get_mut(at)) {
            Some(same) if offer.place == Place::Named => *same = offer,
            Some(_) => {}
            None => {
                same_bytes.push(all.len());
                all.push(offer);
            }
        }
    }
    Ok(all)
}

impl Root {
    pub(super) fn of(kept: &Kept) -> Self {
        Self { folder: kept.folder.clone(), item: kept.item.clone() }
    }

    pub(super) fn is_of(&self, product: Product) -> bool {
        self.item.kind == Kind::AmdRoot(product)
    }
}

/// Takes the roots that somebody vouched for by file or digest.
fn take_roots(
    offered: Vec<Offered>,
    handed: &Handed<'_>,
    roots: &mut Vec<Root>,
    plan: &mut Plan,
) -> Result<(), Declined> {
    let mut unvouched = Vec::new();
    for Offered { path, place, item } in offered {
        let digest = item.digest();
        if roots.iter().any(|root| root.item.bytes == item.bytes) {
            plan.unchanged.push(item);
        } else if handed.digests.contains(&digest) || (handed.digests.is_empty() && place == Place::Named) {
            let folder = root_folder(&item, roots);
            roots.push(Root { folder: folder.clone(), item: item.clone() });
            plan.taken.push(Taken { folder, item, replaced: Vec::new() });
        } else {
            unvouched.push((path, item));
        }
    }
    if unvouched.is_empty() { Ok(()) } else { Err(Declined::Roots(unvouched)) }
}

/// A product's first root has the product's folder; a second one of the same name and all others go by their digest.
fn root_folder(item: &Item, roots: &[Root]) -> PathBuf {
    let digest = hex(&item.digest());
    let short = digest.get(..16).unwrap_or_default();
    match item.kind {
        Kind::AmdRoot(product) => {
            let first = Path::new("snp").join(product.name().to_lowercase());
            let taken = roots.iter().any(|root| root.folder == first);
            if taken { first.with_extension(short) } else { first }
        }
        Kind::AttestationKey => PathBuf::from("vtpm"),
        _ => Path::new("tdx").join(short),
    }
}

/// What an authority's certificate, taken now, shows that it never signed goes for that certificate.
fn drop_refuted(plan: &mut Plan, disproved: Vec<Kept>, roots: &[Root]) {
    for kept in disproved {
        let of = |taken: &&mut Taken| {
            let issues = taken.item.kind == Kind::IntelCertificate && taken.item.name == kept.item.issuer;
            issues && same_root(&taken.folder, roots).contains(&kept.folder)
        };
        if let Some(taken) = plan.taken.iter_mut().find(of) {
            taken.replaced.push(kept);
        }
    }
}

/// Every folder of the root that one is of: it may be stored several times, each with other collateral.
fn same_root(folder: &Path, roots: &[Root]) -> Vec<PathBuf> {
    let of = roots.iter().find(|root| root.folder == folder);
    let same = roots.iter().filter(|root| of.is_some_and(|of| of.item.bytes == root.item.bytes));
    same.map(|root| root.folder.clone()).collect()
}
