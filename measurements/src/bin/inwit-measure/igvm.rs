//! `inwit-measure snp --igvm`: the launch digest of a guest that is loaded from an IGVM file.
//!
//! Not trusted: the file. Never names an agent: what else is in the file cannot be told from its pages.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use inwit_measurements::igvm::{Igvm, Loader, SnpLaunch};
use inwit_measurements::reference::{Form, Measured};
use serde_json::json;

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
    let measured = Measured::Snp { launch_digest: launch.digest };
    match (output.form(), render(&Values::Whole(measured.clone()), None, output)?) {
        (None, Printed::Text(text)) => Ok(format!("{}\n{}", text.trim_end(), remarks(&launch)).into()),
        (Some(Form::Json), _) => {
            let mut values = json!(measured);
            values["igvm"] = json!({
                "policy": launch.policy.map(|policy| format!("{policy:#x}")),
                "debug_allowed": launch.debug_allowed(),
                "id_block": launch.id_block,
                "vcpus": launch.vcpus,
            });
            Ok(values.to_string().into())
        }
        // Reference Values of other forms, which have no place for it.
        (_, printed) => Ok(printed),
    }
}

/// What else the file says of the launch, in lines that readers of values skip.
fn remarks(launch: &SnpLaunch) -> String {
    let policy = match (launch.policy, launch.debug_allowed()) {
        (Some(policy), Some(true)) => format!("{policy:#x}: the host MAY DEBUG the guest, which keeps nothing from it"),
        (Some(policy), _) => format!("{policy:#x}: the host may not debug the guest"),
        (None, _) => "none in the file: whoever loads it chooses, debugging included".to_owned(),
    };
    let id_block = if launch.id_block { "for this digest; its signature is not checked here" } else { "none" };
    format!("# policy {policy}\n# ID block {id_block}\n# vCPUs whose registers are set: {}\n", launch.vcpus)
}
