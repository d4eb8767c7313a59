//! The events of RTMR0: what the firmware of a TD measures of its configuration and of the machine.
//!
//! Sources: Intel TDX Virtual Firmware Design Guide section 8, edk2 OvmfPkg and SecurityPkg; orders and constants
//! compared with event logs of real TDs. The parts are computed ([`super::Machine`]) or recorded from the event log of a
//! trusted boot.
//!
//! Not trusted: the log, which is replayed like any other; whether the boot was one to trust is the operator's word,
//! and comparing the replay with a quote is the caller's step. Never invents a missing event: a log with an event that
//! has no rule here, or in another order, is refused.

use thiserror::Error;

use super::rtmr::{Event, Log, Separators, extend_register};
use crate::digest::{Digest, sha384};
use crate::eventlog::{ALG_SHA384, EventLog, LogError, LogEvent, replay_ccel};
use crate::printable::escaped;
use crate::uefi::{GLOBAL_VARIABLE, SEPARATOR, SecureBootVariables, event_type, parse_variable, variable};

/// MrIndex of RTMR0.
const RTMR0: u32 = 1;
const FW_CFG: &[u8] = b"QEMU FW CFG\0";
const ACPI: &[u8] = b"ACPI DATA";
/// Bytes of a configuration item's name in its event.
const FW_CFG_NAME: usize = 56;

/// What RTMR0 holds beyond the configuration volume, on a machine that starts a kernel given to QEMU.
///
/// The places of `authorities` and `smbios` follow from when edk2 measures them; no log of a real direct boot with either
/// was at hand to compare with ([`Event::place_is_unverified`]). A recorded log with another order is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineEvents {
    /// Digest of the TD HOB list that the hypervisor builds.
    pub td_hob: Digest<48>,
    /// Names and digests of configuration items that newer firmware measures before the variables, in log order.
    pub fw_cfg: Vec<(String, Digest<48>)>,
    /// Secure Boot and its keys.
    pub secure_boot: SecureBootVariables,
    /// Digests of the ACPI blobs, in log order: the loader script, then each file it allocates.
    pub acpi: Vec<Digest<48>>,
    /// With Secure Boot on, the UEFI_VARIABLE_DATA of the keys that allowed what was started, in log order.
    pub authorities: Vec<Vec<u8>>,
    /// Digest of the SMBIOS tables, which newer firmware measures.
    pub smbios: Option<Digest<48>>,
    /// Names and data of the boot variables, BootOrder first.
    pub boot: Vec<(String, Vec<u8>)>,
    /// Where the separator at ready-to-boot goes.
    pub separators: Separators,
}

/// Why a log cannot serve as the record of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MachineError {
    /// The log itself is refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// RTMR0 lacks an event that all boots have, or has one for which there is no rule.
    #[error("the log is not one of a direct kernel boot through OVMF that this version knows: {0}")]
    Shape(&'static str),
    /// A boot variable with another name than firmware measures.
    #[error(
        "the log has a boot variable \"{0}\": only BootOrder and Boot with four upper-case hexadecimal digits are known"
    )]
    BootVariable(String),
}

/// RTMR0. `cfv` as from [`super::cfv_digest`].
#[must_use]
pub fn rtmr0_events(cfv: Digest<48>, machine: &MachineEvents) -> Vec<Event> {
    let mut log = Log::new(RTMR0);
    log.opaque(event_type::HANDOFF_TABLES2, machine.td_hob, &[], "TD HOB: the memory map");
    log.opaque(event_type::PLATFORM_FIRMWARE_BLOB2, cfv, &[], "configuration volume of the firmware");
    for (name, digest) in &machine.fw_cfg {
        let mut data = [FW_CFG, name.as_bytes()].concat();
        data.resize(FW_CFG.len() + FW_CFG_NAME, 0);
        log.opaque(event_type::PLATFORM_CONFIG_FLAGS, *digest, &data, &format!("configuration item {name}"));
    }
    for (name, data) in machine.secure_boot.measured() {
        log.hashed(event_type::VARIABLE_DRIVER_CONFIG, data, &format!("variable {name}"));
    }
    log.hashed(event_type::SEPARATOR, SEPARATOR.to_vec(), "separator");
    for (number, digest) in machine.acpi.iter().enumerate() {
        let what = if number == 0 { "ACPI loader script".to_owned() } else { format!("ACPI file {number}") };
        log.opaque(event_type::PLATFORM_CONFIG_FLAGS, *digest, ACPI, &what);
    }
    for authority in &machine.authorities {
        log.hashed(event_type::VARIABLE_AUTHORITY, authority.clone(), "key that allowed an image");
    }
    if let Some(smbios) = machine.smbios {
        log.opaque(event_type::HANDOFF_TABLES, smbios, &[], "SMBIOS tables");
    }
    for (name, data) in &machine.boot {
        // Boot variables are logged whole but hashed by their data alone.
        let logged = variable(GLOBAL_VARIABLE, name, data);
        log.opaque(event_type::VARIABLE_BOOT, sha384(data), &logged, &format!("variable {name}"));
    }
    if machine.separators == Separators::Rtmr0Twice {
        log.hashed(event_type::SEPARATOR, SEPARATOR.to_vec(), "separator");
    }
    log.events
}

impl MachineEvents {
    /// Reads the machine's part of RTMR0 from a CCEL log.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn record(log: &[u8]) -> Result<Self, MachineError> {
        let register = replay_ccel(log)?.rtmrs[0];
        let log = EventLog::parse(log)?;
        let events: Vec<_> = log.events.iter().filter(|event| event.index == RTMR0).collect();
        let of = |kind| events.iter().copied().filter(move |event| event.event_type == kind);
        let one = |kind, fault| match of(kind).collect::<Vec<_>>().as_slice() {
            [one] => digest(one),
            _ => Err(MachineError::Shape(fault)),
        };
        let td_hob = one(event_type::HANDOFF_TABLES2, "not exactly one TD HOB")?;
        let cfv = one(event_type::PLATFORM_FIRMWARE_BLOB2, "not exactly one configuration volume")?;
        let separators = match of(event_type::SEPARATOR).count() {
            1 => Separators::Rtmr0AndRtmr1,
            2 => Separators::Rtmr0Twice,
            _ => return Err(MachineError::Shape("not one or two separators in RTMR0")),
        };
        let (acpi, fw_cfg): (Vec<_>, Vec<_>) =
            of(event_type::PLATFORM_CONFIG_FLAGS).partition(|event| event.data.starts_with(ACPI));
        let smbios = of(event_type::HANDOFF_TABLES).next().map(digest).transpose()?;
        let boot = of(event_type::VARIABLE_BOOT).map(|event| {
            let (_, name, data) = parse_variable(event.data).ok_or(MachineError::Shape("a malformed boot variable"))?;
            if !is_boot_variable(&name) {
                return Err(MachineError::BootVariable(escaped(&name, &['"'])));
            }
            Ok((name, data.to_vec()))
        });
        let machine = Self {
            td_hob,
            fw_cfg: fw_cfg
                .into_iter()
                .map(|event| Ok((item_name(event)?, digest(event)?)))
                .collect::<Result<_, MachineError>>()?,
            secure_boot: secure_boot(of(event_type::VARIABLE_DRIVER_CONFIG))?,
            acpi: acpi.into_iter().map(digest).collect::<Result<_, _>>()?,
            authorities: of(event_type::VARIABLE_AUTHORITY).map(|event| event.data.to_vec()).collect(),
            smbios,
            boot: boot.collect::<Result<_, MachineError>>()?,
            separators,
        };
        // Whatever was not understood, or stands in another order, does not lead to the same register.
        if extend_register(&rtmr0_events(cfv, &machine)).as_bytes() != &register {
            return Err(MachineError::Shape("an event in RTMR0 is unknown or out of order"));
        }
        Ok(machine)
    }
}

/// The digest of the configuration volume in a log, as [`super::cfv_digest`] gives it for an image.
pub(super) fn recorded_volume(log: &[u8]) -> Result<Digest<48>, MachineError> {
    let log = EventLog::parse(log)?;
    let is_volume =
        |event: &&LogEvent<'_>| event.index == RTMR0 && event.event_type == event_type::PLATFORM_FIRMWARE_BLOB2;
    let volume = log.events.iter().find(is_volume);
    volume.map_or(Err(MachineError::Shape("not exactly one configuration volume")), digest)
}

fn digest(event: &LogEvent<'_>) -> Result<Digest<48>, MachineError> {
    event.digest(ALG_SHA384).map(Digest::from_bytes).ok_or(MachineError::Log(LogError::NoBank("SHA-384")))
}

/// BootOrder, or Boot0000 to BootFFFF.
fn is_boot_variable(name: &str) -> bool {
    let number = name.strip_prefix("Boot").filter(|number| number.len() == 4);
    name == "BootOrder"
        || number.is_some_and(|number| number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')))
}

/// The name of a configuration item, which some builds do not log.
fn item_name(event: &LogEvent<'_>) -> Result<String, MachineError> {
    let name = event.data.strip_prefix(FW_CFG).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if name.len() > FW_CFG_NAME || !name.iter().all(u8::is_ascii_graphic) {
        return Err(MachineError::Shape("a malformed configuration item"));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// The five variables, each once and in order; nothing but the name SecureBoot when it does not exist.
fn secure_boot<'a>(events: impl Iterator<Item = &'a LogEvent<'a>>) -> Result<SecureBootVariables, MachineError> {
    let fault = MachineError::Shape("not the five variables of Secure Boot");
    let parsed: Vec<_> = events.filter_map(|event| parse_variable(event.data)).collect();
    let [state, pk, kek, db, dbx] = parsed.as_slice() else { return Err(fault) };
    let enabled = match state.2 {
        [] => None,
        [state] => Some(*state),
        _ => return Err(fault),
    };
    let [pk, kek, db, dbx] = [pk, kek, db, dbx].map(|(_, _, data)| data.to_vec());
    Ok(SecureBootVariables { enabled, pk, kek, db, dbx })
}

/// Events of a machine for tests; never part of the product.
#[cfg(test)]
pub(super) fn sample() -> MachineEvents {
    use crate::uefi::{BOOT_0000, BOOT_ORDER, SecureBoot};
    MachineEvents {
        td_hob: sha384(b"hob"),
        fw_cfg: vec![("bootorder".to_owned(), sha384(b"order"))],
        secure_boot: SecureBootVariables::without_keys(SecureBoot::Off),
        acpi: vec![sha384(b"loader"), sha384(b"rsdp"), sha384(b"tables")],
        authorities: Vec::new(),
        smbios: None,
        boot: vec![("BootOrder".to_owned(), BOOT_ORDER.to_vec()), ("Boot0000".to_owned(), BOOT_0000.to_vec())],
        separators: Separators::Rtmr0Twice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventlog::encode_ccel;
    use crate::uefi::{BOOT_0000, BOOT_ORDER, SecureBoot, secure_boot_variables};

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
    }

    #[test]
    fn the_register_has_the_order_of_real_logs() {
        let types = |machine: &MachineEvents| -> Vec<u32> {
            rtmr0_events(sha384(b"cfv"), machine).iter().map(|event| event.event_type).collect()
        };
        let variables = [0x8000_0001; 5];
        let ends = [&[4, 10, 10, 10, 0x8000_0002, 0x8000_0002, 4][..]].concat();
        assert_eq!(types(&sample()), [&[0x8000_000b, 0x8000_000a, 10][..], &variables, &ends].concat());
        let newer = MachineEvents {
            authorities: vec![b"db".to_vec()],
            smbios: Some(sha384(b"smbios")),
            separators: Separators::Rtmr0AndRtmr1,
            ..sample()
        };
        let unverified = |machine: &MachineEvents| -> Vec<u32> {
            let events = rtmr0_events(sha384(b"cfv"), machine).into_iter();
            events.filter(Event::place_is_unverified).map(|event| event.event_type).collect()
        };
        assert_eq!((unverified(&sample()), unverified(&newer)), (vec![], vec![0x8000_00e0, 0x8000_0009]));
        let ends = [4, 10, 10, 10, 0x8000_00e0, 0x8000_0009, 0x8000_0002, 0x8000_0002];
        assert_eq!(types(&newer), [&[0x8000_000b, 0x8000_000a, 10][..], &variables, &ends].concat());
    }

    #[test]
    fn what_a_machine_logs_is_what_is_recorded() {
        let keys = SecureBootVariables { pk: b"pk".to_vec(), enabled: Some(1), ..sample().secure_boot };
        let absent = SecureBootVariables::without_keys(SecureBoot::Absent);
        for secure_boot in [sample().secure_boot, absent, keys] {
            for separators in [Separators::Rtmr0AndRtmr1, Separators::Rtmr0Twice] {
                for smbios in [None, Some(sha384(b"smbios"))] {
                    let authorities = vec![variable([5; 16], "db", b"key")];
                    let secure_boot = secure_boot.clone();
                    let machine = MachineEvents { secure_boot, separators, smbios, authorities, ..sample() };
                    let log = encode_ccel(&rtmr0_events(sha384(b"cfv"), &machine));
                    assert_eq!(MachineEvents::record(&log), Ok(machine));
                }
            }
        }
    }

    #[test]
    fn other_boots_are_refused() {
        let events = rtmr0_events(sha384(b"cfv"), &sample());
        let without = |kind| encode_ccel(&events.iter().filter(|e| e.event_type != kind).cloned().collect::<Vec<_>>());
        for (kind, reason) in [
            (event_type::HANDOFF_TABLES2, "not exactly one TD HOB"),
            (event_type::PLATFORM_FIRMWARE_BLOB2, "not exactly one configuration volume"),
            (event_type::SEPARATOR, "not one or two separators in RTMR0"),
            (event_type::VARIABLE_DRIVER_CONFIG, "not the five variables of Secure Boot"),
        ] {
            assert_eq!(MachineEvents::record(&without(kind)), Err(MachineError::Shape(reason)));
        }
        let out_of_order = Err(MachineError::Shape("an event in RTMR0 is unknown or out of order"));
        let mut swapped = events.clone();
        swapped.swap(0, 1);
        assert_eq!(MachineEvents::record(&encode_ccel(&swapped)), out_of_order);
        let mut unknown = events.clone();
        unknown.push(Event { event_type: event_type::GPT, ..events[8].clone() });
        assert_eq!(MachineEvents::record(&encode_ccel(&unknown)), out_of_order);
        assert!(matches!(MachineEvents::record(b""), Err(MachineError::Log(_))));
    }

    #[test]
    fn boot_variables_with_other_names_are_refused() {
        let named = |name: &str| {
            let boot = vec![(name.to_owned(), b"x".to_vec())];
            let log = encode_ccel(&rtmr0_events(sha384(b"cfv"), &MachineEvents { boot, ..sample() }));
            MachineEvents::record(&log).map(|_| ())
        };
        assert_eq!((named("Boot00AF"), named("BootOrder")), (Ok(()), Ok(())));
        let forged = "Boot0001\u{1b}[2K\nrtmr2 00\u{202e}";
        for name in [forged, "Boot00af", "Boot001", "Boot00011", "BootNext", "Driver0001", "Boot0001 ", ""] {
            let Err(MachineError::BootVariable(told)) = named(name) else { panic!("{name:?}") };
            assert!(told.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{told:?}");
        }
    }
}
