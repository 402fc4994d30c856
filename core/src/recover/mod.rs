//! Learning from the store: what other machines have committed, and everything, if the catalog is lost.
//!
//! The two are one operation. Commits that the catalog has not seen are read in the order of their chains, the volumes
//! that they announce are read by their tails, and the nodes of meta volumes are taken in; a lost catalog is the case in
//! which nothing was seen yet. No frame of a data volume is ever read. Each volume is one transaction, so that an
//! interrupted run is resumed where it was.
//!
//! Before anything is believed, the chains are held against the heads that this machine has pinned: a store that has
//! forgotten, replaced or lost commits is named as such.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalog::CatalogWriter;
use crate::catalog::NewVolume;
use crate::catalog::VolumeState;
use crate::commit::VolumeAdded;
use crate::error::Result;
use crate::frame::VolumeKind;
use crate::frame::volume_object;
use crate::id::NodeId;
use crate::id::VolumeName;
use crate::read::VolumeFile;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::survey::Depth;
use crate::survey::Finding;
use crate::survey::Listing;
use crate::survey::Look;
use crate::survey::News;
use crate::survey::adopt;
use crate::survey::compare_volumes;
use crate::survey::hash_of_volume;
use crate::survey::look;
use crate::survey::unexplained;
use crate::volume::Index;
use crate::watch::Watch;

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
    /// Volumes that are announced and cannot be read, with the reason: their object name and what is wrong.
    pub damaged: Vec<(String, String)>,
    /// Commits that are lost or contradict each other, and that nobody has accepted.
    pub troubles: Vec<Finding>,
    /// Alarms that were raised, and ones that have ended.
    pub news: News,
    /// Worth knowing.
    pub notes: Vec<Finding>,
    /// What the store holds and nobody explains.
    pub unexplained: Vec<Finding>,
    /// Volumes of an interrupted run of this catalog that came to be stored, and are used from now on.
    pub settled: u64,
    /// The volumes among it, which `recover` takes in.
    orphans: Vec<VolumeAdded>,
}

/// Brings the catalog up to the store's commits, and holds the store against it. One LIST if there is nothing new, on a
/// store that keeps marks; else one GET more for each chain. Fails if commits are lost or contradict each other, and then
/// changes nothing but alarms.
pub fn sync(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    let look = look(locked, Depth::New)?;
    look.refuse_troubles()?;
    learn(locked, look, watch)
}

/// As [`sync`], but takes in whatever can be read also when commits are lost.
pub fn sync_as_found(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    let look = look(locked, Depth::New)?;
    learn(locked, look, watch)
}

/// Brings the catalog up to everything that is in the store: its commits, and also the volumes that no commit announces
/// (of interrupted backups), so that their blocks are reused. An empty catalog is rebuilt.
pub fn recover(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    let mut learnt = sync_as_found(locked, watch)?;
    let (repository, catalog) = locked.parts();
    for orphan in std::mem::take(&mut learnt.orphans) {
        watch.check()?;
        take_volume(repository, catalog, &orphan, &mut learnt)?;
        watch.objects.fetch_add(1, Ordering::Relaxed);
        let object = volume_object(orphan.kind, orphan.name);
        learnt.unexplained.retain(|finding| finding.object != object);
    }
    catalog.checkpoint()?;
    Ok(learnt)
}

/// Takes in new volumes, adopts new commits, and compares all volumes.
fn learn(locked: &mut LockedRepository, look: Look, watch: &Watch) -> Result<Learnt> {
    let (repository, catalog) = locked.parts();
    let troubles = look.troubles.iter().map(Finding::of).collect();
    let (settled, notes, news) = (look.settled, look.notes, look.news);
    let mut learnt = Learnt { troubles, notes, news, settled, ..Learnt::default() };
    let known = catalog.read().volume_names()?;
    for added in look.commits.iter().flat_map(|unseen| &unseen.commit.volumes_added) {
        if !known.contains(&added.name) {
            watch.check()?;
            // The mark that this store shows now: in a copy of a store, marks are others than those in its commits.
            let shown = look.listing.volume(added.kind, added.name);
            let etag = shown.map_or_else(|| added.etag.clone(), |shown| shown.etag.clone());
            let added = VolumeAdded { etag, ..added.clone() };
            match shown {
                Some(shown) if shown.bytes != added.bytes => {
                    let detail = format!("it has {} bytes, it was stored with {}", shown.bytes, added.bytes);
                    lost_volume(catalog, &added, detail, &mut learnt)?;
                }
                _ => take_volume(repository, catalog, &added, &mut learnt)?,
            }
            watch.objects.fetch_add(1, Ordering::Relaxed);
        }
    }
    for unseen in &look.commits {
        watch.check()?;
        adopt(locked, unseen, &look.listing)?;
        learnt.commits += 1;
        learnt.snapshots += unseen.commit.snapshots_added.len() as u64;
    }
    let (news, back) = compare_volumes(locked, &look.listing, watch)?;
    learnt.news.raised.extend(news.raised);
    learnt.news.ended.extend(news.ended);
    let (repository, catalog) = locked.parts();
    for (row, volume) in back {
        catalog.volume_void(row)?;
        take_volume(repository, catalog, &volume, &mut learnt)?;
        let object = volume_object(volume.kind, volume.name);
        if catalog.alarm_end(&object)? {
            learnt.news.ended.push(object);
        }
    }
    learnt.unexplained = unexplained(locked, &look.listing)?;
    learnt.orphans = orphans(locked, &look.listing)?;
    Ok(learnt)
}

/// Volumes that the store lists and the catalog does not know.
fn orphans(locked: &mut LockedRepository, listing: &Listing) -> Result<Vec<VolumeAdded>> {
    let known = locked.catalog().read().volume_names()?;
    let unknown = listing.volumes().filter(|(_, name, _)| !known.contains(name));
    Ok(unknown
        .map(|(kind, name, shown)| VolumeAdded { name, kind, bytes: shown.bytes, etag: shown.etag.clone() })
        .collect())
}

/// Takes a volume that is in the store into the catalog. One that cannot be read is recorded as lost; what depends on it
/// is found by `check`, and everything else goes on.
fn take_volume(
    repository: &Repository,
    catalog: &mut CatalogWriter,
    added: &VolumeAdded,
    learnt: &mut Learnt,
) -> Result<()> {
    let (name, kind, bytes) = (added.name, added.kind, added.bytes);
    match read_volume(repository, added) {
        Ok((salt, index, nodes)) => {
            if let Some(other) = catalog.read().volume_of_salt(&salt)?
                && !settle_twins(repository, catalog, added, other, learnt)?
            {
                let detail = format!("in its place lies {}", volume_object(kind, other));
                return lost_volume(catalog, added, detail, learnt);
            }
            learnt.nodes += nodes.len() as u64;
            let new = NewVolume { name, kind, bytes, salt, index: &index, nodes: &nodes };
            let row = catalog.volume_add(&new, VolumeState::Stored)?;
            if added.etag.is_some() {
                catalog.volume_stored(row, added.etag.as_deref())?;
            }
            learnt.volumes += 1;
        }
        Err(error) if error.is_absent() || matches!(error, crate::error::Error::Corrupt { .. }) => {
            lost_volume(catalog, added, error.to_string(), learnt)?;
        }
        // The store itself is in trouble: better to stop than to take every volume for lost.
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Two volumes say that they are the same one: so one lies in the place of the other, or both are in a third's. True if it
/// is not this one that is out of place; then the other is lost.
fn settle_twins(
    repository: &Repository,
    catalog: &mut CatalogWriter,
    this: &VolumeAdded,
    other: VolumeName,
    learnt: &mut Learnt,
) -> Result<bool> {
    if hash_of_volume(repository, this.kind, this.name, this.bytes)? != this.name {
        return Ok(false);
    }
    if let Some(other) = catalog.read().volume_marks()?.into_iter().find(|mark| mark.name == other) {
        // What was taken in under its name was not its own.
        catalog.volume_void(other.id)?;
        let added = VolumeAdded { name: other.name, kind: other.kind, bytes: other.bytes, etag: other.etag };
        let detail = format!("in its place lies {}", volume_object(this.kind, this.name));
        lost_volume(catalog, &added, detail, learnt)?;
    }
    Ok(true)
}

/// Records a volume that commits announce and that cannot be had.
fn lost_volume(catalog: &mut CatalogWriter, added: &VolumeAdded, detail: String, learnt: &mut Learnt) -> Result<()> {
    let (name, kind, bytes) = (added.name, added.kind, added.bytes);
    learnt.damaged.push((volume_object(kind, name), detail));
    let nothing = Index::default();
    let new = NewVolume { name, kind, bytes, salt: [0; 32], index: &nothing, nodes: &[] };
    catalog.volume_add(&new, VolumeState::Lost).map(|_| ())
}

type Nodes = Vec<(NodeId, Vec<u8>)>;

fn read_volume(repository: &Repository, added: &VolumeAdded) -> Result<([u8; 32], Index, Nodes)> {
    let store: &Arc<_> = repository.store();
    let file = VolumeFile::open(store, repository.keys(), added.kind, added.name, added.bytes)?;
    let mut nodes: HashMap<NodeId, Vec<u8>> = HashMap::new();
    if added.kind == VolumeKind::Meta {
        let ids = repository.keys().ids();
        file.pass(
            |_| {},
            |block, bytes| {
                // A node that does not open or is not what it should be stays out; `check` misses it.
                if let Some(bytes) = bytes.filter(|bytes| ids.node(bytes).0 == block.id) {
                    nodes.insert(NodeId(block.id), bytes.to_vec());
                }
            },
        )?;
    }
    // In the order of the volume, so that file versions are numbered as they were when it was written.
    let ordered = file.index().blocks.iter().filter_map(|block| {
        let id = NodeId(block.id);
        nodes.remove(&id).map(|bytes| (id, bytes))
    });
    let ordered = ordered.collect();
    Ok((*file.salt(), file.index().clone(), ordered))
}
