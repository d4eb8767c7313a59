//! PCRs 0 to 15 of a vTPM, SHA-256 bank, for a boot through OVMF on QEMU's q35 machine without other boot devices and
//! without Secure Boot keys: a kernel or a unified kernel image given to `-kernel`.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06 section 3.3.4, edk2 OvmfPkg and SecurityPkg, UAPI group PCR
//! registry, Linux `drivers/firmware/efi/libstub` and `security/integrity/ima`; compared with PCRs read in booted guests.
//!
//! PCR 0 needs one recorded value: the PEI volume runs in memory and by the time it is measured holds a description of
//! the machine (memory size, vCPUs), so its digest is the second event of PCR 0 in the log of a trusted boot, once for
//! each machine shape; for one known build it is computed. The DXE volume is computed here from the code image. A unified image that lies on a disk is not
//! predicted: its partition table, boot options and boot manager are measured as well.
//!
//! It holds for one generation of firmware, and others are refused; a log that is given has to agree with it.
//!
//! Not trusted: all files. Never talks to a TPM.

mod generation;
mod ima;
mod pei;
mod recorded;
pub(crate) mod start;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::cbor::Item;
use crate::digest::{Digest, sha256};
use crate::eventlog::{ALG_SHA256, LogEvent, Replay};
use crate::linux::KernelError;
use crate::made_from::Part;
use crate::pe::PeError;
use crate::reference::AgentReference;
use crate::uefi::event_type::{self, NO_ACTION, type_name};
use crate::uefi::{BOOT_0000, BOOT_ORDER, EXIT_BOOT_SERVICES, SEPARATOR, SecureBoot, secure_boot_variables};
use crate::uki::UkiError;
use crate::volume::VolumeError;

pub use ima::Ima;
pub use pei::{PeiError, compute_pei_volume};
pub use recorded::{RecordError, check_recorded, record_pei_volume};
pub use start::{Start, image_events};

/// CRTM version string of OVMF builds: empty, in UTF-16.
const CRTM_VERSION: [u8; 2] = [0; 2];
/// First element of the agent's event, as in its protocol.
const AGENT_LABEL: &str = "inwit-agent-v1";
/// In the event that Linux logs for the ramdisk (`efi-stub-helper.c`).
const INITRD_TAG: &[u8] = b"initrd";
/// Registers that are predicted. PCRs 16 to 23 belong to debugging, dynamic launch and applications.
pub const LAST_PREDICTED: u8 = 15;
/// The register that the agent extends with itself.
pub const AGENT_PCR: u8 = 15;

/// What a measured boot consists of.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredBoot<'a> {
    /// The firmware code image (`OVMF_CODE*.fd`, or the whole `OVMF.fd`).
    pub firmware: &'a [u8],
    /// Digest of the PEI volume in memory, recorded ([`record_pei_volume`]) or computed ([`compute_pei_volume`]); differs
    /// with memory size and vCPUs.
    pub pei_volume: Digest<32>,
    /// What the firmware starts.
    pub start: Start<'a>,
    /// What the kernel's integrity subsystem adds by itself.
    pub ima: Ima,
    /// The event that the agent extends [`AGENT_PCR`] with; none when the boot is looked at before an agent ran.
    pub agent: Option<Digest<32>>,
}

/// One extend of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrEvent {
    /// The register, 0 to [`LAST_PREDICTED`].
    pub pcr: u8,
    /// Which part of the system it measures.
    pub part: Part,
    /// What is measured, in a few words.
    pub what: String,
    /// What the register is extended with.
    pub digest: Digest<32>,
}

impl PcrEvent {
    fn new(pcr: u8, part: Part, what: impl Into<String>, digest: Digest<32>) -> Self {
        Self { pcr, part, what: what.into(), digest }
    }
}

/// All extends of a boot. Events of one register are in the order in which they happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// The extends, by register.
    pub events: Vec<PcrEvent>,
}

impl Prediction {
    /// Values of PCRs 0 to [`LAST_PREDICTED`]; zero where nothing is extended.
    #[must_use]
    pub fn pcrs(&self) -> BTreeMap<u8, Digest<32>> {
        (0..=LAST_PREDICTED).map(|pcr| (pcr, self.pcr(pcr))).collect()
    }

    fn pcr(&self, pcr: u8) -> Digest<32> {
        let events = self.events.iter().filter(|event| event.pcr == pcr);
        events.fold(Digest::from_bytes([0; 32]), |register, event| extend(&register, &event.digest))
    }
}

/// Why PCRs cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PredictError {
    /// The firmware's volumes cannot be found.
    #[error("firmware: {0}")]
    Volume(#[from] VolumeError),
    /// Firmware that measures a version of its own.
    #[error(
        "the firmware has a version, {0:?}: PCRs are known for builds without one alone, as Debian 12's edk2 2022.11; later \
         generations measure other boot options and command lines, too"
    )]
    FirmwareVersion(String),
    /// Firmware without a version, of a later generation.
    #[error(
        "the firmware asks for files below etc/boot/: of that generation of edk2 PCRs are not known; use a build as Debian \
         12's edk2 2022.11"
    )]
    FirmwareGeneration,
    /// Kernel or command line cannot be predicted.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The unified kernel image cannot be predicted.
    #[error(transparent)]
    Unified(#[from] UkiError),
    /// The stub is one whose way to start a kernel was not looked at.
    #[error(
        "how systemd-stub {0} starts its kernel is not known, so PCRs 4 and 9 are not: use a stub of release {known}, or \
         take PCR 11 alone",
        known = start::KNOWN_RELEASES
    )]
    StubRelease(String),
    /// A section that makes the stub hand the kernel another ramdisk than the image holds.
    #[error("the stub adds section {0} to the ramdisk, so PCR 9 is not known: leave the section out")]
    AddsToRamdisk(&'static str),
}

impl From<PeError> for PredictError {
    fn from(error: PeError) -> Self {
        Self::Kernel(error.into())
    }
}

/// Everything that is measured into PCRs 0 to 15.
///
/// # Errors
/// [`PredictError`].
pub fn predict(boot: &MeasuredBoot<'_>) -> Result<Prediction, PredictError> {
    let (loaded, given) = (boot.start.loaded()?, boot.start.given_to_kernel()?);
    let separator = |pcr| PcrEvent::new(pcr, Part::Constant, "separator", sha256(&SEPARATOR));
    let mut events = vec![
        PcrEvent::new(0, Part::Firmware, "version of the firmware", sha256(&CRTM_VERSION)),
        PcrEvent::new(0, Part::Machine, "PEI volume of the firmware, in memory", boot.pei_volume),
        PcrEvent::new(0, Part::Firmware, "DXE volume of the firmware", generation::known_dxe_volume(boot.firmware)?),
        separator(0),
        // The platform's boot variables are hashed by their data alone.
        PcrEvent::new(1, Part::BootVariable, "variable BootOrder", sha256(&BOOT_ORDER)),
        PcrEvent::new(1, Part::BootVariable, "variable Boot0000", sha256(&BOOT_0000)),
        separator(1),
        separator(2),
        separator(3),
    ];
    events.extend(loaded);
    events.push(separator(5));
    events.extend(EXIT_BOOT_SERVICES.map(|action| PcrEvent::new(5, Part::Constant, action, sha256(action.as_bytes()))));
    events.push(separator(6));
    for (name, data) in secure_boot_variables(SecureBoot::Off) {
        events.push(PcrEvent::new(7, Part::SecureBoot, format!("variable {name}"), sha256(&data)));
    }
    events.push(separator(7));
    events.extend(given);
    let mut prediction = Prediction { events };
    prediction.events.extend(boot.ima.events(&prediction.pcrs()));
    prediction.events.extend(boot.start.sections()?);
    prediction.events.extend(boot.agent.map(|event| PcrEvent::new(AGENT_PCR, Part::Agent, "the agent", event)));
    Ok(prediction)
}

/// The extends of a log that was replayed, with what their types say they are.
#[must_use]
pub fn logged_events(replay: &Replay<'_>) -> Vec<PcrEvent> {
    let extends = replay.events.iter().filter(|event| event.event_type != NO_ACTION);
    let named = |event: &LogEvent<'_>| {
        let digest = event.digest(ALG_SHA256).map(Digest::from_bytes)?;
        Some(PcrEvent::new(u8::try_from(event.index).ok()?, logged_part(event), type_name(event.event_type), digest))
    };
    extends.filter_map(named).collect()
}

/// Which part of a system an event of a log measures, by its type; the data of some types tells more.
fn logged_part(event: &LogEvent<'_>) -> Part {
    match event.event_type {
        event_type::S_CRTM_VERSION | event_type::PLATFORM_FIRMWARE_BLOB | event_type::PLATFORM_FIRMWARE_BLOB2 => {
            Part::Firmware
        }
        event_type::VARIABLE_DRIVER_CONFIG | event_type::VARIABLE_AUTHORITY => Part::SecureBoot,
        event_type::VARIABLE_BOOT | event_type::VARIABLE_BOOT2 => Part::BootVariable,
        event_type::BOOT_SERVICES_APPLICATION => Part::Kernel,
        event_type::GPT => Part::Disk,
        event_type::SEPARATOR | event_type::ACTION => Part::Constant,
        event_type::EVENT_TAG if event.data.windows(INITRD_TAG.len()).any(|text| text == INITRD_TAG) => Part::Initrd,
        event_type::EVENT_TAG => Part::CommandLine,
        event_type::IPL if event.index == 11 => Part::Section,
        _ => Part::Machine,
    }
}

/// The register after one extend: SHA-256 over the old value and the event digest.
#[must_use]
pub fn extend(register: &Digest<32>, digest: &Digest<32>) -> Digest<32> {
    sha256(&[register.as_bytes().as_slice(), digest.as_bytes()].concat())
}

/// A register that starts at zero, after these digests.
#[must_use]
pub fn extend_all(digests: &[Digest<32>]) -> Digest<32> {
    digests.iter().fold(Digest::from_bytes([0; 32]), |register, digest| extend(&register, digest))
}

/// What the agent extends [`AGENT_PCR`] with, as its first act: SHA-256 over the array of its label, its executable's and
/// its configuration's digest, in deterministic CBOR.
#[must_use]
pub fn agent_event(agent: &AgentReference) -> Digest<32> {
    let digest = |digest: &Digest<32>| Item::bytes(digest.as_bytes());
    let event = [Item::text(AGENT_LABEL), digest(&agent.executable), digest(&agent.configuration)];
    sha256(&Item::Array(event.to_vec()).encode())
}

/// A PCR that the agent extends once, as its first act, from zero.
#[must_use]
pub fn pcr_after_one_extend(digest: [u8; 32]) -> [u8; 32] {
    *extend_all(&[Digest::from_bytes(digest)]).as_bytes()
}

#[cfg(test)]
mod tests;
