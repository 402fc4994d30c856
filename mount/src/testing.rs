//! Values that several unit tests need.

use std::sync::Arc;

use bygone_core::attributes::Attributes;
use bygone_core::catalog::SnapshotRow;
use bygone_core::compress::Compression;
use bygone_core::crypto::KdfCost;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::entry::Xattr;
use bygone_core::id::NodeId;
use bygone_core::id::SnapshotId;
pub use bygone_core::noise::noise;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::repo::InitOptions;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::snapshot::Snapshot;
use bygone_core::snapshot::Totals;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Piece;
use bygone_core::write::Writer;

use crate::tree::Tree;
use crate::tree::moments::Moments;
use crate::tree::shape::Shape;

/// Metadata with nothing special in it.
pub fn meta() -> Meta {
    Meta { mode: 0o644, ..Meta::unknown() }
}

/// An entry.
pub fn entry(name: &[u8], kind: Kind) -> Entry {
    Entry::new(Name::new(name).unwrap(), meta(), kind)
}

/// A snapshot whose id is its number in every byte.
pub fn snapshot_row(number: u64, secs: i64, host: &str, tags: &[&str]) -> SnapshotRow {
    let snapshot = Snapshot {
        id: SnapshotId([number as u8; 16]),
        time: Time { secs, nanos: 0 },
        host: host.to_owned(),
        user: "user".to_owned(),
        paths: Vec::new(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        parent: None,
        program: "test".to_owned(),
        root_meta: meta(),
        root: NodeId([0; 32]),
        root_attributes: Attributes::default(),
        totals: Totals::default(),
        attributes: Attributes::default(),
    };
    SnapshotRow { number, snapshot }
}

/// Decoded bytes that a sample's reader keeps.
pub const CACHE_BYTES_MAX: usize = 4 << 20;

/// What a test puts into a snapshot.
pub enum Node {
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link.
    Link(&'static str),
    /// A directory; its names in byte order.
    Folder(Vec<(String, Node)>),
}

/// A repository in memory with its catalog in a temporary directory.
pub struct Sample {
    _dir: tempfile::TempDir,
    /// The store that holds its objects.
    pub store: Arc<FaultyStore>,
    place: Place,
    /// What is shown of it.
    pub shape: Shape,
}

impl Sample {
    /// A repository without snapshots.
    pub fn new() -> Sample {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let place = Place { store: store.clone(), catalog_base: dir.path().to_path_buf() };
        let options = InitOptions {
            block_bytes: 1 << 16,
            volume_bytes: 1 << 20,
            compression: Compression::Lz4,
            kdf: KdfCost::for_tests(),
            label: "test".to_owned(),
            time: Time::default(),
        };
        Repository::init(&place, &secret(), &options).unwrap();
        Sample { _dir: dir, store, place, shape: Shape::default() }
    }

    /// Makes a snapshot. Files called `tagged` get an extended attribute.
    pub fn backup(&self, secs: i64, tags: &[&str], root: Vec<(String, Node)>) {
        let options = BackupOptions {
            time: Time { secs, nanos: 0 },
            host: "host".to_owned(),
            user: "user".to_owned(),
            paths: Vec::new(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            parent: None,
            program: "test".to_owned(),
        };
        let mut locked = self.repository().lock().unwrap();
        let body = |writer: &mut Writer<'_>| {
            put_folder(writer, None, root);
            Ok(((), 0))
        };
        write::backup(&mut locked, options, &Watch::new(), body).unwrap();
    }

    /// Opens it.
    pub fn repository(&self) -> Repository {
        Repository::open(&self.place, &secret()).unwrap()
    }

    /// A reader of it.
    pub fn reader(&self) -> Arc<Reader> {
        Arc::new(Reader::new(&self.repository(), CACHE_BYTES_MAX, Order::Any).unwrap())
    }

    /// The moments of its catalog.
    pub fn moments(&self, reader: Arc<Reader>) -> Moments {
        Moments::new(reader, self.repository().catalog_path(), self.shape.clone(), 1, Time { secs: 7, nanos: 0 })
            .unwrap()
    }

    /// The tree that a fresh mount of it shows.
    pub fn tree(&self) -> Tree {
        Tree::new(self.moments(self.reader()), (0, 0))
    }
}

fn secret() -> Secret {
    Secret::new(b"test".to_vec())
}

fn put_folder(writer: &mut Writer<'_>, name: Option<Name>, nodes: Vec<(String, Node)>) {
    writer.directory_begin().unwrap();
    for (name, node) in nodes {
        let mut meta = meta();
        if name == "tagged" {
            meta.xattrs.push(Xattr { name: b"user.colour".to_vec(), value: b"red".to_vec() });
        }
        let name = Name::new(name.as_bytes()).unwrap();
        match node {
            Node::Folder(nodes) => put_folder(writer, Some(name), nodes),
            Node::Link(target) => {
                meta.size = target.len() as u64;
                writer.add(Entry::new(name, meta, Kind::Symlink(target.as_bytes().to_vec()))).unwrap();
            }
            Node::File(bytes) => {
                let cutter = writer.cutter();
                for block in bytes.chunks(cutter.block_bytes()) {
                    writer.file_piece(Piece::Block(cutter.block(block.to_vec()))).unwrap();
                }
                meta.size = bytes.len() as u64;
                writer.file_end(name, meta).unwrap();
            }
        }
    }
    writer.directory_end(name, meta()).unwrap();
}
