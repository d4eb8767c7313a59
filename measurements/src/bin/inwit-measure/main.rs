//! `inwit-measure`: says what a guest will measure as, before it is started.
//!
//! Not trusted: all input files. Never starts a guest, never asks a network.

mod arguments;
mod files;
mod report;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Arguments, Command, OutputArguments, SnpArguments, TdxArguments, VtpmArguments};
use clap::Parser;
use files::{Failure, read};
use inwit_measurements::Digest;
use inwit_measurements::linux::DirectKernel;
use inwit_measurements::reference::Measured;
use inwit_measurements::snp::{DirectBoot, Vmm, launch_digest};
use inwit_measurements::tdx::{
    MachineEvents, Separators, cfv_digest, extend_all, mrtd, rtmr0_events, rtmr1_events, rtmr2_events,
};
use inwit_measurements::vtpm::{MeasuredBoot, pcr_after_one_extend, predict, record_pei_volume};
use report::Values;

/// The PCR that the agent extends with itself.
const AGENT_PCR: u8 = 15;

fn main() -> ExitCode {
    let Arguments { command, output } = Arguments::parse();
    let held = agent_is_measured(&command, &output);
    let values = held.and_then(|()| match &command {
        Command::Snp(snp) => measure_snp(snp),
        Command::Tdx(tdx) => measure_tdx(tdx),
        Command::Vtpm(vtpm) => measure_vtpm(vtpm),
    });
    let text = match values.and_then(|values| report::render(&values, &output)) {
        Ok(text) => text,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "inwit-measure: {failure}");
            return ExitCode::from(3);
        }
    };
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

/// Reference Values that name an agent whose bytes are not in what is measured would let any image speak for it: the host
/// could boot its own, and have it name the registered agent.
fn agent_is_measured(command: &Command, output: &OutputArguments) -> Result<(), Failure> {
    let Some(agent) = &output.agent else { return Ok(()) };
    let initrd = match command {
        Command::Snp(snp) => snp.initrd.as_ref(),
        Command::Tdx(tdx) => tdx.boot.initrd.as_ref(),
        Command::Vtpm(vtpm) => vtpm.boot.initrd.as_ref(),
    };
    let initrd = read(initrd.ok_or(Failure::AgentUnmeasured)?)?;
    for file in [Some(agent), output.config.as_ref()].into_iter().flatten() {
        if !holds(&initrd, &read(file)?) {
            return Err(Failure::NotInside(file.clone()));
        }
    }
    Ok(())
}

/// Whether the archive holds these contents in one piece. Files of a newc archive start at multiples of four bytes.
fn holds(archive: &[u8], contents: &[u8]) -> bool {
    !contents.is_empty()
        && archive.chunks(4).enumerate().any(|(word, start)| {
            contents.starts_with(start.get(..contents.len().min(4)).unwrap_or(start))
                && archive.get(word * 4..).is_some_and(|rest| rest.starts_with(contents))
        })
}

fn measure_snp(arguments: &SnpArguments) -> Result<Values, Failure> {
    let firmware = read(&arguments.ovmf)?;
    let boot = match &arguments.kernel {
        None => None,
        Some(kernel) => {
            let initrd = arguments.initrd.as_deref().map(read).transpose()?.unwrap_or_default();
            Some(DirectBoot::measure(&read(kernel)?, &initrd, &arguments.append))
        }
    };
    let (cpu, features) = (arguments.cpu(), arguments.guest_features);
    let digest =
        launch_digest(&firmware, boot.as_ref(), arguments.vcpus, cpu, features, Vmm::Qemu).map_err(Failure::refused)?;
    Ok(Values::Whole(Measured::Snp { launch_digest: digest.into() }))
}

fn measure_tdx(arguments: &TdxArguments) -> Result<Values, Failure> {
    let (firmware, files) = (read(&arguments.ovmf)?, arguments.boot.read()?);
    let boot = files.direct(&arguments.boot);
    let machine = match &arguments.machine_log {
        Some(path) => Some(MachineEvents::record(&read(path)?).map_err(Failure::refused)?),
        None => None,
    };
    let mrtd = mrtd(&firmware, arguments.pass.into()).map_err(Failure::refused)?;
    let separators = machine.as_ref().map_or(Separators::Rtmr0AndRtmr1, |machine| machine.separators);
    let register = |events: &[inwit_measurements::tdx::Event]| extend_all(events.iter().map(|event| &event.digest));
    let rtmr1 = register(&rtmr1_events(&boot, separators).map_err(Failure::refused)?);
    let rtmr2 = register(&rtmr2_events(&boot).map_err(Failure::refused)?);
    let Some(machine) = machine else {
        return Ok(Values::Parts(vec![("mrtd", mrtd), ("rtmr1", rtmr1), ("rtmr2", rtmr2)]));
    };
    let rtmr0 = register(&rtmr0_events(cfv_digest(&firmware).map_err(Failure::refused)?, &machine));
    Ok(Values::Whole(Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 }))
}

fn measure_vtpm(arguments: &VtpmArguments) -> Result<Values, Failure> {
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
