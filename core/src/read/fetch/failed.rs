//! Recent failures, so that the same request fails at once.
//!
//! After a failed read the kernel asks again page by page. Each of these requests must fail as fast as possible and
//! must not bother a store that has just failed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// How long a failure is remembered.
const COUNTS: Duration = Duration::from_secs(5);
/// Most failures that are remembered.
const KEPT_MAX: usize = 4_096;

/// An error for several readers.
#[derive(Debug, Clone)]
pub struct SharedError(Arc<Error>);

impl SharedError {
    pub fn of(error: &Error) -> SharedError {
        SharedError(Arc::new(error.again()))
    }

    /// A copy for one reader.
    pub fn again(&self) -> Error {
        self.0.again()
    }

    /// True if the object ends before the bytes that were asked for.
    pub fn is_short(&self) -> bool {
        self.0.is_short()
    }
}

/// Failures of the last few seconds.
#[derive(Debug)]
pub struct Failed<K> {
    failures: HashMap<K, (Duration, SharedError)>,
}

impl<K> Default for Failed<K> {
    fn default() -> Failed<K> {
        Failed { failures: HashMap::new() }
    }
}

impl<K: Hash + Eq + Copy> Failed<K> {
    pub fn insert(&mut self, key: K, now: Duration, error: SharedError) {
        if self.failures.len() >= KEPT_MAX {
            self.failures.retain(|_, (until, _)| *until > now);
        }
        if self.failures.len() < KEPT_MAX {
            self.failures.insert(key, (now + COUNTS, error));
        }
    }

    pub fn remove(&mut self, key: K) {
        self.failures.remove(&key);
    }

    /// The failure, if it is still remembered.
    pub fn get(&mut self, key: K, now: Duration) -> Option<SharedError> {
        match self.failures.get(&key) {
            Some((until, error)) if *until > now => Some(error.clone()),
            Some(_) => {
                self.failures.remove(&key);
                None
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_failure_counts_for_a_while_and_failures_are_bounded() {
        let mut failed = Failed::default();
        let failure = || SharedError::of(&Error::store("read", "data/x", io::ErrorKind::TimedOut.into()));
        failed.insert(1, Duration::ZERO, failure());
        assert!(failed.get(1, COUNTS - Duration::from_nanos(1)).is_some() && failed.get(2, Duration::ZERO).is_none());
        assert!(matches!(failed.get(1, Duration::ZERO).unwrap().again(),
            Error::Store { source, .. } if source.kind() == io::ErrorKind::TimedOut));
        assert!(failed.get(1, COUNTS).is_none());
        for key in 0..2 * KEPT_MAX {
            failed.insert(key, Duration::from_secs(9), failure());
        }
        assert_eq!(failed.failures.len(), KEPT_MAX);
        failed.insert(7, Duration::from_secs(20), failure());
        assert_eq!(failed.failures.len(), 1, "those that no longer count have made room");
    }
}
