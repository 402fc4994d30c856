//! A nameless file of the local store, which lets an object appear with all its bytes at once or never.
//!
//! 1. The bytes go into a file without a name (`O_TMPFILE`) and are synced. A killed process leaves nothing: the kernel
//!    frees a file that has neither name nor descriptor.
//! 2. A hard link gives it its name. Unlike a rename, a link never replaces anything, so two writers of one name cannot
//!    destroy each other's bytes.
//! 3. The caller syncs the directory.
//!
//! Filesystems that lack unnamed files (vfat, NFS, many FUSE ones) get a file `.tmp-<random>`, which no list shows; a
//! kill leaves it behind as waste. Those that lack hard links too (vfat) get a rename that refuses to replace.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::RenameFlags;
use nix::fcntl::copy_file_range;
use nix::fcntl::openat;
use nix::fcntl::renameat2;
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use nix::unistd::linkat;
use nix::unistd::unlinkat;

use crate::store::Source;
use crate::store::beneath::uninterrupted;
use crate::store::link::Pace;

/// Only the owner may read the files: their content is sealed, but it is nobody else's business.
pub(super) const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// A file in `directory` without its final name; dropping it removes it.
pub(super) struct Temporary<'d> {
    directory: BorrowedFd<'d>,
    file: File,
    /// Its temporary name, on filesystems without unnamed files.
    name: Option<String>,
}

impl<'d> Temporary<'d> {
    /// A file without a name, or `None` if this filesystem does not support that.
    pub(super) fn unnamed(directory: BorrowedFd<'d>) -> io::Result<Option<Temporary<'d>>> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        match uninterrupted(|| openat(directory, ".", flags, FILE_MODE)) {
            Ok(file) => Ok(Some(Temporary { directory, file: file.into(), name: None })),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A file with a temporary name that no object has.
    pub(super) fn named(directory: BorrowedFd<'d>) -> io::Result<Temporary<'d>> {
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!(".tmp-{random:016x}");
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = uninterrupted(|| openat(directory, name.as_str(), flags, FILE_MODE))?;
        Ok(Temporary { directory, file: file.into(), name: Some(name) })
    }

    /// Writes the whole object at this pace and waits until it is on disk.
    pub(super) fn fill(&mut self, source: Source<'_>, pace: &Pace) -> io::Result<()> {
        let mut at = 0;
        let mut buffer = Vec::new();
        while at < source.bytes() {
            let end = at + pace.grant(source.bytes() - at);
            if let Source::File { file, .. } = source {
                at = copy_in_kernel(file, &self.file, at, end);
            }
            buffer.resize(usize::try_from(end - at).map_err(|_| io::ErrorKind::OutOfMemory)?, 0);
            source.read_exact_at(&mut buffer, at)?;
            self.file.write_all(&buffer)?;
            at = end;
        }
        if self.file.metadata()?.len() != source.bytes() {
            return Err(io::Error::other("the filesystem did not keep all the bytes that were written"));
        }
        self.file.sync_all()
    }

    /// Gives the file its final name, if that is free.
    pub(super) fn publish(self, leaf: &str) -> io::Result<Published> {
        let linked = match &self.name {
            None => self.link_unnamed(leaf),
            Some(name) => match self.link_named(name, leaf) {
                Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => self.rename(name, leaf),
                other => other,
            },
        };
        match linked {
            Ok(()) => Ok(Published::New),
            Err(Errno::EEXIST) => Ok(Published::NameTaken),
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(Published::Unsupported),
            Err(error) => Err(error.into()),
        }
    }

    /// The link through /proc needs no privilege; without /proc, newer kernels allow the direct one.
    fn link_unnamed(&self, leaf: &str) -> nix::Result<()> {
        let open_file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = || linkat(AT_FDCWD, open_file.as_str(), self.directory, leaf, AtFlags::AT_SYMLINK_FOLLOW);
        match uninterrupted(link) {
            Err(Errno::ENOENT) => {
                uninterrupted(|| linkat(self.file.as_fd(), "", self.directory, leaf, AtFlags::AT_EMPTY_PATH))
            }
            other => other,
        }
    }

    fn link_named(&self, name: &str, leaf: &str) -> nix::Result<()> {
        uninterrupted(|| linkat(self.directory, name, self.directory, leaf, AtFlags::empty()))
    }

    fn rename(&self, name: &str, leaf: &str) -> nix::Result<()> {
        uninterrupted(|| renameat2(self.directory, name, self.directory, leaf, RenameFlags::RENAME_NOREPLACE))
    }
}

impl Drop for Temporary<'_> {
    /// After a link the object has two names, and after a failure the file has one too many; after a rename there is
    /// nothing to remove. If removing fails, some waste remains that no list shows.
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = unlinkat(self.directory, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The result of naming a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// The object was not there before and is now.
    New,
    /// The name was taken and still is.
    NameTaken,
    /// This filesystem cannot name files in this way.
    Unsupported,
}

/// Lets the kernel copy the bytes from `at` to `end` (some filesystems then share them and write nothing) and returns
/// how far it got. It does not distinguish trouble from inability: the ordinary copy that follows will meet the trouble
/// again.
fn copy_in_kernel(from: &File, to: &File, at: u64, end: u64) -> u64 {
    let mut at = at;
    while at < end {
        let Ok(mut offset) = i64::try_from(at) else { break };
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        match uninterrupted(|| copy_file_range(from, Some(&mut offset), to, None, left)) {
            Ok(0) | Err(_) => break,
            Ok(copied) => at += copied as u64,
        }
    }
    at
}
