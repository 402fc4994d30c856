//! The mount as programs see it: through the kernel, compared with the source by independent tools.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use nix::unistd::Whence;

use bygone_tests::compare;
use bygone_tests::program::Site;
use bygone_tests::program::is_mounted;
use bygone_tests::program::unmount;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;
use bygone_tests::zoo;

use crate::site::new_site;
use crate::site::programs;

/// A machine with one snapshot of the tree that `fill` makes.
fn with_snapshot(fill: impl FnOnce(&Tree)) -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    fill(&tree);
    site.backup(tree.top());
    (site, tree)
}

#[test]
fn the_zoo_in_the_mount_is_the_zoo() {
    if !root() {
        return;
    }
    let site = new_site();
    let zoo = zoo::fill(&site.at("source"));
    site.backup(zoo.top());
    let mounted = site.mount("mnt", &[]);
    let inside = mounted.latest(zoo.top());
    compare::assert_same(zoo.top(), &inside);
    link_counts_of_directories_are_right(&inside);
    hard_links_are_one_file(&inside);
    holes_are_found(zoo.top(), &inside);
    let cp = Command::new("cp").args(["-a", "--sparse=always"]).arg(&inside).arg(site.at("copy")).output().unwrap();
    assert!(cp.status.success(), "cp -a from the mount: {}", String::from_utf8_lossy(&cp.stderr));
    compare::assert_same(zoo.top(), &site.at("copy"));
    let ended = mounted.unmount();
    assert_eq!(ended.code, 0, "a mount that was unmounted ends well: {ended}");
}

/// `find` relies on two links plus one for each subdirectory.
fn link_counts_of_directories_are_right(top: &Path) {
    for path in tool(Command::new("find").arg(top).args(["-type", "d", "-print0"])).split(|byte| *byte == 0) {
        let path = Path::new(OsStr::from_bytes(path));
        if path.as_os_str().is_empty() {
            continue;
        }
        let below = fs::read_dir(path).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(fs::metadata(path).unwrap().nlink(), 2 + below.count() as u64, "links of {path:?}");
    }
}

/// One inode for all names of a file, another for its equal twin.
fn hard_links_are_one_file(top: &Path) {
    let inode = |name: &str| fs::symlink_metadata(top.join(name)).unwrap().ino();
    assert_eq!(inode("links/a/one"), inode("links/b/two"));
    assert_eq!(inode("links/a/one"), inode("links/b/c/three"));
    assert_eq!(inode("links/symbolic/dangling"), inode("links/symbolic/second-name"));
    assert_ne!(inode("sizes/twin-a"), inode("sizes/twin-b"), "two files with the same bytes are two files");
}

/// SEEK_DATA and SEEK_HOLE: every stretch of data in the source is data here, and every hole that no block touches is a
/// hole here.
fn holes_are_found(source: &Path, top: &Path) {
    for name in ["start", "middle", "end", "only", "many", "across-blocks", "one-gib"] {
        let path = Path::new("holes").join(name);
        let (wanted, found) = (data_of(&source.join(&path)), data_of(&top.join(&path)));
        for (from, to) in &wanted {
            let covered = found.iter().any(|(begin, end)| begin <= from && to <= end);
            assert!(covered, "{name}: data at {from}..{to} is not in {found:?}");
        }
        let bytes = |stretches: &[(i64, i64)]| stretches.iter().map(|(from, to)| to - from).sum::<i64>();
        let slack = (1 << 20) * wanted.len() as i64;
        assert!(bytes(&found) <= bytes(&wanted) + slack, "{name}: {found:?} for {wanted:?}");
    }
    let length = fs::metadata(top.join("holes/only")).unwrap();
    assert_eq!(length.blocks(), 0, "a file of nothing takes no room");
}

/// The stretches of data of a file.
fn data_of(path: &Path) -> Vec<(i64, i64)> {
    let file = fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len() as i64;
    let seek = |offset: i64, whence: Whence| nix::unistd::lseek(&file, offset, whence);
    let mut found = Vec::new();
    let mut at = 0;
    while at < length {
        match seek(at, Whence::SeekData) {
            Ok(from) => {
                at = seek(from, Whence::SeekHole).unwrap();
                found.push((from, at));
            }
            Err(nix::errno::Errno::ENXIO) => break,
            Err(error) => panic!("{path:?}: SEEK_DATA at {at}: {error}"),
        }
    }
    assert_eq!(seek(length, Whence::SeekData), Err(nix::errno::Errno::ENXIO), "{path:?}: beyond the end");
    found
}

#[test]
fn a_new_snapshot_appears_in_a_live_mount() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot(|tree| drop(tree.file("file", "before")));
    let mounted = site.mount("mnt", &[]);
    let names = || fs::read_dir(mounted.point().join("snapshots")).unwrap().count();
    let read = || fs::read_to_string(mounted.latest(&tree.at("file"))).unwrap();
    assert_eq!((names(), read().as_str()), (1, "before"));
    assert!(!mounted.latest(&tree.at("later")).exists(), "asked before it is there");
    let old = fs::read_dir(mounted.point().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let inside_old = old.join(tree.at("file").strip_prefix("/").unwrap());

    tree.file("file", "after");
    tree.file("later", "here");
    site.backup(tree.top());
    let since = Instant::now();
    while names() != 2 || read() != "after" || !mounted.latest(&tree.at("later")).exists() {
        assert!(since.elapsed() < Duration::from_secs(15), "the second snapshot has not appeared");
        sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read_to_string(inside_old).unwrap(), "before", "the old one stays what it was");
    mounted.unmount().ok();
}

#[test]
fn a_large_directory_is_listed_once_and_whole() {
    if !root() {
        return;
    }
    let count = 20_000;
    let (site, tree) = with_snapshot(|tree| (0..count).for_each(|n| drop(tree.file(format!("d/{n}"), n.to_string()))));
    let mounted = site.mount("mnt", &[]);
    let inside = mounted.latest(&tree.at("d"));
    let listed: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let distinct: BTreeSet<_> = listed.iter().collect();
    assert_eq!((listed.len(), distinct.len()), (count, count), "every name once");
    for n in [0, 1, count / 2, count - 1] {
        assert_eq!(fs::read_to_string(inside.join(n.to_string())).unwrap(), n.to_string());
    }
    assert!(!inside.join(count.to_string()).exists());
    mounted.unmount().ok();
}

#[test]
fn inode_numbers_survive_a_remount_and_a_snapshot() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot(|tree| {
        (0..300).for_each(|n| drop(tree.file(format!("d{}/{n}", n % 7), prose(n, 100 + n as usize))));
    });
    let listing = || {
        let mounted = site.mount("mnt", &[]);
        let inside = mounted.latest(tree.top());
        let found = tool(Command::new("find").current_dir(&inside).args([".", "-printf", "%i %y %P\\n"]));
        mounted.unmount().ok();
        let text = String::from_utf8(found).unwrap();
        text.lines().map(str::to_string).collect::<BTreeSet<String>>()
    };
    let first = listing();
    assert_eq!(first, listing(), "the same snapshot, mounted twice");
    site.backup(tree.top());
    let files =
        |all: BTreeSet<String>| all.into_iter().filter(|line| line.contains(" f ")).collect::<BTreeSet<String>>();
    assert_eq!(files(first), files(listing()), "a file that has not changed is one inode in all snapshots");
}

#[test]
fn nothing_can_be_written() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot(|tree| drop(tree.file("directory/file", "content")));
    let mounted = site.mount("mnt", &[]);
    let inside = Tree::new(&mounted.latest(tree.top()));
    let file = inside.at("directory/file");
    let refused = [
        ("create", fs::write(inside.at("new"), "x")),
        ("write", fs::OpenOptions::new().write(true).open(&file).map(drop)),
        ("append", fs::OpenOptions::new().append(true).open(&file).map(drop)),
        ("truncate", fs::OpenOptions::new().write(true).truncate(true).open(&file).map(drop)),
        ("mkdir", fs::create_dir(inside.at("new"))),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(inside.at("directory"))),
        ("rename", fs::rename(&file, inside.at("elsewhere"))),
        ("link", fs::hard_link(&file, inside.at("second"))),
        ("symlink", std::os::unix::fs::symlink("x", inside.at("new"))),
        ("chmod", fs::set_permissions(&file, fs::metadata(site.at("home")).unwrap().permissions())),
        ("chown", std::os::unix::fs::chown(&file, Some(1), None)),
    ];
    for (what, result) in refused {
        let kind = result.expect_err(what).kind();
        assert_eq!(kind, ErrorKind::ReadOnlyFilesystem, "{what}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "content");
    mounted.unmount().ok();
}

#[test]
fn the_kernel_enforces_the_permissions_that_were_backed_up() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot(|tree| {
        tree.file("open", "for all");
        tree.file("closed", "for root");
        tree.file("private/inside", "for root");
        tree.mode("closed", 0o600);
        tree.mode("private", 0o700);
        tree.mode("", 0o755);
    });
    fs::set_permissions(site.at(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    site.backup(tree.top());
    let mounted = site.mount("mnt", &["--allow-other"]);
    let as_nobody = |name: &str| {
        let mut cat = Command::new("cat");
        cat.arg(mounted.latest(&tree.at(name))).uid(65_534).gid(65_534).output().unwrap()
    };
    assert_eq!(as_nobody("open").stdout, b"for all", "{}", String::from_utf8_lossy(&as_nobody("open").stderr));
    for name in ["closed", "private/inside"] {
        let refused = as_nobody(name);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{name} must stay closed");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{name}");
    }
    mounted.unmount().ok();
}

#[test]
fn bytes_are_right_at_any_offset() {
    if !root() {
        return;
    }
    let content = [random(1, 5 << 20), prose(2, 3 << 20), vec![0; 700_000], random(3, 12_345)].concat();
    let (site, tree) = with_snapshot(|tree| drop(tree.file("file", &content)));
    let mounted = site.mount("mnt", &[]);
    let path = mounted.latest(&tree.at("file"));
    std::thread::scope(|scope| {
        for reader in 0..4usize {
            let (path, content) = (&path, &content);
            scope.spawn(move || reads_at_odd_places(path, content, reader));
        }
    });
    mounted.unmount().ok();
}

/// Reads of all lengths, forward, backward and across borders, compared with the content.
fn reads_at_odd_places(path: &Path, content: &[u8], reader: usize) {
    let file = fs::File::open(path).unwrap();
    for step in 0..200usize {
        let offset = (step * 7_919 * 613 + reader * 131_072 - reader * 3) % content.len();
        let length = [1, 4_096, 131_072, 65_537, 1_000_000][(step + reader) % 5];
        let mut buffer = vec![0xee; length];
        let read = file.read_at(&mut buffer, offset as u64).unwrap();
        assert_eq!(read, length.min(content.len() - offset), "at {offset}");
        assert!(buffer[..read] == content[offset..offset + read], "{length} bytes at {offset}");
    }
    assert_eq!(file.read_at(&mut [0; 10], content.len() as u64 + 5).unwrap(), 0, "beyond the end");
}

#[test]
fn a_mount_goes_to_the_background_and_ends_when_unmounted() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot(|tree| drop(tree.file("file", "content")));
    let point = site.at("mnt");
    fs::create_dir(&point).unwrap();
    let busy = |what: &str| site.bygone_mount([point.as_os_str()]).ended_with(1).complains_of(&[what]);
    site.bygone_mount([point.as_os_str()]).ok();
    assert!(is_mounted(&point), "it is mounted when the command returns");
    let inside = point.join("latest").join(tree.at("file").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(inside).unwrap(), "content");
    busy("mnt");
    unmount(&point);
    let since = Instant::now();
    while processes_with(&point) > 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "the process stays after the unmount");
        sleep(Duration::from_millis(20));
    }
}

/// The number of processes with `path` among their arguments.
fn processes_with(path: &Path) -> usize {
    let wanted = path.to_str().unwrap();
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    processes.filter(|line| String::from_utf8_lossy(line).split('\0').any(|argument| argument == wanted)).count()
}

#[test]
fn a_signal_unmounts_and_ends() {
    if !root() {
        return;
    }
    let (site, _tree) = with_snapshot(|tree| drop(tree.file("file", "content")));
    for signal in ["-TERM", "-INT"] {
        let mounted = site.mount("mnt", &[]);
        tool(Command::new("kill").arg(signal).arg(mounted.pid().to_string()));
        let since = Instant::now();
        while is_mounted(mounted.point()) {
            assert!(since.elapsed() < Duration::from_secs(10), "kill {signal} has not unmounted");
            sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_lost_volume_is_an_error_only_where_it_is_needed() {
    if !root() {
        return;
    }
    let site = Site::with_repository(&programs(), &["--volume-size", "1MiB"]);
    let tree = Tree::new(&site.at("source"));
    (0..6).for_each(|n| drop(tree.file(format!("{n}"), random(n, 1 << 20))));
    tree.file("tiny", "in its entry");
    site.backup(tree.top());
    let volume = site.objects("data").into_keys().nth(1).unwrap();
    fs::remove_file(site.repository().join(&volume)).unwrap();
    let mounted = site.mount("mnt", &[]);
    let inside = mounted.latest(tree.top());
    let mut lost = 0;
    for name in (0..6).map(|n| n.to_string()).chain(["tiny".to_string()]) {
        match fs::read(inside.join(&name)) {
            Ok(bytes) => assert!(bytes == fs::read(tree.at(&name)).unwrap(), "{name}: wrong bytes"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EIO as i32), "{name}: {error}");
                lost += 1;
            }
        }
    }
    assert!((1..=2).contains(&lost), "one volume of six is gone, and {lost} files cannot be read");
    let ended = mounted.unmount();
    let name = volume.rsplit('/').next().unwrap();
    assert!(ended.err.contains(&name[..12]), "the log names the volume {name}: {ended}");
}
