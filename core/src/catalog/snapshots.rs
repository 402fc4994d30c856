//! Snapshots, the commits that made them, and the numbering of directory paths.

use rusqlite::Connection;
use rusqlite::OptionalExtension;

use crate::catalog::Catalog;
use crate::catalog::CatalogWriter;
use crate::commit::Commit;
use crate::commit::Head;
use crate::commit::decode_snapshot_record;
use crate::commit::encode_snapshot_record;
use crate::entry::FileType;
use crate::entry::Name;
use crate::error::Result;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::id::NodeId;
use crate::id::SnapshotId;
use crate::snapshot::Snapshot;
use crate::tree::Node;

/// A snapshot with its number in this catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Small, assigned once and never reused.
    pub number: u64,
    /// The snapshot.
    pub snapshot: Snapshot,
}

/// A commit that this machine has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCommit {
    /// Whose chain.
    pub client: ClientId,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: CommitHash,
    /// Length of the object, if it is known.
    pub bytes: Option<u64>,
    /// What the store called this version of the object.
    pub etag: Option<String>,
}

impl Catalog {
    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRow>> {
        self.snapshots_where("true")
    }

    pub(super) fn snapshots_where(&self, condition: &'static str) -> Result<Vec<SnapshotRow>> {
        let rows: Vec<(i64, Vec<u8>)> = self.run(|conn| {
            let sql = format!("SELECT number, record FROM snapshot WHERE {condition} ORDER BY time, number");
            conn.prepare_cached(&sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        rows.into_iter()
            .map(|(number, record)| match decode_snapshot_record(&record) {
                Ok(snapshot) => Ok(SnapshotRow { number: number.cast_unsigned(), snapshot }),
                Err(_) => Err(self.damaged("the record of a snapshot does not decode")),
            })
            .collect()
    }

    /// The newest commit seen of every chain, sorted by client.
    pub fn heads(&self) -> Result<Vec<Head>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT client, max(seq), hash FROM commit_seen GROUP BY client ORDER BY client")?
                .query_map([], |row| {
                    let seq = row.get::<_, i64>(1)?.cast_unsigned();
                    Ok(Head { client: ClientId(row.get(0)?), seq, hash: CommitHash(row.get(2)?) })
                })?
                .collect()
        })
    }

    /// Every commit that was seen, chain by chain, each in order.
    pub fn commits_seen(&self) -> Result<Vec<SeenCommit>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT client, seq, hash, bytes, etag FROM commit_seen ORDER BY client, seq")?
                .query_map([], |row| {
                    Ok(SeenCommit {
                        client: ClientId(row.get(0)?),
                        seq: row.get::<_, i64>(1)?.cast_unsigned(),
                        hash: CommitHash(row.get(2)?),
                        bytes: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
                        etag: row.get(4)?,
                    })
                })?
                .collect()
        })
    }

    /// Ids of snapshots that some commit has removed.
    pub fn snapshots_removed(&self) -> Result<Vec<SnapshotId>> {
        self.snapshots_removed_where("true")
    }

    pub(super) fn snapshots_removed_where(&self, condition: &'static str) -> Result<Vec<SnapshotId>> {
        self.run(|conn| {
            conn.prepare_cached(&format!("SELECT id FROM snapshot_removed WHERE {condition} ORDER BY id"))?
                .query_map([], |row| row.get(0).map(SnapshotId))?
                .collect()
        })
    }

    /// The hash of a commit, if it was seen.
    pub fn commit_hash(&self, client: ClientId, seq: u64) -> Result<Option<CommitHash>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT hash FROM commit_seen WHERE client = ?1 AND seq = ?2")?
                .query_row((&client.0, seq.cast_signed()), |row| row.get(0).map(CommitHash))
                .optional()
        })
    }
}

impl Catalog {
    /// The bytes of a commit object, if they were kept.
    pub fn commit_object(&self, client: ClientId, seq: u64) -> Result<Option<Vec<u8>>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT object FROM commit_seen WHERE client = ?1 AND seq = ?2")?
                .query_row((&client.0, seq.cast_signed()), |row| row.get(0))
                .optional()
        })
        .map(Option::flatten)
    }
}

impl CatalogWriter {
    /// Makes a snapshot visible whose tree is complete, before its commit can be adopted, because other things are
    /// still being read. It gets this number if that is free: numbers reflect the order in which snapshots were made.
    pub fn snapshot_show(&mut self, snapshot: &Snapshot, number: u64) -> Result<()> {
        self.transact(|conn| insert_snapshot(conn, snapshot, Some(number)))
    }

    /// One more than the highest number that a snapshot has had so far.
    pub fn snapshot_number_next(&self) -> Result<u64> {
        self.read()
            .run(|conn| {
                conn.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'snapshot'")?
                    .query_row([], |row| row.get::<_, i64>(0))
                    .optional()
            })
            .map(|last| last.unwrap_or(0).cast_unsigned() + 1)
    }

    /// Adopts a commit that is in the store: its snapshots exist from now on, its volumes are announced, the losses it
    /// accepts are accepted, and its hash is pinned. One durable transaction. The nodes of its snapshots should already
    /// be in the catalog.
    pub fn commit_adopt(&mut self, seen: &SeenCommit, object: &[u8], commit: &Commit) -> Result<()> {
        self.transact(|conn| {
            super::alarms::accept(conn, &commit.losses)?;
            insert_seen(conn, seen)?;
            conn.prepare_cached("UPDATE commit_seen SET object = ?3 WHERE client = ?1 AND seq = ?2")?.execute((
                &seen.client.0,
                seen.seq.cast_signed(),
                object,
            ))?;
            conn.prepare_cached("DELETE FROM setting WHERE key = 'committing' AND value = ?1")?.execute([[
                seen.seq.to_le_bytes().as_slice(),
                &seen.hash.0,
            ]
            .concat()])?;
            for snapshot in &commit.snapshots_added {
                insert_snapshot(conn, snapshot, None)?;
                conn.prepare_cached("UPDATE snapshot SET announced = 1 WHERE id = ?1")?.execute([&snapshot.id.0])?;
            }
            for id in &commit.snapshots_removed {
                conn.prepare_cached("INSERT OR REPLACE INTO snapshot_removed (id, announced) VALUES (?1, 1)")?
                    .execute([&id.0])?;
                conn.prepare_cached("DELETE FROM snapshot WHERE id = ?1")?.execute([&id.0])?;
            }
            for volume in &commit.volumes_added {
                conn.prepare_cached("UPDATE volume SET announced = 1 WHERE name = ?1")?.execute([&volume.name.0])?;
            }
            super::lasting::adopt(conn, seen.client, seen.seq, commit)
        })
    }

    /// Records how the store lists commits whose hashes have just been checked.
    pub fn commits_listed(&mut self, seen: &[SeenCommit]) -> Result<()> {
        self.transact(|conn| seen.iter().try_for_each(|seen| insert_seen(conn, seen)))
    }
}

fn insert_seen(conn: &Connection, seen: &SeenCommit) -> rusqlite::Result<()> {
    let SeenCommit { client, seq, hash, bytes, etag } = seen;
    conn.prepare_cached(
        "INSERT INTO commit_seen (client, seq, hash, bytes, etag) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET bytes = excluded.bytes, etag = excluded.etag WHERE hash = excluded.hash",
    )?
    .execute((&client.0, seq.cast_signed(), &hash.0, bytes.map(u64::cast_signed), etag))
    .map(|_| ())
}

fn insert_snapshot(conn: &Connection, snapshot: &Snapshot, number: Option<u64>) -> rusqlite::Result<()> {
    let SnapshotId(id) = &snapshot.id;
    if conn.prepare_cached("SELECT 1 FROM snapshot_removed WHERE id = ?1")?.exists([id])? {
        return Ok(());
    }
    let number = number.map(u64::cast_signed);
    let is_taken = conn.prepare_cached("SELECT 1 FROM snapshot WHERE number = ?1")?.exists([number])?;
    let number = number.filter(|_| !is_taken);
    let base = nearest_root(conn, number)?;
    let added = conn
        .prepare_cached("INSERT OR IGNORE INTO snapshot (number, id, time, record) VALUES (?1, ?2, ?3, ?4)")?
        .execute((number, id, snapshot.time.secs, encode_snapshot_record(snapshot)))?;
    // A snapshot that is visible already has its paths numbered.
    if added == 0 { Ok(()) } else { number_paths(conn, snapshot.root, base) }
}

/// Root of the snapshot that probably differs least: the next one, otherwise the last.
fn nearest_root(conn: &Connection, number: Option<i64>) -> rusqlite::Result<Option<NodeId>> {
    let record = conn
        .prepare_cached("SELECT record FROM snapshot ORDER BY number > ?1 DESC, abs(number - ?1), -number LIMIT 1")?
        .query_row([number.unwrap_or(i64::MAX)], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    Ok(record.and_then(|record| decode_snapshot_record(&record).ok()).map(|snapshot| snapshot.root))
}

/// Numbers every directory path below `root` that has no number yet. Where a directory is the same node as in the
/// `base` snapshot, everything below it is numbered already, so the cost follows the changes.
fn number_paths(conn: &Connection, root: NodeId, base: Option<NodeId>) -> rusqlite::Result<()> {
    let mut find = conn.prepare_cached("SELECT id FROM path WHERE parent = ?1 AND name = ?2")?;
    let mut add = conn.prepare_cached("INSERT INTO path (parent, name) VALUES (?1, ?2)")?;
    let mut stack = vec![(1i64, root, base)];
    while let Some((path, node, base)) = stack.pop() {
        if base == Some(node) {
            continue;
        }
        let children = subdirectories(conn, node)?;
        let before = base.map(|base| subdirectories(conn, base)).transpose()?.unwrap_or_default();
        for (name, child) in children {
            let known = find.query_row((path, name.as_bytes()), |row| row.get::<_, i64>(0)).optional()?;
            let id = match known {
                Some(id) => id,
                None => {
                    add.execute((path, name.as_bytes()))?;
                    conn.last_insert_rowid()
                }
            };
            let Some(child) = child else { continue };
            let at = before.binary_search_by(|(other, _)| other.cmp(&name)).ok();
            stack.push((id, child, at.and_then(|at| before.get(at)).and_then(|(_, node)| *node)));
        }
    }
    Ok(())
}

/// The subdirectories of a directory, in byte order of their names, and the node of each unless the snapshot could not
/// read it. Missing or damaged nodes are skipped: the rest of the snapshot stays readable, and `check` reports what is
/// missing.
fn subdirectories(conn: &Connection, root: NodeId) -> rusqlite::Result<Vec<(Name, Option<NodeId>)>> {
    let mut read = conn.prepare_cached("SELECT body FROM node WHERE name = ?1")?;
    let mut found = Vec::new();
    let mut stack = vec![root];
    while let Some(id) = stack.pop() {
        let body = read.query_row([&id.0], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        match body.map(|body| Node::decode(&body)) {
            Some(Ok(Node::Leaf(entries))) => {
                let directories = entries.into_iter().filter(|entry| entry.file_type() == Some(FileType::Directory));
                found.extend(directories.map(|entry| (entry.name.clone(), entry.directory())));
            }
            Some(Ok(Node::Branch(branch))) => stack.extend(branch.children.iter().rev().map(|child| child.id)),
            _ => {}
        }
    }
    Ok(found)
}
