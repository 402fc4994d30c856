//! Finds the directory that a pair of numbers (snapshot, path) stands for, without a table of all directories.
//!
//! The search climbs first: the catalog knows the parent and the name of each path. It stops at the nearest directory
//! that is known already, or at the snapshot's root. From there it descends name by name through the tree nodes. Found
//! directories are kept for a while, so there is rarely anything to climb.

use std::ops::Range;
use std::sync::Arc;

use bygone_core::diagnosis::Diagnosis;
use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Withheld;
use bygone_core::error::Error;
use bygone_core::id::NodeId;
use bygone_core::limits;
use bygone_core::read::Directory;
use bygone_core::read::FileMap;
use bygone_core::read::Item;
use bygone_core::read::View;

use crate::caches::recent::Recent;
use crate::tree::inode::Inode;
use crate::tree::inode::ROOT_PATH;
use crate::tree::listing::Listing;
use crate::tree::operation_error::OperationError;

/// How many directories are remembered by snapshot and path.
const FOLDERS_KEPT: usize = 16 << 10;
/// How many directories are kept with their entries.
const DIRECTORIES_KEPT: usize = 64;

/// A directory inside a snapshot.
#[derive(Debug)]
pub struct Folder {
    /// The snapshot's number.
    pub snapshot: u64,
    /// The path's number.
    pub path: u64,
    /// The parent path's number; 0 for the snapshot's root.
    pub parent: u64,
    /// Its tree node, or why nobody can look into it.
    node: Result<NodeId, Withheld>,
    /// Its metadata.
    pub meta: Meta,
}

impl Folder {
    /// Its tree node.
    pub fn node(&self) -> Result<NodeId, OperationError> {
        self.node.map_err(OperationError::Withheld)
    }

    /// Its inode.
    pub fn inode(&self) -> Inode {
        Inode::Directory { snapshot: self.snapshot, path: self.path }
    }
}

/// A place in a directory.
pub struct Around {
    node: NodeId,
    directory: Arc<Directory>,
    place: u64,
}

impl Around {
    /// The root node of the directory.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The place of the entry that was asked for.
    pub fn place(&self) -> u64 {
        self.place
    }

    /// Number of entries of the directory.
    pub fn entries(&self) -> u64 {
        self.directory.len()
    }

    /// The version of each regular file of 1 to `bytes_max` bytes at these places, and where its bytes lie.
    pub fn small_files(
        &self,
        view: &View,
        places: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<(u64, FileMap)>, OperationError> {
        let count = usize::try_from(places.end.saturating_sub(places.start)).unwrap_or(usize::MAX);
        let mut files = Vec::new();
        for item in self.directory.from(view, places.start, count)? {
            if let Kind::File(content) = &item.entry.kind
                && (1..=bytes_max).contains(&item.entry.meta.size)
            {
                files.push((item.version, view.file(content)?));
            }
        }
        Ok(files)
    }
}

/// The directories that were found recently.
pub struct Folders {
    by_place: Recent<(u64, u64), Arc<Folder>>,
    by_node: Recent<NodeId, Arc<Directory>>,
}

impl Default for Folders {
    fn default() -> Folders {
        Folders { by_place: Recent::new(FOLDERS_KEPT), by_node: Recent::new(DIRECTORIES_KEPT) }
    }
}

impl Folders {
    /// The entries of the directory `node`.
    pub fn directory(&self, view: &View, node: NodeId) -> Result<Arc<Directory>, OperationError> {
        if let Some(directory) = self.by_node.get(node) {
            return Ok(directory);
        }
        let directory = Arc::new(view.directory(node)?);
        self.by_node.insert(node, Arc::clone(&directory));
        Ok(directory)
    }

    /// The place `place` of the directory with this root node.
    pub fn around(&self, view: &View, node: NodeId, place: u64) -> Result<Around, OperationError> {
        Ok(Around { node, directory: self.directory(view, node)?, place })
    }

    /// The directory at `path` in `snapshot`.
    pub fn find(
        &self,
        view: &View,
        listing: &Listing,
        snapshot: u64,
        path: u64,
    ) -> Result<Arc<Folder>, OperationError> {
        // A folder kept from before must not bring a removed snapshot back.
        let shown = listing.numbered(snapshot).ok_or(OperationError::Stale)?;
        let mut names = Vec::new();
        let mut at = path;
        let mut folder = loop {
            if let Some(folder) = self.by_place.get((snapshot, at)) {
                break folder;
            }
            if at == ROOT_PATH {
                let root = &shown.snapshot;
                let (node, meta) = (Ok(root.root), root.root_meta.clone());
                break self.keep(Folder { snapshot, path: ROOT_PATH, parent: 0, node, meta });
            }
            let (parent, name) = view.path(at)?.ok_or(OperationError::Stale)?;
            if names.len() > limits::PATH_BYTES_MAX {
                let detail = "its parents have no end: run `bygone recover`";
                return Err(Error::disagree(Diagnosis::LocalCorrupt, format!("path {path}"), detail).into());
            }
            names.push((at, name));
            at = parent;
        };
        for (at, name) in names.into_iter().rev() {
            let item =
                self.directory(view, folder.node()?)?.find(view, name.as_bytes())?.ok_or(OperationError::Stale)?;
            folder = self.remember(&folder, at, &item.entry).ok_or(OperationError::Stale)?;
        }
        Ok(folder)
    }

    /// The directory that `item` is inside `parent`, which is remembered; `None` if `item` is something else.
    pub fn child(&self, view: &View, parent: &Folder, item: &Item) -> Result<Option<Arc<Folder>>, OperationError> {
        if item.entry.file_type() != Some(FileType::Directory) {
            return Ok(None);
        }
        let path = view.path_id(parent.path, &item.entry.name)?.ok_or_else(|| {
            let detail = "the catalog has no number for this directory: run `bygone recover`";
            Error::disagree(Diagnosis::LocalCorrupt, format!("{:?}", item.entry.name), detail)
        })?;
        if let Some(folder) = self.by_place.get((parent.snapshot, path)) {
            return Ok(Some(folder));
        }
        Ok(self.remember(parent, path, &item.entry))
    }

    /// The names from the root of the snapshot to `path`, for messages. Unknown ones are left out.
    pub fn names(view: &View, path: u64) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = path;
        while let Ok(Some((parent, name))) = view.path(at) {
            names.push(name);
            at = parent;
            if at == ROOT_PATH || names.len() > limits::PATH_BYTES_MAX {
                break;
            }
        }
        let mut text = Vec::new();
        for name in names.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(name.as_bytes());
        }
        text
    }

    fn remember(&self, parent: &Folder, path: u64, entry: &Entry) -> Option<Arc<Folder>> {
        let node = match (entry.directory(), entry.withheld()) {
            (Some(node), _) => Ok(node),
            (None, Some(withheld)) if entry.file_type() == Some(FileType::Directory) => Err(withheld),
            (None, _) => return None,
        };
        let (snapshot, meta) = (parent.snapshot, entry.meta.clone());
        Some(self.keep(Folder { snapshot, path, parent: parent.path, node, meta }))
    }

    fn keep(&self, folder: Folder) -> Arc<Folder> {
        let folder = Arc::new(folder);
        self.by_place.insert((folder.snapshot, folder.path), Arc::clone(&folder));
        folder
    }
}
