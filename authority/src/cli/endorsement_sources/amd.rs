//! AMD's part of the endorsements for one judgement: a root for each ARK that counts, with the intermediates and lists that
//! it signed. A list in the name of such a root that it did not sign ends the act, for it may stand where the true one was.

use super::super::endorsement_kinds::{Piece, Spoilt};
use super::found::Held;
use super::unfit::{Suspicion, Unfit};
use super::{Handed, Root, Sources};
use crate::evidence::x509;
use crate::evidence::{Product, SnpRoot};
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::RefusalCode;
use std::collections::BTreeSet;
use std::path::Path;

/// A root for each ARK, with the intermediates and lists that it signed.
pub(super) fn gather(all: &[Held], handed: &Handed<'_>, sources: &mut Sources) -> Result<(), Unfit> {
    let mut arks: Vec<(Product, &[u8])> = Vec::new();
    for Held { path, place, piece } in all {
        let Piece::Ark(product, ark) = piece else { continue };
        if arks.contains(&(*product, ark)) {
            continue;
        }
        let (platform, name, file) = (Platform::Snp, format!("ARK-{product}"), path.clone());
        if sources.admit(handed, *place, Root { platform, name, file, digest: sha256(ark) }) {
            arks.push((*product, ark));
        }
    }
    let mut intermediates: Vec<&[u8]> = Vec::new();
    for Held { path, piece, .. } in all {
        let (product, signed) = match piece {
            Piece::Intermediate(product, der) => (product, arks.iter().any(|(_, ark)| x509::has_issued(ark, der))),
            Piece::List(product, der) => (product, arks.iter().any(|(_, ark)| x509::has_listed(ark, der))),
            _ => continue,
        };
        let rooted = arks.iter().any(|(other, _)| other == product);
        match (signed, piece) {
            (true, Piece::Intermediate(_, der)) => intermediates.push(der),
            (true, _) => {}
            (false, Piece::List(..)) if rooted && handed.concerns(Platform::Snp) => {
                let cause = format!("this revocation list was not signed by the ARK-{product} that was handed in");
                return Err(Unfit::refused(RefusalCode::ChainUntrusted, path, cause));
            }
            (false, _) if rooted => {
                let cause = format!("not issued by the ARK-{product} that was handed in");
                sources.suspect(path, foreign(cause), product.name());
            }
            (false, _) => sources.set_aside.push((path.clone(), format!("no ARK-{product} was handed in"))),
        }
    }
    keys(all, &intermediates, sources);
    for (product, ark) in &arks {
        sources.endorsements.snp.push(root(all, *product, ark)?);
    }
    Ok(())
}

fn foreign(cause: String) -> Spoilt {
    Spoilt { code: RefusalCode::ChainUntrusted, platform: Some(Platform::Snp), cause }
}

/// Remembers keys of chips that the intermediate of their issuer's name did not sign: they go on to be judged, and where
/// they are then not found, this is why.
fn keys(all: &[Held], intermediates: &[&[u8]], sources: &mut Sources) {
    for Held { path, piece, .. } in all {
        let Piece::Vek(_, der) = piece else { continue };
        let Ok(key) = x509::certificate(der) else { continue };
        let named = |issuer: &&&[u8]| {
            x509::certificate(issuer).is_ok_and(|issuer| issuer.subject().as_raw() == key.issuer().as_raw())
        };
        let mut issuers = intermediates.iter().filter(named).peekable();
        if issuers.peek().is_some() && !issuers.any(|issuer| x509::has_issued(issuer, der)) {
            let spoilt = foreign("not signed by the issuer that it names".to_owned());
            sources.suspicions.push(Suspicion { file: path.clone(), spoilt, about: String::new() });
        }
    }
}

/// An ARK with what it signed.
fn root(all: &[Held], product: Product, ark: &[u8]) -> Result<SnpRoot, Unfit> {
    let under = |wanted: fn(&Piece, &[u8]) -> Option<Vec<u8>>| -> Vec<Vec<u8>> {
        // Each once, however often it lies there.
        let each: BTreeSet<Vec<u8>> = all.iter().filter_map(|held| wanted(&held.piece, ark)).collect();
        each.into_iter().collect()
    };
    let intermediates = under(|piece, ark| match piece {
        Piece::Intermediate(_, der) if x509::has_issued(ark, der) => Some(der.clone()),
        _ => None,
    });
    let lists = under(|piece, ark| match piece {
        Piece::List(_, der) if x509::has_listed(ark, der) => Some(der.clone()),
        _ => None,
    });
    let name = format!("ARK-{product}");
    let refused = |error| Unfit::refused(RefusalCode::ChainUntrusted, Path::new(&name), error);
    let root = SnpRoot::new(product, ark, &intermediates, &lists).map_err(refused)?;
    let strangers = all.iter().filter_map(|held| match &held.piece {
        Piece::Intermediate(other, der) if *other == product && !x509::has_issued(ark, der) => Some(der.as_slice()),
        _ => None,
    });
    Ok(root.beside(strangers))
}
