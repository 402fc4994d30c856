//! The mount's own directories and links, as a pure function of the list of snapshots.

use std::borrow::Cow;

use bygone_agent::when::parse_moment;
use bygone_core::entry::Time;

use crate::attr::Attr;
use crate::attr::Type;
use crate::inode::Inode;
use crate::inode::ROOT_PATH;
use crate::inode::Side;
use crate::listing::Group;
use crate::listing::Listing;
use crate::listing::Shown;
use crate::listing::latest_target;
use crate::listing::link_target;
use crate::listing::near_target;
use crate::shape::Layout;

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
const SIDES: [(&str, Side); 3] = [("added", Side::Added), ("modified", Side::Modified), ("deleted", Side::Deleted)];

/// What `inode` is.
pub fn kind(inode: Inode) -> Type {
    match inode {
        Inode::Link(_) | Inode::Latest(_) | Inode::Near(_) | Inode::Beside(_) => Type::Symlink,
        _ => Type::Directory,
    }
}

/// All that is in the directory `inode`, in an order that a new snapshot only appends to; `None` if it is none of the
/// mount's own directories.
pub fn children(listing: &Listing, inode: Inode) -> Option<Vec<(Cow<'_, str>, Inode)>> {
    let latest = |inode: fn(u64) -> Inode| listing.latest().map(|shown| (Cow::from(LATEST), inode(shown.number)));
    let of_each = |inode: &dyn Fn(&Shown) -> Inode| {
        listing.snapshots.iter().map(|shown| (Cow::from(shown.name.as_str()), inode(shown))).collect::<Vec<_>>()
    };
    match inode {
        Inode::Root => {
            let top = top(listing.layout).iter().map(|(name, inode)| (Cow::from(*name), *inode));
            let rest = match listing.layout {
                Layout::Default => latest(Inode::Latest).into_iter().collect(),
                Layout::ShadowCopy => of_each(&root_of),
                Layout::Zfs | Layout::Restic => Vec::new(),
            };
            Some(top.chain(rest).collect())
        }
        Inode::Snapshots if listing.layout == Layout::Restic => {
            Some(latest(Inode::Beside).into_iter().chain(of_each(&root_of)).collect())
        }
        Inode::Snapshots | Inode::ZfsSnapshots => Some(of_each(&root_of)),
        Inode::Zfs => Some(vec![(Cow::from("snapshot"), Inode::ZfsSnapshots)]),
        Inode::Changes => Some(of_each(&|shown| Inode::ChangesOf(shown.number))),
        Inode::ChangesOf(snapshot) => {
            listing.numbered(snapshot)?;
            let side = |(name, side)| (Cow::from(name), Inode::Changed { side, snapshot, path: ROOT_PATH });
            Some(SIDES.into_iter().map(side).collect())
        }
        Inode::Ids => Some(
            listing.snapshots.iter().map(|shown| (Cow::from(short_id(shown)), Inode::Near(shown.number))).collect(),
        ),
        // Any time can be asked for, and none is listed.
        Inode::At => Some(Vec::new()),
        Inode::Hosts | Inode::Tags => {
            let groups = listing.groups(inode).iter();
            Some(groups.map(|group| (Cow::from(group.name.as_str()), group.inode)).collect())
        }
        Inode::Host(_) | Inode::Tag(_) => {
            let group = listing.group(inode)?;
            let members: Vec<_> = members(listing, group).collect();
            let latest = members.last().map(|(_, inode)| (Cow::from(LATEST), *inode));
            Some(latest.into_iter().chain(members).collect())
        }
        _ => None,
    }
}

/// What is called `name` in the directory `inode`.
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
        || children(listing, inode)?.into_iter().find(|(child, _)| child.as_bytes() == name).map(|(_, child)| child);
    at_home.or(found).or_else(few)
}

/// What the link `inode` holds.
pub fn target(listing: &Listing, inode: Inode) -> Option<String> {
    match inode {
        Inode::Link(number) => listing.numbered(number).map(link_target),
        Inode::Latest(number) => listing.numbered(number).map(latest_target),
        Inode::Near(number) => listing.numbered(number).map(near_target),
        Inode::Beside(number) => listing.numbered(number).map(|shown| shown.name.clone()),
        _ => None,
    }
}

/// The attributes of `inode`; `None` if it is not there any more.
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
                children(listing, inode)?.iter().filter(|(_, child)| kind(*child) == Type::Directory).count();
            Some(Attr::of_synthetic_directory(number, directories, owner, listing.changed))
        }
    }
}

/// The directory that holds `inode`; `None` if it is none of the mount's own directories.
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

/// The beginning of a snapshot's id, as people know it.
fn short_id(shown: &Shown) -> String {
    shown.snapshot.id.to_hex().chars().take(8).collect()
}

/// The directory that `shown` is.
fn root_of(shown: &Shown) -> Inode {
    Inode::Directory { snapshot: shown.number, path: ROOT_PATH }
}

fn members<'a>(listing: &'a Listing, group: &'a Group) -> impl Iterator<Item = (Cow<'a, str>, Inode)> {
    let shown = group.members.iter().filter_map(|position| listing.snapshots.get(*position));
    shown.map(|shown| (Cow::from(shown.name.as_str()), Inode::Link(shown.number)))
}
