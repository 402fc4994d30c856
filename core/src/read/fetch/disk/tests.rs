//! The directory: what is there, what goes first, what a damaged one is worth.

use std::time::Duration;
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;
use crate::store::ObjectName;

const VOLUME_BYTES: u64 = 8 * PIECE_BYTES;

fn object(number: i64) -> Object {
    Object { volume: number, name: ObjectName::new(&format!("data/00/{number:064x}")).unwrap(), bytes: VOLUME_BYTES }
}

fn open(dir: &TempDir, bytes_max: u64, free_percent_min: u8) -> Disk {
    Disk::open(CacheOptions { dir: dir.path().to_path_buf(), bytes_max, free_percent_min }).unwrap()
}

fn piece(number: u64) -> Range<u64> {
    number * PIECE_BYTES..(number + 1) * PIECE_BYTES
}

fn fill(disk: &Disk, number: i64) {
    for at in 0..8 {
        assert!(disk.write(&object(number), at * PIECE_BYTES, &[number as u8 + 1; PIECE_BYTES as usize]).unwrap());
    }
}

#[test]
fn what_was_written_is_there_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let disk = open(&dir, 1 << 30, 0);
    assert!(!disk.has(&object(1), &piece(0)) && disk.read(&object(1), &piece(0)).is_none());
    disk.write(&object(1), 3 * PIECE_BYTES, &[7; PIECE_BYTES as usize]).unwrap();
    for disk in [&disk, &open(&dir, 1 << 30, 0)] {
        let there: Vec<u64> = (0..9).filter(|number| disk.has(&object(1), &piece(*number))).collect();
        assert_eq!(there, [3]);
        assert_eq!(disk.read(&object(1), &(piece(3).start + 5..piece(3).end)).unwrap().len(), PIECE_BYTES as usize - 5);
        assert!(disk.read(&object(1), &(piece(3).start..piece(4).end)).is_none());
    }
    disk.punch(&object(1), &piece(3));
    assert!(!disk.has(&object(1), &piece(3)));
}

#[test]
fn what_was_used_least_lately_goes_and_the_limit_holds() {
    let dir = TempDir::new().unwrap();
    let disk = open(&dir, 3 * VOLUME_BYTES, 0);
    for number in 0..6 {
        fill(&disk, number);
        let usage = cache_usage(dir.path()).unwrap();
        assert!(usage.bytes <= 3 * VOLUME_BYTES, "{usage:?}");
        assert!((0..8).all(|at| disk.has(&object(number), &piece(at))), "the newest is there");
        // The clock of a file system may not tell two of these apart.
        let used_at = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
        disk.file(&object(number), false).unwrap().set_modified(used_at).unwrap();
    }
    assert!(!disk.has(&object(0), &piece(7)), "the oldest is gone");
    let small = open(&dir, 2 * PIECE_BYTES, 0);
    fill(&small, 7);
    assert!(cache_usage(dir.path()).unwrap().bytes <= 2 * PIECE_BYTES);
}

#[test]
fn a_disk_that_must_stay_free_is_not_written_to() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir, 1 << 30, 0), 1);
    let disk = open(&dir, 1 << 30, 100);
    assert!(!disk.write(&object(2), 0, &[1; 100]).unwrap());
    assert_eq!(cache_usage(dir.path()).unwrap(), CacheUsage::default(), "and gives back what it took");
}

#[test]
fn emptying_says_what_was_there_and_leaves_users_alone() {
    let dir = TempDir::new().unwrap();
    let disk = open(&dir, 1 << 30, 0);
    fill(&disk, 1);
    assert_eq!(cache_clear(dir.path()).unwrap(), CacheUsage { volumes: 1, bytes: VOLUME_BYTES });
    assert!(!disk.has(&object(1), &piece(0)));
    fill(&disk, 1);
    assert!(disk.has(&object(1), &piece(7)));
    drop(disk);
    cache_clear(dir.path()).unwrap();
    assert_eq!(files(dir.path()).unwrap().len(), 0, "empty files go when nobody is there");
    assert_eq!(cache_usage(&dir.path().join("none")).unwrap(), CacheUsage::default());
}

#[test]
fn who_only_looks_finds_what_was_kept_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let name = |number: u8| VolumeName([number; 32]);
    let object = |number: u8| {
        let hex = name(number).to_hex();
        Object { volume: number.into(), name: ObjectName::new(&format!("data/00/{hex}")).unwrap(), bytes: VOLUME_BYTES }
    };
    let disk = open(&dir, 1 << 30, 0);
    let bytes: Vec<u8> = (0..PIECE_BYTES * 2).map(|at| (at % 251) as u8).collect();
    disk.write(&object(1), PIECE_BYTES, &bytes).unwrap();
    drop(disk);
    let before = fs::read_dir(dir.path()).unwrap().count();
    let reader = CacheReader::new(dir.path().to_path_buf());
    let across = PIECE_BYTES + 1_000..PIECE_BYTES * 2 + 1_000;
    assert!(reader.read(name(1), &across).unwrap() == bytes[1_000..PIECE_BYTES as usize + 1_000]);
    assert!(reader.read(name(1), &(PIECE_BYTES - 1..PIECE_BYTES + 1)).is_none(), "a part of it was never fetched");
    assert!(reader.read(name(1), &(PIECE_BYTES * 3 - 1..PIECE_BYTES * 3 + 1)).is_none(), "a part lies beyond its end");
    assert!(reader.read(name(1), &(u64::MAX - 5..u64::MAX)).is_none());
    assert!(reader.read(name(2), &piece(1)).is_none(), "nothing was fetched of that one");
    assert!(reader.read(name(1), &piece(1)).is_some(), "and the first one is found again");
    std::os::unix::fs::symlink(name(1).to_hex(), dir.path().join(name(3).to_hex())).unwrap();
    assert!(reader.read(name(3), &piece(1)).is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before + 1, "nothing was made");
    let nowhere = CacheReader::new(dir.path().join("nowhere"));
    assert!(nowhere.read(name(1), &piece(1)).is_none() && !dir.path().join("nowhere").exists());
}

#[test]
fn what_a_cache_was_made_large_enough_for_stays_in_it() {
    for lasting in [0, 1, 14, 15, 16, 1 << 20, (1 << 40) + 7] {
        let bytes_max = CacheOptions::bytes_max_for(lasting);
        let options = CacheOptions { dir: Default::default(), bytes_max, free_percent_min: 0 };
        assert!(options.lasting_bytes_max() >= lasting && bytes_max <= lasting + lasting / 15 + 16, "{lasting}");
    }
}
