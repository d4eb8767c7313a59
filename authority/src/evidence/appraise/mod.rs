//! The second act: what hardware truly said, against what policy and Reference Values demand. Forbidden modes first, then
//! the platform's state, then what was launched, then whether the agent that made the binding is in what was measured.
//! Reads claims only; decides no identity.

mod agent;
mod measured;
mod snp;
mod tdx;

use inwit_protocol::binding::Agent;
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::Refusal;

use super::policy::AppraisalPolicy;
use super::{Bound, Claims};

/// Evidence that was found acceptable, for one binding and its agent.
///
/// Cannot be made, cloned or decoded by a caller.
#[derive(Debug)]
pub struct Appraised {
    claims: Claims,
    reference_values: String,
}

impl Bound {
    /// Appraises the claims under `policy`. `agent` is the one that the binding names, from parsing the same binding
    /// that this was bound to.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first demand that is not met.
    pub fn appraise(self, policy: &AppraisalPolicy, agent: &Agent) -> Result<Appraised, Refusal> {
        match &self.claims {
            Claims::Snp(claims) => snp::appraise(claims, &policy.snp)?,
            Claims::Tdx(claims) => tdx::appraise(claims, &policy.tdx)?,
            // A TPM states no mode or version that could be judged: its key and its PCRs are everything.
            Claims::Vtpm(_) => {}
        }
        let candidates = measured::matching(&self.claims, &policy.reference_values)?;
        let matched = agent::among(&candidates, agent)?;
        agent::in_its_register(&self.claims, self.agent_register, agent)?;
        Ok(Appraised { reference_values: matched.name.clone(), claims: self.claims })
    }
}

impl Appraised {
    /// What the hardware said.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The name of the Reference Values that matched.
    pub fn reference_values(&self) -> &str {
        &self.reference_values
    }

    /// The platform that made the Evidence.
    pub fn platform(&self) -> Platform {
        self.claims.platform()
    }
}
