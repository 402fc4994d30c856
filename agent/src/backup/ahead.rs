//! Scans directories ahead of the walk in several threads, and still delivers them in the walk's order.
//!
//! Each directory that a scan returns becomes an [`Ahead`] and is offered to the [`Pool`]. Idle threads take the
//! directory offered last, which in a depth-first walk is about the one needed first. The walk calls [`Pool::take`] for
//! each directory: if no thread has begun it, the walk scans it on the spot; if a thread is scanning it, the walk
//! waits. So the walk only ever waits for work already under way, and no limit of the pool can block it.
//!
//! The pool limits what is scanned but not yet taken: entries to bound memory, directories to bound open descriptors.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;

use nix::errno::Errno;

use bygone_core::entry::FileType;
use bygone_core::entry::Name;
use bygone_core::lock::lock;
use bygone_core::lock::wait;

use crate::backup::folder::Folder;
use crate::backup::roots::Way;
use crate::backup::scan::Child;
use crate::backup::scan::Extent;
use crate::backup::scan::Listing;
use crate::backup::scan::Request;
use crate::backup::scan::Scanned;
use crate::backup::scan::Scope;
use crate::backup::scan::scan;
use crate::backup::scan::scan_root;
use crate::backup::stat::Stat;

/// A directory that was found and that the walk will need.
pub(super) struct Ahead {
    state: Mutex<State>,
    done: Condvar,
}

enum State {
    /// No thread has begun.
    Offered(Request),
    /// A thread of the pool is scanning it.
    Running,
    /// Scanned by the pool, with its weight there.
    Done(Box<Result<Entered, Errno>>, usize),
    /// The walk has it, or a thread died while scanning it.
    Taken,
}

/// A scanned directory, whose subdirectories have been offered.
pub(super) struct Entered {
    pub(super) folder: Arc<Folder>,
    pub(super) stat: Stat,
    listing: Listing,
    /// The directories that the listing will return, in its order.
    aheads: VecDeque<Arc<Ahead>>,
}

impl Entered {
    fn new(scanned: Scanned, pool: &Pool) -> Entered {
        let Scanned { folder, stat, listing } = scanned;
        let mut entered = Entered { folder, stat, listing, aheads: VecDeque::new() };
        entered.offer(pool);
        entered
    }

    /// The next name in order and, for a directory, the source of its scan.
    pub(super) fn next(&mut self, scope: &Scope<'_>, pool: &Pool) -> Option<(Child, Option<Arc<Ahead>>)> {
        let child = self.listing.next(scope, &self.folder)?;
        self.offer(pool);
        let is_directory = child.stat.is_ok_and(|stat| stat.file_type() == FileType::Directory);
        let ahead = if is_directory { self.aheads.pop_front() } else { None };
        Some((child, ahead))
    }

    /// How much of the directory the listing gives.
    pub(super) fn extent(&self) -> Extent {
        self.listing.extent()
    }

    /// True if the patterns leave out this name of the directory.
    pub(super) fn leaves_out(&self, scope: &Scope<'_>, name: &Name) -> bool {
        self.listing.leaves_out(scope, name)
    }

    /// Offers the directories that the listing has described so far.
    fn offer(&mut self, pool: &Pool) {
        let found = self.listing.take_found();
        if !found.is_empty() {
            let from = self.aheads.len();
            self.aheads.extend(found.into_iter().map(Ahead::new));
            pool.offer(self.aheads.iter().skip(from).cloned());
        }
    }
}

impl Ahead {
    fn new(request: Request) -> Arc<Ahead> {
        Arc::new(Ahead { state: Mutex::new(State::Offered(request)), done: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// For a thread of the pool: the request with its parent's descriptor, if that is still open. A parent without one
    /// is far up in a deep tree; the walk opens it again when it returns there.
    fn begin(&self) -> Option<(Request, Arc<OwnedFd>)> {
        let mut state = self.lock();
        let State::Offered(request) = &*state else { return None };
        let fd = request.parent.open_fd()?;
        match std::mem::replace(&mut *state, State::Running) {
            State::Offered(request) => Some((request, fd)),
            _ => None,
        }
    }

    fn end(&self, state: State) {
        *self.lock() = state;
        self.done.notify_all();
    }
}

/// If a scan panics, the walk must not wait for it forever.
struct EndOnPanic<'a>(&'a Ahead);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(State::Taken);
        }
    }
}

/// The offered directories, and how much has been scanned ahead.
pub(super) struct Pool {
    work: Mutex<Work>,
    wake: Condvar,
    entries_max: usize,
    directories_max: usize,
}

#[derive(Default)]
struct Work {
    offered: Vec<Arc<Ahead>>,
    entries: usize,
    directories: usize,
    sleeping: usize,
    closed: bool,
}

impl Pool {
    pub(super) fn new(entries_max: usize, directories_max: usize) -> Pool {
        Pool { work: Mutex::default(), wake: Condvar::new(), entries_max, directories_max }
    }

    /// Offers the directories of one parent, in the order in which they will be needed.
    fn offer(&self, found: impl DoubleEndedIterator<Item = Arc<Ahead>>) {
        let mut work = self.lock();
        let before = work.offered.len();
        work.offered.extend(found.rev());
        let (added, sleeping) = (work.offered.len() - before, work.sleeping);
        drop(work);
        for _ in 0..added.min(sleeping) {
            self.wake.notify_one();
        }
    }

    /// The scan of the root of the file system, for the walk.
    pub(super) fn root(&self, scope: &Scope<'_>, way: &Way) -> Result<Entered, Errno> {
        scan_root(scope, way).map(|scanned| Entered::new(scanned, self))
    }

    /// Takes the scan of a directory for the walk: a finished one, one to wait for, or one done now.
    pub(super) fn take(&self, ahead: &Ahead, scope: &Scope<'_>) -> Result<Entered, Errno> {
        let mut state = ahead.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Offered(request) => {
                    drop(state);
                    let scanned = request.parent.fd().and_then(|fd| scan(scope, &request, &fd));
                    return scanned.map(|scanned| Entered::new(scanned, self));
                }
                State::Running => {
                    *state = State::Running;
                    state = wait(&ahead.done, state);
                }
                State::Done(scanned, weight) => {
                    drop(state);
                    self.release(weight);
                    return *scanned;
                }
                State::Taken => return Err(Errno::EIO),
            }
        }
    }

    /// The body of each thread of the pool, until the pool is closed.
    pub(super) fn work(&self, scope: &Scope<'_>) {
        while let Some(ahead) = self.next() {
            let Some((request, parent_fd)) = ahead.begin() else {
                self.release(0);
                continue;
            };
            let guard = EndOnPanic(&ahead);
            let entered = scan(scope, &request, &parent_fd).map(|scanned| Entered::new(scanned, self));
            drop(guard);
            match entered {
                // Too many open files, here or elsewhere: the walk needs fewer.
                Err(Errno::EMFILE | Errno::ENFILE) => {
                    ahead.end(State::Offered(request));
                    self.release(0);
                }
                entered => {
                    let weight = entered.as_ref().map_or(0, |entered| entered.listing.weight());
                    self.lock().entries += weight;
                    ahead.end(State::Done(Box::new(entered), weight));
                }
            }
        }
    }

    /// The next directory to scan, counted as ahead. Waits for a directory, and for room.
    fn next(&self) -> Option<Arc<Ahead>> {
        let mut work = self.lock();
        loop {
            if work.closed {
                return None;
            }
            if work.entries < self.entries_max
                && work.directories < self.directories_max
                && let Some(ahead) = work.offered.pop()
            {
                work.directories += 1;
                return Some(ahead);
            }
            work.sleeping += 1;
            work = wait(&self.wake, work);
            work.sleeping -= 1;
        }
    }

    /// Counts a directory as no longer ahead.
    fn release(&self, entries: usize) {
        let mut work = self.lock();
        work.entries = work.entries.saturating_sub(entries);
        work.directories = work.directories.saturating_sub(1);
        let wake = work.sleeping > 0 && !work.offered.is_empty();
        drop(work);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Ends the work of all threads.
    pub(super) fn close(&self) {
        let mut work = self.lock();
        work.closed = true;
        work.offered.clear();
        drop(work);
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        lock(&self.work)
    }
}
