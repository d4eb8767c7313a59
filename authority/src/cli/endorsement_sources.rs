//! Endorsements for one judgement, from files and folders on the command line: read, recognised and put together. A root
//! is trusted because the person at the command line named its file, its folder or its digest, and for no other reason:
//! not because it lies with the evidence, nor because collateral carries it; there only a vendor's own root counts, known by its
//! digest. Nothing is fetched.
//! A file that is not understood ends the act; what has no effect is told of.

pub(super) mod found;

use self::found::Held;
pub(super) use self::found::Place;
use super::endorsement_kinds::{Piece, carried_roots};
use super::intel_parts::part;
use super::vendor_roots;
use crate::audit::hex;
use crate::evidence::x509;
use crate::evidence::{Endorsements, Product, SnpRoot, TdxPart, TdxRoot};
use crate::fault::Fault;
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::sha256;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the command line hands in.
pub(super) struct Handed<'a> {
    /// Files and folders of endorsements.
    pub(super) paths: &'a [PathBuf],
    /// Files of the other side: the evidence and its event log. A folder that holds one of them vouches for no root.
    pub(super) sent: Vec<&'a Path>,
    /// The policy, which is no endorsement either.
    pub(super) policy: Option<&'a Path>,
    /// SHA-256 of the roots that count, wherever they are found; with none, the place decides.
    pub(super) digests: &'a [[u8; 32]],
}

/// What was handed in.
#[derive(Default)]
pub(super) struct Sources {
    /// What Evidence is judged by.
    pub(super) endorsements: Endorsements,
    /// A host's certificate table, to be judged as if it had come with the report.
    pub(super) table: Option<Vec<u8>>,
    /// The roots that are trusted in this act.
    pub(super) roots: Vec<Root>,
    /// Platforms of which a root lies where the person at the command line pointed.
    chosen: BTreeSet<&'static str>,
    /// Roots that were found and do not count, each with its reason.
    withheld: Vec<(Root, &'static str)>,
    /// Files without effect, and why.
    pub(super) set_aside: Vec<(PathBuf, String)>,
}

/// A root certificate or an attestation key.
pub(super) struct Root {
    pub(super) platform: Platform,
    /// Common name.
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// SHA-256 of the certificate in DER, or the key's own digest.
    pub(super) digest: [u8; 32],
}

/// Reads every file that is named and every file in every folder that is named, but for those that the command line names
/// as something else: people keep the evidence beside its endorsements.
///
/// # Errors
/// The file that cannot be read or understood.
pub(super) fn gather(handed: &Handed<'_>) -> Result<Sources, Fault> {
    let mut sources = Sources::default();
    let all = found::read(handed, &mut sources.set_aside)?;
    sources.chosen = all.iter().filter_map(chosen).map(Platform::text).collect();
    snp(&all, handed, &mut sources)?;
    tdx(&all, handed, &mut sources)?;
    for Held { path, place, piece } in all {
        match piece {
            Piece::Vek(certificate, _) => sources.endorsements.veks.push(*certificate),
            Piece::AttestationKeys(keys) => sources.attestation_keys(handed, &path, place, keys),
            Piece::Table(table) if sources.table.as_ref().is_some_and(|other| *other != table) => {
                return Err(Fault::of(path.display(), "a second certificate table: a report comes with one"));
            }
            Piece::Table(table) => sources.table = Some(table),
            Piece::Unneeded(reason) => sources.set_aside.push((path, reason.to_owned())),
            _ => {}
        }
    }
    sources.tell_of_withheld();
    Ok(sources)
}

/// The platform of a root that somebody pointed at.
fn chosen(held: &Held) -> Option<Platform> {
    match (&held.piece, held.place) {
        (Piece::Ark(..), Place::Named | Place::Folder) => Some(Platform::Snp),
        (Piece::TdxRoot(..), Place::Named | Place::Folder) => Some(Platform::Tdx),
        _ => None,
    }
}

/// Why a root does not count.
fn objection(digests: &[[u8; 32]], place: Place, digest: &[u8; 32]) -> Option<&'static str> {
    match place {
        _ if digests.contains(digest) => None,
        _ if !digests.is_empty() => Some("it is not among --root-sha256"),
        Place::Named | Place::Folder => None,
        Place::WithEvidence => Some(
            "it lies with the evidence and may have come with it: compare it with the vendor's, then name the root file \
             itself with --endorsements FILE, or its digest with --root-sha256 HEX",
        ),
        Place::Carried => Some(
            "collateral brings it along and cannot vouch for it: compare it with the vendor's, then name its digest with \
             --root-sha256 HEX, or a root file with --endorsements FILE",
        ),
    }
}

impl Sources {
    /// Takes in a root and says whether it counts. One that does not is kept apart, with the reason.
    fn admit(&mut self, handed: &Handed<'_>, place: Place, root: Root) -> bool {
        // A vendor's own root counts wherever it lies, unless somebody chose another.
        let vendors = handed.digests.is_empty()
            && vendor_roots::known(&root.digest)
            && !self.chosen.contains(&root.platform.text());
        match objection(handed.digests, place, &root.digest).filter(|_| !vendors) {
            None => self.roots.push(root),
            Some(reason) => {
                self.withheld.push((root, reason));
                return false;
            }
        }
        true
    }

    /// Keys of one file. Of many that do not count the first stands for all.
    fn attestation_keys(&mut self, handed: &Handed<'_>, file: &Path, place: Place, keys: Vec<[u8; 32]>) {
        let root = |digest| {
            let (platform, name, file) = (Platform::Vtpm, "attestation key".to_owned(), file.to_owned());
            Root { platform, name, file, digest }
        };
        let (count, not): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| objection(handed.digests, place, key).is_none());
        for key in count {
            self.admit(handed, place, root(key));
            self.endorsements.vtpm.push(key);
        }
        if let Some(first) = not.first() {
            self.admit(handed, place, root(*first));
        }
    }

    /// Every root that does not count, once, unless the same root counts for another reason.
    fn tell_of_withheld(&mut self) {
        let mut told: BTreeSet<[u8; 32]> = self.roots.iter().map(|root| root.digest).collect();
        self.withheld.retain(|(root, _)| told.insert(root.digest));
        for (root, reason) in &self.withheld {
            let reason = format!("root not trusted: {} of SHA-256 {}: {reason}", root.name, hex(&root.digest));
            self.set_aside.push((root.file.clone(), reason));
        }
    }

    /// What somebody can do whose evidence lacks a root, when one was found that does not count.
    pub(super) fn advice(&self, platform: Platform, handed: &Handed<'_>) -> Option<&'static str> {
        self.withheld.iter().find(|(root, _)| root.platform == platform)?;
        Some(if handed.digests.is_empty() {
            "a root was set aside: compare it with the vendor's, then name the root file itself with --endorsements FILE, \
             or --root-sha256 HEX"
        } else {
            "a root was set aside: its digest is not among --root-sha256"
        })
    }
}

/// A root for each ARK, with the intermediates and lists that it signed.
fn snp(all: &[Held], handed: &Handed<'_>, sources: &mut Sources) -> Result<(), Fault> {
    let mut arks: Vec<(Product, &[u8])> = Vec::new();
    for Held { path, place, piece } in all {
        let Piece::Ark(product, ark) = piece else { continue };
        if arks.contains(&(*product, ark)) {
            continue;
        }
        let (platform, name, file) = (Platform::Snp, format!("ARK-{product}"), path.clone());
        if sources.admit(handed, *place, Root { platform, name, file, digest: sha256(ark) }) {
            SnpRoot::new(*product, ark, &[], &[]).map_err(|error| Fault::of(path.display(), error))?;
            arks.push((*product, ark));
        }
    }
    for Held { path, piece, .. } in all {
        let (product, signed) = match piece {
            Piece::Intermediate(product, der) => (product, arks.iter().any(|(_, ark)| x509::has_issued(ark, der))),
            Piece::List(product, der) => (product, arks.iter().any(|(_, ark)| x509::has_listed(ark, der))),
            _ => continue,
        };
        let rooted = arks.iter().any(|(other, _)| other == product);
        match (signed, piece) {
            (true, _) => {}
            (false, Piece::List(..)) if rooted => {
                let cause = format!("this revocation list was not signed by the ARK-{product} that was handed in");
                return Err(Fault::of(path.display(), cause));
            }
            (false, _) if rooted => {
                let cause = format!("not issued by the ARK-{product} that was handed in");
                sources.set_aside.push((path.clone(), cause));
            }
            (false, _) => sources.set_aside.push((path.clone(), format!("no ARK-{product} was handed in"))),
        }
    }
    for (product, ark) in arks {
        let under = |wanted: fn(&Piece, &[u8]) -> Option<Vec<u8>>| -> Vec<Vec<u8>> {
            // Each once, however often it lies there.
            let each: BTreeSet<Vec<u8>> = all.iter().filter_map(|held| wanted(&held.piece, ark)).collect();
            each.into_iter().collect()
        };
        let intermediates = under(|piece, ark| match piece {
            Piece::Intermediate(_, der) if x509::has_issued(ark, der) => Some(der.clone()),
            _ => None,
        });
        let lists = under(|piece, ark| match piece {
            Piece::List(_, der) if x509::has_listed(ark, der) => Some(der.clone()),
            _ => None,
        });
        let root = SnpRoot::new(product, ark, &intermediates, &lists);
        let root = root.map_err(|error| Fault::of(format_args!("ARK-{product}"), error))?;
        let strangers = all.iter().filter_map(|held| match &held.piece {
            Piece::Intermediate(other, der) if *other == product && !x509::has_issued(ark, der) => Some(der.as_slice()),
            _ => None,
        });
        sources.endorsements.snp.push(root.beside(strangers));
    }
    Ok(())
}

/// Every root with the parts that stand under it; one that stands under none is set aside.
fn tdx(all: &[Held], handed: &Handed<'_>, sources: &mut Sources) -> Result<(), Fault> {
    let mut roots: Vec<Vec<u8>> = Vec::new();
    // Where a root is also in a file of its own, that file is the one to tell of.
    let carry = |held: &&Held| matches!(held.piece, Piece::Collateral(_));
    for Held { path, place, piece } in all.iter().filter(|held| !carry(held)).chain(all.iter().filter(carry)) {
        let (place, candidates) = match piece {
            Piece::TdxRoot(name, root) => (*place, vec![(name.clone(), root.clone())]),
            Piece::Collateral(document) => (Place::Carried, carried_roots(document)),
            _ => continue,
        };
        for (name, root) in candidates {
            let (platform, file, digest) = (Platform::Tdx, path.clone(), sha256(&root));
            if !roots.contains(&root) && sources.admit(handed, place, Root { platform, name, file, digest }) {
                TdxRoot::new(&root, &[]).map_err(|error| Fault::of(path.display(), error))?;
                roots.push(root);
            }
        }
    }
    let held: Vec<(&Path, TdxPart<'_>)> =
        all.iter().filter_map(|held| Some((held.path.as_path(), part(&held.piece)?))).collect();
    let parts: Vec<TdxPart<'_>> = held.iter().map(|(_, part)| *part).collect();
    let mut reasons: Vec<Option<String>> =
        vec![Some("no root certificate for TDX was handed in".to_owned()); held.len()];
    for root in roots {
        let mut own = Vec::new();
        for ((outcome, part), reason) in TdxRoot::standings(&root, &parts).into_iter().zip(&parts).zip(&mut reasons) {
            match outcome {
                Ok(_) => {
                    own.push(*part);
                    *reason = None;
                }
                // Under another of the roots is as good.
                Err(error) => *reason = reason.take().map(|_| error.to_string()),
            }
        }
        let root = TdxRoot::new(&root, &own).map_err(|error| Fault::of("TDX collateral", error))?;
        sources.endorsements.tdx.push(root);
    }
    for ((path, _), reason) in held.iter().zip(reasons) {
        sources.set_aside.extend(reason.map(|reason| (path.to_path_buf(), reason)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_counts_everywhere_and_without_one_the_place_decides() {
        let places = [Place::Named, Place::Folder, Place::WithEvidence, Place::Carried];
        let counts = |digests: &[[u8; 32]]| places.map(|place| objection(digests, place, &[7; 32]).is_none());
        assert_eq!(counts(&[]), [true, true, false, false]);
        assert_eq!(counts(&[[8; 32], [7; 32]]), [true; 4]);
        assert_eq!(counts(&[[8; 32]]), [false; 4]);
    }
}
