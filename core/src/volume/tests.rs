//! The codec of volumes by itself: what is written is read, what was changed is refused, and one damaged stretch never
//! hits both copies of anything.

use super::*;
use crate::compress::Codec;
use crate::crypto::Keys;
use crate::crypto::MasterKey;
use crate::id::BlockId;
use crate::id::NodeId;
use crate::id::RepositoryId;
use crate::wire::DecodeError;
use proptest::prelude::*;

const SALT: Salt = [9; 32];
/// Length of the damage that no volume minds.
const STRETCH: usize = 4096;

fn key() -> SealKey {
    Keys::derive(&MasterKey::from_bytes([7; 32]), RepositoryId([1; 16])).volume(&SALT)
}

/// An index whose frames fit its blocks and nodes.
fn index(blocks: &[u32], nodes: &[u32]) -> Index {
    let lengths = |lengths: &[u32]| lengths.iter().copied().zip(0u8..).collect::<Vec<_>>();
    let blocks = lengths(blocks).into_iter().map(|(length, n)| {
        let checksum = (length == 1 << 20).then_some(u64::from(n) << 40);
        BlockInfo { id: BlockId([n; 32]), length, checksum }
    });
    let nodes = lengths(nodes).into_iter().map(|(length, n)| NodeInfo { id: NodeId([n; 32]), length });
    let mut index = Index { blocks: blocks.collect(), nodes: nodes.collect(), ..Index::default() };
    let frames = 0..index.plain_bytes().div_ceil(u64::from(limits::FRAME_BYTES));
    index.frames = frames.map(|n| FrameInfo { codec: Codec::Lz4, stored_bytes: 1_000 + n as u32 }).collect();
    index
}

/// An object with this index, whose frames are nonsense.
fn object_of(kind: VolumeKind, index: &Index) -> (Vec<u8>, Ends) {
    object_with(kind, &mut index.clone(), FirstIndex::AfterFrames)
}

fn object_with(kind: VolumeKind, index: &mut Index, first_index: FirstIndex) -> (Vec<u8>, Ends) {
    let ends = seal_ends(&key(), kind, &SALT, 1 << 20, index, first_index);
    let frames = vec![0x5a; index.frames_bytes() as usize];
    ([ends.head.as_slice(), &frames, &ends.tail].concat(), ends)
}

fn last_locator(kind: VolumeKind, object: &[u8]) -> Option<Locator> {
    let sealed = &object[object.len() - LOCATOR_BYTES as usize..];
    Locator::open(&key(), kind, &SALT, object.len() as u64, sealed)
}

fn open_copies(kind: VolumeKind, object: &[u8], locator: &Locator) -> Vec<Result<Index, DecodeError>> {
    let open = |range: &std::ops::Range<u64>| {
        open_index(&key(), kind, &SALT, range.start, &object[range.start as usize..range.end as usize])
    };
    locator.indexes.iter().map(open).collect()
}

proptest! {
    #[test]
    fn sections_may_lie_in_another_order(
        blocks in prop::collection::vec(1u32..300_000, 0..9),
        nodes in prop::collection::vec(1u32..3_000, 0..60),
    ) {
        let mut index = index(&blocks, &nodes);
        let (object, ends) = object_with(VolumeKind::Meta, &mut index, FirstIndex::BeforeFrames);
        let locator = last_locator(VolumeKind::Meta, &object).unwrap();
        prop_assert_eq!(ends.head.len() as u64, index.frames_at);
        prop_assert_eq!(locator.frames.clone(), index.frames_at..index.frames_at + index.frames_bytes());
        let between = locator.indexes[1].start - locator.indexes[0].end - LOCATOR_BYTES;
        prop_assert!(between >= STRETCH as u64, "{} bytes between the copies", between);
        for copy in open_copies(VolumeKind::Meta, &object, &locator) {
            prop_assert_eq!(Index { frames_at: index.frames_at, ..copy.unwrap() }, index.clone());
        }
        prop_assert_eq!(FirstIndex::given_by(index.frames_at), FirstIndex::BeforeFrames);
    }

    #[test]
    fn both_copies_of_an_index_give_it_back(
        blocks in prop::collection::vec(1u32..3_000_000, 0..60),
        nodes in prop::collection::vec(1u32..3_000_000, 0..60),
    ) {
        let index = index(&blocks, &nodes);
        let (object, tail) = object_of(VolumeKind::Meta, &index);
        let locator = last_locator(VolumeKind::Meta, &object).unwrap();
        prop_assert_eq!(locator.frames.clone(), HEADER_BYTES..HEADER_BYTES + index.frames_bytes());
        prop_assert_eq!(open_copies(VolumeKind::Meta, &object, &locator), [Ok(index.clone()), Ok(index.clone())]);
        let learn_from = object.len() as u64 - tail.learn_bytes;
        let first = index.items().find(|item| item.kind == ItemKind::Node).map(|node| node.position >> 17);
        let expected = match first {
            None => locator.indexes[1].start,
            Some(0) => 0,
            Some(frame) => HEADER_BYTES + index.frames.iter().take(frame as usize).map(|f| u64::from(f.stored_bytes)).sum::<u64>(),
        };
        prop_assert_eq!(learn_from, expected);
    }

    #[test]
    fn items_lie_end_to_end(
        blocks in prop::collection::vec(1u32..200_000, 0..9),
        nodes in prop::collection::vec(1u32..200_000, 0..9),
    ) {
        let index = index(&blocks, &nodes);
        let mut end = 0;
        for item in index.items() {
            prop_assert_eq!(item.position, end);
            prop_assert_eq!(item.kind == ItemKind::Node, end >= index.nodes_at());
            end = item.end();
        }
        prop_assert_eq!((end, index.items().count()), (index.plain_bytes(), index.items_count()));
    }
}

#[test]
fn no_bit_of_a_tail_can_change_unnoticed() {
    let index = index(&[1 << 20, 5, 70_000], &[]);
    let (object, tail) = object_of(VolumeKind::Data, &index);
    let locator = last_locator(VolumeKind::Data, &object).unwrap();
    let end = object.len() as u64 - TRAILER_BYTES;
    for position in object.len() - tail.tail.len()..object.len() {
        let mut flipped = object.clone();
        flipped[position] ^= 1 << (position % 8);
        let at = position as u64;
        let copies = open_copies(VolumeKind::Data, &flipped, &locator);
        for (range, copy) in locator.indexes.iter().zip(copies) {
            assert_eq!(copy.is_err(), range.contains(&at), "byte {position}");
        }
        assert_eq!(last_locator(VolumeKind::Data, &flipped).is_none(), at >= end + HEADER_BYTES, "byte {position}");
    }
}

#[test]
fn no_stretch_of_4_kib_hits_both_copies() {
    for first_index in [FirstIndex::AfterFrames, FirstIndex::BeforeFrames] {
        let (object, _) = object_with(VolumeKind::Data, &mut index(&[40], &[]), first_index);
        no_stretch_hits_both_copies(&object);
    }
}

fn no_stretch_hits_both_copies(object: &[u8]) {
    for start in 0..object.len() {
        let hit = start..(start + STRETCH).min(object.len());
        let mut damaged = object.to_vec();
        damaged[hit.clone()].fill(0xff);
        let at = damaged.len() - TRAILER_BYTES as usize;
        let headers = [0, at].map(|at| parse_header(&damaged[at..at + HEADER_BYTES as usize]));
        assert!(headers.contains(&Ok(SALT)), "a header survives a stretch at {start}");
        let locator = last_locator(VolumeKind::Data, &damaged);
        // A search tries every place: it is costly, so only those stretches are searched that need it most.
        let is_worth = locator.is_none() && start % 512 == 0;
        let searched =
            || Locator::find(&key(), VolumeKind::Data, &SALT, damaged.len() as u64, 0, &damaged).expect("a copy");
        let Some(locator) = locator.or_else(|| is_worth.then(searched)) else { continue };
        let copies = open_copies(VolumeKind::Data, &damaged, &locator);
        assert!(copies.iter().any(Result::is_ok), "an index survives a stretch at {start}");
    }
}

#[test]
fn a_search_finds_the_copy_of_the_locator_alone() {
    let index = index(&[], &[9, 9, 9]);
    let (object, _) = object_of(VolumeKind::Meta, &index);
    let last = last_locator(VolumeKind::Meta, &object).unwrap();
    let find = |kind, from: usize, to: usize| {
        Locator::find(&key(), kind, &SALT, object.len() as u64, from as u64, &object[from..to])
    };
    let copy = last.frames.end as usize + (last.indexes[0].end - last.indexes[0].start) as usize;
    let end = copy + LOCATOR_BYTES as usize;
    assert_eq!(find(VolumeKind::Meta, 0, object.len() - TRAILER_BYTES as usize), Some(last.clone()));
    assert_eq!(find(VolumeKind::Meta, copy, end), Some(last.clone()));
    assert_eq!(find(VolumeKind::Meta, copy + 1, end + 500), None, "it lies before this window");
    assert_eq!(find(VolumeKind::Meta, copy - 500, end - 1), None, "it lies behind this window");
    assert_eq!(find(VolumeKind::Data, copy, end), None, "it is that of a meta volume");
    assert_eq!(find(VolumeKind::Meta, 0, 7), None, "there is no room for it");
    let moved = Locator::find(&key(), VolumeKind::Meta, &SALT, object.len() as u64, 0, &object[copy..end]);
    assert_eq!(moved, None, "a seal belongs to its place");
}

#[test]
fn a_locator_belongs_to_one_kind_and_one_length() {
    let (object, _) = object_of(VolumeKind::Data, &index(&[1 << 20], &[]));
    assert_eq!(last_locator(VolumeKind::Meta, &object), None);
    let longer = [&[0], object.as_slice()].concat();
    assert_eq!(last_locator(VolumeKind::Data, &longer), None);
}

#[test]
fn a_data_volume_has_no_nodes() {
    let index = index(&[5], &[5]);
    let (object, _) = object_of(VolumeKind::Data, &index);
    let locator = last_locator(VolumeKind::Data, &object).unwrap();
    let refused = Err(DecodeError::Invalid("a node in a data volume"));
    assert_eq!(open_copies(VolumeKind::Data, &object, &locator), [refused.clone(), refused]);
}

#[test]
fn sizes_are_padded_in_steps() {
    let (object, _) = object_of(VolumeKind::Data, &index(&[40], &[]));
    assert_eq!(object.len() % 512, 0);
    let padded = |bytes| padded_bytes(bytes, PADDING_STEP_BYTES_MAX);
    assert_eq!(padded(64 << 20), 64 << 20);
    assert_eq!(padded((64 << 20) - 1), 64 << 20);
    assert!(padded(50_000_001) - 50_000_001 < 256 << 10);
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
