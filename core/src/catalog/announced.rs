//! What the store's commits are known to announce, and what this machine's next commit must announce besides its own
//! news.
//!
//! The next commit names volumes that no commit has named yet. And when commits are lost, machines that have seen them
//! announce their content again; otherwise a rebuilt catalog would never learn of it.

use std::collections::HashSet;

use crate::catalog::Catalog;
use crate::catalog::CatalogWriter;
use crate::catalog::VolumeRow;
use crate::error::Result;
use crate::features::Features;
use crate::id::SlotId;
use crate::id::SnapshotId;
use crate::id::VolumeName;
use crate::snapshot::Snapshot;

/// What the next commit must announce.
#[derive(Debug, Default)]
pub struct Unannounced {
    /// Volumes that are stored.
    pub volumes: Vec<VolumeRow>,
    /// Snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Snapshots that were removed.
    pub snapshots_removed: Vec<SnapshotId>,
    /// Volumes that were retired.
    pub volumes_retired: Vec<VolumeName>,
    /// Key slots that were removed.
    pub slots_removed: Vec<SlotId>,
    /// Features.
    pub features: Features,
}

/// What must be announced again.
#[derive(Debug, Default)]
pub struct Again {
    /// Volumes.
    pub volumes: HashSet<VolumeName>,
    /// Snapshots.
    pub snapshots: HashSet<SnapshotId>,
    /// Snapshots that were removed.
    pub snapshots_removed: HashSet<SnapshotId>,
    /// Volumes that were retired.
    pub volumes_retired: HashSet<VolumeName>,
    /// Key slots that were removed.
    pub slots_removed: HashSet<SlotId>,
    /// Features, of any list.
    pub features: HashSet<String>,
}

impl Catalog {
    /// Everything that no commit announces, as far as this machine knows.
    pub fn unannounced(&self) -> Result<Unannounced> {
        let snapshots = self.snapshots_where("announced = 0")?;
        Ok(Unannounced {
            volumes: self.volumes_where("state = 1 AND announced = 0")?,
            snapshots: snapshots.into_iter().map(|row| row.snapshot).collect(),
            snapshots_removed: self.snapshots_removed_where("announced = 0")?,
            volumes_retired: self.volumes_retired_where("announced = 0")?,
            slots_removed: self.slots_removed_where("announced = 0")?,
            features: self.features_where("announced = 0")?,
        })
    }
}

impl CatalogWriter {
    /// Makes the next commit announce this again, as far as it still holds. One durable transaction.
    pub fn announce_again(&mut self, again: &Again) -> Result<()> {
        self.transact(|conn| {
            let mut volume = conn.prepare_cached("UPDATE volume SET announced = 0 WHERE name = ?1")?;
            let mut snapshot = conn.prepare_cached("UPDATE snapshot SET announced = 0 WHERE id = ?1")?;
            let mut removed = conn.prepare_cached("UPDATE snapshot_removed SET announced = 0 WHERE id = ?1")?;
            let mut retired = conn.prepare_cached("UPDATE volume_retired SET announced = 0 WHERE name = ?1")?;
            let mut slot = conn.prepare_cached("UPDATE slot_removed SET announced = 0 WHERE id = ?1")?;
            let mut feature = conn.prepare_cached("UPDATE feature SET announced = 0 WHERE name = ?1")?;
            again.volumes_retired.iter().try_for_each(|name| retired.execute([&name.0]).map(drop))?;
            again.slots_removed.iter().try_for_each(|id| slot.execute([&id.0]).map(drop))?;
            again.features.iter().try_for_each(|name| feature.execute([name]).map(drop))?;
            again.volumes.iter().try_for_each(|name| volume.execute([&name.0]).map(drop))?;
            again.snapshots.iter().try_for_each(|id| snapshot.execute([&id.0]).map(drop))?;
            again.snapshots_removed.iter().try_for_each(|id| removed.execute([&id.0]).map(drop))
        })
    }
}
