//! Firmware images: the installed UEFI build that boots, and two launch builds that are only computed with.
//! The SEV build with kernel hashes and the TDX build come out of Debian's newest packages, unpacked into the cache, and
//! are named with version and digest, because what is predicted from them holds for exactly these bytes.
//! Never installs them and never claims that a plain virtual machine ran them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Progress, Result, World, apt::PrivateApt, cache::Cache, error::WorldError, qemu::Firmware, sources::Mirror,
};

/// Where distributions keep the 4 MiB UEFI build; its variables' template lies beside it.
pub(crate) const OVMF_CODE: &[&str] = &["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/edk2/x64/OVMF_CODE.4m.fd"];
/// Where distributions keep the stub of a unified kernel image.
pub(crate) const UKI_STUB: &[&str] = &["/usr/lib/systemd/boot/efi/linuxx64.efi.stub"];
/// The suite whose packages hold the launch builds.
const SUITE: &str = "sid";
/// Holds a fetched package's version, beside the unpacked files.
const VERSION_FILE: &str = "version";

/// The installed UEFI build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ovmf {
    /// The read-only half, which is measured.
    pub code: PathBuf,
    /// The template of the writable half.
    pub vars: PathBuf,
}

impl Ovmf {
    /// For [`Boot::firmware`](super::qemu::Boot::firmware).
    pub fn firmware(&self) -> Firmware {
        Firmware::Ovmf { code: self.code.clone(), vars: self.vars.clone() }
    }
}

/// Which launch build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launch {
    /// SEV-SNP with the table of kernel hashes.
    AmdSev,
    /// TDX. Debian builds it with Secure Boot on and the usual vendors' keys enrolled, which shows in its measurement.
    IntelTdx,
}

/// A launch build that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFirmware {
    /// The image.
    pub path: PathBuf,
    /// Debian's package.
    pub package: &'static str,
    /// The package's version.
    pub version: String,
    /// Of the image, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl Launch {
    /// Both.
    pub const ALL: [Launch; 2] = [Launch::AmdSev, Launch::IntelTdx];

    /// Debian's package that holds it.
    pub fn package(self) -> &'static str {
        match self {
            Launch::AmdSev => "ovmf-amdsev",
            Launch::IntelTdx => "ovmf-inteltdx",
        }
    }

    /// The image's file name in the package.
    fn image(self) -> &'static str {
        match self {
            Launch::AmdSev => "OVMF.amdsev.fd",
            Launch::IntelTdx => "OVMF.inteltdx.ms.fd",
        }
    }

    /// The fetched build, if there is one. Uses no network.
    ///
    /// # Errors
    /// The cache holds the package but not its image.
    pub fn cached(self, world: &World) -> Result<Option<LaunchFirmware>> {
        cache(world).complete(self.package()).map(|folder| self.in_folder(&folder)).transpose()
    }

    /// The fetched build; fetches it first if there is none.
    ///
    /// # Errors
    /// No Debian archive configured, no network, or no such package or image in it.
    pub fn prepare(self, world: &World, progress: &Progress) -> Result<LaunchFirmware> {
        if let Some(firmware) = self.cached(world)? {
            return Ok(firmware);
        }
        let cache = cache(world);
        let filling = cache.lock(progress)?;
        if let Some(firmware) = self.cached(world)? {
            return Ok(firmware);
        }
        let archive = Mirror::of_this_machine()?.archive;
        let apt = PrivateApt::open(world, SUITE, &[archive.for_suites(&[SUITE])], progress)?;
        // One index serves both: fetch the other as well, so that they are of one version.
        for launch in Launch::ALL {
            if cache.complete(launch.package()).is_none() {
                filling.fill(launch.package(), |folder| launch.fetch(&apt, folder, progress))?;
            }
        }
        self.cached(world)?.ok_or_else(|| self.unusable("was fetched and is not in the cache"))
    }

    fn fetch(self, apt: &PrivateApt, folder: &Path, progress: &Progress) -> Result<()> {
        let version = apt.version(self.package())?.ok_or_else(|| self.unusable("is not in the archive"))?;
        apt.unpack(&[self.package().to_owned()], folder, progress)?;
        find_file(folder, self.image()).ok_or_else(|| self.unusable("no longer holds its image"))?;
        let path = folder.join(VERSION_FILE);
        fs::write(&path, version).map_err(WorldError::file("write", path))
    }

    fn in_folder(self, folder: &Path) -> Result<LaunchFirmware> {
        let path = find_file(folder, self.image()).ok_or_else(|| self.unusable("no longer holds its image"))?;
        let bytes = fs::read(&path).map_err(WorldError::file("read", &path))?;
        let version_file = folder.join(VERSION_FILE);
        let version = fs::read_to_string(&version_file).map_err(WorldError::file("read", version_file))?;
        Ok(LaunchFirmware { path, package: self.package(), version, sha256: sha256_hex(&bytes) })
    }

    fn unusable(self, cause: &str) -> WorldError {
        WorldError::unusable(self.package(), cause, "remove target/world/firmware and run inwit-setup")
    }
}

/// The installed UEFI build.
///
/// # Errors
/// Not installed, or installed without the template of its variables.
pub fn ovmf() -> Result<Ovmf> {
    let code = first_file(OVMF_CODE)
        .ok_or_else(|| WorldError::unusable("UEFI firmware", "not installed", "run inwit-setup"))?;
    let name = code.file_name().unwrap_or_default().to_string_lossy().replace("CODE", "VARS");
    let vars = code.with_file_name(name);
    if vars.is_file() {
        return Ok(Ovmf { code, vars });
    }
    let cause = format!("{} is missing beside the code", vars.display());
    Err(WorldError::unusable("UEFI firmware", cause, "install the whole package again"))
}

/// The installed stub of a unified kernel image.
///
/// # Errors
/// Not installed.
pub fn uki_stub() -> Result<PathBuf> {
    first_file(UKI_STUB).ok_or_else(|| WorldError::unusable("the UKI stub", "not installed", "run inwit-setup"))
}

/// SHA-256 of bytes, 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cache(world: &World) -> Cache {
    Cache::at(world.root().join("firmware"))
}

fn first_file(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Looks through the unpacked package, which is shallow, without following links.
fn find_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).ok()?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() && entry.file_name() == name => return Some(entry.path()),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetched_build_is_named_by_version_and_digest() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::below(dir.path());
        assert_eq!(Launch::AmdSev.cached(&world).unwrap(), None);
        let folder = world.root().join("firmware/ovmf-amdsev");
        fs::create_dir_all(folder.join("usr/share/ovmf")).unwrap();
        assert!(Launch::AmdSev.cached(&world).is_err(), "a package without its image is told, not taken");
        fs::write(folder.join("usr/share/ovmf/OVMF.amdsev.fd"), b"abc").unwrap();
        fs::write(folder.join("version"), "1.0-1").unwrap();
        let firmware = Launch::AmdSev.cached(&world).unwrap().unwrap();
        assert_eq!(firmware.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((firmware.package, firmware.version.as_str()), ("ovmf-amdsev", "1.0-1"));
    }
}
