//! What failed a moment ago, so that the same again fails at once.
//!
//! After a failed read the kernel asks again page by page. Each of these must fail as fast as it can, and must not trouble
//! a store that has just said no.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::time::Duration;

use crate::error::Error;

/// How long a failure counts.
const COUNTS: Duration = Duration::from_secs(5);
/// Failures that are remembered.
const KEPT_MAX: usize = 4_096;

/// An error that can be told several times.
#[derive(Debug, Clone)]
pub enum Told {
    Store { doing: &'static str, object: String, kind: io::ErrorKind, text: String },
    Corrupt { object: String, detail: String },
    Cancelled,
    Other(String),
}

impl Told {
    pub fn of(error: &Error) -> Told {
        match error {
            Error::Store { doing, object, source } => {
                Told::Store { doing, object: object.clone(), kind: source.kind(), text: source.to_string() }
            }
            Error::Corrupt { object, detail } => Told::Corrupt { object: object.clone(), detail: detail.clone() },
            Error::Cancelled => Told::Cancelled,
            other => Told::Other(other.to_string()),
        }
    }

    pub fn again(self) -> Error {
        match self {
            Told::Store { doing, object, kind, text } => Error::store(doing, object, io::Error::new(kind, text)),
            Told::Corrupt { object, detail } => Error::Corrupt { object, detail },
            Told::Cancelled => Error::Cancelled,
            Told::Other(what) => Error::Invalid { what },
        }
    }
}

/// Failures of the last seconds.
#[derive(Debug)]
pub struct Failed<K> {
    failures: HashMap<K, (Duration, Told)>,
}

impl<K> Default for Failed<K> {
    fn default() -> Failed<K> {
        Failed { failures: HashMap::new() }
    }
}

impl<K: Hash + Eq + Copy> Failed<K> {
    pub fn insert(&mut self, key: K, now: Duration, told: Told) {
        if self.failures.len() >= KEPT_MAX {
            self.failures.retain(|_, (until, _)| *until > now);
        }
        if self.failures.len() < KEPT_MAX {
            self.failures.insert(key, (now + COUNTS, told));
        }
    }

    pub fn remove(&mut self, key: K) {
        self.failures.remove(&key);
    }

    /// The failure, if it still counts.
    pub fn get(&mut self, key: K, now: Duration) -> Option<Told> {
        match self.failures.get(&key) {
            Some((until, told)) if *until > now => Some(told.clone()),
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
    use super::*;

    #[test]
    fn a_failure_counts_for_a_while_and_failures_are_bounded() {
        let mut failed = Failed::default();
        let told = || Told::of(&Error::store("read", "data/x", io::ErrorKind::TimedOut.into()));
        failed.insert(1, Duration::ZERO, told());
        assert!(failed.get(1, COUNTS - Duration::from_nanos(1)).is_some() && failed.get(2, Duration::ZERO).is_none());
        assert!(matches!(failed.get(1, Duration::ZERO).unwrap().again(),
            Error::Store { source, .. } if source.kind() == io::ErrorKind::TimedOut));
        assert!(failed.get(1, COUNTS).is_none());
        for key in 0..2 * KEPT_MAX {
            failed.insert(key, Duration::from_secs(9), told());
        }
        assert_eq!(failed.failures.len(), KEPT_MAX);
        failed.insert(7, Duration::from_secs(20), told());
        assert_eq!(failed.failures.len(), 1, "those that no longer count have made room");
    }
}
