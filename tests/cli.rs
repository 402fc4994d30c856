//! The command line: every wrong call and every outside failure has an exit code, and a message that says what failed,
//! where, and what to do next. Stored data survives all of them.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use serde_json::json;

use bygone_tests::compare;
use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Site;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::new_site;
use crate::site::programs;
use crate::site::restored;
use crate::site::snapshot_ids;
use crate::site::with_environment;

fn with_snapshot() -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("directory/file", prose(1, 200_000));
    tree.file("tiny", "tiny");
    tree.symlink("link", "tiny");
    site.backup(tree.top());
    (site, tree)
}

#[test]
fn wrong_usage_ends_with_2() {
    let site = new_site();
    for arguments in [
        &["no-such-command"][..],
        &["backup"],
        &["restore", "latest"],
        &["snapshots", "--no-such-option"],
        &["init", "--block-size", "a lot"],
        &[],
    ] {
        site.bygone(arguments).ended_with(2);
    }
    site.bygone(["--help"]).ok();
    site.bygone(["--version"]).ok();
    site.bygone_mount(["--help"]).ok();
    site.bygone_mount::<&str>([]).ended_with(2);
    with_environment(&site, &["snapshots"], |command| command.env_remove("BYGONE_REPO")).ended_with(2);
}

#[test]
fn a_place_without_a_repository_ends_with_10() {
    let site = new_site();
    let (missing, empty, other) = (site.at("missing"), site.at("empty"), site.at("other"));
    fs::create_dir(&empty).unwrap();
    Tree::new(&other).file("something", "else");
    for place in [&missing, &empty, &other] {
        let place = place.to_str().unwrap();
        for arguments in [
            &["snapshots"][..],
            &["backup", "/usr/share/doc"],
            &["restore", "latest", "--target", "/nowhere"],
            &["check"],
            &["recover"],
            &["ls", "latest"],
        ] {
            let command = [&["-r", place], arguments].concat();
            site.bygone(command).ended_with(10).complains_of(&[place, "init"]);
        }
    }
    assert!(!missing.exists(), "asking does not make anything");
    let mount = site.at("mnt");
    fs::create_dir(&mount).unwrap();
    site.bygone_mount(["-r", missing.to_str().unwrap(), mount.to_str().unwrap()]).ended_with(10);
}

#[test]
fn a_repository_is_never_made_over_another() {
    let (site, _tree) = with_snapshot();
    let before = site.objects("");
    site.bygone(["init"]).ended_with(1).complains_of(&["exists"]);
    assert_eq!(site.objects(""), before);
}

#[test]
fn a_missing_path_is_named() {
    let (site, tree) = with_snapshot();
    site.bygone(["backup", "/no/such/path"]).ended_with(1).complains_of(&["/no/such/path"]);
    assert_eq!(snapshot_ids(&site).len(), 1, "there is nothing to make a snapshot of");
    let paths = ["backup", tree.top().to_str().unwrap(), "/no/such/path"];
    site.bygone(paths).ended_with(3).complains_of(&["/no/such/path"]);
    assert_eq!(snapshot_ids(&site).len(), 2, "one of several: the others are backed up");
}

#[test]
fn a_path_or_snapshot_that_does_not_exist_ends_with_1() {
    let (site, _tree) = with_snapshot();
    for arguments in [
        &["ls", "latest:/no/such"][..],
        &["cat", "latest:/no/such"],
        &["ls", "ffffffffffff"],
        &["ls", "latest~7"],
        &["restore", "ffffffff", "--target", "/nowhere"],
    ] {
        let ran = site.bygone(arguments).ended_with(1);
        assert!(ran.err.contains("not found") || ran.err.contains("no snapshot"), "{ran}");
    }
    assert!(!Path::new("/nowhere").exists());
    let empty = new_site();
    empty.bygone(["restore", "latest", "--target", "/nowhere"]).ended_with(1);
}

#[test]
fn a_restore_never_writes_over_what_is_there() {
    let (site, tree) = with_snapshot();
    let target = Tree::new(&site.at("target"));
    target.file("mine", "do not touch");
    target.file("tiny", "mine as well");
    let to = target.top().to_str().unwrap();
    let what = format!("latest:{}", tree.top().display());
    site.bygone(["restore", &what, "--target", to]).ended_with(1).complains_of(&["target/tiny", "--overwrite"]);
    assert_eq!(fs::read_dir(target.top()).unwrap().count(), 2, "nothing at all was restored");
    assert_eq!(fs::read_to_string(target.at("tiny")).unwrap(), "mine as well");
    fs::remove_file(target.at("tiny")).unwrap();
    site.bygone(["restore", &what, "--target", to]).ok();
    assert_eq!(fs::read_to_string(target.at("tiny")).unwrap(), "tiny", "what is not there is in nobody's way");
    let file = target.at("mine");
    site.bygone(["restore", "latest", "--target", file.to_str().unwrap()]).ended_with(1);
    assert_eq!(fs::read_to_string(file).unwrap(), "do not touch");
}

#[test]
fn a_mount_point_must_be_there_and_free() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    site.bygone_mount([site.at("no-such-point")]).ended_with(1).complains_of(&["no-such-point"]);
    site.bygone_mount([tree.at("tiny")]).ended_with(1).complains_of(&["tiny"]);
    site.bygone_mount([site.repository()]).ended_with(1).complains_of(&["repository"]);
    site.bygone_mount([site.repository().join("data")]).ended_with(1);
}

#[test]
fn an_absent_store_loses_nothing() {
    let (site, tree) = with_snapshot();
    let away = site.at("away");
    fs::rename(site.repository(), &away).unwrap();
    tree.file("new", random(5, 100_000));
    let backup = ["backup", tree.top().to_str().unwrap()];
    site.bygone(backup).ended_with(10).complains_of(&["repository"]);
    site.bygone(["check"]).ended_with(10);
    assert!(!site.repository().exists(), "an absent disk's mount point is not filled");
    fs::rename(&away, site.repository()).unwrap();
    site.bygone(backup).ok();
    site.bygone(["check", "--read-data"]).ok();
    assert_eq!(snapshot_ids(&site).len(), 2);
}

/// A small file system of its own, unmounted at the end.
pub struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    pub fn mount<'a>(point: &'a Path, size: &str) -> SmallDisk<'a> {
        fs::create_dir_all(point).unwrap();
        tool(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(point));
        SmallDisk(point)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).output());
    }
}

#[test]
fn a_full_disk_ends_with_1_and_the_next_backup_completes() {
    if !root() {
        return;
    }
    let site = Site::new(&programs());
    let point = site.repository();
    let _disk = SmallDisk::mount(&point, "12m");
    site.bygone(["init", "--kdf-memory", "8MiB", "--volume-size", "1MiB"]).ok();
    let tree = Tree::new(&site.at("source"));
    tree.file("small", random(1, 2 << 20));
    site.backup(tree.top());
    (0..30).for_each(|n| drop(tree.file(format!("{n}"), random(n + 10, 1 << 20))));
    let full = site.bygone(["backup", tree.top().to_str().unwrap()]).ended_with(1);
    full.complains_of(&["No space left"]);
    assert_eq!(snapshot_ids(&site).len(), 1, "no snapshot is made of a backup that did not fit");
    site.restore("latest", &site.at("target"));
    tool(Command::new("mount").args(["-o", "remount,size=100m"]).arg(&point));
    site.backup(tree.top());
    site.bygone(["check", "--read-data"]).ok();
    site.restore("latest", &site.at("all"));
    compare::assert_same(tree.top(), &restored(&site.at("all"), tree.top()));
}

#[test]
fn a_full_target_ends_with_1() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    tree.file("large", random(3, 5 << 20));
    site.backup(tree.top());
    let target = site.at("target");
    let _disk = SmallDisk::mount(&target, "2m");
    let ran = site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]).ended_with(1);
    ran.complains_of(&["No space left"]);
}

#[test]
fn two_backups_at_once_exclude_each_other() {
    let (site, tree) = with_snapshot();
    // It waits for its standard input and holds the lock meanwhile.
    let first = site.start_reading(site.bygone_command(["backup", "--stdin", "stream"]), Stdio::piped());
    site.wait_until_announced();
    site.bygone(["backup", tree.top().to_str().unwrap()]).ended_with(11).complains_of(&["another bygone"]);
    site.bygone(["snapshots"]).ok();
    first.end().ended_with(3).complains_of(&["the standard input had nothing in it"]);
    site.backup(tree.top());
    assert_eq!(snapshot_ids(&site).len(), 3);
}

#[test]
fn an_interrupted_backup_ends_with_130_and_the_next_goes_on() {
    let (site, tree) = with_snapshot();
    for attempt in 0.. {
        let before = snapshot_ids(&site).len();
        // It waits for the rest of its standard input, so it cannot end before the signal arrives.
        let mut running = site.start_reading(site.bygone_command(["backup", "--stdin", "stream"]), Stdio::piped());
        let mut input = running.child.stdin.take().unwrap();
        input.write_all(&random(attempt, 20 << 20)).unwrap();
        site.wait_until_announced();
        let pid = Pid::from_raw(running.child.id().try_into().unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        sleep(Duration::from_millis(200) * (attempt as u32 + 1));
        drop(input);
        let ended = running.end();
        // On a busy machine the signal may still arrive too late; then try again.
        if ended.code == 0 && attempt < 20 {
            continue;
        }
        ended.ended_with(130);
        assert_eq!(snapshot_ids(&site).len(), before);
        break;
    }
    site.backup(tree.top());
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let (site, _tree) = with_snapshot();
    let mut shell = site.command(Path::new("bash"), ["-c", "\"$0\" ls -R latest | head -1; exit ${PIPESTATUS[0]}"]);
    shell.arg(programs().bygone);
    let ran = site.run(shell);
    assert!([0, 1, 141].contains(&ran.code), "{ran}");
}

#[test]
fn ls_and_cat_show_what_a_snapshot_holds() {
    let (site, tree) = with_snapshot();
    let top = tree.top().to_str().unwrap();
    let listed = site.bygone(["ls", &format!("latest:{top}")]).ok();
    assert_eq!(listed.text().lines().count(), 3, "{listed}");
    let all = site.bygone(["ls", "-l", "-R", "latest"]).ok();
    assert!(all.text().contains("directory") && all.text().contains("200000"), "{all}");
    let content = site.bygone(["cat", &format!("latest:{top}/directory/file")]).ok();
    assert!(content.out == prose(1, 200_000));
    site.bygone(["cat", &format!("latest:{top}/directory")]).ended_with(2).complains_of(&["directory"]);
}

#[test]
fn names_are_exact_in_a_pipe_and_harmless_on_a_terminal() {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("a\x1b[2Jb", "x");
    tree.file("new\nline", "x");
    site.backup(tree.top());
    let piped = site.bygone(["ls", "-R", "latest"]).ok();
    assert!(piped.text().contains("/a\x1b[2Jb\n") && piped.text().contains("/new\nline\n"), "{piped}");
    // script gives the command a terminal.
    let line = format!("{} ls -R latest", programs().bygone.display());
    let shown = site.run(site.command(Path::new("script"), ["-qec", &line, "/dev/null"])).ok();
    assert!(!shown.out.contains(&0x1b), "{shown}");
    assert!(shown.text().contains("new\\nline") && shown.text().contains("a\\x1b[2Jb"), "{shown}");
}

#[test]
fn passphrases_are_added_changed_and_removed() {
    let (site, _tree) = with_snapshot();
    let with = |passphrase: &str, arguments: &[&str]| {
        with_environment(&site, arguments, |command| {
            command.env("BYGONE_PASSPHRASE", passphrase).env("BYGONE_NEW_PASSPHRASE", "second")
        })
    };
    let slots = |passphrase: &str| with(passphrase, &["key", "list", "--json"]).ok().json()["slots"].clone();
    with(PASSPHRASE, &["key", "add", "--kdf-memory", "8MiB"]).ok();
    with(PASSPHRASE, &["snapshots"]).ok();
    with("second", &["snapshots"]).ok();
    assert_eq!(slots("second").as_array().unwrap().len(), 2);

    fs::write(site.at("third"), "third\n").unwrap();
    let file = site.at("third");
    with("second", &["key", "passwd", "--kdf-memory", "8MiB", "--new-passphrase-file", file.to_str().unwrap()]).ok();
    with("second", &["snapshots"]).ended_with(12);
    with("third", &["snapshots"]).ok();
    with(PASSPHRASE, &["snapshots"]).ok();

    let current = |slot: &Value| slot["current"] == Value::Bool(true);
    let own = slots(PASSPHRASE).as_array().unwrap().iter().find(|slot| current(slot)).unwrap()["id"].clone();
    with("third", &["key", "remove", own.as_str().unwrap()]).ok();
    with(PASSPHRASE, &["snapshots"]).ended_with(12);
    let last = slots("third").as_array().unwrap()[0]["id"].clone();
    let refused = with("third", &["key", "remove", last.as_str().unwrap()]);
    assert!([1, 2].contains(&refused.code), "the last key stays: {refused}");
    with("third", &["check", "--read-data"]).ok();
}

#[test]
fn every_command_speaks_json() {
    let site = Site::new(&programs());
    let tree = Tree::new(&site.at("source"));
    tree.file("file", prose(1, 200_000));
    let (top, target) = (tree.top().to_str().unwrap(), site.at("target"));
    let fields = |arguments: &[&str], fields: &[&str]| {
        let printed = site.bygone([arguments, &["--json"]].concat()).ok().json();
        let object = printed.as_array().map_or(&printed, |all| &all[0]);
        let missing: Vec<_> = fields.iter().filter(|field| object.get(**field).is_none()).collect();
        assert!(missing.is_empty(), "{arguments:?}: {missing:?} in {object}");
    };
    fields(&["init", "--kdf-memory", "8MiB"], &["repository", "fingerprint", "store", "catalog", "block_bytes"]);
    fields(&["backup", top], &[]);
    fields(&["snapshots"], &["id", "time", "host", "user", "tags", "paths", "parent", "files", "bytes", "bytes_new"]);
    fields(&["ls", "-R", "latest"], &["path", "kind", "mode", "uid", "gid", "size", "mtime", "nlink", "inode"]);
    fields(&["restore", "latest", "--target", target.to_str().unwrap()], &[]);
    fields(&["check", "--read-data"], &["result", "findings", "affected", "snapshots", "volumes", "bytes_read"]);
    fields(&["recover"], &["catalog", "commits", "snapshots", "volumes", "nodes", "damaged", "seconds"]);
    fields(&["key", "list"], &["fingerprint", "slots"]);

    let failed = site.bygone(["--json", "ls", "latest:/no/such"]).ended_with(1);
    let error: Value = serde_json::from_str(failed.err.trim()).unwrap();
    assert_eq!((&error["error"]["kind"], &error["error"]["exit_code"]), (&json!("failed"), &json!(1)));
    let usage = site.bygone(["--json", "no-such-command"]).ended_with(2);
    assert!(serde_json::from_str::<Value>(usage.err.trim()).is_ok(), "{usage}");
}

#[test]
fn an_ordinary_user_can_run_it() {
    if !root() {
        return;
    }
    let site = Site::new(&programs());
    let tree = Tree::new(&site.at("source"));
    tree.file("file", prose(1, 100_000));
    tool(Command::new("chown").args(["-R", "nobody:nogroup", "."]).current_dir(site.at("")));
    let as_nobody = |arguments: &[&str]| with_environment(&site, arguments, |command| command.uid(65_534).gid(65_534));
    as_nobody(&["init", "--kdf-memory", "8MiB"]).ok();
    as_nobody(&["backup", tree.top().to_str().unwrap()]).ok();
    as_nobody(&["restore", "latest", "--target", site.at("target").to_str().unwrap()]).ok();
    compare::assert_same(tree.top(), &restored(&site.at("target"), tree.top()));
}
