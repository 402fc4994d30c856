//! Every object of a small repository is damaged in every way. Each damage is found and named, only the content of the
//! damaged place is lost, and no program panics (the harness checks that in every run).

use std::fs;

use bygone_tests::patient::Patient;
use bygone_tests::patient::damages_of;
use bygone_tests::program::Ran;

use crate::site::programs;

/// Exit codes that may report damage: 10 if it hides the repository, 12 if it hides the key.
const ENDINGS: &[i32] = &[10, 12, 13, 14];

/// True if `ran` names `object`, by its path or by its hash. Without the description or a key slot the repository
/// cannot be opened at all, so no object can be named.
fn names(ran: &Ran, object: &str) -> bool {
    let printed = whole_output(ran);
    let last = object.rsplit('/').next().unwrap();
    let cannot_look = [10, 12].contains(&ran.code) || printed.contains("no intact key slot");
    printed.contains(object) || (last.len() == 64 && printed.contains(last)) || cannot_look
}

/// Panics unless the damage to `object` is found and named, and a restore brings back everything else.
fn examine(patient: &Patient, object: &str, what: &str) {
    let case = format!("{object}, {what}");
    let checked = patient.site.bygone(["check", "--read-data"]);
    assert!(ENDINGS.contains(&checked.code), "{case}: check --read-data does not find it: {checked}");
    assert!(names(&checked, object), "{case}: check does not name the object: {checked}");
    let target = patient.site.at("target");
    let ran = patient.site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]);
    let Some(lost) = patient.lost(&ran, &target) else { return };
    for file in &lost {
        assert!(ran.err.contains(&file.display().to_string()), "{case}: {file:?} is lost and not named: {ran}");
    }
    // The texts lie in one volume, each of the large files in one or two.
    let most = if what.starts_with("swapped") { 24 } else { 22 };
    assert!(!object.starts_with("data/") || lost.len() <= most, "{case}: {} files are lost", lost.len());
    drop(fs::remove_dir_all(&target));
}

#[test]
fn every_damage_to_every_object_is_found_and_named() {
    let patient = Patient::new(&programs(), &[]);
    patient.site.bygone(["check", "--read-data"]).ok();
    let objects = patient.objects("");
    assert!(patient.objects("data/").len() >= 3, "several volumes: {objects:?}");
    for object in &objects {
        for (what, damage) in damages_of(object) {
            patient.damage(object, *damage);
            examine(&patient, object, what);
            patient.heal();
        }
    }
    patient.site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn objects_in_each_others_places_are_found() {
    let patient = Patient::new(&programs(), &[]);
    let objects = patient.objects("");
    for (one, other) in objects.iter().zip(&objects[1..]) {
        patient.site.replace(one, &patient.sound[other]);
        patient.site.replace(other, &patient.sound[one]);
        examine(&patient, one, &format!("swapped with {other}"));
        patient.heal();
    }
}

#[test]
fn a_listing_finds_missing_and_truncated_volumes() {
    let patient = Patient::new(&programs(), &[]);
    for object in patient.objects("data/").into_iter().chain(patient.objects("meta/")) {
        patient.damage(&object, None);
        let removed = patient.site.bygone(["check"]);
        assert!([13, 14].contains(&removed.code), "{object}: {removed}");
        assert!(names(&removed, &object) && whole_output(&removed).contains("REMOTE_MISSING"), "{object}: {removed}");
        patient.heal();
        patient.damage(&object, Some(|bytes| bytes.truncate(bytes.len() - 1)));
        let cut = patient.site.bygone(["check"]);
        assert!([13, 14].contains(&cut.code), "{object}: {cut}");
        assert!(names(&cut, &object) && whole_output(&cut).contains("REMOTE_TRUNCATED"), "{object}: {cut}");
        patient.heal();
    }
}

fn whole_output(ran: &Ran) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.out), ran.err)
}

#[test]
fn a_store_that_loses_its_newest_commit_is_caught() {
    let patient = Patient::new(&programs(), &[]);
    let newest = patient.objects("commits/").pop().unwrap();
    patient.damage(&newest, None);
    let rolled = patient.site.bygone(["check"]).ended_with(13);
    assert!(whole_output(&rolled).contains("REMOTE_ROLLED_BACK"), "{rolled}");
    let backup = patient.site.bygone(["backup".as_ref(), patient.tree.top().as_os_str()]);
    assert!(backup.code == 13 || backup.code == 0, "{backup}");
}

#[test]
fn damage_in_the_catalog_never_reaches_a_restore() {
    let patient = Patient::new(&programs(), &[]);
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
        eprintln!("a bit of byte {at} of the catalog");
        patient.lost(&ran, &target);
        drop(fs::remove_dir_all(&target));
        patient.heal();
    }
}

#[test]
fn a_damaged_end_of_every_volume_costs_nothing() {
    let patient = Patient::new(&programs(), &[]);
    let spoil: &[fn(&mut Vec<u8>)] = &[
        |bytes| bytes.iter_mut().rev().take(4 << 10).for_each(|byte| *byte ^= 0x5a),
        |bytes| bytes.iter_mut().rev().skip(130).take(4 << 10).for_each(|byte| *byte ^= 0x5a),
        |bytes| bytes.iter_mut().take(48).for_each(|byte| *byte = 0),
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        for object in patient.objects("data/").into_iter().chain(patient.objects("meta/")) {
            patient.damage(&object, Some(*spoil));
        }
        fs::remove_dir_all(patient.site.catalogs()).unwrap();
        patient.site.bygone(["recover"]).ok();
        assert_eq!(patient.restore(), Vec::<String>::new(), "spoilt in way {number}");
        patient.heal();
    }
}
