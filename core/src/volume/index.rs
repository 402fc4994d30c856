//! The index of a volume: its frames, its blocks and its nodes.
//!
//! The plaintext of a volume is its blocks and then its nodes, end to end, so a place needs no field: it is the sum of
//! the lengths before it. A volume in `data/` has no nodes; one in `meta/` may have blocks too. Nodes come last, so
//! that the end of the object is all that a rebuilt catalog needs of it.

use crate::compress::Codec;
use crate::crypto::SealKey;
use crate::frame::SEAL_BYTES;
use crate::hash::IdKeys;
use crate::id::BlockId;
use crate::id::NodeId;
use crate::limits;
use crate::objects::VolumeKind;
use crate::volume::HEADER_BYTES;
use crate::volume::Salt;
use crate::volume::header;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// A frame as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// How it is compressed.
    pub codec: Codec,
    /// Its length in the object, seal included.
    pub stored_bytes: u32,
}

/// A block as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its id.
    pub id: BlockId,
    /// Its length.
    pub length: u32,
    /// The rolling checksum; only full-size blocks have one.
    pub checksum: Option<u64>,
}

/// A node as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// Its length.
    pub length: u32,
}

/// Whether an item is a block or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// A piece of the content of files.
    Block,
    /// A piece of the tree.
    Node,
}

/// A block or a node, with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Which of the two.
    pub kind: ItemKind,
    /// The bytes of its `BlockId` or `NodeId`.
    pub id: [u8; 32],
    /// Its length.
    pub length: u32,
    /// The rolling checksum; only full-size blocks have one.
    pub checksum: Option<u64>,
    /// Offset in the volume's plaintext.
    pub position: u64,
}

impl Item {
    /// Where it ends in the volume's plaintext.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }

    /// True if these bytes are the ones that its id names.
    pub fn is(&self, ids: &IdKeys, bytes: &[u8]) -> bool {
        let id = match self.kind {
            ItemKind::Block => ids.block(bytes).0,
            ItemKind::Node => ids.node(bytes).0,
        };
        id == self.id
    }
}

/// What a volume contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Where the frames begin in the object; the locator says it, not the index.
    pub frames_at: u64,
    /// All frames in order.
    pub frames: Vec<FrameInfo>,
    /// All blocks in order.
    pub blocks: Vec<BlockInfo>,
    /// All nodes in order; the first follows the last block.
    pub nodes: Vec<NodeInfo>,
}

impl Default for Index {
    fn default() -> Index {
        Index { frames_at: HEADER_BYTES, frames: Vec::new(), blocks: Vec::new(), nodes: Vec::new() }
    }
}

impl Index {
    /// The index of a volume with these frames and items, the nodes last.
    pub fn of(frames_at: u64, frames: Vec<FrameInfo>, items: impl Iterator<Item = Item>) -> Index {
        let mut index = Index { frames_at, frames, ..Index::default() };
        for Item { kind, id, length, checksum, .. } in items {
            match kind {
                ItemKind::Block => index.blocks.push(BlockInfo { id: BlockId(id), length, checksum }),
                ItemKind::Node => index.nodes.push(NodeInfo { id: NodeId(id), length }),
            }
        }
        index
    }

    /// All blocks and then all nodes, each with its place.
    pub fn items(&self) -> impl Iterator<Item = Item> {
        let blocks = self.blocks.iter().map(|block| {
            let BlockInfo { id, length, checksum } = *block;
            Item { kind: ItemKind::Block, id: id.0, length, checksum, position: 0 }
        });
        let nodes = self.nodes.iter().map(|node| {
            let NodeInfo { id, length } = *node;
            Item { kind: ItemKind::Node, id: id.0, length, checksum: None, position: 0 }
        });
        blocks.chain(nodes).scan(0, |end, item| {
            let position = *end;
            *end += u64::from(item.length);
            Some(Item { position, ..item })
        })
    }

    /// The number of blocks and nodes.
    pub fn items_count(&self) -> usize {
        self.blocks.len() + self.nodes.len()
    }

    /// Where the first node begins in the volume's plaintext: the length of all blocks.
    pub fn nodes_at(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.length)).sum()
    }

    /// The length of the volume's plaintext.
    pub fn plain_bytes(&self) -> u64 {
        self.nodes_at() + self.nodes.iter().map(|node| u64::from(node.length)).sum::<u64>()
    }

    /// Bytes of all frames together, as stored.
    pub fn frames_bytes(&self) -> u64 {
        stored_bytes(&self.frames)
    }

    /// The frame in which the first node begins; the number of frames if there are no nodes.
    pub fn nodes_frame(&self) -> usize {
        if self.nodes.is_empty() {
            return self.frames.len();
        }
        usize::try_from(self.nodes_at() / u64::from(limits::FRAME_BYTES)).unwrap_or(usize::MAX)
    }

    /// Where the frame of this number begins in the object; the end of all frames if there is none.
    pub fn frame_offset(&self, number: usize) -> u64 {
        self.frames_at + stored_bytes(self.frames.get(..number).unwrap_or(&self.frames))
    }

    /// From where on the object holds what a catalog learns from it, given where the last copy of the index begins.
    pub fn learn_from(&self, index_offset: u64) -> u64 {
        match self.nodes_frame() {
            _ if self.nodes.is_empty() => index_offset,
            // The header is so short that a request for all is as good.
            0 => 0,
            first => self.frame_offset(first),
        }
    }

    /// The record's bytes; `block_bytes` is the repository's block size, which identifies full-size blocks.
    fn encode(&self, block_bytes: u32) -> Vec<u8> {
        let mut out = Encoder::new();
        // Without blocks the size says nothing.
        out.varint(if self.blocks.is_empty() { 0 } else { u64::from(block_bytes) });
        out.varint(self.frames.len() as u64);
        for frame in &self.frames {
            out.u8(frame.codec.to_u8());
            out.varint(u64::from(frame.stored_bytes));
        }
        out.varint(self.blocks.len() as u64);
        for block in &self.blocks {
            out.raw(&block.id.0);
            out.varint(u64::from(block.length));
            if block.length == block_bytes {
                out.u64(block.checksum.unwrap_or(0));
            }
        }
        out.varint(self.nodes.len() as u64);
        for node in &self.nodes {
            out.raw(&node.id.0);
            out.varint(u64::from(node.length));
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
            if !(SEAL_BYTES + 1..=limits::FRAME_BYTES + SEAL_BYTES).contains(&stored_bytes) {
                return Err(DecodeError::Invalid("a frame's length"));
            }
            index.frames.push(FrameInfo { codec, stored_bytes });
        }
        for _ in 0..input.count(limits::VOLUME_ITEMS_MAX as usize, "the number of blocks")? {
            let id = BlockId(input.array()?);
            let length = item_length(&mut input)?;
            let checksum = if length == block_bytes { Some(input.u64()?) } else { None };
            index.blocks.push(BlockInfo { id, length, checksum });
        }
        let left = (limits::VOLUME_ITEMS_MAX as usize).saturating_sub(index.blocks.len());
        for _ in 0..input.count(left, "the number of nodes")? {
            let id = NodeId(input.array()?);
            index.nodes.push(NodeInfo { id, length: item_length(&mut input)? });
        }
        input.end()?;
        let frames_needed = index.plain_bytes().div_ceil(u64::from(limits::FRAME_BYTES));
        if frames_needed != index.frames.len() as u64 {
            return Err(DecodeError::Invalid("the number of frames"));
        }
        Ok(index)
    }
}

/// Seals a copy of the index for the place `offset` of the object.
pub(super) struct IndexSeal<'a> {
    key: &'a SealKey,
    kind: VolumeKind,
    header: &'a [u8],
    plain: Vec<u8>,
}

impl<'a> IndexSeal<'a> {
    pub fn new(key: &'a SealKey, kind: VolumeKind, header: &'a [u8], index: &Index, block_bytes: u32) -> IndexSeal<'a> {
        IndexSeal { key, kind, header, plain: index.encode(block_bytes) }
    }

    /// Length of a sealed copy.
    pub fn bytes(&self) -> u64 {
        self.plain.len() as u64 + u64::from(SEAL_BYTES)
    }

    pub fn seal(&self, offset: u64) -> Vec<u8> {
        self.key.seal(&associated_data(self.kind, self.header, offset), &self.plain)
    }
}

/// Opens the sealed copy of the index that lies at `offset`.
pub fn open_index(
    key: &SealKey,
    kind: VolumeKind,
    salt: &Salt,
    offset: u64,
    sealed: &[u8],
) -> Result<Index, DecodeError> {
    let plain = key
        .open(&associated_data(kind, &header(salt), offset), sealed)
        .map_err(|_| DecodeError::Invalid("the index's seal"))?;
    let index = Index::decode(&plain)?;
    match kind {
        VolumeKind::Data if !index.nodes.is_empty() => Err(DecodeError::Invalid("a node in a data volume")),
        _ => Ok(index),
    }
}

fn item_length(input: &mut Decoder<'_>) -> Result<u32, DecodeError> {
    let length = input.varint32("the length of a block or node")?;
    match length == 0 || length > limits::BLOCK_BYTES_MAX {
        true => Err(DecodeError::Invalid("the length of a block or node")),
        false => Ok(length),
    }
}

fn stored_bytes(frames: &[FrameInfo]) -> u64 {
    frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum()
}

fn associated_data(kind: VolumeKind, header: &[u8], offset: u64) -> Vec<u8> {
    [b"bygone/1 index".as_slice(), &[kind.code()], header, &offset.to_le_bytes()].concat()
}
