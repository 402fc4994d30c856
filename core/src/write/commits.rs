//! Commits: what a machine has stored and decided becomes known to all, under the next number of its chain.
//!
//! A number is taken once. If the store has another commit under it, either a copy of this machine's catalog was at
//! work, and this machine begins a chain of its own; or a program that deletes volumes has taken the number, so that
//! what this run saw before cannot be committed any more. Then the run is over, and the chain goes on behind it.

use crate::catalog::SeenCommit;
use crate::catalog::Unannounced;
use crate::commit::Checkpoint;
use crate::commit::Commit;
use crate::commit::Head;
use crate::commit::Losses;
use crate::commit::VolumeAdded;
use crate::crypto::random;
use crate::diagnosis::Diagnosis;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::features::Features;
use crate::hash::sha256;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::id::SlotId;
use crate::id::SnapshotId;
use crate::id::VolumeName;
use crate::limits;
use crate::objects::commit_object;
use crate::repo::LockedRepository;
use crate::snapshot::Snapshot;
use crate::store::ByteRange;
use crate::store::Source;
use crate::write::checkpoint::newest_checkpoint;
use crate::write::checkpoint::with_earlier;

/// The changes in a commit, besides announcing what no commit has announced yet.
#[derive(Debug, Default)]
pub struct Changes {
    /// Snapshots that exist from now on.
    pub snapshots_added: Vec<Snapshot>,
    /// Snapshots that are removed.
    pub snapshots_removed: Vec<SnapshotId>,
    /// Volumes that no snapshot needs and that must not be used from now on.
    pub volumes_retired: Vec<VolumeName>,
    /// Losses that a person has accepted.
    pub losses: Losses,
    /// Key slots that are removed.
    pub slots_removed: Vec<SlotId>,
    /// Features that are used from now on.
    pub features: Features,
}

/// Puts the next commit of this client's chain and adopts it. Very many volumes are announced by additional commits
/// before it.
pub fn commit_changes(locked: &mut LockedRepository, time: Time, changes: Changes) -> Result<()> {
    loop {
        let mut unannounced = locked.catalog().read().unannounced()?;
        if unannounced.volumes.len() <= limits::COMMIT_VOLUMES_EACH {
            return commit_once(locked, time, unannounced, changes);
        }
        unannounced.volumes.truncate(limits::COMMIT_VOLUMES_EACH);
        let some = Unannounced { volumes: unannounced.volumes, ..Unannounced::default() };
        commit_once(locked, time, some, Changes::default())?;
    }
}

fn commit_once(locked: &mut LockedRepository, time: Time, unannounced: Unannounced, changes: Changes) -> Result<()> {
    locked.check_writable()?;
    let (client, each) = (locked.client(), locked.checkpoint_each());
    let (repository, catalog) = locked.parts();
    let is_lost = |head: &Head| changes.losses.chains.iter().any(|loss| loss.covers(head.client, head.seq));
    let mut heads = catalog.read().heads()?;
    let own = heads.iter().find(|head| head.client == client).copied();
    heads.retain(|head| head.client != client && !is_lost(head));
    let commit = content(unannounced, changes);
    let checkpoint = match newest_checkpoint(catalog.read(), client)? {
        0 => Checkpoint::None,
        number => Checkpoint::At(number),
    };
    let commit = Commit { previous: own.map(|head| head.hash), time, heads, checkpoint, ..commit };
    let seq = own.map_or(0, |head| head.seq) + 1;
    let name = commit_object(client, seq);
    let seal = |commit: &Commit| commit.seal(&repository.keys().commit(client, seq), client, seq);
    let checkpoint = with_earlier(repository.keys(), catalog.read(), (client, seq), each, &commit)?;
    // A checkpoint that would be over a limit is not written: the chain is as good without it.
    let sealed = checkpoint.and_then(|commit| Some((seal(&commit).ok()?, commit)));
    let (object, commit) = match sealed {
        Some(sealed) => sealed,
        None => {
            let object = seal(&commit).map_err(|e| Error::Invalid {
                what: format!("the snapshot cannot be committed: {e}: shorten its tags, host name or paths"),
            })?;
            (object, commit)
        }
    };
    let hash = CommitHash(sha256(&object));
    // Lets the next run recognise the commit if this one is interrupted after the put.
    catalog.commit_intend(seq, hash)?;
    match repository.store().put(&name, Source::Bytes(&object)) {
        Err(Error::Exists { .. }) => Err(refused(locked, seq, commit.previous)?),
        Err(error) => Err(error),
        Ok(stored) => {
            let bytes = Some(object.len() as u64);
            catalog.commit_adopt(&SeenCommit { client, seq, hash, bytes, etag: stored.etag }, &object, &commit)
        }
    }
}

/// What a commit says: what was not announced yet, and the changes.
fn content(unannounced: Unannounced, changes: Changes) -> Commit {
    let added = unannounced.volumes.into_iter().map(|volume| VolumeAdded {
        name: volume.name,
        kind: volume.kind,
        bytes: volume.bytes,
        learn_bytes: volume.learn_bytes,
        etag: volume.etag,
    });
    let mut features = unannounced.features;
    features.add(&changes.features);
    Commit {
        snapshots_added: [unannounced.snapshots, changes.snapshots_added].concat(),
        snapshots_removed: [unannounced.snapshots_removed, changes.snapshots_removed].concat(),
        volumes_added: added.collect(),
        volumes_retired: [unannounced.volumes_retired, changes.volumes_retired].concat(),
        losses: changes.losses,
        slots_removed: [unannounced.slots_removed, changes.slots_removed].concat(),
        features,
        ..Commit::default()
    }
}

/// Why the store has another commit under this number, and what follows from that here.
fn refused(locked: &mut LockedRepository, seq: u64, previous: Option<CommitHash>) -> Result<Error> {
    let client = locked.client();
    let name = commit_object(client, seq);
    let (repository, catalog) = locked.parts();
    let object = repository.store().get(&name, ByteRange::Whole { bytes_max: limits::COMMIT_BYTES_MAX })?;
    let opened = Commit::open(&object, &repository.keys().commit(client, seq), client, seq).ok();
    if let Some(taken) = opened.filter(|commit| commit.is_empty() && commit.previous == previous) {
        let hash = CommitHash(sha256(&object));
        let seen = SeenCommit { client, seq, hash, bytes: Some(object.len() as u64), etag: None };
        catalog.commit_adopt(&seen, &object, &taken)?;
        return Ok(Error::Overtaken { object: name.to_string() });
    }
    // The second writer starts its own chain. Its stored volumes remain and are used by its next run.
    locked.client_renew(ClientId(random()?))?;
    let detail = "another machine has written this commit with a copy of this machine's catalog (a copied home, a \
                  cloned machine). Nothing is lost, and this machine now has its own chain: run the backup again, it \
                  reuses what was stored";
    Ok(Error::disagree(Diagnosis::RemoteForked, name, detail))
}
