//! One directory: its sorted names, without those that the rules leave out, and the `stat` of each.
//!
//! All names must be known before the first can be delivered in order, but they take few bytes. The rest is big and is
//! read in slices, so a directory of a million names only costs the memory of its names. The scan fills the first
//! slice; the others are filled when the walk reaches them.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
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
    /// The content of directories on another file system than that of the requested path that they are in.
    pub one_file_system: bool,
}

/// What every scan needs.
pub(super) struct Scope<'a> {
    pub(super) rules: &'a Rules,
    /// Devices of the mounts of bygone, which show snapshots.
    pub(super) past: HashSet<u64>,
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
    /// Its place on the way to requested paths, if any lie at it or below it.
    pub(super) way: Option<Arc<Way>>,
    /// The file system of the requested path that it is in; `None` above all of them.
    pub(super) device: Option<u64>,
    /// True to take only what the way leads to.
    pub(super) only_way: bool,
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
    way: Option<Arc<Way>>,
    device: Option<u64>,
    /// Everything is left out that the way does not lead to.
    only_way: bool,
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
    let Request { parent, name, patterns, way, device, only_way } = request;
    let is_asked = way.as_ref().is_some_and(|way| way.asked);
    let follows = way.as_ref().is_some_and(|way| way.follows(*device));
    let follow = if follows { Follow::Yes } else { Follow::No };
    let (folder, stat) = Folder::open(parent, parent_fd, name.as_bytes(), follow)?;
    let device = if is_asked { Some(folder.device()) } else { *device };
    let inner = !is_asked && device.is_some() && folder.device() != parent.device();
    let only_way = *only_way || inner && scope.leaves_out_mount(&folder, device);
    let mut listing = Listing::new(patterns.clone(), way.clone(), device, only_way);
    listing.begin(scope, &folder, is_asked)?;
    Ok(Scanned { folder, stat, listing })
}

/// Scans the root of the file system.
pub(super) fn scan_root(scope: &Scope<'_>, way: &Way) -> Result<Scanned, Errno> {
    let (folder, stat) = Folder::root()?;
    let device = way.asked.then(|| folder.device());
    let mut listing = Listing::new(scope.rules.excludes.root(), Some(Arc::new(way.clone())), device, !way.asked);
    listing.begin(scope, &folder, way.asked)?;
    Ok(Scanned { folder, stat, listing })
}

impl Scope<'_> {
    /// True if this name excludes everything else in its directory.
    fn is_tag(&self, folder: &Folder, name: &[u8]) -> bool {
        self.rules.if_present.iter().any(|tag| tag == name)
            || (self.rules.caches && name == CACHE_TAG && is_cache_tag(folder))
    }

    /// True if the content of this directory, where a file system begins, is left out. `device` is that of the requested
    /// path that it is in.
    fn leaves_out_mount(&self, folder: &Folder, device: Option<u64>) -> bool {
        if self.rules.one_file_system && Some(folder.device()) != device {
            self.issues.exclude(1);
            return true;
        }
        let note = if self.past.contains(&folder.device()) {
            "this mount of bygone shows snapshots and was left out: name it to back it up"
        } else if folder.fd().is_ok_and(|fd| is_made_by_the_kernel(fd.as_fd())) {
            "its content is made up by the kernel and was left out"
        } else {
            return false;
        };
        self.issues.add(folder.path(b""), Trouble::Note(note.into()));
        true
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
    fn new(patterns: PathState, way: Option<Arc<Way>>, device: Option<u64>, only_way: bool) -> Listing {
        Listing {
            patterns,
            way,
            device,
            only_way,
            extent: Extent::Part,
            names: Vec::new(),
            spans: Vec::new().into_iter(),
            children: VecDeque::new(),
            found: Vec::new(),
        }
    }

    /// Reads the names and describes the first of them.
    fn begin(&mut self, scope: &Scope<'_>, folder: &Arc<Folder>, is_asked: bool) -> Result<(), Errno> {
        self.read(scope, folder, is_asked)?;
        self.fill(scope, folder);
        Ok(())
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

    /// Reads the names of all that is to be taken. It is an error if the listing fails and there is none.
    fn read(&mut self, scope: &Scope<'_>, folder: &Folder, is_asked: bool) -> Result<(), Errno> {
        let mut spans = Vec::new();
        if !self.only_way {
            self.read_all(scope, folder, is_asked, &mut spans)?;
        }
        // What was named is taken even if it is left out otherwise, or if the listing failed.
        for name in self.way.iter().flat_map(|way| way.children.keys()) {
            spans.push((self.names.len(), self.names.len() + name.as_bytes().len()));
            self.names.extend_from_slice(name.as_bytes());
        }
        let names = &self.names;
        let name = |span: &(usize, usize)| names.get(span.0..span.1).unwrap_or_default();
        spans.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        // A name may be listed twice if it is renamed during the listing.
        spans.dedup_by(|a, b| name(a) == name(b));
        self.spans = spans.into_iter();
        Ok(())
    }

    /// Reads the listing or what comes before an error, without what the rules leave out.
    fn read_all(
        &mut self,
        scope: &Scope<'_>,
        folder: &Folder,
        is_asked: bool,
        spans: &mut Vec<(usize, usize)>,
    ) -> Result<(), Errno> {
        self.extent = Extent::Whole;
        if let Err(errno) = folder.fd().and_then(|fd| self.read_names(&fd, spans)) {
            let leads = self.way.as_ref().is_some_and(|way| !way.children.is_empty());
            if spans.is_empty() && !leads {
                return Err(errno);
            }
            self.extent = Extent::Broken(errno);
            let why = format!("its listing broke off: {}", errno.desc());
            scope.issues.add(folder.path(b""), Trouble::Unreadable(why));
        }
        let names = &self.names;
        let name = |span: &(usize, usize)| names.get(span.0..span.1).unwrap_or_default();
        let all = spans.len();
        let tag = spans.iter().find(|span| !is_asked && scope.is_tag(folder, name(span))).copied();
        if let Some(tag) = tag {
            *spans = vec![tag];
            // Whatever else is there is left out.
            self.extent = Extent::Whole;
        }
        let excludes = &scope.rules.excludes;
        if !excludes.is_empty() {
            spans.retain(|span| !excludes.excludes(&self.patterns, name(span)));
        }
        scope.issues.exclude((all - spans.len()) as u64);
        self.only_way |= tag.is_some();
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
            let way = self.way.as_ref().filter(|way| !way.children.is_empty());
            let way = way.and_then(|way| way.children.get(&Name::new(name).ok()?).cloned());
            let follows = way.as_ref().is_some_and(|way| way.follows(self.device));
            let stat = fd.as_ref().map_err(|errno| *errno).and_then(|fd| match follows {
                true => Stat::of_child_followed(fd.as_fd(), name),
                false => Stat::of_child(fd.as_fd(), name),
            });
            match (Name::new(name), stat) {
                (Ok(name), Ok(stat)) => self.push(scope, folder, name, stat, way),
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

    fn push(&mut self, scope: &Scope<'_>, folder: &Arc<Folder>, name: Name, stat: Stat, way: Option<Arc<Way>>) {
        let is_asked = way.as_ref().is_some_and(|way| way.asked);
        let is_directory = stat.file_type() == FileType::Directory;
        if way.as_ref().is_some_and(|way| !way.children.is_empty()) && !is_directory {
            scope.issues.lost(folder, name.as_bytes(), Errno::ENOTDIR);
        }
        if !scope.admits(folder, &name, &stat, is_asked) {
            return;
        }
        if is_directory {
            let excludes = &scope.rules.excludes;
            let is_left_out = self.only_way || excludes.excludes(&self.patterns, name.as_bytes());
            let descend = if is_asked { Excludes::descend_wanted } else { Excludes::descend };
            let patterns = descend(excludes, &self.patterns, name.as_bytes());
            let only_way = way.is_some() && !is_asked && is_left_out;
            let request =
                Request { parent: folder.clone(), name: name.clone(), patterns, way, device: self.device, only_way };
            self.found.push(request);
        }
        self.children.push_back(Child { name, stat: Ok(stat) });
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
pub(super) fn is_made_by_the_kernel(fd: BorrowedFd<'_>) -> bool {
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
    let found = statfs::fstatfs(fd).map(|fs| fs.filesystem_type());
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
