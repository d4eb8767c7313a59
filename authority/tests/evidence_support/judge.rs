//! Another verifier of TDX quotes, whole: `dcap-qvl`, whose own logic was compared with Intel's library. It is asked for its
//! verdict only, which is its own: the product reads JSON documents and a PCK certificate's SGX extension with the same
//! crate's types, so that an error in those would be in both; signatures, paths, dates, levels and statuses are compared.

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};

/// Status and advisories that it finds, or its reason to refuse. Debugging and service TDs are let through, as they are by
/// our `authenticate`.
pub fn judge(root: &[u8], quote: &[u8], collateral: &[u8], at: u64) -> Result<(String, Vec<String>), String> {
    let mut collateral: QuoteCollateralV3 = serde_json::from_slice(collateral).map_err(|error| error.to_string())?;
    collateral.pck_certificate_chain = None;
    let verifier = QuoteVerifier::new(root.to_vec()).allow_debug(true).allow_service_td(true);
    let claims = verifier.verify_with_policy(quote, collateral, at, &QuotePolicy::claims_only(at));
    let claims = claims.map_err(|error| format!("{error:#}"))?;
    let current = claims.platform.current_tcb_level.into_iter().flat_map(|level| level.advisory_ids);
    let mut advisories: Vec<String> = claims.tcb.advisory_ids.into_iter().chain(current).collect();
    advisories.sort();
    advisories.dedup();
    Ok((claims.tcb.status.to_string(), advisories))
}
