//! Learning from the store: what other machines have committed, and everything, if the catalog is lost.
//!
//! The two are one operation. Commits that the catalog has not seen are read in the order of their chains, the volumes
//! that they announce are read by their tails, and the nodes of meta volumes are taken in; a lost catalog is the case in
//! which nothing was seen yet. No frame of a data volume is ever read. Each volume is one transaction, so that an
//! interrupted run is resumed where it was.
//!
//! Before anything is believed, the chains are held against the heads that this machine has pinned: a store that has
//! forgotten, replaced or lost commits is named as such.

mod chains;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalog::CatalogWriter;
use crate::catalog::NewVolume;
use crate::catalog::VolumeState;
use crate::commit::VolumeAdded;
use crate::error::Result;
use crate::frame::VolumeKind;
use crate::id::NodeId;
use crate::id::VolumeName;
use crate::read::VolumeFile;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::store::Listed;
use crate::volume::Index;
use crate::watch::Watch;
use crate::write::settle;

pub use chains::verify_chains;

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
}

/// Brings the catalog up to the store's commits. One LIST and one GET for each chain if there is nothing new.
pub fn sync(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    settle(locked)?;
    let (repository, catalog) = locked.parts();
    let commits = chains::unseen(repository, catalog.read())?;
    let mut learnt = Learnt::default();
    let known = catalog.read().volume_names()?;
    for added in commits.iter().flat_map(|unseen| &unseen.commit.volumes_added) {
        if !known.contains(&added.name) {
            watch.check()?;
            take_volume(repository, catalog, added, &mut learnt)?;
            watch.objects.fetch_add(1, Ordering::Relaxed);
        }
    }
    for unseen in &commits {
        watch.check()?;
        catalog.commit_adopt(unseen.client, unseen.seq, unseen.hash, &unseen.commit)?;
        learnt.commits += 1;
        learnt.snapshots += unseen.commit.snapshots_added.len() as u64;
    }
    Ok(learnt)
}

/// Brings the catalog up to everything that is in the store: its commits, and also the volumes that no commit announces
/// (of interrupted backups), so that their blocks are reused. An empty catalog is rebuilt.
pub fn recover(locked: &mut LockedRepository, watch: &Watch) -> Result<Learnt> {
    let mut learnt = sync(locked, watch)?;
    let (repository, catalog) = locked.parts();
    let known = catalog.read().volume_names()?;
    for (kind, object) in list_volumes(repository)? {
        let Some(name) = volume_name(&object) else { continue };
        if known.contains(&name) {
            continue;
        }
        watch.check()?;
        let orphan = VolumeAdded { name, kind, bytes: object.bytes, etag: object.etag };
        take_volume(repository, catalog, &orphan, &mut learnt)?;
        watch.objects.fetch_add(1, Ordering::Relaxed);
    }
    catalog.checkpoint()?;
    Ok(learnt)
}

/// Every object in the folders of volumes.
pub fn list_volumes(repository: &Repository) -> Result<Vec<(VolumeKind, Listed)>> {
    let mut all = Vec::new();
    for kind in [VolumeKind::Data, VolumeKind::Meta] {
        let listed = repository.store().list(&format!("{}/", kind.folder()))?;
        all.extend(listed.into_iter().map(|object| (kind, object)));
    }
    Ok(all)
}

/// The volume that an object of those folders is, if its name says so.
pub fn volume_name(object: &Listed) -> Option<VolumeName> {
    let (folder, hex) = object.name.as_str().rsplit_once('/')?;
    let name = VolumeName::from_hex(hex)?;
    hex.starts_with(folder.rsplit_once('/')?.1).then_some(name)
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
            learnt.nodes += nodes.len() as u64;
            let new = NewVolume { name, kind, bytes, salt, index: &index, nodes: &nodes };
            let row = catalog.volume_add(&new, VolumeState::Stored)?;
            if added.etag.is_some() {
                catalog.volume_stored(row, added.etag.as_deref())?;
            }
            learnt.volumes += 1;
        }
        Err(error) if error.is_absent() || matches!(error, crate::error::Error::Corrupt { .. }) => {
            learnt.damaged.push((crate::frame::volume_object(kind, name), error.to_string()));
            let nothing = Index::default();
            let new = NewVolume { name, kind, bytes, salt: [0; 32], index: &nothing, nodes: &[] };
            catalog.volume_add(&new, VolumeState::Lost)?;
        }
        // The store itself is in trouble: better to stop than to take every volume for lost.
        Err(error) => return Err(error),
    }
    Ok(())
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
