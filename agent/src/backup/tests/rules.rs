//! What is left out, and what leads to the requested paths.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::backup::Trouble;
use crate::backup::tests::Call;
use crate::backup::tests::Fixture;
use crate::backup::tests::Parent;
use crate::exclude::Excludes;

fn excluding(patterns: &[&str]) -> Excludes {
    Excludes::new(patterns.iter().map(|pattern| pattern.as_bytes())).unwrap()
}

#[test]
fn patterns_leave_out_whole_branches() {
    let mut fixture = Fixture::with(&[("a/x.o", ""), ("a/keep", ""), ("target/debug/x", ""), ("b/target/y", "")]);
    let anchored = format!("{}/b/*", fixture.top.display());
    fixture.options.rules.excludes = excluding(&["*.o", "target/debug", &anchored]);
    let report = fixture.run();
    assert_eq!(fixture.below(), ["a/keep", "a/", "b/", "target/"]);
    assert_eq!(report.counts.excluded, 3);
}

#[test]
fn a_requested_path_is_not_left_out_itself() {
    let mut fixture = Fixture::with(&[("cache/file", ""), ("cache/cache/file", "")]);
    fixture.options.rules.excludes = excluding(&["cache"]);
    fixture.try_run(Parent::none(), &["cache"]).unwrap();
    assert_eq!(fixture.below(), ["cache/file", "cache/"]);
}

#[test]
fn a_requested_path_is_taken_whatever_leaves_it_out_above() {
    let tag = "Signature: 8a477f597d28d172789f06886806bc55";
    let files = [
        ("z/disk/films/a", ""),
        ("z/disk/photos/b", ""),
        ("z/disk/photos/disk/c", ""),
        ("z/disk/photos/deep/d", ""),
        ("z/e", ""),
        ("cache/CACHEDIR.TAG", tag),
        ("cache/x/f", ""),
        ("cache/y/g", ""),
    ];
    let expected = [
        "cache/CACHEDIR.TAG",
        "cache/x/f",
        "cache/x/",
        "cache/",
        "z/disk/photos/b",
        "z/disk/photos/deep/d",
        "z/disk/photos/deep/",
        "z/disk/photos/",
        "z/disk/",
        "z/e",
        "z/",
    ];
    for pattern in ["disk", "z/disk"] {
        let mut fixture = Fixture::with(&files);
        fixture.options.rules.excludes = excluding(&[pattern, "**/photos/disk"]);
        fixture.options.rules.caches = true;
        for paths in [["", "z/disk/photos", "cache/x"], ["cache/x", "z/disk/photos", ""]] {
            let report = fixture.try_run(Parent::none(), &paths).unwrap();
            assert_eq!(fixture.below(), expected, "{pattern} {paths:?}");
            assert_eq!(report.issues, []);
        }
    }
    // A pattern that matches everything below what was asked for, and a path that is a file.
    let mut fixture = Fixture::with(&files);
    fixture.options.rules.excludes = excluding(&[&format!("{}/z/**", fixture.top.display())]);
    fixture.try_run(Parent::none(), &["z", "z/disk/photos", "z/e"]).unwrap();
    let photos = ["b", "deep/d", "deep/", "disk/c", "disk/", ""].map(|name| format!("z/disk/photos/{name}"));
    assert_eq!(fixture.below(), [&photos[..], &["z/disk/", "z/e", "z/"].map(str::to_owned)].concat());
}

#[test]
fn a_requested_cache_is_taken_whole() {
    let tag = "Signature: 8a477f597d28d172789f06886806bc55";
    let mut fixture = Fixture::with(&[("c/CACHEDIR.TAG", tag), ("c/x", "")]);
    fixture.options.rules.caches = true;
    fixture.try_run(Parent::none(), &["c"]).unwrap();
    assert_eq!(fixture.below(), ["c/CACHEDIR.TAG", "c/x", "c/"]);
}

#[test]
fn caches_keep_their_tag_and_nothing_else() {
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# more";
    let mut fixture = Fixture::with(&[("c/CACHEDIR.TAG", tag), ("c/x", ""), ("d/CACHEDIR.TAG", "no"), ("d/x", "")]);
    fixture.options.rules.caches = true;
    fixture.run();
    assert_eq!(fixture.below(), ["c/CACHEDIR.TAG", "c/", "d/CACHEDIR.TAG", "d/x", "d/"]);
}

#[test]
fn a_marked_directory_keeps_its_mark() {
    let mut fixture = Fixture::with(&[("a/.nobackup", ""), ("a/x", ""), ("a/sub/y", ""), ("b/x", "")]);
    fixture.options.rules.if_present = vec![b".nobackup".to_vec()];
    fixture.run();
    assert_eq!(fixture.below(), ["a/.nobackup", "a/", "b/x", "b/"]);
}

#[test]
fn large_files_are_left_out_but_not_large_directories() {
    let mut fixture = Fixture::with(&[("small", "12345"), ("large", "123456"), ("dir/", "")]);
    fixture.options.rules.larger_than = Some(5);
    let report = fixture.run();
    assert_eq!(fixture.below(), ["dir/", "small"]);
    assert_eq!(report.counts.excluded, 1);
    fixture.try_run(Parent::none(), &["large"]).unwrap();
    assert_eq!(fixture.below(), ["large"], "it was asked for by its name");
}

#[test]
fn directories_of_bygone_are_left_out_with_a_note() {
    let mut fixture = Fixture::with(&[("store/data", ""), ("file", "")]);
    symlink("store", fixture.path("link")).unwrap();
    fixture.options.own_directories = vec![fixture.path("link"), fixture.path("missing")];
    let report = fixture.run();
    assert_eq!(fixture.below(), ["file", "link"]);
    assert!(matches!(report.issues.as_slice(), [issue] if matches!(issue.trouble, Trouble::Note(_))));
    assert_eq!(report.unreadable, 0);
}

#[test]
fn another_file_system_is_an_empty_directory() {
    let device = |path: &str| fs::metadata(path).map(|metadata| metadata.dev());
    let (Ok(dev), Ok(shm)) = (device("/dev"), device("/dev/shm")) else { return };
    if dev == shm {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.options.rules.one_file_system = true;
    fixture.try_run(Parent::none(), &["/dev"]).unwrap();
    let below = fixture.recorder.below(Path::new("/dev"));
    assert!(below.iter().any(|path| path == "shm/") && !below.iter().any(|path| path.starts_with("shm/x")));
    assert!(!below.iter().any(|path| path.starts_with("shm/") && path != "shm/"));
}

#[test]
fn file_systems_of_the_kernel_are_walked_only_on_request() {
    let mut fixture = Fixture::new();
    fixture.options.rules.excludes = excluding(&["/*/*"]);
    let report = fixture.try_run(Parent::none(), &["/"]).unwrap();
    let proc = report.issues.iter().find(|issue| issue.path == b"/proc");
    assert!(proc.is_some_and(|issue| matches!(issue.trouble, Trouble::Note(_))) || !Path::new("/proc/self").exists());
}

#[test]
fn the_way_to_a_root_has_its_metadata_and_nothing_else() {
    let mut fixture = Fixture::with(&[("a/b/c/file", ""), ("a/b/other", ""), ("a/x", ""), ("d/y", "")]);
    let report = fixture.try_run(Parent::none(), &["a/b/c", "d/y", "a/b/c/file"]).unwrap();
    assert_eq!(fixture.below(), ["a/b/c/file", "a/b/c/", "a/b/", "a/", "d/y", "d/"]);
    assert_eq!(report.issues, []);
    let meta = fixture.recorder.meta(&fixture.top, "a/b");
    assert_eq!(meta.inode, fs::metadata(fixture.path("a/b")).unwrap().ino());
    assert!(matches!(fixture.recorder.seen().last(), Some((path, Call::End(None, ..))) if path.is_empty()));
}

#[test]
fn a_link_is_itself_as_a_root_and_a_directory_on_the_way_to_one() {
    let mut fixture = Fixture::with(&[("real/file", "content"), ("real/other", "")]);
    symlink("real", fixture.path("link")).unwrap();
    let report = fixture.try_run(Parent::none(), &["link"]).unwrap();
    assert_eq!(fixture.below(), ["link"]);
    assert!(matches!(report.issues.as_slice(), [issue] if matches!(issue.trouble, Trouble::Warning(_))));
    for slash in ["link/", "link/."] {
        let report = fixture.try_run(Parent::none(), &[slash]).unwrap();
        assert_eq!(
            (fixture.below(), report.issues.len()),
            (["link/file", "link/other", "link/"].map(str::to_owned).to_vec(), 0)
        );
    }
    fs::write(fixture.path("plain"), "").unwrap();
    let report = fixture.try_run(Parent::none(), &["real", "plain/"]).unwrap();
    assert_eq!(report.unreadable, 1, "a file is no directory");
    fixture.try_run(Parent::none(), &["link/file"]).unwrap();
    assert_eq!(fixture.below(), ["link/file", "link/"]);
    assert_eq!(fixture.recorder.content(&fixture.top, "link/file"), b"content");
}

#[test]
fn a_missing_root_is_reported_and_the_others_are_backed_up() {
    let mut fixture = Fixture::with(&[("a", ""), ("b", "")]);
    let report = fixture.try_run(Parent::none(), &["a", "missing/too", "b"]).unwrap();
    assert_eq!(fixture.below(), ["a", "b"]);
    assert_eq!(report.unreadable, 1);
    assert!(fixture.try_run(Parent::none(), &["missing", "a/x"]).is_err(), "nothing at all to back up");
}
