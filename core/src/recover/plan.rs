//! What is to be read, and in which order: the trees of the newest snapshots first, because people want those first.
//!
//! Numbers of volumes and snapshots in the catalog stand for the order in which they were made, so they are given out here,
//! before anything is read, as if the oldest were read first.

use std::collections::HashMap;
use std::collections::HashSet;

use super::fetch::bytes_to_read;
use super::newest::WORTH_BYTES;
use crate::catalog::CatalogWriter;
use crate::commit::VolumeAdded;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::repo::LockedRepository;
use crate::snapshot::Snapshot;
use crate::survey::Look;
use crate::survey::Unseen;

/// How much there is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Commits that are new; they are read already.
    pub commits: u64,
    /// Volumes to be read.
    pub volumes: u64,
    /// Bytes of them to be read, about.
    pub bytes: u64,
    /// Of the volumes, those of which only the end is read: what reading them takes is latency more than bytes.
    pub tails: u64,
}

/// What is to be learnt from the store.
pub struct Plan {
    pub(super) look: Look,
    /// Volumes in the order in which they are to be read, with the row number that each should have.
    pub(super) volumes: Vec<(VolumeAdded, Option<i64>)>,
    /// Volumes that need not be read to know that they are lost, with what is wrong.
    pub(super) lost: Vec<(VolumeAdded, Option<i64>, String)>,
    /// How many of them must be in before the trees of all snapshots are whole.
    pub(super) trees_end: usize,
    /// New snapshots, newest first, with the number that each should have.
    pub(super) snapshots: Vec<(Snapshot, u64)>,
    /// So much in meta volumes makes it worth while to bring the newest snapshot ahead of them.
    pub(super) newest_worth_bytes: u64,
}

impl Plan {
    /// Only what commits announce.
    pub(super) fn of_commits(locked: &mut LockedRepository, look: Look) -> Result<Plan> {
        let catalog = locked.catalog();
        let rows: HashMap<VolumeName, i64> =
            catalog.read().volume_marks()?.into_iter().map(|mark| (mark.name, mark.id)).collect();
        let mut announced: HashSet<VolumeName> = HashSet::new();
        let all: Vec<&VolumeAdded> = look
            .commits
            .iter()
            .flat_map(|unseen| &unseen.commit.volumes_added)
            .filter(|volume| announced.insert(volume.name))
            .collect();
        let retired = retired(&look.commits);
        let next = rows.values().max().copied().unwrap_or(0) + 1;
        let first = first_number(all.iter().map(|volume| rows.get(&volume.name).copied()), next);
        let numbered = all.iter().zip(first..).filter(|(volume, _)| !rows.contains_key(&volume.name));
        let (mut volumes, mut lost) = (Vec::new(), Vec::new());
        for (volume, row) in numbered {
            // The mark that this store shows now: in a copy of a store, marks are others than those in its commits.
            let shown = look.listing.volume(volume.kind, volume.name);
            if shown.is_none() && retired.contains(&volume.name) {
                continue;
            }
            let etag = shown.map_or_else(|| volume.etag.clone(), |shown| shown.etag.clone());
            let added = VolumeAdded { etag, ..(*volume).clone() };
            match shown {
                Some(shown) if shown.bytes != added.bytes => {
                    let detail = format!("it has {} bytes, it was stored with {}", shown.bytes, added.bytes);
                    lost.push((added, Some(row), detail));
                }
                _ => volumes.push((added, Some(row))),
            }
        }
        let snapshots = new_snapshots(catalog, &look.commits)?;
        let mut plan = Plan { look, volumes, lost, trees_end: 0, snapshots, newest_worth_bytes: WORTH_BYTES };
        plan.sort();
        Ok(plan)
    }

    /// Also what no commit announces, such as the volumes of interrupted backups.
    pub(super) fn of_everything(locked: &mut LockedRepository, look: Look) -> Result<Plan> {
        let mut plan = Plan::of_commits(locked, look)?;
        let mut known = locked.catalog().read().volume_names()?;
        let announced = plan.look.commits.iter().flat_map(|unseen| &unseen.commit.volumes_added);
        known.extend(announced.map(|volume| volume.name));
        let unknown = plan.look.listing.volumes().filter(|(_, name, _)| !known.contains(name));
        let orphans = unknown.map(|(kind, name, shown)| {
            (VolumeAdded { name, kind, bytes: shown.bytes, etag: shown.etag.clone() }, None)
        });
        plan.volumes.extend(orphans.collect::<Vec<_>>());
        plan.sort();
        Ok(plan)
    }

    /// Trees before data, new before old, and last what no commit announces.
    fn sort(&mut self) {
        self.volumes.sort_by_key(|(volume, row)| (row.is_none(), volume.kind == VolumeKind::Data, row.map(|row| -row)));
        let is_announced_tree =
            |(volume, row): &&(VolumeAdded, Option<i64>)| row.is_some() && volume.kind == VolumeKind::Meta;
        self.trees_end = self.volumes.iter().filter(is_announced_tree).count();
    }

    /// Has the newest snapshot brought ahead of everything if trees take at least so many bytes. There is a sensible limit
    /// unless somebody wants to try it on little.
    pub fn with_newest_ahead_from(self, newest_worth_bytes: u64) -> Plan {
        Plan { newest_worth_bytes, ..self }
    }

    /// How much there is to do.
    pub fn work(&self) -> Work {
        Work {
            commits: self.look.commits.len() as u64,
            volumes: self.volumes.len() as u64,
            bytes: self.volumes.iter().map(|(volume, _)| bytes_to_read(volume)).sum(),
            tails: self.volumes.iter().filter(|(volume, _)| volume.kind == VolumeKind::Data).count() as u64,
        }
    }
}

/// The volumes that the commits retire, and do not announce again: they are gone, or will be.
fn retired(commits: &[Unseen]) -> HashSet<VolumeName> {
    let mut retired = HashSet::new();
    for Unseen { commit, .. } in commits {
        commit.volumes_added.iter().for_each(|volume| _ = retired.remove(&volume.name));
        retired.extend(&commit.volumes_retired);
    }
    retired
}

/// The snapshots that the commits add and do not remove, newest first.
fn new_snapshots(catalog: &CatalogWriter, commits: &[Unseen]) -> Result<Vec<(Snapshot, u64)>> {
    let removed: HashSet<SnapshotId> =
        commits.iter().flat_map(|unseen| &unseen.commit.snapshots_removed).copied().collect();
    let rows: HashMap<SnapshotId, u64> =
        catalog.read().snapshots()?.into_iter().map(|row| (row.snapshot.id, row.number)).collect();
    let all: Vec<&Snapshot> = commits.iter().flat_map(|unseen| &unseen.commit.snapshots_added).collect();
    let row = |snapshot: &&Snapshot| rows.get(&snapshot.id).map(|number| number.cast_signed());
    let first = first_number(all.iter().map(row), catalog.snapshot_number_next()?.cast_signed());
    let numbered = all.iter().zip(first.cast_unsigned()..);
    let mut new: Vec<(Snapshot, u64)> = numbered
        .filter(|(snapshot, _)| !removed.contains(&snapshot.id) && !rows.contains_key(&snapshot.id))
        .map(|(snapshot, number)| ((*snapshot).clone(), number))
        .collect();
    new.sort_by_key(|(snapshot, number)| std::cmp::Reverse((snapshot.time, *number)));
    Ok(new)
}

/// The number of the first of a row of things, some of which may have theirs already, from a run that was interrupted.
fn first_number(known: impl Iterator<Item = Option<i64>>, next: i64) -> i64 {
    let mut places = known.zip(0i64..);
    places.find_map(|(number, place)| Some(number? - place)).filter(|first| *first > 0).unwrap_or(next)
}
