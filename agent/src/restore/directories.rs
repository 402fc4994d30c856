//! Directories of the target, held by descriptors and never by paths.
//!
//! A [`Place`] is one open directory. [`Directories`] remembers every directory that a restore went through: its parent
//! and name, its inode, and the metadata that it gets once it is complete. A [`Trail`] is the chain of open directories
//! from the target down to the current one.
//!
//! A tree may be deeper than the limit of open descriptors, so a trail keeps only the target and its deepest
//! [`OPEN_MAX`] directories open. A closed one is reopened through `..` of its child, and accepted only if it is the
//! same inode as before. So moving a directory during a restore stops the restore, but cannot divert it.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::FchmodatFlags;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::fchmod;
use nix::sys::stat::fchmodat;
use nix::sys::stat::fstat;
use nix::sys::stat::mkdirat;

use bygone_core::entry::Meta;
use bygone_core::entry::Name;

use crate::restore::sys;
use crate::restore::sys::Handle;

/// Most directories that one trail keeps open, in addition to the target.
const OPEN_MAX: usize = 64;

/// Position of a directory in [`Directories`]; the target is [`ROOT`].
pub(super) type Index = u32;

/// An entry, identified by its path, or by its directory and name.
#[derive(Debug, Clone)]
pub(super) enum At {
    Path(Vec<u8>),
    Directory(Index),
    In(Index, Name),
}

/// The target directory itself.
pub(super) const ROOT: Index = 0;

/// The inode of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(stat: &FileStat) -> Identity {
        Identity { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// One open directory.
#[derive(Debug)]
pub(super) struct Place {
    fd: OwnedFd,
    pub(super) identity: Identity,
    /// Created by this restore, so it contains only what the restore puts there.
    pub(super) fresh: bool,
    /// It has a default ACL, so new entries in it get an ACL that must be removed first.
    pub(super) inherits: bool,
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Place {
    /// An open directory that existed before.
    pub(super) fn existing(fd: OwnedFd) -> io::Result<Place> {
        let identity = Identity::of(&fstat(&fd)?);
        let inherits = sys::xattr_bytes(fd.as_fd(), c"system.posix_acl_default").is_some_and(|bytes| bytes > 0);
        Ok(Place { fd, identity, fresh: false, inherits })
    }

    /// Opens the directory `name` in this one; fails if it is not a directory or is a symbolic link.
    pub(super) fn open(&self, name: &Name) -> io::Result<Place> {
        Place::existing(open_directory(self.as_fd(), name.as_bytes())?)
    }

    /// Creates the directory `name` in this one, accessible only to the owner until it is complete.
    pub(super) fn make(&self, name: &Name) -> io::Result<Place> {
        mkdirat(self, name.as_bytes(), Mode::S_IRWXU)?;
        let fd = match open_directory(self.as_fd(), name.as_bytes()) {
            // A default ACL or the umask can lock out even the owner.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fchmodat(self, name.as_bytes(), Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
                open_directory(self.as_fd(), name.as_bytes())?
            }
            opened => opened?,
        };
        Place::made(fd, self.inherits)
    }

    /// A directory that this restore has just created; `inherits`: it may have got ACLs from its parent.
    pub(super) fn made(fd: OwnedFd, inherits: bool) -> io::Result<Place> {
        if inherits {
            drop_inherited_acls(Handle::Open(fd.as_fd()));
        }
        let stat = fstat(&fd)?;
        if stat.st_mode & 0o7777 != 0o700 {
            fchmod(&fd, Mode::S_IRWXU)?;
        }
        Ok(Place { fd, identity: Identity::of(&stat), fresh: true, inherits: false })
    }
}

/// Removes the ACLs that a new entry got from its directory, because it gets its own, or none. If this fails, an ACL
/// too many remains; the next step sets the mode, which makes it as narrow as the mode.
pub(super) fn drop_inherited_acls(handle: Handle<'_>) {
    let _ = sys::remove_xattr(handle, c"system.posix_acl_default");
    let _ = sys::remove_xattr(handle, c"system.posix_acl_access");
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

struct Record {
    parent: Index,
    depth: u32,
    name: Option<Name>,
    identity: Identity,
    fresh: bool,
    meta: Option<Box<Meta>>,
}

/// Every directory that the restore went through, in the order of arrival: parents before children.
pub(super) struct Directories {
    records: Vec<Record>,
}

impl Directories {
    /// No directories, for a target that is not created.
    pub(super) fn none() -> Directories {
        Directories { records: Vec::new() }
    }

    /// Begins with the target; `made`: this restore created it.
    pub(super) fn new(root: &Place, made: bool, meta: Option<Box<Meta>>) -> Directories {
        let first = Record { parent: ROOT, depth: 0, name: None, identity: root.identity, fresh: made, meta };
        Directories { records: vec![first] }
    }

    /// Adds directory `name` of `parent`. It gets `meta` at the end; `None` leaves it as it is.
    pub(super) fn add(
        &mut self,
        parent: Index,
        name: Name,
        place: &Place,
        meta: Option<Box<Meta>>,
    ) -> io::Result<Index> {
        let index = Index::try_from(self.records.len()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let depth = self.record(parent)?.depth + 1;
        let (identity, fresh) = (place.identity, place.fresh);
        self.records.push(Record { parent, depth, name: Some(name), identity, fresh, meta });
        Ok(index)
    }

    /// Number of directories.
    pub(super) fn len(&self) -> Index {
        // `add` refuses a number that does not fit.
        Index::try_from(self.records.len()).unwrap_or(Index::MAX)
    }

    /// Takes the metadata that a directory still needs, and whether this restore created it. Returned only once.
    pub(super) fn take_meta(&mut self, index: Index) -> Option<(Box<Meta>, bool)> {
        let record = self.records.get_mut(index as usize)?;
        Some((record.meta.take()?, record.fresh))
    }

    /// Path of a directory below the target: a `/` before each name; empty for the target.
    pub(super) fn path(&self, index: Index) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = index;
        while let Some(record) = self.records.get(at as usize) {
            let Some(name) = &record.name else { break };
            names.push(name.as_bytes());
            at = record.parent;
        }
        names.iter().rev().flat_map(|name| [&b"/"[..], name]).flatten().copied().collect()
    }

    /// Path in the snapshot of the entry `at`; `prefix` is the path of what became the target.
    pub(super) fn path_of(&self, prefix: &[u8], at: &At) -> Vec<u8> {
        match at {
            At::Path(path) => path.clone(),
            At::Directory(ROOT) if prefix.is_empty() => b"/".to_vec(),
            At::Directory(index) => [prefix, &self.path(*index)].concat(),
            At::In(index, name) => [prefix, &self.path(*index), b"/", name.as_bytes()].concat(),
        }
    }

    /// One directory on each device other than the target's.
    pub(super) fn other_devices(&self) -> Vec<Index> {
        let mut devices: Vec<u64> = self.records.first().map(|root| root.identity.device).into_iter().collect();
        let mut found = Vec::new();
        for (index, record) in (0..).zip(&self.records) {
            if !devices.contains(&record.identity.device) {
                devices.push(record.identity.device);
                found.push(index);
            }
        }
        found
    }

    fn record(&self, index: Index) -> io::Result<&Record> {
        self.records.get(index as usize).ok_or_else(|| io::Error::other("a directory that was never entered"))
    }
}

struct Step {
    index: Index,
    identity: Identity,
    fresh: bool,
    /// `None` while the trail is far below it.
    place: Option<Arc<Place>>,
}

/// The chain of directories from the target down to the current one.
pub(super) struct Trail {
    root: Arc<Place>,
    /// All directories below the target.
    steps: Vec<Step>,
}

impl Trail {
    /// Begins at the target.
    pub(super) fn new(root: Arc<Place>) -> Trail {
        Trail { root, steps: Vec::new() }
    }

    /// The current directory.
    pub(super) fn here(&self) -> (Index, &Arc<Place>) {
        match self.steps.last() {
            // The last step is never closed.
            Some(Step { index, place: Some(place), .. }) => (*index, place),
            _ => (ROOT, &self.root),
        }
    }

    /// Goes down into `place`.
    pub(super) fn enter(&mut self, index: Index, place: Arc<Place>) {
        let (identity, fresh) = (place.identity, place.fresh);
        self.steps.push(Step { index, identity, fresh, place: Some(place) });
        if let Some(far) = self.steps.len().checked_sub(OPEN_MAX + 1).and_then(|at| self.steps.get_mut(at)) {
            far.place = None;
        }
    }

    /// Goes up by one; does nothing at the target.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        let Some(left) = self.steps.pop() else { return Ok(()) };
        match (self.steps.last_mut(), left.place) {
            (Some(parent), Some(left)) if parent.place.is_none() => {
                let mut place = Place::existing(open_directory(left.as_fd(), b"..")?)?;
                verify(place.identity, parent.identity)?;
                place.fresh = parent.fresh;
                parent.place = Some(Arc::new(place));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Goes to directory `index` from anywhere.
    pub(super) fn go(&mut self, directories: &Directories, index: Index) -> io::Result<Arc<Place>> {
        let mut below = Vec::new();
        let mut at = index;
        loop {
            let depth = directories.record(at)?.depth as usize;
            let shared = depth.checked_sub(1).and_then(|above| self.steps.get(above));
            if depth == 0 || shared.is_some_and(|step| step.index == at) {
                while self.steps.len() > depth {
                    self.leave()?;
                }
                break;
            }
            below.push(at);
            at = directories.record(at)?.parent;
        }
        for index in below.into_iter().rev() {
            let record = directories.record(index)?;
            let name = record.name.as_ref().ok_or(Errno::ENOENT)?;
            let place = self.here().1.open(name)?;
            verify(place.identity, record.identity)?;
            self.enter(index, Arc::new(place));
        }
        Ok(Arc::clone(self.here().1))
    }
}

fn verify(found: Identity, expected: Identity) -> io::Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(io::Error::other("the directory was moved or replaced by something else during the restore"))
}
