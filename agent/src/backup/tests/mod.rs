//! Tests of the whole backup side, with a recorder in the place of the writer.

mod failures;
mod kinds;
mod order;
mod reading;
mod repository;
mod rules;
mod unchanged;
mod withheld;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use bygone_core::attributes::Attributes;
use bygone_core::crypto::KdfCost;
use bygone_core::entry::Content;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::id::NodeId;
use bygone_core::limits;
use bygone_core::repo;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::Cutter;
use bygone_core::write::Piece;

use crate::backup::Bounds;
use crate::backup::Options;
use crate::backup::Parent;
use crate::backup::Report;
use crate::backup::Roots;
use crate::backup::Sink;
use crate::backup::before::Past;
use crate::backup::plan::End;
use crate::backup::run;

/// Small blocks, so that small files have several.
pub const BLOCK_BYTES: usize = limits::BLOCK_BYTES_MIN as usize;

/// The calls of a writer, in order.
#[derive(Debug)]
pub enum Call {
    Begin,
    End(Option<Name>, Meta, Attributes),
    Same(Arc<Entry>),
    Add(Entry),
    File(Name, Meta, Vec<Piece>),
}

/// Replaces the writer, and checks its requirements.
#[derive(Debug, Default)]
pub struct Recorder {
    pub calls: Vec<Call>,
    /// Fails from this call on.
    pub calls_max: Option<usize>,
    /// Names of files that are reported to have lost a block.
    pub lost: Vec<&'static [u8]>,
    pieces: Vec<Piece>,
    last: Vec<Option<Name>>,
}

impl Recorder {
    pub fn directory_begin(&mut self) -> Result<()> {
        self.last.push(None);
        self.call(Call::Begin)
    }

    pub fn directory_end(&mut self, end: End) -> Result<()> {
        let End { name, meta, attributes, known: _ } = end;
        self.last.pop().expect("a directory ends that has begun");
        assert_eq!(name.is_none(), self.last.is_empty(), "the root alone has no name");
        name.iter().for_each(|name| self.next(name));
        self.call(Call::End(name, meta, attributes))
    }

    pub fn unchanged(&mut self, entry: &Arc<Entry>) -> Result<bool> {
        if self.lost.contains(&entry.name.as_bytes()) {
            return Ok(false);
        }
        self.next(&entry.name);
        self.call(Call::Same(entry.clone())).map(|()| true)
    }

    pub fn add(&mut self, entry: Entry) -> Result<()> {
        assert!(!entry.is_file() && entry.directory().is_none());
        self.next(&entry.name);
        self.call(Call::Add(entry))
    }

    pub fn file_piece(&mut self, piece: Piece) -> Result<()> {
        self.pieces.push(piece);
        Ok(())
    }

    pub fn file_abandon(&mut self) {
        self.pieces.clear();
    }

    pub fn file_end(&mut self, name: Name, meta: Meta) -> Result<()> {
        let pieces = std::mem::take(&mut self.pieces);
        let bytes: u64 = pieces.iter().map(length).sum();
        assert_eq!(bytes, meta.size, "the pieces of {name:?} make up its size");
        self.next(&name);
        self.call(Call::File(name, meta, pieces))
    }

    fn next(&mut self, name: &Name) {
        assert!(self.pieces.is_empty(), "pieces left over before {name:?}");
        let last = self.last.last_mut().expect("an entry is in a directory");
        assert!(last.as_ref().is_none_or(|last| last < name), "{name:?} comes after {last:?}");
        *last = Some(name.clone());
    }

    fn call(&mut self, call: Call) -> Result<()> {
        if self.calls_max.is_some_and(|max| self.calls.len() >= max) {
            return Err(Error::Invalid { what: "enough".into() });
        }
        self.calls.push(call);
        Ok(())
    }

    /// All entries with their paths, in the order in which they ended.
    pub fn seen(&self) -> Vec<(Vec<u8>, &Call)> {
        let mut path: Vec<&[u8]> = Vec::new();
        let mut seen = Vec::new();
        for call in self.calls.iter().rev() {
            let name = match call {
                Call::Begin => {
                    path.pop();
                    continue;
                }
                Call::End(name, ..) => name.as_ref().map_or(&b""[..], Name::as_bytes),
                Call::Same(entry) => entry.name.as_bytes(),
                Call::Add(entry) => entry.name.as_bytes(),
                Call::File(name, ..) => name.as_bytes(),
            };
            path.push(name);
            seen.push((path.join(&b'/'), call));
            if !matches!(call, Call::End(..)) {
                path.pop();
            }
        }
        seen.reverse();
        seen
    }

    /// The paths below `top`, printable; directories end with a slash.
    pub fn below(&self, top: &Path) -> Vec<String> {
        let top = top.to_str().unwrap();
        let shown = |(path, call): (Vec<u8>, &Call)| {
            let slash = if matches!(call, Call::End(..)) { "/" } else { "" };
            Some(printable(path.strip_prefix(top.as_bytes())?.strip_prefix(b"/")?) + slash)
        };
        self.seen().into_iter().filter_map(shown).collect()
    }

    /// The call for the path `name` below `top`.
    pub fn find(&self, top: &Path, name: &str) -> &Call {
        let path = top.join(name);
        let mut found = self.seen().into_iter().filter(|(seen, _)| seen == path.as_os_str().as_encoded_bytes());
        found.next().unwrap_or_else(|| panic!("{name} is in the snapshot")).1
    }

    pub fn meta(&self, top: &Path, name: &str) -> &Meta {
        match self.find(top, name) {
            Call::End(_, meta, _) | Call::File(_, meta, _) => meta,
            Call::Add(entry) => &entry.meta,
            Call::Same(entry) => &entry.meta,
            Call::Begin => unreachable!("a beginning has no path"),
        }
    }

    /// The content of a file that was read.
    pub fn content(&self, top: &Path, name: &str) -> Vec<u8> {
        match self.find(top, name) {
            Call::File(_, _, pieces) => content(pieces),
            call => panic!("{name} was read, not {call:?}"),
        }
    }

    /// Names that were taken from the parent.
    pub fn same(&self) -> Vec<String> {
        let name = |call: &Call| match call {
            Call::Same(entry) => Some(printable(entry.name.as_bytes())),
            _ => None,
        };
        self.calls.iter().filter_map(name).collect()
    }

    /// The recorded tree, as the parent of the next run.
    pub fn parent(&self) -> Parent {
        let (mut nodes, mut open, mut root) = (HashMap::new(), Vec::new(), None);
        for call in &self.calls {
            let entry = match call {
                Call::Begin => {
                    open.push(Vec::new());
                    continue;
                }
                Call::End(name, meta, attributes) => {
                    let mut id = [0; 32];
                    id[..8].copy_from_slice(&(nodes.len() as u64).to_le_bytes());
                    nodes.insert(NodeId(id), open.pop().unwrap());
                    let own_name = name.clone().unwrap_or_else(|| Name::new(b"root").unwrap());
                    let entry = Entry::new(own_name, meta.clone(), Kind::Directory(NodeId(id)));
                    let entry = Arc::new(Entry { attributes: attributes.clone(), ..entry });
                    if name.is_none() {
                        root = Some(entry);
                        continue;
                    }
                    entry
                }
                Call::Same(entry) => entry.clone(),
                Call::Add(entry) => Arc::new(entry.clone()),
                Call::File(name, meta, _) => {
                    let kind = Kind::File(Content::Inline(b"from the parent".to_vec()));
                    Arc::new(Entry::new(name.clone(), meta.clone(), kind))
                }
            };
            open.last_mut().unwrap().push(entry);
        }
        // The test has just made the files, so only a late beginning makes their times credible.
        let began = Time { secs: i64::MAX, nanos: 0 };
        Parent { past: Past::Memory(nodes), root, began }
    }
}

pub fn length(piece: &Piece) -> u64 {
    match piece {
        Piece::Block(block) => block.bytes().len() as u64,
        Piece::Hole(length) => *length,
    }
}

pub fn content(pieces: &[Piece]) -> Vec<u8> {
    let bytes = |piece: &Piece| match piece {
        Piece::Block(block) => block.bytes().to_vec(),
        Piece::Hole(length) => vec![0; *length as usize],
    };
    pieces.iter().flat_map(bytes).collect()
}

/// A cutter only comes from a writer, so this creates a repository for it once.
pub fn cutter() -> Cutter {
    static CUTTER: OnceLock<Cutter> = OnceLock::new();
    CUTTER.get_or_init(made_cutter).clone()
}

fn made_cutter() -> Cutter {
    let folder = tempfile::tempdir().unwrap();
    let mut cutter = None;
    let failed = write::backup(&mut repository(folder.path()), backup_options(), &Watch::new(), |writer| {
        cutter = Some(writer.cutter());
        Err::<((), u64), _>(Error::Cancelled)
    });
    assert!(failed.is_err());
    cutter.unwrap()
}

/// An empty repository in memory, with its catalog in `folder`.
pub fn repository(folder: &Path) -> repo::LockedRepository {
    let place = repo::Place { store: Arc::new(MemoryStore::new()), catalog_base: folder.into() };
    let options = repo::InitOptions {
        block_bytes: BLOCK_BYTES as u32,
        volume_bytes: limits::VOLUME_BYTES_MIN,
        compression: "none".parse().unwrap(),
        kdf: KdfCost { memory_kib: 19_456, passes: 1, lanes: 1 },
        label: String::new(),
        time: Time::default(),
    };
    repo::Repository::init(&place, &repo::Secret::new(b"secret".to_vec()), &options).unwrap().lock().unwrap()
}

pub fn backup_options() -> write::BackupOptions {
    write::BackupOptions {
        // The tests have just made their files, so only a late beginning makes their times credible.
        time: Time { secs: i64::MAX, nanos: 0 },
        host: String::new(),
        user: String::new(),
        paths: Vec::new(),
        tags: Vec::new(),
        parent: None,
        program: String::new(),
    }
}

/// A temporary directory by its real path, and how to back it up.
pub struct Fixture {
    _folder: tempfile::TempDir,
    pub top: PathBuf,
    pub options: Options,
    pub bounds: Bounds,
    pub recorder: Recorder,
}

impl Fixture {
    pub fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        let bounds = Bounds {
            readers: 2,
            scanners: 2,
            entries_ahead: 50,
            directories_ahead: 8,
            directories_held: 4,
            directories_a_job: 4,
        };
        Fixture { _folder: folder, top, options: Options::default(), bounds, recorder: Recorder::default() }
    }

    /// With files of these names and contents; a name that ends with a slash is a directory.
    pub fn with(files: &[(&str, &str)]) -> Fixture {
        let fixture = Fixture::new();
        for (name, content) in files {
            let path = fixture.top.join(name);
            fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
            if !name.ends_with('/') {
                fs::write(path, content).unwrap();
            }
        }
        fixture
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    /// Backs up the whole directory.
    pub fn run(&mut self) -> Report {
        self.try_run(Parent::none(), &[""]).unwrap()
    }

    /// Backs it up against the record of the last run.
    pub fn run_again(&mut self) -> Report {
        let parent = self.recorder.parent();
        self.try_run(parent, &[""]).unwrap()
    }

    pub fn try_run(&mut self, parent: Parent, paths: &[&str]) -> Result<Report> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| self.top.join(path)).collect();
        let roots = Roots::new(&self.top, &paths)?;
        self.recorder = Recorder { calls: Vec::new(), last: Vec::new(), ..std::mem::take(&mut self.recorder) };
        let sink = Sink::Record(&mut self.recorder);
        run(sink, Some(cutter()), Some(parent), &roots, &self.options, &Watch::new(), &self.bounds)
    }

    pub fn below(&self) -> Vec<String> {
        self.recorder.below(&self.top)
    }
}
