//! A play with the guest as PID 1 of a virtual machine: the image built, the disk sealed, the firmware's measurement computed
//! from the very files that are booted.

use super::super::guest::run_machine;
use super::super::image::{self, Place, Settings};
use super::super::office::Office;
use super::super::trust::{self, Booted, Root};
use super::super::{CONFIDENTIAL, Result, StageError};
use super::{Outcome, Play, Telling, Twist};
use crate::hardware::azure::QuoteService;
use crate::hardware::{Mailbox, StandsInFor, build_module};
use crate::world::firmware::{Launch, ovmf};
use crate::world::kernel::Kernel;
use crate::world::qemu::{Boot, DEFAULT_APPEND, DEFAULT_MEMORY_MIB};
use crate::world::swtpm::Swtpm;
use crate::world::vsock::Vsock;
use crate::world::{Progress, World};
use inwit_measurements::linux::DirectKernel;
use inwit_protocol::evidence::Platform;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

impl Play<'_> {
    pub(super) fn play_machine(mut self, office: &Office, root: &Root) -> Result<Outcome> {
        let folder = self.folder.clone();
        let kernel =
            Kernel::cached(self.world).ok_or_else(|| StageError::of("kernel", "not prepared; run inwit-setup"))?;
        let modules = kernel.modules(&image::MODULES)?;
        let settings = Settings {
            pin: &self.pin(office),
            identifier: self.identifier(),
            modules: &modules,
            place: Place::Machine,
        };
        let text = image::configuration(&settings);
        let production = image::production(&self.programs.guest, &text, &modules)?;
        let initramfs_bytes = production.len();
        let mut initrd = production;
        if let Some((replaces, stands_in_for)) = stand_in(self.platform) {
            let module = folder.join("inwit_tsm.ko");
            build_module(&kernel.headers, stands_in_for, &module)?;
            let appendix = image::appendix(replaces, std::fs::read(module)?)?;
            initrd = inwit_image::concatenate(&[&initrd, &appendix])?;
        }
        self.step(&format!("initramfs built: {initramfs_bytes} bytes for production, {} as booted", initrd.len()));
        let disk = self.seal_disk(office)?;
        self.step("workload disk sealed: ciphertext with a hash tree, its key in the Key Store");
        let kernel_bytes = std::fs::read(&kernel.image)?;
        let agent = trust::agent(&self.programs.guest, &text)?;
        let registered = DirectKernel {
            kernel: &kernel_bytes,
            initrd: &initrd,
            append: DEFAULT_APPEND,
            memory_mib: DEFAULT_MEMORY_MIB,
        };
        let (firmware, pcr0) = self.firmware()?;
        let expected =
            trust::measure(self.platform, &Booted::Machine { firmware: &firmware, kernel: registered, pcr0 }, &agent)?;
        self.register(office, &agent, &expected, &["disk"])?;

        let booted_initrd =
            if matches!(self.twist, Twist::InitrdByte) { one_byte_changed(&initrd)? } else { initrd.clone() };
        let append = if matches!(self.twist, Twist::CommandLine) {
            format!("{DEFAULT_APPEND} debug")
        } else {
            DEFAULT_APPEND.to_owned()
        };
        let booted = DirectKernel { initrd: &booted_initrd, append: &append, ..registered };
        let measured =
            trust::measure(self.platform, &Booted::Machine { firmware: &firmware, kernel: booted, pcr0 }, &agent)?;
        let path = folder.join("initrd");
        std::fs::write(&path, &booted_initrd)?;

        let hardware = self.hardware(office, root, &measured)?;
        let cid = 3 + std::process::id() % 60_000;
        let vsock = Vsock::start(self.world, &folder, cid)?;
        let host =
            self.host(office, &vsock.listener_path(image::AUTHORITY_PORT), &vsock.listener_path(image::GREETER_PORT))?;
        let mailbox =
            hardware.machine.map(|machine| Mailbox::listen(&folder.join("mailbox.sock"), machine)).transpose()?;
        if let (Twist::Device(fault), Some(mailbox)) = (&self.twist, &mailbox) {
            mailbox.device().set_fault(fault.clone());
        }
        let quotes = vsock.listener_path(image::QUOTE_PORT);
        let _quotes = hardware.quoting.map(|machine| QuoteService::listen(&quotes, machine)).transpose()?;
        let tpm = hardware.tpm.map(|folder| Swtpm::start(&folder)).transpose()?;
        let mut boot = Boot::of(&kernel.image, &path);
        boot.append = append;
        boot.vsock = Some(vsock.backend().to_path_buf());
        boot.mailbox_socket = mailbox.as_ref().map(|mailbox| mailbox.path().to_path_buf());
        boot.disk = Some(disk.clone());
        if let Some(tpm) = &tpm {
            boot.firmware = ovmf()?.firmware();
            boot.tpm = Some(tpm.control().to_path_buf());
        }
        self.step("starting QEMU (software emulation: a boot takes some tens of seconds)");
        let tell = &mut self.tell;
        let run = run_machine(&boot, |at, line| tell(Telling::Console(at, line)))?;
        self.outcome(office, host, run, measured, initramfs_bytes, Some(&disk))
    }
    /// The firmware that is measured, and PCR 0 for a TPM.
    fn firmware(&mut self) -> Result<(Vec<u8>, Option<[u8; 32]>)> {
        let launch = |launch: Launch, world: &World| -> Result<Vec<u8>> {
            Ok(std::fs::read(launch.prepare(world, &Progress::silent())?.path)?)
        };
        Ok(match self.platform {
            Platform::Snp => (launch(Launch::AmdSev, self.world)?, None),
            Platform::Tdx => (launch(Launch::IntelTdx, self.world)?, None),
            Platform::Vtpm | Platform::AzureSnp | Platform::AzureTdx => {
                let code = std::fs::read(ovmf()?.code)?;
                let pcr0 = super::super::recorder::pcr0(self.world, &code, &self.folder)?;
                (code, Some(pcr0))
            }
        })
    }
    fn seal_disk(&self, office: &Office) -> Result<PathBuf> {
        let content = self.folder.join("content");
        std::fs::create_dir_all(&content)?;
        std::fs::copy(&self.programs.hello, content.join("hello"))?;
        std::fs::set_permissions(content.join("hello"), std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(content.join("payload.txt"), CONFIDENTIAL)?;
        std::fs::set_permissions(content.join("payload.txt"), std::fs::Permissions::from_mode(0o444))?;
        let plain = self.folder.join("plain.ext4");
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-O", "^has_journal", "-d"])
            .arg(&content)
            .arg(&plain)
            .arg("4M")
            .output()?;
        if !made.status.success() {
            return Err(StageError::of("mkfs.ext4", String::from_utf8_lossy(&made.stderr)));
        }
        let disk = office.seal_disk(&plain)?;
        std::fs::remove_file(&plain)?;
        std::fs::remove_dir_all(&content)?;
        if matches!(self.twist, Twist::DiskByte) {
            let mut bytes = std::fs::read(&disk)?;
            // The ext4 superblock: whatever is mounted reads it first.
            if let Some(byte) = bytes.get_mut(1_100) {
                *byte ^= 1;
            }
            std::fs::write(&disk, bytes)?;
        }
        Ok(disk)
    }
}

/// The driver that the simulated module stands in for.
fn stand_in(platform: Platform) -> Option<(&'static str, StandsInFor)> {
    match platform {
        Platform::Snp => Some(("sev-guest", StandsInFor::SevGuest)),
        Platform::Tdx => Some(("tdx-guest", StandsInFor::TdxGuest)),
        Platform::Vtpm | Platform::AzureSnp | Platform::AzureTdx => None,
    }
}
/// Changes one byte of the configuration's comment: the image still works, and is another one.
fn one_byte_changed(initrd: &[u8]) -> Result<Vec<u8>> {
    let mark = b"# measured: every";
    let at = initrd.windows(mark.len()).position(|window| window == mark);
    let mut changed = initrd.to_vec();
    let byte = at
        .and_then(|at| changed.get_mut(at + 2))
        .ok_or_else(|| StageError::of("initramfs", "its configuration is not found"))?;
    *byte = b'M';
    Ok(changed)
}
