//! `restore --delete` deletes nothing that only looks as if the snapshot lacked it.

use std::fs;
use std::path::Path;

use bygone_tests::compare;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;

use crate::site::new_site;
use crate::site::programs;
use crate::site::restored;

fn restore(site: &Site, what: &str, target: &Path, options: &[&str]) -> Ran {
    let target = target.to_str().unwrap();
    let words = ["restore", what, "--target", target, "--overwrite", "if-changed", "--delete"];
    site.bygone([&words[..], options].concat())
}

#[test]
fn only_what_was_backed_up_is_cleaned() {
    let site = Site::new(&programs());
    let source = Tree::new(&site.at("home/me/docs"));
    source.file("letter", "dear");
    source.file("sub/a", "a");
    // The target is a whole machine, with the repository beside what was backed up.
    let machine = site.at("machine");
    let docs = Tree::new(&restored(&machine, source.top()));
    let repository = docs.at("../repository");
    fs::create_dir_all(&repository).unwrap();
    site.set("BYGONE_REPO", repository.to_str().unwrap());
    site.bygone(["init", "--kdf-memory", "8MiB"]).ok();
    site.backup(source.top());
    let others = Tree::new(&machine);
    others.file("etc/passwd", "root");
    let beside = Tree::new(&docs.at(".."));
    beside.file("work/thesis", "mine");
    docs.file("old/x", "x");
    docs.file("sub/b", "b");
    let summary = restore(&site, "latest", &machine, &["--json"]).ok().json();
    assert_eq!((&summary["deleted"], &summary["spared"]), (&3.into(), &0.into()), "{summary}");
    compare::assert_same(source.top(), docs.top());
    assert!(others.at("etc/passwd").exists() && beside.at("work/thesis").exists());
    site.bygone(["check", "--read-data"]).ok();

    // The repository stays even where everything else may be deleted.
    fs::rename(&repository, docs.at("repository")).unwrap();
    site.set("BYGONE_REPO", docs.at("repository").to_str().unwrap());
    docs.file("old", "x");
    restore(&site, &format!("latest:{}", source.top().display()), docs.top(), &[]).ok();
    assert!(!docs.at("old").exists());
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn what_the_backup_leaves_out_survives_a_restore_in_place() {
    let site = new_site();
    let source = Tree::new(&site.at("source"));
    source.file("text", "text");
    source.file("disk.iso", "the only copy");
    source.file("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    source.file("cache/deep/x", "x");
    source.file("marked/.nobackup", "");
    source.file("marked/y", "y");
    source.file("large", "z".repeat(5_000));
    let top = source.top().to_str().unwrap();
    let rules = ["--exclude", "*.iso", "--exclude-caches", "--exclude-if-present", ".nobackup"];
    let limit = ["--exclude-larger-than", "4K"];
    site.bygone([&["backup", top][..], &rules, &limit].concat()).ok();
    source.file("new/other.iso", "later");
    source.file("new/gone", "later");
    let summary = restore(&site, &format!("latest:{top}"), source.top(), &["--json"]).ok().json();
    assert_eq!(summary["deleted"], 1, "{summary}");
    for name in ["text", "disk.iso", "cache/deep/x", "marked/y", "large", "new/other.iso"] {
        assert!(source.at(name).exists(), "{name}");
    }
    assert!(!source.at("new/gone").exists());
}

#[test]
fn a_failed_restore_deletes_nothing() {
    let site = new_site();
    let source = Tree::new(&site.at("source"));
    source.file("a", "a".repeat(1_000));
    source.file("b", "b".repeat(1_000));
    site.backup(source.top());
    let target = site.at("target");
    site.restore("latest", &target);
    let inside = Tree::new(&restored(&target, source.top()));
    inside.file("a", "changed");
    inside.file("extra", "mine");
    // The content of a small backup is in `meta/`.
    for object in ["data", "meta"].into_iter().flat_map(|folder| site.objects(folder).into_keys()) {
        fs::remove_file(site.repository().join(object)).unwrap();
    }
    let ran = restore(&site, "latest", &target, &[]).complains_of(&["nothing was deleted"]);
    assert!(ran.code == 13 || ran.code == 14, "{ran}");
    assert!(inside.at("extra").exists());
}
