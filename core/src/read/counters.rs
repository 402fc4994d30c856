//! The cost of reading, counted while it happens, to explain why reading is slow or what it fetches.
//!
//! It reads a clock, which the library otherwise avoids, only to measure how long something took.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// Counters of one reader.
#[derive(Debug, Default)]
pub struct Counters {
    hits: AtomicU64,
    made: AtomicU64,
    failed: AtomicU64,
    gets: AtomicU64,
    fetched_bytes: AtomicU64,
    fetch_nanos: AtomicU64,
    decode_nanos: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requested frames that were in memory.
    pub frames_hit: u64,
    /// Frames that were fetched, opened and decompressed.
    pub frames_made: u64,
    /// Frames that could not be made.
    pub frames_failed: u64,
    /// Requests to the store.
    pub gets: u64,
    /// Bytes that the store gave.
    pub fetched_bytes: u64,
    /// Time spent waiting for the store, summed over all threads.
    pub fetch_time: Duration,
    /// Time spent opening and decompressing, summed over all threads.
    pub decode_time: Duration,
}

impl Counters {
    /// A frame was in memory.
    pub fn hit(&self) {
        add(&self.hits, 1);
    }

    /// A frame was made, or could not be made.
    pub fn made(&self, is_good: bool) {
        add(if is_good { &self.made } else { &self.failed }, 1);
    }

    /// Runs `get`, a request to the store; `bytes_of` returns how much it brought.
    pub fn fetching<T>(&self, get: impl FnOnce() -> T, bytes_of: impl FnOnce(&T) -> usize) -> T {
        let since = Instant::now();
        let got = get();
        add_time(&self.fetch_nanos, since.elapsed());
        add(&self.gets, 1);
        add(&self.fetched_bytes, bytes_of(&got) as u64);
        got
    }

    /// Runs `work`, which opens and decompresses.
    pub fn decoding<T>(&self, work: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let done = work();
        add_time(&self.decode_nanos, since.elapsed());
        done
    }

    /// The current counts.
    pub fn counts(&self) -> Counts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            frames_hit: value(&self.hits),
            frames_made: value(&self.made),
            frames_failed: value(&self.failed),
            gets: value(&self.gets),
            fetched_bytes: value(&self.fetched_bytes),
            fetch_time: Duration::from_nanos(value(&self.fetch_nanos)),
            decode_time: Duration::from_nanos(value(&self.decode_nanos)),
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_counted() {
        let counters = Counters::default();
        assert_eq!(counters.counts(), Counts::default());
        let bytes = counters.fetching(|| vec![0; 5], Vec::len);
        assert_eq!(counters.decoding(|| bytes.len()), 5);
        counters.made(true);
        counters.made(false);
        counters.hit();
        counters.hit();
        let Counts { frames_hit, frames_made, frames_failed, gets, fetched_bytes, .. } = counters.counts();
        assert_eq!((frames_hit, frames_made, frames_failed, gets, fetched_bytes), (2, 1, 1, 1, 5));
    }
}
