//! The contract of [`Store`] as one test suite for every store. A store's own test calls [`contract`] with a function
//! that makes the store, and adds what only that store can suffer (a full disk, a lost bucket).

#![allow(clippy::unwrap_used, reason = "a test suite, here only because tests of other packages run it too")]

use std::fs::File;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;

use crate::error::Error;
use crate::noise::noise;
use crate::noise::scramble;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;

const THREADS: u64 = 8;
const LARGE_BYTES: usize = 3 << 20;

/// Runs the suite; panics at the first broken promise. `make` makes a new, empty store each time.
pub fn contract(make: impl Fn() -> Arc<dyn Store>) {
    let parts: [fn(&dyn Store); 13] = [
        what_was_put_is_got_and_listed,
        a_file_is_read_from_its_start_and_its_cursor_left_alone,
        a_file_that_ends_too_soon_leaves_nothing,
        nothing_is_overwritten,
        whole_objects_are_bounded,
        parts_are_exact,
        absence_is_told_apart,
        lists_are_whole_and_in_order,
        lists_go_by_whole_segments,
        what_is_deleted_is_gone,
        many_writers_of_many_names,
        many_writers_of_one_name,
        nobody_sees_half_an_object,
    ];
    for part in parts {
        part(&*make());
    }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn whole(store: &dyn Store, text: &str) -> Vec<u8> {
    store.get(&name(text), ByteRange::Whole { bytes_max: 1 << 30 }).unwrap()
}

fn put(store: &dyn Store, text: &str, bytes: &[u8]) {
    store.put(&name(text), Source::Bytes(bytes)).unwrap();
}

fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|listed| listed.name.to_string()).collect()
}

/// A file with these bytes and its cursor at their end.
fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("contract", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file
}

fn what_was_put_is_got_and_listed(store: &dyn Store) {
    assert_eq!(store.list("").unwrap(), [], "a new store is empty");
    assert!(store.connections() >= 1);
    assert!(!store.address().is_empty());
    for (number, length) in [0, 1, 4095, 4096, 4097, LARGE_BYTES].into_iter().enumerate() {
        let (text, bytes) = (format!("data/{number}/object"), noise(1, length));
        let stored = store.put(&name(&text), Source::Bytes(&bytes)).unwrap();
        assert!(whole(store, &text) == bytes, "{length} bytes come back as they were put");
        let listed = store.list(&format!("data/{number}/")).unwrap();
        assert_eq!(listed.len(), 1, "an object is listed once, as soon as its PUT has returned");
        for listed in listed {
            assert_eq!((listed.name.as_str(), listed.bytes), (text.as_str(), length as u64));
            assert_eq!(listed.etag, stored.etag, "PUT and LIST show the same mark of the same bytes");
        }
    }
    let longest = format!("{}/{}", "d".repeat(99), "l".repeat(100));
    for text in ["top", "README-RECOVER.txt", "a/b/c/d/e/f/g/h", "x/y..z", "-", longest.as_str()] {
        put(store, text, text.as_bytes());
        assert_eq!(whole(store, text), text.as_bytes(), "every valid name can be used");
    }
}

fn a_file_is_read_from_its_start_and_its_cursor_left_alone(store: &dyn Store) {
    let bytes = noise(2, LARGE_BYTES);
    let mut file = file(&bytes);
    file.seek(SeekFrom::Start(12_345)).unwrap();
    store.put(&name("whole"), Source::File { file: &file, bytes: bytes.len() as u64 }).unwrap();
    assert!(whole(store, "whole") == bytes, "a file is stored from its start, wherever its cursor is");
    store.put(&name("begin"), Source::File { file: &file, bytes: 70_000 }).unwrap();
    assert!(whole(store, "begin") == bytes[..70_000], "of a longer file as many bytes as were named are stored");
    store.put(&name("empty"), Source::File { file: &file, bytes: 0 }).unwrap();
    assert_eq!(whole(store, "empty"), [0_u8; 0]);
    assert_eq!(file.stream_position().unwrap(), 12_345, "the cursor is not moved");
    store.put(&name("whole"), Source::Bytes(&bytes)).unwrap();
    store.put(&name("begin"), Source::File { file: &file, bytes: 70_000 }).unwrap();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (file, bytes) = (&file, &bytes);
            scope.spawn(move || {
                let text = format!("shared/{number}");
                store.put(&name(&text), Source::File { file, bytes: bytes.len() as u64 }).unwrap();
                assert!(whole(store, &text) == *bytes, "threads may store one file under several names at once");
            });
        }
    });
}

fn a_file_that_ends_too_soon_leaves_nothing(store: &dyn Store) {
    for length in [0, 1000, LARGE_BYTES] {
        let (file, bytes) = (file(&noise(3, length)), length as u64 + 1);
        let refused = store.put(&name("short"), Source::File { file: &file, bytes });
        assert!(matches!(refused, Err(Error::Store { .. })), "{length} bytes are not {bytes}: {refused:?}");
        assert_eq!(store.list("").unwrap(), [], "a failed PUT leaves nothing");
        assert!(store.get(&name("short"), ByteRange::Whole { bytes_max: 10 }).unwrap_err().is_absent());
    }
    put(store, "short", b"after all");
    assert_eq!(whole(store, "short"), b"after all", "the name of a failed PUT is still free");
}

fn nothing_is_overwritten(store: &dyn Store) {
    let bytes = noise(4, LARGE_BYTES);
    let mut last_byte_differs = bytes.clone();
    *last_byte_differs.last_mut().unwrap() ^= 1;
    let stored = store.put(&name("data/one"), Source::Bytes(&bytes)).unwrap();
    assert_eq!(
        store.put(&name("data/one"), Source::Bytes(&bytes)).unwrap(),
        stored,
        "the same bytes again are welcome"
    );
    let (shorter, longer) = (&bytes[1..], [&bytes[..], b"x"].concat());
    for other in [&[], shorter, &longer, &last_byte_differs] {
        let refused = store.put(&name("data/one"), Source::Bytes(other));
        assert!(matches!(refused, Err(Error::Exists { .. })), "other bytes under a used name: {refused:?}");
        assert!(whole(store, "data/one") == bytes, "a refused PUT changes nothing");
    }
    let file = file(&last_byte_differs);
    let refused = store.put(&name("data/one"), Source::File { file: &file, bytes: bytes.len() as u64 });
    assert!(matches!(refused, Err(Error::Exists { .. })), "a file is compared too: {refused:?}");
    put(store, "empty", b"");
    put(store, "empty", b"");
    assert!(store.put(&name("empty"), Source::Bytes(b"x")).is_err());
    assert_eq!(names(store, ""), ["data/one", "empty"]);
}

fn whole_objects_are_bounded(store: &dyn Store) {
    put(store, "object", &noise(5, 1000));
    let get = |bytes_max| store.get(&name("object"), ByteRange::Whole { bytes_max });
    for enough in [1000, 1001, u64::MAX] {
        assert_eq!(get(enough).unwrap().len(), 1000);
    }
    for too_little in [0, 1, 999] {
        let refused = get(too_little);
        assert!(matches!(refused, Err(Error::Limit { max, .. }) if max == too_little), "{refused:?}");
    }
    put(store, "empty", b"");
    assert_eq!(store.get(&name("empty"), ByteRange::Whole { bytes_max: 0 }).unwrap(), [0_u8; 0]);
}

fn parts_are_exact(store: &dyn Store) {
    let all = noise(6, 10_000);
    put(store, "data/object", &all);
    let get = |offset, bytes| store.get(&name("data/object"), ByteRange::Part { offset, bytes });
    for (offset, bytes) in [(0, 1), (0, 10_000), (9_999, 1), (1, 9_999), (4_095, 2), (5_000, 5_000)] {
        let wanted = &all[usize::try_from(offset).unwrap()..usize::try_from(offset + bytes).unwrap()];
        assert!(get(offset, bytes).unwrap() == wanted, "{bytes} bytes from {offset}");
    }
    let beyond =
        [(0, 10_001), (9_999, 2), (10_000, 1), (20_000, 1), (1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX)];
    for (offset, bytes) in beyond {
        let refused = get(offset, bytes).unwrap_err();
        let shown = refused.to_string();
        assert!(matches!(refused, Error::Store { .. }) && !refused.is_absent(), "{bytes} bytes from {offset}: {shown}");
        assert!(shown.contains("data/object"), "the object is named: {shown}");
    }
    assert!(matches!(get(0, 0), Err(Error::Defect { .. })), "no bytes cannot be asked for");
    put(store, "empty", b"");
    assert!(store.get(&name("empty"), ByteRange::Part { offset: 0, bytes: 1 }).is_err());
}

fn absence_is_told_apart(store: &dyn Store) {
    put(store, "data/00/object", b"x");
    let ranges = [ByteRange::Whole { bytes_max: 10 }, ByteRange::Part { offset: 0, bytes: 1 }];
    for text in ["absent", "data", "data/00", "data/00/objec", "data/00/object2", "data/01/object", "data/00/object/x"]
    {
        for range in ranges {
            let error = store.get(&name(text), range).unwrap_err();
            assert!(error.is_absent(), "{text} is absent: {error}");
            assert!(error.to_string().contains(text), "the object is named: {error}");
        }
    }
}

fn lists_are_whole_and_in_order(store: &dyn Store) {
    let mut expected =
        ["z", "a/b-c/d", "a/b.c", "a/b_c/d/e", "a-b/c", "a.b", "a0", "a_", "x/y/z"].map(String::from).to_vec();
    expected.extend((0..300).map(|number| format!("data/{:02x}/{:016x}", scramble(number) % 256, scramble(number))));
    for text in &expected {
        put(store, text, text.as_bytes());
    }
    expected.sort();
    assert_eq!(names(store, ""), expected, "a LIST shows each object once, by the order of whole names");
    for listed in store.list("").unwrap() {
        assert_eq!(listed.bytes, listed.name.as_str().len() as u64, "{}", listed.name);
    }
}

fn lists_go_by_whole_segments(store: &dyn Store) {
    let all = ["data-2/x", "data/0/x", "data/00/x", "data/00/y", "data/001/x", "datb/x"];
    all.iter().for_each(|text| put(store, text, b"x"));
    assert_eq!(names(store, "data/"), ["data/0/x", "data/00/x", "data/00/y", "data/001/x"]);
    assert_eq!(names(store, "data/00/"), ["data/00/x", "data/00/y"]);
    for nothing in ["dat/", "data/00/x/", "data/02/", "meta/"] {
        assert_eq!(names(store, nothing), [""; 0], "{nothing} is a good prefix of nothing");
    }
    for bad in ["data", "data/0", "/", "//", "data//", "../", "data/../", "./", "A/", "*/", "data/00/x"] {
        assert!(matches!(store.list(bad), Err(Error::Defect { .. })), "{bad:?} is no prefix");
    }
}

fn what_is_deleted_is_gone(store: &dyn Store) {
    for text in ["absent", "data/absent"] {
        store.delete(&name(text)).unwrap();
    }
    put(store, "data/one", b"one");
    put(store, "data/two", b"two");
    store.delete(&name("data")).unwrap();
    assert_eq!(names(store, ""), ["data/one", "data/two"], "the beginning of a name is not the name");
    for _ in 0..2 {
        store.delete(&name("data/one")).unwrap();
        assert!(store.get(&name("data/one"), ByteRange::Whole { bytes_max: 9 }).unwrap_err().is_absent());
        assert_eq!(names(store, ""), ["data/two"]);
    }
    put(store, "data/one", b"healed");
    assert_eq!(whole(store, "data/one"), b"healed", "after a DELETE other bytes may have the name");
}

fn many_writers_of_many_names(store: &dyn Store) {
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || {
                for round in 0..10 {
                    let (text, bytes) = (format!("data/{round}/{number}"), noise(number, 10_000));
                    put(store, &text, &bytes);
                    assert!(whole(store, &text) == bytes, "a thread reads its own writes");
                    assert!(names(store, "data/").contains(&text), "a thread lists its own writes");
                    if round % 2 == 0 {
                        store.delete(&name(&text)).unwrap();
                        assert!(!names(store, "").contains(&text), "a thread does not list what it deleted");
                    }
                }
            });
        }
    });
    assert_eq!(store.list("").unwrap().len() as u64, THREADS * 5);
}

fn many_writers_of_one_name(store: &dyn Store) {
    for round in 0..10 {
        let (same, other) = (format!("same/{round}"), format!("other/{round}"));
        let start = Barrier::new(usize::try_from(THREADS).unwrap());
        let won = thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|number| {
                    let (same, other, start) = (&same, &other, &start);
                    scope.spawn(move || {
                        start.wait();
                        put(store, same, &noise(round, 50_000));
                        let stored = store.put(&name(other), Source::Bytes(&noise(number, 50_000)));
                        assert!(matches!(stored, Ok(_) | Err(Error::Exists { .. })), "{stored:?}");
                        stored.is_ok().then_some(number)
                    })
                })
                .collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(won.len(), 1, "of different bytes for one name one wins: {won:?}");
        assert!(whole(store, &other) == noise(won[0], 50_000), "the winner's bytes are there");
        assert!(whole(store, &same) == noise(round, 50_000), "of the same bytes all win");
    }
    assert_eq!(store.list("").unwrap().len(), 20);
}

fn nobody_sees_half_an_object(store: &dyn Store) {
    let bytes = noise(7, LARGE_BYTES);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..8 {
                put(store, &format!("data/{round}"), &bytes);
            }
            done.store(true, Ordering::SeqCst);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for listed in store.list("").unwrap() {
                        assert_eq!(listed.bytes, bytes.len() as u64, "an object is listed with all its bytes");
                        assert!(whole(store, listed.name.as_str()) == bytes, "an object is read with all its bytes");
                    }
                    match store.get(&name("data/7"), ByteRange::Part { offset: LARGE_BYTES as u64 - 1, bytes: 1 }) {
                        Ok(last) => assert_eq!(last.first(), bytes.last()),
                        Err(error) => assert!(error.is_absent(), "an object is there or absent: {error}"),
                    }
                }
            });
        }
    });
}
