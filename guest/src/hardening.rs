//! What the process gives up before it holds a secret: core dumps, being dumped or traced, swapping, and gaining
//! privileges by exec. Each step is checked; a step that fails is a refusal.

use inwit_protocol::refusal::{Refusal, RefusalCode};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, setrlimit};

/// `MCL_ONFAULT` of mlockall(2), which nix does not name.
const MCL_ONFAULT: i32 = 4;

/// Hardens the process.
pub(crate) fn harden() -> Result<(), Refusal> {
    let failed = |step: &'static str| {
        move |errno| Refusal::new(RefusalCode::Internal, format_args!("hardening, {step}: {errno}"))
    };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("core limit"))?;
    crate::sys::set_not_dumpable().map_err(failed("dumpable"))?;
    crate::sys::set_no_new_privileges().map_err(failed("no_new_privs"))?;
    // On fault: pages are locked when they are first used, so that only what is used counts against the machine.
    let on_fault = MlockAllFlags::from_bits_retain(MCL_ONFAULT);
    let pages = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    mlockall(pages).map_err(failed("locking memory (raise RLIMIT_MEMLOCK for the service)"))
}

/// Peak resident memory in KiB, as the kernel counted it; 0 if it does not say.
pub(crate) fn peak_rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
