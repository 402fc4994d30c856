//! Opens a directory and tells whether a mount begins there.
//!
//! A different device number shows another file system, and also a subvolume. It does not show a bind mount of the same
//! file system, where `openat2` does. Kernels before 5.6 and some sandboxes have no `openat2`; then the device number has
//! to do.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::fcntl::openat2;

use bygone_core::entry::Name;

use crate::restore::directories::Place;

/// The directory `name` of `parent`, and whether it belongs to another mount or device than `parent`.
pub(super) fn open(parent: &Place, name: &Name) -> io::Result<(Place, bool)> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    let (place, is_mount) = match openat2(parent.as_fd(), name.as_bytes(), how) {
        Ok(fd) => (Place::existing(fd)?, false),
        Err(Errno::EXDEV) => (parent.open(name)?, true),
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => (parent.open(name)?, false),
        Err(errno) => return Err(errno.into()),
    };
    let is_border = is_mount || place.identity.device != parent.identity.device;
    Ok((place, is_border))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn place(path: &str) -> Place {
        Place::existing(File::open(path).unwrap().into()).unwrap()
    }

    #[test]
    fn a_mount_is_a_border_and_a_link_is_no_directory() {
        let name = |text: &[u8]| Name::new(text).unwrap();
        assert!(open(&place("/"), &name(b"proc")).unwrap().1);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plain")).unwrap();
        std::os::unix::fs::symlink("plain", folder.path().join("link")).unwrap();
        let top = place(folder.path().to_str().unwrap());
        assert!(!open(&top, &name(b"plain")).unwrap().1);
        assert!(open(&top, &name(b"link")).is_err() && open(&top, &name(b"absent")).is_err());
    }
}
