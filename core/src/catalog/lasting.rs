//! What commits have said once and for ever: key slots that were removed, volumes that were retired, features, and
//! commits for which a checkpoint stands.
//!
//! None of it is ever taken back, so the order in which commits are read does not matter. A volume may even be retired
//! before this machine learns that there is such a volume.

use std::collections::HashSet;

use rusqlite::Connection;

use crate::catalog::Catalog;
use crate::catalog::CatalogWriter;
use crate::commit::ChainLoss;
use crate::commit::Commit;
use crate::error::Result;
use crate::features::Features;
use crate::id::ClientId;
use crate::id::SlotId;
use crate::id::VolumeName;

/// Names of the lists of features.
const LISTS: [&str; 3] = ["read", "write", "optional"];

impl Catalog {
    /// Key slots that were removed.
    pub fn slots_removed(&self) -> Result<Vec<SlotId>> {
        self.slots_removed_where("true")
    }

    pub(super) fn slots_removed_where(&self, condition: &'static str) -> Result<Vec<SlotId>> {
        self.run(|conn| {
            if !is_known(conn)? {
                return Ok(Vec::new());
            }
            conn.prepare_cached(&format!("SELECT id FROM slot_removed WHERE {condition} ORDER BY id"))?
                .query_map([], |row| row.get(0).map(SlotId))?
                .collect()
        })
    }

    /// Volumes that were retired, whether this machine knows them or not.
    pub fn volumes_retired(&self) -> Result<HashSet<VolumeName>> {
        Ok(self.volumes_retired_where("true")?.into_iter().collect())
    }

    pub(super) fn volumes_retired_where(&self, condition: &'static str) -> Result<Vec<VolumeName>> {
        self.run(|conn| {
            conn.prepare_cached(&format!("SELECT name FROM volume_retired WHERE {condition} ORDER BY name"))?
                .query_map([], |row| row.get(0).map(VolumeName))?
                .collect()
        })
    }

    /// The features that commits have named.
    pub fn features(&self) -> Result<Features> {
        self.features_where("true")
    }

    pub(super) fn features_where(&self, condition: &'static str) -> Result<Features> {
        let named = |list: &str| {
            self.run(|conn| {
                if !is_known(conn)? {
                    return Ok(Vec::new());
                }
                let sql = format!("SELECT name FROM feature WHERE list = ?1 AND {condition} ORDER BY name");
                conn.prepare_cached(&sql)?.query_map([list], |row| row.get(0))?.collect()
            })
        };
        let [read, write, optional] = LISTS.map(named);
        Ok(Features { read: read?, write: write?, optional: optional? })
    }

    /// Commits that nobody needs any more, because a checkpoint says what they said.
    pub fn chains_covered(&self) -> Result<Vec<ChainLoss>> {
        self.chain_ranges("chain_covered")
    }
}

impl CatalogWriter {
    /// Retires volumes, whether they are known or not. This comes before new volumes are learnt, which then become the
    /// places of blocks that lie in the retired ones too.
    pub fn volumes_retire(&mut self, names: &[VolumeName]) -> Result<()> {
        self.transact(|conn| names.iter().try_for_each(|name| retire(conn, name)))
    }

    /// Records features that a commit needs, even if it cannot be adopted because of them.
    pub fn features_learn(&mut self, features: &Features) -> Result<()> {
        self.transact(|conn| learn_features(conn, features))
    }
}

/// False for an older catalog that is open for reading only, and so was not brought up to date.
fn is_known(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'feature'")?.exists([])
}

/// Takes in what a commit of `client`'s chain says for ever.
pub(super) fn adopt(conn: &Connection, client: ClientId, seq: u64, commit: &Commit) -> rusqlite::Result<()> {
    for id in &commit.slots_removed {
        conn.prepare_cached("INSERT OR REPLACE INTO slot_removed (id, announced) VALUES (?1, 1)")?.execute([&id.0])?;
    }
    commit.volumes_retired.iter().try_for_each(|name| retire(conn, name))?;
    learn_features(conn, &commit.needs())?;
    if let Some(ChainLoss { first, last, .. }) = commit.checkpoint.covered(client, seq) {
        let range = (&client.0, first.cast_signed(), last.cast_signed());
        // What an earlier checkpoint stood for, this one stands for too.
        conn.prepare_cached("DELETE FROM chain_covered WHERE client = ?1 AND first >= ?2 AND last <= ?3")?
            .execute(range)?;
        conn.prepare_cached("INSERT OR REPLACE INTO chain_covered (client, first, last) VALUES (?1, ?2, ?3)")?
            .execute(range)?;
        conn.prepare_cached("DELETE FROM commit_seen WHERE client = ?1 AND seq BETWEEN ?2 AND ?3")?.execute(range)?;
    }
    Ok(())
}

fn retire(conn: &Connection, name: &VolumeName) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO volume_retired (name, announced) VALUES (?1, 1)")?
        .execute([&name.0])?;
    conn.prepare_cached("UPDATE volume SET state = 2 WHERE name = ?1 AND state IN (0, 1, 4)")?
        .execute([&name.0])
        .map(|_| ())
}

/// True if some commit has retired the volume.
pub(super) fn is_retired(conn: &Connection, name: &VolumeName) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM volume_retired WHERE name = ?1")?.exists([&name.0])
}

fn learn_features(conn: &Connection, features: &Features) -> rusqlite::Result<()> {
    let mut insert =
        conn.prepare_cached("INSERT OR REPLACE INTO feature (list, name, announced) VALUES (?1, ?2, 1)")?;
    for (list, names) in LISTS.into_iter().zip([&features.read, &features.write, &features.optional]) {
        names.iter().try_for_each(|name| insert.execute((list, name)).map(|_| ()))?;
    }
    Ok(())
}
