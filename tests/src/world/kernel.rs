//! The guest kernel: a pinned Debian cloud kernel with its headers, unpacked into the cache and never installed.
//! Pinned because every kernel version changes what is measured. Does not trust the cache to be whole unless it was
//! moved into place; never touches `/boot` or `/lib/modules` of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Progress, Result, World,
    apt::PrivateApt,
    cache::Cache,
    command::Call,
    error::WorldError,
    modules::{self, Module},
    sources::Mirror,
};

/// The kernel that the tests and the demo are made with, as in the package `linux-image-<this>-cloud-amd64`.
/// When the archive no longer carries it with its headers, the newest version of [`SERIES`] that it does carry is taken.
pub const PINNED: &str = "6.12.117+deb12";
/// The long-term series that a fallback is taken from: the first with `tsm` reports and still without RTMR files.
pub const SERIES: &str = "6.12.";

const FLAVOUR: &str = "cloud-amd64";
/// The Debian releases that carry the series; the first one carries [`PINNED`].
const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// A kernel that is ready to boot and to build modules for.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What `uname -r` says in the guest, for example `6.12.117+deb12-cloud-amd64`.
    pub version: String,
    /// The bzImage with EFI stub.
    pub image: PathBuf,
    /// For `make -C <headers> M=…`; works from any place.
    pub headers: PathBuf,
    /// The kernel's build options, `CONFIG_X=y` lines.
    pub config: PathBuf,
    /// `lib/modules/<version>`, with `modules.dep`.
    pub modules: PathBuf,
}

impl Kernel {
    /// The prepared kernel, if there is one: the pinned version before any other. Uses no network.
    pub fn cached(world: &World) -> Option<Kernel> {
        let cache = cache(world);
        let pinned = release_of(PINNED);
        let newest = || cache.names().into_iter().max_by_key(|name| numbers(name));
        let version = cache.complete(&pinned).map(|_| pinned).or_else(newest)?;
        cache.complete(&version).map(|folder| Kernel::in_folder(version, &folder))
    }

    /// The prepared kernel; fetches it first if there is none.
    ///
    /// # Errors
    /// No Debian archive configured, no network, or no kernel of the series in the archive.
    pub fn prepare(world: &World, progress: &Progress) -> Result<Kernel> {
        if let Some(kernel) = Kernel::cached(world) {
            return Ok(kernel);
        }
        let cache = cache(world);
        let filling = cache.lock(progress)?;
        if let Some(kernel) = Kernel::cached(world) {
            return Ok(kernel);
        }
        let (apt, version) = find(world, progress)?;
        if version != PINNED {
            progress.line(&format!("kernel {PINNED} is no longer offered with headers; taking {version} instead"));
        }
        let release = release_of(&version);
        let folder = filling.fill(&release, |folder| {
            apt.unpack(&packages_of(&version), folder, progress)?;
            make_headers_relocatable(folder, &version)?;
            progress.note("listing the modules' dependencies");
            Call::to("depmod")?.arg("-b").arg(folder).arg(&release).limit(Duration::from_secs(120)).run()?;
            Ok(())
        })?;
        Ok(Kernel::in_folder(release, &folder))
    }

    /// These modules and all that they need, decompressed, in the order in which they must be loaded.
    /// What is built into the kernel is left out.
    ///
    /// # Errors
    /// A name that is neither a module nor built in, or a file that does not decompress.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        modules::load(&self.modules, names)
    }

    fn in_folder(version: String, folder: &Path) -> Kernel {
        Kernel {
            image: folder.join("boot").join(format!("vmlinuz-{version}")),
            config: folder.join("boot").join(format!("config-{version}")),
            headers: folder.join("usr/src").join(format!("linux-headers-{version}")),
            modules: folder.join("lib/modules").join(&version),
            version,
        }
    }
}

fn cache(world: &World) -> Cache {
    Cache::at(world.root().join("kernel"))
}

fn release_of(version: &str) -> String {
    format!("{version}-{FLAVOUR}")
}

/// Everything that one version needs; a version of which one is missing cannot be used.
fn packages_of(version: &str) -> Vec<String> {
    let release = release_of(version);
    vec![
        format!("linux-image-{release}"),
        format!("linux-headers-{release}"),
        format!("linux-headers-{version}-common"),
        format!("linux-kbuild-{version}"),
    ]
}

/// Asks the security archive first: its index is small and mostly enough. The whole archive's is fetched only if not.
fn find(world: &World, progress: &Progress) -> Result<(PrivateApt, String)> {
    let mirror = Mirror::of_this_machine()?;
    for release in RELEASES {
        let (security, updates) = (format!("{release}-security"), format!("{release}-updates"));
        let security = mirror.security().map(|source| source.for_suites(&[&security]));
        let archive = mirror.archive.for_suites(&[release, &updates]);
        for (name, source) in [("security", security), ("archive", Some(archive))] {
            let Some(source) = source else { continue };
            let apt = match PrivateApt::open(world, &format!("{release}-{name}"), &[source], progress) {
                Ok(apt) => apt,
                // A mirror need not carry the security archive; the release's own comes next.
                Err(error) if name == "security" => {
                    progress.line(&format!("going on without the security archive: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(version) = best(&apt)? {
                return Ok((apt, version));
            }
        }
    }
    let cause = format!("the archive offers no {SERIES} {FLAVOUR} kernel together with its headers");
    Err(WorldError::unusable("kernel", cause, "look for a newer series and change world/kernel.rs"))
}

fn best(apt: &PrivateApt) -> Result<Option<String>> {
    let mut names = Vec::new();
    for prefix in ["linux-image-", "linux-headers-", "linux-kbuild-"] {
        names.extend(apt.names(&format!("{prefix}{SERIES}"))?);
    }
    Ok(choose(&names))
}

/// The pinned version if it is complete among these package names, else the newest complete one.
fn choose(names: &[String]) -> Option<String> {
    let image =
        |name: &String| name.strip_prefix("linux-image-")?.strip_suffix(&format!("-{FLAVOUR}")).map(str::to_owned);
    let complete = |version: &String| packages_of(version).iter().all(|package| names.contains(package));
    let versions: Vec<String> = names.iter().filter_map(image).filter(complete).collect();
    let newest = versions.iter().max_by_key(|version| numbers(version)).cloned();
    if versions.iter().any(|version| version == PINNED) { Some(PINNED.into()) } else { newest }
}

/// The numbers in a version, for ordering: `6.12.117+deb12` → 6, 12, 117, 12.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The flavour's Makefile names the common headers by their installed place, the one absolute path in them.
fn make_headers_relocatable(folder: &Path, version: &str) -> Result<()> {
    let release = release_of(version);
    let makefile = folder.join("usr/src").join(format!("linux-headers-{release}")).join("Makefile");
    let here = "$(dir $(realpath $(lastword $(MAKEFILE_LIST))))";
    let text = format!("include {here}../linux-headers-{version}-common/Makefile\n");
    fs::write(&makefile, text).map_err(WorldError::file("write", &makefile))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(versions: &[&str]) -> Vec<String> {
        versions.iter().flat_map(|version| packages_of(version)).collect()
    }

    #[test]
    fn the_pinned_kernel_wins_over_a_newer_one() {
        assert_eq!(choose(&offered(&["6.12.130+deb12", PINNED])).as_deref(), Some(PINNED));
    }

    #[test]
    fn without_the_pinned_one_the_newest_with_headers_is_taken() {
        let mut names = offered(&["6.12.95+deb12", "6.12.107+deb12", "6.12.9+deb12"]);
        names.push("linux-image-6.12.200+deb12-cloud-amd64".into());
        names.push("linux-image-6.12.201+deb12-amd64".into());
        assert_eq!(choose(&names).as_deref(), Some("6.12.107+deb12"));
        assert_eq!(choose(&[]), None);
    }
}
