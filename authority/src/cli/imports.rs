//! Imports of endorsements. A new folder is built beside the one in force, loaded as a whole, and only then takes its place:
//! a bad file changes nothing.

use super::Done;
use crate::endorsement_files;
use crate::fault::Fault;
use crate::files;
use crate::state::State;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest endorsement file, in bytes.
const FILE_LIMIT: usize = 4_194_304;
/// Deepest folder below the endorsement folder: platform, then name.
const DEPTH: usize = 3;

#[derive(Subcommand)]
pub(super) enum EndorsementsAct {
    /// Import files for one platform; everything is checked as a whole before it counts.
    Add {
        /// Platform.
        #[arg(long, value_enum)]
        platform: PlatformName,
        /// For snp the product (milan, genoa, turin); for tdx any name. Not for vtpm.
        #[arg(long, default_value = "default")]
        name: String,
        /// snp: ark.der ask.der [asvk.der] [*.crl]; tdx: root.der collateral.json; vtpm: attestation-keys.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say what is imported.
    List,
}

/// A platform on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlatformName {
    Snp,
    Tdx,
    Vtpm,
}

pub(super) fn endorsements(state: &State, act: &EndorsementsAct) -> Result<Done, Fault> {
    let mut hint = String::new();
    if let EndorsementsAct::Add { platform, name, files } = act {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Fault::of(name, "a name is letters, digits, - and _"));
        }
        let folder = match platform {
            PlatformName::Snp => Path::new("snp").join(name),
            PlatformName::Tdx => Path::new("tdx").join(name),
            PlatformName::Vtpm => PathBuf::from("vtpm"),
        };
        import(&state.endorsement_folder(), &folder, files)?;
        if *platform == PlatformName::Snp && !state.config()?.policy.snp.minimum_tcb.contains_key(name) {
            hint = format!(
                "\nstate the lowest acceptable patch levels in authority.toml, [policy.snp.minimum_tcb.{name}]: until then {name} is refused"
            );
        }
        let is_list = |path: &Path| path.extension().is_some_and(|extension| extension == "crl");
        if *platform == PlatformName::Snp && !files.iter().any(|file| is_list(file)) {
            hint.push_str("\nimport AMD's revocation list too (a file named *.crl): the default policy demands one");
        }
        hint.push_str("\nsend a running server SIGHUP");
    }
    let loaded = state.endorsements()?;
    let (snp, tdx, vtpm) = (loaded.snp.len(), loaded.tdx.len(), loaded.vtpm.len());
    let text = format!("endorsements: {snp} SNP roots, {tdx} TDX roots, {vtpm} TPM attestation keys{hint}");
    Ok(Done::Said(text, json!({"snp": snp, "tdx": tdx, "vtpm": vtpm})))
}

/// Builds the folder anew with `sources` in `place`, checks it, and exchanges it for the one in force.
fn import(folder: &Path, place: &Path, sources: &[PathBuf]) -> Result<(), Fault> {
    let (next, last) = (folder.with_extension("next"), folder.with_extension("last"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Fault::of(path.display(), error)
    };
    // An earlier import that was cut off between its two renames left the folder that was in force under the other name.
    if !folder.exists() && last.exists() {
        fs::rename(&last, folder).map_err(failed(&last))?;
    }
    for left_over in [&next, &last].into_iter().filter(|path| path.exists()) {
        fs::remove_dir_all(left_over).map_err(failed(left_over))?;
    }
    copy(folder, &next, DEPTH)?;
    let target = next.join(place);
    fs::create_dir_all(&target).map_err(failed(&target))?;
    for source in sources {
        let name = source.file_name().ok_or_else(|| Fault::of(source.display(), "not a file"))?;
        files::replace(&target.join(name), &files::read(source, FILE_LIMIT)?)?;
    }
    if let Err(fault) = endorsement_files::load(&next) {
        fs::remove_dir_all(&next).map_err(failed(&next))?;
        return Err(Fault::new(format!("{fault}; nothing was changed")));
    }
    fs::set_permissions(&next, fs::Permissions::from_mode(0o700)).map_err(failed(&next))?;
    fs::rename(folder, &last).map_err(failed(folder))?;
    fs::rename(&next, folder).map_err(failed(&next))?;
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed(parent))?;
    fs::remove_dir_all(&last).map_err(failed(&last))
}

/// Copies plain files and folders.
fn copy(from: &Path, to: &Path, depth: usize) -> Result<(), Fault> {
    fs::create_dir_all(to).map_err(|error| Fault::of(to.display(), error))?;
    for entry in fs::read_dir(from).map_err(|error| Fault::of(from.display(), error))? {
        let path = entry.map_err(|error| Fault::of(from.display(), error))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        match depth.checked_sub(1) {
            Some(depth) if path.is_dir() => copy(&path, &target, depth)?,
            _ => files::replace(&target, &files::read(&path, FILE_LIMIT)?)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("endorsements");
        fs::create_dir_all(&folder).unwrap();
        let keys = root.path().join("attestation-keys");
        fs::write(&keys, "ab".repeat(32)).unwrap();
        (root, folder, keys)
    }

    #[test]
    fn a_bad_file_changes_nothing() {
        let (root, folder, keys) = folders();
        import(&folder, Path::new("vtpm"), std::slice::from_ref(&keys)).unwrap();
        fs::write(&keys, "not a key").unwrap();
        let fault = import(&folder, Path::new("vtpm"), &[keys]).unwrap_err();
        assert!(fault.to_string().contains("nothing was changed"));
        assert_eq!(endorsement_files::load(&folder).unwrap().vtpm, [[0xab; 32]]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn an_import_that_was_cut_off_loses_nothing() {
        let (_root, folder, keys) = folders();
        import(&folder, Path::new("vtpm"), std::slice::from_ref(&keys)).unwrap();
        // As a crash between the two renames leaves it.
        fs::rename(&folder, folder.with_extension("last")).unwrap();
        assert!(endorsement_files::load(&folder).is_err(), "a folder that is gone is not an empty one");
        let other = keys.with_file_name("ignored");
        fs::write(&other, "").unwrap();
        import(&folder, Path::new("notes"), &[other]).unwrap();
        assert_eq!(endorsement_files::load(&folder).unwrap().vtpm, [[0xab; 32]]);
    }
}
