//! One entry to restore: where it goes, and what happens to an existing entry there.

use std::sync::Arc;

use bygone_core::entry::Entry;

use crate::restore::directories::At;
use crate::restore::directories::Index;
use crate::restore::directories::Place;
use crate::restore::report::Step;

/// What happens to an entry that is not a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is there: create it.
    Create,
    /// Replace the existing entry with that of the snapshot.
    Replace,
    /// The existing content counts as right: set only the metadata.
    Adjust,
    /// The existing entry counts as right: do nothing.
    Match,
    /// Keep the existing entry, right or not.
    Keep,
    /// Replace a directory that is not empty, if it may be deleted: at the end, when everything else is restored.
    Blocked,
}

impl Verdict {
    /// The step that is reported.
    pub(super) fn step(&self) -> Step {
        match self {
            Verdict::Create => Step::Create,
            Verdict::Replace | Verdict::Blocked => Step::Replace,
            Verdict::Adjust => Step::Adjust,
            Verdict::Match | Verdict::Keep => Step::Keep,
        }
    }
}

/// An entry and where it goes.
pub(super) struct Job {
    pub(super) place: Arc<Place>,
    pub(super) directory: Index,
    pub(super) entry: Arc<Entry>,
    pub(super) verdict: Verdict,
}

impl Job {
    pub(super) fn at(&self) -> At {
        At::In(self.directory, self.entry.name.clone())
    }
}
