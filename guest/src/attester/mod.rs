//! Which platform is this, and its Evidence. The kernel is asked; nothing is assumed. A report can be had over a
//! binding only: there is no way to have one over bytes of somebody's choosing.

mod azure;
pub mod td_quote;
mod tsm;
mod vtpm;

use crate::config::MeasuredConfig;
use inwit_protocol::binding::{Agent, EncodedBinding};
use inwit_protocol::evidence::{AgentRegister, Evidence};
use inwit_protocol::refusal::{Refusal, RefusalCode};

/// A source of Evidence that was found.
pub enum Attester {
    /// The kernel's report directory (configfs), with provider `sev_guest` or `tdx_guest`.
    Tsm(tsm::Tsm),
    /// A TPM 2.0 with a paravisor's report.
    Azure(azure::Azure),
    /// Any other TPM 2.0.
    Vtpm(vtpm::Vtpm),
}

/// Asks the kernel: first for a TEE's report directory, then for a TPM, and that for a
/// paravisor's report. None found is a refusal, never a fallback.
pub fn find(config: &MeasuredConfig) -> Result<Attester, Refusal> {
    if let Some(tsm) = tsm::Tsm::find(&config.tsm_root)? {
        return Ok(Attester::Tsm(tsm));
    }
    if let Some(vtpm) = vtpm::Vtpm::find(&config.tpm, &config.event_log) {
        return Ok(
            azure::Azure::find(vtpm, config.td_quote_service.as_ref())?.map_or_else(Attester::Vtpm, Attester::Azure)
        );
    }
    let cause =
        format!("no report provider under {} and no TPM at {}", config.tsm_root.display(), config.tpm.display());
    Err(Refusal::new(RefusalCode::NoPlatform, cause))
}

impl Attester {
    /// One line for the console.
    pub fn describe(&self) -> String {
        match self {
            Self::Tsm(tsm) => format!("{} through the kernel's report directory", tsm.platform()),
            Self::Azure(azure) => format!("{}: a TPM that a paravisor inside of the TEE vouches for", azure.platform()),
            Self::Vtpm(_) => "vtpm: a TPM without a TEE root".to_owned(),
        }
    }

    /// Extends the platform's run-time register with the agent's event, where there is such a register.
    pub fn extend_agent(&self, agent: &Agent) -> Result<AgentRegister, Refusal> {
        match self {
            // Linux offers user space no RTMR before 6.16, and SNP has none: the launch digest covers the agent.
            Self::Tsm(_) => Ok(AgentRegister::Absent),
            Self::Azure(azure) => azure.extend_agent(agent),
            Self::Vtpm(vtpm) => vtpm.extend_agent(agent),
        }
    }

    /// Evidence over `binding`. Blocks for as long as the device does; the caller bounds it.
    pub fn evidence(&self, binding: &EncodedBinding, register: AgentRegister) -> Result<Evidence, Refusal> {
        match self {
            Self::Tsm(tsm) => tsm.evidence(binding, register),
            Self::Azure(azure) => azure.evidence(binding, register),
            Self::Vtpm(vtpm) => vtpm.evidence(binding, register),
        }
    }
}
