//! The events of a direct kernel boot through OVMF in a TD, register by register.
//!
//! Sources: Intel TDX Virtual Firmware Design Guide section 8 (which PCR maps to which RTMR), edk2 OvmfPkg and
//! SecurityPkg, Linux EFI stub; orders and constants compared with event logs of real TDs.
//!
//! What cannot be computed from files is an input, and said so: the TD HOB (memory map) and the ACPI tables depend on
//! memory size, vCPUs, devices and the QEMU version. They are recorded once for each machine shape, from the event log
//! of a trusted boot. Never guessed here.

use crate::digest::{Digest, sha384};
use crate::linux::{DirectKernel, KernelError};
use crate::made_from::Part;
use crate::ovmf::{Firmware, FirmwareError};
use crate::pe::authenticode_sha384;
use crate::uefi::{
    BOOT_0000, BOOT_ORDER, CALLING_APPLICATION, EXIT_BOOT_SERVICES, GLOBAL_VARIABLE, SEPARATOR, SecureBoot, event_type,
    secure_boot_variables, variable,
};

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
            event_type::HANDOFF_TABLES2 | event_type::PLATFORM_CONFIG_FLAGS => Part::Machine,
            event_type::PLATFORM_FIRMWARE_BLOB2 => Part::Firmware,
            event_type::VARIABLE_DRIVER_CONFIG | event_type::VARIABLE_AUTHORITY => Part::SecureBoot,
            event_type::VARIABLE_BOOT | event_type::VARIABLE_BOOT2 => Part::BootVariable,
            event_type::BOOT_SERVICES_APPLICATION => Part::Kernel,
            event_type::GPT => Part::Disk,
            event_type::EVENT_TAG if self.data.starts_with(&TAG_INITRD.to_le_bytes()) => Part::Initrd,
            event_type::EVENT_TAG => Part::CommandLine,
            _ => Part::Constant,
        }
    }
}

/// What RTMR0 takes from the machine and not from files; record it once for each shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineEvents {
    /// Digest of the TD HOB list that the hypervisor builds.
    pub td_hob: Digest<48>,
    /// Digests of configuration items that newer firmware measures before the variables (`QEMU FW CFG`), in log order.
    pub fw_cfg: Vec<Digest<48>>,
    /// Digests of the ACPI blobs, in log order: the loader script, then each file it allocates.
    pub acpi: Vec<Digest<48>>,
    /// How the SecureBoot variable stands.
    pub secure_boot: SecureBoot,
    /// Where the separator at ready-to-boot goes.
    pub separators: Separators,
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
    let sections = Firmware::parse(firmware)?.tdvf_sections()?;
    let volume = sections.iter().find(|section| section.kind == CONFIGURATION_VOLUME);
    volume.map(|volume| sha384(volume.data)).ok_or(FirmwareError::Metadata("TDVF"))
}

/// RTMR0: firmware configuration, for a machine without boot devices. `cfv` as from [`cfv_digest`].
#[must_use]
pub fn rtmr0_events(cfv: Digest<48>, machine: &MachineEvents) -> Vec<Event> {
    let mut log = Log::new(1);
    log.opaque(event_type::HANDOFF_TABLES2, machine.td_hob, &[], "TD HOB");
    log.opaque(event_type::PLATFORM_FIRMWARE_BLOB2, cfv, &[], "configuration volume");
    for digest in &machine.fw_cfg {
        log.opaque(event_type::PLATFORM_CONFIG_FLAGS, *digest, b"QEMU FW CFG", "hypervisor configuration item");
    }
    for (name, data) in secure_boot_variables(machine.secure_boot) {
        log.hashed(event_type::VARIABLE_DRIVER_CONFIG, data, name);
    }
    log.hashed(event_type::SEPARATOR, SEPARATOR.to_vec(), "separator");
    for digest in &machine.acpi {
        log.opaque(event_type::PLATFORM_CONFIG_FLAGS, *digest, b"ACPI DATA", "ACPI tables");
    }
    for (name, data) in [("BootOrder", BOOT_ORDER.as_slice()), ("Boot0000", &BOOT_0000)] {
        // Boot variables are logged whole but hashed by their data alone.
        let logged = variable(GLOBAL_VARIABLE, name, data);
        log.opaque(event_type::VARIABLE_BOOT, sha384(data), &logged, name);
    }
    if machine.separators == Separators::Rtmr0Twice {
        log.hashed(event_type::SEPARATOR, SEPARATOR.to_vec(), "separator");
    }
    log.events
}

/// RTMR1: the kernel and the hand-over to it.
///
/// # Errors
/// [`KernelError`] when the kernel cannot be predicted or has no EFI stub.
pub fn rtmr1_events(boot: &DirectKernel<'_>, separators: Separators) -> Result<Vec<Event>, KernelError> {
    let kernel = authenticode_sha384(&boot.patched()?)?;
    Ok(rtmr1_of(kernel, separators))
}

fn rtmr1_of(kernel: Digest<48>, separators: Separators) -> Vec<Event> {
    let mut log = Log::new(2);
    log.opaque(event_type::BOOT_SERVICES_APPLICATION, kernel, &[], "kernel, Authenticode digest after QEMU's patch");
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
/// [`KernelError`] when the command line cannot be predicted.
pub fn rtmr2_events(boot: &DirectKernel<'_>) -> Result<Vec<Event>, KernelError> {
    let mut log = Log::new(3);
    if let Some(options) = boot.load_options()? {
        log.tagged(TAG_LOAD_OPTIONS, "LOADED_IMAGE::LoadOptions", sha384(&options), "command line");
    }
    if !boot.initrd.is_empty() {
        log.tagged(TAG_INITRD, "Linux initrd", sha384(boot.initrd), "initial ramdisk");
    }
    Ok(log.events)
}

/// Events of one register.
struct Log {
    index: u32,
    events: Vec<Event>,
}

impl Log {
    fn new(index: u32) -> Self {
        Self { index, events: Vec::new() }
    }

    /// An event whose data does not give its digest.
    fn opaque(&mut self, event_type: u32, digest: Digest<48>, data: &[u8], description: &str) {
        let (index, description) = (self.index, description.to_owned());
        self.events.push(Event { index, event_type, digest, data: data.to_vec(), description });
    }

    /// An event whose digest is the hash of its data.
    fn hashed(&mut self, event_type: u32, data: Vec<u8>, description: &str) {
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
    use crate::linux::sample_kernel;
    use crate::ovmf::sample::Sample;
    use crate::tdx::extend_all;

    fn machine(separators: Separators) -> MachineEvents {
        let (td_hob, acpi) = (sha384(b"hob"), vec![sha384(b"loader"), sha384(b"tables")]);
        MachineEvents { td_hob, fw_cfg: Vec::new(), acpi, secure_boot: SecureBoot::Off, separators }
    }

    fn types(events: &[Event]) -> Vec<u32> {
        events.iter().map(|event| event.event_type).collect()
    }

    #[test]
    fn constants_have_the_digests_seen_in_real_logs() {
        let starts = |digest: Digest<48>, text: &str| digest.to_string().starts_with(text);
        assert!(starts(sha384(&SEPARATOR), "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae4101"));
        assert!(starts(sha384(&BOOT_ORDER), "1dd6f7b457ad880d"));
        assert!(starts(sha384(&BOOT_0000), "23ada07f5261f12f"));
        let digests = |state| secure_boot_variables(state).map(|(_, data)| sha384(&data));
        for (state, text) in [(SecureBoot::Absent, "9dc3a1f80bcec915"), (SecureBoot::Off, "cfa4e2c606f57262")] {
            assert!(starts(digests(state)[0], text));
        }
        let keys = ["6f2e3cbc14f9def8", "d607c0efb41c0d75", "08a74f8963b337ac", "18cc6e01f0c6ea99"];
        assert!(digests(SecureBoot::Off)[1..].iter().zip(keys).all(|(digest, text)| starts(*digest, text)));
        assert!(starts(sha384(CALLING_APPLICATION.as_bytes()), "77a0dab2312b4e1e"));
        let exits = ["214b0bef13797560", "0a2e01c85deae718"];
        assert!(EXIT_BOOT_SERVICES.iter().zip(exits).all(|(action, text)| starts(sha384(action.as_bytes()), text)));
    }

    #[test]
    fn registers_have_the_order_of_real_logs() {
        let new = rtmr0_events(sha384(b"cfv"), &machine(Separators::Rtmr0AndRtmr1));
        let variables = [0x8000_0001; 5];
        let head = [&[0x8000_000b, 0x8000_000a][..], &variables, &[4, 10, 10, 0x8000_0002, 0x8000_0002]].concat();
        assert_eq!(types(&new), head);
        let old = rtmr0_events(sha384(b"cfv"), &machine(Separators::Rtmr0Twice));
        assert_eq!(types(&old), [head.as_slice(), &[4]].concat());
        assert_eq!(
            types(&rtmr1_of(sha384(b""), Separators::Rtmr0AndRtmr1))[1..],
            [0x8000_0007, 4, 0x8000_0007, 0x8000_0007]
        );
        assert_eq!(types(&rtmr1_of(sha384(b""), Separators::Rtmr0Twice)).len(), 4);
    }

    #[test]
    fn what_is_booted_is_what_is_measured() {
        let kernel = sample_kernel();
        let boot = |initrd, append| DirectKernel { kernel: &kernel, initrd, append, memory_mib: 512 };
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
        let options: Vec<u8> = "quiet initrd=initrd\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let events = rtmr2_events(&boot(b"initrd", "quiet")).unwrap();
        assert_eq!(events[0].digest, sha384(&options));
        assert_eq!(events[0].data, *b"\xed\x22\x3b\x8f\x1a\0\0\0LOADED_IMAGE::LoadOptions\0");
        assert_eq!((events[1].digest, events[1].index), (sha384(b"initrd"), 3));
        assert_eq!(rtmr2_events(&boot(b"", "")).unwrap(), []);
    }

    #[test]
    fn the_configuration_volume_is_found_by_its_type() {
        let tdvf = vec![[0x1000, 0x1000, 0xffff_f000, 0x1000, 0, 1], [0, 0x800, 0xffff_e000, 0x1000, 1, 0]];
        let image = Sample { tdvf, ..Sample::default() }.build();
        assert_eq!(cfv_digest(&image), Ok(sha384(&image[..0x800])));
        assert_eq!(cfv_digest(&Sample::default().build()), Err(FirmwareError::Metadata("TDVF")));
    }
}
