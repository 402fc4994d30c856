//! An entry under construction. It has the entry's name if nothing is there, or else a temporary name beside the
//! existing entry, over which it is renamed. If it is not completed, it is removed.

use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::RenameFlags;
use nix::fcntl::renameat;
use nix::fcntl::renameat2;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;

use bygone_core::limits;

use crate::restore::directories::Place;
use crate::restore::job::Job;
use crate::restore::job::Verdict;
use crate::restore::report::Failure;
use crate::restore::report::target;
use crate::restore::shared::Shared;

/// An incomplete entry.
pub(in crate::restore) struct Partial {
    place: Arc<Place>,
    name: Vec<u8>,
    renamed: bool,
    complete: bool,
}

impl Partial {
    /// The entry of `job` before it is created.
    pub(in crate::restore) fn new(shared: &Shared<'_>, job: &Job) -> Partial {
        let renamed = job.verdict != Verdict::Create;
        let name = if renamed { shared.temporary_name() } else { job.entry.name.as_bytes().to_vec() };
        // Nothing to remove until `made` is called.
        Partial { place: Arc::clone(&job.place), name, renamed, complete: true }
    }

    pub(in crate::restore) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Records that it now exists, incomplete.
    pub(in crate::restore) fn made(&mut self) {
        self.complete = false;
    }

    /// Gives it the entry's name.
    pub(in crate::restore) fn complete(&mut self, job: &Job) -> Result<(), Failure> {
        if self.renamed {
            let (from, to) = (self.name.as_slice(), job.entry.name.as_bytes());
            renameat(&*self.place, from, &*self.place, to).map_err(target("rename the new version over"))?;
        }
        self.complete = true;
        Ok(())
    }

    /// Keeps it under a name that says what it is. Returns that name.
    pub(in crate::restore) fn keep_as_damaged(&mut self, name: &[u8]) -> Result<Vec<u8>, Failure> {
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
