//! Repositories from the future: each kind of thing that a later bygone may add, and what this one does with it.

use std::fs;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use bygone_cli::clock;
use bygone_core::attributes::Attribute;
use bygone_core::commit::Commit;
use bygone_core::config::Config;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::error::Error;
use bygone_core::features::Features;
use bygone_core::id::ClientId;
use bygone_core::id::NodeId;
use bygone_core::id::SnapshotId;
use bygone_core::objects::commit_object;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::read::View;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::snapshot::Snapshot;
use bygone_core::store::Source;
use bygone_core::store::local::LocalStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Changes;
use bygone_core::write::Writer;
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

/// A repository with a snapshot of a tree, and a second one that is the same except for what `alter` makes of the entries
/// of the tree.
fn with_entries(alter: impl Fn(Entry) -> Entry) -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("altered", "content");
    tree.file("folder/inside", "more");
    tree.file("plain", "plain");
    site.backup(tree.top());
    let mut locked = open(&site).lock().unwrap();
    let view = Reader::new(locked.repository(), 0, Order::Any).unwrap().view().unwrap();
    let first = view.snapshots().unwrap().remove(0).snapshot;
    // The times of the files become credible.
    sleep(Duration::from_millis(100));
    let options = BackupOptions {
        time: clock::now(),
        host: first.host.clone(),
        user: first.user.clone(),
        paths: first.paths.clone(),
        tags: Vec::new(),
        parent: Some(first.id),
        program: "bygone 99".into(),
    };
    write::backup(&mut locked, options, &Watch::new(), |writer| {
        writer.directory_begin()?;
        rewrite(writer, &view, first.root, &alter)?;
        writer.directory_end(None, first.root_meta.clone())?;
        Ok(((), 0))
    })
    .unwrap();
    (site, tree)
}

/// Writes the directory `node` once more.
fn rewrite(writer: &mut Writer<'_>, view: &View, node: NodeId, alter: &impl Fn(Entry) -> Entry) -> Result<(), Error> {
    for item in view.directory(node)?.from(view, 0, usize::MAX)? {
        let entry = alter(Entry::clone(&item.entry));
        match entry.directory() {
            Some(below) if entry.attributes.is_empty() => {
                writer.directory_begin()?;
                rewrite(writer, view, below, alter)?;
                writer.directory_end(Some(entry.name), entry.meta)?;
            }
            _ => drop(writer.unchanged(&entry)?),
        }
    }
    Ok(())
}

/// An entry with an attribute of a later bygone, if it has this name.
fn with_later_attribute(entry: Entry, name: &[u8], is_critical: bool) -> Entry {
    let mut entry = entry;
    if entry.name.as_bytes() == name {
        entry.attributes.set(Attribute { tag: 1 << 40, is_critical, value: b"from the future".to_vec() });
    }
    entry
}

/// An entry of a kind of a later bygone, if it is the altered file.
fn of_later_kind(entry: Entry) -> Entry {
    if entry.name.as_bytes() == b"altered" {
        return Entry { kind: Kind::Newer { code: 12, body: b"from the future".to_vec() }, ..entry };
    }
    entry
}

/// The entry of the source's `path` in the newest snapshot.
fn newest_entry(site: &Site, tree: &Tree, path: &str) -> Entry {
    let view = Reader::new(&open(site), 0, Order::Any).unwrap().view().unwrap();
    let mut node = view.snapshots().unwrap().pop().unwrap().snapshot.root;
    let full = tree.at(path);
    let mut names = full.iter().skip(1).peekable();
    while let Some(name) = names.next() {
        let found = view.directory(node).unwrap().find(&view, name.as_encoded_bytes()).unwrap().unwrap();
        match names.peek() {
            Some(_) => node = found.entry.directory().unwrap(),
            None => return Entry::clone(&found.entry),
        }
    }
    panic!("the root has no entry");
}

#[test]
fn an_unknown_attribute_of_an_entry_is_carried_on() {
    let (site, tree) = with_entries(|entry| {
        let entry = with_later_attribute(entry, b"altered", false);
        with_later_attribute(entry, b"folder", false)
    });
    let before = ["altered", "folder"].map(|name| newest_entry(&site, &tree, name));
    assert!(before.iter().all(|entry| !entry.attributes.is_empty() && entry.withheld().is_none()));
    site.backup(tree.top());
    assert_eq!(["altered", "folder"].map(|name| newest_entry(&site, &tree, name)), before);
    let target = site.at("target");
    site.restore("latest", &target);
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
    tree.file("altered", "changed content");
    tree.file("folder/another", "more");
    site.backup(tree.top());
    for name in ["altered", "folder"] {
        assert!(newest_entry(&site, &tree, name).attributes.is_empty(), "{name} does not say the same any more");
    }
}

/// Holds all commands against a snapshot whose file `altered` is withheld, because of `needs`.
fn costs_only_its_entry(site: &Site, tree: &Tree, needs: &str) {
    let what = format!("latest:{}", tree.at("altered").display());
    let before = newest_entry(site, tree, "altered");
    site.bygone(["cat", &what]).ended_with(1).complains_of(&["made by a newer bygone", needs]);
    let shown = site.bygone(["ls", "-l", &what]).ok();
    assert!(shown.text().contains(&format!("it needs a newer bygone, which knows {needs}")), "{shown}");
    assert_eq!(site.bygone(["ls", "--json", &what]).ok().json()[0]["kind"], "newer");
    site.bygone(["check", "--read-data"]).ok();
    site.bygone(["recover", "--force"]).ok();
    let target = site.at("target");
    let restore = ["restore", "latest", "--target", target.to_str().unwrap()];
    site.bygone(restore).ended_with(3).complains_of(&["altered", "newer bygone", needs]);
    let found = restored(&target, tree.top());
    assert!(!found.join("altered").exists());
    assert_eq!(fs::read(found.join("plain")).unwrap(), b"plain");
    assert_eq!(fs::read(found.join("folder/inside")).unwrap(), b"more");
    let mounted = site.mount("mnt", &[]);
    let latest = mounted.latest(tree.top());
    assert_eq!(fs::read_dir(&latest).unwrap().count(), 3);
    assert!(fs::read(latest.join("altered")).is_err() && mounted.complaint().contains(needs));
    assert_eq!(fs::read(latest.join("plain")).unwrap(), b"plain");
    drop(mounted);
    site.backup(tree.top());
    assert_eq!(newest_entry(site, tree, "altered"), before, "it is carried on as it is");
    tree.file("altered", "changed");
    site.backup(tree.top());
    assert!(newest_entry(site, tree, "altered").is_file());
}

#[test]
fn an_unknown_critical_attribute_costs_only_its_entry() {
    let (site, tree) = with_entries(|entry| with_later_attribute(entry, b"altered", true));
    costs_only_its_entry(&site, &tree, "attribute 1099511627776 of entries");
}

#[test]
fn an_unknown_kind_costs_only_its_entry() {
    let (site, tree) = with_entries(of_later_kind);
    costs_only_its_entry(&site, &tree, "entries of kind 12");
}

#[test]
fn a_directory_that_is_not_understood_is_read_anew() {
    let (site, tree) = with_entries(|entry| with_later_attribute(entry, b"folder", true));
    let what = format!("latest:{}", tree.at("folder/inside").display());
    let needs = ["made by a newer bygone", "attribute 1099511627776 of entries"];
    site.bygone(["cat", &what]).ended_with(1).complains_of(&needs);
    let mounted = site.mount("mnt", &[]);
    assert!(fs::read_dir(mounted.latest(&tree.at("folder"))).unwrap().next().unwrap().is_err());
    drop(mounted);
    site.bygone(["check", "--read-data"]).ok();
    site.backup(tree.top());
    assert_eq!(site.bygone(["cat", &what]).ok().out, b"more");
}
