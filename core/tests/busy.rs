//! A check of all data keeps a far store busy, requests no more than necessary, and finds the same as in a near store.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::backup;
use common::init;
use common::init_with;
use common::open;
use common::place;

use bygone_core::check;
use bygone_core::check::ReadData;
use bygone_core::check::Report;
use bygone_core::noise::noise;
use bygone_core::objects::VolumeKind;
use bygone_core::objects::volume_object;
use bygone_core::read::VolumeFile;
use bygone_core::repo::Place;
use bygone_core::store::ObjectName;
use bygone_core::store::Store;
use bygone_core::store::testing::faulty::Call;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::faulty::Verb;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::watch::Watch;

/// The longest wait of a test that would otherwise hang on failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Twelve volumes of data.
fn many_volumes() -> (Arc<MemoryStore>, tempfile::TempDir, Place) {
    let memory = Arc::new(MemoryStore::new());
    let (dir, here) = place(memory.clone());
    init(&here);
    backup(&mut open(&here), &[("noise", noise(1, 12_000_000))]).unwrap();
    (memory, dir, here)
}

/// Checks all data through `store`, and gives up after a while.
fn check_all(store: &Arc<FaultyStore>, here: &Place) -> Report {
    let (sender, receiver) = channel();
    let place = Place { store: store.clone(), catalog_base: here.catalog_base.clone() };
    thread::spawn(move || {
        let report = check::check(&mut open(&place), ReadData::All, &Watch::new());
        sender.send(report.unwrap()).unwrap();
    });
    receiver.recv_timeout(PATIENCE).expect("too few requests at a time")
}

fn reads_of_data(store: &FaultyStore) -> Vec<Call> {
    let is_read = |call: &Call| call.verb == Verb::Get && call.object.starts_with("data/");
    store.calls().into_iter().filter(is_read).collect()
}

#[test]
fn a_data_check_uses_all_connections_of_a_far_store() {
    let (memory, _dir, here) = many_volumes();
    for connections in [1, 6] {
        let store = Arc::new(FaultyStore::new(memory.clone()).with_connections(connections).far());
        // No request is answered before this many have arrived.
        store.gather("data/", connections);
        let report = check_all(&store, &here);
        assert!(report.is_clean() && report.volumes_read > 10, "{report:?}");
        assert!(!store.is_closed());
        let volumes = memory.list("data/").unwrap().len();
        assert_eq!(reads_of_data(&store).len(), volumes, "each volume is short, and fetched by one request");
    }
}

#[test]
fn damage_in_a_far_store_is_found_as_in_a_near_one() {
    let (memory, _dir, here) = many_volumes();
    let victims: Vec<ObjectName> =
        memory.list("data/").unwrap().into_iter().map(|object| object.name).take(4).collect();
    let changed = |number: usize, at: usize| {
        let mut bytes = memory.objects()[&victims[number]].to_vec();
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 1;
        memory.tamper(&victims[number], Some(bytes));
    };
    // The header, a frame, the end; and another volume of the same length, if there is one.
    changed(0, 0);
    changed(1, 100_000);
    changed(2, usize::MAX);
    let near = check::check(&mut open(&here), ReadData::All, &Watch::new()).unwrap();
    let far = check_all(&Arc::new(FaultyStore::new(memory.clone()).far()), &here);
    let found = |report: &Report| {
        let lines = report.findings.iter().map(|finding| format!("{} {}", finding.object, finding.detail));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        (lines, report.affected_count, report.bytes_read)
    };
    assert_eq!(near.findings.len(), 3);
    assert_eq!(found(&near), found(&far));
}

#[test]
fn an_index_that_is_longer_than_a_run_is_read_by_itself() {
    let memory = Arc::new(MemoryStore::new());
    let (_dir, here) = place(memory.clone());
    init_with(&here, 16 << 20);
    // Blocks that compress to almost nothing, so that one volume holds very many.
    let files: Vec<(String, Vec<u8>)> =
        (0..40_000u32).map(|n| (format!("{n:06}"), [&n.to_le_bytes()[..], &[0; 80]].concat())).collect();
    backup(&mut open(&here), &files).unwrap();
    let rows = open(&here).catalog().read().volumes().unwrap();
    let row = rows.iter().find(|row| row.kind == VolumeKind::Data).unwrap();
    let store = Arc::new(FaultyStore::new(memory.clone()));
    let locked = open(&here);
    let as_store: Arc<dyn Store> = store.clone();
    let file = VolumeFile::open(&as_store, locked.repository().keys(), row.kind, row.name, row.bytes).unwrap();
    let frames: u64 = file.index().frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum();
    assert!(row.bytes - frames > 1 << 20, "the index has {} bytes", row.bytes - frames);
    let (mut raw, mut blocks) = (Vec::new(), 0);
    file.pass(|bytes| raw.extend_from_slice(bytes), |_, bytes| blocks += usize::from(bytes.is_some())).unwrap();
    let object = volume_object(row.kind, row.name);
    assert!(raw == memory.objects()[&object].to_vec());
    assert_eq!(blocks, file.index().items_count());
}
