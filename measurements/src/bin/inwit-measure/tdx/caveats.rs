//! What is not certain about the registers of a TD, in words.
//!
//! Nothing foreign is trusted here. Never changes a value, and never writes to standard output.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use crate::report::TdEvent;

/// What is not certain about RTMR0 with these events. A recorded log has proved its order by the register that it leads
/// to.
pub(super) fn of(rtmr0: &[TdEvent], machine_log: Option<&Path>) -> Vec<String> {
    if machine_log.is_some() {
        return Vec::new();
    }
    let unverified = rtmr0.iter().filter(|event| event.event.place_is_unverified());
    let names: BTreeSet<&str> = unverified.map(|event| event.event.description.as_str()).collect();
    let caveat = |name| {
        format!(
            "the place of \"{name}\" in RTMR0 follows from the firmware's source and was compared with no real boot: before \
             you rely on it, compare rtmr0 with a TD that you trust, or give its log with --machine-log"
        )
    };
    names.into_iter().map(caveat).collect()
}

/// Says them on standard error, whatever is printed.
pub(super) fn tell(caveats: &[String]) {
    for caveat in caveats {
        // Who closed standard error does not want to know.
        let _ = writeln!(std::io::stderr(), "inwit-measure: caveat: {caveat}");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use inwit_measurements::sha384;
    use inwit_measurements::tdx::{MachineEvents, SecureBoot, SecureBootVariables, Separators, rtmr0_events};
    use serde_json::Value;

    use super::*;
    use crate::arguments::Arguments;
    use crate::report::{Printed, Values, render};

    fn events(machine: &MachineEvents) -> Vec<TdEvent> {
        let events = rtmr0_events(sha384(b"cfv"), machine).into_iter();
        events.map(|event| TdEvent { event, source: "a test".to_owned() }).collect()
    }

    fn machine() -> MachineEvents {
        MachineEvents {
            td_hob: sha384(b"hob"),
            fw_cfg: Vec::new(),
            secure_boot: SecureBootVariables::without_keys(SecureBoot::Off),
            acpi: vec![sha384(b"loader")],
            authorities: Vec::new(),
            smbios: None,
            boot: Vec::new(),
            separators: Separators::Rtmr0AndRtmr1,
        }
    }

    #[test]
    fn unverified_places_are_told_unless_a_log_proves_them() {
        assert_eq!(of(&events(&machine()), None), Vec::<String>::new());
        let both = MachineEvents { smbios: Some(sha384(b"x")), authorities: vec![b"key".to_vec(); 2], ..machine() };
        let told = of(&events(&both), None);
        assert!(told.len() == 2 && told[0].contains("SMBIOS") && told[1].contains("key that allowed"), "{told:?}");
        assert!(of(&events(&both), Some(Path::new("log"))).is_empty());
    }

    #[test]
    fn events_come_with_their_caveats() {
        let machine = MachineEvents { smbios: Some(sha384(b"x")), ..machine() };
        let print = |options: &[&str]| {
            let command = ["inwit-measure", "log", "unread"];
            let arguments = Arguments::try_parse_from(command.iter().chain(options)).unwrap();
            let (events, register) = (events(&machine), sha384(b"rtmr0"));
            let caveats = of(&events, None);
            let values = Values::Td(Box::new(Values::Parts(vec![("rtmr0", register)])), events, caveats);
            match render(&values, None, &arguments.output) {
                Ok(Printed::Text(text)) => text,
                _ => panic!("no text"),
            }
        };
        assert_eq!(print(&[]).lines().filter(|line| line.starts_with("caveat: ")).count(), 1);
        let json: Value = serde_json::from_str(&print(&["--json"])).unwrap();
        assert!(json["caveats"][0].as_str().is_some_and(|caveat| caveat.contains("SMBIOS")), "{json}");
    }
}
