//! Taking in what has been read, in the requested order.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::catalog::CatalogWriter;
use crate::catalog::LearntVolume;
use crate::catalog::NewVolume;
use crate::catalog::VolumeMark;
use crate::catalog::VolumeState;
use crate::commit::VolumeAdded;
use crate::error::Result;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::recover::Learnt;
use crate::recover::Plan;
use crate::recover::Told;
use crate::recover::Work;
use crate::recover::fetch;
use crate::recover::fetch::Arrived;
use crate::recover::fetch::Contents;
use crate::recover::fetch::Fetched;
use crate::recover::whole::Walk;
use crate::repo::Repository;
use crate::snapshot::Snapshot;
use crate::survey::hash_of_volume;
use crate::volume::Index;
use crate::watch::Watch;

/// Takes in what was read.
pub(super) struct Taking<'a> {
    plan: &'a Plan,
    repository: &'a Repository,
    pub learnt: Learnt,
    pub done: Work,
    /// Snapshots that are not visible yet, newest first.
    waiting: VecDeque<&'a (Snapshot, u64)>,
    /// The walk through the tree of the first of them.
    walk: Walk,
    is_walking: bool,
}

/// A volume with its contents; `None` if it is lost.
type Taken<'a> = (&'a VolumeAdded, Option<i64>, Option<Contents>);

impl<'a> Taking<'a> {
    pub fn new(plan: &'a Plan, repository: &'a Repository) -> Taking<'a> {
        let waiting = plan.snapshots.iter().collect();
        let (learnt, done, walk) = (Learnt::default(), Work::default(), Walk::default());
        Taking { plan, repository, learnt, done, waiting, walk, is_walking: false }
    }

    /// Records announced volumes that are known to be lost without reading them.
    pub fn take_lost(&mut self, catalog: &mut CatalogWriter) -> Result<()> {
        let mut lost: Vec<Taken<'_>> = Vec::new();
        for (added, row, detail) in &self.plan.lost {
            self.learnt.damaged.push((volume_object(added.kind, added.name).to_string(), detail.clone()));
            lost.push((added, *row, None));
        }
        self.write(catalog, lost)
    }

    /// Takes volumes from the store into the catalog. An unreadable one is recorded as lost; everything else goes on,
    /// and `check` finds what depends on it.
    pub fn take(&mut self, catalog: &mut CatalogWriter, fetched: Vec<Fetched>, watch: &Watch) -> Result<()> {
        let plan = self.plan;
        let mut taken: Vec<Taken<'_>> = Vec::with_capacity(fetched.len());
        let mut salts = HashSet::new();
        for Fetched { number, arrived } in fetched {
            let Some((added, row)) = plan.volumes.get(number) else { continue };
            let contents = match arrived {
                Arrived::Nodes(nodes) => {
                    self.write(catalog, std::mem::take(&mut taken))?;
                    catalog.nodes_learn(&nodes)?;
                    self.learnt.nodes += nodes.len() as u64;
                    continue;
                }
                Arrived::Rest(contents) => contents,
            };
            let contents = match contents {
                Ok(contents) => {
                    if salts.contains(&contents.salt) {
                        self.write(catalog, std::mem::take(&mut taken))?;
                    }
                    salts.insert(contents.salt);
                    self.unless_out_of_place(catalog, added, contents)?
                }
                Err(error) => {
                    if row.is_some() {
                        self.learnt
                            .damaged
                            .push((volume_object(added.kind, added.name).to_string(), error.to_string()));
                    }
                    None
                }
            };
            // An unreadable volume that no commit names is not ours to miss: it stays unexplained.
            if row.is_some() || contents.is_some() {
                taken.push((added, *row, contents));
            }
            let bytes = fetch::bytes_to_read(added);
            self.done.volumes += 1;
            self.done.bytes += bytes;
            self.done.tails += u64::from(added.kind == VolumeKind::Data);
            watch.objects.fetch_add(1, Ordering::Relaxed);
            watch.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.write(catalog, taken)
    }

    fn write(&mut self, catalog: &mut CatalogWriter, taken: Vec<Taken<'_>>) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let nothing = Contents { salt: [0; 32], index: Index::default(), learn_bytes: 0, nodes: Vec::new() };
        let learnt = taken.iter().map(|(added, row, contents)| {
            let state = if contents.is_some() { VolumeState::Stored } else { VolumeState::Lost };
            let Contents { salt, index, learn_bytes, nodes } = contents.as_ref().unwrap_or(&nothing);
            let VolumeAdded { name, kind, bytes, .. } = **added;
            let volume = NewVolume { name, kind, bytes, learn_bytes: *learn_bytes, salt: *salt, index, nodes };
            let etag = added.etag.as_deref().filter(|_| contents.is_some());
            LearntVolume { volume, state, etag, row: *row }
        });
        catalog.volumes_learn(&learnt.collect::<Vec<_>>())?;
        for contents in taken.iter().filter_map(|(_, _, contents)| contents.as_ref()) {
            self.learnt.volumes += 1;
            self.learnt.nodes += contents.nodes.len() as u64;
        }
        Ok(())
    }

    /// The contents, unless they belong to another volume that lies in the place of this one. If two volumes claim to
    /// be the same, this one is read and checked against its name, and the wrong one is lost.
    fn unless_out_of_place(
        &mut self,
        catalog: &mut CatalogWriter,
        this: &VolumeAdded,
        contents: Contents,
    ) -> Result<Option<Contents>> {
        let Some(other) = catalog.read().volume_of_salt(&contents.salt)?.filter(|other| *other != this.name) else {
            return Ok(Some(contents));
        };
        if hash_of_volume(self.repository, this.kind, this.name, this.bytes)? != this.name {
            let detail = format!("in its place lies {}", volume_object(this.kind, other));
            self.learnt.damaged.push((volume_object(this.kind, this.name).to_string(), detail));
            return Ok(None);
        }
        self.lose(catalog, other, this)?;
        Ok(Some(contents))
    }

    /// What was taken in under this name belonged to another volume.
    fn lose(&mut self, catalog: &mut CatalogWriter, name: VolumeName, in_place: &VolumeAdded) -> Result<()> {
        let marks = catalog.read().volume_marks()?;
        let Some(mark) = marks.into_iter().find(|mark| mark.name == name) else { return Ok(()) };
        let detail = format!("in its place lies {}", volume_object(in_place.kind, in_place.name));
        self.learnt.damaged.push((volume_object(mark.kind, name).to_string(), detail));
        let VolumeMark { kind, bytes, etag, .. } = mark;
        let added = VolumeAdded { name, kind, bytes, learn_bytes: 0, etag };
        self.write(catalog, vec![(&added, None, None)])
    }

    /// The newest snapshot needs no further walk.
    pub fn newest_is_shown(&mut self) {
        self.waiting.pop_front();
    }

    /// Makes every snapshot visible whose tree is complete by now, newest first.
    pub fn show(&mut self, catalog: &mut CatalogWriter, tell: &mut dyn FnMut(Told<'_>)) -> Result<()> {
        while let Some((snapshot, number)) = self.waiting.front() {
            if !self.is_walking {
                self.walk.begin(snapshot.root);
                self.is_walking = true;
            }
            if !self.walk.is_whole(catalog.read())? {
                // A tree that still lacks a node after all tree volumes will never be complete: the others do not wait
                // for it.
                if (self.done.volumes as usize) < self.plan.trees_end {
                    return Ok(());
                }
            } else {
                catalog.snapshot_show(snapshot, *number)?;
                tell(Told::Shown(snapshot));
            }
            self.waiting.pop_front();
            self.is_walking = false;
        }
        Ok(())
    }
}
