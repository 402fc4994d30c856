//! Where blocks and nodes lie. Each locating row carries a keyed check of itself, so a flipped bit here never leads to
//! wrong bytes.

use rusqlite::OptionalExtension;

use crate::catalog::Catalog;
use crate::catalog::VolumeState;
use crate::error::Result;
use crate::hash::IdKeys;
use crate::volume::Index;
use crate::volume::Item;

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Row number of its volume.
    pub volume: i64,
    /// Offset in the volume's plaintext.
    pub position: u64,
    /// Its length.
    pub length: u32,
}

/// A block with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRow {
    /// The bytes of its `BlockId` or `NodeId`.
    pub id: [u8; 32],
    /// Where it lies.
    pub location: Location,
    /// The rolling checksum of a full-size block of file content.
    pub checksum: Option<u64>,
}

impl Catalog {
    /// Where a block or node lies and the state of its volume; `None` if it was never stored.
    pub fn locate(&self, id: &[u8; 32]) -> Result<Option<(Location, VolumeState)>> {
        let row = self.run(|conn| {
            conn.prepare_cached(
                "SELECT b.volume, b.position, b.length, b.checksum, b.row_check, v.state
                 FROM block b JOIN volume v ON v.id = b.volume WHERE b.id = ?1",
            )?
            .query_row([id], |row| {
                let location = Location {
                    volume: row.get(0)?,
                    position: row.get::<_, i64>(1)?.cast_unsigned(),
                    length: row.get(2)?,
                };
                let checksum = row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned);
                Ok((location, checksum, row.get::<_, Vec<u8>>(4)?, VolumeState::from_code(row.get(5)?)))
            })
            .optional()
        })?;
        let Some((location, checksum, check, state)) = row else { return Ok(None) };
        if check != row_check(&self.ids, id, &location, checksum) {
            return Err(self.damaged("a row that locates a block has changed on disk"));
        }
        Ok(Some((location, state)))
    }

    /// Every block that the catalog locates in a volume, in order of position. A block that is stored twice is located
    /// in only one volume.
    pub fn blocks_of(&self, volume: i64) -> Result<Vec<BlockRow>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT id, position, length, checksum FROM block WHERE volume = ?1 ORDER BY position")?
                .query_map([volume], |row| {
                    let location =
                        Location { volume, position: row.get::<_, i64>(1)?.cast_unsigned(), length: row.get(2)? };
                    Ok(BlockRow {
                        id: row.get(0)?,
                        location,
                        checksum: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
                    })
                })?
                .collect()
        })
    }
}

/// Inserts in order of id, so that a first backup fills pages instead of splitting them.
pub(super) fn insert_blocks(
    conn: &rusqlite::Connection,
    ids: &IdKeys,
    volume: i64,
    index: &Index,
) -> rusqlite::Result<()> {
    let mut items: Vec<Item> = index.items().collect();
    items.sort_unstable_by_key(|item| item.id);
    // A block that is stored twice keeps its first place unless that place is lost. The first place is in the volume
    // with the lower number, in whatever order volumes are learnt.
    let mut insert = conn.prepare_cached(
        "INSERT INTO block (id, volume, position, length, checksum, row_check) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET volume = excluded.volume, position = excluded.position,
             length = excluded.length, checksum = excluded.checksum, row_check = excluded.row_check
         WHERE (SELECT state FROM volume WHERE id = block.volume) NOT IN (0, 1)
             OR excluded.volume < block.volume AND (SELECT state FROM volume WHERE id = excluded.volume) IN (0, 1)",
    )?;
    for Item { id, position, length, checksum, .. } in items {
        let check = row_check(ids, &id, &Location { volume, position, length }, checksum);
        insert.execute((&id, volume, position.cast_signed(), length, checksum.map(u64::cast_signed), &check))?;
    }
    Ok(())
}

/// The keyed check of a row that locates a block.
fn row_check(ids: &IdKeys, id: &[u8; 32], at: &Location, checksum: Option<u64>) -> [u8; 8] {
    let checksum = checksum.map_or([0; 9], |sum| {
        let mut coded = [1; 9];
        coded.iter_mut().skip(1).zip(sum.to_le_bytes()).for_each(|(to, from)| *to = from);
        coded
    });
    let fields: [&[u8]; 5] =
        [id, &at.volume.to_le_bytes(), &at.position.to_le_bytes(), &at.length.to_le_bytes(), &checksum];
    ids.row_check(&fields.concat())
}
