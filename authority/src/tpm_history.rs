//! How far a TPM had come when its Evidence was last accepted, so that a state which was put back, or an old copy that was
//! set running, is refused: its secrets and its PCR 15 would be those of a time that is over (TPM 2.0 library part 1,
//! "Time attributes"; part 2, TPMS_CLOCK_INFO). Trusts only claims that came out of the ladder.
//!
//! Within one reset count a TPM has never lost power without saving its clock, so restart count and clock only grow, whatever
//! the safe flag says. At a higher reset count the clock may lie behind, by what was not saved before power was lost; the
//! TPM then says that it is not safe. If it says that it is, a clock behind the highest one gives a put-back state away that
//! was reset until its count had caught up.
//!
//! What this cannot see: a copy that runs on ahead of the original. It is accepted, and the original is refused from then
//! on, which shows that there are two. `TPM2_Clear` sets the counts to zero: after it, enrol a new attestation key.

use crate::evidence::Claims;
use std::fmt;

/// What an appraised quote says of its TPM's age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TpmMoment {
    key: [u8; 32],
    reset_count: u32,
    restart_count: u32,
    clock: u64,
    clock_safe: bool,
}

impl TpmMoment {
    /// From the claims of a platform with a TPM; nothing of another.
    pub(crate) fn of(claims: &Claims) -> Option<Self> {
        let tpm = match claims {
            Claims::Vtpm(claims) => claims,
            Claims::Azure(claims) => claims.tpm.as_ref()?,
            Claims::Snp(_) | Claims::Tdx(_) => return None,
        };
        Some(Self {
            key: tpm.attestation_key,
            reset_count: tpm.reset_count,
            restart_count: tpm.restart_count,
            clock: tpm.clock,
            clock_safe: tpm.clock_safe,
        })
    }

    /// SHA-256 of the attestation key's SubjectPublicKeyInfo: what the history is kept under.
    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

/// The newest accepted moment of one attestation key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    reset_count: u32,
    restart_count: u32,
    clock: u64,
    /// Of all accepted ones. After a loss of power, `clock` may be lower for a while.
    highest_clock: u64,
}

/// A TPM whose state is older than one that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RolledBack {
    what: &'static str,
    reached: u64,
    stated: u64,
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, reached, stated } = self;
        write!(
            f,
            "the TPM states {what} {stated}, and was accepted at {reached} before: its state was put back or copied"
        )
    }
}

impl Reached {
    /// By the first Evidence of a key.
    pub(crate) fn first(moment: &TpmMoment) -> Self {
        let TpmMoment { reset_count, restart_count, clock, .. } = *moment;
        Self { reset_count, restart_count, clock, highest_clock: clock }
    }

    /// By Evidence after this. The same moment again is no step back: two quotes may fall into one millisecond.
    pub(crate) fn then(self, moment: &TpmMoment) -> Result<Self, RolledBack> {
        let behind = |what, reached: u64, stated: u64| match stated < reached {
            true => Err(RolledBack { what, reached, stated }),
            false => Ok(()),
        };
        behind("reset count", self.reset_count.into(), moment.reset_count.into())?;
        if moment.reset_count == self.reset_count {
            behind("restart count", self.restart_count.into(), moment.restart_count.into())?;
            behind("clock", self.clock, moment.clock)?;
        }
        if moment.clock_safe {
            behind("clock", self.highest_clock, moment.clock)?;
        }
        Ok(Self { highest_clock: self.highest_clock.max(moment.clock), ..Self::first(moment) })
    }

    /// Three numbers and the highest clock, big-endian, 24 bytes.
    pub(crate) fn encode(self) -> [u8; 24] {
        let mut out = [0; 24];
        let parts = [
            &self.reset_count.to_be_bytes()[..],
            &self.restart_count.to_be_bytes(),
            &self.clock.to_be_bytes(),
            &self.highest_clock.to_be_bytes(),
        ];
        out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
        out
    }

    /// What [`Reached::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (reset, rest) = bytes.split_first_chunk()?;
        let (restart, rest) = rest.split_first_chunk()?;
        let (clock, rest) = rest.split_first_chunk()?;
        Some(Self {
            reset_count: u32::from_be_bytes(*reset),
            restart_count: u32::from_be_bytes(*restart),
            clock: u64::from_be_bytes(*clock),
            highest_clock: u64::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

#[cfg(test)]
pub(crate) fn moment(reset_count: u32, restart_count: u32, clock: u64, clock_safe: bool) -> TpmMoment {
    TpmMoment { key: [7; 32], reset_count, restart_count, clock, clock_safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_goes_forward_in_resets_restarts_and_clock() {
        let reached = Reached { highest_clock: 5_000, ..Reached::first(&moment(3, 1, 1_000, true)) };
        for (next, refused) in [
            (moment(3, 1, 5_000, true), None),
            (moment(3, 1, 1_000, false), None),
            (moment(3, 2, 1_001, false), None),
            (moment(4, 0, 5_000, true), None),
            (moment(4, 0, 10, false), None), // lost power, and says so
            (moment(2, 9, 9_000, true), Some("reset count")),
            (moment(3, 0, 9_000, true), Some("restart count")),
            (moment(3, 1, 999, true), Some("clock")),
            (moment(3, 1, 999, false), Some("clock")), // within one reset count no clock goes back
            (moment(3, 2, 999, false), Some("clock")),
            (moment(9, 0, 4_999, true), Some("clock")), // put back, and reset until the count had caught up
        ] {
            let outcome = reached.then(&next);
            assert_eq!(outcome.err().map(|error| error.what), refused, "{next:?}");
        }
    }

    #[test]
    fn the_highest_clock_is_not_forgotten_when_a_lower_one_is_accepted() {
        let reached = Reached::first(&moment(1, 0, 9_000, true)).then(&moment(2, 0, 10, false)).unwrap();
        assert!(reached.then(&moment(2, 0, 11, false)).is_ok());
        assert!(reached.then(&moment(3, 0, 8_999, true)).is_err());
        assert_eq!(Reached::decode(&reached.encode()), Some(reached));
        assert_eq!(Reached::decode(&reached.encode()[..23]), None);
        assert_eq!(Reached::decode(&[0; 25]), None);
    }
}
