//! `--delete`: what it deletes, and everything that it must not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;

use bygone_core::entry::FileType;
use bygone_core::error::Error;
use bygone_core::store::Store;

use super::*;
use crate::exclude::Excludes;
use crate::restore::Overwrite;
use crate::restore::Reason;
use crate::restore::Selection;

/// A snapshot of /home/me/docs whose backup kept to `rules` and left out `excludes`. It has a file in each of the
/// directories `docs` and `docs/sub`.
fn repo(excludes: &[&str], rules: RunRules) -> Repo {
    let excludes = Some(excludes.iter().map(|pattern| pattern.as_bytes().to_vec()).collect());
    let facts = Facts { excludes, rules: Some(rules), ..Facts::default() };
    Repo::with_facts(mode(0o755), &["/home/me/docs"], Ended { unreadable: 0, facts }, tree)
}

fn tree(tree: &mut Writer<'_>) {
    (0..4).for_each(|_| tree.begin());
    tree.file("in", meta(), &noise(1, 100));
    tree.end("sub", mode(0o755));
    tree.file("text", meta(), &noise(2, 100));
    ["docs", "me", "home"].into_iter().for_each(|name| tree.end(name, mode(0o755)));
}

fn with(repo: &Repo) -> Options {
    Options { overwrite: Some(Overwrite::Always), delete: repo.deletion(&[]), ..Options::default() }
}

/// A directory with these files, each with its own name as content; a name that ends with `/` is an empty directory.
fn target(names: &[&str]) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    for name in names {
        let path = top.path().join(name);
        fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
        if !name.ends_with('/') {
            fs::write(path, name).unwrap();
        }
    }
    top
}

/// All paths in a directory, sorted.
fn paths(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![top.to_path_buf()];
    while let Some(directory) = left.pop() {
        for item in directory.read_dir().unwrap() {
            let path = item.unwrap().path();
            found.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            if path.symlink_metadata().unwrap().is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Restores with `options`, dry first, which must count the same. Returns what is there and the snapshot does not have.
fn left_over(repo: &Repo, top: &Path, options: &Options) -> (Vec<String>, Report) {
    let before = paths(top);
    let dry = repo.restore(top, &Options { dry_run: true, ..options.clone() }).unwrap();
    assert_eq!(paths(top), before, "a dry run does nothing");
    let report = repo.restore(top, options).unwrap();
    assert_eq!((dry.deleted, dry.spared), (report.deleted, report.spared), "a dry run counts the same");
    let own = ["home", "home/me", "home/me/docs", "home/me/docs/sub", "home/me/docs/sub/in", "home/me/docs/text"];
    let mut left = paths(top);
    left.retain(|path| !own.contains(&path.as_str()));
    (left, report)
}

#[test]
fn nothing_is_deleted_beside_the_way_to_what_was_backed_up() {
    let repo = repo(&[], RunRules::default());
    let beside = ["etc", "etc/passwd", "home/me/other", "home/you", "home/you/letter"];
    let top = target(&["etc/passwd", "home/me/other", "home/you/letter", "home/me/docs/old", "home/me/docs/sub/x/y"]);
    let (left, report) = left_over(&repo, top.path(), &with(&repo));
    assert_eq!((left, report.deleted, report.issues_total), (beside.map(str::to_owned).to_vec(), 3, 0));

    // The same below the source itself, and in what leads to it.
    let top = target(&["me/docs/old", "me/other", "you/letter"]);
    repo.restore_path(b"/home", top.path(), &with(&repo), &mut |_, _| ()).unwrap();
    assert!(top.path().join("me/other").exists() && top.path().join("you/letter").exists());
    assert!(!top.path().join("me/docs/old").exists());
    let top = target(&["old", "sub/x/y"]);
    let report = repo.restore_path(b"/home/me/docs", top.path(), &with(&repo), &mut |_, _| ()).unwrap();
    assert_eq!((paths(top.path()), report.deleted), (["sub", "sub/in", "text"].map(str::to_owned).to_vec(), 3));
    let top = target(&["old", "sub/x"]);
    repo.restore_path(b"/home/me/docs/text", top.path(), &with(&repo), &mut |_, _| ()).unwrap();
    assert!(top.path().join("old").exists(), "a single file has nothing beside it");
}

#[test]
fn what_the_backup_left_out_stays() {
    let rules =
        RunRules { if_present: vec![b".skip".to_vec()], larger_than: Some(30), caches: true, ..RunRules::default() };
    let repo = repo(&["*.iso", "/home/me/docs/sub/tmp"], rules);
    let kept = [
        "home/me/docs/big",
        "home/me/docs/disk.iso",
        "home/me/docs/gone/deep/other.iso",
        "home/me/docs/cache/CACHEDIR.TAG",
        "home/me/docs/cache/a",
        "home/me/docs/marked/.skip",
        "home/me/docs/marked/b",
        "home/me/docs/sub/tmp/c",
    ];
    let top =
        target(&[&kept[1..], &["home/me/docs/gone/d", "home/me/docs/gone/deep/e", "home/me/docs/small"]].concat());
    fs::write(top.path().join(kept[0]), "x".repeat(31)).unwrap();
    let (left, report) = left_over(&repo, top.path(), &with(&repo));
    assert_eq!(report.issues_total, 0);
    for path in &kept {
        assert!(left.iter().any(|left| left == path), "{path} of {left:?}");
    }
    for path in ["home/me/docs/gone/d", "home/me/docs/gone/deep/e", "home/me/docs/small"] {
        assert!(!left.iter().any(|left| left == path), "{path} of {left:?}");
    }
    assert!(report.spared >= 6, "{report:?}");
}

#[test]
fn a_named_path_below_an_exclude_is_the_only_one_cleaned_there() {
    let facts = Facts { excludes: Some(vec![b"disk".to_vec()]), rules: Some(RunRules::default()), ..Facts::default() };
    let ended = Ended { unreadable: 0, facts };
    let repo = Repo::with_facts(mode(0o755), &["/z", "/z/disk/photos"], ended, |tree| {
        (0..3).for_each(|_| tree.begin());
        tree.file("a", meta(), b"a");
        ["photos", "disk", "z"].into_iter().for_each(|name| tree.end(name, mode(0o755)));
    });
    let top = target(&["z/disk/films/b", "z/disk/photos/old", "z/old"]);
    repo.restore(top.path(), &with(&repo)).unwrap();
    let left = ["z", "z/disk", "z/disk/films", "z/disk/films/b", "z/disk/photos", "z/disk/photos/a"];
    assert_eq!(paths(top.path()), left);
}

#[test]
fn what_was_on_another_file_system_stays() {
    let elsewhere = |inode| Meta { device: 7, inode, ..mode(0o755) };
    let tree = |tree: &mut Writer<'_>| {
        tree.begin();
        tree.end("disk", elsewhere(1));
        tree.begin();
        tree.end("plain", mode(0o755));
        tree.begin();
        tree.file("a", meta(), b"a");
        tree.end("taken", elsewhere(2));
    };
    let names = ["disk/x", "taken/x", "plain/x"];
    let top = target(&names);
    let repo = Repo::new(mode(0o755), tree);
    repo.restore(top.path(), &with(&repo)).unwrap();
    assert_eq!(names.map(|name| top.path().join(name).exists()), [true, false, false]);
    let rules = RunRules { one_file_system: true, ..RunRules::default() };
    let facts = Facts { excludes: Some(vec![]), rules: Some(rules), ..Facts::default() };
    let repo = Repo::with_facts(mode(0o755), &["/"], Ended { unreadable: 0, facts }, tree);
    let top = target(&names);
    repo.restore(top.path(), &with(&repo)).unwrap();
    assert_eq!(names.map(|name| top.path().join(name).exists()), [true, true, false]);
}

#[test]
fn own_directories_and_repositories_stay() {
    let repo = repo(&[], RunRules::default());
    let names = ["home/me/docs/state/bygone/log", "home/me/docs/copy/bygone.json", "home/me/docs/copy/data/aa"];
    let top = target(&[&names[..], &["home/me/docs/state/other", "home/me/docs/sub/old"]].concat());
    let own = [top.path().join("home/me/docs/state/bygone")];
    let options = Options { delete: repo.deletion(&own), ..with(&repo) };
    let (left, report) = left_over(&repo, top.path(), &options);
    assert!(names.iter().all(|name| left.iter().any(|left| left == name)), "{left:?}");
    assert_eq!((report.deleted, report.spared, report.issues_total), (2, 2, 0));
    // The same directory in the snapshot, and above the target.
    for own in ["home/me/docs/sub", "", "home"].map(|own| top.path().join(own)) {
        fs::write(top.path().join("home/me/docs/sub/old"), "").unwrap();
        let options = Options { delete: repo.deletion(&[own]), ..with(&repo) };
        repo.restore(top.path(), &options).unwrap();
        assert!(top.path().join("home/me/docs/sub/old").exists());
    }
}

#[test]
fn nothing_is_deleted_behind_a_mount() {
    if !is_root() {
        return;
    }
    let repo = repo(&[], RunRules::default());
    let top = target(&["home/me/docs/gone/mnt/", "home/me/docs/gone/bind/", "home/me/docs/gone/x", "outside/kept"]);
    let at = |name: &str| top.path().join(name);
    let none: Option<&str> = None;
    fs::create_dir_all(at("home/me/docs/sub")).unwrap();
    mount(Some("t"), &at("home/me/docs/gone/mnt"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    // A bind mount of the same file system, which the device number does not show.
    for place in ["home/me/docs/gone/bind", "home/me/docs/sub"] {
        mount(Some(&at("outside")), &at(place), none, MsFlags::MS_BIND, none).unwrap();
    }
    fs::write(at("home/me/docs/gone/mnt/file"), "mine").unwrap();
    let report = repo.restore(top.path(), &with(&repo));
    let kept = ["home/me/docs/gone/mnt/file", "outside/kept"].map(|name| at(name).exists());
    for place in ["home/me/docs/gone/mnt", "home/me/docs/gone/bind", "home/me/docs/sub"] {
        umount2(&at(place), MntFlags::MNT_DETACH).unwrap();
    }
    assert_eq!((kept, report.unwrap().deleted, at("home/me/docs/gone/x").exists()), ([true; 2], 1, false));
}

#[test]
fn nothing_is_deleted_unless_everything_was_restored() {
    let facts = Facts { excludes: Some(vec![]), rules: Some(RunRules::default()), ..Facts::default() };
    let repo = Repo::with_facts(mode(0o755), &["/home/me/docs"], Ended { unreadable: 0, facts }, |tree| {
        (0..3).for_each(|_| tree.begin());
        // So much that its content has a volume of its own.
        tree.file("text", meta(), &noise(2, 300_000));
        ["docs", "me", "home"].into_iter().for_each(|name| tree.end(name, mode(0o755)));
    });
    let top = target(&["home/me/docs/old"]);
    for volume in repo.volumes() {
        repo.store.delete(&volume).unwrap();
    }
    let report = repo.restore(top.path(), &with(&repo)).unwrap();
    assert!(top.path().join("home/me/docs/old").exists());
    assert!(report.deletion_skipped && report.deleted == 0 && report.damaged > 0);
    assert!(report.warnings().iter().any(|line| line.contains("nothing was deleted")));
}

#[test]
fn a_snapshot_that_does_not_say_what_it_lacks_is_refused() {
    let repo = Repo::with_facts(mode(0o755), &["/home/me/docs"], Ended::from(0), tree);
    let error = Deletion::new(&repo.snapshot, &[]).unwrap_err();
    assert!(matches!(&error, Error::Invalid { what } if what.contains("left out")), "{error}");
}

#[test]
fn what_the_backup_could_not_read_stays() {
    let facts = Facts { excludes: Some(vec![]), rules: Some(RunRules::default()), ..Facts::default() };
    let repo = Repo::with_facts(mode(0o755), &["/"], Ended { unreadable: 3, facts }, |tree| {
        tree.begin();
        tree.file("first", meta(), b"1");
        tree.file("place", meta(), b"2");
        tree.begin();
        tree.end("whole", mode(0o755));
        tree.directory_end_saying(Some(name("broken")), mode(0o755), Entry::broken_listing(5), None).unwrap();
        tree.other("closed", mode(0o755), Kind::Unreadable { errno: 13, was: Some(FileType::Directory) });
        tree.other("file", meta(), Kind::Unreadable { errno: 5, was: Some(FileType::File) });
        tree.other("newer", meta(), Kind::Newer { code: 12, body: vec![] });
    });
    let kept = ["broken/third", "broken/place/x", "closed/deep/x", "file/x", "newer"];
    let gone = ["broken/whole/gone/x", "gone"];
    let check = |top: &Path, report: &Report, prefix: &str| {
        let is_there = |path: &&str| top.join(path.strip_prefix(prefix).unwrap()).exists();
        assert!(kept.iter().filter(|path| path.starts_with(prefix)).all(&is_there), "{:?}", paths(top));
        assert!(!gone.iter().filter(|path| path.starts_with(prefix)).any(is_there), "{:?}", paths(top));
        let blocked = report.issues.iter().filter(|issue| issue.reason != Reason::Snapshot);
        assert_eq!(blocked.map(|issue| issue.path.as_slice()).collect::<Vec<_>>(), [b"/broken/place"]);
        assert!(!report.deletion_skipped);
    };
    let top = target(&[&kept[..], &gone].concat());
    let (_, report) = left_over(&repo, top.path(), &with(&repo));
    check(top.path(), &report, "");
    assert_eq!((report.withheld, report.deleted), (4, 3));
    // The same if the directory whose listing broke off becomes the target.
    let top = target(&["third", "place/x", "whole/gone/x"]);
    let report = repo.restore_path(b"/broken", top.path(), &with(&repo), &mut |_, _| ()).unwrap();
    check(top.path(), &report, "broken/");
    assert_eq!((report.withheld, report.deleted), (1, 2));
    // Nothing is in the way of what is not restored.
    let top = target(&["closed/x", "file", "newer"]);
    let report = repo.restore(top.path(), &Options::default()).unwrap();
    assert_eq!((report.withheld, report.issues_total, report.files), (4, 4, 2));
}

#[test]
fn a_directory_makes_room_whole_or_not_at_all() {
    let facts = Facts { excludes: Some(vec![b"*.iso".to_vec()]), rules: Some(RunRules::default()), ..Facts::default() };
    let linked = Meta { inode: 5, nlink: 2, ..meta() };
    let repo = Repo::with_facts(mode(0o755), &["/"], Ended { unreadable: 0, facts }, |tree| {
        tree.file("a", linked.clone(), &noise(1, 100));
        tree.file("b", linked.clone(), &noise(1, 100));
        tree.file("c", meta(), &noise(2, 100));
    });
    let top = target(&["a/x", "a/y/z", "old"]);
    let report = repo.restore(top.path(), &with(&repo)).unwrap();
    assert_eq!((report.issues.as_slice(), report.deleted, report.links), (&[][..], 5, 1));
    assert_eq!((paths(top.path()).len(), fs::read(top.path().join("a")).unwrap()), (3, noise(1, 100)));
    let inode = |name: &str| top.path().join(name).metadata().unwrap().ino();
    assert_eq!(inode("a"), inode("b"), "a name that had to wait is a hard link all the same");

    let top = target(&["c/x", "c/disk.iso", "old"]);
    let report = repo.restore(top.path(), &with(&repo)).unwrap();
    assert_eq!((report.issues_total, report.deleted), (1, 1));
    assert!(report.issues[0].path == b"/c" && report.issues[0].text.contains("--delete"), "{:?}", report.issues);
    assert!(top.path().join("c/x").exists() && top.path().join("c/disk.iso").exists());
}

#[test]
fn what_is_not_to_be_restored_is_not_deleted() {
    let repo = repo(&[], RunRules::default());
    let exclude = Excludes::new([b"keep".as_slice()]).unwrap();
    let selection = Selection { exclude, ..Selection::default() };
    let top = target(&["home/me/docs/gone/keep/x", "home/me/docs/gone/y"]);
    let (left, report) = left_over(&repo, top.path(), &Options { selection, ..with(&repo) });
    assert_eq!((left.last().unwrap().as_str(), report.deleted), ("home/me/docs/gone/keep/x", 1));
}
