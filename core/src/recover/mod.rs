//! Learning from the store: what other machines have committed, and everything if the catalog is lost.
//!
//! The two are one operation. Commits that the catalog has not seen are read in the order of their chains, the volumes
//! that they announce are read by their tails, and the nodes of meta volumes are taken in; with a lost catalog, nothing
//! has been seen yet. No frame of a data volume is ever read. Volumes are read in parallel, trees first and new before
//! old, the newest snapshot ahead of everything. A snapshot becomes visible as soon as its tree is complete, so it can
//! be used while the rest comes in. Everything taken in is durable, so an interrupted run resumes where it stopped; the
//! commits are adopted last, and until then they count as unseen.
//!
//! Before anything is believed, the chains are checked against the heads that this machine has pinned: a store that has
//! forgotten, replaced or lost commits is reported as such.

mod fetch;
mod newest;
mod plan;
mod taking;
mod whole;

use std::sync::atomic::Ordering;

use fetch::Contents;
use taking::Taking;

use crate::catalog::CatalogWriter;
use crate::catalog::LearntVolume;
use crate::catalog::NewVolume;
use crate::catalog::VolumeState;
use crate::commit::VolumeAdded;
use crate::diagnosis::Diagnosis;
use crate::error::Result;
use crate::id::VolumeName;
use crate::objects::volume_object;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::snapshot::Snapshot;
use crate::survey::Depth;
use crate::survey::Finding;
use crate::survey::Listing;
use crate::survey::News;
use crate::survey::adopt;
use crate::survey::compare_volumes;
use crate::survey::look;
use crate::survey::unexplained;
use crate::survey::volume_alarm;
use crate::watch::Watch;

pub use plan::Plan;
pub use plan::Work;

/// What was learnt.
#[derive(Debug, Default)]
pub struct Learnt {
    /// Commits that were new.
    pub commits: u64,
    /// Snapshots that were new.
    pub snapshots: u64,
    /// Volumes that were new.
    pub volumes: u64,
    /// Tree nodes that were new.
    pub nodes: u64,
    /// Announced volumes that cannot be read: object name and reason.
    pub damaged: Vec<(String, String)>,
    /// Commits that are lost or contradict each other, without those that a person has accepted.
    pub troubles: Vec<Finding>,
    /// Alarms that were raised, and alarms that ended.
    pub news: News,
    /// Worth knowing.
    pub notes: Vec<Finding>,
    /// Objects in the store that nothing explains.
    pub unexplained: Vec<Finding>,
    /// Volumes of an interrupted run of this catalog that turned out to be stored, and are used from now on.
    pub settled: u64,
}

/// A report of progress.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// This much of the work is done.
    Done(Work),
    /// This snapshot can be listed and mounted from now on.
    Shown(&'a Snapshot),
}

/// Brings the catalog up to date with the store's commits and compares the store with it. Costs one LIST if there is
/// nothing new and the store keeps marks, otherwise one more GET for each chain. If commits are lost or contradict each
/// other, it fails and changes nothing but alarms.
pub fn sync(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    let look = look(locked, Depth::New)?;
    look.refuse_troubles()?;
    Plan::of_commits(locked, look)?.carry_out(locked, watch, &mut |_| {})
}

/// As [`sync`], but takes in whatever can be read, even if commits are lost.
pub fn sync_as_found(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    let look = look(locked, Depth::New)?;
    Plan::of_commits(locked, look)?.carry_out(locked, watch, &mut |_| {})
}

/// Brings the catalog up to date with everything in the store: its commits, and also volumes of interrupted backups
/// that no commit announces, so that their blocks are reused. An empty catalog is rebuilt.
pub fn recover(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    plan(locked)?.carry_out(locked, watch, &mut |_| {})
}

/// The plan of [`recover`]: commits have been read and the store has been listed, but volumes have not been read yet.
pub fn plan(locked: &mut LockedRepository) -> Result<Plan> {
    let look = look(locked, Depth::New)?;
    Plan::of_everything(locked, look)
}

/// Reads a volume that was put back, and records it as stored.
pub(crate) fn relearn(repository: &Repository, catalog: &mut CatalogWriter, added: &VolumeAdded) -> Result<()> {
    let Contents { salt, index, learn_bytes, nodes } = fetch::read(repository, added)?;
    let VolumeAdded { name, kind, bytes, .. } = *added;
    let volume = NewVolume { name, kind, bytes, learn_bytes, salt, index: &index, nodes: &nodes };
    let state = VolumeState::Stored;
    catalog.volumes_learn(&[LearntVolume { volume, state, etag: added.etag.as_deref(), row: None }])
}

/// Takes in a volume that is there again. It has just been checked against its name, so if it does not open, it never
/// was a volume of this repository.
fn take_back(
    locked: &mut LockedRepository,
    volume: &VolumeAdded,
    listing: &Listing,
    learnt: &mut Learnt,
) -> Result<()> {
    let object = volume_object(volume.kind, volume.name);
    let (repository, catalog) = locked.parts();
    match relearn(repository, catalog, volume) {
        Ok(()) => {
            learnt.volumes += 1;
            if catalog.alarm_end(object.as_str())? {
                learnt.news.ended.push(object.to_string());
            }
        }
        Err(error) if error.is_object_fault() => {
            let shown = listing.volume(volume.kind, volume.name);
            let diagnosis = error.diagnosis().unwrap_or(Diagnosis::RemoteCorrupt);
            let alarm = volume_alarm(diagnosis, volume.kind, volume.name, error.to_string(), shown);
            if catalog.alarm_raise(&alarm)? {
                learnt.news.raised.push(Finding::of(&alarm));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

impl Plan {
    /// Reads everything, takes it into the catalog, adopts the commits, and compares all volumes.
    pub fn carry_out(
        self,
        locked: &mut LockedRepository,
        watch: &Watch,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Learnt> {
        let (repository, catalog) = locked.parts();
        watch.bytes_total.store(self.work().bytes, Ordering::Relaxed);
        let retired = self.look.commits.iter().flat_map(|unseen| &unseen.commit.volumes_retired);
        let retired: Vec<VolumeName> = retired.copied().collect();
        if !retired.is_empty() {
            catalog.volumes_retire(&retired)?;
        }
        let volumes: Vec<&VolumeAdded> = self.volumes.iter().map(|(volume, _)| volume).collect();
        let mut taking = Taking::new(&self, repository);
        // Ids are random, so rows are written all over the file.
        catalog.with_many_pages(|catalog| {
            taking.take_lost(catalog)?;
            let fetch = |part, catalog: &mut CatalogWriter, taking: &mut Taking<'_>, tell: &mut dyn FnMut(Told<'_>)| {
                fetch::fetch(repository, &volumes, part, watch, |fetched| {
                    taking.take(catalog, fetched, watch)?;
                    taking.show(catalog, tell)?;
                    tell(Told::Done(taking.done));
                    Ok(())
                })
            };
            fetch(0..self.small_end, catalog, &mut taking, tell)?;
            if newest::show(repository, catalog, &self, watch, tell)? {
                taking.newest_is_shown();
            }
            fetch(self.small_end..volumes.len(), catalog, &mut taking, tell)
        })??;
        let mut learnt = taking.learnt;
        learnt.snapshots = self.snapshots_new;
        for unseen in &self.look.commits {
            watch.check()?;
            adopt(locked, unseen)?;
            learnt.commits += 1;
        }
        let (news, back) = compare_volumes(locked, &self.look.listing, watch)?;
        learnt.troubles = self.look.troubles.iter().map(Finding::of).collect();
        (learnt.settled, learnt.notes) = (self.look.settled, self.look.notes);
        learnt.news = self.look.news;
        learnt.news.raised.extend(news.raised);
        learnt.news.ended.extend(news.ended);
        for (_, volume) in back {
            watch.check()?;
            take_back(locked, &volume, &self.look.listing, &mut learnt)?;
        }
        learnt.unexplained = unexplained(locked, &self.look.listing)?;
        if !volumes.is_empty() {
            locked.catalog().checkpoint()?;
        }
        Ok(learnt)
    }
}
