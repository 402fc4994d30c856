//! Long chains: read from their checkpoints on, they say the same as read from the start, at a bounded cost.

use std::sync::Arc;

use bygone_core::commit::Checkpoint;
use bygone_core::entry::Time;
use bygone_core::id::ClientId;
use bygone_core::id::SlotId;
use bygone_core::id::SnapshotId;
use bygone_core::limits;
use bygone_core::objects::commit_object;
use bygone_core::repo::LockedRepository;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::write;
use bygone_core::write::Changes;

use crate::kit::Machine;
use crate::kit::codes;
use crate::kit::file;
use crate::kit::first_machine;
use crate::kit::nothing_deleted;

/// A commit that says something of its own.
fn news(locked: &mut LockedRepository, number: u64) {
    let id: [u8; 16] = [[number as u8; 8], number.to_le_bytes()].concat().try_into().unwrap();
    let changes = match number % 3 {
        0 => Changes { slots_removed: vec![SlotId(id)], ..Changes::default() },
        _ => Changes { snapshots_removed: vec![SnapshotId(id)], ..Changes::default() },
    };
    write::commit_changes(locked, Time::default(), changes).unwrap();
}

fn client(machine: &Machine) -> ClientId {
    ClientId::from_hex(&machine.client()).unwrap()
}

/// Three machines with chains of 150 commits, whose first ones have seen each other. The first has a snapshot too.
fn long_chains(checkpoint_each: u64) -> (Arc<MemoryStore>, Vec<Machine>) {
    let store = Arc::new(MemoryStore::new());
    let first = first_machine(store.clone()).with_checkpoint_each(checkpoint_each);
    let more = (0..2).map(|_| Machine::new(store.clone()).with_checkpoint_each(checkpoint_each));
    let machines: Vec<Machine> = std::iter::once(first).chain(more).collect();
    machines[0].backup(&[file(1, 200_000)]).unwrap();
    machines.iter().for_each(|machine| drop(machine.sync().unwrap()));
    let mut opened: Vec<LockedRepository> = machines.iter().map(Machine::open).collect();
    for number in 0..149 {
        opened.iter_mut().for_each(|locked| news(locked, number));
    }
    drop(opened);
    machines[1].sync().unwrap();
    machines[2].backup(&[file(2, 200_000)]).unwrap();
    machines.iter().for_each(|machine| drop(machine.sync().unwrap()));
    (store, machines)
}

#[test]
fn a_new_machine_reads_few_commits_of_long_chains() {
    let (store, machines) = long_chains(6);
    let whole = machines[0].dump();
    assert!(machines.iter().all(|machine| machine.dump() == whole));
    let commits = store.objects().keys().filter(|name| name.as_str().starts_with("commits/")).count();
    assert_eq!(commits, 449);
    // 25 runs of six: one checkpoint of the second rank, at most 15 of the first, and at most six commits.
    let most = 3 * (1 + 15 + 6);
    store.forget_counts();
    let fresh = Machine::new(store.clone());
    assert_eq!(codes(&fresh.recover().troubles), []);
    let volumes = store.objects().keys().filter(|name| name.as_str().contains("ta/")).count() as u64;
    let gets = store.counts().gets - 2 - volumes;
    assert!(gets <= most, "{gets} requests for {commits} commits");
    assert!(fresh.dump() == whole);
    assert!(fresh.check().is_clean());
    nothing_deleted(&store);
}

#[test]
fn a_machine_that_was_away_reads_on_from_the_checkpoint() {
    let store = Arc::new(MemoryStore::new());
    let writer = first_machine(store.clone()).with_checkpoint_each(6);
    writer.backup(&[file(1, 200_000)]).unwrap();
    let away = Machine::new(store.clone());
    away.recover();
    let mut locked = writer.open();
    (0..100).for_each(|number| news(&mut locked, number));
    drop(locked);
    store.forget_counts();
    let learnt = away.sync().unwrap();
    // Commits 97 to 101, the checkpoint of the second rank.
    assert!(learnt.commits <= 10 && store.counts().gets <= 2 + 10, "{} commits, {:?}", learnt.commits, store.counts());
    assert!(away.dump() == writer.dump());
    // Once more costs nothing.
    store.forget_counts();
    away.sync().unwrap();
    assert_eq!(store.counts().gets, 2);
    assert!(away.check().is_clean());
}

#[test]
fn what_checkpoints_stand_for_may_be_gone() {
    let (store, machines) = long_chains(6);
    let covered = machines[0].open().catalog().read().chains_covered().unwrap();
    assert!(covered.iter().map(|range| range.last - range.first + 1).sum::<u64>() > 400);
    for range in &covered {
        (range.first..=range.last).for_each(|seq| store.tamper(&commit_object(range.client, seq), None));
    }
    let fresh = Machine::new(store.clone());
    assert_eq!(codes(&fresh.recover().troubles), []);
    for machine in machines.iter().chain([&fresh]) {
        let learnt = machine.sync().unwrap();
        assert_eq!((codes(&learnt.news.raised), learnt.commits), (vec![], 0));
        assert!(machine.check().is_clean());
    }
    assert!(fresh.dump() == machines[1].dump());
    let own = machines[0].client();
    machines[0].backup(&[file(3, 200_000)]).unwrap();
    assert_eq!(machines[0].client(), own, "no new chain begins");
}

#[test]
fn a_checkpoint_that_is_lost_is_missed_and_can_be_given_up() {
    for is_rest_there in [true, false] {
        let (store, machines) = long_chains(6);
        let writer = client(&machines[1]);
        let covered = machines[0].open().catalog().read().chains_covered().unwrap();
        let last = covered.iter().filter(|range| range.client == writer).map(|range| range.last).max().unwrap();
        store.tamper(&commit_object(writer, last + 1), None);
        for range in covered.iter().filter(|_| !is_rest_there) {
            (range.first..=range.last).for_each(|seq| store.tamper(&commit_object(range.client, seq), None));
        }
        let (code, object) = ("REMOTE_MISSING", commit_object(writer, last + 1).to_string());
        let fresh = Machine::new(store.clone());
        let troubles = codes(&fresh.recover().troubles);
        assert!(troubles.iter().any(|(found, _)| *found == code), "{troubles:?}");
        if is_rest_there {
            assert_eq!(troubles, [(code, object.clone())]);
            assert_eq!(fresh.snapshots().len(), 2, "what it stood for is read");
        }
        assert!(machines[0].sync().is_err());
        assert_eq!(machines[0].alarms(), [(code, object)]);
        machines[0].accept_all();
        for machine in &machines {
            machine.sync().unwrap();
            machine.backup(&[file(4, 100_000)]).unwrap();
        }
        assert_ne!(client(&machines[1]), writer, "its numbers are never used again");
        let fresh = Machine::new(store.clone());
        assert_eq!(codes(&fresh.recover().troubles), []);
        machines.iter().for_each(|machine| drop(machine.sync().unwrap()));
        let said = |machine: &Machine| {
            let lines = machine.dump().into_iter();
            lines.filter(|line| line.starts_with("snapshot") || line.starts_with("slot-removed")).collect::<Vec<_>>()
        };
        machines.iter().for_each(|machine| assert!(said(machine) == said(&fresh)));
        assert!(fresh.check().is_clean(), "{:?}", fresh.check());
    }
}

#[test]
fn a_checkpoint_says_what_holds_and_nothing_else() {
    let store = Arc::new(MemoryStore::new());
    let machine = first_machine(store.clone()).with_checkpoint_each(4);
    let (_, gone) = machine.backup(&[file(1, 100_000)]).unwrap();
    let (_, kept) = machine.backup(&[file(2, 100_000)]).unwrap();
    machine.commit(Changes { snapshots_removed: vec![gone.id], ..Changes::default() }).unwrap();
    let (_, newest) = machine.backup(&[file(3, 100_000)]).unwrap();
    let checkpoint = machine.commits().pop().unwrap();
    assert_eq!(checkpoint.checkpoint, Checkpoint::Here { first: 1 });
    let ids: Vec<_> = checkpoint.snapshots_added.iter().map(|snapshot| snapshot.id).collect();
    assert_eq!((ids, checkpoint.snapshots_removed), (vec![kept.id, newest.id], vec![gone.id]));
    let volumes = store.objects().keys().filter(|name| name.as_str().contains("ta/")).count();
    assert_eq!(checkpoint.volumes_added.len(), volumes);
    assert_eq!(machine.commits().len(), 1, "the others are not remembered");
    news(&mut machine.open(), 1);
    assert_eq!(machine.head().2, 4);
    assert_eq!(machine.open().checkpoint_each(), 4);
    assert_eq!(Machine::new(store).open().checkpoint_each(), limits::CHECKPOINT_COMMITS);
}
