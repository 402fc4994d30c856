//! A repository by another writer, made by `tests/make_foreign.py` from docs/FORMAT.md alone. It does what the format
//! allows and bygone never does, and everything must come back all the same.

use std::fs;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use bygone_core::hash::sha256;
use bygone_core::id::hex;
use bygone_tests::program::Site;
use bygone_tests::tool;
use serde_json::Value;

use crate::site::programs;
use crate::site::restored;

/// Bytes that the files take on a disk at most: their content, and a little for each.
const ALLOCATED_BYTES_MAX: u64 = 2 << 20;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/foreign")
}

/// A machine that has just met the repository, and what the repository holds.
fn machine() -> (Site, Value) {
    let site = Site::new(&programs());
    tool(Command::new("cp").arg("-r").arg(golden().join("repository")).arg(site.repository()));
    let contents: Value = serde_json::from_slice(&fs::read(golden().join("contents.json")).unwrap()).unwrap();
    site.set("BYGONE_PASSPHRASE", contents["passphrase"].as_str().unwrap());
    site.bygone(["recover"]).ok();
    (site, contents)
}

/// The path of a file that `contents.json` names: each character of its name stands for a byte.
fn path_of(top: &Path, name: &str) -> PathBuf {
    let bytes: Vec<u8> = name.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect();
    top.join(std::ffi::OsStr::from_bytes(&bytes))
}

/// Panics unless the files below `top` are those of the newest snapshot.
#[track_caller]
fn assert_has_all(top: &Path, contents: &Value) {
    for (name, wanted) in contents["latest"].as_object().unwrap() {
        let file = File::open(path_of(top, name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(file.metadata().unwrap().len(), wanted["size"].as_u64().unwrap(), "the size of {name}");
        for piece in wanted["pieces"].as_array().unwrap() {
            let mut bytes = vec![0; usize::try_from(piece["bytes"].as_u64().unwrap()).unwrap()];
            file.read_exact_at(&mut bytes, piece["at"].as_u64().unwrap()).unwrap();
            assert_eq!(hex(&sha256(&bytes)), piece["sha256"].as_str().unwrap(), "{name}: {piece}");
        }
    }
}

#[test]
fn a_repository_of_another_writer_is_restored() {
    let (site, contents) = machine();
    site.bygone(["check", "--read-data"]).ok();
    let target = site.at("target");
    site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]).ok();
    let top = restored(&target, Path::new("/foreign"));
    assert_has_all(&top, &contents);
    let names = contents["latest"].as_object().unwrap().keys();
    let allocated: u64 = names.map(|name| fs::metadata(path_of(&top, name)).unwrap().blocks() * 512).sum();
    assert!(allocated < ALLOCATED_BYTES_MAX, "holes are not written: {allocated} bytes");
    assert_eq!(fs::read_link(top.join("link")).unwrap(), Path::new("../nowhere"));
    assert_eq!(fs::read_dir(top.join("empty")).unwrap().count(), 0);
    assert_eq!(fs::metadata(top.join("later")).unwrap().mtime(), 1_000_000_000);

    let before = site.at("before");
    site.bygone(["restore", "latest~1", "--target", before.to_str().unwrap()]).ok();
    assert!(!restored(&before, Path::new("/foreign/new")).exists(), "it is in the newest snapshot only");
}

#[test]
fn a_repository_of_another_writer_can_be_mounted() {
    if !bygone_tests::root() {
        return;
    }
    let (site, contents) = machine();
    let mounted = site.mount("mount", &[]);
    assert_has_all(&mounted.latest(Path::new("/foreign")), &contents);
    mounted.unmount().ok();
}

#[test]
fn a_repository_of_another_writer_takes_backups() {
    let (site, contents) = machine();
    let target = site.at("foreign");
    site.bygone(["restore", "latest:/foreign/deep-list", "--target", target.to_str().unwrap()]).ok();
    site.backup(&target);
    let found = site.bygone(["snapshots", "--json"]).ok().json();
    assert_eq!(found.as_array().unwrap().len(), 3, "{found}");
    site.bygone(["check", "--read-data"]).ok();
    let again = site.at("again");
    site.bygone(["restore", "latest~1:/foreign", "--target", again.to_str().unwrap()]).ok();
    let tops = [restored(&again, Path::new("/foreign")), again];
    assert_has_all(tops.iter().find(|top| top.join("holes").exists()).expect("a restored tree"), &contents);
}
