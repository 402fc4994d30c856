//! A lost catalog is a catalog rebuilt: from the store alone, equal to the lost one, without reading content.

use std::fs;
use std::path::Path;

use bygone_tests::program::Site;
use bygone_tests::tree::{Tree, prose, random};
use bygone_tests::{compare, zoo};

use crate::site::{new_site, objects, programs, restored, snapshot_ids};

/// The catalog in its canonical form: what it knows, without the order in which it learned it.
fn dump(site: &Site) -> String {
    site.bygone(["catalog-dump"]).ok().text().to_string()
}

fn lose_the_catalog(site: &Site) {
    fs::remove_dir_all(site.catalogs()).unwrap();
}

/// Panics with the first line in which the two differ.
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
    let stored = objects(&site, "data");
    site.backup(zoo.top());
    assert_eq!(objects(&site, "data"), stored, "the next backup knows every block again");
}

/// A machine with a history of several snapshots in many small volumes.
fn with_history() -> (Site, Tree) {
    let site = Site::with_repository(&programs(), &["--volume-size", "1MiB", "--block-size", "64KiB"]);
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
    // Content is overwritten but for the end of each volume, where its index lies: whoever reads it notices.
    for (name, bytes) in objects(&site, "data") {
        let path = site.repository().join(name);
        let mut content = fs::read(&path).unwrap();
        let middle = bytes as usize / 4..bytes as usize / 2;
        content[middle].fill(0);
        replace(&path, &content);
    }
    lose_the_catalog(&site);
    site.bygone(["recover"]).ok();
    assert_same_dump(&before, &dump(&site));
}

/// Stored objects are read-only: makes a new file with the old name.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn another_machine_begins_with_what_the_first_has_stored() {
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
    let stored = objects(&site, "data");
    on_other(&["backup", tree.top().to_str().unwrap()]).ok();
    assert_eq!(objects(&site, "data"), stored, "blocks of another machine's backups are used, not stored again");
    on_other(&["check"]).ok();
}
