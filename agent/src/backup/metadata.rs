//! Everything of an entry except its content: the result of `stat`, the owner, attributes, flags and link target.
//!
//! Attributes are kept in all readable namespaces (`user`, `trusted` for root, `security` with capabilities, `system`
//! with POSIX ACLs). A file system that has no attributes or flags causes no error. An attribute that is listed but
//! cannot be read is noted.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::readlinkat;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;

use bygone_cli::xattrs::XattrsOf;
use bygone_cli::xattrs::xattr_names;
use bygone_cli::xattrs::xattr_value;
use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Owner;
use bygone_core::entry::Xattr;
use bygone_core::limits;
use bygone_core::lock::lock;

use crate::backup::folder::Folder;
use crate::backup::folder::open_quietly;
use crate::backup::report::Issues;
use crate::backup::report::Trouble;
use crate::backup::stat::Stat;
use crate::sys;

/// Names of users and groups, looked up once each, because the lookup may ask a distant server.
#[derive(Debug, Default)]
pub(super) struct Owners(Mutex<HashMap<(u32, u32), Arc<Owner>>>);

impl Owners {
    pub(super) fn get(&self, uid: u32, gid: u32) -> Arc<Owner> {
        let mut known = lock(&self.0);
        let owner = known.entry((uid, gid)).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
            Arc::new(Owner { uid, gid, user: owner_name(user), group: owner_name(group) })
        });
        owner.clone()
    }
}

fn owner_name(name: Option<String>) -> Vec<u8> {
    name.map(String::into_bytes).filter(|name| name.len() <= limits::OWNER_NAME_BYTES_MAX).unwrap_or_default()
}

/// Creates the metadata of entries.
#[derive(Clone, Copy)]
pub(super) struct Describer<'a> {
    pub(super) owners: &'a Owners,
    pub(super) issues: &'a Issues,
}

impl Describer<'_> {
    /// The metadata of an open file (`name` in `folder`) or directory (`folder` itself, `name` empty).
    pub(super) fn opened(&self, fd: BorrowedFd<'_>, stat: &Stat, folder: &Folder, name: &[u8]) -> Meta {
        let note = |attribute: &[u8], errno: Errno| self.note_attribute(folder, name, attribute, errno);
        let xattrs = match xattrs(XattrsOf::Fd(fd), note) {
            // A directory that may only be passed through has an `O_PATH` descriptor, which needs a path to be asked.
            Err(Errno::EBADF) => CString::new(format!("/proc/self/fd/{}/.", fd.as_raw_fd()))
                .map_or(Ok(Vec::new()), |path| xattrs_or_none(xattrs(XattrsOf::Path(&path), note))),
            other => xattrs_or_none(other),
        };
        let xattrs = xattrs.unwrap_or_else(|errno| {
            note(b"", errno);
            Vec::new()
        });
        self.meta(stat, 0, sys::inode_flags(fd).unwrap_or(0), xattrs)
    }

    /// The metadata of a directory whose attributes and flags are known from an entry with the same change time.
    pub(super) fn refreshed(&self, stat: &Stat, known: &Meta) -> Meta {
        self.meta(stat, 0, known.flags, known.xattrs.clone())
    }

    /// The metadata of an entry that is not open, if available; a file is opened for it.
    pub(super) fn closed(&self, folder: &Folder, fd: &OwnedFd, name: &Name, stat: &Stat) -> Option<Meta> {
        if stat.file_type() != FileType::File {
            return self.other(folder, fd, name, stat).ok().map(|entry| entry.meta);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open_quietly(fd.as_fd(), name.as_bytes(), flags).ok()?;
        let opened = Stat::of_fd(file.as_fd()).ok()?;
        (opened == *stat).then(|| self.opened(file.as_fd(), stat, folder, name.as_bytes()))
    }

    /// The metadata from `stat` alone.
    pub(super) fn bare(&self, stat: &Stat) -> Meta {
        self.meta(stat, 0, 0, Vec::new())
    }

    /// Reports that `name` cannot be read. Returns an entry that says so, unless `name` is gone. `stat` and `known`, its
    /// entry in the parent snapshot, say what is known of it.
    pub(super) fn unreadable(
        &self,
        folder: &Folder,
        name: &Name,
        errno: Errno,
        stat: Option<&Stat>,
        known: Option<&Entry>,
    ) -> Option<Entry> {
        self.issues.lost(folder, name.as_bytes(), errno);
        if errno == Errno::ENOENT {
            return None;
        }
        let was = stat.map(Stat::file_type).or_else(|| known.and_then(Entry::file_type));
        let meta = stat.map(|stat| self.bare(stat)).or_else(|| known.map(|known| known.meta.clone()));
        let errno = (errno as i32).cast_unsigned();
        Some(Entry::new(name.clone(), meta.unwrap_or_else(Meta::unknown), Kind::Unreadable { errno, was }))
    }

    /// An entry without content: anything but a file or a directory.
    pub(super) fn other(&self, folder: &Folder, fd: &OwnedFd, name: &Name, stat: &Stat) -> Result<Entry, Errno> {
        let mut size = 0;
        let kind = match stat.file_type() {
            FileType::Symlink => {
                let target = readlinkat(fd.as_fd(), name.as_bytes())?.into_vec();
                if target.len() > limits::SYMLINK_BYTES_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                size = target.len() as u64;
                Kind::Symlink(target)
            }
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharDevice => Kind::CharDevice { rdev: stat.rdev },
            FileType::BlockDevice => Kind::BlockDevice { rdev: stat.rdev },
            FileType::File => return Err(Errno::EINVAL),
            FileType::Directory => return Err(Errno::EISDIR),
        };
        let xattrs = self.xattrs_by_path(folder, fd, name);
        Ok(Entry::new(name.clone(), self.meta(stat, size, 0, xattrs), kind))
    }

    /// A link or a device has no descriptor that can be asked for attributes, so this uses a path. It is short, because
    /// it begins at the directory's descriptor.
    fn xattrs_by_path(&self, folder: &Folder, fd: &OwnedFd, name: &Name) -> Vec<Xattr> {
        let mut path = format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.as_bytes());
        let Ok(path) = CString::new(path) else { return Vec::new() };
        let note = |attribute: &[u8], errno| self.note_attribute(folder, name.as_bytes(), attribute, errno);
        xattrs_or_none(xattrs(XattrsOf::Path(&path), note)).unwrap_or_else(|errno| {
            note(b"", errno);
            Vec::new()
        })
    }

    fn note_attribute(&self, folder: &Folder, name: &[u8], attribute: &[u8], errno: Errno) {
        let attribute = bygone_core::entry::printable(attribute);
        let which =
            if attribute.is_empty() { "its attributes were".into() } else { format!("attribute {attribute} was") };
        self.issues.add(folder.path(name), Trouble::Note(format!("{which} not read: {}", errno.desc())));
    }

    fn meta(&self, stat: &Stat, target_bytes: u64, flags: u32, xattrs: Vec<Xattr>) -> Meta {
        Meta {
            mode: (stat.mode & 0o7777) as u16,
            owner: self.owners.get(stat.uid, stat.gid),
            mtime: stat.mtime,
            ctime: stat.ctime,
            birth: stat.birth,
            size: if stat.file_type() == FileType::File { stat.size } else { target_bytes },
            nlink: stat.nlink,
            device: stat.device,
            inode: stat.inode,
            flags,
            xattrs,
        }
    }
}

/// All readable attributes, sorted by name; `note` is called for those that are listed but unreadable.
fn xattrs(of: XattrsOf<'_>, note: impl Fn(&[u8], Errno)) -> Result<Vec<Xattr>, Errno> {
    let names = xattr_names(of)?;
    let mut xattrs = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let fits = name.len() <= limits::XATTR_NAME_BYTES_MAX && xattrs.len() < limits::XATTRS_MAX;
        match CString::new(name).map_err(|_| Errno::EINVAL).and_then(|name| xattr_value(of, &name)) {
            Ok(value) if fits => xattrs.push(Xattr { name: name.to_vec(), value }),
            Ok(_) => note(name, Errno::E2BIG),
            // It was removed after it was listed.
            Err(Errno::ENODATA) => {}
            Err(errno) => note(name, errno),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

fn xattrs_or_none(xattrs: Result<Vec<Xattr>, Errno>) -> Result<Vec<Xattr>, Errno> {
    match xattrs {
        // The file system has no attributes, or the file is gone, which reading its content will reveal.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOENT) => Ok(Vec::new()),
        other => other,
    }
}
