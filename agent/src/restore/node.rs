//! Entries without content (symbolic links, pipes, sockets and devices), and the metadata of existing entries that
//! stay.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::libc;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstat;
use nix::sys::stat::mknodat;
use nix::unistd::symlinkat;

use bygone_core::entry::Kind;

use crate::restore::directories::Place;
use crate::restore::directories::drop_inherited_acls;
use crate::restore::files::partial::Partial;
use crate::restore::job::Job;
use crate::restore::meta;
use crate::restore::report::Failure;
use crate::restore::report::target;
use crate::restore::shared::Shared;
use crate::restore::shared::Trouble;
use crate::restore::sys::Handle;

/// Creates an entry that is neither a file nor a directory.
pub(super) fn restore(shared: &Shared<'_>, job: &Job) -> Result<(), Failure> {
    let mut partial = Partial::new(shared, job);
    let expected = make(shared, job, partial.name())?;
    partial.made();
    let (fd, stat) = locate(&job.place, partial.name())?;
    if stat.st_mode & libc::S_IFMT != expected {
        return Err(target("finish")(io::Error::other("another entry was put in its place")));
    }
    let handle = Handle::Located(fd.as_fd());
    if job.place.inherits && expected != libc::S_IFLNK {
        drop_inherited_acls(handle);
    }
    let mut trouble = Trouble::default();
    meta::apply(shared, handle, &stat, &job.entry.meta, true, &mut trouble)?;
    partial.complete(job)?;
    trouble.report(shared, &job.at());
    shared.count(|report| report.others += 1);
    Ok(())
}

/// Creates the inode. Returns its type.
fn make(shared: &Shared<'_>, job: &Job, name: &[u8]) -> Result<libc::mode_t, Failure> {
    let private = Mode::S_IRUSR | Mode::S_IWUSR;
    let (kind, rdev) = match &job.entry.kind {
        Kind::Symlink(to) => {
            symlinkat(to.as_slice(), &*job.place, name).map_err(target("create"))?;
            return Ok(libc::S_IFLNK);
        }
        Kind::Fifo => (SFlag::S_IFIFO, 0),
        Kind::Socket => (SFlag::S_IFSOCK, 0),
        Kind::CharDevice { rdev } => (SFlag::S_IFCHR, *rdev),
        Kind::BlockDevice { rdev } => (SFlag::S_IFBLK, *rdev),
        // These come here by no way.
        Kind::File(_) | Kind::Directory(_) | Kind::Unreadable { .. } | Kind::Newer { .. } => {
            return Err(target("create")(Errno::EINVAL));
        }
    };
    match mknodat(&*job.place, name, kind, private, rdev) {
        Ok(()) => Ok(kind.bits()),
        Err(Errno::EPERM) if !shared.root => Err(target("create")(io::Error::other("only root can make devices"))),
        Err(error) => Err(target("create")(error)),
    }
}

/// Sets the metadata of an entry whose content stays.
pub(super) fn adjust(shared: &Shared<'_>, job: &Job) -> Result<(), Failure> {
    let (fd, stat) = locate(&job.place, job.entry.name.as_bytes())?;
    let mut trouble = Trouble::default();
    meta::apply(shared, Handle::Located(fd.as_fd()), &stat, &job.entry.meta, false, &mut trouble)?;
    trouble.report(shared, &job.at());
    shared.count(|report| report.kept += 1);
    Ok(())
}

/// Gets an `O_PATH` descriptor of an inode, without opening it.
fn locate(place: &Arc<Place>, name: &[u8]) -> Result<(OwnedFd, FileStat), Failure> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(place.as_fd(), name, flags, Mode::empty()).map_err(target("find"))?;
    let stat = fstat(&fd).map_err(target("inspect"))?;
    Ok((fd, stat))
}
