//! The tree, with the questions that the kernel asks, over real repositories in memory.

mod derived;

use bygone_core::entry::Time;

use super::*;
use crate::testing::Node;
use crate::testing::Sample;
use crate::testing::noise;

pub(super) fn named(nodes: Vec<(&str, Node)>) -> Vec<(String, Node)> {
    nodes.into_iter().map(|(name, node)| (name.to_owned(), node)).collect()
}

pub(super) fn folder(nodes: Vec<(&str, Node)>) -> Node {
    Node::Folder(named(nodes))
}

pub(super) fn file(text: &str) -> Node {
    Node::File(text.as_bytes().to_vec())
}

/// Two snapshots: in the second one, `changed` changed and `d/new` is new.
pub(super) fn two_snapshots() -> Sample {
    let sample = Sample::new();
    let root = |changed: &str, inner: Vec<(&str, Node)>| {
        let many = (0..1_000).map(|i| (format!("{i:04}"), file("x"))).collect();
        let nodes = vec![
            ("changed", file(changed)),
            ("d", folder(inner)),
            ("link", Node::Link("../else")),
            ("many", Node::Folder(many)),
            ("same", Node::File(noise(1, 300_000))),
            ("tagged", file("t")),
        ];
        named(nodes)
    };
    sample.backup(100, &["x"], root("one", vec![("e", folder(vec![("f", file("deep"))]))]));
    sample.backup(200, &[], root("two", vec![("e", folder(vec![("f", file("deep"))])), ("new", file("n"))]));
    sample
}

pub(super) fn listed(
    tree: &Tree,
    number: u64,
    cookie: u64,
    detail: Detail,
    most: usize,
) -> Vec<(u64, Vec<u8>, u64, FileType)> {
    let mut rows = Vec::new();
    tree.list(number, cookie, detail, |row, attr| {
        assert_eq!(attr.is_some(), detail == Detail::Attributes);
        if let Some(attr) = attr {
            assert_eq!((attr.number, attr.kind), (row.number, row.kind));
        }
        let is_full = rows.len() == most;
        if !is_full {
            rows.push((row.cookie, row.name.to_vec(), row.number, row.kind));
        }
        is_full
    })
    .unwrap();
    rows
}

/// The number at the end of a path.
pub(super) fn at(tree: &Tree, path: &str) -> u64 {
    path.split('/').fold(1, |number, name| tree.lookup(number, name.as_bytes()).unwrap().unwrap().number)
}

/// Every directory below `number`, itself included.
pub(super) fn directories(tree: &Tree, number: u64) -> Vec<u64> {
    let mut found = vec![number];
    for (_, name, child, kind) in listed(tree, number, 2, Detail::Names, usize::MAX) {
        if kind == FileType::Directory {
            assert_ne!(name, b"..");
            found.extend(directories(tree, child));
        }
    }
    found
}

const FIRST: &str = "snapshots/1970-01-01T00-01-40Z";
const SECOND: &str = "snapshots/1970-01-01T00-03-20Z";

#[test]
fn listings_agree_with_lookup_and_resume_anywhere() {
    let sample = two_snapshots();
    let tree = sample.tree();
    for directory in directories(&tree, 1) {
        let all = listed(&tree, directory, 0, Detail::Attributes, usize::MAX);
        assert_eq!(all, listed(&tree, directory, 0, Detail::Names, usize::MAX), "both kinds of listing agree");
        for (index, (cookie, name, number, _)) in all.iter().enumerate() {
            let found = tree.lookup(directory, name).unwrap().unwrap();
            assert_eq!(found.number, *number, "{:?}", printable(name));
            assert_eq!(tree.attr(*number).unwrap(), found);
            let rest = listed(&tree, directory, *cookie, Detail::Names, 3);
            assert_eq!(rest, all[index + 1..].iter().take(3).cloned().collect::<Vec<_>>(), "after {cookie}");
        }
        assert_eq!(all[0].2, directory, "the first name is the directory itself");
        let up = tree.lookup(directory, b"..").unwrap().unwrap().number;
        assert_eq!(all[1].2, up);
        assert!(directory == 1 || directories(&tree, up).contains(&directory), "its parent lists it");
        assert_eq!(tree.lookup(directory, b"absent").unwrap(), None);
    }
}

#[test]
fn numbers_need_no_memory_and_outlive_the_mount() {
    let sample = two_snapshots();
    let paths = ["d/e/f", "many/0999", "same", "link", "d/e"].map(|path| format!("{SECOND}/{path}"));
    let tree = sample.tree();
    let numbers = paths.clone().map(|path| at(&tree, &path));
    let attrs = numbers.map(|number| tree.attr(number).unwrap());
    for (number, attr) in numbers.into_iter().zip(attrs).rev() {
        let fresh = sample.tree();
        assert_eq!(fresh.attr(number).unwrap(), attr, "known without an earlier lookup");
    }
    let fresh = sample.tree();
    let deepest = at(&tree, &format!("{SECOND}/d/e"));
    assert_eq!(fresh.lookup(deepest, b"f").unwrap().unwrap().number, numbers[0]);
    let fresh = sample.tree();
    assert_eq!(fresh.lookup(deepest, b"..").unwrap().unwrap().number, at(&tree, &format!("{SECOND}/d")));
    assert_eq!(fresh.describe(numbers[0]), "a file called f");
    assert_eq!(tree.describe(numbers[0]), format!("{SECOND}/d/e/f"));
}

#[test]
fn unchanged_files_share_an_inode_and_directories_do_not() {
    let tree = two_snapshots().tree();
    let pair = |path: &str| (at(&tree, &format!("{FIRST}/{path}")), at(&tree, &format!("{SECOND}/{path}")));
    for path in ["same", "d/e/f", "link", "many/0500"] {
        let (first, second) = pair(path);
        assert_eq!(first, second, "{path}");
    }
    for path in ["changed", "d", "d/e", "many"] {
        let (first, second) = pair(path);
        assert_ne!(first, second, "{path}");
    }
}

#[test]
fn the_links_of_the_mount_lead_to_the_snapshots() {
    let tree = two_snapshots().tree();
    let target = |path: &str| String::from_utf8(tree.target(at(&tree, path)).unwrap()).unwrap();
    assert_eq!(target("latest"), SECOND);
    assert_eq!(target("hosts/host/1970-01-01T00-01-40Z"), format!("../../{FIRST}"));
    assert_eq!(at(&tree, "hosts/host/1970-01-01T00-01-40Z"), at(&tree, "tags/x/1970-01-01T00-01-40Z"));
    assert_eq!(
        tree.attr(at(&tree, "tags/x/1970-01-01T00-01-40Z")).unwrap().nlink,
        3,
        "one host, one tag, and the latest of that tag"
    );
    let tag = at(&tree, "tags/x");
    assert_eq!(tree.lookup(tag, b"1970-01-01T00-03-20Z").unwrap(), None, "the second has no tag");
    assert_eq!(target(&format!("{FIRST}/link")), "../else");
    let names: Vec<_> = listed(&tree, 1, 2, Detail::Names, 99).into_iter().map(|row| row.1).collect();
    assert_eq!(names, [&b"latest"[..], b"snapshots", b"hosts", b"tags", b"at", b"versions", b"deleted", b"changes"]);
}

#[test]
fn an_empty_repository_shows_empty_directories_and_no_latest() {
    let sample = Sample::new();
    drop(bygone_core::repo::Repository::lock(sample.repository()).unwrap());
    let tree = sample.tree();
    assert_eq!(tree.lookup(1, b"latest").unwrap(), None);
    assert_eq!(listed(&tree, 2, 2, Detail::Attributes, 9), []);
}

#[test]
fn unknown_attributes_differ_from_absent_ones() {
    let tree = two_snapshots().tree();
    let (tagged, plain) = (at(&tree, &format!("{FIRST}/tagged")), at(&tree, &format!("{FIRST}/same")));
    assert_eq!(tree.xattr(tagged, b"user.colour").unwrap(), b"red");
    assert_eq!(tree.xattr_names(tagged).unwrap(), b"user.colour\0");
    assert_eq!(tree.xattr_names(plain).unwrap(), b"");
    assert!(matches!(tree.xattr(plain, b"user.colour"), Err(OperationError::NoAttribute)));
    assert!(matches!(tree.xattr(plain, b"user.other"), Err(OperationError::NoAttribute)));
    assert!(matches!(tree.xattr(1, b"user.colour"), Err(OperationError::NoAttribute)));
    assert!(matches!(tree.xattr(tagged, b"security.selinux"), Err(OperationError::NotSupported)));
    assert!(matches!(tree.xattr(1, b"system.posix_acl_access"), Err(OperationError::NotSupported)));
    let bare = Sample::new();
    bare.backup(1, &[], named(vec![("a", file("a"))]));
    assert_eq!(bare.tree().xattr_names(2).unwrap(), b"", "without any attributes the list is empty too");
}

#[test]
fn wrong_kinds_and_stale_numbers_have_their_errors() {
    let tree = two_snapshots().tree();
    let same = at(&tree, &format!("{FIRST}/same"));
    let folder = at(&tree, &format!("{FIRST}/d"));
    let gone = Inode::Directory { snapshot: 99, path: 1 }.number().unwrap();
    assert!(matches!(tree.attr(gone), Err(OperationError::Stale)));
    assert!(matches!(tree.lookup(gone, b"a"), Err(OperationError::Stale)));
    assert!(matches!(tree.attr(Inode::File(99_999).number().unwrap()), Err(OperationError::Stale)));
    assert!(matches!(tree.attr(Inode::Host(99).number().unwrap()), Err(OperationError::Stale)));
    assert!(matches!(tree.attr(Inode::Latest(99).number().unwrap()), Err(OperationError::Stale)));
    assert!(matches!(tree.attr(0), Err(OperationError::Stale)));
    assert!(matches!(tree.lookup(same, b"a"), Err(OperationError::NotDirectory)));
    assert!(matches!(tree.list(same, 0, Detail::Names, |_, _| false), Err(OperationError::NotDirectory)));
    assert!(matches!(tree.target(same), Err(OperationError::NotLink)));
    assert!(matches!(tree.target(folder), Err(OperationError::NotLink)));
    assert!(matches!(tree.map(folder), Err(OperationError::NotFile)));
    assert!(matches!(tree.map(at(&tree, &format!("{FIRST}/link"))), Err(OperationError::NotFile)));
    assert!(matches!(tree.lookup(folder, &[b'n'; 256]), Err(OperationError::NameTooLong)));
}

#[test]
fn a_path_that_a_snapshot_lacks_is_stale() {
    let tree = two_snapshots().tree();
    let Some(Inode::Directory { path, .. }) = Inode::decode(at(&tree, &format!("{SECOND}/d/e"))) else { panic!() };
    let Some(Inode::Directory { snapshot, .. }) = Inode::decode(at(&tree, FIRST)) else { panic!() };
    assert!(tree.attr(Inode::Directory { snapshot, path }.number().unwrap()).is_ok(), "both snapshots have it");
    let sample = two_snapshots();
    sample.backup(300, &[], named(vec![("d", file("a file now"))]));
    let tree = sample.tree();
    let third = Inode::Directory { snapshot: snapshot + 2, path }.number().unwrap();
    assert!(matches!(tree.attr(third), Err(OperationError::Stale)));
}

#[test]
fn a_new_snapshot_appears_when_the_moment_advances() {
    let sample = two_snapshots();
    let reader = sample.reader();
    let tree = Tree::new(sample.moments(Arc::clone(&reader)), (0, 0));
    sample.backup(300, &["x"], named(vec![("third", file("3"))]));
    assert_eq!(tree.lookup(2, b"1970-01-01T00-05-00Z").unwrap(), None);
    let before = tree.moments().advance(&reader.view().unwrap(), Time { secs: 9, nanos: 0 }).unwrap();
    assert_eq!(before.listing.snapshots.len(), 2);
    assert_eq!(tree.attr(at(&tree, "snapshots/1970-01-01T00-05-00Z/third")).unwrap().size, 1);
    assert_eq!(tree.attr(2).unwrap().mtime.secs, 9, "the directory changed when the snapshot appeared");
    tree.moments().advance(&reader.view().unwrap(), Time { secs: 10, nanos: 0 }).unwrap();
    assert_eq!(tree.attr(2).unwrap().mtime.secs, 9, "and not when nothing did");
}

#[test]
fn the_tree_never_touches_the_store() {
    let sample = two_snapshots();
    let tree = sample.tree();
    sample.store.forget_calls();
    for directory in directories(&tree, 1) {
        for (_, name, number, _) in listed(&tree, directory, 0, Detail::Attributes, usize::MAX) {
            tree.lookup(directory, &name).unwrap();
            tree.attr(number).unwrap();
            let _ = tree.map(number);
        }
    }
    tree.totals().unwrap();
    assert_eq!(sample.store.calls(), []);
}

#[test]
fn a_rebuilt_catalog_is_not_mixed_with_the_old_one() {
    let sample = two_snapshots();
    let reader = sample.reader();
    let views = sample.moments(Arc::clone(&reader));
    let tree = Tree::new(views, (0, 0));
    let same = at(&tree, &format!("{FIRST}/same"));
    let before = tree.attr(same).unwrap();
    let path = sample.repository().catalog_path();
    std::fs::copy(&path, path.with_extension("copy")).unwrap();
    std::fs::rename(path.with_extension("copy"), &path).unwrap();
    assert_eq!(tree.attr(same).unwrap(), before, "the old one is still read");
    let error = tree.moments().open_view().err().expect("no view of the new one is opened").to_string();
    assert!(error.contains("mount again"), "{error}");
}
