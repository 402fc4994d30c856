//! The beginning of a run is held back, because most runs store little.
//!
//! A few changed files in a data volume, and their directories in a meta volume, would cost two objects with an index
//! and padding each. So blocks and nodes wait in memory until there are too many for one small volume. If the run ends
//! before, one volume takes all of them, nodes last; otherwise they go on to the volumes of their kinds.

use crate::id::NodeId;
use crate::volume::BlockInfo;

/// Most bytes that are held back, and so the most that a small volume holds.
const HELD_BYTES_MAX: u64 = 4 << 20;
/// The part of a full volume that a small one may be, so that it never has to be split.
const HELD_SHARE: u64 = 4;
/// About how much a block or node costs besides its bytes, in both copies of the index.
const ITEM_BYTES: u64 = 96;

/// Blocks and nodes of a run that has stored little so far.
#[derive(Default)]
pub(super) struct Held {
    pub blocks: Vec<(BlockInfo, Vec<u8>)>,
    pub nodes: Vec<(NodeId, Vec<u8>)>,
    bytes: u64,
}

impl Held {
    /// Adds a block.
    pub fn block(&mut self, info: BlockInfo, bytes: Vec<u8>) {
        self.bytes += bytes.len() as u64 + ITEM_BYTES;
        self.blocks.push((info, bytes));
    }

    /// Adds a node.
    pub fn node(&mut self, id: NodeId, bytes: Vec<u8>) {
        self.bytes += bytes.len() as u64 + ITEM_BYTES;
        self.nodes.push((id, bytes));
    }

    /// True if this is too much for a small volume, where full ones have `volume_bytes`.
    pub fn is_too_much(&self, volume_bytes: u64) -> bool {
        self.bytes > HELD_BYTES_MAX.min(volume_bytes / HELD_SHARE)
    }
}
