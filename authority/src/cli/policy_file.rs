//! The policy of one offline judgement: `[policy]` as authority.toml has it, and the Reference Values to match, in one
//! TOML file. Strict: an unknown key is an error, because a misspelt one would silently not be demanded.

use crate::evidence::AppraisalPolicy;
use crate::fault::Fault;
use crate::files;
use crate::policy::PolicyFile;
use inwit_measurements::Digest;
use inwit_measurements::made_from::MadeFrom;
use inwit_measurements::reference::{AgentReference, MAX_NAME_BYTES, MAX_REFERENCE_BYTES, Measured, ReferenceValues};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    policy: PolicyFile,
    #[serde(default)]
    reference_values: Vec<Reference>,
}

/// Reference Values, of which the agent may be left out: Evidence from elsewhere has none, and none is judged here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    name: String,
    #[serde(default)]
    agent: Option<AgentReference>,
    measured: Measured,
    /// Read so that a file of inwit-measure can be pasted in; never compared.
    #[serde(default, rename = "made_from")]
    _record: Option<MadeFrom>,
}

/// A policy, and the name that results give it.
pub(super) struct OfflinePolicy {
    /// What is demanded.
    pub(super) demands: AppraisalPolicy,
    /// SHA-256 of the `[policy]` part as `serve` computes it for its own.
    pub(super) digest: [u8; 32],
}

/// The policy that `init` writes, with no Reference Values: nothing is ever accepted under it, and what it refuses for tells
/// what stands between the Evidence and a policy that would accept it.
///
/// # Errors
/// None: it is put together as any other is.
pub(super) fn strict() -> Result<OfflinePolicy, Fault> {
    let policy = PolicyFile::strict();
    let demands = policy.with(Vec::new()).map_err(|refusal| Fault::new(refusal.cause))?;
    Ok(OfflinePolicy { demands, digest: policy.digest() })
}

/// Reads a policy with at least one set of Reference Values.
///
/// # Errors
/// A line of the file that is not as it should be, or a demand that cannot be made.
pub(super) fn read(path: &Path) -> Result<OfflinePolicy, Fault> {
    let fault = |cause: &dyn std::fmt::Display| Fault::of(path.display(), cause);
    let text = files::read_text(path, MAX_REFERENCE_BYTES)?;
    let document: Document = toml::from_str(&text).map_err(|error| fault(&error))?;
    if document.reference_values.is_empty() {
        return Err(fault(
            &"no [[reference_values]] to match; to learn only whether evidence is authentic, use `authenticate`",
        ));
    }
    let values: Option<Vec<ReferenceValues>> = document.reference_values.into_iter().map(values).collect();
    let values = values
        .ok_or_else(|| fault(&format_args!("a name has 1 to {MAX_NAME_BYTES} bytes and no control characters")))?;
    let demands = document.policy.with(values).map_err(|refusal| fault(&refusal.cause))?;
    Ok(OfflinePolicy { demands, digest: document.policy.digest() })
}

/// `None` for a name that would disturb a terminal.
fn values(reference: Reference) -> Option<ReferenceValues> {
    let Reference { name, agent, measured, _record: _ } = reference;
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    // Never compared: who judges without a binding has no agent to compare it with.
    let nobody = AgentReference { executable: Digest::from_bytes([0; 32]), configuration: Digest::from_bytes([0; 32]) };
    fits.then(|| ReferenceValues { name, agent: agent.unwrap_or(nobody), measured, made_from: None })
}
