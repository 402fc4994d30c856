//! The result of `stat`, in the widths of an entry.
//!
//! It comes from `statx`, which tells when the inode was made. Where a sandbox forbids that call, the older one serves.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::FileStat;
use nix::sys::stat::fstatat;
use nix::sys::stat::makedev;

use bygone_core::entry::FileType;
use bygone_core::entry::Time;

use crate::sys;

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
    /// When it was made, if the file system and the kernel tell.
    pub(super) birth: Option<Time>,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdev: u64,
}

impl Stat {
    /// Of an open descriptor.
    pub(super) fn of_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
        Stat::at(fd, c"", AtFlags::AT_EMPTY_PATH)
    }

    /// Of `name` in a directory, without following a symbolic link or triggering an automount.
    pub(super) fn of_child(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
        name.with_nix_path(|name| Stat::at(directory, name, flags))?
    }

    /// Of `name` in a directory, following symbolic links.
    pub(super) fn of_child_followed(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
        name.with_nix_path(|name| Stat::at(directory, name, AtFlags::empty()))?
    }

    fn at(directory: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Stat, Errno> {
        match sys::statx(directory, name, flags.bits()) {
            Ok(stat) => Ok(Stat::new(&stat)),
            // No file system refuses this to anyone, but filters of system calls that do not know it do.
            Err(Errno::ENOSYS | Errno::EPERM) => fstatat(directory, name, flags).map(|stat| Stat::without_birth(&stat)),
            Err(errno) => Err(errno),
        }
    }

    fn new(stat: &libc::statx) -> Stat {
        let time = |time: &libc::statx_timestamp| Time { secs: time.tv_sec, nanos: time.tv_nsec };
        Stat {
            mode: stat.stx_mode.into(),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            nlink: stat.stx_nlink,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            birth: (stat.stx_mask & libc::STATX_BTIME != 0).then(|| time(&stat.stx_btime)),
            device: makedev(stat.stx_dev_major.into(), stat.stx_dev_minor.into()),
            inode: stat.stx_ino,
            rdev: makedev(stat.stx_rdev_major.into(), stat.stx_rdev_minor.into()),
        }
    }

    /// The fields differ in type from one architecture to the next, so every one is converted.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn without_birth(stat: &FileStat) -> Stat {
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
            birth: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn both_calls_say_the_same_but_for_the_birth_time() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        File::create(folder.path().join("file")).unwrap().set_len(5_000).unwrap();
        for (place, name) in
            [(directory.as_fd(), &b"file"[..]), (directory.as_fd(), b"."), (directory.as_fd(), b"/dev/null")]
        {
            let stat = Stat::of_child(place, name).unwrap();
            let old = Stat::without_birth(&fstatat(place, name, AtFlags::empty()).unwrap());
            assert_eq!(Stat { birth: None, ..stat }, old);
        }
        let of_fd = Stat::of_fd(directory.as_fd()).unwrap();
        assert_eq!(of_fd, Stat::of_child_followed(directory.as_fd(), b".").unwrap());
        assert_eq!(Stat::of_child(directory.as_fd(), b"absent"), Err(Errno::ENOENT));
    }
}
