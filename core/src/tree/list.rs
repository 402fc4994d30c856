//! A block list: the extents of a file that has too many of them for its entry.
//!
//! Its leaves hold up to 1,024 extents each and are cut by count, because blocks have one size: a change inside a file
//! changes one leaf, an append the last one. Branches hold up to 1,024 children with the bytes below each, so one path
//! of nodes is enough to find an offset: a file of a tebibyte has two levels of branches.

use crate::entry::Extent;
use crate::id::NodeId;
use crate::limits;
use crate::tree::TYPE_LIST;
use crate::tree::TYPE_LIST_BRANCH;
use crate::tree::record::decode_extents;
use crate::tree::record::encode_extents;
use crate::tree::record::extents_bytes;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// A child as its branch describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListChild {
    /// Its id.
    pub id: NodeId,
    /// Bytes of the file below it.
    pub bytes: u64,
}

/// A node of a block list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListNode {
    /// Extents in file order.
    Extents(Vec<Extent>),
    /// Children in file order.
    Branch {
        /// 1 above extents, 2 above branches of level 1, and so on.
        level: u8,
        /// At least one child.
        children: Vec<ListChild>,
    },
}

impl ListNode {
    /// The bytes of the node.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self {
            ListNode::Extents(extents) => {
                out.u8(TYPE_LIST);
                encode_extents(&mut out, extents);
            }
            ListNode::Branch { level, children } => {
                out.u8(TYPE_LIST_BRANCH);
                out.u8(*level);
                out.varint(children.len() as u64);
                for child in children {
                    out.varint(child.bytes);
                    out.raw(&child.id.0);
                }
            }
        }
        out.finish()
    }

    /// Reads a node of a block list.
    pub fn decode(bytes: &[u8]) -> Result<ListNode, DecodeError> {
        let mut input = Decoder::new(bytes);
        let node = match input.u8()? {
            TYPE_LIST => ListNode::Extents(decode_extents(&mut input, limits::LIST_ITEMS_MAX)?),
            TYPE_LIST_BRANCH => {
                let level = input.u8()?;
                if level == 0 || level > limits::NODE_LEVELS_MAX {
                    return Err(DecodeError::Limit("the level of a branch"));
                }
                let count = input.count(limits::LIST_ITEMS_MAX, "the number of children")?;
                let mut children = Vec::with_capacity(count);
                for _ in 0..count {
                    let bytes = input.varint()?;
                    children.push(ListChild { bytes, id: NodeId(input.array()?) });
                }
                ListNode::Branch { level, children }
            }
            _ => return Err(DecodeError::Invalid("the type of a node")),
        };
        input.end()?;
        if node.bytes()? == 0 {
            return Err(DecodeError::Invalid("the length of a block list"));
        }
        Ok(node)
    }

    /// Bytes of the file below this node.
    pub fn bytes(&self) -> Result<u64, DecodeError> {
        match self {
            ListNode::Extents(extents) => extents_bytes(extents),
            ListNode::Branch { children, .. } => children
                .iter()
                .try_fold(0u64, |sum, child| if child.bytes == 0 { None } else { sum.checked_add(child.bytes) })
                .filter(|total| *total <= i64::MAX as u64)
                .ok_or(DecodeError::Limit("the length of a file")),
        }
    }
}

/// Writes a block list of `extents` (at least one): `put` takes the bytes of each node and returns its id. The result
/// is the id of the root.
pub fn build_list<E>(extents: &[Extent], mut put: impl FnMut(Vec<u8>) -> Result<NodeId, E>) -> Result<NodeId, E> {
    let mut children = Vec::new();
    for part in extents.chunks(limits::LIST_ITEMS_MAX) {
        let bytes = part.iter().map(Extent::length).sum();
        children.push(ListChild { id: put(ListNode::Extents(part.to_vec()).encode())?, bytes });
    }
    let mut level = 1;
    loop {
        if let [root] = children.as_slice() {
            return Ok(root.id);
        }
        let mut parents = Vec::new();
        for part in children.chunks(limits::LIST_ITEMS_MAX) {
            let bytes = part.iter().map(|child| child.bytes).sum();
            let node = ListNode::Branch { level, children: part.to_vec() };
            parents.push(ListChild { id: put(node.encode())?, bytes });
        }
        children = parents;
        level += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlockId;
    use std::collections::HashMap;
    use std::convert::Infallible;

    fn flatten(id: NodeId, nodes: &HashMap<NodeId, Vec<u8>>) -> Vec<Extent> {
        match ListNode::decode(&nodes[&id]).unwrap() {
            ListNode::Extents(extents) => extents,
            ListNode::Branch { children, .. } => children.iter().flat_map(|c| flatten(c.id, nodes)).collect(),
        }
    }

    #[test]
    fn a_long_list_reads_back_through_its_levels() {
        for count in [5u32, 1_024, 1_025, 3_000, 1_024 * 1_024 + 1] {
            let extents: Vec<Extent> = (1..=count)
                .map(|n| match n % 7 {
                    0 => Extent::Hole { length: u64::from(n) },
                    _ => Extent::Block { id: BlockId([n as u8; 32]), length: n },
                })
                .map(|e| {
                    if let Extent::Block { id, length } = e {
                        Extent::Block { id, length: length % 999 + 1 }
                    } else {
                        e
                    }
                })
                .collect();
            let mut nodes = HashMap::new();
            let root = build_list(&extents, |bytes| {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&(nodes.len() as u64).to_le_bytes());
                nodes.insert(NodeId(id), bytes);
                Ok::<_, Infallible>(NodeId(id))
            })
            .unwrap();
            assert!(flatten(root, &nodes) == extents, "{count} extents");
        }
    }
}
