//! The catalog compared with a model: after any history of volumes, every block is located where the rules say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use bygone_core::catalog::CatalogWriter;
use bygone_core::catalog::NewVolume;
use bygone_core::catalog::VolumeState;
use bygone_core::compress::Codec;
use bygone_core::crypto::Keys;
use bygone_core::crypto::MasterKey;
use bygone_core::error::Error;
use bygone_core::id::BlockId;
use bygone_core::id::ClientId;
use bygone_core::id::RepositoryId;
use bygone_core::id::VolumeName;
use bygone_core::objects::VolumeKind;
use bygone_core::volume::BlockInfo;
use bygone_core::volume::FrameInfo;
use bygone_core::volume::Index;

/// One step of a history. Numbers name volumes and blocks of a small world; the numbers of volumes wrap around.
#[derive(Debug, Clone)]
enum Step {
    Add(Vec<u8>, bool),
    Store(usize),
    Lose(usize),
    Void(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (prop::collection::btree_set(0u8..20, 1..6), any::<bool>())
            .prop_map(|(blocks, is_stored)| Step::Add(blocks.into_iter().collect(), is_stored)),
        1 => any::<usize>().prop_map(Step::Store),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => any::<usize>().prop_map(Step::Void),
    ]
}

/// Expected knowledge: the state of each volume, and the volume and position of each block.
#[derive(Default)]
struct Model {
    volumes: Vec<(i64, VolumeState)>,
    blocks: BTreeMap<u8, (i64, u64)>,
}

impl Model {
    fn state(&self, volume: i64) -> Option<VolumeState> {
        self.volumes.iter().find(|(id, _)| *id == volume).map(|(_, state)| *state)
    }
}

fn index(blocks: &[u8]) -> Index {
    let info = |n: &u8| BlockInfo { id: BlockId([*n; 32]), length: u32::from(*n) + 1, checksum: None };
    let frames = vec![FrameInfo { codec: Codec::Raw, stored_bytes: 100 }];
    Index { frames, blocks: blocks.iter().map(info).collect(), ..Index::default() }
}

fn keys() -> Keys {
    Keys::derive(&MasterKey::from_bytes([7; 32]), RepositoryId([1; 16]))
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let path = dir.path().join("catalog.sqlite");
    let mut catalog = CatalogWriter::open(&path, keys.ids(), RepositoryId([1; 16]), ClientId([2; 16])).unwrap();
    let mut model = Model::default();
    for (step, number) in steps.iter().zip(1u8..) {
        let pick = |n: &usize| (!model.volumes.is_empty()).then(|| n % model.volumes.len());
        match step {
            Step::Add(blocks, is_stored) => {
                let index = index(blocks);
                let name = VolumeName([number; 32]);
                let new = NewVolume {
                    name,
                    kind: VolumeKind::Data,
                    bytes: 9,
                    learn_bytes: 0,
                    salt: [3; 32],
                    index: &index,
                    nodes: &[],
                };
                let state = if *is_stored { VolumeState::Stored } else { VolumeState::Intended };
                let id = catalog.volume_add(&new, state).unwrap();
                let mut position = 0;
                for block in blocks {
                    // A block keeps its place unless that place is lost.
                    let held = model.blocks.get(block).and_then(|(volume, _)| model.state(*volume));
                    if !matches!(held, Some(VolumeState::Stored | VolumeState::Intended)) {
                        model.blocks.insert(*block, (id, position));
                    }
                    position += u64::from(*block) + 1;
                }
                model.volumes.push((id, state));
            }
            Step::Store(n) => {
                if let Some(at) = pick(n) {
                    catalog.volume_stored(model.volumes[at].0, Some("tag")).unwrap();
                    model.volumes[at].1 = VolumeState::Stored;
                }
            }
            Step::Lose(n) => {
                if let Some(at) = pick(n) {
                    catalog.volume_state(model.volumes[at].0, VolumeState::Lost).unwrap();
                    model.volumes[at].1 = VolumeState::Lost;
                }
            }
            Step::Void(n) => {
                if let Some(at) = pick(n) {
                    let (id, _) = model.volumes.remove(at);
                    catalog.volume_void(id).unwrap();
                    model.blocks.retain(|_, (volume, _)| *volume != id);
                }
            }
        }
        for block in 0u8..20 {
            let found = catalog.read().locate(&[block; 32]).unwrap();
            let found = found.map(|(at, state)| (at.volume, at.position, at.length, state));
            let expected = model
                .blocks
                .get(&block)
                .map(|(volume, position)| (*volume, *position, u32::from(block) + 1, model.state(*volume).unwrap()));
            prop_assert_eq!(found, expected, "block {} after {:?}", block, step);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn blocks_are_located_where_the_rules_say(steps in prop::collection::vec(step(), 1..25)) {
        run(&steps)?;
    }
}

#[test]
fn no_catalog_is_told_from_a_broken_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    let open = || bygone_core::catalog::Catalog::open(&path, keys().ids());
    assert!(matches!(open(), Err(Error::NotFound { .. })));
    std::fs::write(&path, b"this is not a database, however long it may be".repeat(100)).unwrap();
    let error = open().err().unwrap();
    assert!(error.to_string().contains("recover --force"), "{error}");
}

#[test]
fn a_row_that_changes_by_itself_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    let keys = keys();
    let mut catalog = CatalogWriter::open(&path, keys.ids(), RepositoryId([1; 16]), ClientId([2; 16])).unwrap();
    let index = index(&[5, 6]);
    let name = VolumeName([1; 32]);
    let new =
        NewVolume { name, kind: VolumeKind::Data, bytes: 9, learn_bytes: 0, salt: [3; 32], index: &index, nodes: &[] };
    catalog.volume_add(&new, VolumeState::Stored).unwrap();
    catalog.checkpoint().unwrap();
    drop(catalog);
    // The length of block 6 stands in its row as one byte after the id, among other small numbers: every byte of the
    // file that follows the id closely is flipped in turn, and no flip may give another place.
    let whole = std::fs::read(&path).unwrap();
    let id_at = whole.windows(32).position(|window| window == [6; 32]).unwrap();
    for byte in id_at + 32..id_at + 36 {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let catalog = bygone_core::catalog::Catalog::open(&path, keys.ids()).unwrap();
        let found = catalog.locate(&[6; 32]);
        let is_right = matches!(&found, Ok(Some((at, _))) if at.position == 6 && at.length == 7);
        assert!(is_right || !matches!(found, Ok(Some(_))), "byte {byte}: {found:?}");
    }
}
