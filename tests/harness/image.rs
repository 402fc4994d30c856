//! The content of a directory, read into memory by code that shares nothing with the programs. A snapshot is compared
//! with it even after the directory has changed.
//!
//! For small trees only, because all content is kept. Hard links are compared as sets of names, because a restore gives
//! them other inode numbers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use crate::compare;

/// Everything below one directory, by path; the directory itself has the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The entries.
    pub entries: BTreeMap<PathBuf, Seen>,
    attributes: Vec<Vec<u8>>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its kind and content.
    pub kind: SeenKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds of the last change.
    pub mtime: (i64, i64),
    /// The first name of the same file.
    pub first_name: PathBuf,
}

/// The kind of an entry, with its content.
#[derive(Clone, PartialEq, Eq)]
pub enum SeenKind {
    /// A file with its bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(OsString),
    /// Anything else, with its device number.
    Special(u32, u64),
}

impl std::fmt::Debug for SeenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SeenKind::File(bytes) => write!(f, "a file of {} bytes", bytes.len()),
            SeenKind::Directory => write!(f, "a directory"),
            SeenKind::Symlink(target) => write!(f, "a link to {target:?}"),
            SeenKind::Special(kind, device) => write!(f, "special {kind:o} {device}"),
        }
    }
}

impl Image {
    /// Reads `top` and everything below it.
    pub fn of(top: &Path) -> Image {
        let mut image = Image { entries: BTreeMap::new(), attributes: Vec::new() };
        let mut first_names = BTreeMap::new();
        image.add(top, PathBuf::new(), &mut first_names);
        image.attributes = compare::by_getfattr(top);
        image
    }

    fn add(&mut self, top: &Path, path: PathBuf, first_names: &mut BTreeMap<(u64, u64), PathBuf>) {
        let full = top.join(&path);
        let stat = fs::symlink_metadata(&full).unwrap();
        let kind = stat.file_type();
        if kind.is_dir() {
            let mut names: Vec<OsString> =
                fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort_by_key(|name| name.clone().into_vec());
            names.into_iter().for_each(|name| self.add(top, path.join(name), first_names));
        }
        let special = kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket();
        let first_name = first_names.entry((stat.dev(), stat.ino())).or_insert_with(|| path.clone()).clone();
        let kind = if kind.is_dir() {
            SeenKind::Directory
        } else if kind.is_symlink() {
            SeenKind::Symlink(fs::read_link(&full).unwrap().into_os_string())
        } else if special {
            SeenKind::Special(stat.mode() & 0o170_000, stat.rdev())
        } else {
            SeenKind::File(fs::read(&full).unwrap())
        };
        let mtime = (stat.mtime(), stat.mtime_nsec());
        let seen = Seen { kind, mode: stat.mode() & 0o7777, owner: (stat.uid(), stat.gid()), mtime, first_name };
        self.entries.insert(path, seen);
    }

    /// Panics with the first few differences, if there are any.
    #[track_caller]
    pub fn assert_same(&self, other: &Image, where_: &str) {
        let names = self.entries.keys().chain(other.entries.keys().filter(|name| !self.entries.contains_key(*name)));
        let unequal = names.filter(|name| self.entries.get(*name) != other.entries.get(*name));
        let shown: Vec<String> = unequal.take(10).map(|name| self.difference(other, name)).collect();
        assert!(shown.is_empty(), "{where_}:\n{}", shown.join("\n"));
        let attributes = compare::unequal("getfattr", self.attributes.clone(), other.attributes.clone());
        assert!(attributes.is_empty(), "{where_}: {attributes:?}");
    }

    fn difference(&self, other: &Image, name: &Path) -> String {
        format!("{name:?}: expected {:?}, found {:?}", self.entries.get(name), other.entries.get(name))
    }

    /// The names of the files that `other` lacks or holds with different content.
    pub fn files_lost_in(&self, other: &Image) -> Vec<PathBuf> {
        let lost =
            |name: &&PathBuf| self.entries.get(*name).map(|e| &e.kind) != other.entries.get(*name).map(|e| &e.kind);
        self.entries.keys().filter(lost).cloned().collect()
    }
}
