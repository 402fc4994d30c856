//! The steps after all content is written: hard links, then metadata of directories from the deepest up, then sync.
//!
//! A hard link is made only to a complete file. Directories get their final owner, mode and times when nothing more
//! will be created in them. Children come before parents. So nobody can enter an incomplete tree. The final mode
//! of a directory may lock out its owner, because the restore does not enter it again.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::fcntl::renameat;
use nix::sys::stat::Mode;
use nix::sys::stat::fstat;
use nix::unistd::UnlinkatFlags;
use nix::unistd::linkat;
use nix::unistd::syncfs;
use nix::unistd::unlinkat;

use bygone_core::entry::Entry;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::read::View;

use crate::restore::directories::At;
use crate::restore::directories::Directories;
use crate::restore::directories::Index;
use crate::restore::directories::Place;
use crate::restore::directories::Trail;
use crate::restore::files::existing;
use crate::restore::files::feed;
use crate::restore::files::queue::Feeder;
use crate::restore::job::Job;
use crate::restore::job::Verdict;
use crate::restore::links::Link;
use crate::restore::meta;
use crate::restore::report::Failure;
use crate::restore::report::Reason;
use crate::restore::report::target;
use crate::restore::shared::Shared;
use crate::restore::shared::Trouble;
use crate::restore::sys::Handle;

/// Creates the hard links. Returns those that the target's file system cannot create; they become separate files.
pub(super) fn link_all(
    shared: &Shared<'_>,
    root: &Arc<Place>,
    directories: &Directories,
    links: Vec<Link>,
) -> Result<Vec<Link>> {
    let mut first_trail = Trail::new(Arc::clone(root));
    let mut trail = Trail::new(Arc::clone(root));
    let mut impossible = Vec::new();
    for link in links {
        shared.watch.check()?;
        let from = go(&mut first_trail, directories, link.first_directory)?;
        let to = go(&mut trail, directories, link.directory)?;
        let at = At::In(link.directory, link.entry.name.clone());
        if shared.has_failed(&from, &link.first.name) {
            let reason =
                format!("it is a hard link to {}, which was not restored", printable(link.first.name.as_bytes()));
            shared.fail_at(&to, &link.entry.name, at, target("link")(io::Error::other(reason)));
            continue;
        }
        match make_link(shared, &from, &to, &link) {
            Ok(()) => shared.count(|report| report.links += 1),
            Err(Errno::EMLINK | Errno::EXDEV | Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                impossible.push(link);
            }
            Err(error) => shared.fail_at(&to, &link.entry.name, at, target("link")(error)),
        }
        if shared.is_stopped() {
            return Err(Error::Cancelled);
        }
    }
    Ok(impossible)
}

fn make_link(shared: &Shared<'_>, from: &Place, to: &Place, link: &Link) -> nix::Result<()> {
    let (first, name) = (link.first.name.as_bytes(), link.entry.name.as_bytes());
    if link.verdict == Verdict::Create {
        return linkat(from, first, to, name, AtFlags::empty());
    }
    let inode = |place, name| match existing::look(place, name) {
        Ok(stat) => Ok(stat.map(|stat| (stat.st_dev, stat.st_ino))),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))),
    };
    if inode(from, first)? == inode(to, name)? {
        return Ok(());
    }
    let temporary = shared.temporary_name();
    linkat(from, first, to, temporary.as_slice(), AtFlags::empty())?;
    renameat(to, temporary.as_slice(), to, name).inspect_err(|_| {
        let _ = unlinkat(to, temporary.as_slice(), UnlinkatFlags::NoRemoveDir);
    })
}

/// Restores hard links as separate files.
pub(super) fn copy_all(
    shared: &Shared<'_>,
    view: &View,
    root: &Arc<Place>,
    directories: &Directories,
    links: Vec<Link>,
    feeder: &mut Feeder<'_>,
) -> Result<()> {
    let mut trail = Trail::new(Arc::clone(root));
    for Link { directory, entry, verdict, .. } in links {
        let place = go(&mut trail, directories, directory)?;
        let verdict = if verdict == Verdict::Create { verdict } else { Verdict::Replace };
        let text = "the target cannot hard-link it: it was restored as a separate file".to_owned();
        shared.tally().issue(At::In(directory, entry.name.clone()), text, Reason::Target);
        feed::submit(shared, view, feeder, Job { place, directory, entry, verdict })?;
    }
    Ok(())
}

/// Sets the inode flags that would have prevented hard links.
pub(super) fn pin_all(
    shared: &Shared<'_>,
    root: &Arc<Place>,
    directories: &Directories,
    pinned: &[(Index, Arc<Entry>)],
) -> Result<()> {
    let mut trail = Trail::new(Arc::clone(root));
    for (directory, entry) in pinned {
        let place = go(&mut trail, directories, *directory)?;
        if !entry.is_file() || shared.has_failed(&place, &entry.name) {
            continue;
        }
        let mut trouble = Trouble::default();
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match openat(&*place, entry.name.as_bytes(), flags, Mode::empty()) {
            Ok(fd) => meta::apply_flags(shared, Handle::Open(fd.as_fd()), &entry.meta, &mut trouble),
            Err(_) => trouble.flags_refused = true,
        }
        trouble.report(shared, &At::In(*directory, entry.name.clone()));
    }
    Ok(())
}

/// Sets the metadata of all directories.
pub(super) fn complete_directories(
    shared: &Shared<'_>,
    root: &Arc<Place>,
    directories: &mut Directories,
) -> Result<()> {
    let mut trail = Trail::new(Arc::clone(root));
    for index in (0..directories.len()).rev() {
        shared.watch.check()?;
        let Some((meta, fresh)) = directories.take_meta(index) else { continue };
        let place = go(&mut trail, directories, index)?;
        // Leave first: the final mode may forbid that later.
        trail.leave().map_err(|source| moved(directories, index, source))?;
        let mut trouble = Trouble::default();
        let handle = Handle::Open(place.as_fd());
        let done = fstat(&*place)
            .map_err(target("inspect"))
            .and_then(|stat| meta::apply(shared, handle, &stat, &meta, fresh, &mut trouble));
        match done {
            Ok(()) => meta::apply_flags(shared, handle, &meta, &mut trouble),
            Err(failure) => shared.fail(At::Directory(index), failure),
        }
        trouble.report(shared, &At::Directory(index));
        if shared.is_stopped() {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

/// Makes everything durable, on every file system that the restore wrote to.
pub(super) fn sync(shared: &Shared<'_>, root: &Arc<Place>, directories: &Directories) -> Result<()> {
    let mut trail = Trail::new(Arc::clone(root));
    for index in [super::directories::ROOT].into_iter().chain(directories.other_devices()) {
        // Nothing else syncs the file system of this directory, so it is an error if it cannot be entered again.
        let synced = go(&mut trail, directories, index).map(|place| syncfs(&*place));
        match synced {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let failure = Failure::Target { doing: "sync", source: error.into() };
                shared.stop(At::Directory(index), failure);
                return Err(Error::Cancelled);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Goes to a directory that was entered before. If it is gone, the restore ends.
pub(super) fn go(trail: &mut Trail, directories: &Directories, index: Index) -> Result<Arc<Place>> {
    trail.go(directories, index).map_err(|source| moved(directories, index, source))
}

fn moved(directories: &Directories, index: Index, source: io::Error) -> Error {
    Error::Local { doing: "find the restored directory", path: printable(&directories.path(index)), source }
}
