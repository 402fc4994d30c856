//! The user's files: found, compared with the parent snapshot, read, and delivered in tree order.
//!
//! ```text
//! scanners (pool) --directories--> walk --batches------------------------------> delivery --> writer
//!                                    \---jobs--> readers --pieces of each job---/
//! ```
//!
//! The walk is one thread, and so is the delivery: the caller's thread, which owns the writer. Scanners and readers are
//! several. All queues are bounded in entries or bytes, all threads are scoped, and the first error ends all of them.
//!
//! Nothing joins paths. Directories are open descriptors, so a tree may be deeper than the longest path of a system
//! call, and nobody can swap it for another tree during the walk.

mod ahead;
mod before;
mod deliver;
mod folder;
mod metadata;
mod plan;
mod read;
mod report;
mod roots;
mod scan;
mod sink;
mod stat;
mod stdin;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;

use ahead::Pool;
use before::Compare;
use crossbeam_channel::bounded;
use deliver::Delivery;
use metadata::Describer;
use metadata::Owners;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use plan::Queues;
use plan::Stop;
use plan::Walk;
use read::FileReader;
use report::Issues;
use scan::Scope;
use sink::Sink;

use bygone_core::error::Result;
use bygone_core::watch::Watch;
use bygone_core::write::Cutter;
use bygone_core::write::Writer;

use crate::mounts::mounts;

pub use before::Parent;
pub use report::Counts;
pub use report::Issue;
pub use report::Report;
pub use report::Trouble;
pub use roots::Roots;
pub use scan::Rules;
pub use stdin::Stream;
pub use stdin::backup_stream;

/// Entries that are scanned but not yet walked.
const ENTRIES_AHEAD: usize = 16 << 10;
/// Batches between walk and delivery, where the answers of jobs wait too.
const BATCHES_AHEAD: usize = 6;
/// Content that may wait in the answers of one job, in addition to what is being read and handed over.
const ANSWER_BYTES_AHEAD: usize = 2 << 20;
/// Content that may wait in all jobs.
const JOB_BYTES_AHEAD: usize = 24 << 20;

/// The file system type of a mount of bygone.
const MOUNT_KIND: &[u8] = b"fuse.bygone";

/// How to back up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What to leave out.
    pub rules: Rules,
    /// Read every file, even if it is unchanged since the parent snapshot.
    pub force: bool,
    /// Compare only size, modification time and inode number.
    pub ignore_ctime: bool,
    /// Do not compare inode numbers, because some file systems make them up.
    pub ignore_inode: bool,
    /// Directories of bygone itself (catalog, cache, local store), which are left out with a note.
    pub own_directories: Vec<PathBuf>,
}

/// How many threads and open files a run may have.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    scanners: usize,
    readers: usize,
    entries_ahead: usize,
    directories_ahead: usize,
    directories_held: usize,
    /// Directories whose descriptors one reading job may hold.
    directories_a_job: usize,
}

impl Bounds {
    fn of_this_machine() -> Bounds {
        let cores = thread::available_parallelism().map_or(2, NonZero::get);
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft);
        let share = |parts: u64, max: usize| usize::try_from(descriptors / parts).unwrap_or(max).clamp(2, max);
        Bounds {
            // Scanning waits more for disks than for processors, and takes little of either.
            scanners: cores.clamp(4, 8),
            readers: cores.clamp(2, 8),
            entries_ahead: ENTRIES_AHEAD,
            directories_ahead: share(8, 256),
            directories_held: share(16, 64),
            directories_a_job: share(64, 16),
        }
    }
}

/// Walks everything that a backup would, reads no file, and reports what a backup would do.
pub fn dry_run(parent: Option<Parent>, roots: &Roots, options: &Options, watch: &Watch) -> Result<Report> {
    run(Sink::Count, None, parent, roots, options, watch, &Bounds::of_this_machine())
}

/// Gives the files and directories of `roots` to `writer`, in tree order. The report lists problems with the user's
/// files. An error means that the repository failed or that there is nothing to back up.
pub fn backup_tree(
    writer: &mut Writer<'_>,
    parent: Option<Parent>,
    roots: &Roots,
    options: &Options,
    watch: &Watch,
) -> Result<Report> {
    let cutter = writer.cutter();
    run(Sink::Writer(writer), Some(cutter), parent, roots, options, watch, &Bounds::of_this_machine())
}

fn run(
    sink: Sink<'_, '_>,
    cutter: Option<Cutter>,
    parent: Option<Parent>,
    roots: &Roots,
    options: &Options,
    watch: &Watch,
    bounds: &Bounds,
) -> Result<Report> {
    let parent = parent.unwrap_or_else(Parent::none);
    let found = roots.look()?;
    let (issues, owners) = (Issues::default(), Owners::default());
    for (path, errno) in found.lost {
        issues.add(path, Trouble::Unreadable(errno.desc().into()));
    }
    for (path, note) in found.notes {
        issues.add(path, Trouble::Warning(note));
    }
    let pool = Pool::new(bounds.entries_ahead, bounds.directories_ahead);
    let own = options.own_directories.iter().filter_map(|path| path.metadata().ok());
    let own = own.map(|metadata| (metadata.dev(), metadata.ino())).collect();
    let past = mounts_of_bygone();
    let scope = Scope { rules: &options.rules, past, own, issues: &issues };
    let describe = Describer { owners: &owners, issues: &issues };
    let reader = cutter.map(|cutter| FileReader { cutter, describe });
    let compare = Compare {
        force: options.force,
        ignore_ctime: options.ignore_ctime,
        ignore_inode: options.ignore_inode,
        began: parent.began,
    };
    let counts = thread::scope(|threads| {
        let block_bytes = reader.as_ref().map_or(1, |reader| reader.cutter.block_bytes()).max(1);
        let (batch_in, batch_out) = bounded(BATCHES_AHEAD.min(JOB_BYTES_AHEAD / block_bytes).max(1));
        let (job_in, job_out) = bounded(BATCHES_AHEAD);
        for _ in 0..bounds.scanners {
            threads.spawn(|| pool.work(&scope));
        }
        if let Some(reader) = &reader {
            for _ in 0..bounds.readers {
                let jobs = job_out.clone();
                threads.spawn(move || reader.work(&jobs));
            }
        }
        drop(job_out);
        let jobs = reader.is_some().then_some(job_in);
        let queues = Queues {
            batches: batch_in,
            jobs,
            answers_max: ANSWER_BYTES_AHEAD / block_bytes.max(read::ANSWER_BYTES),
            folders_max: bounds.directories_a_job,
        };
        let (scope, pool, way, root) = (&scope, &pool, &found.way, parent.root);
        let walk =
            Walk { scope, pool, describe, compare, past: parent.past, held_max: bounds.directories_held, queues };
        let walk = threads.spawn(move || {
            let _close = CloseOnDrop(pool);
            walk.run(way, root)
        });
        let delivery = Delivery { sink, reader: reader.clone(), watch, counts: Counts::default(), file_bytes: 0 };
        let delivered = delivery.run(batch_out);
        let walked = walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (delivered, walked) {
            (Ok(_), Err(Stop::Failed(error))) => Err(error),
            (Ok(counts), Ok(gone)) => Ok(Counts { gone: counts.gone + gone, ..counts }),
            (delivered, _) => delivered,
        }
    })?;
    Ok(issues.into_report(counts))
}

/// The devices of all mounts of bygone. If they cannot be listed, a mount is backed up like any other directory.
fn mounts_of_bygone() -> HashSet<u64> {
    let all = mounts().unwrap_or_default().into_iter();
    all.filter(|mount| mount.kind == MOUNT_KIND).map(|mount| mount.device).collect()
}

/// Ends the scanning ahead when the walk ends, even by a panic.
struct CloseOnDrop<'a>(&'a Pool);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
