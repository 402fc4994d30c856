//! Nothing that is in the target, or is put there during a restore, can divert the restore elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::*;
use crate::restore::Overwrite;

fn options(overwrite: Overwrite) -> Options {
    Options { overwrite: Some(overwrite), ..Options::default() }
}

/// A directory outside the target with entries in it, and a target with links that lead there.
struct Trap {
    outside: tempfile::TempDir,
    target: tempfile::TempDir,
    before: Vec<String>,
}

fn trap() -> Trap {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("dir")).unwrap();
    fs::write(outside.path().join("dir/file"), b"not yours").unwrap();
    fs::write(outside.path().join("file"), b"not yours either").unwrap();
    let target = tempfile::tempdir().unwrap();
    symlink(outside.path().join("dir"), target.path().join("dir")).unwrap();
    symlink(outside.path().join("file"), target.path().join("file")).unwrap();
    fs::hard_link(outside.path().join("file"), target.path().join("hard")).unwrap();
    symlink(outside.path().join("new"), target.path().join("nowhere")).unwrap();
    let before = listing(outside.path());
    Trap { outside, target, before }
}

fn repo() -> Repo {
    Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("file", mode(0o666), b"from the snapshot");
        tree.other("pipe", mode(0o666), Kind::Fifo);
        tree.end("dir", mode(0o777));
        tree.file("file", mode(0o666), &noise(1, 100));
        tree.file("hard", mode(0o666), &noise(2, 100));
        tree.other("nowhere", mode(0o666), Kind::Fifo);
    })
}

#[test]
fn links_in_the_target_are_never_followed() {
    let repo = repo();
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        for delete in [None, repo.deletion(&[])] {
            let Trap { outside, target, before } = trap();
            let report = repo
                .restore(target.path(), &Options { delete: delete.clone(), verify: true, ..options(overwrite) })
                .unwrap();
            assert_eq!(listing(outside.path()), before, "{overwrite:?}: nothing outside the target may change");
            let replaces = matches!(overwrite, Overwrite::Always | Overwrite::IfChanged);
            if replaces {
                assert_eq!(report.issues, [], "{overwrite:?}");
                assert_eq!(fs::read(target.path().join("dir/file")).unwrap(), b"from the snapshot");
                assert!(!target.path().join("dir").symlink_metadata().unwrap().is_symlink());
                assert_eq!(
                    target.path().join("hard").metadata().unwrap().nlink(),
                    1,
                    "its other name stays what it was"
                );
            } else {
                assert_eq!(
                    report.issues_total, 1,
                    "{overwrite:?}: the directory cannot be restored: {:?}",
                    report.issues
                );
                assert!(target.path().join("dir").symlink_metadata().unwrap().is_symlink());
            }
        }
    }
}

#[test]
fn deleting_follows_no_links() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), b"stays").unwrap();
    let before = listing(outside.path());
    let target = tempfile::tempdir().unwrap();
    fs::create_dir_all(target.path().join("old/deep")).unwrap();
    symlink(outside.path(), target.path().join("old/deep/link")).unwrap();
    symlink(outside.path(), target.path().join("link")).unwrap();
    let repo = repo();
    let with = Options { delete: repo.deletion(&[]), ..options(Overwrite::Always) };
    let report = repo.restore(target.path(), &with).unwrap();
    assert_eq!((report.issues.len(), report.deleted), (0, 4));
    assert_eq!(listing(outside.path()), before);
    assert!(!target.path().join("old").exists() && target.path().join("link").symlink_metadata().is_err());
}

/// An authorised user repeatedly swaps a directory of the target for a link to elsewhere.
#[test]
fn a_directory_swapped_for_a_link_cannot_divert_a_restore() {
    let repo = Repo::new(mode(0o755), |tree| {
        for directory in 0..20 {
            tree.begin();
            for file in 0..50 {
                tree.file(&format!("f{file:02}"), mode(0o666), &noise(directory * 100 + file, 100));
            }
            tree.begin();
            tree.file("f", mode(0o666), b"deep");
            tree.end("g", mode(0o755));
            tree.end(&format!("d{directory:02}"), mode(0o777));
        }
    });
    for _ in 0..5 {
        let outside = tempfile::tempdir().unwrap();
        for number in 0..20 {
            fs::create_dir(outside.path().join(format!("d{number:02}"))).unwrap();
        }
        let before = listing(outside.path());
        let target = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for number in 0..20 {
                        let name = format!("d{number:02}");
                        let (path, aside) = (target.path().join(&name), target.path().join(format!("aside-{name}")));
                        if fs::rename(&path, &aside).is_ok() {
                            let _ = symlink(outside.path().join(&name), &path);
                            std::thread::yield_now();
                            let _ = fs::remove_file(&path);
                            let _ = fs::rename(&aside, &path);
                        }
                    }
                }
            });
            // It may succeed, have issues or give up, but not leave the target.
            let _ = repo.restore(target.path(), &Options::default());
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(listing(outside.path()), before, "nothing may be written through the link");
    }
}

#[test]
fn names_of_any_bytes_come_back() {
    let names: Vec<Vec<u8>> = (1..=255u8).filter(|byte| *byte != b'/').map(|byte| vec![b'_', byte]).collect();
    let long = [b'x'; 255];
    let repo = Repo::new(mode(0o755), |tree| {
        for name in &names {
            tree.other_bytes(name);
        }
        tree.other_bytes(&long);
    });
    let (target, report) = restored(&repo, &Options::default());
    assert_eq!(report.others, 255);
    use std::os::unix::ffi::OsStrExt;
    for name in names.iter().map(Vec::as_slice).chain([&long[..]]) {
        assert!(target.path().join(std::ffi::OsStr::from_bytes(name)).symlink_metadata().is_ok(), "{name:?}");
    }
}

trait OtherBytes {
    fn other_bytes(&mut self, name: &[u8]);
}

impl OtherBytes for Writer<'_> {
    fn other_bytes(&mut self, bytes: &[u8]) {
        self.add(Entry::new(name(bytes), meta(), Kind::Symlink(b"x".to_vec())))
            .map_or_else(|error| panic!("{error}"), |()| ());
    }
}
