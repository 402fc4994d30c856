//! Something under construction. It has the entry's name if nothing is there, else a temporary one beside what is
//! there, over which it is renamed; and it is gone again if it is not completed.

use std::sync::Arc;

use bygone_core::limits;
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat, renameat2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::directories::Place;
use super::existing::Verdict;
use super::report::{Failure, target};
use super::shared::Shared;
use super::work::Job;

/// An entry that is not complete.
pub(super) struct Partial {
    place: Arc<Place>,
    name: Vec<u8>,
    renamed: bool,
    complete: bool,
}

impl Partial {
    /// What `job` is to be made as.
    pub(super) fn new(shared: &Shared<'_>, job: &Job) -> Partial {
        let renamed = job.verdict != Verdict::Create;
        let name = if renamed { shared.temporary_name() } else { job.entry.name.as_bytes().to_vec() };
        // Only what was made is to be removed: `made` says so.
        Partial { place: Arc::clone(&job.place), name, renamed, complete: true }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// It is there now, and incomplete.
    pub(super) fn made(&mut self) {
        self.complete = false;
    }

    /// Gives it the entry's name.
    pub(super) fn complete(&mut self, job: &Job) -> Result<(), Failure> {
        if self.renamed {
            let (from, to) = (self.name.as_slice(), job.entry.name.as_bytes());
            renameat(&*self.place, from, &*self.place, to).map_err(target("put the new one in the place of"))?;
        }
        self.complete = true;
        Ok(())
    }

    /// Leaves it under a name that says what it is. Returns that name.
    pub(super) fn keep_as_damaged(&mut self, name: &[u8]) -> Result<Vec<u8>, Failure> {
        for number in 1..100u32 {
            let suffix = if number == 1 { ".bygone-damaged".to_owned() } else { format!(".bygone-damaged-{number}") };
            let room = limits::NAME_BYTES_MAX - suffix.len();
            let kept = [name.get(..room).unwrap_or(name), suffix.as_bytes()].concat();
            let (from, to) = (self.name.as_slice(), kept.as_slice());
            match renameat2(&*self.place, from, &*self.place, to, RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => {
                    self.complete = true;
                    return Ok(kept);
                }
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(target("rename")(error)),
            }
        }
        Err(target("rename")(Errno::EEXIST))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.complete {
            let _ = unlinkat(&*self.place, self.name.as_slice(), UnlinkatFlags::NoRemoveDir);
        }
    }
}
