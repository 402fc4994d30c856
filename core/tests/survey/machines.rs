//! Several machines on one repository, compared with a model: one after another, in parallel, crashing, with lost and
//! old catalogs. In every order, each committed snapshot reads back to the last byte on every machine, no alarm is
//! raised, and nothing is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use bygone_core::features::Features;
use bygone_core::id::SlotId;
use bygone_core::id::SnapshotId;
use bygone_core::objects::commit_object;
use bygone_core::store::testing::faulty::Fault;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::write::Changes;

use crate::kit::File;
use crate::kit::Machine;
use crate::kit::codes;
use crate::kit::file;
use crate::kit::first_machine;
use crate::kit::names;
use crate::kit::nothing_deleted;

/// The number of seeds, unless BYGONE_TESTS_SEEDS gives another.
const SEEDS: u64 = 9;
const STEPS: u32 = 26;

#[test]
fn machines_use_each_others_blocks() {
    let store = Arc::new(MemoryStore::new());
    let machines = [first_machine(store.clone()), Machine::new(store.clone()), Machine::new(store.clone())];
    let shared = file(1, 500_000);
    for round in 0..3 {
        for (number, machine) in machines.iter().enumerate() {
            let own = file(10 + 10 * round + number as u64, 200_000);
            let (_, made) = machine.backup(&[shared.clone(), own.clone()]).unwrap();
            let is_first = round == 0 && number == 0;
            let new = 200_000 + if is_first { 500_000 } else { 0 };
            assert_eq!(made.totals.bytes_new, new, "machine {number} in round {round}");
        }
    }
    agree(&machines, &store);
    assert_eq!(machines[0].snapshots().len(), 9);
    nothing_deleted(&store);
}

/// All machines know the same snapshots, and a check finds nothing wrong.
#[track_caller]
fn agree(machines: &[Machine], store: &MemoryStore) {
    let dumps: Vec<_> = machines
        .iter()
        .map(|machine| {
            machine.sync().unwrap();
            let checked = machine.check();
            assert!(checked.is_clean(), "{checked:?}");
            assert_eq!(machine.alarms(), []);
            machine.dump()
        })
        .collect();
    for dump in &dumps {
        let differs = dump.iter().zip(&dumps[0]).find(|(here, there)| here != there);
        assert!(dump == &dumps[0], "{differs:?}");
    }
    assert!(names(store, "running/").is_empty(), "no marker is left");
}

#[test]
fn machines_that_work_at_once_do_not_disturb_each_other() {
    let store = Arc::new(MemoryStore::new());
    let machines = [first_machine(store.clone()), Machine::new(store.clone()), Machine::new(store.clone())];
    thread::scope(|scope| {
        for (number, machine) in machines.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..4 {
                    let files = [file(1, 300_000), file(100 + number as u64 * 10 + round, 200_000)];
                    let (learnt, snapshot) = machine.backup(&files).unwrap();
                    assert_eq!((codes(&learnt.notes), codes(&learnt.news.raised)), (vec![], vec![]));
                    assert_eq!(machine.contents(&snapshot).unwrap(), files);
                }
            });
        }
    });
    agree_on_content(&machines);
    assert_eq!(machines[0].snapshots().len(), 12);
    nothing_deleted(&store);
}

/// Blocks stored by two machines at once lie in a volume of each, and each machine remembers its own. So the machines
/// agree on snapshots, but not necessarily on places.
#[track_caller]
fn agree_on_content(machines: &[Machine]) {
    let mut all = Vec::new();
    for machine in machines {
        machine.sync().unwrap();
        let checked = machine.check();
        assert!(checked.is_clean(), "{checked:?}");
        let mut ids: Vec<SnapshotId> = machine.snapshots().iter().map(|snapshot| snapshot.id).collect();
        ids.sort();
        all.push(ids);
    }
    all.iter().for_each(|ids| assert_eq!(ids, &all[0]));
}

/// Choices that follow from the seed.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// A few files out of twelve, so that machines often have the same ones.
    fn files(&mut self) -> Vec<File> {
        let mut seeds: Vec<u64> = (0..1 + self.below(3)).map(|_| self.below(12)).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds.into_iter().map(|seed| file(seed, 40_000 + 30_000 * usize::try_from(seed).unwrap())).collect()
    }
}

/// One to three machines, each behind a store that fails on command.
struct World {
    memory: Arc<MemoryStore>,
    machines: Vec<(Machine, Arc<FaultyStore>)>,
    /// Old catalogs that may be put back.
    images: Vec<Option<Machine>>,
    /// What every committed snapshot must hold.
    truth: BTreeMap<SnapshotId, Vec<File>>,
    /// What a failed backup may still have committed.
    perhaps: Vec<Vec<File>>,
}

impl World {
    fn new(count: u64, checkpoint_each: u64) -> World {
        let memory = Arc::new(MemoryStore::new());
        drop(first_machine(memory.clone()));
        let machine = |_| {
            let faulty = Arc::new(FaultyStore::new(memory.clone()).with_connections(1));
            (Machine::new(faulty.clone()).with_checkpoint_each(checkpoint_each), faulty)
        };
        let machines: Vec<_> = (0..count).map(machine).collect();
        World {
            images: machines.iter().map(|_| None).collect(),
            machines,
            memory,
            truth: BTreeMap::new(),
            perhaps: vec![],
        }
    }

    fn step(&mut self, choices: &mut Choices) -> String {
        let which = usize::try_from(choices.below(self.machines.len() as u64)).unwrap();
        let (machine, faulty) = &self.machines[which];
        match choices.below(14) {
            0..5 => {
                let files = choices.files();
                let (learnt, snapshot) = machine.backup(&files).unwrap();
                assert_eq!(codes(&learnt.news.raised), []);
                self.truth.insert(snapshot.id, files);
                format!("{which} backs up")
            }
            5..8 => {
                let files = choices.files();
                let call = 1 + choices.below(16);
                let fault = if choices.below(2) == 0 { Fault::Before } else { Fault::After };
                faulty.forget_calls();
                faulty.die_at_call(call, fault);
                let done = machine.backup(&files);
                faulty.heal();
                match done {
                    Ok((_, snapshot)) => drop(self.truth.insert(snapshot.id, files)),
                    Err(error) => {
                        assert!(FaultyStore::is_injected(&error), "{error}");
                        self.perhaps.push(files);
                    }
                }
                format!("{which} dies at call {call}, {fault:?}")
            }
            8 => {
                machine.lose_catalog_if_any();
                machine.recover();
                // The client is gone, and so is the use of its old catalogs.
                self.images[which] = None;
                format!("{which} loses its catalog")
            }
            9 => {
                machine.sync().unwrap();
                self.images[which] = Some(machine.cloned());
                format!("{which} keeps a copy of its catalog")
            }
            10 => {
                if let Some(image) = &self.images[which] {
                    machine.put_back(image);
                }
                format!("{which} has its old catalog put back")
            }
            11 => {
                machine.sync().unwrap();
                let removed: Vec<SnapshotId> = self.truth.keys().take(1).copied().collect();
                removed.iter().for_each(|id| drop(self.truth.remove(id)));
                let slots_removed = vec![SlotId([choices.below(5) as u8; 16])];
                machine.commit(Changes { snapshots_removed: removed, slots_removed, ..Changes::default() }).unwrap();
                format!("{which} removes the first snapshot and a key slot")
            }
            12 => {
                machine.sync().unwrap();
                let optional = vec![format!("feature-{}", choices.below(4))];
                let features = Features { optional, ..Features::default() };
                machine.commit(Changes { features, ..Changes::default() }).unwrap();
                format!("{which} uses a feature")
            }
            _ => {
                let learnt = machine.sync().unwrap();
                assert_eq!((codes(&learnt.news.raised), codes(&learnt.troubles)), (vec![], vec![]));
                format!("{which} syncs")
            }
        }
    }

    /// Every machine, including a new one, has every snapshot to the last byte.
    fn verify(&self) {
        let fresh = Machine::new(self.memory.clone());
        assert!(fresh.recover().troubles.is_empty());
        for machine in self.machines.iter().map(|(machine, _)| machine).chain([&fresh]) {
            machine.sync().unwrap();
            let snapshots = machine.snapshots();
            for id in self.truth.keys() {
                assert!(snapshots.iter().any(|snapshot| snapshot.id == *id), "{id} is missing");
            }
            for snapshot in snapshots {
                let found = machine.contents(&snapshot).unwrap();
                match self.truth.get(&snapshot.id) {
                    Some(files) => assert!(&found == files, "{} holds something else", snapshot.id),
                    None => assert!(self.perhaps.contains(&found), "no machine made {}", snapshot.id),
                }
            }
            let checked = machine.check();
            assert!(checked.is_clean(), "{checked:?}");
            assert_eq!(machine.alarms(), []);
        }
        nothing_deleted(&self.memory);
        self.agree_on_commits(&fresh);
    }

    /// Whatever part of the chains a machine has read, it knows the same.
    fn agree_on_commits(&self, fresh: &Machine) {
        // A recovery also takes in volumes, and so nodes, that no commit names.
        let said = ["snapshot", "volume-retired", "slot-removed", "feature", "head", "path"];
        let of = |machine: &Machine| {
            machine.sync().unwrap();
            let lines = machine.dump().into_iter();
            lines.filter(|line| said.iter().any(|word| line.starts_with(word))).collect::<Vec<_>>()
        };
        let expected = of(fresh);
        for (machine, _) in &self.machines {
            let found = of(machine);
            let differs = found.iter().zip(&expected).find(|(here, there)| here != there);
            assert!(found == expected, "{differs:?}");
        }
    }

    /// Removes the commits for which checkpoints stand.
    fn lose_what_is_covered(&self) {
        let (machine, _) = &self.machines[0];
        machine.sync().unwrap();
        let covered = machine.open().catalog().read().chains_covered().unwrap();
        for range in covered {
            (range.first..=range.last).for_each(|seq| self.memory.tamper(&commit_object(range.client, seq), None));
        }
    }
}

#[test]
fn random_histories_of_one_to_three_machines_lose_nothing() {
    let seeds = std::env::var("BYGONE_TESTS_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let mut choices = Choices(seed);
        let checkpoint_each = [2, 64, 3][seed as usize % 3];
        let mut world = World::new(1 + seed % 3, checkpoint_each);
        let mut history = Vec::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                let step = world.step(&mut choices);
                history.push(step);
            }
            world.verify();
            if checkpoint_each < 64 {
                world.lose_what_is_covered();
                world.verify();
            }
        }));
        if let Err(cause) = outcome {
            // The step that failed is the one after these.
            eprintln!("seed {seed}: {history:#?}");
            std::panic::resume_unwind(cause);
        }
    }
}
