//! The second act for people who hold Evidence and no connection: the same demands on platform and launch, without the
//! binding and the agent, which Evidence from elsewhere does not have. Who made the request that the quote answers is
//! therefore unknown, so the outcome is another type than `Appraised`: nothing that issues or releases takes it.

use inwit_protocol::ear::TrustworthinessVector;
use inwit_protocol::refusal::Refusal;

use super::acceptable;
use super::trustworthiness::{self, Reach};
use crate::evidence::policy::AppraisalPolicy;
use crate::evidence::{Authentic, Claims};

/// Authentic Evidence of an acceptable platform and launch, for nobody in particular. An opinion, not a rung: there is
/// no way from here to a credential.
///
/// Cannot be made, cloned or decoded by a caller.
#[derive(Debug)]
pub struct Judged {
    claims: Claims,
    reference_values: Vec<String>,
    trustworthiness: TrustworthinessVector,
}

impl Authentic {
    /// Judges the claims under `policy`, but neither binding nor agent.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first demand that is not met.
    pub fn judge(self, policy: &AppraisalPolicy) -> Result<Judged, Refusal> {
        let matched = acceptable(&self.claims, policy)?;
        let reference_values = matched.into_iter().map(|values| values.name.clone()).collect();
        let trustworthiness = trustworthiness::found(&self.claims, Reach::Launch);
        Ok(Judged { reference_values, claims: self.claims, trustworthiness })
    }
}

impl Judged {
    /// What the hardware said.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The names of all sets of Reference Values that matched; at least one.
    pub fn reference_values(&self) -> &[String] {
        &self.reference_values
    }

    /// What was found, as AR4SI numbers it. Neither the instance nor the agent's configuration is asserted here: without a
    /// binding nobody knows whose they are.
    pub fn trustworthiness(&self) -> &TrustworthinessVector {
        &self.trustworthiness
    }
}
