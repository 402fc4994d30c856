//! Whether the tree of a snapshot is completely in the catalog, asked again and again while nodes come in.
//!
//! The walk resumes where it stopped: a node is looked at once, and missing nodes are tried again.

use std::collections::HashSet;

use crate::catalog::Catalog;
use crate::entry::Content;
use crate::entry::Kind;
use crate::error::Result;
use crate::id::NodeId;
use crate::tree::ListNode;
use crate::tree::Node;

/// The walk through the tree of one snapshot after another.
#[derive(Default)]
pub(super) struct Walk {
    /// Nodes that are present; their children are present too or listed in `left`.
    seen: HashSet<NodeId>,
    /// Nodes to look at.
    left: Vec<NodeId>,
}

impl Walk {
    /// Starts with another tree.
    pub fn begin(&mut self, root: NodeId) {
        self.left = vec![root];
    }

    /// True once every node of the tree is there.
    pub fn is_whole(&mut self, catalog: &Catalog) -> Result<bool> {
        let mut missing = Vec::new();
        while let Some(id) = self.left.pop() {
            if self.seen.contains(&id) {
                continue;
            }
            match catalog.node(id)? {
                Some(row) => {
                    self.seen.insert(id);
                    // A node that does not decode has no children; `check` reports it.
                    if let Ok(node) = Node::decode(&row.body) {
                        self.left.extend(below(&node));
                    }
                }
                None => missing.push(id),
            }
            // A tree that lacks many nodes is not worth walking yet.
            if missing.len() > MISSING_MAX {
                self.left.append(&mut missing);
                return Ok(false);
            }
        }
        self.left = missing;
        Ok(self.left.is_empty())
    }
}

const MISSING_MAX: usize = 64;

/// The children of a node.
pub(super) fn below(node: &Node) -> Vec<NodeId> {
    match node {
        Node::Leaf(entries) => entries
            .iter()
            .filter_map(|entry| match &entry.kind {
                Kind::Directory(child) => Some(*child),
                Kind::File(Content::List { root, .. }) => Some(*root),
                _ => None,
            })
            .collect(),
        Node::Branch(branch) => branch.children.iter().map(|child| child.id).collect(),
        Node::List(ListNode::Branch { children, .. }) => children.iter().map(|child| child.id).collect(),
        Node::List(ListNode::Extents(_)) => Vec::new(),
    }
}
