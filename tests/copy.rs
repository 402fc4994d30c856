//! Copies to a second store are complete and incremental, and an unfinished one is never taken for a repository.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use bygone_tests::compare;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::new_small_site;
use crate::site::programs;
use crate::site::restored;

/// A repository of several volumes and two snapshots.
fn with_history() -> (Site, Tree) {
    let site = new_small_site();
    let tree = Tree::new(&site.at("source"));
    for round in 0..2u64 {
        tree.file(format!("random-{round}"), random(round, 1_500_000));
        (0..20).for_each(|n| drop(tree.file(format!("many/{n}"), prose(n * (round + 1), 2_000))));
        site.backup(tree.top());
    }
    (site, tree)
}

fn copy(site: &Site, options: &[&str]) -> Ran {
    let to = site.at("copy");
    site.bygone([&["copy", "--to", to.to_str().unwrap()], options].concat())
}

/// Every file below `top` except markers, with its bytes.
fn bytes_below(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(top).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Another machine that uses the copy.
fn on_copy(site: &Site, other: &Site, arguments: &[&str]) -> Ran {
    let mut command = other.bygone_command(arguments);
    command.env("BYGONE_REPO", site.at("copy"));
    other.run(command)
}

#[test]
fn a_copy_is_the_same_repository_and_copies_only_what_is_new() {
    let (site, tree) = with_history();
    let outlook = copy(&site, &["--json"]).ok().json();
    assert_eq!(bytes_below(&site.at("copy")), bytes_below(&site.repository()));
    assert_eq!(outlook["objects"], site.objects("").len());
    let again = copy(&site, &["--json"]).ok().json();
    assert_eq!((again["objects"].as_u64(), again["objects_there"].as_u64()), (Some(0), outlook["objects"].as_u64()));

    tree.file("third", random(9, 100_000));
    site.backup(tree.top());
    let would = copy(&site, &["--dry-run", "--json"]).ok().json();
    assert!(bytes_below(&site.at("copy")).len() < bytes_below(&site.repository()).len(), "a dry run copies nothing");
    let third = copy(&site, &["--json"]).ok().json();
    assert_eq!((&third["objects"], &third["bytes"]), (&would["objects"], &would["bytes"]));
    assert_eq!(third["objects"], 2, "a small volume and a commit: {third}");
    assert_eq!(bytes_below(&site.at("copy")), bytes_below(&site.repository()));

    let other = Site::new(&programs());
    on_copy(&site, &other, &["recover"]).ok();
    on_copy(&site, &other, &["check", "--read-data"]).ok();
    let target = other.at("target");
    on_copy(&site, &other, &["restore", "latest", "--target", target.to_str().unwrap()]).ok();
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
}

#[test]
fn an_interrupted_copy_is_no_repository_until_it_is_completed() {
    let (site, _tree) = with_history();
    copy(&site, &[]).ok();
    // Removed in the reverse of the order of writing: these are the states that an interrupted copy can leave.
    let order = ["bygone.json", "README-RECOVER.txt", "keys", "commits", "data"];
    for gone in 1..=order.len() {
        for name in &order[..gone] {
            let path = site.at("copy").join(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { drop(fs::remove_file(path)) }
        }
        let other = Site::new(&programs());
        on_copy(&site, &other, &["snapshots"]).ended_with(10);
        copy(&site, &[]).ok();
        assert_eq!(bytes_below(&site.at("copy")), bytes_below(&site.repository()), "without {:?}", &order[..gone]);
    }
}

#[test]
fn a_place_that_belongs_to_something_else_is_refused() {
    let (site, _tree) = with_history();
    let other = Site::with_repository(&programs(), &[]);
    let refuse = |to: &Path, word: &str| {
        let before = bytes_below(to);
        site.bygone(["copy", "--to", to.to_str().unwrap()]).ended_with(1).complains_of(&[word]);
        assert_eq!(bytes_below(to), before, "nothing was touched");
    };
    refuse(&other.repository(), "another repository");
    fs::remove_file(other.repository().join("bygone.json")).unwrap();
    refuse(&other.repository(), "another repository");
    fs::create_dir(site.at("photos")).unwrap();
    fs::write(site.at("photos/Cat.jpg"), "cat").unwrap();
    refuse(&site.at("photos"), "Cat.jpg");
    site.bygone(["copy", "--to", site.repository().to_str().unwrap()]).ended_with(2).complains_of(&["itself"]);
    site.bygone(["copy", "--to", "s4://x"]).ended_with(2);
    site.bygone(["copy"]).ended_with(2);
}

#[test]
fn a_copy_with_backups_of_its_own_is_not_touched() {
    let (site, tree) = with_history();
    copy(&site, &[]).ok();
    tree.file("here", "here");
    // The same catalog writes the same chain in two places.
    let mut command = site.bygone_command(["backup", tree.top().to_str().unwrap()]);
    command.env("BYGONE_REPO", site.at("copy"));
    fs::rename(site.catalogs(), site.at("aside")).unwrap();
    std::process::Command::new("cp").arg("-a").arg(site.at("aside")).arg(site.catalogs()).status().unwrap();
    site.run(command).ok();
    fs::remove_dir_all(site.catalogs()).unwrap();
    fs::rename(site.at("aside"), site.catalogs()).unwrap();
    site.backup(tree.top());
    let before = bytes_below(&site.at("copy"));
    copy(&site, &[]).ended_with(13).complains_of(&["REMOTE_FORKED"]);
    let mut after = bytes_below(&site.at("copy"));
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before, "nothing that was there has changed");
}

#[test]
fn what_is_damaged_is_not_copied_and_is_named() {
    let (site, _tree) = with_history();
    let victim = site.objects("data").into_keys().next().unwrap();
    let path = site.repository().join(&victim);
    let sound = fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    bytes[70_000] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    copy(&site, &[]).ended_with(14).complains_of(&[&victim]);
    assert!(!site.at("copy").join(&victim).exists(), "damage does not spread");
    fs::remove_file(&path).unwrap();
    fs::write(&path, sound).unwrap();
    copy(&site, &[]).ok();
    assert_eq!(bytes_below(&site.at("copy")), bytes_below(&site.repository()));

    let cut = site.at("copy").join(&victim);
    fs::set_permissions(&cut, fs::Permissions::from_mode(0o600)).unwrap();
    fs::OpenOptions::new().write(true).open(&cut).unwrap().set_len(100).unwrap();
    copy(&site, &[]).ended_with(13).complains_of(&[&victim, "--replace-damaged"]);
    copy(&site, &["--replace-damaged"]).ok();
    assert_eq!(bytes_below(&site.at("copy")), bytes_below(&site.repository()));
}

#[test]
fn a_copy_reports_an_old_passphrase_and_removes_it_on_demand() {
    let (site, _tree) = with_history();
    copy(&site, &[]).ok();
    let mut command = site.bygone_command(["key", "passwd", "--kdf-memory", "8MiB"]);
    command.env("BYGONE_NEW_PASSPHRASE", "another horse");
    site.run(command).ok();
    let copy = |options: &[&str]| {
        let to = site.at("copy");
        let mut command = site.bygone_command([&["copy", "--to", to.to_str().unwrap()], options].concat());
        command.env("BYGONE_PASSPHRASE", "another horse");
        site.run(command)
    };
    copy(&[]).ok().complains_of(&["--remove-keys"]);
    assert_eq!(fs::read_dir(site.at("copy/keys")).unwrap().count(), 2);
    assert!(copy(&["--remove-keys"]).ok().err.is_empty());
    assert_eq!(bytes_below(&site.at("copy")), bytes_below(&site.repository()));
}

#[test]
fn sync_does_not_mirror_a_store_that_has_forgotten() {
    let (site, tree) = with_history();
    let to = site.at("copy");
    site.bygone(["sync", "--to", to.to_str().unwrap()]).ok();
    tree.file("more", "more");
    site.backup(tree.top());
    let newest = site.objects("commits").into_keys().next_back().unwrap();
    fs::remove_file(site.repository().join(newest)).unwrap();
    site.bygone(["sync", "--to", to.to_str().unwrap()]).ended_with(13).complains_of(&["REMOTE_ROLLED_BACK"]);
}
