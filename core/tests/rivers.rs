//! What the writer stores, views and readers return: the two rivers, end to end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::backup;
use common::dump;
use common::init;
use common::meta;
use common::open;
use common::options;
use common::place;
use common::secret;

use bygone_core::catalog::VolumeState;
use bygone_core::check;
use bygone_core::check::ReadData;
use bygone_core::entry::Content;
use bygone_core::entry::Kind;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::error::Error;
use bygone_core::noise::noise;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::read::Verify;
use bygone_core::recover;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::snapshot::Snapshot;
use bygone_core::store::ByteRange;
use bygone_core::store::Store;
use bygone_core::store::testing::faulty::Call;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::survey;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::Piece;
use bygone_core::write::Writer;

fn contents(place: &Place, snapshot: &Snapshot) -> Vec<(String, Vec<u8>)> {
    common::contents(place, snapshot, Order::Forward).unwrap()
}

fn sample() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a-empty", vec![]),
        ("b-inline", b"hello".to_vec()),
        ("c-small", noise(1, 65)),
        ("d-block", noise(2, 1 << 16)),
        ("e-more", noise(3, (1 << 16) + 1)),
        ("f-list", noise(4, 3 << 20)),
        ("g-same", noise(4, 3 << 20)),
        ("h-zeros", vec![0; 1 << 20]),
    ]
}

fn owned(files: &[(&str, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(name, bytes)| (String::from(*name), bytes.clone())).collect()
}

#[test]
fn what_goes_in_comes_out_and_a_second_time_costs_nothing() {
    let store = Arc::new(MemoryStore::new());
    let (_dir, place) = place(store.clone());
    init(&place);
    let first = backup(&mut open(&place), &sample()).unwrap();
    assert_eq!(contents(&place, &first), owned(&sample()));
    let volumes = store.list("data/").unwrap().len();
    assert!(volumes >= 3, "3 MiB of noise in volumes of 1 MiB make several, not {volumes}");
    for object in store.list("data/").unwrap() {
        assert!(object.bytes <= 1 << 20, "{} has {} bytes", object.name, object.bytes);
    }
    let second = backup(&mut open(&place), &sample()).unwrap();
    assert_eq!(second.root, first.root);
    assert_eq!(second.totals.bytes_new, 0);
    assert_eq!(store.list("data/").unwrap().len(), volumes);
    assert_eq!(store.list("running/").unwrap(), []);
}

#[test]
fn holes_are_recorded_and_never_stored() {
    let (_dir, place) = place(Arc::new(MemoryStore::new()));
    init(&place);
    let mut locked = open(&place);
    let body = |writer: &mut Writer<'_>| {
        let cutter = writer.cutter();
        writer.directory_begin()?;
        writer.file_piece(Piece::Hole(1 << 40))?;
        writer.file_piece(Piece::Block(cutter.block(b"end".to_vec())))?;
        writer.file_end(Name::new(b"sparse").unwrap(), meta((1 << 40) + 3))?;
        writer.directory_end(None, meta(0))?;
        Ok(((), 0))
    };
    let (_, snapshot) = write::backup(&mut locked, options(), &Watch::new(), body).unwrap();
    let reader = Reader::new(locked.repository(), 1 << 20, Order::Forward).unwrap();
    let view = reader.view().unwrap();
    let item = view.directory(snapshot.root).unwrap().find(&view, b"sparse").unwrap().unwrap();
    let Kind::File(content) = &item.entry.kind else { panic!("not a file") };
    assert!(matches!(content, Content::Extents(extents) if extents.len() == 2));
    let map = view.file(content).unwrap();
    assert_eq!(reader.read(&map, (1 << 40) - 2, 100, Verify::Blocks).unwrap(), b"\0\0end");
    assert_eq!(reader.data_from(&map, 0).unwrap(), Some(1 << 40));
    assert_eq!(reader.hole_from(&map, 0).unwrap(), Some(0));
    assert_eq!(reader.hole_from(&map, 1 << 40).unwrap(), Some((1 << 40) + 3));
    assert_eq!(view.version(item.version).unwrap().as_deref(), Some(&*item.entry));
}

#[test]
fn a_failed_backup_commits_nothing_but_its_volumes_are_reused() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, place) = place(memory.clone());
    init(&place);
    let puts_before = memory.counts().puts;
    let whole = {
        let (_dir, other) = self::place(Arc::new(MemoryStore::new()));
        init(&other);
        backup(&mut open(&other), &sample()).unwrap();
        other.store.list("").unwrap().len()
    };
    for survives in 0..whole as u64 {
        let faulty = FaultyStore::new(memory.clone());
        faulty.die_after_puts(survives);
        let broken = Place { store: Arc::new(faulty), catalog_base: place.catalog_base.clone() };
        // Every call fails from that put on; the next assertions ask whether the backup had completed by then.
        let result = Repository::open(&broken, &secret()).and_then(Repository::lock);
        let _ = result.and_then(|mut locked| backup(&mut locked, &sample()));
    }
    assert!(memory.counts().puts > puts_before);
    let last = backup(&mut open(&place), &sample()).unwrap();
    assert_eq!(contents(&place, &last), owned(&sample()));
    let mut locked = open(&place);
    let states: Vec<_> = locked.catalog().read().volumes().unwrap().iter().map(|v| v.state).collect();
    assert!(states.iter().all(|state| *state == VolumeState::Stored), "{states:?}");
    let blocks: usize = states.len();
    assert!(blocks <= whole, "blocks that were stored are not stored again");
}

#[test]
fn a_second_writer_on_one_machine_is_told_to_wait() {
    let (_dir, place) = place(Arc::new(MemoryStore::new()));
    init(&place);
    let _first = open(&place);
    let second = Repository::open(&place, &secret()).unwrap().lock();
    assert!(matches!(second, Err(Error::Locked { .. })));
}

#[test]
fn a_wrong_passphrase_is_told_from_no_repository() {
    let (_dir, place) = place(Arc::new(MemoryStore::new()));
    assert!(matches!(Repository::open(&place, &secret()), Err(Error::NoRepository { .. })));
    init(&place);
    let wrong = Repository::open(&place, &Secret::new(b"wrong".to_vec()));
    assert!(matches!(wrong, Err(Error::WrongKey { slots: 1, .. })));
}

#[test]
fn a_lost_catalog_is_rebuilt_without_reading_data() {
    let memory = Arc::new(MemoryStore::new());
    let (dir, place) = place(memory.clone());
    init(&place);
    backup(&mut open(&place), &sample()).unwrap();
    let mut changed = sample();
    changed.push(("z-new", noise(9, 200_000)));
    let last = backup(&mut open(&place), &changed).unwrap();
    let before = dump(&mut open(&place));
    drop(dir);
    let watched = Arc::new(FaultyStore::new(memory.clone()));
    let (_dir, place) = self::place(watched.clone());
    let mut locked = open(&place);
    let learnt = recover::recover(&mut locked, &Watch::new()).unwrap();
    assert_eq!((learnt.commits, learnt.snapshots), (2, 2));
    assert_eq!(dump(&mut locked), before);
    let read = |call: &Call| match (call.object.starts_with("data/"), call.range) {
        (true, Some(ByteRange::Part { bytes, .. })) => bytes,
        (true, Some(ByteRange::Whole { .. })) => panic!("a data volume was read whole"),
        _ => 0,
    };
    let data_bytes: u64 = watched.calls().iter().map(read).sum();
    let tails = memory.list("data/").unwrap().len() as u64 * (64 << 10);
    assert!(data_bytes <= tails, "{data_bytes} bytes were read of data volumes, their tails have {tails}");
    drop(locked);
    assert_eq!(contents(&place, &last), owned(&changed));
}

#[test]
fn a_check_names_what_is_lost_and_the_next_backup_heals_it() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, place) = place(memory.clone());
    init(&place);
    backup(&mut open(&place), &sample()).unwrap();
    let clean = check::check(&mut open(&place), ReadData::All, &Watch::new()).unwrap();
    assert!(clean.is_clean(), "{clean:?}");
    let victim = memory.list("data/").unwrap().swap_remove(0).name;
    let mut bytes = memory.objects()[&victim].to_vec();
    bytes[100] ^= 1;
    memory.tamper(&victim, Some(bytes));
    let damaged = check::check(&mut open(&place), ReadData::All, &Watch::new()).unwrap();
    assert_eq!(damaged.findings.len(), 1, "{damaged:?}");
    assert_eq!(damaged.findings[0].object, victim.as_str());
    assert!(damaged.has_damage());
    // Only files with a block in that frame are affected, and they are named.
    assert!((1..=4).contains(&damaged.affected_count), "{:?}", damaged.affected);
    backup(&mut open(&place), &sample()).unwrap();
    let healed = check::check(&mut open(&place), ReadData::No, &Watch::new()).unwrap();
    assert_eq!((healed.affected_count, healed.has_damage()), (0, false), "{healed:?}");
    assert_eq!(healed.healed, [victim.as_str()], "nothing is lost, and the alarm stays until it is accepted");
    survey::accept_loss(&mut open(&place), Time::default(), &Watch::new(), |_| true).unwrap();
    let accepted = check::check(&mut open(&place), ReadData::No, &Watch::new()).unwrap();
    assert!(accepted.is_clean(), "{accepted:?}");
}

#[test]
fn a_store_that_forgets_a_commit_is_named() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, place) = place(memory.clone());
    init(&place);
    backup(&mut open(&place), &sample()).unwrap();
    let commit = memory.list("commits/").unwrap().swap_remove(0).name;
    memory.tamper(&commit, None);
    let error = recover::sync(&mut open(&place), &Watch::new()).unwrap_err();
    assert!(error.to_string().starts_with("REMOTE_ROLLED_BACK"), "{error}");
}

#[test]
fn two_machines_share_a_repository_and_each_others_blocks() {
    let memory = Arc::new(MemoryStore::new());
    let (_here_dir, here) = place(memory.clone());
    let (_there_dir, there) = place(memory.clone());
    init(&here);
    backup(&mut open(&here), &sample()).unwrap();
    let mut locked = open(&there);
    recover::sync(&mut locked, &Watch::new()).unwrap();
    let second = backup(&mut locked, &sample()).unwrap();
    assert_eq!(second.totals.bytes_new, 0);
    drop(locked);
    let mut locked = open(&here);
    assert_eq!(recover::sync(&mut locked, &Watch::new()).unwrap().snapshots, 1);
    assert_eq!(locked.catalog().read().snapshots().unwrap().len(), 2);
}

#[test]
fn a_frame_that_many_threads_want_is_fetched_once() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, place) = place(memory.clone());
    init(&place);
    let last = backup(&mut open(&place), &sample()).unwrap();
    let watched = Arc::new(FaultyStore::new(memory));
    let place = Place { store: watched.clone(), catalog_base: place.catalog_base.clone() };
    let repository = Repository::open(&place, &secret()).unwrap();
    let reader = Reader::new(&repository, 64 << 20, Order::Forward).unwrap();
    watched.forget_calls();
    let whole = noise(4, 3 << 20);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let view = reader.view().unwrap();
                let item = view.directory(last.root).unwrap().find(&view, b"f-list").unwrap().unwrap();
                let Kind::File(content) = &item.entry.kind else { panic!("not a file") };
                let map = view.file(content).unwrap();
                for offset in (0..map.length()).step_by(100_000) {
                    let bytes = reader.read(&map, offset, 100_000, Verify::Seals).unwrap();
                    let start = usize::try_from(offset).unwrap();
                    let expected = &whole[start..start + bytes.len()];
                    assert!(bytes == expected, "at {offset}");
                    assert_eq!(reader.read_cached(&map, offset, 100_000).as_deref(), Some(expected));
                }
            });
        }
    });
    let mut ranges: Vec<(String, u64, u64)> = Vec::new();
    for call in watched.calls() {
        let Some(ByteRange::Part { offset, bytes }) = call.range else { panic!("{call:?} is not for frames") };
        ranges.push((call.object, offset, offset + bytes));
    }
    ranges.sort();
    for pair in ranges.windows(2) {
        let [(object, _, end), (next_object, start, _)] = pair else { unreachable!() };
        assert!(object != next_object || end <= start, "some bytes were fetched twice: {pair:?}");
    }
}

#[test]
fn only_the_damaged_frames_of_a_joint_fetch_are_lost() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, place) = place(memory.clone());
    init(&place);
    let last = backup(&mut open(&place), &[("file", noise(4, 3 << 20))]).unwrap();
    let repository = Repository::open(&place, &secret()).unwrap();
    let volume = memory.list("data/").unwrap().swap_remove(0).name;
    let whole = memory.get(&volume, ByteRange::Whole { bytes_max: 64 << 20 }).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cut = whole[..whole.len() / 2].to_vec();
    let lost = |bytes: Vec<u8>, order| {
        memory.tamper(&volume, Some(bytes));
        let reader = Reader::new(&repository, 64 << 20, order).unwrap();
        let view = reader.view().unwrap();
        let item = view.directory(last.root).unwrap().find(&view, b"file").unwrap().unwrap();
        let Kind::File(content) = &item.entry.kind else { panic!("not a file") };
        let map = view.file(content).unwrap();
        assert!(reader.read(&map, 0, 3 << 20, Verify::Seals).is_err());
        let is_lost = |frame: &u64| reader.read(&map, frame << 17, 1 << 17, Verify::Seals).is_err();
        (0..24).filter(is_lost).collect::<Vec<u64>>()
    };
    for order in [Order::Forward, Order::Any] {
        let one = lost(flipped.clone(), order);
        let [one] = one.as_slice() else { panic!("one frame is damaged, and lost are {one:?}, {order:?}") };
        let all_after = lost(cut.clone(), order);
        assert_eq!(all_after, (*one..one + all_after.len() as u64).collect::<Vec<_>>(), "{order:?}");
        assert!(all_after.len() > 1, "the cut took more than one: {all_after:?}");
    }
}

#[test]
fn a_small_cache_slows_reading_down_and_changes_nothing() {
    let (_dir, place) = place(Arc::new(MemoryStore::new()));
    init(&place);
    let last = backup(&mut open(&place), &sample()).unwrap();
    let repository = Repository::open(&place, &secret()).unwrap();
    let reader = Reader::new(&repository, 0, Order::Forward).unwrap();
    let view = reader.view().unwrap();
    let item = view.directory(last.root).unwrap().find(&view, b"f-list").unwrap().unwrap();
    let Kind::File(content) = &item.entry.kind else { panic!("not a file") };
    let map = view.file(content).unwrap();
    assert!(reader.read(&map, 0, 4 << 20, Verify::Blocks).unwrap() == noise(4, 3 << 20));
}

#[test]
fn other_chains_reveal_that_newest_commits_were_lost() {
    let memory = Arc::new(MemoryStore::new());
    let (_here_dir, here) = place(memory.clone());
    let (_there_dir, there) = place(memory.clone());
    init(&here);
    backup(&mut open(&here), &sample()).unwrap();
    let mut locked = open(&there);
    recover::sync(&mut locked, &Watch::new()).unwrap();
    backup(&mut locked, &sample()).unwrap();
    let lost = format!("commits/{}/", open(&here).client());
    let lost = memory.list(&lost).unwrap().swap_remove(0).name;
    memory.tamper(&lost, None);
    let (_new_dir, new) = place(memory);
    let learnt = recover::recover(&mut open(&new), &Watch::new()).unwrap();
    assert_eq!(learnt.troubles[0].diagnosis.code(), "REMOTE_ROLLED_BACK", "{learnt:?}");
    assert_eq!(learnt.snapshots, 1, "the existing snapshot is still recovered");
    let error = recover::sync(&mut open(&new), &Watch::new()).unwrap_err();
    assert!(error.to_string().starts_with("REMOTE_ROLLED_BACK"), "it is not forgotten: {error}");
}
