//! The parent snapshot, and whether a file has changed since.
//!
//! A file counts as unchanged if its size, modification time, change time and inode number are those in the parent
//! snapshot. Every change of a file sets its change time from the clock, so equality covers the metadata too. But a
//! change within the same tick of the clock as the reading leaves no trace. So an entry whose time is at or after the
//! beginning of the backup that read it is not trusted, and the file is read once more.

use std::collections::VecDeque;
use std::sync::Arc;

use bygone_core::catalog::SnapshotRow;
use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::entry::Withheld;
use bygone_core::error::Result;
use bygone_core::id::NodeId;
use bygone_core::limits;
use bygone_core::read::Directory;
use bygone_core::read::View;
use bygone_core::snapshot::Snapshot;

use crate::backup::stat::Stat;

/// The one directory of a file system that is empty.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Entries of a parent's directory fetched at once.
const FETCH_ENTRIES: usize = limits::NODE_ENTRIES_MAX;
/// Longest tick of the clock from which file systems take their times.
const TICK_NANOS: i128 = 20_000_000;
/// Coarsest times that file systems keep (those of FAT), recognised by having no nanoseconds.
const COARSE_NANOS: i128 = 2_000_000_000;

/// The rules by which a file counts as unchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compare {
    /// Nothing counts as unchanged: the parent only tells what was there.
    pub(super) force: bool,
    pub(super) ignore_ctime: bool,
    pub(super) ignore_inode: bool,
    /// When the backup that made the parent began.
    pub(super) began: Time,
}

/// What has happened to a path since the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Same,
    /// Only its device or inode number, which identifies hard links, has changed.
    Renumbered,
    /// Its content is the same; its metadata may not be.
    SameContent,
    /// It must be read.
    Changed,
}

impl Compare {
    /// For anything but a directory.
    pub(super) fn judge(&self, entry: &Entry, stat: &Stat) -> Verdict {
        let meta = &entry.meta;
        let same_kind = match entry.withheld() {
            // What could not be read is read anew, however little it has changed.
            Some(Withheld::Unreadable(_)) => false,
            // An unknown kind says nothing about its type.
            Some(Withheld::NewerKind(_)) => stat.file_type() != FileType::Directory,
            Some(Withheld::NewerAttribute(_)) | None => entry.file_type() == Some(stat.file_type()),
        };
        let knows_size = stat.file_type() == FileType::File && entry.file_type() == Some(FileType::File);
        let same_size = !knows_size || meta.size == stat.size;
        let same_inode = self.ignore_inode || meta.inode == stat.inode;
        let same_ctime = meta.ctime == stat.ctime;
        let settled = !self.force && self.settled(if self.ignore_ctime { meta.mtime } else { meta.ctime });
        if !(same_kind && same_size && same_inode && settled && meta.mtime == stat.mtime) {
            return Verdict::Changed;
        }
        if matches!(entry.kind, Kind::Newer { .. })
            && (meta.device, meta.inode, meta.ctime) != (stat.device, stat.inode, stat.ctime)
        {
            // A record that this program does not understand is kept as it is or not at all.
            return Verdict::Changed;
        }
        match (same_ctime, self.ignore_ctime) {
            (false, false) => Verdict::Changed,
            (false, true) => Verdict::SameContent,
            (true, _) if stat.nlink > 1 && (meta.device, meta.inode) != (stat.device, stat.inode) => {
                Verdict::Renumbered
            }
            (true, _) => Verdict::Same,
        }
    }

    /// True if a directory still has the attributes and flags of `entry`.
    pub(super) fn keeps_attributes(&self, entry: &Entry, stat: &Stat) -> bool {
        let meta = &entry.meta;
        // What could not be read did not show its attributes.
        let is_known = entry.directory().is_some() && !self.force;
        is_known && (meta.inode, meta.ctime) == (stat.inode, stat.ctime) && self.settled(meta.ctime)
    }

    fn settled(&self, time: Time) -> bool {
        let nanos = |time: Time| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
        let doubt = if time.nanos == 0 { COARSE_NANOS } else { TICK_NANOS };
        nanos(time) + doubt < nanos(self.began)
    }
}

/// The snapshot with which a backup is compared.
pub struct Parent {
    pub(super) past: Past,
    pub(super) root: Option<Arc<Entry>>,
    pub(super) began: Time,
}

impl Parent {
    /// `snapshot` as `view` shows it.
    pub fn new(view: View, snapshot: &Snapshot) -> Parent {
        let root = snapshot.root_entry().map(Arc::new);
        Parent { past: Past::Catalog(Box::new(view)), root, began: snapshot.time }
    }

    /// True if the directory `names` of the snapshot has entries.
    pub(super) fn had_entries(&self, names: &[Name]) -> Result<bool> {
        let mut node = self.root.as_ref().and_then(|root| root.directory());
        for name in names {
            let mut entries = self.past.directory(node)?;
            while entries.absent_before(&self.past, Some(name))?.is_some() {}
            let entry = entries.find(&self.past, name)?;
            node = entry.and_then(|entry| entry.directory());
            if node.is_none() {
                return Ok(false);
            }
        }
        let mut entries = self.past.directory(node)?;
        // A new file system has this one.
        let lost_and_found = Name::new(LOST_AND_FOUND).ok();
        let first = entries.first(&self.past)?.map(|entry| entry.name.clone());
        if first.is_some() && first == lost_and_found {
            entries.entries.pop_front();
            return Ok(entries.first(&self.past)?.is_some());
        }
        Ok(first.is_some())
    }

    /// No snapshot: everything is new.
    pub(super) fn none() -> Parent {
        Parent { past: Past::None, root: None, began: Time::default() }
    }

    /// The newest snapshot with which a backup of `paths` on `host` can be compared (`snapshots` has the oldest first):
    /// one of the same paths, or else one with a path in common, which works because all snapshots begin at the root.
    /// One that is later than `now` is taken only if there is no other.
    pub fn choose<'a>(snapshots: &'a [SnapshotRow], host: &str, paths: &[Vec<u8>], now: Time) -> Option<&'a Snapshot> {
        let pick = |wants_future: bool| {
            Parent::choose_among(snapshots, host, paths, |one| one.is_from_the_future(now) == wants_future)
        };
        pick(false).or_else(|| pick(true))
    }

    fn choose_among<'a>(
        snapshots: &'a [SnapshotRow],
        host: &str,
        paths: &[Vec<u8>],
        is_wanted: impl Fn(&Snapshot) -> bool,
    ) -> Option<&'a Snapshot> {
        let sorted = |paths: &[Vec<u8>]| {
            let mut paths = paths.to_vec();
            paths.sort_unstable();
            paths
        };
        let own = snapshots.iter().rev().map(|row| &row.snapshot);
        let own = own.filter(|snapshot| snapshot.host == host && snapshot.is_readable() && is_wanted(snapshot));
        let same = own.clone().find(|snapshot| sorted(&snapshot.paths) == sorted(paths));
        let common = |snapshot: &&Snapshot| snapshot.paths.iter().any(|a| paths.iter().any(|b| overlap(a, b)));
        same.or_else(|| own.clone().find(common))
    }
}

/// True if one path is the other or leads to it.
fn overlap(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    match long.strip_prefix(short) {
        Some(rest) => short == b"/" || rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

/// The parent snapshot's entries.
pub(super) enum Past {
    /// There is no parent, or the user does not trust it.
    None,
    /// A snapshot in the catalog.
    Catalog(Box<View>),
    /// Directories made up by a test.
    #[cfg(test)]
    Memory(std::collections::HashMap<NodeId, Vec<Arc<Entry>>>),
}

/// The entries of one directory of the parent, in order.
pub(super) struct Earlier {
    entries: VecDeque<Arc<Entry>>,
    /// What has not been fetched yet: the entries of this directory from this number on.
    rest: Option<(Directory, u64)>,
}

impl Past {
    /// The number of entries that `entry` stands for: itself, and everything below it as far as it is known.
    pub(super) fn count(&self, entry: &Entry) -> u64 {
        let mut count = 1;
        let mut stack: Vec<NodeId> = entry.directory().into_iter().collect();
        while let Some(node) = stack.pop() {
            // The count is informative, so damage of the parent, which `check` reports, is no reason to stop.
            let Ok(mut below) = self.directory(Some(node)) else { continue };
            while let Ok(Some(entry)) = below.absent_before(self, None) {
                count += 1;
                stack.extend(entry.directory());
            }
        }
        count
    }

    /// The directory `node`, or an empty one.
    pub(super) fn directory(&self, node: Option<NodeId>) -> Result<Earlier> {
        let nothing = Earlier { entries: VecDeque::new(), rest: None };
        let Some(node) = node else { return Ok(nothing) };
        Ok(match self {
            Past::None => nothing,
            Past::Catalog(view) => Earlier { rest: Some((view.directory(node)?, 0)), ..nothing },
            #[cfg(test)]
            Past::Memory(nodes) => Earlier { entries: nodes.get(&node).cloned().unwrap_or_default().into(), ..nothing },
        })
    }
}

impl Earlier {
    /// The next entry that was not asked for and comes before `name`, or before the end.
    pub(super) fn absent_before(&mut self, past: &Past, name: Option<&Name>) -> Result<Option<Arc<Entry>>> {
        let comes_before = |entry: &&Arc<Entry>| name.is_none_or(|name| entry.name < *name);
        let is_there = self.first(past)?.filter(comes_before).is_some();
        Ok(if is_there { self.entries.pop_front() } else { None })
    }

    /// The entry `name`. Names must be asked for in their order, each after all entries before it have been taken.
    pub(super) fn find(&mut self, past: &Past, name: &Name) -> Result<Option<Arc<Entry>>> {
        let is_next = self.first(past)?.is_some_and(|entry| entry.name == *name);
        Ok(if is_next { self.entries.pop_front() } else { None })
    }

    fn first(&mut self, past: &Past) -> Result<Option<&Arc<Entry>>> {
        if self.entries.is_empty()
            && let Past::Catalog(view) = past
            && let Some((directory, next)) = &mut self.rest
        {
            let items = directory.from(view, *next, FETCH_ENTRIES)?;
            *next += items.len() as u64;
            if *next >= directory.len() || items.is_empty() {
                self.rest = None;
            }
            self.entries = items.into_iter().map(|item| item.entry).collect();
        }
        Ok(self.entries.front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bygone_core::attributes::Attributes;
    use bygone_core::entry::Meta;
    use bygone_core::id::SnapshotId;
    use bygone_core::snapshot::Totals;

    fn row(number: u64, host: &str, paths: &[&str]) -> SnapshotRow {
        let root_meta = Meta::unknown();
        let snapshot = Snapshot {
            id: SnapshotId([0; 16]),
            time: Time { secs: number as i64, nanos: 0 },
            host: host.into(),
            user: String::new(),
            paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
            tags: Vec::new(),
            parent: None,
            program: String::new(),
            root_meta,
            root: NodeId([0; 32]),
            root_attributes: Attributes::default(),
            totals: Totals::default(),
            attributes: Attributes::default(),
        };
        SnapshotRow { number, snapshot }
    }

    #[test]
    fn the_parent_is_the_newest_of_the_same_or_common_paths() {
        let rows = [
            row(1, "a", &["/x", "/y"]),
            row(2, "b", &["/x"]),
            row(3, "a", &["/y", "/x"]),
            row(4, "a", &["/x/sub"]),
            row(5, "a", &["/xyz"]),
        ];
        let chosen = |host, paths: &[&str]| {
            let paths: Vec<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
            Parent::choose(&rows, host, &paths, Time { secs: 5, nanos: 0 }).map(|snapshot| snapshot.time.secs)
        };
        assert_eq!(chosen("a", &["/x", "/y"]), Some(3), "the order of the paths does not matter");
        assert_eq!(chosen("a", &["/x"]), Some(4), "something below it");
        assert_eq!(chosen("a", &["/y/deep"]), Some(3), "something above it");
        assert_eq!(chosen("a", &["/"]), Some(5));
        assert_eq!(chosen("b", &["/x"]), Some(2));
        assert_eq!(chosen("a", &["/z"]), None);
        assert_eq!(chosen("c", &["/x"]), None, "another machine's files are other files");
        let rows = [row(1, "a", &["/x"]), row(1_000_000, "a", &["/x"])];
        let chosen = |now| Parent::choose(&rows, "a", &[b"/x".to_vec()], Time { secs: now, nanos: 0 });
        let chosen = |now| chosen(now).map(|snapshot| snapshot.time.secs);
        assert_eq!((chosen(5), chosen(1_000_000)), (Some(1), Some(1_000_000)), "one from the future is no parent");
        assert_eq!(
            Parent::choose(&rows[1..], "a", &[b"/x".to_vec()], Time::default()).map(|one| one.time.secs),
            Some(1_000_000)
        );
    }
}
