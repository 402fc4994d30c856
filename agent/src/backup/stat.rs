//! The result of `stat`, in the widths of an entry.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::FileStat;
use nix::sys::stat::fstat;
use nix::sys::stat::fstatat;

use bygone_core::entry::Time;

/// The result of `stat`, in the widths of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdev: u64,
}

/// The file types of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl Stat {
    /// Of an open descriptor.
    pub(super) fn of_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
        fstat(fd).map(|stat| Stat::new(&stat))
    }

    /// Of `name` in a directory, without following a symbolic link or triggering an automount.
    pub(super) fn of_child(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
        fstatat(directory, name, flags).map(|stat| Stat::new(&stat))
    }

    /// Of `name` in a directory, following symbolic links.
    pub(super) fn of_child_followed(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
        fstatat(directory, name, AtFlags::empty()).map(|stat| Stat::new(&stat))
    }

    /// The fields differ in type from one architecture to the next, so every one is converted.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn new(stat: &FileStat) -> Stat {
        let time = |secs, nanos| Time { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Stat {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            rdev: stat.st_rdev as u64,
        }
    }

    pub(super) fn file_type(&self) -> FileType {
        match self.mode & libc::S_IFMT {
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            _ => FileType::File,
        }
    }

    /// True if `later`, of the same file, shows no sign of a change.
    pub(super) fn same_state(&self, later: &Stat) -> bool {
        (self.size, self.mtime, self.ctime) == (later.size, later.mtime, later.ctime)
    }
}
