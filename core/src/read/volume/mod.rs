//! Reading a volume as an object: its index from its tail, and all of its blocks and nodes in one pass.
//!
//! This is how a catalog is rebuilt (tails, and the nodes of meta volumes) and how data is checked (everything). It
//! relies on what the volume says of itself and not on the catalog.

mod items;
mod open;
mod source;

use std::ops::Range;
use std::sync::Arc;

use crate::compress::Decompressor;
use crate::crypto::Keys;
use crate::crypto::SealKey;
use crate::error::Result;
use crate::frame;
use crate::frame::Stored;
use crate::id::VolumeName;
use crate::limits;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::store::Store;
use crate::volume::FrameInfo;
use crate::volume::Index;
use crate::volume::Item;
use crate::volume::Salt;
use crate::volume::TRAILER_BYTES;
use crate::volume::frame_plain_bytes;

use items::Opening;
use open::Opened;
use source::Source;

/// Bytes of the tail that are read first: the locator and, except in volumes with very many blocks, the whole index.
const TAIL_BYTES: u64 = 64 << 10;
/// Unwanted frames that are fetched all the same if they lie between wanted ones.
const GAP_FRAMES: u64 = 2;
/// Content that one request for some blocks brings, unless a single block is larger.
const RUN_PLAIN_BYTES: u64 = 1 << 20;

/// A volume whose index was read from the store.
pub struct VolumeFile {
    source: Source,
    kind: VolumeKind,
    salt: Salt,
    key: SealKey,
    index: Index,
    /// Where the last copy of the index begins.
    index_offset: u64,
    /// How much of it was read first.
    tail_bytes: u64,
    /// Fewest sealed bytes that one request of a pass asks for.
    run_bytes: u64,
}

impl VolumeFile {
    /// Reads the index of the volume `name`, an object of `bytes` bytes: one request, sometimes two, and more if its
    /// tail is damaged.
    pub fn open(
        store: &Arc<dyn Store>,
        keys: &Keys,
        kind: VolumeKind,
        name: VolumeName,
        bytes: u64,
    ) -> Result<VolumeFile> {
        let mut file = VolumeFile::fetch(store, keys, kind, name, bytes, tail_bytes(kind, bytes))?;
        file.source.release();
        Ok(file)
    }

    /// As [`VolumeFile::open`], but its last `fetched_bytes` bytes come with the first request, and are kept.
    pub fn fetch(
        store: &Arc<dyn Store>,
        keys: &Keys,
        kind: VolumeKind,
        name: VolumeName,
        bytes: u64,
        fetched_bytes: u64,
    ) -> Result<VolumeFile> {
        let tail_bytes = fetched_bytes.max(TRAILER_BYTES).min(bytes);
        let source = Source::open(store, volume_object(kind, name), bytes, tail_bytes)?;
        let Opened { salt, key, index, index_offset } = open::open(&source, keys, kind)?;
        let run_bytes = source.run_bytes();
        Ok(VolumeFile { source, kind, salt, key, index, index_offset, tail_bytes, run_bytes })
    }

    /// How much of it was read first.
    pub fn tail_bytes(&self) -> u64 {
        self.tail_bytes
    }

    /// How many bytes at its end hold what a catalog learns from it: the second index and the trailer, and the frames
    /// of the nodes if there are any.
    pub fn learn_bytes(&self) -> u64 {
        self.source.bytes - self.index.learn_from(self.index_offset)
    }

    /// Frames, blocks and nodes.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Its index, and the salt that its key is derived from.
    pub fn into_index(self) -> (Index, Salt) {
        (self.index, self.salt)
    }

    /// The salt that its key is derived from.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// Reads some of its items, given by their numbers in ascending order, and little more than their frames. Items in
    /// a frame that does not open are left out.
    pub fn some(&self, numbers: &[usize], mut item: impl FnMut(&Item, &[u8])) -> Result<()> {
        self.runs(numbers).iter().try_for_each(|run| self.run(run, &mut item))
    }

    /// Stored bytes that [`VolumeFile::some`] would read.
    pub fn some_bytes(&self, numbers: &[usize]) -> u64 {
        let bytes = |run: &Vec<Item>| stored_bytes(self.index.frames.get(frames_of(run)).unwrap_or_default());
        self.runs(numbers).iter().map(bytes).sum()
    }

    /// These items, grouped by closeness.
    fn runs(&self, numbers: &[usize]) -> Vec<Vec<Item>> {
        let frame_bytes = u64::from(limits::FRAME_BYTES);
        let mut wanted = numbers.iter().copied().peekable();
        let mut runs: Vec<Vec<Item>> = Vec::new();
        for (number, item) in self.index.items().enumerate() {
            if wanted.next_if_eq(&number).is_none() {
                continue;
            }
            let open = runs.last_mut().filter(|run| {
                let first = run.first().map_or(item.position, |first| first.position);
                let end = run.last().map_or(item.position, Item::end);
                item.position / frame_bytes <= end / frame_bytes + GAP_FRAMES && item.end() - first <= RUN_PLAIN_BYTES
            });
            match open {
                Some(run) => run.push(item),
                None => runs.push(vec![item]),
            }
        }
        runs
    }

    /// Reads items that lie close together.
    fn run(&self, items: &[Item], item: &mut impl FnMut(&Item, &[u8])) -> Result<()> {
        let frame_bytes = u64::from(limits::FRAME_BYTES);
        let Range { start: first, end } = frames_of(items);
        let frames = self.index.frames.get(first..end).unwrap_or_default();
        let mut sealed = self.source.part(self.index.frame_offset(first), stored_bytes(frames))?;
        let plain = self.open_frames(first, frames, &mut sealed, &mut Decompressor::new());
        for info in items {
            let mut bytes = Vec::with_capacity(info.length as usize);
            while bytes.len() < info.length as usize {
                let here = info.position + bytes.len() as u64;
                let number = usize::try_from(here / frame_bytes).unwrap_or(usize::MAX).wrapping_sub(first);
                let from = usize::try_from(here % frame_bytes).unwrap_or(usize::MAX);
                let Some(frame) = plain.get(number).and_then(|plain| plain.as_ref()?.get(from..)) else { break };
                let part = frame.get(..frame.len().min(info.length as usize - bytes.len())).unwrap_or_default();
                if part.is_empty() {
                    break;
                }
                bytes.extend_from_slice(part);
            }
            if bytes.len() == info.length as usize {
                item(info, &bytes);
            }
        }
        Ok(())
    }

    /// Opens `frames`, which lie end to end in `sealed` and start with number `first`: `None` for each that does not
    /// open.
    fn open_frames(
        &self,
        first: usize,
        frames: &[FrameInfo],
        sealed: &mut [u8],
        decompressor: &mut Decompressor,
    ) -> Vec<Option<Vec<u8>>> {
        let plain_bytes = self.index.plain_bytes();
        let mut rest = sealed;
        let stored = frames.iter().zip(u32::try_from(first).unwrap_or(u32::MAX)..).map(|(info, ordinal)| {
            let whole = std::mem::take(&mut rest);
            let (bytes, after) = whole.split_at_mut((info.stored_bytes as usize).min(whole.len()));
            rest = after;
            Stored { ordinal, plain_bytes: frame_plain_bytes(plain_bytes, ordinal), codec: info.codec, bytes }
        });
        let opened = frame::open_all(&self.key, self.kind, stored.collect(), decompressor);
        opened.into_iter().map(std::result::Result::ok).collect()
    }

    /// Reads the whole object once, front to back. `raw` gets every byte of it in order; `item` gets every block and
    /// node with its bytes, or with `None` if one of its frames does not open. Errors are those of the store. The bytes
    /// before and after the frames are requested together with the frames next to them.
    pub fn pass(&self, mut raw: impl FnMut(&[u8]), mut item: impl FnMut(&Item, Option<&[u8]>)) -> Result<()> {
        let mut opening = Opening::new(self, 0, 0);
        let object_bytes = self.source.bytes;
        let (mut read, mut offset) = (0, self.index.frames_at);
        while read < object_bytes {
            let run = run_of(opening.left(), self.run_bytes);
            let frames_end = offset + stored_bytes(run);
            let is_last = run.len() == opening.left().len();
            let has_tail = is_last && (run.is_empty() || object_bytes.saturating_sub(frames_end) <= self.run_bytes);
            let end = if has_tail { object_bytes } else { frames_end };
            let mut bytes = self.source.part(read, end.saturating_sub(read))?;
            raw(&bytes);
            let sealed = usize::try_from(offset - read).ok().and_then(|at| bytes.get_mut(at..)).unwrap_or_default();
            opening.open(run, sealed, &mut item);
            (read, offset) = (end, frames_end);
        }
        Ok(())
    }

    /// Reads the frames of its nodes, front to back. `node` gets every node with its bytes, or with `None` if one of its
    /// frames does not open.
    pub fn nodes(&self, mut node: impl FnMut(&Item, Option<&[u8]>)) -> Result<()> {
        let first = self.index.nodes_frame();
        let mut opening = Opening::new(self, first, self.index.nodes_at());
        let mut offset = self.index.frame_offset(first);
        while !opening.left().is_empty() {
            let run = run_of(opening.left(), self.run_bytes);
            let mut sealed = self.source.part(offset, stored_bytes(run))?;
            opening.open(run, &mut sealed, &mut node);
            offset += stored_bytes(run);
        }
        Ok(())
    }
}

/// The numbers of the frames that contain these consecutive items.
fn frames_of(items: &[Item]) -> Range<usize> {
    let (Some(first), Some(last)) = (items.first(), items.last()) else { return 0..0 };
    let frame_bytes = u64::from(limits::FRAME_BYTES);
    let start = usize::try_from(first.position / frame_bytes).unwrap_or(usize::MAX);
    let end = usize::try_from(last.end().div_ceil(frame_bytes)).unwrap_or(usize::MAX);
    start..end
}

fn stored_bytes(frames: &[FrameInfo]) -> u64 {
    frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum()
}

/// The first of these frames, at least `run_bytes` long unless there are no more.
fn run_of(frames: &[FrameInfo], run_bytes: u64) -> &[FrameInfo] {
    let mut bytes = 0;
    let end = frames.iter().position(|frame| {
        bytes += u64::from(frame.stored_bytes);
        bytes >= run_bytes
    });
    end.and_then(|last| frames.get(..=last)).unwrap_or(frames)
}

/// How much of the tail is read first: nodes are so large that the index of a meta volume is a small part of it.
fn tail_bytes(kind: VolumeKind, bytes: u64) -> u64 {
    match kind {
        VolumeKind::Data => TAIL_BYTES.min(bytes),
        VolumeKind::Meta => (bytes / 32).clamp(TAIL_BYTES / 4, TAIL_BYTES).min(bytes),
    }
}
