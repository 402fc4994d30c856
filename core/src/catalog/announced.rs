//! What the store's commits are known to say, and what the next commit of this machine has to say beside its own news.
//!
//! Volumes that no commit has named yet are named by the next one. And commits get lost: what they had said, machines that
//! have seen them say again, else a catalog that is rebuilt would never learn of it.

use std::collections::HashSet;

use super::Catalog;
use super::CatalogWriter;
use super::VolumeRow;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::id::VolumeName;
use crate::snapshot::Snapshot;

/// What the next commit has to say.
#[derive(Debug, Default)]
pub struct Unannounced {
    /// Volumes that are stored.
    pub volumes: Vec<VolumeRow>,
    /// Snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Snapshots that were removed.
    pub snapshots_removed: Vec<SnapshotId>,
}

/// What is to be said again.
#[derive(Debug, Default)]
pub struct Again {
    /// Volumes.
    pub volumes: HashSet<VolumeName>,
    /// Snapshots.
    pub snapshots: HashSet<SnapshotId>,
    /// Snapshots that were removed.
    pub snapshots_removed: HashSet<SnapshotId>,
}

impl Catalog {
    /// What no commit says, as far as this machine knows.
    pub fn unannounced(&self) -> Result<Unannounced> {
        let snapshots = self.snapshots_where("announced = 0")?;
        Ok(Unannounced {
            volumes: self.volumes_where("state = 1 AND announced = 0")?,
            snapshots: snapshots.into_iter().map(|row| row.snapshot).collect(),
            snapshots_removed: self.snapshots_removed_where("announced = 0")?,
        })
    }
}

impl CatalogWriter {
    /// Has the next commit say this again, as far as it still holds. One durable transaction.
    pub fn announce_again(&mut self, again: &Again) -> Result<()> {
        self.transact(|conn| {
            let mut volume = conn.prepare_cached("UPDATE volume SET announced = 0 WHERE name = ?1")?;
            let mut snapshot = conn.prepare_cached("UPDATE snapshot SET announced = 0 WHERE id = ?1")?;
            let mut removed = conn.prepare_cached("UPDATE snapshot_removed SET announced = 0 WHERE id = ?1")?;
            again.volumes.iter().try_for_each(|name| volume.execute([&name.0]).map(drop))?;
            again.snapshots.iter().try_for_each(|id| snapshot.execute([&id.0]).map(drop))?;
            again.snapshots_removed.iter().try_for_each(|id| removed.execute([&id.0]).map(drop))
        })
    }
}
