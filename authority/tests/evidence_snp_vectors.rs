//! Real SNP reports under AMD's own roots: authentic at a time at which their certificate was valid, refused at another
//! time, under another root, and after any change to any byte.

mod evidence_support;

use evidence_support::snp::{self, VECTORS};
use evidence_support::{evidence, vectors_or_say};
use inwit_authority::evidence::{Claims, Endorsements, SnpClaims, SnpSigner, authenticate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::Refusal;

/// Authenticates a report with a certificate table.
fn claims(report: Vec<u8>, table: Vec<u8>, by: &Endorsements, at: u64) -> Result<SnpClaims, Refusal> {
    let authentic = authenticate(&evidence(Platform::Snp, report, table, vec![]), by, at)?;
    match authentic.claims() {
        Claims::Snp(claims) => Ok(SnpClaims::clone(claims)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_seven_real_reports_are_authentic_while_their_certificate_is_valid() {
    let Some(vectors) = vectors_or_say(VECTORS.len(), "real SNP reports") else { return };
    let by = snp::amd(&vectors);
    for vector in &VECTORS {
        let (at, _) = vector.times(&vectors);
        let claims = claims(vector.report(&vectors), vector.table(&vectors), &by, at)
            .unwrap_or_else(|refusal| panic!("{}: {refusal}", vector.folder));
        assert_eq!(claims.product, vector.product, "{}", vector.folder);
        assert_eq!(claims.version, vector.version, "{}", vector.folder);
        assert_eq!(claims.vmpl, vector.vmpl, "{}", vector.folder);
        assert_eq!(claims.signer != SnpSigner::Vcek, vector.vlek, "{}", vector.folder);
        assert_eq!(claims.migration_agent, None, "{}", vector.folder);
    }
}
