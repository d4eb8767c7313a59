//! What was verified once need not be verified again while nothing that went in has changed: results keyed by a SHA-256 of
//! everything that they depend on but the time, and good only within the window of time in which every date, nextUpdate
//! included, says the same. Only successes are kept; a failure is found anew each time.
//!
//! Bounded: a host that sends ever other bytes evicts what is old and fills no memory. Belongs to the loaded Endorsements
//! and ends with them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::x509::Window;

/// Results kept by one cache.
const CAPACITY: usize = 1_024;

/// SHA-256 over all inputs of a verification, each preceded by its length.
pub(crate) type Key = [u8; 32];

/// Verified values of one kind. Clones share what they hold.
pub(crate) struct Cache<T> {
    kept: Arc<Mutex<Kept<T>>>,
}

struct Kept<T> {
    values: HashMap<Key, (Window, T)>,
    /// In the order of their coming.
    order: VecDeque<Key>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { kept: Arc::new(Mutex::new(Kept { values: HashMap::new(), order: VecDeque::new() })) }
    }
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

impl<T: Clone> Cache<T> {
    /// The value kept for these inputs, or what `verify` finds, which is kept for as long as its window lasts.
    ///
    /// # Errors
    /// What `verify` refuses with. A value out of its window is verified anew, so that the refusal names what ended.
    pub(crate) fn get_or_verify<E>(
        &self,
        key: Key,
        at: u64,
        verify: impl FnOnce() -> Result<(Window, T), E>,
    ) -> Result<T, E> {
        if let Some(value) = self.get(&key, at) {
            return Ok(value);
        }
        let (window, value) = verify()?;
        self.keep(key, window, value.clone());
        Ok(value)
    }

    fn get(&self, key: &Key, at: u64) -> Option<T> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.values.get(key).filter(|(window, _)| window.contains(at)).map(|(_, value)| value.clone())
    }

    fn keep(&self, key: Key, window: Window, value: T) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.values.insert(key, (window, value)).is_some() {
            return;
        }
        kept.order.push_back(key);
        if kept.order.len() > CAPACITY
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: u64, until: u64) -> Window {
        Window { from, until }
    }

    #[test]
    fn a_value_is_kept_for_its_inputs_and_its_window_only() {
        let cache = Cache::default();
        let mut asked = 0;
        for (key, at) in [(1, 10), (1, 20), (1, 21), (2, 15), (1, 9)] {
            let verified = cache.get_or_verify([key; 32], at, || {
                asked += 1;
                Ok::<_, ()>((window(10, 20), key))
            });
            assert_eq!(verified, Ok(key));
        }
        assert_eq!(asked, 4, "only the second of all was kept");
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = Cache::default();
        assert_eq!(cache.get_or_verify([1; 32], 0, || Err::<(Window, u8), _>("bad")), Err("bad"));
        assert_eq!(cache.get_or_verify([1; 32], 0, || Ok::<_, ()>((window(0, 1), 7))), Ok(7));
    }

    #[test]
    fn the_oldest_makes_room() {
        let cache = Cache::default();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        for number in 0..=CAPACITY {
            cache.keep(key(number), window(0, 1), number);
        }
        assert_eq!(cache.get(&key(0), 0), None);
        assert_eq!(cache.get(&key(1), 0), Some(1));
        assert_eq!(cache.kept.lock().unwrap().values.len(), CAPACITY);
    }
}
