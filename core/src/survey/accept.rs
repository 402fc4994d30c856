//! Giving up what is lost, which only a person may do.
//!
//! A commit records what was given up, so that other machines and future catalogs know it too. If commits were lost,
//! that commit also announces again whatever this machine's catalog still knows and no commit in the store says any
//! more (snapshots, volumes, removals), and so do the next commits of other machines that had seen the lost ones. A
//! deleted commit costs nothing as long as its volumes are there.

use crate::catalog::Again;
use crate::catalog::Alarm;
use crate::catalog::Subject;
use crate::catalog::VolumeState;
use crate::commit::ChainLoss;
use crate::commit::Commit;
use crate::commit::Losses;
use crate::entry::Time;
use crate::error::Result;
use crate::features::Features;
use crate::repo::LockedRepository;
use crate::survey::Depth;
use crate::survey::Finding;
use crate::survey::Listing;
use crate::survey::Needed;
use crate::survey::alarms_open;
use crate::survey::chain_of_its_own;
use crate::survey::compare_volumes;
use crate::survey::look;
use crate::watch::Watch;
use crate::write::Changes;
use crate::write::announce;
use crate::write::commit_changes;
use crate::write::end;

/// What was accepted.
#[derive(Debug, Default)]
pub struct Accepted {
    /// The findings that are now accepted.
    pub findings: Vec<Finding>,
    /// Snapshots of lost commits that this machine has recorded again.
    pub snapshots_again: u64,
    /// Volumes named only by lost commits that this machine has recorded again.
    pub volumes_again: u64,
    /// True if this machine writes a new chain from now on.
    pub is_new_chain: bool,
    /// What is still open.
    pub open: Vec<Finding>,
}

/// Accepts the open alarms for which `is_chosen` holds. The store is surveyed first, so that the alarms are current.
pub fn accept_loss(
    locked: &mut LockedRepository,
    time: Time,
    watch: &Watch,
    is_chosen: impl Fn(&Alarm) -> bool,
) -> Result<Accepted> {
    announce(locked)?;
    let seen = look(locked, Depth::New)?;
    // New commits are not adopted here: that needs their volumes, and is left to the next backup.
    compare_volumes(locked, &seen.listing, watch)?;
    // A key slot that is back is no loss.
    let is_loss = |alarm: &Alarm| !matches!(alarm.subject, Subject::Slot(_));
    let open = locked.catalog().read().alarms_open()?.into_iter();
    let chosen: Vec<Alarm> = open.filter(|alarm| is_loss(alarm) && is_chosen(alarm)).collect();
    let mut accepted = Accepted { findings: chosen.iter().map(Finding::of).collect(), ..Accepted::default() };
    if !chosen.is_empty() {
        let losses = losses(&chosen, &locked.catalog().read().chains_covered()?);
        let again = if losses.chains.is_empty() { Again::default() } else { announced_by_none(locked, &seen.listing)? };
        let own = locked.client();
        if losses.chains.iter().any(|loss| loss.client == own) {
            chain_of_its_own(locked)?;
            accepted.is_new_chain = true;
        }
        accepted.snapshots_again = again.snapshots.len() as u64;
        accepted.volumes_again = again.volumes.len() as u64;
        locked.catalog().announce_again(&again)?;
        commit_changes(locked, time, Changes { losses, ..Changes::default() })?;
    }
    end(locked)?;
    accepted.open = alarms_open(locked)?;
    Ok(accepted)
}

fn losses(chosen: &[Alarm], covered: &[ChainLoss]) -> Losses {
    let mut losses = Losses::default();
    for alarm in chosen {
        match alarm.subject {
            Subject::Chain(loss) => {
                losses.chains.push(loss);
                // Without its checkpoint, what that stood for would be missed.
                losses.chains.extend(covered.iter().filter(|covered| loss.covers(covered.client, covered.last + 1)));
            }
            Subject::Volume(name) => losses.volumes.push(name),
            Subject::Slot(_) => {}
        }
    }
    losses
}

/// Makes this machine's next commit announce what lost commits said, as far as this machine has seen them.
pub(super) fn announce_again(locked: &mut LockedRepository, losses: &Losses) -> Result<()> {
    if losses.chains.is_empty() {
        return Ok(());
    }
    let (repository, catalog) = locked.parts();
    let mut again = Again::default();
    for seen in catalog.read().commits_seen()? {
        let (client, seq) = (seen.client, seen.seq);
        if !losses.chains.iter().any(|loss| loss.covers(client, seq)) {
            continue;
        }
        let Some(object) = catalog.read().commit_object(client, seq)? else { continue };
        if let Ok(commit) = Commit::open(&object, &repository.keys().commit(client, seq), client, seq) {
            add_announced(&mut again, &commit);
        }
    }
    catalog.announce_again(&again)
}

fn add_announced(announced: &mut Again, commit: &Commit) {
    announced.volumes.extend(commit.volumes_added.iter().map(|volume| volume.name));
    announced.snapshots.extend(commit.snapshots_added.iter().map(|snapshot| snapshot.id));
    announced.snapshots_removed.extend(&commit.snapshots_removed);
    announced.volumes_retired.extend(&commit.volumes_retired);
    announced.slots_removed.extend(&commit.slots_removed);
    let Features { read, write, optional } = &commit.features;
    announced.features.extend([read, write, optional].into_iter().flatten().cloned());
}

/// What the catalog knows and no commit in the store announces. Every commit that a new reader would need is read;
/// commits that do not open announce nothing.
fn announced_by_none(locked: &mut LockedRepository, listing: &Listing) -> Result<Again> {
    let mut announced = Again::default();
    let repository = locked.repository();
    for commit in &Needed::of(repository.store().as_ref(), repository.keys(), listing)?.commits {
        add_announced(&mut announced, commit);
    }
    let catalog = locked.catalog().read();
    let Features { read, write, optional } = catalog.features()?;
    let features = [read, write, optional].into_iter().flatten();
    let snapshots = catalog.snapshots()?.into_iter().map(|row| row.snapshot.id);
    let volumes = catalog.volume_marks()?.into_iter().filter(|mark| mark.state == VolumeState::Stored);
    Ok(Again {
        snapshots: snapshots.filter(|id| !announced.snapshots.contains(id)).collect(),
        snapshots_removed: catalog
            .snapshots_removed()?
            .into_iter()
            .filter(|id| !announced.snapshots_removed.contains(id))
            .collect(),
        volumes_retired: catalog.volumes_retired()?.difference(&announced.volumes_retired).copied().collect(),
        slots_removed: catalog
            .slots_removed()?
            .into_iter()
            .filter(|id| !announced.slots_removed.contains(id))
            .collect(),
        features: features.filter(|name| !announced.features.contains(name)).collect(),
        volumes: volumes.map(|mark| mark.name).filter(|name| !announced.volumes.contains(name)).collect(),
    })
}
