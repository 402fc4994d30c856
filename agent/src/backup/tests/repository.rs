//! Through the real writer and back, with the parent from the catalog.

use std::fs;

use bygone_core::entry::Time;
use bygone_core::id::NodeId;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::repo::LockedRepository;
use bygone_core::snapshot::Snapshot;
use bygone_core::watch::Watch;
use bygone_core::write::backup;

use crate::backup::Parent;
use crate::backup::Report;
use crate::backup::Roots;
use crate::backup::backup_tree;
use crate::backup::tests::Fixture;
use crate::backup::tests::backup_options;
use crate::backup::tests::repository;

fn back_up(fixture: &Fixture, locked: &mut LockedRepository) -> (Report, Snapshot) {
    let roots = Roots::new(&fixture.top, &[".".into()]).unwrap();
    let view = Reader::new(locked.repository(), 0, Order::Any).unwrap().view().unwrap();
    let rows = view.snapshots().unwrap();
    let parent = Parent::choose(&rows, "", &roots.paths(), Time::default()).map(|snapshot| Parent::new(view, snapshot));
    let options = bygone_core::write::BackupOptions { paths: roots.paths(), ..backup_options() };
    let watch = Watch::new();
    backup(locked, options, &watch, |writer| {
        let report = backup_tree(writer, parent, &roots, &fixture.options, &watch)?;
        let unreadable = report.unreadable;
        Ok((report, unreadable))
    })
    .unwrap()
}

/// The node of the fixture's directory. The directories above it may change while the test runs.
fn top(fixture: &Fixture, locked: &LockedRepository, snapshot: &Snapshot) -> NodeId {
    let view = Reader::new(locked.repository(), 0, Order::Any).unwrap().view().unwrap();
    fixture.top.iter().skip(1).fold(snapshot.root, |node, name| {
        let found = view.directory(node).unwrap().find(&view, name.as_encoded_bytes()).unwrap();
        found.and_then(|item| item.entry.directory()).unwrap()
    })
}

#[test]
fn an_unchanged_tree_has_the_same_root_and_changes_are_found() {
    let mut fixture = Fixture::with(&[("a/x", "1"), ("large/", ""), ("large/sub/y", "2")]);
    for i in 0..2_500 {
        fs::write(fixture.path(&format!("large/{i}")), i.to_string().repeat(30)).unwrap();
    }
    let catalog = tempfile::tempdir().unwrap();
    let mut locked = repository(catalog.path());
    let (report, first) = back_up(&fixture, &mut locked);
    let first_top = top(&fixture, &locked, &first);
    assert_eq!((report.counts.files_new, report.issues), (2_502, vec![]));
    assert_eq!((first.totals.files, first.totals.bytes), (2_502, report.counts.bytes));

    let (report, second) = back_up(&fixture, &mut locked);
    assert_eq!((report.counts.files_unchanged, report.counts.bytes_read), (2_502, 0));
    assert_eq!(top(&fixture, &locked, &second), first_top);

    fs::write(fixture.path("large/1700"), "changed").unwrap();
    fs::remove_file(fixture.path("large/3")).unwrap();
    let (report, third) = back_up(&fixture, &mut locked);
    assert_eq!((report.counts.files_unchanged, report.counts.files_changed), (2_500, 1));
    let third_top = top(&fixture, &locked, &third);
    assert_ne!(third_top, first_top);

    fixture.options.force = true;
    let (report, fourth) = back_up(&fixture, &mut locked);
    assert_eq!((report.counts.files_changed, report.counts.files_unchanged), (2_501, 0), "everything is read");
    assert_eq!((top(&fixture, &locked, &fourth), fourth.totals.bytes_new), (third_top, 0), "and found to be the same");
}
