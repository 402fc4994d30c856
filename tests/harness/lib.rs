//! What the tests of the whole stand on: a zoo of files, a comparison that believes no code of ours, the programs as
//! their users run them, and a model of what a snapshot must hold.
//!
//! Everything here panics when it fails: a broken fixture is a failed test. What it checks with (rsync, find, getfattr,
//! getfacl) is other people's code on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod compare;
pub mod fake_s3;
pub mod image;
pub mod patient;
pub mod program;
pub mod slow_link;
pub mod tree;
pub mod zoo;

use std::process::Command;

/// True when the tests may do what only root can do. Without root it panics, unless `BYGONE_TESTS_WITHOUT_ROOT=1`
/// says that leaving that part out is wanted: nothing is left out silently.
pub fn root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let allowed = std::env::var_os("BYGONE_TESTS_WITHOUT_ROOT").is_some_and(|value| value == "1");
    assert!(
        allowed,
        "this test needs root; run as root, or set BYGONE_TESTS_WITHOUT_ROOT=1 to leave out what needs it"
    );
    eprintln!("BYGONE_TESTS_WITHOUT_ROOT=1: leaving out what needs root");
    false
}

/// Runs another program and returns what it wrote to its standard output; panics unless it ends with 0.
pub fn tool(command: &mut Command) -> Vec<u8> {
    let said = command.output().unwrap_or_else(|e| panic!("{command:?}: {e} (scripts/test installs what tests need)"));
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{command:?}: {}: {complaint}", said.status);
    said.stdout
}
