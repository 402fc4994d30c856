//! Volumes: where they are, and the state of each.

use std::collections::HashSet;

use rusqlite::OptionalExtension;
use rusqlite::Row;

use crate::catalog::Catalog;
use crate::catalog::CatalogWriter;
use crate::catalog::blocks::insert_blocks;
use crate::catalog::lasting::is_retired;
use crate::compress::Codec;
use crate::error::Result;
use crate::hash::IdKeys;
use crate::id::NodeId;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::volume::FrameInfo;
use crate::volume::Index;
use crate::volume::Salt;

/// The state of a volume. The row is durable before the store is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// About to be put; the object may or may not exist.
    Intended,
    /// Put and durable.
    Stored,
    /// Announced as no longer to be used.
    Retired,
    /// About to be deleted, or deleted.
    Deleted,
    /// Known to be missing or damaged in the store.
    Lost,
}

impl VolumeState {
    fn code(self) -> i64 {
        match self {
            VolumeState::Intended => 0,
            VolumeState::Stored => 1,
            VolumeState::Retired => 2,
            VolumeState::Deleted => 3,
            VolumeState::Lost => 4,
        }
    }

    /// An unknown code is read as the state that promises least.
    pub(super) fn from_code(code: i64) -> VolumeState {
        match code {
            0 => VolumeState::Intended,
            1 => VolumeState::Stored,
            2 => VolumeState::Retired,
            3 => VolumeState::Deleted,
            _ => VolumeState::Lost,
        }
    }

    /// A word for people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            VolumeState::Intended => "intended",
            VolumeState::Stored => "stored",
            VolumeState::Retired => "retired",
            VolumeState::Deleted => "deleted",
            VolumeState::Lost => "lost",
        }
    }
}

/// A volume that is about to be put, or was found in the store.
#[derive(Debug)]
pub struct NewVolume<'a> {
    /// SHA-256 of the object.
    pub name: VolumeName,
    /// What it holds.
    pub kind: VolumeKind,
    /// Length of the object.
    pub bytes: u64,
    /// How many bytes at its end hold what a catalog learns from it, 0 if unknown.
    pub learn_bytes: u64,
    /// From which its key is derived.
    pub salt: Salt,
    /// Its frames, blocks and nodes.
    pub index: &'a Index,
    /// Its nodes with their bytes, in any order.
    pub nodes: &'a [(NodeId, Vec<u8>)],
}

/// A volume learnt from the store.
#[derive(Debug)]
pub struct LearntVolume<'a> {
    /// What it holds.
    pub volume: NewVolume<'a>,
    /// Its state: stored, or lost if it cannot be read.
    pub state: VolumeState,
    /// What the store calls this version of it.
    pub etag: Option<&'a str>,
    /// The row number that it should have, if free: numbers reflect the order in which volumes were made.
    pub row: Option<i64>,
}

/// A volume as the catalog knows it.
#[derive(Debug, Clone)]
pub struct VolumeRow {
    /// Row number, used to refer to it inside this catalog.
    pub id: i64,
    /// SHA-256 of the object.
    pub name: VolumeName,
    /// What it holds.
    pub kind: VolumeKind,
    /// Its state.
    pub state: VolumeState,
    /// Length of the object.
    pub bytes: u64,
    /// What the store called this version of it.
    pub etag: Option<String>,
    /// From which its key is derived.
    pub salt: Salt,
    /// Length of its plaintext.
    pub plain_bytes: u64,
    /// Where the nodes begin in its plaintext; the blocks lie before.
    pub nodes_at: u64,
    /// How many bytes at its end hold what a catalog learns from it, 0 if unknown.
    pub learn_bytes: u64,
    /// Its frames with the offset of each in the object.
    pub frames: Vec<(u64, FrameInfo)>,
    /// True once a commit has named it.
    pub is_announced: bool,
}

/// The facts about a volume that are compared with the store's list.
#[derive(Debug, Clone)]
pub struct VolumeMark {
    /// Row number.
    pub id: i64,
    /// SHA-256 of the object.
    pub name: VolumeName,
    /// What it holds.
    pub kind: VolumeKind,
    /// Its state.
    pub state: VolumeState,
    /// Length of the object.
    pub bytes: u64,
    /// What the store called this version of it.
    pub etag: Option<String>,
    /// True if its index has been read, so that its blocks are known.
    pub is_learnt: bool,
    /// True once a commit that was adopted has named it.
    pub is_announced: bool,
}

const VOLUME_COLUMNS: &str =
    "id, name, kind, state, bytes, etag, salt, plain_bytes, frames, announced, nodes_at, learn_bytes, frames_at";

impl Catalog {
    /// The volume with this row number.
    pub fn volume(&self, id: i64) -> Result<Option<VolumeRow>> {
        self.run(|conn| {
            conn.prepare_cached(&format!("SELECT {VOLUME_COLUMNS} FROM volume WHERE id = ?1"))?
                .query_row([id], volume_row)
                .optional()
        })
    }

    /// All volumes, in the order in which they were made.
    pub fn volumes(&self) -> Result<Vec<VolumeRow>> {
        self.volumes_where("true")
    }

    /// The facts about all volumes that are compared with the store's list, at a fraction of the cost of
    /// [`Catalog::volumes`].
    pub fn volume_marks(&self) -> Result<Vec<VolumeMark>> {
        self.run(|conn| {
            conn.prepare_cached(
                "SELECT id, name, kind, state, bytes, etag, frames <> x'', announced FROM volume ORDER BY id",
            )?
            .query_map([], |row| {
                Ok(VolumeMark {
                    id: row.get(0)?,
                    name: VolumeName(row.get(1)?),
                    kind: VolumeKind::from_code(row.get(2)?).ok_or_else(|| bad_column(2))?,
                    state: VolumeState::from_code(row.get(3)?),
                    bytes: row.get::<_, i64>(4)?.cast_unsigned(),
                    etag: row.get(5)?,
                    is_learnt: row.get(6)?,
                    is_announced: row.get(7)?,
                })
            })?
            .collect()
        })
    }

    /// The volume whose key is derived from this salt.
    pub fn volume_of_salt(&self, salt: &Salt) -> Result<Option<VolumeName>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT name FROM volume WHERE salt = ?1")?
                .query_row([salt], |row| row.get(0).map(VolumeName))
                .optional()
        })
    }

    /// Volumes that may or may not have been stored.
    pub fn volumes_intended(&self) -> Result<Vec<VolumeRow>> {
        self.volumes_where("state = 0")
    }

    /// One more than the highest row number that a volume has had so far.
    pub fn volume_number_next(&self) -> Result<i64> {
        self.run(|conn| {
            conn.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'volume'")?
                .query_row([], |row| row.get::<_, i64>(0))
                .optional()
        })
        .map(|last| last.unwrap_or(0) + 1)
    }

    /// Names of all volumes, whatever their state.
    pub fn volume_names(&self) -> Result<HashSet<VolumeName>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT name FROM volume")?.query_map([], |row| row.get(0).map(VolumeName))?.collect()
        })
    }

    /// True if the store may lack blocks of snapshots. Once a volume is lost this stays true: the content of an
    /// unreadable volume is unknown, and blocks that were to be stored again may have been lost on the way.
    pub fn has_volumes_not_stored(&self) -> Result<bool> {
        // The few rows of volumes usually give the answer; blocks are looked at only if a volume is not there.
        self.run(|conn| {
            conn.query_row(
                "SELECT EXISTS (SELECT 1 FROM volume WHERE state = 4)
                     OR EXISTS (SELECT 1 FROM volume WHERE state <> 1)
                     AND EXISTS (SELECT 1 FROM block WHERE volume IN (SELECT id FROM volume WHERE state <> 1))",
                [],
                |row| row.get(0),
            )
        })
    }

    pub(super) fn volumes_where(&self, condition: &'static str) -> Result<Vec<VolumeRow>> {
        self.run(|conn| {
            conn.prepare_cached(&format!("SELECT {VOLUME_COLUMNS} FROM volume WHERE {condition} ORDER BY id"))?
                .query_map([], volume_row)?
                .collect()
        })
    }

    /// Stored bytes of all volumes that are there.
    pub fn stored_bytes(&self) -> Result<u64> {
        self.run(|conn| {
            conn.query_row("SELECT coalesce(sum(bytes), 0) FROM volume WHERE state = 1", [], |row| row.get::<_, i64>(0))
        })
        .map(i64::cast_unsigned)
    }
}

impl CatalogWriter {
    /// Records a volume that is about to be put (or, with `VolumeState::Stored`, one found in the store) with its
    /// blocks and nodes, in one durable transaction. Blocks whose volume was lost move to this one.
    pub fn volume_add(&mut self, volume: &NewVolume<'_>, state: VolumeState) -> Result<i64> {
        let ids = self.catalog.ids.clone();
        self.transact(|conn| insert_volume(conn, &ids, volume, state, None))
    }

    /// Takes in nodes of volumes that are not in the catalog yet, in one durable transaction.
    pub fn nodes_learn(&mut self, nodes: &[(NodeId, Vec<u8>)]) -> Result<()> {
        let ids = self.catalog.ids.clone();
        self.transact(|conn| super::nodes::insert_nodes(conn, &ids, nodes))
    }

    /// Records volumes learnt from the store, in one durable transaction. A known volume is rewritten with its blocks
    /// and nodes, because it was lost and is there again.
    pub fn volumes_learn(&mut self, volumes: &[LearntVolume<'_>]) -> Result<()> {
        let ids = self.catalog.ids.clone();
        self.transact(|conn| {
            for LearntVolume { volume, state, etag, row } in volumes {
                let known = conn
                    .prepare_cached("SELECT id FROM volume WHERE name = ?1")?
                    .query_row([&volume.name.0], |row| row.get::<_, i64>(0))
                    .optional()?;
                let state = if is_retired(conn, &volume.name)? { VolumeState::Retired } else { *state };
                let id = match known {
                    Some(id) => rewrite_volume(conn, &ids, id, volume, state)?,
                    None => insert_volume(conn, &ids, volume, state, *row)?,
                };
                conn.prepare_cached("UPDATE volume SET etag = ?2 WHERE id = ?1")?.execute((id, etag))?;
            }
            Ok(())
        })
    }

    /// Records that a volume was put and is durable. One that was retired in the meantime stays retired.
    pub fn volume_stored(&mut self, id: i64, etag: Option<&str>) -> Result<()> {
        let set = "UPDATE volume SET state = CASE WHEN state IN (2, 3) THEN state ELSE 1 END, etag = ?2 WHERE id = ?1";
        self.transact(|conn| conn.execute(set, (id, etag)).map(|_| ()))
    }

    /// Records what the store calls the versions of volumes that it has.
    pub fn volumes_etag(&mut self, etags: &[(i64, String)]) -> Result<()> {
        self.transact(|conn| {
            let mut update = conn.prepare_cached("UPDATE volume SET etag = ?2 WHERE id = ?1")?;
            etags.iter().try_for_each(|(id, etag)| update.execute((id, etag)).map(|_| ()))
        })
    }

    /// Records a volume's state. A retired one can only be deleted.
    pub fn volume_state(&mut self, id: i64, state: VolumeState) -> Result<()> {
        let set = "UPDATE volume SET state = ?2 WHERE id = ?1 AND (state NOT IN (2, 3) OR ?2 = 3)";
        self.transact(|conn| conn.execute(set, (id, state.code())).map(|_| ()))
    }

    /// Forgets an intended volume that was never stored, with its blocks.
    pub fn volume_void(&mut self, id: i64) -> Result<()> {
        self.transact(|conn| {
            conn.execute("DELETE FROM block WHERE volume = ?1", [id])?;
            conn.execute("DELETE FROM volume WHERE id = ?1", [id]).map(|_| ())
        })
    }
}

/// Inserts a volume, with this row number if it is free.
fn insert_volume(
    conn: &rusqlite::Connection,
    ids: &IdKeys,
    volume: &NewVolume<'_>,
    state: VolumeState,
    row: Option<i64>,
) -> rusqlite::Result<i64> {
    let is_taken = |row: &i64| conn.prepare_cached("SELECT 1 FROM volume WHERE id = ?1")?.exists([row]);
    let row = match row {
        Some(row) if is_taken(&row)? => None,
        row => row,
    };
    let frames: Vec<u8> = volume.index.frames.iter().flat_map(pack_frame).collect();
    conn.prepare_cached(
        "INSERT INTO volume (id, name, kind, state, bytes, salt, plain_bytes, frames, nodes_at, learn_bytes, frames_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute((
        row,
        &volume.name.0,
        volume.kind.code(),
        state.code(),
        volume.bytes.cast_signed(),
        &volume.salt,
        volume.index.plain_bytes().cast_signed(),
        &frames,
        volume.index.nodes_at().cast_signed(),
        volume.learn_bytes.cast_signed(),
        volume.index.frames_at.cast_signed(),
    ))?;
    let row = conn.last_insert_rowid();
    insert_blocks(conn, ids, row, volume.index)?;
    super::nodes::insert_nodes(conn, ids, volume.nodes)?;
    Ok(row)
}

/// Replaces what was known of a volume's content.
fn rewrite_volume(
    conn: &rusqlite::Connection,
    ids: &IdKeys,
    row: i64,
    volume: &NewVolume<'_>,
    state: VolumeState,
) -> rusqlite::Result<i64> {
    let frames: Vec<u8> = volume.index.frames.iter().flat_map(pack_frame).collect();
    // Its rows are placed anew, so that its old rows and rows of other volumes are treated alike.
    conn.prepare_cached("DELETE FROM block WHERE volume = ?1")?.execute([row])?;
    conn.prepare_cached(
        "UPDATE volume SET state = ?2, bytes = ?3, salt = ?4, plain_bytes = ?5, frames = ?6, nodes_at = ?7,
             learn_bytes = ?8, frames_at = ?9 WHERE id = ?1",
    )?
    .execute((
        row,
        state.code(),
        volume.bytes.cast_signed(),
        &volume.salt,
        volume.index.plain_bytes().cast_signed(),
        &frames,
        volume.index.nodes_at().cast_signed(),
        volume.learn_bytes.cast_signed(),
        volume.index.frames_at.cast_signed(),
    ))?;
    insert_blocks(conn, ids, row, volume.index)?;
    super::nodes::insert_nodes(conn, ids, volume.nodes)?;
    Ok(row)
}

fn pack_frame(frame: &FrameInfo) -> [u8; 4] {
    (u32::from(frame.codec.to_u8()) << 28 | frame.stored_bytes).to_le_bytes()
}

fn unpack_frames(bytes: &[u8], frames_at: u64) -> Option<Vec<(u64, FrameInfo)>> {
    let mut offset = frames_at;
    bytes
        .chunks(4)
        .map(|packed| {
            let packed = u32::from_le_bytes(packed.try_into().ok()?);
            let codec = Codec::from_u8(u8::try_from(packed >> 28).ok()?)?;
            let frame = FrameInfo { codec, stored_bytes: packed & 0x0fff_ffff };
            let at = offset;
            offset = offset.saturating_add(u64::from(frame.stored_bytes));
            Some((at, frame))
        })
        .collect()
}

fn bad_column(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "volume".into(), rusqlite::types::Type::Blob)
}

fn volume_row(row: &Row<'_>) -> rusqlite::Result<VolumeRow> {
    let frames_at = row.get::<_, i64>(12)?.cast_unsigned();
    Ok(VolumeRow {
        id: row.get(0)?,
        name: VolumeName(row.get(1)?),
        kind: VolumeKind::from_code(row.get(2)?).ok_or_else(|| bad_column(2))?,
        state: VolumeState::from_code(row.get(3)?),
        bytes: row.get::<_, i64>(4)?.cast_unsigned(),
        etag: row.get(5)?,
        salt: row.get(6)?,
        plain_bytes: row.get::<_, i64>(7)?.cast_unsigned(),
        frames: unpack_frames(&row.get::<_, Vec<u8>>(8)?, frames_at).ok_or_else(|| bad_column(8))?,
        is_announced: row.get(9)?,
        nodes_at: row.get::<_, i64>(10)?.cast_unsigned(),
        learn_bytes: row.get::<_, i64>(11)?.cast_unsigned(),
    })
}
