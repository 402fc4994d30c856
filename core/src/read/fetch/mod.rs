//! The bytes of volumes, from wherever they are at hand: the only way by which data comes from a store to a reader.
//!
//! A near store (a disk of this machine) is simply asked. Between us and a far store lie time and a narrow link, so here
//! everything is asked for once, early, and in as few requests as pay:
//!
//! ```text
//! wanted range -> pieces -> on disk? in memory? on its way? -> queue -> fetch pool -> disk or memory -> whoever waits
//! ```
//!
//! - **pieces** of 256 KiB (module `pieces`) are fetched once, whoever wants them (`state`);
//! - how much goes into one request follows from what the link is like (`meter`);
//! - who reads forwards is fetched for ahead of time (`forward`), with at most three quarters of the connections, so that
//!   somebody who waits is served at once;
//! - what came is kept sealed on a disk (`disk`) or, without one, in memory (`held`) as far as there is room. A fetch for
//!   somebody who waits always takes place, and he is given what it brings also if it cannot be kept;
//! - whoever waits longer than the deadline is told so; what failed fails at once for some seconds (`failed`).
//!
//! The threads live only if a far store is read. They are not waited for at the end: one may be stuck in a request.

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

use super::counters::Counters;
use crate::error::Error;
use crate::error::Result;
use crate::store::ByteRange;
use crate::store::Store;
use disk::Disk;
use held::Bytes;
use pieces::PieceAt;
use pool::Pool;

/// How long somebody waits for a store, if nobody says otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(120);
/// Memory for what is fetched, if nobody says otherwise.
pub const FETCH_BYTES_DEFAULT: usize = 48 << 20;
/// How often pieces that are gone again before they could be used are fetched; after that the range itself is.
const ROUNDS_MAX: usize = 3;

/// Where a line about what went wrong and was mended goes.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// How a far store is read. A near one needs none of it.
#[derive(Clone)]
pub struct FetchOptions {
    /// Where what was fetched is kept.
    pub cache: Option<CacheOptions>,
    /// Bytes of memory for what is under way, and for what is kept if there is no disk for it.
    pub memory_bytes: usize,
    /// How long a reader waits at most.
    pub deadline: Duration,
    /// The store is never asked: what is not here is an error.
    pub is_offline: bool,
    /// Bytes that the store may give in all. What would be more is not asked for, and then nothing any more.
    pub fetched_bytes_max: u64,
    /// Fetch for whoever reads forwards before he asks. Without it nothing comes but what is wanted, and the gaps in it.
    pub reads_ahead: bool,
    /// Who hears of damage in the cache.
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

/// Sealed bytes, and whether some of them lay here already: then they may be spoilt, and the store has better ones.
pub(super) struct Sealed {
    pub bytes: Vec<u8>,
    pub was_kept: bool,
}

/// The bytes of volumes.
pub(super) struct Fetch {
    store: Arc<dyn Store>,
    counters: Arc<Counters>,
    /// `None` before a near store.
    pool: Option<Pool>,
}

impl Fetch {
    pub fn new(store: &Arc<dyn Store>, options: FetchOptions, clock: Clock, counters: Arc<Counters>) -> Fetch {
        let pool = store.is_far().then(|| {
            let open = |cache: CacheOptions| {
                let dir = cache.dir.clone();
                let why = |error| (options.say)(&format!("nothing is kept in {}: {error}", dir.display()));
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

    /// How many requests at a time serve the store best.
    pub fn connections(&self) -> usize {
        self.store.connections()
    }

    pub fn now(&self) -> Duration {
        self.pool.as_ref().map_or(Duration::ZERO, Pool::now)
    }

    /// True if the store need not be asked for any of this.
    pub fn is_at_hand(&self, wants: &[Want]) -> bool {
        self.missing_bytes(wants) == 0
    }

    /// Bytes that the store would have to be asked for.
    pub fn missing_bytes(&self, wants: &[Want]) -> u64 {
        self.pool.as_ref().map_or(0, |pool| pool.missing_bytes(wants))
    }

    /// True if all of this lies on a disk of this machine.
    pub fn is_kept(&self, wants: &[Want]) -> bool {
        self.pool.as_ref().is_none_or(|pool| pool.is_kept(wants))
    }

    /// Calls `then` when all of this is at hand, or cannot be had: at once, or later in another thread. Whoever reads
    /// then is told what went wrong.
    pub fn bring(&self, wants: &[Want], then: impl FnOnce() + Send + 'static) {
        match &self.pool {
            Some(pool) => pool.want(wants, false, Box::new(|_| then())),
            None => then(),
        }
    }

    /// Lets all of this be fetched when nothing else is to be done.
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
            // The other end waits below.
            pool.want(std::slice::from_ref(want), true, Box::new(move |outcome| _ = sender.send(outcome)));
            let arrived = match receiver.recv() {
                Ok(Ok(arrived)) => arrived,
                // The object ends sooner than was thought; maybe not before the end of what is wanted.
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

    /// Some of these bytes, which were kept, are not those of the store: they are forgotten.
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

/// Puts a range together from what came for it and what lies here; `None` if something is gone again.
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
        // What lies on the disk is read as far as nothing came in between.
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
