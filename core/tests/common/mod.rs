//! A small repository in memory, and backups without files.

#![allow(clippy::unwrap_used, dead_code, reason = "a test fails by panicking, and none uses everything")]

use std::sync::Arc;

use bygone_core::compress::Compression;
use bygone_core::crypto::KdfCost;
use bygone_core::entry::{Meta, Name, Time};
use bygone_core::error::Result;
use bygone_core::repo::{InitOptions, LockedRepository, Place, Repository, Secret};
use bygone_core::snapshot::Snapshot;
use bygone_core::store::Store;
use bygone_core::watch::Watch;
use bygone_core::write::{self, BackupOptions, Piece, Writer};

pub fn meta(size: u64) -> Meta {
    let time = Time { secs: 1_700_000_000, nanos: 1 };
    let owner = Arc::default();
    Meta {
        mode: 0o644,
        owner,
        mtime: time,
        ctime: time,
        size,
        nlink: 1,
        device: 1,
        inode: size,
        flags: 0,
        xattrs: vec![],
    }
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

/// Incompressible bytes that depend on `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}

pub fn file(writer: &mut Writer<'_>, name: &str, bytes: &[u8]) -> Result<()> {
    let cutter = writer.cutter();
    for part in bytes.chunks(cutter.block_bytes()) {
        writer.file_piece(Piece::Block(cutter.block(part.to_vec())))?;
    }
    writer.file_end(Name::new(name.as_bytes()).unwrap(), meta(bytes.len() as u64))
}

pub fn backup(locked: &mut LockedRepository, files: &[(&str, Vec<u8>)]) -> Result<Snapshot> {
    let body = |writer: &mut Writer<'_>| {
        writer.directory_begin()?;
        for (name, bytes) in files {
            file(writer, name, bytes)?;
        }
        writer.directory_end(None, meta(0))?;
        Ok(((), 0))
    };
    write::backup(locked, options(), &Watch::new(), body).map(|(_, snapshot)| snapshot)
}
