//! Tells sequential from random reading, and decides how far to read ahead.
//!
//! Three things are read sequentially, often at the same time: a file (`cat`, a film), a directory (`cp -r`, `grep -r`)
//! and a volume (files lie in volumes in the order in which they were backed up). Each is a stream of positions.
//! Positions in a file are bytes, because the sizes of requests are unrelated to blocks. Positions in a directory are
//! files, and positions in a volume are frames.
//!
//! The window of a stream doubles with each step forward, so a stray read costs little and a long one never has to
//! wait. Each file, directory and volume has several streams, because several readers at different places are common.

use std::ops::Range;

/// How many streams are followed in one file, directory or volume.
const STREAMS: usize = 4;

/// Which reads count as the next step, and how far to read ahead.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How far before the expected position a step may begin, because requests overtake one another.
    pub back: u64,
    /// How far beyond the expected position a step may begin.
    pub skip: u64,
    /// The window after the first step forward.
    pub window_min: u64,
    /// The largest window.
    pub window_max: u64,
    /// The window of a new stream at position 0, because a read at the start is often followed by more.
    pub window_at_start: u64,
    /// The window of a new stream elsewhere.
    pub window_elsewhere: u64,
}

/// For positions in a file, in bytes.
pub const FILE: Rules = Rules {
    back: 512 << 10,
    skip: 512 << 10,
    window_min: 512 << 10,
    window_max: 4 << 20,
    window_at_start: 512 << 10,
    window_elsewhere: 0,
};

/// The largest window in a file that lies in a far store.
pub const FAR_WINDOW_BYTES: u64 = 64 << 20;

/// For positions in a volume, in frames of 128 KiB.
pub const VOLUME: Rules =
    Rules { back: 2, skip: 4, window_min: 1, window_max: 32, window_at_start: 0, window_elsewhere: 0 };

/// For positions in a directory, in files.
pub const DIRECTORY: Rules =
    Rules { back: 2, skip: 8, window_min: 32, window_max: 64, window_at_start: 64, window_elsewhere: 16 };

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    /// The position at which the next step is expected.
    next: u64,
    /// Everything before this position was requested, by the reader or ahead of it.
    planned: u64,
    window: u64,
    /// The number of the step that last moved it; 0 if this slot is free.
    moved: u64,
}

/// The streams of one file, directory or volume.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams {
    streams: [Stream; STREAMS],
    steps: u64,
}

impl Streams {
    /// Notes that `read` was requested, and returns the range to read ahead, which may be empty.
    pub fn step(&mut self, rules: &Rules, read: Range<u64>) -> Range<u64> {
        self.steps += 1;
        let steps = self.steps;
        let near = |s: &Stream| {
            s.moved > 0
                && read.start.saturating_add(rules.back) >= s.next
                && read.start <= s.planned.saturating_add(rules.skip)
        };
        if let Some(stream) = self.streams.iter_mut().find(|stream| near(stream)) {
            stream.moved = steps;
            return stream.advance(rules, read.end);
        }
        let Some(stream) = self.streams.iter_mut().min_by_key(|stream| stream.moved) else { return 0..0 };
        let window = if read.start == 0 { rules.window_at_start } else { rules.window_elsewhere };
        let planned = read.end.saturating_add(window);
        *stream = Stream { next: read.end, planned, window, moved: steps };
        read.end..planned
    }
}

impl Stream {
    fn advance(&mut self, rules: &Rules, end: u64) -> Range<u64> {
        self.next = self.next.max(end);
        self.window = (self.window * 2).clamp(rules.window_min, rules.window_max);
        let from = self.planned.max(self.next);
        let to = self.next.saturating_add(self.window);
        // Half a window at a time rather than one step at a time makes fewer and larger pieces of work.
        if to.saturating_sub(from) * 2 < self.window {
            return 0..0;
        }
        self.planned = to;
        from..to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    /// Reads `count` pieces in order and returns what was planned for each.
    fn in_order(streams: &mut Streams, rules: &Rules, start: u64, piece: u64, count: u64) -> Vec<Range<u64>> {
        (0..count).map(|i| streams.step(rules, start + i * piece..start + (i + 1) * piece)).collect()
    }

    #[test]
    fn sequential_reads_are_planned_once_and_without_gaps() {
        let mut streams = Streams::default();
        let plans = in_order(&mut streams, &FILE, 0, 128 * KIB, 200);
        let mut expected = 128 * KIB;
        for plan in plans.iter().filter(|plan| !plan.is_empty()) {
            assert_eq!(plan.start, expected, "each plan begins where the last one ended");
            expected = plan.end;
        }
        let read = 200 * 128 * KIB;
        assert!(expected >= read + FILE.window_max / 2 && expected <= read + FILE.window_max, "{expected}");
    }

    #[test]
    fn a_stray_read_plans_nothing() {
        let mut streams = Streams::default();
        let mut position = 1u64;
        for _ in 0..1_000 {
            position = position.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = (position >> 20) | 1 << 40;
            assert!(streams.step(&VOLUME, start..start + 1).is_empty());
        }
    }

    #[test]
    fn several_readers_do_not_disturb_each_other() {
        let mut streams = Streams::default();
        let mut planned = [0u64; 3];
        for i in 0..100 {
            for (reader, planned) in planned.iter_mut().enumerate() {
                let start = (reader as u64 * 1_000 + 1) * 1_000 * KIB + i * 128 * KIB;
                let plan = streams.step(&FILE, start..start + 128 * KIB);
                *planned += plan.end - plan.start;
            }
        }
        assert!(planned.iter().all(|planned| *planned >= 98 * 128 * KIB), "{planned:?}");
    }

    #[test]
    fn reordered_requests_stay_one_stream() {
        let mut streams = Streams::default();
        let mut planned = 0;
        for i in [0u64, 2, 1, 3, 5, 4, 6, 8, 7] {
            let plan = streams.step(&FILE, i * 128 * KIB..(i + 1) * 128 * KIB);
            planned += plan.end - plan.start;
        }
        assert!(planned >= 9 * 128 * KIB, "{planned}");
    }

    #[test]
    fn positions_at_the_end_of_the_range_do_not_overflow() {
        let mut streams = Streams::default();
        for start in [u64::MAX - 1, u64::MAX] {
            let plan = streams.step(&FILE, start..u64::MAX);
            assert!(plan.start <= plan.end);
        }
    }
}
