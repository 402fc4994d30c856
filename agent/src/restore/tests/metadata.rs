//! Metadata of all kinds of entries.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::restore::OwnerBy;
use crate::restore::sys;
use crate::restore::sys::Handle;

/// The value of an extended attribute of a file or directory.
fn value(path: &Path, name: &str, bytes: &[u8]) -> bool {
    let file = fs::File::open(path).unwrap();
    sys::has_xattr(Handle::Open(file.as_fd()), name.as_bytes(), bytes)
}

/// An ACL as Linux keeps it: version, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// The owner may read; user 1234 may do everything.
fn some_acl() -> Vec<u8> {
    acl(&[(1, 5, u32::MAX), (2, 7, 1234), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)])
}

#[test]
fn every_kind_comes_back_with_mode_and_time() {
    let before_1970 = Time { secs: -1_000_000_000, nanos: 999_999_999 };
    let at = |mode, mtime| Meta { mode, mtime, ..meta() };
    let repo = Repo::new(at(0o1777, Time { secs: 1, nanos: 2 }), |tree| {
        tree.begin();
        tree.file("x", mode(0o000), b"x");
        tree.end("a-dir", at(0o2555, before_1970));
        tree.file("b-suid", at(0o6755, before_1970), b"program");
        tree.other("c-link", at(0o777, before_1970), Kind::Symlink(b"../../etc/passwd".to_vec()));
        tree.other("d-fifo", at(0o640, before_1970), Kind::Fifo);
        tree.other("e-socket", at(0o755, Time { secs: 0, nanos: 0 }), Kind::Socket);
        tree.file("f-future", at(0o444, Time { secs: 5_000_000_000, nanos: 1 }), &noise(1, 100));
    });
    let (target, report) = restored(&repo, &Options::default());
    let stat = |name: &str| target.path().join(name).symlink_metadata().unwrap();
    let mode = |name: &str| stat(name).mode() & 0o7777;
    assert_eq!(mtime(target.path()), (1, 2));
    assert_eq!(mode(""), 0o1777);
    assert_eq!((mode("a-dir"), mode("a-dir/x"), mode("b-suid")), (0o2555, 0, 0o6755));
    for name in ["a-dir", "b-suid", "c-link", "d-fifo"] {
        assert_eq!(mtime(&target.path().join(name)), (-1_000_000_000, 999_999_999), "{name}");
    }
    assert_eq!(fs::read_link(target.path().join("c-link")).unwrap().as_os_str().as_bytes(), b"../../etc/passwd");
    assert!(stat("d-fifo").file_type().is_fifo() && stat("e-socket").file_type().is_socket());
    assert_eq!((mode("d-fifo"), mode("e-socket")), (0o640, 0o755));
    assert_eq!(mtime(&target.path().join("e-socket")), (0, 0));
    assert_eq!(mtime(&target.path().join("f-future")), (5_000_000_000, 1));
    assert_eq!((report.files, report.directories, report.others), (3, 1, 3));
}

#[test]
fn attributes_and_acls_come_back_on_files_and_directories() {
    let xattrs = vec![xattr(b"system.posix_acl_access", &some_acl()), xattr(b"user.\xff", b"\0\x01value")];
    let mut of_directory = xattrs.clone();
    of_directory.insert(1, xattr(b"system.posix_acl_default", &some_acl()));
    let repo = Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("plain", mode(0o640), b"made in a directory that gets a default ACL");
        tree.end("dir", Meta { xattrs: of_directory, ..mode(0o570) });
        tree.file("file", Meta { xattrs, ..mode(0o570) }, b"read-only");
    });
    let (target, _) = restored(&repo, &Options::default());
    for name in ["dir", "file"] {
        let path = target.path().join(name);
        assert!(value(&path, "system.posix_acl_access", &some_acl()), "{name}");
        let name = CString::new(b"user.\xff").unwrap();
        let file = fs::File::open(&path).unwrap();
        assert!(sys::has_xattr(Handle::Open(file.as_fd()), name.as_bytes(), b"\0\x01value"));
        assert_eq!(mtime(&path), (1_500_000_000, 123_456_789), "times come after attributes");
    }
    assert!(value(&target.path().join("dir"), "system.posix_acl_default", &some_acl()));
    let plain = fs::File::open(target.path().join("dir/plain")).unwrap();
    assert!(sys::xattr_names(Handle::Open(plain.as_fd())).unwrap().is_empty(), "nothing is inherited");
    assert_eq!(target.path().join("dir/plain").metadata().unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn a_default_acl_of_the_target_is_not_inherited() {
    let target = tempfile::tempdir().unwrap();
    let directory = fs::File::open(target.path()).unwrap();
    // Not even the owner may do anything with entries created here.
    let nothing = acl(&[(1, 0, u32::MAX), (2, 7, 1234), (4, 0, u32::MAX), (16, 7, u32::MAX), (32, 7, u32::MAX)]);
    sys::set_xattr(Handle::Open(directory.as_fd()), b"system.posix_acl_default", &nothing).unwrap();
    let repo = Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("x", mode(0o644), b"x");
        tree.end("dir", mode(0o755));
        tree.file("file", mode(0o644), b"f");
        tree.other("pipe", mode(0o644), Kind::Fifo);
    });
    let report = repo.restore(target.path(), &Options::default()).unwrap();
    assert_eq!(report.issues, []);
    for name in ["", "dir", "dir/x", "file"] {
        let file = fs::File::open(target.path().join(name)).unwrap();
        assert!(sys::xattr_names(Handle::Open(file.as_fd())).unwrap().is_empty(), "{name:?}");
    }
    assert_eq!(target.path().join("pipe").metadata().unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn root_restores_owners_devices_capabilities_and_flags() {
    if !is_root() {
        return;
    }
    let owned = |uid, gid, mode| {
        let owner = Owner { uid, gid, user: b"root".to_vec(), group: b"no such group".to_vec() };
        Meta { owner: Arc::new(owner), mode, ..meta() }
    };
    // Version 2, effective, with cap_net_raw permitted.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capable = Meta { xattrs: vec![xattr(b"security.capability", &capability)], ..owned(1, 2, 0o755) };
    let device = nix::sys::stat::makedev(300, 70_000);
    let repo = Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.end("a-dir", owned(12_345, 4_000_000_000, 0o2755));
        tree.file("b-suid", owned(12_345, 54_321, 0o6755), b"x");
        tree.file("c-capable", capable, b"ping");
        tree.other("d-char", owned(3, 4, 0o660), Kind::CharDevice { rdev: device });
        tree.other("e-block", owned(3, 4, 0o660), Kind::BlockDevice { rdev: device });
        let trusted = vec![xattr(b"trusted.note", b"on a link")];
        tree.other("f-link", Meta { xattrs: trusted, ..owned(5, 6, 0o777) }, Kind::Symlink(b"nowhere".to_vec()));
    });
    let (target, report) = restored(&repo, &Options::default());
    assert_eq!(report.others, 3);
    let stat = |name: &str| target.path().join(name).symlink_metadata().unwrap();
    let owner = |name: &str| (stat(name).uid(), stat(name).gid());
    assert_eq!((owner("a-dir"), stat("a-dir").mode() & 0o7777), ((12_345, 4_000_000_000), 0o2755));
    assert_eq!((owner("b-suid"), stat("b-suid").mode() & 0o7777), ((12_345, 54_321), 0o6755));
    assert_eq!(owner("c-capable"), (1, 2));
    assert!(value(&target.path().join("c-capable"), "security.capability", &capability));
    assert_eq!((owner("d-char"), stat("d-char").rdev()), ((3, 4), device));
    assert!(stat("d-char").file_type().is_char_device() && stat("e-block").file_type().is_block_device());
    assert_eq!(owner("f-link"), (5, 6));

    let by_name = Options { owner_by: OwnerBy::Name, ..Options::default() };
    let (target, _) = restored(&repo, &by_name);
    let found = target.path().join("b-suid").metadata().unwrap();
    assert_eq!((found.uid(), found.gid()), (0, 54_321), "by name where there is one, else by number");
}

#[test]
fn without_root_all_content_and_one_warning_result() {
    if is_root() {
        return;
    }
    let of_root = |mode| Meta { owner: Arc::default(), mode, ..meta() };
    let repo = Repo::new(mode(0o755), |tree| {
        tree.other("device", mode(0o600), Kind::CharDevice { rdev: 259 });
        tree.file("suid", Meta { xattrs: vec![xattr(b"trusted.x", b"y")], ..of_root(0o6755) }, b"program");
    });
    let target = tempfile::tempdir().unwrap();
    let report = repo.restore(target.path(), &Options::default()).unwrap();
    assert_eq!((report.files, report.owners_refused, report.xattrs_refused), (1, 1, 1));
    assert_eq!(report.warnings().len(), 2);
    let device = &report.issues[0];
    assert!(device.path == b"/device" && device.text.contains("only root"), "{device:?}");
    let mode = target.path().join("suid").metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o755, "a program that ran as root must not run as another user");
}

#[test]
fn inode_flags_come_last_and_do_not_prevent_links() {
    let target = tempfile::tempdir().unwrap();
    let probe = fs::File::create(target.path().join("probe")).unwrap();
    if sys::flags(probe.as_fd()).and_then(|flags| sys::set_flags(probe.as_fd(), flags | 0x40)).is_err() || !is_root() {
        return;
    }
    let immutable = Meta { flags: 0x10, nlink: 2, inode: 3, ..meta() };
    let repo = Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("one", immutable.clone(), &noise(1, 100));
        tree.file("two", immutable, &noise(1, 100));
        tree.end("dir", Meta { flags: 0x10, ..mode(0o755) });
        tree.file("nodump", Meta { flags: 0x40 | 0x8_0000, ..meta() }, b"x");
    });
    let (target, report) = restored(&repo, &Options::default());
    let open = |name: &str| fs::File::open(target.path().join(name)).unwrap();
    let flags = |name: &str| sys::flags(open(name).as_fd()).unwrap();
    assert_eq!((flags("dir/one") & 0x10, flags("dir") & 0x10, flags("nodump") & 0x40), (0x10, 0x10, 0x40));
    assert_eq!(report.links, 1);
    for name in ["dir", "dir/one"] {
        let file = open(name);
        sys::set_flags(file.as_fd(), flags(name) & !0x10).unwrap();
    }
}
