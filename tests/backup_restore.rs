//! The main promise: everything that was backed up comes back as it was.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::UNIX_EPOCH;

use bygone_tests::compare;
use bygone_tests::program::Site;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;
use bygone_tests::zoo;

use crate::site::new_site;
use crate::site::restored;
use crate::site::snapshot_ids;

#[test]
fn the_zoo_comes_back_as_it_was() {
    let site = new_site();
    let zoo = zoo::fill(&site.at("source"));
    site.backup(zoo.top());
    site.restore("latest", &site.at("target"));
    compare::assert_same(zoo.top(), &restored(&site.at("target"), zoo.top()));
    holes_are_still_holes(zoo.top(), &restored(&site.at("target"), zoo.top()));

    assert_eq!(site.backup_new_bytes(zoo.top()), 0, "a backup of what has not changed stores no content");
    site.bygone(["check", "--read-data"]).ok();
}

/// A restored file takes no more room than its source, give or take a page for each stretch of data.
fn holes_are_still_holes(source: &Path, target: &Path) {
    for name in ["start", "middle", "end", "only", "many", "across-blocks", "one-gib"] {
        let blocks = |top: &Path| fs::metadata(top.join("holes").join(name)).unwrap().blocks();
        let (wanted, found) = (blocks(source), blocks(target));
        assert!(found <= wanted + 16 * 8, "{name}: {found} blocks of 512 bytes where there were {wanted}");
    }
}

#[test]
fn every_snapshot_stays_what_it_was() {
    let site = new_site();
    let tree = small_tree(&site);
    let copies = ["first", "second"].map(|name| site.at(name));
    let copy = |to: &PathBuf| tool(Command::new("cp").arg("-a").arg(tree.top()).arg(to));
    site.backup(tree.top());
    copy(&copies[0]);

    tree.file("changed", prose(77, 3 << 20));
    fs::remove_file(tree.at("removed")).unwrap();
    fs::rename(tree.at("moved"), tree.at("directory/moved here")).unwrap();
    fs::remove_file(tree.at("becomes a directory")).unwrap();
    tree.file("becomes a directory/inside", "now");
    fs::remove_dir_all(tree.at("becomes a link")).unwrap();
    tree.symlink("becomes a link", "changed");
    tree.mode("only its mode", 0o600);
    tree.file("new/deep/down", random(78, 100_000));
    site.backup(tree.top());
    copy(&copies[1]);

    fs::remove_dir_all(tree.top()).unwrap();
    let ids = snapshot_ids(&site);
    assert_eq!(ids.len(), 2, "two backups, two snapshots");
    for (number, (id, copy)) in ids.iter().zip(&copies).enumerate() {
        let target = site.at(format!("target-{number}"));
        site.restore(id, &target);
        compare::assert_same(copy, &restored(&target, tree.top()));
    }
    site.restore("latest~1", &site.at("by-distance"));
    compare::assert_same(&copies[0], &restored(&site.at("by-distance"), tree.top()));
}

fn small_tree(site: &Site) -> Tree {
    let tree = Tree::new(&site.at("source"));
    tree.file("changed", prose(1, 3 << 20));
    tree.file("unchanged", random(2, 2 << 20));
    tree.file("removed", "soon gone");
    tree.file("moved", random(3, 1 << 20));
    tree.file("becomes a directory", "still a file");
    tree.file("becomes a link/inside", "still a directory");
    tree.file("only its mode", "the same bytes");
    tree.directory("directory");
    tree
}

#[test]
fn a_moved_file_and_a_copied_file_store_no_content() {
    let site = new_site();
    let tree = small_tree(&site);
    site.backup(tree.top());
    fs::rename(tree.at("moved"), tree.at("directory/elsewhere")).unwrap();
    fs::copy(tree.at("unchanged"), tree.at("a copy")).unwrap();
    assert_eq!(site.backup_new_bytes(tree.top()), 0, "the same bytes under other names are the same blocks");
}

#[test]
fn a_change_that_keeps_size_and_mtime_is_noticed() {
    let site = new_site();
    let tree = small_tree(&site);
    tree.mtime("changed", 1_600_000_000, 5);
    site.backup(tree.top());
    let changed = vec![b'z'; 3 << 20];
    fs::write(tree.at("changed"), &changed).unwrap();
    tree.mtime("changed", 1_600_000_000, 5);
    site.backup(tree.top());
    site.restore("latest", &site.at("target"));
    let found = fs::read(restored(&site.at("target"), &tree.at("changed"))).unwrap();
    assert!(found == changed, "the time of the inode's change tells what size and mtime hide");
}

#[test]
fn several_paths_of_any_kind_make_one_snapshot() {
    let site = new_site();
    let tree = small_tree(&site);
    let paths = ["changed", "becomes a link", "directory"].map(|name| tree.at(name));
    let arguments = [OsStr::new("backup")].into_iter().chain(paths.iter().map(|path| path.as_os_str()));
    site.bygone(arguments).ok();
    assert_eq!(snapshot_ids(&site).len(), 1);
    site.restore("latest", &site.at("target"));
    let target = restored(&site.at("target"), tree.top());
    let mut names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["becomes a link", "changed", "directory"], "what was not asked for is not there");
    assert!(fs::read(target.join("changed")).unwrap() == fs::read(tree.at("changed")).unwrap());
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_kept() {
    if !root() {
        return;
    }
    let site = new_site();
    let tree = small_tree(&site);
    tree.file("secret/inside", "behind a closed door");
    for closed in ["removed", "secret"] {
        tree.mode(closed, 0o000);
    }
    let everything = ["", "home", "state", "cache", "config", "output", "repository", "source"];
    tool(Command::new("chown").args(["-R", "nobody", "."]).current_dir(site.at("")));
    everything.iter().for_each(|name| fs::set_permissions(site.at(name), fs::Permissions::from_mode(0o755)).unwrap());
    let mut command = site.bygone_command([OsStr::new("backup"), tree.top().as_os_str()]);
    command.uid(65_534).gid(65_534);
    site.run(command).ended_with(3).complains_of(&["removed", "secret"]);
    assert_eq!(snapshot_ids(&site).len(), 1, "a snapshot of the rest was made");
    let target = site.at("target");
    let restore = ["restore", "latest", "--target", target.to_str().unwrap()];
    site.bygone(restore).ended_with(3).complains_of(&["removed", "secret", "Permission denied"]);
    let target = restored(&target, tree.top());
    assert!(fs::read(target.join("unchanged")).unwrap() == fs::read(tree.at("unchanged")).unwrap());
    assert!(!target.join("removed").exists(), "a file that could not be read is missing, not empty");
}

#[test]
fn the_birth_time_is_kept_and_listed() {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    let file = tree.file("file", "x");
    site.backup(tree.top());
    let listed = || {
        let what = format!("latest:{}", file.display());
        site.bygone(["--json", "ls", &what]).ok().json()[0].clone()
    };
    let first = listed();
    // Some file systems do not keep it.
    let Ok(created) = fs::metadata(&file).unwrap().created() else {
        assert!(first["btime"].is_null());
        return;
    };
    let nanos = created.duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    assert!(first["btime"].as_str().unwrap().ends_with(&format!(".{nanos:09}Z")), "{first}");
    fs::write(&file, "y").unwrap();
    site.backup(tree.top());
    let second = listed();
    assert_eq!((&second["btime"], second["mtime"] == first["mtime"]), (&first["btime"], false));
}

#[test]
fn a_part_of_a_snapshot_can_be_restored() {
    let site = new_site();
    let tree = small_tree(&site);
    tree.file("directory/sub/file", random(9, 300_000));
    site.backup(tree.top());
    let part = tree.at("directory/sub");
    site.restore(&format!("latest:{}", part.display()), &site.at("target"));
    let found = files_below(&site.at("target"));
    assert_eq!(found.len(), 1, "only the part asked for: {found:?}");
    assert_eq!(found.values().next().unwrap(), &fs::read(tree.at("directory/sub/file")).unwrap());
}

/// The content of every file below `top`.
fn files_below(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(top).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn repositories_of_every_make_hold_the_same() {
    for options in [
        &["--compression", "none"][..],
        &["--compression", "zstd:1"],
        &["--compression", "zstd:19"],
        &["--block-size", "64KiB", "--volume-size", "1MiB"],
        &["--block-size", "4MiB"],
    ] {
        let site = Site::with_repository(&crate::site::programs(), options);
        let tree = small_tree(&site);
        tree.file("border", prose(4, (4 << 20) + 1));
        site.backup(tree.top());
        site.restore("latest", &site.at("target"));
        compare::assert_same(tree.top(), &restored(&site.at("target"), tree.top()));
        site.bygone(["check", "--read-data"]).ok();
    }
}
