//! Answers reads, from memory at once or else by a pool of threads that fetch, open and decompress.
//!
//! A thread that takes requests from the kernel must never wait, because one slow read would stall every `stat` behind
//! it. So a read that memory cannot answer is queued with its answer, and the thread goes on. The pool works through
//! two queues:
//!
//! - demand: reads that the kernel waits for, first come, first served. Two requests for one frame decode it once, in
//!   [`Reader`].
//! - ahead: frames that are likely to be requested next (module `ahead`). They are decoded only while no demand waits,
//!   and never by all threads at once, so that one is free for the next demand. The queue is bounded. Guesses that do
//!   not fit are dropped.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;

use bygone_core::limits;
use bygone_core::lock::lock;
use bygone_core::lock::wait;
use bygone_core::read::FileMap;
use bygone_core::read::FrameAt;
use bygone_core::read::RUN_FRAMES_MAX;
use bygone_core::read::Reader;
use bygone_core::read::Verify;

use crate::caches::recent::Recent;
use crate::data::ahead;
use crate::data::ahead::Rules;
use crate::data::ahead::Streams;
use crate::tree::operation_error::OperationError;

/// How many files, and how many volumes, have their streams followed.
const STREAMS_KEPT: usize = 1_024;
/// The most frames in the queue of guesses.
const AHEAD_FRAMES_MAX: usize = 96;

/// The longest file that is fetched whole from a far store when its start is read.
const FAR_FILE_BYTES: u64 = 4 << 20;
/// Guesses may take one part in this many of the cache.
const AHEAD_SHARE: u64 = 4;

/// Called with the bytes that were read.
type Answer = Box<dyn FnOnce(Result<Vec<u8>, OperationError>) + Send>;

/// The pool.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    reader: Arc<Reader>,
    queues: Mutex<Queues>,
    work: Condvar,
    workers: usize,
    rules: Guesses,
    files: Recent<u64, Streams>,
    volumes: Recent<i64, Streams>,
}

/// How far to read ahead, so that guesses are not dropped from the cache before they are requested.
struct Guesses {
    file: Rules,
    volume: Rules,
    frames_max: usize,
}

impl Guesses {
    fn within(bytes: u64) -> Guesses {
        let frames = (bytes / u64::from(limits::FRAME_BYTES)).max(1);
        let limit = |rules: Rules, max: u64| Rules {
            window_min: rules.window_min.min(max),
            window_max: rules.window_max.min(max),
            window_at_start: rules.window_at_start.min(max),
            ..rules
        };
        Guesses {
            file: limit(ahead::FILE, frames * u64::from(limits::FRAME_BYTES)),
            volume: limit(ahead::VOLUME, frames),
            frames_max: usize::try_from(frames).unwrap_or(AHEAD_FRAMES_MAX).min(AHEAD_FRAMES_MAX),
        }
    }
}

#[derive(Default)]
struct Queues {
    demand: VecDeque<Demand>,
    ahead: VecDeque<FrameAt>,
    /// The frames in `ahead`.
    planned: HashSet<FrameAt>,
    /// Threads at work on a guess.
    guessing: usize,
    closed: bool,
}

impl Queues {
    /// Takes the first guesses, as far as they are consecutive frames, which are decoded together.
    fn next_run(&mut self) -> Vec<FrameAt> {
        let mut run: Vec<FrameAt> = Vec::new();
        while let Some(frame) = self.ahead.front().copied()
            && run.len() < RUN_FRAMES_MAX as usize
            && run.last().is_none_or(|last| (last.volume, last.ordinal + 1) == (frame.volume, frame.ordinal))
        {
            self.ahead.pop_front();
            self.planned.remove(&frame);
            run.push(frame);
        }
        run
    }
}

struct Demand {
    map: Arc<FileMap>,
    offset: u64,
    length: usize,
    answer: Answer,
}

enum Work {
    Demand(Demand),
    Ahead(Vec<FrameAt>),
}

impl Pool {
    /// Starts `threads` threads for a reader that keeps up to `cache_bytes_max` decoded bytes.
    pub fn new(reader: Arc<Reader>, threads: usize, cache_bytes_max: usize) -> io::Result<Pool> {
        let mut rules = Guesses::within(cache_bytes_max as u64 / AHEAD_SHARE);
        if reader.frames().is_far() {
            // Frames fetched ahead take no room in the cache of decoded frames.
            rules.file.window_max = ahead::FAR_WINDOW_BYTES;
        }
        let shared = Arc::new(Shared {
            reader,
            queues: Mutex::new(Queues::default()),
            work: Condvar::new(),
            workers: threads.max(1),
            rules,
            files: Recent::new(STREAMS_KEPT),
            volumes: Recent::new(STREAMS_KEPT),
        });
        let mut pool = Pool { shared, workers: Vec::new() };
        for number in 0..pool.shared.workers {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new().name(format!("decode-{number}"));
            pool.workers.push(worker.spawn(move || shared.work_on())?);
        }
        Ok(pool)
    }

    /// Reads up to `length` bytes at `offset` of the file `number`, fewer only at its end. `answer` is called exactly
    /// once, in this thread if memory holds the bytes, or else in a thread of the pool.
    pub fn read(
        &self,
        number: u64,
        map: Arc<FileMap>,
        offset: u64,
        length: usize,
        answer: impl FnOnce(Result<Vec<u8>, OperationError>) + Send + 'static,
    ) {
        let end = offset.saturating_add(length as u64).min(map.length());
        if offset >= end {
            return answer(Ok(Vec::new()));
        }
        let length = usize::try_from(end - offset).unwrap_or(length);
        let ahead = self.shared.ahead_of(number, &map, offset..end);
        match self.shared.reader.read_cached(&map, offset, length) {
            Some(bytes) => answer(Ok(bytes)),
            None => self.shared.demand(Demand { map, offset, length, answer: Box::new(answer) }),
        }
        self.shared.plan(ahead);
    }
}

impl Pool {
    /// Reads the whole of a small file in the calling thread, which may have to wait.
    pub fn read_all(&self, map: &FileMap) -> Result<Vec<u8>, OperationError> {
        let length = usize::try_from(map.length()).map_err(|_| OperationError::Invalid)?;
        Ok(self.shared.reader.read(map, 0, length, Verify::Seals)?)
    }

    /// Lets the pool decode all of these files ahead, as far as it has time.
    pub fn prepare<'a>(&self, maps: impl IntoIterator<Item = &'a FileMap>) {
        let frames = maps.into_iter().flat_map(|map| self.shared.frames_of(map, 0..map.length()));
        let mut frames: Vec<FrameAt> = frames.collect();
        frames.dedup();
        let after = self.shared.after(&frames);
        frames.extend(after);
        self.shared.plan(frames);
    }

    /// The whole of a small file, if memory holds it. Never waits.
    pub fn read_all_cached(&self, map: &FileMap) -> Option<Vec<u8>> {
        self.shared.reader.read_cached(map, 0, usize::try_from(map.length()).ok()?)
    }
}

/// The `whence` of `lseek` that looks for data.
const SEEK_DATA: i32 = 3;
/// The `whence` of `lseek` that looks for a hole.
const SEEK_HOLE: i32 = 4;

impl Pool {
    /// The next position from `offset` on that has data, or a hole, as `whence` says. The end of a file counts as a
    /// hole.
    pub fn seek(&self, map: &FileMap, offset: i64, whence: i32) -> Result<i64, OperationError> {
        let offset =
            u64::try_from(offset).ok().filter(|offset| *offset < map.length()).ok_or(OperationError::Beyond)?;
        let position = match whence {
            SEEK_DATA => self.shared.reader.data_from(map, offset)?,
            SEEK_HOLE => self.shared.reader.hole_from(map, offset)?,
            _ => return Err(OperationError::Invalid),
        };
        position.and_then(|position| i64::try_from(position).ok()).ok_or(OperationError::Beyond)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queues).closed = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its work, so its result says nothing.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Queues a demand. Data in a far store is fetched first, so decoders never wait for a link and stay free for other
    /// reads.
    fn demand(self: &Arc<Shared>, demand: Demand) {
        let frames = self.reader.frames();
        if !frames.is_far() {
            return self.decode(demand);
        }
        let wanted = self.frames_of(&demand.map, demand.offset..demand.offset.saturating_add(demand.length as u64));
        let shared = Arc::clone(self);
        frames.bring(&wanted, move || shared.decode(demand));
    }

    fn decode(&self, demand: Demand) {
        lock(&self.queues).demand.push_back(demand);
        self.work.notify_one();
    }

    /// The frames that are likely to be requested after `read`.
    fn ahead_of(&self, number: u64, map: &FileMap, read: Range<u64>) -> Vec<FrameAt> {
        let mut frames = Vec::new();
        if read.start > 0 || read.end < map.length() {
            let mut streams = self.files.get(number).unwrap_or_default();
            // A short file is fetched whole, because the first request costs more than the rest of the file.
            let far_short = Rules { window_at_start: FAR_FILE_BYTES, ..self.rules.file };
            let is_short = self.reader.frames().is_far() && map.length() <= FAR_FILE_BYTES;
            let plan = streams.step(if is_short { &far_short } else { &self.rules.file }, read.clone());
            self.files.insert(number, streams);
            frames.extend(self.frames_of(map, plan));
        }
        let touched = self.frames_of(map, read);
        frames.extend(self.after(&touched));
        frames
    }

    /// The frames that are likely to be requested after `touched`, as volumes are read in order.
    fn after(&self, touched: &[FrameAt]) -> Vec<FrameAt> {
        let (Some(first), Some(last)) = (touched.first(), touched.last()) else { return Vec::new() };
        if first.volume != last.volume || first.ordinal > last.ordinal {
            return Vec::new();
        }
        let mut streams = self.volumes.get(first.volume).unwrap_or_default();
        let plan = streams.step(&self.rules.volume, u64::from(first.ordinal)..u64::from(last.ordinal) + 1);
        self.volumes.insert(first.volume, streams);
        let count = if plan.is_empty() { 0 } else { self.reader.frames().count(first.volume).unwrap_or(0) };
        let plan = plan.start..plan.end.min(count.into());
        let frame = |ordinal| Some(FrameAt { volume: first.volume, ordinal: u32::try_from(ordinal).ok()? });
        plan.filter_map(frame).collect()
    }

    /// The frames of a range. If they cannot be found there are none, and a read of the range will report why.
    fn frames_of(&self, map: &FileMap, range: Range<u64>) -> Vec<FrameAt> {
        if range.is_empty() { Vec::new() } else { self.reader.frames_of(map, range).unwrap_or_default() }
    }

    fn plan(&self, mut frames: Vec<FrameAt>) {
        if frames.is_empty() {
            return;
        }
        if self.reader.frames().is_far() {
            self.reader.frames().fetch_ahead(&frames);
            frames.truncate(self.rules.frames_max);
            frames.retain(|frame| self.reader.frames().is_at_hand(&[*frame]));
        }
        let mut queues = lock(&self.queues);
        let before = queues.ahead.len();
        for frame in frames {
            if queues.ahead.len() < self.rules.frames_max
                && !self.reader.frames().is_cached(frame)
                && queues.planned.insert(frame)
            {
                queues.ahead.push_back(frame);
            }
        }
        let is_new = queues.ahead.len() > before;
        drop(queues);
        if is_new {
            self.work.notify_one();
        }
    }

    fn work_on(&self) {
        while let Some(work) = self.next() {
            match work {
                Work::Demand(demand) => {
                    let Demand { map, offset, length, answer } = demand;
                    let read = catch_unwind(AssertUnwindSafe(|| self.reader.read(&map, offset, length, Verify::Seals)));
                    let read = match read {
                        Ok(read) => read.map_err(OperationError::from),
                        Err(panic) => Err(OperationError::defect(&*panic)),
                    };
                    // If the answer panics, the reply is dropped, and dropping it sends an error.
                    let _ = catch_unwind(AssertUnwindSafe(|| answer(read)));
                }
                Work::Ahead(frames) => {
                    // A failed guess is not reported. If the bytes are requested, that read fails and is reported.
                    let _ = catch_unwind(AssertUnwindSafe(|| self.reader.frames().warm(&frames)));
                    lock(&self.queues).guessing -= 1;
                    self.work.notify_one();
                }
            }
        }
    }

    /// Waits for work; `None` when the pool is closed.
    fn next(&self) -> Option<Work> {
        let mut queues = lock(&self.queues);
        loop {
            if queues.closed {
                return None;
            }
            if let Some(demand) = queues.demand.pop_front() {
                return Some(Work::Demand(demand));
            }
            // One thread stays free for demand, unless there is only one.
            let may_guess = queues.guessing + 1 < self.workers || self.workers == 1;
            if may_guess && !queues.ahead.is_empty() {
                let frames = queues.next_run();
                queues.guessing += 1;
                if !queues.ahead.is_empty() {
                    self.work.notify_one();
                }
                return Some(Work::Ahead(frames));
            }
            queues = wait(&self.work, queues);
        }
    }
}

#[cfg(test)]
mod tests;
