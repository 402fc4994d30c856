//! The way to the store: rclone, broken links, limits that change during a backup, and the configuration that sets
//! them.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use bygone_tests::compare;
use bygone_tests::fake_s3::FakeS3;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::program::Started;
use bygone_tests::program::is_mounted;
use bygone_tests::program::unmount;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::slow_link::Shape;
use bygone_tests::slow_link::SlowLink;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::new_site;
use crate::site::programs;
use crate::site::restored;
use crate::site::snapshot_ids;

fn tree(site: &Site) -> Tree {
    let tree = Tree::new(&site.at("source"));
    tree.file("a.txt", prose(1, 300_000));
    tree.file("noise", random(2, 3_000_000));
    tree.file("deep/er/b.txt", prose(3, 10_000));
    tree
}

/// `bygone ARGUMENTS` on the repository's directory through rclone.
fn by_rclone<A: AsRef<OsStr>>(site: &Site, arguments: impl IntoIterator<Item = A>) -> Ran {
    let mut command = site.bygone_command(arguments);
    command.env("BYGONE_REPO", format!("rclone:{}", site.repository().display()));
    site.run(command)
}

fn configure(site: &Site, text: &str) {
    let directory = site.at("config/bygone");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config.toml"), text).unwrap();
}

fn signal(started: &Started, signal: Signal) {
    kill(Pid::from_raw(started.child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn a_repository_behind_rclone_lives_a_whole_life() {
    let site = Site::new(&programs());
    let tree = tree(&site);
    by_rclone(&site, ["init", "--kdf-memory", "8MiB"]).ok();
    by_rclone(&site, ["init"]).ended_with(1).complains_of(&["already exists", "rclone:"]);
    by_rclone(&site, [OsStr::new("backup"), tree.top().as_os_str()]).ok();
    by_rclone(&site, ["check", "--read-data"]).ok();
    fs::remove_dir_all(site.catalogs()).unwrap();
    by_rclone(&site, ["recover"]).ok();
    let target = site.at("target");
    by_rclone(&site, ["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()]).ok();
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
    // Without rclone, the same objects are whole and have the right names.
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn a_background_mount_reads_through_rclone() {
    if !root() {
        return;
    }
    let site = new_site();
    let tree = tree(&site);
    site.backup(tree.top());
    let point = site.at("mnt");
    fs::create_dir(&point).unwrap();
    let mut command = site.command(&programs().mount, [&point]);
    command.env("BYGONE_REPO", format!("rclone:{}", site.repository().display()));
    site.run(command).ok();
    assert!(is_mounted(&point));
    let inside = point.join("latest").join(tree.top().strip_prefix("/").unwrap());
    let read = fs::read(inside.join("noise")).unwrap();
    unmount(&point);
    assert!(read == random(2, 3_000_000), "the mount shows the bytes that were backed up");
}

#[test]
fn rclone_dies_with_a_backup_that_is_killed() {
    let site = new_site();
    let tree = tree(&site);
    let mut command = site.bygone_command(["--limit-upload", "1", "backup", tree.top().to_str().unwrap()]);
    command.env("BYGONE_REPO", format!("rclone:{}", site.repository().display()));
    let started = site.start(command);
    site.wait_until_announced();
    let children = children(started.child.id());
    assert_eq!(children.len(), 1, "one rclone serves the store");
    signal(&started, Signal::SIGKILL);
    started.end().ended_with(128 + 9);
    let is_running = |pid: &PathBuf| fs::read_to_string(pid.join("cmdline")).is_ok_and(|line| line.contains("rcd"));
    wait_until("rclone ends", || !children.iter().any(is_running));
    by_rclone(&site, [OsStr::new("backup"), tree.top().as_os_str()]).ok();
    site.bygone(["check", "--read-data"]).ok();
}

/// The children of a process, as directories below /proc.
fn children(pid: u32) -> Vec<PathBuf> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap());
    children
        .flat_map(|line| line.split_whitespace().map(|pid| Path::new("/proc").join(pid)).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_missing_rclone_and_an_unknown_place_say_what_to_do() {
    let site = new_site();
    let mut command = site.bygone_command(["-r", "rclone:nowhere:x", "snapshots"]);
    command.env("PATH", "/nonexistent");
    site.run(command).ended_with(1).complains_of(&["rclone", "not installed", "package rclone"]);
    site.bygone(["-r", "rclone:nowhere:x", "snapshots"]).ended_with(1).complains_of(&["nowhere", "rclone says"]);
    site.bygone(["-r", "rclone:nowhere", "snapshots"]).ended_with(2).complains_of(&["rclone:REMOTE:PATH"]);
    let empty = site.at("empty");
    let address = format!("rclone:{}", empty.display());
    site.bygone(["-r", &address, "snapshots"]).ended_with(10).complains_of(&["no bygone repository", &address]);
}

#[test]
fn a_backup_over_a_link_that_is_cut_again_and_again_is_complete() {
    const CUTS: usize = 6;
    let site = Site::new(&programs());
    let tree = Tree::new(&site.at("source"));
    (0..8).for_each(|n| drop(tree.file(format!("{n}"), random(n, 1_000_000))));
    let server = FakeS3::start();
    let direct = server.store("repository");
    let here = server.endpoint().strip_prefix("http://").unwrap().parse().unwrap();
    let shape = Shape { latency: Duration::from_millis(1), ..Shape::default() };
    let link = SlowLink::to(here, shape.with_resets(1, CUTS, 6_000_000)).unwrap();
    let over_the_link = direct.replace(&server.endpoint(), &format!("http://{}", link.address()));
    let run = |address: &str, arguments: &[&str]| {
        site.set_bucket(address);
        site.bygone(arguments).ok()
    };
    run(&direct, &["init", "--kdf-memory", "8MiB", "--volume-size", "1MiB"]);
    run(&over_the_link, &["--parallel", "4", "backup", tree.top().to_str().unwrap()]);
    assert_eq!(link.counts().resets, CUTS as u64);
    let stored: usize = server.objects().values().map(Vec::len).sum();
    let twice = link.counts().bytes_up - stored as u64;
    // Each cut connection costs at most one volume, which is a little longer than its target.
    assert!(twice < CUTS as u64 * (3 << 20) / 2, "{twice} bytes were sent twice");
    run(&direct, &["check", "--read-data"]);
}

#[test]
fn a_profile_sets_how_long_to_retry() {
    let site = Site::new(&programs());
    // Nothing listens there any more. Without the profile, bygone would retry for a quarter of an hour.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    configure(&site, "[profile.now]\nretry-for = \"0\"\n");
    let address = format!("s3://bucket/repository?endpoint=http://{gone}&region=r");
    site.set_bucket(&address);
    site.bygone(["--profile", "now", "snapshots"]).ended_with(1).complains_of(&["Connection refused"]);
    configure(&site, "[profile.now]\nretry-for = \"soon\"\n");
    site.bygone(["--profile", "now", "snapshots"]).ended_with(2).complains_of(&["line 2, retry-for", "90s, 15m, 2h"]);
}

#[test]
fn check_and_restore_of_a_far_store_run_several_transfers() {
    let site = Site::new(&programs());
    let tree = Tree::new(&site.at("source"));
    (0..12).for_each(|n| drop(tree.file(format!("{n}"), random(n, 1_500_000))));
    let server = FakeS3::start();
    let direct = server.store("repository");
    let here = server.endpoint().strip_prefix("http://").unwrap().parse().unwrap();
    // A new connection is made only when all others are in use.
    let over_a_link = |arguments: &[&str]| {
        let shape = Shape { latency: Duration::from_millis(20), ..Shape::default() };
        let link = SlowLink::to(here, shape).unwrap();
        let address = direct.replace(&server.endpoint(), &format!("http://{}", link.address()));
        site.set_bucket(&address);
        site.bygone(arguments).ok();
        link.counts()
    };
    over_a_link(&["init", "--kdf-memory", "8MiB", "--volume-size", "1MiB"]);
    over_a_link(&["backup", tree.top().to_str().unwrap()]);
    let volumes =
        server.objects().keys().filter(|name| name.contains("data/") || name.contains("meta/")).count() as u64;
    let one = over_a_link(&["--parallel", "1", "check", "--read-data"]);
    let six = over_a_link(&["--parallel", "6", "check", "--read-data"]);
    assert!(volumes > 12 && one.requests < volumes + 12 && six.requests < volumes + 12, "{volumes}, {one:?}, {six:?}");
    assert!(six.connections >= 6 && one.connections < 6, "{one:?}, {six:?}");
    for (parallel, target) in [("1", "first"), ("6", "second")] {
        let target = site.at(target);
        let counts = over_a_link(&["--parallel", parallel, "restore", "latest", "--target", target.to_str().unwrap()]);
        compare::assert_same(tree.top(), &restored(&target, tree.top()));
        assert_eq!(counts.connections >= 6, parallel == "6", "{counts:?}");
    }
}

#[test]
fn lifting_a_limit_affects_a_running_backup_at_once() {
    let site = new_site();
    let tree = tree(&site);
    configure(&site, "[defaults]\nlimit-upload = 1\n");
    let started = site.start(site.bygone_command([OsStr::new("backup"), tree.top().as_os_str()]));
    site.wait_until_announced();
    // At a byte a second the backup would take a month.
    configure(&site, "[defaults]\nlimit-upload = \"fast\"\n");
    signal(&started, Signal::SIGHUP);
    wait_until("a wrong configuration is reported", || started.complaint().contains("the limits stay as they were"));
    assert!(started.complaint().contains("line 2, limit-upload"), "{}", started.complaint());
    configure(&site, "[defaults]\nlimit-upload = \"none\"\n");
    signal(&started, Signal::SIGHUP);
    started.end().ok();
    assert_eq!(snapshot_ids(&site).len(), 1);
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn command_line_limits_override_the_configuration() {
    let site = new_site();
    let tree = tree(&site);
    configure(&site, "[defaults]\nlimit-upload = 1\nlimit-download = 1\n");
    let unlimited = ["--limit-upload", "none", "--limit-download", "1GiB/s", "--parallel", "1"];
    site.bygone([&unlimited[..], &["backup", tree.top().to_str().unwrap()]].concat()).ok();
    for (option, value) in [("--limit-upload", "0"), ("--limit-download", "fast"), ("--parallel", "33")] {
        site.bygone([option, value, "snapshots"]).ended_with(2).complains_of(&[option, value]);
    }
}

#[test]
fn a_profile_sets_repository_paths_and_options() {
    let site = Site::new(&programs());
    let tree = tree(&site);
    let passphrase = site.at("home/passphrase");
    fs::write(&passphrase, "a passphrase of its own\n").unwrap();
    let text = format!(
        "[profile.home]\nrepository = \"~/repository\"\npassphrase-file = \"~/passphrase\"\npaths = [{:?}]\n\
         exclude = [\"noise\"]\nparallel = 2\n",
        tree.top()
    );
    configure(&site, &text);
    let by_profile = |arguments: &[&str]| site.bygone([&["--profile", "home"], arguments].concat());
    by_profile(&["init", "--kdf-memory", "8MiB"]).ok();
    by_profile(&["backup"]).ok();
    assert!(site.at("home/repository/bygone.json").exists(), "the profile is stronger than BYGONE_REPO");
    let listed = by_profile(&["ls", "-R", "latest"]).ok();
    assert!(listed.text().contains("b.txt") && !listed.text().contains("noise"), "{listed}");
    site.bygone(["--profile", "work", "snapshots"])
        .ended_with(2)
        .complains_of(&["[profile.work]", "its profiles: home"]);
    site.bygone(["backup"]).ended_with(2).complains_of(&["nothing to back up", "paths"]);
}

#[test]
fn a_mount_reads_its_configuration_again() {
    if !root() {
        return;
    }
    let site = new_site();
    let tree = tree(&site);
    site.backup(tree.top());
    let log = site.at("log");
    let mounted = site.mount("mnt", &["--log", log.to_str().unwrap()]);
    configure(&site, "[defaults]\nlimit-download = \"\"\n");
    wait_until("the mount takes signals", || catches_sighup(mounted.pid()));
    kill(Pid::from_raw(mounted.pid().try_into().unwrap()), Signal::SIGHUP).unwrap();
    let logged = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("a wrong configuration is reported", || logged().contains("the limits stay as they were"));
    assert!(fs::read(mounted.latest(&tree.at("noise"))).unwrap() == random(2, 3_000_000), "and the mount goes on");
    mounted.unmount().ok();
}

fn catches_sighup(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (Signal::SIGHUP as i32 - 1) & 1 == 1
}
