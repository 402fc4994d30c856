//! Content: files of all lengths, holes, hard links, selections, damage.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use bygone_core::store::testing::faulty::FaultyStore;

use super::*;
use crate::exclude::Excludes;
use crate::restore::Overwrite;
use crate::restore::Selection;

/// Not a multiple of a block, piece or part.
const BIG: usize = (40 << 20) + 12_345;

fn all_lengths() -> Repo {
    Repo::new(mode(0o755), |tree| {
        tree.file("a-empty", meta(), b"");
        tree.file("b-inline", meta(), b"hello");
        tree.file("c-block", meta(), &noise(1, 1 << 16));
        tree.file("d-more", meta(), &noise(2, (1 << 16) + 1));
        tree.begin();
        tree.file("list", meta(), &noise(3, 3 << 20));
        tree.file("zeros", meta(), &[0; 100_000]);
        tree.end("dir", mode(0o750));
        tree.file("e-big", meta(), &noise(4, BIG));
    })
}

#[test]
fn files_of_all_lengths_come_back_and_are_verified() {
    let options = Options { verify: true, ..Options::default() };
    let (target, report) = restored(&all_lengths(), &options);
    let read = |name: &str| fs::read(target.path().join(name)).unwrap();
    assert_eq!(read("a-empty"), b"");
    assert_eq!(read("b-inline"), b"hello");
    assert_eq!(read("c-block"), noise(1, 1 << 16));
    assert_eq!(read("d-more"), noise(2, (1 << 16) + 1));
    assert_eq!(read("dir/list"), noise(3, 3 << 20));
    assert_eq!(read("dir/zeros"), [0; 100_000]);
    assert!(read("e-big") == noise(4, BIG), "a file in parts must be whole");
    let bytes = 5 + (2 << 16) + 1 + (3 << 20) + 100_000 + BIG as u64;
    assert_eq!((report.files, report.directories, report.bytes, report.verified), (7, 1, bytes, 7));
}

#[test]
fn many_directories_with_few_files_each_come_back() {
    let repo = Repo::new(mode(0o755), |tree| {
        for number in 0..500 {
            tree.begin();
            tree.file(
                "f",
                meta(),
                format!("content number {number}, long enough to be in no entry itself, {number}").as_bytes(),
            );
            tree.end(&format!("d{number:03}"), mode(0o755));
        }
    });
    let (target, report) = restored(&repo, &Options::default());
    assert_eq!((report.files, report.directories), (500, 500));
    assert!(fs::read_to_string(target.path().join("d499/f")).unwrap().starts_with("content number 499"));
}

#[test]
fn holes_stay_holes_and_zeros_become_holes_on_request() {
    let data = noise(5, 1 << 16);
    let repo = Repo::new(mode(0o755), |tree| {
        tree.pieces("a", meta(), &[(None, 8 << 20), (Some(&data), 0), (None, 50 << 20)]);
        tree.pieces("b", meta(), &[(None, 1 << 20)]);
        tree.pieces("c", meta(), &[(Some(&[0; 1 << 20]), 0), (Some(&data), 0), (Some(&[0; 999]), 0)]);
    });
    let blocks = |target: &Path, name: &str| target.join(name).metadata().unwrap().blocks() * 512;
    for sparse in [false, true] {
        let options = Options { sparse, verify: true, ..Options::default() };
        let (target, report) = restored(&repo, &options);
        assert_eq!(report.verified, 3);
        let bytes = fs::read(target.path().join("a")).unwrap();
        assert_eq!(bytes.len(), (58 << 20) + (1 << 16));
        assert!(bytes[8 << 20..(8 << 20) + (1 << 16)] == data, "data after a hole is in its place");
        assert!(bytes.iter().filter(|byte| **byte != 0).count() <= data.len(), "a hole reads as zeros");
        assert!(blocks(target.path(), "a") <= 128 << 10, "holes take no room");
        assert_eq!(blocks(target.path(), "b"), 0);
        assert_eq!(fs::read(target.path().join("b")).unwrap(), vec![0; 1 << 20]);
        let written = blocks(target.path(), "c");
        assert_eq!(written < 1 << 20, sparse, "{written} bytes for zeros, sparse: {sparse}");
        assert_eq!(fs::read(target.path().join("c")).unwrap(), [&vec![0; 1 << 20], &data[..], &[0; 999]].concat());
    }
}

#[test]
fn names_of_one_file_are_one_file_again() {
    let linked = |inode, nlink| Meta { inode, nlink, ..meta() };
    let repo = Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("one", linked(7, 3), &noise(1, 100));
        tree.file("two", linked(7, 3), &noise(1, 100));
        tree.end("a", mode(0o500));
        tree.file("b-changed", linked(7, 3), &noise(2, 100));
        tree.file("c-alone", linked(8, 2), &noise(3, 100));
        tree.begin();
        tree.other("link", linked(9, 2), Kind::Symlink(b"x".to_vec()));
        tree.other("pipe", linked(10, 2), Kind::Fifo);
        tree.file("three", linked(7, 3), &noise(1, 100));
        tree.end("d", mode(0o755));
        tree.other("e", linked(9, 2), Kind::Symlink(b"x".to_vec()));
        tree.other("f", linked(10, 2), Kind::Fifo);
    });
    let (target, report) = restored(&repo, &Options { verify: true, ..Options::default() });
    let stat = |name: &str| target.path().join(name).symlink_metadata().unwrap();
    assert_eq!(stat("a/one").ino(), stat("a/two").ino());
    assert_eq!(stat("a/one").ino(), stat("d/three").ino());
    assert_eq!(stat("a/one").nlink(), 3);
    assert_ne!(stat("b-changed").ino(), stat("a/one").ino(), "another content is another file, whatever its inode was");
    assert_eq!(stat("c-alone").nlink(), 1);
    assert_eq!(stat("d/link").ino(), stat("e").ino());
    assert_eq!(stat("d/pipe").ino(), stat("f").ino());
    assert_eq!((report.files, report.links, report.others), (3, 4, 2));
    assert_eq!(mtime(&target.path().join("a")), (1_500_000_000, 123_456_789), "linking comes before times");
}

#[test]
fn a_tree_deeper_than_paths_and_descriptors_comes_back() {
    const LEVELS: usize = 3_000;
    let repo = Repo::new(mode(0o755), |tree| {
        for _ in 0..LEVELS {
            tree.begin();
        }
        tree.file("bottom", meta(), b"deep");
        for level in (0..LEVELS).rev() {
            tree.end("d", mode(0o500));
            tree.file("f", meta(), format!("{level}").as_bytes());
        }
    });
    let (target, report) = restored(&repo, &Options { verify: true, ..Options::default() });
    assert_eq!(
        (report.files, report.directories, report.verified),
        (LEVELS as u64 + 1, LEVELS as u64, LEVELS as u64 + 1)
    );
    // The path is too long for system calls, so go down step by step.
    use nix::fcntl::OFlag;
    use nix::fcntl::openat;
    use nix::sys::stat::Mode;
    use nix::sys::stat::fstat;
    let mut here: std::os::fd::OwnedFd = fs::File::open(target.path()).unwrap().into();
    for _ in 0..LEVELS {
        here = openat(&here, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let stat = fstat(&here).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_mtime), (0o500, 1_500_000_000));
    }
    assert!(openat(&here, "bottom", OFlag::O_RDONLY, Mode::empty()).is_ok());
    // The removal of the target must be able to enter.
    if is_root() {
        let empty = Repo::new(mode(0o755), |_| ());
        let options = Options { overwrite: Some(Overwrite::Always), delete: empty.deletion(&[]), ..Options::default() };
        assert_eq!(empty.restore(target.path(), &options).unwrap().deleted, 2 * LEVELS as u64 + 1);
    }
}

#[test]
fn part_of_a_snapshot_comes_back_under_the_target() {
    let repo = all_lengths();
    let target = tempfile::tempdir().unwrap();
    let new = target.path().join("made/by/restore");
    let report = repo.restore_path(b"/dir/", &new, &Options::default(), &mut |_, _| ()).unwrap();
    assert_eq!((report.files, report.directories), (2, 0));
    assert_eq!(fs::read(new.join("zeros")).unwrap(), [0; 100_000]);
    assert_eq!(new.metadata().unwrap().mode() & 0o7777, 0o750, "the target is that directory now");
    assert_eq!(mtime(&new), (1_500_000_000, 123_456_789));

    let file = target.path().join("file");
    fs::create_dir_all(&file).unwrap();
    let report = repo.restore_path(b"dir//zeros", &file, &Options::default(), &mut |_, _| ()).unwrap();
    assert_eq!((report.files, fs::read(file.join("zeros")).unwrap().len()), (1, 100_000));
}

#[test]
fn a_selection_restores_what_it_takes_and_the_directories_above() {
    let repo = Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("a.c", meta(), b"1");
        tree.file("a.o", meta(), b"2");
        tree.begin();
        tree.file("b.c", meta(), b"3");
        tree.end("deep", mode(0o700));
        tree.end("code", mode(0o750));
        tree.begin();
        tree.file("c.o", meta(), b"4");
        tree.end("empty", mode(0o755));
        tree.file("z.c", meta(), b"5");
    });
    let patterns = |patterns: &[&str]| Excludes::new(patterns.iter().map(|pattern| pattern.as_bytes())).unwrap();
    let names = |include: &[&str], exclude: &[&str]| {
        let selection = Selection { include: patterns(include), exclude: patterns(exclude) };
        let (target, _) = restored(&repo, &Options { selection, verify: true, ..Options::default() });
        let strip = target.path().as_os_str().as_bytes().len() + 1;
        let lines = listing(target.path());
        lines.iter().map(|line| line[strip..].split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[], &["*.c"]), ["code", "code/a.o", "code/deep", "empty", "empty/c.o"]);
    assert_eq!(names(&["b.c", "z.*"], &[]), ["code", "code/deep", "code/deep/b.c", "z.c"]);
    assert_eq!(names(&["/code"], &["*.o"]), ["code", "code/a.c", "code/deep", "code/deep/b.c"]);
    assert_eq!(names(&["nothing"], &[]), [""; 0]);
}

#[test]
fn a_damaged_file_is_named_and_no_part_of_it_is_left() {
    let linked = Meta { inode: 5, nlink: 2, ..meta() };
    let repo = Repo::new(mode(0o755), |tree| {
        tree.file("a-inline", meta(), b"safe");
        tree.file("b-big-lost", meta(), &noise(2, 20 << 20));
        tree.begin();
        tree.file("c-lost", linked.clone(), &noise(1, 200_000));
        tree.file("d-lost", linked, &noise(1, 200_000));
        tree.end("dir", mode(0o755));
    });
    for volume in repo.volumes() {
        repo.store.tamper(&volume, None);
    }
    let target = tempfile::tempdir().unwrap();
    let report = repo.restore(target.path(), &Options { verify: true, ..Options::default() }).unwrap();
    let mut paths: Vec<_> = report.issues.iter().map(|issue| String::from_utf8_lossy(&issue.path)).collect();
    paths.sort();
    assert_eq!(paths, ["/b-big-lost", "/dir/c-lost", "/dir/d-lost"]);
    assert_eq!((report.files, report.damaged, report.issues_total), (1, 2, 3));
    let left = listing(target.path());
    assert_eq!(left.len(), 2, "the inline file and the directory: {left:?}");
}

#[test]
fn readable_parts_of_a_damaged_file_are_kept_on_request() {
    let bytes = noise(1, 1_500_000);
    let repo = Repo::new(mode(0o755), |tree| tree.file("f", mode(0o777), &bytes));
    let volumes = repo.volumes();
    assert!(volumes.len() > 1, "one volume is lost and one is not");
    let objects = repo.store.objects();
    let smallest = volumes.iter().min_by_key(|volume| objects[*volume].len()).unwrap();
    repo.store.tamper(smallest, None);
    let target = tempfile::tempdir().unwrap();
    let report = repo.restore(target.path(), &Options { keep_damaged: true, ..Options::default() }).unwrap();
    assert_eq!((report.files, report.damaged), (0, 1));
    assert!(report.issues[0].text.contains("f.bygone-damaged"), "{}", report.issues[0].text);
    assert!(!target.path().join("f").exists(), "what is not whole has not the right name");
    let kept = target.path().join("f.bygone-damaged");
    let found = fs::read(&kept).unwrap();
    assert_eq!(kept.metadata().unwrap().mode() & 0o7777, 0o600);
    assert!(found[..900_000] == bytes[..900_000], "what is stored elsewhere is there");
    assert!(found != bytes);
}

#[test]
fn a_restore_uses_all_connections_of_a_far_store() {
    let repo = Repo::new(mode(0o755), |tree| {
        (0..8u8).for_each(|n| tree.file(&format!("file{n}"), meta(), &noise(n.into(), 4 << 20)));
    });
    let store = Arc::new(FaultyStore::new(repo.store.clone()).with_connections(4).far());
    // No request is answered before there are this many.
    store.gather("data/", 4);
    let place = Place { store: store.clone(), catalog_base: repo.place.catalog_base.clone() };
    let far = Repo { place, ..repo };
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (target, report) = restored(&far, &Options::default());
        let files = (0..8u8)
            .filter(|n| fs::read(target.path().join(format!("file{n}"))).unwrap() == noise((*n).into(), 4 << 20));
        sender.send((files.count(), report.files)).unwrap();
    });
    let done = receiver.recv_timeout(Duration::from_secs(120)).expect("too few requests at a time");
    assert_eq!(done, (8, 8));
    assert!(!store.is_closed());
}
