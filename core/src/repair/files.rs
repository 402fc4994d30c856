//! Looking for lost blocks in the files of this machine: if a snapshot says that a file contained the block, the file
//! of that name may still contain it at the same offset.

use std::collections::HashSet;

use crate::catalog::Catalog;
use crate::entry::Content;
use crate::entry::Extent;
use crate::entry::Kind;
use crate::error::Result;
use crate::id::NodeId;
use crate::repair::ReadFile;
use crate::repair::Wanted;
use crate::repair::rebuild::Rebuild;
use crate::tree::ListNode;
use crate::tree::Node;
use crate::watch::Watch;

/// Looks for the missing blocks of the rebuilds, in the files of the newest snapshots first.
pub(super) fn look(
    catalog: &Catalog,
    rebuilds: &mut [Rebuild],
    read_file: &mut ReadFile<'_>,
    watch: &Watch,
) -> Result<()> {
    let mut wanted = Wanted::new();
    for (place, rebuild) in rebuilds.iter().enumerate() {
        wanted.extend(rebuild.missing_blocks().map(|(number, id)| (id, (place, number))));
    }
    let mut search = Search { catalog, rebuilds, wanted, read_file, seen: HashSet::new() };
    for row in catalog.snapshots()?.into_iter().rev() {
        if row.snapshot.is_readable() {
            search.directory(row.snapshot.root, watch)?;
        }
    }
    Ok(())
}

struct Search<'a, 'b> {
    catalog: &'a Catalog,
    rebuilds: &'a mut [Rebuild],
    wanted: Wanted,
    read_file: &'a mut ReadFile<'b>,
    /// Visited directories, by path and node: what was not found there will not be found there the next time.
    seen: HashSet<(Vec<u8>, NodeId)>,
}

impl Search<'_, '_> {
    fn directory(&mut self, root: NodeId, watch: &Watch) -> Result<()> {
        let mut stack = vec![(Vec::new(), root)];
        while let Some((path, id)) = stack.pop() {
            watch.check()?;
            if self.wanted.is_empty() || !self.seen.insert((path.clone(), id)) {
                continue;
            }
            match self.node(id)? {
                Some(Node::Branch(branch)) => {
                    stack.extend(branch.children.iter().map(|child| (path.clone(), child.id)));
                }
                Some(Node::Leaf(entries)) => {
                    for entry in entries {
                        let path = [path.as_slice(), b"/", entry.name.as_bytes()].concat();
                        match &entry.kind {
                            Kind::Directory(child) => stack.push((path, *child)),
                            Kind::File(content) => self.file(&path, content)?,
                            _ => {}
                        }
                    }
                }
                Some(Node::List(_)) | None => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], content: &Content) -> Result<()> {
        let mut offset = 0;
        let mut lists = match content {
            Content::Inline(_) => return Ok(()),
            Content::Extents(extents) => return self.extents(path, extents, &mut offset),
            Content::List { root, .. } => vec![*root],
        };
        // Children are pushed last first, so that they come off the stack in the order of the file.
        while let Some(id) = lists.pop() {
            match self.node(id)? {
                Some(Node::List(ListNode::Extents(extents))) => self.extents(path, &extents, &mut offset)?,
                Some(Node::List(ListNode::Branch { children, .. })) => {
                    lists.extend(children.iter().rev().map(|child| child.id));
                }
                // The offset of the rest of the file is unknown.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn extents(&mut self, path: &[u8], extents: &[Extent], offset: &mut u64) -> Result<()> {
        for extent in extents {
            if let Extent::Block { id, length } = extent
                && let Some((place, number)) = self.wanted.get(&id.0).copied()
                && let Some(bytes) = (self.read_file)(path, *offset, *length)
                && let Some(rebuild) = self.rebuilds.get_mut(place)
                && rebuild.offer(number, &bytes)?
            {
                self.wanted.remove(&id.0);
            }
            *offset += extent.length();
        }
        Ok(())
    }

    /// A node, if it is present and intact.
    fn node(&self, id: NodeId) -> Result<Option<Node>> {
        match self.catalog.node(id) {
            Ok(row) => Ok(row.and_then(|row| Node::decode(&row.body).ok())),
            Err(crate::error::Error::Disagree { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
