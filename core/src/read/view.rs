//! One thread's view of the metadata: a catalog connection with a held read transaction, and the latest decoded nodes.
//!
//! A view shows one consistent state until [`View::renew`]. Nothing here touches the store.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::catalog::SnapshotRow;
use crate::entry::Content;
use crate::entry::Entry;
use crate::entry::Name;
use crate::error::Error;
use crate::error::Result;
use crate::hash::IdKeys;
use crate::id::NodeId;
use crate::read::map::FileMap;
use crate::tree::Branch;
use crate::tree::Node;

/// Most entries of decoded nodes that a view keeps.
const ENTRIES_KEPT_MAX: usize = 16 << 10;

/// A node of a directory.
pub(super) enum Decoded {
    Leaf(Vec<(Arc<Entry>, u64)>),
    Branch(Branch),
}

impl Decoded {
    /// The entries of a leaf, each with its file version (0 for a directory).
    pub(super) fn rows(&self) -> &[(Arc<Entry>, u64)] {
        match self {
            Decoded::Leaf(rows) => rows,
            Decoded::Branch(_) => &[],
        }
    }

    fn weight(&self) -> usize {
        match self {
            Decoded::Leaf(items) => items.len() + 1,
            Decoded::Branch(branch) => branch.children.len() + 1,
        }
    }
}

#[derive(Default)]
struct Kept {
    nodes: HashMap<NodeId, Arc<Decoded>>,
    order: VecDeque<NodeId>,
    weight: usize,
}

/// Sums for statfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of all stored volumes.
    pub bytes_stored: u64,
    /// File versions.
    pub versions: u64,
}

/// The metadata of a repository, for one thread.
pub struct View {
    catalog: Catalog,
    kept: RefCell<Kept>,
}

impl View {
    pub(super) fn open(path: &Path, ids: &IdKeys) -> Result<View> {
        let catalog = Catalog::open(path, ids)?;
        catalog.renew()?;
        Ok(View { catalog, kept: RefCell::default() })
    }

    /// Moves on to the newest state.
    pub fn renew(&mut self) -> Result<()> {
        self.catalog.renew()
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRow>> {
        self.catalog.snapshots()
    }

    /// Where the bytes of a file are.
    pub fn file(&self, content: &Content) -> Result<FileMap> {
        FileMap::new(&self.catalog, content)
    }

    /// The entry of a file version, under one of its names. The whole leaf is decoded and kept, because a read of one
    /// file of a directory is usually followed by others.
    pub fn version(&self, version: u64) -> Result<Option<Arc<Entry>>> {
        let Some((id, ordinal)) = self.catalog.version_place(version)? else { return Ok(None) };
        Ok(match &*self.node(id)? {
            Decoded::Leaf(items) => items.get(ordinal as usize).map(|(entry, _)| Arc::clone(entry)),
            Decoded::Branch(_) => None,
        })
    }

    /// A leaf that a file version stands in, and its place there.
    pub fn version_place(&self, version: u64) -> Result<Option<(NodeId, u64)>> {
        Ok(self.catalog.version_place(version)?.map(|(leaf, place)| (leaf, place.into())))
    }

    /// The number of a directory's path, from the number of its parent's; the root is 1.
    pub fn path_id(&self, parent: u64, name: &Name) -> Result<Option<u64>> {
        self.catalog.path_id(parent, name.as_bytes())
    }

    /// Parent and name of a numbered directory path; `None` for the root and for unknown numbers.
    pub fn path(&self, path_id: u64) -> Result<Option<(u64, Name)>> {
        self.catalog.path_of(path_id)
    }

    /// Names of all extended attributes that occur, sorted.
    pub fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        self.catalog.xattr_names()
    }

    /// Sums for statfs.
    pub fn totals(&self) -> Result<Totals> {
        Ok(Totals { bytes_stored: self.catalog.stored_bytes()?, versions: self.catalog.versions_count()? })
    }

    /// A number that changes if another connection has committed before this view's last renewal.
    pub fn data_version(&self) -> Result<i64> {
        self.catalog.data_version()
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn node(&self, id: NodeId) -> Result<Arc<Decoded>> {
        if let Some(node) = self.kept.borrow().nodes.get(&id) {
            return Ok(Arc::clone(node));
        }
        let row = self
            .catalog
            .node(id)?
            .ok_or_else(|| Error::local_corrupt(format!("directory {id}"), "it is not in the catalog"))?;
        let decoded = Arc::new(match Node::decode(&row.body) {
            Ok(Node::Leaf(entries)) => {
                let versions = row.versions.into_iter().chain(std::iter::repeat(0));
                Decoded::Leaf(entries.into_iter().map(Arc::new).zip(versions).collect())
            }
            Ok(Node::Branch(branch)) => Decoded::Branch(branch),
            Ok(Node::List(_)) => return Err(Error::local_corrupt(format!("directory {id}"), "it is a block list")),
            Err(e) => return Err(Error::local_corrupt(format!("directory {id}"), e)),
        });
        self.keep(id, &decoded);
        Ok(decoded)
    }

    fn keep(&self, id: NodeId, node: &Arc<Decoded>) {
        let mut kept = self.kept.borrow_mut();
        kept.weight += node.weight();
        kept.nodes.insert(id, Arc::clone(node));
        kept.order.push_back(id);
        while kept.weight > ENTRIES_KEPT_MAX && kept.order.len() > 1 {
            let oldest = kept.order.pop_front().and_then(|oldest| kept.nodes.remove(&oldest));
            kept.weight -= oldest.map_or(0, |node| node.weight());
        }
    }
}
