//! Which options of `inwit-measure snp` go together.
//!
//! The parser of the command line knows most of these rules as well, and says them in its help; but it waives what an
//! option requires as soon as that conflicts with another one given, and does not compare options of all subcommands with
//! those of one when they come first. What is left out silently makes a wrong value, so the rules are checked here.
//! Nothing is read here.

use inwit_measurements::snp::Vmm;

use super::SnpArguments;
use crate::arguments::OutputArguments;
use crate::files::{Failure, FileKind, read};

impl SnpArguments {
    /// Refuses options that contradict each other, and those that nothing here would look at.
    pub(crate) fn check(&self, output: &OutputArguments) -> Result<(), Failure> {
        let cause = self.unheeded().or_else(|| self.agent_beside_igvm(output)).map(str::to_owned);
        let cause = self.start().or(cause);
        cause.map_or(Ok(()), |cause| Err(Failure::Usage(cause)))
    }

    /// What starts must be one thing.
    fn start(&self) -> Option<String> {
        let given = [
            ("--ovmf", self.ovmf.is_some()),
            ("--svsm", self.svsm.is_some()),
            ("--kernel", self.kernel.is_some()),
            ("--initrd", self.initrd.is_some()),
            ("--append", !self.append.is_empty()),
            ("--output-dir", self.output_dir.is_some()),
            ("--id-key", self.id_block.is_given()),
            ("--vcpu-type", !self.vcpu_type.is_empty()),
            ("--vcpu-sig", !self.vcpu_sig.is_empty()),
            ("--vcpu-family", self.vcpu_family.is_some()),
        ];
        let (whole, beside) = match (&self.ovmf, self.igvm.is_given(), &self.svsm) {
            (None, false, _) => return Some("give --ovmf, or --igvm".to_owned()),
            (_, true, _) => ("--igvm", &given[..]),
            (_, false, Some(_)) => ("--svsm", given.get(2..5).unwrap_or_default()),
            (_, false, None) => return None,
        };
        let (option, _) = beside.iter().find(|(_, given)| *given)?;
        Some(format!("{option} cannot be used with {whole}, which measures nothing of it"))
    }

    /// Options that only change what another one does.
    fn unheeded(&self) -> Option<&'static str> {
        let Self { kernel, svsm, vcpu_family, mode, .. } = self;
        let numbers = (vcpu_family.is_some(), self.vcpu_model.is_some(), self.vcpu_stepping.is_some());
        let named = !self.vcpu_type.is_empty() || !self.vcpu_sig.is_empty();
        let rules = [
            (self.initrd.is_some() && kernel.is_none(), "--initrd goes with --kernel"),
            (!self.append.is_empty() && kernel.is_none(), "--append goes with --kernel"),
            (self.vars_size.is_some() && svsm.is_none(), "--vars-size goes with --svsm"),
            (self.vars_file.is_some() && svsm.is_none(), "--vars-file goes with --svsm"),
            (self.vars_size.is_some() && self.vars_file.is_some(), "give --vars-size or --vars-file, not both"),
            (!self.igvm.is_given() && self.igvm.has_loader(), "--loader goes with --igvm"),
            (self.id_block.lacks_key(), "what an ID block is to hold goes with --id-key"),
            (
                !matches!(numbers, (true, true, true) | (false, false, false)),
                "--vcpu-family, --vcpu-model and --vcpu-stepping go together",
            ),
            (numbers.0 && named, "a CPU family names one CPU: leave --vcpu-type and --vcpu-sig out"),
            (!self.vcpu_type.is_empty() && !self.vcpu_sig.is_empty(), "give --vcpu-type or --vcpu-sig, not both"),
            (mode.as_deref() == Some("snp:svsm") && svsm.is_none(), "for an SVSM give its image with --svsm"),
            (mode.as_deref() == Some("snp") && svsm.is_some(), "with --svsm the mode is snp:svsm"),
        ];
        rules.into_iter().find_map(|(broken, cause)| broken.then_some(cause))
    }

    fn agent_beside_igvm(&self, output: &OutputArguments) -> Option<&'static str> {
        let cause = "--agent cannot be used with --igvm: what is inside the file cannot be told from its pages";
        (self.igvm.is_given() && output.agent.is_some()).then_some(cause)
    }

    /// The initrd, if the launch digest covers one: through the hashes of a kernel that QEMU hands to the firmware.
    pub(crate) fn measured_initrd(&self) -> Result<Option<&'static [u8]>, Failure> {
        let Self { kernel, initrd, svsm, .. } = self;
        match (kernel, initrd, svsm, self.igvm.is_given()) {
            (Some(_), Some(initrd), None, false) if self.vmm_type == Vmm::Qemu => {
                read(initrd, FileKind::Initrd).map(Some)
            }
            (Some(_), Some(_), None, false) => Err(Failure::NoKernel(self.vmm_type)),
            _ => Ok(None),
        }
    }
}
