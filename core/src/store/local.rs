//! A store that is a directory: an object is a file whose path below the directory is the object's name.
//!
//! What can go wrong, and the defence against it:
//! - **The process is killed or the power fails.** An object appears by one link of a synced file (see `temporary`),
//!   then its directory is synced, and so are the directories above it that may be new.
//! - **The disk is unmounted** and its mount point is an empty directory. [`LocalStore::open`] requires a
//!   [`CONFIG_NAME`]; from then on the store holds a descriptor of the directory, works only below it, and checks
//!   before and after each call that the path still leads to it. The descriptor also keeps the disk from being
//!   unmounted.
//! - **Somebody plants links** in the directory. No symbolic link below the store's root is followed; the root itself
//!   may be reached through one. Anything with a valid name that is neither file nor directory is an error: skipping it
//!   in a list would hide the objects behind it.
//! - **The disk is full.** The cause comes through as [`std::io::ErrorKind::StorageFull`], and nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::mkdirat;
use nix::unistd::UnlinkatFlags;
use nix::unistd::fsync;
use nix::unistd::unlinkat;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;
use crate::objects::CONFIG_NAME;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::store::Stored;
use crate::store::beneath::kind;
use crate::store::beneath::not_an_object;
use crate::store::beneath::open_directory;
use crate::store::beneath::open_object;
use crate::store::beneath::segments;
use crate::store::beneath::stat;
use crate::store::beneath::uninterrupted;
use crate::store::link::Link;
use crate::store::may_lie_there;
use crate::store::not_a_copy;
use crate::store::temporary::Published;
use crate::store::temporary::Temporary;

/// Existing objects are compared in pieces of this size.
const COMPARE_BYTES: u64 = 1 << 20;

/// New ext filesystems have this directory at their root, and the root of a disk is a good place for a store.
const LOST_AND_FOUND: &str = "lost+found";

/// A directory of this machine.
pub struct LocalStore {
    path: PathBuf,
    root: OwnedFd,
    /// Device and inode of the root.
    identity: (u64, u64),
    /// Directories whose own names are known to be durable, so that this is ensured once and not at each PUT.
    durable: Mutex<BTreeSet<String>>,
    /// False once this filesystem has turned out to lack unnamed files.
    unnamed_files: AtomicBool,
    link: Arc<Link>,
}

impl LocalStore {
    /// Makes the directory and its parents, and opens it as an empty store. An existing directory must be empty,
    /// otherwise it is [`Error::Exists`].
    pub fn create(path: &Path) -> Result<LocalStore> {
        let failed = |cause| Error::store("create", path.display(), cause);
        let path = &std::path::absolute(path).map_err(failed)?;
        make_root(path).map_err(failed)?;
        let store = LocalStore::at(path).map_err(failed)?;
        for entry in fs::read_dir(path).map_err(failed)? {
            if entry.map_err(failed)?.file_name() != LOST_AND_FOUND {
                let hint = "it is not empty: choose another directory, or remove what is in it";
                return Err(Error::Exists { what: format!("the directory {}", path.display()), hint });
            }
        }
        Ok(store)
    }

    /// Opens the directory of a copy that is to be made or completed; makes it if it does not exist.
    pub fn begin(path: &Path) -> Result<LocalStore> {
        let failed = |cause| Error::store("create", path.display(), cause);
        make_root(&std::path::absolute(path).map_err(failed)?).map_err(failed)?;
        LocalStore::open_incomplete(path)
    }

    /// Opens the directory of a store that may lack its [`CONFIG_NAME`], such as an interrupted copy. Without one it
    /// may hold only what belongs to a repository, otherwise it is [`Error::Exists`]. A missing directory is
    /// [`Error::NoRepository`].
    pub fn open_incomplete(path: &Path) -> Result<LocalStore> {
        let failed = |cause| Error::store("open", path.display(), cause);
        let path = &std::path::absolute(path).map_err(failed)?;
        let store = match LocalStore::at(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoRepository { store: path.display().to_string() });
            }
            opened => opened.map_err(failed)?,
        };
        if stat(store.root.as_fd(), CONFIG_NAME).map_err(failed)?.is_some() {
            return Ok(store);
        }
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !name.to_str().is_some_and(may_lie_there) {
                return Err(not_a_copy(&name.display().to_string(), &path.display().to_string()));
            }
        }
        Ok(store)
    }

    /// Opens the directory of a store that holds a [`CONFIG_NAME`]; [`Error::NoRepository`] if there is none.
    pub fn open(path: &Path) -> Result<LocalStore> {
        let failed = |cause| Error::store("open", path.display(), cause);
        let no_repository = || Error::NoRepository { store: path.display().to_string() };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let store = match LocalStore::at(&absolute) {
            Ok(store) => store,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(no_repository()),
            Err(cause) => return Err(failed(cause)),
        };
        match stat(store.root.as_fd(), CONFIG_NAME).map_err(failed)? {
            Some(_) => Ok(store),
            None => Err(no_repository()),
        }
    }

    fn at(path: &Path) -> io::Result<LocalStore> {
        let root = File::open(path)?;
        let found = root.metadata()?;
        if !found.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(LocalStore {
            path: path.to_owned(),
            root: root.into(),
            identity: (found.dev(), found.ino()),
            durable: Mutex::default(),
            unnamed_files: AtomicBool::new(true),
            link: Arc::default(),
        })
    }

    /// The same store with this link: a directory may be on another machine too.
    pub fn with_link(self, link: Arc<Link>) -> LocalStore {
        LocalStore { link, ..self }
    }

    /// Runs `work` while the path leads to the opened directory. The check afterwards distinguishes an absent object
    /// from one that vanished together with the store.
    fn guarded<T>(&self, doing: &'static str, object: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let in_place = || self.in_place().map_err(|cause| Error::store(doing, object, cause));
        in_place()?;
        let done = work();
        in_place()?;
        done
    }

    /// The cause never has the kind `NotFound`: a store that has vanished must not pass for an absent object.
    fn in_place(&self) -> io::Result<()> {
        let path = self.path.display();
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => Ok(()),
            Ok(_) => Err(io::Error::other(format!("{path} is no longer the same directory: is its disk mounted?"))),
            Err(cause) => Err(io::Error::other(format!("{path} has gone: {cause}: is its disk mounted?"))),
        }
    }

    /// The directory `name` ("" for the root), or `None` if there is none.
    fn directory(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        let mut at = self.root.try_clone()?;
        for segment in segments(name) {
            match open_directory(at.as_fd(), segment)? {
                Some(below) => at = below,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The directory `name`, made with its missing parents; all their names are durable.
    fn directory_made(&self, name: &str) -> io::Result<OwnedFd> {
        let mut at = self.root.try_clone()?;
        let mut path = String::new();
        for segment in segments(name) {
            path = if path.is_empty() { segment.to_owned() } else { format!("{path}/{segment}") };
            let below = match open_directory(at.as_fd(), segment)? {
                Some(below) if self.is_known_durable(&path) => below,
                // It exists, but another process may have made it just now and not synced it yet.
                Some(below) => {
                    self.make_durable(&at, &path)?;
                    below
                }
                None => {
                    match uninterrupted(|| mkdirat(&at, segment, Mode::S_IRWXU)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    let made = open_directory(at.as_fd(), segment)?.ok_or(io::ErrorKind::NotADirectory)?;
                    self.make_durable(&at, &path)?;
                    made
                }
            };
            at = below;
        }
        Ok(at)
    }

    fn is_known_durable(&self, path: &str) -> bool {
        lock(&self.durable).contains(path)
    }

    fn make_durable(&self, parent: &OwnedFd, path: &str) -> io::Result<()> {
        uninterrupted(|| fsync(parent))?;
        lock(&self.durable).insert(path.to_owned());
        Ok(())
    }

    fn read_paced(&self, object: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let granted = self.link.download.grant(buffer.len() as u64);
            let (piece, rest) = buffer.split_at_mut(usize::try_from(granted).unwrap_or(0));
            object.read_exact_at(piece, offset)?;
            offset += granted;
            buffer = rest;
        }
        Ok(())
    }

    fn open_object(&self, name: &ObjectName) -> io::Result<Option<File>> {
        let (directory, leaf) = name.split();
        match self.directory(directory)? {
            Some(directory) => open_object(directory.as_fd(), leaf),
            None => Ok(None),
        }
    }

    /// Writes the object, unless its name is taken.
    fn write_new(&self, directory: BorrowedFd<'_>, leaf: &str, source: Source<'_>) -> io::Result<Published> {
        if self.unnamed_files.load(Ordering::Relaxed) {
            if let Some(mut temporary) = Temporary::unnamed(directory)? {
                temporary.fill(source, &self.link.upload)?;
                match temporary.publish(leaf)? {
                    Published::Unsupported => {}
                    published => return Ok(published),
                }
            }
            self.unnamed_files.store(false, Ordering::Relaxed);
        }
        let mut temporary = Temporary::named(directory)?;
        temporary.fill(source, &self.link.upload)?;
        temporary.publish(leaf)
    }

    fn put_in_place(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        let failed = |cause| Error::store("write", name, cause);
        let (directory, leaf) = name.split();
        let directory = self.directory_made(directory).map_err(failed)?;
        loop {
            if let Some(there) = open_object(directory.as_fd(), leaf).map_err(failed)? {
                if !is_same(&there, source).map_err(failed)? {
                    return Err(super::already_there(name));
                }
                // Its writer may have been killed before it was durable.
                there.sync_all().map_err(failed)?;
                break;
            }
            match self.write_new(directory.as_fd(), leaf, source).map_err(failed)? {
                Published::New => break,
                // The name belongs to a directory, or to another writer's object, which is examined or already deleted
                // again.
                Published::NameTaken => match stat(directory.as_fd(), leaf).map_err(failed)?.as_ref().map(kind) {
                    Some(SFlag::S_IFDIR) => return Err(super::already_there(name)),
                    _ => continue,
                },
                Published::Unsupported => {
                    let cause = "the filesystem supports neither hard links nor a rename that never replaces";
                    return Err(failed(io::Error::new(io::ErrorKind::Unsupported, cause)));
                }
            }
        }
        uninterrupted(|| fsync(&directory)).map_err(|error| failed(error.into()))?;
        Ok(Stored::default())
    }

    fn list_in_place(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut pending = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(path) = pending.pop() {
            let shown = if path.is_empty() { self.address() } else { path.clone() };
            let failed = |cause| Error::store("list", &shown, cause);
            let Some(directory) = self.directory(&path).map_err(failed)? else { continue };
            let mut directory = Dir::from_fd(directory).map_err(|error| failed(error.into()))?;
            let mut names = Vec::new();
            for entry in directory.iter() {
                let entry = entry.map_err(|error| failed(error.into()))?;
                names.extend(entry.file_name().to_str().map(str::to_owned));
            }
            for leaf in names {
                let text = if path.is_empty() { leaf.clone() } else { format!("{path}/{leaf}") };
                let Some(name) = ObjectName::new(&text) else { continue };
                // An entry that vanished since the directory was read was deleted meanwhile.
                let Some(found) = stat(directory.as_fd(), &leaf).map_err(failed)? else { continue };
                match kind(&found) {
                    SFlag::S_IFDIR => pending.push(text),
                    SFlag::S_IFREG => {
                        let bytes = u64::try_from(found.st_size).unwrap_or(0);
                        listed.push(Listed { name, bytes, etag: None });
                    }
                    _ => return Err(Error::store("list", text, not_an_object())),
                }
            }
        }
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }
}

impl Store for LocalStore {
    fn address(&self) -> String {
        self.path.display().to_string()
    }

    fn connections(&self) -> usize {
        self.link.transfers(4)
    }

    fn is_far(&self) -> bool {
        false
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        range.check()?;
        let failed = |cause| Error::store("read", name, cause);
        self.guarded("read", name.as_str(), || {
            let object = self.open_object(name).map_err(failed)?;
            let object = object.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            let wanted = range.within(name, object.metadata().map_err(failed)?.len())?;
            let length = usize::try_from(wanted.end - wanted.start);
            let mut bytes = vec![0; length.map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?];
            self.read_paced(&object, &mut bytes, wanted.start).map_err(failed)?;
            Ok(bytes)
        })
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        self.guarded("write", name.as_str(), || self.put_in_place(name, source))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        super::check_prefix(prefix)?;
        self.guarded("list", &self.address(), || self.list_in_place(prefix))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let failed = |cause| Error::store("delete", name, cause);
        let (directory, leaf) = name.split();
        self.guarded("delete", name.as_str(), || {
            let Some(directory) = self.directory(directory).map_err(failed)? else { return Ok(()) };
            match uninterrupted(|| unlinkat(&directory, leaf, UnlinkatFlags::NoRemoveDir)) {
                Ok(()) | Err(Errno::ENOENT | Errno::EISDIR) => {}
                Err(error) => return Err(failed(error.into())),
            }
            // Even if nothing was there: the process that removed it may have been killed before that was durable.
            uninterrupted(|| fsync(&directory)).map_err(|error| failed(error.into()))
        })
    }
}

fn is_same(there: &File, source: Source<'_>) -> io::Result<bool> {
    if there.metadata()?.len() != source.bytes() {
        return Ok(false);
    }
    let mut at = 0;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    while at < source.bytes() {
        let length = COMPARE_BYTES.min(source.bytes() - at);
        old.resize(usize::try_from(length).unwrap_or(0), 0);
        new.resize(old.len(), 0);
        there.read_exact_at(&mut old, at)?;
        source.read_exact_at(&mut new, at)?;
        if old != new {
            return Ok(false);
        }
        at += length;
    }
    Ok(true)
}

/// Makes the directory and its missing parents, each durable.
fn make_root(path: &Path) -> io::Result<()> {
    let lacking: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in lacking {
        if let Some(parent) = made.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
