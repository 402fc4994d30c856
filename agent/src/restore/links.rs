//! Files with several names. In a snapshot they are entries with the same device and inode. The first one is restored
//! in full, and the others are linked to it when it is complete.

use std::collections::HashMap;
use std::sync::Arc;

use bygone_core::entry::Entry;

use crate::restore::directories::Index;
use crate::restore::job::Job;
use crate::restore::job::Verdict;

/// Another name of a file.
pub(super) struct Link {
    pub(super) first_directory: Index,
    pub(super) first: Arc<Entry>,
    pub(super) directory: Index,
    pub(super) entry: Arc<Entry>,
    pub(super) verdict: Verdict,
}

struct First {
    directory: Index,
    entry: Arc<Entry>,
    names_left: u32,
}

/// The files of which more names may follow, by device and inode.
#[derive(Default)]
pub(super) struct Names {
    firsts: HashMap<(u64, u64), First>,
}

impl Names {
    /// Returns the job if its entry must be restored in full, or else a link to one that was.
    pub(super) fn sort(&mut self, job: Job) -> Result<Job, Link> {
        if !job.entry.is_hard_linked() {
            return Ok(job);
        }
        let inode = (job.entry.meta.device, job.entry.meta.inode);
        let Some(first) = self.firsts.get_mut(&inode) else {
            let (directory, entry) = (job.directory, Arc::clone(&job.entry));
            self.firsts.insert(inode, First { directory, names_left: entry.meta.nlink - 1, entry });
            return Ok(job);
        };
        // Names read at different times may have different content; then each becomes a separate file.
        if first.entry.kind != job.entry.kind {
            return Ok(job);
        }
        let (first_directory, first_entry) = (first.directory, Arc::clone(&first.entry));
        first.names_left -= 1;
        if first.names_left == 0 {
            self.firsts.remove(&inode);
        }
        let Job { directory, entry, verdict, .. } = job;
        Err(Link { first_directory, first: first_entry, directory, entry, verdict })
    }
}
