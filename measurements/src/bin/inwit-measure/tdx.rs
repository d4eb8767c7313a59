//! `inwit-measure tdx`: its options, and from the files they name to the registers of a TD.
//!
//! Not trusted: the words given and the files. Never starts a guest.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use inwit_measurements::made_from::{MadeFrom, Role};
use inwit_measurements::reference::Measured;
use inwit_measurements::tdx::{
    Event, MachineEvents, Pass, Separators, cfv_digest, extend_all, mrtd, rtmr0_events, rtmr1_events, rtmr2_events,
};

use crate::arguments::BootArguments;
use crate::files::{Failure, file_name, read};
use crate::report::Values;

#[derive(Args)]
pub(crate) struct TdxArguments {
    /// The whole firmware image, variables included (a split CODE file gives wrong offsets).
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: PathBuf,
    #[command(flatten)]
    pub(crate) boot: BootArguments,
    /// CCEL event log of a trusted boot of the same machine shape, for RTMR0.
    #[arg(long, value_name = "FILE")]
    pub(crate) machine_log: Option<PathBuf>,
    /// In which order the hypervisor adds and measures pages.
    #[arg(long, value_enum, default_value = "single")]
    pub(crate) pass: PassArgument,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PassArgument {
    /// Each page is added and measured before the next (QEMU with merged TDX support).
    Single,
    /// All pages of a section are added, then all are measured (older QEMU trees).
    TwoPass,
}

impl From<PassArgument> for Pass {
    fn from(argument: PassArgument) -> Self {
        match argument {
            PassArgument::Single => Self::Single,
            PassArgument::TwoPass => Self::TwoPass,
        }
    }
}

/// The registers of the TD that the options describe.
pub(crate) fn measure(arguments: &TdxArguments) -> Result<Values, Failure> {
    let (firmware, files) = (read(&arguments.ovmf)?, arguments.boot.read()?);
    let boot = files.direct(&arguments.boot);
    let machine = match &arguments.machine_log {
        Some(path) => Some(MachineEvents::record(&read(path)?).map_err(Failure::refused)?),
        None => None,
    };
    let mrtd = mrtd(&firmware, arguments.pass.into()).map_err(Failure::refused)?;
    let separators = machine.as_ref().map_or(Separators::Rtmr0AndRtmr1, |machine| machine.separators);
    let register = |events: &[Event]| extend_all(events.iter().map(|event| &event.digest));
    let rtmr1 = register(&rtmr1_events(&boot, separators).map_err(Failure::refused)?);
    let rtmr2 = register(&rtmr2_events(&boot).map_err(Failure::refused)?);
    let Some(machine) = machine else {
        return Ok(Values::Parts(vec![("mrtd", mrtd), ("rtmr1", rtmr1), ("rtmr2", rtmr2)]));
    };
    let rtmr0 = register(&rtmr0_events(cfv_digest(&firmware).map_err(Failure::refused)?, &machine));
    Ok(Values::Whole(Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 }))
}

/// What the registers are computed from, for explaining a mismatch later.
pub(crate) fn made_from(arguments: &TdxArguments) -> Result<MadeFrom, Failure> {
    let mut record = MadeFrom::default();
    let (firmware, files) = (read(&arguments.ovmf)?, arguments.boot.read()?);
    let boot = files.direct(&arguments.boot);
    record.add_file(Role::Firmware, &file_name(&arguments.ovmf), &firmware);
    arguments.boot.add_to(&mut record, &boot);
    let mut separators = Separators::Rtmr0AndRtmr1;
    if let Some(path) = &arguments.machine_log {
        let log = read(path)?;
        let machine = MachineEvents::record(&log).map_err(Failure::refused)?;
        record.add_file(Role::MachineLog, &file_name(path), &log);
        record.add_td_events(&rtmr0_events(cfv_digest(&firmware).map_err(Failure::refused)?, &machine));
        separators = machine.separators;
    }
    record.add_td_events(&rtmr1_events(&boot, separators).map_err(Failure::refused)?);
    record.add_td_events(&rtmr2_events(&boot).map_err(Failure::refused)?);
    Ok(record)
}
