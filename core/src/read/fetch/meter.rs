//! The speed of the way to a store, measured on real fetches, and how much to request at once.
//!
//! As in congestion control, two numbers are tracked: the best rate of the store in bytes a second (each fetch counts
//! what all fetches together brought while it lasted), and how long a piece takes that has the link to itself, because
//! a piece among others would measure those. Both are the best of the last fetches, so a stalled fetch teaches nothing
//! wrong, and a link that became slow is noticed once the last fast fetch is forgotten.
//!
//! This module reads a clock that only runs forwards, because measuring is its subject. [`Meter`] itself gets the time
//! as an argument.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::read::fetch::pieces::PIECE_BYTES;

/// Fetches that are remembered.
const SAMPLES: usize = 32;
/// The assumed rate of a store that has sent nothing yet: a link of 100 Mbit/s.
const ASSUMED_RATE: f64 = 12_500_000.0;
const ASSUMED_WAIT: Duration = Duration::from_millis(50);
/// Shorter waits for an answer are not believed.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Most bytes of one request.
pub(super) const UNIT_BYTES_MAX: u64 = 8 << 20;

/// Time elapsed since some moment.
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub fn begin() -> Clock {
        Clock(Instant::now())
    }

    pub(super) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A fetch that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    at: Duration,
    arrived_before: u64,
    /// True if nothing else was under way.
    is_alone: bool,
}

/// The measurements.
#[derive(Debug, Default)]
pub(super) struct Meter {
    arrived: u64,
    under_way: u64,
    /// Bytes a second while a fetch lasted.
    rates: VecDeque<f64>,
    /// Duration and bytes of each fetch that started alone.
    alone: VecDeque<(Duration, u64)>,
}

impl Meter {
    pub fn begin(&mut self, now: Duration) -> Begun {
        self.under_way += 1;
        Begun { at: now, arrived_before: self.arrived, is_alone: self.under_way == 1 }
    }

    /// A fetch has brought `bytes` bytes.
    pub fn end(&mut self, begun: Begun, now: Duration, bytes: u64) {
        self.under_way -= 1;
        self.arrived += bytes;
        let lasted = now.saturating_sub(begun.at).max(Duration::from_micros(1));
        keep(&mut self.rates, (self.arrived - begun.arrived_before) as f64 / lasted.as_secs_f64());
        if begun.is_alone {
            keep(&mut self.alone, (lasted, bytes));
        }
    }

    /// A fetch has failed.
    pub fn fail(&mut self) {
        self.under_way -= 1;
    }

    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.rates.iter().copied().reduce(f64::max).unwrap_or(ASSUMED_RATE)
    }

    /// How long a piece takes that has the link to itself.
    fn wait(&self) -> Duration {
        let rate = self.rate();
        let wait = |(lasted, bytes): &(Duration, u64)| {
            lasted.saturating_sub(Duration::from_secs_f64(bytes.saturating_sub(PIECE_BYTES) as f64 / rate))
        };
        self.alone.iter().map(wait).min().unwrap_or(ASSUMED_WAIT).max(WAIT_MIN)
    }

    /// Bytes that the link carries while one piece is on its way.
    fn on_the_way(&self) -> u64 {
        (self.rate() * self.wait().as_secs_f64()) as u64
    }

    /// How much to request at once: so much that waiting takes half of the time, in whole pieces.
    pub fn unit_bytes(&self, most: u64) -> u64 {
        let unit = self.on_the_way().clamp(PIECE_BYTES, UNIT_BYTES_MAX);
        (unit.div_ceil(PIECE_BYTES) * PIECE_BYTES).min(most.max(PIECE_BYTES))
    }

    /// A gap of up to this many bytes costs less to fetch than another request.
    pub fn gap_bytes_max(&self) -> u64 {
        self.on_the_way().min(UNIT_BYTES_MAX)
    }

    /// How much must be under way so that the link never idles.
    pub fn under_way_bytes(&self, unit_bytes: u64) -> u64 {
        3 * self.on_the_way().max(unit_bytes)
    }
}

fn keep<T>(samples: &mut VecDeque<T>, sample: T) {
    samples.push_back(sample);
    if samples.len() > SAMPLES {
        samples.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches over a link of `rate` bytes a second that needs `wait` until an answer begins, as many at a time as the
    /// meter says.
    fn settle(rate: f64, wait: Duration) -> Meter {
        let mut meter = Meter::default();
        let mut under_way: VecDeque<(Begun, Duration, u64)> = VecDeque::new();
        let mut now = Duration::ZERO;
        let mut link_free = Duration::ZERO;
        for _ in 0..400 {
            let unit = meter.unit_bytes(UNIT_BYTES_MAX);
            while under_way.iter().map(|fetch| fetch.2).sum::<u64>() + unit <= meter.under_way_bytes(unit) {
                let arrives = (now + wait).max(link_free) + Duration::from_secs_f64(unit as f64 / rate);
                link_free = arrives;
                under_way.push_back((meter.begin(now), arrives, unit));
            }
            let (begun, arrives, bytes) = under_way.pop_front().unwrap();
            now = arrives;
            meter.end(begun, now, bytes);
        }
        meter
    }

    #[test]
    fn requests_become_as_large_as_the_link_needs() {
        let slow = settle(2.5e6, Duration::from_millis(50));
        assert!(
            slow.unit_bytes(UNIT_BYTES_MAX) <= 2 * PIECE_BYTES,
            "20 Mbit/s: requests stay so small that unwanted bytes cost little"
        );
        let middle = settle(12.5e6, Duration::from_millis(50)).unit_bytes(UNIT_BYTES_MAX);
        assert!((2 * PIECE_BYTES..=5 * PIECE_BYTES).contains(&middle), "{middle}");
        let fast = settle(125e6, Duration::from_millis(40)).unit_bytes(UNIT_BYTES_MAX);
        assert!(fast >= 3 << 20, "{fast}");
        assert_eq!(settle(125e6, Duration::from_millis(40)).unit_bytes(1 << 20), 1 << 20, "memory is the limit");
    }

    #[test]
    fn the_link_never_idles() {
        for (rate, wait) in [(2.5e6, 50), (12.5e6, 50), (125e6, 40), (125e6, 1), (1.25e9, 10)] {
            let meter = settle(rate, Duration::from_millis(wait));
            let needed = rate * wait as f64 / 1000.0;
            let under_way = meter.under_way_bytes(meter.unit_bytes(UNIT_BYTES_MAX)) as f64;
            assert!(under_way >= needed.min(3.0 * UNIT_BYTES_MAX as f64), "{rate} {wait}: {under_way} of {needed}");
        }
    }

    #[test]
    fn a_stall_teaches_nothing_and_a_slower_link_is_noticed() {
        let mut meter = settle(12.5e6, Duration::from_millis(50));
        let before = meter.unit_bytes(UNIT_BYTES_MAX);
        let begun = meter.begin(Duration::ZERO);
        meter.end(begun, Duration::from_secs(100), PIECE_BYTES);
        assert_eq!(meter.unit_bytes(UNIT_BYTES_MAX), before);
        for second in 0..SAMPLES as u64 {
            let begun = meter.begin(Duration::from_secs(second));
            meter.end(begun, Duration::from_secs(second + 1), PIECE_BYTES);
        }
        assert_eq!(meter.unit_bytes(UNIT_BYTES_MAX), PIECE_BYTES);
    }
}
