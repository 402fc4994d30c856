//! Sets the metadata of one inode, in an order in which no step undoes an earlier one:
//!
//! 1. `user.*` attributes, because they need write permission, which the final mode may not grant;
//! 2. owner and group, because a change of owner clears set-uid, set-gid and file capabilities;
//! 3. mode, because it would undo part of an ACL;
//! 4. ACLs, capabilities and all other attributes;
//! 5. times, because everything above may change them;
//! 6. inode flags, because an immutable inode accepts nothing more ([`apply_flags`], after hard links too).
//!
//! Values that the inode already has are not set again. When root restores its own files, this saves two calls a file.

use nix::libc;
use nix::sys::stat::FileStat;

use bygone_core::entry::Meta;
use bygone_core::entry::Xattr;
use bygone_core::entry::printable;

use crate::restore::report::Failure;
use crate::restore::shared::Shared;
use crate::restore::shared::Trouble;
use crate::restore::sys;
use crate::restore::sys::Handle;

/// No changes, no renames, no links.
const FLAG_IMMUTABLE: u32 = 0x10;
/// Content only appended, no renames, no links.
const FLAG_APPEND: u32 = 0x20;
/// The flags that users set and that mean the same everywhere: compressed, synchronous, immutable, append-only, no
/// dump, no access times, synchronous directory, top of a directory hierarchy. All others describe how a file system
/// stores the inode.
const FLAGS_RESTORED: u32 = 0x04 | 0x08 | FLAG_IMMUTABLE | FLAG_APPEND | 0x40 | 0x80 | 0x1_0000 | 0x2_0000;

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;

/// Gives the inode all of `meta` except the flags. `stat` is its current state. `fresh` means that this restore created
/// it, so it has no attributes to remove.
pub(super) fn apply(
    shared: &Shared<'_>,
    handle: Handle<'_>,
    stat: &FileStat,
    meta: &Meta,
    fresh: bool,
    trouble: &mut Trouble,
) -> Result<(), Failure> {
    let kind = stat.st_mode & libc::S_IFMT;
    if !fresh {
        remove_other_xattrs(shared, handle, &meta.xattrs, trouble)?;
    }
    set_xattrs(shared, handle, meta.xattrs.iter().filter(|xattr| is_user(xattr)), fresh, trouble)?;
    let refused = set_owner(shared, handle, stat, meta, trouble)?;
    if kind != libc::S_IFLNK {
        // A set-uid program must not run as the user who restored it.
        let mode = if kind == libc::S_IFDIR { meta.mode } else { meta.mode & !refused };
        let chowned = meta.mode & (SET_UID | SET_GID) != 0;
        if chowned || u32::from(mode) != stat.st_mode & 0o7777 {
            sys::set_mode(handle, mode).or_else(|error| trouble.note("set the mode of", "", error))?;
        }
    }
    set_xattrs(shared, handle, meta.xattrs.iter().filter(|xattr| !is_user(xattr)), fresh, trouble)?;
    if !fresh && (stat.st_mtime, stat.st_mtime_nsec) == (meta.mtime.secs, meta.mtime.nanos.into()) {
        return Ok(());
    }
    sys::set_mtime(handle, meta.mtime).or_else(|error| trouble.note("set the time of", "", error))
}

/// True if [`apply`] and [`apply_flags`] would change nothing.
pub(super) fn is_set(shared: &Shared<'_>, handle: Handle<'_>, stat: &FileStat, meta: &Meta) -> bool {
    let is_link = stat.st_mode & libc::S_IFMT == libc::S_IFLNK;
    let same_mode = is_link || stat.st_mode & 0o7777 == u32::from(meta.mode);
    let same_owner = shared.owner_here(&meta.owner) == (stat.st_uid, stat.st_gid);
    let same_time = (stat.st_mtime, stat.st_mtime_nsec) == (meta.mtime.secs, meta.mtime.nanos.into());
    let has_all = || meta.xattrs.iter().all(|xattr| sys::has_xattr(handle, &xattr.name, &xattr.value));
    let has_others = || {
        let names = sys::xattr_names(handle).unwrap_or_default();
        names.iter().any(|name| is_removed(name.as_bytes(), &meta.xattrs))
    };
    // Flags are seen only through a descriptor that is open.
    let no_flags = meta.flags & FLAGS_RESTORED == 0 || !shared.root;
    same_mode && same_owner && same_time && no_flags && has_all() && !has_others()
}

/// True if an attribute is removed because it is not `wanted`. The system sets its own labels on every file, and a
/// restore must not remove those.
fn is_removed(name: &[u8], wanted: &[Xattr]) -> bool {
    let is_label = name.starts_with(b"security.") && name != b"security.capability";
    !is_label && !wanted.iter().any(|xattr| xattr.name == name)
}

/// Sets owner and group if they differ. If refused, returns the mode bits that must not be set.
fn set_owner(
    shared: &Shared<'_>,
    handle: Handle<'_>,
    stat: &FileStat,
    meta: &Meta,
    trouble: &mut Trouble,
) -> Result<u16, Failure> {
    let (uid, gid) = shared.owner_here(&meta.owner);
    let new_uid = (uid != stat.st_uid).then_some(uid);
    let new_gid = (gid != stat.st_gid).then_some(gid);
    if new_uid.is_none() && new_gid.is_none() {
        return Ok(0);
    }
    let Err(error) = sys::set_owner(handle, new_uid, new_gid) else { return Ok(0) };
    if error.raw_os_error() != Some(libc::EPERM) || shared.root {
        trouble.note("set the owner of", "", error)?;
        return Ok(SET_UID | SET_GID);
    }
    // A user who may not give a file away may still give it to one of their groups.
    let group_refused = new_gid.is_some() && sys::set_owner(handle, None, new_gid).is_err();
    trouble.owner_refused = true;
    let user_bit = if new_uid.is_some() { SET_UID } else { 0 };
    Ok(user_bit | if group_refused { SET_GID } else { 0 })
}

fn named(attribute: &[u8]) -> String {
    format!(" ({})", printable(attribute))
}

fn is_user(xattr: &Xattr) -> bool {
    xattr.name.starts_with(b"user.")
}

/// Attributes that only root may set.
fn is_privileged(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"security.")
}

fn set_xattrs<'x>(
    shared: &Shared<'_>,
    handle: Handle<'_>,
    xattrs: impl Iterator<Item = &'x Xattr>,
    fresh: bool,
    trouble: &mut Trouble,
) -> Result<(), Failure> {
    for xattr in xattrs {
        if !fresh && sys::has_xattr(handle, &xattr.name, &xattr.value) {
            continue;
        }
        match sys::set_xattr(handle, &xattr.name, &xattr.value) {
            Ok(()) => {}
            Err(_) if !shared.root && is_privileged(&xattr.name) => trouble.xattrs_refused += 1,
            Err(error) => trouble.note("set an attribute of", &named(&xattr.name), error)?,
        }
    }
    Ok(())
}

fn remove_other_xattrs(
    shared: &Shared<'_>,
    handle: Handle<'_>,
    wanted: &[Xattr],
    trouble: &mut Trouble,
) -> Result<(), Failure> {
    let names = match sys::xattr_names(handle) {
        Ok(names) => names,
        Err(error) => return trouble.note("list the attributes of", "", error),
    };
    for name in names {
        if !is_removed(name.as_bytes(), wanted) {
            continue;
        }
        if let Err(error) = sys::remove_xattr(handle, &name) {
            if !shared.root && is_privileged(name.as_bytes()) {
                trouble.xattrs_refused += 1;
            } else {
                trouble.note("remove an attribute of", &named(name.as_bytes()), error)?;
            }
        }
    }
    Ok(())
}

/// True if these flags would prevent renaming or linking the inode.
pub(super) fn flags_pin(meta: &Meta) -> bool {
    meta.flags & (FLAG_IMMUTABLE | FLAG_APPEND) != 0
}

/// Sets the inode flags of a file or directory, if there are any and this process is root. If that fails, they are left
/// out, because flags depend on the file system more than on the file.
pub(super) fn apply_flags(shared: &Shared<'_>, handle: Handle<'_>, meta: &Meta, trouble: &mut Trouble) {
    let wanted = meta.flags & FLAGS_RESTORED;
    let Handle::Open(fd) = handle else { return };
    if wanted == 0 || !shared.root {
        return;
    }
    let set = sys::flags(fd).and_then(|now| {
        let new = now & !FLAGS_RESTORED | wanted;
        if new == now { Ok(()) } else { sys::set_flags(fd, new) }
    });
    trouble.flags_refused |= set.is_err();
}
