//! Settling what an interrupted backup left: volumes that were intended and may or may not have been stored.
//!
//! A store shows an object whole or not at all, and a volume's name is the hash of its bytes. So a volume that is
//! listed with the right size is stored, and its blocks are used. Otherwise the intent is forgotten, and invisible
//! remains of the upload are cleared from the store. No object is deleted.

use std::collections::HashMap;

use crate::error::Result;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::repo::LockedRepository;

/// Settles all intended volumes, with a LIST if there are any. Returns how many were found to be stored.
pub fn settle(locked: &mut LockedRepository) -> Result<u64> {
    let mut listed = HashMap::new();
    if !locked.catalog().read().volumes_intended()?.is_empty() {
        for kind in VolumeKind::ALL {
            let objects = locked.repository().store().list(kind.folder())?;
            listed.extend(objects.into_iter().map(|object| (object.name.clone(), object)));
        }
    }
    settle_listed(locked, |kind, name| {
        listed.get(&volume_object(kind, name)).map(|object| (object.bytes, object.etag.clone()))
    })
}

/// As [`settle`], with an earlier list: `listed` returns the size and the mark of a listed volume.
pub fn settle_listed(
    locked: &mut LockedRepository,
    listed: impl Fn(VolumeKind, VolumeName) -> Option<(u64, Option<String>)>,
) -> Result<u64> {
    let (mut found, mut gone) = (0, Vec::new());
    for volume in locked.catalog().read().volumes_intended()? {
        match listed(volume.kind, volume.name) {
            Some((bytes, etag)) if bytes == volume.bytes => {
                locked.catalog().volume_stored(volume.id, etag.as_deref())?;
                found += 1;
            }
            _ => gone.push((volume.id, volume_object(volume.kind, volume.name))),
        }
    }
    let (rows, names): (Vec<_>, Vec<_>) = gone.into_iter().unzip();
    if !names.is_empty() {
        // Done before they are forgotten, because afterwards nobody would know what to clear.
        locked.repository().store().clear(&names)?;
    }
    rows.into_iter().try_for_each(|row| locked.catalog().volume_void(row))?;
    Ok(found)
}
