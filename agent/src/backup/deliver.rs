//! The end of the walk: the thread that owns the writer delivers everything in tree order.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;

use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::watch::Watch;
use bygone_core::write::Piece;

use crate::backup::folder::Folder;
use crate::backup::plan::Batch;
use crate::backup::plan::Step;
use crate::backup::read::Closed;
use crate::backup::read::Event;
use crate::backup::read::FileReader;
use crate::backup::read::Task;
use crate::backup::report::Counts;
use crate::backup::sink::Sink;
use crate::backup::stat::Stat;

/// How often to check for cancellation while waiting for the next piece of work.
const PATIENCE: Duration = Duration::from_millis(100);

/// Delivers to a sink.
pub(super) struct Delivery<'a, 's, 'w> {
    pub(super) sink: Sink<'s, 'w>,
    /// Reads files that the parent snapshot has and the repository has lost.
    pub(super) reader: Option<FileReader<'a>>,
    pub(super) watch: &'a Watch,
    pub(super) counts: Counts,
    /// Bytes of the file whose pieces are arriving.
    pub(super) file_bytes: u64,
}

/// The answers of the job of one batch, one by one.
struct Answers<'a> {
    receiver: Option<Receiver<Vec<Event>>>,
    events: VecDeque<Event>,
    watch: &'a Watch,
}

impl Answers<'_> {
    fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let events = self.receiver.as_ref().and_then(|receiver| receive(receiver, self.watch).transpose());
            match events {
                Some(events) => self.events = events?.into(),
                // Its thread has panicked. The panic continues as soon as all threads have ended.
                None => return Err(Error::Cancelled),
            }
        }
    }
}

/// The next message, or `None` after the last.
fn receive<T>(receiver: &Receiver<T>, watch: &Watch) -> Result<Option<T>> {
    loop {
        watch.check()?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(message) => return Ok(Some(message)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

impl Delivery<'_, '_, '_> {
    /// Delivers all batches.
    pub(super) fn run(mut self, batches: Receiver<Batch>) -> Result<Counts> {
        while let Some(batch) = receive(&batches, self.watch)? {
            let mut answers = Answers { receiver: batch.answers, events: VecDeque::new(), watch: self.watch };
            for step in batch.steps {
                self.step(step, &mut answers)?;
            }
        }
        Ok(self.counts)
    }

    fn step(&mut self, step: Step, answers: &mut Answers<'_>) -> Result<()> {
        match step {
            Step::Begin => return self.sink.directory_begin(),
            Step::End(end) => {
                self.counts.directories += 1;
                self.sink.directory_end(*end)?;
            }
            Step::Same(entry, folder) => self.same(entry, folder)?,
            Step::Add(entry) => {
                self.counts.others += u64::from(entry.withheld().is_none());
                self.sink.add(*entry)?;
            }
            Step::Read(known) => while !self.event(answers.next()?, known)? {},
            Step::Skipped(known, bytes) => {
                self.counts.bytes_read += bytes;
                count(&self.watch.bytes, bytes);
                self.read_one(known, bytes);
            }
        }
        count(&self.watch.entries, 1);
        Ok(())
    }

    /// Takes an event of a file from a reader. Returns whether it was the last one.
    fn event(&mut self, event: Event, known: bool) -> Result<bool> {
        match event {
            Event::Piece(piece) => {
                let bytes = match &piece {
                    Piece::Block(block) => block.bytes().len() as u64,
                    Piece::Hole(length) => *length,
                };
                self.file_bytes += bytes;
                count(&self.watch.bytes, bytes);
                self.sink.file_piece(piece)?;
                return Ok(false);
            }
            Event::Restart => {
                self.forget();
                return Ok(false);
            }
            Event::Lost => {
                self.counts.gone += u64::from(known);
                self.forget();
            }
            Event::Unreadable(entry) => {
                self.forget();
                self.sink.add(*entry)?;
            }
            Event::File(name, meta) => {
                self.counts.bytes_read += meta.size;
                self.read_one(known, meta.size);
                self.file_bytes = 0;
                self.sink.file_end(name, *meta)?;
            }
            Event::Other(entry) => {
                self.counts.others += 1;
                self.sink.add(*entry)?;
            }
        }
        Ok(true)
    }

    fn forget(&mut self) {
        self.watch.bytes.fetch_sub(std::mem::take(&mut self.file_bytes), Ordering::Relaxed);
        self.sink.file_abandon();
    }

    fn read_one(&mut self, known: bool, bytes: u64) {
        let files = if known { &mut self.counts.files_changed } else { &mut self.counts.files_new };
        *files += 1;
        self.counts.bytes += bytes;
        count(&self.watch.files_new, 1);
    }

    fn same(&mut self, entry: Arc<Entry>, folder: Arc<Folder>) -> Result<()> {
        let file_bytes = (entry.file_type() == Some(FileType::File)).then_some(entry.meta.size);
        match (self.sink.unchanged(&entry)?, file_bytes) {
            (true, Some(bytes)) => {
                self.counts.files_unchanged += 1;
                self.counts.bytes += bytes;
                count(&self.watch.bytes, bytes);
                Ok(())
            }
            (false, Some(_)) => self.read_again(&entry, folder),
            // Whether its content is still stored, only a newer bygone knows.
            (false, None) if entry.withheld().is_some() => self.read_again(&entry, folder),
            (kept, None) => {
                self.counts.others += 1;
                if kept { Ok(()) } else { self.sink.add(Entry::clone(&entry)) }
            }
        }
    }

    /// Reads an unchanged file of which a block is lost. This is rare, so it happens here and now.
    fn read_again(&mut self, entry: &Entry, folder: Arc<Folder>) -> Result<()> {
        let Some(reader) = self.reader.clone() else { return Ok(()) };
        let name = &entry.name;
        let found = folder.fd().and_then(|fd| Stat::of_child(fd.as_fd(), name.as_bytes()).map(|stat| (fd, stat)));
        let (fd, stat) = match found {
            Ok(found) => found,
            Err(errno) => {
                let unreadable = reader.describe.unreadable(&folder, name, errno, None, Some(entry));
                let event = unreadable.map_or(Event::Lost, |entry| Event::Unreadable(Box::new(entry)));
                return self.event(event, true).map(|_| ());
            }
        };
        let mut failed = None;
        let task = Task { folder, fd, name: name.clone(), stat };
        let closed = reader.read(&task, &mut |event| {
            let done = self.watch.check().and_then(|()| self.event(event, true));
            done.map(|_| ()).map_err(|error| {
                failed = Some(error);
                Closed
            })
        });
        match (closed, failed) {
            (Err(Closed), Some(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Adds to a counter of progress.
pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
