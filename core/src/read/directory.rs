//! A directory of any size, entry by entry.
//!
//! Entries are numbered in byte order of their names. The number of an entry never changes, because a directory never
//! does. A large directory is read leaf by leaf.

use std::sync::Arc;

use crate::entry::Entry;
use crate::error::Error;
use crate::error::Result;
use crate::id::NodeId;
use crate::limits;
use crate::read::view::Decoded;
use crate::read::view::View;

/// An entry with its place.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its number in its directory, from 0.
    pub ordinal: u64,
    /// The entry.
    pub entry: Arc<Entry>,
    /// Its file version; 0 for a directory.
    pub version: u64,
}

/// A directory of a snapshot.
#[derive(Debug, Clone)]
pub struct Directory {
    root: NodeId,
    entries: u64,
}

impl View {
    /// The directory with this root node.
    pub fn directory(&self, root: NodeId) -> Result<Directory> {
        let entries = match &*self.node(root)? {
            Decoded::Leaf(items) => items.len() as u64,
            Decoded::Branch(branch) => branch.entries(),
        };
        Ok(Directory { root, entries })
    }
}

impl Directory {
    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The entry with this name.
    pub fn find(&self, view: &View, name: &[u8]) -> Result<Option<Item>> {
        let (mut id, mut before) = (self.root, 0);
        for _ in 0..=limits::NODE_LEVELS_MAX {
            match &*view.node(id)? {
                Decoded::Leaf(items) => {
                    let place = items.binary_search_by(|(entry, _)| entry.name.as_bytes().cmp(name));
                    let found = place.ok().and_then(|place| Some((before + place as u64, items.get(place)?)));
                    return Ok(found.map(|(ordinal, row)| item(ordinal, row)));
                }
                Decoded::Branch(branch) => match branch.child_of_name(name) {
                    Some((child, skipped)) => (id, before) = (child.id, before + skipped),
                    None => return Ok(None),
                },
            }
        }
        Err(self.broken("it has too many levels"))
    }

    /// Up to `max` entries, from number `ordinal` on.
    pub fn from(&self, view: &View, ordinal: u64, max: usize) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            let next = ordinal.saturating_add(items.len() as u64);
            if items.len() >= max || next >= self.entries {
                return Ok(items);
            }
            self.append_leaf(view, next, max, &mut items)?;
        }
    }

    /// Appends entries of the leaf that holds entry `ordinal`, starting with that entry: at least one.
    fn append_leaf(&self, view: &View, ordinal: u64, max: usize, out: &mut Vec<Item>) -> Result<()> {
        let (mut id, mut before) = (self.root, 0);
        for _ in 0..=limits::NODE_LEVELS_MAX {
            match &*view.node(id)? {
                Decoded::Leaf(items) => {
                    let skipped = usize::try_from(ordinal - before).unwrap_or(usize::MAX);
                    let wanted = items.iter().zip(before..).skip(skipped).take(max - out.len());
                    let length_before = out.len();
                    out.extend(wanted.map(|(row, ordinal)| item(ordinal, row)));
                    let has_more = out.len() > length_before;
                    return if has_more { Ok(()) } else { Err(self.broken("a branch of it counts wrongly")) };
                }
                Decoded::Branch(branch) => match branch.child_of_ordinal(ordinal - before) {
                    Some((child, skipped)) => (id, before) = (child.id, before + skipped),
                    None => return Err(self.broken("a branch of it counts wrongly")),
                },
            }
        }
        Err(self.broken("it has too many levels"))
    }

    fn broken(&self, detail: &str) -> Error {
        Error::local_corrupt(format!("directory {}", self.root), detail)
    }
}

fn item(ordinal: u64, (entry, version): &(Arc<Entry>, u64)) -> Item {
    Item { ordinal, entry: Arc::clone(entry), version: *version }
}
