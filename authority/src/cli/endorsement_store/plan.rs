//! What an import would change, decided before anything is written: which root each thing belongs to, what it replaces,
//! and what it must not replace. Old signed lists and documents stay genuine for ever, so that whoever could put one back
//! would undo a revocation: an older one is declined unless the person says otherwise.

use super::super::endorsement_kinds::Piece;
use super::super::endorsement_sources::{Handed, Place, found};
use super::super::intel_parts::belonging;
use super::item::{Item, Kind, items};
use super::precedence::{outdone, place};
use super::stored::Kept;
use crate::audit::hex;
use crate::evidence::x509::{self, RevocationList};
use crate::evidence::{EndorsementError, Product, TdxPart};
use crate::fault::Fault;
use std::collections::BTreeSet;
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

/// Why something has no root.
enum Homeless {
    /// It is under another root, or under none that is trusted: nothing to do with what is stored.
    Elsewhere(String),
    /// It is wrong, or what it needs is not there.
    Unusable(String),
}

/// Something that is offered.
struct Offered {
    path: PathBuf,
    place: Place,
    item: Item,
}

/// A root that is stored or about to be.
struct Root {
    folder: PathBuf,
    item: Item,
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
    let homes = homes(&parts, &roots, stored)?;
    let at_home = parts.iter().zip(&homes).filter_map(|(offer, home)| Some((home.as_ref().ok()?, &offer.item)));
    let at_home: Vec<(PathBuf, Item)> = at_home.map(|(home, item)| (home.clone(), item.clone())).collect();
    let (mut declined, mut unusable) = (Vec::new(), Vec::new());
    for (offer, home) in parts.into_iter().zip(homes) {
        match home {
            Ok(folder) => {
                let same_root = same_root(&folder, &roots);
                let Offered { path, item, .. } = offer;
                if at_home.iter().any(|(other, newer)| same_root.contains(other) && outdone(&item, newer)) {
                    plan.set_aside.push((path, format!("{}: a newer one is handed in with it", item.name)));
                    continue;
                }
                let shown = item.clone();
                if let Err(newer) = place(item, &folder, &same_root, stored, older, &mut plan) {
                    declined.push((path, shown, newer.item));
                }
            }
            Err(Homeless::Elsewhere(reason)) => plan.set_aside.push((offer.path, reason)),
            Err(Homeless::Unusable(reason)) => unusable.push((offer.path, reason)),
        }
    }
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
    for mut offer in found {
        if offer.item.kind.is_root() && mixed.contains(&offer.path) {
            offer.place = Place::Carried;
        }
        match all.iter_mut().find(|other| other.item == offer.item) {
            Some(same) if offer.place == Place::Named => *same = offer,
            Some(_) => {}
            None => all.push(offer),
        }
    }
    Ok(all)
}

impl Root {
    fn of(kept: &Kept) -> Self {
        Self { folder: kept.folder.clone(), item: kept.item.clone() }
    }

    fn is_of(&self, product: Product) -> bool {
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

/// Every folder of the root that one is of: it may be stored several times, each with other collateral.
fn same_root(folder: &Path, roots: &[Root]) -> Vec<PathBuf> {
    let of = roots.iter().find(|root| root.folder == folder);
    let same = roots.iter().filter(|root| of.is_some_and(|of| of.item.bytes == root.item.bytes));
    same.map(|root| root.folder.clone()).collect()
}

/// For each thing the folder of the root that signed it, or why it has none.
fn homes(parts: &[Offered], roots: &[Root], stored: &[Kept]) -> Result<Vec<Result<PathBuf, Homeless>>, Fault> {
    let intel: Vec<&Root> = roots.iter().filter(|root| root.item.kind == Kind::IntelRoot).collect();
    let here: Vec<TdxPart<'_>> = stored.iter().filter_map(|kept| kept.item.tdx_part()).collect();
    let offered: Vec<TdxPart<'_>> = parts.iter().filter_map(|offer| offer.item.tdx_part()).collect();
    let all = [&offered[..], &here[..]].concat();
    let none = || Homeless::Elsewhere("no root certificate for TDX is stored or handed in".to_owned());
    let mut tdx: Vec<Result<PathBuf, Homeless>> = offered.iter().map(|_| Err(none())).collect();
    for root in intel {
        for (home, outcome) in tdx.iter_mut().zip(belonging(&root.item.bytes, &all)) {
            match (&*home, outcome) {
                (_, Ok(())) => *home = Ok(root.folder.clone()),
                // What one root says it lacks stands, whatever it is to another one.
                (Ok(_) | Err(Homeless::Unusable(_)), Err(_)) => {}
                (_, Err(error @ EndorsementError::Foreign { .. })) => {
                    *home = Err(Homeless::Elsewhere(error.to_string()))
                }
                (_, Err(error)) => *home = Err(Homeless::Unusable(error.to_string())),
            }
        }
    }
    let mut tdx = tdx.into_iter();
    let home = |offer: &Offered| match offer.item.tdx_part() {
        Some(_) => Ok(tdx.next().unwrap_or_else(|| Err(none()))),
        None => Ok(amd_home(offer, parts, roots, stored)?.map_err(Homeless::Elsewhere)),
    };
    parts.iter().map(home).collect()
}

fn amd_home(
    offer: &Offered,
    parts: &[Offered],
    roots: &[Root],
    stored: &[Kept],
) -> Result<Result<PathBuf, String>, Fault> {
    let (Kind::AmdIntermediate(product) | Kind::AmdKey(product) | Kind::AmdList(product)) = offer.item.kind else {
        return Ok(Err("it stands under no root".to_owned()));
    };
    let mut ours = roots.iter().filter(|root| root.is_of(product)).peekable();
    if ours.peek().is_none() {
        return Ok(Err(format!("no ARK-{product} is stored or handed in")));
    }
    let der = &offer.item.bytes;
    let home = match offer.item.kind {
        Kind::AmdList(_) => match ours.find(|root| listed(der, &root.item.bytes)) {
            None => {
                let cause = format!("this revocation list was not signed by an ARK-{product} that is trusted");
                return Err(Fault::of(offer.path.display(), cause));
            }
            found => found,
        },
        Kind::AmdIntermediate(_) => ours.find(|root| issued(der, &root.item.bytes)),
        _ => {
            let all = parts.iter().map(|offer| &offer.item).chain(stored.iter().map(|kept| &kept.item));
            let issuers: Vec<&Item> = all.filter(|item| item.kind == Kind::AmdIntermediate(product)).collect();
            let signer = issuers.into_iter().find(|issuer| issued(der, &issuer.bytes));
            ours.find(|root| signer.is_some_and(|signer| issued(&signer.bytes, &root.item.bytes)))
        }
    };
    let issuer = &offer.item.issuer;
    let reason = || format!("no {issuer} that issued it is stored or handed in under a trusted ARK-{product}");
    Ok(home.map(|root| root.folder.clone()).ok_or_else(reason))
}

/// Whether `issuer` issued the certificate.
fn issued(der: &[u8], issuer: &[u8]) -> bool {
    match (x509::certificate(der), x509::certificate(issuer)) {
        (Ok(certificate), Ok(issuer)) => x509::verify_issued(&certificate, &issuer).is_ok(),
        _ => false,
    }
}

/// Whether `ark` signed the revocation list.
fn listed(der: &[u8], ark: &[u8]) -> bool {
    x509::certificate(ark).is_ok_and(|ark| RevocationList::verify(der, &ark).is_ok())
}
