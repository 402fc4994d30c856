//! The river that reads: from a path to its bytes.
//!
//! ```text
//! path -> catalog (View, Directory) -> extents (FileMap) -> frames: fetch -> open -> decompress -> cache -> bytes
//! ```
//!
//! Metadata comes from the catalog alone and never touches the store. Data comes frame by frame; a frame that several
//! threads want at once is fetched and opened once, and a bounded cache keeps the latest ones. A [`Reader`] is shared
//! by all threads, a [`View`] belongs to one.

mod cache;
mod counters;
mod directory;
mod fetch;
mod frames;
mod history;
mod map;
mod stored;
mod view;
mod volume;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use map::Page;
use map::Segment;

use crate::catalog::Catalog;
use crate::error::Error;
use crate::error::Result;
use crate::hash::IdKeys;
use crate::id::hex;
use crate::lock::lock;
use crate::repo::Repository;

pub use cache::FrameAt;
pub use counters::Counters;
pub use counters::Counts;
pub use directory::Directory;
pub use directory::Item;
pub use fetch::CacheOptions;
pub use fetch::CacheReader;
pub use fetch::CacheUsage;
pub use fetch::FetchOptions;
pub use fetch::Footprint;
pub use fetch::Say;
pub use fetch::cache_clear;
pub use fetch::cache_usage;
pub use frames::Frames;
pub use frames::Order;
pub use frames::RUN_FRAMES_MAX;
pub use history::Access;
pub use history::Difference;
pub use history::Era;
pub use history::Lifetime;
pub use map::FileMap;
pub use stored::StoredContent;
pub use view::Totals;
pub use view::View;
pub use volume::VolumeFile;

/// How much of a long file is examined at a time.
const LOOK_BYTES: u64 = 64 << 20;

/// Whether blocks are checked against their ids as they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Every block that lies wholly in the range is hashed and compared: for restore.
    Blocks,
    /// The seals of the frames are enough: for a mount, which reads pieces of blocks.
    Seals,
}

/// Reads files of a repository. Shared by all threads.
pub struct Reader {
    frames: Frames,
    ids: IdKeys,
    block_bytes: u32,
    catalog_path: PathBuf,
    /// Looks up the extents of very long files while they are read.
    catalog: Mutex<Catalog>,
}

impl Reader {
    /// A reader whose cache of decoded frames holds up to `cache_bytes_max` bytes.
    pub fn new(repository: &Repository, cache_bytes_max: usize, order: Order) -> Result<Reader> {
        Reader::fetching(repository, cache_bytes_max, order, FetchOptions::default())
    }

    /// As [`Reader::new`], with options for a far store.
    pub fn fetching(
        repository: &Repository,
        cache_bytes_max: usize,
        order: Order,
        options: FetchOptions,
    ) -> Result<Reader> {
        Ok(Reader {
            frames: Frames::new(repository, cache_bytes_max, order, options)?,
            ids: repository.keys().ids().clone(),
            block_bytes: repository.config().block_bytes,
            catalog_path: repository.catalog_path(),
            catalog: Mutex::new(repository.catalog()?),
        })
    }

    /// A view of the catalog for the calling thread.
    pub fn view(&self) -> Result<View> {
        View::open(&self.catalog_path, &self.ids)
    }

    /// Size of a full block; files are cut at its multiples.
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The frames, for reading ahead.
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Up to `length` bytes of a file from `offset` on; fewer only at its end.
    pub fn read(&self, file: &FileMap, offset: u64, length: usize, verify: Verify) -> Result<Vec<u8>> {
        let end = file.length().min(offset.saturating_add(length as u64));
        let mut out = Vec::with_capacity(usize::try_from(end.saturating_sub(offset)).unwrap_or(0));
        if let Some(inline) = file.inline() {
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            let bytes = range.and_then(|(start, end)| inline.get(start..end));
            out.extend_from_slice(bytes.unwrap_or_default());
            return Ok(out);
        }
        self.for_segments(file, offset..end, |segment, range| {
            let (start, is_whole) = (out.len(), range == (0..segment.length));
            self.read_segment(segment, range, &mut out)?;
            if verify == Verify::Blocks && is_whole {
                self.verify(segment, out.get(start..).unwrap_or_default())?;
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// The same bytes, if everything they need is in memory: never waits for the store or a decoder.
    pub fn read_cached(&self, file: &FileMap, offset: u64, length: usize) -> Option<Vec<u8>> {
        let end = file.length().min(offset.saturating_add(length as u64));
        if offset < end && file.inline().is_none() {
            file.loaded_page(offset).filter(|page| page.end() >= end)?;
            let frames = self.frames_of(file, offset..end).ok()?;
            if !frames.iter().all(|frame| self.frames.is_cached(*frame)) {
                return None;
            }
        }
        // A frame may be evicted between the look and the read; then this decodes, which is rare and still correct.
        self.read(file, offset, length, Verify::Seals).ok()
    }

    /// The frames of a range of a file, in order, for reading ahead.
    pub fn frames_of(&self, file: &FileMap, range: Range<u64>) -> Result<Vec<FrameAt>> {
        let mut found = Vec::new();
        if file.inline().is_none() {
            let range = range.start..range.end.min(file.length());
            self.for_segments(file, range, |segment, range| {
                found.extend(segment.frames(range));
                Ok(())
            })?;
        }
        found.dedup();
        Ok(found)
    }

    /// True if the whole file can be read without a far store by every reader that uses the same cache.
    pub fn is_kept(&self, file: &FileMap) -> Result<bool> {
        let mut at = 0;
        while self.frames.is_far() && at < file.length() {
            let until = at.saturating_add(LOOK_BYTES);
            if !self.frames.is_kept(&self.frames_of(file, at..until)?)? {
                return Ok(false);
            }
            at = until;
        }
        Ok(true)
    }

    /// The first offset at or after `offset` that lies in data; `None` if there is none.
    pub fn data_from(&self, file: &FileMap, offset: u64) -> Result<Option<u64>> {
        self.scan(file, offset, |segment| segment.at.is_some())
    }

    /// The first offset at or after `offset` that lies in a hole; the end of the file counts as one. `None` if `offset`
    /// is not in the file.
    pub fn hole_from(&self, file: &FileMap, offset: u64) -> Result<Option<u64>> {
        let end = (offset < file.length()).then_some(file.length());
        Ok(self.scan(file, offset, |segment| segment.at.is_none())?.or(end))
    }

    fn scan(&self, file: &FileMap, offset: u64, is_wanted: impl Fn(&Segment) -> bool) -> Result<Option<u64>> {
        if file.inline().is_some() {
            return Ok((offset < file.length() && is_wanted(&Segment::inline(file.length()))).then_some(offset));
        }
        let mut at = offset;
        while at < file.length() {
            let page = self.page(file, at)?;
            for segment in page.segments_from(at) {
                if is_wanted(segment) {
                    return Ok(Some(at));
                }
                at = segment.end();
            }
        }
        Ok(None)
    }

    /// Calls `each` with every segment of a range and the part of it inside the range.
    fn for_segments(
        &self,
        file: &FileMap,
        range: Range<u64>,
        mut each: impl FnMut(&Segment, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let page = self.page(file, at)?;
            for segment in page.segments_from(at) {
                if at >= range.end {
                    break;
                }
                let until = segment.end().min(range.end);
                each(segment, at - segment.start..until - segment.start)?;
                at = until;
            }
        }
        Ok(())
    }

    /// The page that contains `offset`; at least one of its segments ends after `offset`.
    fn page(&self, file: &FileMap, offset: u64) -> Result<Arc<Page>> {
        if let Some(page) = file.loaded_page(offset) {
            return Ok(page);
        }
        let catalog = lock(&self.catalog);
        file.load_page(&catalog, offset)
    }

    /// Appends a range of a segment to `out`.
    fn read_segment(&self, segment: &Segment, range: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        let Some(place) = segment.place(range.clone()) else {
            out.resize(out.len() + usize::try_from(range.end - range.start).unwrap_or(0), 0);
            return Ok(());
        };
        let place: Vec<(FrameAt, Range<usize>)> = place.collect();
        if place.len() > 1 {
            let frames: Vec<FrameAt> = place.iter().map(|(frame, _)| *frame).collect();
            self.frames.warm(&frames)?;
        }
        for (frame, part) in place {
            let plain = self.frames.get(frame)?;
            let bytes = plain.get(part).ok_or_else(|| {
                Error::local_corrupt(format!("block {}", hex(&segment.id)), "it is placed beyond the end of its volume")
            })?;
            out.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn verify(&self, segment: &Segment, bytes: &[u8]) -> Result<()> {
        if segment.at.is_none() || self.ids.block(bytes).0 == segment.id {
            return Ok(());
        }
        let block = format!("block {}", hex(&segment.id));
        Err(Error::corrupt(block, "its bytes are not the ones that were backed up"))
    }
}
