//! What the stage's hardware says and how the authority is told to trust it: simulated SNP and TDX machines under test
//! roots, and a real software TPM. Each gives the endorsement files to import, the Reference Values to register, and the
//! machine that answers the guest.

use super::{Result, StageError, now};
use crate::hardware::{AmdTestRoot, IntelTestRoot, Machine, SnpMachine, TdxMachine};
use crate::world::World;
use crate::world::swtpm::{EkCertificate, Swtpm};
use inwit_guest::tpm::Tpm;

use inwit_measurements::Digest;
use inwit_measurements::linux::{DirectKernel, KernelHeader};
use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues};
use inwit_measurements::snp::{CpuSignature, DirectBoot, GuestFeatures, Vmm, launch_digest};
use inwit_measurements::tdx::{self, MachineEvents, Pass, SecureBoot, SecureBootVariables, Separators};

use inwit_measurements::vtpm::{Ima, MeasuredBoot, Start, agent_event, predict};
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::{PublicKey, sha256};
use ring::digest::{SHA384, digest};
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was, or will be, booted.
pub enum Booted<'a> {
    /// In a virtual machine: these very files.
    Machine {
        /// The launch firmware that the launch measurement is computed with.
        firmware: &'a [u8],
        /// Kernel, initramfs as booted, command line and memory; or the unified image.
        start: Start<'a>,
        /// For a TPM: the recorded PEI volume of this firmware and machine shape.
        pei_volume: Option<Digest<32>>,
    },
    /// As a process: nothing was booted, so a digest of program and configuration stands in.
    Process,
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    let mut out = [0; 48];
    out.copy_from_slice(digest(&SHA384, bytes).as_ref());
    out
}

fn failed(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> StageError {
    move |error| StageError::of(what, error)
}

/// What the platform will report for `booted`, with this agent.
pub fn measure(platform: Platform, booted: &Booted<'_>, agent: &AgentReference) -> Result<Measured> {
    let stand_in = sha384(&[agent.executable.as_bytes().as_slice(), agent.configuration.as_bytes()].concat());
    Ok(match (platform, booted) {
        (Platform::Snp, Booted::Process) => Measured::Snp { launch_digest: Digest::from_bytes(stand_in) },
        (Platform::Snp, Booted::Machine { firmware, start: Start::Direct(kernel), .. }) => {
            let boot = DirectBoot::measure(kernel.kernel, kernel.initrd, kernel.append)
                .map_err(|error| failed("launch digest")(&error))?;
            let digest = launch_digest(
                firmware,
                Some(&boot),
                NonZeroU16::MIN,
                CpuSignature::EPYC_V4,
                GuestFeatures::SNP,
                Vmm::Qemu,
            );
            Measured::Snp {
                launch_digest: Digest::from_bytes(digest.map_err(|error| failed("launch digest")(&error))?),
            }
        }
        (Platform::Tdx, Booted::Process) => {
            let zero = Digest::from_bytes([0; 48]);
            Measured::Tdx { mrtd: Digest::from_bytes(stand_in), rtmr0: zero, rtmr1: zero, rtmr2: zero }
        }
        (Platform::Tdx, Booted::Machine { firmware, start: Start::Direct(kernel), .. }) => {
            measure_tdx(firmware, kernel)?
        }
        (Platform::Snp | Platform::Tdx, Booted::Machine { start: Start::Unified { .. }, .. }) => {
            return Err(StageError::of(platform, "a unified image is staged on a TPM only"));
        }
        (Platform::Vtpm, booted) => Measured::Vtpm { pcrs: measure_pcrs(booted, agent)? },
        // The hardware measures the paravisor, whose TPM measures the rest.
        (Platform::AzureSnp, booted) => Measured::AzureSnp {
            launch_digest: Digest::from_bytes(sha384(PARAVISOR)),
            pcrs: measure_pcrs(booted, agent)?,
        },
        (Platform::AzureTdx, booted) => {
            Measured::AzureTdx { mrtd: Digest::from_bytes(sha384(PARAVISOR)), pcrs: measure_pcrs(booted, agent)? }
        }
    })
}

/// Stands for the image of a paravisor.
const PARAVISOR: &[u8] = b"simulated paravisor";

fn measure_pcrs(booted: &Booted<'_>, agent: &AgentReference) -> Result<BTreeMap<u8, Digest<32>>> {
    let Booted::Machine { firmware, start, pei_volume } = booted else {
        // A TPM that no firmware has touched.
        return Ok([0, 4, 7, 9].map(|pcr| (pcr, Digest::from_bytes([0; 32]))).into());
    };
    let pei_volume = pei_volume.ok_or_else(|| StageError::of("PCR 0", "not recorded for this firmware"))?;
    let boot = MeasuredBoot { firmware, pei_volume, start: *start, ima: Ima::Sig, agent: Some(agent_event(agent)) };
    Ok(predict(&boot).map_err(|error| failed("PCR prediction")(&error))?.pcrs())
}

fn measure_tdx(firmware: &[u8], kernel: &DirectKernel<'_>) -> Result<Measured> {
    // The simulated machine's own description stands for what a hypervisor builds.
    let shape = format!("simulated TD, {} MiB, 1 vCPU", kernel.memory_mib);
    let separators = Separators::Rtmr0AndRtmr1;
    let machine = MachineEvents {
        td_hob: Digest::from_bytes(sha384(shape.as_bytes())),
        fw_cfg: Vec::new(),
        secure_boot: SecureBootVariables::without_keys(SecureBoot::Off),
        acpi: Vec::new(),
        authorities: Vec::new(),
        smbios: None,
        boot: Vec::new(),
        separators,
    };
    let cfv = tdx::cfv_digest(firmware).map_err(|error| failed("TDX firmware")(&error))?;
    let fold = |events: Vec<tdx::Event>| tdx::extend_all(events.iter().map(|event| &event.digest));
    let as_built = DirectKernel { header: KernelHeader::AsBuilt, ..*kernel };
    let kernel_events = tdx::rtmr1_events(&as_built, separators).map_err(|error| failed("RTMR1")(&error))?;
    let option_events = tdx::rtmr2_events(kernel).map_err(|error| failed("RTMR2")(&error))?;
    Ok(Measured::Tdx {
        mrtd: tdx::mrtd(firmware, Pass::Single).map_err(|error| failed("MRTD")(&error))?,
        rtmr0: fold(tdx::rtmr0_events(cfv, &machine)),
        rtmr1: fold(kernel_events),
        rtmr2: fold(option_events),
    })
}

/// The Reference Values file for a measurement.
pub fn reference(name: &str, agent: &AgentReference, measured: &Measured) -> Result<String> {
    let values =
        ReferenceValues { name: name.to_owned(), agent: agent.clone(), measured: measured.clone(), made_from: None };
    values.to_toml().map_err(|error| StageError::of("reference values", error))
}

/// The agent of a program file and a configuration.
pub fn agent(program: &Path, configuration: &str) -> Result<AgentReference> {
    Ok(AgentReference {
        executable: Digest::from_bytes(sha256(&std::fs::read(program)?)),
        configuration: Digest::from_bytes(sha256(configuration.as_bytes())),
    })
}

/// The roots of the stage's hardware.
pub enum Root {
    /// A test ARK and ASK.
    Amd(Arc<AmdTestRoot>),
    /// A test Intel root.
    Intel(Arc<IntelTestRoot>),
    /// A software TPM, manufactured in this folder, with the pin of its attestation key.
    Tpm {
        /// State folder.
        folder: PathBuf,
        /// SHA-256 of the attestation key's SubjectPublicKeyInfo.
        pin: [u8; 32],
    },
    /// An Azure machine: a root of hardware below a software TPM in this folder.
    Azure {
        /// A test ARK and ASK, or a test Intel root.
        hardware: Box<Root>,
        /// State folder; made when the hardware is.
        folder: PathBuf,
    },
}

impl Root {
    /// The root for a platform. AMD's RSA keys are made once and kept with the other prepared things.
    pub fn prepare(platform: Platform, world: &World, folder: &Path) -> Result<Self> {
        Ok(match platform {
            Platform::Snp => {
                Self::Amd(Arc::new(AmdTestRoot::load_or_generate(&world.root().join("amd-test-root"), now())?))
            }
            Platform::Tdx => Self::Intel(Arc::new(IntelTestRoot::generate(now())?)),
            Platform::AzureSnp | Platform::AzureTdx => {
                let below = if platform == Platform::AzureSnp { Platform::Snp } else { Platform::Tdx };
                Self::Azure { hardware: Box::new(Self::prepare(below, world, folder)?), folder: folder.join("tpm") }
            }
            Platform::Vtpm => {
                let folder = folder.join("tpm");
                Swtpm::manufacture(&folder, EkCertificate::Absent)?;
                let tpm = Swtpm::serve(&folder)?;
                let pin = attestation_key_pin(tpm.socket())?;
                Self::Tpm { folder, pin }
            }
        })
    }

    /// Another root of the same hardware, which the authority does not know.
    pub fn foreign(platform: Platform) -> Result<Self> {
        Ok(match platform {
            Platform::Snp | Platform::AzureSnp => Self::Amd(Arc::new(AmdTestRoot::generate(now())?)),
            Platform::Tdx | Platform::AzureTdx => Self::Intel(Arc::new(IntelTestRoot::generate(now())?)),
            Platform::Vtpm => return Err(StageError::of("foreign root", "a TPM has none: enrol another key")),
        })
    }

    /// Writes the files that the authority imports; gives platform, name and files.
    pub fn endorsements(&self, folder: &Path) -> Result<(&'static str, &'static str, Vec<PathBuf>)> {
        std::fs::create_dir_all(folder)?;
        let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            let path = folder.join(name);
            std::fs::write(&path, bytes)?;
            Ok(path)
        };
        Ok(match self {
            Self::Azure { hardware, .. } => return hardware.endorsements(folder),
            Self::Amd(root) => {
                let crl = write("ark.crl", &root.crl_der()?)?;
                ("snp", "milan", vec![write("ark.der", root.ark_der())?, write("ask.der", root.ask_der())?, crl])
            }
            Self::Intel(root) => {
                let machine = TdxMachine::new(root, [0; 48], [[0; 48]; 4])?;
                let collateral = machine.collateral_json()?;
                (
                    "tdx",
                    "test",
                    vec![write("root.der", root.root_der())?, write("collateral.json", collateral.as_bytes())?],
                )
            }
            Self::Tpm { pin, .. } => {
                let line: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
                ("vtpm", "default", vec![write("attestation-keys", line.as_bytes())?])
            }
        })
    }

    /// The machine that reports this measurement; none for a TPM, which measures for itself.
    pub fn machine(&self, measured: &Measured) -> Result<Option<Machine>> {
        Ok(match (self, measured) {
            (Self::Azure { hardware, .. }, measured) => hardware.machine(measured)?,
            (Self::Amd(root), Measured::Snp { launch_digest } | Measured::AzureSnp { launch_digest, .. }) => {
                Some(Machine::Snp(Box::new(SnpMachine::new(root, *launch_digest.as_bytes())?)))
            }
            (Self::Intel(root), Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 }) => {
                let rtmrs = [*rtmr0.as_bytes(), *rtmr1.as_bytes(), *rtmr2.as_bytes(), [0; 48]];
                Some(Machine::Tdx(Box::new(TdxMachine::new(root, *mrtd.as_bytes(), rtmrs)?)))
            }
            (Self::Intel(root), Measured::AzureTdx { mrtd, .. }) => {
                Some(Machine::Tdx(Box::new(TdxMachine::new(root, *mrtd.as_bytes(), [[0; 48]; 4])?)))
            }
            _ => None,
        })
    }
}

/// Opens a TPM that was just started: its socket is there a moment before anybody listens on it.
pub fn open_tpm(socket: &Path) -> Result<Tpm> {
    let mut tries = 0;
    loop {
        match Tpm::open(socket) {
            Ok(tpm) => return Ok(tpm),
            Err(error) if tries >= 250 => return Err(failed("TPM")(&error)),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
        tries += 1;
    }
}

/// Asks a TPM for its attestation key, as the guest does, and pins it.
pub fn attestation_key_pin(socket: &Path) -> Result<[u8; 32]> {
    let bad = failed("TPM");
    let mut tpm = open_tpm(socket)?;
    let key = tpm.create_attestation_key().map_err(|error| bad(&error))?;
    tpm.flush(&key).map_err(|error| bad(&error))?;
    // TPMT_PUBLIC of our template: 22 bytes before unique.x, then two TPM2Bs of 32 bytes.
    let unique = key.public.get(key.public.len().saturating_sub(68)..).unwrap_or_default();
    let (x, y) = (unique.get(2..34).unwrap_or_default(), unique.get(36..68).unwrap_or_default());
    let key = PublicKey::from_point(&[&[4], x, y].concat()).map_err(|error| bad(&error))?;
    Ok(key.pin())
}
