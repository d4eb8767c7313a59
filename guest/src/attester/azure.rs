//! Evidence from an Azure confidential VM. The hardware's own report interface is out of reach there: a paravisor below the
//! guest holds it, runs the TPM, and leaves a report in NV memory that vouches for the TPM's key (OpenHCL, "HCL report").
//! The report is read and passed on; only the TPM's quote is made for a binding. Believes neither: the Verifier does the sums.

use super::td_quote;
use super::vtpm::{Vtpm, failed};
use crate::config::Address;
use crate::tpm::{Tpm, TpmError, response};
use inwit_protocol::azure::{AzureQuote, HCL_REPORT_LIMIT, TpmAttestation};
use inwit_protocol::binding::{Agent, EncodedBinding, qualifying_data};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};

/// NV index of the paravisor's report.
const REPORT_INDEX: u32 = 0x0140_0001;
/// Persistent handle of the key that the report names, HCLAkPub.
const ATTESTATION_KEY: u32 = 0x8100_0003;
/// First bytes of a report.
const SIGNATURE: &[u8; 4] = b"HCLA";
/// Where the hardware's report is: after the header.
const HARDWARE_REPORT: usize = 32;
/// Where the report says what hardware it is from, u32 little-endian: after the slot of 1,184 bytes and two words.
const REPORT_TYPE: usize = HARDWARE_REPORT + 1_184 + 8;
/// Tries to read the same report twice.
const TRIES: u32 = 5;

/// An Azure TPM that was found.
pub struct Azure {
    vtpm: Vtpm,
    platform: Platform,
    quote_service: Option<Address>,
}

impl Azure {
    /// Looks for a report of a paravisor in a TEE, and gives the TPM back if there is none: no index, another vendor's, or a
    /// report from outside of a TEE. The TPM is then a plain one, which nobody calls confidential.
    pub(super) fn find(vtpm: Vtpm, quote_service: Option<&Address>) -> Result<Result<Self, Vtpm>, Refusal> {
        let mut tpm = vtpm.open()?;
        let Some(report) = report(&mut tpm)? else { return Ok(Err(vtpm)) };
        let Some(platform) = platform(&report) else { return Ok(Err(vtpm)) };
        Ok(Ok(Self { vtpm, platform, quote_service: quote_service.cloned() }))
    }

    pub(super) fn platform(&self) -> Platform {
        self.platform
    }

    pub(super) fn extend_agent(&self, agent: &Agent) -> Result<AgentRegister, Refusal> {
        self.vtpm.extend_agent(agent)
    }

    pub(super) fn evidence(
        &self,
        binding: &EncodedBinding,
        agent_register: AgentRegister,
    ) -> Result<Evidence, Refusal> {
        let mut tpm = self.vtpm.open()?;
        let hcl_report = report(&mut tpm)?.filter(|report| platform(report) == Some(self.platform));
        let hcl_report = hcl_report.ok_or_else(|| failed("the paravisor's report is gone, or another one"))?;
        let td_quote = self.td_quote(&hcl_report)?;
        let (attest, signature) = tpm.quote(ATTESTATION_KEY, &qualifying_data(binding)).map_err(failed)?;
        let signature = response::rsassa(&signature).map_err(failed)?.to_vec();
        let tpm = TpmAttestation { attest, signature, pcrs: tpm.pcrs().map_err(failed)? };
        Ok(Evidence {
            platform: self.platform,
            quote: AzureQuote { hcl_report, tpm: Some(tpm), td_quote }.encode(),
            endorsements: Vec::new(),
            event_log: self.vtpm.event_log()?,
            agent_register,
        })
    }
}

impl Azure {
    /// The quote over the TDREPORT inside of a report. Without a service the Verifier says that it misses it.
    fn td_quote(&self, hcl_report: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let (Platform::AzureTdx, Some(service)) = (self.platform, &self.quote_service) else { return Ok(None) };
        let report = hcl_report.get(HARDWARE_REPORT..).and_then(|rest| rest.get(..td_quote::TD_REPORT));
        let report = report.ok_or_else(|| failed("the paravisor's report holds no TDREPORT"))?;
        td_quote::quote(service, report)
            .map(Some)
            .map_err(|error| Refusal::new(RefusalCode::AttesterFailed, format_args!("TD quote service: {error}")))
    }
}

/// The report as NV memory holds it, or nothing where there is no index that could hold one. The paravisor may renew it between two
/// commands: it is read until two readings agree.
fn report(tpm: &mut Tpm) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(size) = tpm.nv_size(REPORT_INDEX).map_err(failed)? else { return Ok(None) };
    if usize::from(size) > HCL_REPORT_LIMIT {
        return Ok(None);
    }
    let mut before = tpm.nv_read(REPORT_INDEX, size).map_err(failed)?;
    for _ in 0..TRIES {
        let again = tpm.nv_read(REPORT_INDEX, size).map_err(failed)?;
        if again == before {
            return Ok(Some(again));
        }
        before = again;
    }
    Err(failed(TpmError::Busy))
}

/// What TEE a report says it is from. None for a VM without one (virtualization-based security, Trusted Launch), for one that
/// is not known here, and for what is no report.
fn platform(report: &[u8]) -> Option<Platform> {
    let kind = report.get(REPORT_TYPE..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_le_bytes);
    match kind.filter(|_| report.starts_with(SIGNATURE))? {
        2 => Some(Platform::AzureSnp),
        4 => Some(Platform::AzureTdx),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_it_is_from() {
        let report = |kind: u32| [&SIGNATURE[..], &[0; 1_220], &kind.to_le_bytes(), &[0; 12]].concat();
        assert_eq!(platform(&report(2)), Some(Platform::AzureSnp));
        assert_eq!(platform(&report(4)), Some(Platform::AzureTdx));
        assert_eq!((platform(&report(1)), platform(&report(3))), (None, None));
        let mut other = report(2);
        other[0] = 0;
        assert_eq!((platform(&other), platform(&report(2)[..1_227])), (None, None));
    }
}
