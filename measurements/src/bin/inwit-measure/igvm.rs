//! `inwit-measure snp --igvm`: the launch digest of a guest that is loaded from an IGVM file.
//!
//! Not trusted: the file. Never names an agent: what else is in the file cannot be told from its pages.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use inwit_measurements::igvm::{Igvm, Loader};
use inwit_measurements::reference::Measured;

use crate::arguments::OutputArguments;
use crate::files::{Failure, FileKind, read};
use crate::progress::stage;
use crate::report::{Printed, Values, render};

#[derive(Args)]
pub(crate) struct IgvmArguments {
    /// IGVM file with the whole guest, in place of --ovmf: it says everything that is measured, the registers included.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "ovmf", "kernel", "initrd", "append", "svsm", "vars_size", "vars_file", "mode", "vcpus", "guest_features", "vmm_type", "vcpu_type", "vcpu_sig", "vcpu_family", "vcpu_model", "vcpu_stepping", "output_dir",
            "agent", "id_key", "author_key", "family_id", "image_id", "guest_svn", "policy",
        ]
    )]
    igvm: Option<PathBuf>,
    /// Who loads the IGVM file: QEMU with KVM and one vCPU, or a loader that does what the format prescribes [default:
    /// qemu].
    #[arg(long, value_name = "NAME", value_enum, requires = "igvm", conflicts_with = "ovmf")]
    loader: Option<LoaderArgument>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LoaderArgument {
    /// Adds parameters before the pages that stand before them, and the registers last.
    Qemu,
    /// Every directive in its place: OpenVMM.
    Format,
}

impl From<LoaderArgument> for Loader {
    fn from(argument: LoaderArgument) -> Self {
        match argument {
            LoaderArgument::Qemu => Self::Qemu,
            LoaderArgument::Format => Self::Format,
        }
    }
}

impl IgvmArguments {
    /// Whether an IGVM file is given.
    pub(crate) const fn is_given(&self) -> bool {
        self.igvm.is_some()
    }

    /// Whether its loader is.
    pub(crate) const fn has_loader(&self) -> bool {
        self.loader.is_some()
    }
}

/// What is to be printed when an IGVM file is given.
pub(crate) fn run(arguments: &IgvmArguments, output: &OutputArguments) -> Option<Result<Printed, Failure>> {
    let path = arguments.igvm.as_ref()?;
    Some(measure(path, arguments.loader.map_or(Loader::Qemu, Loader::from), output))
}

fn measure(path: &PathBuf, loader: Loader, output: &OutputArguments) -> Result<Printed, Failure> {
    let file = read(path, FileKind::Image)?;
    stage("computing the launch digest");
    let launch = Igvm::parse(file).and_then(|igvm| igvm.snp_launch(loader)).map_err(Failure::refused)?;
    render(&Values::Whole(Measured::Snp { launch_digest: launch.digest }), None, output)
}
