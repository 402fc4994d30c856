//! Entries of the parent that could not be read, or that only a newer program understands, and what is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use nix::errno::Errno;

use bygone_core::attributes::Attribute;
use bygone_core::attributes::Attributes;
use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Name;

use crate::backup::before::Past;
use crate::backup::folder::Folder;
use crate::backup::metadata::Describer;
use crate::backup::metadata::Owners;
use crate::backup::report::Issues;
use crate::backup::tests::Call;
use crate::backup::tests::Fixture;
use crate::backup::tests::Parent;

/// The recorded tree as a parent in which `alter` has changed each entry.
fn altered(fixture: &Fixture, alter: impl Fn(&mut Entry)) -> Parent {
    let mut parent = fixture.recorder.parent();
    let Past::Memory(nodes) = &mut parent.past else { unreachable!("a recorded parent is in memory") };
    nodes.values_mut().flatten().for_each(|entry| alter(Arc::make_mut(entry)));
    parent
}

#[test]
fn what_the_parent_could_not_read_is_read_however_old_it_is() {
    let mut fixture = Fixture::with(&[("file", "x"), ("folder/inside", "y")]);
    fixture.run();
    let parent = altered(&fixture, |entry| {
        let was = entry.file_type();
        if entry.name.as_bytes() != b"inside" {
            entry.kind = Kind::Unreadable { errno: 5, was };
        }
    });
    let report = fixture.try_run(parent, &[""]).unwrap();
    assert_eq!(fixture.recorder.content(&fixture.top, "file"), b"x");
    assert_eq!(fixture.recorder.content(&fixture.top, "folder/inside"), b"y");
    assert_eq!((report.counts.files_unchanged, report.counts.gone), (0, 0));
}

#[test]
fn a_record_not_understood_is_kept_until_its_file_changes() {
    let mut fixture = Fixture::with(&[("known", "abc"), ("unknown", "x")]);
    fixture.run();
    let later = |entry: &mut Entry| match entry.name.as_bytes() {
        b"known" => {
            entry.kind = Kind::Newer { code: 0, body: b"\x03abc".to_vec() };
            entry.attributes.set(Attribute { tag: 9, is_critical: true, value: vec![1] });
        }
        b"unknown" => entry.kind = Kind::Newer { code: 15, body: b"anything".to_vec() },
        _ => {}
    };
    let parent = altered(&fixture, later);
    let report = fixture.try_run(parent, &[""]).unwrap();
    for (name, code) in [("known", 0), ("unknown", 15)] {
        let Call::Same(entry) = fixture.recorder.find(&fixture.top, name) else { panic!("{name} is kept") };
        assert!(matches!(entry.kind, Kind::Newer { code: found, .. } if found == code));
        assert_eq!(entry.attributes.is_empty(), name == "unknown");
    }
    assert_eq!((report.counts.files_unchanged, report.counts.others, report.counts.bytes), (1, 1, 3));
    // Where the repository has lost something, nobody knows whether that concerns it.
    fixture.recorder.lost = vec![b"known", b"unknown"];
    fixture.run_again();
    assert_eq!(fixture.recorder.content(&fixture.top, "known"), b"abc");
    assert_eq!(fixture.recorder.content(&fixture.top, "unknown"), b"x");
    fixture.recorder.lost = vec![];
    let parent = altered(&fixture, later);
    for name in ["known", "unknown"] {
        fs::set_permissions(fixture.path(name), fs::Permissions::from_mode(0o604)).unwrap();
    }
    fixture.options.ignore_ctime = true;
    assert_eq!(fixture.try_run(parent, &[""]).unwrap().counts.files_changed, 2, "its metadata cannot be updated");
}

#[test]
fn attributes_that_are_not_known_stay_with_what_has_not_changed() {
    let mut fixture = Fixture::with(&[("file", "x")]);
    fixture.run();
    let mut attributes = Attributes::default();
    attributes.set(Attribute { tag: 9, is_critical: false, value: vec![1] });
    let parent = altered(&fixture, |entry| entry.attributes = attributes.clone());
    fixture.try_run(parent, &[""]).unwrap();
    let Call::Same(entry) = fixture.recorder.find(&fixture.top, "file") else { panic!("it is kept") };
    assert_eq!(entry.attributes, attributes);
}

#[test]
fn all_that_is_gone_is_counted_within_what_was_asked_for() {
    let files = [("a", ""), ("b/1", ""), ("b/2/3", ""), ("c", ""), ("d/x", ""), ("d/y", ""), ("other/z", "")];
    let mut fixture = Fixture::with(&files);
    fixture.run();
    fs::remove_file(fixture.path("a")).unwrap();
    fs::remove_dir_all(fixture.path("b")).unwrap();
    fs::remove_file(fixture.path("d/y")).unwrap();
    fs::remove_dir_all(fixture.path("other")).unwrap();
    assert_eq!(fixture.run_again().counts.gone, 1 + 4 + 1 + 2);
    fs::remove_dir_all(fixture.path("d")).unwrap();
    fs::write(fixture.path("d"), "a file now").unwrap();
    let parent = fixture.recorder.parent();
    assert_eq!(fixture.try_run(parent, &["d"]).unwrap().counts.gone, 1, "only what was below it");
    assert_eq!(fixture.run().counts.gone, 0, "without a parent nothing is gone");
}

#[test]
fn an_unreadable_entry_keeps_what_is_known() {
    let (folder, stat) = Folder::root().unwrap();
    let (issues, owners) = (Issues::default(), Owners::default());
    let describe = Describer { owners: &owners, issues: &issues };
    let (name, errno) = (Name::new(b"x").unwrap(), Errno::EACCES);
    let with_stat = describe.unreadable(&folder, &name, errno, Some(&stat), None).unwrap();
    assert_eq!((with_stat.file_type(), with_stat.meta.inode), (Some(FileType::Directory), stat.inode));
    let known = Entry::new(name.clone(), with_stat.meta.clone(), Kind::Fifo);
    let with_known = describe.unreadable(&folder, &name, errno, None, Some(&known)).unwrap();
    assert_eq!((with_known.file_type(), &with_known.meta), (Some(FileType::Fifo), &known.meta));
    let bare = describe.unreadable(&folder, &name, errno, None, None).unwrap();
    assert_eq!((bare.kind, bare.meta.mode), (Kind::Unreadable { errno: 13, was: None }, 0));
    assert_eq!(describe.unreadable(&folder, &name, Errno::ENOENT, Some(&stat), None), None);
}
