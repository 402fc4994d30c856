//! The derived views of the mount over many snapshots, as programs see them through the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use bygone_tests::program::Mounted;
use bygone_tests::program::Site;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;

use crate::site::new_site;

/// A machine with three snapshots: a report that changes and is then deleted, and files that stay.
fn with_history() -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("report.pdf", "one");
    tree.file("old/deep/file", "deep");
    (0..50).for_each(|n| drop(tree.file(format!("same/{n}"), n.to_string())));
    backup_at(&site, &tree, "2026-01-01T10:00:00Z");
    tree.file("report.pdf", "two, longer");
    tree.file("new", "new");
    backup_at(&site, &tree, "2026-01-02T10:00:00Z");
    fs::remove_file(tree.at("report.pdf")).unwrap();
    fs::remove_dir_all(tree.at("old")).unwrap();
    backup_at(&site, &tree, "2026-01-03T10:00:00Z");
    (site, tree)
}

fn backup_at(site: &Site, tree: &Tree, time: &str) {
    site.bygone(["backup".as_ref(), "--time".as_ref(), time.as_ref(), tree.top().as_os_str()]).ok();
}

/// The place of the source's `path` in a view.
fn inside(mounted: &Mounted, view: &str, path: &Path) -> PathBuf {
    mounted.point().join(view).join(path.strip_prefix("/").unwrap())
}

fn names(directory: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn contents(directory: &Path) -> Vec<String> {
    names(directory).iter().map(|name| fs::read_to_string(directory.join(name)).unwrap()).collect()
}

/// The names below `snapshots/`, oldest first.
fn snapshots(mounted: &Mounted) -> Vec<String> {
    names(&mounted.point().join("snapshots")).into_iter().collect()
}

#[test]
fn every_version_of_a_file_lies_side_by_side() {
    if !root() {
        return;
    }
    let (site, tree) = with_history();
    let mounted = site.mount("mnt", &[]);
    let versions = inside(&mounted, "versions", &tree.at("report.pdf"));
    assert_eq!(contents(&versions), ["one", "two, longer"], "in the order of time");
    assert!(names(&versions).iter().all(|name| name.ends_with(".pdf")), "they open as the file did");
    assert_eq!(names(&inside(&mounted, "versions", &tree.at("same/7"))).len(), 1, "an unchanged file has one");
    let first = versions.join(names(&versions).first().unwrap());
    let original = mounted
        .point()
        .join("snapshots")
        .join(&snapshots(&mounted)[0])
        .join(tree.at("report.pdf").strip_prefix("/").unwrap());
    assert_eq!(fs::metadata(first).unwrap().ino(), fs::metadata(original).unwrap().ino());
    mounted.unmount().ok();
}

#[test]
fn deleted_shows_exactly_what_has_vanished() {
    if !root() {
        return;
    }
    let (site, tree) = with_history();
    let mounted = site.mount("mnt", &[]);
    let deleted = inside(&mounted, "deleted", tree.top());
    assert_eq!(names(&deleted), BTreeSet::from(["old".to_string(), "report.pdf".to_string()]));
    assert_eq!(fs::read_to_string(deleted.join("report.pdf")).unwrap(), "two, longer", "the last copy");
    assert_eq!(fs::read_to_string(deleted.join("old/deep/file")).unwrap(), "deep");
    mounted.unmount().ok();
}

#[test]
fn changes_shows_what_a_snapshot_changed() {
    if !root() {
        return;
    }
    let (site, tree) = with_history();
    let mounted = site.mount("mnt", &[]);
    let all = snapshots(&mounted);
    let changed = |number: usize, side: &str| {
        let top = inside(&mounted, &format!("changes/{}/{side}", all[number]), tree.top());
        if top.exists() { names(&top) } else { BTreeSet::new() }
    };
    assert_eq!(changed(1, "added"), BTreeSet::from(["new".to_string()]));
    assert_eq!(changed(1, "modified"), BTreeSet::from(["report.pdf".to_string()]));
    assert_eq!(changed(1, "deleted"), BTreeSet::new());
    assert_eq!(changed(2, "deleted"), BTreeSet::from(["old".to_string(), "report.pdf".to_string()]));
    mounted.unmount().ok();
}

#[test]
fn a_time_leads_to_the_snapshot_of_that_time() {
    if !root() {
        return;
    }
    let (site, _tree) = with_history();
    let mounted = site.mount("mnt", &[]);
    let at = |name: &str| fs::read_link(mounted.point().join("at").join(name)).ok();
    let all = snapshots(&mounted);
    assert_eq!(at(&all[0]), Some(Path::new("../snapshots").join(&all[0])));
    assert_eq!(at("2026-01-02"), Some(Path::new("../snapshots").join(&all[1])));
    assert_eq!(at("now"), Some(Path::new("../snapshots").join(&all[2])));
    assert_eq!((at("1999-01-01"), at("nonsense")), (None, None));
    assert!(names(&mounted.point().join("at")).is_empty());
    mounted.unmount().ok();
}

#[test]
fn tools_that_walk_the_whole_mount_come_to_an_end() {
    if !root() {
        return;
    }
    let (site, _tree) = with_history();
    let mounted = site.mount("mnt", &[]);
    let find =
        Command::new("find").arg(mounted.point()).args(["-xdev", "-type", "d", "-printf", "%i\\n"]).output().unwrap();
    let printed = String::from_utf8_lossy(&find.stderr);
    assert!(find.status.success() && printed.is_empty(), "find: {printed}");
    let inodes: Vec<&str> = std::str::from_utf8(&find.stdout).unwrap().lines().collect();
    let distinct: BTreeSet<&&str> = inodes.iter().collect();
    assert_eq!(inodes.len(), distinct.len(), "each directory is in one place");
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHx", "--dry-run"]).arg(mounted.point().join("")).arg(site.at("copy"));
    tool(&mut rsync);
    mounted.unmount().ok();
}

#[test]
fn views_stay_closed_if_any_snapshot_was_closed() {
    if !root() {
        return;
    }
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("private/secret", "for root");
    tree.mode("private/secret", 0o644);
    tree.mode("private", 0o700);
    tree.mode("", 0o755);
    fs::set_permissions(site.at(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    backup_at(&site, &tree, "2026-01-01T10:00:00Z");
    tree.mode("private", 0o755);
    fs::remove_file(tree.at("private/secret")).unwrap();
    backup_at(&site, &tree, "2026-01-02T10:00:00Z");
    let mounted = site.mount("mnt", &["--allow-other"]);
    let last = snapshots(&mounted).pop().unwrap();
    for view in ["versions", "deleted", &format!("changes/{last}/deleted")] {
        let path = inside(&mounted, view, &tree.at("private"));
        assert!(fs::read_dir(&path).unwrap().count() > 0, "{view}: root sees it");
        let ls = Command::new("ls").arg(&path).uid(65_534).gid(65_534).output().unwrap();
        assert!(!ls.status.success() && ls.stdout.is_empty(), "{view}: it was closed when the secret was there");
    }
    mounted.unmount().ok();
}

#[test]
fn filters_choose_the_snapshots_that_are_shown() {
    if !root() {
        return;
    }
    let (site, tree) = with_history();
    let shown = |options: &[&str]| {
        let mounted = site.mount("mnt", options);
        let count = snapshots(&mounted).len();
        mounted.unmount().ok();
        count
    };
    assert_eq!(shown(&["--last", "2"]), 2);
    assert_eq!(shown(&["--host", "no-such-host"]), 0);
    assert_eq!(shown(&["--tag", "no-such-tag"]), 0);
    assert_eq!(shown(&["--path", tree.at("new").to_str().unwrap()]), 3);
    assert_eq!(shown(&["--path", "/no/such/path"]), 0);
    assert_eq!(shown(&["--at", "1999-01-01"]), 0);
    assert_eq!(shown(&["--at", "2026-01-02"]), 2);
    for bad in [["--at", "nonsense"], ["--time-template", "%Q"], ["--layout", "none"]] {
        let point = site.at("mnt");
        site.bygone_mount([bad[0].as_ref(), bad[1].as_ref(), point.as_os_str()]).ended_with(2).complains_of(&[bad[0]]);
    }
}

#[test]
fn layouts_have_the_names_that_their_programs_look_for() {
    if !root() {
        return;
    }
    let (site, tree) = with_history();
    let below = tree.at("new").strip_prefix("/").unwrap().to_path_buf();
    let newest = |directory: PathBuf| directory.join(names(&directory).into_iter().rfind(|n| n != "latest").unwrap());
    let mounted = site.mount("mnt", &["--layout", "shadow-copy"]);
    assert!(names(mounted.point()).iter().all(|name| name.starts_with("@GMT-") && name.len() == 24));
    assert_eq!(fs::read_to_string(newest(mounted.point().to_path_buf()).join(&below)).unwrap(), "new");
    mounted.unmount().ok();
    let mounted = site.mount("mnt", &["--layout", "zfs"]);
    assert_eq!(fs::read_to_string(newest(mounted.point().join(".zfs/snapshot")).join(&below)).unwrap(), "new");
    mounted.unmount().ok();
    let mounted = site.mount("mnt", &["--layout", "restic", "--time-template", "%F"]);
    assert_eq!(fs::read_to_string(mounted.point().join("snapshots/latest").join(&below)).unwrap(), "new");
    assert_eq!(names(&mounted.point().join("ids")).len(), 3);
    let named = names(&mounted.point().join("snapshots"));
    assert_eq!(named.len(), 4, "three names, however alike, and latest: {named:?}");
    mounted.unmount().ok();
}

#[test]
fn options_refuse_content_to_some_and_names_to_nobody() {
    if !root() {
        return;
    }
    let (site, tree) = with_history();
    let mounted = site.mount("mnt", &["--no-content"]);
    let refused = fs::read(mounted.latest(&tree.at("new"))).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::errno::Errno::EACCES as i32));
    assert_eq!(fs::metadata(mounted.latest(&tree.at("new"))).unwrap().len(), 3);
    mounted.unmount().ok();
    let mounted = site.mount("mnt", &["--deny-process", "cat"]);
    let run = |program: &str| Command::new(program).arg(mounted.latest(&tree.at("new"))).output().unwrap();
    assert!(!run("cat").status.success());
    assert_eq!(run("tac").stdout, b"new");
    mounted.unmount().ok();
}
