//! Stores with unreliable lists, and stores that give old bytes new marks.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::store::ByteRange;
use bygone_core::store::Listed;
use bygone_core::store::ObjectName;
use bygone_core::store::Source;
use bygone_core::store::Store;
use bygone_core::store::Stored;
use bygone_core::store::testing::memory::MemoryStore;

use crate::kit::Machine;
use crate::kit::codes;
use crate::kit::file;
use crate::kit::first_machine;
use crate::kit::names;
use crate::kit::nothing_deleted;
use crate::kit::sample;

/// Turns a list into a wrong one.
type Distort = Box<dyn FnMut(Vec<Listed>) -> Vec<Listed> + Send>;

/// A store that lists something else than it holds.
struct Distorted {
    inner: Arc<MemoryStore>,
    distort: Mutex<Distort>,
    /// The object on a bad sector of its disk.
    bad: Mutex<Option<ObjectName>>,
}

impl Distorted {
    fn set(&self, distort: impl FnMut(Vec<Listed>) -> Vec<Listed> + Send + 'static) {
        *self.distort.lock().unwrap() = Box::new(distort);
    }
}

impl Store for Distorted {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn connections(&self) -> usize {
        self.inner.connections()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        match self.bad.lock().unwrap().as_ref() == Some(name) {
            true => Err(Error::store("read", name, std::io::Error::from_raw_os_error(5))),
            false => self.inner.get(name, range),
        }
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        self.inner.put(name, source)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let listed = self.inner.list(prefix)?;
        // Without key slots the repository does not open at all, which is not the subject here.
        Ok(if prefix == "keys/" { listed } else { (self.distort.lock().unwrap())(listed) })
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.inner.delete(name)
    }
}

fn with_snapshots() -> (Arc<MemoryStore>, Arc<Distorted>, Machine) {
    let inner = Arc::new(MemoryStore::new());
    let distort: Mutex<Distort> = Mutex::new(Box::new(|listed| listed));
    let store = Arc::new(Distorted { inner: inner.clone(), distort, bad: Mutex::default() });
    let machine = first_machine(store.clone());
    machine.backup(&sample()).unwrap();
    machine.backup(&[file(3, 300_000)]).unwrap();
    (inner, store, machine)
}

/// Incomplete lists, each as a broken proxy or a wrong page limit has been seen to make it.
const CUT_LISTS: [fn(Vec<Listed>) -> Vec<Listed>; 6] = [
    |_| Vec::new(),
    |listed| listed[..listed.len() / 2].to_vec(),
    |listed| listed[1..].iter().filter(|object| !object.name.as_str().starts_with("commits/")).cloned().collect(),
    |listed| listed.into_iter().filter(|object| !object.name.as_str().starts_with("data/")).collect(),
    |listed| {
        let data = |object: &&Listed| object.name.as_str().starts_with("data/");
        let first = listed.iter().find(data).map(|object| object.name.clone());
        listed.into_iter().filter(|object| Some(&object.name) != first.as_ref()).collect()
    },
    |mut listed| {
        let last = listed.iter().rposition(|object| object.name.as_str().starts_with("commits/"));
        listed.remove(last.unwrap());
        listed
    },
];

#[test]
fn a_list_that_is_not_whole_changes_nothing() {
    for (number, cut) in CUT_LISTS.into_iter().enumerate() {
        let (inner, store, machine) = with_snapshots();
        let before = machine.dump();
        inner.forget_counts();
        store.set(cut);
        let objects = inner.objects().len();
        let error = machine.backup(&[file(4, 300_000)]).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("the list does not show"), "list {number}: {error}");
        assert_eq!((machine.alarms(), machine.dump() == before), (vec![], true), "list {number}");
        // Nothing but the marker of the run that failed.
        assert_eq!(inner.objects().len(), objects + 1, "list {number}");
        store.set(|listed| listed);
        machine.backup(&[file(4, 300_000)]).unwrap();
        assert!(machine.check().is_clean(), "list {number}");
        nothing_deleted(&inner);
    }
}

#[test]
fn new_marks_on_old_bytes_are_looked_into_once_and_are_no_alarm() {
    let (inner, store, machine) = with_snapshots();
    store.set(|mut listed| {
        listed.iter_mut().for_each(|object| object.etag = object.etag.as_ref().map(|etag| format!("moved-{etag}")));
        listed
    });
    inner.forget_counts();
    let learnt = machine.sync().unwrap();
    assert!(learnt.news.raised.is_empty() && machine.alarms().is_empty(), "{learnt:?}");
    let volumes: u64 = ["data/", "meta/"].iter().flat_map(|folder| inner.list(folder).unwrap()).map(|o| o.bytes).sum();
    assert!(inner.counts().bytes_got >= volumes, "all of it was read");
    inner.forget_counts();
    machine.sync().unwrap();
    assert!(inner.counts().bytes_got < 10_000, "and is not read again: {:?}", inner.counts());
}

#[test]
fn a_volume_cut_after_listing_is_lost_until_it_is_back() {
    let (inner, store, machine) = with_snapshots();
    let victim = names(&inner, "data/").remove(0);
    let whole = inner.objects()[&victim].to_vec();
    inner.tamper(&victim, Some(whole[..whole.len() - 1_000].to_vec()));
    store.set(|mut listed| {
        let first = listed.iter_mut().find(|object| object.name.as_str().starts_with("data/")).unwrap();
        first.bytes += 1_000;
        listed
    });
    let learnt = machine.recover();
    assert_eq!(codes(&learnt.news.raised), [("REMOTE_TRUNCATED", victim.to_string())]);
    inner.tamper(&victim, Some(whole));
    store.set(|listed| listed);
    assert_eq!(machine.recover().news.ended, [victim.to_string()]);
    assert!(machine.check().is_clean(), "{:?}", machine.check());
    nothing_deleted(&inner);
}

#[test]
fn a_machine_that_commits_while_another_lists_raises_no_alarm() {
    let (inner, store, machine) = with_snapshots();
    let known = machine.known_volumes();
    let (_, new) = Machine::new(inner).backup(&[file(5, 900_000)]).unwrap();
    // The list read the folders of volumes before the other machine's backup, and that of commits after it.
    let lists = Arc::new(AtomicU32::new(0));
    let counted = lists.clone();
    store.set(move |mut listed| {
        let is_volume = |name: &str| name.starts_with("data/") || name.starts_with("meta/");
        if listed.iter().any(|object| is_volume(object.name.as_str())) && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            listed.retain(|object| !is_volume(object.name.as_str()) || known.contains(&object.name.to_string()));
        }
        listed
    });
    let learnt = machine.sync().unwrap();
    assert!(learnt.news.raised.is_empty() && learnt.damaged.is_empty(), "{learnt:?}");
    assert_eq!(machine.alarms(), []);
    assert_eq!(machine.contents(&new).unwrap(), [file(5, 900_000)]);
    assert!(lists.load(Ordering::SeqCst) > 1, "it looked again");
}

#[test]
fn a_bad_place_of_a_disk_costs_what_lies_on_it_and_no_more() {
    for (folder, number) in [("data/", 0), ("meta/", 0), ("commits/", 0)] {
        let (inner, store, machine) = with_snapshots();
        let victim = names(&inner, folder).remove(number);
        *store.bad.lock().unwrap() = Some(victim.clone());
        let checked = machine.check();
        assert_eq!(codes(&checked.findings), [("REMOTE_CORRUPT", victim.to_string())], "{folder}: {checked:?}");
        assert_eq!(checked.affected_count > 0, folder != "commits/", "{checked:?}");
        let other = Machine::new(store.clone());
        let learnt = other.recover();
        let expected = if folder == "commits/" { (0, 1) } else { (1, 0) };
        assert_eq!((learnt.damaged.len(), learnt.troubles.len()), expected, "{folder}: {learnt:?}");
        if folder != "meta/" {
            assert!(learnt.snapshots > 0, "what can be read is taken in: {learnt:?}");
        }
        *store.bad.lock().unwrap() = None;
        machine.sync().unwrap();
        assert!(machine.check().is_clean(), "{folder}: {:?}", machine.check());
        assert_eq!(machine.alarms(), [], "{folder}");
        other.sync().unwrap();
        other.recover();
        assert_eq!(other.alarms(), [], "{folder}");
        assert!(other.check().is_clean(), "{folder}: {:?}", other.check());
        nothing_deleted(&inner);
    }
}

#[test]
fn a_store_without_marks_is_judged_by_sizes() {
    let (inner, store, machine) = with_snapshots();
    store.set(|mut listed| {
        listed.iter_mut().for_each(|object| object.etag = None);
        listed
    });
    machine.sync().unwrap();
    assert_eq!(machine.alarms(), []);
    // A changed commit of the same size is noticed only by reading it, and so is its return.
    let head = names(&inner, "commits/").remove(1);
    let sound = inner.objects()[&head].to_vec();
    inner.tamper(&head, Some(vec![7; sound.len()]));
    assert!(machine.sync().map(|_| ()).unwrap_err().to_string().starts_with("REMOTE_CORRUPT"));
    inner.tamper(&head, Some(sound));
    assert_eq!(machine.sync().unwrap().news.ended, [head.to_string()]);
    let victim = names(&inner, "data/").remove(0);
    inner.tamper(&victim, Some(vec![0; 5]));
    machine.sync().unwrap();
    assert_eq!(machine.alarms(), [("REMOTE_TRUNCATED", victim.to_string())]);
}
