//! What is taken from the parent snapshot, and what is not trusted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::time::Duration;
use std::time::SystemTime;

use bygone_core::entry::Time;

use crate::backup::before::Past;
use crate::backup::tests::Call;
use crate::backup::tests::Fixture;
use crate::backup::tests::Parent;

#[test]
fn an_unchanged_tree_is_taken_whole_from_the_parent() {
    let mut fixture = Fixture::with(&[("a/x", "1"), ("b", "22"), ("c/d/", "")]);
    symlink("b", fixture.path("link")).unwrap();
    fixture.run();
    let report = fixture.run_again();
    assert_eq!(fixture.recorder.same(), ["x", "b", "link"]);
    assert_eq!((report.counts.files_unchanged, report.counts.files_changed, report.counts.files_new), (2, 0, 0));
    assert_eq!((report.counts.bytes, report.counts.bytes_read), (3, 0));
}

#[test]
fn changed_files_are_read_and_others_are_not() {
    let mut fixture = Fixture::with(&[("content", "1"), ("mode", "2"), ("size", "3"), ("same", "4"), ("gone", "5")]);
    fixture.run();
    fs::write(fixture.path("content"), "X").unwrap();
    fs::set_permissions(fixture.path("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(fixture.path("size"), "33").unwrap();
    fs::write(fixture.path("new"), "6").unwrap();
    fs::remove_file(fixture.path("gone")).unwrap();
    let report = fixture.run_again();
    assert_eq!(fixture.recorder.same(), ["same"]);
    assert_eq!(fixture.below(), ["content", "mode", "new", "same", "size"]);
    assert_eq!((report.counts.files_changed, report.counts.files_new), (3, 1));
    assert_eq!(fixture.recorder.meta(&fixture.top, "mode").mode, 0o600);
}

#[test]
fn a_file_may_become_a_directory_and_vice_versa() {
    let mut fixture = Fixture::with(&[("a", "1"), ("b/x", "2")]);
    fixture.run();
    fs::remove_file(fixture.path("a")).unwrap();
    fs::create_dir(fixture.path("a")).unwrap();
    fs::write(fixture.path("a/y"), "3").unwrap();
    fs::remove_dir_all(fixture.path("b")).unwrap();
    fs::write(fixture.path("b"), "4").unwrap();
    fixture.run_again();
    assert_eq!(fixture.below(), ["a/y", "a/", "b"]);
    assert_eq!(fixture.recorder.same(), [""; 0]);
}

#[test]
fn a_replaced_file_of_equal_size_and_time_has_another_inode() {
    let mut fixture = Fixture::with(&[("file", "old"), ("replacement", "new")]);
    let time = SystemTime::now() - Duration::from_secs(1_000);
    for name in ["file", "replacement"] {
        fs::File::options().write(true).open(fixture.path(name)).unwrap().set_modified(time).unwrap();
    }
    fixture.run();
    fs::rename(fixture.path("replacement"), fixture.path("file")).unwrap();
    fixture.options.ignore_ctime = true;
    fixture.run_again();
    assert_eq!(fixture.recorder.content(&fixture.top, "file"), b"new");
}

#[test]
fn times_since_the_beginning_of_the_parent_are_not_trusted() {
    let mut fixture = Fixture::with(&[("file", "x")]);
    fixture.run();
    let ctime = fixture.recorder.meta(&fixture.top, "file").ctime;
    for (secs, believed) in [(10, true), (0, false), (-10, false)] {
        let parent = Parent { began: Time { secs: ctime.secs + secs, ..ctime }, ..fixture.recorder.parent() };
        let report = fixture.try_run(parent, &[""]).unwrap();
        assert_eq!(report.counts.files_unchanged == 1, believed, "a backup that began {secs} s after the change");
    }
}

#[test]
fn ignoring_change_times_keeps_content_and_updates_metadata() {
    let mut fixture = Fixture::with(&[("file", "x")]);
    fixture.run();
    fs::set_permissions(fixture.path("file"), fs::Permissions::from_mode(0o640)).unwrap();
    fixture.options.ignore_ctime = true;
    let report = fixture.run_again();
    assert_eq!((report.counts.files_unchanged, report.counts.bytes_read), (1, 0));
    assert!(matches!(fixture.recorder.find(&fixture.top, "file"), Call::Same(entry) if entry.meta.mode == 0o640));
}

#[test]
fn another_inode_number_is_a_change_unless_it_is_ignored() {
    let mut fixture = Fixture::with(&[("file", "x"), ("twin", "y")]);
    fs::hard_link(fixture.path("twin"), fixture.path("twin2")).unwrap();
    fixture.run();
    let renumbered = |fixture: &Fixture| {
        let mut parent = fixture.recorder.parent();
        let Past::Memory(nodes) = &mut parent.past else { unreachable!("a recorded parent is in memory") };
        for entry in nodes.values_mut().flatten().filter(|entry| entry.is_file()) {
            std::sync::Arc::make_mut(entry).meta.inode += 1_000_000;
        }
        parent
    };
    let before = renumbered(&fixture);
    assert_eq!(fixture.try_run(before, &[""]).unwrap().counts.files_changed, 3);
    fixture.options.ignore_inode = true;
    let before = renumbered(&fixture);
    assert_eq!(fixture.try_run(before, &[""]).unwrap().counts.files_unchanged, 3);
    let inode = |name| fixture.recorder.meta(&fixture.top, name).inode;
    assert_eq!(inode("twin"), inode("twin2"));
    assert!(inode("twin") < 1_000_000 || inode("file") > inode("twin"), "names of one file find each other by number");
}

#[test]
fn a_lost_block_makes_an_unchanged_file_be_read() {
    let mut fixture = Fixture::with(&[("a", "1"), ("b", "22"), ("c", "3")]);
    fixture.run();
    fixture.recorder.lost = vec![b"b"];
    let report = fixture.run_again();
    assert_eq!(fixture.recorder.same(), ["a", "c"]);
    assert_eq!(fixture.recorder.content(&fixture.top, "b"), b"22");
    assert_eq!((report.counts.files_unchanged, report.counts.files_changed), (2, 1));
}
