//! Machines with a catalog each, on one store.

use std::fs;
use std::sync::Arc;

use bygone_core::catalog::SeenCommit;
use bygone_core::check::{self, ReadData, Report};
use bygone_core::commit::Commit;
use bygone_core::compress::Compression;
use bygone_core::crypto::KdfCost;
use bygone_core::entry::{Entry, Kind, Meta, Name, Time};
use bygone_core::error::Result;
use bygone_core::objects::volume_object;
use bygone_core::read::{Order, Reader, Verify};
use bygone_core::recover::{self, Learnt};
use bygone_core::repo::{InitOptions, LockedRepository, Place, Repository, Secret};
use bygone_core::snapshot::Snapshot;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::store::{ObjectName, Store};
use bygone_core::survey::{self, Accepted, Finding};
use bygone_core::watch::Watch;
use bygone_core::write::{self, BackupOptions, Piece, Writer};
use tempfile::TempDir;

pub const BLOCK_BYTES: u32 = 1 << 16;

/// A file by name and content.
pub type File = (String, Vec<u8>);

pub struct Machine {
    place: Place,
    _dir: TempDir,
}

fn secret() -> Secret {
    Secret::new(b"correct horse".to_vec())
}

/// Makes a repository and the machine that made it.
pub fn first_machine(store: Arc<dyn Store>) -> Machine {
    let machine = Machine::new(store);
    let options = InitOptions {
        block_bytes: BLOCK_BYTES,
        volume_bytes: 1 << 20,
        compression: Compression::Lz4,
        kdf: KdfCost::for_tests(),
        label: "first".into(),
        time: Time::default(),
    };
    Repository::init(&machine.place, &secret(), &options).unwrap();
    machine
}

impl Machine {
    pub fn new(store: Arc<dyn Store>) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { store, catalog_base: dir.path().join("catalogs") };
        Machine { place, _dir: dir }
    }

    /// The same machine with another store.
    pub fn on(self, store: Arc<dyn Store>) -> Machine {
        Machine { place: Place { store, catalog_base: self.place.catalog_base }, _dir: self._dir }
    }

    /// Another machine with a copy of this one's home.
    pub fn cloned(&self) -> Machine {
        let clone = Machine::new(self.place.store.clone());
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
        Repository::open(&self.place, &secret())?.lock()
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
        write::announce(&locked)?;
        let learnt = recover::sync(&mut locked, &Watch::new())?;
        Ok((learnt, store_files(&mut locked, files)?))
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
        let mut lines = Vec::new();
        let push = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        self.open().catalog().read().dump(push).unwrap();
        lines
    }

    /// What a snapshot holds, read back to the last byte.
    pub fn contents(&self, snapshot: &Snapshot) -> Result<Vec<File>> {
        let repository = Repository::open(&self.place, &secret())?;
        let reader = Reader::new(&repository, 1 << 20, Order::Any)?;
        let view = reader.view()?;
        let directory = view.directory(snapshot.root)?;
        let read = |entry: &Entry| {
            let Kind::File(content) = &entry.kind else { panic!("{:?} is not a file", entry.name) };
            let bytes = reader.read(&view.file(content)?, 0, usize::MAX >> 1, Verify::Blocks)?;
            Ok((String::from_utf8(entry.name.as_bytes().to_vec()).unwrap(), bytes))
        };
        directory.from(&view, 0, usize::MAX)?.iter().map(|item| read(&item.entry)).collect()
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

fn meta(size: u64) -> Meta {
    let time = Time { secs: 1_700_000_000, nanos: 1 };
    let owner = Arc::default();
    let (mode, nlink, device, inode, flags, xattrs) = (0o644, 1, 1, size, 0, vec![]);
    Meta { mode, owner, mtime: time, ctime: time, size, nlink, device, inode, flags, xattrs }
}

fn write_file(writer: &mut Writer<'_>, name: &str, bytes: &[u8]) -> Result<()> {
    let cutter = writer.cutter();
    for part in bytes.chunks(cutter.block_bytes()) {
        writer.file_piece(Piece::Block(cutter.block(part.to_vec())))?;
    }
    writer.file_end(Name::new(name.as_bytes()).unwrap(), meta(bytes.len() as u64))
}

/// A backup without looking at the store first.
pub fn store_files(locked: &mut LockedRepository, files: &[File]) -> Result<Snapshot> {
    let (host, user, program) = ("h".into(), "u".into(), "test".into());
    let (time, paths, tags) = (Time::default(), vec![], vec![]);
    let options = BackupOptions { time, host, user, paths, tags, parent: None, program };
    let body = |writer: &mut Writer<'_>| {
        writer.directory_begin()?;
        for (name, bytes) in files {
            write_file(writer, name, bytes)?;
        }
        writer.directory_end(None, meta(0))?;
        Ok(((), 0))
    };
    write::backup(locked, options, &Watch::new(), body).map(|(_, snapshot)| snapshot)
}

/// Incompressible bytes that depend on `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(byte).take(length).collect()
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
