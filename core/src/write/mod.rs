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

mod checkpoint;
mod claims;
mod commits;
mod cutter;
mod framer;
mod held;
mod keeper;
mod packer;
mod run;
mod settle;
mod slots;
mod writer;

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

use crossbeam_channel::bounded;
use crossbeam_channel::unbounded;

use crate::crypto::random;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::facts::Facts;
use crate::id::SnapshotId;
use crate::lock::lock;
use crate::repo::LockedRepository;
use crate::snapshot::Snapshot;
use crate::watch::Watch;

pub use commits::Changes;
pub use commits::commit_changes;
pub use cutter::Block;
pub use cutter::Cutter;
pub use cutter::Piece;
pub use run::announce;
pub(crate) use run::announce_anew;
pub(crate) use run::end;
pub use settle::settle;
pub use settle::settle_listed;
pub use slots::slot_remove;
pub use slots::slot_replace;
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
    locked.check_writable()?;
    settle(locked)?;
    run::bury(locked)?;
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
        root_meta: tree.root.meta,
        root: tree.root.node,
        root_attributes: tree.root.attributes,
        totals: crate::snapshot::Totals { unreadable, ..tree.totals },
        attributes: facts.attributes(),
    };
    commit_changes(locked, options.time, Changes { snapshots_added: vec![snapshot.clone()], ..Changes::default() })?;
    run::end(locked)?;
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
    run::end(locked)?;
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
