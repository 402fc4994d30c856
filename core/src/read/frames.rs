//! Frames in the clear: fetched, opened and decompressed once, and kept while there is room (module `cache`).
//!
//! Frames that follow one another in a volume are fetched by one request and opened together, which takes a fraction of
//! the time that they take one by one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::cache::Cache;
use super::cache::Claim;
use super::cache::Found;
use super::cache::FrameAt;
use super::cache::Reach;
use super::counters::Counters;
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
use crate::repo::Repository;
use crate::repo::object_name;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Store;
use crate::volume::frame_plain_bytes;

/// Frames that are fetched and opened together at most: two for each lane of the cipher.
pub const RUN_FRAMES_MAX: u32 = 16;

/// What a run may take of the cache: others have theirs there too.
const RUN_SHARE: usize = 8;

/// In which order frames are likely to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In that of the volumes, by one thread or by several: who asks for a frame gets the next ones made too.
    Forward,
    /// In any. Whoever knows better calls [`Frames::warm`].
    Any,
}

/// A volume that is being read.
struct OpenVolume {
    row: VolumeRow,
    key: SealKey,
    object: ObjectName,
}

/// All frames of a repository, behind a bounded cache.
pub struct Frames {
    store: Arc<dyn Store>,
    keys: Keys,
    catalog: Mutex<Catalog>,
    volumes: Mutex<HashMap<i64, Arc<OpenVolume>>>,
    cache: Cache,
    order: Order,
    run_frames_max: u32,
    counters: Counters,
}

impl Frames {
    pub(super) fn new(repository: &Repository, bytes_max: usize, order: Order) -> Result<Frames> {
        let run_frames_max = bytes_max / RUN_SHARE / limits::FRAME_BYTES as usize;
        Ok(Frames {
            store: Arc::clone(repository.store()),
            keys: repository.keys().clone(),
            catalog: Mutex::new(repository.catalog()?),
            volumes: Mutex::default(),
            cache: Cache::new(bytes_max),
            order,
            run_frames_max: u32::try_from(run_frames_max).unwrap_or(u32::MAX).clamp(1, RUN_FRAMES_MAX),
            counters: Counters::default(),
        })
    }

    /// What making frames has cost so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// True if the frame is in memory.
    pub fn is_cached(&self, at: FrameAt) -> bool {
        self.cache.is_made(at)
    }

    /// How many frames a volume has.
    pub fn count(&self, volume: i64) -> Result<u32> {
        Ok(self.volume(volume)?.count())
    }

    /// Brings frames into memory. Those that somebody is making already are not waited for.
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
                    let lost = || Err(Error::corrupt(format!("volume number {}", at.volume), "a frame was not made"));
                    return self.make(claim).into_iter().next().unwrap_or_else(lost);
                }
                Found::Next(claim) => {
                    // Whoever wants those is told if they cannot be made.
                    self.make(claim);
                    reach = None;
                }
            }
        }
    }

    /// Makes the claimed frames, and gives them, the first one in any case. What lies before bytes that cannot be
    /// fetched is not lost with them; what lies after is left for those who want it.
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

    /// Fetches, opens and decompresses frames that follow one another. Each can fail alone, and all if nothing comes.
    fn make_run(&self, volume: i64, run: Range<u32>) -> Result<Vec<Result<Arc<Vec<u8>>>>> {
        let volume = self.volume(volume)?;
        let places = volume.row.frames.get(run.start as usize..run.end as usize).unwrap_or_default();
        let (Some((start, _)), Some((last, info))) = (places.first(), places.last()) else {
            return Err(Error::corrupt(&volume.object, format!("it has no frame {}", run.start)));
        };
        let mut sealed = self.fetch(&volume, *start..last + u64::from(info.stored_bytes))?;
        let mut rest = sealed.as_mut_slice();
        let stored = places.iter().zip(run.clone()).map(|((_, info), ordinal)| {
            let whole = std::mem::take(&mut rest);
            let (bytes, after) = whole.split_at_mut((info.stored_bytes as usize).min(whole.len()));
            rest = after;
            let plain_bytes = frame_plain_bytes(volume.row.plain_bytes, ordinal);
            Stored { ordinal, plain_bytes, codec: info.codec, bytes }
        });
        let (key, kind) = (&volume.key, volume.row.kind);
        let stored = stored.collect();
        let opened = self.counters.decoding(|| frame::open_all(key, kind, stored, &mut Decompressor::new()));
        opened.iter().for_each(|plain| self.counters.made(plain.is_ok()));
        let made = opened.into_iter().zip(places).zip(run).map(|((plain, (offset, _)), ordinal)| {
            let damaged = |e| Error::corrupt(&volume.object, format!("frame {ordinal} at offset {offset}: {e}"));
            plain.map(Arc::new).map_err(damaged)
        });
        Ok(made.collect())
    }

    /// The one place where sealed bytes of frames are fetched.
    fn fetch(&self, volume: &OpenVolume, range: Range<u64>) -> Result<Vec<u8>> {
        let part = ByteRange::Part { offset: range.start, bytes: range.end - range.start };
        let get = || self.store.get(&volume.object, part);
        self.counters.fetching(get, |got| got.as_ref().map_or(0, Vec::len))
    }

    fn volume(&self, id: i64) -> Result<Arc<OpenVolume>> {
        let volumes = || self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = volumes().get(&id) {
            return Ok(Arc::clone(volume));
        }
        let row = self.catalog.lock().unwrap_or_else(PoisonError::into_inner).volume(id)?;
        let row = row.ok_or_else(|| Error::corrupt(format!("volume number {id}"), "it is not in the catalog"))?;
        let object = object_name(&frame::volume_object(row.kind, row.name))?;
        let volume = Arc::new(OpenVolume { key: self.keys.volume(&row.salt), object, row });
        volumes().insert(id, Arc::clone(&volume));
        Ok(volume)
    }
}

impl OpenVolume {
    fn count(&self) -> u32 {
        u32::try_from(self.row.frames.len()).unwrap_or(u32::MAX)
    }
}
