//! Reading a volume as an object: its index from its tail, and all of its blocks in one pass.
//!
//! This is how a catalog is rebuilt (tails, and the nodes of meta volumes) and how data is checked (everything). It
//! goes by what the volume says of itself and not by what the catalog says of it.

use std::sync::Arc;

use crate::compress::Decompressor;
use crate::crypto::Keys;
use crate::crypto::SealKey;
use crate::error::Error;
use crate::error::Result;
use crate::frame;
use crate::frame::Stored;
use crate::frame::VolumeKind;
use crate::id::VolumeName;
use crate::repo::object_name;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Store;
use crate::volume;
use crate::volume::BlockInfo;
use crate::volume::HEADER_BYTES;
use crate::volume::Index;
use crate::volume::Salt;
use crate::volume::TRAILER_BYTES;
use crate::volume::frame_plain_bytes;

/// Bytes of the tail that are read first: locator and, but for volumes of very many blocks, the whole index.
const TAIL_BYTES: u64 = 64 << 10;
/// Sealed bytes that one request of a pass asks for, at least.
const RUN_BYTES: u64 = 1 << 20;

/// Where the bytes of a volume come from.
enum Bytes {
    Store(Arc<dyn Store>),
    /// All of them, in memory.
    Held(Vec<u8>),
}

impl Bytes {
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
        let object = object_name(&frame::volume_object(kind, name))?;
        VolumeFile::of(Bytes::Store(Arc::clone(store)), keys, kind, object, bytes)
    }

    /// As [`VolumeFile::open`], but fetches the whole object by one request and keeps it.
    pub fn fetch(
        store: &Arc<dyn Store>,
        keys: &Keys,
        kind: VolumeKind,
        name: VolumeName,
        bytes: u64,
    ) -> Result<VolumeFile> {
        let object = object_name(&frame::volume_object(kind, name))?;
        let held = match store.get(&object, ByteRange::Whole { bytes_max: bytes }) {
            Err(Error::Limit { found, .. }) => {
                return Err(Error::corrupt(&object, format!("it has {found} bytes, it was stored with {bytes}")));
            }
            held => held?,
        };
        if held.len() as u64 != bytes {
            let detail = format!("it has {} bytes, it was stored with {bytes}", held.len());
            return Err(Error::corrupt(&object, detail));
        }
        VolumeFile::of(Bytes::Held(held), keys, kind, object, bytes)
    }

    fn of(source: Bytes, keys: &Keys, kind: VolumeKind, object: ObjectName, bytes: u64) -> Result<VolumeFile> {
        let damaged = |detail: &str| Error::corrupt(&object, detail);
        let tail_bytes = bytes.min(TAIL_BYTES);
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
        Ok(VolumeFile { source, object, kind, bytes, salt, key, index })
    }

    /// Frames and blocks.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// From which its key is derived.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// Reads the whole object once, front to back. `raw` is given every byte of it in order; `block` is given every
    /// block with its bytes, or with `None` where a frame that it lies in does not open. Errors are those of the store.
    pub fn pass(&self, mut raw: impl FnMut(&[u8]), mut block: impl FnMut(&BlockInfo, Option<&[u8]>)) -> Result<()> {
        let part = |offset, bytes| self.source.part(&self.object, offset, bytes);
        raw(&part(0, HEADER_BYTES)?);
        let plain_bytes = self.index.plain_bytes();
        let mut blocks = Blocks { rest: &self.index.blocks, bytes: Vec::new(), is_whole: true };
        let mut decompressor = Decompressor::new();
        let mut offset = HEADER_BYTES;
        let mut frames = self.index.frames.iter().zip(0u32..).peekable();
        while frames.peek().is_some() {
            let mut run = Vec::new();
            let mut run_bytes = 0;
            while let Some((info, ordinal)) = frames.next_if(|_| run_bytes < RUN_BYTES) {
                run.push((*info, ordinal));
                run_bytes += u64::from(info.stored_bytes);
            }
            let mut sealed = part(offset, run_bytes)?;
            raw(&sealed);
            offset += run_bytes;
            let mut rest = sealed.as_mut_slice();
            let stored = run.iter().map(|(info, ordinal)| {
                let whole = std::mem::take(&mut rest);
                let (bytes, after) = whole.split_at_mut((info.stored_bytes as usize).min(whole.len()));
                rest = after;
                let plain_bytes = frame_plain_bytes(plain_bytes, *ordinal);
                Stored { ordinal: *ordinal, plain_bytes, codec: info.codec, bytes }
            });
            let plain = frame::open_all(&self.key, self.kind, stored.collect(), &mut decompressor);
            for ((_, ordinal), plain) in run.iter().zip(plain) {
                let length = frame_plain_bytes(plain_bytes, *ordinal) as usize;
                blocks.take(plain.ok().as_deref(), length, &mut block);
            }
        }
        raw(&part(offset, self.bytes - offset)?);
        Ok(())
    }
}

/// Puts blocks together from frames.
struct Blocks<'a> {
    rest: &'a [BlockInfo],
    bytes: Vec<u8>,
    /// False if a frame of the block that is being put together did not open.
    is_whole: bool,
}

impl Blocks<'_> {
    /// Takes a frame of `length` bytes, `None` if it did not open.
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
