//! The queue that feeds the workers of a restore.
//!
//! One thread walks the snapshot and hands over work in batches of neighbours. Neighbours share frames of the
//! repository, so each frame is decoded by one worker. The queue is bounded, and only entries wait in it, never
//! content.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::Sender;

use bygone_core::error::Error;

use crate::restore::directories::Index;
use crate::restore::files::big::Big;
use crate::restore::files::verify::Stretch;
use crate::restore::job::Job;
use crate::restore::shared::Shared;

/// Most entries in a batch.
const BATCH_ENTRIES_MAX: usize = 64;
/// A batch with this many bytes of content is handed over.
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Most directories that a batch keeps open.
const BATCH_PLACES_MAX: usize = 8;

/// A piece of work.
pub(in crate::restore) enum Work {
    /// Restores a whole entry.
    Entry(Job),
    /// Writes a stretch of a file that is too big for one worker.
    Part(Arc<Big>, Range<u64>),
    /// Compares a restored file with the repository, or a stretch of it.
    Check(Job, Option<Stretch>),
}

/// Takes work from the thread that walks.
pub(in crate::restore) struct Feeder<'a> {
    sender: Sender<Vec<Work>>,
    shared: &'a Shared<'a>,
    batch: Vec<Work>,
    bytes: u64,
    places: usize,
    last: Option<(Index, usize)>,
}

impl<'a> Feeder<'a> {
    /// A feeder of the workers at the other end of `sender`.
    pub(in crate::restore) fn new(sender: Sender<Vec<Work>>, shared: &'a Shared<'a>) -> Feeder<'a> {
        Feeder { sender, shared, batch: Vec::new(), bytes: 0, places: 0, last: None }
    }

    /// Hands over work in `directory` with `bytes` of content. Blocks while the workers have enough.
    pub(in crate::restore) fn push(&mut self, directory: Index, work: Work, bytes: u64) -> Result<(), Error> {
        if self.last.is_none_or(|(last, _)| last != directory) {
            self.places += 1;
        }
        self.last = Some((directory, self.places));
        self.batch.push(work);
        self.bytes += bytes;
        let full =
            self.batch.len() >= BATCH_ENTRIES_MAX || self.bytes >= BATCH_BYTES_MAX || self.places >= BATCH_PLACES_MAX;
        if full { self.flush() } else { Ok(()) }
    }

    /// Hands over the rest.
    pub(in crate::restore) fn flush(&mut self) -> Result<(), Error> {
        (self.bytes, self.places, self.last) = (0, 0, None);
        let batch = std::mem::take(&mut self.batch);
        // The reason is in the tally, and is reported from there.
        if self.shared.is_stopped() || self.sender.send(batch).is_err() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}
