//! Content: cut on the grid, sparse, and changing under the reader.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Name;
use bygone_core::write::Piece;

use crate::backup::Counts;
use crate::backup::Report;
use crate::backup::Trouble;
use crate::backup::folder::Folder;
use crate::backup::folder::Follow;
use crate::backup::metadata::Describer;
use crate::backup::metadata::Owners;
use crate::backup::read::Event;
use crate::backup::read::FileReader;
use crate::backup::read::Task;
use crate::backup::report::Issues;
use crate::backup::stat::Stat;
use crate::backup::tests::BLOCK_BYTES;
use crate::backup::tests::Call;
use crate::backup::tests::Fixture;
use crate::backup::tests::content;
use crate::backup::tests::cutter;
use crate::backup::tests::length;

/// Reads one file, calling `meddle` before each event, and returns what follows the last restart.
fn read_one(path: &Path, mut meddle: impl FnMut(&Event)) -> (Vec<Piece>, Event, Report) {
    let (mut folder, _) = Folder::root().unwrap();
    let (name, way) = (path.file_name().unwrap(), path.parent().unwrap());
    for name in way.iter().skip(1) {
        let fd = folder.fd().unwrap();
        folder = Folder::open(&folder, &fd, name.as_encoded_bytes(), Follow::No).unwrap().0;
    }
    let (issues, owners) = (Issues::default(), Owners::default());
    let reader = FileReader { cutter: cutter(), describe: Describer { owners: &owners, issues: &issues } };
    let fd = folder.fd().unwrap();
    let name = name.as_encoded_bytes();
    // The tests begin with what the scan saw, whatever is there by now.
    let stat = Stat::of_child(fd.as_fd(), name).or_else(|_| Stat::of_fd(fd.as_fd())).unwrap();
    let task = Task { folder, fd, name: Name::new(name).unwrap(), stat };
    let (mut pieces, mut end) = (Vec::new(), None);
    let read = reader.read(&task, &mut |event| {
        meddle(&event);
        match event {
            Event::Piece(piece) => pieces.push(piece),
            Event::Restart => pieces.clear(),
            last => end = Some(last),
        }
        Ok(())
    });
    assert!(read.is_ok());
    (pieces, end.expect("each file has an end"), issues.into_report(Counts::default()))
}

fn sizes(fixture: &Fixture, name: &str) -> Vec<(bool, u64)> {
    match fixture.recorder.find(&fixture.top, name) {
        Call::File(_, _, pieces) => {
            pieces.iter().map(|piece| (matches!(piece, Piece::Hole(_)), length(piece))).collect()
        }
        call => panic!("{call:?} is not a file"),
    }
}

#[test]
fn files_are_cut_on_the_grid() {
    let mut fixture = Fixture::new();
    let grid = BLOCK_BYTES as u64;
    for size in [0, 1, 63, grid - 1, grid, grid + 1, 40 * grid, 40 * grid + 5] {
        let bytes: Vec<u8> = (0..size).map(|i| (i / 251) as u8 ^ i as u8).collect();
        fs::write(fixture.path(&size.to_string()), bytes).unwrap();
    }
    let report = fixture.run();
    assert_eq!(report.issues, []);
    for size in [0, 1, 63, grid - 1, grid, grid + 1, 40 * grid, 40 * grid + 5] {
        let name = size.to_string();
        assert_eq!(fixture.recorder.content(&fixture.top, &name), fs::read(fixture.path(&name)).unwrap());
        let sizes = sizes(&fixture, &name);
        assert_eq!(sizes.len() as u64, size.div_ceil(grid));
        assert!(sizes.iter().rev().skip(1).all(|size| *size == (false, grid)), "only the last block is short");
    }
}

#[test]
fn holes_are_told_not_read() {
    let mut fixture = Fixture::new();
    let grid = BLOCK_BYTES as u64;
    let file = File::create(fixture.path("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(&[1; 4_096], 3 * grid + 8_192).unwrap();
    file.write_all_at(&[2; BLOCK_BYTES], 10 * grid - 4_096).unwrap();
    File::create(fixture.path("hole")).unwrap().set_len(12_345).unwrap();
    let report = fixture.run();
    assert_eq!(report.issues, []);
    if sizes(&fixture, "hole") != [(true, 12_345)] {
        // A file system without holes.
        return;
    }
    let sizes = sizes(&fixture, "sparse");
    assert_eq!(sizes.iter().map(|(_, length)| length).sum::<u64>(), 1 << 40, "the hole at the end too");
    let expected = [
        (true, 3 * grid + 8_192),
        (false, 4_096),
        (true, 7 * grid - 4_096 - 12_288),
        (false, 4_096),
        (false, grid - 4_096),
        (true, (1 << 40) - 11 * grid + 4_096),
    ];
    assert_eq!(sizes, expected, "data is cut on the grid of the file, not of the segment");
}

#[test]
fn a_file_without_a_size_is_read_to_its_end() {
    for path in ["/proc/version", "/proc/filesystems"] {
        let Ok(expected) = fs::read(path) else { return };
        assert_eq!(fs::metadata(path).unwrap().len(), 0, "{path}");
        let (pieces, end, report) = read_one(Path::new(path), |_| {});
        assert_eq!(content(&pieces), expected, "{path}");
        assert!(matches!(end, Event::File(_, meta) if meta.size == expected.len() as u64));
        assert_eq!(report.issues, []);
    }
    // Such a file may also claim a page and have less.
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Ok(expected) = fs::read(path) else { return };
    let (pieces, _, report) = read_one(Path::new(path), |_| {});
    assert_eq!((content(&pieces), report.issues.len()), (expected, 0));
}

#[test]
fn a_file_that_changes_once_is_read_again() {
    let fixture = Fixture::with(&[("log", "first")]);
    let path = fixture.path("log");
    let mut changes = 0;
    let (pieces, end, report) = read_one(&path, |_| {
        changes += 1;
        if changes == 1 {
            fs::write(&path, "second and longer").unwrap();
        }
    });
    assert_eq!(content(&pieces), b"second and longer");
    assert!(matches!(end, Event::File(_, meta) if meta.size == 17));
    assert_eq!(report.issues, []);
}

#[test]
fn a_file_that_keeps_changing_is_kept_and_reported() {
    let fixture = Fixture::with(&[("log", "first")]);
    let path = fixture.path("log");
    let grow = |event: &Event| {
        if matches!(event, Event::Piece(_)) {
            let before = fs::read(&path).unwrap();
            fs::write(&path, [&before[..], b"+more"].concat()).unwrap();
        }
    };
    let (pieces, end, report) = read_one(&path, grow);
    assert_eq!(content(&pieces), b"first+more+more+more", "the fourth reading");
    assert!(matches!(end, Event::File(_, meta) if meta.size == 20), "the size is that of what was read");
    assert!(matches!(report.issues.as_slice(), [issue] if issue.trouble == Trouble::Changed));
    assert_eq!((report.unsettled, report.unreadable), (1, 0));
}

#[test]
fn a_file_that_comes_to_rest_is_read_once_more() {
    let fixture = Fixture::with(&[("log", "0")]);
    let path = fixture.path("log");
    let mut changes = 0;
    let (pieces, _, report) = read_one(&path, |event| {
        if matches!(event, Event::Piece(_)) && changes < 3 {
            changes += 1;
            fs::write(&path, "x".repeat(changes)).unwrap();
        }
    });
    assert_eq!((content(&pieces).as_slice(), report.issues.len()), (&b"xxx"[..], 0));
}

#[test]
fn a_file_that_shrinks_during_reading_has_no_made_up_bytes() {
    let fixture = Fixture::new();
    let path = fixture.path("shrinking");
    fs::write(&path, vec![1; 40 * BLOCK_BYTES]).unwrap();
    // Each of the four readings sees about half of the one before.
    let mut left = 40 * BLOCK_BYTES as u64;
    let (pieces, end, report) = read_one(&path, |event| {
        if matches!(event, Event::Piece(_)) {
            left = left.saturating_sub(BLOCK_BYTES as u64 + 10);
            File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
        }
    });
    let bytes = content(&pieces);
    assert!(bytes.iter().all(|byte| *byte == 1));
    assert!(matches!(end, Event::File(_, meta) if meta.size == bytes.len() as u64));
    assert_eq!(report.unsettled, 1);
}

#[test]
fn a_file_replaced_by_a_pipe_is_a_pipe_and_never_blocks() {
    let fixture = Fixture::new();
    let path = fixture.path("it");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let (pieces, end, _) = read_one(&path, |_| {});
    assert!(pieces.is_empty() && matches!(end, Event::Other(entry) if entry.kind == Kind::Fifo));
}

#[test]
fn a_file_replaced_by_anything_else_is_that() {
    let fixture = Fixture::with(&[("dir/", "")]);
    symlink("target", fixture.path("link")).unwrap();
    let _socket = UnixListener::bind(fixture.path("socket")).unwrap();
    let (_, end, _) = read_one(&fixture.path("link"), |_| {});
    assert!(matches!(end, Event::Other(entry) if entry.kind == Kind::Symlink(b"target".to_vec())));
    let (_, end, _) = read_one(&fixture.path("socket"), |_| {});
    assert!(matches!(end, Event::Other(entry) if entry.kind == Kind::Socket));
    let (_, end, report) = read_one(&fixture.path("dir"), |_| {});
    let Event::Unreadable(entry) = end else { panic!("its content was not listed") };
    assert_eq!(entry.file_type(), Some(FileType::Directory));
    assert_eq!((report.unreadable, report.unsettled), (1, 0));
    let (_, end, report) = read_one(&fixture.path("gone"), |_| {});
    assert!(matches!(end, Event::Lost));
    assert_eq!((report.unreadable, report.unsettled), (0, 1), "it is not there");
}

#[test]
fn a_read_error_makes_an_unreadable_entry() {
    // Reading the memory of this process at address 0 fails, as a bad disk does.
    let path = Path::new("/proc/self/mem");
    let Ok(mut file) = File::open(path) else { return };
    assert!(file.read(&mut [0]).is_err());
    let fixture = Fixture::with(&[("file", "x")]);
    let (issues, owners) = (Issues::default(), Owners::default());
    let reader = FileReader { cutter: cutter(), describe: Describer { owners: &owners, issues: &issues } };
    let (folder, _) = Folder::root().unwrap();
    let mut stat = Stat::of_fd(File::open(fixture.path("file")).unwrap().as_fd()).unwrap();
    stat.size = 5;
    let task = Task { fd: folder.fd().unwrap(), folder, name: Name::new(b"mem").unwrap(), stat };
    let mut events = Vec::new();
    let read = reader.read_opened(&task, &Arc::new(file.into()), stat, &mut |event| {
        events.push(event);
        Ok(())
    });
    let [Event::Unreadable(entry)] = events.as_slice() else { panic!("one entry") };
    let unreadable = Kind::Unreadable { errno: Errno::EIO as u32, was: Some(FileType::File) };
    assert!(read.is_ok() && (&entry.kind, entry.meta.size) == (&unreadable, 5));
    assert_eq!(issues.into_report(Counts::default()).unreadable, 1);
}
