//! One entry to be restored: where it goes, and what happens to what is there.

use std::sync::Arc;

use bygone_core::entry::Entry;

use crate::restore::directories::At;
use crate::restore::directories::Index;
use crate::restore::directories::Place;
use crate::restore::report::Step;

/// What happens to an entry that is no directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is there: make it.
    Create,
    /// Something is there: put the snapshot's in its place.
    Replace,
    /// The content that is there is taken as right: set the metadata.
    Adjust,
    /// What is there is taken as right altogether.
    Match,
    /// What is there stays, right or not.
    Keep,
}

impl Verdict {
    /// As it is told.
    pub(super) fn step(&self) -> Step {
        match self {
            Verdict::Create => Step::Create,
            Verdict::Replace => Step::Replace,
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
