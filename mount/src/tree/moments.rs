//! Connections to the catalog, and the moment of the catalog that they show.
//!
//! A [`View`] holds a read transaction. That makes queries several times cheaper, but the view does not see later
//! changes, and a transaction that is never renewed keeps the catalog's write-ahead log from shrinking. So one thread
//! (the watcher) looks for changes and renews idle views. A view that was busy meanwhile is renewed when it is next
//! taken.
//!
//! No operation gets a view that is older than its moment, because of the order of steps. A change is announced in
//! three: the number of the moment grows, the new moment is published, the kernel is told. An operation takes the
//! moment first and the view second.
//!
//! A rebuilt catalog is another file with other numbers. The views of a mount stay with the file that it was started
//! with, and no view of another file is ever opened, because the numbers that the kernel holds would lead elsewhere.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bygone_core::entry::Time;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::lock::lock;
use bygone_core::read::Reader;
use bygone_core::read::View;

use crate::tree::derived::Derived;
use crate::tree::listing::Listing;
use crate::tree::operation_error::OperationError;
use crate::tree::shape::Shape;

/// The catalog as a whole at one time.
#[derive(Debug)]
pub struct Moment {
    /// All snapshots.
    pub listing: Listing,
    /// The derived directories.
    pub derived: Arc<Derived>,
    /// The names of all extended attributes of all entries.
    pub xattr_names: HashSet<Vec<u8>>,
}

/// The present moment, and a view of it for each operation.
pub struct Moments {
    reader: Arc<Reader>,
    catalog: PathBuf,
    shape: Shape,
    /// Device and inode of the catalog's file.
    file: (u64, u64),
    number: AtomicU64,
    moment: Mutex<Arc<Moment>>,
    idle: Mutex<Vec<(u64, View)>>,
    /// The most idle views that are kept, because each takes memory and open files.
    kept: usize,
}

impl Moments {
    /// Looks at the catalog as it is now, with `count` views ready for use. `catalog` is its file, and `shape` chooses
    /// what is shown of it.
    pub fn new(reader: Arc<Reader>, catalog: PathBuf, shape: Shape, count: usize, now: Time) -> Result<Moments> {
        let file = file_of(&catalog)?;
        let views = (0..count.max(1)).map(|_| reader.view()).collect::<Result<Vec<_>>>()?;
        let Some(view) = views.first() else { return Err(rebuilt(&catalog)) };
        let moment = Mutex::new(Arc::new(look(view, &shape, now)?));
        let idle = Mutex::new(views.into_iter().map(|view| (0, view)).collect());
        let kept = count.max(1);
        let views = Moments { reader, catalog, shape, file, number: AtomicU64::new(0), moment, idle, kept };
        views.check_catalog()?;
        Ok(views)
    }

    /// The reader of the data.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// One more view of the same catalog.
    pub fn open_view(&self) -> Result<View> {
        let view = self.reader.view()?;
        self.check_catalog()?;
        Ok(view)
    }

    /// Fails if another file has taken the place of the catalog.
    pub fn check_catalog(&self) -> Result<()> {
        if file_of(&self.catalog)? == self.file { Ok(()) } else { Err(rebuilt(&self.catalog)) }
    }

    /// The present moment.
    pub fn moment(&self) -> Arc<Moment> {
        Arc::clone(&lock(&self.moment))
    }

    /// Runs `work` with a view that is at least as new as the moment it gets.
    pub fn with<T>(
        &self,
        work: impl FnOnce(&View, &Moment) -> std::result::Result<T, OperationError>,
    ) -> std::result::Result<T, OperationError> {
        let moment = self.moment();
        let (shown, mut view) = match self.take_idle() {
            Some(idle) => idle,
            None => (self.number(), self.open_view()?),
        };
        let number = self.number();
        if shown != number {
            view.renew()?;
        }
        let result = work(&view, &moment);
        self.give_back(number, view);
        result
    }

    /// Keeps a view for later, unless enough are idle.
    fn give_back(&self, number: u64, view: View) {
        let mut idle = lock(&self.idle);
        if idle.len() < self.kept {
            idle.push((number, view));
        }
    }

    /// Publishes the state of the catalog that `view`, just renewed, shows. Returns the moment before.
    pub fn advance(&self, view: &View, now: Time) -> Result<Arc<Moment>> {
        self.number.fetch_add(1, Ordering::SeqCst);
        let mut moment = look(view, &self.shape, now)?;
        let before = self.moment();
        if before.listing.shows_the_same(&moment.listing) {
            moment.listing.changed = before.listing.changed;
            moment.derived = Arc::clone(&before.derived);
        }
        let moment = Arc::new(moment);
        Ok(std::mem::replace(&mut lock(&self.moment), moment))
    }

    /// Renews the idle views.
    pub fn renew_idle(&self) -> Result<()> {
        // One at a time, so that operations find the others meanwhile. The view that was idle for longest comes first.
        let count = lock(&self.idle).len();
        for _ in 0..count {
            let mut idle = lock(&self.idle);
            let Some((_, mut view)) = (!idle.is_empty()).then(|| idle.remove(0)) else { break };
            drop(idle);
            let number = self.number();
            view.renew()?;
            self.give_back(number, view);
        }
        Ok(())
    }

    fn take_idle(&self) -> Option<(u64, View)> {
        lock(&self.idle).pop()
    }

    /// The number of the present moment, which grows whenever the catalog has changed.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }
}

fn file_of(catalog: &Path) -> Result<(u64, u64)> {
    let failed = |error: io::Error| Error::Catalog { path: catalog.display().to_string(), detail: error.to_string() };
    fs::metadata(catalog).map(|about| (about.dev(), about.ino())).map_err(failed)
}

fn rebuilt(catalog: &Path) -> Error {
    let detail = "it was rebuilt since it was mounted: unmount it and mount again".to_owned();
    Error::Catalog { path: catalog.display().to_string(), detail }
}

fn look(view: &View, shape: &Shape, now: Time) -> Result<Moment> {
    let listing = Listing::new(view.snapshots()?, shape, now)?;
    let derived = Arc::new(Derived::new(&listing));
    Ok(Moment { listing, derived, xattr_names: view.xattr_names()?.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sample;

    #[test]
    fn renewal_and_use_keep_the_number_of_views() {
        let sample = Sample::new();
        sample.backup(100, &[], Vec::new());
        let views = sample.moments(sample.reader());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    (0..300).for_each(|_| views.with(|view, _| Ok(view.snapshots()?.len())).map(drop).unwrap())
                });
            }
            (0..300).for_each(|_| views.renew_idle().unwrap());
        });
        assert_eq!(lock(&views.idle).len(), views.kept);
    }
}
