//! Intel's endorsements as the parts of a root, told by what they are and not by the file or folder that they came in, and
//! what is wrong with one that stands under none. Judges no date and no quote.

use super::endorsement_kinds::{Piece, Spoilt};
use crate::evidence::{EndorsementError, TdxPart};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::RefusalCode;

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

/// What is wrong with a part that does not stand under a root: it is another's, or it does not parse. `None` where nothing
/// is, and only its signer is missing.
pub(super) fn spoilt(error: &EndorsementError) -> Option<Spoilt> {
    let code = match error {
        EndorsementError::Foreign { .. } => RefusalCode::ChainUntrusted,
        EndorsementError::Intel { reason, .. } if reason.ends_with("is not among the parts") => return None,
        _ => RefusalCode::Malformed,
    };
    Some(Spoilt { code, platform: Some(Platform::Tdx), cause: error.to_string() })
}
