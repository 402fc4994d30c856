//! The packer: lays sealed frames end to end in a spool file, hashes them on the way, and closes volumes.
//!
//! A volume is spooled to disk and not held in memory, because many may wait for a slow link. The spool has no name, so
//! a crash leaves nothing of it. Only the frames of a small volume wait in memory, for the index that lies before them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

use crate::error::Error;
use crate::error::Result;
use crate::frame::SEAL_BYTES;
use crate::hash::Sha256Stream;
use crate::id::NodeId;
use crate::id::VolumeName;
use crate::limits;
use crate::objects::VolumeKind;
use crate::repo::Repository;
use crate::spool;
use crate::volume;
use crate::volume::BlockInfo;
use crate::volume::FirstIndex;
use crate::volume::Index;
use crate::volume::NodeInfo;
use crate::volume::Salt;
use crate::write::framer::OpenVolume;
use crate::write::framer::Order;
use crate::write::framer::SealedFrame;

/// A complete volume in the spool.
pub(super) struct PackedVolume {
    pub name: VolumeName,
    pub kind: VolumeKind,
    pub bytes: u64,
    pub learn_bytes: u64,
    pub salt: Salt,
    pub index: Index,
    pub nodes: Vec<(NodeId, Vec<u8>)>,
    pub spool: File,
}

/// The packer's side of a volume that is being filled.
struct Spool {
    file: File,
    /// Frames that wait for the index; `None` if they are written as they arrive.
    held: Option<Vec<u8>>,
    hash: Sha256Stream,
    bytes: u64,
    index: Index,
}

impl Spool {
    fn create(dir: &Path, volume: &OpenVolume) -> Result<Spool> {
        let file = spool::create(dir)?;
        let mut spool = Spool { file, held: None, hash: Sha256Stream::new(), bytes: 0, index: Index::default() };
        match volume.first_index {
            FirstIndex::BeforeFrames => spool.held = Some(Vec::new()),
            FirstIndex::AfterFrames => spool.write(&volume::header(&volume.salt), dir)?,
        }
        Ok(spool)
    }

    fn write(&mut self, bytes: &[u8], dir: &Path) -> Result<()> {
        let failed = |source| {
            let path = dir.display().to_string();
            Error::Local { doing: "write a volume into the spool in", path, source }
        };
        self.file.write_all(bytes).map_err(failed)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn append(&mut self, volume: &OpenVolume, frame: &SealedFrame, dir: &Path) -> Result<()> {
        match &mut self.held {
            Some(held) => held.extend_from_slice(&frame.bytes),
            None => self.write(&frame.bytes, dir)?,
        }
        self.index.frames.push(frame.info);
        let saved = (frame.plain_bytes + SEAL_BYTES).saturating_sub(frame.info.stored_bytes);
        volume.bytes_bound.fetch_sub(u64::from(saved), Ordering::Relaxed);
        Ok(())
    }

    fn close(
        mut self,
        volume: &OpenVolume,
        block_bytes: u32,
        blocks: Vec<BlockInfo>,
        nodes: Vec<(NodeId, Vec<u8>)>,
        dir: &Path,
    ) -> Result<PackedVolume> {
        self.index.blocks = blocks;
        let node_info = |(id, bytes): &(NodeId, Vec<u8>)| {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            NodeInfo { id: *id, length }
        };
        self.index.nodes = nodes.iter().map(node_info).collect();
        let OpenVolume { key, kind, salt, first_index, .. } = volume;
        let ends = volume::seal_ends(key, *kind, salt, block_bytes, &mut self.index, *first_index);
        if let Some(held) = self.held.take() {
            self.write(&ends.head, dir)?;
            self.write(&held, dir)?;
        }
        self.write(&ends.tail, dir)?;
        if self.bytes > limits::VOLUME_BYTES_MAX {
            return Err(Error::Limit {
                what: "the size of a volume",
                found: self.bytes,
                max: limits::VOLUME_BYTES_MAX,
            });
        }
        let Spool { file: spool, hash, bytes, index, .. } = self;
        let (name, learn_bytes) = (VolumeName(hash.finish()), ends.learn_bytes);
        Ok(PackedVolume { name, kind: volume.kind, bytes, learn_bytes, salt: volume.salt, index, nodes, spool })
    }
}

/// Packs until there are no more frames.
pub(super) fn pack(repository: &Repository, order: &Receiver<Order>, volumes: &Sender<PackedVolume>) -> Result<()> {
    let dir = repository.catalog_dir();
    let mut spools: HashMap<Salt, Spool> = HashMap::new();
    for message in order {
        match message {
            Order::Frame(volume, sealed) => {
                let frame = sealed.recv().map_err(|_| Error::Cancelled)?;
                spool_of(&mut spools, &volume, dir)?.append(&volume, &frame, dir)?;
            }
            Order::End(volume, blocks, nodes) => {
                let Some(spool) = spools.remove(&volume.salt) else { continue };
                let packed = spool.close(&volume, repository.config().block_bytes, blocks, nodes, dir)?;
                volumes.send(packed).map_err(|_| Error::Cancelled)?;
            }
        }
    }
    Ok(())
}

fn spool_of<'a>(spools: &'a mut HashMap<Salt, Spool>, volume: &Arc<OpenVolume>, dir: &Path) -> Result<&'a mut Spool> {
    use std::collections::hash_map::Entry;
    match spools.entry(volume.salt) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => Ok(entry.insert(Spool::create(dir, volume)?)),
    }
}
