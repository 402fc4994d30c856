//! The river that writes: entries and blocks enter at one end in tree order, volumes and a commit leave at the other.
//!
//! ```text
//! Writer (caller's thread): tree, dedup, frames -> sealers (N) -> packer (1): volumes
//!     -> keeper (1): catalog -> putters (M)
//! ```
//!
//! The order of truth, from which every crash is survived:
//! 1. A volume's row, with all its blocks, is durable in the catalog as *intended*;
//! 2. the volume is put, and the store says that it is durable;
//! 3. the row says *stored*;
//! 4. when all volumes of the backup are stored, the commit is put: now the snapshot exists;
//! 5. the catalog adopts the commit.
//!
//! A crash between 1 and 3 leaves an intended volume, which the next run finds in the store and keeps, or does not find
//! and forgets ([`settle`]). A crash between 4 and 5 leaves a commit, which the next run adopts like those of other
//! machines. Blocks of stored volumes are reused by the next run whatever happened afterwards.

mod cutter;
mod framer;
mod keeper;
mod packer;
mod settle;
mod writer;

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

use crossbeam_channel::bounded;
use crossbeam_channel::unbounded;

use crate::catalog::SeenCommit;
use crate::catalog::Unannounced;
use crate::commit::Commit;
use crate::commit::Head;
use crate::commit::Losses;
use crate::commit::VolumeAdded;
use crate::crypto::random;
use crate::diagnosis::Diagnosis;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::facts::Facts;
use crate::hash::sha256;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::id::SnapshotId;
use crate::id::VolumeName;
use crate::limits;
use crate::lock::lock;
use crate::objects::commit_object;
use crate::objects::marker_object;
use crate::repo::LockedRepository;
use crate::snapshot::Snapshot;
use crate::store::Source;
use crate::watch::Watch;

pub use cutter::Block;
pub use cutter::Cutter;
pub use cutter::Piece;
pub use settle::settle;
pub use settle::settle_listed;
pub use writer::Writer;

/// The description of a backup; the tree comes through the [`Writer`].
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// When the backup began.
    pub time: Time,
    /// Name of this machine.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Absolute paths that the user asked for.
    pub paths: Vec<Vec<u8>>,
    /// Labels.
    pub tags: Vec<String>,
    /// The snapshot to compare with.
    pub parent: Option<SnapshotId>,
    /// Name and version of the program.
    pub program: String,
}

/// What a backup is known to be at its end.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    /// Entries that could not be read.
    pub unreadable: u64,
    /// What the snapshot says about the run.
    pub facts: Facts,
}

impl From<u64> for Ended {
    fn from(unreadable: u64) -> Ended {
        Ended { unreadable, facts: Facts::default() }
    }
}

/// The first error of any stage, which the caller gets; later errors are its consequences.
#[derive(Default)]
struct FirstError(Mutex<Option<Error>>);

impl FirstError {
    fn set(&self, error: Error) {
        lock(&self.0).get_or_insert(error);
    }

    fn take(&self) -> Option<Error> {
        lock(&self.0).take()
    }
}

/// Puts the marker that announces a backup of this client. It comes before the catalog is synced with the store, and is
/// deleted when the backup is committed; after a crash it stays until the client's next backup.
pub fn announce(locked: &LockedRepository) -> Result<()> {
    // The lock may have been taken for the catalog only.
    locked.repository().config().check_writable()?;
    let marker = marker_object(locked.client());
    locked.repository().store().put(&marker, Source::Bytes(b"a backup is running\n")).map(|_| ())
}

/// Makes a snapshot of the tree that `body` passes to the writer. If `body` fails, nothing is committed; volumes stored
/// by then are found and reused by the next backup.
///
/// `body` also returns what the snapshot records of it: at least the number of entries that could not be read.
pub fn backup<T, E: Into<Ended>>(
    locked: &mut LockedRepository,
    options: BackupOptions,
    watch: &Watch,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(T, E)>,
) -> Result<(T, Snapshot)> {
    settle(locked)?;
    let (result, ended, tree) = run_stages(locked, watch, |mut writer| {
        let (result, ended) = body(&mut writer)?;
        Ok((result, ended.into(), writer.finish()?))
    })?;
    let Ended { unreadable, facts } = ended;
    let snapshot = Snapshot {
        id: SnapshotId(random()?),
        time: options.time,
        host: options.host,
        user: options.user,
        paths: options.paths,
        tags: options.tags,
        parent: options.parent,
        program: options.program,
        root_meta: tree.root_meta,
        root: tree.root,
        totals: crate::snapshot::Totals { unreadable, ..tree.totals },
        attributes: facts.attributes(),
    };
    commit_changes(locked, options.time, Changes { snapshots_added: vec![snapshot.clone()], ..Changes::default() })?;
    locked.repository().store().delete(&marker_object(locked.client()))?;
    locked.catalog().checkpoint()?;
    Ok((result, snapshot))
}

/// Stores lost blocks and nodes again without making a snapshot, and commits the new volumes, so that other machines
/// learn of them.
pub fn store_again<T>(
    locked: &mut LockedRepository,
    time: Time,
    watch: &Watch,
    body: impl FnOnce(&mut Writer<'_>) -> Result<T>,
) -> Result<T> {
    announce(locked)?;
    settle(locked)?;
    let result = run_stages(locked, watch, |mut writer| {
        let result = body(&mut writer)?;
        writer.end()?;
        Ok(result)
    })?;
    commit_changes(locked, time, Changes::default())?;
    locked.repository().store().delete(&marker_object(locked.client()))?;
    Ok(result)
}

/// Starts the stages, runs `body`, and waits until everything is stored.
fn run_stages<T>(
    locked: &mut LockedRepository,
    watch: &Watch,
    body: impl FnOnce(Writer<'_>) -> Result<T>,
) -> Result<T> {
    let cores = thread::available_parallelism().map_or(2, NonZero::get);
    let (repository, catalog) = locked.parts();
    let reading = repository.catalog()?;
    let connections = repository.store().connections().clamp(1, 32);
    let first_error = FirstError::default();
    let progress = keeper::Intended::default();
    let (job_in, job_out) = bounded(cores * 4);
    // Room for queued frames, and for those that every sealer holds.
    let (order_in, order_out) = bounded(cores * 12);
    let (volume_in, volume_out) = bounded(1);
    let (put_in, put_out) = bounded(connections);
    let (done_in, done_out) = unbounded();
    let outcome = thread::scope(|scope| {
        for _ in 0..cores {
            let jobs = job_out.clone();
            scope.spawn(move || framer::seal_frames(repository.config().compression, &jobs));
        }
        drop(job_out);
        let guard = &first_error;
        scope.spawn(move || packer::pack(repository, &order_out, &volume_in).unwrap_or_else(|error| guard.set(error)));
        for _ in 0..connections {
            let (puts, done) = (put_out.clone(), done_in.clone());
            scope.spawn(move || keeper::put_volumes(repository, &puts, &done, watch));
        }
        drop((put_out, done_in));
        let progress = &progress;
        scope.spawn(move || {
            keeper::keep(catalog, &volume_out, put_in, &done_out, progress).unwrap_or_else(|error| guard.set(error));
        });
        let stages = writer::Stages { jobs: job_in, order: order_in, intended: progress };
        let mut writer = Writer::new(repository, reading, stages, watch)?;
        writer.store_lost_nodes()?;
        // Dropping the writer closes the channels from the top; each stage ends when its input does.
        body(writer)
    });
    match first_error.take() {
        Some(error) => Err(error),
        None => outcome,
    }
}

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
    let client = locked.client();
    let (repository, catalog) = locked.parts();
    repository.config().check_writable()?;
    let is_lost = |head: &Head| changes.losses.chains.iter().any(|loss| loss.covers(head.client, head.seq));
    let heads = catalog.read().heads()?;
    let own = heads.iter().find(|head| head.client == client).copied();
    let added = unannounced.volumes.into_iter().map(|volume| VolumeAdded {
        name: volume.name,
        kind: volume.kind,
        bytes: volume.bytes,
        etag: volume.etag,
    });
    let commit = Commit {
        previous: own.map(|head| head.hash),
        time,
        snapshots_added: [unannounced.snapshots, changes.snapshots_added].concat(),
        snapshots_removed: [unannounced.snapshots_removed, changes.snapshots_removed].concat(),
        volumes_added: added.collect(),
        volumes_retired: changes.volumes_retired,
        heads: heads.iter().filter(|head| head.client != client && !is_lost(head)).copied().collect(),
        losses: changes.losses,
        ..Commit::default()
    };
    let seq = own.map_or(0, |head| head.seq) + 1;
    let name = commit_object(client, seq);
    let object = commit.seal(&repository.keys().commit(client, seq), client, seq).map_err(|e| Error::Invalid {
        what: format!("the snapshot cannot be committed: {e}: shorten its tags, host name or paths"),
    })?;
    let hash = CommitHash(sha256(&object));
    // Lets the next run recognise the commit if this one is interrupted after the put.
    catalog.commit_intend(seq, hash)?;
    match repository.store().put(&name, Source::Bytes(&object)) {
        Err(Error::Exists { .. }) => {
            // The second writer starts its own chain. Its stored volumes remain and are used by its next run.
            locked.client_renew(ClientId(random()?))?;
            let detail = "another machine has written this commit with a copy of this machine's catalog (a copied \
                          home, a cloned machine). Nothing is lost, and this machine now has its own chain: run the \
                          backup again, it reuses what was stored";
            Err(Error::disagree(Diagnosis::RemoteForked, name, detail))
        }
        Err(error) => Err(error),
        Ok(stored) => {
            let bytes = Some(object.len() as u64);
            catalog.commit_adopt(&SeenCommit { client, seq, hash, bytes, etag: stored.etag }, &object, &commit)
        }
    }
}
