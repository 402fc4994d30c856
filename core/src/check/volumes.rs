//! Reading volumes in full: each byte is checked against the volume's name, each frame against its seal, each block
//! against its id.

use std::num::NonZero;
use std::sync::atomic::Ordering;
use std::thread;

use crate::catalog::VolumeRow;
use crate::catalog::VolumeState;
use crate::check::Lost;
use crate::check::Report;
use crate::commit::VolumeAdded;
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::error::counted;
use crate::hash::Sha256Stream;
use crate::objects::volume_object;
use crate::parallel::side_by_side;
use crate::read::VolumeFile;
use crate::recover::relearn;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::store::TRANSFERS_MAX;
use crate::survey::CHANGED;
use crate::watch::Watch;

/// A volume of up to this size is fetched from a far store by one request.
const AT_ONCE_BYTES_MAX: u64 = 4 << 20;

/// The result of reading one volume.
struct Read {
    /// What is wrong with it, if anything.
    trouble: Option<String>,
    /// Ids of the blocks that are not intact.
    lost: Vec<[u8; 32]>,
    /// True if every block is intact.
    is_usable: bool,
    /// True if it, or part of it, cannot be read at all: then everything in it counts as lost.
    is_out_of_reach: bool,
}

/// Reads all of `wanted`, as many at a time as there are cores, or as a far store has connections.
pub(super) fn read_all(
    locked: &mut LockedRepository,
    wanted: &[VolumeRow],
    watch: &Watch,
    report: &mut Report,
    lost: &mut Lost,
) -> Result<()> {
    let repository = locked.repository();
    let store = repository.store();
    let cores = thread::available_parallelism().map_or(2, NonZero::get);
    let threads = if store.is_far() { store.connections().clamp(1, TRANSFERS_MAX) } else { cores };
    let read = |volume| {
        watch.check()?;
        Ok((volume, read_one(repository, volume, watch)?))
    };
    let wanted: Vec<&VolumeRow> = wanted.iter().collect();
    let mut results: Vec<(&VolumeRow, Read)> = Vec::with_capacity(wanted.len());
    side_by_side(
        threads,
        &wanted,
        |volume| read(*volume),
        |read: Result<_>| {
            results.push(read?);
            Ok(true)
        },
    )?;
    for (volume, read) in results {
        report.volumes_read += 1;
        report.bytes_read += volume.bytes;
        let state = if read.is_usable { VolumeState::Stored } else { VolumeState::Lost };
        if read.is_usable && read.trouble.is_some() {
            report.changed.push(volume.name);
        }
        if let Some(trouble) = read.trouble {
            report.find(Diagnosis::RemoteCorrupt, volume_object(volume.kind, volume.name).to_string(), trouble);
        }
        if read.is_out_of_reach {
            lost.0.extend(locked.catalog().read().blocks_of(volume.id)?.iter().map(|block| block.id));
        }
        // Some of them may have been stored again elsewhere.
        for id in read.lost {
            let at = locked.catalog().read().locate(&id)?;
            lost.0.extend(at.is_none_or(|(at, _)| at.volume == volume.id).then_some(id));
        }
        match (volume.state, state) {
            // Some of its blocks may have been assigned to another volume since.
            (VolumeState::Lost, VolumeState::Stored) => {
                let VolumeRow { name, kind, bytes, learn_bytes, etag, .. } = volume.clone();
                let (repository, catalog) = locked.parts();
                relearn(repository, catalog, &VolumeAdded { name, kind, bytes, learn_bytes, etag })?;
            }
            (VolumeState::Stored, VolumeState::Lost) => locked.catalog().volume_state(volume.id, state)?,
            _ => {}
        }
    }
    Ok(())
}

fn read_one(repository: &Repository, row: &VolumeRow, watch: &Watch) -> Result<Read> {
    let mut read = Read { trouble: None, lost: Vec::new(), is_usable: true, is_out_of_reach: false };
    let damaged = |detail: String, is_out_of_reach: bool| {
        Ok(Read { trouble: Some(detail), lost: Vec::new(), is_usable: false, is_out_of_reach })
    };
    let file = match open(repository, row) {
        Ok(file) => file,
        Err(Error::Corrupt { detail, .. }) => return damaged(detail, false),
        Err(error) if error.is_absent() => return damaged("it vanished while it was being checked".into(), true),
        Err(error) if error.is_bad_sector() => return damaged(error.to_string(), true),
        Err(error) => return Err(error),
    };
    // For a volume that could never be read, only the name is known.
    let is_learnt = !row.frames.is_empty();
    let is_same =
        || file.salt() == &row.salt && file.index().frames.iter().eq(row.frames.iter().map(|(_, frame)| frame));
    if is_learnt && !is_same() {
        return damaged("it is not the volume that the catalog describes".into(), false);
    }
    let ids = repository.keys().ids();
    let mut hash = Sha256Stream::new();
    let mut lost = Vec::new();
    let passed = file.pass(
        |bytes| {
            hash.update(bytes);
            watch.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        },
        |item, bytes| {
            if !bytes.is_some_and(|bytes| item.is(ids, bytes)) {
                lost.push(item.id);
            }
        },
    );
    match passed {
        Err(error) if error.is_bad_sector() => return damaged(error.to_string(), true),
        passed => passed?,
    }
    watch.objects.fetch_add(1, Ordering::Relaxed);
    let has_its_name = hash.finish() == row.name.0;
    read.is_usable = lost.is_empty() && (is_learnt || has_its_name);
    if !lost.is_empty() {
        read.trouble = Some(format!(
            "{} of {} do not open",
            lost.len(),
            counted(file.index().items_count() as u64, "block", "blocks")
        ));
    } else if !is_learnt && !has_its_name {
        read.trouble = Some(CHANGED.into());
    } else if !has_its_name {
        read.trouble = Some("its bytes have changed, but only outside of blocks: every block in it is intact".into());
    }
    read.lost = lost;
    Ok(read)
}

/// Opens a volume; a short one in a far store is fetched whole, in one request.
fn open(repository: &Repository, row: &VolumeRow) -> Result<VolumeFile> {
    let (store, keys) = (repository.store(), repository.keys());
    if store.is_far() && row.bytes <= AT_ONCE_BYTES_MAX {
        return VolumeFile::fetch(store, keys, row.kind, row.name, row.bytes, row.bytes);
    }
    VolumeFile::open(store, keys, row.kind, row.name, row.bytes)
}
