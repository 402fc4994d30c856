//! Tree order, whatever the timing of scanning ahead; deep and wide trees.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::Mode;
use nix::sys::stat::mkdirat;
use proptest::prelude::*;

use crate::backup::Bounds;
use crate::backup::tests::Call;
use crate::backup::tests::Fixture;

/// The order by its definition.
fn plain_order(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
    names.sort();
    for name in names {
        let path = folder.join(OsStr::from_bytes(&name));
        let shown = format!("{prefix}{}", bygone_core::entry::printable(&name));
        if path.is_dir() {
            plain_order(&path, &format!("{shown}/"), found);
            found.push(shown + "/");
        } else {
            found.push(shown);
        }
    }
}

/// Names whose order differs from their order as parts of paths, and bytes that are not text.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![&b"a"[..], b"a.b", b"a-", b"a0", b"ab", b"A", b"\xff", b"\x01", b"..."])
        .prop_map(<[u8]>::to_vec)
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let one_of = |few: &'static [usize]| prop::sample::select(few);
    (one_of(&[1, 2, 4]), one_of(&[1, 3]), one_of(&[1, 3, 1000]), one_of(&[1, 2, 100]), one_of(&[1, 2, 64])).prop_map(
        |(scanners, readers, entries_ahead, directories_ahead, directories_held)| Bounds {
            scanners,
            readers,
            entries_ahead,
            directories_ahead,
            directories_held,
            directories_a_job: directories_held,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_tree_comes_in_tree_order_with_any_bounds(
        paths in prop::collection::vec((prop::collection::vec(name(), 1..6), any::<bool>()), 0..60),
        bounds in bounds(),
    ) {
        let mut fixture = Fixture::new();
        fixture.bounds = bounds;
        for (path, is_file) in paths {
            let path = fixture.top.join(OsStr::from_bytes(&path.join(&b'/')));
            // Whatever is in the way stays: a file where a directory should be, or vice versa.
            let _ = fs::create_dir_all(if is_file { path.parent().unwrap() } else { &path });
            if is_file {
                let _ = fs::write(&path, path.as_os_str().as_bytes());
            }
        }
        let report = fixture.run();
        let mut expected = Vec::new();
        plain_order(&fixture.top, "", &mut expected);
        prop_assert_eq!(fixture.below(), expected);
        prop_assert_eq!(report.issues, vec![]);
        for (path, call) in fixture.recorder.seen() {
            if let Call::File(_, _, pieces) = call {
                prop_assert_eq!(super::content(pieces), path, "each file has its own content");
            }
        }
    }
}

/// Makes `levels` nested directories, each with a file after the next level.
fn dig(top: &Path, name: &str, levels: usize) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut at = nix::fcntl::open(top, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        let file = openat(at.as_fd(), "z", OFlag::O_WRONLY | OFlag::O_CREAT, Mode::S_IRWXU).unwrap();
        nix::unistd::write(&file, b"content").unwrap();
        mkdirat(at.as_fd(), name, Mode::S_IRWXU).unwrap();
        at = openat(at.as_fd(), name, flags, Mode::empty()).unwrap();
    }
}

#[test]
fn a_tree_far_deeper_than_any_path_keeps_few_descriptors() {
    const LEVELS: usize = 3_000;
    let mut fixture = Fixture::new();
    dig(&fixture.top, &"d".repeat(100), LEVELS);
    let report = fixture.run();
    assert_eq!(report.issues, [], "each level is entered again on the way back, to read its last file");
    assert_eq!((report.counts.files_new, report.counts.bytes_read), (LEVELS as u64, 7 * LEVELS as u64));
    let again = fixture.run_again();
    assert_eq!((again.counts.files_unchanged, again.counts.files_new), (LEVELS as u64, 0));
    // The tempdir's own removal is recursive.
    Command::new("rm").arg("-rf").arg(&fixture.top).status().unwrap();
}

#[test]
fn a_wide_directory_comes_in_slices_and_in_order() {
    let mut fixture = Fixture::new();
    for i in 0..3_000 {
        let path = fixture.path(&format!("{i:05}"));
        if i % 100 == 7 { fs::create_dir(path).unwrap() } else { fs::write(path, "x").unwrap() }
    }
    let report = fixture.run();
    assert_eq!((report.counts.files_new, report.issues.len()), (2_970, 0));
    assert!(fixture.below().is_sorted());
    assert_eq!(fixture.below().len(), 3_000);
}
