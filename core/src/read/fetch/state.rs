//! Which pieces are wanted, by whom, and which are under way: decided here, without threads and without waiting.
//!
//! Every wanted piece that is not here has one flight, however many readers want it: it is under way or in one of two
//! queues. `demand` holds pieces with a waiter, `ahead` holds guesses. A queued guess that becomes wanted moves to the
//! other queue. A queue holds runs of pieces; how much of a run becomes one request is decided when a thread takes it,
//! according to the link at that time.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::read::fetch::failed::Failed;
use crate::read::fetch::failed::SharedError;
use crate::read::fetch::forward::Streams;
use crate::read::fetch::held::Bytes;
use crate::read::fetch::held::Held;
use crate::read::fetch::meter::Begun;
use crate::read::fetch::meter::Meter;
use crate::read::fetch::pieces::Object;
use crate::read::fetch::pieces::PIECE_BYTES;
use crate::read::fetch::pieces::PieceAt;

/// Volumes whose readers are tracked.
const VOLUMES_FOLLOWED_MAX: usize = 1_024;

/// Consecutive pieces of one volume.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub object: Arc<Object>,
    pub pieces: Range<u32>,
}

impl Run {
    fn is_part_of(&self, volume: i64, piece: u32) -> bool {
        self.object.volume == volume && self.pieces.contains(&piece)
    }

    fn cut(&self, pieces: Range<u32>) -> Option<Run> {
        (!pieces.is_empty()).then(|| Run { object: Arc::clone(&self.object), pieces })
    }
}

/// Whether a reader is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Demand,
    Ahead,
}

/// A request to be made.
#[derive(Debug)]
pub(super) struct Job {
    pub run: Run,
    pub urgency: Urgency,
    pub begun: Begun,
}

/// The answer to a waiter: the pieces that arrived while it waited, or why one did not.
pub(super) type Outcome = std::result::Result<HashMap<PieceAt, Bytes>, SharedError>;
/// Called when all pieces of a waiter are here, or one cannot be had.
pub(super) type Then = Box<dyn FnOnce(Outcome) + Send>;

struct Waiter {
    left: Vec<PieceAt>,
    /// What has arrived, for a waiter that will not look for it elsewhere.
    arrived: Option<HashMap<PieceAt, Bytes>>,
    deadline: Duration,
    then: Then,
}

#[derive(Default)]
struct Flight {
    is_urgent: bool,
    waiters: Vec<u64>,
}

/// Limits on what is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Threads that may fetch guesses at the same time.
    pub ahead_threads: usize,
    pub unit_bytes_max: u64,
    /// Most bytes of guesses under way.
    pub ahead_bytes_max: u64,
    /// Most pieces of guesses in the queue.
    pub ahead_pieces_max: usize,
}

pub(super) struct State {
    pub held: Held,
    pub failed: Failed<PieceAt>,
    pub meter: Meter,
    pub closed: bool,
    bounds: Bounds,
    flights: HashMap<PieceAt, Flight>,
    demand: VecDeque<Run>,
    ahead: VecDeque<Run>,
    ahead_pieces: usize,
    ahead_threads: usize,
    ahead_bytes: u64,
    waiters: HashMap<u64, Waiter>,
    waiters_made: u64,
    streams: HashMap<i64, Streams>,
}

impl State {
    pub fn new(bounds: Bounds, held_bytes_max: usize) -> State {
        State {
            held: Held::new(held_bytes_max),
            failed: Failed::default(),
            meter: Meter::default(),
            closed: false,
            bounds,
            flights: HashMap::new(),
            demand: VecDeque::new(),
            ahead: VecDeque::new(),
            ahead_pieces: 0,
            ahead_threads: 0,
            ahead_bytes: 0,
            waiters: HashMap::new(),
            waiters_made: 0,
            streams: HashMap::new(),
        }
    }

    pub fn is_flying(&self, at: PieceAt) -> bool {
        self.flights.contains_key(&at)
    }

    /// The readers of a volume.
    pub fn streams(&mut self, volume: i64) -> &mut Streams {
        if self.streams.len() >= VOLUMES_FOLLOWED_MAX && !self.streams.contains_key(&volume) {
            self.streams.clear();
        }
        self.streams.entry(volume).or_default()
    }

    /// Current size of a request, in bytes.
    pub fn unit_bytes(&self) -> u64 {
        self.meter.unit_bytes(self.bounds.unit_bytes_max)
    }

    /// Queues pieces that are neither here nor under way.
    pub fn queue(&mut self, run: Run, urgency: Urgency) {
        for piece in run.pieces.clone() {
            self.flights
                .insert(run.object.at(piece), Flight { is_urgent: urgency == Urgency::Demand, ..Flight::default() });
        }
        match urgency {
            Urgency::Demand => self.demand.push_back(run),
            Urgency::Ahead => {
                self.ahead_pieces += run.pieces.len();
                self.ahead.push_back(run);
                self.drop_oldest_guesses();
            }
        }
    }

    /// Calls `then` when all of `pieces`, which are under way, have landed, when one has failed, or at `deadline`.
    pub fn wait(&mut self, pieces: Vec<(Arc<Object>, u32)>, keeps: bool, deadline: Duration, then: Then) {
        self.waiters_made += 1;
        let number = self.waiters_made;
        for (object, piece) in &pieces {
            self.hurry(object, *piece);
            if let Some(flight) = self.flights.get_mut(&object.at(*piece)) {
                flight.waiters.push(number);
            }
        }
        let left = pieces.iter().map(|(object, piece)| object.at(*piece)).collect();
        self.waiters.insert(number, Waiter { left, arrived: keeps.then(HashMap::new), deadline, then });
    }

    /// A guess has, or is about to get, a waiter.
    pub fn hurry(&mut self, object: &Arc<Object>, piece: u32) {
        match self.flights.get_mut(&object.at(piece)) {
            Some(flight) if !flight.is_urgent => flight.is_urgent = true,
            _ => return,
        }
        let queued = self.ahead.iter().position(|run| run.is_part_of(object.volume, piece));
        let Some(run) = queued.and_then(|place| Some((place, self.ahead.remove(place)?))) else { return };
        let (place, run) = run;
        self.ahead_pieces -= 1;
        let parts = [run.cut(piece + 1..run.pieces.end), run.cut(run.pieces.start..piece)];
        parts.into_iter().flatten().for_each(|part| self.ahead.insert(place, part));
        match self.demand.back_mut() {
            Some(last) if last.object.volume == object.volume && last.pieces.end == piece => last.pieces.end += 1,
            _ => self.demand.push_back(Run { object: Arc::clone(object), pieces: piece..piece + 1 }),
        }
    }

    fn drop_oldest_guesses(&mut self) {
        while self.ahead_pieces > self.bounds.ahead_pieces_max {
            let Some(run) = self.ahead.pop_front() else { return };
            self.ahead_pieces -= run.pieces.len();
            for piece in run.pieces.clone() {
                self.flights.remove(&run.object.at(piece));
            }
        }
    }

    /// The next request, if one may be made now.
    pub fn take(&mut self, now: Duration) -> Option<Job> {
        let unit_bytes = self.unit_bytes();
        let unit = u32::try_from(unit_bytes / PIECE_BYTES).unwrap_or(1).max(1);
        if let Some(run) = pop(&mut self.demand, unit) {
            return Some(Job { run, urgency: Urgency::Demand, begun: self.meter.begin(now) });
        }
        let under_way_max = self.meter.under_way_bytes(unit_bytes).min(self.bounds.ahead_bytes_max);
        let is_first = self.ahead_threads == 0;
        if !is_first
            && (self.ahead_threads >= self.bounds.ahead_threads || self.ahead_bytes + unit_bytes > under_way_max)
        {
            return None;
        }
        let run = pop(&mut self.ahead, unit)?;
        self.ahead_pieces -= run.pieces.len();
        self.ahead_threads += 1;
        self.ahead_bytes += run.pieces.len() as u64 * PIECE_BYTES;
        Some(Job { run, urgency: Urgency::Ahead, begun: self.meter.begin(now) })
    }

    /// A request has ended. The caller must pass the outcomes on after releasing the lock.
    pub fn land(
        &mut self,
        job: &Job,
        now: Duration,
        arrived: Result<&[(PieceAt, Bytes)], &SharedError>,
    ) -> Vec<(Then, Outcome)> {
        if job.urgency == Urgency::Ahead {
            self.ahead_threads -= 1;
            self.ahead_bytes -= job.run.pieces.len() as u64 * PIECE_BYTES;
        }
        let mut outcomes = Vec::new();
        match arrived {
            Ok(pieces) => {
                let bytes = pieces.iter().map(|(_, bytes)| bytes.part.len() as u64).sum();
                self.meter.end(job.begun, now, bytes);
                for (at, bytes) in pieces {
                    self.failed.remove(*at);
                    let waiters = self.flights.remove(at).map(|flight| flight.waiters).unwrap_or_default();
                    outcomes.extend(waiters.into_iter().filter_map(|waiter| self.give(waiter, *at, bytes)));
                }
            }
            Err(why) => {
                self.meter.fail();
                for piece in job.run.pieces.clone() {
                    let at = job.run.object.at(piece);
                    let flight = self.flights.remove(&at).unwrap_or_default();
                    // A failed guess says nothing about real requests.
                    if flight.is_urgent {
                        self.failed.insert(at, now, why.clone());
                    }
                    let waiters = flight.waiters.into_iter().filter_map(|waiter| self.waiters.remove(&waiter));
                    outcomes.extend(waiters.map(|waiter| (waiter.then, Err(why.clone()))));
                }
            }
        }
        outcomes
    }

    fn give(&mut self, number: u64, at: PieceAt, bytes: &Bytes) -> Option<(Then, Outcome)> {
        let waiter = self.waiters.get_mut(&number)?;
        waiter.left.retain(|left| *left != at);
        if let Some(arrived) = &mut waiter.arrived {
            arrived.insert(at, bytes.clone());
        }
        if !waiter.left.is_empty() {
            return None;
        }
        let waiter = self.waiters.remove(&number)?;
        Some((waiter.then, Ok(waiter.arrived.unwrap_or_default())))
    }

    /// Gives up on waiters whose time is over, and returns the next deadline.
    pub fn expire(&mut self, now: Duration, why: &SharedError) -> (Vec<(Then, Outcome)>, Option<Duration>) {
        let over: Vec<u64> =
            self.waiters.iter().filter(|(_, waiter)| waiter.deadline <= now).map(|(number, _)| *number).collect();
        let mut outcomes = Vec::new();
        for waiter in over.iter().filter_map(|number| self.waiters.remove(number)) {
            waiter.left.iter().for_each(|at| self.failed.insert(*at, now, why.clone()));
            outcomes.push((waiter.then, Err(why.clone())));
        }
        (outcomes, self.waiters.values().map(|waiter| waiter.deadline).min())
    }

    /// Releases all waiters without an answer.
    pub fn close(&mut self) -> Vec<Then> {
        self.closed = true;
        self.waiters.drain().map(|(_, waiter)| waiter.then).collect()
    }
}

/// Up to `unit` pieces of the first run.
fn pop(queue: &mut VecDeque<Run>, unit: u32) -> Option<Run> {
    let first = queue.front_mut()?;
    if first.pieces.len() > unit as usize {
        let middle = first.pieces.start + unit;
        let run = Run { object: Arc::clone(&first.object), pieces: first.pieces.start..middle };
        first.pieces.start = middle;
        return Some(run);
    }
    queue.pop_front()
}
