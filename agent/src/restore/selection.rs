//! Which part of a snapshot is wanted: patterns that take in and patterns that leave out.
//!
//! What matches an exclude pattern is left out with all below it, whatever the include patterns say. Without include
//! patterns all else is wanted; with some, what matches one and all below it. Above what is wanted one has to look.

use crate::exclude::Excludes;
use crate::exclude::PathState;

/// Patterns over paths in the snapshot, in the form of those of a backup.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What is wanted; none for everything.
    pub include: Excludes,
    /// What is not wanted.
    pub exclude: Excludes,
}

/// What a selection says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Select {
    /// Restore it.
    Take,
    /// A directory: look into it, and restore it if something in it is restored.
    Look,
    /// Leave it out, with all that is below it.
    Skip,
}

/// What a selection needs to know about a directory to judge what is in it.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    include: PathState,
    exclude: PathState,
    /// The directory is wanted itself.
    pub(super) taken: bool,
}

impl Selection {
    /// For the directory at `path`, which was asked for by its path; names each after a `/`.
    pub(super) fn begin(&self, path: &[u8]) -> Standing {
        let taken = self.include.is_empty();
        let mut standing = Standing { include: self.include.root(), exclude: self.exclude.root(), taken };
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            standing = self.descend(&standing, name, standing.taken || self.include.excludes(&standing.include, name));
        }
        standing
    }

    /// For directory `name` in one with this standing.
    pub(super) fn descend(&self, standing: &Standing, name: &[u8], taken: bool) -> Standing {
        let include = self.include.descend(&standing.include, name);
        let exclude = self.exclude.descend(&standing.exclude, name);
        Standing { include, exclude, taken }
    }

    /// Judges `name` in a directory with this standing.
    pub(super) fn judge(&self, standing: &Standing, name: &[u8], is_directory: bool) -> Select {
        if self.exclude.excludes(&standing.exclude, name) {
            Select::Skip
        } else if standing.taken || self.include.excludes(&standing.include, name) {
            Select::Take
        } else if is_directory {
            Select::Look
        } else {
            Select::Skip
        }
    }
}
