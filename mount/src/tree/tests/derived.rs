//! Directories derived from several snapshots (`at/`, `versions/`, `deleted/`, `changes/`), the layouts and the
//! filters.

use super::*;
use crate::testing::Sample;
use crate::tree::shape::Filter;
use crate::tree::shape::Layout;
use crate::tree::shape::Shape;

/// Three snapshots: one file changes and vanishes, one appears, one directory vanishes, one becomes a file.
fn history() -> Sample {
    let sample = Sample::new();
    let same = || ("same", folder(vec![("deep", folder(vec![("f", file("same"))]))]));
    let first = vec![
        ("both.d", folder(vec![("in", file("x"))])),
        ("gone", folder(vec![("a", file("a")), ("b", folder(vec![("c", file("c"))]))])),
        ("report.pdf", file("one")),
        same(),
    ];
    let second = vec![
        ("both.d", file("a file now")),
        ("gone", folder(vec![("a", file("a"))])),
        ("new", folder(vec![("n", file("n"))])),
        ("report.pdf", file("two")),
        same(),
    ];
    let third = vec![("both.d", file("a file now")), ("new", folder(vec![("n", file("n"))])), same()];
    sample.backup(100, &["x"], named(first));
    sample.backup(200, &[], named(second));
    sample.backup(300, &[], named(third));
    sample
}

const NAMES: [&str; 3] = ["1970-01-01T00-01-40Z", "1970-01-01T00-03-20Z", "1970-01-01T00-05-00Z"];

/// All paths below a directory, those of directories with a slash at the end.
fn walk(tree: &Tree, number: u64, above: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (_, name, child, kind) in listed(tree, number, 2, Detail::Names, usize::MAX) {
        let path = format!("{above}{}", String::from_utf8(name).unwrap());
        if kind == FileType::Directory {
            found.push(format!("{path}/"));
            found.extend(walk(tree, child, &format!("{path}/")));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn below(tree: &Tree, path: &str) -> Vec<String> {
    walk(tree, at(tree, path), "")
}

#[test]
fn versions_has_each_distinct_version_of_each_file() {
    let sample = history();
    let tree = sample.tree();
    let wanted = vec![
        "both.d/".to_owned(),
        format!("both.d/{}.d", NAMES[1]),
        "both.d/in/".to_owned(),
        format!("both.d/in/{}", NAMES[0]),
        "gone/".to_owned(),
        "gone/a/".to_owned(),
        format!("gone/a/{}", NAMES[0]),
        "gone/b/".to_owned(),
        "gone/b/c/".to_owned(),
        format!("gone/b/c/{}", NAMES[0]),
        "new/".to_owned(),
        "new/n/".to_owned(),
        format!("new/n/{}", NAMES[1]),
        "report.pdf/".to_owned(),
        format!("report.pdf/{}.pdf", NAMES[0]),
        format!("report.pdf/{}.pdf", NAMES[1]),
        "same/".to_owned(),
        "same/deep/".to_owned(),
        "same/deep/f/".to_owned(),
        format!("same/deep/f/{}", NAMES[0]),
    ];
    assert_eq!(below(&tree, "versions"), wanted);
    let version = at(&tree, &format!("versions/report.pdf/{}.pdf", NAMES[1]));
    assert_eq!(version, at(&tree, &format!("snapshots/{}/report.pdf", NAMES[1])), "one inode, one cache");
}

#[test]
fn listing_during_a_new_snapshot_repeats_and_skips_nothing() {
    let sample = Sample::new();
    let files = |range: std::ops::Range<u32>| {
        named(range.map(|n| (&*format!("f{n:02}").leak(), file("x"))).collect::<Vec<(&str, _)>>())
    };
    sample.backup(100, &[], files(0..40));
    sample.backup(200, &[], files(0..1));
    let tree = sample.tree();
    let deleted = at(&tree, "deleted");
    let mut rows = listed(&tree, deleted, 2, Detail::Names, 20);
    let (next, ..) = rows[19];
    // A tree keeps showing the catalog as it was, and numbers mean the same in the next tree.
    drop(tree);
    // The same paths again: everything that was deleted still is, and more.
    sample.backup(300, &[], files(60..61));
    sample.backup(400, &[], files(61..62));
    rows.extend(listed(&sample.tree(), deleted, next, Detail::Names, usize::MAX));
    let mut names: Vec<Vec<u8>> = rows.into_iter().map(|(_, name, ..)| name).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "no name twice");
    for n in 1..40 {
        let name = format!("f{n:02}");
        assert!(names.iter().any(|found| found == name.as_bytes()), "{name} is skipped");
    }
}

#[test]
fn deleted_has_the_last_copies_of_vanished_files_only() {
    let tree = history().tree();
    // `both.d` is a file now, so the content of the directory is gone.
    let wanted = ["both.d/", "both.d/in", "gone/", "gone/a", "gone/b/", "gone/b/c", "report.pdf"];
    assert_eq!(below(&tree, "deleted"), wanted);
    assert_eq!(at(&tree, "deleted/report.pdf"), at(&tree, &format!("snapshots/{}/report.pdf", NAMES[1])));
    assert_eq!(below(&two_snapshots().tree(), "deleted"), [] as [&str; 0]);
}

#[test]
fn changes_has_what_a_snapshot_changed() {
    let tree = history().tree();
    let of = |number: usize, side: &str| below(&tree, &format!("changes/{}/{side}", NAMES[number]));
    assert_eq!(of(1, "added"), ["both.d", "new/", "new/n"]);
    assert_eq!(of(1, "modified"), ["report.pdf"]);
    assert_eq!(of(1, "deleted"), ["both.d/", "both.d/in", "gone/", "gone/b/", "gone/b/c"]);
    assert_eq!(of(2, "deleted"), ["gone/", "gone/a", "report.pdf"]);
    assert_eq!(of(2, "added"), [] as [&str; 0]);
    assert_eq!(
        of(0, "added"),
        below(&tree, &format!("snapshots/{}", NAMES[0])),
        "the first snapshot adds everything it has"
    );
    let (old, new) =
        (format!("changes/{}/modified/report.pdf", NAMES[1]), format!("snapshots/{}/report.pdf", NAMES[1]));
    assert_eq!(at(&tree, &old), at(&tree, &new));
}

#[test]
fn at_a_time_is_the_newest_snapshot_not_later() {
    let tree = history().tree();
    let target = |name: &str| {
        let found = tree.lookup(at(&tree, "at"), name.as_bytes()).unwrap()?;
        Some(String::from_utf8(tree.target(found.number).unwrap()).unwrap())
    };
    assert_eq!(target("1970-01-01T00:02").as_deref(), Some("../snapshots/1970-01-01T00-01-40Z"));
    assert_eq!(target("1970-01-01T00-03-20Z").as_deref(), Some("../snapshots/1970-01-01T00-03-20Z"));
    assert_eq!(target("yesterday").as_deref(), Some("../snapshots/1970-01-01T00-05-00Z"));
    assert_eq!((target("1969-12-31"), target("nonsense"), target("\u{e9}")), (None, None, None));
    assert_eq!(below(&tree, "at"), [] as [&str; 0], "nothing is listed");
}

#[test]
fn layouts_and_filters_show_what_was_requested() {
    let mut sample = history();
    let mut top = |layout: Layout, filter: Filter| {
        sample.shape = Shape::new(layout, None, filter);
        let tree = sample.tree();
        let names = listed(&tree, 1, 2, Detail::Names, usize::MAX);
        let names: Vec<String> = names.into_iter().map(|row| String::from_utf8(row.1).unwrap()).collect();
        (tree, names)
    };
    let (tree, names) = top(Layout::ShadowCopy, Filter { last: Some(2), ..Filter::default() });
    assert_eq!(names, ["@GMT-1970.01.01-00.03.20", "@GMT-1970.01.01-00.05.00"]);
    let inside = tree.lookup(at(&tree, "@GMT-1970.01.01-00.05.00"), b"..").unwrap().unwrap();
    assert_eq!(inside.number, 1, "a snapshot lies in the root");
    let (tree, names) = top(Layout::Zfs, Filter { tags: vec!["x".to_owned()], ..Filter::default() });
    assert_eq!((names, below(&tree, ".zfs/snapshot").len()), (vec![".zfs".to_owned()], 1 + 10));
    let (tree, names) = top(Layout::Restic, Filter::default());
    assert_eq!(names, ["ids", "snapshots", "hosts", "tags"]);
    assert_eq!(tree.target(at(&tree, "snapshots/latest")).unwrap(), b"1970-01-01T00:05:00Z");
    assert_eq!(tree.target(at(&tree, "hosts/host/latest")).unwrap(), b"../../snapshots/1970-01-01T00:05:00Z");
    let at_two =
        Filter { at: Some(bygone_core::entry::Time { secs: 200, nanos: 0 }), last: Some(1), ..Filter::default() };
    let (tree, _) = top(Layout::Default, at_two);
    assert_eq!(below(&tree, "snapshots").first().unwrap(), &format!("{}/", NAMES[1]));
    let changed = below(&tree, &format!("changes/{}/modified", NAMES[1]));
    assert_eq!(changed, ["report.pdf"], "compared with the one before, even if that is not shown");
}

#[test]
fn numbers_of_derived_directories_need_no_memory() {
    let sample = history();
    let tree = sample.tree();
    for directory in directories(&tree, 1) {
        let (attr, up) = (tree.attr(directory).unwrap(), tree.lookup(directory, b"..").unwrap());
        let fresh = sample.tree();
        assert_eq!((fresh.attr(directory).unwrap(), fresh.lookup(directory, b"..").unwrap()), (attr, up));
        let rows = |tree: &Tree| listed(tree, directory, 0, Detail::Names, usize::MAX);
        assert_eq!(rows(&sample.tree()), rows(&tree));
    }
}

#[test]
fn no_directory_is_in_two_places() {
    let tree = history().tree();
    let mut all = directories(&tree, 1);
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "the kernel moves a directory that shows up twice, and find calls it a loop");
}

#[test]
fn access_denied_once_stays_denied() {
    use bygone_core::read::Access;
    let access = |owner, mode| Access { owner, mode };
    let (alice, bob) = (Some((1, 1)), Some((2, 1)));
    assert_eq!(access(alice, 0o755).and(access(alice, 0o700)), access(alice, 0o700));
    assert_eq!(access(alice, 0o755).and(access(bob, 0o755)), access(None, 0o555));
    assert_eq!(access(alice, 0o700).and(access(bob, 0o700)), access(None, 0), "bob never saw what alice had");
    assert_eq!(access(alice, 0o705).and(access(bob, 0o755)), access(None, 0), "a group that was shut out stays out");
    let merged = access(alice, 0o755).and(access(bob, 0o755)).and(access(bob, 0o751));
    assert_eq!(merged, access(None, 0o111));
}

#[test]
fn facts_are_readable_by_name_and_never_listed() {
    let tree = history().tree();
    let fact = |path: &str, name: &str| {
        let value = tree.xattr(at(&tree, path), format!("user.bygone.{name}").as_bytes());
        value.map(|value| String::from_utf8(value).unwrap()).ok()
    };
    let same = format!("snapshots/{}/same/deep/f", NAMES[1]);
    assert_eq!(fact(&same, "snapshots").unwrap(), NAMES.join("\n"));
    assert_eq!(fact(&same, "first_seen").unwrap(), "1970-01-01T00:01:40Z");
    assert_eq!(fact(&same, "last_seen").unwrap(), "1970-01-01T00:05:00Z");
    let version = format!("versions/report.pdf/{}.pdf", NAMES[1]);
    assert_eq!(fact(&version, "snapshots").unwrap(), NAMES[1]);
    assert_eq!(fact("deleted/gone/a", "last_seen").unwrap(), "1970-01-01T00:03:20Z");
    assert_eq!(fact("versions/gone", "snapshots").unwrap(), NAMES[..2].join("\n"));
    let (one, two) = (format!("snapshots/{}/report.pdf", NAMES[0]), format!("snapshots/{}/report.pdf", NAMES[1]));
    assert_ne!(fact(&one, "content_id").unwrap(), fact(&two, "content_id").unwrap());
    assert_eq!(fact(&one, "content_id").unwrap().len(), 64);
    assert_eq!((fact(&one, "volumes").unwrap(), fact(&one, "stored_bytes").unwrap()), (String::new(), "0".to_owned()));
    assert_eq!((fact(&one, "nonsense"), fact("snapshots", "snapshots")), (None, None));
    assert_eq!(tree.xattr_names(at(&tree, &one)).unwrap(), b"");
}

#[test]
fn a_file_knows_its_volumes_and_stored_bytes() {
    let tree = two_snapshots().tree();
    let same = at(&tree, "latest").max(1);
    assert!(tree.xattr(same, b"user.bygone.volumes").is_err(), "a link has no content");
    let same = at(&tree, "snapshots/1970-01-01T00-03-20Z/same");
    let fact = |name: &[u8]| String::from_utf8(tree.xattr(same, name).unwrap()).unwrap();
    assert_eq!(fact(b"user.bygone.volumes").len(), 64, "one volume");
    let stored: u64 = fact(b"user.bygone.stored_bytes").parse().unwrap();
    assert!((300_000..303_000).contains(&stored), "noise does not compress: {stored}");
}
