//! Most other tests rely on the comparison of trees, so it has tests of its own: a copy by `cp -a` passes, and every
//! kind of difference is noticed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use bygone_tests::compare;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::zoo;

/// A change to an entry, and its name.
type Change = (&'static str, fn(&Tree));

#[test]
fn a_true_copy_of_the_zoo_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let source = zoo::fill(&dir.path().join("source"));
    let copy = dir.path().join("copy");
    tool(Command::new("cp").args(["-a", "--sparse=always"]).arg(source.top()).arg(&copy));
    compare::assert_same(source.top(), &copy);
}

#[test]
fn every_kind_of_difference_is_noticed() {
    let changes: &[Change] = &[
        ("content", |tree| fs::write(tree.at("file"), "CONTENT").unwrap()),
        ("a file missing", |tree| fs::remove_file(tree.at("file")).unwrap()),
        ("a file too much", |tree| drop(tree.file("another", ""))),
        ("an empty directory missing", |tree| fs::remove_dir(tree.at("empty")).unwrap()),
        ("permissions", |tree| fs::set_permissions(tree.at("file"), fs::Permissions::from_mode(0o640)).unwrap()),
        ("a nanosecond of a file", |tree| tree.mtime("file", 1_000_000_000, 8)),
        ("a nanosecond of a directory", |tree| tree.mtime("empty", 1_000_000_000, 8)),
        ("a nanosecond of a link", |tree| tree.mtime("link", 1_000_000_000, 8)),
        ("the nanosecond of the top", |tree| tree.mtime("", 1_000_000_000, 8)),
        ("an attribute", |tree| tree.xattr("file", "user.a", b"c")),
        ("an access list", |tree| tree.acl("file", "u:12345:r")),
        ("a hard link that is none", |tree| {
            fs::remove_file(tree.at("second")).unwrap();
            fs::copy(tree.at("file"), tree.at("second")).unwrap();
        }),
        ("the target of a link", |tree| {
            fs::remove_file(tree.at("link")).unwrap();
            tree.symlink("link", "elsewher");
        }),
    ];
    for (what, change) in changes {
        assert!(!differences_after(change).is_empty(), "{what} was not noticed");
    }
    if root() {
        assert!(!differences_after(&|tree| tree.owner("file", 5, 0)).is_empty(), "the owner was not noticed");
        assert!(!differences_after(&|tree| tree.owner("link", 0, 5)).is_empty(), "a link's group was not noticed");
    }
}

/// The differences found after `change` was made to one of two equal trees. Times that it touched are set back.
fn differences_after(change: &dyn Fn(&Tree)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let [source, other] = ["source", "other"].map(|name| {
        let tree = Tree::new(&dir.path().join(name));
        tree.file("file", "content");
        tree.hard_link("second", "file");
        tree.xattr("file", "user.a", b"b");
        tree.symlink("link", "anywhere");
        tree.directory("empty");
        ["file", "link", "empty", ""].into_iter().for_each(|entry| tree.mtime(entry, 1_000_000_000, 7));
        tree
    });
    let before = compare::differences(source.top(), other.top());
    assert!(before.is_empty(), "nothing was changed yet: {before:?}");
    change(&other);
    compare::differences(source.top(), other.top())
}
