//! The list of snapshots as directories: `latest`, `snapshots/`, `hosts/`, `tags/`.
//!
//! A snapshot is one directory, `snapshots/<time>`. In `hosts/<host>/` and `tags/<tag>/` it is a symbolic link to that
//! directory, because the kernel moves a directory that shows up in two places, and because one directory has one
//! cache.
//!
//! Edge cases:
//! - Two snapshots of one second: the first in the catalog keeps the plain name, and later ones get eight digits of
//!   their id. So a name that a live mount has shown stays valid.
//! - Hosts and tags may be any text. Characters that a file name cannot hold are written `%XX`, and so is `%` itself,
//!   so that two names never become one.
//! - A snapshot, host or tag keeps its position in a listing, so readers are not disturbed by those that come and go.

use std::collections::HashMap;
use std::collections::HashSet;

use bygone_core::catalog::SnapshotRow;
use bygone_core::entry::Time;
use bygone_core::error::Result;
use bygone_core::id::NodeId;
use bygone_core::id::SnapshotId;
use bygone_core::limits;
use bygone_core::snapshot::Snapshot;

use crate::tree::inode::Inode;
use crate::tree::inode::PAYLOAD_MAX;
use crate::tree::inode::snapshot_number;
use crate::tree::shape::Layout;
use crate::tree::shape::Shape;
use crate::tree::shape::Template;

/// A snapshot as the mount shows it.
#[derive(Debug)]
pub struct Shown {
    /// Its number in the catalog.
    pub number: u64,
    /// Its name below `snapshots/`.
    pub name: String,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The root of the snapshot before it, shown or not: its parent, or else the previous one of the same host and
    /// paths.
    pub before: Option<NodeId>,
    /// How many directories below `hosts/` and `tags/` link to it.
    pub links: u32,
}

/// A directory below `hosts/` or `tags/` with links to snapshots.
#[derive(Debug)]
pub struct Group {
    /// Its name, valid for a directory.
    pub name: String,
    /// Its inode.
    pub inode: Inode,
    /// Positions of its snapshots in [`Listing::snapshots`], ascending.
    pub members: Vec<usize>,
    /// The position of the one to which its `latest` leads.
    pub latest: Option<usize>,
}

/// All snapshots at one moment, and the directories made of them. It never changes: a new moment has a new listing.
#[derive(Debug)]
pub struct Listing {
    /// When this list of snapshots was first seen.
    pub changed: Time,
    /// The layout.
    pub layout: Layout,
    /// All snapshots, oldest first.
    pub snapshots: Vec<Shown>,
    /// Hosts in order of first appearance.
    pub hosts: Vec<Group>,
    /// Tags in order of first appearance.
    pub tags: Vec<Group>,
    by_name: HashMap<String, usize>,
    by_number: HashMap<u64, usize>,
}

impl Listing {
    /// Arranges those of `rows` (oldest first) that `shape` shows, known since `changed`. Names and predecessors are
    /// worked out before the filter, from all rows.
    pub fn new(rows: Vec<SnapshotRow>, shape: &Shape, changed: Time) -> Result<Listing> {
        // A newer bygone made the others in a way that this one cannot read.
        let rows: Vec<SnapshotRow> = rows.into_iter().filter(|row| row.snapshot.is_readable()).collect();
        let mut listing = Listing {
            changed,
            layout: shape.layout,
            snapshots: Vec::with_capacity(rows.len()),
            hosts: Vec::new(),
            tags: Vec::new(),
            by_name: HashMap::new(),
            by_number: HashMap::new(),
        };
        let (names, befores, shown) = (names(&rows, &shape.template), befores(&rows), shape.filter.shown(&rows));
        for (((row, name), before), is_shown) in rows.into_iter().zip(names).zip(befores).zip(shown) {
            snapshot_number(row.number)?;
            if !is_shown {
                continue;
            }
            let position = listing.snapshots.len();
            listing.by_name.insert(name.clone(), position);
            listing.by_number.insert(row.number, position);
            let links = 1 + distinct(&row.snapshot.tags).len();
            let links = u32::try_from(links).unwrap_or(u32::MAX);
            listing.snapshots.push(Shown { number: row.number, name, snapshot: row.snapshot, before, links });
        }
        listing.hosts = groups(&listing.snapshots, Inode::Host, |s| vec![s.host.as_str()]);
        listing.tags = groups(&listing.snapshots, Inode::Tag, |s| distinct(&s.tags));
        for group in listing.hosts.iter_mut().chain(&mut listing.tags) {
            group.latest = latest_of(&listing.snapshots, &group.members, changed);
        }
        for newest in listing.hosts.iter().chain(&listing.tags).filter_map(|group| group.latest) {
            if let Some(shown) = listing.snapshots.get_mut(newest) {
                shown.links += 1;
            }
        }
        Ok(listing)
    }

    /// True if `other` has the same snapshots with the same names and predecessors. The latter two also depend on
    /// snapshots that are not shown.
    pub fn shows_the_same(&self, other: &Listing) -> bool {
        let of = |listing: &'_ Listing| -> Vec<(u64, String, Option<NodeId>)> {
            listing.snapshots.iter().map(|shown| (shown.number, shown.name.clone(), shown.before)).collect()
        };
        of(self) == of(other)
    }

    /// The snapshot that `latest` leads to.
    pub fn latest(&self) -> Option<&Shown> {
        let all: Vec<usize> = (0..self.snapshots.len()).collect();
        self.snapshots.get(latest_of(&self.snapshots, &all, self.changed)?)
    }

    /// The snapshot with this name below `snapshots/`, and its position.
    pub fn named(&self, name: &[u8]) -> Option<(usize, &Shown)> {
        let position = *self.by_name.get(std::str::from_utf8(name).ok()?)?;
        Some((position, self.snapshots.get(position)?))
    }

    /// The snapshot with this number in the catalog.
    pub fn numbered(&self, number: u64) -> Option<&Shown> {
        self.snapshots.get(*self.by_number.get(&number)?)
    }

    /// The newest snapshot not later than `moment`, of any host.
    pub fn not_later_than(&self, moment: Time) -> Option<&Shown> {
        self.snapshots.iter().filter(|shown| shown.snapshot.time <= moment).max_by_key(|shown| shown.snapshot.time)
    }

    /// Positions of the snapshots of each host and set of paths, ascending, without those from the future as long as
    /// there are others: what came after them is newer.
    pub fn successions(&self) -> Vec<Vec<usize>> {
        let mut places: HashMap<(&str, &[Vec<u8>]), usize> = HashMap::new();
        let mut found: Vec<Vec<usize>> = Vec::new();
        for (position, shown) in self.snapshots.iter().enumerate() {
            let place = *places.entry((&shown.snapshot.host, &shown.snapshot.paths)).or_insert_with(|| {
                found.push(Vec::new());
                found.len() - 1
            });
            found.get_mut(place).into_iter().for_each(|members| members.push(position));
        }
        for members in &mut found {
            let is_plausible = |position: &usize| !is_ahead(&self.snapshots, *position, self.changed);
            if members.iter().any(is_plausible) {
                members.retain(is_plausible);
            }
        }
        found
    }

    /// The directory in which the snapshots are directories.
    pub fn home(&self) -> Inode {
        match self.layout {
            Layout::Default | Layout::Restic => Inode::Snapshots,
            Layout::ShadowCopy => Inode::Root,
            Layout::Zfs => Inode::ZfsSnapshots,
        }
    }

    /// The groups of `hosts/` or `tags/`, whichever `inode` is or lies in.
    pub fn groups(&self, inode: Inode) -> &[Group] {
        match inode {
            Inode::Hosts | Inode::Host(_) => &self.hosts,
            Inode::Tags | Inode::Tag(_) => &self.tags,
            _ => &[],
        }
    }

    /// The group with this inode.
    pub fn group(&self, inode: Inode) -> Option<&Group> {
        self.groups(inode).iter().find(|group| group.inode == inode)
    }
}

/// The target of a symbolic link to `shown` from a directory just below the root.
pub fn near_target(shown: &Shown) -> String {
    format!("../snapshots/{}", shown.name)
}

/// The target of a symbolic link to `shown` from two directories below the root.
pub fn link_target(shown: &Shown) -> String {
    format!("../../snapshots/{}", shown.name)
}

/// The target of `latest` while `shown` is the newest.
pub fn latest_target(shown: &Shown) -> String {
    format!("snapshots/{}", shown.name)
}

/// The newest of these positions, without those from the future as long as there are others.
fn latest_of(snapshots: &[Shown], positions: &[usize], now: Time) -> Option<usize> {
    let plausible = positions.iter().rev().find(|position| !is_ahead(snapshots, **position, now));
    plausible.or(positions.last()).copied()
}

fn is_ahead(snapshots: &[Shown], position: usize, now: Time) -> bool {
    snapshots.get(position).is_some_and(|shown| shown.snapshot.is_from_the_future(now))
}

/// The root of the snapshot before each row.
fn befores(rows: &[SnapshotRow]) -> Vec<Option<NodeId>> {
    let roots: HashMap<SnapshotId, NodeId> = rows.iter().map(|row| (row.snapshot.id, row.snapshot.root)).collect();
    let mut newest: HashMap<(&str, &[Vec<u8>]), NodeId> = HashMap::new();
    let before = |row: &SnapshotRow| row.snapshot.parent.and_then(|parent| roots.get(&parent).copied());
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let same = newest.insert((&row.snapshot.host, &row.snapshot.paths), row.snapshot.root);
        found.push(before(row).or(same));
    }
    found
}

/// The name of each row below `snapshots/`.
fn names(rows: &[SnapshotRow], template: &Template) -> Vec<String> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|position| rows.get(*position).map(|row| row.number));
    let mut names = vec![String::new(); rows.len()];
    let mut taken = HashSet::from(["latest".to_owned()]);
    for position in order {
        let (Some(row), Some(name)) = (rows.get(position), names.get_mut(position)) else { continue };
        let plain = file_name(&template.apply(row.snapshot.time));
        let id = row.snapshot.id.to_hex();
        let long = |digits: usize| format!("{plain}-{}", id.get(..digits).unwrap_or(&id));
        let candidates = [plain.clone(), long(8), long(id.len())];
        *name = candidates.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
        taken.insert(name.clone());
    }
    names
}

/// Groups `snapshots` by the labels that `labels_of` finds in each.
fn groups<'a>(
    snapshots: &'a [Shown],
    inode: fn(u64) -> Inode,
    labels_of: impl Fn(&'a Snapshot) -> Vec<&'a str>,
) -> Vec<Group> {
    let mut found: Vec<Group> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut keys = HashSet::new();
    for (position, shown) in snapshots.iter().enumerate() {
        for label in labels_of(&shown.snapshot) {
            let group = *known.entry(label).or_insert_with(|| {
                // Two labels with one key are possible in theory. The later one takes the next key.
                let mut key = key_of(label);
                while !keys.insert(key) {
                    key = (key + 1) & PAYLOAD_MAX;
                }
                found.push(Group { name: file_name(label), inode: inode(key), members: Vec::new(), latest: None });
                found.len() - 1
            });
            if let Some(group) = found.get_mut(group) {
                group.members.push(position);
            }
        }
    }
    found
}

fn distinct(labels: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    labels.iter().map(String::as_str).filter(|label| seen.insert(*label)).collect()
}

/// A number that depends only on `label`, so it is the same in every mount: FNV-1a, folded.
fn key_of(label: &str) -> u64 {
    let hash = label
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ hash >> 36) & PAYLOAD_MAX
}

/// `label` as the name of a directory.
pub fn file_name(label: &str) -> String {
    let mut name = String::with_capacity(label.len());
    for (index, c) in label.char_indices() {
        let dots_only = matches!(label, "." | "..");
        if c == '/' || c == '%' || c.is_control() || (index == 0 && dots_only) {
            c.to_string().bytes().for_each(|byte| name.push_str(&format!("%{byte:02X}")));
        } else {
            name.push(c);
        }
    }
    if name.is_empty() {
        return "%".to_owned();
    }
    if name.len() > limits::NAME_BYTES_MAX {
        // No other name contains "%%".
        let end = (0..=200).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        name.truncate(end);
        name.push_str(&format!("%%{:09x}", key_of(label)));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::snapshot_row;

    fn shown(rows: Vec<SnapshotRow>) -> Listing {
        shown_at(rows, i64::MAX)
    }

    fn shown_at(rows: Vec<SnapshotRow>, secs: i64) -> Listing {
        Listing::new(rows, &Shape::default(), Time { secs, nanos: 0 }).unwrap()
    }

    #[test]
    fn latest_passes_over_snapshots_from_the_future() {
        let day = 86_400;
        let rows =
            || vec![snapshot_row(1, 10, "a", &[]), snapshot_row(3, 20, "b", &[]), snapshot_row(2, 9 * day, "a", &[])];
        let facts = |secs| {
            let listing = shown_at(rows(), secs);
            let host = |at: usize| listing.hosts[at].latest;
            (listing.latest().unwrap().number, host(0), host(1), listing.successions())
        };
        assert_eq!(facts(20), (3, Some(0), Some(1), vec![vec![0], vec![1]]));
        assert_eq!(facts(9 * day), (2, Some(2), Some(1), vec![vec![0, 2], vec![1]]));
        assert_eq!(facts(-9 * day), (2, Some(2), Some(1), vec![vec![0, 2], vec![1]]), "there are no others");
    }

    #[test]
    fn a_second_snapshot_in_one_second_renames_nothing() {
        let first = || snapshot_row(7, 1_795_391_401, "a", &[]);
        let alone = shown(vec![first()]);
        let both = shown(vec![snapshot_row(8, 1_795_391_401, "a", &[]), first()]);
        assert_eq!(alone.snapshots[0].name, "2026-11-22T23-50-01Z");
        assert_eq!(both.snapshots[1].name, alone.snapshots[0].name, "lower number, older name");
        assert_eq!(both.snapshots[0].name, "2026-11-22T23-50-01Z-08080808");
        assert_eq!(both.named(b"2026-11-22T23-50-01Z").unwrap().1.number, 7);
    }

    #[test]
    fn hosts_and_tags_gather_their_snapshots() {
        let listing = shown(vec![
            snapshot_row(1, 10, "b", &["x", "y", "x"]),
            snapshot_row(2, 20, "a", &["y"]),
            snapshot_row(3, 30, "b", &[]),
        ]);
        let summary = |groups: &[Group]| groups.iter().map(|g| (g.name.clone(), g.members.clone())).collect::<Vec<_>>();
        assert_eq!(summary(&listing.hosts), [("b".into(), vec![0, 2]), ("a".into(), vec![1])]);
        assert_eq!(summary(&listing.tags), [("x".into(), vec![0]), ("y".into(), vec![0, 1])]);
        assert_eq!(listing.snapshots[0].links, 4, "one host, two different tags, and the latest of one of them");
        assert_eq!(listing.latest().unwrap().number, 3);
        let host = listing.hosts[1].inode;
        assert_eq!(listing.group(host).unwrap().name, "a");
        assert_eq!(link_target(&listing.snapshots[0]), "../../snapshots/1970-01-01T00-00-10Z");
    }

    #[test]
    fn distinct_labels_become_distinct_valid_names() {
        let labels = ["", ".", "..", "...", "/", "%2F", "%", "a/b", "a%2Fb", "a\nb", "\u{e9}", "\u{85}", "~"];
        let names: HashSet<String> = labels.iter().map(|label| file_name(label)).collect();
        assert_eq!(names.len(), labels.len());
        for name in names.into_iter().chain([file_name(&"/".repeat(255)), file_name(&"\u{e9}".repeat(300))]) {
            assert!(bygone_core::entry::Name::new(name.as_bytes()).is_ok(), "{name:?}");
        }
        assert_eq!(file_name("build host"), "build host");
        assert_ne!(file_name(&"/".repeat(255)), file_name(&"/".repeat(254)));
    }

    #[test]
    fn snapshot_numbers_beyond_24_bits_are_refused() {
        assert!(Listing::new(vec![snapshot_row(1 << 24, 0, "a", &[])], &Shape::default(), Time::default()).is_err());
    }
}
