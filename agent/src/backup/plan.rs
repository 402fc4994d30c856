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

use bygone_core::attributes::Attributes;
use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::error::Error;

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
use crate::backup::scan::Extent;
use crate::backup::scan::Scope;
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
    /// The innermost directory ends.
    End(Box<End>),
    /// An entry that is unchanged since the parent snapshot; it is read from the folder if the repository has lost it.
    Same(Arc<Entry>, Arc<Folder>),
    /// An entry without content, or one that says that it could not be read.
    Add(Box<Entry>),
    /// The next file of the batch's job; true if the parent has an entry of this name.
    Read(bool),
    /// In a dry run: a file that would be read.
    Skipped(bool, u64),
}

/// What is known of a directory at its end.
pub(super) struct End {
    /// The root has none.
    pub(super) name: Option<Name>,
    pub(super) meta: Meta,
    pub(super) attributes: Attributes,
    /// Its entry in the parent snapshot, if that says something that this program does not know.
    pub(super) known: Option<Arc<Entry>>,
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
    /// Walks everything that `way` leads to; `root` is the root of the parent snapshot. Returns the number of entries of
    /// the parent that are gone.
    pub(super) fn run(self, way: &Way, root: Option<Arc<Entry>>) -> Result<u64, Stop> {
        let entered = self.pool.root(self.scope, way).map_err(|errno| Error::Local {
            doing: "open",
            path: "/".into(),
            source: errno.into(),
        })?;
        let mut frames = Vec::new();
        let mut filling = Filling {
            queues: &self.queues,
            steps: Vec::new(),
            tasks: Vec::new(),
            task_bytes: 0,
            task_folders: 0,
            gone: 0,
        };
        let earlier = self.past.directory(root.as_ref().and_then(|root| root.directory()))?;
        filling.step(Step::Begin)?;
        frames.push(Frame { name: None, entered, entry: root, earlier });
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
        filling.flush()?;
        Ok(filling.gone)
    }

    /// Decides about one name; a directory is returned to be walked.
    fn child(
        &self,
        frame: &mut Frame,
        child: Child,
        ahead: Option<Arc<Ahead>>,
        filling: &mut Filling<'_>,
    ) -> Result<Option<Frame>, Stop> {
        let Child { name, stat } = child;
        while let Some(absent) = frame.earlier.absent_before(&self.past, Some(&name))? {
            self.absent(&frame.entered, &absent, filling)?;
        }
        let entry = frame.earlier.find(&self.past, &name)?;
        let folder = &frame.entered.folder;
        let stat = match stat {
            Ok(stat) => stat,
            Err(errno) => {
                self.unreadable(folder, &name, errno, None, entry.as_deref(), filling)?;
                return Ok(None);
            }
        };
        let Some(ahead) = ahead else {
            self.leaf(folder, &name, &stat, entry, filling)?;
            return Ok(None);
        };
        match self.pool.take(&ahead, self.scope) {
            Ok(entered) => {
                let earlier = self.past.directory(entry.as_ref().and_then(|entry| entry.directory()))?;
                return Ok(Some(Frame { name: Some(name), entered, entry, earlier }));
            }
            // It is no longer a directory: see what it is now.
            Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
                match folder.fd().and_then(|fd| Stat::of_child(fd.as_fd(), name.as_bytes())) {
                    Ok(stat) if stat.file_type() != FileType::Directory => {
                        self.leaf(folder, &name, &stat, entry, filling)?;
                    }
                    Ok(stat) => self.unreadable(folder, &name, errno, Some(&stat), entry.as_deref(), filling)?,
                    Err(errno) => self.unreadable(folder, &name, errno, Some(&stat), entry.as_deref(), filling)?,
                }
            }
            Err(errno) => self.unreadable(folder, &name, errno, Some(&stat), entry.as_deref(), filling)?,
        }
        Ok(None)
    }

    /// Handles an entry of the parent that its directory does not list any more.
    fn absent(&self, entered: &Entered, entry: &Entry, filling: &mut Filling<'_>) -> Result<(), Stop> {
        match entered.extent() {
            Extent::Part => Ok(()),
            // Nobody knows whether it is still there. The directory as a whole has been reported.
            Extent::Broken(errno) if !entered.leaves_out(self.scope, &entry.name) => {
                let kind = Kind::Unreadable { errno: (errno as i32).cast_unsigned(), was: entry.file_type() };
                filling.step(Step::Add(Box::new(Entry::new(entry.name.clone(), entry.meta.clone(), kind))))
            }
            Extent::Whole | Extent::Broken(_) => {
                filling.gone += self.past.count(entry);
                Ok(())
            }
        }
    }

    /// Handles a name that cannot be read, or has gone since it was listed.
    fn unreadable(
        &self,
        folder: &Folder,
        name: &Name,
        errno: Errno,
        stat: Option<&Stat>,
        known: Option<&Entry>,
        filling: &mut Filling<'_>,
    ) -> Result<(), Stop> {
        match self.describe.unreadable(folder, name, errno, stat, known) {
            Some(entry) => filling.step(Step::Add(Box::new(entry))),
            None => {
                filling.gone += known.map_or(0, |known| self.past.count(known));
                Ok(())
            }
        }
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
        if let Some(before) = entry.as_ref().filter(|before| before.directory().is_some()) {
            // The name has stayed; what was below it is gone.
            filling.gone += self.past.count(before) - 1;
        }
        let done = folder.fd().and_then(|fd| match stat.file_type() {
            FileType::File => Ok(filling.file(folder, fd, name, stat, entry.is_some())),
            _ => self.describe.other(folder, &fd, name, stat).map(|entry| filling.step(Step::Add(Box::new(entry)))),
        });
        match done {
            Ok(pushed) => pushed,
            Err(errno) => self.unreadable(folder, name, errno, Some(stat), entry.as_deref(), filling),
        }
    }

    /// The entry to keep if nothing needs to be read.
    fn same(&self, folder: &Folder, stat: &Stat, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        match self.compare.judge(entry, stat) {
            Verdict::Changed => None,
            Verdict::Same => Some(entry.clone()),
            Verdict::Renumbered => {
                let meta = Meta { device: stat.device, inode: stat.inode, ..entry.meta.clone() };
                Some(Arc::new(Entry { meta, ..Entry::clone(entry) }))
            }
            Verdict::SameContent => {
                let fd = folder.fd().ok()?;
                let meta = self.describe.closed(folder, &fd, &entry.name, stat)?;
                Some(Arc::new(Entry { meta, ..Entry::clone(entry) }))
            }
        }
    }

    /// Ends the innermost directory.
    fn leave(&self, frames: &mut Vec<Frame>, filling: &mut Filling<'_>) -> Result<(), Stop> {
        let Some(mut frame) = frames.pop() else { return Ok(()) };
        while let Some(absent) = frame.earlier.absent_before(&self.past, None)? {
            self.absent(&frame.entered, &absent, filling)?;
        }
        let Entered { folder, stat, .. } = &frame.entered;
        let known = frame.entry.as_ref().filter(|entry| self.compare.keeps_attributes(entry, stat));
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
        let attributes = match frame.entered.extent() {
            Extent::Broken(errno) => Entry::broken_listing((errno as i32).cast_unsigned()),
            Extent::Whole | Extent::Part => Attributes::default(),
        };
        let known = frame.entry.filter(|entry| !entry.unknown_attributes().is_empty());
        filling.step(Step::End(Box::new(End { name: frame.name, meta, attributes, known })))
    }
}

/// The batch being filled.
struct Filling<'a> {
    queues: &'a Queues,
    steps: Vec<Step>,
    tasks: Vec<Task>,
    task_bytes: u64,
    task_folders: usize,
    /// Entries of the parent that are gone.
    gone: u64,
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
        stat: &Stat,
        known: bool,
    ) -> Result<(), Stop> {
        if self.queues.jobs.is_none() {
            return self.step(Step::Skipped(known, stat.size));
        }
        if self.tasks.last().is_none_or(|last| !Arc::ptr_eq(&last.folder, folder)) {
            self.task_folders += 1;
        }
        self.tasks.push(Task { folder: folder.clone(), fd, name: name.clone(), stat: *stat });
        self.task_bytes = self.task_bytes.saturating_add(stat.size);
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
