//! System calls that nix does not wrap. This and `restore/sys.rs`, which writes, are the only unsafe code of the agent.
//!
//! Each function makes one call with its buffer, and leaves all decisions to its caller. All of them report failure as an
//! [`Errno`], never by a panic.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc;

/// Reads directory entries as `struct linux_dirent64`s into `buffer`; returns 0 at the end of the directory.
pub fn directory_entries(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which is borrowed mutably for the call.
    #[allow(unsafe_code)]
    let got = unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
    Errno::result(got).map(|got| usize::try_from(got).unwrap_or(0))
}

/// The state of `name` in `directory`, or of `directory` itself with an empty name and `AT_EMPTY_PATH`.
pub fn statx(directory: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> Result<libc::statx, Errno> {
    let mut state = MaybeUninit::<libc::statx>::zeroed();
    let wanted = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the kernel reads `name`, which ends with a NUL by its type, and writes one `struct statx` into `state`.
    #[allow(unsafe_code)]
    let done = unsafe { libc::statx(directory.as_raw_fd(), name.as_ptr(), flags, wanted, state.as_mut_ptr()) };
    // SAFETY: all fields are integers, so zeros are as valid as what the kernel has written over them.
    #[allow(unsafe_code)]
    Errno::result(done).map(|_| unsafe { state.assume_init() })
}

/// The offset of the local time zone from UTC at a time in seconds since 1970, in seconds, positive in the east.
pub fn zone_offset(secs: i64) -> Option<i64> {
    let mut local = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: the C library reads the time and writes one `struct tm` into `local`; both live through the call.
    #[allow(unsafe_code)]
    let done = unsafe { libc::localtime_r(&raw const secs, local.as_mut_ptr()) };
    // SAFETY: its fields are integers and a pointer that is not followed, so zeros are as valid as what was written.
    #[allow(unsafe_code)]
    let local = unsafe { local.assume_init() };
    (!done.is_null()).then_some(local.tm_gmtoff)
}

/// Appends up to `most` bytes of the file from `offset` to `bytes`; returns 0 at the end of the file.
pub fn read_at(fd: BorrowedFd<'_>, offset: u64, bytes: &mut Vec<u8>, most: usize) -> Result<usize, Errno> {
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    bytes.reserve_exact(most);
    let room = bytes.spare_capacity_mut();
    let most = most.min(room.len());
    loop {
        // SAFETY: the kernel writes at most `most` bytes into `room`, which is that long and borrowed mutably.
        #[allow(unsafe_code)]
        let got = unsafe { libc::pread(fd.as_raw_fd(), room.as_mut_ptr().cast(), most, offset) };
        match Errno::result(got) {
            Ok(got) => {
                let got = usize::try_from(got).unwrap_or(0).min(most);
                let length = bytes.len() + got;
                // SAFETY: `length` is within the capacity, and the kernel has just written the last `got` bytes of it.
                #[allow(unsafe_code)]
                unsafe {
                    bytes.set_len(length);
                }
                return Ok(got);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Inode flags, as in `chattr`.
pub fn inode_flags(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // The request is declared with a long, but the kernel writes an unsigned int; the rest of the long stays 0.
    let mut flags: [u32; 2] = [0; 2];
    // SAFETY: the kernel writes 4 bytes (8 by the declaration) into `flags`, which has 8 and is borrowed mutably.
    #[allow(unsafe_code)]
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, flags.as_mut_ptr()) };
    Errno::result(done).map(|_| flags[0])
}

/// Sets the extended attribute `name`.
#[cfg(test)]
pub fn set_xattr(fd: BorrowedFd<'_>, name: &std::ffi::CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `value.len()` bytes of `value`; the name ends with a NUL by its type.
    #[allow(unsafe_code)]
    let set = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_read_stops_at_the_end_of_the_file_and_only_appends() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut bytes = b"x".to_vec();
        assert_eq!(read_at(file.as_fd(), 7, &mut bytes, 100), Ok(3));
        assert_eq!(bytes, b"x789");
        assert_eq!(read_at(file.as_fd(), 10, &mut bytes, 100), Ok(0), "the end of the file");
        assert_eq!(read_at(file.as_fd(), 0, &mut bytes, 0), Ok(0), "nothing was asked for");
        assert_eq!(bytes, b"x789");
    }

    #[test]
    fn calls_on_the_wrong_thing_give_an_errno() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(directory_entries(file.as_fd(), &mut [0; 256]), Err(Errno::ENOTDIR));
        let folder = File::open("/").unwrap();
        assert_eq!(read_at(folder.as_fd(), 0, &mut Vec::new(), 8), Err(Errno::EISDIR));
        assert_eq!(read_at(file.as_fd(), u64::MAX, &mut Vec::new(), 8), Err(Errno::EOVERFLOW));
    }
}
