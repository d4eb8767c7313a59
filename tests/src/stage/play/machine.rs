//! A play with the guest as PID 1 of a virtual machine: the image built, the disk sealed, the firmware's measurement computed
//! from the very files that are booted.

use super::super::guest::run_machine;
use super::super::image::{self, Place, Settings};
use super::super::office::Office;
use super::super::recorder::recording;
use super::super::trust::{self, Booted, Root};
use super::super::{CONFIDENTIAL, Result, StageError};
use super::hardware::Hardware;
use super::{Outcome, Play, Scene, Telling, Twist};
use crate::hardware::azure::QuoteService;
use crate::hardware::{Mailbox, StandsInFor, build_module};
use crate::world::firmware::{Launch, ovmf, uki_stub};
use crate::world::kernel::Kernel;
use crate::world::qemu::{Boot, DEFAULT_APPEND, DEFAULT_MEMORY_MIB};
use crate::world::swtpm::Swtpm;
use crate::world::vsock::Vsock;
use crate::world::{Progress, World};
use inwit_image::{UnifiedKernel, UnifiedParts};
use inwit_measurements::Digest;
use inwit_measurements::linux::{DirectKernel, KernelLoader, QemuVersion};
use inwit_measurements::reference::{AgentReference, Measured};
use inwit_measurements::vtpm::{Start, record_pei_volume};
use inwit_protocol::evidence::Platform;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The archive that is booted, and what of it ships.
struct Archive {
    initrd: Vec<u8>,
    production_bytes: usize,
    agent: AgentReference,
}

/// The QEMU of the distribution whose firmware measures here.
const QEMU: QemuVersion = QemuVersion::new(7, 2);

/// What QEMU is given to start: these files, and the command line beside them.
struct Started {
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    append: String,
    /// All of it as one image, where that is what is given.
    unified: Option<Vec<u8>>,
}

/// The firmware, and for a TPM what only a boot tells of it.
struct MeasuringFirmware {
    image: Vec<u8>,
    /// How it loads a kernel.
    loader: KernelLoader,
    pei_volume: Option<Digest<32>>,
}

impl MeasuringFirmware {
    fn of(image: Vec<u8>, pei_volume: Option<Digest<32>>) -> Result<Self> {
        let loader = KernelLoader::inspect(&image).map_err(|error| StageError::of("firmware", error))?;
        Ok(Self { image, loader, pei_volume })
    }
}

impl Play<'_> {
    pub(super) fn play_machine(mut self, office: &Office, root: &Root) -> Result<Outcome> {
        let kernel =
            Kernel::cached(self.world).ok_or_else(|| StageError::of("kernel", "not prepared; run inwit-setup"))?;
        let Archive { initrd, production_bytes, agent } = self.archive(office, &kernel)?;
        self.step(&format!("initramfs built: {production_bytes} bytes for production, {} as booted", initrd.len()));
        let disk = self.seal_disk(office)?;
        self.step("workload disk sealed: ciphertext with a hash tree, its key in the Key Store");
        let firmware = self.firmware()?;
        let kernel_bytes = std::fs::read(&kernel.image)?;
        let registered = self.started(&kernel_bytes, initrd, DEFAULT_APPEND)?;
        let expected = self.measured(&firmware, &registered, &agent)?;
        self.register(office, &agent, &expected, &["disk"])?;

        let initrd = match self.twist {
            Twist::InitrdByte => one_byte_changed(&registered.initrd)?,
            _ => registered.initrd,
        };
        let append = match self.twist {
            Twist::CommandLine => format!("{DEFAULT_APPEND} debug"),
            _ => registered.append,
        };
        let booted = self.started(&kernel_bytes, initrd, &append)?;
        let measured = self.measured(&firmware, &booted, &agent)?;
        let boot = booted.written(&self.folder)?;
        let hardware = self.hardware(office, root, &measured)?;
        self.boot(office, hardware, Boot { disk: Some(disk), ..boot }, (measured, production_bytes))
    }

    /// The archive, with the simulated report device behind it where the platform needs one.
    fn archive(&self, office: &Office, kernel: &Kernel) -> Result<Archive> {
        let modules = kernel.modules(&image::MODULES)?;
        let pin = self.pin(office);
        let identifier = self.identifier();
        let text = image::configuration(&Settings { pin: &pin, identifier, modules: &modules, place: Place::Machine });
        let mut initrd = image::production(&self.programs.guest, &text, &modules)?;
        let production_bytes = initrd.len();
        if let Some((replaces, stands_in_for)) = stand_in(self.platform) {
            let module = self.folder.join("inwit_tsm.ko");
            build_module(&kernel.headers, stands_in_for, &module)?;
            let appendix = image::appendix(replaces, std::fs::read(module)?)?;
            initrd = inwit_image::concatenate(&[&initrd, &appendix])?;
        }
        Ok(Archive { initrd, production_bytes, agent: trust::agent(&self.programs.guest, &text)? })
    }

    /// What is started, as one image if the scene is such.
    fn started(&self, kernel: &[u8], initrd: Vec<u8>, append: &str) -> Result<Started> {
        let mut started = Started { kernel: kernel.to_vec(), initrd, append: append.to_owned(), unified: None };
        if self.scene == Scene::UnifiedMachine {
            let parts = UnifiedParts {
                kernel,
                initrd: &started.initrd,
                command_line: append,
                os_release: Some(b"ID=inwit-stage\n"),
                uname: None,
                sbat: None,
            };
            let image = UnifiedKernel::build(&std::fs::read(uki_stub()?)?, &parts);
            let image = image.map_err(|error| StageError::of("unified image", error))?;
            started.unified = Some(image.bytes().to_vec());
        }
        Ok(started)
    }

    fn measured(&self, firmware: &MeasuringFirmware, started: &Started, agent: &AgentReference) -> Result<Measured> {
        let (start, pei_volume) = (started.start(&firmware.loader), firmware.pei_volume);
        trust::measure(self.platform, &Booted::Machine { firmware: &firmware.image, start, pei_volume }, agent)
    }

    /// Connects everything, and boots. With what will be measured goes the length of the production archive.
    fn boot(
        mut self,
        office: &Office,
        hardware: Hardware,
        mut boot: Boot,
        (measured, production_bytes): (Measured, usize),
    ) -> Result<Outcome> {
        let folder = self.folder.clone();
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
        boot.vsock = Some(vsock.backend().to_path_buf());
        boot.mailbox_socket = mailbox.as_ref().map(|mailbox| mailbox.path().to_path_buf());
        if let Some(tpm) = &tpm {
            boot.firmware = ovmf()?.firmware();
            boot.tpm = Some(tpm.control().to_path_buf());
        }
        self.step("starting QEMU (software emulation: a boot takes some tens of seconds)");
        let tell = &mut self.tell;
        let run = run_machine(&boot, |at, line| tell(Telling::Console(at, line)))?;
        self.outcome(office, host, run, measured, production_bytes, boot.disk.as_deref())
    }

    /// The firmware that is measured, and for a TPM its PEI volume.
    fn firmware(&mut self) -> Result<MeasuringFirmware> {
        let launch = |launch: Launch, world: &World| -> Result<MeasuringFirmware> {
            let image = std::fs::read(launch.prepare(world, &Progress::silent())?.path)?;
            MeasuringFirmware::of(image, None)
        };
        match self.platform {
            Platform::Snp => launch(Launch::AmdSev, self.world),
            Platform::Tdx => launch(Launch::IntelTdx, self.world),
            Platform::Vtpm | Platform::AzureSnp | Platform::AzureTdx => {
                let image = std::fs::read(ovmf()?.code)?;
                let log = recording(self.world, &image, &self.folder)?.log;
                let pei_volume = record_pei_volume(&log).map_err(|error| StageError::of("recorded boot", error))?;
                MeasuringFirmware::of(image, Some(pei_volume))
            }
        }
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

impl Started {
    /// For the prediction.
    fn start(&self, loader: &KernelLoader) -> Start<'_> {
        match &self.unified {
            Some(image) => Start::Unified { image, profile: None },
            None => Start::Direct(DirectKernel {
                kernel: &self.kernel,
                initrd: &self.initrd,
                append: &self.append,
                memory_mib: DEFAULT_MEMORY_MIB,
                ramdisk_option: loader.ramdisk_option,
                header: loader.header(QEMU),
            }),
        }
    }

    /// A boot of it, its files written into this folder.
    fn written(&self, folder: &Path) -> Result<Boot> {
        let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            let path = folder.join(name);
            std::fs::write(&path, bytes)?;
            Ok(path)
        };
        Ok(match &self.unified {
            Some(image) => Boot { initrd: None, append: String::new(), ..Boot::of(write("image.efi", image)?, "") },
            None => {
                let boot = Boot::of(write("kernel", &self.kernel)?, write("initrd", &self.initrd)?);
                Boot { append: self.append.clone(), ..boot }
            }
        })
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
