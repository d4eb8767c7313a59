//! Evidence from a TPM 2.0: a quote by an attestation key over PCRs 0 to 23, with the firmware's event log. Honest about
//! what it is: without a TEE root the TPM is trusted as far as whoever runs it.

use crate::agent::read_bounded;
use crate::tpm::Tpm;
use inwit_protocol::binding::{Agent, EncodedBinding, qualifying_data};
use inwit_protocol::evidence::{AgentRegister, EVENT_LOG_LIMIT, Evidence, Platform, TpmQuote};
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The PCR for the agent's event. Free for user space by the Linux registry's use for machine identity, which nothing in
/// this initramfs does, and reset by nothing but a reboot; 16 and 23 can be reset, 17 to 22 need another locality.
const AGENT_PCR: u8 = 15;

/// A TPM that was found.
pub struct Vtpm {
    device: PathBuf,
    event_log: PathBuf,
}

pub(super) fn failed(error: impl Display) -> Refusal {
    Refusal::new(RefusalCode::AttesterFailed, format_args!("TPM: {error}"))
}

impl Vtpm {
    pub(super) fn find(device: &Path, event_log: &Path) -> Option<Self> {
        device.exists().then(|| Self { device: device.to_owned(), event_log: event_log.to_owned() })
    }

    pub(super) fn open(&self) -> Result<Tpm, Refusal> {
        Tpm::open(&self.device).map_err(failed)
    }

    /// Extends the agent's PCR once a boot: a restarted agent finds its own event there and leaves it.
    pub(super) fn extend_agent(&self, agent: &Agent) -> Result<AgentRegister, Refusal> {
        let event = sha256(&agent.event());
        let wanted = sha256(&[[0; 32], event].concat());
        let mut tpm = self.open()?;
        let before = tpm.pcr_read(AGENT_PCR).map_err(failed)?;
        if before == [0; 32] {
            tpm.pcr_extend(AGENT_PCR, &event).map_err(failed)?;
        }
        if tpm.pcr_read(AGENT_PCR).map_err(failed)? == wanted {
            return Ok(AgentRegister::Pcr(AGENT_PCR));
        }
        let cause = format!("PCR {AGENT_PCR} already holds something else: another agent ran in this boot");
        Err(Refusal::new(RefusalCode::AgentNotMeasured, cause))
    }

    pub(super) fn evidence(
        &self,
        binding: &EncodedBinding,
        agent_register: AgentRegister,
    ) -> Result<Evidence, Refusal> {
        let mut tpm = self.open()?;
        let key = tpm.create_attestation_key().map_err(failed)?;
        let quoted = tpm.quote(key.handle, &qualifying_data(binding));
        let pcrs = tpm.pcrs().map_err(failed)?;
        tpm.flush(&key).map_err(failed)?;
        let (attest, signature) = quoted.map_err(failed)?;
        let quote = TpmQuote { attest, signature, attestation_key: key.public, pcrs }.encode();
        let event_log = self.event_log()?;
        Ok(Evidence { platform: Platform::Vtpm, quote, endorsements: Vec::new(), event_log, agent_register })
    }

    /// The firmware's event log, if the kernel shows one.
    pub(super) fn event_log(&self) -> Result<Vec<u8>, Refusal> {
        match read_bounded(&self.event_log, EVENT_LOG_LIMIT) {
            Ok(log) => Ok(log),
            // No log is no secret of ours to keep: the Verifier says what it needs.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Refusal::new(RefusalCode::AttesterFailed, format_args!("event log: {error}"))),
        }
    }
}
