//! A branch: a level above the leaves of a large directory.
//!
//! For each child it records the last name below it, which locates a name, and the number of entries below it, which
//! locates the n-th entry. So a lookup or a listing reads only one path of nodes.

use crate::entry::Name;
use crate::id::NodeId;
use crate::limits;
use crate::tree::TYPE_BRANCH;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// A child as its branch describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The last name in it.
    pub last: Name,
    /// Its id.
    pub id: NodeId,
    /// Entries in it and below it.
    pub entries: u64,
}

/// A branch node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// 1 above leaves, 2 above branches of level 1, and so on.
    pub level: u8,
    /// At least one child, in byte order of their last names.
    pub children: Vec<Child>,
}

impl Branch {
    /// The bytes of the node.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u8(TYPE_BRANCH);
        out.u8(self.level);
        out.varint(self.children.len() as u64);
        for child in &self.children {
            out.string(child.last.as_bytes());
            out.raw(&child.id.0);
            out.varint(child.entries);
        }
        out.finish()
    }

    /// Reads a branch.
    pub fn decode(bytes: &[u8]) -> Result<Branch, DecodeError> {
        let mut input = Decoder::new(bytes);
        if input.u8()? != TYPE_BRANCH {
            return Err(DecodeError::Invalid("the type of a node"));
        }
        let level = input.u8()?;
        if level == 0 || level > limits::NODE_LEVELS_MAX {
            return Err(DecodeError::Limit("the level of a branch"));
        }
        let count = input.count(limits::NODE_ENTRIES_MAX, "the number of children")?;
        let mut children: Vec<Child> = Vec::with_capacity(count);
        for _ in 0..count {
            let last = Name::new(input.string(limits::NAME_BYTES_MAX, "a name")?)?;
            let id = NodeId(input.array()?);
            let entries = input.varint()?;
            if entries == 0 || children.last().is_some_and(|before| before.last >= last) {
                return Err(DecodeError::Invalid("a child"));
            }
            children.push(Child { last, id, entries });
        }
        input.end()?;
        let total = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.entries));
        if children.is_empty() || total.is_none() {
            return Err(DecodeError::Invalid("the children"));
        }
        Ok(Branch { level, children })
    }

    /// Entries below this node.
    pub fn entries(&self) -> u64 {
        self.children.iter().map(|child| child.entries).sum()
    }

    /// The child that would hold `name`, and the number of entries before that child.
    pub fn child_of_name(&self, name: &[u8]) -> Option<(&Child, u64)> {
        let place = self.children.partition_point(|child| child.last.as_bytes() < name);
        let before = self.children.iter().take(place).map(|child| child.entries).sum();
        self.children.get(place).map(|child| (child, before))
    }

    /// The child that holds entry `ordinal`, and the number of entries before that child.
    pub fn child_of_ordinal(&self, ordinal: u64) -> Option<(&Child, u64)> {
        let mut before = 0;
        for child in &self.children {
            if ordinal - before < child.entries {
                return Some((child, before));
            }
            before += child.entries;
        }
        None
    }
}
