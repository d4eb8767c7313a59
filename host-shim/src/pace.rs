//! The optional bandwidth limit: one token bucket per connection, shared by its two directions.
//!
//! It bounds how many bytes a connection may move per second, so that one guest cannot take the host's whole uplink.
//! It never delays another connection and never holds bytes: a direction that may not move anything does not read.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Smallest bucket, bytes: even a very slow limit lets one ordinary record through without cutting it into crumbs.
const SMALLEST_BURST: u64 = 4096;

/// A token bucket; or no limit at all.
#[derive(Debug)]
pub(crate) struct Pace(Option<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// Bytes per second.
    rate: f64,
    /// Most tokens the bucket holds, bytes.
    burst: f64,
    /// A move below this many bytes is put off, so that a limited stream costs 20 wake-ups a second and not thousands.
    quantum: f64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// A bucket that is full at `now`; `limit` in bytes per second, both directions together, `None` for no limit.
    pub(crate) fn new(limit: Option<NonZeroU64>, now: Instant) -> Self {
        Self(limit.map(|limit| {
            let rate = limit.get() as f64;
            let burst = (limit.get() / 8).max(SMALLEST_BURST) as f64;
            let quantum = (rate / 20.0).clamp(1.0, 16_384.0).min(burst);
            Bucket { rate, burst, quantum, level: Mutex::new(Level { tokens: burst, at: now }) }
        }))
    }

    /// How many of `wanted` bytes may move now (at least one), or how long to wait before asking again.
    ///
    /// Nothing is taken from the bucket: that is [`Pace::spend`]'s part, after the move showed its real size. There is
    /// no await between the two, so the other direction cannot spend the same tokens.
    pub(crate) fn allowance(&self, wanted: usize, now: Instant) -> Result<usize, Duration> {
        let Some(bucket) = &self.0 else { return Ok(wanted) };
        let mut level = bucket.level.lock().unwrap_or_else(PoisonError::into_inner);
        let refill = now.saturating_duration_since(level.at).as_secs_f64() * bucket.rate;
        level.tokens = (level.tokens + refill).min(bucket.burst);
        level.at = now;
        if level.tokens < bucket.quantum {
            let missing = (bucket.quantum - level.tokens) / bucket.rate;
            return Err(Duration::from_secs_f64(missing).max(Duration::from_millis(1)));
        }
        // A float to integer cast saturates, and tokens are at least one here.
        Ok(wanted.min(level.tokens as usize))
    }

    /// Takes `bytes` that were moved out of the bucket.
    pub(crate) fn spend(&self, bytes: usize) {
        if let Some(bucket) = &self.0 {
            bucket.level.lock().unwrap_or_else(PoisonError::into_inner).tokens -= bytes as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved_within(limit: u64, time: Duration) -> u64 {
        let start = Instant::now();
        let (pace, mut now, mut moved) = (Pace::new(NonZeroU64::new(limit), start), start, 0);
        while now < start + time {
            match pace.allowance(1 << 18, now) {
                Ok(bytes) => {
                    assert!(bytes > 0, "an allowance of nothing would spin");
                    pace.spend(bytes);
                    moved += bytes as u64;
                }
                Err(wait) => now += wait,
            }
        }
        moved
    }

    #[test]
    fn ten_seconds_move_ten_times_the_rate_and_one_burst() {
        for rate in [10, 1000, 65_536, 1_000_000, 50_000_000] {
            let moved = moved_within(rate, Duration::from_secs(10));
            let burst = (rate / 8).max(SMALLEST_BURST);
            assert!(moved <= rate * 10 + burst + rate / 10, "{rate}: {moved} is more than was allowed");
            assert!(moved >= rate * 9, "{rate}: {moved} is needlessly little");
        }
    }

    #[test]
    fn without_a_limit_everything_wanted_is_allowed() {
        let now = Instant::now();
        let pace = Pace::new(None, now);
        pace.spend(usize::MAX);
        assert_eq!(pace.allowance(77, now), Ok(77));
    }
}
