//! Walking everything that snapshots refer to: every node must be known and stored, every block must be located in a
//! volume that is there. A node is looked at once, however many snapshots share it; if there is trouble below it, every
//! snapshot that contains it is named.

use std::collections::HashSet;

use crate::catalog::Catalog;
use crate::catalog::VolumeState;
use crate::check::Lost;
use crate::entry::Content;
use crate::entry::Extent;
use crate::entry::Kind;
use crate::error::Error;
use crate::error::Result;
use crate::error::counted;
use crate::id::NodeId;
use crate::id::SnapshotId;
use crate::snapshot::Snapshot;
use crate::tree::ListNode;
use crate::tree::Node;
use crate::watch::Watch;

/// A file or directory that a snapshot has lost, whole or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// Its absolute path there, raw bytes.
    pub path: Vec<u8>,
    /// Lost bytes of it, as far as known: 0 for a directory whose entries are unknown.
    pub bytes: u64,
    /// What is lost of it.
    pub reason: String,
}

/// Walks all snapshots and reports everything that they have lost: what is in `lost` and, unless `only_these`, what no
/// existing volume holds.
pub(super) fn walk(
    catalog: &Catalog,
    snapshots: &[Snapshot],
    lost: &Lost,
    only_these: bool,
    watch: &Watch,
    tell: &mut dyn FnMut(Affected) -> Result<()>,
) -> Result<()> {
    let mut walker = Walker { catalog, lost, only_these, clean: HashSet::new() };
    for snapshot in snapshots {
        watch.check()?;
        if snapshot.is_readable() {
            walker.snapshot(snapshot, watch, tell)?;
        }
    }
    Ok(())
}

/// Reports a loss.
type Tell<'a> = dyn FnMut(Affected) -> Result<()> + 'a;

struct Walker<'a> {
    catalog: &'a Catalog,
    lost: &'a Lost,
    only_these: bool,
    /// Directories below which nothing is lost: they are not walked again.
    clean: HashSet<NodeId>,
}

/// A directory on the way down.
struct Level {
    node: NodeId,
    path: Vec<u8>,
    directories: Vec<(Vec<u8>, NodeId)>,
    is_clean: bool,
}

impl Walker<'_> {
    fn snapshot(&mut self, snapshot: &Snapshot, watch: &Watch, tell: &mut Tell<'_>) -> Result<()> {
        let mut levels = vec![self.enter(snapshot.id, snapshot.root, Vec::new(), tell)?];
        while let Some(level) = levels.last_mut() {
            match level.directories.pop() {
                Some((_, node)) if self.clean.contains(&node) => {}
                Some((name, node)) => {
                    watch.check()?;
                    let path = [level.path.as_slice(), b"/", &name].concat();
                    levels.push(self.enter(snapshot.id, node, path, tell)?);
                }
                None => {
                    let Level { node, is_clean, .. } = match levels.pop() {
                        Some(done) => done,
                        None => break,
                    };
                    if is_clean {
                        self.clean.insert(node);
                    } else if let Some(above) = levels.last_mut() {
                        above.is_clean = false;
                    }
                }
            }
        }
        Ok(())
    }

    /// Examines the entries of a directory; its subdirectories are left for later.
    fn enter(&self, snapshot: SnapshotId, node: NodeId, path: Vec<u8>, tell: &mut Tell<'_>) -> Result<Level> {
        let mut level = Level { node, path, directories: Vec::new(), is_clean: true };
        let mut nodes = vec![node];
        let mut troubles = Vec::new();
        while let Some(id) = nodes.pop() {
            match self.node(id)? {
                Ok(Node::Branch(branch)) => nodes.extend(branch.children.iter().map(|child| child.id)),
                Ok(Node::Leaf(entries)) => {
                    for entry in entries {
                        match &entry.kind {
                            Kind::Directory(child) => {
                                level.directories.push((entry.name.as_bytes().to_vec(), *child));
                            }
                            Kind::File(content) => {
                                if let Some((bytes, reason)) = self.content(content, entry.meta.size)? {
                                    let path = [level.path.as_slice(), b"/", entry.name.as_bytes()].concat();
                                    troubles.push((path, bytes, reason));
                                }
                            }
                            // These refer to nothing, the last one as far as this program knows.
                            Kind::Symlink(_)
                            | Kind::Fifo
                            | Kind::Socket
                            | Kind::CharDevice { .. }
                            | Kind::BlockDevice { .. }
                            | Kind::Unreadable { .. }
                            | Kind::Newer { .. } => {}
                        }
                    }
                }
                Ok(Node::List(_)) => {
                    troubles.push((level.path.clone(), 0, format!("tree node {id} is not a directory")))
                }
                Err(reason) => troubles.push((level.path.clone(), 0, reason)),
            }
        }
        level.is_clean = troubles.is_empty();
        for (path, bytes, reason) in troubles {
            let path = if path.is_empty() { b"/".to_vec() } else { path };
            tell(Affected { snapshot, path, bytes, reason })?;
        }
        Ok(level)
    }

    /// The missing bytes of a file of `size` bytes, and why, if any are missing.
    fn content(&self, content: &Content, size: u64) -> Result<Option<(u64, String)>> {
        let (mut missing, mut lists) = (0u64, Vec::new());
        match content {
            Content::Inline(_) => {}
            Content::Extents(extents) => missing += self.missing_bytes(extents)?,
            Content::List { root, .. } => lists.push(*root),
        }
        while let Some(id) = lists.pop() {
            match self.node(id)? {
                Ok(Node::List(ListNode::Extents(extents))) => missing += self.missing_bytes(&extents)?,
                Ok(Node::List(ListNode::Branch { children, .. })) => lists.extend(children.iter().map(|c| c.id)),
                Ok(_) => return Ok(Some((size, format!("tree node {id} is not a block list")))),
                // Without the block list, nothing of the file can be found.
                Err(reason) => return Ok(Some((size, reason))),
            }
        }
        Ok((missing > 0).then(|| (missing, format!("its lost blocks contain {}", counted(missing, "byte", "bytes")))))
    }

    fn missing_bytes(&self, extents: &[Extent]) -> Result<u64> {
        let mut missing = 0;
        for extent in extents {
            if let Extent::Block { id, length } = extent {
                let is_there = self.is_there(&id.0, Some(*length))?;
                missing += if is_there { 0 } else { u64::from(*length) };
            }
        }
        Ok(missing)
    }

    /// A node, or why it is lost. A node that is in the catalog but not in the store counts as lost, because other
    /// machines cannot have it.
    fn node(&self, id: NodeId) -> Result<std::result::Result<Node, String>> {
        let row = match self.catalog.node(id) {
            Err(Error::Disagree { detail, .. }) => return Ok(Err(detail)),
            other => other?,
        };
        let Some(row) = row else { return Ok(Err(format!("tree node {id} is missing"))) };
        if !self.is_there(&id.0, None)? {
            return Ok(Err(format!("tree node {id} is lost from the store (this machine still knows it)")));
        }
        Ok(Node::decode(&row.body).map_err(|e| format!("tree node {id} does not decode: {e}")))
    }

    fn is_there(&self, id: &[u8; 32], length: Option<u32>) -> Result<bool> {
        if self.lost.0.contains(id) {
            return Ok(false);
        }
        if self.only_these {
            return Ok(true);
        }
        match self.catalog.locate(id) {
            // The lost blocks of a lost volume are in `lost`; the rest of it can be read.
            Ok(Some((at, VolumeState::Stored | VolumeState::Lost))) => {
                Ok(length.is_none_or(|length| length == at.length))
            }
            Ok(_) | Err(Error::Disagree { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
