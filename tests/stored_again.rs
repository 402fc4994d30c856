//! A backup stores lost content again from the source, even after a failed run, and even if the catalog was lost too.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use bygone_tests::fake_s3::FakeS3;
use bygone_tests::fake_s3::Fault;
use bygone_tests::fake_s3::Verb;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;
use bygone_tests::tree::random;

use crate::site::programs;

fn bucket() -> (FakeS3, Site, Tree) {
    let server = FakeS3::start();
    let site = Site::new(&programs());
    site.set_bucket(&server.store("backups"));
    site.bygone(["init", "--kdf-memory", "8MiB"]).ok();
    let tree = Tree::new(&site.at("source"));
    (0..4).for_each(|n| drop(tree.file(format!("{n}"), random(n, 1_200_000))));
    // Files written just before a backup are read again by the next one in any case.
    sleep(Duration::from_millis(100));
    site.backup(tree.top());
    (server, site, tree)
}

/// Removes all objects of a folder from the store.
fn lose(server: &FakeS3, folder: &str) {
    let kept = server.objects().into_iter().filter(|(key, _)| !key.contains(folder)).collect();
    server.set_objects(kept);
}

fn assert_restored(site: &Site, tree: &Tree) {
    let target = site.at("restored");
    site.restore("latest", &target).ok();
    let inside = target.join(tree.top().strip_prefix("/").unwrap());
    for n in 0..4 {
        let name = n.to_string();
        assert!(fs::read(tree.at(&name)).unwrap() == fs::read(inside.join(&name)).unwrap(), "{name} is another file");
    }
    fs::remove_dir_all(target).unwrap();
}

#[test]
fn the_next_backup_stores_what_a_failed_one_did_not() {
    for (folder, comes_back) in [("data/", false), ("data/", true), ("meta/", false), ("meta/", true)] {
        let (server, site, tree) = bucket();
        let before = server.objects();
        lose(&server, folder);
        server.misbehave(Verb::Put, folder, Fault::Status(403, "AccessDenied"), 100);
        site.bygone(["backup".as_ref(), tree.top().as_os_str()]).ended_with(1);
        server.behave();
        if comes_back {
            let mut objects = server.objects();
            objects.extend(before);
            server.set_objects(objects);
        }
        let code = if comes_back { 0 } else { 13 };
        site.bygone(["backup".as_ref(), tree.top().as_os_str()]).ended_with(code);
        if !comes_back {
            site.bygone(["accept-loss", "--yes"]).ok();
        }
        site.backup(tree.top());
        assert_restored(&site, &tree);
        site.bygone(["check", "--read-data"]).ok();
        fs::remove_dir_all(site.catalogs()).unwrap();
        // Recovery reports that the volume cannot be read, though nothing is lost with it.
        site.bygone(["recover"]).ended_with(if comes_back { 0 } else { 14 });
        assert_restored(&site, &tree);
        site.bygone(["check", "--read-data"]).ok();
    }
}

#[test]
fn losses_before_a_rebuilt_catalog_are_stored_again() {
    let (server, site, tree) = bucket();
    lose(&server, "data/");
    fs::remove_dir_all(site.catalogs()).unwrap();
    site.bygone(["recover"]).ended_with(14);
    site.bygone(["backup".as_ref(), tree.top().as_os_str()]).ended_with(13);
    assert_restored(&site, &tree);
    site.bygone(["accept-loss", "--yes"]).ok();
    site.backup(tree.top());
    assert_restored(&site, &tree);
    site.bygone(["check", "--read-data"]).ok();
}
