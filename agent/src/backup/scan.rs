//! One directory: its sorted names, without those that the rules leave out, and the `stat` of each.
//!
//! All names must be known before the first can be delivered in order, but they take few bytes. The rest is big and is
//! read in slices, so a directory of a million names only costs the memory of its names. The scan fills the first
//! slice; the others are filled when the walk reaches them.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statfs;
use nix::sys::statfs::FsType;

use bygone_core::entry::FileType;
use bygone_core::entry::Name;

use crate::backup::folder::Folder;
use crate::backup::folder::Follow;
use crate::backup::folder::open_quietly;
use crate::backup::report::Issues;
use crate::backup::report::Trouble;
use crate::backup::roots::Way;
use crate::backup::stat::Stat;
use crate::exclude::Excludes;
use crate::exclude::PathState;
use crate::sys;

/// Names of one directory described at once.
const SLICE_ENTRIES: usize = 1_024;
/// Size of the buffer for the names of a directory, as in the C library.
const ENTRIES_BYTES: usize = 32 << 10;
/// The name of the file that marks a cache directory, and how it must begin (<https://bford.info/cachedir/>).
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_TAG_CONTENT: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What the user wants to leave out.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Paths by pattern.
    pub excludes: Excludes,
    /// The content of directories with a valid `CACHEDIR.TAG`, except that file.
    pub caches: bool,
    /// The content of directories that have one of these names, except that name.
    pub if_present: Vec<Vec<u8>>,
    /// Files larger than this.
    pub larger_than: Option<u64>,
    /// The content of directories on other file systems than those of the requested paths.
    pub one_file_system: bool,
}

/// What every scan needs.
pub(super) struct Scope<'a> {
    pub(super) rules: &'a Rules,
    /// The file systems to stay on, if the rules say so.
    pub(super) devices: HashSet<u64>,
    /// Device and inode of the directories that bygone itself writes to.
    pub(super) own: Vec<(u64, u64)>,
    pub(super) issues: &'a Issues,
}

/// A directory to be scanned.
pub(super) struct Request {
    pub(super) parent: Arc<Folder>,
    pub(super) name: Name,
    /// The state of the patterns in this directory.
    pub(super) patterns: PathState,
    /// Its place on the way to the requested paths; `None` below a requested path.
    pub(super) way: Option<Arc<Way>>,
}

/// A directory that was scanned.
pub(super) struct Scanned {
    pub(super) folder: Arc<Folder>,
    pub(super) stat: Stat,
    pub(super) listing: Listing,
}

/// One name of a directory, and what is there or why that cannot be told.
pub(super) struct Child {
    pub(super) name: Name,
    pub(super) stat: Result<Stat, Errno>,
}

/// How much of a directory a listing gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything that the rules admit.
    Whole,
    /// What came before this error.
    Broken(Errno),
    /// Less on purpose: only what leads to requested paths, or nothing.
    Part,
}

/// The names of a directory in byte order, described slice by slice.
pub(super) struct Listing {
    patterns: PathState,
    extent: Extent,
    /// The names that are not yet described, end to end, and the span of each.
    names: Vec<u8>,
    spans: std::vec::IntoIter<(usize, usize)>,
    /// The described names.
    children: VecDeque<Child>,
    /// The directories among them, in the same order, until [`Listing::take_found`].
    found: Vec<Request>,
}

/// Scans the directory of `request`, whose parent's descriptor is `parent_fd`.
pub(super) fn scan(scope: &Scope<'_>, request: &Request, parent_fd: &OwnedFd) -> Result<Scanned, Errno> {
    let leads = request.way.as_ref().is_some_and(|way| !way.asked);
    let follow = if leads { Follow::Yes } else { Follow::No };
    let (folder, stat) = Folder::open(&request.parent, parent_fd, request.name.as_bytes(), follow)?;
    let inner = request.way.is_none() && folder.device() != request.parent.device();
    listed(scope, folder, stat, &request.patterns, request.way.as_deref(), inner)
}

/// Scans the root of the file system.
pub(super) fn scan_root(scope: &Scope<'_>, way: &Way) -> Result<Scanned, Errno> {
    let (folder, stat) = Folder::root()?;
    listed(scope, folder, stat, &scope.rules.excludes.root(), Some(way), false)
}

/// `inner` is true if another file system begins here, within a requested path.
fn listed(
    scope: &Scope<'_>,
    folder: Arc<Folder>,
    stat: Stat,
    patterns: &PathState,
    way: Option<&Way>,
    inner: bool,
) -> Result<Scanned, Errno> {
    let mut listing = Listing::empty(patterns.clone());
    match way {
        Some(way) if !way.asked => listing.lead(scope, &folder, way),
        _ if scope.is_foreign(&folder) => scope.issues.exclude(1),
        _ if inner && is_made_by_the_kernel(&folder) => {
            let note = "its content is made up by the kernel and was left out";
            scope.issues.add(folder.path(b""), Trouble::Note(note.into()));
        }
        _ => {
            listing.read(scope, &folder)?;
            listing.fill(scope, &folder);
        }
    }
    Ok(Scanned { folder, stat, listing })
}

impl Scope<'_> {
    /// True if this name excludes everything else in its directory.
    fn is_tag(&self, folder: &Folder, name: &[u8]) -> bool {
        self.rules.if_present.iter().any(|tag| tag == name)
            || (self.rules.caches && name == CACHE_TAG && is_cache_tag(folder))
    }

    fn is_foreign(&self, folder: &Folder) -> bool {
        self.rules.one_file_system && !self.devices.contains(&folder.device())
    }

    /// False if the result of `stat` excludes this entry. A path that the user named may have any size.
    fn admits(&self, folder: &Folder, name: &Name, stat: &Stat, is_asked: bool) -> bool {
        match stat.file_type() {
            FileType::Directory if self.own.contains(&(stat.device, stat.inode)) => {
                let note = "left out, because bygone keeps its own data here";
                self.issues.add(folder.path(name.as_bytes()), Trouble::Note(note.into()));
                false
            }
            FileType::File if !is_asked && self.rules.larger_than.is_some_and(|most| stat.size > most) => {
                self.issues.exclude(1);
                false
            }
            _ => true,
        }
    }
}

impl Listing {
    fn empty(patterns: PathState) -> Listing {
        Listing {
            patterns,
            extent: Extent::Part,
            names: Vec::new(),
            spans: Vec::new().into_iter(),
            children: VecDeque::new(),
            found: Vec::new(),
        }
    }

    /// The next name in order.
    pub(super) fn next(&mut self, scope: &Scope<'_>, folder: &Arc<Folder>) -> Option<Child> {
        // All names of a slice may have vanished, hence the loop.
        while self.children.is_empty() && self.spans.len() > 0 {
            self.fill(scope, folder);
        }
        self.children.pop_front()
    }

    /// The directories described since the last call, in the order of [`Self::next`].
    pub(super) fn take_found(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.found)
    }

    /// How much of the directory it gives.
    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// True if the patterns leave out this name.
    pub(super) fn leaves_out(&self, scope: &Scope<'_>, name: &Name) -> bool {
        scope.rules.excludes.excludes(&self.patterns, name.as_bytes())
    }

    /// The memory of the listing, in entries.
    pub(super) fn weight(&self) -> usize {
        self.children.len() + self.names.len() / 64
    }

    /// Reads all names, or those that come before an error. It is an error if there are none.
    fn read(&mut self, scope: &Scope<'_>, folder: &Folder) -> Result<(), Errno> {
        let mut spans = Vec::new();
        self.extent = Extent::Whole;
        if let Err(errno) = folder.fd().and_then(|fd| self.read_names(&fd, &mut spans)) {
            if spans.is_empty() {
                return Err(errno);
            }
            self.extent = Extent::Broken(errno);
            let why = format!("its listing broke off: {}", errno.desc());
            scope.issues.add(folder.path(b""), Trouble::Unreadable(why));
        }
        let names = &self.names;
        let name = |span: &(usize, usize)| names.get(span.0..span.1).unwrap_or_default();
        let all = spans.len();
        if let Some(tag) = spans.iter().find(|span| scope.is_tag(folder, name(span))).copied() {
            spans = vec![tag];
            // Whatever else is there is left out.
            self.extent = Extent::Whole;
        }
        let excludes = &scope.rules.excludes;
        if !excludes.is_empty() {
            spans.retain(|span| !excludes.excludes(&self.patterns, name(span)));
        }
        scope.issues.exclude((all - spans.len()) as u64);
        spans.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        // A name may be listed twice if it is renamed during the listing.
        spans.dedup_by(|a, b| name(a) == name(b));
        self.spans = spans.into_iter();
        Ok(())
    }

    fn read_names(&mut self, fd: &OwnedFd, spans: &mut Vec<(usize, usize)>) -> Result<(), Errno> {
        let mut buffer = vec![0; ENTRIES_BYTES];
        loop {
            let got = sys::directory_entries(fd.as_fd(), &mut buffer)?;
            let mut rest = buffer.get(..got).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            while let Some((name, after)) = first_entry(rest) {
                rest = after;
                if name != b"." && name != b".." {
                    spans.push((self.names.len(), self.names.len() + name.len()));
                    self.names.extend_from_slice(name);
                }
            }
        }
    }

    /// Describes the next slice of names.
    fn fill(&mut self, scope: &Scope<'_>, folder: &Arc<Folder>) {
        let slice: Vec<(usize, usize)> = self.spans.by_ref().take(SLICE_ENTRIES).collect();
        let fd = folder.fd();
        for span in slice {
            let name = self.names.get(span.0..span.1).unwrap_or_default();
            let stat = fd.as_ref().map_err(|errno| *errno).and_then(|fd| Stat::of_child(fd.as_fd(), name));
            match (Name::new(name), stat) {
                (Ok(name), Ok(stat)) => self.push(scope, folder, name, stat, None),
                (Ok(name), Err(errno)) => self.children.push_back(Child { name, stat: Err(errno) }),
                (Err(_), Ok(_)) => {
                    let why = "its name is longer than 255 bytes".to_string();
                    scope.issues.add(folder.path(name), Trouble::Unreadable(why));
                }
                (Err(_), Err(errno)) => scope.issues.lost(folder, name, errno),
            }
        }
        if self.spans.len() == 0 {
            self.names = Vec::new();
        }
    }

    /// Takes the names that lead to requested paths.
    fn lead(&mut self, scope: &Scope<'_>, folder: &Arc<Folder>, way: &Way) {
        let fd = folder.fd();
        for (name, way) in &way.children {
            let stat = fd.as_ref().map_err(|errno| *errno).and_then(|fd| match way.asked {
                true => Stat::of_child(fd.as_fd(), name.as_bytes()),
                false => Stat::of_child_followed(fd.as_fd(), name.as_bytes()),
            });
            match stat {
                Ok(stat) => self.push(scope, folder, name.clone(), stat, Some(way.clone())),
                Err(errno) => self.children.push_back(Child { name: name.clone(), stat: Err(errno) }),
            }
        }
    }

    fn push(&mut self, scope: &Scope<'_>, folder: &Arc<Folder>, name: Name, stat: Stat, way: Option<Arc<Way>>) {
        if scope.admits(folder, &name, &stat, way.is_some()) {
            if stat.file_type() == FileType::Directory {
                let patterns = scope.rules.excludes.descend(&self.patterns, name.as_bytes());
                self.found.push(Request { parent: folder.clone(), name: name.clone(), patterns, way });
            }
            self.children.push_back(Child { name, stat: Ok(stat) });
        }
    }
}

fn is_cache_tag(folder: &Folder) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let content = folder.fd().and_then(|fd| open_quietly(fd.as_fd(), CACHE_TAG, flags)).and_then(|file| {
        let mut content = Vec::new();
        let is_file = Stat::of_fd(file.as_fd())?.file_type() == FileType::File;
        let most = if is_file { CACHE_TAG_CONTENT.len() } else { 0 };
        sys::read_at(file.as_fd(), 0, &mut content, most).map(|_| content)
    });
    content.is_ok_and(|content| content == CACHE_TAG_CONTENT)
}

/// True for file systems that show the kernel's state as files: some are endless, none is useful in a backup.
fn is_made_by_the_kernel(folder: &Folder) -> bool {
    const OTHERS: [FsType; 4] = [
        FsType(0x6265_6570), // configfs
        FsType(0x6165_676c), // pstore
        FsType(0x4249_4e4d), // binfmt_misc
        FsType(0x6573_5543), // fusectl
    ];
    const KNOWN: [FsType; 12] = [
        statfs::PROC_SUPER_MAGIC,
        statfs::SYSFS_MAGIC,
        statfs::CGROUP_SUPER_MAGIC,
        statfs::CGROUP2_SUPER_MAGIC,
        statfs::DEBUGFS_MAGIC,
        statfs::TRACEFS_MAGIC,
        statfs::SECURITYFS_MAGIC,
        statfs::SELINUX_MAGIC,
        statfs::SMACK_MAGIC,
        statfs::BPF_FS_MAGIC,
        statfs::NSFS_MAGIC,
        statfs::DEVPTS_SUPER_MAGIC,
    ];
    let found = folder.fd().and_then(|fd| statfs::fstatfs(&*fd)).map(|fs| fs.filesystem_type());
    found.is_ok_and(|found| KNOWN.contains(&found) || OTHERS.contains(&found))
}

/// The name in the first `struct linux_dirent64` of `bytes`, and what follows it.
fn first_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    /// Inode number, offset, length of the record, type.
    const HEADER_BYTES: usize = 8 + 8 + 2 + 1;
    let length = u16::from_ne_bytes([*bytes.get(16)?, *bytes.get(17)?]);
    let (record, after) = bytes.split_at_checked(usize::from(length))?;
    let name = record.get(HEADER_BYTES..)?;
    Some((name.split(|b| *b == 0).next()?, after))
}
