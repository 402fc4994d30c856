//! Removing key slots: the object is deleted, and a commit says so.
//!
//! Storage can put an old object back, and a copy of the repository may still have it. The commit lets every client
//! tell that the slot was removed: it opens nothing any more, is never copied or put back, and raises an alarm. What no
//! program can do is take the key away from somebody who kept the old slot and knows its passphrase.

use crate::crypto::KdfCost;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::id::SlotId;
use crate::objects::slot_object;
use crate::repo::LockedRepository;
use crate::repo::Secret;
use crate::repo::SlotRow;
use crate::write::Changes;
use crate::write::commit_changes;

/// Removes a key slot, but never the last intact one. The catalog has been synced, unless it is new.
pub fn slot_remove(locked: &mut LockedRepository, id: SlotId, time: Time) -> Result<()> {
    locked.check_writable()?;
    let all = locked.repository().slots()?;
    if !all.iter().any(|slot| slot.id == id) {
        return Err(Error::NotFound { what: format!("key slot {id}"), hint: "list them with `bygone key list`" });
    }
    let removed = locked.catalog().read().slots_removed()?;
    let is_other = |slot: &SlotRow| slot.id != id && slot.info.is_some() && !removed.contains(&slot.id);
    if !all.iter().any(is_other) {
        let what = "this is the only intact key slot: without it the repository could not be opened any more".into();
        return Err(Error::Invalid { what });
    }
    // The commit comes first. Otherwise a command that dies in between would leave no trace of the removal.
    if !removed.contains(&id) {
        commit_changes(locked, time, Changes { slots_removed: vec![id], ..Changes::default() })?;
    }
    let object = slot_object(id);
    locked.repository().store().delete(&object)?;
    locked.catalog().alarm_end(object.as_str()).map(|_| ())
}

/// Changes the passphrase of the slot that opened the repository: the new slot is durable before the old one is
/// removed.
pub fn slot_replace(locked: &mut LockedRepository, secret: &Secret, time: Time, kdf: KdfCost) -> Result<SlotId> {
    locked.check_writable()?;
    let current = locked.repository().slots()?.into_iter().find(|slot| slot.is_current);
    let hint = "it has just been removed: try again with another passphrase";
    let current = current.ok_or_else(|| Error::NotFound { what: "the key slot in use".into(), hint })?;
    let label = current.info.map(|info| info.label).unwrap_or_default();
    let id = locked.repository().slot_add(secret, &label, time, kdf)?;
    slot_remove(locked, current.id, time)?;
    Ok(id)
}
