//! Cutting a directory into leaves.
//!
//! A directory of up to 24 entries (and 1 MiB of encoded bytes) is one leaf. A larger one is cut after one entry in
//! eight, chosen by the SHA-256 of its name, except that no leaf has fewer than 6 entries, and none has more than 1,024
//! entries or 1 MiB beyond its last entry. Branches are cut in the same way, by the last names of their children.
//!
//! The cuts depend on nearby names alone. So a file that changes costs one leaf of about 13 entries and a few branches
//! of as many children, and never moves a cut.

use crate::entry::Content;
use crate::entry::Entry;
use crate::entry::Kind;
use crate::entry::Name;
use crate::hash::sha256;
use crate::id::NodeId;
use crate::limits;
use crate::tree::branch::Branch;
use crate::tree::branch::Child;
use crate::tree::leaf::encode_leaf;

const LEAF_ENTRIES_MIN: usize = 6;
const LEAF_BYTES_TARGET: usize = 1 << 20;
const BRANCH_CHILDREN_MIN: usize = 6;
/// One name in so many ends its node.
const NAMES_EACH_CUT: u8 = 8;

/// Takes the entries of one directory in byte order of their names and makes its nodes.
#[derive(Debug, Default)]
pub struct DirectoryBuilder {
    pending: Vec<Entry>,
    pending_bytes: usize,
    is_split: bool,
    children: Vec<Child>,
    last: Option<Name>,
}

impl DirectoryBuilder {
    /// An empty directory.
    pub fn new() -> DirectoryBuilder {
        DirectoryBuilder::default()
    }

    /// The name added last.
    pub fn last(&self) -> Option<&Name> {
        self.last.as_ref()
    }

    /// Adds the next entry. `put` takes the bytes of a finished node and returns its id.
    pub fn push<E>(&mut self, entry: Entry, put: &mut impl FnMut(Vec<u8>) -> Result<NodeId, E>) -> Result<(), E> {
        self.last = Some(entry.name.clone());
        self.pending_bytes += bytes_estimate(&entry);
        self.pending.push(entry);
        if self.is_split {
            return if self.cuts_after_last() { self.flush(put) } else { Ok(()) };
        }
        if self.pending.len() > limits::NODE_ENTRIES_WHOLE || self.pending_bytes > LEAF_BYTES_TARGET {
            // What was held back as one leaf is now cut as if the directory had been large from the start.
            self.is_split = true;
            self.pending_bytes = 0;
            for entry in std::mem::take(&mut self.pending) {
                self.push(entry, put)?;
            }
        }
        Ok(())
    }

    /// Ends the directory; returns the id of its root node.
    pub fn finish<E>(mut self, put: &mut impl FnMut(Vec<u8>) -> Result<NodeId, E>) -> Result<NodeId, E> {
        if !self.pending.is_empty() || self.children.is_empty() {
            self.flush(put)?;
        }
        let mut level = 1;
        let mut children = self.children;
        loop {
            if let [root] = children.as_slice() {
                return Ok(root.id);
            }
            children = raise(children, level, put)?;
            level += 1;
        }
    }

    fn cuts_after_last(&self) -> bool {
        self.pending.len() >= LEAF_ENTRIES_MIN && self.last.as_ref().is_some_and(|name| is_marked(name, 0))
            || self.pending.len() >= limits::NODE_ENTRIES_MAX
            || self.pending_bytes > LEAF_BYTES_TARGET
    }

    fn flush<E>(&mut self, put: &mut impl FnMut(Vec<u8>) -> Result<NodeId, E>) -> Result<(), E> {
        let entries = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let id = put(encode_leaf(&entries))?;
        // Only the root of an empty directory has no last name, and it never gets a branch above it.
        let count = entries.len() as u64;
        let last = entries.into_iter().next_back().map(|entry| entry.name);
        if let Some(last) = last.or_else(|| Name::new(b"empty").ok()) {
            self.children.push(Child { last, id, entries: count });
        }
        Ok(())
    }
}

/// One level of branches above `children`.
fn raise<E>(
    children: Vec<Child>,
    level: u8,
    put: &mut impl FnMut(Vec<u8>) -> Result<NodeId, E>,
) -> Result<Vec<Child>, E> {
    let mut parents = Vec::new();
    let mut group: Vec<Child> = Vec::new();
    let mut left = children.len();
    for child in children {
        let may_end = is_marked(&child.last, level);
        group.push(child);
        left -= 1;
        let is_full = group.len() >= BRANCH_CHILDREN_MIN && may_end || group.len() >= limits::NODE_ENTRIES_MAX;
        if let Some(last) = group.last().map(|child| child.last.clone()).filter(|_| is_full || left == 0) {
            let branch = Branch { level, children: std::mem::take(&mut group) };
            parents.push(Child { last, entries: branch.entries(), id: put(branch.encode())? });
        }
    }
    Ok(parents)
}

/// True if a node of this level (0: a leaf) may end after this name. Each level looks at a byte of its own, because all
/// children of a branch end with a name that is marked for the level below.
fn is_marked(name: &Name, level: u8) -> bool {
    sha256(name.as_bytes()).get(usize::from(level)).is_some_and(|byte| byte % NAMES_EACH_CUT == 0)
}

/// About how many bytes an entry takes in its leaf.
fn bytes_estimate(entry: &Entry) -> usize {
    let attributes: usize = entry.meta.xattrs.iter().map(|x| x.name.len() + x.value.len() + 5).sum();
    let body = match &entry.kind {
        Kind::File(Content::Inline(bytes)) | Kind::Symlink(bytes) => bytes.len(),
        Kind::File(Content::Extents(extents)) => extents.len() * 36,
        Kind::Newer { body, .. } => body.len(),
        _ => 32,
    };
    40 + entry.name.as_bytes().len() + attributes + body + entry.attributes.value_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::Node;
    use super::*;
    use crate::entry::Meta;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    fn entry(name: &str) -> Entry {
        let meta = Meta { mode: 0o644, device: 1, inode: 1, ..Meta::unknown() };
        Entry::new(Name::new(name.as_bytes()).unwrap(), meta, Kind::Fifo)
    }

    fn build(names: impl IntoIterator<Item = String>) -> (NodeId, BTreeMap<NodeId, Vec<u8>>) {
        build_of(names.into_iter().map(|name| entry(&name)))
    }

    fn build_of(entries: impl IntoIterator<Item = Entry>) -> (NodeId, BTreeMap<NodeId, Vec<u8>>) {
        let mut nodes = BTreeMap::new();
        let mut put = |bytes: Vec<u8>| {
            let id = NodeId(sha256(&bytes));
            nodes.insert(id, bytes);
            Ok::<_, Infallible>(id)
        };
        let mut builder = DirectoryBuilder::new();
        for entry in entries {
            builder.push(entry, &mut put).unwrap();
        }
        let root = builder.finish(&mut put).unwrap();
        (root, nodes)
    }

    fn names(id: NodeId, nodes: &BTreeMap<NodeId, Vec<u8>>) -> Vec<Vec<u8>> {
        match Node::decode(&nodes[&id]).unwrap() {
            Node::Leaf(entries) => entries.into_iter().map(|e| e.name.as_bytes().to_vec()).collect(),
            Node::Branch(branch) => branch
                .children
                .iter()
                .flat_map(|child| {
                    let below = names(child.id, nodes);
                    assert_eq!(below.len() as u64, child.entries);
                    assert_eq!(below.last().map(Vec::as_slice), Some(child.last.as_bytes()));
                    below
                })
                .collect(),
            Node::List(_) => panic!("a block list in a directory"),
        }
    }

    #[test]
    fn directories_of_any_size_read_back() {
        for count in [0usize, 1, 24, 25, 257, 5_000, 100_000] {
            let all: Vec<String> = (0..count).map(|n| format!("{n:08}")).collect();
            let (root, nodes) = build(all.clone());
            assert_eq!(names(root, &nodes), all.iter().map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_more_entry_changes_few_nodes_of_a_large_directory() {
        let all: Vec<String> = (0..50_000).map(|n| format!("{n:08}")).collect();
        let (_, before) = build(all.clone());
        let mut more = all;
        more.insert(25_000, "00024999x".into());
        let (_, after) = build(more);
        let new = after.keys().filter(|id| !before.contains_key(id)).count();
        assert!(new <= 8, "{new} of {} nodes are new", after.len());
    }

    #[test]
    fn an_entry_that_changes_costs_one_short_node_of_each_level() {
        let all: Vec<String> = (0..2_000).map(|n| format!("{n:08}")).collect();
        let (_, before) = build(all.clone());
        for changed in [0, 777, 1_000, 1_999] {
            let change = |mut entry: Entry| {
                entry.meta.inode += u64::from(entry.name.as_bytes() == all[changed].as_bytes());
                entry
            };
            let (_, after) = build_of(all.iter().map(|name| change(entry(name))));
            let new: Vec<_> = after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, body)| body).collect();
            assert_eq!((new.len(), after.len()), (3, before.len()), "a leaf and two levels of branches");
            assert!(new.iter().map(|body| body.len()).sum::<usize>() < 4_000, "entry {changed}");
        }
    }
}
