//! The limit that the user has set on fetching, and what is left of it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Bytes that may still come from the store.
#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicU64,
    is_limited: bool,
    /// Nothing is fetched any more.
    is_spent: AtomicBool,
}

impl Allowance {
    /// An allowance of `bytes_max` bytes; the greatest number means no limit.
    pub fn of(bytes_max: u64) -> Allowance {
        Allowance {
            left: AtomicU64::new(bytes_max),
            is_limited: bytes_max < u64::MAX,
            is_spent: AtomicBool::new(bytes_max == 0),
        }
    }

    /// Takes `bytes`, if that much is left.
    pub fn take(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        !self.is_limited || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Returns `bytes` that did not arrive.
    pub fn give_back(&self, bytes: u64) {
        if self.is_limited {
            self.left.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Stops all fetching, however little is asked for. True if it was not stopped before.
    pub fn spend(&self) -> bool {
        !self.is_spent.swap(true, Ordering::Relaxed)
    }

    pub fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_was_allowed() {
        let allowance = Allowance::of(100);
        assert!(allowance.take(60) && !allowance.take(50) && allowance.take(40));
        allowance.give_back(40);
        assert!(!allowance.take(41) && allowance.take(1) && !allowance.is_spent());
        assert!(allowance.spend() && !allowance.spend() && allowance.is_spent());
        assert!(Allowance::of(0).is_spent() && !Allowance::of(0).spend());
        let free = Allowance::of(u64::MAX);
        assert!((0..3).all(|_| free.take(u64::MAX)) && !free.is_spent());
    }
}
