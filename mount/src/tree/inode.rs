//! Inode numbers that carry their whole meaning, so that the mount keeps no table of inodes.
//!
//! The kernel names everything by a 64-bit number, which it may present at any later time: after its caches were
//! dropped, through a file handle of NFS, after a remount. So numbers are computed and never assigned:
//!
//! ```text
//! bit 63      0, because some programs keep inode numbers in signed integers
//! bit 62      1: a directory inside a snapshot: 24 bits number of the snapshot, 38 bits number of the path
//! bit 61      1 (and bit 62 0): a file version: 61 bits
//! bit 60      1: the versions of one file: 28 bits number of its directory's path, 32 bits key of its name
//! bit 59      1: a directory of changes: 2 bits change, 24 bits number of the snapshot, 33 bits number of the path
//! otherwise   < 2^40, the directories and links of the mount itself: 4 bits tag, 36 bits payload
//! ```
//!
//! The key of a name is its hash. If two names of one directory have the same hash, the later one takes the next
//! number.
//!
//! A file version keeps its row for ever. So an unchanged file is one inode in all snapshots, with one copy in the page
//! cache. Directories are not shared, because the kernel moves a directory that shows up in a second place.

use bygone_core::error::Error;
use bygone_core::error::Result;

/// Number of the mount's root directory, fixed by FUSE.
pub const ROOT: u64 = 1;
/// Number of `snapshots/`.
pub const SNAPSHOTS: u64 = 2;
/// Number of `hosts/`.
pub const HOSTS: u64 = 3;
/// Number of `tags/`.
pub const TAGS: u64 = 4;

/// Number of `at/`.
pub const AT: u64 = 5;
/// Number of `changes/`.
pub const CHANGES: u64 = 6;
/// Number of `ids/`.
pub const IDS: u64 = 7;
/// Number of `.zfs/`.
pub const ZFS: u64 = 8;
/// Number of `.zfs/snapshot/`.
pub const ZFS_SNAPSHOTS: u64 = 9;

/// Number of the path of a snapshot's root directory.
pub const ROOT_PATH: u64 = 1;

const DIRECTORY_BIT: u64 = 1 << 62;
const FILE_BIT: u64 = 1 << 61;
const NAME_BIT: u64 = 1 << 60;
const CHANGED_BIT: u64 = 1 << 59;
const KEY_BITS: u32 = 32;
const NAMED_PATH_BITS: u32 = 28;
const CHANGED_PATH_BITS: u32 = 33;
const CHANGE_SHIFT: u32 = 57;
const SNAPSHOT_BITS: u32 = 24;
const PATH_BITS: u32 = 38;
const TAG_SHIFT: u32 = 36;
const PATH: &str = "the number of a directory's path";
/// The largest payload below a tag.
pub const PAYLOAD_MAX: u64 = (1 << TAG_SHIFT) - 1;

const TAG_FIXED: u64 = 0;
const TAG_HOST: u64 = 1;
const TAG_TAG: u64 = 2;
const TAG_LINK: u64 = 3;
const TAG_LATEST: u64 = 4;
const TAG_VERSIONS: u64 = 5;
const TAG_DELETED: u64 = 6;
const TAG_CHANGES: u64 = 7;
const TAG_NEAR: u64 = 8;
const TAG_BESIDE: u64 = 9;

/// The kind of change that a directory of changes shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Entries that are new.
    Added = 0,
    /// Entries that differ.
    Modified = 1,
    /// Entries that are gone.
    Deleted = 2,
}

/// The meaning of an inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inode {
    /// The mount's root directory.
    Root,
    /// `snapshots/`.
    Snapshots,
    /// `hosts/`.
    Hosts,
    /// `tags/`.
    Tags,
    /// `hosts/<host>/`, by the host's key.
    Host(u64),
    /// `tags/<tag>/`, by the tag's key.
    Tag(u64),
    /// The symbolic link in `hosts/<host>/` and `tags/<tag>/` to a snapshot: one inode with several names.
    Link(u64),
    /// The symbolic link `latest` while it leads to this snapshot. It gets another number when it leads elsewhere, so
    /// that no cached target becomes wrong.
    Latest(u64),
    /// The symbolic link from a directory just below the root, such as `at/`, to a snapshot.
    Near(u64),
    /// The symbolic link to a snapshot from the directory that holds the snapshots.
    Beside(u64),
    /// `at/`.
    At,
    /// `changes/`.
    Changes,
    /// `ids/`.
    Ids,
    /// `.zfs/`.
    Zfs,
    /// `.zfs/snapshot/`.
    ZfsSnapshots,
    /// `versions/` and each directory in it, by the number of its path.
    Versions(u64),
    /// The versions of one file.
    VersionsOf {
        /// The number of its directory's path.
        path: u64,
        /// The key of its name.
        key: u64,
    },
    /// `deleted/` and each directory in it, by the number of its path.
    Deleted(u64),
    /// `changes/<snapshot>/`.
    ChangesOf(u64),
    /// A directory below `changes/<snapshot>/`.
    Changed {
        /// The kind of change that it shows.
        change: Change,
        /// The snapshot's number in the catalog.
        snapshot: u64,
        /// The path's number in the catalog.
        path: u64,
    },
    /// A directory inside a snapshot.
    Directory {
        /// The snapshot's number in the catalog.
        snapshot: u64,
        /// The path's number in the catalog.
        path: u64,
    },
    /// A version of a file, symbolic link, device, pipe or socket.
    File(u64),
}

impl Inode {
    /// The meaning of `number`; `None` if it never was a number of this mount.
    pub fn decode(number: u64) -> Option<Inode> {
        if number >> 63 != 0 {
            return None;
        }
        if number & DIRECTORY_BIT != 0 {
            let snapshot = (number & !DIRECTORY_BIT) >> PATH_BITS;
            let path = number & ((1 << PATH_BITS) - 1);
            return (path >= ROOT_PATH).then_some(Inode::Directory { snapshot, path });
        }
        if number & FILE_BIT != 0 {
            return Some(Inode::File(number & !FILE_BIT));
        }
        if number & NAME_BIT != 0 {
            let (path, key) = ((number & !NAME_BIT) >> KEY_BITS, number & ((1 << KEY_BITS) - 1));
            return (path >= ROOT_PATH).then_some(Inode::VersionsOf { path, key });
        }
        if number & CHANGED_BIT != 0 {
            let change = match number >> CHANGE_SHIFT & 3 {
                0 => Change::Added,
                1 => Change::Modified,
                2 => Change::Deleted,
                _ => return None,
            };
            let snapshot = number >> CHANGED_PATH_BITS & ((1 << SNAPSHOT_BITS) - 1);
            let path = number & ((1 << CHANGED_PATH_BITS) - 1);
            return (path >= ROOT_PATH).then_some(Inode::Changed { change, snapshot, path });
        }
        let payload = number & PAYLOAD_MAX;
        let snapshot = || Some(payload).filter(|number| number >> SNAPSHOT_BITS == 0);
        match (number >> TAG_SHIFT, payload) {
            (TAG_FIXED, ROOT) => Some(Inode::Root),
            (TAG_FIXED, SNAPSHOTS) => Some(Inode::Snapshots),
            (TAG_FIXED, HOSTS) => Some(Inode::Hosts),
            (TAG_FIXED, TAGS) => Some(Inode::Tags),
            (TAG_FIXED, AT) => Some(Inode::At),
            (TAG_FIXED, CHANGES) => Some(Inode::Changes),
            (TAG_FIXED, IDS) => Some(Inode::Ids),
            (TAG_FIXED, ZFS) => Some(Inode::Zfs),
            (TAG_FIXED, ZFS_SNAPSHOTS) => Some(Inode::ZfsSnapshots),
            (TAG_VERSIONS, ROOT_PATH..) => Some(Inode::Versions(payload)),
            (TAG_DELETED, ROOT_PATH..) => Some(Inode::Deleted(payload)),
            (TAG_CHANGES, _) => snapshot().map(Inode::ChangesOf),
            (TAG_NEAR, _) => snapshot().map(Inode::Near),
            (TAG_BESIDE, _) => snapshot().map(Inode::Beside),
            (TAG_HOST, key) => Some(Inode::Host(key)),
            (TAG_TAG, key) => Some(Inode::Tag(key)),
            (TAG_LINK, _) => snapshot().map(Inode::Link),
            (TAG_LATEST, _) => snapshot().map(Inode::Latest),
            _ => None,
        }
    }

    /// The number, or an error that names the limit which a part of it exceeds.
    pub fn number(self) -> Result<u64> {
        let tagged = |tag: u64, payload: u64| tag << TAG_SHIFT | payload;
        Ok(match self {
            Inode::Root => ROOT,
            Inode::Snapshots => SNAPSHOTS,
            Inode::Hosts => HOSTS,
            Inode::Tags => TAGS,
            Inode::At => AT,
            Inode::Changes => CHANGES,
            Inode::Ids => IDS,
            Inode::Zfs => ZFS,
            Inode::ZfsSnapshots => ZFS_SNAPSHOTS,
            Inode::Versions(path) => tagged(TAG_VERSIONS, within(PATH, path, TAG_SHIFT)?),
            Inode::Deleted(path) => tagged(TAG_DELETED, within(PATH, path, TAG_SHIFT)?),
            Inode::ChangesOf(snapshot) => tagged(TAG_CHANGES, snapshot_number(snapshot)?),
            Inode::Near(snapshot) => tagged(TAG_NEAR, snapshot_number(snapshot)?),
            Inode::Beside(snapshot) => tagged(TAG_BESIDE, snapshot_number(snapshot)?),
            Inode::VersionsOf { path, key } => {
                NAME_BIT
                    | within(PATH, path, NAMED_PATH_BITS)? << KEY_BITS
                    | within("the key of a name", key, KEY_BITS)?
            }
            Inode::Changed { change, snapshot, path } => {
                CHANGED_BIT
                    | (change as u64) << CHANGE_SHIFT
                    | snapshot_number(snapshot)? << CHANGED_PATH_BITS
                    | within(PATH, path, CHANGED_PATH_BITS)?
            }
            Inode::Host(key) => tagged(TAG_HOST, within("the key of a host", key, TAG_SHIFT)?),
            Inode::Tag(key) => tagged(TAG_TAG, within("the key of a tag", key, TAG_SHIFT)?),
            Inode::Link(snapshot) => tagged(TAG_LINK, snapshot_number(snapshot)?),
            Inode::Latest(snapshot) => tagged(TAG_LATEST, snapshot_number(snapshot)?),
            Inode::Directory { snapshot, path } => {
                DIRECTORY_BIT | snapshot_number(snapshot)? << PATH_BITS | within(PATH, path, PATH_BITS)?
            }
            Inode::File(version) => FILE_BIT | within("the number of a file version", version, 61)?,
        })
    }
}

/// The number of a snapshot, or an error if it does not fit into an inode number.
pub fn snapshot_number(snapshot: u64) -> Result<u64> {
    within("the number of a snapshot", snapshot, SNAPSHOT_BITS)
}

fn within(what: &'static str, found: u64, bits: u32) -> Result<u64> {
    let max = (1 << bits) - 1;
    if found <= max { Ok(found) } else { Err(Error::Limit { what, found, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![Just(Change::Added), Just(Change::Modified), Just(Change::Deleted)]
    }

    fn any_inode() -> impl Strategy<Value = Inode> {
        let snapshot = || 0..1u64 << SNAPSHOT_BITS;
        prop_oneof![
            Just(Inode::Root),
            Just(Inode::Snapshots),
            Just(Inode::Hosts),
            Just(Inode::Tags),
            Just(Inode::At),
            Just(Inode::Changes),
            Just(Inode::Ids),
            Just(Inode::Zfs),
            Just(Inode::ZfsSnapshots),
            (ROOT_PATH..=PAYLOAD_MAX).prop_map(Inode::Versions),
            (ROOT_PATH..=PAYLOAD_MAX).prop_map(Inode::Deleted),
            snapshot().prop_map(Inode::ChangesOf),
            snapshot().prop_map(Inode::Near),
            snapshot().prop_map(Inode::Beside),
            (ROOT_PATH..1 << NAMED_PATH_BITS, 0..1u64 << KEY_BITS)
                .prop_map(|(path, key)| Inode::VersionsOf { path, key }),
            (any_change(), snapshot(), ROOT_PATH..1 << CHANGED_PATH_BITS)
                .prop_map(|(change, snapshot, path)| Inode::Changed { change, snapshot, path }),
            (0..=PAYLOAD_MAX).prop_map(Inode::Host),
            (0..=PAYLOAD_MAX).prop_map(Inode::Tag),
            snapshot().prop_map(Inode::Link),
            snapshot().prop_map(Inode::Latest),
            (snapshot(), ROOT_PATH..1 << PATH_BITS).prop_map(|(snapshot, path)| Inode::Directory { snapshot, path }),
            (0..1u64 << 61).prop_map(Inode::File),
        ]
    }

    proptest! {
        #[test]
        fn numbers_decode_to_what_they_encode(inode in any_inode()) {
            let number = inode.number().unwrap();
            prop_assert_eq!(Inode::decode(number), Some(inode));
            prop_assert!(number != 0 && number < 1 << 63, "0 means nothing to FUSE, 2^63 is negative to some programs");
        }

        #[test]
        fn decoded_numbers_encode_to_themselves(number: u64) {
            if let Some(inode) = Inode::decode(number) {
                prop_assert_eq!(inode.number().unwrap(), number);
            }
        }

        #[test]
        fn two_inodes_never_share_a_number(one in any_inode(), two in any_inode()) {
            prop_assert_eq!(one == two, one.number().unwrap() == two.number().unwrap());
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        for inode in [
            Inode::Host(1 << 36),
            Inode::Link(1 << 24),
            Inode::Latest(1 << 24),
            Inode::Directory { snapshot: 1 << 24, path: 1 },
            Inode::Directory { snapshot: 1, path: 1 << 38 },
            Inode::File(1 << 61),
            Inode::Versions(1 << 36),
            Inode::VersionsOf { path: 1 << 28, key: 0 },
            Inode::Changed { change: Change::Added, snapshot: 1, path: 1 << 33 },
        ] {
            assert!(matches!(inode.number(), Err(Error::Limit { .. })), "{inode:?}");
        }
        assert_eq!(Inode::decode(0), None, "0 is no inode");
        assert_eq!(Inode::decode(1 << 62 | 5 << 38), None, "paths are numbered from 1");
        assert_eq!(Inode::decode(u64::MAX), None, "the highest bit is never set");
    }
}
