//! The front of the pipeline: blocks are laid end to end and cut into frames; any free thread compresses and seals
//! them.
//!
//! A volume must be closed before it exceeds its size, but its frames are still being compressed when the next one is
//! cut. So each volume keeps an upper bound of its final size: a frame counts with its plaintext size when it is cut,
//! and the packer gives back what compression saves. The bound is never below the truth.
//!
//! Nodes lie behind all blocks of their volume, so a volume takes no block after its first node.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;

use crate::compress::Codec;
use crate::compress::Compression;
use crate::compress::Compressor;
use crate::crypto::Keys;
use crate::crypto::SealKey;
use crate::crypto::random;
use crate::error::Error;
use crate::error::Result;
use crate::frame;
use crate::frame::SEAL_BYTES;
use crate::frame::Unsealed;
use crate::id::NodeId;
use crate::limits;
use crate::objects::VolumeKind;
use crate::volume::BlockInfo;
use crate::volume::FirstIndex;
use crate::volume::FrameInfo;
use crate::volume::OVERHEAD_BYTES;
use crate::volume::Salt;

/// About how much a block or node takes in both copies of the index.
const ITEM_INDEX_BYTES: u64 = 2 * 44;
/// How much a frame takes there.
const FRAME_INDEX_BYTES: u64 = 2 * 4;

/// Frames that a sealer seals together: as many as the cipher has lanes.
const SEALED_TOGETHER_MAX: usize = 8;

/// Plaintext of tree nodes at which a meta volume is ended.
const NODES_BYTES_MAX: usize = 16 << 20;

/// A volume that is being filled.
pub(super) struct OpenVolume {
    pub salt: Salt,
    pub kind: VolumeKind,
    pub first_index: FirstIndex,
    pub key: SealKey,
    /// Never less than the final length of the object.
    pub bytes_bound: AtomicU64,
}

/// A frame's plaintext on its way to a sealer.
pub(super) struct SealJob {
    volume: Arc<OpenVolume>,
    ordinal: u32,
    plain: Vec<u8>,
    reply: Sender<SealedFrame>,
}

/// A frame on its way to the packer.
pub(super) struct SealedFrame {
    pub info: FrameInfo,
    pub plain_bytes: u32,
    pub bytes: Vec<u8>,
}

/// Messages to the packer, in the order of the volumes' bytes.
pub(super) enum Order {
    /// The next frame of a volume will arrive on this channel.
    Frame(Arc<OpenVolume>, Receiver<SealedFrame>),
    /// A volume is complete: its blocks, and the nodes that follow them.
    End(Arc<OpenVolume>, Vec<BlockInfo>, Vec<(NodeId, Vec<u8>)>),
}

/// Lays blocks and nodes end to end in volumes of one kind.
pub(super) struct Framer {
    kind: VolumeKind,
    first_index: FirstIndex,
    keys: Keys,
    volume_bytes_max: u64,
    jobs: Sender<SealJob>,
    order: Sender<Order>,
    volume: Option<Arc<OpenVolume>>,
    frames: u32,
    plain: Vec<u8>,
    blocks: Vec<BlockInfo>,
    nodes: Vec<(NodeId, Vec<u8>)>,
    nodes_bytes: usize,
}

impl Framer {
    pub fn new(
        kind: VolumeKind,
        keys: &Keys,
        volume_bytes_max: u64,
        jobs: Sender<SealJob>,
        order: Sender<Order>,
    ) -> Framer {
        let keys = keys.clone();
        let (volume, frames, plain, blocks, nodes) = (None, 0, Vec::new(), Vec::new(), Vec::new());
        let first_index = FirstIndex::AfterFrames;
        let nodes_bytes = 0;
        Framer {
            kind,
            first_index,
            keys,
            volume_bytes_max,
            jobs,
            order,
            volume,
            frames,
            plain,
            blocks,
            nodes,
            nodes_bytes,
        }
    }

    /// From now on volumes are so small that their frames can wait in memory for the index.
    pub fn only_small_volumes(&mut self) {
        self.first_index = FirstIndex::BeforeFrames;
    }

    /// Adds a block. True if it ends its volume, so that the next block goes into a new one.
    pub fn add(&mut self, info: BlockInfo, bytes: &[u8]) -> Result<bool> {
        if !self.nodes.is_empty() {
            return Err(Error::defect("a block follows the nodes of its volume"));
        }
        self.blocks.push(info);
        self.lay(bytes)
    }

    /// Adds a tree node. True if it ends its volume. Nodes travel in memory with their volume, so a volume takes only a
    /// limited number.
    pub fn add_node(&mut self, id: NodeId, body: Vec<u8>) -> Result<bool> {
        if self.kind == VolumeKind::Data {
            return Err(Error::defect("a node in a data volume"));
        }
        self.nodes_bytes += body.len();
        self.nodes.push((id, body.clone()));
        let is_full = self.lay(&body)?;
        if !is_full && self.nodes_bytes >= NODES_BYTES_MAX {
            self.end()?;
            return Ok(true);
        }
        Ok(is_full)
    }

    /// Lays bytes behind those before. True if they end their volume.
    fn lay(&mut self, mut bytes: &[u8]) -> Result<bool> {
        let volume = self.volume()?;
        volume.bytes_bound.fetch_add(ITEM_INDEX_BYTES, Ordering::Relaxed);
        while !bytes.is_empty() {
            let room = limits::FRAME_BYTES as usize - self.plain.len();
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.plain.extend_from_slice(now);
            bytes = later;
            if self.plain.len() == limits::FRAME_BYTES as usize {
                self.cut(&volume)?;
            }
        }
        // Closed while the next block certainly still fits.
        let next = u64::from(limits::FRAME_BYTES) * 2 + (256 << 10) + ITEM_INDEX_BYTES;
        let is_full = volume.bytes_bound.load(Ordering::Relaxed) + next > self.volume_bytes_max
            || self.frames + 1 + limits::BLOCK_BYTES_MAX / limits::FRAME_BYTES >= limits::VOLUME_FRAMES_MAX
            || self.blocks.len() + self.nodes.len() >= limits::VOLUME_ITEMS_MAX as usize;
        if is_full {
            self.end()?;
        }
        Ok(is_full)
    }

    /// Ends the volume that is being filled, if there is one.
    pub fn end(&mut self) -> Result<()> {
        let Some(volume) = self.volume.clone() else { return Ok(()) };
        if !self.plain.is_empty() {
            self.cut(&volume)?;
        }
        self.volume = None;
        self.frames = 0;
        self.nodes_bytes = 0;
        let (blocks, nodes) = (std::mem::take(&mut self.blocks), std::mem::take(&mut self.nodes));
        self.order.send(Order::End(volume, blocks, nodes)).map_err(|_| Error::Cancelled)
    }

    fn volume(&mut self) -> Result<Arc<OpenVolume>> {
        if let Some(volume) = &self.volume {
            return Ok(Arc::clone(volume));
        }
        let salt = random()?;
        let key = self.keys.volume(&salt);
        let bytes_bound = AtomicU64::new(OVERHEAD_BYTES);
        let first_index = self.first_index;
        let volume = Arc::new(OpenVolume { salt, kind: self.kind, first_index, key, bytes_bound });
        self.volume = Some(Arc::clone(&volume));
        Ok(volume)
    }

    fn cut(&mut self, volume: &Arc<OpenVolume>) -> Result<()> {
        let plain = std::mem::replace(&mut self.plain, Vec::with_capacity(limits::FRAME_BYTES as usize));
        let sealed_bytes = plain.len() as u64 + u64::from(SEAL_BYTES);
        volume.bytes_bound.fetch_add(sealed_bytes + FRAME_INDEX_BYTES, Ordering::Relaxed);
        let (reply, sealed) = bounded(1);
        let job = SealJob { volume: Arc::clone(volume), ordinal: self.frames, plain, reply };
        self.frames += 1;
        // The packer hears of the frame first, so that it never waits for one that nobody will seal.
        self.order.send(Order::Frame(Arc::clone(volume), sealed)).map_err(|_| Error::Cancelled)?;
        self.jobs.send(job).map_err(|_| Error::Cancelled)
    }
}

/// A compressed frame that waits to be sealed together with others.
struct Compressed {
    volume: Arc<OpenVolume>,
    ordinal: u32,
    plain_bytes: u32,
    codec: Codec,
    bytes: Vec<u8>,
    reply: Sender<SealedFrame>,
}

/// A sealer: compresses and seals frames until there are no more. Frames that are already queued are sealed together;
/// none waits for a later one.
pub(super) fn seal_frames(compression: Compression, jobs: &Receiver<SealJob>) {
    let mut compressor = Compressor::new(compression);
    let mut small: Option<Compressor> = None;
    let mut batch: Vec<Compressed> = Vec::new();
    while let Ok(job) = jobs.recv() {
        let mut next = Some(job);
        while let Some(SealJob { volume, ordinal, plain, reply }) = next {
            if batch.first().is_some_and(|first| !Arc::ptr_eq(&first.volume, &volume)) {
                seal_together(&mut batch);
            }
            let plain_bytes = u32::try_from(plain.len()).unwrap_or(u32::MAX);
            let compressor = match volume.first_index {
                FirstIndex::BeforeFrames => {
                    small.get_or_insert_with(|| Compressor::new(volume.first_index.compression(compression)))
                }
                FirstIndex::AfterFrames => &mut compressor,
            };
            let (codec, bytes) = compressor.compress(&plain, SEAL_BYTES as usize);
            batch.push(Compressed { volume, ordinal, plain_bytes, codec, bytes, reply });
            next = if batch.len() < SEALED_TOGETHER_MAX { jobs.try_recv().ok() } else { None };
        }
        seal_together(&mut batch);
    }
}

/// Seals the frames of `batch`, which are of one volume.
fn seal_together(batch: &mut Vec<Compressed>) {
    let Some(volume) = batch.first().map(|first| Arc::clone(&first.volume)) else { return };
    let frames = batch.iter_mut().map(|Compressed { ordinal, plain_bytes, bytes, .. }| Unsealed {
        ordinal: *ordinal,
        plain_bytes: *plain_bytes,
        bytes,
    });
    frame::seal_all(&volume.key, volume.kind, frames.collect());
    for Compressed { plain_bytes, codec, bytes, reply, .. } in batch.drain(..) {
        let info = FrameInfo { codec, stored_bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX) };
        // Nobody waits for the answer if the backup was abandoned.
        let _ = reply.send(SealedFrame { info, plain_bytes, bytes });
    }
}
