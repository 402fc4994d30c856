//! Shorthands for the setup and the queries that most tests share.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use bygone_tests::program::Programs;
use bygone_tests::program::Ran;
use bygone_tests::program::SMALL_VOLUMES;
use bygone_tests::program::Site;

/// The programs of this build.
pub fn programs() -> Programs {
    Programs {
        bygone: env!("CARGO_BIN_EXE_bygone-under-test").into(),
        mount: env!("CARGO_BIN_EXE_bygone-mount-under-test").into(),
    }
}

/// A machine with an empty repository with default settings.
pub fn new_site() -> Site {
    Site::with_repository(&programs(), &[])
}

/// A machine with an empty repository of small volumes.
pub fn new_small_site() -> Site {
    Site::with_repository(&programs(), &SMALL_VOLUMES)
}

/// The place of `source` below `target` after a restore of a whole snapshot.
pub fn restored(target: &Path, source: &Path) -> PathBuf {
    target.join(source.strip_prefix("/").unwrap())
}

/// The ids of all snapshots, oldest first.
pub fn snapshot_ids(site: &Site) -> Vec<String> {
    let listed = site.bygone(["snapshots", "--json"]).ok().json();
    let listed = listed.as_array().expect("an array of snapshots").clone();
    listed.iter().map(|snapshot| snapshot["id"].as_str().expect("each has an id").to_string()).collect()
}

/// Runs `bygone ARGUMENTS` with changes to its environment.
pub fn with_environment(site: &Site, arguments: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Ran {
    let mut command = site.bygone_command(arguments);
    change(&mut command);
    site.run(command)
}
