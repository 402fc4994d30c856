//! Existing entries of the target: whether they stay.
//!
//! Content is never written into an existing file. The file may have other names, even outside the target, and
//! half-written content would be worse than the old content. So the new file is written beside it and renamed over it.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::fcntl::readlinkat;
use nix::libc;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::fstat;
use nix::sys::stat::fstatat;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;

use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;

use crate::restore::directories::Place;
use crate::restore::job::Verdict;
use crate::restore::meta;
use crate::restore::options::Options;
use crate::restore::options::Overwrite;
use crate::restore::report::Failure;
use crate::restore::report::Step;
use crate::restore::report::target;
use crate::restore::shared::Shared;
use crate::restore::sys::Handle;

/// The state of `name` in `place`, without following a symbolic link.
pub(in crate::restore) fn look(place: &Place, name: &[u8]) -> io::Result<Option<FileStat>> {
    match fstatat(place, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(in crate::restore) fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// True if the existing entry is replaced by that of the snapshot. An error gives the reason why it cannot be.
fn yields(stat: &FileStat, meta: &Meta, options: &Options) -> Result<bool, &'static str> {
    match options.overwrite {
        None => Err("an entry of the same name is in the target"),
        Some(Overwrite::Never) => Ok(false),
        Some(Overwrite::IfNewer) => Ok(mtime(meta) > (stat.st_mtime, stat.st_mtime_nsec)),
        Some(Overwrite::Always | Overwrite::IfChanged) => Ok(true),
    }
}

fn mtime(meta: &Meta) -> (i64, i64) {
    (meta.mtime.secs, meta.mtime.nanos.into())
}

/// What happens to a directory where `there` exists. An error gives the reason why it cannot be restored.
pub(in crate::restore) fn judge_directory(
    there: Option<&FileStat>,
    meta: &Meta,
    options: &Options,
) -> Result<Step, &'static str> {
    let Some(stat) = there else { return Ok(Step::Create) };
    if options.overwrite.is_none() && is_directory(stat) {
        return Ok(Step::Keep);
    }
    match (yields(stat, meta, options)?, is_directory(stat)) {
        (true, true) => Ok(Step::Adjust),
        (false, true) => Ok(Step::Keep),
        (true, false) => Ok(Step::Replace),
        (false, false) => Err("an entry that is not a directory is in its place, and stays"),
    }
}

/// True if the existing target gets the metadata of the directory that is restored into it.
pub(in crate::restore) fn target_yields(place: &Place, meta: &Meta, options: &Options) -> io::Result<bool> {
    let stat = fstat(place)?;
    Ok(if options.overwrite.is_none() { place.fresh } else { yields(&stat, meta, options).unwrap_or(true) })
}

/// What happens to an entry that is not a directory. Removes an empty directory that is in its place.
pub(in crate::restore) fn judge_and_clear(
    shared: &Shared<'_>,
    place: &Arc<Place>,
    entry: &Entry,
) -> Result<Verdict, Failure> {
    if place.fresh {
        return Ok(Verdict::Create);
    }
    let name = entry.name.as_bytes();
    let Some(stat) = look(place, name).map_err(target("inspect"))? else { return Ok(Verdict::Create) };
    let mut verdict = judge(place, &stat, entry, shared.options)?;
    if verdict == Verdict::Adjust && shared.options.dry_run && is_settled(shared, place, name, &stat, &entry.meta) {
        verdict = Verdict::Match;
    }
    if verdict == Verdict::Keep || !is_directory(&stat) {
        return Ok(verdict);
    }
    if clear_directory(shared, place, name)? {
        shared.tally().report.deleted += 1;
        return Ok(Verdict::Create);
    }
    if shared.options.delete.is_some() {
        return Ok(Verdict::Blocked);
    }
    let why = "a directory that is not empty is in its place (--delete removes it)";
    Err(target("create")(io::Error::other(why)))
}

/// True if there is no metadata to set. Only a dry run asks: a restore sets what differs, and that is cheaper.
pub(in crate::restore) fn is_settled(
    shared: &Shared<'_>,
    place: &Place,
    name: &[u8],
    stat: &FileStat,
    meta: &Meta,
) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let located = openat(place, name, flags, Mode::empty());
    located.is_ok_and(|fd| meta::is_set(shared, Handle::Located(fd.as_fd()), stat, meta))
}

/// Removes a directory that is in the way of another entry, if it is empty. In a dry run, tells whether it is.
fn clear_directory(shared: &Shared<'_>, place: &Place, name: &[u8]) -> Result<bool, Failure> {
    if shared.options.dry_run {
        let name = Name::new(name).map_err(|_| target("make room for")(Errno::EINVAL))?;
        return place.open(&name).and_then(|inner| is_empty(&inner)).map_err(target("make room for"));
    }
    match unlinkat(place.as_fd(), name, UnlinkatFlags::RemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(errno) => Err(target("make room for")(errno)),
    }
}

fn judge(place: &Place, stat: &FileStat, entry: &Entry, options: &Options) -> Result<Verdict, Failure> {
    if !yields(stat, &entry.meta, options).map_err(|reason| target("create")(io::Error::other(reason)))? {
        return Ok(Verdict::Keep);
    }
    let same =
        options.overwrite == Some(Overwrite::IfChanged) && is_same(place, stat, entry).map_err(target("inspect"))?;
    Ok(match (same, stat.st_nlink > 1) {
        (false, _) => Verdict::Replace,
        (true, false) => Verdict::Adjust,
        // Its metadata is also that of its other names, which may be outside the target.
        (true, true) if has_metadata(stat, entry) => Verdict::Match,
        (true, true) => Verdict::Replace,
    })
}

/// True if the content counts as the same without reading it.
fn is_same(place: &Place, stat: &FileStat, entry: &Entry) -> io::Result<bool> {
    let meta = &entry.meta;
    Ok(match (&entry.kind, stat.st_mode & libc::S_IFMT) {
        (Kind::File(_), libc::S_IFREG) => {
            let same_time = (stat.st_mtime, stat.st_mtime_nsec) == mtime(meta);
            same_time && u64::try_from(stat.st_size) == Ok(meta.size)
        }
        (Kind::Symlink(target), libc::S_IFLNK) => readlinkat(place, entry.name.as_bytes())?.as_bytes() == target,
        (Kind::Fifo, libc::S_IFIFO) | (Kind::Socket, libc::S_IFSOCK) => true,
        (Kind::CharDevice { rdev }, libc::S_IFCHR) | (Kind::BlockDevice { rdev }, libc::S_IFBLK) => {
            stat.st_rdev == *rdev
        }
        _ => false,
    })
}

/// True if `stat` shows that nothing needs to be set. It cannot show that if there are attributes to set.
fn has_metadata(stat: &FileStat, entry: &Entry) -> bool {
    let meta = &entry.meta;
    let same_time = (stat.st_mtime, stat.st_mtime_nsec) == mtime(meta);
    let same_mode = stat.st_mode & 0o7777 == u32::from(meta.mode) || matches!(entry.kind, Kind::Symlink(_));
    let same_owner = (stat.st_uid, stat.st_gid) == (meta.owner.uid, meta.owner.gid);
    same_time && same_mode && same_owner && meta.xattrs.is_empty()
}

/// Names of all entries of a directory, in the order of the disk.
pub(in crate::restore) fn names(place: &Place) -> io::Result<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // A separate descriptor, because the position of a listing belongs to the descriptor.
    let mut listing = Dir::openat(place, ".", flags, Mode::empty())?;
    let mut found = Vec::new();
    for item in listing.iter() {
        let item = item?;
        if !matches!(item.file_name().to_bytes(), b"." | b"..") {
            found.push(item.file_name().to_owned());
        }
    }
    Ok(found)
}

/// True if a directory is empty.
pub(in crate::restore) fn is_empty(place: &Place) -> io::Result<bool> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut listing = Dir::openat(place, ".", flags, Mode::empty())?;
    for item in listing.iter() {
        if !matches!(item?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
