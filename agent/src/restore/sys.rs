//! System calls on one inode that a descriptor already holds: extended attributes, times, mode, owner, flags.
//!
//! A file or directory is held by an ordinary descriptor. Everything else (symbolic links, pipes, sockets, devices)
//! must not be opened, so it is held by an `O_PATH` descriptor. For those, Linux has calls with an empty path and,
//! where these are missing, the magic link `/proc/self/fd/N`. Neither looks up a name in the target.

use std::ffi::CStr;
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::FchmodatFlags;
use nix::sys::stat::Mode;
use nix::sys::stat::fchmod;
use nix::sys::stat::fchmodat;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::fchown;
use nix::unistd::fchownat;

use bygone_core::entry::Time;

/// The descriptor that holds an inode.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handle<'a> {
    /// A descriptor that is open for reading or writing.
    Open(BorrowedFd<'a>),
    /// A descriptor opened with `O_PATH`.
    Located(BorrowedFd<'a>),
}

impl Handle<'_> {
    fn raw(self) -> i32 {
        match self {
            Handle::Open(fd) | Handle::Located(fd) => fd.as_raw_fd(),
        }
    }

    /// The magic link of a located inode. Following it leads to the inode itself, even if that is a symbolic link.
    fn magic_link(self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.raw())).unwrap_or_default()
    }
}

/// Sets owner and group; `None` leaves either as it is.
pub(super) fn set_owner(handle: Handle<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    match handle {
        Handle::Open(fd) => Ok(fchown(fd, uid, gid)?),
        Handle::Located(fd) => Ok(fchownat(fd, c"", uid, gid, AtFlags::AT_EMPTY_PATH)?),
    }
}

/// Sets the permission bits. Not for symbolic links, which have none on Linux.
pub(super) fn set_mode(handle: Handle<'_>, mode: u16) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(mode.into());
    match handle {
        Handle::Open(fd) => Ok(fchmod(fd, mode)?),
        Handle::Located(fd) => Ok(fchmodat(fd, handle.magic_link().as_c_str(), mode, FchmodatFlags::FollowSymlink)?),
    }
}

/// Sets the modification time; the access time stays.
#[allow(unsafe_code)]
pub(super) fn set_mtime(handle: Handle<'_>, mtime: Time) -> io::Result<()> {
    let access = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    let change = libc::timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    let times = [access, change];
    match handle {
        // SAFETY: the descriptor is borrowed, `times` is an array of two that outlives the call.
        Handle::Open(fd) => check(unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) }),
        Handle::Located(fd) => {
            // SAFETY: as above; the path is a constant with its NUL.
            let code = unsafe { libc::utimensat(fd.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) };
            match check(code) {
                // Kernels before 5.8 do not support an empty path here.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    let link = handle.magic_link();
                    // SAFETY: as above; `link` outlives the call.
                    check(unsafe { libc::utimensat(libc::AT_FDCWD, link.as_ptr(), times.as_ptr(), 0) })
                }
                done => done,
            }
        }
    }
}

/// Sets one extended attribute.
#[allow(unsafe_code)]
pub(super) fn set_xattr(handle: Handle<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    let (bytes, length) = (value.as_ptr().cast(), value.len());
    match handle {
        // SAFETY: the descriptor is borrowed; name and value outlive the call and the length is the value's.
        Handle::Open(fd) => check(unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), bytes, length, 0) }),
        Handle::Located(_) => {
            let link = handle.magic_link();
            // SAFETY: as above; `link` outlives the call.
            check(unsafe { libc::setxattr(link.as_ptr(), name.as_ptr(), bytes, length, 0) })
        }
    }
}

/// True if the inode has this extended attribute with this value.
#[allow(unsafe_code)]
pub(super) fn has_xattr(handle: Handle<'_>, name: &[u8], value: &[u8]) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // One byte more than expected, so that a longer value differs.
    let mut found = vec![0u8; value.len() + 1];
    let (room, length) = (found.as_mut_ptr().cast(), found.len());
    let size = match handle {
        // SAFETY: the descriptor is borrowed, the name outlives the call, `room` is writable for `length` bytes.
        Handle::Open(fd) => unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), room, length) },
        Handle::Located(_) => {
            let link = handle.magic_link();
            // SAFETY: as above; `link` outlives the call.
            unsafe { libc::getxattr(link.as_ptr(), name.as_ptr(), room, length) }
        }
    };
    usize::try_from(size).is_ok_and(|size| found.get(..size) == Some(value))
}

/// Removes one extended attribute; a missing one is no error.
#[allow(unsafe_code)]
pub(super) fn remove_xattr(handle: Handle<'_>, name: &CStr) -> io::Result<()> {
    let code = match handle {
        // SAFETY: the descriptor is borrowed, the name outlives the call.
        Handle::Open(fd) => unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) },
        Handle::Located(_) => {
            let link = handle.magic_link();
            // SAFETY: as above; `link` outlives the call.
            unsafe { libc::removexattr(link.as_ptr(), name.as_ptr()) }
        }
    };
    match check(code) {
        Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
        done => done,
    }
}

/// Size of an extended attribute's value; `None` if there is no such attribute or the file system has none at all.
#[allow(unsafe_code)]
pub(super) fn xattr_bytes(fd: BorrowedFd<'_>, name: &CStr) -> Option<usize> {
    // SAFETY: the descriptor is borrowed, the name outlives the call, and size 0 asks for the length only.
    let size = unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) };
    usize::try_from(size).ok()
}

/// Names of all extended attributes.
#[allow(unsafe_code)]
pub(super) fn xattr_names(handle: Handle<'_>) -> io::Result<Vec<CString>> {
    // Linux returns at most XATTR_LIST_MAX bytes, so this room is always enough.
    let mut list = vec![0u8; 64 << 10];
    let (room, length) = (list.as_mut_ptr().cast(), list.len());
    let size = match handle {
        // SAFETY: the descriptor is borrowed; `room` is writable for `length` bytes.
        Handle::Open(fd) => unsafe { libc::flistxattr(fd.as_raw_fd(), room, length) },
        Handle::Located(_) => {
            let link = handle.magic_link();
            // SAFETY: as above; `link` outlives the call.
            unsafe { libc::listxattr(link.as_ptr(), room, length) }
        }
    };
    match usize::try_from(size) {
        Ok(size) => {
            list.truncate(size);
            let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(names.filter_map(|name| CString::new(name).ok()).collect())
        }
        Err(_) => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(Vec::new()) } else { Err(error) }
        }
    }
}

/// The inode flags of an open file or directory.
#[allow(unsafe_code)]
pub(super) fn flags(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // The kernel writes an `int`, although the call is declared with a `long`: room for both, and the first half
    // counts.
    let mut value = [0u32; 2];
    // SAFETY: the descriptor is borrowed; `value` has room for a `long`.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, value.as_mut_ptr()) })?;
    Ok(value[0])
}

/// Sets the inode flags of an open file or directory.
#[allow(unsafe_code)]
pub(super) fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    let value = [flags, 0];
    // SAFETY: the descriptor is borrowed; `value` has room for a `long`.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS, value.as_ptr()) })
}

fn check(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
