//! What to read, and in which order: the trees of the newest snapshots first, because people want those first.
//!
//! Numbers of volumes and snapshots in the catalog reflect the order in which they were made. So they are assigned
//! here, before anything is read, as if the oldest were read first.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::catalog::CatalogWriter;
use crate::commit::VolumeAdded;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::recover::fetch::bytes_to_read;
use crate::recover::newest::WORTH_BYTES;
use crate::repo::LockedRepository;
use crate::snapshot::Snapshot;
use crate::survey::Look;
use crate::survey::Unseen;

/// A volume of trees is small if it takes at most one part in this many of what makes the newest snapshot worth bringing
/// ahead.
const SMALL_PART: u64 = 16;

/// The amount of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// New commits; they have been read already.
    pub commits: u64,
    /// Volumes to be read.
    pub volumes: u64,
    /// About how many bytes of them are to be read.
    pub bytes: u64,
    /// The volumes of which only the end is read: their cost is latency more than bytes.
    pub tails: u64,
}

/// What is to be learnt from the store.
pub struct Plan {
    pub(super) look: Look,
    /// Volumes in reading order, each with its intended row number.
    pub(super) volumes: Vec<(VolumeAdded, Option<i64>)>,
    /// Volumes that are known to be lost without reading them, each with the reason.
    pub(super) lost: Vec<(VolumeAdded, Option<i64>, String)>,
    /// How many volumes of trees are so small that their nodes come first, at no more requests than their indexes.
    pub(super) small_end: usize,
    /// How many of the volumes must be in before the trees of all snapshots are complete.
    pub(super) trees_end: usize,
    /// New snapshots, newest first, each with its intended number.
    pub(super) snapshots: Vec<(Snapshot, u64)>,
    /// How many snapshots the commits add that were not known.
    pub(super) snapshots_new: u64,
    /// With this many bytes in meta volumes, bringing the newest snapshot ahead is worth while.
    pub(super) newest_worth_bytes: u64,
}

impl Plan {
    /// Only what commits announce.
    pub(super) fn of_commits(locked: &mut LockedRepository, look: Look) -> Result<Plan> {
        let catalog = locked.catalog();
        let marks = catalog.read().volume_marks()?;
        let rows: HashMap<VolumeName, i64> = marks.iter().map(|mark| (mark.name, mark.id)).collect();
        // What a checkpoint says again has its number already. Other known volumes are those of an interrupted run, whose
        // numbers go on.
        let said: HashSet<VolumeName> = marks.iter().filter(|mark| mark.is_announced).map(|mark| mark.name).collect();
        let mut announced: HashSet<VolumeName> = HashSet::new();
        let all: Vec<&VolumeAdded> = look
            .commits
            .iter()
            .flat_map(|unseen| &unseen.commit.volumes_added)
            .filter(|volume| announced.insert(volume.name) && !said.contains(&volume.name))
            .collect();
        let mut retired = catalog.read().volumes_retired()?;
        retired.extend(look.commits.iter().flat_map(|unseen| &unseen.commit.volumes_retired));
        let next = catalog.read().volume_number_next()?;
        let first = first_number(all.iter().map(|volume| rows.get(&volume.name).copied()), next);
        let numbered = all.iter().zip(first..).filter(|(volume, _)| !rows.contains_key(&volume.name));
        let (mut volumes, mut lost) = (Vec::new(), Vec::new());
        for (volume, row) in numbered {
            // The mark in this store's list: a copied store has other marks than its commits say.
            let shown = look.listing.volume(volume.kind, volume.name);
            if shown.is_none() && retired.contains(&volume.name) {
                continue;
            }
            let etag = shown.map_or_else(|| volume.etag.clone(), |shown| shown.etag.clone());
            let added = VolumeAdded { etag, ..(*volume).clone() };
            match shown {
                Some(shown) if shown.bytes != added.bytes => {
                    let detail = format!("its length is {} instead of {} bytes", shown.bytes, added.bytes);
                    lost.push((added, Some(row), detail));
                }
                _ => volumes.push((added, Some(row))),
            }
        }
        let (snapshots, snapshots_new) = new_snapshots(catalog, &look.commits)?;
        let (small_end, trees_end, newest_worth_bytes) = (0, 0, WORTH_BYTES);
        let mut plan = Plan { look, volumes, lost, small_end, trees_end, snapshots, snapshots_new, newest_worth_bytes };
        plan.sort();
        Ok(plan)
    }

    /// Includes what no commit announces, such as volumes of interrupted backups.
    pub(super) fn of_everything(locked: &mut LockedRepository, look: Look) -> Result<Plan> {
        let mut plan = Plan::of_commits(locked, look)?;
        let mut known = locked.catalog().read().volume_names()?;
        let announced = plan.look.commits.iter().flat_map(|unseen| &unseen.commit.volumes_added);
        known.extend(announced.map(|volume| volume.name));
        // One that was retired is not to be used, even if nothing says any more what it was.
        known.extend(locked.catalog().read().volumes_retired()?);
        known.extend(plan.look.commits.iter().flat_map(|unseen| &unseen.commit.volumes_retired));
        let unknown = plan.look.listing.volumes().filter(|(_, name, _)| !known.contains(name));
        let orphans = unknown.map(|(kind, name, shown)| {
            let (bytes, etag) = (shown.bytes, shown.etag.clone());
            (VolumeAdded { name, kind, bytes, learn_bytes: 0, etag }, None)
        });
        plan.volumes.extend(orphans.collect::<Vec<_>>());
        plan.sort();
        Ok(plan)
    }

    /// Trees before data, small ones of them first, new before old, and unannounced volumes last.
    fn sort(&mut self) {
        let small_bytes_max = self.newest_worth_bytes / SMALL_PART;
        let is_large = |volume: &VolumeAdded| bytes_to_read(volume) > small_bytes_max;
        self.volumes.sort_by_key(|(volume, row)| {
            let is_data = volume.kind == VolumeKind::Data;
            (row.is_none(), is_data, !is_data && is_large(volume), row.map(|row| -row))
        });
        let trees = self.volumes.iter().filter(|(volume, row)| row.is_some() && volume.kind == VolumeKind::Meta);
        self.trees_end = trees.clone().count();
        self.small_end = trees.filter(|(volume, _)| !is_large(volume)).count();
    }

    /// Brings the newest snapshot ahead if trees take at least this many bytes. The default is sensible; tests lower
    /// it.
    pub fn with_newest_ahead_from(self, newest_worth_bytes: u64) -> Plan {
        let mut plan = Plan { newest_worth_bytes, ..self };
        plan.sort();
        plan
    }

    /// The amount of work.
    pub fn work(&self) -> Work {
        Work {
            commits: self.look.commits.len() as u64,
            volumes: self.volumes.len() as u64,
            bytes: self.volumes.iter().map(|(volume, _)| bytes_to_read(volume)).sum(),
            tails: self.volumes.iter().filter(|(volume, _)| volume.kind == VolumeKind::Data).count() as u64,
        }
    }
}

/// The snapshots that the commits add and no commit has removed, newest first, without those that are shown already;
/// and the number of those that the commits add and that were not known.
fn new_snapshots(catalog: &CatalogWriter, commits: &[Unseen]) -> Result<(Vec<(Snapshot, u64)>, u64)> {
    // A catalog that has adopted nothing may have those that an interrupted recovery has shown, whose numbers go on.
    let is_first = catalog.read().heads()?.is_empty();
    let mut removed: HashSet<SnapshotId> = catalog.read().snapshots_removed()?.into_iter().collect();
    removed.extend(commits.iter().flat_map(|unseen| &unseen.commit.snapshots_removed));
    let rows: HashMap<SnapshotId, u64> =
        catalog.read().snapshots()?.into_iter().map(|row| (row.snapshot.id, row.number)).collect();
    let mut added: HashSet<SnapshotId> = HashSet::new();
    let all = commits.iter().flat_map(|unseen| &unseen.commit.snapshots_added);
    let all = all.filter(|snapshot| added.insert(snapshot.id) && (is_first || !rows.contains_key(&snapshot.id)));
    let all: Vec<&Snapshot> = all.collect();
    let row = |snapshot: &&Snapshot| rows.get(&snapshot.id).map(|number| number.cast_signed());
    let first = first_number(all.iter().map(row), catalog.snapshot_number_next()?.cast_signed());
    let numbered = all.iter().zip(first.cast_unsigned()..);
    let mut new: Vec<(Snapshot, u64)> = numbered
        .filter(|(snapshot, _)| !removed.contains(&snapshot.id) && !rows.contains_key(&snapshot.id))
        .map(|(snapshot, number)| ((*snapshot).clone(), number))
        .collect();
    new.sort_by_key(|(snapshot, number)| std::cmp::Reverse((snapshot.time, *number)));
    Ok((new, all.len() as u64))
}

/// The number of the first of several items in order, some of which may have a number from an interrupted run.
fn first_number(known: impl Iterator<Item = Option<i64>>, next: i64) -> i64 {
    let mut places = known.zip(0i64..);
    places.find_map(|(number, place)| Some(number? - place)).filter(|first| *first > 0).unwrap_or(next)
}
