//! Trust Domains and Workload Identifiers: `spiffe://<trust domain>/<path>` (SPIFFE ID §2, WIMSE identifier rules WI-1…7).
//! Parsing is not authentication: an identifier is worth something only when it came out of a verified credential (WI-8).

use core::fmt;

/// Longest identifier, in bytes (SPIFFE-ID §2.3).
const MAX_IDENTIFIER: usize = 2_048;
/// Longest trust domain name, in bytes (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// What is wrong with an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// It does not start with `spiffe://`.
    Scheme,
    /// The trust domain is empty, too long, or has a character outside `a-z 0-9 . - _`.
    TrustDomain,
    /// The path is absent, ends in `/`, or has an empty, `.`, `..` or otherwise disallowed segment.
    Path,
    /// Longer than 2,048 bytes.
    TooLong,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "an identifier starts with spiffe://",
            Self::TrustDomain => "a trust domain is 1 to 255 characters of a-z 0-9 . - _",
            Self::Path => "a workload path is /segment/… with segments of a-zA-Z0-9.-_, none empty or dots only",
            Self::TooLong => "an identifier is at most 2,048 bytes",
        })
    }
}

impl core::error::Error for IdentityError {}

/// The name of a Trust Domain, for example `demo.example`. Not a host name (MT-9).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Parses a bare name.
    pub fn parse(name: &str) -> Result<Self, IdentityError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN || !name.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The trust domain's own identifier, without a path.
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stable, complete Workload Identifier. Compared as a whole (WI-5); its path means nothing without its domain (MT-12).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadIdentifier {
    uri: String,
    domain: TrustDomain,
}

impl WorkloadIdentifier {
    /// Parses `spiffe://<trust domain>/<path>`; a workload has a non-root path (SV-2).
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        if uri.len() > MAX_IDENTIFIER {
            return Err(IdentityError::TooLong);
        }
        let rest = uri.strip_prefix("spiffe://").ok_or(IdentityError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        let domain = TrustDomain::parse(domain)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let good = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
        if !path.split('/').all(good) {
            return Err(IdentityError::Path);
        }
        Ok(Self { uri: uri.to_owned(), domain })
    }

    /// The complete URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The Trust Domain it belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }
}

impl fmt::Display for WorkloadIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_identifiers() {
        let id = WorkloadIdentifier::parse("spiffe://demo.example/payments/api-2").unwrap();
        assert_eq!(id.trust_domain().name(), "demo.example");
        assert_eq!(id.to_string(), "spiffe://demo.example/payments/api-2");
    }

    #[test]
    fn bad_identifiers_are_named() {
        use IdentityError::*;
        for (uri, error) in [
            ("https://demo.example/a", Scheme),
            ("SPIFFE://demo.example/a", Scheme),
            ("spiffe:///a", TrustDomain),
            ("spiffe://Demo.example/a", TrustDomain),
            ("spiffe://demo.example:443/a", TrustDomain),
            ("spiffe://user@demo.example/a", TrustDomain),
            ("spiffe://demo.example", Path),
            ("spiffe://demo.example/", Path),
            ("spiffe://demo.example/a/", Path),
            ("spiffe://demo.example/a//b", Path),
            ("spiffe://demo.example/a/../b", Path),
            ("spiffe://demo.example/a?b", Path),
            ("spiffe://demo.example/a#b", Path),
            ("spiffe://demo.example/%41", Path),
        ] {
            assert_eq!(WorkloadIdentifier::parse(uri), Err(error), "{uri}");
        }
        let long = format!("spiffe://demo.example/{}", "a".repeat(2_048));
        assert_eq!(WorkloadIdentifier::parse(&long), Err(TooLong));
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_as_it_was(text in "spiffe://[a-zA-Z0-9./%:@-]{0,40}") {
            if let Ok(id) = WorkloadIdentifier::parse(&text) {
                prop_assert_eq!(id.uri(), text.as_str());
            }
        }
    }
}
