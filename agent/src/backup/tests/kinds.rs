//! Every kind of entry with all its metadata.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::UtimensatFlags;
use nix::sys::stat::makedev;
use nix::sys::stat::mknod;
use nix::sys::stat::utimensat;
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use bygone_core::entry::Kind;
use bygone_core::entry::Time;
use bygone_core::entry::Xattr;

use crate::backup::tests::Call;
use crate::backup::tests::Fixture;

fn kind(fixture: &Fixture, name: &str) -> Kind {
    match fixture.recorder.find(&fixture.top, name) {
        Call::Add(entry) => entry.kind.clone(),
        call => panic!("{name} has no content, {call:?} has"),
    }
}

#[test]
fn links_pipes_and_sockets_are_what_they_are() {
    let mut fixture = Fixture::new();
    symlink("nowhere/\u{e9}", fixture.path("link")).unwrap();
    symlink("x".repeat(4_095), fixture.path("long")).unwrap();
    mkfifo(&fixture.path("pipe"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(fixture.path("socket")).unwrap();
    let report = fixture.run();
    assert_eq!((report.counts.others, report.issues), (4, vec![]));
    assert_eq!(kind(&fixture, "link"), Kind::Symlink("nowhere/\u{e9}".into()));
    assert_eq!(kind(&fixture, "long"), Kind::Symlink(vec![b'x'; 4_095]));
    assert_eq!(kind(&fixture, "pipe"), Kind::Fifo);
    assert_eq!(kind(&fixture, "socket"), Kind::Socket);
    let meta = |name| fixture.recorder.meta(&fixture.top, name);
    assert_eq!((meta("link").size, meta("long").size, meta("pipe").size), (10, 4_095, 0));
}

#[test]
fn devices_keep_their_numbers() {
    let mut fixture = Fixture::new();
    let numbers = makedev(300, 70_000);
    match mknod(&fixture.path("char"), SFlag::S_IFCHR, Mode::S_IRWXU, numbers) {
        // Only root can make devices, and not everywhere.
        Err(Errno::EPERM) => return,
        made => made.unwrap(),
    }
    mknod(&fixture.path("block"), SFlag::S_IFBLK, Mode::S_IRWXU, numbers).unwrap();
    fixture.run();
    assert_eq!(kind(&fixture, "char"), Kind::CharDevice { rdev: numbers });
    assert_eq!(kind(&fixture, "block"), Kind::BlockDevice { rdev: numbers });
}

#[test]
fn metadata_is_exact() {
    let mut fixture = Fixture::with(&[("file", "hello"), ("dir/", "")]);
    fs::hard_link(fixture.path("file"), fixture.path("same")).unwrap();
    fs::set_permissions(fixture.path("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(fixture.path("dir"), fs::Permissions::from_mode(0o1777)).unwrap();
    let early = TimeSpec::new(-1_000, 5);
    let follow = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, &fixture.path("file"), &early, &early, follow).unwrap();
    fixture.run();
    let meta = fixture.recorder.meta(&fixture.top, "file");
    let expected = fs::metadata(fixture.path("file")).unwrap();
    assert_eq!(meta.mtime, Time { secs: -1_000, nanos: 5 }, "before 1970");
    assert_eq!((meta.ctime.secs, i64::from(meta.ctime.nanos)), (expected.ctime(), expected.ctime_nsec()));
    assert_eq!((meta.mode, meta.size, meta.nlink), (0o4751, 5, 2));
    assert_eq!((meta.device, meta.inode), (expected.dev(), expected.ino()));
    assert_eq!((meta.owner.uid, meta.owner.gid), (expected.uid(), expected.gid()));
    assert!(expected.uid() != 0 || meta.owner.user == b"root");
    assert_eq!(fixture.recorder.meta(&fixture.top, "same").inode, meta.inode, "two names of one file");
    let directory = fixture.recorder.meta(&fixture.top, "dir");
    assert_eq!((directory.mode, directory.size), (0o1777, 0));
}

#[test]
fn names_are_bytes() {
    let mut fixture = Fixture::new();
    let names: Vec<Vec<u8>> =
        (1..=255).filter(|b| *b != b'/').map(|b| vec![b'n', b]).chain([vec![b'x'; 255], b" -\n ".to_vec()]).collect();
    for name in &names {
        fs::write(fixture.top.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let report = fixture.run();
    assert_eq!((report.counts.files_new, report.issues.len()), (names.len() as u64, 0));
    for (path, call) in fixture.recorder.seen() {
        if let Call::File(name, _, pieces) = call {
            assert!(path.ends_with(name.as_bytes()) && super::content(pieces) == name.as_bytes());
        }
    }
}

#[test]
fn attributes_come_sorted_by_name() {
    let mut fixture = Fixture::with(&[("file", "x"), ("dir/", "")]);
    let large = vec![7; 3_000];
    for name in ["file", "dir"] {
        let file = fs::File::open(fixture.path(name)).unwrap();
        for (attribute, value) in [(c"user.b", &large[..]), (c"user.a", b""), (c"user.\xff", b"\0")] {
            match crate::sys::set_xattr(file.as_fd(), attribute, value) {
                // Not every file system has attributes.
                Err(Errno::EOPNOTSUPP) => return,
                set => set.unwrap(),
            }
        }
    }
    let report = fixture.run();
    assert_eq!(report.issues, []);
    let xattr = |name: &[u8], value: &[u8]| Xattr { name: name.into(), value: value.into() };
    let expected = [xattr(b"user.a", b""), xattr(b"user.b", &large), xattr(b"user.\xff", b"\0")];
    for name in ["file", "dir"] {
        let xattrs = &fixture.recorder.meta(&fixture.top, name).xattrs;
        let xattrs: Vec<_> = xattrs.iter().filter(|xattr| xattr.name.starts_with(b"user.")).cloned().collect();
        assert_eq!(xattrs, expected, "{name}");
    }
    let again = fixture.run_again();
    assert_eq!(again.counts.files_unchanged, 1);
    let kept = &fixture.recorder.meta(&fixture.top, "dir").xattrs;
    assert!(expected.iter().all(|xattr| kept.contains(xattr)), "an unchanged directory keeps its attributes");
}
