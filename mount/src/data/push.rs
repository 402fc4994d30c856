//! Pushes small files into the kernel's page cache before they are requested.
//!
//! Most files are so small that a request and its answer cost far more than their bytes: `cp -r` and `grep -r` spend
//! their time waiting. A program that reads one file of a directory usually reads the next ones too, and then those of
//! the directory that it lists next. So these files are decoded and handed to the kernel, which then has nothing to
//! request. Listings without reads (`find`, `ls -lR`) push nothing.
//!
//! One file of each batch, the marker, is left out on purpose. The other files cause no requests, so the request for
//! the marker tells how far the reader has come, in time to prepare the next batch while the rest of this one is read.
//!
//! Nothing can become stale: a file version never changes, and a file is handed over whole. The kernel refuses a file
//! that it does not know or does not want, and nothing is lost. The call may have to wait for a page until a read of
//! that page is answered, so it is made in a thread of its own, which answers no requests.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use fuser::INodeNo;
use fuser::Notifier;

use bygone_core::id::NodeId;
use bygone_core::read::FileMap;

use crate::caches::recent::Recent;
use crate::data::ahead;
use crate::data::ahead::Streams;
use crate::data::gate::Gate;
use crate::data::pool::Pool;
use crate::tree::Tree;
use crate::tree::folders::Around;
use crate::tree::inode::Inode;
use crate::tree::operation_error::OperationError;

/// The longest file that is pushed.
pub const FILE_BYTES_MAX: u64 = 128 << 10;
/// How many directories have their streams followed.
const DIRECTORIES_KEPT: usize = 256;
/// The most bytes in one batch.
const BATCH_BYTES_MAX: u64 = 2 << 20;
/// The most hints that wait to be taken.
const HINTS_MAX: usize = 8;
/// For how many files it is remembered whether they were read or pushed.
const NOTES_KEPT: usize = 4_096;

/// How many files of a directory are pushed before its listing ends, if memory holds them. A reader begins with these.
const HELD_FILES: usize = 6;
/// How many listings after a read count as made by its reader, which may descend some directories before it reads on.
const LISTINGS_AFTER_READ: u32 = 8;
/// How many of these may be pushed whole, before one needs a marker to tell that reading goes on.
const LISTINGS_UNMARKED: u32 = 3;
/// The most batches that are pushed in part.
const BATCHES_MAX: usize = 8;

/// An event that tells what will be read next.
#[derive(Debug, Clone, Copy)]
enum Hint {
    /// This file version is being read.
    Read(u64),
    /// The kernel has been told about this file version and those after it in its directory. If all of them were
    /// pushed, nothing would tell whether they are read, so one is left out from time to time.
    Listed { version: u64, needs_marker: bool },
}

/// The last thing that happened to a file version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    /// It was read.
    Read,
    /// It was pushed, or is about to be.
    Pushed,
}

/// Takes hints from the threads that serve the kernel, without ever making them wait.
pub struct Hints {
    sender: Sender<Hint>,
    notes: Arc<Recent<u64, Note>>,
    gate: Arc<Gate>,
    /// How many more listings count as made by a reader.
    listings_left: AtomicU32,
}

/// The end of [`Hints`] for the thread that pushes.
pub struct HintReceiver {
    hints: Receiver<Hint>,
    notes: Arc<Recent<u64, Note>>,
    gate: Arc<Gate>,
}

/// The two ends of a channel for hints.
pub fn hints() -> (Hints, HintReceiver) {
    let (sender, receiver) = bounded(HINTS_MAX);
    let notes = Arc::new(Recent::new(NOTES_KEPT));
    let gate = Arc::new(Gate::default());
    let receiver = HintReceiver { hints: receiver, notes: Arc::clone(&notes), gate: Arc::clone(&gate) };
    (Hints { sender, notes, gate, listings_left: AtomicU32::new(0) }, receiver)
}

impl Hints {
    /// Notes that this file version, of `length` bytes, is being read.
    pub fn read(&self, version: u64, length: u64) {
        if length > FILE_BYTES_MAX {
            return;
        }
        self.listings_left.store(LISTINGS_AFTER_READ, Ordering::Relaxed);
        let before = self.notes.get(version);
        self.notes.insert(version, Note::Read);
        // A file of a batch is no news: its reader was just faster than the pusher.
        if before.is_none() {
            let _ = self.drop_hint(Hint::Read(version));
        }
    }

    /// Calls `answer`, which tells the kernel about this file version and those after it in its directory.
    pub fn listing(&self, version: u64, answer: impl FnOnce()) {
        let less = |left: u32| left.checked_sub(1);
        let Ok(left) = self.listings_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) else {
            return answer();
        };
        // The gate closes before the answer, because the next request follows it at once. The hint is sent after it,
        // because the kernel refuses files that it does not know yet.
        self.gate.close();
        answer();
        let needs_marker = left <= LISTINGS_AFTER_READ - LISTINGS_UNMARKED;
        if !self.drop_hint(Hint::Listed { version, needs_marker }) {
            self.gate.open();
        }
    }

    /// Calls `answer`, which ends a listing, as soon as the first files of the directory are pushed, or at once if that
    /// would take more than microseconds.
    pub fn after_first_files(&self, answer: impl FnOnce() + Send + 'static) {
        self.gate.pass(Box::new(answer));
    }

    /// Sends a hint, unless too many wait already or the receiver is gone. Returns whether it was sent.
    fn drop_hint(&self, hint: Hint) -> bool {
        self.sender.try_send(hint).is_ok()
    }
}

/// Decides what to push.
struct Planner {
    tree: Arc<Tree>,
    directories: Recent<NodeId, Streams>,
}

/// File versions, and the places of their bytes.
type Batch = Vec<(u64, FileMap)>;

/// Starts the thread that pushes. It ends when its [`Hints`] are dropped.
pub fn start(tree: Arc<Tree>, pool: Arc<Pool>, notifier: Notifier, hints: HintReceiver) -> io::Result<()> {
    let HintReceiver { hints, notes, gate } = hints;
    let mut pusher = Pusher { planner: Planner::new(tree), pool, notifier, notes, gate, batches: VecDeque::new() };
    let work = move || {
        // An error here occurs again when the file is read, and is reported then.
        let attempt = |pusher: &mut Pusher, hint| {
            let _ = catch_unwind(AssertUnwindSafe(|| pusher.take(hint)));
            pusher.gate.open();
        };
        while let Ok(hint) = hints.recv() {
            attempt(&mut pusher, hint);
            // A new hint comes first, because its reader is waiting now.
            while !pusher.batches.is_empty() {
                match hints.try_recv() {
                    Ok(hint) => attempt(&mut pusher, hint),
                    Err(_) => _ = catch_unwind(AssertUnwindSafe(|| pusher.push_next())),
                }
            }
        }
    };
    thread::Builder::new().name("push".to_owned()).spawn(work).map(|_| ())
}

/// The thread that pushes.
struct Pusher {
    planner: Planner,
    pool: Arc<Pool>,
    notifier: Notifier,
    notes: Arc<Recent<u64, Note>>,
    gate: Arc<Gate>,
    /// The files that are left to push, the newest batch last.
    batches: VecDeque<VecDeque<(u64, FileMap)>>,
}

impl Pusher {
    fn take(&mut self, hint: Hint) -> Result<(), OperationError> {
        let batch = self.planner.take(hint)?;
        if batch.is_empty() {
            return Ok(());
        }
        for (version, _) in &batch {
            if self.notes.get(*version).is_none() {
                self.notes.insert(*version, Note::Pushed);
            }
        }
        self.pool.prepare(batch.iter().map(|(_, map)| map));
        let mut batch = VecDeque::from(batch);
        for _ in 0..HELD_FILES {
            let Some(bytes) = batch.front().and_then(|(_, map)| self.pool.read_all_cached(map)) else { break };
            let Some((version, _)) = batch.pop_front() else { break };
            self.push(version, &bytes)?;
        }
        self.batches.push_back(batch);
        if self.batches.len() > BATCHES_MAX {
            self.batches.pop_front();
        }
        Ok(())
    }

    /// Pushes one file of the newest batch.
    fn push_next(&mut self) -> Result<(), OperationError> {
        let next = self.batches.back_mut().and_then(VecDeque::pop_front);
        let Some((version, map)) = next else {
            self.batches.pop_back();
            return Ok(());
        };
        // If the reader was faster, the file is skipped to get ahead of it.
        if self.notes.get(version) == Some(Note::Read) {
            return Ok(());
        }
        let bytes = match self.pool.read_all_cached(&map) {
            Some(bytes) => bytes,
            None => self.gate.while_open(|| self.pool.read_all(&map))?,
        };
        self.push(version, &bytes)
    }

    fn push(&self, version: u64, bytes: &[u8]) -> Result<(), OperationError> {
        let number = Inode::File(version).number()?;
        self.notifier.store(INodeNo(number), 0, bytes).map_err(|_| OperationError::Stale)
    }
}

impl Planner {
    fn new(tree: Arc<Tree>) -> Planner {
        Planner { tree, directories: Recent::new(DIRECTORIES_KEPT) }
    }

    fn take(&mut self, hint: Hint) -> Result<Batch, OperationError> {
        match hint {
            Hint::Read(version) => self.look_around(version, true, false),
            Hint::Listed { version, needs_marker } => self.look_around(version, false, needs_marker),
        }
    }

    fn small_files(&self, around: &Around, places: Range<u64>) -> Result<Batch, OperationError> {
        self.tree.moments().with(|view, _| around.small_files(view, places, FILE_BYTES_MAX))
    }

    /// The files that are likely to be read after `version`, and `version` itself unless it was read.
    fn look_around(&self, version: u64, was_read: bool, needs_marker: bool) -> Result<Batch, OperationError> {
        let Some(around) = self.tree.around(version)? else { return Ok(Vec::new()) };
        let (place, entries) = (around.place(), around.entries());
        let mut streams = self.directories.get(around.node()).unwrap_or_default();
        let plan = streams.step(&ahead::DIRECTORY, place..place + u64::from(was_read));
        self.directories.insert(around.node(), streams);
        let places = plan.start.min(entries)..plan.end.min(entries);
        let is_last = places.end == entries;
        let mut batch = within(BATCH_BYTES_MAX, self.small_files(&around, places)?);
        // The marker. At the end of a directory it is needed only to tell that the reading of directories goes on.
        if !is_last && !batch.is_empty() {
            batch.remove(batch.len() / 2);
        } else if needs_marker {
            batch.pop();
        }
        Ok(batch)
    }
}

/// The first of `files` that together are no longer than `bytes_max`.
fn within(bytes_max: u64, mut files: Batch) -> Batch {
    let mut bytes = 0u64;
    let fit = files.iter().take_while(|(_, map)| {
        bytes = bytes.saturating_add(map.length());
        bytes <= bytes_max
    });
    let count = fit.count();
    files.truncate(count);
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Node;
    use crate::testing::Sample;
    use crate::testing::noise;

    /// A directory of `count` nodes: small files, but every tenth is too long, empty or a link.
    fn planner(count: u64) -> (Sample, Planner, Vec<u64>) {
        let sample = Sample::new();
        let node = |i: u64| match i % 30 {
            9 => Node::File(noise(i, FILE_BYTES_MAX as usize + 1)),
            19 => Node::File(Vec::new()),
            29 => Node::Link("elsewhere"),
            _ => Node::File(noise(i, 1_000)),
        };
        sample.backup(1, &[], (0..count).map(|i| (format!("{i:03}"), node(i))).collect());
        let tree = Arc::new(sample.tree());
        let root = tree.lookup(2, b"1970-01-01T00-00-01Z").unwrap().unwrap().number;
        let version = |i: u64| {
            let number = tree.lookup(root, format!("{i:03}").as_bytes()).unwrap().unwrap().number;
            let Some(Inode::File(version)) = Inode::decode(number) else { panic!("{i}") };
            (i % 10 != 9).then_some(version)
        };
        let versions = (0..count).filter_map(version).collect();
        (sample, Planner::new(tree), versions)
    }

    fn versions(batch: Batch) -> Vec<u64> {
        batch.into_iter().map(|(version, _)| version).collect()
    }

    /// Reads the files in order. Returns how many had to be requested because they were not pushed, and all that were
    /// pushed.
    fn walk(planner: &mut Planner, files: &[u64], listed: Vec<u64>) -> (usize, Vec<u64>) {
        let mut pushed = listed;
        let mut requested = 0;
        for file in files {
            if !pushed.contains(file) {
                requested += 1;
                pushed.extend(versions(planner.take(Hint::Read(*file)).unwrap()));
            }
        }
        (requested, pushed)
    }

    #[test]
    fn a_directory_read_in_order_is_pushed_once() {
        let (_sample, mut planner, files) = planner(240);
        let (requested, mut pushed) = walk(&mut planner, &files, Vec::new());
        assert!(requested <= 12, "{requested} of {} files were requested", files.len());
        assert_eq!(pushed.len() + requested, files.len(), "each file is requested or pushed");
        pushed.sort();
        pushed.dedup();
        assert_eq!(pushed.len() + requested, files.len(), "and none is pushed twice");
    }

    #[test]
    fn a_listed_directory_is_pushed_except_for_markers() {
        for (needs_marker, pushed) in [(true, 7), (false, 8)] {
            let (_sample, mut planner, files) = planner(8);
            let listed = versions(planner.take(Hint::Listed { version: files[0], needs_marker }).unwrap());
            assert_eq!(listed, files[..pushed], "the marker is the last file");
        }
    }

    #[test]
    fn listings_are_hints_only_while_files_are_read() {
        let (hints, receiver) = hints();
        // The hint that was sent, as whether it needs a marker.
        let listed = || {
            let mut answered = false;
            hints.listing(7, || answered = true);
            assert!(answered);
            let marked = |hint| match hint {
                Hint::Listed { version: 7, needs_marker } => Some(needs_marker),
                _ => None,
            };
            let last = receiver.hints.try_iter().filter_map(marked).last();
            receiver.gate.open();
            last
        };
        assert_eq!(listed(), None, "nothing was read yet");
        hints.read(3, FILE_BYTES_MAX + 1);
        assert_eq!(listed(), None, "only a long file was read, and long files are not pushed");
        hints.read(3, 1);
        let markers: Vec<_> = (0..20).map_while(|_| listed()).collect();
        let (unmarked, marked) = markers.split_at(LISTINGS_UNMARKED as usize);
        assert_eq!(markers.len(), LISTINGS_AFTER_READ as usize, "then nothing was read for long");
        assert!(unmarked.iter().all(|needs_marker| !needs_marker) && marked.iter().all(|needs_marker| *needs_marker));
    }

    #[test]
    fn listings_end_late_only_if_the_pusher_took_the_hint() {
        let (hints, receiver) = hints();
        let (sender, ended) = crossbeam_channel::unbounded();
        let end = || {
            let sender = sender.clone();
            hints.after_first_files(move || sender.send(()).unwrap());
            ended.try_recv().is_ok()
        };
        assert!(end(), "nothing is read");
        hints.read(3, 1);
        hints.listing(7, || assert!(!end(), "the gate closes before the kernel learns of the files"));
        assert!(!end());
        receiver.gate.open();
        assert_eq!(ended.try_iter().count(), 2);
        for _ in 0..HINTS_MAX {
            hints.read(4, 1);
            hints.listing(7, || ());
        }
        receiver.gate.open();
        hints.listing(7, || ());
        assert!(end(), "there were too many hints, so the last was not sent");
        drop(receiver);
        hints.read(5, 1);
        hints.listing(7, || ());
        assert!(end(), "the pusher is gone");
    }

    #[test]
    fn batches_leave_out_what_does_not_fit() {
        let (_sample, planner, files) = planner(30);
        let around = planner.tree.around(files[0]).unwrap().unwrap();
        let all = planner.small_files(&around, 0..around.entries()).unwrap();
        assert_eq!(all.len(), 27, "no links, no long and no empty files");
        assert_eq!(versions(within(3_500, all)), files[..3]);
        let root = planner.tree.around(u64::MAX >> 8).unwrap();
        assert!(root.is_none(), "no such version");
    }
}
