//! For each of many parts of Intel's collateral, whether it stands under a root: the root and the certificates that it issued
//! are verified once for all of them, and the same bytes once, however often they lie there. Trusts the root alone.

use std::collections::HashMap;
use std::mem::discriminant;

use super::parts::{Issuing, TdxPart, TdxRoot, trusted};
use super::sorted::Sorted;
use crate::evidence::endorsements::EndorsementError;

/// What is known of a part that may stand under a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A chain of signatures leads from it to the root.
    Signed,
    /// The list of a PCK CA whose certificate is not among the parts: anybody can have written it.
    Unverified,
}

impl TdxRoot {
    /// For each part, in order, whether it stands under a root: certificates for themselves, the rest by the certificates
    /// that do, and whole collateral with those that it brings along.
    pub(crate) fn standings(root: &[u8], parts: &[TdxPart<'_>]) -> Vec<Result<Standing, EndorsementError>> {
        let mut issuing = match trusted(root) {
            Ok(root) => Issuing { root, signers: Vec::new(), issuers: Vec::new() },
            Err(error) => return parts.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut found = HashMap::new();
        let mut certificates = Vec::new();
        for part in parts {
            let TdxPart::Certificate(der) = part else { continue };
            found.entry(key(part)).or_insert_with(|| {
                if *der != issuing.root.der.as_slice() {
                    issuing.take(der)?;
                    certificates.push(*part);
                }
                Ok(Standing::Signed)
            });
        }
        let judge = |part: &TdxPart<'_>| match part {
            TdxPart::Collateral(_) => whole(root, &certificates, *part),
            _ => alone(part, &issuing),
        };
        parts.iter().map(|part| found.entry(key(part)).or_insert_with(|| judge(part)).clone()).collect()
    }
}

/// Collateral with the certificates that are known already.
fn whole(root: &[u8], certificates: &[TdxPart<'_>], part: TdxPart<'_>) -> Result<Standing, EndorsementError> {
    let root = TdxRoot::new(root, &[certificates, &[part]].concat())?;
    let verified = root.held().lists.iter().all(|list| list.signer.is_some());
    Ok(if verified { Standing::Signed } else { Standing::Unverified })
}

/// The same bytes may be said to be of two kinds.
fn key<'a>(part: &TdxPart<'a>) -> (std::mem::Discriminant<TdxPart<'a>>, &'a [u8]) {
    (discriminant(part), part.bytes())
}

/// A part that is one thing, and no certificate.
fn alone(part: &TdxPart<'_>, issuing: &Issuing) -> Result<Standing, EndorsementError> {
    let sorted = Sorted::of(&[*part], &issuing.root)?;
    sorted.infos.iter().try_for_each(|info| issuing.info(info).map(drop))?;
    sorted.identities.iter().try_for_each(|identity| issuing.identity(identity).map(drop))?;
    let mut standing = Standing::Signed;
    for list in &sorted.lists {
        if issuing.list(list)?.signer.is_none() {
            standing = Standing::Unverified;
        }
    }
    Ok(standing)
}
