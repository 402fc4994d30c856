//! Reading a volume as an object: its index from its tail, and all of its blocks in one pass.
//!
//! This is how a catalog is rebuilt (tails, and the nodes of meta volumes) and how data is checked (everything). It
//! relies on what the volume says of itself and not on the catalog.

use std::ops::Range;
use std::sync::Arc;

use crate::compress::Decompressor;
use crate::crypto::Keys;
use crate::crypto::SealKey;
use crate::error::Error;
use crate::error::Result;
use crate::frame;
use crate::frame::Stored;
use crate::id::VolumeName;
use crate::limits;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Store;
use crate::volume;
use crate::volume::BlockInfo;
use crate::volume::FrameInfo;
use crate::volume::HEADER_BYTES;
use crate::volume::Index;
use crate::volume::Salt;
use crate::volume::TRAILER_BYTES;
use crate::volume::frame_plain_bytes;

/// Bytes of the tail that are read first: the locator and, except in volumes with very many blocks, the whole index.
const TAIL_BYTES: u64 = 64 << 10;
/// Fewest sealed bytes that one request of a pass asks for, in a near store.
const RUN_BYTES: u64 = 1 << 20;
/// The same in a far store, where waiting should be short compared with the transfer, unless so many parallel requests
/// take too much memory.
const RUN_BYTES_FAR: u64 = 4 << 20;
/// Frames that are opened together: two for each lane of the cipher.
const OPEN_FRAMES: usize = 16;
/// Memory for the runs of all connections of a far store together.
const RUNS_BYTES_FAR: u64 = 32 << 20;
/// Unwanted frames that are fetched all the same if they lie between wanted ones.
const GAP_FRAMES: u64 = 2;
/// Content that one request for some blocks brings, unless a single block is larger.
const RUN_PLAIN_BYTES: u64 = 1 << 20;

/// Where the bytes of a volume come from.
enum Bytes {
    Store(Arc<dyn Store>),
    /// All of them, in memory.
    Held(Vec<u8>),
}

impl Bytes {
    fn run_bytes(&self) -> u64 {
        match self {
            Bytes::Store(store) if store.is_far() => {
                (RUNS_BYTES_FAR / store.connections().max(1) as u64).clamp(RUN_BYTES, RUN_BYTES_FAR)
            }
            _ => RUN_BYTES,
        }
    }

    fn part(&self, object: &ObjectName, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        match self {
            Bytes::Store(store) => store.get(object, ByteRange::Part { offset, bytes }),
            Bytes::Held(held) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
                let part = held.get(start..end).map(<[u8]>::to_vec);
                part.ok_or_else(|| Error::corrupt(object, "it is too short"))
            }
        }
    }
}

/// A volume whose index was read from the store.
pub struct VolumeFile {
    source: Bytes,
    object: ObjectName,
    kind: VolumeKind,
    bytes: u64,
    salt: Salt,
    key: SealKey,
    index: Index,
    /// Fewest sealed bytes that one request of a pass asks for.
    run_bytes: u64,
}

impl VolumeFile {
    /// Reads the index of the volume `name`, an object of `bytes` bytes: one request, sometimes two.
    pub fn open(
        store: &Arc<dyn Store>,
        keys: &Keys,
        kind: VolumeKind,
        name: VolumeName,
        bytes: u64,
    ) -> Result<VolumeFile> {
        let object = volume_object(kind, name);
        VolumeFile::of(Bytes::Store(Arc::clone(store)), keys, kind, object, bytes)
    }

    /// As [`VolumeFile::open`], but fetches the whole object in one request and keeps it.
    pub fn fetch(
        store: &Arc<dyn Store>,
        keys: &Keys,
        kind: VolumeKind,
        name: VolumeName,
        bytes: u64,
    ) -> Result<VolumeFile> {
        let object = volume_object(kind, name);
        let held = match store.get(&object, ByteRange::Whole { bytes_max: bytes }) {
            Err(Error::Limit { found, .. }) => {
                return Err(Error::corrupt(&object, format!("its length is {found} instead of {bytes} bytes")));
            }
            held => held?,
        };
        if held.len() as u64 != bytes {
            let detail = format!("its length is {} instead of {bytes} bytes", held.len());
            return Err(Error::corrupt(&object, detail));
        }
        VolumeFile::of(Bytes::Held(held), keys, kind, object, bytes)
    }

    fn of(source: Bytes, keys: &Keys, kind: VolumeKind, object: ObjectName, bytes: u64) -> Result<VolumeFile> {
        let damaged = |detail: &str| Error::corrupt(&object, detail);
        let tail_bytes = tail_bytes(kind, bytes);
        if bytes < HEADER_BYTES + TRAILER_BYTES {
            return Err(damaged("it is too short for a volume"));
        }
        let tail = source.part(&object, bytes - tail_bytes, tail_bytes)?;
        let trailer = tail.get(tail.len().saturating_sub(TRAILER_BYTES as usize)..).unwrap_or_default();
        let salt =
            volume::parse_trailer_salt(trailer).map_err(|e| Error::corrupt(&object, format!("its trailer: {e}")))?;
        let key = keys.volume(&salt);
        let (offset, index_bytes) = volume::open_locator(&key, kind, trailer, bytes)
            .ok_or_else(|| damaged("the seal of its locator is broken"))?;
        let tail_offset = bytes - tail_bytes;
        let sealed = if offset >= tail_offset {
            let start = usize::try_from(offset - tail_offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(index_bytes).unwrap_or(usize::MAX));
            tail.get(start..end).map(<[u8]>::to_vec).ok_or_else(|| damaged("its locator points nowhere"))?
        } else {
            source.part(&object, offset, index_bytes)?
        };
        let index = volume::open_index(&key, kind, &salt, offset, &sealed)
            .map_err(|e| Error::corrupt(&object, format!("its index: {e}")))?;
        let run_bytes = source.run_bytes();
        Ok(VolumeFile { source, object, kind, bytes, salt, key, index, run_bytes })
    }

    /// About how much of it was read to open it.
    pub fn tail_bytes(&self) -> u64 {
        tail_bytes(self.kind, self.bytes)
    }

    /// Frames and blocks.
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

    /// Reads some of its blocks, given by their numbers in ascending order, and little more than their frames. Blocks
    /// in a frame that does not open are left out.
    pub fn some(&self, numbers: &[usize], mut block: impl FnMut(&BlockInfo, &[u8])) -> Result<()> {
        self.runs(numbers).iter().try_for_each(|run| self.run(run, &mut block))
    }

    /// Stored bytes that [`VolumeFile::some`] would read.
    pub fn some_bytes(&self, numbers: &[usize]) -> u64 {
        let bytes =
            |run: &Vec<(&BlockInfo, u64)>| stored_bytes(self.index.frames.get(frames_of(run)).unwrap_or_default());
        self.runs(numbers).iter().map(bytes).sum()
    }

    /// These blocks with their positions, grouped by closeness.
    fn runs(&self, numbers: &[usize]) -> Vec<Vec<(&BlockInfo, u64)>> {
        let frame_bytes = u64::from(limits::FRAME_BYTES);
        let mut wanted = numbers.iter().copied().peekable();
        let mut runs: Vec<Vec<(&BlockInfo, u64)>> = Vec::new();
        let mut position = 0;
        for (number, info) in self.index.blocks.iter().enumerate() {
            let start = position;
            position += u64::from(info.length);
            if wanted.next_if_eq(&number).is_none() {
                continue;
            }
            let open = runs.last_mut().filter(|run| {
                let first = run.first().map_or(start, |(_, first)| *first);
                let end = run.last().map_or(start, |(last, at)| at + u64::from(last.length));
                start / frame_bytes <= end / frame_bytes + GAP_FRAMES && position - first <= RUN_PLAIN_BYTES
            });
            match open {
                Some(run) => run.push((info, start)),
                None => runs.push(vec![(info, start)]),
            }
        }
        runs
    }

    /// Reads blocks that lie close together, each with its position.
    fn run(&self, blocks: &[(&BlockInfo, u64)], block: &mut impl FnMut(&BlockInfo, &[u8])) -> Result<()> {
        let frame_bytes = u64::from(limits::FRAME_BYTES);
        let Range { start: first, end } = frames_of(blocks);
        let offset = HEADER_BYTES + stored_bytes(self.index.frames.get(..first).unwrap_or_default());
        let frames = self.index.frames.get(first..end).unwrap_or_default();
        let mut sealed = self.source.part(&self.object, offset, stored_bytes(frames))?;
        let plain = self.open_frames(first, frames, &mut sealed, &mut Decompressor::new());
        for (info, at) in blocks {
            let mut bytes = Vec::with_capacity(info.length as usize);
            while bytes.len() < info.length as usize {
                let here = at + bytes.len() as u64;
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
                block(info, &bytes);
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

    /// Reads the whole object once, front to back. `raw` gets every byte of it in order; `block` gets every block with
    /// its bytes, or with `None` if one of its frames does not open. Errors are those of the store. The bytes before
    /// and after the frames are requested together with the frames next to them.
    pub fn pass(&self, mut raw: impl FnMut(&[u8]), mut block: impl FnMut(&BlockInfo, Option<&[u8]>)) -> Result<()> {
        let plain_bytes = self.index.plain_bytes();
        let mut blocks = Blocks { rest: &self.index.blocks, bytes: Vec::new(), is_whole: true };
        let mut decompressor = Decompressor::new();
        let mut first = 0;
        let (mut read, mut offset) = (0, HEADER_BYTES);
        while read < self.bytes {
            let run = run_of(self.index.frames.get(first..).unwrap_or_default(), self.run_bytes);
            let frames_end = offset + stored_bytes(run);
            let is_last = first + run.len() == self.index.frames.len();
            let has_tail = is_last && (run.is_empty() || self.bytes.saturating_sub(frames_end) <= self.run_bytes);
            let end = if has_tail { self.bytes } else { frames_end };
            let mut bytes = self.source.part(&self.object, read, end.saturating_sub(read))?;
            raw(&bytes);
            let mut sealed = usize::try_from(offset - read).ok().and_then(|at| bytes.get_mut(at..)).unwrap_or_default();
            // Well-compressed data is large when open, so it is opened bit by bit.
            for frames in run.chunks(OPEN_FRAMES) {
                let length = usize::try_from(stored_bytes(frames)).unwrap_or(usize::MAX).min(sealed.len());
                let (now, later) = std::mem::take(&mut sealed).split_at_mut(length);
                sealed = later;
                let plain = self.open_frames(first, frames, now, &mut decompressor);
                for (plain, ordinal) in plain.iter().zip(u32::try_from(first).unwrap_or(u32::MAX)..) {
                    blocks.take(plain.as_deref(), frame_plain_bytes(plain_bytes, ordinal) as usize, &mut block);
                }
                first += frames.len();
            }
            (read, offset) = (end, frames_end);
        }
        Ok(())
    }
}

/// The numbers of the frames that contain these consecutive blocks.
fn frames_of(blocks: &[(&BlockInfo, u64)]) -> Range<usize> {
    let (Some((_, start)), Some((last, last_at))) = (blocks.first(), blocks.last()) else { return 0..0 };
    let frame_bytes = u64::from(limits::FRAME_BYTES);
    let first = usize::try_from(start / frame_bytes).unwrap_or(usize::MAX);
    let end = usize::try_from((last_at + u64::from(last.length)).div_ceil(frame_bytes)).unwrap_or(usize::MAX);
    first..end
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

/// Assembles blocks from frames.
struct Blocks<'a> {
    rest: &'a [BlockInfo],
    bytes: Vec<u8>,
    /// False if a frame of the current block did not open.
    is_whole: bool,
}

impl Blocks<'_> {
    /// Takes a frame of `length` bytes; `None` if it did not open.
    fn take(&mut self, plain: Option<&[u8]>, length: usize, block: &mut impl FnMut(&BlockInfo, Option<&[u8]>)) {
        let mut left = length;
        let mut plain = plain;
        while let Some((info, after)) = self.rest.split_first().filter(|_| left > 0) {
            let wanted = (info.length as usize - self.bytes.len()).min(left);
            match plain.and_then(|bytes| bytes.split_at_checked(wanted)) {
                Some((now, later)) => {
                    self.bytes.extend_from_slice(now);
                    plain = Some(later);
                }
                None => {
                    self.is_whole = false;
                    self.bytes.resize(self.bytes.len() + wanted, 0);
                }
            }
            left -= wanted;
            if self.bytes.len() == info.length as usize {
                block(info, self.is_whole.then_some(self.bytes.as_slice()));
                self.rest = after;
                self.bytes.clear();
                self.is_whole = true;
            }
        }
    }
}
