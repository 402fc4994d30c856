//! An error ends everything at once, but a problem with one file does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use nix::unistd::mkfifo;

use bygone_core::entry::Kind;
use bygone_core::error::Error;
use bygone_core::watch::Watch;

use crate::backup::Options;
use crate::backup::Roots;
use crate::backup::Sink;
use crate::backup::Trouble;
use crate::backup::dry_run;
use crate::backup::run;
use crate::backup::tests::Call;
use crate::backup::tests::Fixture;
use crate::backup::tests::Parent;
use crate::backup::tests::content;
use crate::backup::tests::cutter;

fn many() -> Fixture {
    let fixture = Fixture::new();
    for i in 0..20 {
        fs::create_dir(fixture.path(&i.to_string())).unwrap();
        for j in 0..20 {
            fs::write(fixture.path(&format!("{i}/{j}")), vec![i; 3_000]).unwrap();
        }
    }
    fixture
}

#[test]
fn an_error_of_the_writer_ends_the_run_and_is_returned() {
    let mut fixture = many();
    for name in ["5/large", "large", "zarge"] {
        fs::write(fixture.path(name), vec![1; 10 << 20]).unwrap();
    }
    for max in [0, 1, 2, 50, 300, 425] {
        fixture.recorder.calls_max = Some(max);
        let error = fixture.try_run(Parent::none(), &[""]).unwrap_err();
        assert!(matches!(error, Error::Invalid { what } if what == "enough"));
    }
}

#[test]
fn cancelling_ends_the_run() {
    let mut fixture = many();
    let roots = Roots::new(&fixture.top, &[fixture.top.clone()]).unwrap();
    let watch = Watch::new();
    watch.cancel();
    let sink = Sink::Record(&mut fixture.recorder);
    let error = run(sink, Some(cutter()), None, &roots, &Options::default(), &watch, &fixture.bounds);
    assert!(matches!(error, Err(Error::Cancelled)));
}

#[test]
fn a_dry_run_reads_nothing_and_counts_everything() {
    let fixture = many();
    let roots = Roots::new(&fixture.top, &[PathBuf::from(".")]).unwrap();
    let watch = Watch::new();
    let report = dry_run(None, &roots, &Options::default(), &watch).unwrap();
    assert_eq!((report.counts.files_new, report.counts.bytes_read), (400, 1_200_000));
    assert_eq!(watch.bytes.load(Ordering::Relaxed), 1_200_000);
    let deep = fixture.top.components().count() as u64;
    assert_eq!(watch.entries.load(Ordering::Relaxed), 400 + 20 + deep, "and the way down from the root");
}

#[test]
fn a_moving_tree_does_not_stop_the_walk_or_mix_directories() {
    let mut fixture = Fixture::with(&[("a/1/2/3/own-a", "a"), ("b/1/2/3/own-b", "b"), ("still", "here")]);
    fixture.bounds.directories_held = 1;
    let top = fixture.top.clone();
    thread::scope(|threads| {
        let motion = threads.spawn(|| {
            let (x, swap) = (top.join("x"), |from: &str, to: &str| fs::rename(top.join(from), top.join(to)).unwrap());
            for _ in 0..5_000 {
                fs::write(&x, "file").unwrap();
                swap("a/1/2", "c");
                fs::remove_file(&x).unwrap();
                fs::create_dir(&x).unwrap();
                swap("c", "a/1/2");
                fs::remove_dir(&x).unwrap();
                mkfifo(&x, Mode::S_IRWXU).unwrap();
                swap("b", "a/b");
                fs::remove_file(&x).unwrap();
                swap("a/b", "b");
            }
        });
        while !motion.is_finished() {
            fixture.run();
            assert_eq!(fixture.recorder.content(&fixture.top, "still"), b"here");
            for (path, call) in fixture.recorder.seen() {
                if let Call::File(name, _, pieces) = call
                    && let Some(owner) = name.as_bytes().strip_prefix(b"own-")
                {
                    assert_eq!(content(pieces), owner, "{path:?} has its own content");
                }
            }
        }
    });
}

#[test]
fn unreadable_paths_are_reported_and_the_rest_is_kept() {
    if geteuid().is_root() {
        // Root reads everything.
        return;
    }
    let mut fixture = Fixture::with(&[("a/x", ""), ("b/x", ""), ("c", "1"), ("d", "2")]);
    for (name, mode) in [("a", 0o300), ("b", 0o600), ("c", 0)] {
        fs::set_permissions(fixture.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let report = fixture.run();
    for name in ["a", "b"] {
        fs::set_permissions(fixture.path(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let denied = |issue: &crate::backup::Issue| issue.trouble == Trouble::Unreadable("Permission denied".into());
    assert_eq!(fixture.below(), ["a", "b/x", "b/", "c", "d"], "what cannot be read has its place");
    let is_unreadable = |name: &str| match fixture.recorder.find(&fixture.top, name) {
        Call::Add(entry) => matches!(entry.kind, Kind::Unreadable { errno: 13, .. }),
        _ => false,
    };
    assert_eq!(["a", "b/x", "c", "d"].map(is_unreadable), [true, true, true, false]);
    assert!(report.issues.iter().all(denied));
    let paths: Vec<_> = report.issues.iter().map(|issue| issue.path.clone()).collect();
    assert_eq!(paths, ["a", "b/x", "c"].map(|name| fixture.path(name).into_os_string().into_encoded_bytes()));
    assert_eq!(report.unreadable, 3);
}
