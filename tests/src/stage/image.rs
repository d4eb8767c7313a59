//! The measured image: inwit-guest, its one configuration file and the kernel modules it needs. The simulated report
//! device rides in an archive of its own behind the production archive, so that the production archive stays clean
//! and what is measured shows that the appendix is there.

use super::{GREETER, HELLO, Result};
use crate::world::modules::Module;
use inwit_image::Manifest;
use std::fmt::Write as _;
use std::path::Path;

/// Modules that the image loads, with what they need: reports, vsock, the disk.
pub const MODULES: [&str; 9] = [
    "tsm",
    "sev-guest",
    "tdx-guest",
    "vmw_vsock_virtio_transport",
    "virtio_blk",
    "dm-mod",
    "dm-verity",
    "dm-crypt",
    "xts",
];
/// Modules whose hardware one platform has and the others do not.
const BY_PLATFORM: [&str; 2] = ["sev-guest", "tdx-guest"];
/// vsock port of the shim to the authority.
pub const AUTHORITY_PORT: u32 = 4050;
/// vsock port of the shim to the greeter.
pub const GREETER_PORT: u32 = 4051;
/// vsock port of Azure's quoting service.
pub const QUOTE_PORT: u32 = 4052;
/// User of the workload.
pub const WORKLOAD_USER: u32 = 65_534;

/// What differs between configurations.
pub struct Settings<'a> {
    /// Pin of the authority's key, hex.
    pub pin: &'a str,
    /// Identity that the guest expects.
    pub identifier: &'a str,
    /// Modules in load order; none for a process.
    pub modules: &'a [Module],
    /// Where relays, devices and the run directory are.
    pub place: Place<'a>,
}

/// A virtual machine, or a folder for a process.
pub enum Place<'a> {
    /// In a virtual machine.
    Machine,
    /// As a process.
    Process {
        /// Folder with the sockets and the run directory.
        folder: &'a Path,
        /// The report directory.
        tsm_root: &'a Path,
        /// The TPM's socket.
        tpm: &'a Path,
        /// The event log.
        event_log: &'a Path,
        /// The workload.
        hello: &'a Path,
    },
}

/// The configuration file's text.
pub fn configuration(settings: &Settings<'_>) -> String {
    let mut text = format!(
        "# measured: every byte of this file is part of the guest's identity\nidentifier = {}\nauthority-pin = {}\n",
        settings.identifier, settings.pin
    );
    for module in settings.modules {
        let key = if BY_PLATFORM.contains(&module.name.as_str()) { "module-if-present" } else { "module" };
        let _ = writeln!(text, "{key} = /lib/modules/{}.ko", module.name);
    }
    let _ = writeln!(text, "workload-user = {WORKLOAD_USER}");
    match &settings.place {
        Place::Machine => {
            let _ = writeln!(text, "authority = vsock:2:{AUTHORITY_PORT}");
            let _ = writeln!(text, "outlet = greeter vsock:2:{GREETER_PORT} {GREETER}");
            let _ = writeln!(text, "td-quote-service = vsock:2:{QUOTE_PORT}");
            let _ = writeln!(text, "disk = /dev/vda disk");
            let _ = writeln!(text, "workload = /workload/hello /workload/payload.txt");
        }
        Place::Process { folder, tsm_root, tpm, event_log, hello } => {
            let folder = folder.display();
            let _ = writeln!(text, "authority = unix:{folder}/authority.sock");
            let _ = writeln!(text, "outlet = greeter unix:{folder}/greeter.sock {GREETER}");
            let _ = writeln!(text, "td-quote-service = unix:{folder}/td-quote.sock");
            let _ = writeln!(text, "secret-file = payload");
            let _ = writeln!(text, "workload = {} {folder}/run/secrets/payload", hello.display());
            let _ = writeln!(
                text,
                "run = {folder}/run\ntsm-root = {}\ntpm = {}\nevent-log = {}",
                tsm_root.display(),
                tpm.display(),
                event_log.display()
            );
        }
    }
    text
}

/// The production archive: what ships.
pub fn production(guest: &Path, configuration: &str, modules: &[Module]) -> Result<Vec<u8>> {
    let mut manifest = Manifest::new();
    for folder in ["/dev", "/etc", "/etc/inwit", "/lib", "/lib/modules", "/proc", "/run", "/sys", "/workload"] {
        manifest = manifest.directory(folder, 0o755);
    }
    manifest = manifest.file_from("/init", 0o755, guest).file("/etc/inwit/guest.conf", 0o444, configuration);
    for module in modules {
        manifest = manifest.file(&format!("/lib/modules/{}.ko", module.name), 0o444, module.bytes.clone());
    }
    Ok(manifest.build(Path::new("/"))?.into_bytes())
}

/// The appendix: the simulated provider in the place of one platform's driver.
pub fn appendix(replaces: &str, module: Vec<u8>) -> Result<Vec<u8>> {
    let manifest = Manifest::new().directory("/lib", 0o755).directory("/lib/modules", 0o755);
    let manifest = manifest.file(&format!("/lib/modules/{replaces}.ko"), 0o444, module);
    Ok(manifest.build(Path::new("/"))?.into_bytes())
}

/// The registered identity, unless a test says otherwise.
pub const IDENTIFIER: &str = HELLO;
