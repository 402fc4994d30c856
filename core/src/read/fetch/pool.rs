//! The fetching threads and their shared state.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::Once;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;
use crate::lock::wait;
use crate::lock::wait_timeout;
use crate::read::Counters;
use crate::read::fetch::Clock;
use crate::read::fetch::FetchOptions;
use crate::read::fetch::Want;
use crate::read::fetch::allowance::Allowance;
use crate::read::fetch::disk::Disk;
use crate::read::fetch::failed::SharedError;
use crate::read::fetch::forward::Luck;
use crate::read::fetch::forward::Window;
use crate::read::fetch::held::Bytes;
use crate::read::fetch::meter::UNIT_BYTES_MAX;
use crate::read::fetch::pieces::Object;
use crate::read::fetch::pieces::PIECE_BYTES;
use crate::read::fetch::pieces::PieceAt;
use crate::read::fetch::pieces::stretches;
use crate::read::fetch::state::Bounds;
use crate::read::fetch::state::Job;
use crate::read::fetch::state::Run;
use crate::read::fetch::state::State;
use crate::read::fetch::state::Then;
use crate::read::fetch::state::Urgency;
use crate::store::ByteRange;
use crate::store::Store;

/// Largest read-ahead window.
const WINDOW_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of queued guesses.
const QUEUE_BYTES_MAX: u64 = 2 * WINDOW_BYTES_MAX;
/// Why nothing is fetched any more.
const SPENT: &str = "the store has given as much as --max-fetch allows";

/// The pool; its threads start with the first request.
pub(super) struct Pool {
    shared: Arc<Shared>,
    started: Once,
}

struct Shared {
    store: Arc<dyn Store>,
    disk: Option<Disk>,
    options: FetchOptions,
    clock: Clock,
    counters: Arc<Counters>,
    window_bytes_max: u64,
    state: Mutex<State>,
    /// There may be a request to make.
    work: Condvar,
    /// There is a new waiter.
    waits: Condvar,
    disk_trouble_said: AtomicBool,
    allowance: Allowance,
}

impl Pool {
    pub fn new(
        store: Arc<dyn Store>,
        disk: Option<Disk>,
        options: FetchOptions,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Pool {
        let connections = store.connections().max(1);
        let memory = options.memory_bytes as u64;
        // Half of the memory is for requests under way, half for pieces that no disk can keep.
        let unit_bytes_max = (memory / 2 / connections as u64).clamp(PIECE_BYTES, UNIT_BYTES_MAX);
        let bounds = Bounds {
            ahead_threads: (connections * 3 / 4).max(1),
            unit_bytes_max,
            ahead_bytes_max: (memory / 2).max(PIECE_BYTES),
            ahead_pieces_max: usize::try_from(QUEUE_BYTES_MAX / PIECE_BYTES).unwrap_or(usize::MAX),
        };
        let held_bytes_max = options.memory_bytes / 2;
        let room = match (&disk, &options.cache) {
            (Some(_), Some(cache)) => cache.bytes_max,
            _ => held_bytes_max as u64,
        };
        let allowance = Allowance::of(options.fetched_bytes_max);
        let shared = Shared {
            store,
            disk,
            options,
            clock,
            counters,
            window_bytes_max: WINDOW_BYTES_MAX.min(room / 4),
            state: Mutex::new(State::new(bounds, held_bytes_max)),
            work: Condvar::new(),
            waits: Condvar::new(),
            disk_trouble_said: AtomicBool::new(false),
            allowance,
        };
        Pool { shared: Arc::new(shared), started: Once::new() }
    }

    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    pub fn held(&self, at: PieceAt) -> Option<Bytes> {
        self.shared.state().held.get(at).cloned()
    }

    pub fn read_disk(&self, object: &Object, span: &Range<u64>) -> Option<Vec<u8>> {
        self.shared.disk.as_ref()?.read(object, span)
    }

    pub fn missing_bytes(&self, wants: &[Want]) -> u64 {
        let state = self.shared.state();
        let missing = |Want { object, range }: &Want| {
            let pieces = object.pieces(range).filter(|piece| !self.shared.is_here(&state, object, *piece));
            pieces.map(|piece| object.span(&(piece..piece + 1))).map(|span| span.end - span.start).sum::<u64>()
        };
        wants.iter().map(missing).sum()
    }

    pub fn is_kept(&self, wants: &[Want]) -> bool {
        let Some(disk) = &self.shared.disk else { return false };
        wants.iter().all(|Want { object, range }| disk.has(object, &object.span(&object.pieces(range))))
    }

    /// Calls `then` when everything wanted is here, with the bytes that arrived meanwhile if `keeps`.
    pub fn want(&self, wants: &[Want], keeps: bool, then: Then) {
        let mut state = self.shared.state();
        let mut missing = Vec::new();
        for Want { object, range } in wants {
            match self.shared.demand(&mut state, object, object.pieces(range)) {
                Ok(flying) => missing.extend(flying.into_iter().map(|piece| (Arc::clone(object), piece))),
                Err(error) => {
                    drop(state);
                    return then(Err(error));
                }
            }
        }
        if missing.is_empty() {
            drop(state);
            self.wake();
            return then(Ok(Default::default()));
        }
        let deadline = self.shared.clock.now().saturating_add(self.shared.options.deadline);
        state.wait(missing, keeps, deadline, then);
        drop(state);
        self.wake();
        self.shared.waits.notify_one();
    }

    pub fn ahead(&self, wants: &[Want]) {
        if self.shared.why_not().is_some() {
            return;
        }
        let mut state = self.shared.state();
        for Want { object, range } in wants {
            self.shared.queue_missing(&mut state, object, object.pieces(range), Urgency::Ahead);
        }
        drop(state);
        self.wake();
    }

    /// Fetches a range on its own, with `get`.
    pub fn fetch_alone<T>(&self, Want { object, range }: &Want, get: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.shared.why_not() {
            Some(why) => Err(refused(object, &object.pieces(range), why).again()),
            None => self.shared.within_allowance(object, range.clone(), Urgency::Demand, get),
        }
    }

    pub fn distrust(&self, Want { object, range }: &Want) {
        let pieces = object.pieces(range);
        let mut state = self.shared.state();
        pieces.clone().for_each(|piece| state.held.remove(object.at(piece)));
        if let Some(disk) = &self.shared.disk {
            disk.punch(object, &object.span(&pieces));
        }
        drop(state);
        let text = format!(
            "{}: bytes {} to {} were damaged in the cache and are fetched again",
            object.name, range.start, range.end
        );
        (self.shared.options.say)(&text);
    }

    fn wake(&self) {
        self.started.call_once(|| {
            for number in 0..self.shared.store.connections().max(1) {
                let shared = Arc::clone(&self.shared);
                spawn(format!("fetch-{number}"), move || shared.work_on());
            }
            let shared = Arc::clone(&self.shared);
            spawn("deadlines".to_owned(), move || shared.watch_deadlines());
        });
        self.shared.work.notify_all();
    }
}

/// Starts a thread. Without a fetching thread, waiters get an error at their deadline; without the deadline thread,
/// they wait as long as the store takes.
fn spawn(name: String, work: impl FnOnce() + Send + 'static) {
    _ = thread::Builder::new().name(name).spawn(work);
}

impl Drop for Pool {
    fn drop(&mut self) {
        let waiters = self.shared.state().close();
        self.shared.work.notify_all();
        self.shared.waits.notify_all();
        drop(waiters);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn is_here(&self, state: &State, object: &Object, piece: u32) -> bool {
        !state.is_flying(object.at(piece))
            && (state.held.get(object.at(piece)).is_some()
                || self.disk.as_ref().is_some_and(|disk| disk.has(object, &object.span(&(piece..piece + 1)))))
    }

    /// Makes sure that the pieces arrive, and returns those that are not here yet, or why one cannot be had.
    fn demand(
        &self,
        state: &mut State,
        object: &Arc<Object>,
        pieces: Range<u32>,
    ) -> std::result::Result<Vec<u32>, SharedError> {
        let now = self.clock.now();
        let mut missing = Vec::new();
        let mut luck = Luck::There;
        for piece in pieces.clone() {
            if self.is_here(state, object, piece) {
                continue;
            }
            if let Some(error) = state.failed.get(object.at(piece), now) {
                return Err(error);
            }
            // Done at once, because the next queueing may push out guesses, and this piece is no longer a guess.
            state.hurry(object, piece);
            luck = match (luck, state.is_flying(object.at(piece))) {
                (Luck::Missing, _) | (_, false) => Luck::Missing,
                (_, true) => Luck::UnderWay,
            };
            missing.push(piece);
        }
        if let Some(why) = self.why_not() {
            return if missing.is_empty() { Ok(missing) } else { Err(refused(object, &pieces, why)) };
        }
        self.queue_missing(state, object, pieces.clone(), Urgency::Demand);
        if !self.options.reads_ahead {
            return Ok(missing);
        }
        let piece_count = |bytes: u64| u32::try_from(bytes / PIECE_BYTES).unwrap_or(u32::MAX).max(1);
        let least = piece_count(state.unit_bytes());
        let window = Window { least, most: piece_count(self.window_bytes_max), end: object.count() };
        let plan = state.streams(object.volume).step(pieces, luck, window);
        self.queue_missing(state, object, plan, Urgency::Ahead);
        Ok(missing)
    }

    /// Why the store must not be asked, if so.
    fn why_not(&self) -> Option<&'static str> {
        if self.options.is_offline {
            return Some("--offline forbids asking the store");
        }
        self.allowance.is_spent().then_some(SPENT)
    }

    /// Fetches with `get`, if the allowance still covers the length of `span`.
    fn within_allowance<T>(
        &self,
        object: &Object,
        span: Range<u64>,
        urgency: Urgency,
        get: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let bytes = span.end - span.start;
        if self.allowance.take(bytes) {
            return get().inspect_err(|_| self.allowance.give_back(bytes));
        }
        // A guess that exceeds the allowance says nothing about real requests.
        if urgency == Urgency::Demand && self.allowance.spend() {
            (self.options.say)(&format!("{SPENT}: what is not in the cache cannot be read any more"));
        }
        Err(refused(object, &object.pieces(&span), SPENT).again())
    }

    /// Queues those of `pieces` that are neither here nor under way, and the small gaps between them.
    fn queue_missing(&self, state: &mut State, object: &Arc<Object>, pieces: Range<u32>, urgency: Urgency) {
        let gap_max = u32::try_from(state.meter.gap_bytes_max() / PIECE_BYTES).unwrap_or(0);
        let is_free = |piece| !state.is_flying(object.at(piece)) && !self.is_here(state, object, piece);
        let runs = stretches(pieces.filter(|piece| is_free(*piece)), gap_max, is_free);
        for pieces in runs {
            state.queue(Run { object: Arc::clone(object), pieces }, urgency);
        }
    }

    fn work_on(&self) {
        while let Some(job) = self.next() {
            let span = job.run.object.span(&job.run.pieces);
            let got = self.within_allowance(&job.run.object, span, job.urgency, || self.get(&job));
            let kept = got.as_ref().is_ok_and(|pieces| self.keep(&job, pieces));
            let got = got.as_deref().map_err(SharedError::of);
            let mut state = self.state();
            if let (false, Ok(pieces)) = (kept, &got) {
                pieces.iter().for_each(|(at, bytes)| state.held.insert(*at, bytes.clone()));
            }
            let outcomes = state.land(&job, self.clock.now(), got.as_ref().map(|pieces| *pieces));
            drop(state);
            self.work.notify_all();
            outcomes.into_iter().for_each(|(then, outcome)| then(outcome));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.take(self.clock.now()) {
                return Some(job);
            }
            state = wait(&self.work, state);
        }
    }

    fn get(&self, job: &Job) -> Result<Vec<(PieceAt, Bytes)>> {
        let Run { object, pieces } = &job.run;
        let span = object.span(pieces);
        let part = ByteRange::Part { offset: span.start, bytes: span.end - span.start };
        let get = || self.store.get(&object.name, part);
        let got = self
            .counters
            .fetching(get, |got| got.as_ref().map_or(0, Vec::len))
            .map_err(|error| at_offset(error, &span))?;
        let whole = Arc::new(got);
        let piece = |number: u32| {
            let piece = object.span(&(number..number + 1));
            let start = usize::try_from(piece.start - span.start).unwrap_or(usize::MAX);
            let end = usize::try_from(piece.end - span.start).unwrap_or(usize::MAX);
            (object.at(number), Bytes { whole: Arc::clone(&whole), part: start..end })
        };
        Ok(pieces.clone().map(piece).collect())
    }

    /// Writes what arrived to the disk; false if no disk takes it.
    fn keep(&self, job: &Job, pieces: &[(PieceAt, Bytes)]) -> bool {
        let (Some(disk), Some((_, first))) = (&self.disk, pieces.first()) else { return false };
        let span = job.run.object.span(&job.run.pieces);
        let written = disk.write(&job.run.object, span.start, &first.whole);
        let trouble = match written {
            Ok(true) => return true,
            Ok(false) => "its disk has no free space beyond --cache-free".to_owned(),
            Err(error) => error.to_string(),
        };
        if !self.disk_trouble_said.swap(true, Ordering::Relaxed) {
            (self.options.say)(&format!("fetched data cannot be kept in the cache: {trouble}"));
        }
        false
    }

    fn watch_deadlines(&self) {
        let seconds = self.options.deadline.as_secs_f32();
        let text = format!("the store did not answer for {seconds} seconds: see --read-timeout");
        let why =
            SharedError::of(&Error::store("read", self.store.address(), io::Error::new(io::ErrorKind::TimedOut, text)));
        let mut state = self.state();
        while !state.closed {
            let now = self.clock.now();
            let (outcomes, next) = state.expire(now, &why);
            if !outcomes.is_empty() {
                drop(state);
                outcomes.into_iter().for_each(|(then, outcome)| then(outcome));
                state = self.state();
                continue;
            }
            // Later waiters have later deadlines.
            state = match next {
                Some(next) => {
                    let wait = next.saturating_sub(now);
                    wait_timeout(&self.waits, state, wait)
                }
                None => wait(&self.waits, state),
            };
        }
    }
}

fn refused(object: &Object, pieces: &Range<u32>, why: &str) -> SharedError {
    let span = object.span(pieces);
    let text = format!("it is not in the cache, and {why}");
    let error = Error::store("read", &object.name, io::Error::new(io::ErrorKind::PermissionDenied, text));
    SharedError::of(&at_offset(error, &span))
}

/// The error, with the bytes that were asked for.
fn at_offset(error: Error, span: &Range<u64>) -> Error {
    match error {
        Error::Store { doing, object, source } => {
            let object = format!("{object}, bytes {} to {}", span.start, span.end);
            Error::Store { doing, object, source }
        }
        other => other,
    }
}
