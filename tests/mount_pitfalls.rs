//! Bugs that the mounts of other backup programs have or had, each as a test: times in whole seconds, space in the
//! wrong unit, link counts of one, one missing attribute that hides all others, inode numbers with two meanings, one
//! slow reader that delays all others.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use bygone_tests::compare;
use bygone_tests::program::Mounted;
use bygone_tests::program::Site;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::new_site;
use crate::site::programs;

/// A machine whose tree is backed up and mounted.
fn mounted(fill: impl FnOnce(&Tree)) -> (Site, Tree, Mounted) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    fill(&tree);
    site.backup(tree.top());
    let mounted = site.mount("mnt", &[]);
    (site, tree, mounted)
}

/// kopia: whole seconds, and the same value for all three times.
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

/// kopia counts space in the wrong unit and rustic not at all, so `du` shows an eighth or nothing.
#[test]
fn du_agrees_with_the_source() {
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
        let printed = String::from_utf8(tool(Command::new("du").args(options).arg(top))).unwrap();
        printed.split_whitespace().next().unwrap().parse().unwrap()
    };
    let inside = mounted.latest(tree.top());
    let (there, here) = (du(tree.top(), &["-s", "-k"]), du(&inside, &["-s", "-k"]));
    // The source's file system may count its own directories and extent tables.
    assert!(here <= there && there - here <= 64, "{here} KiB for {there} KiB");
    let apparent = |top: &Path| du(&top.join("large"), &["-b"]) + du(&top.join("sparse"), &["-b"]);
    assert_eq!(apparent(tree.top()), apparent(&inside));
    mounted.unmount().ok();
}

/// kopia, Proxmox: all names of a hard-linked file are there, but its link count is 1.
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
    // restic counts the links of a directory before it reads the directory.
    assert_eq!((about("d").nlink(), about("d/e").nlink(), about("d/g").nlink()), (4, 3, 2));
    mounted.unmount().ok();
}

/// restic: the inode number comes from the source, so two versions of a file share it, and `cp -a` of two snapshots
/// makes them one file.
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
fn special_files_keep_their_kind() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.symlink("link", "somewhere else");
        tool(Command::new("mkfifo").arg(tree.at("fifo")));
        tool(Command::new("mknod").arg(tree.at("device")).args(["c", "1", "3"]));
        // rustic crashes on numbers that take more than a byte each.
        tool(Command::new("mknod").arg(tree.at("large-device")).args(["b", "4095", "1048575"]));
    });
    let about = |name: &str| fs::symlink_metadata(mounted.latest(&tree.at(name))).unwrap();
    assert!(about("fifo").file_type().is_fifo());
    assert!(about("device").file_type().is_char_device());
    for device in ["device", "large-device"] {
        assert_eq!(about(device).rdev(), fs::metadata(tree.at(device)).unwrap().rdev());
    }
    assert_eq!(fs::read_link(mounted.latest(&tree.at("link"))).unwrap(), Path::new("somewhere else"));
    assert_eq!(about("link").len(), 14);
    mounted.unmount().ok();
}

/// rustic answers a missing attribute with "no such operation", and the kernel then stops asking for attributes.
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

/// plakar: everything belongs to the user that mounted it.
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

/// rustic walks the path from the root for every lookup, and lets the kernel cache nothing for longer than a second.
#[test]
fn repeated_lookups_ask_for_nothing() {
    if !root() {
        return;
    }
    let (site, tree, mounted) = mounted(|tree| {
        (0..100).for_each(|n| drop(tree.file(format!("a/b/c/d/{n}"), "x")));
        tree.symlink("link", "a/b");
    });
    // By its real name: `latest` may point elsewhere after some seconds.
    let inside = fs::canonicalize(mounted.latest(tree.top())).unwrap();
    let look = || {
        tool(Command::new("find").arg(&inside).args(["-printf", "%i %s %l\n"]));
        let absent = |n: u32| fs::metadata(inside.join(format!("a/b/c/d/absent-{n}"))).is_err();
        assert!((0..10).all(absent) && fs::read_link(inside.join("link")).is_ok());
    };
    let asked = || -> u64 {
        let requests = mounted.stats(&site)["requests"].clone();
        let of = |kind: &str| requests[kind].as_u64().unwrap_or(0);
        ["getattr", "readlink", "readdir", "readdirplus"].map(of).iter().sum()
    };
    look();
    let before = asked();
    (0..5).for_each(|_| look());
    // The directories above change, so they may have been looked up again.
    assert!(asked() - before < 100, "{} requests for what is known", asked() - before);
    mounted.unmount().ok();
}

/// borg reads a whole archive into memory before the first listing.
#[test]
fn a_walk_keeps_nothing_of_each_entry_in_memory() {
    if !root() {
        return;
    }
    let half = 12_000;
    let (_site, tree, mounted) = mounted(|tree| {
        for n in 0..2 * half {
            tree.file(format!("{}/{:02}/{n}", ["first", "second"][n / half], n % 40), "");
        }
    });
    let resident_kb = || -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", mounted.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let walk = |name: &str| {
        let found =
            tool(Command::new("find").arg(mounted.latest(&tree.at(name))).args(["-type", "f", "-printf", "%s"]));
        assert_eq!(found.len(), half);
    };
    walk("first");
    let before = resident_kb();
    walk("second");
    let grown = resident_kb() - before;
    assert!(grown < 6 << 10, "{grown} KiB for {half} entries");
    mounted.unmount().ok();
}

/// borg's versions view does not say which archives hold a version, nor which was the last to hold a deleted file.
#[test]
fn a_version_tells_which_snapshots_hold_it() {
    if !root() {
        return;
    }
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("report.pdf", "one");
    tree.file("gone", "for good");
    let backup = |day: u32| {
        let time = format!("2026-03-0{day}T10:00:00Z");
        site.bygone(["backup".as_ref(), "--time".as_ref(), time.as_ref(), tree.top().as_os_str()]).ok();
    };
    (1..3).for_each(backup);
    fs::remove_file(tree.at("gone")).unwrap();
    tree.file("report.pdf", "two, longer");
    backup(3);
    let mounted = site.mount("mnt", &[]);
    let fact = |path: &Path, name: &str| {
        let printed = Command::new("getfattr").args(["--only-values", "-n", name]).arg(path).output().unwrap();
        assert!(printed.status.success(), "{path:?} {name}: {}", String::from_utf8_lossy(&printed.stderr));
        String::from_utf8(printed.stdout).unwrap()
    };
    let view = |view: &str, name: &str| mounted.point().join(view).join(tree.at(name).strip_prefix("/").unwrap());
    let versions = view("versions", "report.pdf");
    let held: Vec<String> = ["2026-03-01T10-00-00Z.pdf", "2026-03-03T10-00-00Z.pdf"]
        .map(|name| fact(&versions.join(name), "user.bygone.snapshots"))
        .into();
    assert_eq!(held, ["2026-03-01T10-00-00Z\n2026-03-02T10-00-00Z", "2026-03-03T10-00-00Z"]);
    assert_eq!(fact(&view("deleted", "gone"), "user.bygone.last_seen"), "2026-03-02T10:00:00Z");
    assert_eq!(fact(&view("deleted", "gone"), "user.bygone.first_seen"), "2026-03-01T10:00:00Z");
    mounted.unmount().ok();
}

/// rustic: unreadable content is "no such operation" as well.
#[test]
fn unreadable_content_is_an_input_output_error() {
    if !root() {
        return;
    }
    let (site, tree, mounted) = mounted(|tree| drop(tree.file("f", random(1, 5 << 20))));
    fs::rename(site.repository().join("data"), site.at("data")).unwrap();
    let failed = fs::read(mounted.latest(&tree.at("f"))).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(nix::libc::EIO));
    assert_eq!(compare::by_getfattr(&mounted.latest(tree.top())).len(), 0, "and names are listed as before");
    mounted.unmount().ok();
}

/// kopia serializes the reads of a file and rustic all reads, so one that waits for the store delays the others. The
/// store here is a mount of another repository, which hangs while its process is stopped.
#[test]
fn a_waiting_reader_delays_no_other() {
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
