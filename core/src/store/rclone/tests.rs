//! What only a place behind rclone can suffer. These tests want the rclone program: scripts/test installs it.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;
use tempfile::tempdir;

use super::*;
use crate::store::testing::contract::contract;

const WHOLE: ByteRange = ByteRange::Whole { bytes_max: 1 << 20 };

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// A store in a directory, with a config.
fn store() -> (TempDir, RcloneStore) {
    let scratch = tempdir().unwrap();
    let store = RcloneStore::create(scratch.path().join("store").to_str().unwrap()).unwrap();
    store.put(&name(CONFIG_NAME), Source::Bytes(b"{}")).unwrap();
    (scratch, store)
}

fn files(directory: &Path) -> Vec<String> {
    let names = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(directory).unwrap().map(names).collect()
}

#[test]
fn the_contract_holds_in_a_directory() {
    let scratch = RefCell::new(Vec::new());
    contract(|| {
        let directory = tempdir().unwrap();
        let store = RcloneStore::create(directory.path().to_str().unwrap()).unwrap();
        assert!(store.can_rename);
        scratch.borrow_mut().push(directory);
        Arc::new(store)
    });
    for directory in scratch.borrow().iter() {
        // Of an upload that breaks off, rclone may still lay down what came, after it was told to remove it.
        let is_left = |name: &String| name.starts_with('.') && !name.starts_with(".short.");
        let hidden: Vec<_> = files(directory.path()).into_iter().filter(is_left).collect();
        assert_eq!(hidden, [""; 0], "no hidden name is left");
    }
}

#[test]
fn the_contract_holds_in_a_bucket() {
    contract(|| {
        let store = RcloneStore::create(":memory:bucket/some where/x]y").unwrap();
        assert!(!store.can_rename);
        Arc::new(store)
    });
}

#[test]
fn opening_needs_a_config_and_making_an_empty_place() {
    let (scratch, _store) = store();
    let there = scratch.path().join("store");
    let there = there.to_str().unwrap();
    assert!(RcloneStore::open(there).is_ok());
    assert!(matches!(RcloneStore::create(there).map(drop), Err(Error::Exists { .. })));
    let empty = scratch.path().join("empty");
    let empty = empty.to_str().unwrap();
    assert!(matches!(RcloneStore::open(empty).map(drop), Err(Error::NoRepository { .. })));
    assert!(!Path::new(empty).exists(), "looking makes nothing");
    assert!(RcloneStore::create(empty).is_ok());
}

#[test]
fn a_remote_that_rclone_does_not_know_is_an_error_in_its_words() {
    for doing in [RcloneStore::open, RcloneStore::create] {
        let error = doing("nosuchremote:x").map(drop).unwrap_err();
        assert!(matches!(&error, Error::Store { .. }) && !error.is_absent(), "{error}");
        let error = error.to_string();
        assert!(error.contains("rclone:nosuchremote:x") && error.contains("didn't find section"), "{error}");
    }
}

#[test]
fn a_place_that_went_away_is_an_error_and_not_empty() {
    let (scratch, store) = store();
    store.put(&name("data/one"), Source::Bytes(b"x")).unwrap();
    let place = scratch.path().join("store");
    let away = scratch.path().join("away");
    fs::rename(&place, &away).unwrap();
    for mount_point in [false, true] {
        if mount_point {
            fs::create_dir(&place).unwrap();
        }
        let failures = [
            store.get(&name("data/one"), WHOLE).map(drop),
            store.get(&name(CONFIG_NAME), WHOLE).map(drop),
            store.get(&name("data/one"), ByteRange::Part { offset: 0, bytes: 1 }).map(drop),
            store.put(&name("data/new"), Source::Bytes(b"x")).map(drop),
            store.list("").map(drop),
            store.list("data/").map(drop),
            store.delete(&name("data/one")),
        ];
        for failure in failures {
            let error = failure.unwrap_err();
            assert!(matches!(error, Error::Store { .. }) && !error.is_absent(), "{error}");
            assert!(error.to_string().contains("mounted"), "the message says what to look at: {error}");
        }
    }
    assert_eq!(files(&place), [""; 0], "nothing was written where the store is not");
    fs::remove_dir(&place).unwrap();
    fs::rename(&away, &place).unwrap();
    assert_eq!(store.list("").unwrap().len(), 2);
}

#[test]
fn an_rclone_that_was_killed_is_started_again() {
    let (_scratch, store) = store();
    let pid = pid(&store);
    kill(pid, Signal::SIGKILL).unwrap();
    while !lock(&store.running).as_ref().unwrap().process.has_ended() {
        std::thread::yield_now();
    }
    assert_eq!(store.get(&name(CONFIG_NAME), WHOLE).unwrap(), b"{}");
    assert_ne!(self::pid(&store), pid);
}

#[test]
fn rclone_ends_with_the_store() {
    let (_scratch, store) = store();
    let pid = pid(&store);
    drop(store);
    assert!(kill(pid, None).is_err(), "it is gone, and waited for");
}

#[test]
fn a_list_that_cannot_be_whole_is_an_error() {
    let (scratch, store) = store();
    store.put(&name("data/one"), Source::Bytes(b"x")).unwrap();
    // Deeper than the system lets any user open by a path.
    let script = "for i in {1..20}; do mkdir \"$1\" && cd \"$1\" || exit 1; done";
    let mut deep = Command::new("bash");
    deep.args(["-c", script, "bash", &"d".repeat(250)]).current_dir(scratch.path().join("store/data"));
    assert!(deep.status().unwrap().success());
    let error = store.list("").unwrap_err();
    assert!(error.to_string().contains("failed to read directory"), "{error}");
}

#[test]
fn what_has_no_valid_name_is_passed_over() {
    let (scratch, store) = store();
    for odd in ["Upper", ".hidden", "sp ace"] {
        fs::write(scratch.path().join("store").join(odd), "x").unwrap();
    }
    let names: Vec<_> = store.list("").unwrap().into_iter().map(|listed| listed.name.to_string()).collect();
    assert_eq!(names, [CONFIG_NAME]);
}

fn pid(store: &RcloneStore) -> Pid {
    let running = Arc::clone(lock(&store.running).as_ref().unwrap());
    running.process.pid()
}
