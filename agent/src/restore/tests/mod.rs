//! Tests of the whole restore: a tree goes into a repository in memory and comes out in a directory. Kinds, metadata
//! and existing targets are tested by examining the target with system calls.

mod content;
mod delete;
mod existing;
mod hostile;
mod metadata;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use bygone_core::compress::Compression;
use bygone_core::crypto::KdfCost;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Owner;
use bygone_core::entry::Time;
use bygone_core::entry::Xattr;
use bygone_core::error::Result;
use bygone_core::facts::Facts;
use bygone_core::facts::RunRules;
use bygone_core::noise::noise;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::repo::InitOptions;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::snapshot::Snapshot;
use bygone_core::store::ObjectName;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Ended;
use bygone_core::write::Piece;
use bygone_core::write::Writer;

use crate::restore::Deletion;
use crate::restore::Options;
use crate::restore::Report;
use crate::restore::Step;
use crate::restore::Subject;
use crate::select::Selector;

/// A repository with one snapshot.
struct Repo {
    _catalog: tempfile::TempDir,
    place: Place,
    store: Arc<MemoryStore>,
    snapshot: Snapshot,
}

fn secret() -> Secret {
    Secret::new(b"secret".to_vec())
}

fn name(text: impl AsRef<[u8]>) -> Name {
    Name::new(text.as_ref()).unwrap()
}

/// Metadata owned by the user who runs the tests, so that all of it can be restored.
fn meta() -> Meta {
    let owner =
        Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), ..Owner::default() };
    let time = Time { secs: 1_500_000_000, nanos: 123_456_789 };
    Meta { mode: 0o644, owner: Arc::new(owner), mtime: time, ctime: time, device: 1, ..Meta::unknown() }
}

fn mode(mode: u16) -> Meta {
    Meta { mode, ..meta() }
}

fn xattr(name: &[u8], value: &[u8]) -> Xattr {
    Xattr { name: name.to_vec(), value: value.to_vec() }
}

/// The entries of a tree, added in tree order.
trait Tree {
    fn file(&mut self, name: &str, meta: Meta, bytes: &[u8]);
    fn pieces(&mut self, name: &str, meta: Meta, pieces: &[(Option<&[u8]>, u64)]);
    fn other(&mut self, name: &str, meta: Meta, kind: Kind);
    fn begin(&mut self);
    fn end(&mut self, name: &str, meta: Meta);
}

impl Tree for Writer<'_> {
    fn file(&mut self, name: &str, meta: Meta, bytes: &[u8]) {
        self.pieces(name, meta, &[(Some(bytes), 0)]);
    }

    fn pieces(&mut self, name: &str, meta: Meta, pieces: &[(Option<&[u8]>, u64)]) {
        let cutter = self.cutter();
        let mut size = 0;
        for (bytes, hole) in pieces {
            match bytes {
                None => {
                    self.file_piece(Piece::Hole(*hole)).unwrap();
                    size += hole;
                }
                Some(bytes) => {
                    for part in bytes.chunks(cutter.block_bytes()) {
                        self.file_piece(Piece::Block(cutter.block(part.to_vec()))).unwrap();
                    }
                    size += bytes.len() as u64;
                }
            }
        }
        self.file_end(super::tests::name(name), Meta { size, ..meta }).unwrap();
    }

    fn other(&mut self, name: &str, meta: Meta, kind: Kind) {
        let size = if let Kind::Symlink(target) = &kind { target.len() as u64 } else { 0 };
        self.add(Entry::new(super::tests::name(name), Meta { size, ..meta }, kind)).unwrap();
    }

    fn begin(&mut self) {
        self.directory_begin().unwrap();
    }

    fn end(&mut self, name: &str, meta: Meta) {
        let name = (!name.is_empty()).then(|| super::tests::name(name));
        self.directory_end(name, meta).unwrap();
    }
}

impl Repo {
    /// Backs up the entries that `body` puts into the root.
    fn new(root: Meta, body: impl FnOnce(&mut Writer<'_>)) -> Repo {
        let facts = Facts { excludes: Some(vec![]), rules: Some(RunRules::default()), ..Facts::default() };
        Repo::with_facts(root, &["/"], Ended { unreadable: 0, facts }, body)
    }

    /// As [`Repo::new`], as a backup of `paths` that ended so.
    fn with_facts(root: Meta, paths: &[&str], ended: Ended, body: impl FnOnce(&mut Writer<'_>)) -> Repo {
        let catalog = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        let place = Place { store: store.clone(), catalog_base: catalog.path().to_path_buf() };
        let options = InitOptions {
            block_bytes: 1 << 16,
            volume_bytes: 1 << 20,
            compression: Compression::Lz4,
            kdf: KdfCost::for_tests(),
            label: "first".into(),
            time: Time::default(),
        };
        Repository::init(&place, &secret(), &options).unwrap();
        let mut locked = Repository::open(&place, &secret()).unwrap().lock().unwrap();
        let options = BackupOptions {
            time: Time::default(),
            host: "h".into(),
            user: "u".into(),
            paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
            tags: vec![],
            parent: None,
            program: "test".into(),
        };
        let body = |writer: &mut Writer<'_>| {
            writer.begin();
            body(writer);
            writer.end("", root);
            Ok(((), ended))
        };
        let (_, snapshot) = write::backup(&mut locked, options, &Watch::new(), body).unwrap();
        Repo { _catalog: catalog, place, store, snapshot }
    }

    fn restore(&self, target: &Path, options: &Options) -> Result<Report> {
        self.restore_path(b"", target, options, &mut |_, _| ())
    }

    fn restore_path(
        &self,
        path: &[u8],
        target: &Path,
        options: &Options,
        say: &mut dyn FnMut(Step, &[u8]),
    ) -> Result<Report> {
        let repository = Repository::open(&self.place, &secret()).unwrap();
        let reader = Reader::new(&repository, 8 << 20, Order::Forward).unwrap();
        let subject = self.subject(&reader, path);
        super::restore(&reader, &subject, target, options, &Watch::new(), say)
    }

    /// What may be deleted by this snapshot.
    fn deletion(&self, own_directories: &[PathBuf]) -> Option<Deletion> {
        Some(Deletion::new(&self.snapshot, own_directories).unwrap())
    }

    fn subject(&self, reader: &Reader, path: &[u8]) -> Subject {
        let selector = Selector::parse(OsStr::from_bytes(&[b"latest:", path].concat())).unwrap();
        Subject::new(selector.find(&reader.view().unwrap(), &self.snapshot).unwrap(), selector.path_bytes())
    }

    /// The steps that a restore with these options takes, as lines.
    fn steps(&self, target: &Path, options: &Options) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |step, path: &[u8]| lines.push(format!("{step:?} {}", String::from_utf8_lossy(path)));
        self.restore_path(b"", target, options, &mut say).unwrap();
        lines
    }

    /// Names of the volumes that hold content of files.
    fn volumes(&self) -> Vec<ObjectName> {
        self.store.objects().into_keys().filter(|name| name.to_string().starts_with("data/")).collect()
    }
}

/// A restore that must succeed without any issue.
fn restored(repo: &Repo, options: &Options) -> (tempfile::TempDir, Report) {
    let target = tempfile::tempdir().unwrap();
    let report = repo.restore(target.path(), options).unwrap();
    assert_eq!(report.issues, [], "nothing should be amiss");
    assert_eq!(report.warnings(), Vec::<String>::new(), "nothing should be left out");
    (target, report)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn mtime(path: &Path) -> (i64, i64) {
    let meta = path.symlink_metadata().unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

/// All names below a directory, sorted, with the values that show a change.
fn listing(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        for item in directory.read_dir().unwrap() {
            let path = item.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { vec![] };
            let (mode, uid) = (meta.mode(), meta.uid());
            lines.push(format!("{} {mode:o} {uid} {:?} {content:?}", path.display(), mtime(&path)));
            if meta.is_dir() {
                left.push(path);
            }
        }
    }
    lines.sort();
    lines
}
