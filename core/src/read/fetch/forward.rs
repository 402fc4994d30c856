//! Sequential readers of a volume, and how far ahead of each to fetch.
//!
//! Files lie in volumes in backup order, so `cp -r`, `tar`, a restore, and any reader of one long file read volumes
//! sequentially. Each such reader gets a window of pieces ahead of it. The window doubles when the reader had to wait
//! for a piece under way, and is halved when a piece fetched for it was evicted before the reader got there. A single
//! stray read fetches nothing but itself.

use std::ops::Range;

/// Readers that are tracked in one volume.
const STREAMS: usize = 4;
/// How many pieces before the expected one a step may start, because requests overtake each other.
const BACK: u32 = 4;
/// How many pieces beyond the expected one a step may start, because not every file is wanted.
const SKIP: u32 = 8;

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    next: u32,
    planned: u32,
    window: u32,
    /// When it last moved; 0 for a free slot.
    moved: u64,
}

/// The readers of one volume.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Streams {
    streams: [Stream; STREAMS],
    steps: u64,
}

/// What a reader found at its next pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Luck {
    /// Everything was present.
    There,
    /// Something was under way.
    UnderWay,
    /// Something had not been requested.
    Missing,
}

/// The window's limits, in pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub least: u32,
    pub most: u32,
    /// Pieces of the volume.
    pub end: u32,
}

impl Streams {
    /// Records a read of `read`, and returns the pieces to fetch ahead, if any.
    pub fn step(&mut self, read: Range<u32>, luck: Luck, window: Window) -> Range<u32> {
        self.steps += 1;
        let steps = self.steps;
        let near = |s: &Stream| {
            s.moved > 0 && read.start.saturating_add(BACK) >= s.next && read.start <= s.planned.saturating_add(SKIP)
        };
        if let Some(stream) = self.streams.iter_mut().find(|stream| near(stream)) {
            stream.moved = steps;
            return stream.advance(read, luck, window);
        }
        let Some(stream) = self.streams.iter_mut().min_by_key(|stream| stream.moved) else { return 0..0 };
        *stream = Stream { next: read.end, planned: read.end, window: 0, moved: steps };
        0..0
    }
}

impl Stream {
    fn advance(&mut self, read: Range<u32>, luck: Luck, window: Window) -> Range<u32> {
        let moves = read.end > self.next;
        let was_planned = read.end <= self.planned;
        self.next = self.next.max(read.end);
        if !moves && luck == Luck::There {
            return 0..0;
        }
        let wanted = match luck {
            Luck::There => self.window,
            Luck::Missing if was_planned => self.window / 2,
            Luck::UnderWay | Luck::Missing => self.window.saturating_mul(2),
        };
        self.window = wanted.clamp(window.least.min(window.most), window.most);
        let start = self.planned.max(self.next);
        let end = self.next.saturating_add(self.window).min(window.end);
        // Small plans make small requests, so the next plan is made when a good part of the last one is used up.
        if end.saturating_sub(start) < (self.window / 4).max(1) && end < window.end {
            return 0..0;
        }
        self.planned = self.planned.max(end);
        start.min(end)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { least: 4, most: 64, end: 256 };

    #[test]
    fn a_sequential_reader_gets_a_growing_window_once() {
        let mut streams = Streams::default();
        let mut planned = 0..1;
        let mut largest = 0;
        for piece in 0..256 {
            let luck = if piece < planned.end { Luck::UnderWay } else { Luck::Missing };
            let plan = streams.step(piece..piece + 1, luck, WINDOW);
            if !plan.is_empty() {
                assert!(plan.start >= planned.end.max(piece + 1), "{plan:?} was planned before");
                planned = plan;
            }
            largest = largest.max(planned.end.saturating_sub(piece + 1));
        }
        assert_eq!((planned.end, largest), (256, 64));
    }

    #[test]
    fn who_finds_everything_there_needs_no_larger_window() {
        let mut streams = Streams::default();
        streams.step(0..1, Luck::Missing, WINDOW);
        let mut end = streams.step(1..2, Luck::Missing, WINDOW).end;
        for piece in 2..200 {
            let plan = streams.step(piece..piece + 1, Luck::There, WINDOW);
            end = end.max(plan.end);
            assert!((piece + 1..=piece + 1 + WINDOW.least).contains(&end), "{piece}: {end}");
        }
    }

    #[test]
    fn what_was_forgotten_unread_halves_the_window() {
        let mut streams = Streams::default();
        for piece in 0..10 {
            streams.step(piece..piece + 1, Luck::UnderWay, WINDOW);
        }
        assert_eq!(streams.streams.iter().map(|stream| stream.window).max(), Some(64));
        streams.step(10..11, Luck::Missing, WINDOW);
        assert_eq!(streams.streams.iter().map(|stream| stream.window).max(), Some(32));
    }

    #[test]
    fn reads_at_random_fetch_nothing_else() {
        let mut streams = Streams::default();
        for i in 0..1_000_u32 {
            let piece = i.wrapping_mul(2_654_435_761) % 4_000_000 * 32;
            assert!(streams.step(piece..piece + 1, Luck::Missing, Window { end: u32::MAX, ..WINDOW }).is_empty());
        }
    }
}
