//! Intel's endorsements as the parts of a root, told by what they are and not by the file or folder that they came in.
//! Judges nothing.

use super::endorsement_kinds::Piece;
use crate::evidence::TdxPart;

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
