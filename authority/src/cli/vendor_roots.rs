//! The root certificates of AMD and Intel, by their digests: no certificate, no trust by itself. A root that was handed in
//! counts wherever it lies when it is one of these, with the evidence too and inside of collateral, because nobody can put
//! another certificate of the same digest there. A root of any other digest needs somebody's word.

/// SHA-256 over the DER of each, as the vendors publish them.
const KNOWN: [(&str, &str); 4] = [
    ("ARK-Milan", "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
    ("ARK-Genoa", "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
    ("ARK-Turin", "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
    ("Intel SGX Root CA", "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"),
];

/// Whether this is the digest of a vendor's root.
pub(super) fn known(digest: &[u8; 32]) -> bool {
    let digest = crate::audit::hex(digest);
    KNOWN.iter().any(|(_, known)| *known == digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_known_whole_or_not_at_all() {
        let ark = crate::endorsement_files::parse_pin(KNOWN[0].1).unwrap();
        assert!(known(&ark));
        for index in 0..32 {
            let mut other = ark;
            other[index] ^= 1;
            assert!(!known(&other));
        }
        assert!(KNOWN.iter().all(|(_, digest)| crate::endorsement_files::parse_pin(digest).is_some()));
    }
}
