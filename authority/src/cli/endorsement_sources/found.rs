//! The files that a command line names as endorsements, or in folders: which they are, what they hold, and what the place
//! where one lies says about it. Names are trusted for nothing: what a folder holds beside endorsements is told by its
//! content, and set aside. Never reads what the command line names as something else.

use super::super::endorsement_kinds::{KNOWN, NoEndorsement, Piece, recognise};
use super::{Handed, Unfit};
use crate::fault::Fault;
use crate::files;
use inwit_protocol::refusal::RefusalCode;
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
///
/// # Errors
/// What cannot be read; a file that is named and is no endorsement; one in a folder that looks like one and is spoilt, unless
/// it is for hardware that is not judged.
pub(in super::super) fn read(handed: &Handed<'_>, set_aside: &mut Vec<(PathBuf, String)>) -> Result<Vec<Held>, Unfit> {
    let mut held = Vec::new();
    let mut left = TOTAL_LIMIT;
    for (path, place) in list(handed, set_aside)? {
        let cause = match pieces(&path, &mut left)? {
            Ok(pieces) => {
                held.extend(pieces.into_iter().map(|piece| Held { path: path.clone(), place, piece }));
                continue;
            }
            Err(cause) => cause,
        };
        // A file that is named is meant, whatever it holds.
        let code = match &cause {
            NoEndorsement::Spoilt(spoilt) if place == Place::Named => spoilt.code,
            NoEndorsement::Spoilt(spoilt) if spoilt.platform.is_none_or(|of| handed.concerns(of)) => spoilt.code,
            NoEndorsement::Oversized(_) if place == Place::Named => RefusalCode::Oversized,
            _ if place == Place::Named => RefusalCode::Malformed,
            cause => {
                set_aside.push((path, cause.to_string()));
                continue;
            }
        };
        return Err(match cause {
            NoEndorsement::Unknown(cause) => Unfit::refused(code, &path, format_args!("{cause}; known are {KNOWN}")),
            cause => Unfit::refused(code, &path, cause),
        });
    }
    Ok(held)
}

/// What a file holds, or why it is not understood.
fn pieces(path: &Path, left: &mut usize) -> Result<Result<Vec<Piece>, NoEndorsement>, Unfit> {
    if usize::try_from(metadata(path)?.len()).map_or(true, |length| length > FILE_LIMIT) {
        return Ok(Err(NoEndorsement::Oversized(format!("longer than {FILE_LIMIT} bytes"))));
    }
    let bytes = files::read(path, FILE_LIMIT)?;
    let found = recognise(&bytes);
    if found.is_ok() {
        let cause =
            || Unfit::refused(RefusalCode::Oversized, path, format_args!("with the others above {TOTAL_LIMIT} bytes"));
        *left = left.checked_sub(bytes.len()).ok_or_else(cause)?;
    }
    Ok(found)
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
            } else {
                match kind(&path)? {
                    Kind::Folder => below.push((path, place, depth.saturating_add(1))),
                    Kind::File => files.push((path, place)),
                    Kind::Other => set_aside.push((path, "neither a file nor a folder".to_owned())),
                    Kind::Nothing => set_aside.push((path, "a link that leads to nothing".to_owned())),
                }
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

/// What lies in a folder.
enum Kind {
    File,
    Folder,
    /// A pipe, a device.
    Other,
    Nothing,
}

fn kind(path: &Path) -> Result<Kind, Fault> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Kind::Folder),
        Ok(metadata) if metadata.is_file() => Ok(Kind::File),
        Ok(_) => Ok(Kind::Other),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kind::Nothing),
        Err(error) => Err(Fault::of(path.display(), error)),
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
