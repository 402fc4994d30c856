//! Markers of runs, numbers that were taken, volumes that were retired, and features that commits name.

use std::sync::Arc;

use bygone_core::commit::Checkpoint;
use bygone_core::commit::Commit;
use bygone_core::entry::Time;
use bygone_core::error::Error;
use bygone_core::features::Features;
use bygone_core::id::ClientId;
use bygone_core::objects::VolumeKind;
use bygone_core::recover;
use bygone_core::store::ObjectName;
use bygone_core::store::testing::faulty::Call;
use bygone_core::store::testing::faulty::Fault;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::faulty::Verb;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::Changes;

use crate::common;
use crate::kit::Machine;
use crate::kit::codes;
use crate::kit::file;
use crate::kit::first_machine;
use crate::kit::names;
use crate::kit::nothing_deleted;

fn with_snapshot() -> (Arc<MemoryStore>, Machine) {
    let store = Arc::new(MemoryStore::new());
    let machine = first_machine(store.clone());
    machine.backup(&[file(1, 200_000)]).unwrap();
    (store, machine)
}

fn client(machine: &Machine) -> ClientId {
    ClientId::from_hex(&machine.client()).unwrap()
}

#[test]
fn whatever_lies_among_the_markers_disturbs_nobody() {
    let (store, machine) = with_snapshot();
    let own = machine.client();
    let planted = [format!("running/{own}"), format!("running/{own}.{own}"), "running/x".into()];
    let planted = planted.map(|name| ObjectName::new(&name).unwrap());
    planted.iter().for_each(|name| store.tamper(name, Some(b"anything".to_vec())));
    for seed in 2..4 {
        machine.backup(&[file(seed, 200_000)]).unwrap();
    }
    assert!(machine.check().is_clean());
    assert_eq!(names(&store, "running/"), planted, "and its own markers are gone");
}

/// A run that backs up one file and dies at call `at`.
fn dies(machine: &Machine, faulty: &FaultyStore, seed: u64, at: u64, fault: Fault) {
    faulty.forget_calls();
    faulty.die_at_call(at, fault);
    assert!(machine.backup(&[file(seed, 200_000)]).is_err());
    faulty.heal();
    faulty.forget_calls();
}

fn place(calls: &[Call], verb: Verb, beginning: &str) -> Option<usize> {
    calls.iter().position(|call| call.verb == verb && call.object.starts_with(beginning))
}

#[test]
fn a_dead_runs_marker_goes_when_its_commit_cannot_come_any_more() {
    let (store, machine) = with_snapshot();
    let faulty = Arc::new(FaultyStore::new(store.clone()).with_connections(1));
    let machine = machine.on(faulty.clone());
    // A run that lives shows which call puts its commit.
    faulty.forget_calls();
    machine.backup(&[file(4, 200_000)]).unwrap();
    let calls = faulty.calls();
    let commit = place(&calls, Verb::Put, "commits/").unwrap() as u64 + 1;
    let cases = [(commit - 1, Fault::Before, false), (commit, Fault::Before, true), (commit, Fault::After, false)];
    for (seed, (at, fault, is_open)) in (50..).zip(cases) {
        dies(&machine, &faulty, seed, at, fault);
        let dead = names(&store, "running/").remove(0);
        machine.backup(&[file(seed, 200_000)]).unwrap();
        let calls = faulty.calls();
        let gone = place(&calls, Verb::Delete, dead.as_str()).unwrap();
        let listed = place(&calls, Verb::List, "").unwrap();
        let committed = place(&calls, Verb::Put, "commits/").unwrap();
        assert!(gone > listed, "after the sync");
        assert_eq!(gone > committed, is_open, "call {at}, {fault:?}");
        assert_eq!(names(&store, "running/"), []);
    }
    nothing_deleted(&store);
}

#[test]
fn each_run_has_a_marker_of_its_own() {
    let (store, machine) = with_snapshot();
    let clone = machine.cloned();
    let (mut one, mut other) = (machine.open(), clone.open());
    for locked in [&mut one, &mut other] {
        write::announce(locked).unwrap();
        recover::sync(locked, &Watch::new()).unwrap();
    }
    assert_eq!(names(&store, "running/").len(), 2, "although both are one client");
    common::backup(&mut one, &[("f", vec![1; 100_000])]).unwrap();
    assert_eq!(names(&store, "running/").len(), 1, "the end of one run leaves the marker of the other");
}

/// An empty commit behind the newest one of a machine's chain.
fn take_number(machine: &Machine, by: &Machine) {
    let (seq, hash, checkpoint) = machine.head();
    let checkpoint = if checkpoint == 0 { Checkpoint::None } else { Checkpoint::At(checkpoint) };
    by.plant(client(machine), seq + 1, &Commit { previous: Some(hash), checkpoint, ..Commit::default() });
}

#[test]
fn a_chain_goes_on_behind_a_number_that_was_taken() {
    let (store, machine) = with_snapshot();
    let other = Machine::new(store.clone());
    let own = machine.client();
    for seed in 2..5 {
        take_number(&machine, &other);
        let (learnt, _) = machine.backup(&[file(seed, 200_000)]).unwrap();
        assert_eq!((codes(&learnt.notes), codes(&learnt.troubles)), (vec![], vec![]));
    }
    assert_eq!((machine.client(), machine.head().0), (own, 7));
    let fresh = Machine::new(store.clone());
    assert_eq!(codes(&fresh.recover().troubles), []);
    machine.sync().unwrap();
    assert!(fresh.dump() == machine.dump());
    assert!(fresh.check().is_clean());
}

#[test]
fn a_run_whose_number_was_taken_ends_and_the_next_goes_on() {
    let (store, machine) = with_snapshot();
    let other = Machine::new(store.clone());
    let own = client(&machine);
    let (seq, hash, _) = machine.head();
    let mut locked = machine.open();
    write::announce(&mut locked).unwrap();
    recover::sync(&mut locked, &Watch::new()).unwrap();
    other.plant(own, seq + 1, &Commit { previous: Some(hash), ..Commit::default() });
    let files = [file(2, 200_000)];
    let error = common::backup(&mut locked, &files).unwrap_err();
    assert!(matches!(error, Error::Overtaken { .. }), "{error}");
    drop(locked);
    let (learnt, made) = machine.backup(&files).unwrap();
    assert_eq!((codes(&learnt.notes), made.totals.bytes_new), (vec![], 0), "what was stored is used");
    assert_eq!((client(&machine), machine.head().0), (own, seq + 2));
    assert_eq!(names(&store, "running/"), []);
    nothing_deleted(&store);
}

#[test]
fn a_retired_volume_is_retired_whatever_is_said_of_it_later() {
    let (store, machine) = with_snapshot();
    let data: Vec<_> =
        machine.commits()[0].volumes_added.iter().filter(|v| v.kind == VolumeKind::Data).cloned().collect();
    let retired: Vec<_> = data.iter().map(|volume| volume.name).collect();
    let old = machine.snapshots().remove(0).id;
    let early = Machine::new(store.clone());
    early.recover();
    machine
        .commit(Changes { snapshots_removed: vec![old], volumes_retired: retired.clone(), ..Changes::default() })
        .unwrap();
    // Chains that announce the volumes before and after that, by the clocks of their machines.
    for (seed, secs) in [(7, -1_000), (9, 1_000)] {
        let commit = Commit { time: Time { secs, nanos: 0 }, volumes_added: data.clone(), ..Commit::default() };
        machine.plant(ClientId([seed; 16]), 1, &commit);
    }
    let fresh = Machine::new(store.clone());
    fresh.recover();
    for machine in [&machine, &early, &fresh] {
        machine.sync().unwrap();
        machine.recover();
        let states: Vec<_> = machine.open().catalog().read().volumes().unwrap();
        let of = |name| states.iter().find(|row| row.name == name).map(|row| row.state.name());
        assert!(retired.iter().all(|name| of(*name) == Some("retired")), "{states:?}");
        assert!(machine.check().is_clean(), "{:?}", machine.check());
        let (_, made) = machine.backup(&[file(1, 200_000)]).unwrap();
        let again = machine.commits().pop().unwrap();
        assert!(again.volumes_added.iter().all(|volume| !retired.contains(&volume.name)), "none is announced again");
        assert_eq!(machine.contents(&made).unwrap(), [file(1, 200_000)]);
    }
    // An object that comes back is none of an interrupted run.
    let objects = store.objects();
    retired.iter().for_each(|name| {
        let object = bygone_core::objects::volume_object(VolumeKind::Data, *name);
        store.tamper(&object, None);
    });
    let late = Machine::new(store.clone());
    assert!(late.recover().damaged.is_empty());
    for name in &retired {
        let object = bygone_core::objects::volume_object(VolumeKind::Data, *name);
        store.tamper(&object, Some(objects[&object].to_vec()));
    }
    let learnt = late.recover();
    assert_eq!((learnt.volumes, codes(&learnt.unexplained)), (0, vec![]));
    assert!(late.check().is_clean());
}

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn a_feature_that_a_commit_names_holds_for_the_repository() {
    let (store, machine) = with_snapshot();
    let other = Machine::new(store.clone());
    other.recover();
    let write = Features { write: named(&["parity"]), optional: named(&["shiny"]), ..Features::default() };
    machine.commit(Changes { features: write, ..Changes::default() }).unwrap();
    let objects = store.objects();
    for machine in [&machine, &other] {
        assert!(matches!(machine.backup(&[file(2, 100_000)]), Err(Error::Newer { .. })));
        assert!(matches!(machine.try_open(), Err(Error::Newer { .. })), "the catalog knows by now");
    }
    let left: Vec<_> = store.objects().into_keys().filter(|name| !objects.contains_key(name)).collect();
    assert!(left.iter().all(|name| name.as_str().starts_with("running/")), "{left:?}");
    let (_dir, place) = common::place(store.clone());
    let mut fresh = bygone_core::repo::Repository::open(&place, &common::secret()).unwrap();
    assert!(fresh.check_writable().is_ok(), "nothing has been read yet");
    let mut locked = fresh.lock_catalog_waiting(Err).unwrap();
    assert_eq!(recover::recover(&mut locked, &Watch::new()).unwrap().snapshots, 1, "reading is allowed");
    assert!(matches!(locked.check_writable(), Err(Error::Newer { .. })));
    drop(locked);
    fresh = bygone_core::repo::Repository::open(&place, &common::secret()).unwrap();
    assert!(matches!(fresh.check_writable(), Err(Error::Newer { .. })));
}

#[test]
fn an_unknown_need_to_read_refuses_the_repository() {
    let mut critical = Commit::default();
    critical.attributes.set(bygone_core::attributes::Attribute { tag: 50, is_critical: true, value: vec![] });
    let features = Features { read: named(&["other-ciphers"]), ..Features::default() };
    for (commit, needs) in [(Commit { features, ..Commit::default() }, "other-ciphers"), (critical, "attribute 50")] {
        let (store, machine) = with_snapshot();
        machine.plant(ClientId([3; 16]), 1, &commit);
        for machine in [&machine, &Machine::new(store.clone())] {
            for _ in 0..2 {
                // The second time, the catalog says it when the repository is opened.
                let done = machine.try_open().and_then(|mut locked| recover::sync(&mut locked, &Watch::new()));
                let error = done.map(|_| ()).unwrap_err();
                assert!(matches!(&error, Error::Newer { needs: found, .. } if found == needs), "{error}");
            }
        }
    }
    let (_, machine) = with_snapshot();
    let mut optional = Commit::default();
    optional.attributes.set(bygone_core::attributes::Attribute { tag: 50, is_critical: false, value: vec![] });
    machine.plant(ClientId([3; 16]), 1, &optional);
    machine.backup(&[file(2, 100_000)]).unwrap();
}
