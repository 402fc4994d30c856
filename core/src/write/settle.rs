//! Settling what an interrupted backup left: volumes that were intended and of which it is not known whether they came
//! to be stored.
//!
//! A store shows an object whole or not at all, and its name is the hash of its bytes: so if it is listed with the right
//! size it is stored, and its blocks are used; if not, the intent is forgotten. Nothing is deleted from the store.

use crate::error::Result;
use crate::frame::volume_object;
use crate::repo::LockedRepository;

/// Settles all intended volumes. Answers how many were found to be stored.
pub fn settle(locked: &mut LockedRepository) -> Result<u64> {
    let (repository, catalog) = locked.parts();
    let mut found = 0;
    for volume in catalog.read().volumes_intended()? {
        let name = volume_object(volume.kind, volume.name);
        let folder: String = name.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        let listed = repository.store().list(&folder)?;
        match listed.iter().find(|object| object.name.as_str() == name && object.bytes == volume.bytes) {
            Some(object) => {
                catalog.volume_stored(volume.id, object.etag.as_deref())?;
                found += 1;
            }
            None => catalog.volume_void(volume.id)?,
        }
    }
    Ok(found)
}
