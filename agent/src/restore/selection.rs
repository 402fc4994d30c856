//! Selects a part of a snapshot with include and exclude patterns.
//!
//! An entry that matches an exclude pattern is left out with everything below it, whatever the include patterns are.
//! Without include patterns, everything else is selected. With include patterns, each match is selected with everything
//! below it, and the walk looks into all other directories for matches.

use crate::exclude::Excludes;
use crate::exclude::PathState;

/// Patterns over paths in the snapshot, in the same form as for a backup.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What to restore; empty for everything.
    pub include: Excludes,
    /// What to leave out.
    pub exclude: Excludes,
}

/// The decision of a selection about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Select {
    /// Restore it.
    Take,
    /// A directory: look into it, and restore it if something in it is restored.
    Look,
    /// Leave it out, with everything below it.
    Skip,
}

/// The state of a selection in a directory, which decides about its entries.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    include: PathState,
    exclude: PathState,
    /// The directory itself is selected.
    pub(super) taken: bool,
}

impl Selection {
    /// For the requested directory `path`, which has a `/` before each name.
    pub(super) fn begin(&self, path: &[u8]) -> Standing {
        let taken = self.include.is_empty();
        let mut standing = Standing { include: self.include.root(), exclude: self.exclude.root(), taken };
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            standing = self.descend(&standing, name, standing.taken || self.include.excludes(&standing.include, name));
        }
        standing
    }

    /// For directory `name` in a directory with this standing.
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
