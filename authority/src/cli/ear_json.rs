//! An offline opinion as an EAR claims set with the member names of JSON (draft-ietf-rats-ear), for systems that read
//! those. It is deliberately not signed: it was made for nobody's connection and nobody's key, and a signature would let it
//! be taken for an Attestation Result, which it is not. It holds no nonce, no key and no raw measurement; the measurements
//! stand beside it, for the person who asked.

use super::table::{Cell, Rows, row};
use crate::evidence::Judged;
use crate::verifier::BUILD;
use inwit_protocol::ear::{DEVELOPER, PROFILE};
use inwit_protocol::result::{policy_id, reference_values_id};

/// The claims set of `judged`, at the moment `at` (seconds since 1970) that it was judged at. `policy` is the SHA-256 of
/// what was demanded.
pub(super) fn rows(judged: &Judged, policy: &[u8; 32], at: u64) -> Rows {
    let vector = judged.trustworthiness();
    let ids = [policy_id(policy)].into_iter();
    let ids = ids.chain(judged.reference_values().iter().map(|name| reference_values_id(name)));
    let appraisal = vec![
        row("ear_status", vector.status().text()),
        row("ear_trustworthiness_vector", vector.values().map(|(name, value)| row(name, Cell::Signed(value))).to_vec()),
        row("ear_appraisal_policy_ids", ids.map(Cell::from).collect::<Cell>()),
    ];
    vec![
        row("eat_profile", PROFILE),
        row("iat", Cell::Number(at)),
        row("ear_verifier_id", vec![row("developer", DEVELOPER), row("build", BUILD)]),
        row("submods", vec![row(judged.claims().platform().text(), appraisal)]),
    ]
}
