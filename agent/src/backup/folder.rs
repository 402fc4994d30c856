//! Directories of the source, held by descriptors.
//!
//! A [`Folder`] is one directory on the way from the root to the current place of the backup. It knows its parent, its
//! name there and, usually, an open descriptor. Everything inside is reached relative to that descriptor. So paths may
//! be longer than system calls allow, and nobody can divert the backup by replacing a directory with a link.
//!
//! Descriptors are few and trees are deep, so a folder may release its descriptor and get it back later: from below by
//! `..`, or from above by name. Both ways check that it is the same directory as before. A tree that is reshuffled
//! meanwhile causes an error, but never puts entries of one directory under the name of another.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::Mode;

use bygone_core::lock::lock;

use crate::backup::stat::Stat;

/// A directory of the source.
#[derive(Debug)]
pub(super) struct Folder {
    /// `None` for the root of the file system.
    parent: Option<Arc<Folder>>,
    name: Box<[u8]>,
    follow: Follow,
    device: u64,
    inode: u64,
    fd: Mutex<Option<Arc<OwnedFd>>>,
}

/// Whether to follow a symbolic link in the place of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// On the way to a path that the user named with this link.
    Yes,
    /// Everywhere else.
    No,
}

impl Folder {
    /// The root of the file system.
    pub(super) fn root() -> Result<(Arc<Folder>, Stat), Errno> {
        Folder::opened(None, b"/", Follow::No, open_directory(AT_FDCWD, b"/", Follow::No)?)
    }

    /// The directory `name` in `parent`, whose descriptor is `parent_fd`.
    pub(super) fn open(
        parent: &Arc<Folder>,
        parent_fd: &OwnedFd,
        name: &[u8],
        follow: Follow,
    ) -> Result<(Arc<Folder>, Stat), Errno> {
        let fd = open_directory(parent_fd.as_fd(), name, follow)?;
        Folder::opened(Some(parent.clone()), name, follow, fd)
    }

    fn opened(
        parent: Option<Arc<Folder>>,
        name: &[u8],
        follow: Follow,
        fd: OwnedFd,
    ) -> Result<(Arc<Folder>, Stat), Errno> {
        let stat = Stat::of_fd(fd.as_fd())?;
        let (device, inode) = (stat.device, stat.inode);
        let fd = Mutex::new(Some(Arc::new(fd)));
        Ok((Arc::new(Folder { parent, name: name.into(), follow, device, inode, fd }), stat))
    }

    /// The file system that holds it.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// The descriptor, if it is open.
    pub(super) fn open_fd(&self) -> Option<Arc<OwnedFd>> {
        self.lock().clone()
    }

    /// The descriptor, reopened from above if necessary. A reopened one stays open only as long as the caller holds it.
    pub(super) fn fd(&self) -> Result<Arc<OwnedFd>, Errno> {
        let mut closed = Vec::new();
        let mut at = self;
        let mut fd = loop {
            if let Some(fd) = at.open_fd() {
                break fd;
            }
            closed.push(at);
            match &at.parent {
                Some(parent) => at = parent,
                None => break Arc::new(open_directory(AT_FDCWD, b"/", Follow::No)?),
            }
        };
        while let Some(folder) = closed.pop() {
            if folder.parent.is_some() {
                fd = Arc::new(open_directory(fd.as_fd(), &folder.name, folder.follow)?);
            }
            if closed.is_empty() {
                folder.check(&fd)?;
            }
        }
        Ok(fd)
    }

    /// Releases the descriptor. Other holders keep it open.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Gets a released descriptor back: from `child`, a directory that was opened in this one, or by name.
    pub(super) fn hold(&self, child: &Folder) -> Result<(), Errno> {
        if self.lock().is_some() {
            return Ok(());
        }
        let from_below = match child.open_fd() {
            Some(below) if child.follow == Follow::No => {
                open_directory(below.as_fd(), b"..", Follow::No).and_then(|fd| self.check(&fd).map(|()| Arc::new(fd)))
            }
            _ => Err(Errno::ESTALE),
        };
        let fd = from_below.or_else(|_| self.fd())?;
        *self.lock() = Some(fd);
        Ok(())
    }

    fn check(&self, fd: &OwnedFd) -> Result<(), Errno> {
        let stat = Stat::of_fd(fd.as_fd())?;
        if (stat.device, stat.inode) == (self.device, self.inode) { Ok(()) } else { Err(Errno::ESTALE) }
    }

    /// The absolute path of this directory in raw bytes, or of `name` in it unless that is empty.
    pub(super) fn path(&self, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(&at.name);
            at = parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev().filter(|name| !name.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() { b"/".to_vec() } else { path }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        lock(&self.fd)
    }
}

/// Dropping a chain of ten thousand parents recursively would overflow the stack.
impl Drop for Folder {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut folder) = next.and_then(Arc::into_inner) {
            next = folder.parent.take();
        }
    }
}

/// Opens a directory for listing. On the way to a requested path, permission to pass through is enough.
fn open_directory(parent: BorrowedFd<'_>, name: &[u8], follow: Follow) -> Result<OwnedFd, Errno> {
    let plain = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match follow {
        Follow::No => open_quietly(parent, name, plain | OFlag::O_NOFOLLOW),
        Follow::Yes => open_quietly(parent, name, plain).or_else(|errno| match errno {
            Errno::EACCES => openat(parent, name, plain | OFlag::O_PATH, Mode::empty()),
            errno => Err(errno),
        }),
    }
}

/// Opens without changing the access time if allowed, that is, for the owner and for root.
pub(super) fn open_quietly(parent: BorrowedFd<'_>, name: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    match openat(parent, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => openat(parent, name, flags, Mode::empty()),
        other => other,
    }
}
