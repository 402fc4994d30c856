//! Derived directories: `versions/`, `deleted/` and `changes/`, which combine several snapshots and lie in none.
//!
//! - `versions/<path>/`: a directory of any snapshot is a directory here. A file becomes a directory of its distinct
//!   versions. Each version is named after the first snapshot that has it and keeps the ending of the file, so that the
//!   same programs open it.
//! - `deleted/<path>`: the last copy of everything that the newest snapshot of its host and paths lacks.
//! - `changes/<snapshot>/{added,modified,deleted}/`: the snapshot compared with the one before.
//!
//! All of them are made on demand, from the catalog alone, and are kept, within bounds, as long as the list of
//! snapshots stays the same. A state of a directory that many snapshots share is read once, and parts that two
//! snapshots share are skipped when these are compared. So the cost is that of the changes.
//!
//! Edge cases:
//! - What a snapshot could not read is there, and nothing is known of it. So it is not deleted, no version of a file, and
//!   not compared.
//! - A derived directory allows only the access that all the directories behind it allow: access denied once stays
//!   denied.
//! - A path that was both a file and a directory is one directory in `versions/`, which has the versions of the file
//!   beside the entries. `deleted/` shows the directory. `changes/` shows one as deleted and the other as added.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use bygone_core::entry::Name;
use bygone_core::limits;
use bygone_core::read::Access;
use bygone_core::read::Era;
use bygone_core::read::Lifetime;
use bygone_core::read::View;

use crate::caches::recent::Recent;
use crate::caches::weighted::Weighted;
use crate::tree::changes::Pair;
use crate::tree::changes::descend;
use crate::tree::changes::is_own_change;
use crate::tree::changes::is_whole;
use crate::tree::changes::path_id;
use crate::tree::changes::shown_of;
use crate::tree::changes::unknown_path;
use crate::tree::derived_rows::DerivedRow;
use crate::tree::derived_rows::DerivedRows;
use crate::tree::inode::Change;
use crate::tree::inode::Inode;
use crate::tree::inode::ROOT_PATH;
use crate::tree::listing::Listing;
use crate::tree::naming::ending;
use crate::tree::naming::key_of;
use crate::tree::operation_error::OperationError;

/// How many names, versions and states are kept of the histories that were read.
const HISTORY_WEIGHT_MAX: usize = 200_000;
/// How many rows of derived directories are kept.
const ROWS_KEPT_MAX: usize = 200_000;
/// For how many directories it is kept whether something below them was deleted or changed.
const ANSWERS_KEPT: usize = 64 << 10;

/// The number of the sequence of all snapshots, oldest first. Each one after it has one host and set of paths, newest
/// first.
const ALL: u32 = 0;

/// Snapshots in some order, as the states of their roots.
#[derive(Debug)]
struct Sequence {
    eras: Vec<Era>,
    access: Option<Access>,
    /// The position in the listing of each snapshot of this sequence.
    positions: Vec<usize>,
}

/// The content of one directory in all states of a sequence.
#[derive(Debug)]
struct History {
    lifetimes: Vec<Lifetime>,
    by_name: HashMap<Name, usize>,
}

impl History {
    fn find(&self, name: &[u8]) -> Option<&Lifetime> {
        let name = Name::new(name).ok()?;
        self.lifetimes.get(*self.by_name.get(&name)?)
    }
}

/// The derived directories of one list of snapshots.
#[derive(Debug)]
pub struct Derived {
    sequences: Vec<Sequence>,
    histories: Weighted<(u32, u64), Arc<History>>,
    rows_kept: Weighted<Inode, Arc<DerivedRows>>,
    /// Whether a directory of changes has anything to show below it.
    changed_below: Recent<Inode, bool>,
    lacking_below: Recent<(u32, u64), bool>,
}

impl Derived {
    /// For the snapshots of `listing`.
    pub fn new(listing: &Listing) -> Derived {
        let all = sequence(listing, (0..listing.snapshots.len()).collect());
        let successions = listing.successions().into_iter().map(|mut members| {
            members.reverse();
            sequence(listing, members)
        });
        Derived {
            sequences: std::iter::once(all).chain(successions).collect(),
            histories: Weighted::new(HISTORY_WEIGHT_MAX),
            rows_kept: Weighted::new(ROWS_KEPT_MAX),
            changed_below: Recent::new(ANSWERS_KEPT),
            lacking_below: Recent::new(ANSWERS_KEPT),
        }
    }

    /// The origin of `row` in the directory `inode`: the path number of the directory that it was an entry of, and its
    /// name there. `None` if they are not known.
    pub fn origin(
        &self,
        view: &View,
        listing: &Listing,
        inode: Inode,
        row: &DerivedRow,
    ) -> Result<Option<(u64, Name)>, OperationError> {
        Ok(match inode {
            Inode::VersionsOf { path, .. } => {
                let rows = self.rows(view, listing, Inode::Versions(path))?;
                rows.and_then(|rows| Some((path, rows.with_inode(inode)?.name.clone())))
            }
            // These versions stand beside the entries of a directory that was a file once.
            Inode::Versions(path) => view.path(path)?,
            Inode::Deleted(path) | Inode::Changed { path, .. } => Some((path, row.name.clone())),
            _ => None,
        })
    }

    /// The rows of the directory `inode`; `None` if it is not a derived one.
    pub fn rows(
        &self,
        view: &View,
        listing: &Listing,
        inode: Inode,
    ) -> Result<Option<Arc<DerivedRows>>, OperationError> {
        if let Some(rows) = self.rows_kept.get(inode) {
            return Ok(Some(rows));
        }
        let rows = match inode {
            Inode::Versions(path) => self.versions(view, listing, path)?,
            Inode::VersionsOf { path, .. } => {
                let rows = self.rows(view, listing, Inode::Versions(path))?.ok_or(OperationError::Stale)?;
                let name = rows.with_inode(inode).ok_or(OperationError::Stale)?.name.clone();
                let history = self.history(view, ALL, path)?.ok_or(OperationError::Stale)?;
                self.versions_of(listing, history.find(name.as_bytes()).ok_or(OperationError::Stale)?)?
            }
            Inode::Deleted(path) => self.deleted(view, path)?,
            Inode::Changed { change, snapshot, path } => self.changed(view, listing, change, snapshot, path)?,
            _ => return Ok(None),
        };
        let rows = Arc::new(DerivedRows::new(rows));
        self.rows_kept.insert(inode, Arc::clone(&rows), rows.len() + 1);
        Ok(Some(rows))
    }

    /// The access that the derived directory `inode` allows; `None` if nothing is known about it.
    pub fn access(&self, view: &View, listing: &Listing, inode: Inode) -> Result<Option<Access>, OperationError> {
        if let Inode::Versions(ROOT_PATH) | Inode::Deleted(ROOT_PATH) = inode {
            return Ok(self.sequences.first().and_then(|sequence| sequence.access));
        }
        if let Inode::Changed { snapshot, path: ROOT_PATH, .. } = inode {
            return Ok(listing.numbered(snapshot).map(|shown| Access::of(&shown.snapshot.root_meta)));
        }
        let parent = self.parent(view, inode)?.ok_or(OperationError::Stale)?;
        let rows = self.rows(view, listing, parent)?.ok_or(OperationError::Stale)?;
        Ok(rows.with_inode(inode).ok_or(OperationError::Stale)?.access)
    }

    /// The parent of the derived directory `inode`; `None` if it is not a derived one.
    pub fn parent(&self, view: &View, inode: Inode) -> Result<Option<Inode>, OperationError> {
        let up = |path| Ok::<_, OperationError>(view.path(path)?.ok_or(OperationError::Stale)?.0);
        Ok(match inode {
            Inode::Versions(ROOT_PATH) | Inode::Deleted(ROOT_PATH) => Some(Inode::Root),
            Inode::Versions(path) => Some(Inode::Versions(up(path)?)),
            Inode::VersionsOf { path, .. } => Some(Inode::Versions(path)),
            Inode::Deleted(path) => Some(Inode::Deleted(up(path)?)),
            Inode::Changed { snapshot, path: ROOT_PATH, .. } => Some(Inode::ChangesOf(snapshot)),
            Inode::Changed { change, snapshot, path } => Some(Inode::Changed { change, snapshot, path: up(path)? }),
            _ => None,
        })
    }

    fn versions(&self, view: &View, listing: &Listing, path: u64) -> Result<Vec<DerivedRow>, OperationError> {
        // Before the first snapshot there is an empty root.
        let Some(history) = self.history(view, ALL, path)? else {
            return if path == ROOT_PATH { Ok(Vec::new()) } else { Err(OperationError::Stale) };
        };
        let mut keys = HashSet::new();
        let mut rows = Vec::with_capacity(history.lifetimes.len());
        for lifetime in &history.lifetimes {
            let name = lifetime.name.clone();
            // All names take a key, even directories, so that a key never passes to another name.
            let mut key = key_of(name.as_bytes());
            while !keys.insert(key) {
                key = key.wrapping_add(1);
            }
            let inode = if lifetime.directories.is_empty() {
                // What was never readable has no version to show.
                if lifetime.versions.is_empty() {
                    continue;
                }
                Inode::VersionsOf { path, key: key.into() }
            } else {
                Inode::Versions(path_id(view, path, &name)?)
            };
            rows.push(DerivedRow { name, inode, access: lifetime.access });
        }
        if let Some((above, name)) = view.path(path)?
            && let Some(history) = self.history(view, ALL, above)?
            && let Some(lifetime) = history.find(name.as_bytes())
        {
            let taken: HashSet<Name> = rows.iter().map(|row| row.name.clone()).collect();
            rows.extend(self.versions_of(listing, lifetime)?.into_iter().filter(|row| !taken.contains(&row.name)));
        }
        Ok(rows)
    }

    fn versions_of(&self, listing: &Listing, lifetime: &Lifetime) -> Result<Vec<DerivedRow>, OperationError> {
        let ending = ending(lifetime.name.as_bytes());
        let mut rows = Vec::with_capacity(lifetime.versions.len());
        for (position, version) in &lifetime.versions {
            let shown = listing.snapshots.get(*position as usize).ok_or(OperationError::Stale)?;
            let name = Name::new(&[shown.name.as_bytes(), ending].concat()).map_err(|_| OperationError::NameTooLong)?;
            rows.push(DerivedRow { name, inode: Inode::File(*version), access: None });
        }
        Ok(rows)
    }

    fn deleted(&self, view: &View, path: u64) -> Result<Vec<DerivedRow>, OperationError> {
        let mut rows: Vec<(DerivedRow, usize)> = Vec::new();
        let mut places: HashMap<Name, usize> = HashMap::new();
        for (number, sequence) in (0u32..).zip(&self.sequences).skip(1) {
            let Some(history) = self.history(view, number, path)? else { continue };
            for lifetime in history.lifetimes.iter().filter(|lifetime| !lifetime.begins_withheld()) {
                let name = lifetime.name.clone();
                let (inode, position) = if self.lacks_directory(view, number, path, lifetime)? {
                    (Inode::Deleted(path_id(view, path, &name)?), usize::MAX)
                } else if let Some((position, version)) = lifetime.versions.first().filter(|(at, _)| *at > 0) {
                    (Inode::File(*version), sequence.positions.get(*position as usize).copied().unwrap_or(0))
                } else {
                    continue;
                };
                let is_directory = position == usize::MAX;
                let row = DerivedRow { name: name.clone(), inode, access: lifetime.access.filter(|_| is_directory) };
                match places.get(&name).and_then(|place| rows.get_mut(*place)) {
                    None => {
                        places.insert(name, rows.len());
                        rows.push((row, position));
                    }
                    Some((known, _)) if is_directory && known.access.is_some() => {
                        known.access = known.access.zip(row.access).map(|(a, b)| a.and(b));
                    }
                    Some(known) if known.1 < position => *known = (row, position),
                    Some(_) => {}
                }
            }
        }
        Ok(rows.into_iter().map(|(row, _)| row).collect())
    }

    /// True if `lifetime` was a directory and the newest snapshot of the sequence lacks it or something in it.
    fn lacks_directory(
        &self,
        view: &View,
        sequence: u32,
        path: u64,
        lifetime: &Lifetime,
    ) -> Result<bool, OperationError> {
        match lifetime.directories.as_slice() {
            [] => Ok(false),
            [newest, ..] if newest.position > 0 => Ok(true),
            [_] => Ok(false),
            _ => self.lacks_below(view, sequence, path_id(view, path, &lifetime.name)?),
        }
    }

    /// True if the newest snapshot of the sequence lacks something that was below the directory `path`.
    fn lacks_below(&self, view: &View, sequence: u32, path: u64) -> Result<bool, OperationError> {
        if let Some(known) = self.lacking_below.get((sequence, path)) {
            return Ok(known);
        }
        let mut looked_at = Vec::new();
        let mut stack = vec![path];
        while let Some(at) = stack.pop() {
            match self.lacking_below.get((sequence, at)) {
                Some(false) => continue,
                Some(true) => return Ok(self.note_lacking(sequence, &[path], true)),
                None => looked_at.push(at),
            }
            let Some(history) = self.history(view, sequence, at)? else { continue };
            for lifetime in history.lifetimes.iter().filter(|lifetime| !lifetime.begins_withheld()) {
                let was_directory = lifetime.directories.first();
                let is_gone = was_directory.is_some_and(|era| era.position > 0)
                    || lifetime.versions.first().is_some_and(|(position, _)| *position > 0);
                if is_gone {
                    return Ok(self.note_lacking(sequence, &[path, at], true));
                }
                if lifetime.directories.len() > 1 {
                    stack.push(path_id(view, at, &lifetime.name)?);
                }
            }
        }
        Ok(self.note_lacking(sequence, &looked_at, false))
    }

    fn note_lacking(&self, sequence: u32, paths: &[u64], answer: bool) -> bool {
        paths.iter().for_each(|path| self.lacking_below.insert((sequence, *path), answer));
        answer
    }

    fn changed(
        &self,
        view: &View,
        listing: &Listing,
        change: Change,
        snapshot: u64,
        path: u64,
    ) -> Result<Vec<DerivedRow>, OperationError> {
        let shown = listing.numbered(snapshot).ok_or(OperationError::Stale)?;
        let (before, after) = descend(view, (shown.before, Some(shown.snapshot.root)), path)?;
        if before.is_none() && after.is_none() {
            return Err(OperationError::Stale);
        }
        let mut rows = Vec::new();
        for difference in view.differences(before, after)? {
            let (file, pair) = shown_of(&difference, change);
            let Some((entry, _)) = difference.after.as_ref().or(difference.before.as_ref()) else { continue };
            let name = entry.name.clone();
            if let Some(version) = file {
                rows.push(DerivedRow { name, inode: Inode::File(version), access: None });
                continue;
            }
            let Some(pair) = pair else { continue };
            let inode = Inode::Changed { change, snapshot, path: path_id(view, path, &name)? };
            if is_whole(pair, change)
                || is_own_change(&difference, change)
                || self.changes_below(view, change, inode, pair)?
            {
                let access = |state: &Option<(Arc<bygone_core::entry::Entry>, u64)>| {
                    state
                        .as_ref()
                        .filter(|(entry, _)| entry.directory().is_some())
                        .map(|(entry, _)| Access::of(&entry.meta))
                };
                let access = match (access(&difference.before), access(&difference.after)) {
                    (Some(before), Some(after)) => Some(before.and(after)),
                    (before, after) => before.or(after),
                };
                rows.push(DerivedRow { name, inode, access });
            }
        }
        Ok(rows)
    }

    /// True if the two states of the directory `inode` differ, anywhere below it, in the way that `change` shows.
    fn changes_below(&self, view: &View, change: Change, inode: Inode, pair: Pair) -> Result<bool, OperationError> {
        if let Some(known) = self.changed_below.get(inode) {
            return Ok(known);
        }
        let mut found = false;
        let mut stack = vec![pair];
        while let (false, Some((before, after))) = (found, stack.pop()) {
            for difference in view.differences(before, after)? {
                let (file, pair) = shown_of(&difference, change);
                found |= file.is_some() || is_own_change(&difference, change);
                found |= pair.is_some_and(|pair| is_whole(pair, change));
                stack.extend(pair);
            }
        }
        self.changed_below.insert(inode, found);
        Ok(found)
    }

    /// The content of the directory `path` in all states of a sequence; `None` if the sequence never had it.
    fn history(&self, view: &View, sequence: u32, path: u64) -> Result<Option<Arc<History>>, OperationError> {
        let mut names = Vec::new();
        let mut at = path;
        let mut history = loop {
            if let Some(history) = self.histories.get((sequence, at)) {
                break history;
            }
            if at == ROOT_PATH {
                let root = self.sequences.get(sequence as usize).filter(|sequence| !sequence.eras.is_empty());
                let Some(root) = root else { return Ok(None) };
                break self.read_history(view, sequence, ROOT_PATH, &root.eras)?;
            }
            let (parent, name) = view.path(at)?.ok_or(OperationError::Stale)?;
            if names.len() > limits::PATH_BYTES_MAX {
                return Err(unknown_path(&name));
            }
            names.push((at, name));
            at = parent;
        };
        for (at, name) in names.into_iter().rev() {
            let Some(lifetime) = history.find(name.as_bytes()).filter(|found| !found.directories.is_empty()) else {
                return Ok(None);
            };
            history = self.read_history(view, sequence, at, &lifetime.directories)?;
        }
        Ok(Some(history))
    }

    fn read_history(
        &self,
        view: &View,
        sequence: u32,
        path: u64,
        eras: &[Era],
    ) -> Result<Arc<History>, OperationError> {
        let lifetimes = view.history(eras)?;
        let by_name = lifetimes.iter().enumerate().map(|(place, found)| (found.name.clone(), place)).collect();
        let weight = lifetimes.iter().map(|found| 1 + found.directories.len() + found.versions.len()).sum::<usize>();
        let history = Arc::new(History { lifetimes, by_name });
        self.histories.insert((sequence, path), Arc::clone(&history), weight + 1);
        Ok(history)
    }
}

fn sequence(listing: &Listing, positions: Vec<usize>) -> Sequence {
    let mut sequence = Sequence { eras: Vec::new(), access: None, positions };
    let mut known = HashSet::new();
    for (position, shown) in (0u32..).zip(sequence.positions.iter().filter_map(|at| listing.snapshots.get(*at))) {
        let access = Access::of(&shown.snapshot.root_meta);
        sequence.access = Some(sequence.access.map_or(access, |before| before.and(access)));
        if known.insert(shown.snapshot.root) {
            sequence.eras.push(Era { position, node: shown.snapshot.root });
        }
    }
    sequence
}
