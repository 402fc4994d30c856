//! The mount's own directories and links, as pure functions of the list of snapshots.

use std::borrow::Cow;

use bygone_cli::when::parse_moment;
use bygone_core::entry::FileType;
use bygone_core::entry::Time;

use crate::tree::attr::Attr;
use crate::tree::inode::Change;
use crate::tree::inode::Inode;
use crate::tree::inode::ROOT_PATH;
use crate::tree::listing::Group;
use crate::tree::listing::Listing;
use crate::tree::listing::Shown;
use crate::tree::listing::latest_target;
use crate::tree::listing::link_target;
use crate::tree::listing::near_target;
use crate::tree::shape::Layout;

/// Name of the link to the newest snapshot.
pub const LATEST: &str = "latest";
const SNAPSHOTS: (&str, Inode) = ("snapshots", Inode::Snapshots);
const HOSTS: (&str, Inode) = ("hosts", Inode::Hosts);
const TAGS: (&str, Inode) = ("tags", Inode::Tags);

/// The directories of the root, in order.
fn top(layout: Layout) -> &'static [(&'static str, Inode)] {
    match layout {
        Layout::Default => &[
            SNAPSHOTS,
            HOSTS,
            TAGS,
            ("at", Inode::At),
            ("versions", Inode::Versions(ROOT_PATH)),
            ("deleted", Inode::Deleted(ROOT_PATH)),
            ("changes", Inode::Changes),
        ],
        Layout::Restic => &[("ids", Inode::Ids), SNAPSHOTS, HOSTS, TAGS],
        Layout::Zfs => &[(".zfs", Inode::Zfs)],
        Layout::ShadowCopy => &[],
    }
}

/// The three directories of `changes/<snapshot>/`.
const CHANGE_DIRECTORIES: [(&str, Change); 3] =
    [("added", Change::Added), ("modified", Change::Modified), ("deleted", Change::Deleted)];

/// The kind of `inode`.
pub fn kind(inode: Inode) -> FileType {
    match inode {
        Inode::Link(_) | Inode::Latest(_) | Inode::Near(_) | Inode::Beside(_) => FileType::Symlink,
        _ => FileType::Directory,
    }
}

/// An entry of one of the mount's own directories.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Child<'a> {
    /// Its place among the others. The place belongs to this child, whatever appears or disappears around it, so a
    /// listing that goes on from a place skips nothing that stayed and repeats nothing.
    pub ordinal: u64,
    /// Its name.
    pub name: Cow<'a, str>,
    /// What it is.
    pub inode: Inode,
}

/// The place of a child that exists once. It comes before the places of all numbered children.
const FIRST: u64 = 0;

/// The children of the directory `inode`, ordered by place; `None` if it is none of the mount's own directories.
pub fn children<'a>(listing: &'a Listing, inode: Inode) -> Option<Vec<Child<'a>>> {
    let latest = |inode: fn(u64) -> Inode| {
        listing.latest().map(|shown| Child { ordinal: FIRST, name: Cow::from(LATEST), inode: inode(shown.number) })
    };
    // The catalog numbers snapshots from 1, in the order in which it learns of them, and never reuses a number.
    let of_each = |inode: &dyn Fn(&Shown) -> Inode| {
        let child = |shown: &'a Shown| Child {
            ordinal: shown.number,
            name: Cow::from(shown.name.as_str()),
            inode: inode(shown),
        };
        listing.snapshots.iter().map(child).collect::<Vec<_>>()
    };
    let fixed = |all: &'static [(&'static str, Inode)]| {
        let child = |((name, inode), ordinal): (&(&'static str, Inode), u64)| Child {
            ordinal,
            name: Cow::from(*name),
            inode: *inode,
        };
        all.iter().zip(FIRST + 1..).map(child).collect::<Vec<_>>()
    };
    let mut found = match inode {
        Inode::Root => {
            let rest = match listing.layout {
                Layout::Default => latest(Inode::Latest).into_iter().collect(),
                Layout::ShadowCopy => of_each(&root_of),
                Layout::Zfs | Layout::Restic => Vec::new(),
            };
            fixed(top(listing.layout)).into_iter().chain(rest).collect()
        }
        Inode::Snapshots if listing.layout == Layout::Restic => {
            latest(Inode::Beside).into_iter().chain(of_each(&root_of)).collect()
        }
        Inode::Snapshots | Inode::ZfsSnapshots => of_each(&root_of),
        Inode::Zfs => fixed(&[("snapshot", Inode::ZfsSnapshots)]),
        Inode::Changes => of_each(&|shown| Inode::ChangesOf(shown.number)),
        Inode::ChangesOf(snapshot) => changes_of(listing.numbered(snapshot)?),
        Inode::Ids => {
            let child = |shown: &Shown| Child {
                ordinal: shown.number,
                name: Cow::from(short_id(shown)),
                inode: Inode::Near(shown.number),
            };
            listing.snapshots.iter().map(child).collect()
        }
        // Any time can be looked up, and none is listed.
        Inode::At => Vec::new(),
        Inode::Hosts | Inode::Tags => {
            let child = |group: &'a Group| match group.inode {
                Inode::Host(key) | Inode::Tag(key) => {
                    Some(Child { ordinal: key, name: Cow::from(group.name.as_str()), inode: group.inode })
                }
                _ => None,
            };
            listing.groups(inode).iter().filter_map(child).collect()
        }
        Inode::Host(_) | Inode::Tag(_) => {
            let group = listing.group(inode)?;
            let newest = group.latest.and_then(|position| listing.snapshots.get(position));
            let latest = newest.map(|newest| Child {
                ordinal: FIRST,
                name: Cow::from(LATEST),
                inode: Inode::Link(newest.number),
            });
            latest.into_iter().chain(members(listing, group)).collect()
        }
        _ => return None,
    };
    // So far snapshots are in the order of time, and groups in that of their first snapshot.
    found.sort_by_key(|child| child.ordinal);
    Some(found)
}

/// The children of the directory of changes of a snapshot.
fn changes_of(shown: &Shown) -> Vec<Child<'static>> {
    let child = |((name, change), ordinal)| Child {
        ordinal,
        name: Cow::from(name),
        inode: Inode::Changed { change, snapshot: shown.number, path: ROOT_PATH },
    };
    CHANGE_DIRECTORIES.into_iter().zip(FIRST..).map(child).collect()
}

/// The child called `name` of the directory `inode`.
pub fn find(listing: &Listing, inode: Inode, name: &[u8], now: Time) -> Option<Inode> {
    let shown = || listing.named(name).map(|(_, shown)| shown);
    let at_home = (inode == listing.home()).then(|| shown().map(root_of)).flatten();
    let found = match inode {
        Inode::Changes => shown().map(|shown| Inode::ChangesOf(shown.number)),
        Inode::At => {
            let moment = parse_moment(std::str::from_utf8(name).ok()?, now)?;
            listing.not_later_than(moment).map(|shown| Inode::Near(shown.number))
        }
        Inode::Host(_) | Inode::Tag(_) => listing.named(name).and_then(|(position, shown)| {
            let members = &listing.group(inode)?.members;
            members.binary_search(&position).is_ok().then_some(Inode::Link(shown.number))
        }),
        _ => None,
    };
    let few =
        || children(listing, inode)?.into_iter().find(|child| child.name.as_bytes() == name).map(|child| child.inode);
    at_home.or(found).or_else(few)
}

/// The target of the link `inode`.
pub fn target(listing: &Listing, inode: Inode) -> Option<String> {
    match inode {
        Inode::Link(number) => listing.numbered(number).map(link_target),
        Inode::Latest(number) => listing.numbered(number).map(latest_target),
        Inode::Near(number) => listing.numbered(number).map(near_target),
        Inode::Beside(number) => listing.numbered(number).map(|shown| shown.name.clone()),
        _ => None,
    }
}

/// The attributes of `inode`; `None` if it is gone.
pub fn attr(listing: &Listing, inode: Inode, owner: (u32, u32)) -> Option<Attr> {
    let number = inode.number().ok()?;
    let link = |shown: &Shown, nlink| {
        let target = target(listing, inode)?;
        Some(Attr::of_synthetic_link(number, &target, nlink, owner, shown.snapshot.time))
    };
    match inode {
        Inode::Link(snapshot) => link(listing.numbered(snapshot)?, listing.numbered(snapshot)?.links),
        Inode::Latest(snapshot) | Inode::Near(snapshot) | Inode::Beside(snapshot) => {
            link(listing.numbered(snapshot)?, 1)
        }
        _ => {
            let directories =
                children(listing, inode)?.iter().filter(|child| kind(child.inode) == FileType::Directory).count();
            Some(Attr::of_synthetic_directory(number, directories, owner, listing.changed))
        }
    }
}

/// The parent of `inode`; `None` if it is none of the mount's own directories.
pub fn parent(inode: Inode) -> Option<Inode> {
    match inode {
        Inode::Root | Inode::Snapshots | Inode::Hosts | Inode::Tags | Inode::At | Inode::Changes => Some(Inode::Root),
        Inode::Ids | Inode::Zfs => Some(Inode::Root),
        Inode::ZfsSnapshots => Some(Inode::Zfs),
        Inode::Host(_) => Some(Inode::Hosts),
        Inode::Tag(_) => Some(Inode::Tags),
        Inode::ChangesOf(_) => Some(Inode::Changes),
        _ => None,
    }
}

/// The short form of a snapshot's id.
fn short_id(shown: &Shown) -> String {
    shown.snapshot.id.to_hex().chars().take(8).collect()
}

/// The root directory of `shown`.
fn root_of(shown: &Shown) -> Inode {
    Inode::Directory { snapshot: shown.number, path: ROOT_PATH }
}

fn members<'a>(listing: &'a Listing, group: &'a Group) -> impl Iterator<Item = Child<'a>> {
    let shown = group.members.iter().filter_map(|position| listing.snapshots.get(*position));
    shown.map(|shown| Child {
        ordinal: shown.number,
        name: Cow::from(shown.name.as_str()),
        inode: Inode::Link(shown.number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::snapshot_row;
    use crate::tree::shape::Shape;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Snapshots with these numbers, in another order by time, of two hosts and with two tags.
    fn listing(numbers: &BTreeSet<u64>, layout: Layout) -> Listing {
        let row = |number: &u64| {
            let (host, tag) = (["a", "b"][(number % 2) as usize], ["x", "y"][(number / 2 % 2) as usize]);
            snapshot_row(*number, (number * 7_919 % 101) as i64 * 10, host, &[tag])
        };
        let mut rows: Vec<_> = numbers.iter().map(row).collect();
        rows.sort_by_key(|row| row.snapshot.time);
        Listing::new(rows, &Shape { layout, ..Shape::default() }, Time { secs: i64::MAX, nanos: 0 }).unwrap()
    }

    proptest! {
        #[test]
        fn readers_resume_while_snapshots_come_and_go(
            before in prop::collection::btree_set(1_u64..100, 0..20),
            after in prop::collection::btree_set(1_u64..100, 0..20),
            read in 0_usize..25,
            layout in prop::sample::select(vec![Layout::Default, Layout::Restic, Layout::Zfs, Layout::ShadowCopy]),
        ) {
            let (before, after) = (listing(&before, layout), listing(&after, layout));
            let fixed = [Inode::Root, Inode::Snapshots, Inode::ZfsSnapshots, Inode::Changes, Inode::Ids];
            let groups = before.hosts.iter().chain(&before.tags).map(|group| group.inode);
            for directory in fixed.into_iter().chain([Inode::Hosts, Inode::Tags]).chain(groups) {
                let (Some(old), Some(new)) = (children(&before, directory), children(&after, directory)) else {
                    continue;
                };
                prop_assert!(old.windows(2).all(|pair| pair[0].ordinal < pair[1].ordinal), "{directory:?}: {old:?}");
                let passed = &old[..read.min(old.len())];
                let place = passed.last().map_or(0, |last| last.ordinal + 1);
                let rest = new.iter().filter(|child| child.ordinal >= place);
                let seen: Vec<&str> = passed.iter().chain(rest).map(|child| &*child.name).collect();
                for child in old.iter().filter(|child| new.iter().any(|other| other.name == child.name)) {
                    let count = seen.iter().filter(|name| **name == child.name).count();
                    prop_assert_eq!(count, 1, "{:?}: {}", directory, &child.name);
                }
            }
        }
    }
}
