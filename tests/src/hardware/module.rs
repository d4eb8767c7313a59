//! Builds the kernel module in `tests/module`, the guest's end of the simulated mailbox.
//!
//! The same sources and headers give the same bytes from any folder: debug information and the build identifier, which
//! depend on the path, are stripped. It trusts the kernel headers it is given, since their Makefiles are run; it
//! installs nothing and loads nothing.
//!
//! In the guest: `configfs`, `tsm`, then `inwit_tsm provider=sev_guest|tdx_guest iobase=0x2f8`, before any lockdown,
//! because the module is not signed. For QEMU see [`super::mailbox::qemu_arguments`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::HardwareError;

/// File name of the module.
pub const MODULE_FILE: &str = "inwit_tsm.ko";
const SOURCES: [(&str, &str); 2] =
    [("inwit_tsm.c", include_str!("../../module/inwit_tsm.c")), ("Makefile", include_str!("../../module/Makefile"))];

/// The driver that a module stands in for unless its loader says otherwise. The production agent passes no parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandsInFor {
    /// `sev_guest`.
    SevGuest,
    /// `tdx_guest`.
    TdxGuest,
}

impl StandsInFor {
    fn define(self) -> &'static str {
        match self {
            Self::SevGuest => "#define INWIT_PROVIDER \"sev_guest\"\n",
            Self::TdxGuest => "#define INWIT_PROVIDER \"tdx_guest\"\n",
        }
    }
}

/// Builds the module against unpacked Linux 6.12 headers and writes it to the file `out`.
///
/// `headers` is the folder with the kernel's Makefile, or one that has it in `build`. Needs `make`, `strip` and the
/// compiler that the headers name (gcc-12 on Debian 12). Takes 4 to 10 seconds.
pub fn build_module(headers: &Path, stands_in_for: StandsInFor, out: &Path) -> Result<(), HardwareError> {
    let headers = kernel_build_dir(headers)?;
    let scratch = Scratch::new(out)?;
    for (name, content) in SOURCES {
        let prefix = if name.ends_with(".c") { stands_in_for.define() } else { "" };
        scratch.write(name, &format!("{prefix}{content}"))?;
    }
    // Without the empty setting the build stops for want of pahole, which only debug information needs.
    let mut make = Command::new("make");
    make.arg("-s")
        .arg("-C")
        .arg(&headers)
        .arg(format!("M={}", scratch.0.display()))
        .args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
    run("make", &mut make)?;
    let stripped = scratch.0.join("stripped.ko");
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-R", ".note.gnu.build-id", "-o"]).arg(&stripped).arg(scratch.0.join(MODULE_FILE));
    run("strip", &mut strip)?;
    // Copied beside and renamed, so that no reader ever meets half a module.
    fs::rename(&stripped, out).map_err(|source| HardwareError::Io { path: out.to_owned(), source })
}

fn kernel_build_dir(headers: &Path) -> Result<PathBuf, HardwareError> {
    [headers.join("build"), headers.to_owned()]
        .into_iter()
        .find(|dir| dir.join("Makefile").is_file())
        .and_then(|dir| dir.canonicalize().ok())
        .ok_or_else(|| HardwareError::Headers(headers.to_owned()))
}

fn run(tool: &'static str, command: &mut Command) -> Result<(), HardwareError> {
    let output = command.stdin(Stdio::null()).output().map_err(|source| HardwareError::Tool {
        tool,
        next: "install make, binutils and the compiler that the kernel headers name",
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(HardwareError::Failed { tool, output: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// A folder beside the result, on the same file system, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(out: &Path) -> Result<Self, HardwareError> {
        let io_error = |source| HardwareError::Io { path: out.to_owned(), source };
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(io_error)?;
        let parent = parent.canonicalize().map_err(io_error)?;
        let [first, second, third, fourth] = super::random::<4>()?;
        let dir = parent.join(format!("module-build-{first:02x}{second:02x}{third:02x}{fourth:02x}"));
        fs::create_dir(&dir).map_err(io_error)?;
        Ok(Self(dir))
    }

    fn write(&self, name: &str, content: &str) -> Result<(), HardwareError> {
        let path = self.0.join(name);
        fs::write(&path, content).map_err(|source| HardwareError::Io { path, source })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::fixture::not_run;

    #[test]
    fn two_builds_in_two_places_give_the_same_module() {
        let Some(headers) = std::env::var_os("INWIT_KERNEL_HEADERS").map(PathBuf::from) else {
            not_run("kernel module build", "set INWIT_KERNEL_HEADERS to unpacked Linux 6.12 headers");
            return;
        };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deeper = two.path().join("a/longer/path/to/it").join(MODULE_FILE);
        build_module(&headers, StandsInFor::SevGuest, &one.path().join(MODULE_FILE)).unwrap();
        build_module(&headers, StandsInFor::SevGuest, &deeper).unwrap();
        let module = fs::read(one.path().join(MODULE_FILE)).unwrap();
        assert!(module == fs::read(&deeper).unwrap(), "the builds differ");
        let has = |text: &[u8]| module.windows(text.len()).any(|window| window == text);
        assert!(has(b"license=GPL\0") && has(b"depends=tsm\0"), "module information is wrong");
        assert!(module.len() < 32 * 1024, "{} bytes: not stripped", module.len());
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1, "the scratch folder must be gone");
    }

    #[test]
    fn a_folder_without_headers_is_refused_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        let error = build_module(dir.path(), StandsInFor::SevGuest, &dir.path().join(MODULE_FILE)).unwrap_err();
        assert!(matches!(error, HardwareError::Headers(_)), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
