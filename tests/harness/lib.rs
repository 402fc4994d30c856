//! The harness of the end-to-end tests: a zoo of files, a comparison that trusts no code of ours, the programs as their
//! users run them, repositories to damage, and servers that misbehave.
//!
//! Everything here panics on failure: a broken fixture is a failed test. The tools that it checks with (rsync, find,
//! getfattr, getfacl) are independent on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod compare;
pub mod failing;
pub mod fake_s3;
pub mod image;
pub mod patient;
pub mod program;
pub mod slow_link;
pub mod tree;
pub mod zoo;

use std::process::Command;

/// True if the tests run as root. Otherwise it panics, unless `BYGONE_TESTS_WITHOUT_ROOT=1` allows skipping what needs
/// root: nothing is skipped silently.
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

/// Runs a program and returns its standard output; panics unless it ends with 0.
pub fn tool(command: &mut Command) -> Vec<u8> {
    let printed =
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e} (scripts/test installs what tests need)"));
    let complaint = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{command:?}: {}: {complaint}", printed.status);
    printed.stdout
}
