//! The paths that a backup is given: each is in the snapshot, or the backup says why it is not.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use bygone_tests::program::Site;
use bygone_tests::program::unmount;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;

use crate::site::new_site;
use crate::site::snapshot_ids;

/// The files and links of the newest snapshot, as paths below the machine's directory.
fn stored(site: &Site) -> BTreeSet<String> {
    let all = site.bygone(["ls", "-R", "--json", "latest"]).ok().json();
    let top = format!("{}/", site.at("x").parent().unwrap().display());
    let files = all.as_array().unwrap().iter().filter(|entry| entry["kind"] != "directory");
    files.map(|entry| entry["path"].as_str().unwrap().replace(&top, "")).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn mount_tmpfs(at: &Path) {
    fs::create_dir_all(at).unwrap();
    tool(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "test"]).arg(at));
}

#[test]
fn a_path_behind_a_link_is_stored_under_its_real_name() {
    let site = new_site();
    let home = Tree::new(&site.at("home/me"));
    home.file("data/work/thesis", "inside");
    home.symlink("Documents", "data");
    home.symlink("Archive", site.at("elsewhere"));
    Tree::new(&site.at("elsewhere")).file("old/letter", "outside");
    let inside = ["home/me/Archive", "home/me/Documents", "home/me/data/work/thesis"];
    site.bygone(["backup", "home/me", "home/me/Documents/work"]).ok().complains_of(&["stored with", "home/me"]);
    assert_eq!(stored(&site), set(&inside));
    site.bygone(["backup", "home/me/Archive/old", "home/me"]).ok().complains_of(&["stored as", "elsewhere/old"]);
    assert_eq!(stored(&site), &set(&inside) | &set(&["elsewhere/old/letter"]));
    site.bygone(["backup", "home/me", "home/me/Archive/none"]).ended_with(3).complains_of(&["elsewhere/none"]);
}

#[test]
fn a_link_with_a_slash_is_the_directory_behind_it() {
    let site = new_site();
    let tree = Tree::new(&site.at("tree"));
    tree.file("real/file", "content");
    tree.symlink("link", "real");
    site.bygone(["backup", "-q", "tree/link"]).ok().complains_of(&["symbolic link", "tree/link/"]);
    assert_eq!(stored(&site), set(&["tree/link"]));
    for path in ["tree/link/", "tree/link/."] {
        site.bygone(["backup", path]).ok();
        assert_eq!(stored(&site), set(&["tree/link/file"]));
    }
}

#[test]
fn a_named_path_wins_over_every_rule_above_it() {
    let site = new_site();
    let tree = Tree::new(&site.at("z"));
    tree.file("disk/photos/a", "a");
    tree.file("disk/films/b", "b");
    tree.file("c", "c");
    site.bygone(["backup", "--exclude", "disk", "z", "z/disk/photos"]).ok();
    assert_eq!(stored(&site), set(&["z/disk/photos/a", "z/c"]));
    tree.file("disk/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    site.bygone(["backup", "--exclude-caches", "z", "z/disk/photos"]).ok();
    assert_eq!(stored(&site), set(&["z/disk/CACHEDIR.TAG", "z/disk/photos/a", "z/c"]));
}

#[test]
fn each_path_stays_on_its_own_file_system() {
    if !root() {
        return;
    }
    let site = new_site();
    let tree = Tree::new(&site.at("a"));
    tree.file("here", "here");
    mount_tmpfs(&tree.at("m"));
    mount_tmpfs(&tree.at("m/sub/inner"));
    for name in ["m/other", "m/sub/there", "m/sub/inner/far"] {
        tree.file(name, name);
    }
    for option in ["-x", "--one-file-system"] {
        site.bygone(["backup", option, "a", "a/m/sub"]).ok();
        assert_eq!(stored(&site), set(&["a/here", "a/m/sub/there"]));
    }
    site.bygone(["backup", "-x", "a", "a/m/sub/inner"]).ok();
    assert_eq!(stored(&site), set(&["a/here", "a/m/sub/inner/far"]));
    site.bygone(["backup", "a"]).ok();
    assert_eq!(stored(&site).len(), 4);
    unmount(&tree.at("m/sub/inner"));
    unmount(&tree.at("m"));
}

#[test]
fn a_source_that_is_suddenly_empty_makes_no_snapshot() {
    let site = new_site();
    let tree = Tree::new(&site.at("disk"));
    let other = Tree::new(&site.at("beside"));
    other.file("x", "x");
    site.bygone(["backup", "disk", "beside"]).ok();
    tree.file("photo", "photo");
    site.bygone(["backup", "disk", "beside"]).ok();
    fs::remove_file(tree.at("photo")).unwrap();
    for command in
        [&["backup", "disk", "beside"][..], &["backup", "--dry-run", "disk", "beside"], &["backup", "--force", "disk"]]
    {
        let ran = site.bygone([command, &["--json"]].concat()).ended_with(1).complains_of(&["SOURCE_EMPTY", "disk"]);
        assert!(ran.err.contains("--allow-empty"), "{ran}");
    }
    tree.directory("lost+found");
    site.bygone(["backup", "disk", "beside"]).ended_with(1);
    assert_eq!(snapshot_ids(&site).len(), 2);
    site.bygone(["backup", "--allow-empty", "disk", "beside"]).ok();
    site.bygone(["backup", "disk", "beside"]).ok();
    assert_eq!(snapshot_ids(&site).len(), 4, "what was empty before may stay so");
}

#[test]
fn a_required_mount_is_mounted_or_nothing_is_backed_up() {
    let site = new_site();
    let tree = Tree::new(&site.at("disk"));
    tree.file("file", "on the wrong disk");
    fs::create_dir_all(site.at("config/bygone")).unwrap();
    let disk = tree.top().display();
    let text = format!("[defaults]\nrequire-mount = [\"{disk}\"]\npaths = [\"{disk}\"]\n");
    fs::write(site.at("config/bygone/config.toml"), text).unwrap();
    site.bygone(["backup"]).ended_with(1).complains_of(&["SOURCE_EMPTY", "require-mount"]);
    assert!(snapshot_ids(&site).is_empty());
    if !root() {
        return;
    }
    mount_tmpfs(tree.top());
    tree.file("file", "on the right disk");
    site.bygone(["backup"]).ok();
    unmount(tree.top());
    assert_eq!(stored(&site), set(&["disk/file"]));
}

#[test]
fn a_file_that_never_rests_is_a_warning_that_quiet_keeps() {
    let site = new_site();
    let tree = Tree::new(&site.at("tree"));
    // Reading it takes long enough for a write to come in between.
    let path = tree.file("database-wal", vec![b'0'; 40 << 20]);
    tree.file("calm", "calm");
    let done = AtomicBool::new(false);
    let ran = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&path).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"x").unwrap();
            }
        });
        let ran = site.bygone(["backup", "-q", "tree"]);
        let counted = site.bygone(["backup", "--json", "tree"]);
        done.store(true, Ordering::Relaxed);
        assert_eq!(counted.ok().json()["changed_while_read"], 1);
        ran
    });
    ran.ok().complains_of(&["warning", "database-wal changed each time it was read", "file system"]);
    let calm = site.bygone(["backup", "-q", "tree"]).ok();
    assert_eq!(calm.err, "", "nothing changes any more");
}

#[test]
fn a_named_file_of_the_kernel_is_stored_with_its_content() {
    let site = new_site();
    site.bygone(["backup", "/proc/version"]).ok();
    let stored = site.bygone(["cat", "latest:/proc/version"]).ok();
    assert_eq!(stored.out, fs::read("/proc/version").unwrap());
}

#[test]
fn a_mount_of_snapshots_is_not_backed_up_into_the_next() {
    let site = new_site();
    let tree = Tree::new(&site.at("tree"));
    tree.file("file", "file");
    site.backup(tree.top());
    let mounted = site.mount("tree/past", &[]);
    let ran = site.backup(tree.top());
    assert!(ran.err.contains("shows snapshots"), "{ran}");
    assert_eq!(stored(&site), set(&["tree/file"]));
    let named = mounted.point().join("latest/");
    site.bygone(["backup".as_ref(), named.as_os_str()]).ok();
    assert!(stored(&site).iter().any(|path| path.ends_with("tree/file") && path.contains("past/latest")));
}
