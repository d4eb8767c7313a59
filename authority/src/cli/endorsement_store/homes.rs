//! Under which root each thing belongs that an import offers: the root whose signature it is, whatever file or folder it
//! came in. The list of a PCK CA whose certificate is nowhere cannot be verified before a quote brings that certificate:
//! it is taken, marked, and can stand in for nothing, because anybody can have written it.

use super::item::{Item, Kind};
use super::plan::{Offered, Root};
use super::stored::Kept;
use crate::evidence::x509;
use crate::evidence::{EndorsementError, PartStanding, TdxPart, TdxRoot};
use crate::fault::Fault;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Why something has no root.
pub(super) enum Homeless {
    /// It is under another root, or under none that is trusted: nothing to do with what is stored.
    Elsewhere(String),
    /// It is wrong, or what it needs is not there.
    Unusable(String),
}

/// Where everything belongs.
pub(super) struct Homes {
    /// For each thing that is offered the folder of the root that signed it, or why it has none.
    pub(super) of: Vec<Result<PathBuf, Homeless>>,
    /// Digests of lists, offered or stored, that no certificate at hand verifies.
    pub(super) unverified: BTreeSet<[u8; 32]>,
    /// Stored lists, each by file and digest, that were unverified and that their issuer's certificate now disproves.
    pub(super) refuted: BTreeSet<(PathBuf, [u8; 32])>,
}

/// What is known of one thing under Intel's roots.
type Home = Result<(PathBuf, PartStanding), Homeless>;

impl Homes {
    pub(super) fn of(parts: &[Offered], roots: &[Root], stored: &[Kept]) -> Result<Self, Fault> {
        let mut homes = Self { of: Vec::new(), unverified: BTreeSet::new(), refuted: BTreeSet::new() };
        let mut intel = homes.intel(parts, roots, stored).into_iter();
        for offer in parts {
            let home = match offer.item.tdx_part() {
                None => amd_home(offer, parts, roots, stored)?.map_err(Homeless::Elsewhere),
                Some(_) => match intel.next().unwrap_or_else(|| Err(rootless())) {
                    Ok((folder, PartStanding::Signed)) => Ok(folder),
                    Ok((folder, PartStanding::Unverified)) => {
                        homes.unverified.insert(offer.item.digest());
                        Ok(folder)
                    }
                    Err(homeless) => Err(homeless),
                },
            };
            homes.of.push(home);
        }
        Ok(homes)
    }

    /// For each of Intel's things that are offered, in their order, where it belongs; notes what becomes of stored lists.
    fn intel(&mut self, parts: &[Offered], roots: &[Root], stored: &[Kept]) -> Vec<Home> {
        let here: Vec<&Kept> = stored.iter().filter(|kept| kept.item.tdx_part().is_some()).collect();
        let mut all: Vec<TdxPart<'_>> = parts.iter().filter_map(|offer| offer.item.tdx_part()).collect();
        let mut homes: Vec<Home> = all.iter().map(|_| Err(rootless())).collect();
        all.extend(here.iter().filter_map(|kept| kept.item.tdx_part()));
        for root in roots.iter().filter(|root| root.item.kind == Kind::IntelRoot) {
            let mut outcomes = TdxRoot::standings(&root.item.bytes, &all).into_iter();
            for (home, outcome) in homes.iter_mut().zip(outcomes.by_ref()) {
                better(home, root, outcome);
            }
            for (kept, outcome) in here.iter().zip(outcomes).filter(|(kept, _)| kept.folder == root.folder) {
                match outcome {
                    Ok(PartStanding::Unverified) => {
                        self.unverified.insert(kept.item.digest());
                    }
                    Err(_) if kept.item.kind == Kind::IntelList => {
                        self.refuted.insert((kept.path.clone(), kept.item.digest()));
                    }
                    Ok(PartStanding::Signed) | Err(_) => {}
                }
            }
        }
        homes
    }
}

fn rootless() -> Homeless {
    Homeless::Elsewhere("no root certificate for TDX is stored or handed in".to_owned())
}

/// Of what two roots say of a thing the one that is nearer to a signature.
fn better(home: &mut Home, root: &Root, outcome: Result<PartStanding, EndorsementError>) {
    match (&*home, outcome) {
        (Ok((_, PartStanding::Signed)), Ok(PartStanding::Unverified)) => {}
        (_, Ok(standing)) => *home = Ok((root.folder.clone(), standing)),
        // What one root says it lacks stands, whatever it is to another one.
        (Ok(_) | Err(Homeless::Unusable(_)), Err(_)) => {}
        (_, Err(error @ EndorsementError::Foreign { .. })) => *home = Err(Homeless::Elsewhere(error.to_string())),
        (_, Err(error)) => *home = Err(Homeless::Unusable(error.to_string())),
    }
}

/// Digests of the stored revocation lists that no stored certificate verifies.
pub(super) fn unverified(stored: &[Kept]) -> BTreeSet<[u8; 32]> {
    let roots: Vec<Root> = stored.iter().filter(|kept| kept.item.kind.is_root()).map(Root::of).collect();
    let mut homes = Homes { of: Vec::new(), unverified: BTreeSet::new(), refuted: BTreeSet::new() };
    homes.intel(&[], &roots, stored);
    homes.unverified
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
        Kind::AmdList(_) => match ours.find(|root| x509::has_listed(&root.item.bytes, der)) {
            None => {
                let cause = format!("this revocation list was not signed by an ARK-{product} that is trusted");
                return Err(Fault::of(offer.path.display(), cause));
            }
            found => found,
        },
        Kind::AmdIntermediate(_) => ours.find(|root| x509::has_issued(&root.item.bytes, der)),
        _ => {
            let all = parts.iter().map(|offer| &offer.item).chain(stored.iter().map(|kept| &kept.item));
            let issuers: Vec<&Item> = all.filter(|item| item.kind == Kind::AmdIntermediate(product)).collect();
            let signer = issuers.into_iter().find(|issuer| x509::has_issued(&issuer.bytes, der));
            ours.find(|root| signer.is_some_and(|signer| x509::has_issued(&root.item.bytes, &signer.bytes)))
        }
    };
    let issuer = &offer.item.issuer;
    let reason = || format!("no {issuer} that issued it is stored or handed in under a trusted ARK-{product}");
    Ok(home.map(|root| root.folder.clone()).ok_or_else(reason))
}
