//! Commits open as what they were, and only as what they were.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::attributes::Attribute;
use crate::crypto::Keys;
use crate::crypto::MasterKey;
use crate::entry::Meta;
use crate::id::NodeId;
use crate::id::RepositoryId;

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
        losses: Losses::default(),
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
fn accepted_losses_are_a_commit_kind_of_their_own() {
    let (client, mut commit) = (ClientId([1; 16]), sample());
    let plain = commit.encode();
    assert_eq!(plain[0], KIND_CHANGES);
    let chains = vec![ChainLoss { client: ClientId([9; 16]), first: 3, last: 3 }];
    commit.losses = Losses { chains, volumes: vec![VolumeName([4; 32])] };
    let object = commit.seal(&keys().commit(client, 4), client, 4).unwrap();
    assert_eq!(Commit::open(&object, &keys().commit(client, 4), client, 4).as_ref(), Ok(&commit));
    let with = commit.encode();
    assert_eq!((with[0], &with[1..plain.len()]), (KIND_LOSSES, &plain[1..]));
    for (first, last) in [(0, 3), (4, 3)] {
        commit.losses.chains[0] = ChainLoss { client, first, last };
        assert_eq!(commit.seal(&keys().commit(client, 4), client, 4), Err(DecodeError::Invalid("a loss")));
    }
    assert!(Commit::decode(&[&[KIND_LOSSES], &plain[1..], &[0, 0]].concat()).is_err());
    assert_eq!(Commit::decode(&[&[2], &plain[1..]].concat()), Err(DecodeError::Invalid("the kind of commit")));
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let one = (any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40));
    prop::collection::vec(one, 0..9).prop_map(|all| {
        let mut attributes = Attributes::default();
        all.into_iter().for_each(|(tag, is_critical, value)| attributes.set(Attribute { tag, is_critical, value }));
        attributes
    })
}

proptest! {
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
    let opened = Commit::decode(&commit.encode()).unwrap();
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
