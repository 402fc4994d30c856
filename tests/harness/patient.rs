//! A small repository that is damaged on purpose: every way to spoil an object, and the way back.
//!
//! The sound store and catalog are kept aside, so one [`Patient`] serves for many damages, one after another.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::image::Image;
use crate::program::Programs;
use crate::program::Ran;
use crate::program::SMALL_VOLUMES;
use crate::program::Site;
use crate::tool;
use crate::tree::Tree;
use crate::tree::prose;
use crate::tree::random;

/// One way to damage an object, with its name for messages. `None` removes the object.
pub type Damage = (&'static str, Option<fn(&mut Vec<u8>)>);

const DAMAGES: &[Damage] = &[
    ("removed", None),
    ("one byte short", Some(|bytes| bytes.truncate(bytes.len() - 1))),
    ("half gone", Some(|bytes| bytes.truncate(bytes.len() / 2))),
    ("empty", Some(Vec::clear)),
    ("one byte longer", Some(|bytes| bytes.push(0))),
    ("a bit of its first byte", Some(|bytes| bytes[0] ^= 1)),
    ("a bit at a quarter", Some(|bytes| flip(bytes, 4))),
    ("a bit in the middle", Some(|bytes| flip(bytes, 2))),
    ("a bit of its last byte", Some(|bytes| *bytes.last_mut().unwrap() ^= 0x80)),
    ("all zeros", Some(|bytes| bytes.fill(0))),
];

/// All that counts as damage to `object`. The last byte of the description is a line end, which JSON does not need.
pub fn damages_of(object: &str) -> impl Iterator<Item = &'static Damage> {
    let is_description = object == "bygone.json";
    DAMAGES.iter().filter(move |(name, _)| !(is_description && *name == "one byte short"))
}

/// Flips one bit at one `part`-th of the length.
pub fn flip(bytes: &mut [u8], part: usize) {
    let at = bytes.len() / part;
    bytes[at] ^= 0x10;
}

/// A repository of several volumes and two snapshots.
pub struct Patient {
    /// Its machine.
    pub site: Site,
    /// What was backed up, as the newest snapshot holds it.
    pub tree: Tree,
    /// What [`Patient::tree`] held then.
    pub truth: Image,
    /// The objects of the sound store.
    pub sound: BTreeMap<String, Vec<u8>>,
}

impl Patient {
    /// Bytes of each of the three files `random/N`, in both snapshots.
    pub const RANDOM_BYTES: usize = 600_000;
    /// Bytes of each of the twenty files `text/N`, in both snapshots.
    pub const TEXT_BYTES: usize = 5_000;
    /// Bytes of the file `second`, which only the newest snapshot holds.
    pub const SECOND_BYTES: usize = 300_000;

    /// A new one, made by `bygone init OPTIONS`.
    pub fn new(programs: &Programs, options: &[&str]) -> Patient {
        let site = Site::with_repository(programs, &[&SMALL_VOLUMES, options].concat());
        let tree = Tree::new(&site.at("source"));
        (0..3).for_each(|n| drop(tree.file(format!("random/{n}"), Patient::random(n))));
        (0..20).for_each(|n| drop(tree.file(format!("text/{n}"), Patient::text(n))));
        tree.file("tiny", "lives in its entry");
        site.backup(tree.top());
        tree.file("second", random(77, Patient::SECOND_BYTES));
        site.backup(tree.top());
        copy(&site.repository(), &site.at("sound"));
        copy(&site.catalogs(), &site.at("sound-catalogs"));
        let (truth, sound) = (Image::of(tree.top()), site.store());
        Patient { site, tree, truth, sound }
    }

    /// The content of `random/N`.
    pub fn random(n: u64) -> Vec<u8> {
        random(n, Patient::RANDOM_BYTES)
    }

    /// The content of `text/N`.
    pub fn text(n: u64) -> Vec<u8> {
        prose(n * 1_000, Patient::TEXT_BYTES)
    }

    /// Puts the store and the catalog back as they were.
    pub fn heal(&self) {
        for (sound, place) in [("sound", self.site.repository()), ("sound-catalogs", self.site.catalogs())] {
            fs::remove_dir_all(&place).unwrap();
            copy(&self.site.at(sound), &place);
        }
    }

    /// The objects that matter, so not the text for people, whose names begin with `prefix`.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let matters = |name: &&String| name.starts_with(prefix) && *name != "README-RECOVER.txt";
        self.sound.keys().filter(matters).cloned().collect()
    }

    /// Damages one object.
    pub fn damage(&self, object: &str, damage: Option<fn(&mut Vec<u8>)>) {
        let path = self.site.repository().join(object);
        let Some(damage) = damage else { return fs::remove_file(path).unwrap() };
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        self.site.replace(object, &bytes);
    }

    /// The files that `ran`, a restore into `target`, has not brought back whole; `None` if it made nothing at all.
    /// A restore that lost something must not end with 0.
    #[track_caller]
    pub fn lost(&self, ran: &Ran, target: &Path) -> Option<Vec<PathBuf>> {
        let restored = target.join(self.tree.top().strip_prefix("/").unwrap());
        if !restored.is_dir() {
            assert_ne!(ran.code, 0, "nothing was restored: {ran}");
            return None;
        }
        let lost = self.truth.files_lost_in(&Image::of(&restored));
        assert!(lost.is_empty() || ran.code != 0, "{lost:?} are lost, and the restore ended with 0: {ran}");
        Some(lost)
    }

    /// Restores the newest snapshot, forgets the copy, and returns the files that did not come back.
    #[track_caller]
    pub fn restore(&self) -> Vec<String> {
        let target = self.site.at("target");
        let ran = self.site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]);
        let lost = self.lost(&ran, &target).unwrap_or_else(|| panic!("nothing came back: {ran}"));
        fs::remove_dir_all(target).unwrap();
        assert_eq!(lost.is_empty(), ran.code == 0, "{ran}");
        lost.iter().map(|path| path.display().to_string()).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    tool(Command::new("cp").arg("-a").arg(from).arg(to));
}
