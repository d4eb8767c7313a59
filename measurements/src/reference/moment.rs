//! A point in time, as manifests of Reference Values bound their validity with: whole seconds, UTC.
//!
//! Not trusted: the text; only one spelling is taken. Never reads a clock.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// 9999-12-31T23:59:59Z, the last second that four digits of year can say.
const LAST: u64 = 253_402_300_799;
const DAY: u64 = 86_400;

/// Seconds since 1970-01-01T00:00:00Z without leap seconds, up to the year 9999. Written as RFC 3339 in UTC:
/// `2027-01-31T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// A text or number that is no [`Moment`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a time is written as 2027-01-31T12:00:00Z: RFC 3339 in UTC, whole seconds, from 1970 to 9999")]
pub struct MomentError;

impl Moment {
    /// Takes seconds since 1970.
    ///
    /// # Errors
    /// [`MomentError`] after the year 9999.
    pub fn from_seconds(seconds: u64) -> Result<Self, MomentError> {
        if seconds <= LAST { Ok(Self(seconds)) } else { Err(MomentError) }
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

/// Days before the first of January of a year, counted from 1970.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn days_of(month: u64, year: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / DAY, self.0 % DAY);
        // From below: no year is longer than 366 days. Up to 9999 the guess is 22 years off at most.
        let mut year = 1970 + days / 366;
        while year < 9999 && days_before(year + 1) <= days {
            year += 1;
        }
        let mut day = days - days_before(year);
        let mut month = 1;
        while day >= days_of(month, year) {
            day -= days_of(month, year);
            month += 1;
        }
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let field = |at: usize, length: usize| {
            let digits = text.get(at..at + length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(MomentError)
        };
        let (year, month, day) = (field(0, 4)?, field(5, 2)?, field(8, 2)?);
        let (hour, minute, second) = (field(11, 2)?, field(14, 2)?, field(17, 2)?);
        let exists = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_of(month, year)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if !exists {
            return Err(MomentError);
        }
        let days = days_before(year) + (1..month).map(|month| days_of(month, year)).sum::<u64>() + day - 1;
        let moment = Self(days * DAY + hour * 3600 + minute * 60 + second);
        // Written again it must be the same text: separators included.
        if moment.to_string() == text { Ok(moment) } else { Err(MomentError) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_have_their_known_numbers() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2027-01-31T12:00:00Z", 1_801_396_800),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", LAST),
        ] {
            assert_eq!(text.parse::<Moment>().map(Moment::seconds), Ok(seconds), "{text}");
            assert_eq!(Moment::from_seconds(seconds).unwrap().to_string(), text);
        }
        assert_eq!(Moment::from_seconds(LAST + 1), Err(MomentError));
    }

    #[test]
    fn another_spelling_or_a_day_that_does_not_exist_is_refused() {
        for text in [
            "",
            "2027-01-31",
            "2027-01-31T12:00:00",
            "2027-01-31t12:00:00z",
            "2027-01-31 12:00:00Z",
            "2027-01-31T12:00:00+00:00",
            "2027-01-31T12:00:00.0Z",
            "2027-02-29T12:00:00Z",
            "2100-02-29T12:00:00Z",
            "2027-13-01T12:00:00Z",
            "2027-00-01T12:00:00Z",
            "2027-01-00T12:00:00Z",
            "2027-01-31T24:00:00Z",
            "2027-01-31T23:59:60Z",
            "1969-12-31T23:59:59Z",
            "+027-01-31T12:00:00Z",
            "2027-01-31T12:00:00Z ",
            "２027-01-31T12:00:00Z",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(MomentError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_second_survives(seconds in 0..=LAST) {
            let moment = Moment::from_seconds(seconds).unwrap();
            prop_assert_eq!(moment.to_string().parse::<Moment>(), Ok(moment));
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = text.parse::<Moment>();
        }
    }
}
