//! A volume: the one kind of large object in a store. docs/FORMAT.md draws its bytes.
//!
//! ```text
//! header | frames back to back | index | locator | gap | index again | header again | locator again
//! ```
//!
//! A small volume, whose frames can wait for its index, has index and locator before the frames, so the frames are most
//! of its gap.
//!
//! Damage costs what it hits: the index, the locator and the header stand twice, with a gap between them that no single
//! stretch of 4 KiB reaches across. So one ranged read of the tail usually gives all that is needed to know a volume,
//! and a damaged tail costs nothing but a search for the copies. No length, name or count stands in clear, and the
//! padding, which is part of the gap, looks like everything else.

mod header;
mod index;
mod locator;

use crate::crypto::SealKey;
use crate::frame::SEAL_BYTES;
use crate::limits;
use crate::objects::VolumeKind;
use crate::wire::padded_bytes;

pub use header::HEADER_BYTES;
pub use header::Salt;
pub use header::header;
pub use header::parse_header;
pub use index::BlockInfo;
pub use index::FrameInfo;
pub use index::Index;
pub use index::Item;
pub use index::ItemKind;
pub use index::NodeInfo;
pub use index::open_index;
pub use locator::FirstIndex;
pub use locator::LOCATOR_BYTES;
pub use locator::Locator;
pub use locator::TRAILER_BYTES;

use index::IndexSeal;
use locator::Layout;

/// Bytes that lie at least between the two copies of whatever stands twice, so that one damaged stretch of as many
/// bytes never hits both.
const GAP_BYTES_MIN: u64 = 4 << 10;

/// Longest step in which lengths of volumes grow, so that a full volume wastes no more than 0.4 %.
const PADDING_STEP_BYTES_MAX: u64 = 256 << 10;

/// Bytes of an object besides frames and index entries, before padding.
pub const OVERHEAD_BYTES: u64 =
    HEADER_BYTES + LOCATOR_BYTES + GAP_BYTES_MIN + TRAILER_BYTES + 2 * (SEAL_BYTES as u64 + INDEX_COUNTS_BYTES);

/// The counts and the size in an index, at most.
const INDEX_COUNTS_BYTES: u64 = 16;

/// Everything of a volume but its frames.
pub struct Ends {
    /// What lies before the frames.
    pub head: Vec<u8>,
    /// What lies behind them.
    pub tail: Vec<u8>,
    /// How many bytes at the end of the object hold what a catalog learns from the volume: the second index and the
    /// trailer, and the frames of the nodes if there are any.
    pub learn_bytes: u64,
}

/// Plaintext bytes of frame `ordinal` of a volume with `plain_bytes` in all: 128 KiB, less for the last one, 0 beyond.
pub fn frame_plain_bytes(plain_bytes: u64, ordinal: u32) -> u32 {
    let start = u64::from(ordinal) * u64::from(limits::FRAME_BYTES);
    let left = plain_bytes.saturating_sub(start);
    u32::try_from(left).unwrap_or(u32::MAX).min(limits::FRAME_BYTES)
}

/// Seals everything but the frames, and sets where they begin.
pub fn seal_ends(
    key: &SealKey,
    kind: VolumeKind,
    salt: &Salt,
    block_bytes: u32,
    index: &mut Index,
    first_index: FirstIndex,
) -> Ends {
    let header = header(salt);
    let seal = IndexSeal::new(key, kind, &header, index, block_bytes);
    let frames_bytes = index.frames_bytes();
    let gap_bytes = match first_index {
        FirstIndex::BeforeFrames => GAP_BYTES_MIN.saturating_sub(frames_bytes),
        FirstIndex::AfterFrames => GAP_BYTES_MIN,
    };
    let mut layout = Layout { first_index, frames_bytes, index_bytes: seal.bytes(), gap_bytes };
    let unpadded = layout.object_bytes();
    layout.gap_bytes += padded_bytes(unpadded, PADDING_STEP_BYTES_MAX) - unpadded;
    index.frames_at = layout.frames_at();
    let (first, second) = (layout.first_index_offset(), layout.second_index_offset());
    let object_bytes = layout.object_bytes();

    let mut copy = seal.seal(first);
    copy.extend(layout.seal(key, kind, &header, first + layout.index_bytes));
    let (mut head, mut tail) = (header.clone(), Vec::new());
    match first_index {
        FirstIndex::BeforeFrames => head.extend(copy),
        FirstIndex::AfterFrames => tail.extend(copy),
    }
    tail.extend(seal_gap(key, kind, &header, layout.gap_bytes));
    tail.extend(seal.seal(second));
    tail.extend_from_slice(&header);
    tail.extend(layout.seal(key, kind, &header, object_bytes - LOCATOR_BYTES));

    Ends { head, tail, learn_bytes: object_bytes - index.learn_from(second) }
}

/// Sealed zeros, cut to length: the storage cannot tell them from an index.
fn seal_gap(key: &SealKey, kind: VolumeKind, header: &[u8], bytes: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes).unwrap_or(0);
    let mut gap = key.seal(&[b"bygone/1 gap".as_slice(), &[kind.code()], header].concat(), &vec![0; bytes.max(1)]);
    gap.truncate(bytes);
    gap
}

#[cfg(test)]
mod tests;
