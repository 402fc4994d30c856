//! Finding things beneath an open directory, one segment at a time, without following any link.
//!
//! Absence is an answer here (`None`); anything that is neither a file nor a directory is an error. A file in the place
//! of a directory, or the other way round, counts as absence: no object has that name.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstatat;

/// The segments of a path, none for the empty one.
pub(super) fn segments(name: &str) -> impl Iterator<Item = &str> {
    name.split('/').filter(|segment| !segment.is_empty())
}

/// The directory `segment` of `at`, or `None` if there is none.
pub(super) fn open_directory(at: BorrowedFd<'_>, segment: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match uninterrupted(|| openat(at, segment, flags, Mode::empty())) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::ENOENT) => Ok(None),
        Err(Errno::ENOTDIR | Errno::ELOOP) => match stat(at, segment)?.as_ref().map(kind) {
            None | Some(SFlag::S_IFREG) => Ok(None),
            _ => Err(not_an_object()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The file `leaf` of `at`, or `None` if there is none. Never waits for a device or a fifo.
pub(super) fn open_object(at: BorrowedFd<'_>, leaf: &str) -> io::Result<Option<File>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = match uninterrupted(|| openat(at, leaf, flags, Mode::empty())) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ELOOP | Errno::ENXIO) => return Err(not_an_object()),
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?.file_type();
    if found.is_dir() {
        return Ok(None);
    }
    if found.is_file() { Ok(Some(file)) } else { Err(not_an_object()) }
}

/// The metadata of `leaf` in `at`, or `None` if there is none.
pub(super) fn stat(at: BorrowedFd<'_>, leaf: &str) -> io::Result<Option<FileStat>> {
    match uninterrupted(|| fstatat(at, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// File, directory, or something else.
pub(super) fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

/// The error for something that is neither file nor directory.
pub(super) fn not_an_object() -> io::Error {
    let cause = "it is a symbolic link or a special file, which does not belong in a store: move it away";
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

/// Repeats the call when a signal interrupts it, as the standard library does for its own calls.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}
