//! Machines with a catalog each, on one store.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use bygone_core::catalog::SeenCommit;
use bygone_core::check;
use bygone_core::check::ReadData;
use bygone_core::check::Report;
use bygone_core::commit::Commit;
use bygone_core::entry::Time;
use bygone_core::error::Result;
use bygone_core::id::ClientId;
use bygone_core::id::CommitHash;
use bygone_core::limits;
use bygone_core::noise::noise;
use bygone_core::objects::commit_object;
use bygone_core::objects::volume_object;
use bygone_core::read::Order;
use bygone_core::recover;
use bygone_core::recover::Learnt;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::snapshot::Snapshot;
use bygone_core::store::ObjectName;
use bygone_core::store::Source;
use bygone_core::store::Store;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::survey;
use bygone_core::survey::Accepted;
use bygone_core::survey::Finding;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::Changes;

use crate::common;
use crate::common::secret;

/// A file by name and content.
pub type File = (String, Vec<u8>);

pub struct Machine {
    place: Place,
    checkpoint_each: u64,
    _dir: TempDir,
}

/// Makes a repository and the machine that made it.
pub fn first_machine(store: Arc<dyn Store>) -> Machine {
    let machine = Machine::new(store);
    common::init(&machine.place);
    machine
}

impl Machine {
    pub fn new(store: Arc<dyn Store>) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { store, catalog_base: dir.path().join("catalogs") };
        Machine { place, checkpoint_each: limits::CHECKPOINT_COMMITS, _dir: dir }
    }

    /// The same machine, which writes a checkpoint after this many commits.
    pub fn with_checkpoint_each(self, checkpoint_each: u64) -> Machine {
        Machine { checkpoint_each, ..self }
    }

    /// The same machine with another store.
    pub fn on(self, store: Arc<dyn Store>) -> Machine {
        Machine { place: Place { store, catalog_base: self.place.catalog_base }, ..self }
    }

    /// Another machine with a copy of this one's home.
    pub fn cloned(&self) -> Machine {
        let clone = Machine::new(self.place.store.clone()).with_checkpoint_each(self.checkpoint_each);
        copy(&self.place.catalog_base, &clone.place.catalog_base);
        clone
    }

    /// This machine with the catalog that `image` has now: an old copy that was put back.
    pub fn put_back(&self, image: &Machine) {
        fs::remove_dir_all(&self.place.catalog_base).unwrap();
        copy(&image.place.catalog_base, &self.place.catalog_base);
    }

    /// The commits of its own chain.
    pub fn commits(&self) -> Vec<Commit> {
        let mut locked = self.open();
        let client = locked.client();
        let (repository, catalog) = locked.parts();
        let own = catalog.read().commits_seen().unwrap().into_iter().filter(|seen| seen.client == client);
        let open = |seen: SeenCommit| {
            let object = catalog.read().commit_object(client, seen.seq).unwrap().unwrap();
            Commit::open(&object, &repository.keys().commit(client, seen.seq), client, seen.seq).unwrap()
        };
        own.map(open).collect()
    }

    /// The objects of the volumes that its catalog knows.
    pub fn known_volumes(&self) -> Vec<String> {
        let marks = self.open().catalog().read().volume_marks().unwrap();
        marks.iter().map(|mark| volume_object(mark.kind, mark.name).to_string()).collect()
    }

    pub fn lose_catalog_if_any(&self) {
        if self.place.catalog_base.exists() {
            self.lose_catalog();
        }
    }

    pub fn lose_catalog(&self) {
        fs::remove_dir_all(&self.place.catalog_base).unwrap();
    }

    pub fn open(&self) -> LockedRepository {
        self.try_open().unwrap()
    }

    pub fn try_open(&self) -> Result<LockedRepository> {
        Ok(Repository::open(&self.place, &secret())?.lock()?.with_checkpoint_each(self.checkpoint_each))
    }

    pub fn sync(&self) -> Result<Learnt> {
        recover::sync(&mut self.open(), &Watch::new())
    }

    pub fn recover(&self) -> Learnt {
        recover::recover(&mut self.open(), &Watch::new()).unwrap()
    }

    /// A backup as the agent makes it.
    pub fn backup(&self, files: &[File]) -> Result<(Learnt, Snapshot)> {
        let mut locked = self.try_open()?;
        write::announce(&mut locked)?;
        let learnt = recover::sync(&mut locked, &Watch::new())?;
        Ok((learnt, common::backup(&mut locked, files)?))
    }

    /// Puts the next commit of its chain.
    pub fn commit(&self, changes: Changes) -> Result<()> {
        write::commit_changes(&mut self.open(), Time::default(), changes)
    }

    /// Puts a commit that is not of its making.
    pub fn plant(&self, client: ClientId, seq: u64, commit: &Commit) {
        let locked = self.open();
        let keys = locked.repository().keys().commit(client, seq);
        let object = commit.seal(&keys, client, seq).unwrap();
        self.place.store.put(&commit_object(client, seq), Source::Bytes(&object)).unwrap();
    }

    /// The newest commit of its chain, by number and hash, and the checkpoint that it names.
    pub fn head(&self) -> (u64, CommitHash, u64) {
        let newest = self.commits().pop().unwrap();
        let mut locked = self.open();
        let client = locked.client();
        let heads = locked.catalog().read().heads().unwrap();
        let head = heads.into_iter().find(|head| head.client == client).unwrap();
        (head.seq, head.hash, newest.checkpoint.number(head.seq))
    }

    pub fn accept_all(&self) -> Accepted {
        self.accept(|_| true)
    }

    pub fn accept(&self, is_chosen: impl Fn(&bygone_core::catalog::Alarm) -> bool) -> Accepted {
        survey::accept_loss(&mut self.open(), Time::default(), &Watch::new(), is_chosen).unwrap()
    }

    pub fn check(&self) -> Report {
        check::check(&mut self.open(), ReadData::All, &Watch::new()).unwrap()
    }

    /// Codes and objects of the open alarms.
    pub fn alarms(&self) -> Vec<(&'static str, String)> {
        codes(&survey::alarms_open(&mut self.open()).unwrap())
    }

    pub fn client(&self) -> String {
        self.open().client().to_hex()
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        let rows = self.open().catalog().read().snapshots().unwrap();
        rows.into_iter().map(|row| row.snapshot).collect()
    }

    pub fn dump(&self) -> Vec<String> {
        common::dump(&mut self.open())
    }

    /// What a snapshot holds, read back to the last byte.
    pub fn contents(&self, snapshot: &Snapshot) -> Result<Vec<File>> {
        common::contents(&self.place, snapshot, Order::Any)
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

pub fn codes(findings: &[Finding]) -> Vec<(&'static str, String)> {
    findings.iter().map(|finding| (finding.diagnosis.code(), finding.object.clone())).collect()
}

/// A file of noise.
pub fn file(seed: u64, length: usize) -> File {
    (format!("f{seed:04}"), noise(seed, length))
}

/// Two files that fill three volumes of content.
pub fn sample() -> Vec<File> {
    vec![file(1, 1_500_000), file(2, 900_000)]
}

/// Names of the objects below `folder`.
pub fn names(store: &MemoryStore, folder: &str) -> Vec<ObjectName> {
    store.objects().into_keys().filter(|name| name.as_str().starts_with(folder)).collect()
}

/// No object of a repository was deleted: nothing but markers of runs.
#[track_caller]
pub fn nothing_deleted(store: &MemoryStore) {
    let deleted = store.deleted();
    let wrong: Vec<_> = deleted.iter().filter(|name| !name.as_str().starts_with("running/")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
