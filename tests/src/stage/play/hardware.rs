//! What the guest of a play meets for hardware, as the twist changes it: a machine that answers reports, a TPM, or on Azure a
//! TPM with a paravisor between it and the machine.

use super::super::office::Office;
use super::super::trust::Root;
use super::super::{Result, StageError};
use super::{Play, Twist};
use crate::hardware::{Machine, Paravisor, TdxMachine};
use crate::world::swtpm::{EkCertificate, Swtpm};
use inwit_measurements::reference::Measured;
use inwit_protocol::evidence::Platform;
use std::path::PathBuf;

/// What a guest has.
pub(super) struct Hardware {
    /// What answers reports.
    pub(super) machine: Option<Machine>,
    /// State folder of a TPM that is ready to be served.
    pub(super) tpm: Option<PathBuf>,
    /// The platform that Azure's host makes TD quotes for.
    pub(super) quoting: Option<TdxMachine>,
}

impl Play<'_> {
    /// Where the state of the guest's TPM is, or will be.
    pub(super) fn tpm_folder(&self, root: &Root) -> Option<PathBuf> {
        match root {
            Root::Tpm { .. } if matches!(self.twist, Twist::ForeignRoot) => Some(self.folder.join("another-tpm")),
            Root::Tpm { folder, .. } | Root::Azure { folder, .. } => Some(folder.clone()),
            Root::Amd(_) | Root::Intel(_) => None,
        }
    }

    /// The hardware that reports this measurement.
    pub(super) fn hardware(&mut self, office: &Office, root: &Root, measured: &Measured) -> Result<Hardware> {
        let machine = self.machine(root, measured)?;
        let tpm = self.tpm_folder(root);
        match (root, &tpm, machine) {
            (Root::Azure { .. }, Some(folder), Some(machine)) => {
                let quoting = match &machine {
                    // Nobody could import what no root of the authority's vouches for.
                    Machine::Snp(_) if matches!(self.twist, Twist::ForeignRoot) => None,
                    Machine::Snp(machine) => {
                        // Azure's host gives the chip's certificate to whoever asks; the operator imports it.
                        office.import("vcek.der", &machine.vcek.certificate)?;
                        None
                    }
                    Machine::Tdx(machine) => Some(machine.as_ref().clone()),
                };
                let mut paravisor = Paravisor::on(machine);
                if let Twist::Paravisor(change) = self.twist {
                    change(&mut paravisor);
                }
                Swtpm::manufacture(folder, EkCertificate::Absent)?;
                paravisor.provision(&Swtpm::serve(folder)?)?;
                self.step("TPM made: its key in it, and the paravisor's report on that key, signed by the hardware");
                Ok(Hardware { machine: None, tpm, quoting })
            }
            (Root::Azure { .. }, ..) => Err(StageError::of("Azure", "a paravisor without hardware below it")),
            (Root::Tpm { folder: known, .. }, Some(folder), machine) => {
                if folder != known {
                    Swtpm::manufacture(folder, EkCertificate::Absent)?;
                }
                Ok(Hardware { machine, tpm, quoting: None })
            }
            (_, _, machine) => Ok(Hardware { machine, tpm, quoting: None }),
        }
    }

    /// The machine below, of a root that the authority knows or of another.
    fn machine(&self, root: &Root, measured: &Measured) -> Result<Option<Machine>> {
        let foreign = match self.twist {
            Twist::ForeignRoot if self.platform != Platform::Vtpm => Some(Root::foreign(self.platform)?),
            _ => None,
        };
        let mut machine = foreign.as_ref().unwrap_or(root).machine(measured)?;
        if let (Twist::Machine(change), Some(machine)) = (&self.twist, &mut machine) {
            change(machine);
        }
        Ok(machine)
    }
}
