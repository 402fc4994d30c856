//! The life of a mount and its end: busy users, signals, kills, other mounts on top of it, a store that disappears and
//! returns, snapshots that are removed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use nix::errno::Errno;

use bygone_core::entry::Time;
use bygone_core::id::SnapshotId;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::local::LocalStore;
use bygone_core::write::Changes;
use bygone_core::write::commit_changes;
use bygone_tests::program::Mounted;
use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Site;
use bygone_tests::program::is_mounted;
use bygone_tests::program::unmount;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::random;

use crate::site::new_site;
use crate::site::snapshot_ids;

const BIG_BYTES: usize = 4 << 20;

/// A machine with one snapshot of two large files and a small one.
fn with_snapshot() -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("one", random(1, BIG_BYTES));
    tree.file("two", random(2, BIG_BYTES));
    tree.file("small", "small");
    site.backup(tree.top());
    (site, tree)
}

/// A process that keeps `folder` busy until it is killed.
fn sitter(folder: &Path) -> Child {
    Command::new("cat").current_dir(folder).stdin(Stdio::piped()).spawn().unwrap()
}

/// Makes the kernel drop the cached content of the file, so that the next read asks the mount.
fn forget_pages(path: &Path) {
    tool(Command::new("dd").arg(format!("if={}", path.display())).args(["iflag=nocache", "count=0", "status=none"]));
}

fn errno_of<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
}

#[test]
fn a_busy_mount_is_waited_for_and_its_users_are_named() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let point = mounted.point().to_path_buf();
    let mut user = sitter(&mounted.latest(tree.top()));
    let name = format!("cat ({})", user.id());
    mounted.signal("TERM");
    wait_until("the log names the user", || mounted.complaint().contains(&name));
    let by_user = fs::read_to_string(format!("/proc/{}/cwd/small", user.id()));
    assert_eq!(by_user.unwrap(), "small", "it is served meanwhile");
    drop(user.stdin.take());
    user.wait().unwrap();
    mounted.end().ok();
    assert!(!is_mounted(&point));
}

#[test]
fn a_second_signal_detaches_a_busy_mount() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let point = mounted.point().to_path_buf();
    let mut user = sitter(&mounted.latest(tree.top()));
    mounted.signal("TERM");
    wait_until("it waits", || mounted.complaint().contains("in use by"));
    mounted.signal("TERM");
    mounted.end().ok();
    assert!(!is_mounted(&point));
    drop(user.stdin.take());
    user.wait().unwrap();
}

#[test]
fn a_busy_mount_refuses_to_be_unmounted_and_goes_on() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let mut user = sitter(&mounted.latest(tree.top()));
    assert!(!Command::new("umount").arg(mounted.point()).output().unwrap().status.success());
    assert_eq!(fs::read_to_string(mounted.latest(&tree.at("small"))).unwrap(), "small");
    drop(user.stdin.take());
    user.wait().unwrap();
    mounted.unmount().ok();
}

#[test]
fn a_detached_mount_serves_what_is_open_to_the_end() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let open = fs::File::open(mounted.latest(&tree.at("one"))).unwrap();
    tool(Command::new("umount").arg("-l").arg(mounted.point()));
    assert!(!is_mounted(mounted.point()));
    let mut bytes = vec![0; BIG_BYTES];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == random(1, BIG_BYTES));
    drop(open);
    mounted.end().ok();
}

#[test]
fn a_killed_mount_is_an_error_and_not_an_empty_directory() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let (point, inside) = (mounted.point().to_path_buf(), mounted.latest(&tree.at("one")));
    mounted.signal("KILL");
    wait_until("the kernel has noticed", || errno_of(fs::read(&inside)) == Some(Errno::ENOTCONN));
    assert_eq!(errno_of(fs::read_dir(&point)), Some(Errno::ENOTCONN), "rsync --delete must not see it empty");
    site.bygone_mount([point.as_os_str()]).ended_with(1).complains_of(&["has died", "umount"]);
    unmount(&point);
    drop(mounted);
    let again = site.mount("mnt", &[]);
    assert!(fs::read(again.latest(&tree.at("one"))).unwrap() == random(1, BIG_BYTES));
    again.unmount().ok();
}

#[test]
fn a_mount_on_top_of_ours_is_never_touched() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let point = mounted.point().to_path_buf();
    let tmpfs = || tool(Command::new("mount").args(["-t", "tmpfs", "cover"]).arg(&point));
    tmpfs();
    fs::write(point.join("ours"), "stays").unwrap();
    mounted.signal("TERM");
    wait_until("it says what covers it", || mounted.complaint().contains("mounted over the repository"));
    assert_eq!(fs::read_to_string(point.join("ours")).unwrap(), "stays");
    unmount(&point);
    mounted.end().ok();
    assert!(!is_mounted(&point));

    let mounted = site.mount("mnt", &[]);
    assert_eq!(fs::read_to_string(mounted.latest(&tree.at("small"))).unwrap(), "small");
    unmount(&point);
    tmpfs();
    fs::write(point.join("ours"), "stays").unwrap();
    mounted.end().ok();
    assert_eq!(fs::read_to_string(point.join("ours")).unwrap(), "stays", "even of the folder that replaced it");
    unmount(&point);
}

#[test]
fn a_mount_moved_with_its_folder_is_unmounted_there() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    fs::create_dir(site.at("folder")).unwrap();
    let mounted = site.mount("folder/mnt", &[]);
    fs::rename(site.at("folder"), site.at("renamed")).unwrap();
    let moved = site.at("renamed/mnt");
    let small = moved.join("latest").join(tree.at("small").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(small).unwrap(), "small");
    mounted.signal("TERM");
    mounted.end().ok();
    assert!(!is_mounted(&moved), "it is unmounted");
    assert_eq!(fs::read_dir(&moved).unwrap().count(), 0, "and no dead mount is left");
}

#[test]
fn restored_volumes_can_be_read_in_a_live_mount() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    tree.file("long", random(9, 8_000_000));
    std::thread::sleep(std::time::Duration::from_millis(100));
    site.backup(tree.top());
    let mounted = site.mount("mnt", &[]);
    let long = mounted.latest(&tree.at("long"));
    let mut bytes = vec![0; 4096];
    fs::File::open(&long).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    for folder in fs::read_dir(site.repository().join("data")).unwrap() {
        fs::remove_dir_all(folder.unwrap().path()).unwrap();
    }
    assert!(fs::read(&long).is_err(), "its volumes are gone");
    site.bygone(["backup".as_ref(), tree.top().as_os_str()]).ended_with(13);
    wait_until("it is read where it is now", || fs::read(&long).is_ok_and(|read| read == random(9, 8_000_000)));
    mounted.unmount().ok();
}

#[test]
fn a_second_mount_at_the_same_place_is_refused() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    site.bygone_mount([mounted.point().as_os_str()]).ended_with(1).complains_of(&["mounted at", "already"]);
    let elsewhere = site.mount("elsewhere", &[]);
    for mount in [&mounted, &elsewhere] {
        assert_eq!(fs::read_to_string(mount.latest(&tree.at("small"))).unwrap(), "small", "two are no trouble");
    }
    elsewhere.unmount().ok();
    mounted.unmount().ok();
}

/// A stopped process stands for a sleeping machine.
#[test]
fn readers_wait_while_the_mount_sleeps_and_then_go_on() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let path = |name: &str| mounted.latest(&tree.at(name));
    fs::read(path("one")).unwrap();
    let two = path("two");
    fs::metadata(&two).unwrap();
    mounted.signal("STOP");
    let reader = std::thread::spawn(move || fs::read(two).unwrap());
    assert!(fs::read(path("one")).unwrap() == random(1, BIG_BYTES), "the page cache needs no mount");
    assert!(!reader.is_finished(), "the stopped mount cannot have answered");
    mounted.signal("CONT");
    assert!(reader.join().unwrap() == random(2, BIG_BYTES));
    mounted.unmount().ok();
}

#[test]
fn an_absent_store_fails_only_reads_that_need_it() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let path = |name: &str| mounted.latest(&tree.at(name));
    let one = fs::read(path("one")).unwrap();
    fs::rename(site.repository(), site.at("away")).unwrap();
    assert_eq!(errno_of(fs::read(path("two"))), Some(Errno::EIO));
    assert!(mounted.complaint().contains("is its disk mounted?"), "{}", mounted.complaint());
    tool(Command::new("find").arg(mounted.latest(tree.top())).arg("-ls"));
    assert_eq!(fs::read_to_string(path("small")).unwrap(), "small");
    forget_pages(&path("one"));
    assert!(fs::read(path("one")).unwrap() == one, "what is in memory needs no store");
    fs::rename(site.at("away"), site.repository()).unwrap();
    wait_until("the store is used again", || fs::read(path("two")).is_ok_and(|bytes| bytes == random(2, BIG_BYTES)));
    assert!(mounted.stats(&site)["errors"].as_u64() > Some(1));
    let log = mounted.complaint();
    assert_eq!(log.matches("is its disk mounted?").count(), 1, "an outage is one line: {log}");
    assert_eq!(log.matches("the store answers again").count(), 1, "{log}");
    mounted.unmount().ok();
}

/// Removes the snapshot `id`, by a commit such as any client may write.
fn remove_snapshot(site: &Site, id: &str) {
    let place = Place { store: Arc::new(LocalStore::open(&site.repository()).unwrap()), catalog_base: site.catalogs() };
    let repository = Repository::open(&place, &Secret::new(PASSPHRASE.into())).unwrap();
    let mut locked = repository.lock().unwrap();
    let bytes: Vec<u8> = (0..16).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).unwrap()).collect();
    let removed = vec![SnapshotId(bytes.try_into().unwrap())];
    let changes = Changes { snapshots_removed: removed, ..Changes::default() };
    commit_changes(&mut locked, Time::default(), changes).unwrap();
}

/// The snapshots that a mount shows.
fn shown(mounted: &Mounted) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(mounted.point().join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn a_removed_snapshot_disappears_from_a_live_mount() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    tree.file("small", "changed");
    tree.file("new/name", "came with the second");
    site.bygone(["backup", "--tag", "second", tree.top().to_str().unwrap()]).ok();
    let mounted = site.mount("mnt", &[]);
    let small = |snapshot: &Path| fs::read_to_string(snapshot.join(tree.at("small").strip_prefix("/").unwrap()));
    let both = shown(&mounted);
    assert_eq!(both.len(), 2);
    let tag = mounted.point().join("tags/second");
    let open = fs::File::open(mounted.latest(&tree.at("new/name"))).unwrap();
    let folder = fs::File::open(mounted.latest(&tree.at("new"))).unwrap();
    assert!(tag.exists());

    remove_snapshot(&site, &snapshot_ids(&site)[1]);
    wait_until("it is gone from snapshots/, latest and its tag", || {
        shown(&mounted) == both[..1] && !tag.exists() && !mounted.latest(&tree.at("new/name")).exists()
    });
    assert_eq!(small(&mounted.point().join("latest")).unwrap(), "small", "latest is the one before");
    assert_eq!(small(&both[1]).unwrap_err().kind(), ErrorKind::NotFound);
    let mut bytes = [0; 4];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"came", "what is open can be read while the volumes are there");
    let listed = fs::read_dir(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)));
    let listed = listed.and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    assert!(matches!(errno_of(listed), None | Some(Errno::ESTALE)), "an answer, and not another directory's");

    tree.file("small", "changed again");
    site.backup(tree.top());
    wait_until("the next one is there", || shown(&mounted).len() == 2);
    let next = shown(&mounted).into_iter().find(|snapshot| *snapshot != both[0]).unwrap();
    assert_eq!(small(&next).unwrap(), "changed again", "and nothing of the removed one is taken for it");
    assert_eq!(small(&both[0]).unwrap(), "small");
    drop((open, folder));
    mounted.unmount().ok();
}

#[test]
fn the_last_snapshot_may_go_and_a_new_one_appear() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    assert_eq!(fs::read_to_string(mounted.latest(&tree.at("small"))).unwrap(), "small");
    remove_snapshot(&site, &snapshot_ids(&site)[0]);
    wait_until("nothing is left", || shown(&mounted).is_empty() && !mounted.point().join("latest").exists());
    tree.file("small", "anew");
    site.backup(tree.top());
    wait_until("there is one again", || {
        fs::read_to_string(mounted.latest(&tree.at("small"))).is_ok_and(|text| text == "anew")
    });
    mounted.unmount().ok();
}
