//! A private package index under `target/world/apt`: fetches and unpacks packages without installing anything.
//! Works as any user and leaves the system's package state and configuration alone.
//! Trusts what the archive's signed index vouches for, by the keyring that the machine already has for its own mirror.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Progress, Result, World, command::Call, error::WorldError, sources::Source};

const UPDATE_LIMIT: Duration = Duration::from_secs(300);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
const ATTEMPTS: u32 = 3;

/// Own lists, cache, keys' use and configuration for a set of sources.
#[derive(Debug)]
pub(crate) struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// Writes the configuration and fetches the index. The caller holds the lock of what it is going to fill.
    pub(crate) fn open(world: &World, name: &str, sources: &[Source], progress: &Progress) -> Result<PrivateApt> {
        let folder = world.root().join("apt").join(name);
        for part in ["lists/partial", "cache/archives/partial", "empty"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(WorldError::file("make", &path))?;
        }
        let stanzas: Vec<String> = sources.iter().map(Source::to_deb822).collect();
        write(&folder.join("inwit.sources"), &stanzas.join("\n"))?;
        write(&folder.join("status"), "")?;
        write(&folder.join("apt.conf"), &configuration(&folder, &network_settings()))?;
        let apt = PrivateApt { folder };
        progress.note(&format!("fetching the package index ({name})"));
        // Any source that cannot be fetched is an error here; apt alone would warn and go on with what it has.
        let update = apt.call("apt-get")?.args(["update", "-q", "--error-on=any"]).limit(UPDATE_LIMIT);
        update.run_retrying(ATTEMPTS, |line| progress.note(line))?;
        Ok(apt)
    }

    /// Names of all packages that begin so.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = self.call("apt-cache")?.args(["pkgnames", prefix]).text()?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The version that a download would get, or `None` if the package is not there.
    pub(crate) fn version(&self, package: &str) -> Result<Option<String>> {
        let text = self.call("apt-cache")?.args(["policy", package]).text()?;
        let candidate = text.lines().find_map(|line| line.trim().strip_prefix("Candidate:"));
        Ok(candidate.map(str::trim).filter(|version| *version != "(none)").map(str::to_owned))
    }

    /// Downloads packages (hashes checked against the signed index) and unpacks them all into one folder.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path, progress: &Progress) -> Result<()> {
        let scratch = into.join(".packages");
        fs::create_dir_all(&scratch).map_err(WorldError::file("make", &scratch))?;
        progress.note(&format!("downloading {}", packages.join(", ")));
        let download = self.call("apt-get")?.args(["download", "-q"]).args(packages);
        let download = download.within(&scratch).limit(DOWNLOAD_LIMIT);
        download.run_retrying(ATTEMPTS, |line| progress.note(line))?;
        let mut unpacked = 0;
        for entry in fs::read_dir(&scratch).map_err(WorldError::file("read", &scratch))?.flatten() {
            progress.note(&format!("unpacking {}", entry.file_name().to_string_lossy()));
            Call::to("dpkg-deb")?.arg("-x").arg(entry.path()).arg(into).limit(DOWNLOAD_LIMIT).run()?;
            unpacked += 1;
        }
        if unpacked != packages.len() {
            let cause = format!("{unpacked} of {} packages came", packages.len());
            return Err(WorldError::unusable("download", cause, "try again; if it stays so, look at the mirror"));
        }
        fs::remove_dir_all(&scratch).map_err(WorldError::file("remove", &scratch))
    }

    fn call(&self, program: &str) -> Result<Call> {
        Ok(Call::to(program)?.set("APT_CONFIG", self.folder.join("apt.conf")))
    }
}

/// The machine's own proxy, TLS and retry settings. Its hooks and pins are left out: they are about the system's state.
fn network_settings() -> String {
    let dump = Call::to("apt-config").and_then(|call| call.arg("dump").text()).unwrap_or_default();
    let kept = dump.lines().filter(|line| {
        let name = line.split([' ', '"']).next().unwrap_or_default();
        name.starts_with("Acquire::") && !name.starts_with("Acquire::Languages")
    });
    kept.map(|line| format!("{line}\n")).collect()
}

fn configuration(folder: &Path, network: &str) -> String {
    let place = |name: &str| folder.join(name).display().to_string();
    let (empty, lists, cache) = (place("empty"), place("lists"), place("cache"));
    let (sources, status) = (place("inwit.sources"), place("status"));
    format!(
        r#"{network}
Dir::Etc::Parts "{empty}";
Dir::Etc::Main "/dev/null";
Dir::Etc::SourceList "{sources}";
Dir::Etc::SourceParts "{empty}";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "{empty}";
Dir::State "{folder}";
Dir::State::Lists "{lists}";
Dir::State::Status "{status}";
Dir::Cache "{cache}";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"#,
        folder = folder.display()
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(WorldError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_state_names_no_system_folder_to_write_in() {
        let text = configuration(Path::new("/w/apt/x"), "Acquire::http::Proxy \"http://proxy.test\";\n");
        assert!(text.contains("Acquire::http::Proxy \"http://proxy.test\";"));
        for wanted in
            ["Dir::State \"/w/apt/x\"", "Dir::State::Lists \"/w/apt/x/lists\"", "Dir::Cache \"/w/apt/x/cache\""]
        {
            assert!(text.contains(wanted), "{wanted}");
        }
        assert!(!text.contains("/var/") && !text.contains("/etc/"), "{text}");
    }
}
