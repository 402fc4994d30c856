//! The bytes of volumes, from wherever they are at hand: all data comes from stores to readers through here.
//!
//! A near store (a disk of this machine) is simply asked. A far store is separated from us by latency and a narrow
//! link, so everything is requested once, early, and in as few requests as pay:
//!
//! ```text
//! wanted range -> pieces -> on disk? in memory? on its way? -> queue -> fetch pool -> disk or memory -> waiters
//! ```
//!
//! - **pieces** of 256 KiB (module `pieces`) are fetched once, however many readers want them (`state`);
//! - the size of a request follows from the measured link (`meter`);
//! - sequential readers get read-ahead (`forward`) over at most three quarters of the connections, so that a waiting
//!   reader is served at once;
//! - what arrives is kept sealed on a disk (`disk`) or, without one, in memory (`held`), as far as there is room. A
//!   fetch for a waiting reader always takes place, and the reader gets the bytes even if they cannot be kept;
//! - a reader that waits longer than the deadline gets an error; a failed request fails at once for some seconds
//!   (`failed`).
//!
//! The threads exist only if a far store is read. They are not joined at the end, because one may be stuck in a
//! request.

mod allowance;
mod disk;
mod failed;
mod footprint;
mod forward;
mod held;
mod meter;
mod pieces;
mod pool;
mod state;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use disk::Disk;
use held::Bytes;
use pieces::PieceAt;
use pool::Pool;

use crate::error::Error;
use crate::error::Result;
use crate::read::counters::Counters;
use crate::store::ByteRange;
use crate::store::Store;

pub use disk::CacheOptions;
pub use disk::CacheReader;
pub use disk::CacheUsage;
pub use disk::cache_clear;
pub use disk::cache_usage;
pub use footprint::Footprint;

pub(super) use failed::Failed;
pub(super) use failed::SharedError;
pub(super) use meter::Clock;
pub(super) use pieces::Object;

/// Default of how long a reader waits for a store.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(120);
/// Default of the memory for fetching.
pub const FETCH_BYTES_DEFAULT: usize = 48 << 20;
/// How often pieces are fetched that vanish before they can be used; after that the range itself is fetched.
const ROUNDS_MAX: usize = 3;

/// Receives a line about trouble that was mended.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// How to read a far store. A near one needs none of it.
#[derive(Clone)]
pub struct FetchOptions {
    /// Where fetched bytes are kept.
    pub cache: Option<CacheOptions>,
    /// Bytes of memory for what is under way, and for pieces that no disk can keep.
    pub memory_bytes: usize,
    /// How long a reader waits at most.
    pub deadline: Duration,
    /// The store is never asked: a missing piece is an error.
    pub is_offline: bool,
    /// Most bytes fetched in all. A request beyond that is not made, and ends all fetching.
    pub fetched_bytes_max: u64,
    /// Read ahead for sequential readers. Without it only wanted ranges are fetched, and the gaps in them.
    pub reads_ahead: bool,
    /// Receives reports of damage in the cache.
    pub say: Say,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        FetchOptions {
            cache: None,
            memory_bytes: FETCH_BYTES_DEFAULT,
            deadline: DEADLINE_DEFAULT,
            is_offline: false,
            fetched_bytes_max: u64::MAX,
            reads_ahead: true,
            say: Arc::new(|_| {}),
        }
    }
}

/// A range of a volume.
#[derive(Debug, Clone)]
pub struct Want {
    /// The volume.
    pub object: Arc<Object>,
    /// Which bytes of it; not none.
    pub range: Range<u64>,
}

/// Sealed bytes, and whether some came from the cache: those may be damaged, and the store has better ones.
pub(super) struct Sealed {
    pub bytes: Vec<u8>,
    pub was_kept: bool,
}

/// The bytes of volumes.
pub(super) struct Fetch {
    store: Arc<dyn Store>,
    counters: Arc<Counters>,
    /// `None` for a near store.
    pool: Option<Pool>,
}

impl Fetch {
    pub fn new(store: &Arc<dyn Store>, options: FetchOptions, clock: Clock, counters: Arc<Counters>) -> Fetch {
        let pool = store.is_far().then(|| {
            let open = |cache: CacheOptions| {
                let dir = cache.dir.clone();
                let why = |error| (options.say)(&format!("nothing is cached in {}: {error}", dir.display()));
                Disk::open(cache).map_err(why).ok()
            };
            let disk = options.cache.clone().filter(|cache| cache.bytes_max > 0).and_then(open);
            Pool::new(Arc::clone(store), disk, options, clock, Arc::clone(&counters))
        });
        Fetch { store: Arc::clone(store), counters, pool }
    }

    pub fn is_far(&self) -> bool {
        self.pool.is_some()
    }

    /// How many concurrent requests serve the store best.
    pub fn connections(&self) -> usize {
        self.store.connections()
    }

    pub fn now(&self) -> Duration {
        self.pool.as_ref().map_or(Duration::ZERO, Pool::now)
    }

    /// True if nothing of this needs the store.
    pub fn is_at_hand(&self, wants: &[Want]) -> bool {
        self.missing_bytes(wants) == 0
    }

    /// Bytes that the store would be asked for.
    pub fn missing_bytes(&self, wants: &[Want]) -> u64 {
        self.pool.as_ref().map_or(0, |pool| pool.missing_bytes(wants))
    }

    /// True if all of this lies on a disk of this machine.
    pub fn is_kept(&self, wants: &[Want]) -> bool {
        self.pool.as_ref().is_none_or(|pool| pool.is_kept(wants))
    }

    /// Calls `then` when all of this is at hand or has failed: at once, or later in another thread. The read that
    /// follows gets the error, if any.
    pub fn bring(&self, wants: &[Want], then: impl FnOnce() + Send + 'static) {
        match &self.pool {
            Some(pool) => pool.want(wants, false, Box::new(|_| then())),
            None => then(),
        }
    }

    /// Fetches all of this when nothing else is to be done.
    pub fn ahead(&self, wants: &[Want]) {
        if let Some(pool) = &self.pool {
            pool.ahead(wants);
        }
    }

    /// The bytes of a range.
    pub fn bytes(&self, want: &Want) -> Result<Sealed> {
        let Some(pool) = &self.pool else { return self.direct(want) };
        let alone = || pool.fetch_alone(want, || self.direct(want));
        for _ in 0..ROUNDS_MAX {
            let (sender, receiver) = bounded(1);
            // The receiver waits below.
            pool.want(std::slice::from_ref(want), true, Box::new(move |outcome| _ = sender.send(outcome)));
            let arrived = match receiver.recv() {
                Ok(Ok(arrived)) => arrived,
                // The object ends earlier than expected, but perhaps not before the end of this range.
                Ok(Err(error)) if error.is_short() => return alone(),
                Ok(Err(error)) => return Err(error.again()),
                Err(_) => return Err(Error::Cancelled),
            };
            if let Some(sealed) = assemble(pool, want, &arrived) {
                return Ok(sealed);
            }
        }
        alone()
    }

    /// Forgets these bytes: some of them came from the cache and are not what the store holds.
    pub fn distrust(&self, want: &Want) {
        if let Some(pool) = &self.pool {
            pool.distrust(want);
        }
    }

    fn direct(&self, Want { object, range }: &Want) -> Result<Sealed> {
        let part = ByteRange::Part { offset: range.start, bytes: range.end - range.start };
        let get = || self.store.get(&object.name, part);
        let got = self.counters.fetching(get, |got| got.as_ref().map_or(0, Vec::len));
        got.map(|bytes| Sealed { bytes, was_kept: false })
    }
}

/// Assembles a range from what arrived for it and what is cached; `None` if something vanished meanwhile.
fn assemble(pool: &Pool, want: &Want, arrived: &HashMap<PieceAt, Bytes>) -> Option<Sealed> {
    let Want { object, range } = want;
    let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).ok()?);
    let mut was_kept = false;
    let pieces = object.pieces(range);
    let mut at = pieces.start;
    while at < pieces.end {
        let span = object.span(&(at..at + 1));
        let wanted = span.start.max(range.start)..span.end.min(range.end);
        let held = arrived.get(&object.at(at)).cloned();
        was_kept |= held.is_none();
        if let Some(held) = held.or_else(|| pool.held(object.at(at))) {
            let part = wanted.start - span.start..wanted.end - span.start;
            bytes
                .extend_from_slice(held.get().get(usize::try_from(part.start).ok()?..usize::try_from(part.end).ok()?)?);
            at += 1;
            continue;
        }
        // What lies on the disk is read in one go, up to the next piece that arrived.
        let kept = (at..pieces.end).take_while(|piece| !arrived.contains_key(&object.at(*piece))).count();
        let end = at + u32::try_from(kept).ok()?;
        let span = object.span(&(at..end));
        let read = pool.read_disk(object, &(span.start.max(range.start)..span.end.min(range.end)));
        match read {
            Some(read) => {
                bytes.extend_from_slice(&read);
                at = end;
            }
            None => return None,
        }
    }
    (bytes.len() as u64 == range.end - range.start).then_some(Sealed { bytes, was_kept })
}

#[cfg(test)]
mod tests;
