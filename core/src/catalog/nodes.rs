//! Tree nodes, the file versions in them, and the paths of directories.
//!
//! An entry that is not a directory is a *file version*: equal metadata and content have one number for ever, in every
//! snapshot and under every name (hard links too). The number is the inode in the mount.

use rusqlite::Connection;
use rusqlite::OptionalExtension;

use crate::catalog::Catalog;
use crate::entry::Entry;
use crate::entry::FileType;
use crate::entry::Name;
use crate::error::Result;
use crate::hash::IdKeys;
use crate::id::NodeId;
use crate::tree::Node;
use crate::tree::encode_leaf;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// A tree node as the catalog holds it.
#[derive(Debug, Clone)]
pub struct NodeRow {
    /// The node's bytes, verified against its id.
    pub body: Vec<u8>,
    /// For a leaf, the version of each entry, 0 for directories; empty for other nodes.
    pub versions: Vec<u64>,
}

impl Catalog {
    /// A tree node, if the catalog holds it.
    pub fn node(&self, id: NodeId) -> Result<Option<NodeRow>> {
        let row = self.run(|conn| {
            conn.prepare_cached("SELECT body, versions FROM node WHERE name = ?1")?
                .query_row([&id.0], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))
                .optional()
        })?;
        let Some((body, versions)) = row else { return Ok(None) };
        if self.ids.node(&body) != id {
            return Err(self.damaged("a tree node has changed on disk"));
        }
        let versions = unpack_versions(&versions).ok_or_else(|| self.damaged("a list of file versions is broken"))?;
        Ok(Some(NodeRow { body, versions }))
    }

    /// Nodes in this catalog that the store has lost: their volume is lost, or they are in none.
    pub fn nodes_lost(&self) -> Result<Vec<NodeId>> {
        self.run(|conn| {
            conn.prepare_cached(
                "SELECT n.name FROM node n LEFT JOIN block b ON b.id = n.name LEFT JOIN volume v ON v.id = b.volume
                 WHERE v.state IS NULL OR v.state = 4 ORDER BY n.id",
            )?
            .query_map([], |row| row.get(0).map(NodeId))?
            .collect()
        })
    }

    /// A leaf that holds a file version, and the version's place in it.
    pub fn version_place(&self, version: u64) -> Result<Option<(NodeId, u32)>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT n.name, v.ordinal FROM version v JOIN node n ON n.id = v.node WHERE v.id = ?1")?
                .query_row([version.cast_signed()], |row| Ok((NodeId(row.get(0)?), row.get(1)?)))
                .optional()
        })
    }

    /// Number of file versions.
    pub fn versions_count(&self) -> Result<u64> {
        self.run(|conn| conn.query_row("SELECT coalesce(max(id), 0) FROM version", [], |row| row.get::<_, i64>(0)))
            .map(i64::cast_unsigned)
    }

    /// The number of the directory `name` in the directory with number `parent`; the root is 1.
    pub fn path_id(&self, parent: u64, name: &[u8]) -> Result<Option<u64>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT id FROM path WHERE parent = ?1 AND name = ?2")?
                .query_row((parent.cast_signed(), name), |row| row.get::<_, i64>(0))
                .optional()
        })
        .map(|id| id.map(i64::cast_unsigned))
    }

    /// Parent and name of the directory with this number; `None` for the root and for numbers that do not exist.
    pub fn path_of(&self, id: u64) -> Result<Option<(u64, Name)>> {
        let row = self.run(|conn| {
            conn.prepare_cached("SELECT parent, name FROM path WHERE id = ?1 AND parent > 0")?
                .query_row([id.cast_signed()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
                .optional()
        })?;
        let Some((parent, name)) = row else { return Ok(None) };
        let name = Name::new(&name).map_err(|_| self.damaged("a path has no valid name"))?;
        Ok(Some((parent.cast_unsigned(), name)))
    }

    /// Names of all extended attributes that occur in any snapshot, sorted.
    pub fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT name FROM xattr_name ORDER BY name")?.query_map([], |row| row.get(0))?.collect()
        })
    }
}

/// Inserts nodes that are not there yet, numbering the file versions that are new.
pub(super) fn insert_nodes(conn: &Connection, ids: &IdKeys, nodes: &[(NodeId, Vec<u8>)]) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached("INSERT OR IGNORE INTO node (name, body, versions) VALUES (?1, ?2, x'')")?;
    let mut number = conn.prepare_cached("UPDATE node SET versions = ?2 WHERE id = ?1")?;
    for (id, body) in nodes {
        if insert.execute((&id.0, body))? == 0 {
            continue;
        }
        let row = conn.last_insert_rowid();
        // A node that does not decode is kept as it is; `check` reports it.
        if let Ok(Node::Leaf(entries)) = Node::decode(body) {
            number.execute((row, pack_versions(&number_versions(conn, ids, row, &entries)?)))?;
        }
    }
    Ok(())
}

/// The version of each entry of a leaf: a known number if metadata and content are known, otherwise a new one.
fn number_versions(conn: &Connection, ids: &IdKeys, node: i64, entries: &[Entry]) -> rusqlite::Result<Vec<u64>> {
    let mut known = conn.prepare_cached("SELECT version FROM version_key WHERE key = ?1")?;
    let mut add = conn.prepare_cached("INSERT INTO version (node, ordinal) VALUES (?1, ?2)")?;
    let mut add_key = conn.prepare_cached("INSERT INTO version_key (key, version) VALUES (?1, ?2)")?;
    let mut add_xattr = conn.prepare_cached("INSERT OR IGNORE INTO xattr_name (name) VALUES (?1)")?;
    let mut versions = Vec::with_capacity(entries.len());
    for (entry, ordinal) in entries.iter().zip(0i64..) {
        for xattr in &entry.meta.xattrs {
            add_xattr.execute([&xattr.name])?;
        }
        if entry.file_type() == Some(FileType::Directory) {
            versions.push(0);
            continue;
        }
        let key = version_key(ids, entry);
        let version = known.query_row([&key], |row| row.get::<_, i64>(0)).optional()?;
        let version = match version {
            Some(version) => version,
            None => {
                add.execute((node, ordinal))?;
                let version = conn.last_insert_rowid();
                add_key.execute((&key, version))?;
                version
            }
        };
        versions.push(version.cast_unsigned());
    }
    Ok(versions)
}

/// The identity of a file version: everything but the name.
fn version_key(ids: &IdKeys, entry: &Entry) -> [u8; 16] {
    let nameless = Name::new(b"x").map(|name| Entry { name, ..entry.clone() });
    ids.version(&encode_leaf(nameless.as_ref().map_or(&[], std::slice::from_ref)))
}

/// Versions in a leaf are mostly consecutive, so each is written as the difference from the one before.
fn pack_versions(versions: &[u64]) -> Vec<u8> {
    let mut out = Encoder::new();
    let mut before = 0u64;
    for version in versions {
        out.signed(version.wrapping_sub(before).cast_signed());
        if *version != 0 {
            before = *version;
        }
    }
    out.finish()
}

fn unpack_versions(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut input = Decoder::new(bytes);
    let mut versions = Vec::new();
    let mut before = 0u64;
    while input.remaining() > 0 {
        let version = before.wrapping_add(input.signed().ok()?.cast_unsigned());
        versions.push(version);
        if version != 0 {
            before = version;
        }
    }
    Some(versions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn versions_come_back(versions in prop::collection::vec(prop_oneof![Just(0u64), 1u64..1 << 40], 0..50)) {
            prop_assert_eq!(unpack_versions(&pack_versions(&versions)), Some(versions));
        }
    }
}
