//! A lost catalog is rebuilt from the store alone: equal to the lost one, and without reading content.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::local::LocalStore;
use bygone_core::store::testing::faulty::Fault;
use bygone_core::store::testing::faulty::FaultyStore;
use bygone_core::watch::Watch;
use bygone_tests::compare;
use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Site;
use bygone_tests::program::wait_until;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;
use bygone_tests::zoo;

use crate::site::new_site;
use crate::site::new_small_site;
use crate::site::programs;
use crate::site::restored;
use crate::site::snapshot_ids;

/// The catalog in its canonical form, which does not depend on the order of learning.
fn dump(site: &Site) -> String {
    site.bygone(["catalog-dump"]).ok().text().to_string()
}

fn lose_the_catalog(site: &Site) {
    fs::remove_dir_all(site.catalogs()).unwrap();
}

/// Panics with the first line that differs.
fn assert_same_dump(before: &str, after: &str) {
    let differs = before.lines().zip(after.lines()).enumerate().find(|(_, (a, b))| a != b);
    assert!(differs.is_none(), "the recovered catalog differs: {differs:?}");
    assert_eq!(before.lines().count(), after.lines().count(), "lines of the catalog");
}

#[test]
fn the_catalog_of_the_zoo_is_rebuilt_as_it_was() {
    let site = new_site();
    let zoo = zoo::fill(&site.at("source"));
    site.backup(zoo.top());
    let before = dump(&site);
    assert!(before.lines().count() > 3_000, "the dump names what the catalog knows");
    lose_the_catalog(&site);
    site.bygone(["recover"]).ok();
    assert_same_dump(&before, &dump(&site));
    site.restore("latest", &site.at("target"));
    compare::assert_same(zoo.top(), &restored(&site.at("target"), zoo.top()));
    assert_eq!(site.backup_new_bytes(zoo.top()), 0, "the next backup knows every block again");
}

/// A machine with a history of several snapshots in many small volumes.
fn with_history() -> (Site, Tree) {
    let site = new_small_site();
    let tree = Tree::new(&site.at("source"));
    for round in 0..4u64 {
        tree.file(format!("random-{round}"), random(round, 700_000));
        tree.file("changes", prose(round, 900_000));
        (0..50).for_each(|n| drop(tree.file(format!("many/{n}"), prose(n * (round + 1), 2_000))));
        site.backup(tree.top());
    }
    (site, tree)
}

#[test]
fn a_history_is_rebuilt_with_all_its_snapshots() {
    let (site, tree) = with_history();
    let (before, ids) = (dump(&site), snapshot_ids(&site));
    lose_the_catalog(&site);
    site.bygone(["recover"]).ok();
    assert_eq!(snapshot_ids(&site), ids);
    assert_same_dump(&before, &dump(&site));
    site.bygone(["recover"]).ok();
    assert_same_dump(&before, &dump(&site));
    site.bygone(["check", "--read-data"]).ok();
    fs::remove_file(tree.at("random-0")).unwrap();
    site.backup(tree.top());
    assert_eq!(snapshot_ids(&site).len(), ids.len() + 1, "the chain goes on");
}

#[test]
fn no_content_is_read_to_recover() {
    let (site, _tree) = with_history();
    let before = dump(&site);
    // Content is overwritten except for the index at the end of each volume, so any read of it would fail.
    let volumes = site.objects("data");
    assert!(!volumes.is_empty(), "there is content that could be read");
    for (name, bytes) in volumes {
        let mut content = fs::read(site.repository().join(&name)).unwrap();
        let middle = bytes as usize / 4..bytes as usize / 2;
        content[middle].fill(0);
        site.replace(&name, &content);
    }
    lose_the_catalog(&site);
    site.bygone(["recover"]).ok();
    assert_same_dump(&before, &dump(&site));
}

/// The commands of README-RECOVER.txt: lines indented by nine spaces or more. A line indented further continues the
/// previous one.
fn commands_of(readme: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in readme.lines().filter(|line| line.starts_with("         ")) {
        match commands.last_mut() {
            Some(before) if line.starts_with("             ") => before.push_str(line),
            _ => commands.push(line.trim().to_string()),
        }
    }
    commands
}

#[test]
fn the_readme_leads_from_a_bare_machine_to_a_mounted_tree() {
    let (site, tree) = with_history();
    let readme = fs::read_to_string(site.repository().join("README-RECOVER.txt")).unwrap();
    // The bare machine has the store, the passphrase and the two programs.
    let bare = Site::new(&programs());
    let place = bare.at("place");
    fs::rename(site.repository(), &place).unwrap();
    for (name, program) in [("bygone", programs().bygone), ("bygone-mount", programs().mount)] {
        fs::create_dir_all(bare.at("bin")).unwrap();
        std::os::unix::fs::symlink(program, bare.at("bin").join(name)).unwrap();
    }
    let commands = commands_of(&readme);
    let run = |command: &String| {
        let mut text = command.clone();
        let folders =
            [("THIS-PLACE", place.clone()), ("EMPTY-FOLDER", bare.at("look")), ("NEW-FOLDER", bare.at("new"))];
        for (word, path) in folders {
            text = text.replace(word, path.to_str().unwrap());
        }
        let mut shell = bare.command(Path::new("/bin/sh"), ["-euc", &text]);
        shell.env_remove("BYGONE_REPO").current_dir(&place);
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", bare.at("bin").display()));
        bare.run(shell).ok()
    };
    let mut done = Vec::new();
    for command in &commands {
        let ran = run(command);
        match command.as_str() {
            command if command.starts_with("bygone-mount") => {
                let inside = bare.at("look/latest").join(tree.top().strip_prefix("/").unwrap());
                compare::assert_same(tree.top(), &inside);
                done.push("mount");
            }
            command if command.contains("restore") => {
                compare::assert_same(tree.top(), &restored(&bare.at("new"), tree.top()));
                done.push("restore");
            }
            command if command.starts_with("umount") => {
                assert!(!bygone_tests::program::is_mounted(&bare.at("look")));
                done.push("umount");
            }
            command if command.contains("sha256sum") => {
                assert_eq!(ran.text(), "", "nothing is damaged");
                done.push("sha256sum");
            }
            _ => {}
        }
    }
    assert_eq!(done, ["mount", "umount", "restore", "sha256sum"], "the text leads all the way: {commands:?}");
    // Gives the last command something to find.
    let victim = fs::read_dir(place.join("data")).unwrap().next().unwrap().unwrap().path();
    let victim = fs::read_dir(victim).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&victim).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&victim).unwrap();
    fs::write(&victim, bytes).unwrap();
    assert!(run(commands.last().unwrap()).text().starts_with("damaged: data/"));
}

#[test]
fn another_machine_reuses_what_the_first_has_stored() {
    let (site, tree) = with_history();
    let other = Site::new(&programs());
    let repository = site.repository();
    let on_other = |arguments: &[&str]| {
        let mut command = other.bygone_command(arguments);
        command.env("BYGONE_REPO", &repository);
        other.run(command)
    };
    on_other(&["recover"]).ok();
    let target = other.at("target");
    on_other(&["restore", "latest", "--target", target.to_str().unwrap()]).ok();
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
    let made = on_other(&["backup", "--json", tree.top().to_str().unwrap()]).ok().json();
    assert_eq!(made["bytes_new"], 0, "blocks of another machine's backups are used, not stored again");
    on_other(&["check"]).ok();
}

/// Recovers with a store that dies at `call`, if any. Returns the number of the call that read the first data volume.
fn recover_until(site: &Site, catalogs: &Path, call: Option<u64>) -> u64 {
    let local = LocalStore::open(&site.repository()).unwrap();
    let store = Arc::new(FaultyStore::new(Arc::new(local)).with_connections(1));
    if let Some(call) = call {
        store.die_at_call(call, Fault::Before);
    }
    let place = Place { store: store.clone(), catalog_base: catalogs.to_path_buf() };
    let secret = Secret::new(PASSPHRASE.as_bytes().to_vec());
    let mut locked = Repository::open(&place, &secret).unwrap().lock().unwrap();
    let done = bygone_core::recover::recover(&mut locked, &Watch::new());
    assert_eq!(done.is_ok(), call.is_none(), "{:?}", done.err());
    let first = store.calls().iter().position(|call| call.object.starts_with("data/")).unwrap();
    first as u64 + 1
}

#[test]
fn a_partly_recovered_repository_can_be_mounted() {
    let (site, tree) = with_history();
    let (before, ids) = (dump(&site), snapshot_ids(&site));
    lose_the_catalog(&site);
    // Recovery stops at the first data volume. Trees come before data, so they are complete by then.
    let first_data = recover_until(&site, &site.at("counting"), None);
    recover_until(&site, &site.catalogs(), Some(first_data));
    assert_eq!(snapshot_ids(&site), ids);
    let mounted = site.mount("mount", &[]);
    let inside = mounted.latest(tree.top());
    assert_eq!(fs::read_dir(inside.join("many")).unwrap().count(), 50);
    assert_eq!(fs::metadata(inside.join("changes")).unwrap().len(), 900_000);
    assert!(fs::read(inside.join("changes")).is_err(), "its content is not known yet");

    let resumed = site.bygone(["recover", "--json"]).ok().json();
    assert_eq!(resumed["estimate"]["volumes"], site.objects("data").len(), "trees are not read again: {resumed}");
    assert_same_dump(&before, &dump(&site));
    wait_until("the mount notices", || fs::read(inside.join("changes")).is_ok());
    compare::assert_same(tree.top(), &inside);
    mounted.unmount().ok();
}

#[test]
fn a_long_history_is_recovered_over_a_far_link_without_content() {
    let site = Site::new(&programs());
    let repository = site.repository();
    let history = Path::new(env!("CARGO_BIN_EXE_bygone-history"));
    let run = |arguments: &[&str]| {
        let mut command = site.command(history, arguments);
        command.env("TMPDIR", site.at("state"));
        site.run(command).ok()
    };
    // The measurement of the documents, at a thousandth of the size.
    run(&["make", repository.to_str().unwrap(), "1000", "10", "20", "1"]);
    let outcome = run(&["recover", repository.to_str().unwrap(), "1", "1000", "4"]).json();
    assert_eq!(outcome["snapshots"], 10, "{outcome}");
    let (first, whole) = (outcome["first_s"].as_f64().unwrap(), outcome["whole_s"].as_f64().unwrap());
    assert!(first > 0.0 && first <= whole, "the first snapshot can be used before the others are in: {outcome}");
    // Only the ends of data volumes are read.
    let data = site.objects("data");
    assert!(!data.is_empty(), "there is content that could be read");
    let tails: u64 = data.values().map(|bytes| bytes.min(&(64 << 10))).sum();
    assert!(outcome["data_bytes"].as_u64().unwrap() <= tails, "{outcome}, {data:?}");
    // The repository is like any other.
    site.bygone(["check", "--read-data"]).ok();
}
