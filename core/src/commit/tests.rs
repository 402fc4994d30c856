//! Commits open as what they were, and only as what they were.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::attributes::Attribute;
use crate::crypto::Keys;
use crate::crypto::MasterKey;
use crate::entry::Meta;
use crate::id::NodeId;
use crate::id::RepositoryId;
use crate::snapshot::Totals;

fn sample() -> Commit {
    let root_meta = Meta {
        mode: 0o755,
        owner: Arc::default(),
        mtime: Time { secs: -5, nanos: 999_999_999 },
        ctime: Time { secs: 1, nanos: 0 },
        birth: None,
        size: 0,
        nlink: 3,
        device: 9,
        inode: 2,
        flags: 0,
        xattrs: vec![],
    };
    let snapshot = Snapshot {
        id: SnapshotId([3; 16]),
        time: Time { secs: 1_700_000_000, nanos: 5 },
        host: "host".into(),
        user: "me".into(),
        paths: vec![b"/a/\xff".to_vec()],
        tags: vec!["t".into()],
        parent: Some(SnapshotId([2; 16])),
        program: "bygone 0".into(),
        root_meta,
        root: NodeId([8; 32]),
        root_attributes: Attributes::default(),
        totals: Totals { files: 1, directories: 2, others: 3, bytes: 4, bytes_new: 5, unreadable: 6 },
        attributes: Attributes::default(),
    };
    let volume = |etag: Option<&str>| VolumeAdded {
        name: VolumeName([4; 32]),
        kind: VolumeKind::Meta,
        bytes: 77,
        learn_bytes: 70,
        etag: etag.map(String::from),
    };
    Commit {
        previous: Some(CommitHash([1; 32])),
        time: Time { secs: 9, nanos: 1 },
        snapshots_added: vec![snapshot],
        snapshots_removed: vec![SnapshotId([7; 16])],
        volumes_added: vec![volume(None), volume(Some("\"abc\""))],
        volumes_retired: vec![VolumeName([6; 32])],
        heads: vec![Head { client: ClientId([5; 16]), seq: 12, hash: CommitHash([2; 32]) }],
        ..Commit::default()
    }
}

fn keys() -> Keys {
    Keys::derive(&MasterKey::from_bytes([7; 32]), RepositoryId([1; 16]))
}

#[test]
fn a_commit_opens_as_what_it_was() {
    let (client, commit) = (ClientId([1; 16]), sample());
    let object = commit.seal(&keys().commit(client, 4), client, 4).unwrap();
    assert_eq!(Commit::open(&object, &keys().commit(client, 4), client, 4), Ok(commit));
}

#[test]
fn what_no_reader_would_take_is_not_written() {
    let client = ClientId([1; 16]);
    let mut commit = sample();
    commit.snapshots_added[0].tags = vec!["t".repeat(300)];
    assert_eq!(commit.seal(&keys().commit(client, 4), client, 4), Err(DecodeError::Limit("a label")));
}

#[test]
fn a_commit_is_bound_to_its_client_its_number_and_every_bit() {
    let client = ClientId([1; 16]);
    let object = sample().seal(&keys().commit(client, 4), client, 4).unwrap();
    assert!(Commit::open(&object, &keys().commit(client, 5), client, 5).is_err());
    let other = ClientId([2; 16]);
    assert!(Commit::open(&object, &keys().commit(other, 4), other, 4).is_err());
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Commit::open(&flipped, &keys().commit(client, 4), client, 4).is_err(), "bit {bit}");
    }
    for length in 0..object.len() {
        assert!(Commit::open(&object[..length], &keys().commit(client, 4), client, 4).is_err());
    }
}

#[test]
fn a_commit_gives_up_commits_of_other_chains_only() {
    let (client, other, mut commit) = (ClientId([1; 16]), ClientId([9; 16]), sample());
    let chains = vec![ChainLoss { client: other, first: 3, last: 3 }];
    commit.losses = Losses { chains, volumes: vec![VolumeName([4; 32])] };
    let object = commit.seal(&keys().commit(client, 4), client, 4).unwrap();
    assert_eq!(Commit::open(&object, &keys().commit(client, 4), client, 4).as_ref(), Ok(&commit));
    for (first, last) in [(0, 3), (4, 3)] {
        commit.losses.chains[0] = ChainLoss { client: other, first, last };
        assert_eq!(commit.seal(&keys().commit(client, 4), client, 4), Err(DecodeError::Invalid("a loss")));
    }
    commit.losses.chains[0] = ChainLoss { client, first: 1, last: 3 };
    assert_eq!(commit.seal(&keys().commit(client, 4), client, 4), Err(DecodeError::Invalid("the checkpoint")));
}

#[test]
fn a_checkpoint_stands_for_the_commits_just_before_it() {
    let (client, seq) = (ClientId([1; 16]), 4);
    let of = |checkpoint| Commit { checkpoint, ..sample() };
    for checkpoint in [Checkpoint::None, Checkpoint::At(1), Checkpoint::At(3)] {
        let plain = of(checkpoint).encode(client, seq);
        assert_eq!(Commit::decode(&plain, client, seq), Ok(of(checkpoint)));
    }
    for first in 1..seq {
        let here = of(Checkpoint::Here { first });
        assert_eq!(Commit::decode(&here.encode(client, seq), client, seq).as_ref(), Ok(&here));
        // Under another number, or in another chain, the same bytes say something else or nothing.
        for (client, seq) in [(client, seq - 1), (client, seq + 1), (ClientId([2; 16]), seq)] {
            assert!(Commit::decode(&here.encode(ClientId([1; 16]), 4), client, seq).is_err());
        }
    }
    let wrong = Err(DecodeError::Invalid("the checkpoint"));
    let mut twice = of(Checkpoint::Here { first: 1 });
    twice.losses.chains.push(ChainLoss { client, first: 2, last: 3 });
    for commit in [of(Checkpoint::At(4)), of(Checkpoint::At(5)), twice] {
        assert_eq!(commit.seal(&keys().commit(client, seq), client, seq), wrong);
    }
    let begins = [(Checkpoint::None, 7, 0), (Checkpoint::At(3), 7, 3), (Checkpoint::Here { first: 1 }, 7, 7)];
    for (checkpoint, seq, number) in begins {
        assert_eq!((checkpoint.number(seq), checkpoint.after(seq).number(seq + 1)), (number, number));
    }
}

#[test]
fn a_commit_is_padded_and_its_padding_is_zero() {
    let client = ClientId([1; 16]);
    let mut lengths = BTreeSet::new();
    for tags in 0..40 {
        let mut commit = sample();
        commit.snapshots_added[0].tags = vec!["0123456789abcdef".into(); tags];
        let object = commit.seal(&keys().commit(client, 4), client, 4).unwrap();
        assert_eq!(Commit::open(&object, &keys().commit(client, 4), client, 4), Ok(commit));
        lengths.insert(object.len());
    }
    assert!(lengths.len() <= 3 && lengths.iter().all(|length| length % 512 == 0), "{lengths:?}");
    for (bytes, padded) in [(1, 512), (512, 512), (513, 1024), (20_000, 20_480), (100_000, 100_352), (1 << 26, 1 << 26)]
    {
        assert_eq!(padded_bytes(bytes, u64::MAX), padded, "{bytes}");
    }
    for bytes in (64 << 20) - 9..=64 << 20 {
        assert_eq!(padded_bytes(bytes, u64::MAX), limits::COMMIT_BYTES_MAX, "padding leads over no limit");
    }
    let plain = sample().encode(client, 4);
    assert_eq!(Commit::decode(&[plain.as_slice(), &[0; 9]].concat(), client, 4), Ok(sample()));
    let followed = Commit::decode(&[plain.as_slice(), &[0, 0, 1]].concat(), client, 4);
    assert_eq!(followed, Err(DecodeError::Trailing));
}

#[test]
fn features_are_attributes_that_every_program_knows() {
    let (client, mut commit) = (ClientId([1; 16]), sample());
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    commit.features = Features { read: owned(&["a", "b"]), write: owned(&["parity"]), optional: vec![] };
    commit.attributes.set(Attribute { tag: 9, is_critical: false, value: vec![1] });
    let opened = Commit::decode(&commit.encode(client, 4), client, 4).unwrap();
    assert_eq!((&opened, opened.needs()), (&commit, commit.features.clone()));
    commit.attributes.set(Attribute { tag: 77, is_critical: true, value: vec![] });
    let opened = Commit::decode(&commit.encode(client, 4), client, 4).unwrap();
    assert_eq!(opened.needs().read, ["a", "attribute 77", "b"]);
    for (tag, value) in
        [(1, vec![]), (1, vec![0]), (1, vec![1, 1, b'A']), (2, vec![2, 1, b'b', 1, b'a']), (3, vec![1, 2, b'x'])]
    {
        let mut wrong = sample();
        wrong.attributes.set(Attribute { tag, is_critical: false, value });
        assert!(Commit::decode(&wrong.encode(client, 4), client, 4).is_err(), "{tag}");
    }
}

#[test]
fn a_commit_that_only_takes_a_number_is_empty() {
    let taken = Commit { previous: Some(CommitHash([1; 32])), heads: sample().heads, ..Commit::default() };
    assert!(taken.is_empty() && Commit { checkpoint: Checkpoint::At(3), ..taken.clone() }.is_empty());
    let one = Features { optional: vec!["x".into()], ..Features::default() };
    let mut more = vec![
        Commit { slots_removed: vec![SlotId([1; 16])], ..taken.clone() },
        Commit { checkpoint: Checkpoint::Here { first: 1 }, ..taken.clone() },
        Commit { features: one, ..taken.clone() },
        Commit { losses: Losses { volumes: vec![VolumeName([1; 32])], ..Losses::default() }, ..taken.clone() },
        Commit { snapshots_added: sample().snapshots_added, ..taken.clone() },
        Commit { snapshots_removed: sample().snapshots_removed, ..taken.clone() },
        Commit { volumes_added: sample().volumes_added, ..taken.clone() },
        Commit { volumes_retired: sample().volumes_retired, ..taken.clone() },
    ];
    let mut attributes = taken;
    attributes.attributes.set(Attribute { tag: 99, is_critical: false, value: vec![] });
    more.push(attributes);
    assert!(more.iter().all(|commit| !commit.is_empty()));
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let one = (any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40));
    prop::collection::vec(one, 0..9).prop_map(|all| {
        let mut attributes = Attributes::default();
        all.into_iter().for_each(|(tag, is_critical, value)| attributes.set(Attribute { tag, is_critical, value }));
        attributes
    })
}

/// Lists of anything, a checkpoint of any kind, features and attributes, for commit `seq` of client 1.
fn any_commit(seq: u64) -> impl Strategy<Value = Commit> {
    fn bytes<const N: usize>() -> impl Strategy<Value = Vec<[u8; N]>> {
        prop::collection::vec(any::<[u8; N]>(), 0..5)
    }
    let names = || prop::collection::btree_set("[a-z0-9-]{1,9}", 0..4);
    let checkpoint = prop_oneof![
        Just(Checkpoint::None),
        (1..seq).prop_map(Checkpoint::At),
        (1..seq).prop_map(|first| Checkpoint::Here { first }),
    ];
    let losses = prop::collection::vec((any::<u64>(), 1..u64::MAX, 0u64..9), 0..4);
    let lists = (bytes::<16>(), bytes::<32>(), bytes::<32>(), bytes::<16>());
    (lists, losses, checkpoint, (names(), names()), any_attributes()).prop_map(
        |((removed, retired, lost, slots), losses, checkpoint, (read, write), mut attributes)| {
            (1..=3).for_each(|tag| drop(attributes.take(tag)));
            let loss = |(client, first, more): (u64, u64, u64)| {
                let client = ClientId([&client.to_le_bytes()[..], &[9; 8]].concat().try_into().unwrap());
                ChainLoss { client, first, last: first.saturating_add(more) }
            };
            let write = write.difference(&read).cloned().collect();
            Commit {
                snapshots_removed: removed.into_iter().map(SnapshotId).collect(),
                volumes_retired: retired.into_iter().map(VolumeName).collect(),
                losses: Losses {
                    chains: losses.into_iter().map(loss).collect(),
                    volumes: lost.into_iter().map(VolumeName).collect(),
                },
                slots_removed: slots.into_iter().map(SlotId).collect(),
                checkpoint,
                features: Features { read: read.into_iter().collect(), write, optional: vec![] },
                attributes,
                ..sample()
            }
        },
    )
}

proptest! {
    #[test]
    fn any_commit_opens_as_what_it_was(commit in any_commit(40)) {
        let client = ClientId([1; 16]);
        let object = commit.seal(&keys().commit(client, 40), client, 40).unwrap();
        prop_assert_eq!(object.len() % 512, 0);
        prop_assert_eq!(Commit::open(&object, &keys().commit(client, 40), client, 40), Ok(commit));
    }

    #[test]
    fn bytes_that_decode_as_a_commit_encode_as_themselves(
        commit in any_commit(40), at in any::<prop::sample::Index>(), bit in 0u32..8
    ) {
        let client = ClientId([1; 16]);
        let mut plain = commit.encode(client, 40);
        *at.get_mut(&mut plain) ^= 1 << bit;
        if let Ok(other) = Commit::decode(&plain, client, 40) {
            let again = other.encode(client, 40);
            prop_assert_eq!(Commit::decode(&again, client, 40), Ok(other));
        }
    }

    #[test]
    fn attributes_of_a_snapshot_survive_whatever_they_say(attributes in any_attributes()) {
        let (client, mut commit) = (ClientId([1; 16]), sample());
        commit.snapshots_added[0].attributes = attributes;
        commit.snapshots_added.push(sample().snapshots_added.remove(0));
        let object = commit.seal(&keys().commit(client, 4), client, 4).unwrap();
        let opened = Commit::open(&object, &keys().commit(client, 4), client, 4).unwrap();
        prop_assert_eq!(&opened, &commit);
        let record = encode_snapshot_record(&opened.snapshots_added[0]);
        prop_assert_eq!(encode_snapshot_record(&decode_snapshot_record(&record).unwrap()), record);
    }
}

#[test]
fn a_critical_attribute_concerns_its_snapshot_alone() {
    let mut commit = sample();
    commit.snapshots_added.push(sample().snapshots_added.remove(0));
    commit.snapshots_added[0].attributes.set(Attribute { tag: 77, is_critical: true, value: vec![1] });
    let client = ClientId([1; 16]);
    let opened = Commit::decode(&commit.encode(client, 4), client, 4).unwrap();
    let text = opened.snapshots_added[0].check_readable().unwrap_err().to_string();
    assert!(text.ends_with("made by a newer bygone: it needs attribute 77 of snapshots; get a newer bygone"), "{text}");
    assert!(opened.snapshots_added[1].is_readable());
}

#[test]
fn a_record_ends_with_its_attributes() {
    let record = encode_snapshot_record(&sample().snapshots_added[0]);
    assert_eq!(decode_snapshot_record(&[record.as_slice(), &[0]].concat()), Err(DecodeError::Trailing));
    assert_eq!(decode_snapshot_record(&record[..record.len() - 1]), Err(DecodeError::Short));
}

#[test]
fn a_root_that_is_not_understood_costs_only_its_snapshot() {
    let mut snapshot = sample().snapshots_added.remove(0);
    for (is_critical, is_readable) in [(false, true), (true, false)] {
        snapshot.root_attributes.set(Attribute { tag: 50, is_critical, value: b"later".to_vec() });
        let read = decode_snapshot_record(&encode_snapshot_record(&snapshot));
        assert_eq!(read.as_ref(), Ok(&snapshot));
        assert_eq!(read.is_ok_and(|read| read.is_readable()), is_readable);
    }
}
