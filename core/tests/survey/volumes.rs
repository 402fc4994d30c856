//! Volumes that are missing, cut, changed or swapped: found by the list, marked, stored again, reported until accepted.

use std::sync::Arc;

use bygone_core::catalog::LearntVolume;
use bygone_core::catalog::NewVolume;
use bygone_core::catalog::VolumeState;
use bygone_core::entry::Time;
use bygone_core::id::VolumeName;
use bygone_core::limits::COMMIT_VOLUMES_EACH;
use bygone_core::objects::VolumeKind;
use bygone_core::store::ObjectName;
use bygone_core::store::Source;
use bygone_core::store::Store;
use bygone_core::store::testing::memory::Counts;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::volume::Index;
use bygone_core::write;
use bygone_core::write::Changes;

use crate::kit::Machine;
use crate::kit::codes;
use crate::kit::file;
use crate::kit::first_machine;
use crate::kit::names;
use crate::kit::nothing_deleted;
use crate::kit::sample;

fn with_snapshot() -> (Arc<MemoryStore>, Machine) {
    let store = Arc::new(MemoryStore::new());
    let machine = first_machine(store.clone());
    machine.backup(&sample()).unwrap();
    (store, machine)
}

#[test]
fn an_unchanged_backup_costs_seven_requests() {
    let (store, machine) = with_snapshot();
    for _ in 0..3 {
        store.forget_counts();
        machine.backup(&sample()).unwrap();
        let Counts { gets, puts, lists, deletes, .. } = store.counts();
        // The description and a key slot; marker and commit; key slots and everything; the marker.
        assert_eq!((gets, puts, lists, deletes), (2, 2, 2, 1));
    }
    nothing_deleted(&store);
}

#[test]
fn a_machine_that_learns_of_another_reads_what_is_new_once() {
    let (store, machine) = with_snapshot();
    let other = Machine::new(store.clone());
    other.backup(&sample()).unwrap();
    machine.sync().unwrap();
    store.forget_counts();
    machine.sync().unwrap();
    assert_eq!((store.counts().gets, store.counts().lists), (2, 2), "the other chain's head is known by its mark");
}

type Damage = fn(&MemoryStore, &ObjectName, &ObjectName);

/// A damage to the first of two volumes of content, and its diagnosis.
const DAMAGES: [(&str, Damage); 6] = [
    ("REMOTE_MISSING", |store, name, _| store.tamper(name, None)),
    ("REMOTE_TRUNCATED", |store, name, _| {
        let bytes = store.objects()[name].to_vec();
        store.tamper(name, Some(bytes[..bytes.len() / 2].to_vec()));
    }),
    ("REMOTE_TRUNCATED", |store, name, _| store.tamper(name, Some(Vec::new()))),
    ("REMOTE_TRUNCATED", |store, name, _| {
        store.tamper(name, Some([&store.objects()[name][..], b"more"].concat()));
    }),
    ("REMOTE_CORRUPT", |store, name, _| {
        let mut bytes = store.objects()[name].to_vec();
        bytes[1_000] ^= 1;
        store.tamper(name, Some(bytes));
    }),
    ("REMOTE_SWAPPED", |store, name, other| store.tamper(name, Some(store.objects()[other].to_vec()))),
];

#[test]
fn each_damage_has_its_code_and_the_next_backup_heals_it() {
    for (number, (code, damage)) in DAMAGES.iter().enumerate() {
        let (store, machine) = with_snapshot();
        let first = machine.snapshots().remove(0);
        let all = names(&store, "data/");
        let victim = all[0].to_string();
        damage(&store, &all[0], &all[1]);
        store.forget_counts();
        let expected = vec![(*code, victim.clone())];
        let (learnt, made) = machine.backup(&sample()).unwrap();
        assert_eq!(codes(&learnt.news.raised), expected, "damage {number}");
        assert!(made.totals.bytes_new > 0, "damage {number}: what lay in it is stored again");
        assert_eq!(machine.contents(&first).unwrap(), sample(), "damage {number}: the old snapshot is whole again");
        // Raised once, reported by every run.
        let (learnt, made) = machine.backup(&sample()).unwrap();
        assert_eq!((codes(&learnt.news.raised), made.totals.bytes_new), (vec![], 0), "damage {number}");
        assert_eq!(machine.alarms(), expected, "damage {number}");
        let checked = machine.check();
        assert_eq!((codes(&checked.findings).len(), checked.affected_count), (1, 0), "damage {number}: {checked:?}");
        assert!(!checked.has_damage(), "damage {number}: {checked:?}");
        nothing_deleted(&store);

        assert_eq!(codes(&machine.accept(|alarm| alarm.object == victim).findings), expected);
        assert_eq!(machine.alarms(), []);
        machine.backup(&sample()).unwrap();
        assert_eq!(machine.alarms(), [], "damage {number}: an accepted loss is not reported again");
        assert!(machine.check().is_clean(), "damage {number}: {:?}", machine.check());
        // New catalogs learn of what was accepted.
        machine.lose_catalog();
        machine.recover();
        machine.sync().unwrap();
        assert_eq!(machine.alarms(), [], "damage {number}: a new catalog knows that it was accepted");
        nothing_deleted(&store);
    }
}

#[test]
fn a_lost_tree_is_stored_again_by_the_next_backup() {
    let (store, machine) = with_snapshot();
    let first = machine.snapshots().remove(0);
    let victim = names(&store, "meta/").remove(0);
    store.tamper(&victim, None);
    // Even trees of snapshots that the source no longer resembles: the catalog has them.
    let (learnt, made) = machine.backup(&[file(2, 900_000)]).unwrap();
    assert_eq!(codes(&learnt.news.raised), [("REMOTE_MISSING", victim.to_string())]);
    let fresh = Machine::new(store.clone());
    fresh.recover();
    assert_eq!(fresh.contents(&first).unwrap(), sample());
    assert_eq!(fresh.contents(&made).unwrap(), [file(2, 900_000)]);
}

#[test]
fn what_is_gone_from_the_source_stays_lost_and_is_named() {
    let (store, machine) = with_snapshot();
    names(&store, "data/").iter().for_each(|name| store.tamper(name, None));
    machine.backup(&[file(2, 900_000)]).unwrap();
    let checked = machine.check();
    assert!(checked.has_damage() && checked.affected_count > 0, "{checked:?}");
    machine.accept_all();
    let checked = machine.check();
    assert!(checked.findings.is_empty() && checked.has_damage(), "accepting does not make it whole: {checked:?}");
}

#[test]
fn what_is_brought_back_ends_its_alarm() {
    for (number, (_, damage)) in DAMAGES.iter().enumerate() {
        let (store, machine) = with_snapshot();
        let all = names(&store, "data/");
        let sound = store.objects()[&all[0]].to_vec();
        damage(&store, &all[0], &all[1]);
        machine.sync().unwrap();
        assert_eq!(machine.alarms().len(), 1);
        store.tamper(&all[0], Some(sound));
        let learnt = machine.sync().unwrap();
        assert_eq!(learnt.news.ended, [all[0].to_string()], "damage {number}");
        assert_eq!(machine.alarms(), []);
        assert!(machine.check().is_clean(), "damage {number}");
        assert_eq!(machine.backup(&sample()).unwrap().1.totals.bytes_new, 0, "damage {number}: its blocks are used");
    }
}

#[test]
fn damage_is_found_by_a_machine_that_comes_later_too() {
    for (number, (code, damage)) in DAMAGES.iter().enumerate() {
        let (store, machine) = with_snapshot();
        let all = names(&store, "data/");
        let sound = store.objects()[&all[0]].to_vec();
        damage(&store, &all[0], &all[1]);
        let fresh = Machine::new(store.clone());
        let learnt = fresh.recover();
        assert_eq!(learnt.damaged.len(), usize::from(*code != "REMOTE_CORRUPT"), "damage {number}: {learnt:?}");
        if *code == "REMOTE_CORRUPT" {
            assert!(fresh.check().has_damage(), "damage {number}: a middle is read only by a check of data");
        }
        assert_eq!(fresh.alarms().len(), 1, "damage {number}");
        store.tamper(&all[0], Some(sound));
        fresh.sync().unwrap();
        assert_eq!(fresh.alarms(), [], "damage {number}");
        let snapshot = fresh.snapshots().remove(0);
        assert_eq!(fresh.contents(&snapshot).unwrap(), sample(), "damage {number}: it is taken in when it is back");
        drop(machine);
    }
}

#[test]
fn what_nobody_explains_is_told_and_stays() {
    let (store, machine) = with_snapshot();
    let stranger = ObjectName::new("data/00/notes").unwrap();
    store.tamper(&stranger, Some(b"hello".to_vec()));
    // A volume of a run that never committed: the commit of another machine is removed together with its chain.
    let other = Machine::new(store.clone());
    other.backup(&[file(9, 300_000)]).unwrap();
    let commits = names(&store, &format!("commits/{}", other.client()));
    commits.iter().for_each(|name| store.tamper(name, None));
    store.forget_counts();
    let (learnt, _) = machine.backup(&sample()).unwrap();
    assert_eq!(machine.alarms(), [], "an unknown object is not a loss");
    let found = codes(&learnt.unexplained);
    assert!(found.contains(&("REMOTE_UNKNOWN_OBJECT", stranger.to_string())), "{found:?}");
    assert_eq!(found.len(), 3, "a volume of content, one of trees, and the stranger: {found:?}");
    nothing_deleted(&store);
    // Its blocks are adopted and used.
    machine.recover();
    let (learnt, made) = machine.backup(&[file(9, 300_000)]).unwrap();
    assert_eq!((made.totals.bytes_new, learnt.unexplained.len()), (0, 1));
    assert!(store.list("data/").unwrap().iter().any(|object| object.name == stranger));
    nothing_deleted(&store);
}

#[test]
fn what_is_retired_is_expected_no_more_and_nobody_refers_to_it() {
    let (store, machine) = with_snapshot();
    let old = machine.snapshots().remove(0);
    let retired: Vec<ObjectName> = names(&store, "data/");
    let (_, new) = machine.backup(&[file(3, 900_000)]).unwrap();
    let marks = machine.open().catalog().read().volume_marks().unwrap();
    let is_retired = |name: &VolumeName| retired.iter().any(|object| object.as_str().ends_with(&name.to_hex()));
    let changes = Changes {
        snapshots_removed: vec![old.id],
        volumes_retired: marks.iter().map(|mark| mark.name).filter(is_retired).collect(),
        ..Changes::default()
    };
    assert_eq!(changes.volumes_retired.len(), retired.len());
    write::commit_changes(&mut machine.open(), Time::default(), changes).unwrap();
    retired.iter().for_each(|name| store.tamper(name, None));
    let other = Machine::new(store.clone());
    other.recover();
    for machine in [&machine, &other] {
        machine.sync().unwrap();
        assert_eq!(machine.alarms(), []);
        let checked = machine.check();
        assert!(checked.is_clean(), "{checked:?}");
        assert_eq!(machine.snapshots(), std::slice::from_ref(&new));
    }
    let (_, again) = other.backup(&sample()).unwrap();
    assert_eq!(again.totals.bytes_new, 2_400_000, "all of it is stored again");
    machine.sync().unwrap();
    assert_eq!(machine.contents(&again).unwrap(), sample());
}

#[test]
fn a_volume_of_another_repository_is_nobodys_and_stops_nothing() {
    let (store, machine) = with_snapshot();
    let elsewhere = Arc::new(MemoryStore::new());
    first_machine(elsewhere.clone()).backup(&[file(7, 900_000)]).unwrap();
    for folder in ["data/", "meta/"] {
        let foreign = names(&elsewhere, folder).remove(0);
        store.put(&foreign, Source::Bytes(&elsewhere.objects()[&foreign])).unwrap();
    }
    for _ in 0..2 {
        let learnt = machine.recover();
        assert_eq!((learnt.damaged.len(), learnt.unexplained.len()), (0, 2), "{learnt:?}");
        machine.backup(&sample()).unwrap();
        assert_eq!(machine.alarms(), []);
        assert!(machine.check().is_clean());
    }
    nothing_deleted(&store);
}

#[test]
fn more_volumes_than_one_commit_takes_are_announced_by_several() {
    let (_store, machine) = with_snapshot();
    let index = Index::default();
    let count = COMMIT_VOLUMES_EACH + 10;
    let stored: Vec<LearntVolume> = (0..count as u64)
        .map(|number| {
            let name = VolumeName(bygone_core::hash::sha256(&number.to_le_bytes()));
            let volume = NewVolume {
                name,
                kind: VolumeKind::Data,
                bytes: 1,
                learn_bytes: 0,
                salt: [0; 32],
                index: &index,
                nodes: &[],
            };
            LearntVolume { volume, state: VolumeState::Stored, etag: None, row: None }
        })
        .collect();
    let mut locked = machine.open();
    locked.catalog().volumes_learn(&stored).unwrap();
    write::commit_changes(&mut locked, Time::default(), Changes::default()).unwrap();
    assert!(locked.catalog().read().unannounced().unwrap().volumes.is_empty());
    drop(locked);
    let announced: Vec<usize> = machine.commits().iter().map(|commit| commit.volumes_added.len()).collect();
    assert_eq!(announced[1..], [COMMIT_VOLUMES_EACH, 10]);
}
