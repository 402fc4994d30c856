//! Putting back what a store has lost.
//!
//! A volume is named by the SHA-256 of its bytes, and sealing is deterministic. So a lost volume can be rebuilt, to the
//! byte, from the blocks that it contained, and put under its own name. Its blocks come, in this order, from a second
//! store, from its frames that still open (in the store, or in a cache on this machine), from the catalog (which holds
//! all tree nodes), from another volume with the same block, and from files that still contain the bytes. If some
//! blocks cannot be found anywhere, the others are stored again in new volumes, so that only what is really gone is
//! lost.
//!
//! A damaged object must be deleted before it can be put again, because nothing is ever overwritten. That is the only
//! deletion here. It happens only when the verified replacement is at hand, and only because a repair was asked for.

mod description;
mod files;
mod objects;
mod rebuild;
mod rescue;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rebuild::Rebuild;

use crate::catalog::VolumeRow;
use crate::catalog::VolumeState;
use crate::commit::VolumeAdded;
use crate::copy::fetch_volume;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::id::VolumeName;
use crate::objects::volume_object;
use crate::recover::relearn;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::volume::ItemKind;
use crate::watch::Watch;
use crate::write;

pub use objects::Opened;
pub use objects::open;
pub use objects::repair_commits;
pub use objects::repair_slots;

/// Volumes that are rebuilt at a time: each takes as much room in the spool as it has content.
const VOLUMES_AT_ONCE: usize = 8;

/// Reads `length` bytes from `offset` of the file at an absolute path (raw bytes); `None` if that is impossible. The
/// result need not be right: it is checked against the id of the wanted block.
pub type ReadFile<'a> = dyn FnMut(&[u8], u64, u32) -> Option<Vec<u8>> + 'a;

/// Returns sealed bytes of a volume from a cache on this machine; `None` if it lacks them. They need not be right.
pub type ReadCache<'a> = dyn Fn(VolumeName, Range<u64>) -> Option<Vec<u8>> + 'a;

/// Where lost data may still exist.
pub struct Sources<'a> {
    /// A second store of the same repository.
    pub second: Option<&'a dyn Store>,
    /// The files of this machine.
    pub read_file: &'a mut ReadFile<'a>,
    /// A cache of sealed bytes.
    pub read_cache: &'a ReadCache<'a>,
}

/// The result of a repair.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Objects that are intact again under their own names, each with its source.
    pub restored: Vec<(String, &'static str)>,
    /// Blocks and tree nodes of other volumes that were stored again in new volumes.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects that could not be restored, each with the reason.
    pub left: Vec<(String, String)>,
}

/// Repairs the volumes that are known to be lost, and those that a check has reported as `changed`. The catalog has
/// been synced, and the check has marked the losses.
pub fn repair_volumes(
    locked: &mut LockedRepository,
    changed: &[VolumeName],
    sources: &mut Sources<'_>,
    time: Time,
    watch: &Watch,
    repaired: &mut Repaired,
) -> Result<()> {
    let is_gone = |row: &VolumeRow| matches!(row.state, VolumeState::Retired | VolumeState::Deleted);
    let is_lost = |row: &VolumeRow| row.state == VolumeState::Lost || changed.contains(&row.name) && !is_gone(row);
    let lost: Vec<VolumeRow> = locked.catalog().read().volumes()?.into_iter().filter(is_lost).collect();
    watch.bytes_total.store(lost.iter().map(|row| row.bytes).sum(), Ordering::Relaxed);
    for rows in lost.chunks(VOLUMES_AT_ONCE) {
        let mut rebuilds = Vec::new();
        for row in rows {
            watch.check()?;
            let is_restored = restore_rescued(locked, row, repaired)?
                || restore_from_second(locked, row, sources.second, watch, repaired)?;
            if !is_restored {
                rebuilds.extend(Rebuild::begin(locked, row, sources.read_cache, repaired)?);
            }
        }
        files::look(locked.catalog().read(), &mut rebuilds, sources.read_file, watch)?;
        let mut parts = Vec::new();
        for rebuild in rebuilds {
            watch.check()?;
            match rebuild.finish(locked.repository())? {
                rebuild::Finished::Whole(row, file, from) => {
                    let dir = locked.repository().catalog_dir().to_path_buf();
                    rescue::keep(&dir, row.name, &file)?;
                    replace(locked, &row, Source::File { file: &file, bytes: row.bytes })?;
                    rescue::remove(&dir, row.name)?;
                    repaired.restored.push((volume_object(row.kind, row.name).to_string(), from));
                }
                rebuild::Finished::Part(part) => parts.push(part),
            }
        }
        store_again(locked, parts, time, watch, repaired)?;
    }
    Ok(())
}

/// Uses a volume that an earlier repair rebuilt but could not put. True if there is one.
fn restore_rescued(locked: &mut LockedRepository, row: &VolumeRow, repaired: &mut Repaired) -> Result<bool> {
    let dir = locked.repository().catalog_dir().to_path_buf();
    let Some((file, bytes)) = rescue::find(&dir, row.name)? else { return Ok(false) };
    replace(locked, row, Source::File { file: &file, bytes })?;
    rescue::remove(&dir, row.name)?;
    repaired.restored.push((volume_object(row.kind, row.name).to_string(), "rebuilt by an earlier repair"));
    Ok(true)
}

/// Copies a volume from the second store. True if that has it.
fn restore_from_second(
    locked: &mut LockedRepository,
    row: &VolumeRow,
    second: Option<&dyn Store>,
    watch: &Watch,
    repaired: &mut Repaired,
) -> Result<bool> {
    let Some(second) = second else { return Ok(false) };
    let object = volume_object(row.kind, row.name);
    let dir = locked.repository().catalog_dir().to_path_buf();
    let verified = match fetch_volume(second, &object, row.name, row.bytes, &dir, watch) {
        Ok(verified) => verified,
        Err(error) if is_object_fault(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    replace(locked, row, verified.source())?;
    repaired.restored.push((object.to_string(), "copied from the second store"));
    Ok(true)
}

/// True if the object is at fault and not the store.
fn is_object_fault(error: &Error) -> bool {
    error.is_object_fault() || error.is_short()
}

/// Puts a verified volume in place of the old object, and takes in its contents.
fn replace(locked: &mut LockedRepository, row: &VolumeRow, source: Source<'_>) -> Result<()> {
    let (repository, catalog) = locked.parts();
    let object = volume_object(row.kind, row.name);
    let etag = replace_object(repository.store(), &object, source)?;
    let VolumeRow { name, kind, bytes, learn_bytes, .. } = *row;
    let added = VolumeAdded { name, kind, bytes, learn_bytes, etag };
    relearn(repository, catalog, &added)?;
    catalog.alarm_end(object.as_str())?;
    Ok(())
}

/// Puts an object; deletes a damaged one of that name first.
fn replace_object(store: &Arc<dyn Store>, object: &ObjectName, source: Source<'_>) -> Result<Option<String>> {
    match store.put(object, source) {
        Err(Error::Exists { .. }) => {
            store.delete(object)?;
            Ok(store.put(object, source)?.etag)
        }
        stored => Ok(stored?.etag),
    }
}

/// Stores the found blocks of volumes again that could not be rebuilt.
fn store_again(
    locked: &mut LockedRepository,
    parts: Vec<rebuild::Part>,
    time: Time,
    watch: &Watch,
    repaired: &mut Repaired,
) -> Result<()> {
    let mut again = Vec::new();
    for part in parts {
        if part.has_found() {
            again.push(part);
        } else {
            repaired.left.push((part.object(), part.reason()));
        }
    }
    if again.is_empty() {
        return Ok(());
    }
    let stored = write::store_again(locked, time, watch, |writer| {
        let cutter = writer.cutter();
        let mut stored = (0, 0);
        for part in &mut again {
            while let Some((kind, bytes)) = part.next_found()? {
                watch.check()?;
                stored.0 += 1;
                stored.1 += bytes.len() as u64;
                match kind {
                    ItemKind::Block => writer.store_lost_block(cutter.block(bytes))?,
                    ItemKind::Node => writer.store_lost_node(bytes)?,
                }
            }
        }
        Ok(stored)
    })?;
    repaired.blocks += stored.0;
    repaired.bytes += stored.1;
    for part in again.iter().filter(|part| !part.is_all_found()) {
        repaired.left.push((part.object(), part.reason()));
    }
    Ok(())
}

/// Ids that are looked for, each with the rebuild that needs it and the number of the block there.
type Wanted = HashMap<[u8; 32], (usize, usize)>;

fn listed_bytes(repository: &Repository, object: &ObjectName) -> Result<Option<u64>> {
    let listed = repository.store().list(object.folder())?;
    Ok(listed.into_iter().find(|listed| listed.name == *object).map(|listed| listed.bytes))
}
