//! Endorsements for one judgement, from files and folders on the command line: read, recognised and put together. A root
//! is trusted because the person at the command line handed it in, and for no other reason; nothing is built in and
//! nothing is fetched. A file that is not understood ends the act; one that is passed over is told of.

use super::endorsement_kinds::{Piece, recognise};
use crate::evidence::x509::{self, RevocationList};
use crate::evidence::{Endorsements, Product, SnpRoot, TdxRoot};
use crate::fault::Fault;
use crate::files;
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::sha256;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest endorsement file, in bytes.
const FILE_LIMIT: usize = 4_194_304;
/// Bytes of all endorsements of one act together.
const TOTAL_LIMIT: usize = 1 << 26;
/// Files looked at in one act.
const COUNT_LIMIT: usize = 1_024;
/// Folders within folders.
const DEPTH_LIMIT: usize = 8;
/// Names of files that people keep beside endorsements: beginnings, endings, and whole names.
const BESIDE: [&str; 7] = ["readme", "license", "licence", "copying", "notice", "changelog", "manifest"];
const ENDINGS: [&str; 8] = ["txt", "md", "html", "tsv", "csv", "toml", "log", "cbor"];
const EVIDENCE: [&str; 2] = ["report.bin", "quote.bin"];

/// What was handed in.
#[derive(Default)]
pub(super) struct Sources {
    /// What Evidence is judged by.
    pub(super) endorsements: Endorsements,
    /// A host's certificate table, to be judged as if it had come with the report.
    pub(super) table: Option<Vec<u8>>,
    /// The roots that are trusted in this act.
    pub(super) roots: Vec<Root>,
    /// Files without effect, and why.
    pub(super) set_aside: Vec<(PathBuf, String)>,
}

/// A trusted root certificate.
pub(super) struct Root {
    pub(super) platform: Platform,
    /// Common name.
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// SHA-256 of the certificate in DER.
    pub(super) digest: [u8; 32],
}

/// Reads every file that is named and every file in every folder that is named, but for those named `elsewhere` on the
/// command line: people keep the evidence beside its endorsements.
///
/// # Errors
/// The file that cannot be read or understood.
pub(super) fn gather(paths: &[PathBuf], elsewhere: &[&Path]) -> Result<Sources, Fault> {
    let mut sources = Sources::default();
    let (mut pieces, mut left) = (Vec::new(), TOTAL_LIMIT);
    for path in list(paths, elsewhere, &mut sources.set_aside)? {
        let bytes = files::read(&path, FILE_LIMIT.min(left))?;
        left = left.saturating_sub(bytes.len());
        for piece in recognise(&bytes).map_err(|cause| Fault::of(path.display(), cause))? {
            pieces.push((path.clone(), piece));
        }
    }
    snp(&pieces, &mut sources)?;
    tdx(&pieces, &mut sources)?;
    for (path, piece) in pieces {
        match piece {
            Piece::Vek(certificate) => sources.endorsements.veks.push(certificate),
            Piece::AttestationKeys(keys) => sources.endorsements.vtpm.extend(keys),
            Piece::Table(table) if sources.table.as_ref().is_some_and(|other| *other != table) => {
                return Err(Fault::of(path.display(), "a second certificate table: a report comes with one"));
            }
            Piece::Table(table) => sources.table = Some(table),
            Piece::Unneeded(reason) => sources.set_aside.push((path, reason.to_owned())),
            _ => {}
        }
    }
    Ok(sources)
}

/// The files to read, folders in the order of names.
fn list(paths: &[PathBuf], elsewhere: &[&Path], set_aside: &mut Vec<(PathBuf, String)>) -> Result<Vec<PathBuf>, Fault> {
    let elsewhere: Vec<PathBuf> = elsewhere.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let mut files = Vec::new();
    let mut folders = Vec::new();
    for path in paths {
        // A file that is named is meant: it is read, whatever its name.
        if metadata(path)?.is_dir() {
            folders.push((path.clone(), 0));
        } else {
            files.push(path.clone());
        }
    }
    let mut seen = files.len();
    while let Some((folder, depth)) = folders.pop() {
        let listing = fs::read_dir(&folder).map_err(|error| Fault::of(folder.display(), error))?;
        let entries = listing.take(COUNT_LIMIT.saturating_add(1)).map(|entry| entry.map(|entry| entry.path()));
        let entries: Result<BTreeSet<PathBuf>, _> = entries.collect();
        let mut below = Vec::new();
        for path in entries.map_err(|error| Fault::of(folder.display(), error))? {
            seen = seen.saturating_add(1);
            if seen > COUNT_LIMIT || depth > DEPTH_LIMIT {
                let cause = format!("more than {COUNT_LIMIT} files, or folders deeper than {DEPTH_LIMIT}");
                return Err(Fault::of(folder.display(), format_args!("{cause}: name the endorsements themselves")));
            }
            let named = fs::canonicalize(&path).is_ok_and(|whole| elsewhere.contains(&whole));
            let named = named.then_some("named on the command line as something else");
            match named.or_else(|| reason_to_skip(&path)) {
                Some(reason) => set_aside.push((path, reason.to_owned())),
                None if metadata(&path)?.is_dir() => below.push((path, depth.saturating_add(1))),
                None => files.push(path),
            }
        }
        folders.extend(below.into_iter().rev());
    }
    Ok(files)
}

/// What a path leads to; nothing but files and folders, for a pipe would be waited on.
fn metadata(path: &Path) -> Result<fs::Metadata, Fault> {
    let metadata = fs::metadata(path).map_err(|error| Fault::of(path.display(), error))?;
    if metadata.is_dir() || metadata.is_file() {
        return Ok(metadata);
    }
    Err(Fault::of(path.display(), "neither a file nor a folder"))
}

/// Why a file found in a folder is clearly no endorsement, by its name.
fn reason_to_skip(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    if name.starts_with('.') {
        return Some("hidden");
    }
    if EVIDENCE.contains(&name.as_str()) {
        return Some("evidence by its name");
    }
    let beside = BESIDE.iter().any(|start| name.starts_with(start)) || ENDINGS.contains(&ending.as_str());
    beside.then_some("no endorsement by its name")
}

/// A root for each ARK, with the intermediates and lists that it signed.
fn snp(pieces: &[(PathBuf, Piece)], sources: &mut Sources) -> Result<(), Fault> {
    let mut arks: Vec<(Product, &[u8])> = Vec::new();
    for (path, piece) in pieces {
        let Piece::Ark(product, ark) = piece else { continue };
        SnpRoot::new(*product, ark, &[], &[]).map_err(|error| Fault::of(path.display(), error))?;
        if arks.contains(&(*product, ark)) {
            continue;
        }
        arks.push((*product, ark));
        let (platform, name, file) = (Platform::Snp, format!("ARK-{product}"), path.clone());
        sources.roots.push(Root { platform, name, file, digest: sha256(ark) });
    }
    for (path, piece) in pieces {
        let (product, signed) = match piece {
            Piece::Intermediate(product, der) => (product, arks.iter().any(|(_, ark)| issued(der, ark))),
            Piece::List(product, der) => (product, arks.iter().any(|(_, ark)| listed(der, ark))),
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
            pieces.iter().filter_map(|(_, piece)| wanted(piece, ark)).collect()
        };
        let intermediates = under(|piece, ark| match piece {
            Piece::Intermediate(_, der) if issued(der, ark) => Some(der.clone()),
            _ => None,
        });
        let lists = under(|piece, ark| match piece {
            Piece::List(_, der) if listed(der, ark) => Some(der.clone()),
            _ => None,
        });
        let root = SnpRoot::new(product, ark, &intermediates, &lists);
        sources.endorsements.snp.push(root.map_err(|error| Fault::of(format_args!("ARK-{product}"), error))?);
    }
    Ok(())
}

/// Whether `ark` issued the certificate.
fn issued(der: &[u8], ark: &[u8]) -> bool {
    match (x509::certificate(der), x509::certificate(ark)) {
        (Ok(certificate), Ok(ark)) => x509::verify_issued(&certificate, &ark).is_ok(),
        _ => false,
    }
}

/// Whether `ark` signed the revocation list.
fn listed(der: &[u8], ark: &[u8]) -> bool {
    x509::certificate(ark).is_ok_and(|ark| RevocationList::verify(der, &ark).is_ok())
}

/// Every root with all of the collateral: its signatures say under which root it counts.
fn tdx(pieces: &[(PathBuf, Piece)], sources: &mut Sources) -> Result<(), Fault> {
    let mut roots: Vec<&[u8]> = Vec::new();
    for (path, piece) in pieces {
        let Piece::TdxRoot(name, root) = piece else { continue };
        TdxRoot::new(root, &[]).map_err(|error| Fault::of(path.display(), error))?;
        if roots.contains(&root.as_slice()) {
            continue;
        }
        roots.push(root);
        let (platform, name, file) = (Platform::Tdx, name.clone(), path.clone());
        sources.roots.push(Root { platform, name, file, digest: sha256(root) });
    }
    let mut documents: Vec<&[u8]> = Vec::new();
    for (path, piece) in pieces {
        let Piece::Collateral(document) = piece else { continue };
        match roots.first() {
            Some(root) => drop(TdxRoot::new(root, &[document]).map_err(|error| Fault::of(path.display(), error))?),
            None => sources.set_aside.push((path.clone(), "no root certificate for TDX was handed in".to_owned())),
        }
        documents.push(document);
    }
    for root in roots {
        let root = TdxRoot::new(root, &documents).map_err(|error| Fault::of("collateral", error))?;
        sources.endorsements.tdx.push(root);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_no_endorsement_is_passed_over_by_name() {
        for name in
            ["README", "readme.md", "verify-at.txt", "report.bin", "quote.bin", "MANIFEST.tsv", ".git", "a.CBOR"]
        {
            assert!(reason_to_skip(&Path::new("folder").join(name)).is_some(), "{name}");
        }
        for name in ["ark.der", "milan.crl", "vcek", "quote2.bin", "attestation-keys", "collateral.json", "table.bin"] {
            assert_eq!(reason_to_skip(&Path::new("folder").join(name)), None, "{name}");
        }
    }
}
