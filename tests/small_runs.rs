//! A run that stores little makes one object besides its commit, and that object is as safe as any other.

use std::collections::BTreeMap;
use std::fs;

use bygone_tests::compare;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;

use crate::site::new_site;
use crate::site::restored;

/// What five changed files of 2,000 may cost.
const FIVE_CHANGED_BYTES_MAX: u64 = 16_384;

/// The objects that `run` adds to the store, with their lengths.
fn added(site: &Site, run: impl FnOnce()) -> BTreeMap<String, u64> {
    let before = site.objects("");
    run();
    site.objects("").into_iter().filter(|(name, _)| !before.contains_key(name)).collect()
}

/// A tree of 2,000 files in `folders` directories.
fn tree_of_2000(site: &Site, folders: u64) -> Tree {
    let tree = Tree::new(&site.at("source"));
    (0..2_000).for_each(|n| drop(tree.file(format!("folder {}/file-{n:04}.txt", n % folders), prose(n, 1_200))));
    tree
}

#[test]
fn five_changed_files_of_2000_cost_two_objects() {
    for folders in [1, 20, 100] {
        let site = new_site();
        let tree = tree_of_2000(&site, folders);
        site.backup(tree.top());
        for n in [100, 501, 902, 1_303, 1_704] {
            tree.file(format!("folder {}/file-{n:04}.txt", n % folders), prose(n + 5_000, 1_200));
        }
        let added = added(&site, || drop(site.backup(tree.top())));
        assert_eq!(added.len(), 2, "{folders} folders: {added:?}");
        assert!(added.values().sum::<u64>() <= FIVE_CHANGED_BYTES_MAX, "{folders} folders: {added:?}");
        let target = site.at("target");
        site.restore("latest", &target);
        compare::assert_same(tree.top(), &restored(&target, tree.top()));
    }
}

#[test]
fn a_lost_mixed_volume_is_rebuilt_to_the_byte() {
    for compression in ["lz4", "none", "zstd:19"] {
        let site = Site::with_repository(&crate::site::programs(), &["--compression", compression]);
        let tree = Tree::new(&site.at("source"));
        (0..300).for_each(|n| drop(tree.file(format!("file-{n}"), prose(n, 3_000))));
        site.backup(tree.top());
        let mixed = site.objects("meta/").into_keys().next().expect("one volume holds all");
        assert!(site.objects("data/").is_empty());
        let path = site.repository().join(&mixed);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        site.bygone(["check"]).ended_with(14);
        site.bygone(["check", "--repair"]).ok();
        assert!(fs::read(&path).unwrap() == whole, "{compression}: it is another object than before");
    }
}

#[test]
fn a_machine_without_a_catalog_learns_mixed_volumes() {
    let site = new_site();
    let tree = tree_of_2000(&site, 7);
    site.backup(tree.top());
    tree.file("folder 3/added", prose(9_999, 70_000));
    site.backup(tree.top());
    fs::remove_dir_all(site.catalogs()).unwrap();
    site.bygone(["recover"]).ok();
    site.bygone(["check", "--read-data"]).ok();
    let target = site.at("target");
    site.restore("latest", &target);
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
    // What is known needs no storing.
    assert_eq!(site.backup_new_bytes(tree.top()), 0);
}
