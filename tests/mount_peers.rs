//! What the mounts of other backup programs get or got wrong, each as a test that this one passes: times in whole seconds,
//! space in the wrong unit, link counts of one, attributes that vanish for all once one is missing, inode numbers that
//! mean two things, one reader who holds up all others.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use bygone_tests::program::{Mounted, Site, wait_until};
use bygone_tests::tree::{Tree, prose, random};
use bygone_tests::{compare, root, tool};

use crate::site::{new_site, programs};

/// A machine whose tree is backed up and mounted.
fn mounted(fill: impl FnOnce(&Tree)) -> (Site, Tree, Mounted) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    fill(&tree);
    site.backup(tree.top());
    let mounted = site.mount("mnt", &[]);
    (site, tree, mounted)
}

/// kopia: whole seconds, and one time for all three.
#[test]
fn times_are_shown_to_the_nanosecond() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.file("f", "x");
        tree.mtime("f", 1_234_567_890, 123_456_789);
    });
    let (source, shown) = (fs::metadata(tree.at("f")).unwrap(), fs::metadata(mounted.latest(&tree.at("f"))).unwrap());
    assert_eq!((shown.mtime(), shown.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!((shown.ctime(), shown.ctime_nsec()), (source.ctime(), source.ctime_nsec()));
    mounted.unmount().ok();
}

/// kopia counts space in the wrong unit, rustic not at all: `du` is an eighth, or nothing.
#[test]
fn du_tells_what_it_tells_of_the_source() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        (0..50).for_each(|n| drop(tree.file(format!("d/{n}"), prose(n, 300 + 5_000 * n as usize))));
        tree.file("large", random(1, 5 << 20));
        tree.sparse("sparse", 64 << 20, &[(32 << 20, &random(2, 1 << 20))]);
        tree.hard_link("large-again", "large");
    });
    let du = |top: &Path, options: &[&str]| -> u64 {
        let said = String::from_utf8(tool(Command::new("du").args(options).arg(top))).unwrap();
        said.split_whitespace().next().unwrap().parse().unwrap()
    };
    let inside = mounted.latest(tree.top());
    let (there, here) = (du(tree.top(), &["-s", "-k"]), du(&inside, &["-s", "-k"]));
    // The source's file system may count its own directories and extent tables.
    assert!(here <= there && there - here <= 64, "{here} KiB for {there} KiB");
    let apparent = |top: &Path| du(&top.join("large"), &["-b"]) + du(&top.join("sparse"), &["-b"]);
    assert_eq!(apparent(tree.top()), apparent(&inside));
    mounted.unmount().ok();
}

/// kopia, Proxmox: the names of a hard-linked file are there, and its count says 1.
#[test]
fn link_counts_are_those_of_the_source() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.file("one", "three names");
        tree.directory("d/e/f");
        tree.hard_link("d/two", "one");
        tree.hard_link("d/e/three", "one");
        tree.directory("d/g");
    });
    let about = |name: &str| fs::metadata(mounted.latest(&tree.at(name))).unwrap();
    assert_eq!((about("one").nlink(), about("d/e/three").nlink()), (3, 3));
    assert_eq!(about("one").ino(), about("d/two").ino());
    // restic counts before it has looked inside.
    assert_eq!((about("d").nlink(), about("d/e").nlink(), about("d/g").nlink()), (4, 3, 2));
    mounted.unmount().ok();
}

/// restic: a number made of the source's device and inode, the same for two different contents, which `cp -a` of two
/// snapshots then makes one file.
#[test]
fn two_versions_of_a_file_are_two_inodes() {
    if !root() {
        return;
    }
    let (site, tree, mounted) = mounted(|tree| {
        tree.file("f", "first");
        tree.hard_link("g", "f");
        tree.file("same", "unchanged");
    });
    let inode = fs::metadata(tree.at("f")).unwrap().ino();
    tree.file("f", "after");
    assert_eq!(fs::metadata(tree.at("f")).unwrap().ino(), inode, "the source writes in place");
    site.backup(tree.top());
    wait_until("both are there", || fs::read_dir(mounted.point().join("snapshots")).unwrap().count() == 2);
    let cp = Command::new("cp").arg("-a").arg(mounted.point().join("snapshots")).arg(site.at("copy")).status();
    assert!(cp.unwrap().success());
    let mut read = Vec::new();
    for snapshot in fs::read_dir(site.at("copy")).unwrap() {
        let top = snapshot.unwrap().path().join(tree.top().strip_prefix("/").unwrap());
        read.push(["f", "g", "same"].map(|name| fs::read_to_string(top.join(name)).unwrap()));
        assert_eq!(fs::metadata(top.join("f")).unwrap().ino(), fs::metadata(top.join("g")).unwrap().ino());
    }
    read.sort();
    assert_eq!(read, [["after", "after", "unchanged"], ["first", "first", "unchanged"]]);
    mounted.unmount().ok();
}

/// kopia: EIO; plakar: no symbolic links.
#[test]
fn what_is_no_regular_file_is_what_it_is() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.symlink("link", "somewhere else");
        tool(Command::new("mkfifo").arg(tree.at("fifo")));
        tool(Command::new("mknod").arg(tree.at("device")).args(["c", "1", "3"]));
    });
    let about = |name: &str| fs::symlink_metadata(mounted.latest(&tree.at(name))).unwrap();
    assert!(about("fifo").file_type().is_fifo());
    assert!(about("device").file_type().is_char_device());
    assert_eq!(about("device").rdev(), fs::metadata(tree.at("device")).unwrap().rdev());
    assert_eq!(fs::read_link(mounted.latest(&tree.at("link"))).unwrap(), Path::new("somewhere else"));
    assert_eq!(about("link").len(), 14);
    mounted.unmount().ok();
}

/// rustic answers a missing attribute with "no such operation", after which the kernel asks for none in the whole mount.
#[test]
fn a_missing_attribute_hides_no_other() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.file("with", "x");
        tree.xattr("with", "user.comment", b"here");
        tree.acl("with", "u:12345:rw");
        tree.file("without", "x");
    });
    let ask = |file: &str, name: &str| {
        let path = mounted.latest(&tree.at(file));
        Command::new("getfattr").args(["--only-values", "-n", name]).arg(path).output().unwrap()
    };
    for name in ["user.comment", "user.other", "security.selinux", "trusted.x"] {
        assert!(!ask("without", name).status.success());
    }
    assert_eq!(ask("with", "user.comment").stdout, b"here");
    // Proxmox, kopia: no access lists.
    let acl = tool(Command::new("getfacl").args(["-cn"]).arg(mounted.latest(&tree.at("with"))));
    assert!(String::from_utf8_lossy(&acl).contains("user:12345:rw-"));
    mounted.unmount().ok();
}

/// plakar: everything belongs to who mounted it.
#[test]
fn owners_are_those_of_the_source() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.file("f", "x");
        tree.owner("f", 12_345, 23_456);
    });
    let about = fs::metadata(mounted.latest(&tree.at("f"))).unwrap();
    assert_eq!((about.uid(), about.gid()), (12_345, 23_456));
    mounted.unmount().ok();
}

/// rustic: also what cannot be read is "no such operation".
#[test]
fn what_cannot_be_read_is_an_input_output_error() {
    if !root() {
        return;
    }
    let (site, tree, mounted) = mounted(|tree| drop(tree.file("f", random(1, 1 << 20))));
    fs::rename(site.repository().join("data"), site.at("data")).unwrap();
    let failed = fs::read(mounted.latest(&tree.at("f"))).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(nix::libc::EIO));
    assert_eq!(compare::by_getfattr(&mounted.latest(tree.top())).len(), 0, "and names are listed as before");
    mounted.unmount().ok();
}

/// kopia reads a file one request after another, rustic everything: who waits for the store holds up all others. The
/// store here is a mount of another repository, which stands still while its process is stopped.
#[test]
fn a_reader_who_waits_holds_up_nobody_else() {
    if !root() {
        return;
    }
    let inner = Site::with_repository(&programs(), &["--volume-size", "1MiB"]);
    let content = random(1, 8 << 20);
    let tree = Tree::new(&inner.at("source"));
    tree.file("large", &content);
    tree.file("other", random(2, 1 << 20));
    inner.backup(tree.top());
    let outer = new_site();
    outer.backup(&inner.repository());
    let store = outer.mount("store", &[]);
    fs::rename(inner.repository(), inner.at("original")).unwrap();
    tool(Command::new("ln").arg("-s").arg(store.latest(&inner.repository())).arg(inner.repository()));

    let mounted = inner.mount("mnt", &[]);
    let path = mounted.latest(&tree.at("large"));
    let file = fs::File::open(&path).unwrap();
    let read = |offset: usize| -> io::Result<bool> {
        let mut buffer = [0; 4_096];
        file.read_exact_at(&mut buffer, offset as u64)?;
        Ok(buffer[..] == content[offset..offset + 4_096])
    };
    assert!(read(0).unwrap());
    assert!(fs::read(mounted.latest(&tree.at("other"))).unwrap() == random(2, 1 << 20));
    store.signal("STOP");
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| read(7 << 20).unwrap());
        let others = scope.spawn(|| {
            assert!(read(0).unwrap(), "the same file through the same descriptor");
            assert!(fs::read(mounted.latest(&tree.at("other"))).unwrap() == random(2, 1 << 20));
            tool(Command::new("find").arg(mounted.latest(tree.top())).arg("-ls"));
        });
        wait_until("the others are done", || others.is_finished());
        assert!(!stalled.is_finished(), "it waits for a store that stands still");
        store.signal("CONT");
        assert!(stalled.join().unwrap());
    });
    drop(file);
    mounted.unmount().ok();
    store.unmount().ok();
}
