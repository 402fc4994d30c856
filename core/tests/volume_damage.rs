//! Damage costs what it hits: a stretch of 4 KiB is spoilt anywhere in a volume, and only the blocks and nodes in the
//! frames that it touches are lost. No catalog helps.
//!
//! The volumes are small, so that a short stride meets every kind of offset, and every border between sections is met
//! to the byte. They are made here from the codecs, one of each form: blocks, nodes, and blocks before nodes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bygone_core::compress::Codec;
use bygone_core::crypto::Keys;
use bygone_core::crypto::MasterKey;
use bygone_core::frame;
use bygone_core::frame::SEAL_BYTES;
use bygone_core::frame::Unsealed;
use bygone_core::hash::sha256;
use bygone_core::id::RepositoryId;
use bygone_core::id::VolumeName;
use bygone_core::limits::FRAME_BYTES;
use bygone_core::noise::noise;
use bygone_core::objects::ObjectName;
use bygone_core::objects::VolumeKind;
use bygone_core::objects::volume_object;
use bygone_core::read::VolumeFile;
use bygone_core::store::Store;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::volume;
use bygone_core::volume::BlockInfo;
use bygone_core::volume::FirstIndex;
use bygone_core::volume::FrameInfo;
use bygone_core::volume::HEADER_BYTES;
use bygone_core::volume::Index;
use bygone_core::volume::LOCATOR_BYTES;
use bygone_core::volume::Locator;
use bygone_core::volume::NodeInfo;
use bygone_core::volume::TRAILER_BYTES;

/// Length of the damage.
const STRETCH: u64 = 4 << 10;
/// Size of a full block.
const BLOCK_BYTES: u32 = 1 << 16;
/// Lengths of blocks or nodes: some share a frame, some cross a border of frames, one has several frames.
const LENGTHS: [usize; 8] = [700, 60_000, 65_536, 20_000, 300_000, 1, 90_000, 5_000];

/// A volume, and where its parts lie.
struct Sample {
    keys: Keys,
    kind: VolumeKind,
    name: VolumeName,
    object: Vec<u8>,
    index: Index,
    /// Where each frame lies.
    frames: Vec<Range<u64>>,
    /// Where a section ends and another begins.
    borders: Vec<u64>,
    learn_bytes: u64,
}

impl Sample {
    fn new(kind: VolumeKind, blocks: &[usize], nodes: &[usize], first_index: FirstIndex) -> Sample {
        let keys = Keys::derive(&MasterKey::from_bytes([7; 32]), RepositoryId([1; 16]));
        let (ids, salt) = (keys.ids(), [9; 32]);
        let key = keys.volume(&salt);
        let (mut plain, mut index) = (Vec::new(), Index::default());
        for (number, length) in blocks.iter().enumerate() {
            let bytes = noise(number as u64, *length);
            let checksum = (*length == BLOCK_BYTES as usize).then_some(7);
            index.blocks.push(BlockInfo { id: ids.block(&bytes), length: *length as u32, checksum });
            plain.extend(bytes);
        }
        for (number, length) in nodes.iter().enumerate() {
            let bytes = noise(1_000 + number as u64, *length);
            index.nodes.push(NodeInfo { id: ids.node(&bytes), length: *length as u32 });
            plain.extend(bytes);
        }
        let mut frames = Vec::new();
        for (ordinal, plain) in (0..).zip(plain.chunks(FRAME_BYTES as usize)) {
            let mut sealed = [&[0; SEAL_BYTES as usize], plain].concat();
            frame::seal_all(
                &key,
                kind,
                vec![Unsealed { ordinal, plain_bytes: plain.len() as u32, bytes: &mut sealed }],
            );
            index.frames.push(FrameInfo { codec: Codec::Raw, stored_bytes: sealed.len() as u32 });
            frames.push(sealed);
        }
        let ends = volume::seal_ends(&key, kind, &salt, BLOCK_BYTES, &mut index, first_index);
        let object = [ends.head.as_slice(), &frames.concat(), &ends.tail].concat();
        let bytes = object.len() as u64;
        let mut frame_end = index.frames_at;
        let frames: Vec<Range<u64>> = frames
            .iter()
            .map(|frame| {
                frame_end += frame.len() as u64;
                frame_end - frame.len() as u64..frame_end
            })
            .collect();
        let locator =
            Locator::open(&key, kind, &salt, bytes, &object[object.len() - LOCATOR_BYTES as usize..]).unwrap();
        let [first, second] = locator.indexes.as_slice() else { panic!("two copies of the index") };
        let mut borders = vec![0, HEADER_BYTES, first.start, first.end, first.end + LOCATOR_BYTES];
        borders.extend([second.start, second.end, bytes - LOCATOR_BYTES, bytes]);
        borders.extend(frames.iter().map(|frame| frame.end));
        let (name, learn_bytes) = (VolumeName(sha256(&object)), ends.learn_bytes);
        Sample { keys, kind, name, object, index, frames, borders, learn_bytes }
    }

    fn object_name(&self) -> ObjectName {
        volume_object(self.kind, self.name)
    }

    /// The items that a reader gets from the volume with this content: all, and by their nodes alone.
    fn read(&self, object: Vec<u8>, fetched_bytes: u64) -> (BTreeSet<[u8; 32]>, BTreeSet<[u8; 32]>) {
        let bytes = object.len() as u64;
        let memory = MemoryStore::new();
        memory.tamper(&self.object_name(), Some(object));
        let store: Arc<dyn Store> = Arc::new(memory);
        let file = VolumeFile::fetch(&store, &self.keys, self.kind, self.name, bytes, fetched_bytes).unwrap();
        assert_eq!(file.index(), &self.index);
        let (mut all, mut nodes) = (BTreeSet::new(), BTreeSet::new());
        let ids = self.keys.ids();
        file.pass(
            |_| {},
            |item, bytes| {
                if bytes.is_some_and(|bytes| item.is(ids, bytes)) {
                    all.insert(item.id);
                }
            },
        )
        .unwrap();
        file.nodes(|item, bytes| {
            if bytes.is_some_and(|bytes| item.is(ids, bytes)) {
                nodes.insert(item.id);
            }
        })
        .unwrap();
        (all, nodes)
    }

    /// The items that lie in none of the frames that a damage touches.
    fn spared(&self, damage: &Range<u64>) -> BTreeSet<[u8; 32]> {
        let is_hit = |frame: &Range<u64>| frame.start < damage.end && damage.start < frame.end;
        let frame_bytes = u64::from(FRAME_BYTES);
        let frames_of = |item: &volume::Item| item.position / frame_bytes..item.end().div_ceil(frame_bytes);
        let items = self.index.items();
        items.filter(|item| !frames_of(item).any(|n| is_hit(&self.frames[n as usize]))).map(|item| item.id).collect()
    }

    /// Spoils a stretch that begins at `start`, and holds what is left against what should be.
    fn survives(&self, start: u64, fetched_bytes: u64) {
        let damage = start..(start + STRETCH).min(self.object.len() as u64);
        let mut object = self.object.clone();
        for byte in &mut object[damage.start as usize..damage.end as usize] {
            *byte ^= 0xa5;
        }
        let (all, nodes) = self.read(object, fetched_bytes);
        let spared = self.spared(&damage);
        let of_nodes = self.index.nodes.iter().map(|node| node.id.0).filter(|id| spared.contains(id));
        assert_eq!(nodes, of_nodes.collect(), "nodes, damage at {start}");
        assert_eq!(all, spared, "damage at {start}");
    }

    fn survives_everywhere(&self) {
        let bytes = self.object.len() as u64;
        let frames_end = self.frames.last().map_or(HEADER_BYTES, |frame| frame.end);
        let mut starts: BTreeSet<u64> = (0..frames_end).step_by(24_001).collect();
        starts.extend((0..self.index.frames_at).step_by(487));
        starts.extend((frames_end.saturating_sub(STRETCH)..bytes).step_by(487));
        // Each border is the first byte that is hit, the last one, and the one next to it.
        for border in &self.borders {
            for at in [border.saturating_sub(1), *border, border + 1] {
                starts.extend([at, at.saturating_sub(STRETCH)]);
            }
        }
        for start in starts.into_iter().filter(|start| *start < bytes) {
            self.survives(start, self.learn_bytes);
        }
    }
}

#[test]
fn damage_to_a_data_volume_costs_what_it_hits() {
    Sample::new(VolumeKind::Data, &LENGTHS, &[], FirstIndex::AfterFrames).survives_everywhere();
}

#[test]
fn damage_to_a_meta_volume_costs_what_it_hits() {
    Sample::new(VolumeKind::Meta, &[], &LENGTHS, FirstIndex::AfterFrames).survives_everywhere();
}

#[test]
fn damage_to_a_mixed_volume_costs_what_it_hits() {
    Sample::new(VolumeKind::Meta, &LENGTHS, &LENGTHS, FirstIndex::AfterFrames).survives_everywhere();
}

#[test]
fn damage_to_a_volume_with_its_index_first_costs_what_it_hits() {
    Sample::new(VolumeKind::Meta, &LENGTHS, &LENGTHS, FirstIndex::BeforeFrames).survives_everywhere();
}

#[test]
fn damage_to_a_tiny_volume_costs_what_it_hits() {
    for first_index in [FirstIndex::AfterFrames, FirstIndex::BeforeFrames] {
        let sample = Sample::new(VolumeKind::Meta, &[], &[40], first_index);
        for start in (0..sample.object.len() as u64).step_by(191) {
            sample.survives(start, sample.object.len() as u64);
        }
    }
}

#[test]
fn an_intact_volume_is_learnt_by_one_request() {
    let samples = [
        Sample::new(VolumeKind::Data, &LENGTHS, &[], FirstIndex::AfterFrames),
        Sample::new(VolumeKind::Meta, &[], &LENGTHS, FirstIndex::AfterFrames),
        Sample::new(VolumeKind::Meta, &LENGTHS, &LENGTHS, FirstIndex::AfterFrames),
        Sample::new(VolumeKind::Meta, &LENGTHS, &LENGTHS, FirstIndex::BeforeFrames),
    ];
    for sample in samples {
        let memory = MemoryStore::new();
        memory.tamper(&sample.object_name(), Some(sample.object.clone()));
        let watched = Arc::new(FaultyStore::new(Arc::new(memory)));
        let store: Arc<dyn Store> = watched.clone();
        let bytes = sample.object.len() as u64;
        let open = |fetched_bytes| {
            watched.forget_calls();
            let file = VolumeFile::fetch(&store, &sample.keys, sample.kind, sample.name, bytes, fetched_bytes).unwrap();
            assert_eq!(file.learn_bytes(), sample.learn_bytes);
            let mut nodes = 0;
            file.nodes(|_, bytes| nodes += usize::from(bytes.is_some())).unwrap();
            assert_eq!(nodes, sample.index.nodes.len());
            watched.calls().len()
        };
        assert_eq!(open(sample.learn_bytes), 1);
        assert_eq!(open(bytes * 2), 1, "more than there is");
        // A hint that is too small only costs requests; the header is not needed.
        assert!(open(sample.learn_bytes - HEADER_BYTES - 1) > 1);
        assert!((2..=4).contains(&open(TRAILER_BYTES)) && (2..=4).contains(&open(1)));
        let file = VolumeFile::open(&store, &sample.keys, sample.kind, sample.name, bytes).unwrap();
        assert_eq!(file.index(), &sample.index);
    }
}
