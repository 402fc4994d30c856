//! Random histories: changes to a tree, backups, restores, mounts and lost catalogs. Every snapshot is compared with an
//! image of the tree from the moment of its backup.
//!
//! Choices wrap around the number of candidates, so every sequence is valid and shrinks well. proptest prints the
//! shortest failing sequence; add it as a test of its own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;

use bygone_tests::image::Image;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::programs;
use crate::site::restored;
use crate::site::snapshot_ids;

/// Seconds spent on histories, unless BYGONE_TESTS_MODEL_SECONDS says otherwise.
const BUDGET_SECS: u64 = 30;

#[derive(Debug, Clone)]
enum Step {
    Write { at: usize, name: Vec<u8>, bytes: usize, seed: u64 },
    Append { at: usize, bytes: usize },
    Overwrite { at: usize, offset: usize, bytes: usize },
    Insert { at: usize, offset: usize, bytes: usize },
    Truncate { at: usize, bytes: usize },
    Grow { at: usize, bytes: u64 },
    Remove { at: usize },
    Rename { at: usize, to: usize, name: Vec<u8> },
    Directory { at: usize, name: Vec<u8> },
    Symlink { at: usize, name: Vec<u8>, target: Vec<u8> },
    HardLink { at: usize, to: usize, name: Vec<u8> },
    Mode { at: usize, mode: u32 },
    Mtime { at: usize, secs: i64, nanos: i64 },
    Xattr { at: usize, value: Vec<u8> },
    Backup,
    Restore { which: usize },
    LoseCatalog,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = (1..=255u8).prop_filter("a name has no slash", |byte| *byte != b'/');
    prop_oneof![
        3 => "[a-d]".prop_map(String::into_bytes),
        1 => prop::collection::vec(byte, 1..=255).prop_filter("nor is it", |name| name != b"." && name != b".."),
    ]
}

/// Lengths at and around the borders of a repository with blocks of 64 KiB.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 0..=130usize,
        2 => 0..=20_000usize,
        2 => (1..=6usize, 0..3usize).prop_map(|(blocks, side)| blocks * 65_536 + side - 1),
        1 => 0..=600_000usize,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..1000usize;
    prop_oneof![
        6 => (at(), name(), length(), 0..20u64).prop_map(|(at, name, bytes, seed)| Step::Write { at, name, bytes, seed }),
        2 => (at(), length()).prop_map(|(at, bytes)| Step::Append { at, bytes }),
        2 => (at(), length(), length()).prop_map(|(at, offset, bytes)| Step::Overwrite { at, offset, bytes }),
        2 => (at(), length(), length()).prop_map(|(at, offset, bytes)| Step::Insert { at, offset, bytes }),
        1 => (at(), length()).prop_map(|(at, bytes)| Step::Truncate { at, bytes }),
        1 => (at(), 0..2_000_000u64).prop_map(|(at, bytes)| Step::Grow { at, bytes }),
        2 => at().prop_map(|at| Step::Remove { at }),
        2 => (at(), at(), name()).prop_map(|(at, to, name)| Step::Rename { at, to, name }),
        3 => (at(), name()).prop_map(|(at, name)| Step::Directory { at, name }),
        1 => (at(), name(), name()).prop_map(|(at, name, target)| Step::Symlink { at, name, target }),
        2 => (at(), at(), name()).prop_map(|(at, to, name)| Step::HardLink { at, to, name }),
        1 => (at(), 0..0o10000u32).prop_map(|(at, mode)| Step::Mode { at, mode }),
        2 => (at(), -2_000_000_000..7_000_000_000i64, 0..1_000_000_000i64)
            .prop_map(|(at, secs, nanos)| Step::Mtime { at, secs, nanos }),
        1 => (at(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(at, value)| Step::Xattr { at, value }),
        4 => Just(Step::Backup),
        2 => at().prop_map(|which| Step::Restore { which }),
        1 => Just(Step::LoseCatalog),
    ]
}

/// A machine, its tree, and the expected content of each snapshot.
struct World {
    site: Site,
    tree: Tree,
    truth: Vec<Image>,
    restores: u32,
}

impl World {
    fn new() -> World {
        let site = Site::with_repository(&programs(), &["--block-size", "64KiB", "--volume-size", "1MiB"]);
        let tree = Tree::new(&site.at("source"));
        World { site, tree, truth: Vec::new(), restores: 0 }
    }

    /// The entries of the tree for which `wanted` holds, sorted.
    fn entries(&self, wanted: fn(&fs::Metadata) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.tree.top().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                if wanted(&stat) {
                    found.push(path.clone());
                }
                if stat.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn file(&self, at: usize) -> Option<PathBuf> {
        chosen(self.entries(|stat| stat.is_file()), at)
    }

    fn any(&self, at: usize) -> Option<PathBuf> {
        chosen(self.entries(|_| true), at)
    }

    /// A free name in some directory, the top included.
    fn free(&self, at: usize, name: &[u8]) -> Option<PathBuf> {
        let mut folders = self.entries(|stat| stat.is_dir());
        folders.push(self.tree.top().to_path_buf());
        let path = chosen(folders, at)?.join(OsString::from_vec(name.to_vec()));
        let fits = path.as_os_str().len() < 3_000;
        (fits && fs::symlink_metadata(&path).is_err()).then_some(path)
    }

    /// Changes the content of a file, if there is one.
    fn rewrite(&self, at: usize, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(path) = self.file(at) {
            let mut content = fs::read(&path).unwrap();
            change(&mut content);
            fs::write(path, content).unwrap();
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Backup => self.backup(),
            Step::Restore { which } => self.restore(*which),
            Step::LoseCatalog => {
                drop(fs::remove_dir_all(self.site.catalogs()));
                self.site.bygone(["recover"]).ok();
            }
            content @ (Step::Write { .. }
            | Step::Append { .. }
            | Step::Overwrite { .. }
            | Step::Insert { .. }
            | Step::Truncate { .. }
            | Step::Grow { .. }) => self.change_content(content),
            entry => self.change_entries(entry),
        }
    }

    fn change_content(&self, step: &Step) {
        match step {
            Step::Write { at, name, bytes, seed } => {
                if let Some(path) = self.free(*at, name) {
                    let content = if seed % 2 == 0 { random(*seed, *bytes) } else { prose(*seed, *bytes) };
                    fs::write(path, content).unwrap();
                }
            }
            Step::Append { at, bytes } => self.rewrite(*at, |content| content.extend(random(3, *bytes))),
            Step::Overwrite { at, offset, bytes } => self.rewrite(*at, |content| {
                let from = offset % (content.len() + 1);
                let to = (from + bytes).min(content.len());
                content[from..to].copy_from_slice(&random(5, to - from));
            }),
            Step::Insert { at, offset, bytes } => self.rewrite(*at, |content| {
                let from = offset % (content.len() + 1);
                content.splice(from..from, random(7, *bytes));
            }),
            Step::Truncate { at, bytes } => self.rewrite(*at, |content| content.truncate(*bytes)),
            Step::Grow { at, bytes } => {
                if let Some(path) = self.file(*at) {
                    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                    let length = file.metadata().unwrap().len();
                    file.set_len((length + bytes).min(8 << 20)).unwrap();
                }
            }
            _ => unreachable!(),
        }
    }

    fn change_entries(&self, step: &Step) {
        match step {
            Step::Remove { at } => {
                let Some(path) = self.any(*at) else { return };
                let is_directory = fs::symlink_metadata(&path).unwrap().is_dir();
                if is_directory { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
            Step::Rename { at, to, name } => {
                let (Some(from), Some(to)) = (self.any(*at), self.free(*to, name)) else { return };
                if !to.starts_with(&from) {
                    fs::rename(from, to).unwrap();
                }
            }
            Step::Directory { at, name } => drop(self.free(*at, name).map(|path| fs::create_dir(path).unwrap())),
            Step::Symlink { at, name, target } => {
                let Some(path) = self.free(*at, name) else { return };
                std::os::unix::fs::symlink(OsString::from_vec(target.clone()), path).unwrap();
            }
            Step::HardLink { at, to, name } => {
                let (Some(file), Some(path)) = (self.file(*at), self.free(*to, name)) else { return };
                fs::hard_link(file, path).unwrap();
            }
            Step::Mode { at, mode } => {
                let Some(path) = self.any(*at).filter(|path| !path.is_symlink()) else { return };
                let mode = if path.is_dir() { mode | 0o700 } else { mode | 0o600 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            Step::Mtime { at, secs, nanos } => {
                let Some(path) = self.any(*at) else { return };
                self.tree.mtime(path, *secs, *nanos);
            }
            Step::Xattr { at, value } => drop(self.file(*at).map(|path| self.tree.xattr(path, "user.x", value))),
            _ => unreachable!(),
        }
    }

    fn backup(&mut self) {
        self.site.backup(self.tree.top());
        self.truth.push(Image::of(self.tree.top()));
    }

    fn restore(&mut self, which: usize) {
        let ids = snapshot_ids(&self.site);
        assert_eq!(ids.len(), self.truth.len(), "one snapshot for each backup");
        if ids.is_empty() {
            return;
        }
        let which = which % ids.len();
        self.restores += 1;
        let target = self.site.at(format!("target-{}", self.restores));
        self.site.restore(&ids[which], &target);
        let found = Image::of(&restored(&target, self.tree.top()));
        self.truth[which].assert_same(&found, &format!("snapshot {which} of {}", ids.len()));
        fs::remove_dir_all(target).unwrap();
    }

    /// At the end everything must still be there for restore, mount and check.
    fn judge(mut self) {
        self.backup();
        (0..self.truth.len()).for_each(|which| self.restore(which));
        self.site.bygone(["check", "--read-data"]).ok();
        if !bygone_tests::root() {
            return;
        }
        let mounted = self.site.mount("mnt", &[]);
        let newest = self.truth.last().unwrap();
        newest.assert_same(&Image::of(&mounted.latest(self.tree.top())), "the newest snapshot in the mount");
        let shown = fs::read_dir(mounted.point().join("snapshots")).unwrap().count();
        assert_eq!(shown, self.truth.len(), "every snapshot is in the mount");
        mounted.unmount().ok();
    }
}

/// The element at `at`, wrapping around the end.
fn chosen(mut from: Vec<PathBuf>, at: usize) -> Option<PathBuf> {
    if from.is_empty() { None } else { Some(from.swap_remove(at % from.len())) }
}

#[test]
fn random_histories_come_back() {
    let config = Config { cases: 1, failure_persistence: None, max_shrink_time: 120_000, ..Config::default() };
    let wanted =
        std::env::var("BYGONE_TESTS_MODEL_SECONDS").ok().map(|secs| secs.parse().expect("a number of seconds"));
    let budget = Duration::from_secs(wanted.unwrap_or(BUDGET_SECS));
    let since = Instant::now();
    let mut histories = 0;
    while since.elapsed() < budget {
        // A new runner for each history, because a runner that has used up its cases runs no more.
        let result = TestRunner::new(config.clone()).run(&prop::collection::vec(step(), 1..40), |steps| {
            let mut world = World::new();
            steps.iter().for_each(|step| world.take(step));
            world.judge();
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
        histories += 1;
    }
    println!("{histories} histories");
    assert!(histories > 2, "only {histories} histories in {budget:?}");
}
