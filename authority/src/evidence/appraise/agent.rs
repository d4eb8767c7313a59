//! Is the agent that made the binding the one in what was measured (CAM-8, TW-3)? Its digests must stand in the matched
//! Reference Values; and where the platform has a register for it, that register must hold the agent's event and nothing
//! else, so that a later extend by anybody, a poison event included, ends acceptance until the next boot.

use inwit_measurements::reference::ReferenceValues;
use inwit_measurements::{sha256, sha384};
use inwit_protocol::binding::Agent;
use inwit_protocol::evidence::AgentRegister;
use inwit_protocol::refusal::{Refusal, RefusalCode};

use crate::evidence::claims::{Claims, VtpmClaims};

/// The PCR that belongs to the agent: only a reboot resets it, and firmware and kernel leave it alone.
const AGENT_PCR: u8 = 15;
/// The RTMR that belongs to user space.
const AGENT_RTMR: u8 = 3;

fn not_measured<T>(cause: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(RefusalCode::AgentNotMeasured, cause))
}

/// Of the sets that matched, the one that names this agent.
pub(super) fn among<'p>(matched: &[&'p ReferenceValues], agent: &Agent) -> Result<&'p ReferenceValues, Refusal> {
    let named = |values: &&&ReferenceValues| {
        *values.agent.executable.as_bytes() == agent.executable
            && *values.agent.configuration.as_bytes() == agent.configuration
    };
    if let Some(values) = matched.iter().find(named) {
        return Ok(values);
    }
    let name = matched.first().map_or("", |values| values.name.as_str());
    let same_executable = matched.iter().any(|values| *values.agent.executable.as_bytes() == agent.executable);
    let what = if same_executable { "configuration" } else { "executable" };
    not_measured(format_args!("the {what} of the binding's agent is not the one of reference values {name}"))
}

/// Looks into the register that the agent says it extended. What it says only chooses where to look: saying nothing is
/// accepted only where the register is untouched.
pub(super) fn in_its_register(claims: &Claims, register: AgentRegister, agent: &Agent) -> Result<(), Refusal> {
    match (claims, register) {
        // SNP has no run-time register: the launch digest covers the initramfs, and with it the agent.
        (Claims::Snp(_), AgentRegister::Absent) => Ok(()),
        (Claims::Tdx(claims), AgentRegister::Absent) => {
            let [.., last] = &claims.rtmrs;
            if *last == [0; 48] {
                Ok(())
            } else {
                not_measured("RTMR3 was extended, and the agent says that it did not")
            }
        }
        (Claims::Tdx(claims), AgentRegister::Rtmr(AGENT_RTMR)) => {
            let [.., last] = &claims.rtmrs;
            let event = sha384(&agent.event());
            let extended = sha384(&[&[0; 48], event.as_bytes().as_slice()].concat());
            if last == extended.as_bytes() {
                Ok(())
            } else {
                not_measured("RTMR3 does not hold the agent's event alone")
            }
        }
        (Claims::Vtpm(claims), AgentRegister::Pcr(AGENT_PCR)) => in_its_pcr(claims, agent),
        // The launch digest and the TD's registers are the paravisor's: on Azure too, the agent is in the PCR or nowhere.
        (Claims::Azure(claims), AgentRegister::Pcr(AGENT_PCR)) => match &claims.tpm {
            Some(tpm) => in_its_pcr(tpm, agent),
            None => not_measured("without a TPM quote nothing says that PCR 15 holds the agent's event"),
        },
        (claims, _) => not_measured(format_args!("{} has no such register for the agent", claims.platform())),
    }
}

fn in_its_pcr(claims: &VtpmClaims, agent: &Agent) -> Result<(), Refusal> {
    let event = sha256(&agent.event());
    let extended = sha256(&[&[0; 32], event.as_bytes().as_slice()].concat());
    match claims.pcrs.get(usize::from(AGENT_PCR)) {
        Some(pcr) if pcr == extended.as_bytes() => Ok(()),
        _ => not_measured("PCR 15 does not hold the agent's event alone"),
    }
}
