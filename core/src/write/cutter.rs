//! Blocks, named by their keyed hash in whichever thread read them.

use crate::hash::IdKeys;
use crate::id::BlockId;
use crate::split::checksum;

/// Bytes of a file, with their name.
#[derive(Debug)]
pub struct Block {
    pub(super) id: BlockId,
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: Option<u64>,
}

impl Block {
    /// Its name.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A stretch of a file, in the order of the file.
#[derive(Debug)]
pub enum Piece {
    /// Bytes.
    Block(Block),
    /// This many bytes that were never written.
    Hole(u64),
}

/// Names blocks. Cheap to clone; every reading thread has its own.
#[derive(Clone)]
pub struct Cutter {
    pub(super) ids: IdKeys,
    pub(super) block_bytes: u32,
}

impl Cutter {
    /// Size of a full block: files are cut at multiples of it.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes as usize
    }

    /// Names `bytes`: at least one byte and at most a full block.
    pub fn block(&self, bytes: Vec<u8>) -> Block {
        let is_full = bytes.len() == self.block_bytes();
        Block { id: self.ids.block(&bytes), checksum: is_full.then(|| checksum(&bytes)), bytes }
    }
}
