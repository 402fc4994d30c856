//! Walking what snapshots refer to: every node must be known and stored, every block must be located in a volume that is
//! there. A node is looked at once, however many snapshots share it; where trouble lies below it, every snapshot that
//! has it is named.

use std::collections::HashSet;

use super::AFFECTED_NAMED_MAX;
use super::Lost;
use super::Report;
use crate::catalog::Catalog;
use crate::catalog::VolumeState;
use crate::entry::Content;
use crate::entry::Extent;
use crate::entry::Kind;
use crate::error::Error;
use crate::error::Result;
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
    /// What is lost of it.
    pub reason: String,
}

/// Walks all snapshots.
pub(super) fn walk(
    catalog: &Catalog,
    snapshots: &[Snapshot],
    lost: &Lost,
    watch: &Watch,
    report: &mut Report,
) -> Result<()> {
    let mut walker = Walker { catalog, lost, clean: HashSet::new() };
    for snapshot in snapshots {
        watch.check()?;
        walker.snapshot(snapshot, watch, report)?;
    }
    Ok(())
}

struct Walker<'a> {
    catalog: &'a Catalog,
    lost: &'a Lost,
    /// Directories below which everything is there: they are not walked again.
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
    fn snapshot(&mut self, snapshot: &Snapshot, watch: &Watch, report: &mut Report) -> Result<()> {
        let mut levels = vec![self.enter(snapshot.id, snapshot.root, Vec::new(), report)?];
        while let Some(level) = levels.last_mut() {
            match level.directories.pop() {
                Some((_, node)) if self.clean.contains(&node) => {}
                Some((name, node)) => {
                    watch.check()?;
                    let path = [level.path.as_slice(), b"/", &name].concat();
                    levels.push(self.enter(snapshot.id, node, path, report)?);
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

    /// Looks at the entries of a directory; its subdirectories are left for later.
    fn enter(&self, snapshot: SnapshotId, node: NodeId, path: Vec<u8>, report: &mut Report) -> Result<Level> {
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
                                if let Some(reason) = self.content(content)? {
                                    let path = [level.path.as_slice(), b"/", entry.name.as_bytes()].concat();
                                    troubles.push((path, reason));
                                }
                            }
                            _ => {}
                        }
                    }
                }
                Ok(Node::List(_)) => troubles.push((level.path.clone(), format!("node {id} is not a directory"))),
                Err(reason) => troubles.push((level.path.clone(), reason)),
            }
        }
        level.is_clean = troubles.is_empty();
        for (path, reason) in troubles {
            report.affected_count += 1;
            if report.affected.len() < AFFECTED_NAMED_MAX {
                let path = if path.is_empty() { b"/".to_vec() } else { path };
                report.affected.push(Affected { snapshot, path, reason });
            }
        }
        Ok(level)
    }

    /// What is missing of a file, if anything.
    fn content(&self, content: &Content) -> Result<Option<String>> {
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
                Ok(_) => return Ok(Some(format!("node {id} is not a block list"))),
                Err(reason) => return Ok(Some(reason)),
            }
        }
        Ok((missing > 0).then(|| format!("{missing} bytes of it are in blocks that are lost")))
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

    /// A node, or why it cannot be had. A node that is in the catalog and not in the store is lost to everybody else,
    /// so it counts as lost.
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
        match self.catalog.locate(id) {
            // What is lost of a lost volume stands in the list of lost blocks: the rest of it can be read.
            Ok(Some((at, VolumeState::Stored | VolumeState::Lost))) => {
                Ok(length.is_none_or(|length| length == at.length))
            }
            Ok(_) | Err(Error::Disagree { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
