//! The worker threads of a restore and the queue that feeds them.
//!
//! One thread walks the snapshot and hands work over in batches of neighbours, which share frames of the repository, so
//! that each frame is decoded by one worker. The queue is bounded, and so is what waits in it: entries, but no content.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;

use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::error::Error;
use bygone_core::read::View;

use crate::restore::directories::Index;
use crate::restore::directories::Place;
use crate::restore::directories::ROOT;
use crate::restore::files::big::Big;
use crate::restore::files::existing::Verdict;
use crate::restore::files::file;
use crate::restore::files::verify;
use crate::restore::files::verify::Stretch;
use crate::restore::node;
use crate::restore::report::At;
use crate::restore::report::Failure;
use crate::restore::shared::Shared;

/// Most entries in a batch.
const BATCH_ENTRIES_MAX: usize = 64;
/// A batch with this many bytes of content is handed over.
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Most directories that a batch keeps open.
const BATCH_PLACES_MAX: usize = 8;

/// An entry and where it goes.
pub(in crate::restore) struct Job {
    pub(in crate::restore) place: Arc<Place>,
    pub(in crate::restore) directory: Index,
    pub(in crate::restore) entry: Arc<Entry>,
    pub(in crate::restore) verdict: Verdict,
}

impl Job {
    pub(in crate::restore) fn at(&self) -> At {
        At::In(self.directory, self.entry.name.clone())
    }
}

/// What a worker does.
pub(in crate::restore) enum Work {
    /// Restores a whole entry.
    Entry(Job),
    /// Writes a stretch of a file that is too big for one worker.
    Part(Arc<Big>, Range<u64>),
    /// Compares a restored file with the repository, or a stretch of it.
    Check(Job, Option<Stretch>),
}

/// Takes work, from the one thread that walks.
pub(in crate::restore) struct Feeder<'a> {
    sender: Sender<Vec<Work>>,
    shared: &'a Shared<'a>,
    batch: Vec<Work>,
    bytes: u64,
    places: usize,
    last: Option<(Index, usize)>,
}

impl Feeder<'_> {
    /// Hands over work with so many bytes of content, in `directory`; blocks while the workers have enough.
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

    fn flush(&mut self) -> Result<(), Error> {
        (self.bytes, self.places, self.last) = (0, 0, None);
        let batch = std::mem::take(&mut self.batch);
        // The reason is in the tally, and told from there.
        if self.shared.is_stopped() || self.sender.send(batch).is_err() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

/// Runs `body`, which feeds the workers, and returns when all work is done.
pub(in crate::restore) fn run<'a>(
    shared: &'a Shared<'a>,
    body: impl FnOnce(&mut Feeder<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let threads = match shared.options.threads {
        // Before a far store they wait more than they work.
        0 => thread::available_parallelism().map_or(2, usize::from).max(shared.reader.frames().readers()),
        threads => threads,
    };
    let (sender, receiver) = bounded(threads * 2);
    thread::scope(|scope| {
        for _ in 0..threads {
            let receiver = receiver.clone();
            thread::Builder::new().spawn_scoped(scope, move || serve(shared, &receiver)).map_err(|source| {
                Error::Local { doing: "start a thread for", path: "the restore".to_owned(), source }
            })?;
        }
        drop(receiver);
        let mut feeder = Feeder { sender, shared, batch: Vec::new(), bytes: 0, places: 0, last: None };
        let result = body(&mut feeder).and_then(|()| feeder.flush());
        if result.is_err() {
            shared.halt();
        }
        result
    })?;
    // Workers may have failed after the last piece of work was handed over; the tally says why.
    if shared.is_stopped() { Err(Error::Cancelled) } else { Ok(()) }
}

/// A worker's life.
fn serve(shared: &Shared<'_>, receiver: &Receiver<Vec<Work>>) {
    let view = match shared.reader.view() {
        Ok(view) => view,
        Err(error) => return shared.stop(At::Directory(ROOT), Failure::Stop(error)),
    };
    for work in receiver.iter().flatten() {
        if let Err(error) = shared.watch.check() {
            shared.stop(At::Directory(ROOT), Failure::Stop(error));
        }
        if !shared.is_stopped() {
            perform(shared, &view, work);
        }
    }
}

fn perform(shared: &Shared<'_>, view: &View, work: Work) {
    match work {
        Work::Entry(job) => {
            if let Err(failure) = restore(shared, view, &job) {
                shared.fail_entry(&job, failure);
            }
        }
        Work::Part(big, range) => {
            big.write(shared, range);
            finish_big(shared, big);
        }
        Work::Check(job, stretch) => verify::check(shared, view, &job, stretch),
    }
}

/// Gives back a share of a big file; the last one to do so completes it.
pub(in crate::restore) fn finish_big(shared: &Shared<'_>, big: Arc<Big>) {
    if let Some(big) = Arc::into_inner(big)
        && let Err(failed) = big.finish(shared)
    {
        let (job, failure) = *failed;
        shared.fail_entry(&job, failure);
    }
}

fn restore(shared: &Shared<'_>, view: &View, job: &Job) -> Result<(), Failure> {
    match (&job.verdict, &job.entry.kind) {
        (Verdict::Adjust, _) => node::adjust(shared, job),
        (_, Kind::File(content)) => file::restore(shared, view, job, content),
        _ => node::restore(shared, job),
    }
}
