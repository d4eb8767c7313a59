//! `inwit-measure vtpm`: its options, and from the files they name to PCRs.
//!
//! Not trusted: the words given and the files. Never talks to a TPM.

use std::path::PathBuf;

use clap::Args;
use inwit_measurements::Digest;
use inwit_measurements::linux::DirectKernel;
use inwit_measurements::made_from::{MadeFrom, Role};
use inwit_measurements::reference::Measured;
use inwit_measurements::vtpm::{MeasuredBoot, pcr_after_one_extend, predict, record_pei_volume};

use crate::arguments::BootArguments;
use crate::files::{Failure, file_name, read};
use crate::report::Values;

/// The PCR that the agent extends with itself.
const AGENT_PCR: u8 = 15;

#[derive(Args)]
pub(crate) struct VtpmArguments {
    /// The firmware code image (OVMF_CODE).
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: PathBuf,
    #[command(flatten)]
    pub(crate) boot: BootArguments,
    /// SHA-256 of the PEI volume in memory: the second event of PCR 0 in the log of a trusted boot.
    #[arg(long, value_name = "SHA256", required_unless_present = "machine_log")]
    pub(crate) pei_digest: Option<Digest<32>>,
    /// That log itself (binary_bios_measurements), to take the digest from.
    #[arg(long, value_name = "FILE", conflicts_with = "pei_digest")]
    pub(crate) machine_log: Option<PathBuf>,
    /// Event digest that the agent extends PCR 15 with; adds PCR 15.
    #[arg(long, value_name = "SHA256")]
    pub(crate) agent_event: Option<Digest<32>>,
}

/// The PCRs of the machine that the options describe.
pub(crate) fn measure(arguments: &VtpmArguments) -> Result<Values, Failure> {
    let (firmware, files) = (read(&arguments.ovmf)?, arguments.boot.read()?);
    let boot: DirectKernel<'_> = files.direct(&arguments.boot);
    let pei_volume = match (&arguments.machine_log, arguments.pei_digest) {
        (Some(path), _) => record_pei_volume(&read(path)?).map_err(Failure::refused)?,
        (None, Some(digest)) => digest,
        (None, None) => return Err(Failure::MissingPei),
    };
    let measured = MeasuredBoot { firmware: &firmware, pei_volume, boot };
    let mut pcrs = predict(&measured).map_err(Failure::refused)?;
    if let Some(event) = arguments.agent_event {
        pcrs.insert(AGENT_PCR, Digest::from_bytes(pcr_after_one_extend(*event.as_bytes())));
    }
    Ok(Values::Whole(Measured::Vtpm { pcrs }))
}

/// What the registers are computed from, for explaining a mismatch later.
pub(crate) fn made_from(arguments: &VtpmArguments) -> Result<MadeFrom, Failure> {
    let mut record = MadeFrom::default();
    let (firmware, files) = (read(&arguments.ovmf)?, arguments.boot.read()?);
    record.add_file(Role::Firmware, &file_name(&arguments.ovmf), &firmware);
    arguments.boot.add_to(&mut record, &files.direct(&arguments.boot));
    if let Some(path) = &arguments.machine_log {
        record.add_file(Role::MachineLog, &file_name(path), &read(path)?);
    }
    Ok(record)
}
