//! Walks through the snapshot and the target side by side, once everything is restored, and deletes what only the target
//! has.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::libc;

use bygone_core::entry::Entry;
use bygone_core::entry::printable;
use bygone_core::error::Error;

use crate::restore::delete::border;
use crate::restore::delete::remove::Around;
use crate::restore::delete::remove::Sweep;
use crate::restore::delete::remove::Swept;
use crate::restore::delete::rules::Deletion;
use crate::restore::delete::rules::Reach;
use crate::restore::directories::At;
use crate::restore::directories::Place;
use crate::restore::directories::ROOT;
use crate::restore::directories::Trail;
use crate::restore::files::build::Rest;
use crate::restore::files::existing;
use crate::restore::job::Job;
use crate::restore::report::Failure;
use crate::restore::report::Step;
use crate::restore::report::target as failed_to;
use crate::restore::shared::Shared;
use crate::restore::walk::Event;
use crate::restore::walk::Walk;

/// A directory on the way to the current place.
struct Level {
    reach: Reach,
    /// The device that it was on when it was backed up.
    device: u64,
    /// Its listing broke off when it was backed up, so the snapshot does not tell what it lacks in this directory.
    may_lack_entries: bool,
}

impl Level {
    /// True if what the snapshot lacks may be deleted here.
    fn may_delete(&self) -> bool {
        self.reach.may_delete() && !self.may_lack_entries
    }
}

/// The state of the deletion.
pub(in crate::restore) struct Deleter<'a, 's> {
    shared: &'a Shared<'a>,
    deletion: &'a Deletion,
    walk: Walk<'a>,
    say: &'s mut dyn FnMut(Step, &[u8]),
    trail: Trail,
    levels: Vec<Level>,
    freed: Vec<Job>,
}

impl<'a, 's> Deleter<'a, 's> {
    pub(in crate::restore) fn new(
        shared: &'a Shared<'a>,
        deletion: &'a Deletion,
        walk: Walk<'a>,
        root: &Arc<Place>,
        say: &'s mut dyn FnMut(Step, &[u8]),
    ) -> Deleter<'a, 's> {
        let trail = Trail::new(Arc::clone(root));
        Deleter { shared, deletion, walk, say, trail, levels: Vec::new(), freed: Vec::new() }
    }

    /// Deletes what the snapshot does not have. `target` has become the directory of the snapshot that was on `device`.
    /// Returns the entries for which a directory made room; those that stay blocked are reported.
    pub(in crate::restore) fn run(mut self, target: &Path, device: u64, rest: &mut Rest) -> Result<Vec<Job>, Error> {
        let failures = {
            let report = &self.shared.tally().report;
            // What the snapshot itself does not have is no reason: where that is, nothing is deleted.
            report.issues_total - report.withheld
        };
        if failures == 0 {
            let reach = self.deletion.begin(self.walk.path(), target);
            self.levels.push(Level { reach, device, may_lack_entries: self.walk.may_lack_entries() });
            self.directory()?;
            self.descend(rest)?;
        } else {
            self.shared.tally().report.deletion_skipped = true;
        }
        for (path, job) in std::mem::take(&mut rest.blocked) {
            let why = "a directory that is not empty is in its place, and --delete leaves it there";
            self.shared.fail_at(
                &job.place,
                &job.entry.name,
                At::Path(path),
                failed_to("create")(io::Error::other(why)),
            );
        }
        Ok(self.freed)
    }

    fn descend(&mut self, rest: &mut Rest) -> Result<(), Error> {
        while let Some(event) = self.walk.next()? {
            if self.shared.is_stopped() {
                return Err(Error::Cancelled);
            }
            match event {
                Event::Enter { entry, .. } => self.enter(&entry)?,
                Event::Entry(_) if rest.blocked.is_empty() => {}
                Event::Entry(_) => {
                    if let Some(job) = rest.blocked.remove(self.walk.path()) {
                        self.make_room(job, rest)?;
                    }
                }
                // The restore has reported it, and then nothing is deleted.
                Event::Unreadable(_) => {}
                Event::Leave => {
                    self.levels.pop();
                    self.trail.leave().map_err(|source| self.lost(source))?;
                }
            }
        }
        Ok(())
    }

    fn lost(&self, source: io::Error) -> Error {
        let path = printable(self.walk.path());
        Error::Local { doing: "leave", path, source }
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = self.walk.path().to_vec();
        let (place, is_border) = match border::open(self.trail.here().1, &entry.name) {
            Ok(opened) => opened,
            Err(error) => {
                self.walk.skip();
                // It was not restored, so there is nothing in it to be deleted: a dry run, or an entry that stays.
                let is_absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                    || error.raw_os_error() == Some(libc::ELOOP);
                if !is_absent {
                    self.shared.fail(At::Path(path), failed_to("enter")(error));
                }
                return Ok(());
            }
        };
        let Some(Level { reach, device, .. }) = self.levels.last() else { return Ok(()) };
        let is_empty = self.walk.is_empty().unwrap_or(true);
        let is_foreign = entry.meta.device != *device && self.deletion.ends_at_device(is_empty);
        let reach = self.deletion.descend(reach, entry.name.as_bytes(), &path, !is_border && !is_foreign);
        let may_lack_entries = entry.may_lack_entries();
        self.levels.push(Level { reach, device: entry.meta.device, may_lack_entries });
        self.trail.enter(ROOT, Arc::new(place));
        self.directory()
    }

    /// Deletes what only the target has in the current directory.
    fn directory(&mut self) -> Result<(), Error> {
        let place = Arc::clone(self.trail.here().1);
        let Some(Level { reach, .. }) = self.levels.last_mut() else { return Ok(()) };
        self.deletion.note_own(reach, &place);
        if !reach.may_delete() {
            return Ok(());
        }
        let mut names = match existing::names(&place) {
            Ok(names) => names,
            Err(error) => {
                self.shared.fail(At::Path(self.walk.path().to_vec()), failed_to("list")(error));
                return Ok(());
            }
        };
        // In a dry run, the mark of a cache may not be in the target yet.
        if self.deletion.is_tagged(&names) || self.has_tag() {
            if let Some(Level { reach, .. }) = self.levels.last_mut() {
                reach.is_whole = false;
            }
            return Ok(());
        }
        if !self.walk.takes_all() || !self.levels.last().is_some_and(Level::may_delete) {
            return Ok(());
        }
        names.sort();
        for name in names {
            match self.walk.has(name.to_bytes()).map_err(Failure::from) {
                Ok(false) => self.delete(&place, name)?,
                Ok(true) => {}
                Err(Failure::Stop(error)) => return Err(error),
                // An unreadable directory of the snapshot does not show what it lacks.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// True if the backup found a mark by which it left out the content of the current directory.
    fn has_tag(&mut self) -> bool {
        let tags: Vec<&[u8]> = self.deletion.tags().collect();
        tags.into_iter().any(|tag| self.walk.has(tag).unwrap_or(true))
    }

    fn around(&self) -> Option<Around> {
        let patterns = self.levels.last()?.reach.patterns.clone();
        Some(Around { patterns, standing: self.walk.standing()? })
    }

    fn sweep(&self, really: bool) -> Sweep<'a> {
        Sweep { shared: self.shared, deletion: self.deletion, really: really && !self.shared.options.dry_run }
    }

    fn delete(&mut self, place: &Arc<Place>, name: CString) -> Result<(), Error> {
        let Some(around) = self.around() else { return Ok(()) };
        let swept = self.sweep(true).run(place, &name, around, self.walk.path(), self.say);
        match swept {
            Ok(swept) => self.count(swept),
            Err(Failure::Stop(error)) => return Err(error),
            Err(failure) => {
                let path = [self.walk.path(), b"/", name.to_bytes()].concat();
                self.shared.fail(At::Path(path), failure);
            }
        }
        Ok(())
    }

    fn count(&self, swept: Swept) {
        let report = &mut self.shared.tally().report;
        report.deleted += swept.deleted;
        report.spared += swept.spared;
    }

    /// Deletes the directory that is in the place of the entry `job`, if nothing in it has to stay.
    fn make_room(&mut self, job: Job, rest: &mut Rest) -> Result<(), Error> {
        let path = self.walk.path().to_vec();
        let above = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default();
        let may_delete = self.levels.last().is_some_and(Level::may_delete);
        let (Some(around), true) = (self.around(), may_delete) else {
            rest.blocked.insert(path, job);
            return Ok(());
        };
        let place = Arc::clone(self.trail.here().1);
        let name = CString::new(job.entry.name.as_bytes()).unwrap_or_default();
        let mut silent = |_: Step, _: &[u8]| ();
        let looked = self.sweep(false).run(&place, &name, around.clone(), above, &mut silent);
        let swept = match looked {
            Ok(Swept { spared: 1.., .. }) => {
                rest.blocked.insert(path, job);
                return Ok(());
            }
            Ok(_) => self.sweep(true).run(&place, &name, around, above, self.say),
            Err(failure) => Err(failure),
        };
        match swept {
            Ok(swept) => {
                self.count(swept);
                self.freed.push(job);
            }
            Err(Failure::Stop(error)) => return Err(error),
            Err(failure) => self.shared.fail_at(&job.place, &job.entry.name, At::Path(path), failure),
        }
        Ok(())
    }
}
