//! Key slots that were removed and are in the store again.
//!
//! They open nothing here, but other programs may use them. What a new commit says is not held against the list of this
//! look: the machine that removed a slot commits first and deletes the object then.

use crate::catalog::Alarm;
use crate::catalog::Subject;
use crate::diagnosis::Diagnosis;
use crate::error::Result;
use crate::objects::slot_object;
use crate::repo::LockedRepository;
use crate::store::ByteRange;
use crate::survey::Finding;
use crate::survey::Listing;
use crate::survey::News;

/// Raises alarms about removed slots that are there, and ends those about slots that are gone again.
pub(super) fn compare_slots(locked: &mut LockedRepository, listing: &Listing, news: &mut News) -> Result<()> {
    let alarms = locked.catalog().read().alarms()?;
    for slot in locked.catalog().read().slots_removed()? {
        let object = slot_object(slot);
        let is_known = alarms.iter().any(|(alarm, _)| alarm.object == object.as_str());
        let is_listed = listing.slots().contains(&slot);
        if is_known && !is_listed && locked.catalog().alarm_end(object.as_str())? {
            news.ended.push(object.to_string());
        }
        if is_known || !is_listed {
            continue;
        }
        // A list may show for a while what is deleted already.
        match locked.repository().store().get(&object, ByteRange::Part { offset: 0, bytes: 1 }) {
            Err(error) if error.is_absent() => continue,
            Err(error) if !error.is_short() => return Err(error),
            _ => {}
        }
        let alarm = Alarm {
            diagnosis: Diagnosis::RemoteKeyBack,
            object: object.to_string(),
            detail: BACK.to_owned(),
            subject: Subject::Slot(slot),
            shown: None,
        };
        if locked.catalog().alarm_raise(&alarm)? {
            news.raised.push(Finding::of(&alarm));
        }
    }
    Ok(())
}

const BACK: &str = "this key slot was removed, and is in the store again";
