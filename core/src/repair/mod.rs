//! Putting back what a store has lost.
//!
//! A volume is named by the SHA-256 of its bytes, and sealing is deterministic: so a lost one can be made again, to the
//! byte, from the blocks that lay in it, and put under its own name. It comes, in this order, from a second store, from the
//! frames of it that still open (in the store, or in a cache on this machine), from the catalog (tree nodes, which it holds
//! in full), from another volume that has the same block, and from files that still have the bytes which were backed up. If
//! some blocks are nowhere to be found, those that were found are stored again in new volumes, so that only what is really
//! gone is lost.
//!
//! A damaged object has to be deleted before it can be put anew, since nothing is ever overwritten. That is the only
//! deletion here, it happens only when what takes its place is at hand and was verified, and only because somebody asked
//! for a repair.

mod files;
mod objects;
mod rebuild;
mod rescue;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalog::VolumeRow;
use crate::catalog::VolumeState;
use crate::commit::VolumeAdded;
use crate::copy::fetch_volume;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::recover::relearn;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::watch::Watch;
use crate::write;

use rebuild::Rebuild;

pub use objects::open;
pub use objects::repair_commits;

/// Volumes that are made again at a time: each takes as much room in the spool as it has content.
const VOLUMES_AT_ONCE: usize = 8;

/// Reads `length` bytes from `offset` of the file at an absolute path (raw bytes); `None` if they are not to be had. What
/// it gives need not be right: it is held against the id of the block that is looked for.
pub type ReadFile<'a> = dyn FnMut(&[u8], u64, u32) -> Option<Vec<u8>> + 'a;

/// Sealed bytes of a volume from a cache of this machine; `None` if it has not got them. They need not be right.
pub type ReadCache<'a> = dyn Fn(VolumeName, Range<u64>) -> Option<Vec<u8>> + 'a;

/// Where lost data may be found again.
pub struct Sources<'a> {
    /// A second store of the same repository.
    pub second: Option<&'a dyn Store>,
    /// The files of this machine.
    pub read_file: &'a mut ReadFile<'a>,
    /// A cache of sealed bytes.
    pub read_cache: &'a ReadCache<'a>,
}

/// What a repair did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Objects that are whole again under their own names, with where they came from.
    pub restored: Vec<(String, &'static str)>,
    /// Blocks and tree nodes of other volumes that were found and stored again in new volumes.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects that could not be restored, with the reason.
    pub left: Vec<(String, String)>,
}

/// Repairs the volumes that are known to be lost, and those that a check has found `changed`. The catalog was synced, and
/// the check has marked what is lost.
pub fn repair_volumes(
    locked: &mut LockedRepository,
    changed: &[VolumeName],
    sources: &mut Sources<'_>,
    time: Time,
    watch: &Watch,
    repaired: &mut Repaired,
) -> Result<()> {
    let is_lost = |row: &VolumeRow| row.state == VolumeState::Lost || changed.contains(&row.name);
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

/// Takes a volume that an earlier repair has rebuilt and could not put. True if there is one.
fn restore_rescued(locked: &mut LockedRepository, row: &VolumeRow, repaired: &mut Repaired) -> Result<bool> {
    let dir = locked.repository().catalog_dir().to_path_buf();
    let Some((file, bytes)) = rescue::find(&dir, row.name)? else { return Ok(false) };
    replace(locked, row, Source::File { file: &file, bytes })?;
    rescue::remove(&dir, row.name)?;
    repaired.restored.push((volume_object(row.kind, row.name).to_string(), "rebuilt by an earlier repair"));
    Ok(true)
}

/// Takes a volume from the second store. True if it had it.
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

/// True if the object is what is wrong, and not the store.
fn is_object_fault(error: &Error) -> bool {
    error.is_object_fault() || error.is_short()
}

/// Puts a volume that was verified in place of what is there of it, and learns what it holds.
fn replace(locked: &mut LockedRepository, row: &VolumeRow, source: Source<'_>) -> Result<()> {
    let (repository, catalog) = locked.parts();
    let object = volume_object(row.kind, row.name);
    let etag = replace_object(repository.store(), &object, source)?;
    let added = VolumeAdded { name: row.name, kind: row.kind, bytes: row.bytes, etag };
    relearn(repository, catalog, &added)?;
    catalog.alarm_end(object.as_str())?;
    Ok(())
}

/// Puts an object, after deleting a damaged one of that name if there is one.
fn replace_object(store: &Arc<dyn Store>, object: &ObjectName, source: Source<'_>) -> Result<Option<String>> {
    match store.put(object, source) {
        Err(Error::Exists { .. }) => {
            store.delete(object)?;
            Ok(store.put(object, source)?.etag)
        }
        stored => Ok(stored?.etag),
    }
}

/// Stores blocks again that were found of volumes which could not be made whole.
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
                    VolumeKind::Data => writer.store_lost_block(cutter.block(bytes))?,
                    VolumeKind::Meta => writer.store_lost_node(bytes)?,
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

/// Ids that are looked for, with the places where they are wanted: which rebuild, which of its blocks.
type Wanted = HashMap<[u8; 32], (usize, usize)>;

fn listed_bytes(repository: &Repository, object: &ObjectName) -> Result<Option<u64>> {
    let listed = repository.store().list(object.folder())?;
    Ok(listed.into_iter().find(|listed| listed.name == *object).map(|listed| listed.bytes))
}
