//! What to restore, and how.

use std::str::FromStr;
use std::sync::Arc;

use bygone_core::entry::Entry;
use bygone_core::entry::Meta;
use bygone_core::id::NodeId;
use bygone_core::read::View;
use bygone_core::watch::Watch;

use crate::restore::selection::Selection;
use crate::restore::walk::Walk;
use crate::select::Found;

/// What to do about what is in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace it.
    Always,
    /// Replace it, but for files of the same size and time, which get only their metadata.
    IfChanged,
    /// Replace it if the snapshot's is newer.
    IfNewer,
    /// Leave it.
    Never,
}

impl FromStr for Overwrite {
    type Err = String;

    fn from_str(text: &str) -> Result<Overwrite, String> {
        match text {
            "always" => Ok(Overwrite::Always),
            "if-changed" => Ok(Overwrite::IfChanged),
            "if-newer" => Ok(Overwrite::IfNewer),
            "never" => Ok(Overwrite::Never),
            _ => Err("use always, if-changed, if-newer or never".to_owned()),
        }
    }
}

/// Whose an entry becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnerBy {
    /// The user and group of the same number.
    #[default]
    Number,
    /// The user and group of the same name, by number where this machine has none of that name.
    Name,
}

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `None`: the target must be empty.
    pub overwrite: Option<Overwrite>,
    /// Delete what the snapshot does not have, in directories that are restored whole; only with `overwrite`.
    pub delete: bool,
    /// Change nothing, only tell.
    pub dry_run: bool,
    /// Read everything again in the end and compare it.
    pub verify: bool,
    /// Make holes of zeros.
    pub sparse: bool,
    /// Leave what can be read of a damaged file, under a name that says so.
    pub keep_damaged: bool,
    /// Whose the entries become.
    pub owner_by: OwnerBy,
    /// Which paths.
    pub selection: Selection,
    /// Worker threads; 0 for as many as there are processors.
    pub threads: usize,
}

/// What to restore.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The content of a directory, which becomes the content of the target; the target gets its metadata.
    Directory {
        /// The directory's node.
        node: NodeId,
        /// Its metadata.
        meta: Box<Meta>,
        /// Its path in the snapshot, beginning with `/`; empty for the root.
        path: Vec<u8>,
    },
    /// Anything else, which gets its name in the target.
    Entry {
        /// The entry.
        entry: Arc<Entry>,
        /// Path of its directory in the snapshot; empty for the root.
        parent: Vec<u8>,
    },
}

impl Subject {
    /// What was found at `path`: names after slashes, empty for the root.
    pub fn new(found: Found, path: Vec<u8>) -> Subject {
        match found {
            Found::Directory { node, meta } => Subject::Directory { node, meta, path },
            Found::Entry(entry) => {
                let last = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                Subject::Entry { entry, parent: path.get(..last).unwrap_or_default().to_vec() }
            }
        }
    }

    /// Path in the snapshot of what becomes the target.
    pub(super) fn prefix(&self) -> &[u8] {
        match self {
            Subject::Directory { path, .. } => path,
            Subject::Entry { parent, .. } => parent,
        }
    }

    pub(super) fn walk<'w>(&self, view: &'w View, options: &'w Options, watch: &'w Watch) -> Walk<'w> {
        match self {
            Subject::Directory { node, path, .. } => Walk::directory(view, &options.selection, watch, *node, path),
            Subject::Entry { entry, parent } => {
                Walk::single(view, &options.selection, watch, Arc::clone(entry), parent)
            }
        }
    }
}
