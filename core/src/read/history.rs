//! What one directory contained over many snapshots, and the differences between two of its states.
//!
//! A directory's state is its tree node. A node shared by many snapshots is looked at once, and so is a leaf shared by
//! many nodes. So the cost follows the changes and not the size.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::entry::Entry;
use crate::entry::Meta;
use crate::entry::Name;
use crate::error::Error;
use crate::error::Result;
use crate::id::NodeId;
use crate::limits;
use crate::read::view::Decoded;
use crate::read::view::View;

/// Who may look into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// User and group, if they have always been the same.
    pub owner: Option<(u32, u32)>,
    /// Permission bits, the low nine of `st_mode`.
    pub mode: u16,
}

impl Access {
    /// What `meta` allows.
    pub fn of(meta: &Meta) -> Access {
        // An access list may deny what the mode bits of the group (its mask) and of others grant.
        let has_list = meta.xattrs.iter().any(|xattr| xattr.name == b"system.posix_acl_access");
        let mode = meta.mode & if has_list { 0o700 } else { 0o777 };
        Access { owner: Some((meta.owner.uid, meta.owner.gid)), mode }
    }

    /// What both allow. Where the owners differ, nobody gets more than everybody had.
    pub fn and(self, other: Access) -> Access {
        if self.owner.is_some() && self.owner == other.owner {
            return Access { owner: self.owner, mode: self.mode & other.mode };
        }
        Access { owner: None, mode: self.for_anybody() & other.for_anybody() }
    }

    /// The bits that everybody had, whoever they are: those of others that were not denied to the group.
    fn for_anybody(self) -> u16 {
        match self.owner {
            Some(_) => {
                let common = self.mode & (self.mode >> 3) & 0o7;
                common << 6 | common << 3 | common
            }
            None => self.mode,
        }
    }
}

/// A state of a directory, and the position of the snapshot where it first occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Era {
    /// Position in the examined sequence of snapshots.
    pub position: u32,
    /// The directory's root node.
    pub node: NodeId,
}

/// Everything that a name ever stood for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetime {
    /// The name.
    pub name: Name,
    /// The states of the directory, each once; none if it never was one.
    pub directories: Vec<Era>,
    /// What all of these directories allow.
    pub access: Option<Access>,
    /// The file versions, each once, with the position where it first occurs.
    pub versions: Vec<(u32, u64)>,
    /// The position where it first was there and cannot be read, as a file or as a directory.
    pub withheld: Option<u32>,
}

/// A name that stands for different things in two states of a directory, each with its file version (0 for a
/// directory).
#[derive(Debug, Clone)]
pub struct Difference {
    /// In the first state, if present.
    pub before: Option<(Arc<Entry>, u64)>,
    /// In the second state, if present.
    pub after: Option<(Arc<Entry>, u64)>,
}

impl View {
    /// Everything that a directory contained in the states `eras`, by name, in order of first occurrence.
    pub fn history(&self, eras: &[Era]) -> Result<Vec<Lifetime>> {
        let mut found: Vec<Lifetime> = Vec::new();
        let mut places: HashMap<Name, usize> = HashMap::new();
        let mut leaves_seen = HashSet::new();
        for era in eras {
            for leaf in self.leaves(era.node)? {
                if !leaves_seen.insert(leaf) {
                    continue;
                }
                for (entry, version) in self.node(leaf)?.rows() {
                    let place = *places.entry(entry.name.clone()).or_insert_with(|| {
                        found.push(Lifetime::new(entry.name.clone()));
                        found.len() - 1
                    });
                    if let Some(lifetime) = found.get_mut(place) {
                        lifetime.add(era.position, entry, *version);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The names whose meaning differs between the directories `before` and `after`, in byte order.
    pub fn differences(&self, before: Option<NodeId>, after: Option<NodeId>) -> Result<Vec<Difference>> {
        if before == after {
            return Ok(Vec::new());
        }
        let before = before.map(|node| self.leaves(node)).transpose()?.unwrap_or_default();
        let after = after.map(|node| self.leaves(node)).transpose()?.unwrap_or_default();
        let old = self.rows_of_leaves_not_in(&before, &after)?;
        let new = self.rows_of_leaves_not_in(&after, &before)?;
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        let mut found = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(found),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.name.cmp(&b.name),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            if !is_same(before.as_ref(), after.as_ref()) {
                found.push(Difference { before, after });
            }
        }
    }

    /// The leaves of a directory, in order.
    fn leaves(&self, root: NodeId) -> Result<Vec<NodeId>> {
        let mut leaves = Vec::new();
        let mut stack = vec![(root, 0)];
        while let Some((id, depth)) = stack.pop() {
            match &*self.node(id)? {
                Decoded::Leaf(_) => leaves.push(id),
                Decoded::Branch(_) if depth >= limits::NODE_LEVELS_MAX => {
                    return Err(Error::local_corrupt(format!("directory {root}"), "it has too many levels"));
                }
                Decoded::Branch(branch) => {
                    stack.extend(branch.children.iter().rev().map(|child| (child.id, depth + 1)));
                }
            }
        }
        Ok(leaves)
    }

    /// The entries of `leaves` that are not in `others`. A leaf that is in both holds the same names in both.
    fn rows_of_leaves_not_in(&self, leaves: &[NodeId], others: &[NodeId]) -> Result<Vec<(Arc<Entry>, u64)>> {
        let others: HashSet<&NodeId> = others.iter().collect();
        let mut rows = Vec::new();
        for leaf in leaves.iter().filter(|leaf| !others.contains(leaf)) {
            rows.extend_from_slice(self.node(*leaf)?.rows());
        }
        Ok(rows)
    }
}

impl Lifetime {
    fn new(name: Name) -> Lifetime {
        Lifetime { name, directories: Vec::new(), access: None, versions: Vec::new(), withheld: None }
    }

    /// True if the first state examined has it in a form that cannot be read: then nothing tells what that state lacks.
    pub fn begins_withheld(&self) -> bool {
        self.withheld == Some(0)
    }

    fn add(&mut self, position: u32, entry: &Entry, version: u64) {
        if entry.withheld().is_some() {
            self.withheld = self.withheld.or(Some(position));
            return;
        }
        let Some(node) = entry.directory() else {
            if !self.versions.iter().any(|(_, known)| *known == version) {
                self.versions.push((position, version));
            }
            return;
        };
        let access = Access::of(&entry.meta);
        self.access = Some(self.access.map_or(access, |before| before.and(access)));
        if !self.directories.iter().any(|era| era.node == node) {
            self.directories.push(Era { position, node });
        }
    }
}

/// True if an entry does not differ at all: one file version, or one directory with the same metadata. What cannot be
/// read is not compared, so it differs from nothing.
fn is_same(before: Option<&(Arc<Entry>, u64)>, after: Option<&(Arc<Entry>, u64)>) -> bool {
    if before.into_iter().chain(after).any(|(entry, _)| entry.withheld().is_some()) {
        return true;
    }
    let (Some((before, old)), Some((after, new))) = (before, after) else { return false };
    match (before.directory(), after.directory()) {
        (None, None) => old == new,
        (Some(a), Some(b)) => a == b && before.meta == after.meta,
        _ => false,
    }
}
