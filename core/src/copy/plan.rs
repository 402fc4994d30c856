//! What to copy, according to the lists of both stores.

use std::collections::BTreeMap;
use std::collections::HashSet;

use crate::copy::Copied;
use crate::copy::CopyOptions;
use crate::error::Result;
use crate::id::ClientId;
use crate::id::VolumeName;
use crate::objects::COMMITS;
use crate::objects::KEYS;
use crate::objects::ObjectKind;
use crate::objects::VolumeKind;
use crate::repo::Repository;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Store;

/// A volume to be copied.
pub(super) struct VolumeJob {
    pub object: ObjectName,
    pub name: VolumeName,
    pub bytes: u64,
    pub is_replaced: bool,
}

/// Everything to copy.
pub(super) struct Plan {
    pub volumes: Vec<VolumeJob>,
    /// The commits in the source, by chain.
    pub chains: BTreeMap<ClientId, Vec<(u64, Listed)>>,
    /// Commits that the copy already has.
    pub commits_there: HashSet<ObjectName>,
    pub keys: Vec<ObjectName>,
    /// The text for people, and `bygone.json`, which comes last of all.
    pub texts: Vec<ObjectName>,
    pub keys_left: Vec<ObjectName>,
    outlook: Counts,
    replaced: HashSet<ObjectName>,
    damaged_copies: Vec<(String, String)>,
    others_left: u64,
}

#[derive(Default)]
struct Counts {
    objects: u64,
    bytes: u64,
    there: u64,
}

/// What the copy has.
struct Target {
    listed: BTreeMap<ObjectName, u64>,
    options: CopyOptions,
}

enum Wanted {
    /// The copy has it.
    There,
    /// The copy needs it.
    Missing,
    /// It replaces a damaged object of the copy.
    Replaced,
    /// The copy's object is damaged, and replacing it was not asked for.
    Damaged(String),
}

impl Target {
    fn wants(&mut self, object: &Listed) -> Wanted {
        match self.listed.remove(&object.name) {
            None => Wanted::Missing,
            Some(bytes) if bytes == object.bytes => Wanted::There,
            Some(_) if self.options.replace_damaged => Wanted::Replaced,
            Some(bytes) => {
                let detail = format!("its length is {bytes} in the copy and {} in the source", object.bytes);
                Wanted::Damaged(detail)
            }
        }
    }
}

impl Plan {
    pub fn new(repository: &Repository, to: &dyn Store, options: CopyOptions) -> Result<Plan> {
        let from = repository.store();
        // Commits before volumes: whatever a commit announces was stored before it.
        let commits = from.list(COMMITS)?;
        let keys = from.list(KEYS)?;
        let volumes = VolumeKind::ALL.map(|kind| from.list(kind.folder()));
        let texts = from.list("")?.into_iter().filter(|object| is_text(&object.name));
        let mut texts: Vec<Listed> = texts.collect();
        texts.sort_by_key(|object| object.name.kind() == Some(ObjectKind::Config));
        let listed = to.list("")?.into_iter().map(|object| (object.name, object.bytes)).collect();
        let mut target = Target { listed, options };
        let mut plan = Plan {
            volumes: Vec::new(),
            chains: BTreeMap::new(),
            commits_there: HashSet::new(),
            keys: Vec::new(),
            texts: Vec::new(),
            keys_left: Vec::new(),
            outlook: Counts::default(),
            replaced: HashSet::new(),
            damaged_copies: Vec::new(),
            others_left: 0,
        };
        for object in volumes.into_iter().collect::<Result<Vec<_>>>()?.concat() {
            let Some(ObjectKind::Volume(_, name)) = object.name.kind() else { continue };
            if plan.take(&mut target, &object) {
                let is_replaced = plan.replaced.contains(&object.name);
                plan.volumes.push(VolumeJob { object: object.name, name, bytes: object.bytes, is_replaced });
            }
        }
        for object in commits {
            let Some(ObjectKind::Commit(client, seq)) = object.name.kind() else { continue };
            if !plan.take(&mut target, &object) {
                plan.commits_there.insert(object.name.clone());
            }
            plan.chains.entry(client).or_default().push((seq, object));
        }
        for object in keys {
            if plan.take(&mut target, &object) {
                plan.keys.push(object.name);
            }
        }
        for object in texts {
            // For the small description, the size alone would not reveal a change.
            if plan.take(&mut target, &object) {
                plan.texts.push(object.name);
            }
        }
        for name in target.listed.into_keys().filter(is_ours) {
            if name.is_among_keys() {
                plan.keys_left.push(name);
            } else if !name.is_among_markers() {
                plan.others_left += 1;
            }
        }
        Ok(plan)
    }

    /// True if the object is to be put.
    fn take(&mut self, target: &mut Target, object: &Listed) -> bool {
        match target.wants(object) {
            Wanted::There => {
                self.outlook.there += 1;
                return false;
            }
            Wanted::Damaged(detail) => {
                self.damaged_copies.push((object.name.to_string(), detail));
                return false;
            }
            Wanted::Missing => {}
            Wanted::Replaced => {
                self.replaced.insert(object.name.clone());
            }
        }
        self.outlook.objects += 1;
        self.outlook.bytes += object.bytes;
        true
    }

    /// The result if everything goes well.
    pub fn outlook(&self) -> Copied {
        Copied {
            objects: self.outlook.objects,
            bytes: self.outlook.bytes,
            there: self.outlook.there,
            damaged: Vec::new(),
            damaged_copies: self.damaged_copies.clone(),
            keys_left: self.keys_left.iter().map(ObjectName::to_string).collect(),
            keys_removed: 0,
            others_left: self.others_left,
        }
    }

    /// Bytes to be copied.
    pub fn bytes(&self) -> u64 {
        self.outlook.bytes
    }

    pub fn is_replaced(&self, name: &ObjectName) -> bool {
        self.replaced.contains(name)
    }
}

fn is_text(name: &ObjectName) -> bool {
    matches!(name.kind(), Some(ObjectKind::Config | ObjectKind::Readme))
}

/// True if a repository may have an object of this name.
pub(super) fn is_ours(name: &ObjectName) -> bool {
    name.kind().is_some() || name.is_among_keys() || name.is_among_markers()
}
