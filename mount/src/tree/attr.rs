//! The attributes of everything in the mount, in the terms of `stat`.
//!
//! Everything that a snapshot recorded is shown unchanged, to the nanosecond. Of what it did not record, the time of
//! last access is shown as that of the last change, and the size of a directory as 0. An entry that could not be read,
//! or that only a newer bygone can read, is shown as what it was. If even that is unknown, it is shown as a file.

use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Time;
use bygone_core::read::Access;

/// The read size that programs are advised to use. A larger one costs their CPU caches more than it saves in requests.
pub const READ_BYTES: u32 = 128 << 10;

/// Space is counted in units of this, as in all common file systems.
const SPACE_BYTES: u64 = 4_096;
/// The unit of `st_blocks`.
const SECTOR_BYTES: u64 = 512;

/// The attributes of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub number: u64,
    /// What it is.
    pub kind: FileType,
    /// The low 12 bits of `st_mode`.
    pub mode: u16,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device, as the kernel encodes it in 32 bits.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space in sectors of 512 bytes.
    pub sectors: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
}

impl Attr {
    /// The attributes of an entry that is not a directory.
    pub fn of_entry(number: u64, entry: &Entry) -> Attr {
        let (rdev, bytes) = match &entry.kind {
            Kind::File(content) => (0, content.allocated()),
            Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => (*rdev, 0),
            Kind::Directory(_)
            | Kind::Symlink(_)
            | Kind::Fifo
            | Kind::Socket
            | Kind::Unreadable { .. }
            | Kind::Newer { .. } => (0, 0),
        };
        // Linux's own device numbers have 32 bits, and their 64-bit form begins with those.
        let rdev = u32::try_from(rdev).unwrap_or(0);
        let attr =
            Attr { kind: type_of(entry), rdev, sectors: sectors(bytes), ..Attr::of_directory(number, &entry.meta) };
        // The kernel reads nothing of an empty file, so it would not notice that it cannot be read.
        let is_withheld_file = attr.kind == FileType::File && entry.withheld().is_some();
        Attr { size: if is_withheld_file { attr.size.max(1) } else { attr.size }, ..attr }
    }

    /// The attributes of a directory inside a snapshot.
    pub fn of_directory(number: u64, meta: &Meta) -> Attr {
        Attr {
            number,
            kind: FileType::Directory,
            mode: meta.mode & 0o7777,
            nlink: meta.nlink.max(1),
            uid: meta.owner.uid,
            gid: meta.owner.gid,
            rdev: 0,
            size: meta.size,
            sectors: 0,
            mtime: meta.mtime,
            ctime: meta.ctime,
        }
    }

    /// The attributes of a directory of the mount itself.
    pub fn of_synthetic_directory(number: u64, subdirectories: usize, owner: (u32, u32), changed: Time) -> Attr {
        let nlink = u32::try_from(subdirectories).unwrap_or(u32::MAX).saturating_add(2);
        Attr {
            number,
            kind: FileType::Directory,
            mode: 0o555,
            nlink,
            uid: owner.0,
            gid: owner.1,
            rdev: 0,
            size: 0,
            sectors: 0,
            mtime: changed,
            ctime: changed,
        }
    }

    /// The attributes of a derived directory. Its link count is 1, which means that subdirectories were not counted.
    pub fn of_derived_directory(number: u64, access: Option<Access>, owner: (u32, u32), changed: Time) -> Attr {
        let mode = access.map_or(0o555, |access| access.mode);
        let owner = access.and_then(|access| access.owner).unwrap_or(owner);
        Attr { mode, nlink: 1, ..Attr::of_synthetic_directory(number, 0, owner, changed) }
    }

    /// The attributes of a symbolic link of the mount itself.
    pub fn of_synthetic_link(number: u64, target: &str, nlink: u32, owner: (u32, u32), changed: Time) -> Attr {
        let directory = Attr::of_synthetic_directory(number, 0, owner, changed);
        Attr { kind: FileType::Symlink, mode: 0o777, nlink, size: target.len() as u64, ..directory }
    }
}

/// The type that `entry` is shown with: a file, if nobody knows.
pub fn type_of(entry: &Entry) -> FileType {
    entry.file_type().unwrap_or(FileType::File)
}

fn sectors(bytes: u64) -> u64 {
    bytes.div_ceil(SPACE_BYTES).saturating_mul(SPACE_BYTES / SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entry;
    use bygone_core::entry::Content;
    use bygone_core::entry::Extent;
    use bygone_core::id::BlockId;
    use bygone_core::id::NodeId;

    fn attr(kind: Kind, size: u64) -> Attr {
        let mut entry = entry(b"name", kind);
        entry.meta.size = size;
        Attr::of_entry(9, &entry)
    }

    #[test]
    fn space_counts_whole_pages_and_no_holes() {
        let block = Extent::Block { id: BlockId([0; 32]), length: 5_000 };
        let hole = Extent::Hole { length: 1 << 30 };
        assert_eq!(attr(Kind::File(Content::Inline(vec![])), 0).sectors, 0);
        assert_eq!(attr(Kind::File(Content::Inline(vec![1])), 1).sectors, 8);
        let sparse = attr(Kind::File(Content::Extents(vec![block, hole])), (1 << 30) + 5_000);
        assert_eq!((sparse.size, sparse.sectors), ((1 << 30) + 5_000, 16));
        assert_eq!(
            attr(Kind::File(Content::List { root: NodeId([0; 32]), allocated: 5_000_000 }), 5_000_000).sectors,
            9_768
        );
    }

    #[test]
    fn what_could_not_be_read_has_its_type_and_is_never_empty() {
        let unreadable = |was, size| attr(Kind::Unreadable { errno: 5, was }, size);
        let file = unreadable(Some(FileType::File), 1_000);
        assert_eq!((file.kind, file.size, file.sectors), (FileType::File, 1_000, 0));
        assert_eq!(unreadable(Some(FileType::File), 0).size, 1);
        assert_eq!((unreadable(None, 0).kind, unreadable(None, 0).size), (FileType::File, 1));
        assert_eq!(
            (unreadable(Some(FileType::Symlink), 0).kind, unreadable(Some(FileType::Symlink), 0).size),
            (FileType::Symlink, 0)
        );
        assert_eq!(attr(Kind::Newer { code: 10, body: vec![] }, 0).kind, FileType::File);
    }

    #[test]
    fn devices_show_their_numbers() {
        assert_eq!(attr(Kind::CharDevice { rdev: 0x103 }, 0).rdev, 0x103);
        assert_eq!(attr(Kind::BlockDevice { rdev: 0x0010_0801 }, 0).rdev, 0x0010_0801);
        assert_eq!(attr(Kind::BlockDevice { rdev: 1 << 40 }, 0).rdev, 0, "no such device exists on Linux");
    }

    #[test]
    fn permission_bits_include_the_special_ones() {
        let mut one = entry(b"su", Kind::Fifo);
        one.meta.mode = 0o4755;
        assert_eq!(Attr::of_entry(9, &one).mode, 0o4755);
    }
}
