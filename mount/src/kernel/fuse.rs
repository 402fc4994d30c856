//! The FUSE adapter: each operation decodes the request, asks [`Tree`] or [`Pool`], and answers.
//!
//! Nothing here waits. Answers about the tree come from the catalog, and reads that memory cannot answer are answered
//! later by the threads of [`Pool`]. A panic becomes EIO and a line in the log, because a thread that died here would
//! never serve another request.
//!
//! The kernel may keep everything inside a snapshot for ever, even that a name is absent, because a snapshot never
//! changes. It may keep the mount's own directories for some seconds, and they are called back when a new snapshot
//! appears (see module `watcher`).
//!
//! Operations that are missing here are answered "not implemented", after which the kernel does not ask again. No
//! request can change anything: the mount is read-only, and the kernel refuses changes by itself.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Sender;
use fuser::Errno;
use fuser::FileHandle;
use fuser::FileType;
use fuser::Filesystem;
use fuser::FopenFlags;
use fuser::Generation;
use fuser::INodeNo;
use fuser::InitFlags;
use fuser::KernelConfig;
use fuser::LockOwner;
use fuser::OpenFlags;
use fuser::ReplyAttr;
use fuser::ReplyData;
use fuser::ReplyDirectory;
use fuser::ReplyDirectoryPlus;
use fuser::ReplyEntry;
use fuser::ReplyLseek;
use fuser::ReplyOpen;
use fuser::ReplyStatfs;
use fuser::ReplyXattr;
use fuser::Request;

use crate::data::pool::Pool;
use crate::data::push::Hints;
use crate::kernel::errno::belongs_in_log;
use crate::kernel::errno::cause;
use crate::kernel::errno::errno;
use crate::kernel::event::Event;
use crate::kernel::file_attr::ABSENT;
use crate::kernel::file_attr::file_attr;
use crate::kernel::file_attr::file_type;
use crate::kernel::log::Log;
use crate::kernel::refused_readers::RefusedReaders;
use crate::kernel::stats;
use crate::kernel::stats::Operation;
use crate::kernel::stats::Stats;
use crate::tree::Detail;
use crate::tree::Tree;
use crate::tree::inode::Inode;
use crate::tree::operation_error::OperationError;

/// How long the kernel may keep things that never change.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// How long the kernel may keep things that a new snapshot changes, in case calling them back fails.
const A_WHILE: Duration = Duration::from_secs(5);

/// The same for derived directories, which are not called back.
const A_MOMENT: Duration = Duration::from_secs(1);

/// How many reads may wait. With few, the readers of one slow file would stall all others.
const READS_WAITING_MAX: u16 = 512;

/// The unit that `df` counts in.
const SPACE_BYTES: u64 = 4_096;

/// Features that the mount requests from the kernel, one by one, so that an old kernel refuses only those that it
/// lacks.
const WISHES: [InitFlags; 8] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_ASYNC_DIO,
];

/// The file system that fuser serves.
pub struct Mounted {
    tree: Arc<Tree>,
    pool: Arc<Pool>,
    hints: Hints,
    log: Arc<Log>,
    refused_readers: RefusedReaders,
    stats: Arc<Stats>,
    generation: Generation,
    granted: InitFlags,
    ended: Sender<Event>,
}

/// Where a mount reports what it does.
pub struct Reports {
    /// Errors.
    pub log: Arc<Log>,
    /// Counters.
    pub stats: Arc<Stats>,
}

impl Mounted {
    /// Serves `tree`, and the content of files unless `refused_readers` refuses it. Reports reads to `hints`, errors and
    /// counts to `reports`, and the end to `ended`. `generation` differs for every catalog, because
    /// each numbers inodes in its own way.
    pub fn new(
        tree: Arc<Tree>,
        pool: Arc<Pool>,
        hints: Hints,
        reports: Reports,
        refused_readers: RefusedReaders,
        generation: u64,
        ended: Sender<Event>,
    ) -> Mounted {
        let Reports { log, stats } = reports;
        let (generation, granted) = (Generation(generation), InitFlags::empty());
        Mounted { tree, pool, hints, log, refused_readers, stats, generation, granted, ended }
    }

    /// Runs `work` for the inode `number`, and turns an error or a panic into an error number and perhaps a line in the
    /// log.
    fn answer<T>(&self, number: INodeNo, work: impl FnOnce(&Tree) -> Result<T, OperationError>) -> Result<T, Errno> {
        let result = match catch_unwind(AssertUnwindSafe(|| work(&self.tree))) {
            Ok(result) => result,
            Err(panic) => Err(OperationError::defect(&*panic)),
        };
        result.map_err(|error| report(&self.tree, &self.log, &self.stats, number.0, "", &error))
    }
}

/// The error number for `error`, which is logged if it belongs in the log. `what` describes the request for `number`.
fn report(tree: &Tree, log: &Log, stats: &Stats, number: u64, what: &str, error: &OperationError) -> Errno {
    if belongs_in_log(error) {
        stats.failed();
        let text = || {
            let path = catch_unwind(AssertUnwindSafe(|| tree.describe(number))).unwrap_or_default();
            format!("{path}{what}: {error}")
        };
        match error {
            OperationError::Repository(error) if error.is_outage() => {
                log.store_fails(stats.fetched_bytes(), Instant::now(), text);
            }
            // Each of them has a cause of its own, even if the reason is the same.
            OperationError::Withheld(_) => {
                let text = text();
                log.once(&text, || text.clone());
            }
            _ => log.once(&cause(error), text),
        }
    }
    errno(error)
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wish in WISHES {
            if config.add_capabilities(wish).is_ok() {
                self.granted |= wish;
            }
        }
        // Without access lists, the kernel need not request them for every file.
        if self.tree.has_access_lists() && config.add_capabilities(InitFlags::FUSE_POSIX_ACL).is_ok() {
            self.tree.enforce_access_lists();
        }
        // Both accept any number except 0.
        let _ = config.set_max_background(READS_WAITING_MAX);
        let _ = config.set_congestion_threshold(READS_WAITING_MAX);
        Ok(())
    }

    fn destroy(&mut self) {
        // If the process is about to end anyway, nothing receives this.
        let _ = self.ended.send(Event::Ended);
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.stats.count(Operation::Lookup);
        match self.answer(parent, |tree| tree.lookup(parent.0, name.as_bytes())) {
            Ok(Some(attr)) => {
                reply.entry_with_ttls(&attr_ttl(attr.number), &names_ttl(parent), &file_attr(&attr), self.generation);
            }
            Ok(None) => reply.entry(&names_ttl(parent), &file_attr(&ABSENT), self.generation),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.stats.count(Operation::Getattr);
        match self.answer(ino, |tree| tree.attr(ino.0)) {
            Ok(attr) => reply.attr(&attr_ttl(ino.0), &file_attr(&attr)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.stats.count(Operation::Readlink);
        match self.answer(ino, |tree| tree.target(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.stats.count(Operation::Open);
        // After "not implemented", the kernel omits all further calls of open and release, and keeps its cache.
        if self.granted.contains(InitFlags::FUSE_NO_OPEN_SUPPORT) {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.stats.count(Operation::Opendir);
        if self.granted.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT) {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.refused_readers.refuses(request.pid()) {
            return reply.error(Errno::EACCES);
        }
        let waiting = self.stats.begin_read();
        let map = match self.answer(ino, |tree| tree.map(ino.0)) {
            Ok(map) => map,
            Err(errno) => return reply.error(errno),
        };
        let length = map.length();
        let (tree, log, stats) = (Arc::clone(&self.tree), Arc::clone(&self.log), Arc::clone(&self.stats));
        // If this panics, the reply is dropped, and dropping it sends EIO.
        let _ = self.answer(ino, |_| {
            self.pool.read(ino.0, map, offset, size as usize, move |read| match read {
                Ok(bytes) => {
                    reply.data(&bytes);
                    log.store_has_given(stats.fetched_bytes(), Instant::now);
                    waiting.answered(bytes.len());
                }
                Err(error) => {
                    let what = format!(", {size} bytes at {offset}");
                    reply.error(report(&tree, &log, &stats, ino.0, &what, &error));
                }
            });
            Ok(())
        });
        if let Some(Inode::File(version)) = Inode::decode(ino.0) {
            self.hints.read(version, length);
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.stats.count(Operation::Readdir);
        let listed = self.answer(ino, |tree| {
            tree.list(ino.0, offset, Detail::Names, |row, _| {
                reply.add(INodeNo(row.number), row.cookie, file_type(row.kind), OsStr::from_bytes(row.name))
            })
        });
        match listed {
            // The kernel knows the first files of this listing by now, and its reader will soon read them.
            Ok(()) if offset > 0 => self.hints.after_first_files(move || reply.ok()),
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.stats.count(Operation::Readdirplus);
        let ttl = names_ttl(ino);
        let mut first_file = None;
        let listed = self.answer(ino, |tree| {
            tree.list(ino.0, offset, Detail::Attributes, |row, attr| {
                let attr = file_attr(attr.unwrap_or(&ABSENT));
                first_file = first_file.or(Some(attr.ino).filter(|_| attr.kind == FileType::RegularFile));
                reply.add(attr.ino, row.cookie, OsStr::from_bytes(row.name), &ttl, &attr, self.generation)
            })
        });
        let answer = || match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        };
        match first_file.and_then(|number| Inode::decode(number.0)) {
            Some(Inode::File(version)) => self.hints.listing(version, answer),
            _ => answer(),
        }
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.stats.count(Operation::Statfs);
        match self.answer(ino, Tree::totals) {
            Ok((bytes, versions)) => {
                let blocks = bytes.div_ceil(SPACE_BYTES);
                reply.statfs(blocks, 0, 0, versions, 0, SPACE_BYTES as u32, 255, SPACE_BYTES as u32);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.stats.count(Operation::Getxattr);
        let value = |tree: &Tree| match (ino, name) {
            (INodeNo::ROOT, name) if name == stats::XATTR => Ok(self.stats.value()),
            _ => tree.xattr(ino.0, name.as_bytes()),
        };
        reply_xattr(self.answer(ino, |tree| fitting(value(tree)?, size)), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.stats.count(Operation::Listxattr);
        reply_xattr(self.answer(ino, |tree| fitting(tree.xattr_names(ino.0)?, size)), size, reply);
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.stats.count(Operation::Lseek);
        match self.answer(ino, |tree| self.pool.seek(&*tree.map(ino.0)?, offset, whence)) {
            Ok(position) => reply.offset(position),
            Err(errno) => reply.error(errno),
        }
    }
}

/// How long the kernel may keep the attributes of `number`.
fn attr_ttl(number: u64) -> Duration {
    match Inode::decode(number) {
        Some(Inode::File(_) | Inode::Directory { .. }) => FOR_EVER,
        Some(
            Inode::At
            | Inode::Versions(_)
            | Inode::VersionsOf { .. }
            | Inode::Deleted(_)
            | Inode::ChangesOf(_)
            | Inode::Changed { .. },
        ) => A_MOMENT,
        _ => A_WHILE,
    }
}

/// How long the kernel may remember which names are present or absent in the directory `parent`.
fn names_ttl(parent: INodeNo) -> Duration {
    attr_ttl(parent.0)
}

/// The value, if it fits into the caller's buffer of `size` bytes. With size 0 the caller asks only for its length.
fn fitting(value: Vec<u8>, size: u32) -> Result<Vec<u8>, OperationError> {
    if size != 0 && value.len() > size as usize { Err(OperationError::Range) } else { Ok(value) }
}

fn reply_xattr(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_are_errors_and_size_zero_asks_for_the_length() {
        assert!(matches!(fitting(vec![1, 2], 1), Err(OperationError::Range)));
        assert_eq!(fitting(vec![1, 2], 2).unwrap(), [1, 2]);
        assert_eq!(fitting(vec![1, 2], 0).unwrap(), [1, 2]);
    }

    #[test]
    fn only_what_never_changes_is_kept_for_ever() {
        let ttl = |inode: Inode| attr_ttl(inode.number().unwrap());
        assert_eq!(ttl(Inode::File(3)), FOR_EVER);
        assert_eq!(ttl(Inode::Directory { snapshot: 1, path: 1 }), FOR_EVER);
        for inode in [Inode::Root, Inode::Snapshots, Inode::Host(3), Inode::Latest(1), Inode::Link(1)] {
            assert_eq!(ttl(inode), A_WHILE);
        }
    }
}
