//! Targets that are not empty, and how they are reported.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bygone_core::error::Error;

use super::*;
use crate::exclude::Excludes;
use crate::restore::Overwrite;
use crate::restore::Selection;

fn options(overwrite: Overwrite) -> Options {
    Options { overwrite: Some(overwrite), ..Options::default() }
}

fn repo() -> Repo {
    Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("in", meta(), &noise(1, 100));
        tree.end("dir", mode(0o751));
        tree.file("newer", meta(), &noise(2, 100));
        tree.file("older", meta(), &noise(3, 100));
        tree.file("same", mode(0o600), &noise(4, 100));
        tree.other("where", meta(), Kind::Symlink(b"here".to_vec()));
    })
}

fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    use nix::sys::stat::futimens;
    use nix::sys::time::TimeSpec;
    let time = TimeSpec::new(seconds, nanos);
    futimens(fs::File::open(path).unwrap(), &time, &time).unwrap();
}

/// A target with an older, a newer and an equal file, and things that the snapshot does not have.
fn target() -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let path = |name: &str| target.path().join(name);
    fs::create_dir_all(path("dir/extra/deep")).unwrap();
    fs::create_dir_all(path("keep")).unwrap();
    fs::write(path("dir/extra/deep/x"), b"x").unwrap();
    fs::write(path("newer"), b"from yesterday").unwrap();
    fs::write(path("older"), b"from long ago").unwrap();
    set_mtime(&path("older"), 1_400_000_000, 0);
    fs::write(path("same"), vec![b'?'; 100]).unwrap();
    set_mtime(&path("same"), 1_500_000_000, 123_456_789);
    target
}

#[test]
fn a_target_with_content_is_refused_by_default() {
    let target = target();
    let before = listing(target.path());
    let error = repo().restore(target.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert!(error.to_string().contains("--overwrite always|if-changed|if-newer|never"), "{error}");
    assert_eq!(listing(target.path()), before);
    let error =
        repo().restore(target.path(), &Options { delete: repo().deletion(&[]), ..Options::default() }).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "deleting is for such targets only: {error}");
    let file = target.path().join("same");
    assert!(repo().restore(&file, &Options::default()).is_err(), "a file is no target");
}

#[test]
fn each_way_to_overwrite_keeps_what_it_promises() {
    let repo = repo();
    for (overwrite, replaced, kept) in [
        (Overwrite::Always, &["newer", "older", "same"][..], 0),
        (Overwrite::IfChanged, &["newer", "older"], 1),
        (Overwrite::IfNewer, &["older"], 2),
        (Overwrite::Never, &[], 3),
    ] {
        let target = target();
        let before = |name: &str| fs::read(self::target().path().join(name)).unwrap();
        let report = repo
            .restore(target.path(), &Options { verify: overwrite == Overwrite::Always, ..options(overwrite) })
            .unwrap();
        assert_eq!(report.issues, [], "{overwrite:?}");
        assert_eq!((report.files, report.kept, report.others), (replaced.len() as u64 + 1, kept, 1), "{overwrite:?}");
        for (seed, name) in [(2, "newer"), (3, "older"), (4, "same")] {
            let expected = if replaced.contains(&name) { noise(seed, 100) } else { before(name) };
            assert!(fs::read(target.path().join(name)).unwrap() == expected, "{overwrite:?} {name}");
        }
        let mode = |name: &str| target.path().join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode("same") == 0o600, overwrite != Overwrite::Never && overwrite != Overwrite::IfNewer);
        assert_eq!(
            mode("dir") == 0o751,
            overwrite != Overwrite::Never && overwrite != Overwrite::IfNewer,
            "{overwrite:?}"
        );
        assert_eq!(fs::read(target.path().join("dir/in")).unwrap(), noise(1, 100), "what is not there is restored");
        assert!(target.path().join("dir/extra/deep/x").exists(), "nothing is deleted without --delete");
        let names = listing(target.path());
        assert!(!names.iter().any(|name| name.contains("bygone")), "no temporary file is left: {names:?}");
    }
}

#[test]
fn a_second_restore_writes_nothing_and_mends_metadata() {
    let linked = Meta { inode: 5, nlink: 2, ..meta() };
    let repo = Repo::new(mode(0o755), |tree| {
        tree.file("a", linked.clone(), &noise(1, 100));
        tree.file("b", linked, &noise(1, 100));
        tree.file("c", meta(), &noise(2, 100));
    });
    let (target, _) = restored(&repo, &Options::default());
    let before = listing(target.path());
    let inode = |name: &str| target.path().join(name).metadata().unwrap().ino();
    let inodes = (inode("a"), inode("b"), inode("c"));
    fs::set_permissions(target.path().join("c"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let report = repo.restore(target.path(), &Options { verify: true, ..options(Overwrite::IfChanged) }).unwrap();
    assert_eq!((report.files, report.issues_total, report.verified), (0, 0, 3));
    assert_eq!(listing(target.path()), before);
    assert_eq!((inode("a"), inode("b"), inode("c")), inodes);

    fs::remove_file(target.path().join("b")).unwrap();
    fs::write(target.path().join("b"), b"no longer the same").unwrap();
    let report = repo.restore(target.path(), &options(Overwrite::IfChanged)).unwrap();
    assert_eq!((report.links, report.issues_total), (1, 0));
    assert_eq!((inode("a"), inode("b")), (inodes.0, inodes.0), "a name that is another file is linked again");
}

#[test]
fn delete_removes_only_what_the_snapshot_does_not_have() {
    let repo = repo();
    let of = |patterns: &[&str]| Excludes::new(patterns.iter().map(|pattern| pattern.as_bytes())).unwrap();
    let target = self::target();
    let exclude = Selection { exclude: of(&["keep"]), ..Selection::default() };
    let with = Options { delete: repo.deletion(&[]), verify: true, selection: exclude, ..options(Overwrite::Always) };
    let report = repo.restore(target.path(), &with).unwrap();
    assert_eq!((report.deleted, report.issues_total), (3, 0));
    assert!(!target.path().join("dir/extra").exists());
    assert!(target.path().join("keep").exists(), "what is not to be restored is not to be deleted");

    let target = self::target();
    let include = Selection { include: of(&["/dir"]), ..Selection::default() };
    let with = Options { delete: repo.deletion(&[]), selection: include, ..options(Overwrite::Never) };
    let report = repo.restore(target.path(), &with).unwrap();
    assert_eq!(report.deleted, 3, "below a directory that is restored");
    assert!(target.path().join("keep").exists() && target.path().join("older").exists());
}

#[test]
fn one_kind_gives_way_to_another() {
    let repo = Repo::new(mode(0o755), |tree| {
        tree.begin();
        tree.file("x", meta(), b"x");
        tree.end("a", mode(0o755));
        tree.file("b", meta(), b"b");
        tree.other("c", meta(), Kind::Symlink(b"x".to_vec()));
    });
    let target = tempfile::tempdir().unwrap();
    let path = |name: &str| target.path().join(name);
    fs::write(path("a"), b"a file where a directory was").unwrap();
    fs::create_dir(path("b")).unwrap();
    fs::create_dir(path("c")).unwrap();
    fs::write(path("c/full"), b"").unwrap();
    let report = repo.restore(target.path(), &options(Overwrite::Always)).unwrap();
    assert_eq!(report.issues.len(), 1, "{:?}", report.issues);
    assert!(report.issues[0].path == b"/c" && report.issues[0].text.contains("--delete"), "{:?}", report.issues);
    assert_eq!(fs::read(path("a/x")).unwrap(), b"x");
    assert_eq!(fs::read(path("b")).unwrap(), b"b");
    let report =
        repo.restore(target.path(), &Options { delete: repo.deletion(&[]), ..options(Overwrite::Always) }).unwrap();
    assert_eq!((report.issues.len(), report.deleted), (0, 2));
    assert!(path("c").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_dry_run_reports_everything_and_does_nothing() {
    let repo = repo();
    let missing = tempfile::tempdir().unwrap();
    let dry_run = Options { dry_run: true, ..Options::default() };
    let all = ["Create /dir", "Create /dir/in", "Create /newer", "Create /older", "Create /same", "Create /where"];
    assert_eq!(repo.steps(&missing.path().join("not/there"), &dry_run), all);
    assert_eq!(repo.steps(missing.path(), &dry_run), all);
    assert!(listing(missing.path()).is_empty());

    let target = self::target();
    let before = listing(target.path());
    let dry_run = Options { dry_run: true, delete: repo.deletion(&[]), ..options(Overwrite::IfChanged) };
    let steps = repo.steps(target.path(), &dry_run);
    let expected = [
        "Adjust /dir",
        "Create /dir/in",
        "Replace /newer",
        "Replace /older",
        "Adjust /same",
        "Create /where",
        "Delete /keep",
        "Delete /dir/extra",
    ];
    assert_eq!(steps, expected);
    assert_eq!(listing(target.path()), before);
    let real = repo.steps(target.path(), &Options { dry_run: false, ..dry_run });
    assert_eq!(real, expected, "the restore itself takes the same steps");
}

#[test]
fn verifying_finds_what_was_changed_since() {
    let repo = repo();
    let (target, _) = restored(&repo, &Options::default());
    let path = target.path().join("same");
    let mut bytes = fs::read(&path).unwrap();
    bytes[50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    set_mtime(&path, 1_500_000_000, 123_456_789);
    let report = repo.restore(target.path(), &Options { verify: true, ..options(Overwrite::IfChanged) }).unwrap();
    assert_eq!((report.damaged, report.verified), (1, 3));
    assert!(report.issues[0].path == b"/same" && report.issues[0].text.contains("50"), "{:?}", report.issues);
}

#[test]
fn a_cancelled_restore_ends_and_leaves_no_half_file() {
    let repo = Repo::new(mode(0o755), |tree| {
        for number in 0..30 {
            tree.file(&format!("f{number:02}"), meta(), &noise(number, 300_000));
        }
    });
    let target = tempfile::tempdir().unwrap();
    let repository = Repository::open(&repo.place, &secret()).unwrap();
    let reader = Reader::new(&repository, 1 << 20, Order::Forward).unwrap();
    let subject = repo.subject(&reader, b"");
    let watch = Watch::new();
    let mut steps = 0;
    let mut say = |_, _: &[u8]| {
        steps += 1;
        if steps == 20 {
            watch.cancel();
        }
    };
    let error = crate::restore::restore(&reader, &subject, target.path(), &Options::default(), &watch, &mut say);
    assert!(matches!(error, Err(Error::Cancelled)));
    for item in target.path().read_dir().unwrap() {
        assert_eq!(item.unwrap().metadata().unwrap().len(), 300_000);
    }
}
