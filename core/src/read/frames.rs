//! Decoded frames: fetched, opened and decompressed once, and kept while there is room (module `cache`).
//!
//! Consecutive frames of a volume are fetched by one request and opened together, in a fraction of the time that single
//! frames take.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

use crate::catalog::Catalog;
use crate::catalog::VolumeRow;
use crate::compress::Decompressor;
use crate::crypto::Keys;
use crate::crypto::SealKey;
use crate::error::Error;
use crate::error::Result;
use crate::frame;
use crate::frame::Stored;
use crate::limits;
use crate::lock::lock;
use crate::objects::volume_object;
use crate::read::cache::Cache;
use crate::read::cache::Claim;
use crate::read::cache::Found;
use crate::read::cache::FrameAt;
use crate::read::cache::Reach;
use crate::read::counters::Counters;
use crate::read::fetch::Clock;
use crate::read::fetch::Failed;
use crate::read::fetch::Fetch;
use crate::read::fetch::FetchOptions;
use crate::read::fetch::Footprint;
use crate::read::fetch::Object;
use crate::read::fetch::SharedError;
use crate::read::fetch::Want;
use crate::repo::Repository;
use crate::volume::frame_plain_bytes;

/// Most frames that are fetched and opened together: two for each lane of the cipher.
pub const RUN_FRAMES_MAX: u32 = 16;

/// The share of the cache that one run may take, because other threads need room too.
const RUN_SHARE: usize = 8;

/// Runs that a reader has in the cache: the one it reads and the one being made.
const RUNS_OF_READER: usize = 2;

/// Volumes whose frame tables are kept.
const VOLUMES_OPEN_MAX: usize = 256;

/// The order in which frames are likely to be requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In the order of the volumes, by one thread or by several: a request for a frame also makes the next ones.
    Forward,
    /// In any order. Callers that know better use [`Frames::warm`].
    Any,
}

/// A volume that is being read.
struct OpenVolume {
    row: VolumeRow,
    key: SealKey,
    object: Arc<Object>,
}

/// All frames of a repository, behind a bounded cache.
pub struct Frames {
    fetch: Fetch,
    keys: Keys,
    catalog: Mutex<Catalog>,
    volumes: Mutex<HashMap<i64, Arc<OpenVolume>>>,
    /// Frames of a far store that did not open, so that an immediate retry does not bother the store.
    damaged: Mutex<Failed<FrameAt>>,
    cache: Cache,
    order: Order,
    run_frames_max: u32,
    counters: Arc<Counters>,
}

impl Frames {
    pub(super) fn new(
        repository: &Repository,
        bytes_max: usize,
        order: Order,
        options: FetchOptions,
    ) -> Result<Frames> {
        let run_frames_max = bytes_max / RUN_SHARE / limits::FRAME_BYTES as usize;
        let counters = Arc::<Counters>::default();
        Ok(Frames {
            fetch: Fetch::new(repository.store(), options, Clock::begin(), Arc::clone(&counters)),
            keys: repository.keys().clone(),
            catalog: Mutex::new(repository.catalog()?),
            volumes: Mutex::default(),
            damaged: Mutex::default(),
            cache: Cache::new(bytes_max),
            order,
            run_frames_max: u32::try_from(run_frames_max).unwrap_or(u32::MAX).clamp(1, RUN_FRAMES_MAX),
            counters,
        })
    }

    /// The cost of making frames so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// True if the frame is in memory.
    pub fn is_cached(&self, at: FrameAt) -> bool {
        self.cache.is_made(at)
    }

    /// True if getting frames takes so long that a thread with other work should not wait for it.
    pub fn is_far(&self) -> bool {
        self.fetch.is_far()
    }

    /// How many sequential readers it takes to keep a far store busy, as far as their frames fit into the cache; one if
    /// the store is near.
    pub fn readers(&self) -> usize {
        let run_bytes = self.run_frames_max as usize * limits::FRAME_BYTES as usize;
        let readers_max = (self.cache.bytes_max() / RUNS_OF_READER / run_bytes).max(1);
        if self.is_far() { self.fetch.connections().clamp(1, readers_max) } else { 1 }
    }

    /// True if these frames can be made without the store.
    pub fn is_at_hand(&self, frames: &[FrameAt]) -> bool {
        !self.is_far() || self.wants(frames).is_ok_and(|wants| self.fetch.is_at_hand(&wants))
    }

    /// Adds what these frames take in the cache of a far store.
    pub fn add_to(&self, footprint: &mut Footprint, frames: &[FrameAt]) -> Result<()> {
        if self.is_far() {
            footprint.add(&self.places(frames.iter())?);
        }
        Ok(())
    }

    /// Calls `then` when these frames can be made without the store, or when [`Frames::get`] will explain why not: at
    /// once, or later in another thread.
    pub fn bring(&self, frames: &[FrameAt], then: impl FnOnce() + Send + 'static) {
        match self.is_far().then(|| self.wants(frames)) {
            Some(Ok(wants)) => self.fetch.bring(&wants, then),
            Some(Err(_)) | None => then(),
        }
    }

    /// Fetches what these frames need from a far store, when nothing else is to be done. Does nothing for a near store.
    pub fn fetch_ahead(&self, frames: &[FrameAt]) {
        if self.is_far()
            && let Ok(wants) = self.wants(frames)
        {
            self.fetch.ahead(&wants);
        }
    }

    /// True if what these frames need is kept on this machine for later readers too, not only in memory.
    pub fn is_kept(&self, frames: &[FrameAt]) -> Result<bool> {
        Ok(!self.is_far() || self.fetch.is_kept(&self.places(frames.iter())?))
    }

    /// Where frames that are not in memory lie.
    fn wants(&self, frames: &[FrameAt]) -> Result<Vec<Want>> {
        self.places(frames.iter().filter(|at| !self.is_cached(**at)))
    }

    /// Where frames lie, one range per stretch.
    fn places<'a>(&self, frames: impl Iterator<Item = &'a FrameAt>) -> Result<Vec<Want>> {
        let mut wants: Vec<Want> = Vec::new();
        for at in frames {
            let want = self.volume(at.volume)?.want(at.ordinal..at.ordinal + 1)?;
            match wants.last_mut() {
                Some(last) if last.object.volume == at.volume && last.range.end == want.range.start => {
                    last.range.end = want.range.end;
                }
                _ => wants.push(want),
            }
        }
        Ok(wants)
    }

    /// How many frames a volume has.
    pub fn count(&self, volume: i64) -> Result<u32> {
        Ok(self.volume(volume)?.count())
    }

    /// Brings frames into memory. Frames that another thread is already making are not waited for.
    pub fn warm(&self, frames: &[FrameAt]) -> Result<()> {
        for claim in self.cache.claim_missing(frames, self.run_frames_max) {
            for plain in self.make(claim) {
                plain?;
            }
        }
        Ok(())
    }

    /// The frame's plaintext.
    pub fn get(&self, at: FrameAt) -> Result<Arc<Vec<u8>>> {
        let mut reach = match self.order {
            Order::Any => None,
            Order::Forward => Some(Reach { frames_max: self.run_frames_max, end: self.volume(at.volume)?.count() }),
        };
        loop {
            match self.cache.find(at, reach) {
                Found::Made(plain) => {
                    self.counters.hit();
                    return Ok(plain);
                }
                Found::Claimed(claim) => {
                    let lost = || {
                        Err(Error::defect(format!("frame {} of volume number {} was not made", at.ordinal, at.volume)))
                    };
                    return self.make(claim).into_iter().next().unwrap_or_else(lost);
                }
                Found::Next(claim) => {
                    // Readers of those frames get the error if they cannot be made.
                    self.make(claim);
                    reach = None;
                }
            }
        }
    }

    /// Makes the claimed frames and returns them, the first one in any case. Bytes that cannot be fetched do not cost
    /// the frames before them; the frames after them are left to their readers.
    fn make(&self, mut claim: Claim<'_>) -> Vec<Result<Arc<Vec<u8>>>> {
        let run = claim.ordinals();
        match self.make_run(claim.volume(), run.clone()) {
            Ok(made) => {
                claim.settle(made.iter().map(|plain| plain.as_ref().ok()));
                made
            }
            Err(error) if run.len() == 1 => {
                self.counters.made(false);
                vec![Err(error)]
            }
            Err(_) => {
                let mut all = Vec::new();
                for ordinal in run {
                    let made = self.make_run(claim.volume(), ordinal..ordinal + 1);
                    let is_last = made.is_err();
                    if is_last {
                        self.counters.made(false);
                    }
                    let made = made.unwrap_or_else(|error| vec![Err(error)]);
                    claim.settle(made.iter().map(|plain| plain.as_ref().ok()));
                    all.extend(made);
                    if is_last {
                        break;
                    }
                }
                all
            }
        }
    }

    /// Fetches, opens and decompresses consecutive frames. Each can fail alone; all fail if nothing arrives.
    fn make_run(&self, volume: i64, run: Range<u32>) -> Result<Vec<Result<Arc<Vec<u8>>>>> {
        let volume = self.volume(volume)?;
        let want = volume.want(run.clone())?;
        if let Some(error) = self.failed_lately(&volume, run.clone()) {
            return Err(error.again());
        }
        let mut sealed = self.fetch.bytes(&want)?;
        let mut made = self.open(&volume, run.clone(), &mut sealed.bytes);
        if sealed.was_kept && made.iter().any(Result::is_err) {
            // Either the cache is damaged or the store is: the store is asked again, once.
            let spoilt = run.clone().zip(&made).filter(|(_, plain)| plain.is_err());
            for (ordinal, _) in spoilt {
                self.fetch.distrust(&volume.want(ordinal..ordinal + 1)?);
            }
            sealed = self.fetch.bytes(&want)?;
            made = self.open(&volume, run.clone(), &mut sealed.bytes);
        }
        if self.fetch.is_far() {
            let mut damaged = self.damaged();
            for (ordinal, error) in run.zip(&made).filter_map(|(ordinal, plain)| Some((ordinal, plain.as_ref().err()?)))
            {
                damaged.insert(volume.at(ordinal), self.fetch.now(), SharedError::of(error));
            }
        }
        Ok(made)
    }

    fn open(&self, volume: &OpenVolume, run: Range<u32>, sealed: &mut [u8]) -> Vec<Result<Arc<Vec<u8>>>> {
        let made = self.counters.decoding(|| volume.open(run, sealed));
        made.iter().for_each(|plain| self.counters.made(plain.is_ok()));
        made
    }

    fn failed_lately(&self, volume: &OpenVolume, run: Range<u32>) -> Option<SharedError> {
        let mut damaged = self.fetch.is_far().then(|| self.damaged())?;
        run.into_iter().find_map(|ordinal| damaged.get(volume.at(ordinal), self.fetch.now()))
    }

    fn damaged(&self) -> MutexGuard<'_, Failed<FrameAt>> {
        lock(&self.damaged)
    }

    fn volume(&self, id: i64) -> Result<Arc<OpenVolume>> {
        let volumes = || lock(&self.volumes);
        if let Some(volume) = volumes().get(&id) {
            return Ok(Arc::clone(volume));
        }
        let row = lock(&self.catalog).volume(id)?;
        let row = row.ok_or_else(|| Error::local_corrupt(format!("volume number {id}"), "it is not in the catalog"))?;
        let name = volume_object(row.kind, row.name);
        let object = Arc::new(Object { volume: id, name, bytes: row.bytes });
        let volume = Arc::new(OpenVolume { key: self.keys.volume(&row.salt), object, row });
        let mut volumes = volumes();
        if volumes.len() >= VOLUMES_OPEN_MAX {
            volumes.clear();
        }
        volumes.insert(id, Arc::clone(&volume));
        Ok(volume)
    }
}

impl OpenVolume {
    fn count(&self) -> u32 {
        u32::try_from(self.row.frames.len()).unwrap_or(u32::MAX)
    }

    fn at(&self, ordinal: u32) -> FrameAt {
        FrameAt { volume: self.object.volume, ordinal }
    }

    /// Where these frames lie.
    fn want(&self, run: Range<u32>) -> Result<Want> {
        let places = self.row.frames.get(run.start as usize..run.end as usize).unwrap_or_default();
        let (Some((start, _)), Some((last, info))) = (places.first(), places.last()) else {
            return Err(Error::local_corrupt(
                &self.object.name,
                format!("a block is placed in frame {}, which it does not have", run.start),
            ));
        };
        Ok(Want { object: Arc::clone(&self.object), range: *start..last + u64::from(info.stored_bytes) })
    }

    /// Opens and decompresses frames that lie end to end in `sealed`.
    fn open(&self, run: Range<u32>, sealed: &mut [u8]) -> Vec<Result<Arc<Vec<u8>>>> {
        let places = self.row.frames.get(run.start as usize..run.end as usize).unwrap_or_default();
        let mut rest = sealed;
        let stored = places.iter().zip(run.clone()).map(|((_, info), ordinal)| {
            let whole = std::mem::take(&mut rest);
            let (bytes, after) = whole.split_at_mut((info.stored_bytes as usize).min(whole.len()));
            rest = after;
            let plain_bytes = frame_plain_bytes(self.row.plain_bytes, ordinal);
            Stored { ordinal, plain_bytes, codec: info.codec, bytes }
        });
        let opened = frame::open_all(&self.key, self.row.kind, stored.collect(), &mut Decompressor::new());
        let made = opened.into_iter().zip(places).zip(run).map(|((plain, (offset, _)), ordinal)| {
            let damaged = |e| Error::corrupt(&self.object.name, format!("frame {ordinal} at offset {offset}: {e}"));
            plain.map(Arc::new).map_err(damaged)
        });
        made.collect()
    }
}
