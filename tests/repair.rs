//! What a store has lost is put back, to the byte, from wherever it can still be had; what cannot is named, and nothing
//! else is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use bygone_tests::image::Image;
use bygone_tests::program::{Ran, Site};
use bygone_tests::tool;
use bygone_tests::tree::{Tree, prose, random};

use crate::site::{objects, programs, restored};

/// One way to damage an object; `None` removes it.
type Damage = (&'static str, Option<fn(&mut Vec<u8>)>);

const DAMAGES: &[Damage] = &[
    ("removed", None),
    ("cut in half", Some(|bytes| bytes.truncate(bytes.len() / 2))),
    ("one byte short", Some(|bytes| bytes.truncate(bytes.len() - 1))),
    ("empty", Some(Vec::clear)),
    ("longer", Some(|bytes| bytes.push(0))),
    ("a bit of its first byte", Some(|bytes| bytes[0] ^= 1)),
    ("a bit at a quarter", Some(|bytes| flip(bytes, 4))),
    ("a bit of its last byte", Some(|bytes| *bytes.last_mut().unwrap() ^= 1)),
    ("all zeros", Some(|bytes| bytes.fill(0))),
];

fn flip(bytes: &mut [u8], part: usize) {
    let at = bytes.len() / part;
    bytes[at] ^= 0x10;
}

/// A repository of several volumes and two snapshots, and what lay in its store.
struct Patient {
    site: Site,
    tree: Tree,
    sound: BTreeMap<String, Vec<u8>>,
}

impl Patient {
    fn new(options: &[&str]) -> Patient {
        let small = ["--volume-size", "1MiB", "--block-size", "64KiB"];
        let site = Site::with_repository(&programs(), &[&small, options].concat());
        let tree = Tree::new(&site.at("source"));
        (0..3).for_each(|n| drop(tree.file(format!("random/{n}"), random(n, 600_000))));
        (0..20).for_each(|n| drop(tree.file(format!("text/{n}"), prose(n * 1_000, 5_000))));
        site.backup(tree.top());
        tree.file("second", random(77, 300_000));
        site.backup(tree.top());
        let mut patient = Patient { site, tree, sound: BTreeMap::new() };
        patient.sound = patient.store();
        patient
    }

    /// Everything in the store.
    fn store(&self) -> BTreeMap<String, Vec<u8>> {
        let names = objects(&self.site, "").into_keys();
        names.map(|name| (name.clone(), fs::read(self.site.repository().join(name)).unwrap())).collect()
    }

    fn volumes(&self, folder: &str) -> Vec<String> {
        self.sound.keys().filter(|name| name.starts_with(folder)).cloned().collect()
    }

    fn damage(&self, object: &str, damage: Option<fn(&mut Vec<u8>)>) {
        let path = self.site.repository().join(object);
        let mut bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        if let Some(damage) = damage {
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }

    fn repair(&self, options: &[&str]) -> Ran {
        self.site.bygone([&["check", "--read-data", "--repair"], options].concat())
    }

    /// The files that a restore of the newest snapshot does not bring back, against `truth`.
    fn lost(&self, truth: &Image) -> Vec<String> {
        let target = self.site.at("target");
        let ran = self.site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]);
        let lost = truth.files_lost_in(&Image::of(&restored(&target, self.tree.top())));
        fs::remove_dir_all(target).unwrap();
        assert!(lost.is_empty() == (ran.code == 0), "{ran}");
        lost.iter().map(|path| path.display().to_string()).collect()
    }
}

/// Panics unless the two stores hold the same.
#[track_caller]
fn assert_same_store(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, case: &str) {
    let names = |store: &BTreeMap<String, Vec<u8>>| store.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after), "{case}");
    let differs: Vec<_> = before.iter().filter(|(name, bytes)| after[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differs.is_empty(), "{case}: {differs:?} differ");
}

#[test]
fn every_volume_is_made_again_to_the_byte_from_the_source_and_the_catalog() {
    let patient = Patient::new(&[]);
    for volume in patient.volumes("data/").iter().chain(&patient.volumes("meta/")) {
        for (what, damage) in DAMAGES {
            patient.damage(volume, *damage);
            let case = format!("{volume} {what}");
            let ran = patient.repair(&["--json"]);
            assert_eq!(ran.code, 0, "{case}: {ran}");
            assert_eq!(ran.json()["repaired"]["restored"][0]["object"], volume.as_str(), "{case}: {ran}");
            assert_same_store(&patient.sound, &patient.store(), &case);
        }
    }
    patient.site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn zstd_volumes_are_made_again_too_and_a_whole_folder_at_once() {
    let patient = Patient::new(&["--compression", "zstd:3"]);
    fs::remove_dir_all(patient.site.repository().join("data")).unwrap();
    fs::remove_dir_all(patient.site.repository().join("meta")).unwrap();
    // What LIST shows needs no reading of data.
    patient.site.bygone(["check"]).ended_with(14);
    patient.site.bygone(["check", "--repair"]).ok();
    assert_same_store(&patient.sound, &patient.store(), "everything was gone");
    assert_eq!(patient.lost(&Image::of(patient.tree.top())), [] as [String; 0]);
}

#[test]
fn what_cannot_be_had_is_named_and_the_rest_of_the_volume_is_stored_again() {
    let patient = Patient::new(&[]);
    let truth = Image::of(patient.tree.top());
    // The files that only this volume holds are gone or changed, all others of it are still there.
    fs::remove_file(patient.tree.at("random/1")).unwrap();
    fs::write(patient.tree.at("text/3"), "changed").unwrap();
    fs::remove_dir_all(patient.site.repository().join("data")).unwrap();
    let ran = patient.repair(&[]).ended_with(14);
    let said = ran.text();
    assert!(said.contains("stored again in new volumes") && said.contains("not repaired: data/"), "{ran}");
    for lost in ["/random/1: ", "/text/3: "] {
        assert!(said.contains(lost), "{lost} is named: {ran}");
    }
    assert!(said.contains("LOST: 4 paths"), "two files, in two snapshots: {ran}");
    assert_eq!(patient.lost(&truth), ["random/1", "text/3"], "nothing else is lost");

    // So says the command that is made for it, and so hears another machine.
    let affected = patient.site.bygone(["affected", "--json"]).ended_with(14).json();
    assert_eq!(affected["affected_count"], 4, "{affected}");
    assert_eq!(affected["bytes"], 2 * (600_000 + 5_000), "{affected}");
    let other = Site::new(&programs());
    let on_other = |arguments: &[&str]| {
        let mut command = other.bygone_command(arguments);
        command.env("BYGONE_REPO", patient.site.repository());
        other.run(command)
    };
    on_other(&["recover"]).ended_with(14);
    let target = other.at("target");
    on_other(&["restore", "latest", "--target", target.to_str().unwrap()]).ended_with(14);
    let lost = truth.files_lost_in(&Image::of(&restored(&target, patient.tree.top())));
    assert_eq!(lost.len(), 2, "{lost:?}");

    // The files come back from elsewhere, and the next repair heals what was left.
    fs::write(patient.tree.at("random/1"), random(1, 600_000)).unwrap();
    fs::write(patient.tree.at("text/3"), prose(3_000, 5_000)).unwrap();
    patient.repair(&[]).ok();
    assert_eq!(patient.lost(&truth), [] as [String; 0]);
    patient.site.bygone(["affected"]).ok();
}

#[test]
fn one_flipped_bit_without_any_source_costs_the_blocks_of_one_frame() {
    let patient = Patient::new(&[]);
    let truth = Image::of(patient.tree.top());
    let aside = patient.site.at("aside");
    fs::rename(patient.tree.top(), &aside).unwrap();
    let victim = patient.volumes("data/").into_iter().max_by_key(|name| patient.sound[name].len()).unwrap();
    patient.damage(&victim, Some(|bytes| flip(bytes, 2)));
    let ran = patient.repair(&["--json"]).ended_with(14).json();
    assert!(ran["repaired"]["blocks"].as_u64().unwrap() > 5, "the other blocks of it: {ran}");
    let affected = patient.site.bygone(["affected", "--json"]).ended_with(14).json();
    // A frame holds two blocks of 64 KiB and touches at most one more, in two snapshots.
    let bytes = affected["bytes"].as_u64().unwrap();
    assert!((1..=2 * 3 * 65_536).contains(&bytes), "{affected}");
    let lost = patient.lost(&truth).len();
    assert!((1..=3).contains(&lost), "{lost} files");
    assert!(patient.site.repository().join(&victim).exists(), "what cannot be replaced is not deleted");
    fs::rename(&aside, patient.tree.top()).unwrap();
    patient.repair(&[]).ok();
}

#[test]
fn a_second_store_gives_back_every_object_that_the_first_has_lost() {
    let patient = Patient::new(&[]);
    let copy = patient.site.at("copy");
    let copy = copy.to_str().unwrap();
    patient.site.bygone(["copy", "--to", copy]).ok();
    // No source, no catalog: all there is is the copy.
    fs::remove_dir_all(patient.tree.top()).unwrap();
    let aside = patient.site.at("catalogs-aside");
    for object in patient.sound.keys().filter(|name| *name != "README-RECOVER.txt") {
        // The last byte of the description is a line end, which means nothing in JSON.
        for (what, damage) in DAMAGES.iter().filter(|(what, _)| !(object == "bygone.json" && *what == "one byte short"))
        {
            fs::remove_dir_all(patient.site.catalogs()).unwrap();
            let case = format!("{object} {what}");
            patient.damage(object, *damage);
            let ran = patient.repair(&["--from", copy]);
            assert_eq!(ran.code, 0, "{case}: {ran}");
            assert_same_store(&patient.sound, &patient.store(), &case);
        }
    }
    drop(fs::remove_dir_all(aside));
    // Everything at once, but for the directory itself.
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    for entry in fs::read_dir(patient.site.repository()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    patient.repair(&["--from", copy]).ok();
    let mut sound = patient.sound.clone();
    sound.remove("README-RECOVER.txt");
    assert_same_store(&sound, &patient.store(), "an empty store");
}

#[test]
fn commits_and_the_description_come_back_from_the_catalog() {
    let patient = Patient::new(&[]);
    for object in patient.volumes("commits/").into_iter().chain(["bygone.json".to_string()]) {
        for (what, damage) in DAMAGES.iter().filter(|(what, _)| !(object == "bygone.json" && *what == "one byte short"))
        {
            patient.damage(&object, *damage);
            let case = format!("{object} {what}");
            let ran = patient.site.bygone(["check", "--repair"]);
            assert_eq!(ran.code, 0, "{case}: {ran}");
            assert!(ran.text().contains(&format!("repaired: {object}")), "{case}: {ran}");
            assert_same_store(&patient.sound, &patient.store(), &case);
        }
    }
    // A machine without a catalog cannot, and says so.
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    patient.damage("bygone.json", None);
    patient.site.bygone(["check", "--repair"]).ended_with(14).complains_of(&["bygone.json", "--from"]);
}

#[test]
fn nothing_is_touched_that_is_sound_and_no_place_is_made() {
    let patient = Patient::new(&[]);
    let ran = patient.repair(&[]).ok();
    assert!(ran.text().contains("nothing was to be repaired"), "{ran}");
    assert_same_store(&patient.sound, &patient.store(), "nothing was damaged");
    let absent = patient.site.at("absent");
    patient.site.bygone(["-r", absent.to_str().unwrap(), "check", "--repair"]).ended_with(10);
    assert!(!absent.exists());
    patient.site.bygone(["check", "--from", absent.to_str().unwrap()]).ended_with(2);
    patient.site.bygone(["check", "--repair", "--from", absent.to_str().unwrap()]).ended_with(10);
    let mut wrong = patient.site.bygone_command(["check", "--repair"]);
    wrong.env("BYGONE_PASSPHRASE", "wrong");
    patient.site.run(wrong).ended_with(12);
}

#[test]
fn a_volume_that_another_repository_has_under_this_name_is_not_taken() {
    let patient = Patient::new(&[]);
    let copy = patient.site.at("copy");
    patient.site.bygone(["copy", "--to", copy.to_str().unwrap()]).ok();
    fs::remove_dir_all(patient.tree.top()).unwrap();
    let victim = patient.volumes("data/").remove(0);
    for store in [patient.site.repository(), copy.clone()] {
        let path = store.join(&victim);
        let mut bytes = fs::read(&path).unwrap();
        flip(&mut bytes, 2);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let ran = patient.repair(&["--from", copy.to_str().unwrap()]).ended_with(14);
    assert!(ran.text().contains("not repaired"), "damage in both is damage: {ran}");
}

#[test]
fn affected_names_what_a_volume_costs_before_it_is_lost() {
    let patient = Patient::new(&[]);
    let mut all = 0;
    for volume in patient.volumes("data/") {
        let name = volume.rsplit('/').next().unwrap();
        let told = patient.site.bygone(["affected", &name[..12], "--json"]).ok().json();
        assert_eq!(told["volume"], volume.as_str());
        all += told["bytes"].as_u64().unwrap();
    }
    let content = 3 * 600_000 + 20 * 5_000;
    assert_eq!(all, 2 * content + 300_000, "each byte of each snapshot lies in one volume");
    let text = patient.site.bygone(["affected", &patient.volumes("meta/")[0]]).ok();
    assert!(text.text().contains("tree node"), "{text}");
    patient.site.bygone(["affected", "xyz"]).ended_with(2);
    patient.site.bygone(["affected", "0123456789abcdef"]).ended_with(1).complains_of(&["0123456789abcdef"]);
    patient.site.bygone(["affected"]).ok();
}

#[test]
fn a_catalog_made_from_a_damaged_store_is_healed_with_it() {
    let patient = Patient::new(&[]);
    let copy = patient.site.at("copy");
    tool(Command::new("cp").arg("-a").arg(patient.site.repository()).arg(&copy));
    let dump = |site: &Site| site.bygone(["catalog-dump"]).ok().text().to_string();
    let before = dump(&patient.site);
    for folder in ["data/", "meta/"] {
        patient.damage(&patient.volumes(folder)[0], Some(Vec::clear));
    }
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    patient.site.bygone(["recover"]).ended_with(14);
    patient.site.bygone(["check", "--repair", "--from", copy.to_str().unwrap()]).ok();
    assert_eq!(dump(&patient.site), before, "the catalog is as if nothing had happened");
    // Also if somebody has put the objects back by hand.
    patient.damage(&patient.volumes("data/")[0], None);
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    patient.site.bygone(["recover"]).ended_with(14);
    put_back(&copy, &patient.site.repository(), &patient.volumes("data/")[0]);
    patient.site.bygone(["recover"]).ok();
    assert_eq!(dump(&patient.site), before);
}

fn put_back(from: &Path, to: &Path, object: &str) {
    fs::copy(from.join(object), to.join(object)).unwrap();
}

#[test]
fn what_a_newer_bygone_wrote_is_not_repaired() {
    let patient = Patient::new(&[]);
    let path = patient.site.repository().join("bygone.json");
    let newer = fs::read_to_string(&path).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
    fs::write(&path, &newer).unwrap();
    for command in [&["snapshots"][..], &["check", "--repair"]] {
        patient.site.bygone(command).ended_with(1).complains_of(&["bygone.json", "newer"]);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
