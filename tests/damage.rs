//! Every object of a small repository is damaged in every way. Each damage is found and named, and nothing is lost but
//! what lay in the damaged place; no program ever panics (the harness looks for that in each run).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bygone_tests::image::Image;
use bygone_tests::program::{Ran, Site};
use bygone_tests::tool;
use bygone_tests::tree::{Tree, prose, random};

use crate::site::{objects, programs, restored};

/// One way to damage an object's bytes.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: &[Damage] = &[
    ("one byte short", |bytes| bytes.truncate(bytes.len() - 1)),
    ("half gone", |bytes| bytes.truncate(bytes.len() / 2)),
    ("empty", Vec::clear),
    ("one byte longer", |bytes| bytes.push(0)),
    ("a bit of its first byte", |bytes| bytes[0] ^= 1),
    ("a bit at a quarter", |bytes| flip(bytes, 4)),
    ("a bit in the middle", |bytes| flip(bytes, 2)),
    ("a bit of its last byte", |bytes| *bytes.last_mut().unwrap() ^= 0x80),
    ("all zeros", |bytes| bytes.fill(0)),
];

/// Flips one bit at a part of the way.
fn flip(bytes: &mut [u8], part: usize) {
    let at = bytes.len() / part;
    bytes[at] ^= 0x10;
}

/// A repository with three volumes of content, kept aside so that it can be put back.
struct Patient {
    site: Site,
    tree: Tree,
    truth: Image,
}

impl Patient {
    fn new() -> Patient {
        let site = Site::with_repository(&programs(), &["--volume-size", "1MiB", "--block-size", "64KiB"]);
        let tree = Tree::new(&site.at("source"));
        (0..4).for_each(|n| drop(tree.file(format!("random/{n}"), random(n, 600_000))));
        (0..20).for_each(|n| drop(tree.file(format!("text/{n}"), prose(n * 1_000, 5_000))));
        tree.file("tiny", "lives in its entry");
        site.backup(tree.top());
        tree.file("second", random(77, 50_000));
        site.backup(tree.top());
        copy(&site.repository(), &site.at("sound"));
        copy(&site.catalogs(), &site.at("sound-catalogs"));
        let truth = Image::of(tree.top());
        Patient { site, tree, truth }
    }

    /// The repository and the catalog as they were.
    fn heal(&self) {
        for (sound, place) in [("sound", self.site.repository()), ("sound-catalogs", self.site.catalogs())] {
            fs::remove_dir_all(&place).unwrap();
            copy(&self.site.at(sound), &place);
        }
    }

    /// The objects that matter: all but the text for people.
    fn objects(&self) -> Vec<String> {
        objects(&self.site, "").into_keys().filter(|name| name != "README-RECOVER.txt").collect()
    }

    fn damage(&self, object: &str, damage: fn(&mut Vec<u8>)) {
        let path = self.site.repository().join(object);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    /// What was done to `object` must be found and named, and a restore must bring back everything else.
    fn examine(&self, object: &str, what: &str) {
        let case = format!("{object}, {what}");
        let checked = self.site.bygone(["check", "--read-data"]);
        assert!(ENDINGS.contains(&checked.code), "{case}: found by check --read-data? {checked}");
        assert!(names(&checked, object), "{case}: check names the object: {checked}");
        let target = self.site.at("target");
        let ran = self.site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]);
        let Some(lost) = self.lost(&case, &ran, &target) else { return };
        for file in &lost {
            assert!(ran.err.contains(&file.display().to_string()), "{case}: {file:?} is lost and not named: {ran}");
        }
        // The texts lie in one volume, each of the large files in one or two.
        let most = if what.starts_with("swapped") { 24 } else { 22 };
        assert!(!object.starts_with("data/") || lost.len() <= most, "{case}: {} files are lost", lost.len());
        drop(fs::remove_dir_all(&target));
    }

    /// The files that a restore has not brought back whole, for which it has not ended with 0; `None` if it gave up
    /// before it made anything.
    fn lost(&self, case: &str, ran: &Ran, target: &Path) -> Option<Vec<PathBuf>> {
        let inside = restored(target, self.tree.top());
        if !inside.is_dir() {
            assert_ne!(ran.code, 0, "{case}: nothing was restored: {ran}");
            return None;
        }
        let lost = self.truth.files_lost_in(&Image::of(&inside));
        assert!(lost.is_empty() || ran.code != 0, "{case}: {lost:?} are lost and the restore ended with 0");
        Some(lost)
    }
}

/// Exit codes by which damage may be reported: 10 and 12 where there is no repository or no key to look with.
const ENDINGS: &[i32] = &[10, 12, 13, 14];

/// True if `ran` names `object`, by its path or by the unmistakable end of it. Without a description there is no
/// repository to look into, and without a key slot nobody can look.
fn names(ran: &Ran, object: &str) -> bool {
    let said = said(ran);
    let last = object.rsplit('/').next().unwrap();
    let cannot_look = [10, 12].contains(&ran.code) || said.contains("no key slot");
    said.contains(object) || (last.len() == 64 && said.contains(last)) || cannot_look
}

fn copy(from: &Path, to: &Path) {
    tool(Command::new("cp").arg("-a").arg(from).arg(to));
}

#[test]
fn every_damage_to_every_object_is_found_and_named() {
    let patient = Patient::new();
    patient.site.bygone(["check", "--read-data"]).ok();
    let objects = patient.objects();
    assert!(objects.iter().filter(|name| name.starts_with("data/")).count() >= 3, "several volumes: {objects:?}");
    for object in &objects {
        fs::remove_file(patient.site.repository().join(object)).unwrap();
        patient.examine(object, "removed");
        patient.heal();
        for (what, damage) in DAMAGES {
            if object == "bygone.json" && *what == "one byte short" {
                continue; // That byte is a line end, which means nothing in JSON.
            }
            patient.damage(object, *damage);
            patient.examine(object, what);
            patient.heal();
        }
    }
    patient.site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn objects_in_each_others_places_are_found() {
    let patient = Patient::new();
    let objects = patient.objects();
    let path = |name: &str| patient.site.repository().join(name);
    for pair in objects.windows(2) {
        let [one, other] = pair else { unreachable!() };
        let (first, second) = (fs::read(path(one)).unwrap(), fs::read(path(other)).unwrap());
        for (place, bytes) in [(one, &second), (other, &first)] {
            fs::remove_file(path(place)).unwrap();
            fs::write(path(place), bytes).unwrap();
        }
        patient.examine(one, &format!("swapped with {other}"));
        patient.heal();
    }
}

#[test]
fn a_listing_is_enough_to_find_what_is_missing_or_cut() {
    let patient = Patient::new();
    let volumes = patient.objects().into_iter().filter(|name| name.starts_with("data/") || name.starts_with("meta/"));
    for object in volumes {
        fs::remove_file(patient.site.repository().join(&object)).unwrap();
        let removed = patient.site.bygone(["check"]);
        assert!([13, 14].contains(&removed.code), "{object}: {removed}");
        assert!(names(&removed, &object) && said(&removed).contains("REMOTE_MISSING"), "{object}: {removed}");
        patient.heal();
        patient.damage(&object, |bytes| bytes.truncate(bytes.len() - 1));
        let cut = patient.site.bygone(["check"]);
        assert!([13, 14].contains(&cut.code), "{object}: {cut}");
        assert!(names(&cut, &object) && said(&cut).contains("REMOTE_TRUNCATED"), "{object}: {cut}");
        patient.heal();
    }
}

fn said(ran: &Ran) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.out), ran.err)
}

#[test]
fn a_store_that_forgets_is_caught() {
    let patient = Patient::new();
    let newest = patient.objects().into_iter().rfind(|name| name.starts_with("commits/")).unwrap();
    fs::remove_file(patient.site.repository().join(newest)).unwrap();
    let rolled = patient.site.bygone(["check"]).ended_with(13);
    assert!(said(&rolled).contains("REMOTE_ROLLED_BACK"), "{rolled}");
    let backup = patient.site.bygone(["backup".as_ref(), patient.tree.top().as_os_str()]);
    assert!(backup.code == 13 || backup.code == 0, "{backup}");
}

#[test]
fn damage_in_the_catalog_never_reaches_a_restore() {
    let patient = Patient::new();
    let catalogs: Vec<_> = fs::read_dir(patient.site.catalogs()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [catalog] = &catalogs[..] else { panic!("one catalog: {catalogs:?}") };
    let database = catalog.join("catalog.sqlite");
    let length = fs::metadata(&database).unwrap().len() as usize;
    for step in 0..24 {
        let mut bytes = fs::read(&database).unwrap();
        let at = (length / 24) * step + (step * 97) % (length / 24).max(1);
        bytes[at] ^= 1 << (step % 8);
        fs::write(&database, bytes).unwrap();
        let target = patient.site.at("target");
        let ran = patient.site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]);
        patient.lost(&format!("catalog byte {at}"), &ran, &target);
        drop(fs::remove_dir_all(&target));
        patient.heal();
    }
}
