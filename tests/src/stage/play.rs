//! One play: an authority, its relays and taps, a greeter, and one guest on one platform. A twist breaks one thing; what
//! came of it is told in an [`Outcome`] that the demonstration prints and the tests assert.

use super::greeter::{Greeter, Visit};
use super::guest::{Run, run_machine, run_process};
use super::image::{self, Place, Settings};
use super::office::Office;
use super::programs::Programs;
use super::service::Service;
use super::tap::{Tamper, Tap};
use super::trust::{self, Booted, Root};
use super::{CONFIDENTIAL, HELLO, Result, StageError};
use crate::hardware::{Fault, Machine, Mailbox, StandsInFor, TsmFs, build_module};
use crate::world::firmware::{Launch, ovmf};
use crate::world::kernel::Kernel;
use crate::world::qemu::{Boot, DEFAULT_APPEND, DEFAULT_MEMORY_MIB};
use crate::world::swtpm::{EkCertificate, Swtpm};
use crate::world::vsock::Vsock;
use crate::world::{Progress, World};
use inwit_measurements::linux::DirectKernel;
use inwit_measurements::reference::{AgentReference, Measured};
use inwit_protocol::evidence::Platform;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Where the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// In a virtual machine.
    Machine,
    /// As an ordinary process, for machines without QEMU.
    Process,
}

/// The one thing that is broken.
#[derive(Clone, Debug)]
pub enum Twist {
    /// Nothing.
    None,
    /// The host tampers with the bytes between shim and authority.
    Relay(Tamper),
    /// The report device misbehaves.
    Device(Fault),
    /// The simulated machine is changed, for example its launch policy.
    Machine(fn(&mut Machine)),
    /// The hardware's root, or the TPM, is not the one that the authority knows.
    ForeignRoot,
    /// One byte of the initramfs is changed after its Reference Values were registered.
    InitrdByte,
    /// A word is added to the command line after registration.
    CommandLine,
    /// The agent's configuration digest is registered as another one.
    OtherAgent,
    /// The registered measurement is another one.
    OtherMeasurement,
    /// The guest is built with another pin.
    OtherPin,
    /// The guest's configuration expects another identity than the registry maps to.
    OtherIdentity,
    /// One byte of the sealed disk is changed.
    DiskByte,
    /// The relay leads to this address instead of to the authority.
    Authority(SocketAddr),
    /// The relay leads to what this opens, which is told where the authority is.
    Between(Between),
}

/// Opens something between relay and authority: given the authority's address, gives its own.
#[derive(Clone)]
pub struct Between(pub Arc<dyn Fn(SocketAddr) -> std::io::Result<SocketAddr> + Send + Sync>);

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

/// What came of a play.
pub struct Outcome {
    /// The guest's run.
    pub run: Run,
    /// What the tap at the authority saw.
    pub exchanges: usize,
    /// Bytes that the host relayed, to authority and greeter.
    pub host_bytes: usize,
    /// Confidential things found in what the host saw: names, not values.
    pub secrets_found: Vec<String>,
    /// What the greeter saw.
    pub visits: Vec<Visit>,
    /// Length of the production initramfs; 0 for a process.
    pub initramfs_bytes: usize,
    /// What was registered.
    pub measured: Measured,
    /// The authority's audit records.
    pub audit: Vec<serde_json::Value>,
}

/// A play before it is played.
pub struct Play<'a> {
    /// Prepared things.
    pub world: &'a World,
    /// Built programs.
    pub programs: &'a Programs,
    /// Platform.
    pub platform: Platform,
    /// Process or machine.
    pub scene: Scene,
    /// What is broken.
    pub twist: Twist,
    /// Folder for everything that is made.
    pub folder: PathBuf,
    /// Told of each step, and of each console line with its time in seconds.
    pub tell: Box<dyn FnMut(Telling<'_>) + 'a>,
}

/// What a play tells while it goes on.
pub enum Telling<'a> {
    /// The host or the authority did something.
    Step(&'a str),
    /// The guest's console said something, at this second.
    Console(f64, &'a str),
}

/// The host's side, kept alive until the end.
struct Host {
    _authority: Service,
    _shims: Vec<Service>,
    tap: Tap,
    greeter_tap: Tap,
    greeter: Greeter,
}

impl Play<'_> {
    fn step(&mut self, text: &str) {
        (self.tell)(Telling::Step(text));
    }

    /// Plays it to the end.
    pub fn play(mut self) -> Result<Outcome> {
        std::fs::create_dir_all(&self.folder)?;
        // The workload's user must be able to pass through to its socket.
        std::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o755))?;
        let office = Office::open(self.programs, &self.folder)?;
        self.step("authority made: fresh keys, nothing trusted yet");
        let root = Root::prepare(self.platform, self.world, &self.folder)?;
        let (platform, name, files) = root.endorsements(&self.folder.join("endorsements"))?;
        office.endorse(platform, name, &files)?;
        match self.scene {
            Scene::Process => self.play_process(&office, &root),
            Scene::Machine => self.play_machine(&office, &root),
        }
    }

    fn pin(&self, office: &Office) -> String {
        if matches!(self.twist, Twist::OtherPin) { "ab".repeat(32) } else { office.pin().to_owned() }
    }

    fn identifier(&self) -> &'static str {
        if matches!(self.twist, Twist::OtherIdentity) { "spiffe://demo.example/somebody-else" } else { HELLO }
    }

    /// Registers what will be measured, or what the twist makes of it.
    fn register(
        &mut self,
        office: &Office,
        agent: &AgentReference,
        measured: &Measured,
        secrets: &[&str],
    ) -> Result<()> {
        let (mut agent, mut registered) = (agent.clone(), measured.clone());
        if matches!(self.twist, Twist::OtherAgent) {
            agent.configuration = inwit_measurements::sha256(b"another configuration");
        }
        if matches!(self.twist, Twist::OtherMeasurement) {
            registered = altered(registered);
        }
        office.register("hello", HELLO, &trust::reference("demonstration", &agent, &registered)?, secrets)?;
        self.step(&format!("workload registered as {HELLO}: {}", summary(measured)));
        Ok(())
    }

    fn host(&mut self, office: &Office, authority_socket: &Path, greeter_socket: &Path) -> Result<Host> {
        let credential = office.enroll_greeter()?;
        let (authority, address) = office.serve()?;
        let tamper = if let Twist::Relay(tamper) = self.twist { tamper } else { Tamper::Nothing };
        let to = match &self.twist {
            Twist::Authority(elsewhere) => *elsewhere,
            Twist::Between(Between(open)) => open(address)?,
            _ => address,
        };
        let greeter = Greeter::start(&credential)?;
        let tap = Tap::start(to, tamper)?;
        let greeter_tap = Tap::start(greeter.address(), Tamper::Nothing)?;
        let shims = vec![
            self.shim("authority", authority_socket, tap.address())?,
            self.shim("greeter", greeter_socket, greeter_tap.address())?,
        ];
        self.step("authority serves; shims relay bytes; the host keeps a copy of every one of them");
        Ok(Host { _authority: authority, _shims: shims, tap, greeter_tap, greeter })
    }

    fn shim(&self, name: &str, socket: &Path, to: SocketAddr) -> Result<Service> {
        let mut command = Command::new(&self.programs.shim);
        command
            .arg("--json")
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .arg("--to")
            .arg(format!("tcp:{to}"));
        let service = Service::start("inwit-shim", &mut command, &self.folder.join(format!("shim-{name}.log")))?;
        service.wait_for("ready")?;
        Ok(service)
    }

    /// The machine that answers reports, as the twist changes it.
    fn machine(&self, root: &Root, measured: &Measured) -> Result<Option<Machine>> {
        let foreign = match self.twist {
            Twist::ForeignRoot if self.platform != Platform::Vtpm => Some(Root::foreign(self.platform)?),
            _ => None,
        };
        let mut machine = foreign.as_ref().unwrap_or(root).machine(measured)?;
        if let (Twist::Machine(change), Some(machine)) = (&self.twist, &mut machine) {
            change(machine);
        }
        Ok(machine)
    }

    fn play_process(mut self, office: &Office, root: &Root) -> Result<Outcome> {
        let folder = self.folder.clone();
        let (tsm_root, log) = (folder.join("tsm"), folder.join("event-log"));
        if !matches!(root, Root::Tpm { .. }) {
            std::fs::create_dir_all(&tsm_root)?;
        }
        std::fs::write(&log, empty_event_log())?;
        let tpm = match root {
            Root::Tpm { .. } if matches!(self.twist, Twist::ForeignRoot) => {
                let another = folder.join("another-tpm");
                Swtpm::manufacture(&another, EkCertificate::Absent)?;
                Some(Swtpm::serve(&another)?)
            }
            Root::Tpm { folder, .. } => Some(Swtpm::serve(folder)?),
            _ => None,
        };
        let socket = tpm.as_ref().map_or_else(|| folder.join("no-tpm"), |tpm| tpm.socket().to_path_buf());
        let place = Place::Process {
            folder: &folder,
            tsm_root: &tsm_root,
            tpm: &socket,
            event_log: &log,
            hello: &self.programs.hello,
        };
        let settings = Settings { pin: &self.pin(office), identifier: self.identifier(), modules: &[], place };
        let text = image::configuration(&settings);
        let configuration = folder.join("guest.conf");
        std::fs::write(&configuration, &text)?;
        let agent = trust::agent(&self.programs.guest, &text)?;
        let measured = trust::measure(self.platform, &Booted::Process, &agent)?;
        office.add_secret("payload", CONFIDENTIAL.as_bytes())?;
        self.register(office, &agent, &measured, &["payload"])?;
        let device = match self.machine(root, &measured)? {
            Some(machine) => Some(TsmFs::mount(&tsm_root, machine)?),
            None => None,
        };
        if let (Twist::Device(fault), Some(device)) = (&self.twist, &device) {
            device.device().set_fault(fault.clone());
        }
        let host = self.host(office, &folder.join("authority.sock"), &folder.join("greeter.sock"))?;
        self.step("starting inwit-guest as an ordinary process: NOT measured, NOT isolated");
        let tell = &mut self.tell;
        let run = run_process(self.programs, &configuration, |at, line| tell(Telling::Console(at, line)))?;
        drop(device);
        self.outcome(office, host, run, measured, 0, None)
    }

    fn play_machine(mut self, office: &Office, root: &Root) -> Result<Outcome> {
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

        let cid = 3 + std::process::id() % 60_000;
        let vsock = Vsock::start(self.world, &folder, cid)?;
        let host =
            self.host(office, &vsock.listener_path(image::AUTHORITY_PORT), &vsock.listener_path(image::GREETER_PORT))?;
        let mailbox = match self.machine(root, &measured)? {
            Some(machine) => Some(Mailbox::listen(&folder.join("mailbox.sock"), machine)?),
            None => None,
        };
        if let (Twist::Device(fault), Some(mailbox)) = (&self.twist, &mailbox) {
            mailbox.device().set_fault(fault.clone());
        }
        let tpm = match root {
            Root::Tpm { folder, .. } => Some(Swtpm::start(folder)?),
            _ => None,
        };
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
            Platform::Vtpm => {
                let code = std::fs::read(ovmf()?.code)?;
                let pcr0 = super::recorder::pcr0(self.world, &code, &self.folder)?;
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

    fn outcome(
        mut self,
        office: &Office,
        host: Host,
        run: Run,
        measured: Measured,
        initramfs_bytes: usize,
        disk: Option<&Path>,
    ) -> Result<Outcome> {
        let mut secrets_found = Vec::new();
        let mut relayed: Vec<u8> =
            host.tap.chunks().into_iter().chain(host.greeter_tap.chunks()).flat_map(|c| c.bytes).collect();
        let host_bytes = relayed.len();
        relayed.extend(run.text().into_bytes());
        if let Some(disk) = disk {
            relayed.extend(std::fs::read(disk)?);
        }
        for (name, form) in forms(CONFIDENTIAL.as_bytes()) {
            if relayed.windows(form.len()).any(|window| window == form) {
                secrets_found.push(format!("payload ({name})"));
            }
        }
        if matches!(self.twist, Twist::None) {
            let visit = host.greeter.send_impostor()?;
            self.step(&format!("an impostor of another trust domain knocks: {}", visit_text(&visit)));
        }
        let (exchanges, visits) = (host.tap.exchanges(0), host.greeter.visits());
        drop(host);
        let audit = office.run(&["audit", "show"])?["records"].as_array().cloned().unwrap_or_default();
        office.run(&["audit", "verify"])?;
        Ok(Outcome { run, exchanges, host_bytes, secrets_found, visits, initramfs_bytes, measured, audit })
    }
}

/// A visit in a few words.
pub fn visit_text(visit: &Visit) -> String {
    match visit {
        Visit::Welcomed(peer) => format!("accepted and welcomed {peer}"),
        Visit::Stranger(peer) => format!("accepted {peer}, which did not know the payload"),
        Visit::Refused(refusal) => format!("refused, {}", refusal.code),
    }
}

/// The forms in which a leaked text may hide.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![("raw", secret.to_vec()), ("hex", hex.into_bytes())];
    // In base64 a text looks different at each of three alignments; its whole groups of three bytes do not.
    forms.extend((0..3).map(|skip| ("base64", base64(secret.get(skip..).unwrap_or_default()))));
    forms
}

/// Standard base64 of the whole three-byte groups.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        [18, 12, 6, 0].map(|shift| ALPHABET.get(bits >> shift & 63).copied().unwrap_or_default())
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

/// The driver that the simulated module stands in for.
fn stand_in(platform: Platform) -> Option<(&'static str, StandsInFor)> {
    match platform {
        Platform::Snp => Some(("sev-guest", StandsInFor::SevGuest)),
        Platform::Tdx => Some(("tdx-guest", StandsInFor::TdxGuest)),
        Platform::Vtpm => None,
    }
}

fn summary(measured: &Measured) -> String {
    match measured {
        Measured::Snp { launch_digest } => format!("SNP launch digest {}", short(&launch_digest.to_string())),
        Measured::Tdx { mrtd, .. } => format!("MRTD {} and RTMR 0 to 2", short(&mrtd.to_string())),
        Measured::Vtpm { pcrs } => format!("PCRs {}", pcrs.keys().map(u8::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn short(hex: &str) -> String {
    format!("{}…", hex.get(..16).unwrap_or(hex))
}

fn altered(measured: Measured) -> Measured {
    let zero = inwit_measurements::Digest::from_bytes([0x5a; 48]);
    match measured {
        Measured::Snp { .. } => Measured::Snp { launch_digest: zero },
        Measured::Tdx { mrtd, rtmr0, rtmr1, .. } => Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2: zero },
        Measured::Vtpm { mut pcrs } => {
            pcrs.insert(9, inwit_measurements::sha256(b"another"));
            Measured::Vtpm { pcrs }
        }
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

/// A log that holds its header and no event, for a TPM that no firmware has touched.
fn empty_event_log() -> Vec<u8> {
    let mut specification = b"Spec ID Event03\0".to_vec();
    specification.extend([0, 0, 0, 0, 0, 2, 0, 2]); // platform class, minor, major, errata, uintn size
    specification.extend(1u32.to_le_bytes());
    specification.extend([0x0b, 0, 32, 0, 0]); // SHA-256, 32 bytes; no vendor information
    let mut log = [0u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend((specification.len() as u32).to_le_bytes());
    log.extend(specification);
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The search that clears the host is itself tried on planted leaks.
    #[test]
    fn a_planted_leak_is_found_in_every_form() {
        let secret = b"a secret of thirty bytes long.";
        let planted = [
            secret.to_vec(),
            secret.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect(),
            b"YSBzZWNyZXQgb2YgdGhpcnR5IGJ5dGVzIGxvbmcu".to_vec(),
        ];
        for leak in planted {
            let seen = [b"noise".as_slice(), &leak, b"noise"].concat();
            assert!(forms(secret).iter().any(|(_, form)| seen.windows(form.len()).any(|window| window == form)));
        }
        assert!(!forms(secret).iter().any(|(_, form)| {
            b"nothing here at all, only noise, and more noise".windows(form.len()).any(|window| window == form)
        }));
    }
}
