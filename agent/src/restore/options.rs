//! What to restore, and how.

use std::str::FromStr;
use std::sync::Arc;

use bygone_core::entry::Entry;
use bygone_core::entry::Meta;
use bygone_core::id::NodeId;
use bygone_core::read::View;
use bygone_core::watch::Watch;

use crate::restore::delete::rules::Deletion;
use crate::restore::selection::Selection;
use crate::restore::walk::Walk;
use crate::select::Found;

/// When to replace existing entries of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace it.
    Always,
    /// Replace it, except files of the same size and time, which get only their metadata.
    IfChanged,
    /// Replace it if the entry of the snapshot is newer.
    IfNewer,
    /// Keep it.
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

/// How the owner of an entry is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnerBy {
    /// The user and group of the same number.
    #[default]
    Number,
    /// The user and group of the same name, or by number if this machine has no such name.
    Name,
}

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `None`: nothing that exists in the target is touched.
    pub overwrite: Option<Overwrite>,
    /// Delete what the snapshot does not have, in directories that are restored whole; only with `overwrite`.
    pub delete: Option<Deletion>,
    /// Change nothing, only report the steps.
    pub dry_run: bool,
    /// Read everything again at the end, and compare it.
    pub verify: bool,
    /// Write runs of zeros as holes.
    pub sparse: bool,
    /// Keep the readable parts of a damaged file, under a name that says so.
    pub keep_damaged: bool,
    /// How the owners of entries are chosen.
    pub owner_by: OwnerBy,
    /// Which paths to restore.
    pub selection: Selection,
    /// Number of worker threads; 0 means one for each processor.
    pub threads: usize,
}

/// What to restore.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A directory, whose content and metadata the target gets.
    Directory {
        /// The directory's node.
        node: NodeId,
        /// Its metadata.
        meta: Box<Meta>,
        /// Its path in the snapshot, beginning with `/`; empty for the root.
        path: Vec<u8>,
        /// Its listing broke off when it was backed up.
        may_lack_entries: bool,
    },
    /// Anything else, which is restored under its name in the target.
    Entry {
        /// The entry.
        entry: Arc<Entry>,
        /// Path of its directory in the snapshot; empty for the root.
        parent: Vec<u8>,
    },
}

impl Subject {
    /// The subject `found` at `path`, which has a slash before each name and is empty for the root.
    pub fn new(found: Found, path: Vec<u8>) -> Subject {
        match found {
            Found::Directory { node, meta, may_lack_entries } => {
                Subject::Directory { node, meta, path, may_lack_entries }
            }
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
            Subject::Directory { node, path, may_lack_entries, .. } => {
                Walk::directory(view, &options.selection, watch, *node, path, *may_lack_entries)
            }
            Subject::Entry { entry, parent } => {
                Walk::single(view, &options.selection, watch, Arc::clone(entry), parent)
            }
        }
    }
}
