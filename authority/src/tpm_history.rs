//! How far a TPM had come when its Evidence was last accepted, so that a state which was put back, or an old copy that was
//! set running, is refused: its secrets and its PCR 15 would be those of a time that is over (TPM 2.0 library part 1,
//! "Time attributes"; part 2, TPMS_CLOCK_INFO). Trusts only claims that came out of the ladder.
//!
//! Within one reset count a TPM has never lost power without saving its clock, so restart count and clock only grow, whatever
//! the safe flag says. At a higher reset count the clock may lie behind, by what was not saved before power was lost; the
//! TPM then says that it is not safe. No TPM leaves more than 2^22 ms unsaved, however often power was lost, so that a
//! clock further behind the highest one, or behind at all in a TPM that says that it is safe, gives a put-back state away
//! that was reset until its count had caught up. Within those 70 minutes such a state is not told from a loss of power.
//!
//! A running TPM's clock counts real time, and stands still while its machine does. Between two grants of one start it can
//! therefore not gain more than the authority's clock did; one that gained more is another TPM of the same state.
//!
//! What this cannot see: a copy in general. Two copies of one running state show the same counts, and clocks that differ by
//! how much longer one of them stood still. They are granted in turns, and taken for one TPM, whenever the one that is
//! behind comes after its clock has passed the other's last grant, and the difference is within the tolerance: one minute,
//! and 15 % of the time between two grants. A copy that is alone in coming, or that was reset more often than the original,
//! is accepted too, the latter with the effect that the original is refused from then on. So a refusal shows that a state
//! was put back or copied; a grant does not show that there is one TPM only.
//!
//! `TPM2_Clear` sets the counts to zero and leaves the endorsement hierarchy, so that the same attestation key comes back
//! and is refused, until an operator says that it be forgotten.

use crate::audit::hex;
use crate::evidence::Claims;
use std::fmt;

/// What a TPM's clock may gain on the authority's between two grants of one start, in milliseconds: for the time between
/// a quote and its grant, and
const TOLERANCE: u64 = 60_000;
/// of each hundred parts that pass, as far as a TPM's clock may be off (TPM 2.0 library part 1, "Clock").
const PERCENT: u64 = 15;
/// Milliseconds of Clock that a TPM may not have saved when it loses power: it writes it to NV memory at least every 2^22
/// (TPM 2.0 library part 1, "Clock").
const UNSAVED: u64 = 1 << 22;

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
    /// SHA-256 of the attestation key's SubjectPublicKeyInfo: what the history is kept under.
    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

/// The age of the TPM that vouched for appraised claims; of a platform that has none, that there is none. Only claims say
/// which: a grant cannot be recorded with a history left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TpmAge(Option<TpmMoment>);

impl TpmAge {
    /// What the claims say of a TPM.
    pub(crate) fn of(claims: &Claims) -> Self {
        let tpm = match claims {
            Claims::Vtpm(claims) => Some(&**claims),
            // Without a quote of its TPM an Azure machine is not appraised.
            Claims::Azure(claims) => claims.tpm.as_ref(),
            Claims::Snp(_) | Claims::Tdx(_) => None,
        };
        Self(tpm.map(|tpm| TpmMoment {
            key: tpm.attestation_key,
            reset_count: tpm.reset_count,
            restart_count: tpm.restart_count,
            clock: tpm.clock,
            clock_safe: tpm.clock_safe,
        }))
    }

    /// What is to be compared with the history.
    pub(crate) fn moment(&self) -> Option<&TpmMoment> {
        self.0.as_ref()
    }
}

#[cfg(test)]
impl From<Option<TpmMoment>> for TpmAge {
    fn from(moment: Option<TpmMoment>) -> Self {
        Self(moment)
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
    /// When it was accepted, by the authority's clock, seconds since 1970.
    time: u64,
}

/// A TPM whose state is older than one that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RolledBack {
    key: [u8; 32],
    what: Conflict,
    reached: u64,
    stated: u64,
}

/// In what it contradicts the one that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conflict {
    ResetCount,
    RestartCount,
    Clock,
    /// Faster than time.
    Ahead,
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, what, reached, stated } = self;
        write!(f, "TPM {}: ", hex(key))?;
        let what = match what {
            Conflict::ResetCount => "reset count",
            Conflict::RestartCount => "restart count",
            Conflict::Clock => "clock",
            Conflict::Ahead => return write!(f, "its clock gained {stated} ms in {reached} ms: there is a copy of it"),
        };
        write!(f, "it states {what} {stated}, and was accepted at {reached} before: its state was put back or copied")
    }
}

impl Reached {
    /// By the first Evidence of a key; `time` is the authority's, seconds since 1970.
    pub(crate) fn first(moment: &TpmMoment, time: u64) -> Self {
        let TpmMoment { reset_count, restart_count, clock, .. } = *moment;
        Self { reset_count, restart_count, clock, highest_clock: clock, time }
    }

    /// By Evidence after this. The same moment again is no step back: two quotes may fall into one millisecond.
    pub(crate) fn then(self, moment: &TpmMoment, time: u64) -> Result<Self, RolledBack> {
        let behind = |what, reached: u64, stated: u64| match stated < reached {
            true => Err(RolledBack { key: moment.key, what, reached, stated }),
            false => Ok(()),
        };
        behind(Conflict::ResetCount, self.reset_count.into(), moment.reset_count.into())?;
        if moment.reset_count == self.reset_count {
            behind(Conflict::RestartCount, self.restart_count.into(), moment.restart_count.into())?;
            behind(Conflict::Clock, self.clock, moment.clock)?;
            if moment.restart_count == self.restart_count {
                self.ahead(moment, time)?;
            }
        }
        let least = match moment.clock_safe {
            true => self.highest_clock,
            false => self.highest_clock.saturating_sub(UNSAVED),
        };
        if moment.clock < least {
            return Err(RolledBack {
                key: moment.key,
                what: Conflict::Clock,
                reached: self.highest_clock,
                stated: moment.clock,
            });
        }
        Ok(Self { highest_clock: self.highest_clock.max(moment.clock), ..Self::first(moment, time) })
    }

    /// Where an operator accepted that the authority's clock was set back, how much time passed is not known.
    fn ahead(self, moment: &TpmMoment, time: u64) -> Result<(), RolledBack> {
        let Some(passed) = time.checked_sub(self.time) else { return Ok(()) };
        let (passed, gained) = (passed.saturating_mul(1_000), moment.clock.saturating_sub(self.clock));
        let possible = passed.saturating_add((passed / 100).saturating_mul(PERCENT)).saturating_add(TOLERANCE);
        match gained > possible {
            true => Err(RolledBack { key: moment.key, what: Conflict::Ahead, reached: passed, stated: gained }),
            false => Ok(()),
        }
    }

    /// One line for who lists them.
    pub(crate) fn counts(self) -> [(&'static str, u64); 4] {
        let Self { reset_count, restart_count, clock, time, highest_clock: _ } = self;
        [
            ("reset_count", reset_count.into()),
            ("restart_count", restart_count.into()),
            ("clock_ms", clock),
            ("accepted_at", time),
        ]
    }

    /// Counts, clock, highest clock and time, big-endian, 32 bytes.
    pub(crate) fn encode(self) -> [u8; 32] {
        let mut out = [0; 32];
        let parts = [
            &self.reset_count.to_be_bytes()[..],
            &self.restart_count.to_be_bytes(),
            &self.clock.to_be_bytes(),
            &self.highest_clock.to_be_bytes(),
            &self.time.to_be_bytes(),
        ];
        out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
        out
    }

    /// What [`Reached::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (reset, rest) = bytes.split_first_chunk()?;
        let (restart, rest) = rest.split_first_chunk()?;
        let (clock, rest) = rest.split_first_chunk()?;
        let (highest_clock, rest) = rest.split_first_chunk()?;
        Some(Self {
            reset_count: u32::from_be_bytes(*reset),
            restart_count: u32::from_be_bytes(*restart),
            clock: u64::from_be_bytes(*clock),
            highest_clock: u64::from_be_bytes(*highest_clock),
            time: u64::from_be_bytes(rest.try_into().ok()?),
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
        let reached = Reached { highest_clock: 5_000, ..Reached::first(&moment(3, 1, 1_000, true), 9) };
        for (next, refused) in [
            (moment(3, 1, 5_000, true), None),
            (moment(3, 1, 1_000, false), None),
            (moment(3, 2, 1_001, false), None),
            (moment(4, 0, 5_000, true), None),
            (moment(4, 0, 10, false), None), // lost power, and says so
            (moment(2, 9, 9_000, true), Some(Conflict::ResetCount)),
            (moment(3, 0, 9_000, true), Some(Conflict::RestartCount)),
            (moment(3, 1, 999, true), Some(Conflict::Clock)),
            (moment(3, 1, 999, false), Some(Conflict::Clock)), // within one reset count no clock goes back
            (moment(3, 2, 999, false), Some(Conflict::Clock)),
            (moment(9, 0, 4_999, true), Some(Conflict::Clock)), // put back, and reset until the count had caught up
        ] {
            let outcome = reached.then(&next, 9);
            assert_eq!(outcome.err().map(|error| error.what), refused, "{next:?}");
        }
    }

    /// Milliseconds of a clock at a second of the authority's, of a TPM that stood still for `behind` seconds in all.
    fn running(second: u64, behind: u64) -> TpmMoment {
        moment(3, 1, (1_000 + second - behind) * 1_000, true)
    }

    #[test]
    fn two_copies_that_come_in_turns_are_told_apart_as_far_as_it_is_said_here() {
        // An hour between grants, and a copy that stood still for so many seconds longer, each in its turn.
        let turns = |behind: u64| {
            let mut reached = Reached::first(&running(0, 0), 0);
            (1..20u64).find_map(|turn| {
                let second = turn * 3_600;
                match reached.then(&running(second, if turn % 2 == 0 { 0 } else { behind }), second) {
                    Ok(next) => reached = next,
                    Err(refused) => return Some((turn, refused.what)),
                }
                None
            })
        };
        assert_eq!(turns(4_000), Some((1, Conflict::Clock)), "it comes before its clock has caught up");
        assert_eq!(turns(700), Some((2, Conflict::Ahead)), "the original comes back and has gained 700 s in its hour");
        assert_eq!(turns(500), None, "closer than the tolerance: taken for one");
    }

    #[test]
    fn a_clock_may_lag_behind_time_and_not_run_ahead_of_it() {
        let reached = Reached::first(&running(0, 0), 50_000);
        assert!(reached.then(&running(0, 0), 90_000).is_ok(), "a machine that was paused");
        assert!(reached.then(&running(60, 0), 50_000).is_ok());
        assert_eq!(reached.then(&running(61, 0), 50_000).unwrap_err().what, Conflict::Ahead);
        assert!(reached.then(&running(1_210, 0), 51_000).is_ok());
        assert_eq!(reached.then(&running(1_211, 0), 51_000).unwrap_err().what, Conflict::Ahead);
        assert!(reached.then(&running(9_999, 0), 49_999).is_ok(), "the authority's own clock was set back");
        let TpmMoment { clock, .. } = running(9_999, 0);
        assert!(
            reached.then(&moment(3, 2, clock, true), 50_000).is_ok(),
            "another start, maybe with a clock put forward"
        );
    }

    #[test]
    fn a_loss_of_power_excuses_no_more_than_a_tpm_may_leave_unsaved() {
        let reached = Reached::first(&moment(3, 0, 1 << 30, true), 1);
        let behind = |by: u64, safe| reached.then(&moment(9, 0, (1 << 30) - by, safe), 2);
        assert!(behind(UNSAVED, false).is_ok());
        assert!(behind(UNSAVED, true).is_err());
        // Put back, and reset without an orderly end until the count had caught up.
        let refused = behind(UNSAVED + 1, false).unwrap_err();
        assert_eq!((refused.what, refused.reached), (Conflict::Clock, 1 << 30));
        assert!(reached.then(&moment(9, 0, 10, false), 3).is_err());
        // What was accepted in between does not lower the bound.
        let later = behind(UNSAVED, false).unwrap();
        assert!(later.then(&moment(10, 0, (1 << 30) - UNSAVED - 1, false), 3).is_err());
        assert!(later.then(&moment(10, 0, (1 << 30) - UNSAVED, false), 3).is_ok());
    }

    #[test]
    fn the_highest_clock_is_not_forgotten_when_a_lower_one_is_accepted() {
        let reached = Reached::first(&moment(1, 0, 9_000, true), 1).then(&moment(2, 0, 10, false), 2).unwrap();
        assert!(reached.then(&moment(2, 0, 11, false), 3).is_ok());
        assert!(reached.then(&moment(3, 0, 8_999, true), 4).is_err());
        assert_eq!(Reached::decode(&reached.encode()), Some(reached));
        assert_eq!(Reached::decode(&reached.encode()[..31]), None);
        assert_eq!(Reached::decode(&[0; 33]), None);
    }
}
