//! Intel's endorsements by the root that they stand under: their signatures say it, not the file or folder that they came
//! in. Judges no date and no quote.

use super::endorsement_kinds::Piece;
use crate::evidence::{EndorsementError, TdxPart, TdxRoot};

/// What a piece is to a TDX root; `None` for what is none of its parts.
pub(super) fn part(piece: &Piece) -> Option<TdxPart<'_>> {
    match piece {
        Piece::Collateral(json) => Some(TdxPart::Collateral(json)),
        Piece::TcbInfo(json) => Some(TdxPart::TcbInfo(json)),
        Piece::QeIdentity(json) => Some(TdxPart::QeIdentity(json)),
        Piece::IntelList(der) => Some(TdxPart::List(der)),
        Piece::IntelCertificate(der) => Some(TdxPart::Certificate(der)),
        _ => None,
    }
}

/// For each part, in order, whether it stands under a root: certificates for themselves, the rest by the certificates
/// that do.
pub(super) fn belonging(root: &[u8], parts: &[TdxPart<'_>]) -> Vec<Result<(), EndorsementError>> {
    let alone = |part: &TdxPart<'_>| TdxRoot::new(root, &[*part]);
    let is_certificate = |part: &&TdxPart<'_>| matches!(part, TdxPart::Certificate(_));
    let signers: Vec<TdxPart<'_>> =
        parts.iter().filter(is_certificate).filter(|part| alone(part).is_ok()).copied().collect();
    let verify = |part: &TdxPart<'_>| match part {
        TdxPart::Certificate(_) => alone(part).map(drop),
        _ => TdxRoot::new(root, &[&signers[..], &[*part]].concat()).map(drop),
    };
    parts.iter().map(verify).collect()
}
