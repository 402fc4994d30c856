//! A repair puts lost objects back to the byte from any source that still has them, names what is gone for good, and
//! loses nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use bygone_tests::image::Image;
use bygone_tests::patient::Patient;
use bygone_tests::patient::damages_of;
use bygone_tests::patient::flip;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::tool;

use crate::site::programs;
use crate::site::restored;

fn repair(patient: &Patient, options: &[&str]) -> Ran {
    patient.site.bygone([&["check", "--read-data", "--repair"], options].concat())
}

/// Panics unless the two stores hold the same objects.
#[track_caller]
fn assert_same_store(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, case: &str) {
    let names = |store: &BTreeMap<String, Vec<u8>>| store.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after), "{case}");
    let differs: Vec<_> = before.iter().filter(|(name, bytes)| after[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differs.is_empty(), "{case}: {differs:?} differ");
}

#[test]
fn every_volume_is_rebuilt_to_the_byte_from_the_source() {
    let patient = Patient::new(&programs(), &[]);
    for volume in patient.objects("data/").iter().chain(&patient.objects("meta/")) {
        for (what, damage) in damages_of(volume) {
            patient.damage(volume, *damage);
            let case = format!("{volume} {what}");
            let ran = repair(&patient, &["--json"]);
            assert_eq!(ran.code, 0, "{case}: {ran}");
            assert_eq!(ran.json()["repaired"]["restored"][0]["object"], volume.as_str(), "{case}: {ran}");
            assert_same_store(&patient.sound, &patient.site.store(), &case);
        }
    }
    patient.site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn zstd_volumes_are_rebuilt_too_and_whole_folders_at_once() {
    let patient = Patient::new(&programs(), &["--compression", "zstd:3"]);
    fs::remove_dir_all(patient.site.repository().join("data")).unwrap();
    fs::remove_dir_all(patient.site.repository().join("meta")).unwrap();
    // A listing shows the loss, without --read-data.
    patient.site.bygone(["check"]).ended_with(14);
    patient.site.bygone(["check", "--repair"]).ok();
    assert_same_store(&patient.sound, &patient.site.store(), "everything was gone");
    assert_eq!(patient.restore(), [] as [String; 0]);
}

#[test]
fn lost_content_is_named_and_the_rest_of_its_volume_restored() {
    let patient = Patient::new(&programs(), &[]);
    // Some files of the lost volumes are gone or changed in the source, the others are still there.
    fs::remove_file(patient.tree.at("random/1")).unwrap();
    fs::write(patient.tree.at("text/3"), "changed").unwrap();
    fs::remove_dir_all(patient.site.repository().join("data")).unwrap();
    let ran = repair(&patient, &[]).ended_with(14);
    let printed = ran.text();
    assert!(printed.contains("stored again in new volumes") && printed.contains("not repaired: data/"), "{ran}");
    for lost in ["/random/1: ", "/text/3: "] {
        assert!(printed.contains(lost), "{lost} is named: {ran}");
    }
    assert!(printed.contains("LOST: 4 paths"), "two files, in two snapshots: {ran}");
    assert_eq!(patient.restore(), ["random/1", "text/3"], "nothing else is lost");

    // `affected` agrees, and another machine learns of the loss.
    let affected = patient.site.bygone(["affected", "--json"]).ended_with(14).json();
    assert_eq!(affected["affected_count"], 4, "{affected}");
    assert_eq!(affected["bytes"], 2 * (Patient::RANDOM_BYTES + Patient::TEXT_BYTES), "{affected}");
    let other = Site::new(&programs());
    let on_other = |arguments: &[&str]| {
        let mut command = other.bygone_command(arguments);
        command.env("BYGONE_REPO", patient.site.repository());
        other.run(command)
    };
    on_other(&["recover"]).ended_with(14);
    let target = other.at("target");
    on_other(&["restore", "latest", "--target", target.to_str().unwrap()]).ended_with(14);
    let lost = patient.truth.files_lost_in(&Image::of(&restored(&target, patient.tree.top())));
    assert_eq!(lost.len(), 2, "{lost:?}");

    // The files return to the source, and the next repair restores the rest.
    fs::write(patient.tree.at("random/1"), Patient::random(1)).unwrap();
    fs::write(patient.tree.at("text/3"), Patient::text(3)).unwrap();
    repair(&patient, &[]).ok();
    assert_eq!(patient.restore(), [] as [String; 0]);
    patient.site.bygone(["affected"]).ok();
}

#[test]
fn without_a_source_one_bit_costs_the_blocks_of_one_frame() {
    let patient = Patient::new(&programs(), &[]);
    let aside = patient.site.at("aside");
    fs::rename(patient.tree.top(), &aside).unwrap();
    let victim = patient.objects("data/").into_iter().max_by_key(|name| patient.sound[name].len()).unwrap();
    patient.damage(&victim, Some(|bytes| flip(bytes, 2)));
    let ran = repair(&patient, &["--json"]).ended_with(14).json();
    assert!(ran["repaired"]["blocks"].as_u64().unwrap() > 5, "the other blocks of it: {ran}");
    let affected = patient.site.bygone(["affected", "--json"]).ended_with(14).json();
    // A frame holds two blocks of 64 KiB and touches at most one more, in two snapshots.
    let bytes = affected["bytes"].as_u64().unwrap();
    assert!((1..=2 * 3 * 65_536).contains(&bytes), "{affected}");
    let lost = patient.restore().len();
    assert!((1..=3).contains(&lost), "{lost} files");
    assert!(patient.site.repository().join(&victim).exists(), "what cannot be replaced is not deleted");
    fs::rename(&aside, patient.tree.top()).unwrap();
    repair(&patient, &[]).ok();
}

#[test]
fn a_second_store_gives_back_every_lost_object() {
    let patient = Patient::new(&programs(), &[]);
    let copy = patient.site.at("copy");
    let copy = copy.to_str().unwrap();
    patient.site.bygone(["copy", "--to", copy]).ok();
    // Only the copy is left: no source, no catalog.
    fs::remove_dir_all(patient.tree.top()).unwrap();
    for object in patient.objects("") {
        for (what, damage) in damages_of(&object) {
            fs::remove_dir_all(patient.site.catalogs()).unwrap();
            let case = format!("{object} {what}");
            patient.damage(&object, *damage);
            let ran = repair(&patient, &["--from", copy]);
            assert_eq!(ran.code, 0, "{case}: {ran}");
            assert_same_store(&patient.sound, &patient.site.store(), &case);
        }
    }
    // Everything is lost at once, except the directory itself.
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    for entry in fs::read_dir(patient.site.repository()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    repair(&patient, &["--from", copy]).ok();
    let mut sound = patient.sound.clone();
    sound.remove("README-RECOVER.txt");
    assert_same_store(&sound, &patient.site.store(), "an empty store");
}

#[test]
fn commits_and_the_description_come_back_from_the_catalog() {
    let patient = Patient::new(&programs(), &[]);
    for object in patient.objects("commits/").into_iter().chain(["bygone.json".to_string()]) {
        for (what, damage) in damages_of(&object) {
            patient.damage(&object, *damage);
            let case = format!("{object} {what}");
            let ran = patient.site.bygone(["check", "--repair"]);
            assert_eq!(ran.code, 0, "{case}: {ran}");
            assert!(ran.text().contains(&format!("repaired: {object}")), "{case}: {ran}");
            assert_same_store(&patient.sound, &patient.site.store(), &case);
        }
    }
    // A machine without a catalog cannot put back a commit, and says so.
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    let lost = patient.objects("commits/").first().unwrap().clone();
    patient.damage(&lost, None);
    let ran = patient.site.bygone(["check", "--repair"]).ended_with(14);
    assert!(ran.text().contains(&format!("REMOTE_MISSING: {lost}")), "{ran}");
}

#[test]
fn a_description_that_nothing_has_is_made_anew() {
    let patient = Patient::new(&programs(), &[]);
    for (what, damage) in damages_of("bygone.json") {
        patient.heal();
        fs::remove_dir_all(patient.site.catalogs()).unwrap();
        patient.damage("bygone.json", *damage);
        let ran = patient.site.bygone(["check", "--repair"]).ok();
        assert!(ran.text().contains("repaired: bygone.json: made anew"), "{what}: {ran}");
        assert_eq!(patient.restore(), [] as [String; 0], "{what}");
        // Files are cut where they were cut before, so nothing is stored twice.
        let made: serde_json::Value = serde_json::from_slice(&patient.site.store()["bygone.json"]).unwrap();
        assert_eq!(made["block_bytes"], 64 << 10, "{what}");
        patient.tree.file("random/1", Patient::random(1));
        assert_eq!(patient.site.backup_new_bytes(patient.tree.top()), 0, "{what}");
    }
    // A wrong passphrase makes nothing.
    patient.heal();
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    patient.damage("bygone.json", None);
    let mut wrong = patient.site.bygone_command(["check", "--repair"]);
    wrong.env("BYGONE_PASSPHRASE", "another");
    patient.site.run(wrong).ended_with(12);
    assert!(!patient.site.store().contains_key("bygone.json"));
}

#[test]
fn a_repair_leaves_sound_objects_alone_and_makes_no_place() {
    let patient = Patient::new(&programs(), &[]);
    let ran = repair(&patient, &[]).ok();
    assert!(ran.text().contains("nothing needed repair"), "{ran}");
    assert_same_store(&patient.sound, &patient.site.store(), "nothing was damaged");
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
fn a_volume_damaged_in_both_stores_is_not_taken() {
    let patient = Patient::new(&programs(), &[]);
    let copy = patient.site.at("copy");
    patient.site.bygone(["copy", "--to", copy.to_str().unwrap()]).ok();
    fs::remove_dir_all(patient.tree.top()).unwrap();
    let victim = patient.objects("data/").remove(0);
    for store in [patient.site.repository(), copy.clone()] {
        let path = store.join(&victim);
        let mut bytes = fs::read(&path).unwrap();
        flip(&mut bytes, 2);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let ran = repair(&patient, &["--from", copy.to_str().unwrap()]).ended_with(14);
    assert!(ran.text().contains("not repaired"), "damage in both is damage: {ran}");
}

#[test]
fn affected_names_what_a_volume_costs_before_it_is_lost() {
    let patient = Patient::new(&programs(), &[]);
    let mut all = 0;
    for volume in patient.objects("data/") {
        let name = volume.rsplit('/').next().unwrap();
        let outcome = patient.site.bygone(["affected", &name[..12], "--json"]).ok().json();
        assert_eq!(outcome["volume"], volume.as_str());
        all += outcome["bytes"].as_u64().unwrap();
    }
    let content = 3 * Patient::RANDOM_BYTES + 20 * Patient::TEXT_BYTES;
    assert_eq!(all, (2 * content + Patient::SECOND_BYTES) as u64, "each byte of each snapshot lies in one volume");
    let text = patient.site.bygone(["affected", &patient.objects("meta/")[0]]).ok();
    assert!(text.text().contains("tree node"), "{text}");
    patient.site.bygone(["affected", "xyz"]).ended_with(2);
    patient.site.bygone(["affected", "0123456789abcdef"]).ended_with(1).complains_of(&["0123456789abcdef"]);
    patient.site.bygone(["affected"]).ok();
}

#[test]
fn a_catalog_made_from_a_damaged_store_is_healed_with_it() {
    let patient = Patient::new(&programs(), &[]);
    let copy = patient.site.at("copy");
    tool(Command::new("cp").arg("-a").arg(patient.site.repository()).arg(&copy));
    let dump = |site: &Site| site.bygone(["catalog-dump"]).ok().text().to_string();
    let before = dump(&patient.site);
    for folder in ["data/", "meta/"] {
        patient.damage(&patient.objects(folder)[0], Some(Vec::clear));
    }
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    patient.site.bygone(["recover"]).ended_with(14);
    patient.site.bygone(["check", "--repair", "--from", copy.to_str().unwrap()]).ok();
    assert_eq!(dump(&patient.site), before, "the catalog is as if nothing had happened");
    // Objects put back by hand heal it too.
    patient.damage(&patient.objects("data/")[0], None);
    fs::remove_dir_all(patient.site.catalogs()).unwrap();
    patient.site.bygone(["recover"]).ended_with(14);
    let victim = &patient.objects("data/")[0];
    fs::write(patient.site.repository().join(victim), &patient.sound[victim]).unwrap();
    patient.site.bygone(["recover"]).ok();
    assert_eq!(dump(&patient.site), before);
}

#[test]
fn what_a_newer_bygone_wrote_is_not_repaired() {
    let patient = Patient::new(&programs(), &[]);
    let path = patient.site.repository().join("bygone.json");
    let newer = fs::read_to_string(&path).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
    fs::write(&path, &newer).unwrap();
    for command in [&["snapshots"][..], &["check", "--repair"]] {
        patient.site.bygone(command).ended_with(1).complains_of(&["bygone.json", "newer"]);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
