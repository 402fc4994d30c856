//! Tree nodes: directories and long files as content-addressed records.
//!
//! A directory is one leaf listing its entries in byte order of their names, or, if it is large, leaves under one or
//! more levels of branches. Large directories are cut after entries chosen by the hash of their name, so adding an
//! entry anywhere changes one leaf and the branches above it. A file of many extents has a block list, built the same
//! way. A node never contains its own id: the id is the keyed hash of its bytes, so the same directory is one node in
//! all snapshots.

mod branch;
mod leaf;
mod list;
mod record;
mod split;

pub use branch::Branch;
pub use branch::Child;
pub use leaf::decode_leaf;
pub use leaf::encode_leaf;
pub use list::ListChild;
pub use list::ListNode;
pub use list::build_list;
pub use split::DirectoryBuilder;

use crate::entry::Entry;
use crate::limits;
use crate::wire::DecodeError;

/// First byte of a node: a leaf of a directory.
const TYPE_LEAF: u8 = 1;
/// First byte of a node: a branch of a directory.
const TYPE_BRANCH: u8 = 2;
/// First byte of a node: extents of a file.
const TYPE_LIST: u8 = 3;
/// First byte of a node: a branch of a block list.
const TYPE_LIST_BRANCH: u8 = 4;

/// A node of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Entries of a directory.
    Leaf(Vec<Entry>),
    /// A level above the leaves of a large directory.
    Branch(Branch),
    /// Part of a block list.
    List(ListNode),
}

impl Node {
    /// Reads a node.
    pub fn decode(bytes: &[u8]) -> Result<Node, DecodeError> {
        if bytes.len() > limits::NODE_BYTES_MAX {
            return Err(DecodeError::Limit("the length of a node"));
        }
        match bytes.first() {
            Some(&TYPE_LEAF) => Ok(Node::Leaf(decode_leaf(bytes)?)),
            Some(&TYPE_BRANCH) => Ok(Node::Branch(Branch::decode(bytes)?)),
            Some(&(TYPE_LIST | TYPE_LIST_BRANCH)) => Ok(Node::List(ListNode::decode(bytes)?)),
            Some(_) => Err(DecodeError::Invalid("the type of a node")),
            None => Err(DecodeError::Short),
        }
    }
}
