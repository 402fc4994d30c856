//! The thread that walks the snapshot. It creates directories, decides about existing entries of the target, and hands
//! everything else to the workers. In a dry run it only reports.
//!
//! A directory that is not selected itself is created if an entry below it is. Directories stay private (0700) until
//! they are complete, and hard links wait until the file is complete; `finish` does both at the end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::fchmod;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;

use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::read::View;

use crate::restore::directories::At;
use crate::restore::directories::Directories;
use crate::restore::directories::Index;
use crate::restore::directories::Place;
use crate::restore::directories::Trail;
use crate::restore::files::existing;
use crate::restore::files::feed;
use crate::restore::files::queue::Feeder;
use crate::restore::job::Job;
use crate::restore::job::Verdict;
use crate::restore::links::Link;
use crate::restore::links::Names;
use crate::restore::meta::flags_pin;
use crate::restore::report::Failure;
use crate::restore::report::Reason;
use crate::restore::report::Step;
use crate::restore::report::target;
use crate::restore::shared::Shared;
use crate::restore::walk::Event;
use crate::restore::walk::Walk;

/// A directory of the snapshot on the way to the current place of the walk.
struct Level {
    entry: Arc<Entry>,
    path_bytes: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing in it has been selected so far.
    Pending,
    /// Dry run: it would be created.
    Planned,
    /// It exists and is on the trail.
    Open,
    /// It could not be created, which has been reported.
    Failed,
}

/// What remains when everything has been handed to the workers.
pub(in crate::restore) struct Rest {
    pub(in crate::restore) directories: Directories,
    pub(in crate::restore) links: Vec<Link>,
    /// Files with several names whose inode flags would prevent hard links.
    pub(in crate::restore) pinned: Vec<(Index, Arc<Entry>)>,
    /// Entries that wait for a directory in their place to be deleted, by path in the snapshot.
    pub(in crate::restore) blocked: BTreeMap<Vec<u8>, Job>,
    names: Names,
}

impl Rest {
    pub(in crate::restore) fn new(directories: Directories) -> Rest {
        let (links, pinned, blocked) = (Vec::new(), Vec::new(), BTreeMap::new());
        Rest { directories, links, pinned, blocked, names: Names::default() }
    }
}

/// The walking thread's state.
pub(in crate::restore) struct Builder<'a, 's> {
    shared: &'a Shared<'a>,
    walk: Walk<'a>,
    say: &'s mut dyn FnMut(Step, &[u8]),
    /// `None` in a dry run if the target does not exist.
    trail: Option<Trail>,
    levels: Vec<Level>,
    rest: &'s mut Rest,
}

impl<'a, 's> Builder<'a, 's> {
    /// Begins in the target `root`, which is `None` in a dry run without a target.
    pub(in crate::restore) fn new(
        shared: &'a Shared<'a>,
        walk: Walk<'a>,
        root: Option<Arc<Place>>,
        rest: &'s mut Rest,
        say: &'s mut dyn FnMut(Step, &[u8]),
    ) -> Builder<'a, 's> {
        let trail = root.map(Trail::new);
        Builder { shared, walk, say, trail, levels: Vec::new(), rest }
    }

    /// Walks to the end.
    pub(in crate::restore) fn run(mut self, feeder: &mut Feeder<'_>) -> Result<(), Error> {
        if self.walk.may_lack_entries() {
            self.lacks_entries();
        }
        while let Some(event) = self.walk.next()? {
            if self.shared.is_stopped() {
                return Err(Error::Cancelled);
            }
            match event {
                Event::Enter { entry, taken } => self.enter(entry, taken)?,
                Event::Entry(entry) if self.ready()? => self.entry(feeder, entry)?,
                Event::Entry(_) => {}
                Event::Unreadable(error) => {
                    self.shared.fail(At::Path(self.walk.path().to_vec()), Failure::Damage(error));
                }
                Event::Leave => self.leave()?,
            }
        }
        Ok(())
    }

    fn enter(&mut self, entry: Arc<Entry>, taken: bool) -> Result<(), Error> {
        let path_bytes = self.walk.path().len();
        let hopeless = self.levels.last().is_some_and(|level| level.state == State::Failed);
        self.levels.push(Level { entry, path_bytes, state: State::Pending });
        if hopeless || taken && !self.ready()? {
            self.levels.pop();
            self.walk.skip();
        } else if taken && self.levels.last().is_some_and(|level| level.entry.may_lack_entries()) {
            self.lacks_entries();
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Error> {
        let left = self.levels.pop();
        if left.is_some_and(|level| level.state == State::Open)
            && let Some(trail) = &mut self.trail
        {
            let trouble = |source| Error::Local { doing: "leave", path: printable(self.walk.path()), source };
            trail.leave().map_err(trouble)?;
        }
        Ok(())
    }

    /// The current directory of the target; `None` if a dry run would have to create it first.
    fn here(&self) -> Option<(Index, Arc<Place>)> {
        let made = self.levels.iter().rev().find(|level| level.state != State::Pending);
        if made.is_some_and(|level| level.state == State::Planned) {
            return None;
        }
        let (index, place) = self.trail.as_ref()?.here();
        Some((index, Arc::clone(place)))
    }

    /// Creates all missing directories on the way to the current one. Returns false if that failed.
    fn ready(&mut self) -> Result<bool, Error> {
        let pending = self.levels.iter().rev().take_while(|level| level.state == State::Pending).count();
        for at in self.levels.len() - pending..self.levels.len() {
            let above = at.checked_sub(1).and_then(|above| self.levels.get(above)).map(|level| level.state);
            let Some(level) = self.levels.get(at) else { break };
            let (entry, path_bytes) = (Arc::clone(&level.entry), level.path_bytes);
            let state = if above == Some(State::Failed) { State::Failed } else { self.make(&entry, path_bytes)? };
            if let Some(level) = self.levels.get_mut(at) {
                level.state = state;
            }
        }
        Ok(self.levels.last().is_none_or(|level| level.state != State::Failed))
    }

    /// Creates one directory of the way, or opens it if it exists.
    fn make(&mut self, entry: &Arc<Entry>, path_bytes: usize) -> Result<State, Error> {
        let path = self.walk.path().get(..path_bytes).unwrap_or_default().to_vec();
        let Some((index, parent)) = self.here() else {
            (self.say)(Step::Create, &path);
            self.shared.count(|report| report.directories += 1);
            return Ok(State::Planned);
        };
        let (place, meta) = match self.open_or_make(&parent, entry, &path) {
            Ok((Some(place), meta)) => (place, meta),
            Ok((None, _)) => return Ok(State::Planned),
            Err(failure) => {
                self.shared.fail_at(&parent, &entry.name, At::Path(path), failure);
                return Ok(State::Failed);
            }
        };
        let trouble = |source| Error::Local { doing: "record", path: printable(&path), source };
        let index = self.rest.directories.add(index, entry.name.clone(), &place, meta).map_err(trouble)?;
        if let Some(trail) = &mut self.trail {
            trail.enter(index, Arc::new(place));
        }
        Ok(State::Open)
    }

    /// The open directory (`None` in a dry run that would create it), and the metadata that it gets.
    fn open_or_make(
        &mut self,
        parent: &Place,
        entry: &Entry,
        path: &[u8],
    ) -> Result<(Option<Place>, Option<Box<Meta>>), Failure> {
        let dry_run = self.shared.options.dry_run;
        let name = entry.name.as_bytes();
        let there = if parent.fresh { None } else { existing::look(parent, name).map_err(target("inspect"))? };
        let step = existing::judge_directory(there.as_ref(), &entry.meta, self.shared.options)
            .map_err(|reason| target("create")(io::Error::other(reason)))?;
        let is_settled = |stat| existing::is_settled(self.shared, parent, name, stat, &entry.meta);
        let step = match step {
            Step::Adjust if dry_run && there.as_ref().is_some_and(is_settled) => Step::Keep,
            step => step,
        };
        (self.say)(step, path);
        self.shared.count(|report| report.directories += 1);
        let meta = (step != Step::Keep).then(|| Box::new(entry.meta.clone()));
        let place = match (step, there) {
            (Step::Create | Step::Replace, _) if dry_run => None,
            (Step::Adjust | Step::Keep, Some(stat)) => {
                let place = parent.open(&entry.name).map_err(target("open"))?;
                if step == Step::Adjust && !dry_run {
                    self.make_writable(&place, &stat);
                }
                Some(place)
            }
            (step, _) => {
                if step == Step::Replace {
                    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir).map_err(target("replace"))?;
                }
                Some(parent.make(&entry.name).map_err(target("create"))?)
            }
        };
        Ok((place, meta))
    }

    /// Makes a directory writable that is read-only for its owner, unless this is root. It gets its mode at the end.
    fn make_writable(&self, place: &Place, stat: &FileStat) {
        let mode = stat.st_mode & 0o7777;
        if !self.shared.root && mode & 0o700 != 0o700 {
            // If the directory is not ours, writing in it will fail, and that is reported.
            let _ = fchmod(place.as_fd(), Mode::from_bits_truncate(mode | 0o700));
        }
    }

    /// Reports a directory whose listing broke off. What it lacks may have been there, so nothing in it is deleted.
    fn lacks_entries(&self) {
        self.withheld("it may lack entries: its listing broke off when it was backed up".to_owned());
    }

    /// Reports an entry that the snapshot has without its content. Whatever stands in its place stays.
    fn withheld(&self, text: String) {
        let path = if self.walk.path().is_empty() { b"/" } else { self.walk.path() };
        self.shared.tally().issue(At::Path(path.to_vec()), text, Reason::Snapshot);
        self.shared.watch.entries.fetch_add(1, Ordering::Relaxed);
    }

    fn entry(&mut self, feeder: &mut Feeder<'_>, entry: Arc<Entry>) -> Result<(), Error> {
        if let Some(withheld) = entry.withheld() {
            self.withheld(format!("it was not restored: {withheld}"));
            return Ok(());
        }
        let Some((directory, place)) = self.here() else {
            (self.say)(Step::Create, self.walk.path());
            count_planned(self.shared, &entry);
            return Ok(());
        };
        let verdict = match existing::judge_and_clear(self.shared, &place, &entry) {
            Ok(verdict) => verdict,
            Err(failure) => {
                self.shared.fail_at(&place, &entry.name, At::In(directory, entry.name.clone()), failure);
                return Ok(());
            }
        };
        (self.say)(verdict.step(), self.walk.path());
        if verdict == Verdict::Keep {
            self.shared.count(|report| report.kept += 1);
            return Ok(());
        }
        let job = Job { place, directory, entry, verdict };
        if job.verdict == Verdict::Blocked {
            self.rest.blocked.insert(self.walk.path().to_vec(), job);
            return Ok(());
        }
        hand_over(self.shared, self.walk.view(), self.rest, feeder, job)
    }
}

/// Hands an entry to the workers, or keeps it for later if it is another name of a file. In a dry run, counts it.
pub(in crate::restore) fn hand_over(
    shared: &Shared<'_>,
    view: &View,
    rest: &mut Rest,
    feeder: &mut Feeder<'_>,
    job: Job,
) -> Result<(), Error> {
    let dry_run = shared.options.dry_run;
    let job = match rest.names.sort(job) {
        Ok(job) => job,
        Err(link) if dry_run => {
            shared.count(|report| report.links += u64::from(link.verdict != Verdict::Match));
            return Ok(());
        }
        Err(link) => {
            rest.links.push(link);
            return Ok(());
        }
    };
    if job.entry.is_hard_linked() && flags_pin(&job.entry.meta) {
        rest.pinned.push((job.directory, Arc::clone(&job.entry)));
    }
    match job.verdict {
        Verdict::Match => shared.count(|report| report.kept += 1),
        Verdict::Adjust if dry_run => shared.count(|report| report.kept += 1),
        _ if dry_run => count_planned(shared, &job.entry),
        _ => feed::submit(shared, view, feeder, job)?,
    }
    Ok(())
}

fn count_planned(shared: &Shared<'_>, entry: &Entry) {
    shared.count(|report| match entry.kind {
        Kind::File(_) => {
            report.files += 1;
            report.bytes += entry.meta.size;
        }
        Kind::Directory(_)
        | Kind::Symlink(_)
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharDevice { .. }
        | Kind::BlockDevice { .. }
        | Kind::Unreadable { .. }
        | Kind::Newer { .. } => report.others += 1,
    });
}
