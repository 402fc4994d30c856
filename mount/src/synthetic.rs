//! The mount's own directories and links, as a pure function of the list of snapshots.

use crate::attr::Attr;
use crate::attr::Type;
use crate::inode::Inode;
use crate::inode::ROOT_PATH;
use crate::listing::Group;
use crate::listing::Listing;
use crate::listing::Shown;
use crate::listing::latest_target;
use crate::listing::link_target;

/// Name of the link to the newest snapshot.
pub const LATEST: &str = "latest";
/// The directories of the root, in order.
pub const TOP: [(&str, Inode); 3] = [("snapshots", Inode::Snapshots), ("hosts", Inode::Hosts), ("tags", Inode::Tags)];

/// What `inode` is.
pub fn kind(inode: Inode) -> Type {
    match inode {
        Inode::Link(_) | Inode::Latest(_) => Type::Symlink,
        _ => Type::Directory,
    }
}

/// All that is in the directory `inode`, in an order that a new snapshot only appends to; `None` if it is none of the
/// mount's own directories.
pub fn children(listing: &Listing, inode: Inode) -> Option<Vec<(&str, Inode)>> {
    match inode {
        Inode::Root => {
            let latest = listing.latest().map(|shown| (LATEST, Inode::Latest(shown.number)));
            Some(TOP.into_iter().chain(latest).collect())
        }
        Inode::Snapshots => Some(listing.snapshots.iter().map(|shown| (shown.name.as_str(), root_of(shown))).collect()),
        Inode::Hosts | Inode::Tags => {
            Some(listing.groups(inode).iter().map(|group| (group.name.as_str(), group.inode)).collect())
        }
        Inode::Host(_) | Inode::Tag(_) => Some(members(listing, listing.group(inode)?).collect()),
        Inode::Link(_) | Inode::Latest(_) | Inode::Directory { .. } | Inode::File(_) => None,
    }
}

/// What is called `name` in the directory `inode`.
pub fn find(listing: &Listing, inode: Inode, name: &[u8]) -> Option<Inode> {
    match inode {
        Inode::Snapshots => listing.named(name).map(|(_, shown)| root_of(shown)),
        Inode::Host(_) | Inode::Tag(_) => {
            let (position, shown) = listing.named(name)?;
            let members = &listing.group(inode)?.members;
            members.binary_search(&position).is_ok().then_some(Inode::Link(shown.number))
        }
        _ => children(listing, inode)?.into_iter().find(|(child, _)| child.as_bytes() == name).map(|(_, child)| child),
    }
}

/// What the link `inode` holds.
pub fn target(listing: &Listing, inode: Inode) -> Option<String> {
    match inode {
        Inode::Link(number) => listing.numbered(number).map(link_target),
        Inode::Latest(number) => listing.numbered(number).map(latest_target),
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
        Inode::Latest(snapshot) => link(listing.numbered(snapshot)?, 1),
        _ => {
            let directories =
                children(listing, inode)?.iter().filter(|(_, child)| kind(*child) == Type::Directory).count();
            Some(Attr::of_synthetic_directory(number, directories, owner, listing.changed))
        }
    }
}

/// The directory that `shown` is.
fn root_of(shown: &Shown) -> Inode {
    Inode::Directory { snapshot: shown.number, path: ROOT_PATH }
}

fn members<'a>(listing: &'a Listing, group: &'a Group) -> impl Iterator<Item = (&'a str, Inode)> {
    let shown = group.members.iter().filter_map(|position| listing.snapshots.get(*position));
    shown.map(|shown| (shown.name.as_str(), Inode::Link(shown.number)))
}
