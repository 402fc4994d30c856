//! Repositories from the future: each kind of thing that a later bygone may add, and what this one does with it.

use std::fs;
use std::sync::Arc;

use bygone_core::attributes::Attribute;
use bygone_core::commit::Commit;
use bygone_core::config::Config;
use bygone_core::features::Features;
use bygone_core::id::ClientId;
use bygone_core::id::SnapshotId;
use bygone_core::objects::commit_object;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::snapshot::Snapshot;
use bygone_core::store::Source;
use bygone_core::store::local::LocalStore;
use bygone_core::write;
use bygone_core::write::Changes;
use bygone_tests::compare;
use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;

use crate::site::new_site;
use crate::site::restored;

/// A repository with a snapshot, whose description has been given the features of a later bygone.
fn with_features(read: &[&str], write: &[&str], optional: &[&str]) -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("directory/file", "content");
    site.backup(tree.top());
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let features = Features { read: owned(read), write: owned(write), optional: owned(optional) };
    let repository = open(&site);
    let config = Config { features, ..repository.config().clone() };
    site.replace("bygone.json", &config.encode(repository.keys()).unwrap());
    (site, tree)
}

/// The repository of a site, opened past the programs.
fn open(site: &Site) -> Repository {
    let store = Arc::new(LocalStore::open(&site.repository()).unwrap());
    let place = Place { store, catalog_base: site.catalogs() };
    Repository::open(&place, &Secret::new(PASSPHRASE.into())).unwrap()
}

#[test]
fn an_unknown_feature_to_read_refuses_the_repository() {
    let (site, tree) = with_features(&["other-ciphers"], &[], &[]);
    let before = site.store();
    let source = tree.top().to_str().unwrap();
    for arguments in [&["snapshots"][..], &["backup", source], &["check", "--repair"], &["recover"], &["key", "list"]] {
        site.bygone(arguments).ended_with(1).complains_of(&["made by a newer bygone", "needs other-ciphers"]);
    }
    let mount = site.at("mnt");
    fs::create_dir(&mount).unwrap();
    site.bygone_mount([mount]).ended_with(1).complains_of(&["made by a newer bygone", "needs other-ciphers"]);
    assert_eq!(site.store(), before);
}

#[test]
fn an_unknown_feature_to_write_leaves_reading() {
    let (site, tree) = with_features(&[], &["parity"], &[]);
    let before = site.store();
    let (source, copy) = (tree.top().to_str().unwrap(), site.at("copy"));
    let copy = copy.to_str().unwrap();
    for arguments in [
        &["backup", source][..],
        &["check", "--repair"],
        &["accept-loss", "--yes"],
        &["key", "passwd"],
        &["key", "add"],
        &["copy", "--to", copy],
        &["sync", "--to", copy],
    ] {
        let mut command = site.bygone_command(arguments);
        command.env("BYGONE_NEW_PASSPHRASE", "another");
        site.run(command).ended_with(1).complains_of(&["needs parity", "only be read"]);
    }
    for arguments in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["backup", "--dry-run", source],
        &["check", "--read-data"],
        &["recover", "--force"],
        &["accept-loss"],
        &["key", "list"],
    ] {
        site.bygone(arguments).ok();
    }
    let target = site.at("target");
    site.restore("latest", &target);
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
    let mounted = site.mount("mnt", &[]);
    assert_eq!(fs::read(mounted.latest(tree.top()).join("directory/file")).unwrap(), b"content");
    drop(mounted);
    assert_eq!(site.store(), before);
}

/// Commits that need something, as a later bygone may write them at any time.
fn commit_features(site: &Site, features: Features, attribute: Option<Attribute>) {
    let repository = open(site);
    let client = ClientId([0x77; 16]);
    let mut commit = Commit { features, ..Commit::default() };
    attribute.into_iter().for_each(|attribute| commit.attributes.set(attribute));
    let object = commit.seal(&repository.keys().commit(client, 1), client, 1).unwrap();
    repository.store().put(&commit_object(client, 1), Source::Bytes(&object)).unwrap();
}

#[test]
fn a_feature_that_a_commit_names_is_heeded_from_then_on() {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let critical = Attribute { tag: 90, is_critical: true, value: vec![1] };
    let read = Features { read: owned(&["other-ciphers"]), ..Features::default() };
    for (features, attribute, needs) in
        [(read, None, "needs other-ciphers"), (Features::default(), Some(critical), "needs attribute 90")]
    {
        let (site, tree) = with_features(&[], &[], &[]);
        commit_features(&site, features, attribute);
        site.bygone(["snapshots"]).ok();
        let before = site.objects("commits");
        for arguments in
            [&["check"][..], &["backup", tree.top().to_str().unwrap()], &["snapshots"], &["recover", "--force"]]
        {
            site.bygone(arguments).ended_with(1).complains_of(&["made by a newer bygone", needs]);
        }
        fs::remove_dir_all(site.catalogs()).unwrap();
        site.bygone(["recover"]).ended_with(1).complains_of(&["made by a newer bygone", needs]);
        assert_eq!(site.objects("commits"), before);
    }
    let (site, tree) = with_features(&[], &[], &[]);
    let write = Features { write: owned(&["parity"]), optional: owned(&["shiny"]), ..Features::default() };
    let kept = Attribute { tag: 91, is_critical: false, value: vec![1] };
    commit_features(&site, write, Some(kept));
    let source = tree.top().to_str().unwrap();
    for arguments in [&["backup", source][..], &["backup", source], &["check", "--repair"], &["key", "passwd"]] {
        let mut command = site.bygone_command(arguments);
        command.env("BYGONE_NEW_PASSPHRASE", "another");
        site.run(command).ended_with(1).complains_of(&["needs parity", "only be read"]);
    }
    for arguments in [&["snapshots"][..], &["ls", "latest"], &["check", "--read-data"], &["recover"]] {
        site.bygone(arguments).ok();
    }
    assert_eq!(site.objects("commits").len(), 2, "nothing was committed");
}

#[test]
fn an_unknown_optional_feature_is_ignored_and_kept() {
    let (site, tree) = with_features(&[], &[], &["shiny", "thing"]);
    let before = site.store().remove("bygone.json").unwrap();
    site.backup(tree.top());
    fs::remove_file(site.repository().join("bygone.json")).unwrap();
    site.bygone(["check", "--repair"]).ok();
    assert_eq!(site.store().remove("bygone.json").unwrap(), before);
}

/// A repository with two snapshots of a tree, the second of which (returned) has an attribute of a later bygone.
fn with_attribute(is_critical: bool) -> (Site, Tree, Snapshot) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("directory/file", "content");
    site.backup(tree.top());
    let mut locked = open(&site).lock().unwrap();
    let mut snapshot = locked.catalog().read().snapshots().unwrap().remove(0).snapshot;
    snapshot.id = SnapshotId([0x5a; 16]);
    snapshot.time.secs += 1;
    snapshot.attributes.set(Attribute { tag: 1 << 40, is_critical, value: b"from the future".to_vec() });
    let changes = Changes { snapshots_added: vec![snapshot.clone()], ..Changes::default() };
    write::commit_changes(&mut locked, snapshot.time, changes).unwrap();
    (site, tree, snapshot)
}

/// The records of all snapshots, as the catalog keeps them.
fn records(site: &Site) -> Vec<String> {
    let dump = site.bygone(["catalog-dump"]).ok();
    dump.text().lines().filter(|line| line.starts_with("snapshot ")).map(str::to_owned).collect()
}

#[test]
fn an_unknown_attribute_is_kept_wherever_a_record_is_written() {
    let (site, tree, snapshot) = with_attribute(false);
    let before = records(&site);
    let sealed: String = b"from the future".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(before.iter().any(|line| line.contains(&sealed)));
    site.bygone(["recover", "--force"]).ok();
    assert_eq!(records(&site), before);
    let target = site.at("target");
    site.restore(&snapshot.id.to_hex(), &target);
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
    let commits = site.objects("commits");
    fs::remove_file(site.repository().join(commits.keys().last().unwrap())).unwrap();
    site.bygone(["accept-loss", "--yes"]).ok();
    assert_eq!(records(&site), before);
    site.bygone(["recover", "--force"]).ok();
    assert_eq!(records(&site), before, "the new commit says what the lost one said");
}

#[test]
fn an_unknown_critical_attribute_costs_only_its_snapshot() {
    let (site, tree, snapshot) = with_attribute(true);
    let id = snapshot.id.to_hex();
    let newer = ["made by a newer bygone", &id, "attribute 1099511627776"];
    for _ in 0..2 {
        let what = format!("{id}:{}/directory/file", tree.top().display());
        for arguments in [
            &["ls", &id][..],
            &["cat", &what],
            &["restore", "latest", "--target", "/nowhere"],
            &["pin", &what],
            &["backup", "--parent", &id, tree.top().to_str().unwrap()],
        ] {
            site.bygone(arguments).ended_with(1).complains_of(&newer);
        }
        site.bygone(["recover", "--force"]).ok();
    }
    let listed = site.bygone(["snapshots", "--json"]).ok().json();
    assert_eq!((&listed[1]["id"], listed[1]["unusable"].is_string()), (&id.into(), true));
    assert!(listed[0].get("unusable").is_none());
    site.bygone(["check", "--read-data"]).ok();
    site.backup(tree.top());
    for which in ["latest", "latest~2"] {
        let target = site.at(which);
        site.restore(which, &target);
        compare::assert_same(tree.top(), &restored(&target, tree.top()));
    }
    let mounted = site.mount("mnt", &[]);
    assert_eq!(fs::read_dir(mounted.point().join("snapshots")).unwrap().count(), 2);
    assert_eq!(fs::read(mounted.latest(tree.top()).join("directory/file")).unwrap(), b"content");
}
