//! One play: an authority, its relays and taps, a greeter, and one guest on one platform. A twist breaks one thing; what
//! came of it is told in an [`Outcome`] that the demonstration prints and the tests assert.

mod hardware;
mod leaks;
mod machine;
mod process;

use super::greeter::{Greeter, Visit};
use super::guest::Run;
use super::office::Office;
use super::programs::Programs;
use super::service::Service;
use super::tap::{Tamper, Tap};
use super::trust::{self, Root};
use super::{CONFIDENTIAL, HELLO, Result};
use crate::hardware::{Fault, Machine, Paravisor};
use crate::world::World;
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
    /// In a virtual machine that is given kernel, initramfs and command line.
    Machine,
    /// In a virtual machine that is given one unified kernel image.
    UnifiedMachine,
    /// As an ordinary process, for machines without QEMU.
    Process,
}

impl Scene {
    /// Whether anything is booted.
    pub fn is_machine(self) -> bool {
        self != Self::Process
    }
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
    /// The simulated paravisor of an Azure machine is changed, for example what it says of its key.
    Paravisor(fn(&mut Paravisor)),
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
            Scene::Machine | Scene::UnifiedMachine => self.play_machine(&office, &root),
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
        for (name, form) in leaks::forms(CONFIDENTIAL.as_bytes()) {
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
fn summary(measured: &Measured) -> String {
    match measured {
        Measured::Snp { launch_digest } => format!("SNP launch digest {}", short(&launch_digest.to_string())),
        Measured::Tdx { mrtd, .. } => format!("MRTD {} and RTMR 0 to 2", short(&mrtd.to_string())),
        Measured::Vtpm { pcrs } => registers(pcrs),
        Measured::AzureSnp { launch_digest, pcrs } => {
            format!("paravisor's launch digest {} and {}", short(&launch_digest.to_string()), registers(pcrs))
        }
        Measured::AzureTdx { mrtd, pcrs } => {
            format!("paravisor's MRTD {} and {}", short(&mrtd.to_string()), registers(pcrs))
        }
    }
}

fn registers(pcrs: &std::collections::BTreeMap<u8, inwit_measurements::Digest<32>>) -> String {
    format!("PCRs {}", pcrs.keys().map(u8::to_string).collect::<Vec<_>>().join(", "))
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
        Measured::AzureSnp { launch_digest, mut pcrs } => {
            pcrs.insert(9, inwit_measurements::sha256(b"another"));
            Measured::AzureSnp { launch_digest, pcrs }
        }
        Measured::AzureTdx { mrtd, mut pcrs } => {
            pcrs.insert(9, inwit_measurements::sha256(b"another"));
            Measured::AzureTdx { mrtd, pcrs }
        }
    }
}
