//! Key slots that were removed: what holds even if the storage puts one back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;

use crate::site::new_site;

/// Runs a command with one of the passphrases; a new one is always `second`.
fn with(site: &Site, passphrase: &str, arguments: &[&str]) -> Ran {
    let mut command = site.bygone_command(arguments);
    command.env("BYGONE_PASSPHRASE", passphrase).env("BYGONE_NEW_PASSPHRASE", "second");
    site.run(command)
}

/// The object of the slot that `passphrase` opens.
fn slot_of(site: &Site, passphrase: &str) -> PathBuf {
    let slots = with(site, passphrase, &["key", "list", "--json"]).ok().json()["slots"].clone();
    let own = slots.as_array().unwrap().iter().find(|slot| slot["current"] == true).unwrap();
    site.repository().join("keys").join(own["id"].as_str().unwrap())
}

#[test]
fn a_removed_key_slot_that_is_put_back_opens_nothing() {
    for is_changed in [false, true] {
        let site = new_site();
        let tree = Tree::new(&site.at("source"));
        tree.file("file", "content");
        site.backup(tree.top());
        let to = site.at("copy");
        let to = to.to_str().unwrap();
        site.bygone(["copy", "--to", to]).ok();
        let slot = slot_of(&site, PASSPHRASE);
        let old = fs::read(&slot).unwrap();
        let id = slot.file_name().unwrap().to_str().unwrap();
        if is_changed {
            let said = with(&site, PASSPHRASE, &["key", "passwd", "--kdf-memory", "8MiB"]).ok();
            assert!(said.text().contains("a copy of the old slot"), "{said}");
        } else {
            with(&site, PASSPHRASE, &["key", "add", "--kdf-memory", "8MiB"]).ok();
            let said = with(&site, "second", &["key", "remove", id]).ok();
            assert!(said.text().contains("a copy of the old slot"), "{said}");
        }
        assert!(!slot.exists());
        // A repair does not take it from a copy.
        let repaired = with(&site, "second", &["check", "--repair", "--from", to]).ok();
        assert!(repaired.text().contains("it was removed") && !slot.exists(), "{repaired}");
        fs::write(&slot, &old).unwrap();
        fs::set_permissions(&slot, fs::Permissions::from_mode(0o400)).unwrap();
        with(&site, PASSPHRASE, &["snapshots"]).ended_with(12);
        let top = tree.top().to_str().unwrap();
        with(&site, "second", &["backup", top]).ended_with(13).complains_of(&["REMOTE_KEY_BACK", id, "key remove"]);
        with(&site, "second", &["accept-loss", "--yes"]).ended_with(13);
        with(&site, "second", &["check"]).ended_with(13);
        // A new copy does without it, and a machine without a catalog learns of it.
        let other = site.at("other");
        let copied = with(&site, "second", &["copy", "--to", other.to_str().unwrap()]).ended_with(14);
        copied.complains_of(&["was removed", id]);
        assert_eq!(fs::read_dir(other.join("keys")).unwrap().count(), 1);
        fs::remove_dir_all(site.catalogs()).unwrap();
        with(&site, PASSPHRASE, &["recover"]).ok();
        with(&site, PASSPHRASE, &["snapshots"]).ended_with(12);
        with(&site, "second", &["key", "remove", id]).ok();
        assert!(!slot.exists());
        with(&site, "second", &["backup", top]).ok();
        with(&site, "second", &["check"]).ok();
    }
}
