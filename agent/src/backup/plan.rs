//! The walk: compares every entry with the parent snapshot, in tree order, and collects steps in batches.
//!
//! Tree order is depth first, with the names of each directory in byte order; the walk descends into a directory at its
//! place among its siblings. The walk has an explicit stack, so depth costs memory but not the thread's stack. Only the
//! lowest few directories on it hold their descriptors.
//!
//! The walk decides and another thread delivers, so files can be read ahead. A [`Batch`] is a run of [`Step`]s with at
//! most one [`Job`] that reads its files. A job goes to the readers before its batch goes out, and both queues are
//! first in, first out. So the next batch to deliver has been read or is being read.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use nix::errno::Errno;

use bygone_core::entry::Entry;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::error::Error;
use bygone_core::id::NodeId;

use crate::backup::ahead::Ahead;
use crate::backup::ahead::Entered;
use crate::backup::ahead::Pool;
use crate::backup::before::Compare;
use crate::backup::before::Earlier;
use crate::backup::before::Past;
use crate::backup::before::Verdict;
use crate::backup::folder::Folder;
use crate::backup::metadata::Describer;
use crate::backup::read::Event;
use crate::backup::read::Job;
use crate::backup::read::Task;
use crate::backup::report::Trouble;
use crate::backup::roots::Way;
use crate::backup::scan::Child;
use crate::backup::scan::Scope;
use crate::backup::stat::FileType;
use crate::backup::stat::Stat;

/// Most steps of a batch.
const BATCH_STEPS: usize = 256;
/// Files of one job, and the bytes at which it is full: large enough to be worth handing over, small enough to keep all
/// readers busy.
const JOB_FILES: usize = 64;
const JOB_BYTES: u64 = 1 << 20;

/// One thing to deliver.
pub(super) enum Step {
    /// A directory begins.
    Begin,
    /// The innermost directory ends; the root has no name.
    End(Option<Name>, Box<Meta>),
    /// An entry that is unchanged since the parent snapshot; it is read from the folder if the repository has lost it.
    Same(Arc<Entry>, Arc<Folder>),
    /// An entry without content.
    Add(Box<Entry>),
    /// The next file of the batch's job; true if the parent has an entry of this name.
    Read(bool),
    /// In a dry run: a file that would be read.
    Skipped(bool, u64),
}

/// A run of steps.
pub(super) struct Batch {
    pub(super) steps: Vec<Step>,
    /// The answers of the job, if the batch has one.
    pub(super) answers: Option<Receiver<Vec<Event>>>,
}

/// The ends of the queues that the walk fills.
pub(super) struct Queues {
    pub(super) batches: Sender<Batch>,
    /// `None` in a dry run.
    pub(super) jobs: Option<Sender<Job>>,
    /// How many answers of a job may wait.
    pub(super) answers_max: usize,
    /// How many directories' descriptors a job may hold.
    pub(super) folders_max: usize,
}

/// Why the walk ends early.
pub(super) enum Stop {
    /// The receiver of the batches has gone.
    Closed,
    /// The parent snapshot or the root of the file system cannot be read.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// A directory on the stack.
struct Frame {
    name: Option<Name>,
    entered: Entered,
    entry: Option<Arc<Entry>>,
    earlier: Earlier,
}

/// The walk's state.
pub(super) struct Walk<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) pool: &'a Pool,
    pub(super) describe: Describer<'a>,
    pub(super) compare: Compare,
    pub(super) past: Past,
    /// Directories on the stack that hold their descriptors.
    pub(super) held_max: usize,
    pub(super) queues: Queues,
}

impl Walk<'_> {
    /// Walks everything that `way` leads to; `root` is the root of the parent snapshot.
    pub(super) fn run(self, way: &Way, root: Option<NodeId>) -> Result<(), Stop> {
        let entered = self.pool.root(self.scope, way).map_err(|errno| Error::Local {
            doing: "open",
            path: "/".into(),
            source: errno.into(),
        })?;
        let mut frames = Vec::new();
        let mut filling =
            Filling { queues: &self.queues, steps: Vec::new(), tasks: Vec::new(), task_bytes: 0, task_folders: 0 };
        let earlier = self.past.directory(root)?;
        filling.step(Step::Begin)?;
        frames.push(Frame { name: None, entered, entry: None, earlier });
        while let Some(frame) = frames.last_mut() {
            match frame.entered.next(self.scope, self.pool) {
                Some((child, ahead)) => {
                    if let Some(frame) = self.child(frame, child, ahead, &mut filling)? {
                        filling.step(Step::Begin)?;
                        frames.push(frame);
                        if let Some(far) = frames.len().checked_sub(self.held_max + 1).and_then(|far| frames.get(far)) {
                            far.entered.folder.close();
                        }
                    }
                }
                None => self.leave(&mut frames, &mut filling)?,
            }
        }
        filling.flush()
    }

    /// Decides about one name; a directory is returned to be walked.
    fn child(
        &self,
        frame: &mut Frame,
        child: Child,
        ahead: Option<Arc<Ahead>>,
        filling: &mut Filling<'_>,
    ) -> Result<Option<Frame>, Stop> {
        let entry = frame.earlier.find(&self.past, &child.name)?;
        let folder = &frame.entered.folder;
        let Some(ahead) = ahead else {
            self.leaf(folder, &child.name, &child.stat, entry, filling)?;
            return Ok(None);
        };
        match self.pool.take(&ahead, self.scope) {
            Ok(entered) => {
                let earlier = self.past.directory(entry.as_ref().and_then(|entry| entry.directory()))?;
                return Ok(Some(Frame { name: Some(child.name), entered, entry, earlier }));
            }
            // It is no longer a directory: see what it is now.
            Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
                let now = folder.fd().and_then(|fd| Stat::of_child(fd.as_fd(), child.name.as_bytes()));
                match now {
                    Ok(stat) if stat.file_type() != FileType::Directory => {
                        self.leaf(folder, &child.name, &stat, entry, filling)?;
                    }
                    _ => self.scope.issues.lost(folder, child.name.as_bytes(), errno),
                }
            }
            Err(errno) => self.scope.issues.lost(folder, child.name.as_bytes(), errno),
        }
        Ok(None)
    }

    /// Anything but a directory.
    fn leaf(
        &self,
        folder: &Arc<Folder>,
        name: &Name,
        stat: &Stat,
        entry: Option<Arc<Entry>>,
        filling: &mut Filling<'_>,
    ) -> Result<(), Stop> {
        if let Some(entry) = &entry
            && let Some(same) = self.same(folder, stat, entry)
        {
            return filling.step(Step::Same(same, folder.clone()));
        }
        let done = folder.fd().and_then(|fd| match stat.file_type() {
            FileType::File => Ok(filling.file(folder, fd, name, stat.size, entry.is_some())),
            _ => self.describe.other(folder, &fd, name, stat).map(|entry| filling.step(Step::Add(Box::new(entry)))),
        });
        match done {
            Ok(pushed) => pushed,
            Err(errno) => {
                self.scope.issues.lost(folder, name.as_bytes(), errno);
                Ok(())
            }
        }
    }

    /// The entry to keep if nothing needs to be read.
    fn same(&self, folder: &Folder, stat: &Stat, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        match self.compare.judge(entry, stat) {
            Verdict::Changed => None,
            Verdict::Same => Some(entry.clone()),
            Verdict::Renumbered => {
                let meta = Meta { device: stat.device, inode: stat.inode, ..entry.meta.clone() };
                Some(Arc::new(Entry { name: entry.name.clone(), meta, kind: entry.kind.clone() }))
            }
            Verdict::SameContent => {
                let fd = folder.fd().ok()?;
                let meta = self.describe.closed(folder, &fd, &entry.name, stat)?;
                Some(Arc::new(Entry { name: entry.name.clone(), meta, kind: entry.kind.clone() }))
            }
        }
    }

    /// Ends the innermost directory.
    fn leave(&self, frames: &mut Vec<Frame>, filling: &mut Filling<'_>) -> Result<(), Stop> {
        let Some(frame) = frames.pop() else { return Ok(()) };
        let Entered { folder, stat, .. } = &frame.entered;
        let known = frame.entry.as_ref().filter(|entry| self.compare.keeps_attributes(&entry.meta, stat));
        let meta = match (known, folder.fd()) {
            (Some(entry), _) => self.describe.refreshed(stat, &entry.meta),
            (None, Ok(fd)) => self.describe.opened(fd.as_fd(), stat, folder, b""),
            (None, Err(errno)) => {
                let note = format!("its attributes were not read: {}", errno.desc());
                self.scope.issues.add(folder.path(b""), Trouble::Note(note));
                self.describe.bare(stat)
            }
        };
        if let Some(parent) = frames.last() {
            // If the parent cannot be entered again, each entry that needs it will report that.
            let _ = parent.entered.folder.hold(folder);
        }
        folder.close();
        filling.step(Step::End(frame.name, Box::new(meta)))
    }
}

/// The batch being filled.
struct Filling<'a> {
    queues: &'a Queues,
    steps: Vec<Step>,
    tasks: Vec<Task>,
    task_bytes: u64,
    task_folders: usize,
}

impl Filling<'_> {
    fn step(&mut self, step: Step) -> Result<(), Stop> {
        self.steps.push(step);
        if self.steps.len() >= BATCH_STEPS { self.flush() } else { Ok(()) }
    }

    fn file(
        &mut self,
        folder: &Arc<Folder>,
        fd: Arc<OwnedFd>,
        name: &Name,
        size: u64,
        known: bool,
    ) -> Result<(), Stop> {
        if self.queues.jobs.is_none() {
            return self.step(Step::Skipped(known, size));
        }
        if self.tasks.last().is_none_or(|last| !Arc::ptr_eq(&last.folder, folder)) {
            self.task_folders += 1;
        }
        self.tasks.push(Task { folder: folder.clone(), fd, name: name.clone() });
        self.task_bytes = self.task_bytes.saturating_add(size);
        let full = self.tasks.len() >= JOB_FILES
            || self.task_bytes >= JOB_BYTES
            || self.task_folders >= self.queues.folders_max;
        self.step(Step::Read(known))?;
        if full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let mut answers = None;
        if let Some(jobs) = &self.queues.jobs
            && !self.tasks.is_empty()
        {
            let (sender, receiver) = bounded(self.queues.answers_max);
            let job = Job { tasks: std::mem::take(&mut self.tasks), answers: sender };
            jobs.send(job).map_err(|_| Stop::Closed)?;
            answers = Some(receiver);
        }
        (self.task_bytes, self.task_folders) = (0, 0);
        let steps = std::mem::take(&mut self.steps);
        self.queues.batches.send(Batch { steps, answers }).map_err(|_| Stop::Closed)
    }
}
