//! Short words for what most tests begin with and look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bygone_tests::program::{Programs, Site};

/// The programs of this build.
pub fn programs() -> Programs {
    Programs {
        bygone: env!("CARGO_BIN_EXE_bygone-under-test").into(),
        mount: env!("CARGO_BIN_EXE_bygone-mount-under-test").into(),
    }
}

/// A machine with an empty repository of the ordinary make.
pub fn new_site() -> Site {
    Site::with_repository(&programs(), &[])
}

/// Where `source` is below `target` after a restore of a whole snapshot.
pub fn restored(target: &Path, source: &Path) -> PathBuf {
    target.join(source.strip_prefix("/").unwrap())
}

/// The ids of all snapshots, oldest first.
pub fn snapshot_ids(site: &Site) -> Vec<String> {
    let listed = site.bygone(["snapshots", "--json"]).ok().json();
    let listed = listed.as_array().expect("an array of snapshots").clone();
    listed.iter().map(|snapshot| snapshot["id"].as_str().expect("each has an id").to_string()).collect()
}

/// The objects of the repository below `folder` (all of them if it is empty), by name, with their sizes.
pub fn objects(site: &Site, folder: &str) -> BTreeMap<String, u64> {
    let top = site.repository();
    let mut found = BTreeMap::new();
    let mut folders = vec![top.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&top).unwrap().to_str().unwrap().to_string();
                found.insert(name, path.metadata().unwrap().len());
            }
        }
    }
    found
}
