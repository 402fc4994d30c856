//! Reads the content of files as pieces on the file's grid of blocks.
//!
//! A file is opened without following links and without blocking. Only the open file counts, because the one that the
//! scan saw may have been replaced since, even by a pipe, which is never read from. Metadata is taken before the
//! content and compared after it. A file that changed in between is read again after a pause; if it never stays the
//! same, the last reading is kept and reported. The size in the metadata is always the number of bytes delivered. Of a
//! file that fails midway, the snapshot says only that it could not be read: no byte is ever made up.
//!
//! Several threads read at once, each a [`Job`] of consecutive files. Every job answers through its own bounded
//! channel, so the answers can be taken in order and memory is bounded.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::off_t;
use nix::unistd::Whence;
use nix::unistd::lseek;

use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::write::Cutter;
use bygone_core::write::Piece;

use crate::backup::folder::Folder;
use crate::backup::folder::open_quietly;
use crate::backup::metadata::Describer;
use crate::backup::report::Trouble;
use crate::backup::scan::is_made_by_the_kernel;
use crate::backup::stat::Stat;

/// Content that a job gathers before it answers.
pub(super) const ANSWER_BYTES: usize = 256 << 10;
/// Events that a job gathers before it answers.
const ANSWER_EVENTS: usize = 1 << 10;
/// The unit of `st_blocks`, whatever the block size of the file system.
const STAT_BLOCK_BYTES: u64 = 512;

/// How much of a file without a size is read at once.
const UNSIZED_BYTES: usize = 64 << 10;
/// The pauses before a file that has changed is read again.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(900)];
/// A file larger than this is read only once more: reading takes long, and something is sure to change meanwhile.
const PATIENT_BYTES_MAX: u64 = 1 << 30;

/// One file to be read.
pub(super) struct Task {
    pub(super) folder: Arc<Folder>,
    /// Descriptor of the folder.
    pub(super) fd: Arc<OwnedFd>,
    pub(super) name: Name,
    /// What was there when the directory was listed.
    pub(super) stat: Stat,
}

/// Consecutive files, and where to answer.
pub(super) struct Job {
    pub(super) tasks: Vec<Task>,
    pub(super) answers: Sender<Vec<Event>>,
}

/// The result of reading a file, in this order: pieces, perhaps with a restart among them, then one of the others.
pub(super) enum Event {
    /// The next piece.
    Piece(Piece),
    /// Forget the pieces of this file: it is read again from its beginning.
    Restart,
    /// The file is complete.
    File(Name, Box<Meta>),
    /// The file has become this entry.
    Other(Box<Entry>),
    /// Forget the pieces of this file: it cannot be read, as this entry says. The issue has been reported.
    Unreadable(Box<Entry>),
    /// Forget the pieces of this file: it is gone. The issue has been reported.
    Lost,
}

/// The receiver of the answers has gone.
pub(super) struct Closed;

/// Reads files.
#[derive(Clone)]
pub(super) struct FileReader<'a> {
    pub(super) cutter: Cutter,
    pub(super) describe: Describer<'a>,
}

/// Why reading a file's content ended early.
enum Broken {
    Closed,
    Errno(Errno),
}

impl From<Errno> for Broken {
    fn from(errno: Errno) -> Broken {
        Broken::Errno(errno)
    }
}

impl From<Closed> for Broken {
    fn from(_: Closed) -> Broken {
        Broken::Closed
    }
}

type Emit<'a> = dyn FnMut(Event) -> Result<(), Closed> + 'a;

impl FileReader<'_> {
    /// The body of each reading thread, until there are no more jobs.
    pub(super) fn work(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            if self.answer(&job).is_err() {
                return;
            }
        }
    }

    fn answer(&self, job: &Job) -> Result<(), Closed> {
        let mut events = Vec::new();
        let mut bytes = 0;
        let send = |events: &mut Vec<Event>| job.answers.send(std::mem::take(events)).map_err(|_| Closed);
        for task in &job.tasks {
            self.read(task, &mut |event| {
                if let Event::Piece(Piece::Block(block)) = &event {
                    bytes += block.bytes().len();
                }
                events.push(event);
                if bytes >= ANSWER_BYTES || events.len() >= ANSWER_EVENTS {
                    bytes = 0;
                    send(&mut events)?;
                }
                Ok(())
            })?;
        }
        if events.is_empty() { Ok(()) } else { send(&mut events) }
    }

    /// Reads one file; the last event ends it.
    pub(super) fn read(&self, task: &Task, emit: &mut Emit<'_>) -> Result<(), Closed> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = open_quietly(task.fd.as_fd(), task.name.as_bytes(), flags)
            .and_then(|file| Stat::of_fd(file.as_fd()).map(|stat| (file, stat)));
        match opened {
            Ok((file, stat)) if stat.file_type() == FileType::File => self.read_opened(task, &file, stat, emit),
            Ok(_) => self.replaced(task, Errno::EISDIR, emit),
            Err(errno) => self.replaced(task, errno, emit),
        }
    }

    /// Reads a file that is open.
    pub(super) fn read_opened(
        &self,
        task: &Task,
        file: &OwnedFd,
        stat: Stat,
        emit: &mut Emit<'_>,
    ) -> Result<(), Closed> {
        match self.content(task, file, stat, emit) {
            Ok(()) => Ok(()),
            Err(Broken::Closed) => Err(Closed),
            Err(Broken::Errno(errno)) => self.lose(task, errno, &stat, emit),
        }
    }

    /// Reads the open file until it stays the same during a reading, or patience ends.
    fn content(&self, task: &Task, file: &OwnedFd, mut before: Stat, emit: &mut Emit<'_>) -> Result<(), Broken> {
        let patience = if before.size > PATIENT_BYTES_MAX { 1 } else { PAUSES.len() };
        let mut pauses = PAUSES.iter().take(patience);
        loop {
            let mut meta = self.describe.opened(file.as_fd(), &before, &task.folder, task.name.as_bytes());
            let delivered = self.pieces(file, &before, emit)?;
            let after = Stat::of_fd(file.as_fd())?;
            let still = before.same_state(&after) && (delivered == before.size || is_made_by_the_kernel(file.as_fd()));
            let pause = if still { None } else { pauses.next() };
            let Some(pause) = pause else {
                if !still {
                    self.describe.issues.add(task.folder.path(task.name.as_bytes()), Trouble::Changed);
                }
                meta.size = delivered;
                return Ok(emit(Event::File(task.name.clone(), Box::new(meta)))?);
            };
            emit(Event::Restart)?;
            sleep(*pause);
            before = Stat::of_fd(file.as_fd())?;
        }
    }

    /// Delivers the content, with holes as holes, and returns the number of bytes.
    fn pieces(&self, file: &OwnedFd, stat: &Stat, emit: &mut Emit<'_>) -> Result<u64, Broken> {
        let size = stat.size;
        if size == 0 {
            // Files that the kernel makes up have no size, and only reading them tells.
            return self.data(file, 0, u64::MAX, emit);
        }
        if stat.blocks.saturating_mul(STAT_BLOCK_BYTES) >= size {
            return self.data(file, 0, size, emit);
        }
        let mut offset = 0;
        while offset < size {
            let data = data_from(file, offset)?.min(size);
            if data > offset {
                emit(Event::Piece(Piece::Hole(data - offset)))?;
            }
            if data == size {
                return Ok(size);
            }
            let hole = hole_from(file, data)?.clamp(data + 1, size);
            offset = self.data(file, data, hole, emit)?;
            if offset < hole {
                return Ok(offset);
            }
        }
        Ok(offset)
    }

    /// Delivers the bytes from `offset` to `end` in blocks that end on the grid. Returns where it stopped, which is
    /// before `end` if the file ends there.
    fn data(&self, file: &OwnedFd, mut offset: u64, end: u64, emit: &mut Emit<'_>) -> Result<u64, Broken> {
        let grid = self.cutter.block_bytes() as u64;
        while offset < end {
            let length = (grid - offset % grid).min(end - offset) as usize;
            let mut bytes = Vec::with_capacity(if end == u64::MAX { 0 } else { length });
            while bytes.len() < length {
                // Of what has no size, little is expected.
                let missing = (length - bytes.len()).min(if end == u64::MAX { UNSIZED_BYTES } else { usize::MAX });
                if crate::sys::read_at(file.as_fd(), offset + bytes.len() as u64, &mut bytes, missing)? == 0 {
                    break;
                }
            }
            let got = bytes.len();
            if got > 0 {
                emit(Event::Piece(Piece::Block(self.cutter.block(bytes))))?;
            }
            offset += got as u64;
            if got < length {
                break;
            }
        }
        Ok(offset)
    }

    /// Handles a file of the listing that cannot be opened or is no longer a file.
    fn replaced(&self, task: &Task, errno: Errno, emit: &mut Emit<'_>) -> Result<(), Closed> {
        let name = &task.name;
        let stat = match Stat::of_child(task.fd.as_fd(), name.as_bytes()) {
            Ok(stat) => stat,
            Err(errno) => return self.lose(task, errno, &task.stat, emit),
        };
        if matches!(stat.file_type(), FileType::File | FileType::Directory) {
            return self.lose(task, errno, &stat, emit);
        }
        match self.describe.other(&task.folder, &task.fd, name, &stat) {
            Ok(entry) => emit(Event::Other(Box::new(entry))),
            Err(errno) => self.lose(task, errno, &stat, emit),
        }
    }

    fn lose(&self, task: &Task, errno: Errno, stat: &Stat, emit: &mut Emit<'_>) -> Result<(), Closed> {
        let entry = self.describe.unreadable(&task.folder, &task.name, errno, Some(stat), None);
        emit(entry.map_or(Event::Lost, |entry| Event::Unreadable(Box::new(entry))))
    }
}

/// The first byte of data at or after `offset`; `u64::MAX` if only a hole follows.
fn data_from(file: &OwnedFd, offset: u64) -> Result<u64, Errno> {
    match seek(file, offset, Whence::SeekData) {
        Err(Errno::ENXIO) => Ok(u64::MAX),
        // The file system has no holes, so everything is data.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(offset),
        other => other,
    }
}

/// The first byte of a hole at or after `offset`; the end of the file counts as one.
fn hole_from(file: &OwnedFd, offset: u64) -> Result<u64, Errno> {
    match seek(file, offset, Whence::SeekHole) {
        Err(Errno::ENXIO | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(u64::MAX),
        other => other,
    }
}

fn seek(file: &OwnedFd, offset: u64, whence: Whence) -> Result<u64, Errno> {
    let offset = off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    lseek(file, offset, whence).map(|at| u64::try_from(at).unwrap_or(0))
}
