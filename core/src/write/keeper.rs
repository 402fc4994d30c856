//! The keeper: the only thread that writes to the catalog during a backup, and the putters that serve it.
//!
//! Each volume passes through here three times: its intent becomes durable, then a putter stores it, then the row says
//! so. Nothing is put before its intent is durable.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

use crate::catalog::CatalogWriter;
use crate::catalog::NewVolume;
use crate::catalog::VolumeState;
use crate::error::Result;
use crate::objects::volume_object;
use crate::repo::Repository;
use crate::store::Source;
use crate::store::Stored;
use crate::watch::Watch;
use crate::write::packer::PackedVolume;

/// How many volumes of this run are in the catalog, in the order in which they were ended. It tells the writer which
/// blocks it may look up there.
#[derive(Default)]
pub(super) struct Intended(AtomicU64);

impl Intended {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A volume on its way to the store.
pub(super) struct Put {
    row: i64,
    volume: PackedVolume,
}

/// The result of a put.
pub(super) type Done = Result<(i64, Stored)>;

/// Maintains the catalog until all volumes are stored.
pub(super) fn keep(
    catalog: &mut CatalogWriter,
    volumes: &Receiver<PackedVolume>,
    puts: Sender<Put>,
    done: &Receiver<Done>,
    intended: &Intended,
) -> Result<()> {
    for volume in volumes {
        let new = NewVolume {
            name: volume.name,
            kind: volume.kind,
            bytes: volume.bytes,
            learn_bytes: volume.learn_bytes,
            salt: volume.salt,
            index: &volume.index,
            nodes: &volume.nodes,
        };
        let row = catalog.volume_add(&new, VolumeState::Intended)?;
        intended.0.fetch_add(1, Ordering::Release);
        if puts.send(Put { row, volume }).is_err() {
            break;
        }
        while let Ok(result) = done.try_recv() {
            record(catalog, result)?;
        }
    }
    // No more volumes: the putters end once their queue is empty.
    drop(puts);
    done.iter().try_for_each(|result| record(catalog, result))
}

fn record(catalog: &mut CatalogWriter, result: Done) -> Result<()> {
    let (row, stored) = result?;
    catalog.volume_stored(row, stored.etag.as_deref())
}

/// A putter: stores volumes until there are no more, or one fails.
pub(super) fn put_volumes(repository: &Repository, puts: &Receiver<Put>, done: &Sender<Done>, watch: &Watch) {
    for Put { row, volume } in puts {
        let put = || {
            watch.check()?;
            let name = volume_object(volume.kind, volume.name);
            repository.store().put(&name, Source::File { file: &volume.spool, bytes: volume.bytes })
        };
        let result: Result<Stored> = put();
        if result.is_ok() {
            watch.bytes_stored.fetch_add(volume.bytes, Ordering::Relaxed);
            watch.objects.fetch_add(1, Ordering::Relaxed);
        }
        if done.send(result.map(|stored| (row, stored))).is_err() {
            return;
        }
    }
}
