//! A recovery brings the newest snapshot ahead of everything, and trouble with that snapshot does not hold up the rest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::dump;
use common::init;
use common::meta;
use common::open;
use common::options;
use common::place;
use proptest::prelude::*;

use bygone_core::catalog::VolumeRow;
use bygone_core::catalog::VolumeState;
use bygone_core::check;
use bygone_core::check::ReadData;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::error::Result;
use bygone_core::noise::noise;
use bygone_core::objects::VolumeKind;
use bygone_core::objects::volume_object;
use bygone_core::read::VolumeFile;
use bygone_core::recover;
use bygone_core::recover::Learnt;
use bygone_core::recover::Told;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Place;
use bygone_core::store::ByteRange;
use bygone_core::store::ObjectName;
use bygone_core::store::Store;
use bygone_core::store::testing::faulty::Call;
use bygone_core::store::testing::faulty::Fault;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::faulty::Verb;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::volume::HEADER_BYTES;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Writer;

const DIRECTORIES: u64 = 40;
const ENTRIES: u64 = 50;

/// A backup of directories full of names that do not compress; `versions` says what is in each.
fn backup(place: &Place, round: i64, versions: &[u64]) -> String {
    let name = |text: String| Name::new(text.as_bytes()).unwrap();
    let body = |writer: &mut Writer<'_>| {
        writer.directory_begin()?;
        for (directory, version) in versions.iter().enumerate() {
            writer.directory_begin()?;
            for entry in 0..ENTRIES {
                let noise = noise(directory as u64 * 1_000_000 + version * 1_000 + entry, 100);
                let noise: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
                writer.add(Entry::new(name(format!("{entry:03}{noise}")), meta(0), Kind::Socket))?;
            }
            writer.directory_end(Some(name(format!("{directory:03}"))), meta(0))?;
        }
        writer.directory_end(None, meta(0))?;
        Ok(((), 0))
    };
    let options = BackupOptions { time: Time { secs: round, nanos: 0 }, ..options() };
    write::backup(&mut open(place), options, &Watch::new(), body).unwrap().1.id.to_hex()
}

/// Ten snapshots by two machines, each changing most of the previous one. Returns the ids, oldest first, and the tree
/// volumes that each added.
fn history(memory: &Arc<MemoryStore>) -> (Vec<String>, Vec<Vec<ObjectName>>, Vec<String>) {
    let (_here_dir, here) = place(memory.clone());
    let (_there_dir, there) = place(memory.clone());
    init(&here);
    let mut versions = vec![0; DIRECTORIES as usize];
    let (mut ids, mut trees) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::new();
    for round in 0..10 {
        for (directory, version) in versions.iter_mut().enumerate() {
            *version += u64::from(directory % 10 != round % 10);
        }
        let machine = if round % 3 == 2 { &there } else { &here };
        recover::sync(&mut open(machine), &Watch::new()).unwrap();
        ids.push(backup(machine, round as i64, &versions));
        let listed = memory.list("meta/").unwrap().into_iter().map(|object| object.name);
        trees.push(listed.filter(|name| known.insert(name.clone())).collect());
    }
    let mut locked = open(&here);
    recover::sync(&mut locked, &Watch::new()).unwrap();
    (ids, trees, dump(&mut locked))
}

/// Recovers with the newest snapshot first, and returns which snapshots were shown, in order, after which calls.
fn recover(locked: &mut LockedRepository, store: &FaultyStore) -> (Vec<(String, Vec<Call>)>, Result<Learnt>) {
    let mut shown = Vec::new();
    let plan = recover::plan(locked).map(|plan| plan.with_newest_ahead_from(0));
    let done = plan.and_then(|plan| {
        plan.carry_out(locked, &Watch::new(), &mut |progress| {
            if let Told::Shown(snapshot) = progress {
                shown.push((snapshot.id.to_hex(), store.calls()));
            }
        })
    });
    (shown, done)
}

fn is_whole_read(call: &Call) -> bool {
    call.object.starts_with("meta/") && matches!(call.range, Some(ByteRange::Whole { .. }))
}

fn bytes_read(calls: &[Call]) -> u64 {
    let bytes = |call: &Call| match call.range {
        Some(ByteRange::Part { bytes, .. }) if call.object.starts_with("meta/") => bytes,
        _ => 0,
    };
    calls.iter().map(bytes).sum()
}

#[test]
fn the_newest_snapshot_is_shown_first_then_the_others() {
    let memory = Arc::new(MemoryStore::new());
    let (ids, _, before) = history(&memory);
    let watched = Arc::new(FaultyStore::new(memory.clone()));
    let (_dir, here) = place(watched.clone());
    let mut locked = open(&here);
    let (shown, done) = recover(&mut locked, &watched);
    done.unwrap();
    let order: Vec<&String> = shown.iter().map(|(id, _)| id).collect();
    assert_eq!(order, ids.iter().rev().collect::<Vec<_>>());
    let stored: u64 = memory.list("meta/").unwrap().iter().map(|object| object.bytes).sum();
    let calls = &shown[0].1;
    assert!(!calls.iter().any(is_whole_read), "no volume was read whole yet");
    assert!(bytes_read(calls) * 10 < stored * 6, "{} of {stored} bytes", bytes_read(calls));
    assert!(dump(&mut locked) == before, "the catalog is as if it had been read in any other order");
    let numbers: Vec<u64> = locked.catalog().read().snapshots().unwrap().iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<u64>>(), "as if the oldest had been read first");
    let found = check::check(&mut locked, ReadData::All, &Watch::new()).unwrap();
    assert!(found.is_clean(), "{found:?}");
}

#[test]
fn a_resumed_recovery_brings_the_newest_only_once() {
    let memory = Arc::new(MemoryStore::new());
    let (ids, _, before) = history(&memory);
    let (mut died_before, mut died_after) = (0, 0);
    for connections in [1, 3] {
        let (_dir, here) = place(memory.clone());
        let mut call = 1;
        loop {
            let store = Arc::new(FaultyStore::new(memory.clone()).with_connections(connections));
            let broken = Place { store: store.clone(), catalog_base: here.catalog_base.clone() };
            let mut locked = open(&broken);
            let visible_before = locked.catalog().read().snapshots().unwrap().len();
            store.forget_calls();
            store.die_at_call(call, Fault::Before);
            let (shown, done) = recover(&mut locked, &store);
            let rows = locked.catalog().read().snapshots().unwrap();
            let visible: Vec<String> = rows.iter().map(|row| row.snapshot.id.to_hex()).collect();
            assert!(ids.ends_with(&visible), "the newest are shown first, in their order");
            assert_eq!(visible.len(), visible_before + shown.len(), "each is shown once");
            if visible_before > 0 {
                let parts = bytes_read(&store.calls());
                assert_eq!(parts, 0, "the newest is there: nothing is read to have it sooner");
            }
            match done {
                Ok(_) => break,
                Err(error) => assert!(FaultyStore::is_injected(&error), "{error}"),
            }
            died_before += usize::from(visible.is_empty());
            died_after += usize::from(!visible.is_empty());
            call += 1;
            assert!(call < 500, "it never gets through");
        }
        let mut locked = open(&Place { store: memory.clone(), catalog_base: here.catalog_base.clone() });
        assert!(dump(&mut locked) == before, "the catalog is as it was");
        let numbers: Vec<u64> = locked.catalog().read().snapshots().unwrap().iter().map(|row| row.number).collect();
        assert_eq!(numbers, (1..=10).collect::<Vec<u64>>());
    }
    assert!(died_before > 5 && died_after > 1, "it died in many places: {died_before}, {died_after}");
}

/// The harm done to the volume of the newest snapshot's own nodes.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Gone,
    GoneWhileItIsRead,
    CutWhileItIsRead,
    Flipped(usize),
    Another,
}

#[test]
fn whatever_is_wrong_with_the_newest_the_others_come() {
    let harms = [Harm::Gone, Harm::GoneWhileItIsRead, Harm::CutWhileItIsRead, Harm::Another];
    let (all, (ids, trees, _)) = {
        let memory = Arc::new(MemoryStore::new());
        let made = history(&memory);
        (memory.objects(), made)
    };
    for harm in harms.into_iter().chain([2, 1_000, 100_000].map(Harm::Flipped)).chain([Harm::Flipped(usize::MAX)]) {
        let memory = Arc::new(MemoryStore::new());
        all.iter().for_each(|(name, bytes)| memory.tamper(name, Some(bytes.to_vec())));
        let victim = trees.last().unwrap().first().unwrap().clone();
        let bytes = memory.objects()[&victim].to_vec();
        let harmed = match harm {
            Harm::Gone | Harm::GoneWhileItIsRead => None,
            Harm::CutWhileItIsRead => Some(bytes[..bytes.len() / 2].to_vec()),
            Harm::Flipped(at) => {
                let mut bytes = bytes.clone();
                let at = at.min(bytes.len() - 1);
                bytes[at] ^= 1;
                Some(bytes)
            }
            Harm::Another => Some(memory.objects()[trees[0].first().unwrap()].to_vec()),
        };
        let is_while = matches!(harm, Harm::GoneWhileItIsRead | Harm::CutWhileItIsRead);
        if !is_while {
            memory.tamper(&victim, harmed.clone());
        }
        let store = Arc::new(FaultyStore::new(memory.clone()));
        let (_dir, here) = place(store.clone());
        let mut locked = open(&here);
        let plan = recover::plan(&mut locked).unwrap().with_newest_ahead_from(0);
        if is_while {
            memory.tamper(&victim, harmed);
        }
        let learnt = plan.carry_out(&mut locked, &Watch::new(), &mut |_| {}).unwrap();
        assert_eq!(locked.catalog().read().heads().unwrap().len(), 2, "{harm:?}: all commits are adopted");
        let rows = locked.catalog().read().snapshots().unwrap();
        assert_eq!(rows.len(), ids.len(), "{harm:?}: all snapshots are there");
        let is_lost = |row: &VolumeRow| row.state == VolumeState::Lost;
        let lost = locked.catalog().read().volumes().unwrap().into_iter().filter(is_lost).count();
        let found = check::check(&mut locked, ReadData::All, &Watch::new()).unwrap();
        // A flip outside locators and index is found only by reading data, and costs the nodes of one frame.
        assert!(found.has_damage() && lost >= learnt.damaged.len(), "{harm:?}: {learnt:?} {found:?}");
        let newest = rows.last().unwrap().snapshot.id;
        let others = found.affected.iter().filter(|affected| affected.snapshot != newest).count();
        assert_eq!(others, 0, "{harm:?}: the others have lost nothing: {:?}", found.affected);
        // And once the volume is back, so is the newest snapshot.
        memory.tamper(&victim, Some(bytes));
        recover::recover(&mut locked, &Watch::new()).unwrap();
        let found = check::check(&mut locked, ReadData::All, &Watch::new()).unwrap();
        assert_eq!(found.affected_count, 0, "{harm:?}: {found:?}");
    }
}

#[test]
fn what_is_mostly_new_is_not_read_twice() {
    // A single snapshot needs all volumes.
    let memory = Arc::new(MemoryStore::new());
    let (_first_dir, first) = place(memory.clone());
    init(&first);
    let id = backup(&first, 0, &[0; DIRECTORIES as usize]);
    let stored: u64 = memory.list("meta/").unwrap().iter().map(|object| object.bytes).sum();
    let watched = Arc::new(FaultyStore::new(memory));
    let (_dir, here) = place(watched.clone());
    let (shown, done) = recover(&mut open(&here), &watched);
    done.unwrap();
    assert_eq!(shown.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [id]);
    let calls = watched.calls();
    assert!(calls.iter().filter(|call| call.verb == Verb::Get && is_whole_read(call)).count() > 0);
    assert!(bytes_read(&calls) * 2 < stored, "{} of {stored}", bytes_read(&calls));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn some_blocks_of_a_volume_are_what_a_pass_over_all_of_it_gives(
        lengths in prop::collection::vec(prop_oneof![1usize..3_000, 60_000usize..200_000], 1..40),
        wanted in prop::collection::vec(any::<bool>(), 40),
        flipped in prop::option::of(0usize..2_000_000),
    ) {
        let memory = Arc::new(MemoryStore::new());
        let (_dir, first) = place(memory.clone());
        init(&first);
        let files: Vec<(String, Vec<u8>)> =
            lengths.iter().enumerate().map(|(n, length)| (format!("{n:03}"), noise(n as u64, *length))).collect();
        common::backup(&mut open(&first), &files).unwrap();
        let watched = Arc::new(FaultyStore::new(memory.clone()));
        let store: Arc<dyn Store> = watched.clone();
        let mut locked = open(&first);
        let rows = locked.catalog().read().volumes().unwrap();
        let keys = locked.repository().keys();
        for row in rows.iter().filter(|row| row.kind == VolumeKind::Data) {
            let object = volume_object(row.kind, row.name);
            let file = VolumeFile::open(&store, keys, row.kind, row.name, row.bytes).unwrap();
            // Where frames lie, one may be spoilt.
            let sealed = file.index().frames.iter().map(|frame| frame.stored_bytes as usize).sum::<usize>();
            if let Some(at) = flipped {
                let mut bytes = memory.objects()[&object].to_vec();
                bytes[HEADER_BYTES as usize + at % sealed] ^= 1;
                memory.tamper(&object, Some(bytes));
            }
            let (mut raw, mut all) = (Vec::new(), Vec::new());
            file.pass(|bytes| raw.extend_from_slice(bytes), |info, bytes| all.push((*info, bytes.map(<[u8]>::to_vec))))
                .unwrap();
            prop_assert!(raw == memory.objects()[&object].to_vec(), "every byte once, in order");
            prop_assert_eq!(all.len(), file.index().items_count());
            let numbers: Vec<usize> = (0..all.len()).filter(|number| wanted[number % 40]).collect();
            watched.forget_calls();
            let mut some = Vec::new();
            file.some(&numbers, |info, bytes| some.push((*info, Some(bytes.to_vec())))).unwrap();
            let expected: Vec<_> =
                numbers.iter().map(|number| all[*number].clone()).filter(|(_, bytes)| bytes.is_some()).collect();
            prop_assert!(some == expected);
            let asked: u64 = watched.calls().iter().map(|call| match call.range {
                Some(ByteRange::Part { bytes, .. }) => bytes,
                _ => 0,
            }).sum();
            prop_assert_eq!(asked, file.some_bytes(&numbers));
        }
    }
}
