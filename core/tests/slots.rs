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
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::write::slot_remove;

fn other() -> Secret {
    Secret::new(b"another passphrase".to_vec())
}

#[test]
fn the_last_slot_that_is_whole_is_never_removed() {
    let store = Arc::new(MemoryStore::new());
    let (_dir, place) = place(store.clone());
    init(&place);
    let mut locked = common::open(&place);
    let first = locked.repository().slots().unwrap().remove(0).id;
    let second = locked.repository().slot_add(&other(), "second", Time::default(), KdfCost::for_tests()).unwrap();
    let object = store.objects().into_keys().find(|name| name.as_str() == format!("keys/{second}")).unwrap();
    let sound = store.objects()[&object].to_vec();
    let mut bytes = sound.clone();
    let at = bytes.len() - 40;
    bytes[at] ^= 3;
    store.tamper(&object, Some(bytes));
    assert!(
        locked.repository().slots().unwrap().iter().any(|slot| slot.id == second && slot.info.is_none()),
        "it is damaged"
    );
    let remove = |locked: &mut LockedRepository, id| slot_remove(locked, id, Time::default());
    assert!(matches!(remove(&mut locked, first), Err(Error::Invalid { .. })));
    store.tamper(&object, Some(sound));
    remove(&mut locked, first).unwrap();
    assert!(matches!(remove(&mut locked, second), Err(Error::Invalid { .. })));
    drop(locked);
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
