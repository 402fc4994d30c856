//! Every option of backup and restore, from the command line to the disk; and the places that a backup or a restore
//! must stay out of.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use bygone_tests::compare;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::program::unmount;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::new_site;
use crate::site::restored;
use crate::site::snapshot_ids;

fn with_tree() -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    for name in ["keep/a.txt", "keep/b.log", "drop/c.txt", "drop/deep/d.log", "e.txt"] {
        tree.file(name, prose(name.len() as u64, 5_000));
    }
    (site, tree)
}

fn backup(site: &Site, tree: &Tree, options: &[&str]) -> Ran {
    site.bygone([&["backup"], options, &[tree.top().to_str().unwrap()]].concat()).ok()
}

fn restore(site: &Site, target: &Path, options: &[&str]) -> Ran {
    site.bygone([&["restore", "latest", "--target", target.to_str().unwrap()], options].concat())
}

/// The names of the files in the newest snapshot, below the top of the tree.
fn files(site: &Site, tree: &Tree) -> BTreeSet<String> {
    let what = format!("latest:{}", tree.top().display());
    let all = site.bygone(["ls", "-R", "--json", &what]).ok().json();
    let files = all.as_array().unwrap().iter().filter(|entry| entry["kind"] == "file");
    let top = format!("{}/", tree.top().display());
    files.map(|entry| entry["path"].as_str().unwrap().strip_prefix(&top).unwrap().to_string()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

#[test]
fn excluded_files_are_not_backed_up() {
    let (site, tree) = with_tree();
    backup(&site, &tree, &["--exclude", "*.log"]);
    assert_eq!(files(&site, &tree), set(&["keep/a.txt", "drop/c.txt", "e.txt"]));
    backup(&site, &tree, &["--exclude", &format!("{}/drop", tree.top().display())]);
    assert_eq!(files(&site, &tree), set(&["keep/a.txt", "keep/b.log", "e.txt"]));
    fs::write(site.at("patterns"), "# not needed\ndrop\n*.log\n").unwrap();
    backup(&site, &tree, &["--exclude-file", site.at("patterns").to_str().unwrap()]);
    assert_eq!(files(&site, &tree), set(&["keep/a.txt", "e.txt"]));
    tree.file("drop/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    backup(&site, &tree, &["--exclude-caches"]);
    assert!(!files(&site, &tree).contains("drop/c.txt"));
    tree.file("keep/.nobackup", "");
    backup(&site, &tree, &["--exclude-if-present", ".nobackup"]);
    assert!(!files(&site, &tree).contains("keep/a.txt"));
    tree.file("large", random(1, 100_000));
    backup(&site, &tree, &["--exclude-larger-than", "50K"]);
    assert!(!files(&site, &tree).contains("large") && files(&site, &tree).contains("e.txt"));
}

#[test]
fn one_file_system_leaves_others_out() {
    if !root() {
        return;
    }
    let (site, tree) = with_tree();
    let point = tree.directory("other");
    tool(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&point));
    fs::write(point.join("inside"), "elsewhere").unwrap();
    let one = site.bygone(["backup", "--one-file-system", tree.top().to_str().unwrap()]);
    let with_one = files(&site, &tree);
    let all = site.bygone(["backup", tree.top().to_str().unwrap()]);
    let with_all = files(&site, &tree);
    unmount(&point);
    assert!((one.code, all.code) == (0, 0), "{one} {all}");
    assert!(!with_one.contains("other/inside") && with_all.contains("other/inside"), "{with_one:?} {with_all:?}");
}

#[test]
fn standard_input_is_a_file_too() {
    let (site, _tree) = with_tree();
    let mut shell = site.command(Path::new("bash"), ["-c", "seq 1 100000 | \"$0\" backup --stdin numbers"]);
    shell.arg(crate::site::programs().bygone).stdin(Stdio::null());
    site.run(shell).ok();
    let content = site.bygone(["cat", "latest:/numbers"]).ok();
    assert!(content.text().starts_with("1\n2\n") && content.text().ends_with("\n100000\n"));
}

#[test]
fn a_program_that_fails_makes_no_snapshot() {
    let site = new_site();
    let command = |words: &[&str]| site.bygone([&["backup", "--command", "dump.sql", "--"], words].concat());
    command(&["seq", "1", "100000"]).ok();
    let content = site.bygone(["cat", "latest:/dump.sql"]).ok();
    assert!(content.text().starts_with("1\n2\n") && content.text().ends_with("\n100000\n"));
    command(&["sh", "-c", "seq 1 100000; exit 3"]).ended_with(1).complains_of(&["the output of sh", "exit status: 3"]);
    command(&["false"]).ended_with(1).complains_of(&["no snapshot"]);
    command(&["/absent"]).ended_with(1).complains_of(&["/absent"]);
    assert_eq!(snapshot_ids(&site).len(), 1);
    command(&["true"]).ended_with(3).complains_of(&["warning", "the output of true had nothing in it"]);
    assert_eq!(site.bygone(["--json", "snapshots"]).ok().json()[1]["exit"], 3, "the snapshot says how its run ended");
    site.bygone(["backup", "--command", "dump.sql"]).ended_with(2);
    site.bygone(["backup", "--command", "dump.sql", "--stdin", "x", "--", "true"]).ended_with(2);
    let empty = site.start_reading(site.bygone_command(["backup", "-q", "--stdin", "empty"]), Stdio::null());
    empty.end().ended_with(3).complains_of(&["nothing in it"]);
}

#[test]
fn a_snapshot_from_the_future_does_not_stay_the_latest() {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("a", "now");
    backup(&site, &tree, &[]);
    tree.file("a", "in the year 2130");
    tree.file("later", "deleted soon");
    backup(&site, &tree, &["--time", "2130-01-01T00:00:00Z"]);
    fs::remove_file(tree.at("later")).unwrap();
    tree.file("a", "now again");
    let before = snapshot_ids(&site);
    let ran = site.bygone(["backup", "--json", tree.top().to_str().unwrap()]).ok().complains_of(&["2130", "clock"]);
    assert_eq!(ran.json()["parent"], before[0].as_str(), "the one of the wrong clock is no parent");
    let read = site.bygone(["cat".to_owned(), format!("latest:{}/a", tree.top().display())]).ok();
    assert_eq!(read.text(), "now again");
    site.bygone(["snapshots"]).ok().complains_of(&["later than now"]);
    if root() {
        let mounted = site.mount("mnt", &[]);
        let inside = mounted.point().join("latest").join(tree.top().strip_prefix("/").unwrap());
        assert_eq!(fs::read_to_string(inside.join("a")).unwrap(), "now again");
    }
}

#[test]
fn a_dry_run_does_nothing() {
    let (site, tree) = with_tree();
    let before = site.objects("");
    backup(&site, &tree, &["--dry-run"]);
    assert_eq!((site.objects(""), snapshot_ids(&site).len()), (before, 0));
    backup(&site, &tree, &[]);
    restore(&site, &site.at("target"), &["--dry-run"]).ok();
    assert!(!site.at("target").exists());
}

#[test]
fn hosts_and_tags_are_kept_and_asked_for() {
    let (site, tree) = with_tree();
    backup(&site, &tree, &["--tag", "daily", "--tag", "odd/one", "--host", "elsewhere"]);
    backup(&site, &tree, &[]);
    let count = |options: &[&str]| {
        site.bygone([&["snapshots", "--json"], options].concat()).ok().json().as_array().unwrap().len()
    };
    assert_eq!((count(&[]), count(&["--tag", "daily"]), count(&["--host", "elsewhere"])), (2, 1, 1));
    assert_eq!((count(&["--tag", "weekly"]), count(&["--path", "/elsewhere"])), (0, 0));
    if root() {
        let mounted = site.mount("mnt", &[]);
        let listed = |folder: &str| fs::read_dir(mounted.point().join(folder)).unwrap().count();
        // A host's folder has its snapshots, plus a link to the newest.
        assert_eq!((listed("snapshots"), listed("hosts"), listed("hosts/elsewhere"), listed("tags")), (2, 2, 2, 2));
        let by_tag = fs::read_dir(mounted.point().join("tags/daily")).unwrap().next().unwrap().unwrap().path();
        let file = by_tag.join(tree.at("e.txt").strip_prefix("/").unwrap());
        assert!(fs::read(file).unwrap() == fs::read(tree.at("e.txt")).unwrap());
        mounted.unmount().ok();
    }
}

#[test]
fn all_spellings_of_a_path_mean_the_same_path() {
    let (site, tree) = with_tree();
    let top = tree.top().to_str().unwrap();
    tree.symlink("../way", "source");
    for spelling in ["source", "./source/", "source/../source", "source/."] {
        site.bygone(["backup", spelling]).ok();
        let paths = site.bygone(["snapshots", "--json", "--latest", "1"]).ok().json()[0]["paths"].clone();
        assert_eq!(paths, serde_json::json!([top]), "{spelling}");
    }
    site.bygone(["backup", top, &format!("{top}/keep"), top]).ok();
    assert_eq!(files(&site, &tree).len(), 5, "nothing twice");
}

#[test]
fn a_repository_does_not_back_itself_up() {
    let (site, tree) = with_tree();
    let everything = site.at("").display().to_string();
    for _ in 0..2 {
        let ran = site.bygone(["backup", everything.as_str()]);
        assert!([0, 3].contains(&ran.code), "{ran}");
    }
    let listed = site.bygone(["ls", "-R", "latest"]).ok();
    assert!(listed.text().contains("/source/keep/a.txt"), "{listed}");
    assert!(!listed.text().contains("/repository/data"), "{listed}");
    assert!(!listed.text().contains("catalog.sqlite"), "{listed}");
    drop(tree);
}

#[test]
fn a_restore_takes_only_what_was_asked_for() {
    let (site, tree) = with_tree();
    backup(&site, &tree, &[]);
    let restored_files = |name: &str, options: &[&str]| {
        let target = site.at(name);
        restore(&site, &target, options).ok();
        let top = restored(&target, tree.top());
        let found = tool(Command::new("find").arg(&top).args(["-type", "f", "-printf", "%P\\n"]));
        String::from_utf8(found).unwrap().lines().map(str::to_string).collect::<BTreeSet<_>>()
    };
    assert_eq!(restored_files("included", &["--include", "*.log"]), set(&["keep/b.log", "drop/deep/d.log"]));
    assert_eq!(restored_files("excluded", &["--exclude", "drop"]), set(&["keep/a.txt", "keep/b.log", "e.txt"]));
    assert_eq!(restored_files("verified", &["--verify"]).len(), 5);
}

#[test]
fn a_restore_over_existing_files_needs_an_option() {
    let (site, tree) = with_tree();
    backup(&site, &tree, &[]);
    let target = site.at("target");
    restore(&site, &target, &[]).ok();
    let inside = Tree::new(&restored(&target, tree.top()));
    let spoil = || {
        inside.file("e.txt", "spoilt");
        inside.file("extra", "mine");
        fs::remove_file(inside.at("keep/a.txt")).unwrap_or_default();
    };
    let content = || fs::read(inside.at("e.txt")).unwrap();
    spoil();
    restore(&site, &target, &[]).ended_with(1);
    assert_eq!(content(), b"spoilt");
    restore(&site, &target, &["--overwrite", "never"]).ok();
    assert!(content() == b"spoilt" && inside.at("keep/a.txt").exists() && inside.at("extra").exists());
    spoil();
    restore(&site, &target, &["--overwrite", "if-newer"]).ok();
    assert!(content() == b"spoilt", "the file there is newer");
    restore(&site, &target, &["--overwrite", "if-changed"]).ok();
    assert!(content() == fs::read(tree.at("e.txt")).unwrap() && inside.at("extra").exists());
    spoil();
    let untouched = fs::metadata(inside.at("keep/b.log")).unwrap().ino();
    restore(&site, &target, &["--overwrite", "if-changed", "--delete"]).ok();
    compare::assert_same(tree.top(), inside.top());
    assert_eq!(fs::metadata(inside.at("keep/b.log")).unwrap().ino(), untouched, "what is the same is left as it is");
    spoil();
    restore(&site, &target, &["--overwrite", "always", "--delete"]).ok();
    compare::assert_same(tree.top(), inside.top());
}

#[test]
fn a_single_file_is_restored_as_the_target_or_into_it() {
    let (site, tree) = with_tree();
    backup(&site, &tree, &[]);
    let what = format!("latest:{}/e.txt", tree.top().display());
    let to = |name: &str, options: &[&str]| {
        let target = site.at(name).to_str().unwrap().to_owned() + if name.ends_with('/') { "/" } else { "" };
        site.bygone([&["restore", &what, "--target", &target], options].concat())
    };
    let content = fs::read(tree.at("e.txt")).unwrap();
    let is_there = |name: &str| fs::read(site.at(name)).unwrap() == content;
    to("new.txt", &[]).ok();
    to("made/deep.txt", &[]).ok();
    fs::create_dir(site.at("folder")).unwrap();
    fs::write(site.at("folder/other"), "").unwrap();
    to("folder", &[]).ok();
    to("fresh/", &[]).ok();
    assert!(["new.txt", "made/deep.txt", "folder/e.txt", "fresh/e.txt"].into_iter().all(is_there));
    fs::write(site.at("new.txt"), "mine").unwrap();
    to("new.txt", &[]).ended_with(1).complains_of(&["new.txt", "--overwrite"]);
    assert_eq!(fs::read(site.at("new.txt")).unwrap(), b"mine");
    to("new.txt", &["--overwrite", "always"]).ok();
    assert!(is_there("new.txt"));
}

#[test]
fn a_dry_run_of_a_restore_says_what_the_restore_does() {
    let (site, tree) = with_tree();
    tree.xattr("e.txt", "user.x", b"x");
    backup(&site, &tree, &[]);
    let target = site.at("target");
    restore(&site, &target, &[]).ok();
    let dry = |options: &[&str]| restore(&site, &target, &[&["--dry-run"], options].concat()).ok();
    let identical = dry(&["--overwrite", "if-changed", "--delete"]);
    assert_eq!(identical.text().lines().count(), 1, "nothing but the summary: {identical}");
    let inside = Tree::new(&restored(&target, tree.top()));
    inside.file("e.txt", "changed");
    inside.file("extra/x", "x");
    inside.xattr("keep/a.txt", "user.more", b"x");
    let said = dry(&["--overwrite", "if-changed", "--delete"]);
    let of = |word: &str, name: &str| format!("{word:<7} {}", inside.at(name).display());
    for line in [of("replace", "e.txt"), of("adjust", "keep/a.txt"), of("delete", "extra")] {
        assert!(said.text().lines().any(|said| said == line), "{line}: {said}");
    }
    assert!(said.text().contains("would restore") && said.text().contains("delete 2"), "{said}");
    let counts = |options: &[&str]| {
        let mut value =
            restore(&site, &target, &[&["--json", "--overwrite", "if-changed", "--delete"], options].concat())
                .ok()
                .json();
        for key in ["seconds", "dry_run", "steps"] {
            value.as_object_mut().unwrap().remove(key);
        }
        value
    };
    assert_eq!(counts(&["--dry-run"]), counts(&[]));
}

#[test]
fn a_pattern_that_matches_nothing_is_named() {
    let (site, tree) = with_tree();
    backup(&site, &tree, &[]);
    restore(&site, &site.at("target"), &["--include", "nosuch"]).ended_with(1).complains_of(&["warning", "nosuch"]);
    restore(&site, &site.at("target"), &["--include", "nosuch", "--include", "e.txt"]).ok();
}

#[test]
fn a_restore_never_leaves_its_target() {
    let (site, tree) = with_tree();
    backup(&site, &tree, &[]);
    let outside = Tree::new(&site.at("outside"));
    outside.file("a.txt", "untouched");
    outside.file("e.txt", "untouched");
    let target = site.at("target");
    let inside = Tree::new(&restored(&target, tree.top()));
    // A directory, a file and a hard link in the target lead out of it.
    inside.symlink("keep", outside.top());
    inside.symlink("e.txt", outside.at("e.txt"));
    inside.directory("drop");
    fs::hard_link(outside.at("a.txt"), inside.at("drop/c.txt")).unwrap();
    restore(&site, &target, &["--overwrite", "always", "--delete"]).ok();
    compare::assert_same(tree.top(), inside.top());
    for name in ["a.txt", "e.txt"] {
        assert_eq!(fs::read_to_string(outside.at(name)).unwrap(), "untouched", "{name}");
    }
    assert_eq!(fs::read_dir(outside.top()).unwrap().count(), 2);
}
