//! The way to a store: how many bytes a second it may carry in each direction, and how many transfers at a time.
//!
//! One [`Link`] is shared by everything that moves bytes of one store. Before it moves bytes, a store asks
//! [`Pace::grant`] how many may go now; the answer is a small piece, and it comes when the rate allows. So a transfer
//! is smooth from its first byte on, and all connections together keep to one rate. Rates may change at any moment,
//! even for callers that are already waiting.
//!
//! This module reads a clock that only runs forwards, because waiting is its subject. Everything that follows from the
//! time is computed by `Bucket`, which gets it as an argument.

use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::lock::lock;
use crate::lock::wait_timeout;

/// Most transfers at a time that may be asked for.
pub const TRANSFERS_MAX: usize = 32;

/// Largest grant, in bytes.
const PIECE_BYTES_MAX: u64 = 1 << 20;
/// Smallest grant, in bytes, unless less is wanted: below this, calls cost more than bytes.
const PIECE_BYTES_MIN: u64 = 1 << 10;
/// A grant lasts about this fraction of a second.
const PIECES_PER_SECOND: u64 = 32;
/// Unused time can be used later, but no more than this.
const SAVED_MAX: Duration = Duration::from_millis(125);
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Limits on the way to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes a second towards the store, if limited.
    pub upload: Option<u64>,
    /// Bytes a second from the store, if limited.
    pub download: Option<u64>,
    /// Number of concurrent transfers, if the store is not to decide.
    pub transfers: Option<usize>,
}

/// The way to one store.
#[derive(Debug)]
pub struct Link {
    /// Towards the store.
    pub upload: Pace,
    /// From the store.
    pub download: Pace,
    /// 0 if the store decides.
    transfers: AtomicUsize,
}

impl Default for Link {
    /// Without limits.
    fn default() -> Link {
        let began = Instant::now();
        Link { upload: Pace::new(began), download: Pace::new(began), transfers: AtomicUsize::new(0) }
    }
}

impl Link {
    /// Sets all limits. Rates take effect at once, the number of transfers when it is next asked for.
    pub fn limit(&self, limits: Limits) {
        self.upload.set(limits.upload);
        self.download.set(limits.download);
        self.transfers.store(limits.transfers.map_or(0, |n| n.clamp(1, TRANSFERS_MAX)), Ordering::Relaxed);
    }

    /// Number of concurrent transfers, for a store that is best served by `usual` of them.
    pub fn transfers(&self, usual: usize) -> usize {
        match self.transfers.load(Ordering::Relaxed) {
            0 => usual,
            wanted => wanted,
        }
    }
}

/// One direction of a [`Link`].
#[derive(Debug)]
pub struct Pace {
    bucket: Mutex<Bucket>,
    changed: Condvar,
    began: Instant,
}

impl Pace {
    fn new(began: Instant) -> Pace {
        Pace { bucket: Mutex::default(), changed: Condvar::new(), began }
    }

    /// Waits until bytes may be moved, and returns how many: at least one and at most `wanted`; 0 only if `wanted` is
    /// 0.
    pub fn grant(&self, wanted: u64) -> u64 {
        let mut bucket = self.bucket();
        loop {
            let wait = match bucket.grant(self.began.elapsed(), wanted) {
                Grant::Bytes(bytes) => return bytes,
                Grant::Wait(wait) => wait,
            };
            bucket = wait_timeout(&self.changed, bucket, wait);
        }
    }

    /// Sets the rate in bytes a second; `None` means unlimited. A rate of 0 would stop everything and counts as 1.
    pub fn set(&self, rate: Option<u64>) {
        let now = self.began.elapsed();
        self.bucket().set(now, rate.map(|rate| rate.max(1)));
        self.changed.notify_all();
    }

    /// Taken even after a panic elsewhere: it is changed by plain assignments.
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        lock(&self.bucket)
    }
}

/// The answer of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    /// This many bytes may go now.
    Bytes(u64),
    /// No bytes may go for this long.
    Wait(Duration),
}

/// A token bucket that lends: a piece goes when nothing is owed, and is paid for afterwards. The debt is in bytes and
/// not in time, so that a new rate applies to old debts too.
#[derive(Debug, Default)]
struct Bucket {
    /// Bytes a second; `None` means unlimited.
    rate: Option<u64>,
    /// Bytes that may go, times [`NANOS_PER_SECOND`]; negative if bytes are owed.
    saved: i128,
    /// The time up to which `saved` is computed.
    counted: Duration,
}

impl Bucket {
    fn grant(&mut self, now: Duration, wanted: u64) -> Grant {
        let Some(rate) = self.rate else { return Grant::Bytes(wanted.min(PIECE_BYTES_MAX)) };
        self.count(now);
        if self.saved < 0 {
            let nanos = (-self.saved).unsigned_abs().div_ceil(u128::from(rate));
            return Grant::Wait(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        }
        let piece = wanted.min((rate / PIECES_PER_SECOND).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX));
        self.saved -= i128::from(piece) * NANOS_PER_SECOND;
        Grant::Bytes(piece)
    }

    fn set(&mut self, now: Duration, rate: Option<u64>) {
        self.count(now);
        self.rate = rate;
        self.count(now);
    }

    fn count(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.counted);
        self.counted = self.counted.max(now);
        match self.rate {
            // Removing the limit cancels the debt.
            None => self.saved = 0,
            Some(rate) => {
                let rate = i128::from(rate);
                let most = rate * nanos(SAVED_MAX);
                self.saved = (self.saved + rate * nanos(passed)).min(most);
            }
        }
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::thread;

    /// Moves bytes as fast as `bucket` lets, until `until`; returns how many went.
    fn drain(bucket: &mut Bucket, now: &mut Duration, until: Duration) -> u64 {
        let mut moved = 0;
        while *now < until {
            match bucket.grant(*now, u64::MAX) {
                Grant::Bytes(bytes) => {
                    assert!(bytes > 0 && bytes <= PIECE_BYTES_MAX);
                    moved += bytes;
                }
                Grant::Wait(wait) => {
                    assert!(!wait.is_zero());
                    *now += wait;
                }
            }
        }
        moved
    }

    proptest! {
        #[test]
        fn a_rate_is_kept_over_any_time(rate in 1_u64..1 << 34, seconds in 1_u64..8) {
            let mut bucket = Bucket::default();
            bucket.set(Duration::ZERO, Some(rate));
            let mut now = Duration::ZERO;
            let moved = drain(&mut bucket, &mut now, Duration::from_secs(seconds));
            let piece = (rate / PIECES_PER_SECOND).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
            prop_assert!(moved >= rate * seconds, "{moved} of {}", rate * seconds);
            prop_assert!(moved <= rate * seconds + rate / 8 + piece, "{moved} of {}", rate * seconds);
        }
    }

    #[test]
    fn time_that_nobody_used_is_saved_for_a_moment_only() {
        let mut bucket = Bucket::default();
        bucket.set(Duration::ZERO, Some(1_000_000));
        let mut now = Duration::from_secs(3600);
        let moved = drain(&mut bucket, &mut now, Duration::from_secs(3601));
        assert!((1_000_000..=1_000_000 + 125_000 + 31_250).contains(&moved), "{moved}");
    }

    #[test]
    fn a_new_rate_counts_for_old_debts() {
        let mut bucket = Bucket::default();
        bucket.set(Duration::ZERO, Some(1));
        assert_eq!(bucket.grant(Duration::ZERO, 5_000), Grant::Bytes(1024));
        assert_eq!(bucket.grant(Duration::ZERO, 5_000), Grant::Wait(Duration::from_secs(1024)));
        bucket.set(Duration::from_secs(24), Some(1_000));
        assert_eq!(bucket.grant(Duration::from_secs(24), 1), Grant::Wait(Duration::from_secs(1)));
        bucket.set(Duration::from_secs(24), None);
        assert_eq!(bucket.grant(Duration::from_secs(24), 5_000), Grant::Bytes(5_000));
        bucket.set(Duration::from_secs(25), Some(1));
        assert_eq!(bucket.grant(Duration::from_secs(25), 5), Grant::Bytes(5), "what was owed is forgotten");
    }

    #[test]
    fn who_waits_is_woken_by_a_new_rate() {
        let link = Arc::new(Link::default());
        link.limit(Limits { upload: Some(1), ..Limits::default() });
        // A kilobyte on credit: what comes next would wait for a quarter of an hour.
        assert_eq!(link.upload.grant(5_000), 1024);
        let waiting = thread::spawn({
            let link = Arc::clone(&link);
            move || link.upload.grant(1)
        });
        link.limit(Limits::default());
        assert_eq!(waiting.join().unwrap(), 1);
        assert_eq!(link.download.grant(5), 5);
    }

    #[test]
    fn a_store_decides_on_transfers_unless_told() {
        let link = Link::default();
        assert_eq!(link.transfers(4), 4);
        for (asked, given) in [(1, 1), (7, 7), (100, TRANSFERS_MAX)] {
            link.limit(Limits { transfers: Some(asked), ..Limits::default() });
            assert_eq!(link.transfers(4), given);
        }
    }
}
