//! The command line of `inwit-measure`.
//!
//! Not trusted: the words given; each is parsed into its own type before anything is read. Never reads files.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use inwit_measurements::reference::{Form, Moment, Stated, Validity};

use crate::agent::Inside;
use crate::convert::ConvertArguments;
use crate::explain::ExplainArguments;
use crate::files::Failure;
use crate::id_block::IdBlockCommand;
use crate::log::LogArguments;
use crate::snp::SnpArguments;
use crate::tdx::TdxArguments;
use crate::vtpm::VtpmArguments;

/// Predicts launch measurements and writes Reference Values.
///
/// Give the files exactly as the hypervisor gets them. Without --agent the bare values are printed; with --agent,
/// --config and --name a complete Reference Values file, ready to be registered. --format says in which form: our own
/// TOML and JSON, CoRIM (draft-ietf-rats-corim, unsigned, binary), or what the RVPS of Trustee takes. The last two also
/// take bare values, for other people's verifiers.
///
/// Exit codes: 0 done, 1 own fault, 2 usage, 3 an input is refused.
#[derive(Parser)]
#[command(name = "inwit-measure", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// AMD SEV-SNP: the launch digest of a guest started from an OVMF image by QEMU, EC2 or GCE.
    ///
    /// The digest depends on the number of vCPUs, the CPU model and the guest features: give several of each for a table
    /// of all combinations, or with --agent and --output-dir for a Reference Values file for each.
    /// A kernel is covered only by firmware that checks kernel hashes (an AmdSev build of OVMF); with any other
    /// firmware a kernel is refused here.
    Snp(SnpArguments),
    /// Intel TDX: MRTD and RTMR0 to RTMR2 of a TD that QEMU starts through OVMF on its q35 machine, from a kernel or a
    /// unified kernel image given to -kernel.
    ///
    /// RTMR0 holds the memory map (computed from --memory and the firmware), the firmware's variables, ACPI tables and
    /// boot variables. Give --acpi-tables, and what else the firmware turns out to measure; or the event log of a trusted
    /// boot of the same machine shape with --machine-log. Without either RTMR0 is left out. RTMR3 belongs to the agent
    /// and is appraised from its own log.
    Tdx(TdxArguments),
    /// vTPM: PCRs 0 to 15 (SHA-256) of a boot through OVMF on QEMU's q35 machine, of a kernel or a unified kernel image.
    ///
    /// PCR 0 holds the PEI volume as it is in memory, which depends on memory size and vCPUs: record it once for each
    /// machine shape, from the event log of a trusted boot. The kernel or image is what is given to -kernel; booting from
    /// a disk, Secure Boot keys, a command line given beside a unified image, and credentials are not predicted.
    Vtpm(VtpmArguments),
    /// An event log in words: what each event measures, whether the log proves it, and the registers that it leads to.
    ///
    /// The log of a TD (CCEL) or of a TPM is replayed; with --quote says which registers are those that the hardware
    /// reported. A log whose data are not what was measured is refused.
    Log(LogArguments),
    /// Reads Reference Values of any form and writes them in another.
    ///
    /// The form is told by the content: TOML, JSON, CoRIM or RVPS (the message, its payload, or the stored list). Fields
    /// that cannot be kept are refused by name. Other people's documents name no agent: to register such values, say
    /// with --agent, --config and --name which agent is inside; nothing here can check that it is.
    Convert(ConvertArguments),
    /// ID blocks of AMD SEV-SNP: the owner's signature over a launch, made with `snp --id-key`.
    #[command(subcommand)]
    IdBlock(IdBlockCommand),
    /// Names the component that makes a measurement differ from what was expected.
    ///
    /// The first line is the answer, such as: The command line differs: the word `quiet` is missing. It is found by trying
    /// plausible changes until one gives exactly what was measured; by the event log; by comparing two records; or only
    /// narrowed down, which is said. An SNP launch digest is one opaque value: only searching explains it, from the record
    /// in the Reference Values and from files that may have been booted.
    ///
    /// Exit codes: 0 every register that is expected was measured and is the same (a measurement may name more of them),
    /// 3 they differ or not all of them could be compared (the answer is on standard output), or an input is refused (the
    /// cause is on standard error), 2 usage, 1 own fault.
    Explain(ExplainArguments),
}

#[derive(Args, Clone)]
pub(crate) struct OutputArguments {
    /// The inwit-guest file inside the image.
    #[arg(long, value_name = "FILE", global = true, requires_all = ["config", "name"])]
    pub(crate) agent: Option<PathBuf>,
    /// Where the agent is inside the initrd, if it is a service. Without this it must be what the kernel starts: rdinit= of
    /// the command line, else /init.
    #[arg(long, value_name = "PATH", global = true, requires = "agent")]
    pub(crate) agent_path: Option<String>,
    /// Where the check found agent and configuration.
    #[arg(skip)]
    pub(crate) inside: Option<Inside>,
    /// Its measured configuration file.
    #[arg(long, value_name = "FILE", global = true, requires = "agent")]
    pub(crate) config: Option<PathBuf>,
    /// Name of the Reference Values.
    #[arg(long, global = true, requires = "agent")]
    pub(crate) name: Option<String>,
    /// Leave out of the Reference Values what they were made from: file names, command line, members of the initrd,
    /// predicted events. Then `explain` has less to go by.
    #[arg(long, global = true, requires = "agent")]
    pub(crate) without_record: bool,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The form to write [default: text, or TOML with --agent].
    #[arg(long, value_name = "FORM", value_enum, global = true, conflicts_with = "json")]
    pub(crate) format: Option<FormArgument>,
    /// Until when the values hold, such as 2027-01-31T12:00:00Z: for CoRIM, and for RVPS, where it turns the message for
    /// registering into the list that Trustee stores. Without it nothing is said, and Trustee sets an end of its own.
    /// An end that a converted document has is only shortened.
    #[arg(long, value_name = "TIME", global = true)]
    pub(crate) expires: Option<Moment>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormArgument {
    Toml,
    Json,
    /// Binary.
    Corim,
    Rvps,
}

impl From<FormArgument> for Form {
    fn from(argument: FormArgument) -> Self {
        match argument {
            FormArgument::Toml => Self::Toml,
            FormArgument::Json => Self::Json,
            FormArgument::Corim => Self::Corim,
            FormArgument::Rvps => Self::Rvps,
        }
    }
}

impl OutputArguments {
    /// The form that was asked for, if any.
    pub(crate) fn form(&self) -> Option<Form> {
        if self.json { Some(Form::Json) } else { self.format.map(Form::from) }
    }

    /// Sets the end that was given; without one the values keep theirs. What somebody else said is only shortened.
    pub(crate) fn limit(&self, stated: Stated) -> Result<Stated, Failure> {
        let Validity { not_before, not_after } = stated.validity;
        if let (Some(own), Some(given)) = (not_after, self.expires)
            && given > own
        {
            return Err(Failure::Refused(format!(
                "--expires {given} is later than the end that the document itself says, {own}: give an earlier one, or say \
                 with --forget-validity that its own does not count"
            )));
        }
        let end = self.expires.or(not_after);
        if let (Some(begin), Some(end)) = (not_before, end)
            && end < begin
        {
            return Err(Failure::Refused(format!("the values would hold from {begin} until {end}, which is never")));
        }
        Ok(Stated { validity: Validity { not_before, not_after: end }, ..stated })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
