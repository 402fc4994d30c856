//! Puts small files into the kernel's page cache before anybody asks for them.
//!
//! Most files are so small that the way to us and back costs far more than their bytes: `cp -r` and `grep -r` spend
//! their time in waiting. Whoever reads a file of a directory reads the next ones too, and whoever reads files of one
//! directory reads those of the next one that is listed. So these are decoded and handed to the kernel, which then has
//! nothing to ask. A listing after which nothing was read (`find`, `ls -lR`) pushes nothing.
//!
//! One file in each batch is left out on purpose, the marker. As nothing is asked for the others, the request for that
//! one is what tells how far the reader has come, in time to make the next batch while the rest of this one is read.
//!
//! Nothing can go stale: a file version never changes, and what is handed over is all of it. A file that the kernel does
//! not know, or does not want, is refused, and nothing is lost. The call may wait for a page until a read of it is
//! answered, so it is made in a thread of its own, which answers no request.

use std::collections::VecDeque;
use std::io;
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
use crate::tree::inode::Inode;
use crate::tree::operation_error::OperationError;

/// The longest file that is pushed.
pub const FILE_BYTES_MAX: u64 = 128 << 10;
/// Directories whose streams are followed.
const DIRECTORIES_KEPT: usize = 256;
/// Most bytes of one batch.
const BATCH_BYTES_MAX: u64 = 2 << 20;
/// Most hints that wait to be taken.
const HINTS_MAX: usize = 8;
/// Of how many files it is known what was done to them.
const NOTES_KEPT: usize = 4_096;

/// How many files of a directory are pushed before its listing ends, if memory holds them: its reader begins with these.
const HELD_FILES: usize = 6;
/// How many listings after a read are taken for those of its reader, who goes down some directories before it reads on.
const LISTINGS_AFTER_READ: u32 = 8;
/// How many of these may be pushed whole, before one of them must tell by its marker that reading goes on.
const LISTINGS_UNMARKED: u32 = 3;
/// Batches that are begun and not pushed to their end.
const BATCHES_MAX: usize = 8;

/// Something that tells what will be read next.
#[derive(Debug, Clone, Copy)]
enum Hint {
    /// This file version is being read.
    Read(u64),
    /// The kernel has been told of this file version and of those after it in its directory. If all are pushed, nothing
    /// tells whether they are read: so one is left out from time to time.
    Listed { version: u64, needs_marker: bool },
}

/// What was done to a file version lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    /// Somebody has read it.
    Read,
    /// It is pushed, or is about to be.
    Pushed,
}

/// Where the threads that serve the kernel drop hints, without ever waiting.
pub struct Hints {
    sender: Sender<Hint>,
    notes: Arc<Recent<u64, Note>>,
    gate: Arc<Gate>,
    /// How many more listings count as made by somebody who reads.
    listings_left: AtomicU32,
}

/// The other end of [`Hints`].
pub struct HintReceiver {
    hints: Receiver<Hint>,
    notes: Arc<Recent<u64, Note>>,
    gate: Arc<Gate>,
}

/// The two ends of the way that hints take.
pub fn hints() -> (Hints, HintReceiver) {
    let (sender, receiver) = bounded(HINTS_MAX);
    let notes = Arc::new(Recent::new(NOTES_KEPT));
    let gate = Arc::new(Gate::default());
    let receiver = HintReceiver { hints: receiver, notes: Arc::clone(&notes), gate: Arc::clone(&gate) };
    (Hints { sender, notes, gate, listings_left: AtomicU32::new(0) }, receiver)
}

impl Hints {
    /// This file version, of `length` bytes, is being read.
    pub fn read(&self, version: u64, length: u64) {
        if length > FILE_BYTES_MAX {
            return;
        }
        self.listings_left.store(LISTINGS_AFTER_READ, Ordering::Relaxed);
        let before = self.notes.get(version);
        self.notes.insert(version, Note::Read);
        // A file of a batch tells nothing new: its reader was just faster than we.
        if before.is_none() {
            let _ = self.drop_hint(Hint::Read(version));
        }
    }

    /// Calls `answer`, which tells the kernel of this file version and of those after it in its directory.
    pub fn listing(&self, version: u64, answer: impl FnOnce()) {
        let less = |left: u32| left.checked_sub(1);
        let Ok(left) = self.listings_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) else {
            return answer();
        };
        // Closed before the answer, as the next request follows at once; told after it, as the kernel refuses what it does
        // not know.
        self.gate.close();
        answer();
        let needs_marker = left <= LISTINGS_AFTER_READ - LISTINGS_UNMARKED;
        if !self.drop_hint(Hint::Listed { version, needs_marker }) {
            self.gate.open();
        }
    }

    /// Calls `answer`, which ends a listing, when the first files of it are pushed; at once unless that is a matter of
    /// microseconds.
    pub fn after_first_files(&self, answer: impl FnOnce() + Send + 'static) {
        self.gate.pass(Box::new(answer));
    }

    /// It is only a hint: it is lost if there are too many already, or if nobody takes them.
    fn drop_hint(&self, hint: Hint) -> bool {
        self.sender.try_send(hint).is_ok()
    }
}

/// Decides what to push.
struct Planner {
    tree: Arc<Tree>,
    directories: Recent<NodeId, Streams>,
}

/// File versions, and where their bytes are.
type Batch = Vec<(u64, FileMap)>;

/// Starts the thread that pushes. It ends when its [`Hints`] are dropped.
pub fn start(tree: Arc<Tree>, pool: Arc<Pool>, notifier: Notifier, hints: HintReceiver) -> io::Result<()> {
    let HintReceiver { hints, notes, gate } = hints;
    let mut pusher = Pusher { planner: Planner::new(tree), pool, notifier, notes, gate, batches: VecDeque::new() };
    let work = move || {
        // What fails here fails again where somebody waits for it, and is told there.
        let attempt = |pusher: &mut Pusher, hint| {
            let _ = catch_unwind(AssertUnwindSafe(|| pusher.take(hint)));
            pusher.gate.open();
        };
        while let Ok(hint) = hints.recv() {
            attempt(&mut pusher, hint);
            // A new hint goes first: its reader is there now.
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
    /// What is left to be pushed, the newest batch last.
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
        // A reader who was faster is not followed but overtaken.
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

    /// The files that are likely to be read after `version`; that one too unless it was read.
    fn look_around(&self, version: u64, was_read: bool, needs_marker: bool) -> Result<Batch, OperationError> {
        let Some(around) = self.tree.neighbours(version)? else { return Ok(Vec::new()) };
        let place = around.place() as u64;
        let mut streams = self.directories.get(around.node()).unwrap_or_default();
        let plan = streams.step(&ahead::DIRECTORY, place..place + u64::from(was_read));
        self.directories.insert(around.node(), streams);
        let index = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(around.len());
        let entries = around.entries(index(plan.start)..index(plan.end));
        let mut batch = within(BATCH_BYTES_MAX, self.tree.small_files(entries, FILE_BYTES_MAX)?);
        // The marker. The end of a directory needs none but to tell that the reading of directories goes on.
        if index(plan.end) < around.len() && !batch.is_empty() {
            batch.remove(batch.len() / 2);
        } else if needs_marker {
            batch.pop();
        }
        Ok(batch)
    }
}

/// The first of `files` that are not longer than `bytes_max` together.
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

    /// A directory of `count` small files; every tenth is too long, empty or a link.
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

    /// Reads the files in order, as far as they were not pushed: how many had to be asked for, and all that was pushed.
    fn walk(planner: &mut Planner, files: &[u64], listed: Vec<u64>) -> (usize, Vec<u64>) {
        let mut pushed = listed;
        let mut asked = 0;
        for file in files {
            if !pushed.contains(file) {
                asked += 1;
                pushed.extend(versions(planner.take(Hint::Read(*file)).unwrap()));
            }
        }
        (asked, pushed)
    }

    #[test]
    fn a_directory_read_in_order_is_pushed_once() {
        let (_sample, mut planner, files) = planner(240);
        let (asked, mut pushed) = walk(&mut planner, &files, Vec::new());
        assert!(asked <= 12, "{asked} of {} files were asked for", files.len());
        assert_eq!(pushed.len() + asked, files.len(), "each file is asked for or pushed");
        pushed.sort();
        pushed.dedup();
        assert_eq!(pushed.len() + asked, files.len(), "and none is pushed twice");
    }

    #[test]
    fn a_listed_directory_is_pushed_except_for_markers() {
        for (needs_marker, pushed) in [(true, 7), (false, 8)] {
            let (_sample, mut planner, files) = planner(8);
            let listed = versions(planner.take(Hint::Listed { version: files[0], needs_marker }).unwrap());
            assert_eq!(listed, files[..pushed], "the last tells that reading goes on");
        }
    }

    #[test]
    fn listings_are_hints_only_while_files_are_read() {
        let (hints, receiver) = hints();
        // What was told, and whether it needs a marker.
        let listed = || {
            let mut answered = false;
            hints.listing(7, || answered = true);
            assert!(answered);
            let marked = |hint| match hint {
                Hint::Listed { version: 7, needs_marker } => Some(needs_marker),
                _ => None,
            };
            let told = receiver.hints.try_iter().filter_map(marked).last();
            receiver.gate.open();
            told
        };
        assert_eq!(listed(), None, "nothing was read yet");
        hints.read(3, FILE_BYTES_MAX + 1);
        assert_eq!(listed(), None, "only a long file was read, and long files are not pushed");
        hints.read(3, 1);
        let told: Vec<_> = (0..20).map_while(|_| listed()).collect();
        let (unmarked, marked) = told.split_at(LISTINGS_UNMARKED as usize);
        assert_eq!(told.len(), LISTINGS_AFTER_READ as usize, "then nothing was read for long");
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
        assert!(end(), "nobody reads");
        hints.read(3, 1);
        hints.listing(7, || assert!(!end(), "the gate is closed before the kernel hears of the files"));
        assert!(!end());
        receiver.gate.open();
        assert_eq!(ended.try_iter().count(), 2);
        for _ in 0..HINTS_MAX {
            hints.read(4, 1);
            hints.listing(7, || ());
        }
        receiver.gate.open();
        hints.listing(7, || ());
        assert!(end(), "there were too many hints: nobody was told");
        drop(receiver);
        hints.read(5, 1);
        hints.listing(7, || ());
        assert!(end(), "nobody is there");
    }

    #[test]
    fn batches_leave_out_what_does_not_fit() {
        let (_sample, planner, files) = planner(30);
        let around = planner.tree.neighbours(files[0]).unwrap().unwrap();
        let all = planner.tree.small_files(around.entries(0..usize::MAX), FILE_BYTES_MAX).unwrap();
        assert_eq!(all.len(), 27, "no links, no long and no empty files");
        assert_eq!(versions(within(3_500, all)), files[..3]);
        let root = planner.tree.neighbours(u64::MAX >> 8).unwrap();
        assert!(root.is_none(), "no such version");
    }
}
