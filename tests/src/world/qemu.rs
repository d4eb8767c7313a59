//! A virtual machine described, and QEMU's command line made from the description.
//! The machine is the host's side of the tests: it is the adversary's hand and holds no secret.
//! Never runs without a time limit, never with more devices than named here, never with a network card.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use super::{
    Result, Running, World, WorldError, accel::Accelerator, command::Call, command::find_program, process,
    qmp::Reasons, running::Belongings, slot::Slot,
};

/// The kernel command line unless another is given. `panic=-1` together with QEMU's `-no-reboot` ends the machine on a
/// panic; without `no_timer_check` a loaded host sometimes makes a translated guest fail at its timer.
pub const DEFAULT_APPEND: &str = "console=ttyS0 panic=-1 quiet no_timer_check";
/// Memory unless another size is given, in MiB. PCR 0 and PCR 4 depend on it.
pub const DEFAULT_MEMORY_MIB: u32 = 512;

const DIRECT_LIMIT: Duration = Duration::from_secs(120);
const MEASURED_LIMIT: Duration = Duration::from_secs(300);

/// What runs before the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU's own loader. Measures nothing.
    Direct,
    /// UEFI. Measures itself, the kernel, its command line and the initrd into a TPM if there is one.
    Ovmf {
        /// The read-only half.
        code: PathBuf,
        /// The template of the writable half; every boot gets a fresh copy.
        vars: PathBuf,
    },
}

/// The first line of what QEMU says of itself.
///
/// # Errors
/// It is not installed or does not run.
pub fn version() -> Result<String> {
    let text = Call::to("qemu-system-x86_64")?.args(["--version"]).text()?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// One boot. Make it with [`Boot::of`] and set what differs.
#[derive(Debug, Clone)]
pub struct Boot {
    /// bzImage, or a unified kernel image (then without initrd and command line, under [`Firmware::Ovmf`]).
    pub kernel: PathBuf,
    /// The initramfs, as one file.
    pub initrd: Option<PathBuf>,
    /// The whole kernel command line. Empty: none is given.
    pub append: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What runs before the kernel.
    pub firmware: Firmware,
    /// Control socket of a TPM: [`Swtpm::control`](super::swtpm::Swtpm::control).
    pub tpm: Option<PathBuf>,
    /// Socket of a vsock backend: [`Vsock::backend`](super::vsock::Vsock::backend). The backend knows the guest's CID.
    pub vsock: Option<PathBuf>,
    /// Listening Unix socket behind the second serial port, I/O port 0x2f8.
    pub mailbox_socket: Option<PathBuf>,
    /// Raw image of a virtio disk, read-only.
    pub disk: Option<PathBuf>,
    /// The longest that it may run; 120 s direct, 300 s under firmware unless set. Waiting for a place does not count.
    pub limit: Option<Duration>,
}

impl Boot {
    /// A direct boot of kernel and initramfs with the default command line, memory and no devices.
    pub fn of(kernel: impl Into<PathBuf>, initrd: impl Into<PathBuf>) -> Boot {
        Boot {
            kernel: kernel.into(),
            initrd: Some(initrd.into()),
            append: DEFAULT_APPEND.into(),
            memory_mib: DEFAULT_MEMORY_MIB,
            firmware: Firmware::Direct,
            tpm: None,
            vsock: None,
            mailbox_socket: None,
            disk: None,
            limit: None,
        }
    }

    /// The time limit in force.
    pub fn limit(&self) -> Duration {
        self.limit.unwrap_or(match self.firmware {
            Firmware::Direct => DIRECT_LIMIT,
            Firmware::Ovmf { .. } => MEASURED_LIMIT,
        })
    }

    /// Waits for one of the machine's two places and starts. Who needs two machines at once takes both places, so only one
    /// such test may run at a time. Whatever listens on the named sockets must do so already.
    ///
    /// # Errors
    /// QEMU missing, a file missing, a socket's name too long, or no place for half an hour.
    pub fn start(&self) -> Result<Running> {
        let program = find_program("qemu-system-x86_64");
        let program = program.ok_or_else(|| WorldError::NoProgram { program: "qemu-system-x86_64".into() })?;
        self.check()?;
        let slot = Slot::take()?;
        let place = std::env::temp_dir();
        let scratch = tempfile::Builder::new().prefix("inwit-vm-").tempdir_in(&place);
        let scratch = scratch.map_err(WorldError::file("make a folder in", place))?;
        let vars = scratch.path().join("vars.fd");
        if let Firmware::Ovmf { vars: template, .. } = &self.firmware {
            // Not fs::copy: the template is read-only in some distributions, and the copy must not be.
            let bytes = fs::read(template).map_err(WorldError::file("read", template))?;
            fs::write(&vars, bytes).map_err(WorldError::file("write", &vars))?;
        }
        let qmp_socket = scratch.path().join("qmp");
        let reasons = Reasons::listen(&qmp_socket)?;
        let arguments = self.arguments(Accelerator::of_this_machine(), &vars, &qmp_socket);
        let mut command = process::bound_command(&program, &arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = process::spawn(command);
        let child = started.map_err(|source| WorldError::Start { command: "qemu-system-x86_64".into(), source })?;
        Ok(Running::watch(child, Belongings { scratch, slot, reasons, qmp_socket, limit: self.limit() }))
    }

    /// QEMU reports a missing file late and in its own words; a cut socket name it does not report at all.
    fn check(&self) -> Result<()> {
        let firmware = match &self.firmware {
            Firmware::Direct => Vec::new(),
            Firmware::Ovmf { code, vars } => vec![code, vars],
        };
        let files = [Some(&self.kernel), self.initrd.as_ref(), self.disk.as_ref()];
        for file in files.into_iter().flatten().chain(firmware) {
            fs::metadata(file).map_err(WorldError::file("boot with", file))?;
        }
        let sockets = [&self.tpm, &self.vsock, &self.mailbox_socket];
        for socket in sockets.into_iter().flatten() {
            process::check_socket_path(socket)?;
            fs::metadata(socket).map_err(WorldError::file("connect to", socket))?;
        }
        Ok(())
    }

    fn arguments(&self, accelerator: Accelerator, vars: &Path, qmp: &Path) -> Vec<OsString> {
        let mut line = Arguments::default();
        let size = self.memory_mib;
        line.words(&accelerator.arguments());
        line.words(&["-m", &size.to_string(), "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none"]);
        line.words(&["-no-reboot", "-serial", "stdio"]);
        line.socket("qmp", qmp);
        line.words(&["-mon", "chardev=qmp,mode=control"]);
        if let Some(socket) = &self.vsock {
            // The backend reads the guest's memory, so that memory must be shareable.
            line.words(&["-machine", "q35,smm=off,memory-backend=ram"]);
            line.words(&["-object", &format!("memory-backend-memfd,id=ram,size={size}M,share=on")]);
            line.socket("vsock", socket);
            line.words(&["-device", "vhost-user-vsock-pci,chardev=vsock"]);
        } else {
            line.words(&["-machine", "q35,smm=off"]);
        }
        if let Firmware::Ovmf { code, .. } = &self.firmware {
            line.file("-drive", "if=pflash,format=raw,unit=0,readonly=on,file=", code);
            line.file("-drive", "if=pflash,format=raw,unit=1,file=", vars);
        }
        if let Some(socket) = &self.tpm {
            line.socket("tpm", socket);
            line.words(&["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
        }
        if let Some(socket) = &self.mailbox_socket {
            line.socket("mailbox", socket);
            line.words(&["-device", "isa-serial,chardev=mailbox,iobase=0x2f8,irq=3"]);
        }
        if let Some(disk) = &self.disk {
            line.file("-drive", "if=none,id=disk,format=raw,readonly=on,file=", disk);
            line.words(&["-device", "virtio-blk-pci,drive=disk"]);
        }
        line.whole("-kernel", self.kernel.as_os_str().to_owned());
        if let Some(initrd) = &self.initrd {
            line.whole("-initrd", initrd.as_os_str().to_owned());
        }
        if !self.append.is_empty() {
            line.whole("-append", OsString::from(&self.append));
        }
        line.words
    }
}

/// A command line under construction. In QEMU's option lists a comma in a file's name is written twice.
#[derive(Default)]
struct Arguments {
    words: Vec<OsString>,
}

impl Arguments {
    fn words(&mut self, words: &[&str]) {
        self.words.extend(words.iter().map(OsString::from));
    }

    fn whole(&mut self, option: &str, value: OsString) {
        self.words.extend([OsString::from(option), value]);
    }

    fn file(&mut self, option: &str, before: &str, path: &Path) {
        let mut value = before.as_bytes().to_vec();
        for &byte in path.as_os_str().as_bytes() {
            value.extend(std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
        }
        self.whole(option, OsString::from_vec(value));
    }

    fn socket(&mut self, id: &str, path: &Path) {
        self.file("-chardev", &format!("socket,id={id},path="), path);
    }
}

impl World {
    /// A boot of the prepared kernel with this initramfs.
    ///
    /// # Errors
    /// The kernel was not prepared yet.
    pub fn boot(&self, initrd: impl Into<PathBuf>) -> Result<Boot> {
        let kernel = super::kernel::Kernel::cached(self);
        let kernel = kernel.ok_or_else(|| WorldError::unusable("kernel", "not prepared yet", "run inwit-setup"))?;
        Ok(Boot::of(kernel.image, initrd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(boot: &Boot) -> String {
        let words = boot.arguments(Accelerator::Tcg, Path::new("/s/vars"), Path::new("/s/qmp"));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_plain_boot_has_no_device_that_was_not_asked_for() {
        let line = line(&Boot::of("/k", "/i"));
        assert!(line.contains("-nodefaults") && line.contains("-no-reboot") && line.contains("-accel tcg"), "{line}");
        assert!(!line.contains("-device") && !line.contains("-drive"), "{line}");
        assert!(line.ends_with("-kernel /k -initrd /i -append console=ttyS0 panic=-1 quiet no_timer_check"), "{line}");
    }

    #[test]
    fn the_second_serial_port_comes_after_the_console() {
        let boot = Boot { mailbox_socket: Some("/s/box".into()), ..Boot::of("/k", "/i") };
        let line = line(&boot);
        assert!(line.find("-serial stdio").unwrap() < line.find("iobase=0x2f8").unwrap(), "{line}");
    }

    #[test]
    fn a_comma_in_a_name_does_not_become_an_option() {
        let boot = Boot { disk: Some("/d/a,readonly=off".into()), ..Boot::of("/k,1", "/i") };
        let line = line(&boot);
        assert!(line.contains("file=/d/a,,readonly=off ") && line.contains("-kernel /k,1 "), "{line}");
    }

    #[test]
    fn a_unified_image_gets_neither_initrd_nor_command_line() {
        let boot = Boot { initrd: None, append: String::new(), ..Boot::of("/uki", "") };
        assert!(line(&boot).ends_with("-kernel /uki"));
    }

    #[test]
    fn a_missing_file_is_named_before_anything_starts() {
        let error = Boot::of("/no/kernel", "/no/initrd").check().unwrap_err();
        assert!(error.to_string().contains("/no/kernel"), "{error}");
    }
}
