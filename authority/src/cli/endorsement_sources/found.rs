//! The files that a command line names as endorsements, or in folders: which they are, what they hold, and what the place
//! where one lies says about it. Names are trusted for nothing: a file without effect is one whose content is no
//! endorsement and whose name says so too. Never reads what the command line names as something else.

use super::super::endorsement_kinds::{NoEndorsement, Piece, recognise};
use super::Handed;
use crate::fault::Fault;
use crate::files;
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
/// What people keep beside endorsements: whole stems, endings, and whole names.
const BESIDE: [&str; 8] = ["readme", "license", "licence", "copying", "notice", "changelog", "manifest", "nonce"];
const ENDINGS: [&str; 9] = ["txt", "md", "html", "tsv", "csv", "toml", "log", "cbor", "sig"];
const EVIDENCE: [&str; 4] = ["report.bin", "quote.bin", "report.dat", "quote.dat"];
/// Endings that promise an endorsement.
const PROMISES: [&str; 5] = ["crl", "der", "pem", "crt", "cer"];

/// Where something lies. It decides whether a root counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Place {
    /// In a file that the command line names.
    Named,
    /// In a folder that the command line names.
    Folder,
    /// In a folder that also holds the evidence, or below it: both may have come from the same hand.
    WithEvidence,
    /// In the certificate chain that collateral brings along.
    Carried,
}

/// One endorsement, and where it is from.
pub(in super::super) struct Held {
    pub(in super::super) path: PathBuf,
    pub(in super::super) place: Place,
    pub(in super::super) piece: Piece,
}

/// Everything that the files hold. What has no effect is set aside with its reason.
pub(in super::super) fn read(handed: &Handed<'_>, set_aside: &mut Vec<(PathBuf, String)>) -> Result<Vec<Held>, Fault> {
    let mut held = Vec::new();
    let mut left = TOTAL_LIMIT;
    for (path, place) in list(handed, set_aside)? {
        match pieces(&path, &mut left)? {
            Ok(pieces) => held.extend(pieces.into_iter().map(|piece| Held { path: path.clone(), place, piece })),
            // A file that is named is meant, whatever it holds.
            Err(cause) => match reason(&cause, &path).filter(|_| place != Place::Named) {
                Some(reason) => set_aside.push((path, reason)),
                None => return Err(Fault::of(path.display(), cause)),
            },
        }
    }
    Ok(held)
}

/// What a file holds, or why it is not understood.
fn pieces(path: &Path, left: &mut usize) -> Result<Result<Vec<Piece>, NoEndorsement>, Fault> {
    if usize::try_from(metadata(path)?.len()).map_or(true, |length| length > FILE_LIMIT) {
        return Ok(Err(NoEndorsement::Unknown(format!("longer than {FILE_LIMIT} bytes"))));
    }
    let bytes = files::read(path, FILE_LIMIT.min(*left))?;
    *left = left.saturating_sub(bytes.len());
    Ok(recognise(&bytes))
}

/// The files to read, folders in the order of names.
fn list(handed: &Handed<'_>, set_aside: &mut Vec<(PathBuf, String)>) -> Result<Vec<(PathBuf, Place)>, Fault> {
    let named = handed.sent.iter().copied().chain(handed.policy);
    let elsewhere: Vec<PathBuf> = named.filter_map(|path| fs::canonicalize(path).ok()).collect();
    let around = around(&handed.sent);
    let mut files = Vec::new();
    let mut folders = Vec::new();
    for path in handed.paths {
        if metadata(path)?.is_dir() {
            folders.push((path.clone(), Place::Folder, 0));
        } else {
            files.push((path.clone(), Place::Named));
        }
    }
    let mut seen = files.len();
    while let Some((folder, place, depth)) = folders.pop() {
        let failed = |error| Fault::of(folder.display(), error);
        let place =
            if around.contains(&fs::canonicalize(&folder).map_err(failed)?) { Place::WithEvidence } else { place };
        let listing = fs::read_dir(&folder).map_err(failed)?;
        let entries = listing.take(COUNT_LIMIT.saturating_add(1)).map(|entry| entry.map(|entry| entry.path()));
        let entries: BTreeSet<PathBuf> = entries.collect::<Result<_, _>>().map_err(failed)?;
        let mut below = Vec::new();
        for path in entries {
            seen = seen.saturating_add(1);
            if seen > COUNT_LIMIT || depth > DEPTH_LIMIT {
                let cause = format!("more than {COUNT_LIMIT} files, or folders deeper than {DEPTH_LIMIT}");
                return Err(Fault::of(folder.display(), format_args!("{cause}: name the endorsements themselves")));
            }
            if fs::canonicalize(&path).is_ok_and(|whole| elsewhere.contains(&whole)) {
                set_aside.push((path, "named on the command line as something else".to_owned()));
            } else if is_hidden(&path) && !path.is_file() {
                set_aside.push((path, "hidden, and no file".to_owned()));
            } else if metadata(&path)?.is_dir() {
                below.push((path, place, depth.saturating_add(1)));
            } else {
                files.push((path, place));
            }
        }
        folders.extend(below.into_iter().rev());
    }
    Ok(files)
}

/// The folders that hold what the other side sent, and every folder around them; by the path that was given and, where it
/// is a link, by what it leads to.
fn around(sent: &[&Path]) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for path in sent {
        let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let given = parent.and_then(|parent| fs::canonicalize(parent).ok());
        let led_to = fs::canonicalize(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        for folder in given.iter().chain(&led_to) {
            folders.extend(folder.ancestors().map(Path::to_owned));
        }
    }
    folders
}

/// What a path leads to; nothing but files and folders, for a pipe would be waited on.
fn metadata(path: &Path) -> Result<fs::Metadata, Fault> {
    let metadata = fs::metadata(path).map_err(|error| Fault::of(path.display(), error))?;
    if metadata.is_dir() || metadata.is_file() {
        return Ok(metadata);
    }
    Err(Fault::of(path.display(), "neither a file nor a folder"))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Why a file found in a folder may be passed over.
fn reason(cause: &NoEndorsement, path: &Path) -> Option<String> {
    match cause {
        NoEndorsement::Evidence(_) => Some(cause.to_string()),
        NoEndorsement::Unknown(_) => reason_to_skip(path).map(str::to_owned),
    }
}

/// Why a file found in a folder, whose content is no endorsement known here, is none by its name either.
fn reason_to_skip(path: &Path) -> Option<&'static str> {
    let lower = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_ascii_lowercase);
    let (name, stem) = (lower(path.file_name())?, lower(path.file_stem())?);
    let ending = lower(path.extension()).unwrap_or_default();
    if PROMISES.contains(&ending.as_str()) {
        return None;
    }
    if EVIDENCE.contains(&name.as_str()) {
        return Some("evidence by its name, and no endorsement by its content");
    }
    let beside = is_hidden(path) || BESIDE.contains(&stem.as_str()) || ENDINGS.contains(&ending.as_str());
    beside.then_some("no endorsement by its name and content")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_no_endorsement_is_passed_over_by_name() {
        let skipped = |name: &str| reason_to_skip(&Path::new("folder").join(name)).is_some();
        for name in [
            "README",
            "readme.md",
            "LICENSE.html",
            "verify-at.txt",
            "report.bin",
            "quote.bin",
            "MANIFEST.tsv",
            ".x",
            "a.CBOR",
        ] {
            assert!(skipped(name), "{name}");
        }
        for name in ["ark.der", "milan.crl", "vcek", "quote2.bin", "attestation-keys", "collateral.json", "table.bin"] {
            assert!(!skipped(name), "{name}");
        }
        for name in ["license-milan.crl", "license.crl", "README.PEM", "notice-milan", "manifest-crl", ".milan.crl"] {
            assert!(!skipped(name), "{name}");
        }
    }
}
