//! Messages, diagnosis codes and exit codes when the store is not as this machine left it, and when several agents work
//! on one repository.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use bygone_tests::compare;
use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::cli::SmallDisk;
use crate::site::new_site;
use crate::site::new_small_site;
use crate::site::programs;
use crate::site::restored;
use crate::site::snapshot_ids;

fn with_snapshots() -> (Site, Tree) {
    let site = new_small_site();
    let tree = Tree::new(&site.at("source"));
    (0..3u64).for_each(|n| drop(tree.file(format!("random/{n}"), random(n, 700_000))));
    tree.file("text", prose(1, 50_000));
    site.backup(tree.top());
    tree.file("second", random(77, 50_000));
    site.backup(tree.top());
    (site, tree)
}

fn backup(site: &Site, tree: &Tree, options: &[&str]) -> Ran {
    let mut arguments = vec!["backup", tree.top().to_str().unwrap()];
    arguments.extend(options);
    site.bygone(arguments)
}

fn first(site: &Site, folder: &str) -> String {
    site.objects(folder).into_keys().next().unwrap()
}

fn codes(printed: &Value, list: &str) -> Vec<String> {
    let all = printed[list].as_array().unwrap_or_else(|| panic!("no {list} in {printed}"));
    all.iter().map(|finding| finding["diagnosis"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_lost_volume_is_an_alarm_until_it_is_accepted() {
    let (site, tree) = with_snapshots();
    let victim = first(&site, "data");
    fs::remove_file(site.repository().join(&victim)).unwrap();
    let ran = backup(&site, &tree, &[]).ended_with(13);
    ran.complains_of(&["REMOTE_MISSING", &victim, "what to do", "accept-loss"]);
    assert_eq!(snapshot_ids(&site).len(), 3, "the backup was made nevertheless");
    site.restore("latest~2", &site.at("first"));
    site.restore("latest", &site.at("target"));
    compare::assert_same(tree.top(), &restored(&site.at("target"), tree.top()));

    let ran = backup(&site, &tree, &["--json"]).ended_with(13);
    assert_eq!(codes(&ran.json(), "alarms"), ["REMOTE_MISSING"]);
    let listed = site.bygone(["accept-loss"]).ended_with(13);
    assert!(listed.text().contains(&victim) && listed.text().contains("--yes"), "{listed}");
    let checked = site.bygone(["check", "--json"]).ended_with(13).json();
    assert_eq!(
        (codes(&checked, "findings"), checked["healed"][0].as_str()),
        (vec!["REMOTE_MISSING".into()], Some(&*victim))
    );
    site.bygone(["accept-loss", "REMOTE_CORRUPT"]).ended_with(13);
    let accepted = site.bygone(["accept-loss", "REMOTE_MISSING", "--json"]).ok().json();
    assert_eq!((codes(&accepted, "accepted").len(), codes(&accepted, "open").len()), (1, 0));
    backup(&site, &tree, &[]).ok();
    site.bygone(["check", "--read-data"]).ok();
    site.bygone(["accept-loss"]).ok();
}

#[test]
fn a_cut_volume_is_found_by_the_next_backup_and_stored_again() {
    let (site, tree) = with_snapshots();
    let victim = first(&site, "data");
    let bytes = fs::read(site.repository().join(&victim)).unwrap();
    site.replace(&victim, &bytes[..bytes.len() / 3]);
    backup(&site, &tree, &[]).ended_with(13).complains_of(&["REMOTE_TRUNCATED", &victim]);
    site.restore("latest", &site.at("target"));
    compare::assert_same(tree.top(), &restored(&site.at("target"), tree.top()));
    // Once the whole volume is back, the alarm ends.
    site.replace(&victim, &bytes);
    backup(&site, &tree, &[]).ok().complains_of(&["is intact again"]);
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn a_rolled_back_store_stops_backups_until_it_is_accepted() {
    let (site, tree) = with_snapshots();
    tool(Command::new("cp").arg("-a").arg(site.repository()).arg(site.at("earlier")));
    tree.file("third", random(78, 50_000));
    site.backup(tree.top());
    fs::rename(site.repository(), site.at("later")).unwrap();
    fs::rename(site.at("earlier"), site.repository()).unwrap();
    let before = site.objects("");
    let ran = backup(&site, &tree, &[]).ended_with(13);
    ran.complains_of(&["REMOTE_ROLLED_BACK", "nothing was written", "accept-loss"]);
    let after = site.objects("");
    assert!(before.iter().all(|object| after.get(object.0) == Some(object.1)), "nothing is deleted");
    assert!(after.keys().all(|name| before.contains_key(name) || name.starts_with("running/")), "nor written");
    let json = backup(&site, &tree, &["--json"]).ended_with(13);
    assert_eq!(error_code(&json), "REMOTE_ROLLED_BACK");

    site.bygone(["accept-loss"]).ended_with(13);
    let accepted = site.bygone(["accept-loss", "--yes"]).ok();
    assert!(accepted.text().contains("a new chain of commits"), "{accepted}");
    backup(&site, &tree, &[]).ok();
    site.restore("latest", &site.at("target"));
    compare::assert_same(tree.top(), &restored(&site.at("target"), tree.top()));
    assert_eq!(snapshot_ids(&site).len(), 4);
    site.bygone(["check", "--read-data"]).ok();
    // A new machine finds nothing wrong.
    fs::remove_dir_all(site.catalogs()).unwrap();
    site.bygone(["recover"]).ok();
    backup(&site, &tree, &[]).ok();
}

#[test]
fn an_old_catalog_is_recognised_and_catches_up() {
    let (site, tree) = with_snapshots();
    tool(Command::new("cp").arg("-a").arg(site.catalogs()).arg(site.at("old-catalogs")));
    tree.file("third", random(78, 50_000));
    site.backup(tree.top());
    fs::remove_dir_all(site.catalogs()).unwrap();
    fs::rename(site.at("old-catalogs"), site.catalogs()).unwrap();
    let made = backup(&site, &tree, &["--json"]).ok().json();
    let note = &made["notes"][0];
    assert_eq!(note["diagnosis"], "LOCAL_STALE", "{made}");
    assert!(note["detail"].as_str().is_some_and(|detail| detail.contains("caught up")), "{made}");
    assert_eq!(made["bytes_new"], 0, "what was stored since is used");
    assert_eq!(snapshot_ids(&site).len(), 4);
    assert_eq!(site.objects("commits").len(), 4, "the chain goes on");
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn objects_of_another_repository_are_named() {
    let (site, tree) = with_snapshots();
    let other = new_site();
    for name in ["keys", "bygone.json"] {
        fs::rename(site.repository().join(name), site.at(format!("own-{name}"))).unwrap();
        tool(Command::new("cp").arg("-a").arg(other.repository().join(name)).arg(site.repository()));
        let ran = backup(&site, &tree, &["--json"]).ended_with(13).complains_of(&["WRONG_REPO"]);
        assert!(ran.err.contains("bygone.json"), "{ran}");
        tool(Command::new("rm").arg("-r").arg(site.repository().join(name)));
        fs::rename(site.at(format!("own-{name}")), site.repository().join(name)).unwrap();
    }
    backup(&site, &tree, &[]).ok();
}

/// `bygone ARGUMENTS` of `machine` on the repository of `owner`.
fn command_on(machine: &Site, owner: &Site, arguments: &[&str]) -> Command {
    let mut command = machine.bygone_command(arguments);
    command.env("BYGONE_REPO", owner.repository());
    command
}

#[test]
fn three_machines_work_on_one_repository_at_once() {
    let site = new_small_site();
    let machines = [Site::new(&programs()), Site::new(&programs()), Site::new(&programs())];
    let shared = Tree::new(&site.at("shared"));
    (0..4u64).for_each(|n| drop(shared.file(format!("{n}"), random(n, 600_000))));
    let own: Vec<Tree> = machines.iter().map(|machine| Tree::new(&machine.at("own"))).collect();
    // First one after another, so that each finds what the previous one stored.
    for (number, machine) in machines.iter().enumerate() {
        let arguments = ["backup", "--json", shared.top().to_str().unwrap()];
        let made = machine.run(command_on(machine, &site, &arguments)).ok().json();
        assert_eq!(made["bytes_new"] == 0, number > 0, "machine {number}: only the first has anything to store");
    }
    for round in 0..3u64 {
        let running: Vec<_> = machines
            .iter()
            .zip(&own)
            .enumerate()
            .map(|(number, (machine, tree))| {
                tree.file(format!("{round}"), random(100 * round + number as u64, 400_000));
                let paths = ["backup", shared.top().to_str().unwrap(), tree.top().to_str().unwrap()];
                machine.start(command_on(machine, &site, &paths))
            })
            .collect();
        running.into_iter().for_each(|running| drop(running.end().ok()));
    }
    for (number, machine) in machines.iter().enumerate() {
        machine.run(command_on(machine, &site, &["check", "--read-data"])).ok();
        let listed = machine.run(command_on(machine, &site, &["snapshots", "--json"])).ok().json();
        let listed = listed.as_array().unwrap().clone();
        assert_eq!(listed.len(), 12, "machine {number} sees all snapshots");
        // Each machine restores the newest snapshot of every machine.
        for (owner, tree) in own.iter().enumerate() {
            let path = tree.top().to_str().unwrap();
            let of_owner = |snapshot: &&Value| snapshot["paths"].as_array().unwrap().iter().any(|known| known == path);
            let id = listed.iter().rfind(of_owner).unwrap()["id"].as_str().unwrap();
            let target = machine.at(format!("target-{owner}"));
            let to = target.to_str().unwrap();
            machine.run(command_on(machine, &site, &["restore", id, "--target", to])).ok();
            compare::assert_same(tree.top(), &restored(&target, tree.top()));
            compare::assert_same(shared.top(), &restored(&target, shared.top()));
        }
    }
    assert!(site.objects("running").is_empty());
}

#[test]
fn a_cloned_home_is_reported_and_loses_nothing() {
    let (site, tree) = with_snapshots();
    let clone = Site::new(&programs());
    tool(Command::new("cp").arg("-a").arg(site.catalogs()).arg(clone.at("state")));
    let top = tree.top().to_str().unwrap();
    clone.run(command_on(&clone, &site, &["backup", top])).ok();
    backup(&site, &tree, &[]).ok().complains_of(&["LOCAL_STALE", "cloned", "recover --force"]);
    clone.run(command_on(&clone, &site, &["recover", "--force"])).ok();
    let ran = clone.run(command_on(&clone, &site, &["backup", top])).ok();
    assert!(!ran.err.contains("LOCAL_STALE"), "{ran}");
    backup(&site, &tree, &[]).ok();
    assert_eq!(snapshot_ids(&site).len(), 6);
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn a_second_agent_waits_or_ends_with_11() {
    let (site, tree) = with_snapshots();
    let first = site.start_reading(site.bygone_command(["backup", "--stdin", "stream"]), Stdio::piped());
    site.wait_until_announced();
    let json = backup(&site, &tree, &["--json"]).ended_with(11);
    assert!(json.err.contains("\"LOCKED\"") && json.err.contains("--wait-lock"), "{json}");
    backup(&site, &tree, &["--wait-lock", "1s"]).ended_with(11).complains_of(&["waiting"]);
    let second = site.start(site.bygone_command(["backup", tree.top().to_str().unwrap(), "--wait-lock", "1h"]));
    wait_until("waiting", || second.complaint().contains("waiting for it to end"));
    first.end().ended_with(3);
    second.end().ok();
    assert_eq!(snapshot_ids(&site).len(), 4);
    site.bygone(["backup", "/x", "--wait-lock", "soon"]).ended_with(2);
}

#[test]
fn codes_of_everyday_trouble_are_in_the_json() {
    let (site, tree) = with_snapshots();
    let mut wrong = site.bygone_command(["snapshots", "--json"]);
    wrong.env("BYGONE_PASSPHRASE", format!("not {PASSPHRASE}"));
    assert!(site.run(wrong).ended_with(12).err.contains("\"WRONG_KEY\""));
    let missing = tree.at("no-such");
    let ran = site.bygone(["backup", "--json", tree.top().to_str().unwrap(), missing.to_str().unwrap()]).ended_with(3);
    assert_eq!(ran.json()["issues"][0]["code"], "SOURCE_UNREADABLE", "{ran}");
    assert_eq!(codes(&ran.json(), "alarms"), Vec::<String>::new());
}

/// The code of the error that a command with `--json` ended with.
fn error_code(ran: &Ran) -> String {
    let last = ran.err.lines().last().unwrap_or_else(|| panic!("no error: {ran}"));
    let error: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {ran}"));
    error["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {ran}")).to_string()
}

#[test]
fn errors_name_the_disk_that_is_full() {
    if !root() {
        return;
    }
    for (place, full) in [("repository", "data/"), ("state", "state/bygone")] {
        let site = Site::new(&programs());
        let point = site.at(place);
        let _disk = SmallDisk::mount(&point, "4m");
        // Everything goes into one volume, which fits neither into the store nor into the spool.
        site.bygone(["init", "--kdf-memory", "8MiB", "--volume-size", "64MiB"]).ok();
        let tree = Tree::new(&site.at("source"));
        (0..8).for_each(|n| drop(tree.file(format!("{n}"), random(n, 1 << 20))));
        let ran = backup(&site, &tree, &["--json"]).ended_with(1);
        assert_eq!(error_code(&ran), "NO_SPACE", "{ran}");
        assert!(ran.err.contains(full), "the disk of {place}: {ran}");
    }
}

#[test]
fn a_broken_catalog_is_named_and_rebuilt() {
    let (site, tree) = with_snapshots();
    let catalog = fs::read_dir(site.catalogs()).unwrap().next().unwrap().unwrap().path().join("catalog.sqlite");
    fs::write(&catalog, prose(3, 100_000)).unwrap();
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(catalog.with_file_name(format!("catalog.sqlite{suffix}"))));
    }
    let ran = backup(&site, &tree, &["--json"]).ended_with(14);
    assert_eq!(error_code(&ran), "LOCAL_CORRUPT");
    assert!(ran.err.contains("recover --force"), "{ran}");
    site.bygone(["recover", "--force"]).ok();
    backup(&site, &tree, &[]).ok();
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn volumes_of_an_interrupted_backup_are_found_by_a_new_catalog() {
    let (site, tree) = with_snapshots();
    let content = random(500, 6_000_000);
    tree.file("large", content.clone());
    let before = site.objects("data").len();
    // The stream does not end, so nothing is committed; once the catalog is lost as well, nothing refers to the volumes
    // stored so far.
    let mut running = site.start_reading(site.bygone_command(["backup", "--stdin", "stream"]), Stdio::piped());
    running.child.stdin.as_mut().unwrap().write_all(&content).unwrap();
    wait_until("storing", || site.objects("data").len() >= before + 3);
    running.child.kill().unwrap();
    running.end().ended_with(128 + 9);
    let orphans = site.objects("data");
    fs::remove_dir_all(site.catalogs()).unwrap();
    site.bygone(["recover"]).ok();
    site.backup(tree.top());
    let after = site.objects("data");
    assert!(orphans.keys().all(|name| after.contains_key(name)), "nothing was deleted");
    let fresh: u64 = after.iter().filter(|(name, _)| !orphans.contains_key(*name)).map(|(_, bytes)| bytes).sum();
    assert!(fresh < 5_000_000, "most of it was taken from what was there: {fresh} bytes were stored");
    site.bygone(["check", "--read-data"]).ok();
}
