//! The events of a direct kernel boot through OVMF in a TD, register by register.
//!
//! Sources: Intel TDX Virtual Firmware Design Guide section 8 (which PCR maps to which RTMR), edk2 OvmfPkg and
//! SecurityPkg, Linux EFI stub; orders and constants compared with event logs of real TDs.
//!
//! RTMR0 is computed beside it ([`super::Machine`]) or recorded ([`super::MachineEvents::record`]). RTMR3 is extended by
//! no firmware or kernel: it belongs to the agent, whose own log is appraised. Never guesses an event.

use super::extend_all;
use crate::digest::{Digest, sha384};
use crate::linux::{DirectKernel, KernelError, KernelHeader, measures_in_td};
use crate::made_from::Part;
use crate::ovmf::{Firmware, FirmwareError};
use crate::pe::authenticode_sha384;
use crate::uefi::{CALLING_APPLICATION, EXIT_BOOT_SERVICES, SEPARATOR, event_type};

/// Section type CFV of the TDVF metadata.
const CONFIGURATION_VOLUME: u32 = 1;
/// Tags of the Linux EFI stub's events (`drivers/firmware/efi/libstub/efistub.h`).
const TAG_INITRD: u32 = 0x8f3b_22ec;
const TAG_LOAD_OPTIONS: u32 = 0x8f3b_22ed;

/// One measured event, enough to extend a register and to write a log record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// MrIndex of the CC event log: RTMR number plus 1.
    pub index: u32,
    /// Event type of the TCG firmware profile.
    pub event_type: u32,
    /// What the register is extended with.
    pub digest: Digest<48>,
    /// Event data as firmware logs it; empty where it holds load addresses that no file tells.
    pub data: Vec<u8>,
    /// What it is, for people.
    pub description: String,
}

impl Event {
    /// Which part of a system it measures.
    #[must_use]
    pub fn part(&self) -> Part {
        match self.event_type {
            event_type::HANDOFF_TABLES | event_type::HANDOFF_TABLES2 | event_type::PLATFORM_CONFIG_FLAGS => {
                Part::Machine
            }
            event_type::PLATFORM_FIRMWARE_BLOB2 => Part::Firmware,
            event_type::VARIABLE_DRIVER_CONFIG | event_type::VARIABLE_AUTHORITY => Part::SecureBoot,
            event_type::VARIABLE_BOOT | event_type::VARIABLE_BOOT2 => Part::BootVariable,
            event_type::BOOT_SERVICES_APPLICATION => Part::Kernel,
            event_type::GPT => Part::Disk,
            event_type::IPL => Part::Section,
            event_type::EVENT_TAG if self.data.starts_with(&TAG_INITRD.to_le_bytes()) => Part::Initrd,
            event_type::EVENT_TAG => Part::CommandLine,
            _ => Part::Constant,
        }
    }

    /// Whether its place in RTMR0, where that is computed, follows from edk2's code alone: no log of a real boot with
    /// such an event was at hand to compare with. The places of all others are those of real logs.
    #[must_use]
    pub fn place_is_unverified(&self) -> bool {
        matches!(self.event_type, event_type::HANDOFF_TABLES | event_type::VARIABLE_AUTHORITY)
    }
}

/// Which register gets the second separator: a property of the firmware build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separators {
    /// One in RTMR0, one in RTMR1, as the mapping of PCRs demands.
    Rtmr0AndRtmr1,
    /// Both in RTMR0: older edk2 builds.
    Rtmr0Twice,
}

/// Digest of the configuration volume (CFV) of an image: the empty variable store that firmware starts from.
///
/// # Errors
/// [`FirmwareError`]; an image whose metadata names no CFV is malformed.
pub fn cfv_digest(firmware: &[u8]) -> Result<Digest<48>, FirmwareError> {
    configuration_volume(&Firmware::parse(firmware)?).map(sha384)
}

/// The volume itself.
pub(super) fn configuration_volume<'a>(firmware: &Firmware<'a>) -> Result<&'a [u8], FirmwareError> {
    let sections = firmware.tdvf_sections()?;
    let volume = sections.iter().find(|section| section.kind == CONFIGURATION_VOLUME);
    volume.map(|volume| volume.data).ok_or(FirmwareError::Metadata("TDVF"))
}

/// RTMR1: the kernel and the hand-over to it.
///
/// # Errors
/// [`KernelError`] when the kernel cannot be predicted or has no EFI stub.
pub fn rtmr1_events(boot: &DirectKernel<'_>, separators: Separators) -> Result<Vec<Event>, KernelError> {
    let description = match boot.header {
        KernelHeader::AsBuilt => "kernel, Authenticode digest of the file",
        KernelHeader::FilledIn => "kernel, Authenticode digest with the header QEMU fills in",
    };
    Ok(rtmr1_of(authenticode_sha384(&boot.loaded()?)?, description, separators))
}

pub(super) fn rtmr1_of(kernel: Digest<48>, description: &str, separators: Separators) -> Vec<Event> {
    let mut log = Log::new(2);
    log.opaque(event_type::BOOT_SERVICES_APPLICATION, kernel, &[], description);
    log.action(CALLING_APPLICATION);
    if separators == Separators::Rtmr0AndRtmr1 {
        log.hashed(event_type::SEPARATOR, SEPARATOR.to_vec(), "separator");
    }
    EXIT_BOOT_SERVICES.into_iter().for_each(|action| log.action(action));
    log.events
}

/// RTMR2: command line and initial ramdisk, as the kernel's EFI stub measures them.
///
/// # Errors
/// [`KernelError`] when the command line cannot be predicted, or the kernel does not measure it in a TD (before 6.9).
pub fn rtmr2_events(boot: &DirectKernel<'_>) -> Result<Vec<Event>, KernelError> {
    measures_in_td(boot.kernel)?;
    let mut log = Log::new(3);
    let initrd = (!boot.initrd.is_empty()).then(|| sha384(boot.initrd));
    log_stub_events(&mut log, boot.load_options()?.as_deref().map(sha384), initrd);
    Ok(log.events)
}

/// What the EFI stub of a kernel measures: command line and ramdisk, each if there is one.
pub(super) fn log_stub_events(log: &mut Log, options: Option<Digest<48>>, initrd: Option<Digest<48>>) {
    if let Some(options) = options {
        log.tagged(TAG_LOAD_OPTIONS, "LOADED_IMAGE::LoadOptions", options, "command line");
    }
    if let Some(initrd) = initrd {
        log.tagged(TAG_INITRD, "Linux initrd", initrd, "initial ramdisk");
    }
}

/// The register that starts at zero, after these events.
#[must_use]
pub fn extend_register(events: &[Event]) -> Digest<48> {
    extend_all(events.iter().map(|event| &event.digest))
}

/// Events of one register.
pub(super) struct Log {
    index: u32,
    pub(super) events: Vec<Event>,
}

impl Log {
    pub(super) fn new(index: u32) -> Self {
        Self { index, events: Vec::new() }
    }

    /// An event whose data does not give its digest.
    pub(super) fn opaque(&mut self, event_type: u32, digest: Digest<48>, data: &[u8], description: &str) {
        let (index, description) = (self.index, description.to_owned());
        self.events.push(Event { index, event_type, digest, data: data.to_vec(), description });
    }

    /// An event whose digest is the hash of its data.
    pub(super) fn hashed(&mut self, event_type: u32, data: Vec<u8>, description: &str) {
        self.opaque(event_type, sha384(&data), &data, description);
    }

    fn action(&mut self, action: &str) {
        self.hashed(event_type::ACTION, action.as_bytes().to_vec(), action);
    }

    /// A tagged event: id u32, length u32, text with NUL.
    fn tagged(&mut self, tag: u32, text: &str, digest: Digest<48>, description: &str) {
        let length = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
        let data = [&tag.to_le_bytes(), length.to_le_bytes().as_slice(), text.as_bytes(), b"\0"].concat();
        self.opaque(event_type::EVENT_TAG, digest, &data, description);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::{sample_boot, sample_kernel};
    use crate::ovmf::sample::Sample;

    #[test]
    fn the_hand_over_has_the_order_of_real_logs() {
        let types = |separators| -> Vec<u32> {
            rtmr1_of(sha384(b""), "kernel", separators).iter().map(|event| event.event_type).collect()
        };
        assert_eq!(types(Separators::Rtmr0AndRtmr1)[1..], [0x8000_0007, 4, 0x8000_0007, 0x8000_0007]);
        assert_eq!(types(Separators::Rtmr0Twice).len(), 4);
        let starts = |text: &str, digest: &str| assert!(sha384(text.as_bytes()).to_string().starts_with(digest));
        starts(CALLING_APPLICATION, "77a0dab2312b4e1e");
        EXIT_BOOT_SERVICES
            .iter()
            .zip(["214b0bef13797560", "0a2e01c85deae718"])
            .for_each(|(text, digest)| starts(text, digest));
    }

    #[test]
    fn what_is_booted_is_what_is_measured() {
        let kernel = sample_kernel();
        let boot = |initrd, append| sample_boot(&kernel, initrd, append, 512);
        let registers = |boot: DirectKernel<'_>| {
            let kernel = rtmr1_events(&boot, Separators::Rtmr0AndRtmr1).unwrap();
            let rest = rtmr2_events(&boot).unwrap();
            [kernel, rest].map(|events| extend_all(events.iter().map(|event| &event.digest)))
        };
        let [kernel_before, rest_before] = registers(boot(b"initrd", "quiet"));
        let [kernel_after, rest_after] = registers(boot(b"initrd", "quiet "));
        assert_eq!(kernel_before, kernel_after);
        assert_ne!(rest_before, rest_after);
        let [larger, _] = registers(boot(b"larger initrd", "quiet"));
        assert_ne!(larger, kernel_before, "QEMU writes the ramdisk's size into the kernel");
        let as_built = |boot| {
            let boot = DirectKernel { header: KernelHeader::AsBuilt, ..boot };
            rtmr1_events(&boot, Separators::Rtmr0AndRtmr1).unwrap()
        };
        assert_eq!(as_built(boot(b"initrd", "quiet")), as_built(boot(b"larger initrd", "")));
        let options: Vec<u8> = "quiet initrd=initrd\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let events = rtmr2_events(&boot(b"initrd", "quiet")).unwrap();
        assert_eq!(events[0].digest, sha384(&options));
        assert_eq!(events[0].data, *b"\xed\x22\x3b\x8f\x1a\0\0\0LOADED_IMAGE::LoadOptions\0");
        assert_eq!((events[1].digest, events[1].index), (sha384(b"initrd"), 3));
        assert_eq!(rtmr2_events(&boot(b"", "")).unwrap(), []);
        let mut old = kernel.clone();
        old[0x3a2] = b'8';
        let refused = rtmr2_events(&DirectKernel { kernel: &old, ..boot(b"initrd", "quiet") });
        assert_eq!(refused, Err(KernelError::Unmeasured { major: 6, minor: 8 }));
    }

    #[test]
    fn the_configuration_volume_is_found_by_its_type() {
        let tdvf = vec![[0x1000, 0x1000, 0xffff_f000, 0x1000, 0, 1], [0, 0x800, 0xffff_e000, 0x1000, 1, 0]];
        let image = Sample { tdvf, ..Sample::default() }.build();
        assert_eq!(cfv_digest(&image), Ok(sha384(&image[..0x800])));
        assert_eq!(cfv_digest(&Sample::default().build()), Err(FirmwareError::Metadata("TDVF")));
    }
}
