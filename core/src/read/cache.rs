//! Decoded frames, kept while there is room, each made by one thread only.
//!
//! The first thread that asks for a frame claims it and makes it; threads that ask meanwhile wait for it. If making it
//! fails, the waiters try for themselves, so each gets its own error and a passing fault does not spread. Consecutive
//! frames are claimed together, because fetching and opening them together costs less.
//!
//! Eviction is second chance: a frame that was used since the last sweep is spared once.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;

use crate::lock::lock;
use crate::lock::wait;

/// Names a frame: a volume by its row number in this catalog, and the frame's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameAt {
    /// Row number of the volume.
    pub volume: i64,
    /// Number of the frame.
    pub ordinal: u32,
}

impl FrameAt {
    fn in_volume(volume: i64) -> impl Fn(u32) -> FrameAt {
        move |ordinal| FrameAt { volume, ordinal }
    }
}

enum Slot {
    Making,
    Made { plain: Arc<Vec<u8>>, was_used: bool },
}

#[derive(Default)]
struct State {
    slots: HashMap<FrameAt, Slot>,
    order: VecDeque<FrameAt>,
    bytes: usize,
    /// Threads that wait for a frame another thread is making.
    waiting: usize,
}

/// Decoded frames, up to a total size.
pub(super) struct Cache {
    state: Mutex<State>,
    made: Condvar,
    bytes_max: usize,
}

/// How far a claim may reach beyond the requested frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Most frames of a claim.
    pub frames_max: u32,
    /// Number of frames in the volume.
    pub end: u32,
}

/// The answer to a request for a frame.
pub(super) enum Found<'a> {
    /// Its plaintext.
    Made(Arc<Vec<u8>>),
    /// The caller must make it, and the frames claimed with it.
    Claimed(Claim<'a>),
    /// Another thread is making it. The caller may make these, which follow it, instead of waiting.
    Next(Claim<'a>),
}

impl Cache {
    pub fn new(bytes_max: usize) -> Cache {
        Cache { state: Mutex::default(), made: Condvar::new(), bytes_max }
    }

    /// Most bytes of frames that it holds.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub fn is_made(&self, at: FrameAt) -> bool {
        matches!(self.state().slots.get(&at), Some(Slot::Made { .. }))
    }

    /// Finds the frame or claims it. With a `reach`, the frames after it are claimed too if requests come in order,
    /// that is, if the frame before it was requested.
    pub fn find(&self, at: FrameAt, reach: Option<Reach>) -> Found<'_> {
        let mut state = self.state();
        loop {
            match state.slots.get_mut(&at) {
                Some(Slot::Made { plain, was_used }) => {
                    *was_used = true;
                    return Found::Made(Arc::clone(plain));
                }
                None => {
                    let reach = reach.filter(|_| state.is_in_order(at)).unwrap_or(Reach { frames_max: 1, end: 0 });
                    return Found::Claimed(self.claim(&mut state, at, reach));
                }
                Some(Slot::Making) => {}
            }
            if let Some(claim) = reach.and_then(|reach| self.claim_next(&mut state, at, reach)) {
                return Found::Next(claim);
            }
            state.waiting += 1;
            state = wait(&self.made, state);
            state.waiting -= 1;
        }
    }

    /// Claims those of `frames` that nobody has made or is making: one claim per stretch, none longer than
    /// `frames_max`.
    pub fn claim_missing(&self, frames: &[FrameAt], frames_max: u32) -> Vec<Claim<'_>> {
        let mut state = self.state();
        let mut claims: Vec<Claim<'_>> = Vec::new();
        for at in frames {
            if state.slots.contains_key(at) {
                continue;
            }
            state.slots.insert(*at, Slot::Making);
            match claims.last_mut().filter(|claim| claim.goes_on_with(*at, frames_max)) {
                Some(claim) => claim.ordinals.end += 1,
                None => claims.push(self.claim_one(*at)),
            }
        }
        claims
    }

    /// Claims the frame, which is free, and the free frames after it, as far as `reach` goes.
    fn claim(&self, state: &mut State, at: FrameAt, reach: Reach) -> Claim<'_> {
        state.slots.insert(at, Slot::Making);
        let mut claim = self.claim_one(at);
        let name = FrameAt::in_volume(at.volume);
        while claim.ordinals.end < reach.end
            && claim.ordinals.len() < reach.frames_max as usize
            && !state.slots.contains_key(&name(claim.ordinals.end))
        {
            state.slots.insert(name(claim.ordinals.end), Slot::Making);
            claim.ordinals.end += 1;
        }
        claim
    }

    /// Claims the frames after those that are being made around `at`.
    fn claim_next(&self, state: &mut State, at: FrameAt, reach: Reach) -> Option<Claim<'_>> {
        let name = FrameAt::in_volume(at.volume);
        let near = at.ordinal + 1..reach.end.min(at.ordinal.saturating_add(reach.frames_max).saturating_add(1));
        let next = near.into_iter().map(name).find(|next| !state.slots.contains_key(next))?;
        Some(self.claim(state, next, reach))
    }

    fn claim_one(&self, at: FrameAt) -> Claim<'_> {
        Claim { cache: self, volume: at.volume, ordinals: at.ordinal..at.ordinal + 1 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn is_in_order(&self, at: FrameAt) -> bool {
        let before = at.ordinal.checked_sub(1).map(FrameAt::in_volume(at.volume));
        before.is_none_or(|before| self.slots.contains_key(&before))
    }

    fn keep(&mut self, at: FrameAt, plain: &Arc<Vec<u8>>, bytes_max: usize) {
        // It counts as used; otherwise, among used frames, it would be evicted first, before its second reader arrives.
        self.slots.insert(at, Slot::Made { plain: Arc::clone(plain), was_used: true });
        self.order.push_back(at);
        self.bytes += plain.len();
        while self.bytes > bytes_max {
            let Some(oldest) = self.order.pop_front() else { break };
            match self.slots.get_mut(&oldest) {
                Some(Slot::Made { was_used, .. }) if *was_used => {
                    *was_used = false;
                    self.order.push_back(oldest);
                }
                Some(Slot::Made { plain, .. }) => {
                    self.bytes -= plain.len();
                    self.slots.remove(&oldest);
                }
                _ => {}
            }
        }
    }
}

/// The duty to make some consecutive frames. Frames that are not settled when the claim is dropped become free again;
/// the waiters are woken in any case.
pub(super) struct Claim<'a> {
    cache: &'a Cache,
    volume: i64,
    ordinals: Range<u32>,
}

impl Claim<'_> {
    pub fn volume(&self) -> i64 {
        self.volume
    }

    /// The frames that are not settled yet.
    pub fn ordinals(&self) -> Range<u32> {
        self.ordinals.clone()
    }

    /// Settles the next frames: keeps those that were made and frees the others.
    pub fn settle<'p>(&mut self, made: impl Iterator<Item = Option<&'p Arc<Vec<u8>>>>) {
        let mut state = self.cache.state();
        let name = FrameAt::in_volume(self.volume);
        for (plain, ordinal) in made.zip(self.ordinals.by_ref()) {
            match plain {
                Some(plain) => state.keep(name(ordinal), plain, self.cache.bytes_max),
                None => _ = state.slots.remove(&name(ordinal)),
            }
        }
        self.wake(&state);
    }

    fn goes_on_with(&self, at: FrameAt, frames_max: u32) -> bool {
        at.volume == self.volume && at.ordinal == self.ordinals.end && self.ordinals.len() < frames_max as usize
    }

    fn wake(&self, state: &State) {
        if state.waiting > 0 {
            self.cache.made.notify_all();
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.ordinals.is_empty() {
            return;
        }
        let mut state = self.cache.state();
        for at in self.ordinals().map(FrameAt::in_volume(self.volume)) {
            state.slots.remove(&at);
        }
        self.wake(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u32) -> FrameAt = |ordinal| FrameAt { volume: 1, ordinal };
    const REACH: Option<Reach> = Some(Reach { frames_max: 4, end: 10 });

    fn fill(claim: &mut Claim<'_>) {
        let plain: Vec<Arc<Vec<u8>>> = claim.ordinals().map(|ordinal| Arc::new(vec![ordinal as u8; 100])).collect();
        claim.settle(plain.iter().map(Some));
    }

    fn claimed(found: Found<'_>) -> Claim<'_> {
        let Found::Claimed(claim) = found else { panic!("it is there, or another's") };
        claim
    }

    #[test]
    fn an_ordered_claim_reaches_to_the_first_taken_frame() {
        let cache = Cache::new(10_000);
        assert_eq!(claimed(cache.find(AT(5), REACH)).ordinals(), 5..6, "the one before was not asked for");
        let mut first = claimed(cache.find(AT(0), REACH));
        assert_eq!(first.ordinals(), 0..4, "the beginning of a volume is read on");
        fill(&mut first);
        assert_eq!(claimed(cache.find(AT(4), None)).ordinals(), 4..5, "no more was asked for");
        let held = claimed(cache.find(AT(6), None));
        assert_eq!(claimed(cache.find(AT(4), REACH)).ordinals(), 4..6, "up to what another makes");
        drop(held);
        fill(&mut claimed(cache.find(AT(4), REACH)));
        assert_eq!(claimed(cache.find(AT(8), REACH)).ordinals(), 8..10, "up to the end");
    }

    #[test]
    fn who_would_wait_is_given_what_comes_next() {
        let cache = Cache::new(10_000);
        let mut first = claimed(cache.find(AT(0), REACH));
        let Found::Next(mut next) = cache.find(AT(2), REACH) else { panic!("not another's, or nothing comes next") };
        assert_eq!(next.ordinals(), 4..8);
        fill(&mut next);
        fill(&mut first);
        let Found::Made(plain) = cache.find(AT(2), REACH) else { panic!("it was not kept") };
        assert_eq!(*plain, [2; 100]);
    }

    #[test]
    fn what_is_missing_is_claimed_once_and_in_stretches() {
        let cache = Cache::new(10_000);
        let there = claimed(cache.find(AT(3), None));
        let wanted: Vec<FrameAt> = (0..7).chain([9]).map(AT).collect();
        let claims = cache.claim_missing(&wanted, 2);
        let stretches: Vec<Range<u32>> = claims.iter().map(Claim::ordinals).collect();
        assert_eq!(stretches, [0..2, 2..3, 4..6, 6..7, 9..10]);
        assert!(cache.claim_missing(&wanted, 2).is_empty(), "all are claimed");
        drop((claims, there));
        assert_eq!(cache.claim_missing(&wanted, 10).len(), 2, "what was not made is free again");
        assert!(cache.state().slots.is_empty(), "and again");
    }

    #[test]
    fn what_could_not_be_made_is_free_and_the_rest_is_kept() {
        let cache = Cache::new(10_000);
        let mut claim = claimed(cache.find(AT(0), REACH));
        let plain = Arc::new(vec![7; 100]);
        claim.settle([Some(&plain), None].into_iter());
        assert_eq!(claim.ordinals(), 2..4, "two are settled");
        drop(claim);
        let made: Vec<bool> = (0..4).map(|ordinal| cache.is_made(AT(ordinal))).collect();
        assert_eq!(made, [true, false, false, false]);
        assert_eq!(claimed(cache.find(AT(1), None)).ordinals(), 1..2);
    }

    #[test]
    fn the_cache_never_holds_more_than_it_may() {
        let cache = Cache::new(1_000);
        for ordinal in 0..50 {
            fill(&mut claimed(cache.find(AT(ordinal), None)));
            assert!(cache.state().bytes <= 1_000);
            assert!(cache.is_made(AT(ordinal)), "the newest is there");
        }
        assert_eq!(cache.state().slots.len(), 10);
    }
}
