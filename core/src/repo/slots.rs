//! The key slots of a store, found without a key.

use std::sync::Arc;

use crate::crypto::Slot;
use crate::crypto::slot::SLOT_BYTES;
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::id::RepositoryId;
use crate::limits;
use crate::objects::CONFIG_NAME;
use crate::objects::KEYS;
use crate::objects::ObjectKind;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::Store;

/// Objects that may be key slots, judging by their length.
pub(crate) fn slot_objects(store: &dyn Store) -> Result<Vec<Listed>> {
    let mut listed = store.list(KEYS)?;
    listed.retain(|object| object.bytes == SLOT_BYTES as u64);
    Ok(listed)
}

/// Every slot of this repository that lies under its own name. Damaged and unreadable ones are skipped, because any
/// intact slot is enough.
pub(super) fn slots(store: &Arc<dyn Store>, repository: RepositoryId) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    let mut others = None;
    let mut trouble = None;
    for object in slot_objects(&**store)?.iter().take(limits::SLOTS_MAX) {
        match store.get(&object.name, ByteRange::Whole { bytes_max: SLOT_BYTES as u64 }) {
            Ok(bytes) => match Slot::parse(&bytes) {
                Ok(slot) if object.name.kind() != Some(ObjectKind::Slot(slot.id())) => {}
                Ok(slot) if slot.repository() != repository => others = Some(slot.repository()),
                Ok(slot) => slots.push(slot),
                Err(_) => {}
            },
            Err(error) => trouble = Some(error),
        }
    }
    match (slots.is_empty(), trouble, others) {
        (false, _, _) => Ok(slots),
        (true, Some(error), _) => Err(error),
        (true, None, Some(other)) => {
            let detail = format!(
                "it describes repository {repository}, but the key slots beside it belong to repository {other}: \
                 the store is a mixture of two; restore the objects that belong here"
            );
            Err(Error::disagree(Diagnosis::WrongRepo, CONFIG_NAME, detail))
        }
        (true, None, None) => Err(Error::corrupt(KEYS, "the store has no intact key slot of this repository")),
    }
}
