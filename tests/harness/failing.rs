//! A file system that fails on purpose, as a bad disk does, even for root.
//!
//! Each of its few entries refuses one thing for as long as the file system is sick: to be looked up, to be listed from
//! the beginning, to be listed to the end, or to be read. They never change, except that the last one has changed once
//! the file system has been sick.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use fuser::BackgroundSession;
use fuser::Config;
use fuser::Errno;
use fuser::FileAttr;
use fuser::FileHandle;
use fuser::FileType;
use fuser::Filesystem;
use fuser::FopenFlags;
use fuser::Generation;
use fuser::INodeNo;
use fuser::LockOwner;
use fuser::MountOption;
use fuser::OpenFlags;
use fuser::ReplyAttr;
use fuser::ReplyData;
use fuser::ReplyDirectory;
use fuser::ReplyEntry;
use fuser::ReplyOpen;
use fuser::Request;
use fuser::SessionACL;

/// The kernel keeps nothing, so that it notices at once when the file system falls ill.
const NOTHING: Duration = Duration::ZERO;

/// One entry: its number, its parent's number, its name, and whether it is a directory.
struct Node(u64, u64, &'static str, bool);

/// Everything there is. Files contain their own names.
const NODES: [Node; 9] = [
    Node(1, 1, "", true),
    Node(2, 1, "fine", false),
    Node(3, 1, "unreadable", false),
    Node(4, 1, "unknown", false),
    Node(5, 1, "closed", true),
    Node(6, 5, "inside", false),
    Node(7, 1, "broken", true),
    Node(8, 7, "first", false),
    Node(9, 7, "second", false),
];
const UNREADABLE: u64 = 3;
const UNKNOWN: u64 = 4;
const CLOSED: u64 = 5;
const BROKEN: u64 = 7;

impl Node {
    fn attr(&self, was_sick: bool) -> FileAttr {
        // Only a file that has changed is read.
        let secs = if was_sick && self.0 == UNREADABLE { 1_100_000_000 } else { 1_000_000_000 };
        let changed = UNIX_EPOCH + Duration::new(secs, 5);
        FileAttr {
            ino: INodeNo(self.0),
            size: if self.3 { 0 } else { self.2.len() as u64 },
            blocks: 8,
            atime: changed,
            mtime: changed,
            ctime: changed,
            crtime: changed,
            kind: if self.3 { FileType::Directory } else { FileType::RegularFile },
            perm: if self.3 { 0o755 } else { 0o644 },
            nlink: if self.3 { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4_096,
            flags: 0,
        }
    }
}

fn node(number: INodeNo) -> Result<&'static Node, Errno> {
    NODES.iter().find(|node| node.0 == number.0).ok_or(Errno::ENOENT)
}

/// What the kernel talks to.
struct Failing {
    is_sick: Arc<AtomicBool>,
    was_sick: Arc<AtomicBool>,
}

impl Failing {
    /// EIO for these numbers while it is sick.
    fn check(&self, number: INodeNo, sick: &[u64]) -> Result<(), Errno> {
        let is_sick = self.is_sick.load(Ordering::SeqCst) && sick.contains(&number.0);
        if is_sick { Err(Errno::EIO) } else { Ok(()) }
    }

    fn attr(&self, node: &Node) -> FileAttr {
        node.attr(self.was_sick.load(Ordering::SeqCst))
    }

    /// The entries of a directory after the first `offset`, each with the position after it.
    fn rows(&self, number: INodeNo, offset: u64) -> Result<Vec<(u64, &'static Node)>, Errno> {
        self.check(number, &[CLOSED])?;
        let all = NODES.iter().skip(1).filter(|node| node.1 == number.0);
        let rest = (1..).zip(all).skip(usize::try_from(offset).unwrap());
        let is_broken = self.check(number, &[BROKEN]).is_err();
        if is_broken && offset > 0 {
            return Err(Errno::EIO);
        }
        Ok(rest.take(if is_broken { 1 } else { usize::MAX }).collect())
    }
}

impl Filesystem for Failing {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = NODES.iter().skip(1).find(|node| node.1 == parent.0 && node.2 == name).ok_or(Errno::ENOENT);
        match found.and_then(|node| self.check(INodeNo(node.0), &[UNKNOWN]).map(|()| node)) {
            Ok(node) => reply.entry(&NOTHING, &self.attr(node), Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match node(number) {
            Ok(node) => reply.attr(&NOTHING, &self.attr(node)),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Otherwise the kernel would read from what it kept.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.check(number, &[UNREADABLE]).and_then(|()| node(number)) {
            Ok(node) => {
                let rest = node.2.as_bytes().iter().skip(usize::try_from(offset).unwrap());
                reply.data(&rest.take(size as usize).copied().collect::<Vec<_>>());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.rows(number, offset) {
            Ok(rows) => {
                for (next, node) in rows {
                    if reply.add(INodeNo(node.0), next, self.attr(node).kind, node.2) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        }
    }
}

/// The file system, mounted until it is dropped. It begins healthy.
pub struct FailingMount {
    is_sick: Arc<AtomicBool>,
    was_sick: Arc<AtomicBool>,
    _session: BackgroundSession,
}

impl FailingMount {
    /// Mounts it on a directory. Needs root.
    pub fn new(point: &Path) -> FailingMount {
        let (is_sick, was_sick): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let failing = Failing { is_sick: Arc::clone(&is_sick), was_sick: Arc::clone(&was_sick) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("failing".to_owned())];
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(failing, point, &config).unwrap();
        FailingMount { is_sick, was_sick, _session: session }
    }

    /// From now on everything in it fails in its own way, or nothing does.
    pub fn set_sick(&self, is_sick: bool) {
        self.is_sick.store(is_sick, Ordering::SeqCst);
        self.was_sick.fetch_or(is_sick, Ordering::SeqCst);
    }
}
