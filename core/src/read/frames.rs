//! Frames in the clear: fetched, opened and decompressed once, and kept while there is room.
//!
//! Whoever asks first for a frame makes it; others who ask meanwhile wait for that one. If making it fails, the waiters
//! try for themselves, so that each gets an error of its own and a passing fault is not passed on. Eviction is second
//! chance: a frame that was used since it was last looked at is spared once.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::catalog::Catalog;
use crate::catalog::VolumeRow;
use crate::compress::Decompressor;
use crate::crypto::Keys;
use crate::crypto::SealKey;
use crate::error::Error;
use crate::error::Result;
use crate::frame;
use crate::repo::Repository;
use crate::repo::object_name;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Store;
use crate::volume::frame_plain_bytes;

/// Names a frame: a volume by its row number in this catalog, and the frame's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameAt {
    /// Row number of the volume.
    pub volume: i64,
    /// Number of the frame.
    pub ordinal: u32,
}

/// A volume that is being read.
struct OpenVolume {
    row: VolumeRow,
    key: SealKey,
    object: ObjectName,
}

enum Slot {
    Making,
    Made { plain: Arc<Vec<u8>>, was_used: bool },
}

#[derive(Default)]
struct Cache {
    slots: HashMap<FrameAt, Slot>,
    order: VecDeque<FrameAt>,
    bytes: usize,
}

/// All frames of a repository, behind a bounded cache.
pub struct Frames {
    store: Arc<dyn Store>,
    keys: Keys,
    catalog: Mutex<Catalog>,
    volumes: Mutex<HashMap<i64, Arc<OpenVolume>>>,
    cache: Mutex<Cache>,
    made: Condvar,
    bytes_max: usize,
}

impl Frames {
    pub(super) fn new(repository: &Repository, bytes_max: usize) -> Result<Frames> {
        Ok(Frames {
            store: Arc::clone(repository.store()),
            keys: repository.keys().clone(),
            catalog: Mutex::new(repository.catalog()?),
            volumes: Mutex::default(),
            cache: Mutex::default(),
            made: Condvar::new(),
            bytes_max,
        })
    }

    /// True if the frame is in memory.
    pub fn is_cached(&self, at: FrameAt) -> bool {
        matches!(self.cache().slots.get(&at), Some(Slot::Made { .. }))
    }

    /// How many frames a volume has.
    pub fn count(&self, volume: i64) -> Result<u32> {
        Ok(u32::try_from(self.volume(volume)?.row.frames.len()).unwrap_or(u32::MAX))
    }

    /// Brings the frame into memory. For reading ahead: a frame that somebody is making already is not waited for.
    pub fn warm(&self, at: FrameAt) -> Result<()> {
        if self.cache().slots.contains_key(&at) { Ok(()) } else { self.get(at).map(|_| ()) }
    }

    /// The frame's plaintext.
    pub fn get(&self, at: FrameAt) -> Result<Arc<Vec<u8>>> {
        let mut cache = self.cache();
        loop {
            match cache.slots.get_mut(&at) {
                Some(Slot::Made { plain, was_used }) => {
                    *was_used = true;
                    return Ok(Arc::clone(plain));
                }
                Some(Slot::Making) => cache = self.made.wait(cache).unwrap_or_else(PoisonError::into_inner),
                None => break,
            }
        }
        cache.slots.insert(at, Slot::Making);
        drop(cache);
        // From here on the slot is filled or freed whatever happens, or others would wait for ever.
        let claim = Claim { frames: self, at };
        let plain = Arc::new(self.make(at)?);
        claim.fill(&plain);
        Ok(plain)
    }

    fn make(&self, at: FrameAt) -> Result<Vec<u8>> {
        let volume = self.volume(at.volume)?;
        let Some((offset, info)) = volume.row.frames.get(at.ordinal as usize).copied() else {
            return Err(Error::corrupt(&volume.object, format!("it has no frame {}", at.ordinal)));
        };
        let range = ByteRange::Part { offset, bytes: u64::from(info.stored_bytes) };
        let sealed = self.store.get(&volume.object, range)?;
        let plain_bytes = frame_plain_bytes(volume.row.plain_bytes, at.ordinal);
        let mut decompressor = Decompressor::new();
        frame::open(&volume.key, volume.row.kind, at.ordinal, plain_bytes, info.codec, &sealed, &mut decompressor)
            .map_err(|e| Error::corrupt(&volume.object, format!("frame {} at offset {offset}: {e}", at.ordinal)))
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

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to fill a slot. If it is dropped unfilled, the slot is freed; the waiters are woken in any case.
struct Claim<'a> {
    frames: &'a Frames,
    at: FrameAt,
}

impl Claim<'_> {
    fn fill(self, plain: &Arc<Vec<u8>>) {
        let mut cache = self.frames.cache();
        // It counts as used: else, where all others are, it would be the first to go, before its second reader came.
        cache.slots.insert(self.at, Slot::Made { plain: Arc::clone(plain), was_used: true });
        cache.order.push_back(self.at);
        cache.bytes += plain.len();
        while cache.bytes > self.frames.bytes_max {
            let Some(oldest) = cache.order.pop_front() else { break };
            match cache.slots.get_mut(&oldest) {
                Some(Slot::Made { was_used, .. }) if *was_used => {
                    *was_used = false;
                    cache.order.push_back(oldest);
                }
                Some(Slot::Made { plain, .. }) => {
                    let bytes = plain.len();
                    cache.slots.remove(&oldest);
                    cache.bytes -= bytes;
                }
                _ => {}
            }
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut cache = self.frames.cache();
        if matches!(cache.slots.get(&self.at), Some(Slot::Making)) {
            cache.slots.remove(&self.at);
        }
        drop(cache);
        self.frames.made.notify_all();
    }
}
