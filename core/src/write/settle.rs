//! Settling what an interrupted backup left: volumes that were intended and of which it is not known whether they came
//! to be stored.
//!
//! A store shows an object whole or not at all, and its name is the hash of its bytes: so if it is listed with the right
//! size it is stored, and its blocks are used; if not, the intent is forgotten, and what the store may have of it without
//! its being an object is cleared away. No object is deleted.

use std::collections::HashMap;

use crate::error::Result;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::repo::LockedRepository;

/// Settles all intended volumes, by a LIST if there are any. Answers how many were found to be stored.
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

/// As [`settle`], by a list that was made before: `listed` gives the size and the mark of a volume that it shows.
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
        // Before they are forgotten: afterwards nobody would know what to clear away.
        locked.repository().store().clear(&names)?;
    }
    rows.into_iter().try_for_each(|row| locked.catalog().volume_void(row))?;
    Ok(found)
}
