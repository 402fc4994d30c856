//! One LIST of the whole store, sorted by kind of object.
//!
//! It is a single LIST because a LIST costs one request per thousand objects and most stores have few, so an unchanged
//! backup costs next to nothing. A list is a reason to look closer, never a reason to delete.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::id::ClientId;
use crate::id::SlotId;
use crate::id::VolumeName;
use crate::objects::ObjectKind;
use crate::objects::VolumeKind;
use crate::store::Listed;
use crate::store::Store;

/// How the store lists an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its length.
    pub bytes: u64,
    /// The store's mark of this version of it.
    pub etag: Option<String>,
}

impl Shown {
    /// In one line, for comparison with a later list.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.bytes, self.etag.as_deref().unwrap_or("-"))
    }
}

/// The content of a list.
#[derive(Debug, Default)]
pub struct Listing {
    /// Volumes. A volume in the folder of the other kind counts as another object.
    volumes: BTreeMap<(VolumeKind, VolumeName), Shown>,
    /// Commits.
    pub(super) commits: BTreeMap<(ClientId, u64), Shown>,
    /// Key slots.
    slots: Vec<SlotId>,
    /// Objects whose names bygone does not use.
    strange: Vec<String>,
}

impl Listing {
    /// Asks the store: one LIST.
    pub fn of(store: &dyn Store) -> Result<Listing> {
        let mut listing = Listing::default();
        for object in store.list("")? {
            listing.add(object);
        }
        Ok(listing)
    }

    fn add(&mut self, object: Listed) {
        let Listed { name, bytes, etag } = object;
        let shown = Shown { bytes, etag };
        match name.kind() {
            // Readers have no use for markers.
            Some(ObjectKind::Config | ObjectKind::Readme | ObjectKind::Marker(..)) => {}
            Some(ObjectKind::Slot(slot)) => self.slots.push(slot),
            Some(ObjectKind::Commit(client, seq)) => drop(self.commits.insert((client, seq), shown)),
            Some(ObjectKind::Volume(kind, volume)) => drop(self.volumes.insert((kind, volume), shown)),
            None => self.strange.push(name.to_string()),
        }
    }

    /// How a volume is listed; `None` if it is not.
    pub fn volume(&self, kind: VolumeKind, name: VolumeName) -> Option<&Shown> {
        self.volumes.get(&(kind, name))
    }

    /// All volumes, in order of name.
    pub fn volumes(&self) -> impl Iterator<Item = (VolumeKind, VolumeName, &Shown)> {
        self.volumes.iter().map(|((kind, name), shown)| (*kind, *name, shown))
    }

    /// Key slots.
    pub fn slots(&self) -> &[SlotId] {
        &self.slots
    }

    /// Names of objects that bygone does not use.
    pub fn strange(&self) -> &[String] {
        &self.strange
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::CONFIG_NAME;
    use crate::objects::README_NAME;
    use crate::objects::commit_object;
    use crate::objects::volume_object;
    use crate::store::ObjectName;

    #[test]
    fn objects_are_told_apart_by_their_exact_names() {
        let (client, volume) = (ClientId([0xab; 16]), VolumeName([0xcd; 32]));
        let (commit, data) = (commit_object(client, 7), volume_object(VolumeKind::Data, volume));
        let misplaced = format!("data/00/{volume}");
        let names = [
            CONFIG_NAME,
            README_NAME,
            &format!("keys/{client}"),
            &format!("running/{client}.{client}"),
            commit.as_str(),
            data.as_str(),
            &misplaced,
            &format!("commits/{client}/7"),
            &format!("commits/{client}/0000000000000000"),
            "commits/x/0000000000000001",
            "data/other",
            "notes.txt",
        ];
        let mut listing = Listing::default();
        for name in names {
            listing.add(Listed { name: ObjectName::new(name).unwrap(), bytes: 5, etag: Some("e".into()) });
        }
        assert_eq!(listing.commits.keys().collect::<Vec<_>>(), [&(client, 7)]);
        assert_eq!(listing.volume(VolumeKind::Data, volume).map(Shown::to_line).as_deref(), Some("5 e"));
        assert_eq!((listing.volume(VolumeKind::Meta, volume), listing.volumes().count()), (None, 1));
        assert_eq!(listing.slots(), [SlotId(client.0)]);
        assert_eq!(listing.strange(), &names[6..]);
    }
}
