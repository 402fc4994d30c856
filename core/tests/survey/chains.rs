//! Commits that are lost, replaced, rolled back or written twice; catalogs that are older than their own chain.

use std::collections::BTreeSet;
use std::sync::Arc;

use bygone_core::store::ObjectName;
use bygone_core::store::testing::faulty::Fault;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::faulty::Verb;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::write::Changes;
use bygone_core::write::commit_changes;

use crate::kit::File;
use crate::kit::Machine;
use crate::kit::codes;
use crate::kit::file;
use crate::kit::first_machine;
use crate::kit::names;
use crate::kit::nothing_deleted;
use crate::kit::sample;

/// One machine that has made three snapshots.
fn with_history() -> (Arc<MemoryStore>, Machine) {
    let store = Arc::new(MemoryStore::new());
    let machine = first_machine(store.clone());
    (0..3).for_each(|n| drop(machine.backup(&day(n)).unwrap()));
    (store, machine)
}

/// What there is to back up on a day: something old and something new.
fn day(n: u64) -> Vec<File> {
    vec![file(100, 200_000), file(200 + n, 300_000)]
}

fn commit(machine: &Machine, seq: u64) -> ObjectName {
    ObjectName::new(&format!("commits/{}/{seq:016}", machine.client())).unwrap()
}

/// Every snapshot that `machine` lists is there to the last byte.
#[track_caller]
fn all_restore(machine: &Machine, days: usize) {
    let snapshots = machine.snapshots();
    assert_eq!(snapshots.len(), days);
    for snapshot in snapshots {
        let found = machine.contents(&snapshot).unwrap();
        assert!((0..20).any(|n| found == day(n)) || found == sample(), "{}", snapshot.id);
    }
}

#[test]
fn a_chain_that_lost_its_end_stops_backups_until_it_is_back() {
    let (store, machine) = with_history();
    let (lost, bytes) = (commit(&machine, 3), store.objects()[&commit(&machine, 3)].to_vec());
    store.tamper(&lost, None);
    store.forget_counts();
    for _ in 0..2 {
        let objects = store.objects().len();
        let error = machine.backup(&day(3)).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("REMOTE_ROLLED_BACK") && error.contains("accept-loss"), "{error}");
        assert!(store.objects().len() <= objects + 1, "nothing but the marker was put");
    }
    assert_eq!(machine.alarms(), [("REMOTE_ROLLED_BACK", lost.to_string())]);
    store.tamper(&lost, Some(bytes));
    let (learnt, _) = machine.backup(&day(3)).unwrap();
    assert_eq!(learnt.news.ended, [lost.to_string()]);
    assert!(machine.check().is_clean());
    all_restore(&machine, 4);
    nothing_deleted(&store);
}

#[test]
fn accepting_a_loss_announces_again_what_commits_said() {
    let (store, machine) = with_history();
    let old = machine.client();
    for seq in [2, 3] {
        store.tamper(&commit(&machine, seq), None);
    }
    store.forget_counts();
    let accepted = machine.accept_all();
    assert_eq!(codes(&accepted.findings)[0].0, "REMOTE_ROLLED_BACK");
    assert_eq!((accepted.snapshots_again, accepted.is_new_chain, accepted.open.len()), (2, true, 0));
    assert!(accepted.volumes_again >= 4, "{accepted:?}");
    assert_ne!(machine.client(), old, "numbers of lost commits are never used again");
    machine.backup(&day(3)).unwrap();
    assert!(!store.objects().contains_key(&ObjectName::new(&format!("commits/{old}/{:016}", 2)).unwrap()));
    assert!(machine.check().is_clean(), "{:?}", machine.check());
    nothing_deleted(&store);
    // New machines accept the store as it is, and have everything.
    let fresh = Machine::new(store.clone());
    let learnt = fresh.recover();
    assert!(learnt.troubles.is_empty() && learnt.damaged.is_empty(), "{learnt:?}");
    all_restore(&fresh, 4);
    fresh.backup(&day(3)).unwrap();
    assert!(fresh.check().is_clean());
    machine.sync().unwrap();
    fresh.sync().unwrap();
    assert!(machine.dump() == fresh.dump(), "both know the same");
}

#[test]
fn a_store_rolled_back_as_a_whole_is_noticed_and_usable() {
    let (store, machine) = with_history();
    let earlier = Arc::new(store.fork());
    let first = machine.snapshots().remove(0);
    machine.backup(&day(7)).unwrap();
    machine.backup(&day(8)).unwrap();
    let machine = machine.on(earlier.clone());
    let error = machine.backup(&day(9)).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.starts_with("REMOTE_ROLLED_BACK") && error.contains("commit 4 to 5 of this machine's own"),
        "{error}"
    );
    let accepted = machine.accept_all();
    assert_eq!((accepted.snapshots_again, accepted.open.len()), (2, 0), "{accepted:?}");
    // The source still has some of those two days, which heals them.
    machine.backup(&[day(7), vec![day(8).remove(1)]].concat()).unwrap();
    let checked = machine.check();
    assert!(checked.findings.is_empty(), "accepted: {checked:?}");
    nothing_deleted(&earlier);
    let fresh = Machine::new(earlier);
    assert!(fresh.recover().troubles.is_empty());
    assert_eq!(fresh.snapshots().len(), 6);
    assert_eq!(fresh.contents(&first).unwrap(), day(0));
}

#[test]
fn a_gap_in_a_chain_costs_what_it_held_and_nothing_else() {
    let (store, machine) = with_history();
    let lost = commit(&machine, 2);
    store.tamper(&lost, None);
    // A machine without a catalog has everything else, and may not write until the loss is accepted.
    let fresh = Machine::new(store.clone());
    let learnt = fresh.recover();
    assert_eq!(codes(&learnt.troubles), [("REMOTE_MISSING", lost.to_string())]);
    all_restore(&fresh, 2);
    let error = fresh.backup(&day(5)).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("REMOTE_MISSING"), "{error}");
    // The machine that has read the commit knows its content.
    assert_eq!(machine.accept_all().snapshots_again, 1);
    machine.backup(&day(3)).unwrap();
    assert!(machine.check().is_clean());
    let learnt = fresh.sync().unwrap();
    assert_eq!(learnt.troubles, []);
    fresh.backup(&day(5)).unwrap();
    assert_eq!(fresh.alarms(), [], "accepted by one is accepted by all");
    all_restore(&fresh, 5);
    assert!(fresh.check().is_clean(), "{:?}", fresh.check());
    nothing_deleted(&store);
}

#[test]
fn a_commit_that_is_changed_or_exchanged_has_its_code() {
    type Damage = fn(&MemoryStore, &ObjectName, &ObjectName);
    let cases: [(&str, Damage); 4] = [
        ("REMOTE_CORRUPT", |store, name, _| {
            let mut bytes = store.objects()[name].to_vec();
            bytes[60] ^= 1;
            store.tamper(name, Some(bytes));
        }),
        ("REMOTE_TRUNCATED", |store, name, _| {
            store.tamper(name, Some(store.objects()[name][..40].to_vec()));
        }),
        ("REMOTE_TRUNCATED", |store, name, _| store.tamper(name, Some(Vec::new()))),
        ("REMOTE_SWAPPED", |store, name, other| store.tamper(name, Some(store.objects()[other].to_vec()))),
    ];
    for (number, (code, damage)) in cases.iter().enumerate() {
        for seq in [1, 3] {
            let (store, machine) = with_history();
            let name = commit(&machine, seq);
            let sound = store.objects()[&name].to_vec();
            damage(&store, &name, &commit(&machine, 2));
            let error = machine.backup(&day(3)).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(code) && error.contains(name.as_str()), "case {number}, commit {seq}: {error}");
            assert_eq!(codes(&machine.check().findings), [(*code, name.to_string())]);
            store.tamper(&name, Some(sound.clone()));
            machine.backup(&day(3)).unwrap();
            assert!(machine.check().is_clean(), "case {number}, commit {seq}: back again");
            damage(&store, &name, &commit(&machine, 2));
            machine.accept_all();
            machine.backup(&day(4)).unwrap();
            assert!(machine.check().is_clean(), "case {number}, commit {seq}: {:?}", machine.check());
            let fresh = Machine::new(store.clone());
            assert!(fresh.recover().troubles.is_empty(), "case {number}, commit {seq}");
            all_restore(&fresh, 5);
            nothing_deleted(&store);
        }
    }
}

#[test]
fn an_old_catalog_catches_up_before_it_writes() {
    let (store, machine) = with_history();
    let image = machine.cloned();
    machine.backup(&day(3)).unwrap();
    machine.backup(&day(4)).unwrap();
    machine.put_back(&image);
    let (learnt, made) = machine.backup(&day(4)).unwrap();
    assert_eq!(codes(&learnt.notes)[0].0, "LOCAL_STALE");
    assert_eq!((learnt.commits, made.totals.bytes_new), (2, 0), "all that was stored since is known");
    assert!(store.objects().contains_key(&commit(&machine, 6)), "the chain goes on with the next number");
    assert_eq!(codes(&machine.backup(&day(5)).unwrap().0.notes), []);
    assert_eq!(machine.alarms(), []);
    assert!(machine.check().is_clean());
    all_restore(&machine, 7);
}

#[test]
fn a_commit_with_a_lost_answer_is_recognised_as_ours() {
    let (store, machine) = with_history();
    let faulty = Arc::new(FaultyStore::new(store.clone()));
    let machine = machine.on(faulty.clone());
    let commits_put = |call: &&bygone_core::store::testing::faulty::Call| {
        call.verb == Verb::Put && call.object.starts_with("commits/")
    };
    // A similar run shows which call it is.
    let twin = Arc::new(FaultyStore::new(Arc::new(store.fork())).with_connections(1));
    let rehearsal = machine.cloned().on(twin.clone());
    rehearsal.backup(&day(3)).unwrap();
    let calls = twin.calls();
    let at = calls.iter().position(|call| commits_put(&call)).unwrap() as u64 + 1;
    let single = Arc::new(FaultyStore::new(store.clone()).with_connections(1));
    let machine = machine.on(single.clone());
    single.die_at_call(at, Fault::After);
    assert!(machine.backup(&day(3)).is_err());
    single.heal();
    assert!(store.objects().contains_key(&commit(&machine, 4)), "the commit was stored");
    let (learnt, _) = machine.backup(&day(4)).unwrap();
    assert_eq!((codes(&learnt.notes), learnt.snapshots), (vec![], 1));
    all_restore(&machine, 5);
    drop(faulty);
}

#[test]
fn two_catalogs_with_one_client_part_ways() {
    let (store, machine) = with_history();
    let clone = machine.cloned();
    let client = machine.client();
    // Both have looked and both are about to commit the same number.
    let mut first = machine.open();
    let mut second = clone.open();
    for locked in [&mut first, &mut second] {
        bygone_core::recover::sync(locked, &bygone_core::watch::Watch::new()).unwrap();
    }
    crate::common::backup(&mut first, &day(3)).unwrap();
    let error = crate::common::backup(&mut second, &day(4)).unwrap_err().to_string();
    assert!(error.starts_with("REMOTE_FORKED") && error.contains("run the backup again"), "{error}");
    drop((first, second));
    assert_eq!(machine.client(), client);
    assert_ne!(clone.client(), client, "the second one has a chain of its own");
    let (learnt, made) = clone.backup(&day(4)).unwrap();
    assert_eq!((learnt.snapshots, made.totals.bytes_new), (1, 0), "what was stored is used");
    machine.backup(&day(5)).unwrap();
    clone.sync().unwrap();
    for machine in [&machine, &clone] {
        assert_eq!(machine.alarms(), []);
        assert!(machine.check().is_clean());
        all_restore(machine, 6);
    }
    assert!(machine.dump() == clone.dump());
    nothing_deleted(&store);
}

#[test]
fn clones_that_take_turns_are_told() {
    let (_, machine) = with_history();
    let clone = machine.cloned();
    machine.backup(&day(3)).unwrap();
    assert_eq!(codes(&clone.backup(&day(4)).unwrap().0.notes)[0].0, "LOCAL_STALE");
    assert_eq!(codes(&machine.backup(&day(5)).unwrap().0.notes)[0].0, "LOCAL_STALE");
    clone.sync().unwrap();
    all_restore(&clone, 6);
    assert!(machine.dump() == clone.dump());
}

#[test]
fn another_history_is_a_fork_and_both_halves_can_be_kept() {
    let (store, machine) = with_history();
    // The store is rolled back, a machine with an old catalog writes, then the one with the new catalog.
    let earlier = Arc::new(store.fork());
    let other = machine.cloned().on(earlier.clone());
    machine.backup(&day(3)).unwrap();
    other.backup(&day(4)).unwrap();
    let machine = machine.on(earlier.clone());
    let error = machine.backup(&day(5)).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("REMOTE_FORKED"), "{error}");
    let accepted = machine.accept_all();
    assert_eq!((accepted.snapshots_again, accepted.is_new_chain), (1, true), "{accepted:?}");
    machine.backup(&day(3)).unwrap();
    other.sync().unwrap();
    for machine in [&machine, &other] {
        assert_eq!(machine.alarms(), []);
        assert_eq!(machine.check().affected_count, 0, "{:?}", machine.check());
        assert_eq!(machine.snapshots().len(), 6, "both histories");
    }
    let fresh = Machine::new(earlier.clone());
    assert!(fresh.recover().troubles.is_empty());
    assert_eq!(fresh.check().affected_count, 0);
    assert_eq!(fresh.snapshots().len(), 6);
    other.backup(&day(6)).unwrap();
    fresh.backup(&day(6)).unwrap();
    machine.sync().unwrap();
    assert_eq!(machine.alarms(), []);
    nothing_deleted(&earlier);
}

#[test]
fn a_machine_whose_commits_were_given_up_starts_a_new_chain() {
    let (store, machine) = with_history();
    let other = Machine::new(store.clone());
    other.backup(&sample()).unwrap();
    let client = machine.client();
    store.tamper(&commit(&machine, 3), None);
    let error = other.sync().map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("REMOTE_ROLLED_BACK") && error.contains("the chain of another machine"), "{error}");
    let accepted = other.accept_all();
    assert_eq!((accepted.snapshots_again, accepted.is_new_chain), (1, false));
    machine.backup(&day(3)).unwrap();
    assert_ne!(machine.client(), client);
    assert!(names(&store, "running/").is_empty(), "no marker is left of the old chain");
    assert_eq!(machine.alarms(), []);
    assert!(machine.check().is_clean());
    all_restore(&machine, 5);
}

#[test]
fn other_machines_announce_again_what_lost_commits_said() {
    for is_by_their_writer in [true, false] {
        let store = Arc::new(MemoryStore::new());
        let accepting = first_machine(store.clone());
        let (losing, other) = (Machine::new(store.clone()), Machine::new(store.clone()));
        let (_, removed) = losing.backup(&day(1)).unwrap();
        accepting.sync().unwrap();
        let (_, kept) = losing.backup(&day(2)).unwrap();
        let changes = Changes { snapshots_removed: vec![removed.id], ..Changes::default() };
        commit_changes(&mut losing.open(), kept.time, changes).unwrap();
        let lost = [commit(&losing, 2), commit(&losing, 3)];
        // Its commit tells of those that are lost then, which the first machine has not seen.
        let (_, others) = other.backup(&day(3)).unwrap();
        lost.iter().for_each(|lost| store.tamper(lost, None));
        assert!(accepting.sync().is_err());
        accepting.accept_all();
        let by = if is_by_their_writer { &losing } else { &other };
        let (_, again) = by.backup(&day(2)).unwrap();
        accepting.sync().unwrap();
        for _ in 0..2 {
            let ids: BTreeSet<_> = accepting.snapshots().iter().map(|snapshot| snapshot.id).collect();
            assert_eq!(ids, BTreeSet::from([kept.id, others.id, again.id]));
            for snapshot in [&kept, &again] {
                assert_eq!(accepting.contents(snapshot).unwrap(), day(2));
            }
            assert!(!accepting.check().has_damage(), "{:?}", accepting.check());
            accepting.lose_catalog();
            accepting.recover();
        }
        // Once is enough, and other machines learn nothing new from it.
        by.backup(&day(2)).unwrap();
        let last = by.commits().pop().unwrap();
        assert_eq!((last.snapshots_added.len(), last.snapshots_removed.len(), last.volumes_added.len()), (1, 0, 0));
    }
}

#[test]
fn an_acceptance_that_was_interrupted_is_taken_up_again() {
    for dies_after in 0..4 {
        let (store, machine) = with_history();
        store.tamper(&commit(&machine, 3), None);
        machine.sync().map(|_| ()).unwrap_err();
        let faulty = Arc::new(FaultyStore::new(store.clone()).with_connections(1));
        let machine = machine.on(faulty.clone());
        faulty.die_after_puts(dies_after);
        let died = {
            let locked = machine.try_open();
            locked.is_err_and(|_| true) || {
                let mut locked = machine.try_open().unwrap();
                let (time, watch) = (bygone_core::entry::Time::default(), bygone_core::watch::Watch::new());
                bygone_core::survey::accept_loss(&mut locked, time, &watch, |_| true).is_err()
            }
        };
        faulty.heal();
        assert!(died || dies_after >= 3, "after {dies_after} puts");
        if machine.backup(&day(3)).is_err() {
            machine.accept_all();
            machine.backup(&day(3)).unwrap();
        }
        assert_eq!(machine.alarms(), []);
        assert!(machine.check().is_clean(), "after {dies_after} puts: {:?}", machine.check());
        all_restore(&machine, 4);
        let fresh = Machine::new(store.clone());
        assert!(fresh.recover().troubles.is_empty(), "after {dies_after} puts");
        all_restore(&fresh, 4);
    }
}

#[test]
fn a_planted_commit_stops_backups_until_it_is_accepted() {
    let (store, machine) = with_history();
    let planted = ObjectName::new("commits/00112233445566778899aabbccddeeff/0000000000000001").unwrap();
    store.tamper(&planted, Some(b"garbage".to_vec()));
    let error = machine.backup(&day(3)).map(|_| ()).unwrap_err().to_string();
    let is_helpful =
        ["REMOTE_CORRUPT", planted.as_str(), "check --repair", "accept-loss"].iter().all(|word| error.contains(word));
    assert!(is_helpful, "{error}");
    machine.accept_all();
    machine.backup(&day(3)).unwrap();
    all_restore(&machine, 4);
    assert!(store.objects().contains_key(&planted), "what is passed over is not removed");
    nothing_deleted(&store);
}
