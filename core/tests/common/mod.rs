//! What the tests of core share: a small repository on any store, backups that read no disk, and what they hold.

#![allow(clippy::unwrap_used, dead_code, reason = "a test fails by panicking, and none uses everything")]

use std::sync::Arc;

use bygone_core::compress::Compression;
use bygone_core::crypto::KdfCost;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::error::Result;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::read::Verify;
use bygone_core::repo::InitOptions;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::snapshot::Snapshot;
use bygone_core::store::Store;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Piece;
use bygone_core::write::Writer;

pub fn meta(size: u64) -> Meta {
    let time = Time { secs: 1_700_000_000, nanos: 1 };
    Meta { mode: 0o644, mtime: time, ctime: time, size, device: 1, inode: size, ..Meta::unknown() }
}

pub fn place(store: Arc<dyn Store>) -> (tempfile::TempDir, Place) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { store, catalog_base: dir.path().to_path_buf() };
    (dir, place)
}

pub fn secret() -> Secret {
    Secret::new(b"correct horse".to_vec())
}

pub fn init(place: &Place) {
    init_with(place, 1 << 20);
}

pub fn init_with(place: &Place, volume_bytes: u64) {
    let options = InitOptions {
        block_bytes: 1 << 16,
        volume_bytes,
        compression: Compression::Lz4,
        kdf: KdfCost::for_tests(),
        label: "first".into(),
        time: Time::default(),
    };
    Repository::init(place, &secret(), &options).unwrap();
}

pub fn open(place: &Place) -> LockedRepository {
    Repository::open(place, &secret()).unwrap().lock().unwrap()
}

/// The canonical dump of the catalog.
pub fn dump(locked: &mut LockedRepository) -> Vec<String> {
    let mut lines = Vec::new();
    let push = |line: &str| {
        lines.push(line.to_owned());
        Ok(())
    };
    locked.catalog().read().dump(push).unwrap();
    lines
}

pub fn options() -> BackupOptions {
    let (host, user, program) = ("h".into(), "u".into(), "test".into());
    BackupOptions { time: Time::default(), host, user, paths: vec![], tags: vec![], parent: None, program }
}

pub fn file(writer: &mut Writer<'_>, name: &str, bytes: &[u8]) -> Result<()> {
    let cutter = writer.cutter();
    for part in bytes.chunks(cutter.block_bytes()) {
        writer.file_piece(Piece::Block(cutter.block(part.to_vec())))?;
    }
    writer.file_end(Name::new(name.as_bytes()).unwrap(), meta(bytes.len() as u64))
}

/// A backup of one directory with these files, without looking at the store first.
pub fn backup<N: AsRef<str>>(locked: &mut LockedRepository, files: &[(N, Vec<u8>)]) -> Result<Snapshot> {
    let body = |writer: &mut Writer<'_>| {
        writer.directory_begin()?;
        for (name, bytes) in files {
            file(writer, name.as_ref(), bytes)?;
        }
        writer.directory_end(None, meta(0))?;
        Ok(((), 0))
    };
    write::backup(locked, options(), &Watch::new(), body).map(|(_, snapshot)| snapshot)
}

/// What a snapshot of one directory holds, read back to the last byte.
pub fn contents(place: &Place, snapshot: &Snapshot, order: Order) -> Result<Vec<(String, Vec<u8>)>> {
    let repository = Repository::open(place, &secret())?;
    let reader = Reader::new(&repository, 1 << 20, order)?;
    let view = reader.view()?;
    let directory = view.directory(snapshot.root)?;
    let read = |entry: &Entry| {
        let Kind::File(content) = &entry.kind else { panic!("{:?} is not a file", entry.name) };
        let bytes = reader.read(&view.file(content)?, 0, usize::MAX >> 1, Verify::Blocks)?;
        assert_eq!(bytes.len() as u64, entry.meta.size);
        Ok((String::from_utf8(entry.name.as_bytes().to_vec()).unwrap(), bytes))
    };
    directory.from(&view, 0, usize::MAX)?.iter().map(|item| read(&item.entry)).collect()
}
