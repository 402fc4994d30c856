//! Removes snapshots from a repository, then the volumes that no other snapshot needs, in the order in which `forget`
//! and `prune` are to do it. The torture of mounts uses it, because a mount must survive that.
//!
//! ```text
//! bygone-thin REPOSITORY CATALOGS KEEP      keeps the newest KEEP snapshots; the passphrase is in BYGONE_PASSPHRASE
//! ```
//!
//! It cannot replace `prune`: it assumes that no other machine uses the repository.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for tests: it fails by panicking and prints two lines"
)]

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use bygone_cli::clock::now;
use bygone_core::catalog::VolumeRow;
use bygone_core::catalog::VolumeState;
use bygone_core::check;
use bygone_core::error::Error;
use bygone_core::objects::VolumeKind;
use bygone_core::objects::volume_object;
use bygone_core::recover;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::local::LocalStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::Changes;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [repository, catalogs, keep] = arguments.as_slice() else { panic!("usage: REPOSITORY CATALOGS KEEP") };
    let store = Arc::new(LocalStore::open(Path::new(repository)).unwrap());
    let place = Place { store, catalog_base: catalogs.into() };
    let secret = Secret::new(std::env::var("BYGONE_PASSPHRASE").unwrap().into_bytes());
    let wait = |_: Error| {
        sleep(Duration::from_millis(50));
        Ok(())
    };
    let mut locked = Repository::open(&place, &secret).unwrap().lock_waiting(wait).unwrap();
    recover::sync(&mut locked, &Watch::new()).unwrap();
    let removed = remove(&mut locked, keep.parse().unwrap());
    println!("{removed} snapshots removed");
    let deleted = delete(&mut locked);
    println!("{deleted} volumes deleted");
}

/// Removes all snapshots but the newest `keep`.
fn remove(locked: &mut LockedRepository, keep: usize) -> usize {
    let rows = locked.catalog().read().snapshots().unwrap();
    let old = &rows[..rows.len().saturating_sub(keep)];
    let snapshots_removed = old.iter().map(|row| row.snapshot.id).collect();
    write::commit_changes(locked, now(), Changes { snapshots_removed, ..Changes::default() }).unwrap();
    old.len()
}

/// Retires the volumes of content that no snapshot needs, and deletes them.
fn delete(locked: &mut LockedRepository) -> usize {
    let catalog = locked.catalog().read();
    let is_needed = |row: &VolumeRow| {
        // The first file that needs it is enough.
        let outcome = check::affected(catalog, Some(row), &Watch::new(), &mut |_| Err(Error::Cancelled));
        assert!(matches!(outcome, Ok(()) | Err(Error::Cancelled)), "{outcome:?}");
        outcome.is_err()
    };
    let rows = catalog.volumes().unwrap().into_iter();
    let rows = rows.filter(|row| row.kind == VolumeKind::Data && row.state == VolumeState::Stored);
    let idle: Vec<VolumeRow> = rows.filter(|row| !is_needed(row)).collect();
    let volumes_retired = idle.iter().map(|row| row.name).collect();
    write::commit_changes(locked, now(), Changes { volumes_retired, ..Changes::default() }).unwrap();
    for row in &idle {
        locked.catalog().volume_state(row.id, VolumeState::Deleted).unwrap();
        let name = volume_object(row.kind, row.name);
        locked.repository().store().delete(&name).unwrap();
    }
    idle.len()
}
