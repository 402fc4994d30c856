//! A directory before and after a snapshot, and which part of their difference belongs in `added/`, `modified/` or
//! `deleted/`.

use std::sync::Arc;

use bygone_core::diagnosis::Diagnosis;
use bygone_core::entry::Name;
use bygone_core::error::Error;
use bygone_core::id::NodeId;
use bygone_core::limits;
use bygone_core::read::Difference;
use bygone_core::read::View;

use crate::tree::inode::Change;
use crate::tree::inode::ROOT_PATH;
use crate::tree::operation_error::OperationError;

/// The states of a directory before and after; `None` where it did not exist.
pub type Pair = (Option<NodeId>, Option<NodeId>);

/// The part of a difference that belongs to `change`: a file version, or the two states of a directory to descend into.
pub fn shown_of(difference: &Difference, change: Change) -> (Option<u64>, Option<Pair>) {
    let directory =
        |row: &Option<(Arc<bygone_core::entry::Entry>, u64)>| row.as_ref().and_then(|row| row.0.directory());
    let file = |row: &Option<(Arc<bygone_core::entry::Entry>, u64)>| {
        row.as_ref().filter(|row| row.0.directory().is_none()).map(|row| row.1)
    };
    let (before, after) = (directory(&difference.before), directory(&difference.after));
    let (old, new) = (file(&difference.before), file(&difference.after));
    match change {
        Change::Added => (new.filter(|_| old.is_none()), after.map(|after| (before, Some(after)))),
        Change::Deleted => (old.filter(|_| new.is_none()), before.map(|before| (Some(before), after))),
        Change::Modified => {
            (new.filter(|_| old.is_some()), before.zip(after).map(|(before, after)| (Some(before), Some(after))))
        }
    }
}

/// True if the whole directory is new, or all of it is gone.
pub fn is_whole(pair: Pair, change: Change) -> bool {
    match change {
        Change::Added => pair.0.is_none(),
        Change::Deleted => pair.1.is_none(),
        Change::Modified => false,
    }
}

/// True if the metadata of a directory differs, apart from what changes whenever its content does.
pub fn is_own_change(difference: &Difference, change: Change) -> bool {
    let (Some((before, _)), Some((after, _))) = (&difference.before, &difference.after) else { return false };
    let same = (before.meta.mode, &before.meta.owner, &before.meta.xattrs, before.meta.flags)
        == (after.meta.mode, &after.meta.owner, &after.meta.xattrs, after.meta.flags);
    change == Change::Modified && before.directory().is_some() && after.directory().is_some() && !same
}

/// The states at `path` of two snapshots with these roots.
pub fn descend(view: &View, roots: Pair, path: u64) -> Result<Pair, OperationError> {
    let mut names = Vec::new();
    let mut at = path;
    while at != ROOT_PATH {
        let (parent, name) = view.path(at)?.ok_or(OperationError::Stale)?;
        if names.len() > limits::PATH_BYTES_MAX {
            return Err(unknown_path(&name));
        }
        names.push(name);
        at = parent;
    }
    let step = |node: Option<NodeId>, name: &Name| -> Result<Option<NodeId>, OperationError> {
        let Some(node) = node else { return Ok(None) };
        let item = view.directory(node)?.find(view, name.as_bytes())?;
        Ok(item.and_then(|item| item.entry.directory()))
    };
    let mut pair = roots;
    for name in names.iter().rev() {
        pair = (step(pair.0, name)?, step(pair.1, name)?);
    }
    Ok(pair)
}

/// The number of the directory `name` in the directory `parent`.
pub fn path_id(view: &View, parent: u64, name: &Name) -> Result<u64, OperationError> {
    view.path_id(parent, name)?.ok_or_else(|| unknown_path(name))
}

/// The error for a directory without a number, which every directory should have.
pub fn unknown_path(name: &Name) -> OperationError {
    let detail = "the catalog has no number for this directory: run `bygone recover`";
    Error::disagree(Diagnosis::LocalCorrupt, format!("{name:?}"), detail).into()
}
