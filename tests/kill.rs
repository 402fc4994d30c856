//! A backup killed at any moment leaves a repository that the next backup completes: without a repair step, without
//! storing anything twice, and without an incomplete snapshot.

use std::fs;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use bygone_tests::compare;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::new_small_site;
use crate::site::restored;
use crate::site::snapshot_ids;

/// The number of moments tried.
const KILLS: u32 = 14;

fn site_with_tree() -> (Site, Tree) {
    let site = new_small_site();
    let tree = Tree::new(&site.at("source"));
    (0..24).for_each(|n| drop(tree.file(format!("random/{n}"), random(n, 1_000_000))));
    (0..600).for_each(|n| drop(tree.file(format!("small/{}/{n}", n % 9), prose(n * 99, 3_000))));
    (site, tree)
}

/// The bytes of all objects below `folder`.
fn stored_bytes(site: &Site, folder: &str) -> u64 {
    site.objects(folder).values().sum()
}

#[test]
fn a_killed_backup_is_completed_by_the_next() {
    let (clean, tree) = site_with_tree();
    let since = Instant::now();
    clean.backup(tree.top());
    let whole = since.elapsed();
    let clean_bytes = stored_bytes(&clean, "data");

    let mut useful = 0;
    for kill in 0..KILLS {
        let site = new_small_site();
        let mut running = site.start(site.bygone_command(["backup".as_ref(), tree.top().as_os_str()]));
        sleep(whole * (kill + 1) / (KILLS + 1));
        running.child.kill().unwrap();
        let ended = running.end().code;
        let before = site.objects("data");
        useful += u32::from(ended == 128 + 9 && !before.is_empty());
        // A snapshot exists as soon as its commit is stored, even if the catalog has not adopted it yet.
        let snapshots = site.objects("commits").len();
        assert!(snapshots <= 1, "at most the one that was being made");

        site.backup(tree.top());
        let after = site.objects("data");
        for name in before.keys() {
            assert_eq!(after.get(name), before.get(name), "kill {kill}: {name} was stored and stays");
        }
        // Only the volumes in flight at the moment of the kill may be stored twice.
        let spare = 5 << 20;
        let bytes = stored_bytes(&site, "data");
        assert!(bytes <= clean_bytes + spare, "kill {kill}: {bytes} bytes stored where {clean_bytes} are enough");
        assert_eq!(snapshot_ids(&site).len(), snapshots + 1);
        site.bygone(["check", "--read-data"]).ok();
        site.restore("latest", &site.at("target"));
        compare::assert_same(tree.top(), &restored(&site.at("target"), tree.top()));
    }
    assert!(useful > 0, "no kill arrived while volumes were being stored: the tree is too small for this machine");
}

#[test]
fn a_backup_killed_again_and_again_still_completes() {
    let (site, tree) = site_with_tree();
    let mut stored = 0;
    for round in 0..40u64 {
        let mut running = site.start(site.bygone_command(["backup".as_ref(), tree.top().as_os_str()]));
        sleep(Duration::from_millis(60 + 45 * round));
        running.child.kill().unwrap();
        let ended = running.end().code;
        let now = stored_bytes(&site, "data");
        assert!(now >= stored, "what is stored stays");
        stored = now;
        if ended == 0 {
            break;
        }
    }
    site.backup(tree.top());
    site.bygone(["check", "--read-data"]).ok();
    site.restore("latest", &site.at("target"));
    compare::assert_same(tree.top(), &restored(&site.at("target"), tree.top()));
}

#[test]
fn a_killed_backup_of_a_change_leaves_the_old_snapshot_whole() {
    let (site, tree) = site_with_tree();
    site.backup(tree.top());
    let old = site.at("old");
    site.restore("latest", &old);
    (0..12).for_each(|n| fs::write(tree.at(format!("random/{n}")), random(n + 1_000, 1_000_000)).unwrap());
    let mut running = site.start(site.bygone_command(["backup".as_ref(), tree.top().as_os_str()]));
    sleep(Duration::from_millis(250));
    running.child.kill().unwrap();
    running.end();
    let first = snapshot_ids(&site)[0].clone();
    site.restore(&first, &site.at("old-again"));
    compare::assert_same(&old, &site.at("old-again"));
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn a_killed_recover_is_completed_by_the_next() {
    let (site, tree) = site_with_tree();
    site.backup(tree.top());
    let before = site.bygone(["catalog-dump"]).ok();
    for milliseconds in [20, 60, 120, 200] {
        fs::remove_dir_all(site.catalogs()).unwrap();
        let mut running = site.start(site.bygone_command(["recover"]));
        sleep(Duration::from_millis(milliseconds));
        running.child.kill().unwrap();
        running.end();
        site.bygone(["recover"]).ok();
        let after = site.bygone(["catalog-dump"]).ok();
        assert!(after.out == before.out, "killed after {milliseconds} ms, the catalog differs from the lost one");
    }
}
