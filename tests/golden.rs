//! Repositories written by earlier builds, one for each version of the format. They are never edited, because every
//! released format must stay readable. `scripts/golden` makes one.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::tool;

use crate::site::programs;

/// All golden repositories.
const GOLDEN: &[&str] = &["1"];
/// A repository by another writer, and one that docs/WALKTHROUGH.md shows. Both are checked elsewhere.
const OTHERS: &[&str] = &["foreign", "walkthrough"];

/// Writes the manifest of the directory it runs in, as `scripts/golden` does.
const MANIFEST: &str = include_str!("../scripts/golden");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

#[test]
fn every_golden_repository_is_listed() {
    let mut found: Vec<_> =
        fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    assert_eq!(found, [GOLDEN, OTHERS].concat());
}

#[test]
fn golden_repositories_can_still_be_read() {
    for name in GOLDEN {
        let golden = folder().join(name);
        let site = Site::new(&programs());
        // Reads a copy: a failing test might change the repository.
        tool(Command::new("cp").arg("-r").arg(golden.join("repository")).arg(site.repository()));
        let bygone = |arguments: &[&str]| -> Ran {
            let mut command = site.bygone_command(arguments);
            command.env("BYGONE_PASSPHRASE", "golden");
            site.run(command).ok()
        };
        bygone(&["recover"]);
        bygone(&["check", "--read-data"]);
        for (number, snapshot) in [(1, "latest~1"), (2, "latest")] {
            let target = site.at(format!("target-{number}"));
            bygone(&["restore", snapshot, "--target", target.to_str().unwrap()]);
            let found = manifest(&target.join("tmp/bygone-golden"));
            let wanted = fs::read_to_string(golden.join(format!("snapshot-{number}"))).unwrap();
            let differs = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
            assert!(wanted == found, "golden {name}, snapshot {number}: {differs:?}");
        }
    }
}

/// The manifest of `top`, made by the same function as the golden one.
fn manifest(top: &Path) -> String {
    let from = MANIFEST.find("manifest() {").unwrap();
    let to = from + MANIFEST[from..].find("\n}\n").unwrap() + 3;
    let script = format!("set -euo pipefail\n{}manifest\n", &MANIFEST[from..to]);
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(top).env("LC_ALL", "C").env("TZ", "UTC");
    String::from_utf8(tool(&mut command)).unwrap()
}
