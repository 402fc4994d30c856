//! Big files, which several workers write at once, in parts. The worker that gives back the last share completes the
//! file. If the restore ends before that, dropping the last share removes the file.

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bygone_core::entry::Content;
use bygone_core::lock::lock;
use bygone_core::read::FileMap;
use bygone_core::read::View;

use crate::restore::files::file::Draft;
use crate::restore::files::file::Written;
use crate::restore::files::file::data;
use crate::restore::files::file::open_map;
use crate::restore::files::file::write;
use crate::restore::job::Job;
use crate::restore::report::Failure;
use crate::restore::report::target;
use crate::restore::shared::Shared;

/// An entry that was not restored, and why.
pub(in crate::restore) type Failed = Box<(Job, Failure)>;

/// A file whose parts are written by several workers.
pub(in crate::restore) struct Big {
    job: Job,
    map: FileMap,
    draft: Draft,
    parts: u64,
    written: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Big {
    /// Creates the file of `job` at its full length, and finds the parts to write. The caller holds a share too, and
    /// gives it back like each worker ([`Big::give_back`]).
    pub(in crate::restore) fn begin(
        shared: &Shared<'_>,
        view: &View,
        job: Job,
        content: &Content,
    ) -> Result<(Arc<Big>, Vec<Range<u64>>), Failed> {
        let (draft, map, parts) = match open(shared, view, &job, content) {
            Ok(opened) => opened,
            Err(failure) => return Err(Box::new((job, failure))),
        };
        let (count, written, failure) = (parts.len() as u64, AtomicU64::new(0), Mutex::default());
        Ok((Arc::new(Big { job, map, draft, parts: count, written, failure }), parts))
    }

    /// Gives back a share of a big file; the last one completes the file.
    pub(in crate::restore) fn give_back(shared: &Shared<'_>, big: Arc<Big>) {
        if let Some(big) = Arc::into_inner(big)
            && let Err(failed) = big.finish(shared)
        {
            let (job, failure) = *failed;
            shared.fail_entry(&job, failure);
        }
    }

    /// Writes one part, unless another part has failed already.
    pub(in crate::restore) fn write(&self, shared: &Shared<'_>, range: Range<u64>) {
        let hopeless = !shared.options.keep_damaged && self.failure().is_some();
        if !hopeless {
            let mut written = Written::default();
            let done = write(shared, &self.map, &self.draft.file, range, &mut written);
            if let Some(failure) = done.err().or(written.damage.map(Failure::Damage)) {
                self.failure().get_or_insert(failure);
            }
        }
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    /// Completes the file, after all writing has ended.
    fn finish(mut self, shared: &Shared<'_>) -> Result<(), Failed> {
        // Missing parts were dropped because the restore has stopped.
        if self.written.load(Ordering::Acquire) != self.parts {
            return Ok(());
        }
        let failure = self.failure().take();
        let done = match failure {
            None => self.draft.finish(shared, &self.job, None),
            Some(Failure::Damage(error)) => self.draft.finish(shared, &self.job, Some(error)),
            Some(failure) => Err(failure),
        };
        done.map_err(|failure| Box::new((self.job, failure)))
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        lock(&self.failure)
    }
}

fn open(
    shared: &Shared<'_>,
    view: &View,
    job: &Job,
    content: &Content,
) -> Result<(Draft, FileMap, Vec<Range<u64>>), Failure> {
    let map = open_map(view, &job.entry.meta, content)?;
    let draft = Draft::create(shared, job)?;
    draft.file.set_len(job.entry.meta.size).map_err(target("write"))?;
    let parts = data(shared, &map)?;
    Ok((draft, map, parts))
}
