//! What only PID 1 does: mounts, kernel modules, reaping's preconditions, and the end. Every way out is a power-off.

use crate::config::{Absence, MeasuredConfig};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::process::ExitCode;

const STRICT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

fn mount_one(kind: &str, target: &str, flags: MsFlags) -> Result<(), Refusal> {
    // For sockets and secret files: small, and nobody else's to write to.
    let options = (kind == "tmpfs").then_some("mode=0755,size=16m");
    match mount(Some(kind), target, Some(kind), flags, options) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()), // devtmpfs may have been mounted by the kernel
        Err(errno) => Err(Refusal::new(RefusalCode::Internal, format_args!("mounting {kind} at {target}: {errno}"))),
    }
}

/// The file systems that need no module. The folders are in the image.
pub(crate) fn mount_early() -> Result<(), Refusal> {
    mount_one("proc", "/proc", STRICT)?;
    // A break on the serial line is the host's: no dump of registers or memory at its wish.
    set("kernel/sysrq", "0")?;
    mount_one("sysfs", "/sys", STRICT)?;
    mount_one("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC)?;
    mount_one("tmpfs", "/run", STRICT)?;
    mount_one("securityfs", "/sys/kernel/security", STRICT)?;
    // Ctrl-Alt-Del comes from the host: let it be a signal that ends the workload in order, not a hard reset.
    set_cad_enabled(false).map_err(|errno| Refusal::new(RefusalCode::Internal, format_args!("ctrl-alt-del: {errno}")))
}

/// The file systems that modules bring.
pub(crate) fn mount_late() -> Result<(), Refusal> {
    match mount_one("configfs", "/sys/kernel/config", STRICT) {
        // A platform without configfs has no report directory; which platform this is, is found out next.
        Err(_) if !std::path::Path::new("/sys/kernel/config").exists() => Ok(()),
        other => other,
    }
}

/// Sets a kernel parameter; one that this kernel does not have needs no setting. A kernel that has no parameters at all
/// cannot be closed, and is refused.
fn set(name: &str, value: &str) -> Result<(), Refusal> {
    if !std::path::Path::new("/proc/sys/kernel").is_dir() {
        return Err(Refusal::new(
            RefusalCode::Internal,
            "this kernel has no /proc/sys: build it with CONFIG_PROC_SYSCTL",
        ));
    }
    match std::fs::write(format!("/proc/sys/{name}"), value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Refusal::new(RefusalCode::Internal, format_args!("setting {name}: {error}")))
        }
        _ => Ok(()),
    }
}

/// After the last module: nothing more gets into the kernel, and its own surface for the workload shrinks.
pub(crate) fn close_the_kernel() -> Result<(), Refusal> {
    set("kernel/modules_disabled", "1")?;
    set("kernel/kexec_load_disabled", "1")?;
    set("kernel/dmesg_restrict", "1")?;
    set("kernel/unprivileged_bpf_disabled", "1")?;
    set("kernel/io_uring_disabled", "2")?;
    set("user/max_user_namespaces", "0")
}

/// Loads the configured modules in order.
pub(crate) fn load_modules(config: &MeasuredConfig) -> Result<(), Refusal> {
    for module in &config.modules {
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::new(RefusalCode::Internal, format_args!("module {}: {error}", module.path.display()))
        };
        let file = File::open(&module.path).map_err(|error| failed(&error))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(nix::Error::ENODEV) if module.absence == Absence::Expect => {}
            Err(errno) => return Err(failed(&errno)),
        }
    }
    Ok(())
}

/// A panic would make the kernel panic, and leave the VM standing if it is so configured: power off instead.
pub(crate) fn power_off_on_panic() {
    std::panic::set_hook(Box::new(|information| {
        let place = information.location().map(ToString::to_string).unwrap_or_default();
        crate::console::line(&format!("inwit: PANIC at {place}; powering off"), ExitCode::FAILURE);
        power_off();
    }));
}

/// Ends every other process and powers off. Returns only if the kernel refuses. There is nothing to flush: no file system
/// is mounted for writing but those in memory, and a host that stalls a device must not stall this.
pub(crate) fn power_off() -> ExitCode {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL); // none left is as good
    let refused = reboot(RebootMode::RB_POWER_OFF);
    crate::console::line(&format!("inwit: power-off refused: {refused:?}"), ExitCode::FAILURE)
}
