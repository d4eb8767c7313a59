//! Endorsements for one judgement, from files and folders on the command line: read, recognised and put together. A root
//! is trusted because the person at the command line named its file, its folder or its digest. Where it lies with the
//! evidence, or collateral carries it, only a vendor's own counts, known by its digest. Nothing is fetched. A file that is
//! not understood is refused; what has no effect is told of.

mod amd;
pub(super) mod found;
mod unfit;

use self::found::Held;
pub(super) use self::found::Place;
use self::unfit::Suspicion;
pub(super) use self::unfit::{Unfit, explained};
use super::endorsement_kinds::{Piece, Spoilt, carried_roots, family};
use super::intel_parts::{part, spoilt};
use super::vendor_roots;
use crate::audit::hex;
use crate::evidence::{EndorsementError, Endorsements, SnpRoot, TdxPart, TdxRoot};
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::RefusalCode;
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
    /// Whose hardware is judged; `None` where nothing is judged and everything counts.
    pub(super) platform: Option<Platform>,
}

impl Handed<'_> {
    /// Whether what is wrong with endorsements of this platform's hardware matters to the act.
    fn concerns(&self, platform: Platform) -> bool {
        self.platform.is_none_or(|judged| judged == platform)
    }
}

/// What was handed in.
#[derive(Default)]
pub(super) struct Sources {
    /// What Evidence is judged by.
    pub(super) endorsements: Endorsements,
    /// A host's certificate table, to be judged as if it had come with the report.
    pub(super) table: Option<(Place, Vec<u8>)>,
    /// The roots that are trusted in this act.
    pub(super) roots: Vec<Root>,
    /// Platforms of which a root lies where the person at the command line pointed.
    chosen: BTreeSet<&'static str>,
    /// Roots that were found and do not count, each with its reason.
    withheld: Vec<(Root, &'static str)>,
    /// Files without effect, and why.
    pub(super) set_aside: Vec<(PathBuf, String)>,
    /// What may be missing because it is spoilt or another's.
    pub(super) suspicions: Vec<Suspicion>,
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
/// What was found before an error stays in `sources`.
///
/// # Errors
/// The file that cannot be read, or whose content is refused.
pub(super) fn gather(handed: &Handed<'_>, sources: &mut Sources) -> Result<(), Unfit> {
    let mut all = found::read(handed, &mut sources.set_aside)?;
    all.retain(|held| sources.sound(held));
    sources.chosen = all.iter().filter_map(chosen).map(Platform::text).collect();
    amd::gather(&all, handed, sources)?;
    tdx(&all, handed, sources)?;
    for Held { path, place, piece } in all {
        match piece {
            Piece::Vek(certificate, _) => sources.endorsements.veks.push(*certificate),
            Piece::AttestationKeys(keys) => sources.attestation_keys(handed, &path, place, keys),
            Piece::Table(table) => sources.table(path, place, table)?,
            Piece::Unneeded(reason) => sources.set_aside.push((path, reason)),
            _ => {}
        }
    }
    sources.tell_of_withheld();
    Ok(())
}

/// The platform of a root that somebody pointed at.
fn chosen(held: &Held) -> Option<Platform> {
    match (&held.piece, held.place) {
        (Piece::Ark(..), Place::Named | Place::Folder) => Some(Platform::Snp),
        (Piece::TdxRoot(..), Place::Named | Place::Folder) => Some(Platform::Tdx),
        _ => None,
    }
}

/// Name of a file of attestation keys in a folder.
const KEYS: &str = "attestation-keys";
const NOT_KEYS: &str = "digests in a folder count as keys in a file of the name attestation-keys: name the file itself with \
                        --endorsements FILE, or the digest with --root-sha256 HEX";

fn named(file: &Path, name: &str) -> bool {
    file.file_name().is_some_and(|file| file == name)
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
    /// Sets something aside that Evidence may then lack.
    fn suspect(&mut self, file: &Path, spoilt: Spoilt, about: &str) {
        self.set_aside.push((file.to_owned(), spoilt.cause.clone()));
        self.suspicions.push(Suspicion { file: file.to_owned(), spoilt, about: about.to_owned() });
    }

    /// Whether a piece can be used at all. What is spoilt and what has a root's name without being one is set aside.
    fn sound(&mut self, held: &Held) -> bool {
        let (platform, cause) = match &held.piece {
            Piece::Unusable(spoilt) => {
                self.suspect(&held.path, spoilt.clone(), "");
                return false;
            }
            Piece::Ark(product, der) => (Platform::Snp, SnpRoot::new(*product, der, &[], &[]).err()),
            Piece::TdxRoot(_, der) => (Platform::Tdx, TdxRoot::new(der, &[]).err()),
            _ => return true,
        };
        let Some(cause) = cause.map(|error| format!("no usable root: {error}")) else { return true };
        let about = if let Piece::Ark(product, _) = &held.piece { product.name() } else { "" };
        self.suspect(&held.path, Spoilt { code: RefusalCode::ChainUntrusted, platform: Some(platform), cause }, about);
        false
    }

    /// A report comes with one table. A folder may hold several: the first one counts, and any that is named before it.
    fn table(&mut self, path: PathBuf, place: Place, table: Vec<u8>) -> Result<(), Unfit> {
        match &self.table {
            Some((_, other)) if *other == table => {}
            Some((Place::Named, _)) if place == Place::Named => {
                let cause = "a second certificate table: a report comes with one";
                return Err(Unfit::refused(RefusalCode::Malformed, &path, cause));
            }
            Some(_) => self.set_aside.push((path, "a second certificate table: a report comes with one".to_owned())),
            None => self.table = Some((place, table)),
        }
        Ok(())
    }

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
        let objection = |key: &[u8; 32]| match objection(handed.digests, place, key) {
            // Any digest looks like a key's. In a folder the name says which it is.
            None if handed.digests.is_empty() && place == Place::Folder && !named(file, KEYS) => Some(NOT_KEYS),
            other => other,
        };
        let (count, not): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| objection(key).is_none());
        for key in count {
            self.admit(handed, place, root(key));
            self.endorsements.vtpm.push(key);
        }
        if let Some((first, reason)) = not.first().and_then(|first| Some((*first, objection(first)?))) {
            self.withheld.push((root(first), reason));
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

/// Every root with the parts that stand under it; one that stands under none is set aside.
fn tdx(all: &[Held], handed: &Handed<'_>, sources: &mut Sources) -> Result<(), Unfit> {
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
            if let Err(error) = TdxRoot::new(&root, &[]) {
                let cause = format!("the root that it carries is not usable: {error}");
                let code = RefusalCode::ChainUntrusted;
                sources.suspect(path, Spoilt { code, platform: Some(platform), cause }, "");
                continue;
            }
            if !roots.contains(&root) && sources.admit(handed, place, Root { platform, name, file, digest }) {
                roots.push(root);
            }
        }
    }
    let held: Vec<(&Path, TdxPart<'_>)> =
        all.iter().filter_map(|held| Some((held.path.as_path(), part(&held.piece)?))).collect();
    let parts: Vec<TdxPart<'_>> = held.iter().map(|(_, part)| *part).collect();
    // For each part why it does not count, until it does: nothing where there is no root to ask.
    let mut reasons: Vec<Option<Option<EndorsementError>>> = vec![Some(None); held.len()];
    for root in roots {
        let mut own = Vec::new();
        for ((outcome, part), reason) in TdxRoot::standings(&root, &parts).into_iter().zip(&parts).zip(&mut reasons) {
            match outcome {
                Ok(_) => {
                    own.push(*part);
                    *reason = None;
                }
                // Under another of the roots is as good.
                Err(error) => *reason = reason.take().map(|_| Some(error)),
            }
        }
        let refused = |error| Unfit::refused(RefusalCode::Malformed, Path::new("TDX collateral"), error);
        let root = TdxRoot::new(&root, &own).map_err(refused)?;
        sources.endorsements.tdx.push(root);
    }
    for ((path, part), reason) in held.iter().zip(reasons) {
        let Some(reason) = reason else { continue };
        match reason.as_ref().map(|error| (spoilt(error), error)) {
            None => {
                let reason = "no root certificate for TDX was handed in".to_owned();
                sources.set_aside.push((path.to_path_buf(), reason));
            }
            Some((Some(spoilt), _)) => sources.suspect(path, spoilt, &family(part)),
            Some((None, error)) => sources.set_aside.push((path.to_path_buf(), error.to_string())),
        }
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
