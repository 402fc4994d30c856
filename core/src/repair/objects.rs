//! Putting back the small objects: the description, the key slots, the commits.
//!
//! A description that no store and no catalog has a copy of is made anew.

use std::collections::BTreeMap;
use std::fs;

use crate::catalog::Catalog;
use crate::commit::Commit;
use crate::config::Config;
use crate::crypto::Keys;
use crate::crypto::Slot;
use crate::error::Error;
use crate::error::Result;
use crate::hash::sha256;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::id::RepositoryId;
use crate::id::SlotId;
use crate::limits;
use crate::objects::COMMITS;
use crate::objects::CONFIG_NAME;
use crate::objects::ObjectKind;
use crate::objects::ObjectName;
use crate::objects::commit_object;
use crate::objects::config_object;
use crate::objects::slot_object;
use crate::repair::Repaired;
use crate::repair::description;
use crate::repair::replace_object;
use crate::repo::LockedRepository;
use crate::repo::Place;
use crate::repo::Repository;
use crate::repo::Secret;
use crate::repo::slot_objects;
use crate::store::ByteRange;
use crate::store::Source;
use crate::store::Store;
use crate::survey::Needed;

const SMALL_BYTES_MAX: u64 = 1 << 20;

/// A repository that was opened for repair.
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// Key slots of the second store that this one lacks or has damaged, for [`repair_slots`].
    pub slots: Vec<Slot>,
}

/// Opens a repository that may lack `bygone.json` or its key slots. Puts back the description, if a second store or
/// this machine's catalog still has it, or else makes it anew.
pub fn open(place: &Place, secret: &Secret, second: Option<&dyn Store>, repaired: &mut Repaired) -> Result<Opened> {
    let store = place.store.as_ref();
    let slots_here = slots(store)?;
    let slots_there = second.map(slots).transpose()?.unwrap_or_default();
    let Some(id) = repository_of(store, second, &slots_here, &slots_there)? else {
        return Err(Error::NoRepository { store: store.address() });
    };
    let slots_of = |slots: &BTreeMap<SlotId, Slot>| -> Vec<Slot> {
        slots.values().filter(|slot| slot.repository() == id).cloned().collect()
    };
    let (here, there) = (slots_of(&slots_here), slots_of(&slots_there));
    let (unlocked, is_from_there) = match crate::repo::unlock(place, secret, &here, id) {
        Err(Error::WrongKey { .. }) if !there.is_empty() => (crate::repo::unlock(place, secret, &there, id)?, true),
        opened => (opened?, false),
    };
    let (keys, master, slot) = unlocked;
    let kept = || kept_config(place, &keys, id);
    let config = match config(store, &keys)? {
        Some(config) => config,
        None => {
            let found = match second.map(|second| config_bytes(second, &keys)).transpose()?.flatten() {
                Some(object) => Some((object, "copied from the second store")),
                None => kept()?.map(|object| (object, "rewritten from the catalog")),
            };
            let (object, from) = match found {
                Some(found) => found,
                None => {
                    let config = description::from_volumes(&place.store, &keys, id)?;
                    (config.encode(&keys)?, "made anew: the key slots name the repository, its volumes the block size")
                }
            };
            let config = Config::decode(&object)?.prove(&keys)?;
            config.check_writable()?;
            replace_object(&place.store, &config_object(), Source::Bytes(&object))?;
            repaired.restored.push((CONFIG_NAME.into(), from));
            config
        }
    };
    config.check_writable()?;
    let mut missing = Vec::new();
    for other in there.iter().filter(|slot| slot.info(&keys).is_ok()) {
        let name = slot_object(other.id());
        let ours = here.iter().find(|slot| slot.id() == other.id());
        let ours = ours.filter(|ours| ours.info(&keys).is_ok() && !(is_from_there && ours.id() == slot));
        match ours {
            Some(ours) if ours.bytes() != other.bytes() => {
                let reason = "it differs from that of the second store, and only its passphrase tells which is whole";
                repaired.left.push((name.to_string(), reason.into()));
            }
            Some(_) => {}
            None => missing.push(other.clone()),
        }
    }
    let repository = Repository::of(place, config, keys, master, slot)?;
    repository.check_writable()?;
    Ok(Opened { repository, slots: missing })
}

/// Puts back key slots that a second store still has, but none that was removed. The catalog has been synced, because
/// commits say which those are.
pub fn repair_slots(locked: &mut LockedRepository, slots: &[Slot], repaired: &mut Repaired) -> Result<()> {
    let removed = locked.catalog().read().slots_removed()?;
    for slot in slots {
        let name = slot_object(slot.id());
        if removed.contains(&slot.id()) {
            let reason = "it was removed: delete it from the second store too, with `bygone sync --remove-keys`";
            repaired.left.push((name.to_string(), reason.into()));
            continue;
        }
        replace_object(locked.repository().store(), &name, Source::Bytes(slot.bytes()))?;
        repaired.restored.push((name.to_string(), "copied from the second store"));
    }
    Ok(())
}

/// The key slots of a store that are well-formed and lie under their own names.
fn slots(store: &dyn Store) -> Result<BTreeMap<SlotId, Slot>> {
    let mut slots = BTreeMap::new();
    let mut trouble = None;
    for object in slot_objects(store)?.iter().take(limits::SLOTS_MAX) {
        match store.get(&object.name, ByteRange::Whole { bytes_max: SMALL_BYTES_MAX }).map(|bytes| Slot::parse(&bytes))
        {
            Ok(Ok(slot)) if object.name == slot_object(slot.id()) => _ = slots.insert(slot.id(), slot),
            Ok(_) => {}
            Err(error) => trouble = Some(error),
        }
    }
    // Any intact slot is enough.
    match trouble {
        Some(error) if slots.is_empty() => Err(error),
        _ => Ok(slots),
    }
}

/// The id of the repository: from its description, otherwise from its key slots.
fn repository_of(
    store: &dyn Store,
    second: Option<&dyn Store>,
    here: &BTreeMap<SlotId, Slot>,
    there: &BTreeMap<SlotId, Slot>,
) -> Result<Option<RepositoryId>> {
    for store in [Some(store), second].into_iter().flatten() {
        match object(store, &config_object())?.map(|bytes| Config::decode(&bytes)) {
            Some(Ok(config)) => return Ok(Some(config.repository())),
            Some(Err(newer @ (Error::TooNew { .. } | Error::Newer { .. }))) => return Err(newer),
            Some(Err(_)) | None => {}
        }
    }
    Ok(here.values().chain(there.values()).map(Slot::repository).next())
}

fn object(store: &dyn Store, name: &ObjectName) -> Result<Option<Vec<u8>>> {
    match store.get(name, ByteRange::Whole { bytes_max: limits::COMMIT_BYTES_MAX }) {
        Ok(bytes) => Ok(Some(bytes)),
        // An object that is unreadable, or far too long, must be put back like a missing one.
        Err(error) if error.is_object_fault() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The description in a store, if it is present and authentic.
fn config(store: &dyn Store, keys: &Keys) -> Result<Option<Config>> {
    let Some(object) = config_bytes(store, keys)? else { return Ok(None) };
    Config::decode(&object)?.prove(keys).map(Some)
}

fn config_bytes(store: &dyn Store, keys: &Keys) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = object(store, &config_object())? else { return Ok(None) };
    match Config::decode(&bytes).and_then(|config| config.prove(keys)) {
        Ok(_) => Ok(Some(bytes)),
        // An older program must not replace what a newer one has written.
        Err(newer @ (Error::TooNew { .. } | Error::Newer { .. })) => Err(newer),
        Err(_) => Ok(None),
    }
}

/// The description that this machine's catalog has kept.
fn kept_config(place: &Place, keys: &Keys, repository: RepositoryId) -> Result<Option<Vec<u8>>> {
    let path = Repository::catalog_path_of(place, repository);
    if fs::metadata(&path).is_err() {
        return Ok(None);
    }
    let kept = Catalog::open(&path, keys.ids())?.config_object()?;
    Ok(kept.filter(|object| Config::decode(object).and_then(|config| config.prove(keys)).is_ok()))
}

/// Puts back commits that the store has lost or changed, from a second store or from the catalog. Must run before the
/// catalog is synced, because syncing fails if a chain is broken.
pub fn repair_commits(
    locked: &mut LockedRepository,
    second: Option<&dyn Store>,
    repaired: &mut Repaired,
) -> Result<()> {
    let (repository, catalog) = locked.parts();
    let catalog = catalog.read();
    let mut known: BTreeMap<(ClientId, u64), Option<CommitHash>> = BTreeMap::new();
    for store in [Some(repository.store().as_ref()), second].into_iter().flatten() {
        for listed in store.list(COMMITS)? {
            if let Some(ObjectKind::Commit(client, seq)) = listed.name.kind() {
                known.insert((client, seq), None);
            }
        }
    }
    known.extend(catalog.commits_seen()?.into_iter().map(|head| ((head.client, head.seq), Some(head.hash))));
    // Commits that a person has given up are not missed, nor are those for which a checkpoint stands.
    let accepted = catalog.chain_losses()?;
    known.retain(|(client, seq), _| !accepted.iter().any(|loss| loss.covers(*client, *seq)));
    let covered = catalog.chains_covered()?;
    known.retain(|(client, seq), _| !covered.iter().any(|range| range.covers(*client, *seq)));
    for store in [Some(repository.store().as_ref()), second].into_iter().flatten() {
        let needed = Needed::read(store, repository.keys())?;
        known.retain(|(client, seq), _| !needed.covers(*client, *seq));
    }
    for ((client, seq), hash) in known {
        let name = commit_object(client, seq);
        let is_right = |object: &Vec<u8>| match hash {
            Some(hash) => hash.0 == sha256(object),
            None => Commit::open(object, &repository.keys().commit(client, seq), client, seq).is_ok(),
        };
        if object(repository.store().as_ref(), &name)?.is_some_and(|object| is_right(&object)) {
            continue;
        }
        let there = second.map(|second| object(second, &name)).transpose()?.flatten().filter(is_right);
        let found = match there {
            Some(object) => Some((object, "copied from the second store")),
            None => {
                let kept = catalog.commit_object(client, seq)?.filter(is_right);
                kept.map(|object| (object, "rewritten from the catalog"))
            }
        };
        match found {
            Some((object, from)) => {
                replace_object(repository.store(), &name, Source::Bytes(&object))?;
                repaired.restored.push((name.to_string(), from));
            }
            None => {
                let reason = "no other machine or store that was asked has this commit: use --from, or run this on \
                              the machine that made it";
                repaired.left.push((name.to_string(), reason.into()));
            }
        }
    }
    Ok(())
}
