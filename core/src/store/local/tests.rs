//! What only a directory can suffer.

use std::cell::RefCell;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use tempfile::tempdir;

use super::*;
use crate::store::testing::contract::contract;

const WHOLE: ByteRange = ByteRange::Whole { bytes_max: 1 << 30 };

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// A store with a config, its directory, and what removes it.
fn store() -> (TempDir, PathBuf, LocalStore) {
    let scratch = tempdir().unwrap();
    let root = scratch.path().join("store");
    let store = LocalStore::create(&root).unwrap();
    store.put(&name(CONFIG_NAME), Source::Bytes(b"{}")).unwrap();
    (scratch, root, store)
}

/// Everything below the directory, whether a list shows it or not.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { pending.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Calls of every kind, each of which must fail, and not as absence.
fn assert_gone(store: &LocalStore, why: &str) {
    let failures = [
        store.get(&name(CONFIG_NAME), WHOLE).map(drop),
        store.get(&name("data/absent"), WHOLE).map(drop),
        store.put(&name("data/new"), Source::Bytes(b"x")).map(drop),
        store.list("").map(drop),
        store.list("data/").map(drop),
        store.delete(&name("data/absent")),
    ];
    for failure in failures {
        let error = failure.expect_err(why);
        assert!(matches!(error, Error::Store { .. }) && !error.is_absent(), "{why}: {error}");
        assert!(error.to_string().contains("mounted"), "the message says what to look at: {error}");
    }
}

#[test]
fn the_contract_holds_with_unnamed_files_and_without() {
    let scratch = RefCell::new(Vec::new());
    let make = |unnamed: bool| {
        let directory = tempdir().unwrap();
        let store = LocalStore::create(directory.path()).unwrap();
        store.unnamed_files.store(unnamed, Ordering::Relaxed);
        scratch.borrow_mut().push(directory);
        store
    };
    contract(|| Arc::new(make(true)));
    contract(|| Arc::new(make(false)));
    for directory in scratch.borrow().iter() {
        let temporary = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
        assert!(!files(directory.path()).iter().any(temporary), "no temporary file is left");
    }
}

#[test]
fn a_store_is_made_in_an_empty_directory_only() {
    let scratch = tempdir().unwrap();
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::create_dir(empty.join(LOST_AND_FOUND)).unwrap();
    assert!(LocalStore::create(&empty).is_ok());
    assert!(LocalStore::create(&empty.join("a/b/c")).is_ok(), "directories above it are made too");
    for hidden in ["file", ".hidden"] {
        let full = tempdir().unwrap();
        fs::write(full.path().join(hidden), "").unwrap();
        assert!(matches!(LocalStore::create(full.path()), Err(Error::Exists { .. })), "{hidden} is in the way");
    }
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(LocalStore::create(&file), Err(Error::Store { doing: "create", .. })));
}

#[test]
fn only_a_directory_with_a_config_is_opened() {
    let (_scratch, root, store) = store();
    assert_eq!(LocalStore::open(&root).unwrap().list("").unwrap(), store.list("").unwrap());
    let link = root.with_file_name("link");
    symlink(&root, &link).unwrap();
    assert!(LocalStore::open(&link).is_ok(), "the root itself may be reached through a link");
    let empty = root.with_file_name("mount-point");
    fs::create_dir(&empty).unwrap();
    for none in [&empty, &root.with_file_name("absent"), &root.join("bygone.json/x")] {
        let refused = LocalStore::open(none).map(drop);
        assert!(matches!(refused, Err(Error::NoRepository { .. } | Error::Store { .. })), "{refused:?}");
    }
    assert!(matches!(LocalStore::open(&empty), Err(Error::NoRepository { .. })));
    assert!(matches!(LocalStore::open(&root.join(CONFIG_NAME)), Err(Error::Store { doing: "open", .. })));
}

#[test]
fn a_directory_that_went_away_is_an_error_and_not_empty() {
    let (_scratch, root, store) = store();
    let elsewhere = root.with_file_name("elsewhere");
    fs::rename(&root, &elsewhere).unwrap();
    assert_gone(&store, "the directory was renamed");
    fs::create_dir(&root).unwrap();
    assert_gone(&store, "another directory took its place");
    fs::remove_dir(&root).unwrap();
    fs::write(&root, "").unwrap();
    assert_gone(&store, "a file took its place");
    fs::remove_file(&root).unwrap();
    fs::rename(&elsewhere, &root).unwrap();
    assert_eq!(store.list("").unwrap().len(), 1, "the directory is back, and nothing was lost or added");
    fs::remove_dir_all(&root).unwrap();
    assert_gone(&store, "the directory was removed");
}

#[test]
fn lists_show_foreign_objects_and_pass_over_what_is_none() {
    let (_scratch, root, store) = store();
    for foreign in ["notes.txt", "data/zz/foreign"] {
        fs::create_dir_all(root.join(foreign).parent().unwrap()).unwrap();
        fs::write(root.join(foreign), "foreign").unwrap();
    }
    fs::create_dir_all(root.join(".Trash/data")).unwrap();
    fs::create_dir(root.join(LOST_AND_FOUND)).unwrap();
    for hidden in [".tmp-1", "data/.tmp-2", "data/Capital", ".Trash/data/x", "lost+found/x"] {
        fs::write(root.join(hidden), "").unwrap();
    }
    let listed: Vec<_> = store.list("").unwrap().into_iter().map(|listed| listed.name.to_string()).collect();
    assert_eq!(listed, [CONFIG_NAME, "data/zz/foreign", "notes.txt"]);
}

#[test]
fn links_and_special_files_are_errors_and_never_followed() {
    let (scratch, root, store) = store();
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::create_dir(root.join("data")).unwrap();
    let plant = |text: &str| {
        for result in [store.list("").map(drop), store.get(&name(text), WHOLE).map(drop)] {
            let error = result.unwrap_err();
            assert!(!error.is_absent() && error.to_string().contains("symbolic link"), "{text}: {error}");
        }
        assert!(store.put(&name(text), Source::Bytes(b"x")).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing is written outside");
    };
    symlink(outside.join("secret"), root.join("data/link")).unwrap();
    plant("data/link");
    store.delete(&name("data/link")).unwrap();
    assert!(outside.join("secret").exists(), "a link is deleted, not what it leads to");
    symlink(&outside, root.join("meta")).unwrap();
    plant("meta/secret");
    assert!(store.delete(&name("meta/secret")).is_err());
    fs::remove_file(root.join("meta")).unwrap();
    mkfifo(&root.join("data/fifo"), Mode::S_IRWXU).unwrap();
    plant("data/fifo");
}

#[test]
fn objects_are_for_their_owner_alone() {
    let (_scratch, root, store) = store();
    store.put(&name("data/00/x"), Source::Bytes(b"x")).unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o077;
    assert_eq!(["", "data", "data/00", "data/00/x"].map(mode), [0; 4]);
}

#[test]
fn a_directory_in_the_place_of_an_object_is_not_replaced() {
    let (_scratch, root, store) = store();
    store.put(&name("data/00/x"), Source::Bytes(b"x")).unwrap();
    for unnamed in [true, false] {
        store.unnamed_files.store(unnamed, Ordering::Relaxed);
        assert!(matches!(store.put(&name("data/00"), Source::Bytes(b"x")), Err(Error::Exists { .. })));
        assert!(store.put(&name("data/00/x/y"), Source::Bytes(b"x")).is_err());
    }
    assert_eq!(files(&root).len(), 2);
}

/// A disk of one mebibyte, or `None` where this user may not mount.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let at = tempdir().unwrap();
        mount(Some("none"), at.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).ok()?;
        Some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_says_so_and_keeps_nothing_of_the_object() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = LocalStore::create(disk.0.path()).unwrap();
    for unnamed in [true, false] {
        store.unnamed_files.store(unnamed, Ordering::Relaxed);
        let large = vec![7; 2 << 20];
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&large, 0).unwrap();
        for source in [Source::Bytes(&large), Source::File { file: &file, bytes: large.len() as u64 }] {
            let error = store.put(&name("data/large"), source).unwrap_err();
            let full = matches!(&error, Error::Store { source, .. } if source.kind() == io::ErrorKind::StorageFull);
            assert!(full, "the cause comes through: {error:?}");
            assert_eq!(files(disk.0.path()), [""; 0].map(PathBuf::from), "nothing is left");
        }
        store.put(&name("data/small"), Source::Bytes(&[7; 1 << 19])).unwrap();
        store.delete(&name("data/small")).unwrap();
    }
}

#[test]
fn an_unmounted_disk_is_an_error_and_not_empty() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = LocalStore::create(disk.0.path()).unwrap();
    store.put(&name(CONFIG_NAME), Source::Bytes(b"{}")).unwrap();
    assert!(umount2(disk.0.path(), MntFlags::empty()).is_err(), "a store in use keeps its disk mounted");
    umount2(disk.0.path(), MntFlags::MNT_DETACH).unwrap();
    assert_gone(&store, "the disk was unmounted by force");
    assert!(matches!(LocalStore::open(disk.0.path()), Err(Error::NoRepository { .. })));
    assert_eq!(files(disk.0.path()).len(), 0, "nothing was written to the mount point");
}

/// Not a test by itself: the process that `a_killed_writer_leaves_whole_objects_and_nothing_else` kills.
#[test]
#[ignore = "runs until it is killed"]
fn write_until_killed() {
    let store = LocalStore::open(Path::new(&env::var_os("BYGONE_TEST_STORE").unwrap())).unwrap();
    for number in 0_u64.. {
        let object = name(&format!("data/{}/{}-{number}", number % 4, std::process::id()));
        store.put(&object, Source::Bytes(&number.to_le_bytes().repeat(1 << 16))).unwrap();
    }
}

#[test]
fn a_killed_writer_leaves_whole_objects_and_nothing_else() {
    let (_scratch, root, store) = store();
    for round in 1..=10 {
        let mut writer = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store::local::tests::write_until_killed", "--ignored"])
            .env("BYGONE_TEST_STORE", &root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let before = store.list("data/").unwrap().len();
        while store.list("data/").unwrap().len() < before + round {
            assert!(writer.try_wait().unwrap().is_none(), "the writer runs until it is killed");
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    let listed = store.list("").unwrap();
    assert_eq!(files(&root).len(), listed.len(), "nothing lies there but objects");
    for listed in listed.iter().filter(|listed| listed.name.as_str() != CONFIG_NAME) {
        let number: u64 = listed.name.as_str().rsplit_once('-').unwrap().1.parse().unwrap();
        assert!(store.get(&listed.name, WHOLE).unwrap() == number.to_le_bytes().repeat(1 << 16), "{}", listed.name);
    }
}
