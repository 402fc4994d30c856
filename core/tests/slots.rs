//! Key slots: removing one never locks the repository, and an added one is always found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::init;
use common::place;
use common::secret;

use bygone_core::crypto::KdfCost;
use bygone_core::entry::Time;
use bygone_core::error::Error;
use bygone_core::limits;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::testing::memory::MemoryStore;

fn other() -> Secret {
    Secret::new(b"another passphrase".to_vec())
}

#[test]
fn the_last_slot_that_is_whole_is_never_removed() {
    let store = Arc::new(MemoryStore::new());
    let (_dir, place) = place(store.clone());
    init(&place);
    let repository = Repository::open(&place, &secret()).unwrap();
    let first = repository.slots().unwrap().remove(0).id;
    let second = repository.slot_add(&other(), "second", Time::default(), KdfCost::for_tests()).unwrap();
    let object = store.objects().into_keys().find(|name| name.as_str() == format!("keys/{second}")).unwrap();
    let sound = store.objects()[&object].to_vec();
    let mut bytes = sound.clone();
    let at = bytes.len() - 40;
    bytes[at] ^= 3;
    store.tamper(&object, Some(bytes));
    assert!(repository.slots().unwrap().iter().any(|slot| slot.id == second && slot.info.is_none()), "it is damaged");
    assert!(matches!(repository.slot_remove(first), Err(Error::Invalid { .. })));
    store.tamper(&object, Some(sound));
    repository.slot_remove(first).unwrap();
    assert!(matches!(repository.slot_remove(second), Err(Error::Invalid { .. })));
    Repository::open(&place, &other()).unwrap();
}

#[test]
fn no_slot_is_added_that_nobody_would_find() {
    let (_dir, place) = place(Arc::new(MemoryStore::new()));
    init(&place);
    let repository = Repository::open(&place, &secret()).unwrap();
    let add = || repository.slot_add(&other(), "more", Time::default(), KdfCost::for_tests());
    for _ in 1..limits::SLOTS_MAX {
        add().unwrap();
    }
    assert!(matches!(add(), Err(Error::Limit { .. })));
    assert_eq!(repository.slots().unwrap().len(), limits::SLOTS_MAX);
}
