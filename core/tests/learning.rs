//! Learning from the store resumes after any interruption and brings the newest snapshots first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::backup;
use common::dump;
use common::init;
use common::init_with;
use common::meta;
use common::open;
use common::options;
use common::place;

use bygone_core::catalog::VolumeState;
use bygone_core::check;
use bygone_core::check::ReadData;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::noise::noise;
use bygone_core::recover;
use bygone_core::recover::Told;
use bygone_core::repair;
use bygone_core::repair::Repaired;
use bygone_core::repair::Sources;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Place;
use bygone_core::store::ByteRange;
use bygone_core::store::Store;
use bygone_core::store::testing::faulty::Call;
use bygone_core::store::testing::faulty::Fault;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::faulty::Verb;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::Writer;

/// Five snapshots, each changing one of three directories.
fn history(place: &Place) -> Vec<String> {
    init(place);
    let mut ids = Vec::new();
    for round in 0..5u64 {
        let files: Vec<(String, Vec<u8>)> = (0..6)
            .map(|n| (format!("f{n}"), noise(n * 100 + if n == round { round + 1 } else { 0 }, 300_000)))
            .collect();
        ids.push(backup(&mut open(place), &files).unwrap().id.to_hex());
    }
    ids
}

fn shown(locked: &mut LockedRepository) -> Vec<String> {
    locked.catalog().read().snapshots().unwrap().into_iter().map(|row| row.snapshot.id.to_hex()).collect()
}

#[test]
fn a_recovery_killed_at_any_call_resumes_to_the_same_end() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, first) = place(memory.clone());
    let ids = history(&first);
    let before = dump(&mut open(&first));
    let (_dir, second) = place(memory.clone());
    // The store dies a call later each time, until recovery completes.
    let mut runs = 0;
    loop {
        let store = Arc::new(FaultyStore::new(memory.clone()).with_connections(1 + runs % 3));
        let broken = Place { store: store.clone(), catalog_base: second.catalog_base.clone() };
        let mut locked = open(&broken);
        store.forget_calls();
        store.die_at_call(runs as u64 + 1, Fault::Before);
        let done = recover::recover(&mut locked, &Watch::new());
        runs += 1;
        let visible = shown(&mut locked);
        assert!(ids.ends_with(&visible), "the newest are shown first, in their order: {visible:?} of {ids:?}");
        if done.is_ok() {
            break;
        }
        assert!(FaultyStore::is_injected(&done.unwrap_err()));
        assert!(runs < 100, "it never gets through");
    }
    assert!(runs > 5, "it died in many places");
    let mut locked = open(&second);
    assert_eq!(dump(&mut locked), before);
    let numbers: Vec<u64> = locked.catalog().read().snapshots().unwrap().iter().map(|row| row.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "as if the oldest had been read first");
}

#[test]
fn the_newest_snapshot_is_shown_before_data_volumes_are_read() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, first) = place(memory.clone());
    let ids = history(&first);
    let watched = Arc::new(FaultyStore::new(memory).with_connections(1));
    let (_dir, second) = place(watched.clone());
    let mut locked = open(&second);
    let plan = recover::plan(&mut locked).unwrap();
    let work = plan.work();
    watched.forget_calls();
    let mut shown = Vec::new();
    let mut last = recover::Work::default();
    let learnt = plan
        .carry_out(&mut locked, &Watch::new(), &mut |progress| match progress {
            Told::Shown(snapshot) => {
                let gets = watched.calls().iter().filter(|call| call.object.starts_with("data/")).count();
                shown.push((snapshot.id.to_hex(), gets));
            }
            Told::Done(done) => last = done,
        })
        .unwrap();
    assert_eq!((work.commits, last.volumes, last.bytes), (5, work.volumes, work.bytes), "the estimate was right");
    assert_eq!(learnt.volumes, work.volumes);
    let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(shown.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), newest_first);
    // With one connection, the window limits what is read before the first look; it contains the trees before any
    // content.
    let calls = watched.calls();
    let first_data = calls.iter().position(|call| call.object.starts_with("data/")).unwrap();
    assert!(calls[..first_data].iter().all(|call| call.object.starts_with("meta/")), "trees come first");
    assert!(calls[first_data..].iter().all(|call| call.object.starts_with("data/")));
    let whole = |call: &&bygone_core::store::testing::faulty::Call| {
        call.object.starts_with("data/") && matches!(call.range, Some(ByteRange::Whole { .. }))
    };
    assert_eq!(calls.iter().find(whole).map(|call| call.object.clone()), None, "no content is read");
}

#[test]
fn a_long_volume_of_trees_is_taken_in_by_parts() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, first) = place(memory.clone());
    init_with(&first, 32 << 20);
    let body = |writer: &mut Writer<'_>| {
        writer.directory_begin()?;
        for folder in 0..100u64 {
            writer.directory_begin()?;
            for file in 0..500u64 {
                // Names that do not compress, in order.
                let noise: String =
                    noise(folder * 1_000 + file, 120).iter().map(|byte| format!("{byte:02x}")).collect();
                let name = Name::new(format!("{file:04}{noise}").as_bytes()).unwrap();
                writer.add(Entry::new(name, meta(0), Kind::Socket))?;
            }
            writer.directory_end(Some(Name::new(format!("{folder:03}").as_bytes()).unwrap()), meta(0))?;
        }
        writer.directory_end(None, meta(0))?;
        Ok(((), 0))
    };
    write::backup(&mut open(&first), options(), &Watch::new(), body).unwrap();
    let before = dump(&mut open(&first));
    assert_eq!(memory.list("meta/").unwrap().len(), 1);
    let (_dir, second) = place(memory.clone());
    let mut locked = open(&second);
    let learnt = recover::recover(&mut locked, &Watch::new()).unwrap();
    assert!(dump(&mut locked) == before);
    let nodes = before.iter().filter(|line| line.starts_with("node ")).count() as u64;
    assert_eq!((learnt.volumes, learnt.nodes), (1, nodes));
    // Interrupted, it ends.
    let (_dir, third) = place(memory);
    let mut locked = open(&third);
    let watch = Watch::new();
    let plan = recover::plan(&mut locked).unwrap();
    watch.cancel();
    assert!(plan.carry_out(&mut locked, &watch, &mut |_| {}).is_err());
}

#[test]
fn a_block_stored_twice_is_located_in_the_first_volume() {
    // Two machines that do not know each other store the same content.
    let memory = Arc::new(MemoryStore::new());
    let (_here_dir, here) = place(memory.clone());
    let (_there_dir, there) = place(memory.clone());
    init(&here);
    let files = [("a", noise(1, 400_000))];
    let mut blind = open(&there);
    backup(&mut open(&here), &files).unwrap();
    backup(&mut blind, &files).unwrap();
    drop(blind);
    let mut locked = open(&here);
    recover::sync(&mut locked, &Watch::new()).unwrap();
    assert_eq!(locked.catalog().read().volumes().unwrap().len(), 4, "both have stored everything");
    let before = dump(&mut locked);
    let heads: Vec<_> = locked.catalog().read().heads().unwrap();
    assert_eq!(heads.len(), 2);
    drop(locked);
    let (_new_dir, new) = place(memory);
    let mut locked = open(&new);
    recover::recover(&mut locked, &Watch::new()).unwrap();
    let first = locked.catalog().read().volumes().unwrap();
    let blocks = first.iter().map(|row| locked.catalog().read().blocks_of(row.id).unwrap().len());
    // Both commits have the same time, so the clients' ids decide which chain goes first, on every machine.
    let counts: Vec<usize> = blocks.collect();
    assert_eq!(counts.iter().filter(|count| **count > 0).count(), 2, "all blocks in one pair of volumes: {counts:?}");
    let same = dump(&mut locked) == before;
    let is_here_first = heads.iter().map(|head| head.client).min() == Some(open(&here).client());
    assert_eq!(same, is_here_first, "if the first chain is that of this machine, the catalogs are equal");
}

/// Repairs a volume with a store that dies at a call. The first block is only in the source, the others only in the
/// damaged object. Returns whether the repair completed, and whether the object was gone if it did not.
fn repair_that_dies_at(number: u64) -> (bool, bool) {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, first) = place(memory.clone());
    init(&first);
    let content = noise(1, 400_000);
    backup(&mut open(&first), &[("a", content.clone())]).unwrap();
    let victim = memory.list("data/").unwrap().swap_remove(0).name;
    let sound = memory.objects()[&victim].to_vec();
    let mut damaged = sound.clone();
    damaged[1_000] ^= 1;
    memory.tamper(&victim, Some(damaged));
    let store = Arc::new(FaultyStore::new(memory.clone()).with_connections(1));
    let broken = Place { store: store.clone(), catalog_base: first.catalog_base.clone() };
    let mut locked = open(&broken);
    check::check(&mut locked, ReadData::All, &Watch::new()).unwrap();
    store.forget_calls();
    store.die_at_call(number, Fault::Before);
    let repair = |locked: &mut LockedRepository, read_file: &mut repair::ReadFile<'_>| {
        let mut repaired = Repaired::default();
        let mut read = |path: &[u8], offset: u64, length: u32| read_file(path, offset, length);
        let mut sources = Sources { second: None, read_file: &mut read, read_cache: &|_, _| None };
        repair::repair_volumes(locked, &[], &mut sources, Time::default(), &Watch::new(), &mut repaired)
    };
    let block = |path: &[u8], offset: u64, length: u32| {
        // A frame holds two blocks.
        let start = usize::try_from(offset).unwrap();
        (path == b"/a" && offset < 1 << 17).then(|| content[start..start + length as usize].to_vec())
    };
    let done = repair(&mut locked, &mut { block });
    drop(locked);
    let is_gone = !memory.objects().contains_key(&victim);
    if done.is_err() && is_gone {
        // A second try, when the store works and the source is gone.
        repair(&mut open(&first), &mut |_, _, _| None).unwrap();
    }
    if done.is_ok() || is_gone {
        assert!(memory.objects()[&victim].to_vec() == sound, "call {number}: the volume is whole again");
        let volumes = open(&first).catalog().read().volumes().unwrap();
        assert!(volumes.iter().all(|row| row.state == VolumeState::Stored));
    }
    (done.is_ok(), is_gone)
}

#[test]
fn a_rebuilt_volume_survives_death_between_delete_and_put() {
    let mut was_gone = false;
    for number in 1..100 {
        let (is_done, is_gone) = repair_that_dies_at(number);
        was_gone |= is_gone;
        if is_done {
            assert!(was_gone, "it died between the two at least once");
            return;
        }
    }
    panic!("it never gets through");
}

#[test]
fn a_cache_of_sealed_frames_is_enough_to_rebuild_a_volume() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, first) = place(memory.clone());
    init(&first);
    backup(&mut open(&first), &[("a", noise(1, 400_000))]).unwrap();
    let victim = memory.list("data/").unwrap().swap_remove(0).name;
    let sound = memory.objects()[&victim].to_vec();
    memory.tamper(&victim, None);
    let mut locked = open(&first);
    let found = check::check(&mut locked, ReadData::No, &Watch::new()).unwrap();
    assert!(found.has_damage());
    let cache = |_: bygone_core::id::VolumeName, range: std::ops::Range<u64>| {
        let mut bytes = sound[range.start as usize..range.end as usize].to_vec();
        // A cache may be wrong; here it is, about one frame that the object still has.
        if range.start < 1_000 {
            bytes[5] ^= 1;
        }
        Some(bytes)
    };
    let content = noise(1, 400_000);
    let mut read_file = |_: &[u8], offset: u64, length: u32| {
        let start = offset as usize;
        Some(content[start..start + length as usize].to_vec())
    };
    let mut sources = Sources { second: None, read_file: &mut read_file, read_cache: &cache };
    let mut repaired = Repaired::default();
    repair::repair_volumes(&mut locked, &[], &mut sources, Time::default(), &Watch::new(), &mut repaired).unwrap();
    assert!(memory.objects()[&victim].to_vec() == sound, "rebuilt to the byte");
    assert_eq!(repaired.restored.len(), 1, "{repaired:?}");
}

#[test]
fn each_volume_is_learnt_by_one_request() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, here) = place(memory.clone());
    init(&here);
    for round in 0..20 {
        // The first backup has much of everything, the others have little.
        let count = if round == 0 { 3_000 } else { 5 };
        let file = |n: u64| (format!("{n:06}"), noise(round << 32 | n, 300));
        backup(&mut open(&here), &(0..count).map(file).collect::<Vec<_>>()).unwrap();
    }
    let before = dump(&mut open(&here));
    let volumes = memory.list("data/").unwrap().len() + memory.list("meta/").unwrap().len();
    assert!(volumes >= 20, "{volumes} volumes");
    let watched = Arc::new(FaultyStore::new(memory));
    let (_dir, there) = place(watched.clone());
    let mut locked = open(&there);
    watched.forget_calls();
    recover::recover(&mut locked, &Watch::new()).unwrap();
    let is_volume = |call: &&Call| call.verb == Verb::Get && !call.object.starts_with("commits/");
    let calls = watched.calls();
    assert_eq!(calls.iter().filter(is_volume).count(), volumes, "{calls:?}");
    assert!(dump(&mut locked) == before, "nothing is missing");
}
