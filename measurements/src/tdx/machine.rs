//! Recording what RTMR0 takes from the machine, out of the event log of a trusted boot.
//!
//! Not trusted: the log, which is replayed like any other; whether the boot was one to trust is the operator's word,
//! and comparing the replay with a quote is the caller's step. Never invents a missing event.

use thiserror::Error;

use super::{MachineEvents, SecureBoot, Separators};
use crate::digest::Digest;
use crate::eventlog::{ALG_SHA384, EventLog, LogError, LogEvent};
use crate::uefi::{event_type, secure_boot_variables};

/// MrIndex of RTMR0.
const RTMR0: u32 = 1;

/// Why a log cannot serve as the record of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MachineError {
    /// The log itself is refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// RTMR0 has no TD HOB event, no separator, or events for which this version has no rule.
    #[error("the log is not one of a direct kernel boot through OVMF without Secure Boot keys: {0}")]
    Shape(&'static str),
}

impl MachineEvents {
    /// Reads the machine's part of RTMR0 from a CCEL log.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn record(log: &[u8]) -> Result<Self, MachineError> {
        let log = EventLog::parse(log)?;
        let events: Vec<_> = log.events.iter().filter(|event| event.index == RTMR0).collect();
        let of = |kind| events.iter().filter(move |event| event.event_type == kind);
        let td_hob = match of(event_type::HANDOFF_TABLES2).collect::<Vec<_>>().as_slice() {
            [one] => digest(one)?,
            _ => return Err(MachineError::Shape("not exactly one TD HOB")),
        };
        let state = of(event_type::VARIABLE_DRIVER_CONFIG).next().map(|event| event.data);
        let matches = |candidate: &SecureBoot| {
            let [(_, data), ..] = secure_boot_variables(*candidate);
            Some(data.as_slice()) == state
        };
        let secure_boot = [SecureBoot::Absent, SecureBoot::Off].into_iter().find(matches);
        let separators = match of(event_type::SEPARATOR).count() {
            1 => Separators::Rtmr0AndRtmr1,
            2 => Separators::Rtmr0Twice,
            _ => return Err(MachineError::Shape("not one or two separators in RTMR0")),
        };
        let (acpi, fw_cfg): (Vec<_>, Vec<_>) =
            of(event_type::PLATFORM_CONFIG_FLAGS).partition(|event| event.data.starts_with(b"ACPI DATA"));
        let digests = |events: Vec<&&LogEvent<'_>>| -> Result<Vec<_>, MachineError> {
            events.into_iter().map(|event| digest(event)).collect()
        };
        Ok(Self {
            td_hob,
            fw_cfg: digests(fw_cfg)?,
            acpi: digests(acpi)?,
            secure_boot: secure_boot.ok_or(MachineError::Shape("Secure Boot is on or not measured"))?,
            separators,
        })
    }
}

fn digest(event: &LogEvent<'_>) -> Result<Digest<48>, MachineError> {
    event.digest(ALG_SHA384).map(Digest::from_bytes).ok_or(MachineError::Log(LogError::NoBank("SHA-384")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha384;
    use crate::eventlog::encode_ccel;
    use crate::tdx::rtmr0_events;

    fn machine() -> MachineEvents {
        MachineEvents {
            td_hob: sha384(b"hob"),
            fw_cfg: vec![sha384(b"bootorder")],
            acpi: vec![sha384(b"loader"), sha384(b"rsdp"), sha384(b"tables")],
            secure_boot: SecureBoot::Off,
            separators: Separators::Rtmr0Twice,
        }
    }

    #[test]
    fn what_a_machine_logs_is_what_is_recorded() {
        for secure_boot in [SecureBoot::Absent, SecureBoot::Off] {
            for separators in [Separators::Rtmr0AndRtmr1, Separators::Rtmr0Twice] {
                let machine = MachineEvents { secure_boot, separators, ..machine() };
                let log = encode_ccel(&rtmr0_events(sha384(b"cfv"), &machine));
                assert_eq!(MachineEvents::record(&log), Ok(machine));
            }
        }
    }

    #[test]
    fn other_boots_are_refused() {
        let events = rtmr0_events(sha384(b"cfv"), &machine());
        let without = |kind| encode_ccel(&events.iter().filter(|e| e.event_type != kind).cloned().collect::<Vec<_>>());
        for (kind, reason) in [
            (event_type::HANDOFF_TABLES2, "not exactly one TD HOB"),
            (event_type::SEPARATOR, "not one or two separators in RTMR0"),
            (event_type::VARIABLE_DRIVER_CONFIG, "Secure Boot is on or not measured"),
        ] {
            assert_eq!(MachineEvents::record(&without(kind)), Err(MachineError::Shape(reason)));
        }
        assert!(matches!(MachineEvents::record(b""), Err(MachineError::Log(_))));
    }
}
