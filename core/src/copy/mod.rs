//! A second store that holds what the first one holds.
//!
//! Objects that exist already, judged by name and size, are not copied again: objects never change, and volumes are
//! named by their bytes. Every object is checked against its name or its seal as it passes. The order makes the copy a
//! valid repository, or not yet one, at every moment: volumes, then the commits that announce them, each after those
//! that it has seen, then key slots, and `bygone.json` last. For the same reason, commits are listed in the source
//! before volumes are. Nothing is deleted in the copy unless that is asked for.

mod commits;
mod plan;
mod transfer;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use plan::Plan;
use plan::VolumeJob;

use crate::config::Config;
use crate::crypto::Slot;
use crate::error::Error;
use crate::error::Result;
use crate::id::SlotId;
use crate::lock::into_inner;
use crate::lock::lock;
use crate::objects::KEYS;
use crate::objects::ObjectKind;
use crate::objects::config_object;
use crate::objects::slot_object;
use crate::private;
use crate::repo::Repository;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::survey::Needed;
use crate::watch::Watch;

pub(crate) use transfer::fetch_volume;

/// Most concurrent transfers, whatever the stores recommend.
const TRANSFERS_MAX: usize = 32;
/// Longest object that is neither a volume nor a commit.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Options of a copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Only report what would be copied.
    pub dry_run: bool,
    /// Replace objects of the copy whose size differs from the source: the copy has damaged them.
    pub replace_damaged: bool,
    /// Remove key slots that the source no longer has: their passphrases would open the copy for ever.
    pub remove_keys: bool,
}

/// The result of a copy.
#[derive(Debug, Default)]
pub struct Copied {
    /// Objects that were copied, or would be.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects that existed already.
    pub there: u64,
    /// Objects that are damaged in the source and were not copied, each with the damage.
    pub damaged: Vec<(String, String)>,
    /// Objects that are damaged in the copy and were not replaced, each with the damage.
    pub damaged_copies: Vec<(String, String)>,
    /// Key slots that only the copy has.
    pub keys_left: Vec<String>,
    /// Key slots that were removed from the copy.
    pub keys_removed: u64,
    /// Other objects that only the copy has.
    pub others_left: u64,
}

/// Copies everything that `to` lacks.
pub fn copy(repository: &Repository, to: &dyn Store, options: CopyOptions, watch: &Watch) -> Result<Copied> {
    let from = repository.store();
    if from.address() == to.address() {
        return Err(Error::Invalid { what: format!("{} is the repository itself: name another place", to.address()) });
    }
    // This program might not know all objects that such a repository needs.
    repository.check_writable()?;
    check_target(repository, to)?;
    let plan = Plan::new(repository, to, options)?;
    let mut copied = plan.outlook();
    if options.dry_run {
        return Ok(copied);
    }
    (copied.objects, copied.bytes) = (0, 0);
    watch.bytes_total.store(plan.bytes(), Ordering::Relaxed);
    copy_volumes(repository, to, &plan.volumes, watch, &mut copied)?;
    commits::copy(repository, to, &plan, watch, &mut copied)?;
    let removed = if plan.keys.is_empty() { HashSet::new() } else { slots_removed(repository)? };
    let is_back = |name: &&ObjectName| removed.iter().any(|slot| **name == slot_object(*slot));
    let back = plan.keys.iter().filter(is_back).map(|name| (name.to_string(), BACK.to_owned()));
    copied.damaged.extend(back);
    for name in plan.keys.iter().filter(|name| !is_back(name)).chain(&plan.texts) {
        let bytes = from.get(name, ByteRange::Whole { bytes_max: SMALL_BYTES_MAX })?;
        match check_small(repository, name, &bytes) {
            Ok(()) => put(to, name, Source::Bytes(&bytes), plan.is_replaced(name), watch, &mut copied)?,
            Err(error) => copied.damaged.push((name.to_string(), error.to_string())),
        }
    }
    if options.remove_keys {
        for name in &plan.keys_left {
            to.delete(name)?;
            copied.keys_removed += 1;
        }
        copied.keys_left.clear();
    }
    Ok(copied)
}

/// Key slots that were removed, as the commits say. A machine that copies need not have a catalog.
fn slots_removed(repository: &Repository) -> Result<HashSet<SlotId>> {
    Ok(Needed::read(repository.store().as_ref(), repository.keys())?.slots_removed())
}

const BACK: &str =
    "this key slot was removed, and is in the store again: it is not copied; `bygone key remove` deletes it";

/// Refuses a place that belongs to another repository or to something else.
fn check_target(repository: &Repository, to: &dyn Store) -> Result<()> {
    let other = |what: String| {
        let hint = "a copy goes to an empty place, or to an earlier copy of the same repository";
        Err(Error::Exists { what, hint })
    };
    match to.get(&config_object(), ByteRange::Whole { bytes_max: SMALL_BYTES_MAX }) {
        Ok(bytes) => {
            let unproven = Config::decode(&bytes)?;
            if unproven.repository() != repository.config().repository {
                return other(format!("another repository at {}", to.address()));
            }
            return unproven.prove(repository.keys())?.check_writable();
        }
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(error),
    }
    for object in to.list(KEYS)? {
        let bytes = to.get(&object.name, ByteRange::Whole { bytes_max: SMALL_BYTES_MAX })?;
        if Slot::parse(&bytes).is_ok_and(|slot| slot.repository() != repository.config().repository) {
            return other(format!("a key slot of another repository at {}", to.address()));
        }
    }
    match to.list("")?.iter().find(|object| !plan::is_ours(&object.name)) {
        Some(object) => other(format!("{} at {}", object.name, to.address())),
        None => Ok(()),
    }
}

/// Checks an object that is neither a volume nor a commit.
fn check_small(repository: &Repository, name: &ObjectName, bytes: &[u8]) -> Result<()> {
    match name.kind() {
        Some(ObjectKind::Readme) => Ok(()),
        Some(ObjectKind::Config) => Config::decode(bytes)?.prove(repository.keys()).map(|_| ()),
        _ => {
            let slot = Slot::parse(bytes).map_err(|e| Error::corrupt(name, e))?;
            let is_ours = slot.repository() == repository.config().repository;
            if is_ours && *name == slot_object(slot.id()) {
                Ok(())
            } else {
                Err(Error::corrupt(name, "it is not the key slot that its name promises"))
            }
        }
    }
}

/// Puts an object, replacing a damaged one if `is_replaced`.
fn put(
    to: &dyn Store,
    name: &ObjectName,
    source: Source<'_>,
    is_replaced: bool,
    watch: &Watch,
    copied: &mut Copied,
) -> Result<()> {
    if is_replaced {
        to.delete(name)?;
    }
    to.put(name, source)?;
    watch.objects.fetch_add(1, Ordering::Relaxed);
    watch.bytes_stored.fetch_add(source.bytes(), Ordering::Relaxed);
    copied.objects += 1;
    copied.bytes += source.bytes();
    Ok(())
}

/// Copies volumes, several at a time.
fn copy_volumes(
    repository: &Repository,
    to: &dyn Store,
    jobs: &[VolumeJob],
    watch: &Watch,
    copied: &mut Copied,
) -> Result<()> {
    let spool_dir = repository.catalog_dir();
    private::directory(spool_dir).map_err(|source| {
        let path = spool_dir.display().to_string();
        Error::Local { doing: "make the catalog directory", path, source }
    })?;
    let next = AtomicUsize::new(0);
    let all: Mutex<(Copied, Option<Error>)> = Mutex::default();
    let connections = repository.store().connections().min(to.connections());
    thread::scope(|scope| {
        for _ in 0..connections.clamp(1, TRANSFERS_MAX).min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut one = Copied::default();
                    let done = copy_volume(repository, to, job, watch, &mut one);
                    let mut all = lock(&all);
                    all.0.add(one);
                    if let Err(error) = done {
                        // The first error is the one to report; the others are its consequences.
                        all.1.get_or_insert(error);
                        next.store(jobs.len(), Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
    });
    let (done, error) = into_inner(all);
    copied.add(done);
    error.map_or(Ok(()), Err)
}

fn copy_volume(
    repository: &Repository,
    to: &dyn Store,
    job: &VolumeJob,
    watch: &Watch,
    copied: &mut Copied,
) -> Result<()> {
    watch.check()?;
    let from = repository.store();
    let dir = repository.catalog_dir();
    match fetch_volume(from.as_ref(), &job.object, job.name, job.bytes, dir, watch) {
        Ok(verified) => put(to, &job.object, verified.source(), job.is_replaced, watch, copied),
        // A damaged object is not copied, and nothing else waits for it. Any other error is the store's.
        Err(error) if error.is_object_fault() => {
            copied.damaged.push((job.object.to_string(), error.to_string()));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Copied {
    fn add(&mut self, other: Copied) {
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.damaged.extend(other.damaged);
    }

    /// True if the copy has everything that the source has, and nothing in the source is damaged.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.damaged_copies.is_empty()
    }
}
