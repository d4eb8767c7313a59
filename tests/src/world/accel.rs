//! Which accelerator a virtual machine gets on this machine.
//! Does not trust `/dev/kvm`: in some nested set-ups it opens and then hangs a guest for ever, and QEMU's own fallback
//! does not notice. Hardware virtualisation must show in the processor's flags as well.

use std::{
    fs::{self, OpenOptions},
    sync::OnceLock,
    time::Duration,
};

use super::command::Call;

/// How guest code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// Translated by QEMU; slow, works everywhere.
    Tcg,
}

impl Accelerator {
    /// What this machine can do; found out once per process.
    pub fn of_this_machine() -> Accelerator {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            if shows_virtualisation(&flags) && kvm_starts() { Accelerator::Kvm } else { Accelerator::Tcg }
        })
    }

    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

fn shows_virtualisation(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.any(|line| line.split_whitespace().any(|flag| flag == "svm" || flag == "vmx"))
}

/// Opens the device and lets QEMU make an empty machine with it.
fn kvm_starts() -> bool {
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    // A QEMU that could start takes the word from its monitor and comes back with success.
    let arguments = ["-accel", "kvm", "-machine", "none", "-nodefaults", "-display", "none", "-S", "-monitor", "stdio"];
    let call =
        Call::to("qemu-system-x86_64").map(|call| call.args(arguments).input(b"quit\n").limit(Duration::from_secs(10)));
    call.is_ok_and(|call| call.run().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_processors_flags_count() {
        assert!(shows_virtualisation("model name: x\nflags\t\t: fpu svm sse\n"));
        assert!(shows_virtualisation("flags\t\t: fpu vmx\n"));
        assert!(!shows_virtualisation("flags\t\t: fpu sse\nvmx flags\t: vnmi\nmodel name\t: vmx svm\n"));
    }
}
