//! What must be on the machine, how it is recognised, and how root gets what is missing.
//! A thing is looked for by its program, file or library, so that other distributions and hand-made installs count.
//! Never installs as anybody but root, never removes a package, never changes a package source that is there.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use super::command::find_program;
use super::{Progress, Result, command::Call, error::WorldError, sources::Mirror};

const SOURCE_FILE: &str = "/etc/apt/sources.list.d/inwit-backports.sources";
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);
const ATTEMPTS: u32 = 3;
/// Packages of which all must come from the same release; if one here is a backport, all must be.
const QEMU: [&str; 4] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils"];

/// How a requirement is recognised.
#[derive(Debug, Clone, Copy)]
enum Proof {
    Program(&'static str),
    AnyFile(&'static [&'static str]),
    Library(&'static str),
}

/// One thing that must be here.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// Debian's package names: the first that the archive knows, else the last.
    packages: &'static [&'static str],
    proof: Proof,
    /// What it is for, for people.
    pub purpose: &'static str,
}

const fn program(name: &'static str, packages: &'static [&'static str], purpose: &'static str) -> Requirement {
    Requirement { packages, proof: Proof::Program(name), purpose }
}

/// Everything, complete for a machine that has nothing but a Rust toolchain and a linker.
pub const REQUIREMENTS: &[Requirement] = &[
    program("qemu-system-x86_64", &["qemu-system-x86"], "runs the virtual machines"),
    Requirement { packages: &["ovmf"], proof: Proof::AnyFile(super::firmware::OVMF_CODE), purpose: "UEFI firmware" },
    program("swtpm", &["swtpm"], "the virtual TPM"),
    program("swtpm_setup", &["swtpm-tools"], "manufactures a virtual TPM"),
    program("certtool", &["gnutls-bin"], "issues the virtual TPM's endorsement certificate"),
    Requirement {
        packages: &["systemd-boot-efi"],
        proof: Proof::AnyFile(super::firmware::UKI_STUB),
        purpose: "the stub of a unified kernel image",
    },
    program("musl-gcc", &["musl-tools"], "C parts of the static guest"),
    program("cpio", &["cpio"], "reads our archives independently, in a test"),
    program("openssl", &["openssl"], "makes the RSA keys of the simulated AMD root"),
    program("python3", &["python3"], "runs the independent calculator of launch digests"),
    program("pip3", &["python3-pip"], "fetches that calculator"),
    program("gcc-12", &["gcc-12", "gcc"], "the compiler that the kernel's headers name"),
    program("c++", &["g++"], "the engine of the fuzz targets, libFuzzer"),
    program("make", &["make"], "builds the simulated report provider's module"),
    program("objcopy", &["binutils"], "strips that module, assembles unified kernel images"),
    Requirement {
        packages: &["libelf1t64", "libelf1"],
        proof: Proof::Library("libelf.so.1"),
        purpose: "objtool, run when a kernel module is built",
    },
    program("depmod", &["kmod"], "lists the kernel modules' dependencies"),
    program("xz", &["xz-utils"], "decompresses kernel modules"),
    program("mkfs.ext4", &["e2fsprogs"], "makes the workload's disk"),
    program("socat", &["socat"], "the relay that the shim is measured against"),
    program("dpkg-deb", &["dpkg"], "unpacks the kernel and firmware packages"),
    program("setpriv", &["util-linux"], "ends virtual machines when their test dies"),
];

impl Requirement {
    /// Whether it is on this machine.
    pub fn is_met(&self) -> bool {
        match self.proof {
            // Where there is no gcc-12, `make CC=gcc` serves: the kernel warns about another compiler and goes on.
            Proof::Program("gcc-12") => compiler().is_some(),
            Proof::Program(name) => find_program(name).is_some(),
            Proof::AnyFile(paths) => paths.iter().any(|path| Path::new(path).is_file()),
            Proof::Library(name) => find_library(name).is_some(),
        }
    }

    /// The package that brings it here. The index is asked only where there is a choice: without lists that takes long.
    fn package_here(&self) -> String {
        let choices = self.packages.split_last().map_or(&[][..], |(_, others)| others);
        choices.iter().copied().find(|package| is_known(package)).unwrap_or_else(|| self.name()).to_owned()
    }

    /// The name to show for it.
    pub fn name(&self) -> &'static str {
        self.packages.last().copied().unwrap_or_default()
    }
}

/// The C compiler for kernel modules: the one the headers name if it is here, else the machine's own.
pub fn compiler() -> Option<PathBuf> {
    find_program("gcc-12").or_else(|| find_program("gcc"))
}

fn find_library(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// What is missing here, in the order of [`REQUIREMENTS`]. Takes a few milliseconds.
pub fn missing() -> Vec<Requirement> {
    REQUIREMENTS.iter().filter(|requirement| !requirement.is_met()).copied().collect()
}

/// Installs what is missing.
///
/// # Errors
/// [`WorldError::NeedsRoot`] with the one line to run, for a user who is not root; else what the package tool said.
pub fn prepare(progress: &Progress) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(Requirement::name).collect::<Vec<_>>().join(", ");
    if find_program("apt-get").is_none() {
        let cause = format!("missing: {list} (named as in Debian)");
        return Err(WorldError::unusable("packages", cause, "install them with this system's own package tool"));
    }
    if nix::unistd::geteuid().is_root() {
        progress.line(&format!("installing packages: {list}"));
        update(progress)?;
        Plan::of(&missing)?.carry_out(progress)
    } else {
        Err(WorldError::NeedsRoot { missing: list, line: Plan::of(&missing)?.line() })
    }?;
    let still = self::missing();
    if still.is_empty() {
        return Ok(());
    }
    let list = still.iter().map(Requirement::name).collect::<Vec<_>>().join(", ");
    let cause = format!("installed, and still not found: {list}");
    Err(WorldError::unusable("packages", cause, "report this with the names and versions of the packages"))
}

fn update(progress: &Progress) -> Result<()> {
    let call = Call::to("apt-get")?.args(["update", "-q"]).limit(Duration::from_secs(300));
    call.run_retrying(ATTEMPTS, |line| progress.note(line)).map(drop)
}

/// What will be installed and from where: made once, then either carried out or shown as one line.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// A new source file's text, where the backports are needed and not configured.
    source: Option<String>,
    /// The release that the QEMU packages must come from, where it is not the default.
    release: Option<String>,
    qemu: Vec<String>,
    others: Vec<String>,
}

impl Plan {
    fn of(missing: &[Requirement]) -> Result<Plan> {
        let names = missing.iter().map(Requirement::package_here).collect();
        if QEMU.iter().any(|package| installed_version(package).is_some_and(|version| version.contains("~bpo"))) {
            return Ok(Plan::with_backports(names, &Mirror::of_this_machine()?));
        }
        Ok(Plan::plain(names))
    }

    fn plain(names: Vec<String>) -> Plan {
        let (qemu, others) = names.into_iter().partition(|name| QEMU.contains(&name.as_str()));
        Plan { source: None, release: None, qemu, others }
    }

    /// Part of QEMU is here from the backports already, and the release's own QEMU would conflict with it.
    fn with_backports(names: Vec<String>, mirror: &Mirror) -> Plan {
        let suite = format!("{}-backports", mirror.codename);
        let source = (!mirror.offers(&suite)).then(|| mirror.archive.for_suites(&[&suite]).to_deb822());
        Plan { source, release: Some(suite), ..Plan::plain(names) }
    }

    /// Argument lists for `apt-get`: QEMU first, then the rest.
    fn installs(&self) -> Vec<Vec<String>> {
        let common = ["install", "-y", "--no-install-recommends"].map(str::to_owned);
        let target = self.release.iter().flat_map(|release| ["-t".to_owned(), release.clone()]);
        let qemu = common.iter().cloned().chain(target).chain(self.qemu.iter().cloned()).collect();
        let others = common.iter().cloned().chain(self.others.iter().cloned()).collect();
        let pairs = [(!self.qemu.is_empty(), qemu), (!self.others.is_empty(), others)];
        pairs.into_iter().filter_map(|(any, list)| any.then_some(list)).collect()
    }

    /// The same as one line for a shell.
    fn line(&self) -> String {
        let source = self
            .source
            .iter()
            .map(|text| format!("printf '%s\\n' {} | sudo tee {SOURCE_FILE} >/dev/null", quoted_lines(text)));
        let installs = self.installs().into_iter().map(|list| format!("sudo apt-get {}", list.join(" ")));
        let steps: Vec<String> = source.chain(["sudo apt-get update".into()]).chain(installs).collect();
        steps.join(" && ")
    }

    fn carry_out(&self, progress: &Progress) -> Result<()> {
        if let Some(text) = &self.source {
            progress.line(&format!("QEMU's tools are here from the backports: adding that suite as {SOURCE_FILE}"));
            fs::write(SOURCE_FILE, text).map_err(WorldError::file("write", SOURCE_FILE))?;
            update(progress)?;
        }
        for list in self.installs() {
            progress.note(&format!("apt-get {}", list.join(" ")));
            // Another apt may be at work on a fresh machine; unanswerable questions must not stop us.
            let options = ["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0"];
            let call = Call::to("apt-get")?.args(options).args(&list).set("DEBIAN_FRONTEND", "noninteractive");
            call.limit(INSTALL_LIMIT).run_retrying(ATTEMPTS, |line| progress.note(line))?;
        }
        Ok(())
    }
}

fn quoted_lines(text: &str) -> String {
    let quoted = text.lines().map(|line| format!("'{}'", line.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

/// Whether the machine's index has such a package; virtual names do not count.
fn is_known(package: &str) -> bool {
    let shown = Call::to("apt-cache").and_then(|call| call.args(["show", "--no-all-versions", package]).run());
    shown.is_ok_and(|text| !text.is_empty())
}

fn installed_version(package: &str) -> Option<String> {
    let format = "-f=${db:Status-Status} ${Version}";
    let said = Call::to("dpkg-query").and_then(|call| call.args(["-W", format, package]).text()).ok()?;
    said.strip_prefix("installed ").map(|version| version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::sources::Source;
    use super::*;

    fn mirror(suites: &[&str]) -> Mirror {
        let archive = Source {
            uri: "http://mirror.test/debian".into(),
            suites: vec!["bookworm".into()],
            components: vec!["main".into()],
            signed_by: Some("/keys/debian.gpg".into()),
        };
        Mirror::of("bookworm", archive, suites)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_plain_machine_gets_plain_installs() {
        let line = Plan::plain(names(&["qemu-system-x86", "ovmf", "kmod"])).line();
        assert!(line.contains("install -y --no-install-recommends qemu-system-x86 && "), "{line}");
        assert!(line.ends_with("install -y --no-install-recommends ovmf kmod") && !line.contains(" -t "), "{line}");
    }

    #[test]
    fn backported_qemu_tools_bring_the_suite_by_the_machines_own_mirror() {
        let plan = Plan::with_backports(names(&["qemu-system-x86", "ovmf"]), &mirror(&["bookworm"]));
        let source = plan.source.clone().unwrap();
        assert!(source.contains("URIs: http://mirror.test/debian\nSuites: bookworm-backports\n"), "{source}");
        assert!(source.contains("Signed-By: /keys/debian.gpg"), "{source}");
        let line = plan.line();
        assert!(line.contains("-t bookworm-backports qemu-system-x86 &&") && line.lines().count() == 1, "{line}");
        assert!(line.ends_with("--no-install-recommends ovmf"), "only QEMU comes from the backports: {line}");
    }

    #[test]
    fn a_configured_backports_suite_is_not_added_again() {
        let plan = Plan::with_backports(names(&["qemu-system-x86"]), &mirror(&["bookworm", "bookworm-backports"]));
        assert_eq!((plan.source.as_deref(), plan.release.as_deref()), (None, Some("bookworm-backports")));
    }
}
