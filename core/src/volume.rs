//! A volume: the one kind of large object in a store. docs/FORMAT.md draws its bytes.
//!
//! ```text
//! clear header | sealed frames back to back | sealed index, padded inside | clear header again | sealed locator
//! ```
//!
//! The header is repeated near the end, so that one ranged read of the tail gives the salt, the locator and usually the
//! whole index: a catalog is rebuilt from tails alone. No length, name or count stands in clear; padding lies inside
//! the sealed index and hides how many blocks there are.

use crate::compress::Codec;
use crate::crypto::SealKey;
use crate::frame::SEAL_BYTES;
use crate::limits;
use crate::objects::VolumeKind;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// Length of the clear header.
pub const HEADER_BYTES: u64 = 48;
/// Length of the second copy of the header and the sealed locator.
pub const TRAILER_BYTES: u64 = HEADER_BYTES + LOCATOR_PLAIN_BYTES + SEAL_BYTES as u64;

const LOCATOR_PLAIN_BYTES: u64 = 16;
const MAGIC: &[u8; 8] = b"BYGNVOLU";
const SUITE_AES_256_SIV: u8 = 1;
const KEY_MODE_MASTER: u8 = 1;

/// The random bytes from which a volume's key is derived.
pub type Salt = [u8; 32];

/// A frame as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// How it is compressed.
    pub codec: Codec,
    /// Its length in the object, seal included.
    pub stored_bytes: u32,
}

/// A block (in a data volume) or a tree node (in a meta volume) as the index lists it. Blocks lie end to end in the
/// volume's plaintext, so a block's position is the sum of the lengths before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// The bytes of its `BlockId` or `NodeId`.
    pub id: [u8; 32],
    /// Its length.
    pub length: u32,
    /// The rolling checksum; only full-size blocks of file content have one.
    pub checksum: Option<u64>,
}

/// What a volume contains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// All frames in order.
    pub frames: Vec<FrameInfo>,
    /// All blocks in order.
    pub blocks: Vec<BlockInfo>,
}

impl Index {
    /// Bytes of all blocks together, the length of the volume's plaintext.
    pub fn plain_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.length)).sum()
    }

    /// Bytes of all frames together, as stored.
    pub fn frames_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum()
    }

    /// The record's bytes; `block_bytes` is the repository's block size, which identifies full-size blocks.
    fn encode(&self, block_bytes: u32) -> Vec<u8> {
        let mut out = Encoder::new();
        out.varint(u64::from(block_bytes));
        out.varint(self.frames.len() as u64);
        for frame in &self.frames {
            out.u8(frame.codec.to_u8());
            out.varint(u64::from(frame.stored_bytes));
        }
        out.varint(self.blocks.len() as u64);
        for block in &self.blocks {
            out.raw(&block.id);
            out.varint(u64::from(block.length));
            if block.length == block_bytes {
                out.u64(block.checksum.unwrap_or(0));
            }
        }
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Index, DecodeError> {
        let mut input = Decoder::new(bytes);
        let block_bytes = input.varint32("the block size")?;
        let mut index = Index::default();
        for _ in 0..input.count(limits::VOLUME_FRAMES_MAX as usize, "the number of frames")? {
            let codec = Codec::from_u8(input.u8()?).ok_or(DecodeError::Invalid("a frame's codec"))?;
            let stored_bytes = input.varint32("a frame's length")?;
            if !(SEAL_BYTES..=limits::FRAME_BYTES + SEAL_BYTES).contains(&stored_bytes) {
                return Err(DecodeError::Invalid("a frame's length"));
            }
            index.frames.push(FrameInfo { codec, stored_bytes });
        }
        for _ in 0..input.count(limits::VOLUME_BLOCKS_MAX as usize, "the number of blocks")? {
            let id = input.array()?;
            let length = input.varint32("a block's length")?;
            if length == 0 || length > limits::BLOCK_BYTES_MAX {
                return Err(DecodeError::Invalid("a block's length"));
            }
            let checksum = if length == block_bytes { Some(input.u64()?) } else { None };
            index.blocks.push(BlockInfo { id, length, checksum });
        }
        if input.raw(input.remaining())?.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Trailing);
        }
        let frames_needed = index.plain_bytes().div_ceil(u64::from(limits::FRAME_BYTES));
        if frames_needed != index.frames.len() as u64 {
            return Err(DecodeError::Invalid("the number of frames"));
        }
        Ok(index)
    }
}

/// Plaintext bytes of frame `ordinal` of a volume with `plain_bytes` in all: 128 KiB, less for the last one, 0 beyond.
pub fn frame_plain_bytes(plain_bytes: u64, ordinal: u32) -> u32 {
    let start = u64::from(ordinal) * u64::from(limits::FRAME_BYTES);
    let left = plain_bytes.saturating_sub(start);
    u32::try_from(left).unwrap_or(u32::MAX).min(limits::FRAME_BYTES)
}

/// The clear header of a volume.
pub fn header(salt: &Salt) -> Vec<u8> {
    let mut out = Encoder::new();
    out.raw(MAGIC);
    out.raw(&[limits::FORMAT_VERSION, SUITE_AES_256_SIV, KEY_MODE_MASTER, 0]);
    out.raw(&0u32.to_le_bytes());
    out.raw(salt);
    out.finish()
}

/// Reads a clear header.
pub fn parse_header(bytes: &[u8]) -> Result<Salt, DecodeError> {
    let mut input = Decoder::new(bytes);
    if input.array::<8>()? != *MAGIC {
        return Err(DecodeError::Invalid("the magic number"));
    }
    let [version, suite, key_mode, zero] = input.array()?;
    if version > limits::FORMAT_VERSION {
        return Err(DecodeError::TooNew(version));
    }
    if (version, suite, key_mode, zero) != (limits::FORMAT_VERSION, SUITE_AES_256_SIV, KEY_MODE_MASTER, 0) {
        return Err(DecodeError::Invalid("the header"));
    }
    if input.array::<4>()? != [0; 4] {
        return Err(DecodeError::Invalid("the reserved field"));
    }
    let salt = input.array()?;
    input.end()?;
    Ok(salt)
}

/// Everything that follows the frames: sealed index, header, sealed locator.
pub fn seal_tail(key: &SealKey, kind: VolumeKind, salt: &Salt, block_bytes: u32, index: &Index) -> Vec<u8> {
    let header = header(salt);
    let index_offset = HEADER_BYTES + index.frames_bytes();
    let mut plain = index.encode(block_bytes);
    let unpadded = index_offset + plain.len() as u64 + u64::from(SEAL_BYTES) + TRAILER_BYTES;
    let padding = padded_bytes(unpadded) - unpadded;
    plain.resize(plain.len() + usize::try_from(padding).unwrap_or(0), 0);
    let mut out = Encoder::new();
    out.raw(&key.seal(&index_associated_data(kind, &header, index_offset), &plain));
    let index_bytes = out.len() as u64;
    out.raw(&header);
    let mut locator = Encoder::new();
    locator.u64(index_offset);
    locator.u64(index_bytes);
    let object_bytes = index_offset + index_bytes + TRAILER_BYTES;
    out.raw(&key.seal(&locator_associated_data(kind, &header, object_bytes), &locator.finish()));
    out.finish()
}

/// The salt in the last [`TRAILER_BYTES`] of an object; the volume's key is derived from it.
pub fn parse_trailer_salt(trailer: &[u8]) -> Result<Salt, DecodeError> {
    let header = trailer.get(..HEADER_BYTES as usize).ok_or(DecodeError::Short)?;
    parse_header(header)
}

/// Offset and length of the sealed index in an object of `object_bytes` bytes. `None` if the trailer's seal is broken
/// or its content is impossible.
pub fn open_locator(key: &SealKey, kind: VolumeKind, trailer: &[u8], object_bytes: u64) -> Option<(u64, u64)> {
    let (header, sealed) = trailer.split_at_checked(HEADER_BYTES as usize)?;
    let plain = key.open(&locator_associated_data(kind, header, object_bytes), sealed).ok()?;
    let mut input = Decoder::new(&plain);
    let (offset, bytes) = (input.u64().ok()?, input.u64().ok()?);
    let end = offset.checked_add(bytes)?.checked_add(TRAILER_BYTES)?;
    (end == object_bytes && bytes <= u64::from(limits::INDEX_BYTES_MAX) && input.end().is_ok())
        .then_some((offset, bytes))
}

/// Opens the sealed index that lies at `index_offset`.
pub fn open_index(
    key: &SealKey,
    kind: VolumeKind,
    salt: &Salt,
    index_offset: u64,
    sealed: &[u8],
) -> Result<Index, DecodeError> {
    let plain = key
        .open(&index_associated_data(kind, &header(salt), index_offset), sealed)
        .map_err(|_| DecodeError::Invalid("the index's seal"))?;
    let index = Index::decode(&plain)?;
    if HEADER_BYTES + index.frames_bytes() != index_offset {
        return Err(DecodeError::Invalid("the place of the index"));
    }
    Ok(index)
}

fn index_associated_data(kind: VolumeKind, header: &[u8], index_offset: u64) -> Vec<u8> {
    [b"bygone/1 index".as_slice(), &[kind.code()], header, &index_offset.to_le_bytes()].concat()
}

fn locator_associated_data(kind: VolumeKind, header: &[u8], object_bytes: u64) -> Vec<u8> {
    [b"bygone/1 locator".as_slice(), &[kind.code()], header, &object_bytes.to_le_bytes()].concat()
}

/// `bytes` rounded up as PADME does (Nikitin et al., PETS 2019: the length's floating-point form keeps only as many
/// mantissa bits as its exponent has). Steps are at least 4 KiB, because the size of a small volume tells little, and
/// at most 256 KiB, so that a full volume wastes no more than 0.4 %.
fn padded_bytes(bytes: u64) -> u64 {
    let exponent = u64::from(bytes.max(2).ilog2());
    let mantissa_bits = u64::from(exponent.max(1).ilog2()) + 1;
    let step = (1u64 << exponent.saturating_sub(mantissa_bits)).clamp(4 << 10, 256 << 10);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Keys;
    use crate::crypto::MasterKey;
    use crate::id::RepositoryId;
    use proptest::prelude::*;

    fn key(salt: &Salt) -> SealKey {
        Keys::derive(&MasterKey::from_bytes([7; 32]), RepositoryId([1; 16])).volume(salt)
    }

    /// An index whose frames fit its blocks.
    fn index(lengths: &[u32]) -> Index {
        let blocks: Vec<_> = lengths
            .iter()
            .zip(0u8..)
            .map(|(length, n)| BlockInfo {
                id: [n; 32],
                length: *length,
                checksum: (*length == 1 << 20).then_some(u64::from(n) << 40),
            })
            .collect();
        let plain: u64 = lengths.iter().map(|l| u64::from(*l)).sum();
        let frames = (0..plain.div_ceil(u64::from(limits::FRAME_BYTES)))
            .map(|n| FrameInfo { codec: Codec::Lz4, stored_bytes: 1_000 + n as u32 })
            .collect();
        Index { frames, blocks }
    }

    fn tail_of(lengths: &[u32]) -> (Index, Salt, Vec<u8>, u64) {
        let (index, salt) = (index(lengths), [9; 32]);
        let tail = seal_tail(&key(&salt), VolumeKind::Data, &salt, 1 << 20, &index);
        let object_bytes = HEADER_BYTES + index.frames_bytes() + tail.len() as u64;
        (index, salt, tail, object_bytes)
    }

    fn open_tail(kind: VolumeKind, tail: &[u8], object_bytes: u64) -> Option<Index> {
        let trailer = &tail[tail.len() - TRAILER_BYTES as usize..];
        let salt = parse_trailer_salt(trailer).ok()?;
        let (offset, bytes) = open_locator(&key(&salt), kind, trailer, object_bytes)?;
        let start = tail.len() - TRAILER_BYTES as usize - bytes as usize;
        open_index(&key(&salt), kind, &salt, offset, &tail[start..start + bytes as usize]).ok()
    }

    proptest! {
        #[test]
        fn a_tail_gives_back_its_index(lengths in prop::collection::vec(1u32..3_000_000, 0..60)) {
            let (index, _, tail, object_bytes) = tail_of(&lengths);
            prop_assert_eq!(open_tail(VolumeKind::Data, &tail, object_bytes), Some(index));
        }
    }

    #[test]
    fn no_bit_of_a_tail_can_change() {
        let (_, _, tail, object_bytes) = tail_of(&[1 << 20, 5, 70_000]);
        for position in 0..tail.len() {
            let mut flipped = tail.clone();
            flipped[position] ^= 1 << (position % 8);
            assert_eq!(open_tail(VolumeKind::Data, &flipped, object_bytes), None, "byte {position}");
        }
    }

    #[test]
    fn a_tail_belongs_to_one_kind_and_one_length() {
        let (_, _, tail, object_bytes) = tail_of(&[1 << 20]);
        assert_eq!(open_tail(VolumeKind::Meta, &tail, object_bytes), None);
        assert_eq!(open_tail(VolumeKind::Data, &tail, object_bytes + 1), None);
    }

    #[test]
    fn sizes_are_padded_in_steps() {
        let (_, _, _, object_bytes) = tail_of(&[40]);
        assert_eq!(object_bytes % 4096, 0);
        assert_eq!(padded_bytes(64 << 20), 64 << 20);
        assert_eq!(padded_bytes((64 << 20) - 1), 64 << 20);
        assert!(padded_bytes(50_000_001) - 50_000_001 < 256 << 10);
    }

    #[test]
    fn a_later_format_version_is_named_as_such() {
        let mut bytes = header(&[0; 32]);
        bytes[8] = 2;
        assert_eq!(parse_header(&bytes), Err(DecodeError::TooNew(2)));
    }

    #[test]
    fn frames_are_full_but_for_the_last() {
        assert_eq!(frame_plain_bytes(300_000, 0), 131_072);
        assert_eq!(frame_plain_bytes(300_000, 2), 300_000 - 262_144);
        assert_eq!(frame_plain_bytes(300_000, 3), 0);
    }
}
