//! A store that is reached through the rclone program: any place that rclone supports.
//!
//! One rclone runs as long as the store is open (see `process`) and answers requests (see `client`). It promises less
//! than [`Store`] does, and this module makes up the difference:
//! - **Half objects.** Where files can be renamed (directories, SFTP, WebDAV, most drives), an upload is visible while
//!   it grows. So it gets a name that no list shows, `.NAME.RANDOM`, and its real name when it is whole. Where files
//!   cannot be renamed (buckets), an upload appears when it is whole.
//! - **Overwriting.** rclone replaces existing files. So the target is examined first, a rename is told to replace
//!   nothing, and the writers of one name in this process take turns. If two machines write different bytes under one
//!   name into a bucket at the same moment, the last one wins; bygone never does that.
//! - **Absence** looks the same as a vanished place. So where a [`CONFIG_NAME`] was seen, an object counts as absent,
//!   and a list as empty, only if it is still there.
//!
//! One difference remains: whether stored data survives a loss of power depends on the storage, and rclone's own
//! `local` does not sync. Prefer the local or the S3 store where possible.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use client::Client;
use client::Refused;
use process::Process;

use crate::error::Error;
use crate::error::Result;
use crate::error::counted;
use crate::lock::lock;
use crate::lock::wait;
use crate::objects::CONFIG_NAME;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::store::Stored;
use crate::store::link::Link;
use crate::store::may_lie_there;
use crate::store::not_a_copy;

mod client;
mod process;
mod read;

const PROGRAM: &str = "rclone";

/// A place known to rclone.
pub struct RcloneStore {
    /// `remote:path`, in rclone's notation.
    remote: String,
    running: Mutex<Option<Arc<Running>>>,
    /// True once a [`CONFIG_NAME`] was seen, so that its absence means that the place is gone.
    anchored: AtomicBool,
    can_rename: bool,
    /// The names that are being written.
    writing: Mutex<BTreeSet<ObjectName>>,
    written: Condvar,
    link: Arc<Link>,
}

/// A running rclone and its client.
struct Running {
    process: Process,
    client: Client,
}

impl RcloneStore {
    /// Opens a place that holds a [`CONFIG_NAME`]; [`Error::NoRepository`] if there is none.
    pub fn open(remote: &str) -> Result<RcloneStore> {
        let store = RcloneStore::start(remote, "open")?;
        match store.client().and_then(|client| client.client.size(CONFIG_NAME)) {
            Ok(Some(_)) => store.anchored.store(true, Ordering::SeqCst),
            Ok(None) => return Err(Error::NoRepository { store: store.address() }),
            Err(refused) => return Err(Error::store("open", store.address(), refused.failure())),
        }
        Ok(store)
    }

    /// Makes the place, or takes an empty one; one that is not empty is [`Error::Exists`].
    pub fn create(remote: &str) -> Result<RcloneStore> {
        let store = RcloneStore::start(remote, "create")?;
        let failed = |refused: Refused| Error::store("create", store.address(), refused.failure());
        let running = store.client().map_err(failed)?;
        running.client.make_place().map_err(failed)?;
        match running.client.list("") {
            Ok(there) if there.is_empty() => {}
            // Some buckets exist only once they contain something.
            Err(Refused::Absent) => {}
            Ok(_) => {
                let hint = "it is not empty: choose another place, or remove what is in it";
                return Err(Error::Exists { what: store.address(), hint });
            }
            Err(refused) => return Err(failed(refused)),
        }
        Ok(store)
    }

    /// Opens the place of a copy that is to be made or completed; makes it if it does not exist.
    pub fn begin(remote: &str) -> Result<RcloneStore> {
        let store = RcloneStore::start(remote, "create")?;
        let failed = |refused: Refused| Error::store("create", store.address(), refused.failure());
        store.client().and_then(|running| running.client.make_place()).map_err(failed)?;
        match RcloneStore::open_incomplete(remote) {
            // Some buckets exist only once they contain something.
            Err(Error::NoRepository { .. }) => Ok(store),
            opened => opened,
        }
    }

    /// Opens a place that may lack its [`CONFIG_NAME`], such as an interrupted copy. Without one it may hold only what
    /// belongs to a repository, otherwise it is [`Error::Exists`]. A missing place is [`Error::NoRepository`].
    pub fn open_incomplete(remote: &str) -> Result<RcloneStore> {
        let store = RcloneStore::start(remote, "open")?;
        let failed = |refused: Refused| Error::store("open", store.address(), refused.failure());
        let running = store.client().map_err(failed)?;
        if running.client.size(CONFIG_NAME).map_err(failed)?.is_some() {
            store.anchored.store(true, Ordering::SeqCst);
            return Ok(store);
        }
        let items = match running.client.list("") {
            Err(Refused::Absent) => return Err(Error::NoRepository { store: store.address() }),
            items => items.map_err(failed)?,
        };
        if items.is_empty() {
            return Err(Error::NoRepository { store: store.address() });
        }
        match items.iter().find(|item| !may_lie_there(&item.path)) {
            Some(item) => Err(not_a_copy(&item.path, &store.address())),
            None => Ok(store),
        }
    }

    /// The same store with this link.
    pub fn with_link(self, link: Arc<Link>) -> RcloneStore {
        RcloneStore { link, ..self }
    }

    fn start(remote: &str, doing: &'static str) -> Result<RcloneStore> {
        let mut store = RcloneStore {
            remote: remote.to_owned(),
            running: Mutex::default(),
            anchored: AtomicBool::new(false),
            can_rename: false,
            writing: Mutex::default(),
            written: Condvar::new(),
            link: Arc::default(),
        };
        let known = store.client().and_then(|running| running.client.can_rename());
        store.can_rename = known.map_err(|refused| Error::store(doing, store.address(), refused.failure()))?;
        Ok(store)
    }

    /// A running rclone: a new one if the last one has ended.
    fn client(&self) -> std::result::Result<Arc<Running>, Refused> {
        let mut running = lock(&self.running);
        if let Some(running) = running.as_ref().filter(|running| !running.process.has_ended()) {
            return Ok(Arc::clone(running));
        }
        let process = Process::start(PROGRAM, &self.remote)?;
        let client = Client::new(process.url.clone());
        Ok(Arc::clone(running.insert(Arc::new(Running { process, client }))))
    }

    /// Asks rclone. If it ended meanwhile, the error includes its last words.
    fn ask<T>(&self, work: impl FnOnce(&Client) -> std::result::Result<T, Refused>) -> std::result::Result<T, Refused> {
        let running = self.client()?;
        work(&running.client).map_err(|refused| match refused {
            Refused::Failed(cause) if running.process.has_ended() => {
                drop(cause);
                let text = format!("rclone has ended; {}", running.process.last_lines());
                Refused::Failed(io::Error::new(io::ErrorKind::ConnectionAborted, text))
            }
            other => other,
        })
    }

    /// The size of an object; `None` if it is absent while the store is there.
    fn size(&self, name: &ObjectName) -> io::Result<Option<u64>> {
        let found = match self.ask(|client| client.size(name.as_str())) {
            Err(Refused::Failed(cause)) if self.is_below_an_object(name) => {
                drop(cause);
                Ok(None)
            }
            other => other,
        };
        match found.map_err(Refused::failure)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.in_place().map(|()| None),
        }
    }

    /// True if a beginning of `name` is an object: then `name` is absent, which rclone reports as a failure.
    fn is_below_an_object(&self, name: &ObjectName) -> bool {
        let text = name.as_str();
        let beginnings = text.match_indices('/').filter_map(|(at, _)| text.get(..at));
        beginnings.into_iter().any(|beginning| matches!(self.ask(|client| client.size(beginning)), Ok(Some(_))))
    }

    /// Fails if the place is no longer the same store.
    fn in_place(&self) -> io::Result<()> {
        if !self.anchored.load(Ordering::SeqCst) {
            return Ok(());
        }
        match self.ask(|client| client.size(CONFIG_NAME)) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.gone()),
            Err(refused) => Err(refused.failure()),
        }
    }

    fn gone(&self) -> io::Error {
        let address = self.address();
        io::Error::other(format!(
            "{address} no longer has a {CONFIG_NAME}: is the storage behind it mounted and intact?"
        ))
    }

    fn put_in_turn(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        let failed = |cause| Error::store("write", name, cause);
        self.in_place().map_err(failed)?;
        // A second time if another process stored this name meanwhile, and a third time if it then deleted it.
        for _ in 0..3 {
            if self.size(name).map_err(failed)?.is_some() {
                let same = self.is_same(name, source).map_err(failed)?;
                return if same { Ok(Stored::default()) } else { Err(super::already_there(name)) };
            }
            if self.upload(name, source).map_err(failed)? {
                let found = self.size(name).map_err(failed)?;
                if found == Some(source.bytes()) {
                    return Ok(Stored::default());
                }
                let odd = format!(
                    "its length is {found:?} after {} was stored: try again",
                    counted(source.bytes(), "byte", "bytes")
                );
                return Err(failed(io::Error::other(odd)));
            }
        }
        Err(failed(io::Error::other("other processes keep writing this name")))
    }

    /// Sends an object; false if its name was taken meanwhile.
    fn upload(&self, name: &ObjectName, source: Source<'_>) -> io::Result<bool> {
        let pace = &self.link.upload;
        let (directory, leaf) = name.split();
        if !self.can_rename {
            self.ask(|client| client.upload(directory, leaf, source, pace)).map_err(Refused::failure)?;
            return Ok(true);
        }
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let hidden = format!(".{leaf}.{random:016x}");
        let path = if directory.is_empty() { hidden.clone() } else { format!("{directory}/{hidden}") };
        let sent = self.ask(|client| client.upload(directory, &hidden, source, pace));
        let named = sent.and_then(|()| self.ask(|client| client.rename(&path, name.as_str())));
        // A file that still has the hidden name is waste; after a rename it means that the name was taken.
        let left = self.ask(|client| client.delete(&path));
        named.map_err(Refused::failure)?;
        match left {
            Err(Refused::Absent) => Ok(true),
            Ok(()) => Ok(false),
            Err(refused) => Err(refused.failure()),
        }
    }

    fn list_below(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let directory = prefix.trim_end_matches('/');
        let found = match self.ask(|client| client.list(directory)) {
            Ok(found) => found,
            Err(Refused::Absent) => Vec::new(),
            // Where the directory is a file, rclone fails; nothing exists below an object.
            Err(refused) => match self.ask(|client| client.size(directory)) {
                Ok(Some(_)) if !directory.is_empty() => Vec::new(),
                _ => return Err(refused.failure()),
            },
        };
        let mut listed = Vec::with_capacity(found.len());
        for item in found {
            let Some(name) = ObjectName::new(&item.path).filter(|name| name.as_str().starts_with(prefix)) else {
                continue;
            };
            let bytes = client::size_of(&item).map_err(Refused::failure)?;
            listed.push(Listed { name, bytes, etag: None });
        }
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some([twice, _]) = listed.array_windows().find(|[a, b]| a.name == b.name) {
            let name = &twice.name;
            let text = format!("the storage has two files called {name}: inspect them with `rclone dedupe`");
            return Err(io::Error::other(text));
        }
        let has_config = || listed.iter().any(|listed| listed.name.as_str() == CONFIG_NAME);
        if listed.is_empty() || (prefix.is_empty() && !has_config()) {
            self.in_place()?;
        }
        Ok(listed)
    }

    /// Waits until no other thread of this process writes `name`.
    fn turn<'s>(&'s self, name: &'s ObjectName) -> Turn<'s> {
        let mut writing = lock(&self.writing);
        while writing.contains(name) {
            writing = wait(&self.written, writing);
        }
        writing.insert(name.clone());
        Turn { store: self, name }
    }
}

/// The right to write one name.
struct Turn<'s> {
    store: &'s RcloneStore,
    name: &'s ObjectName,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.store.writing).remove(self.name);
        self.store.written.notify_all();
    }
}

impl Store for RcloneStore {
    fn address(&self) -> String {
        format!("rclone:{}", self.remote)
    }

    fn connections(&self) -> usize {
        self.link.transfers(4)
    }

    fn is_far(&self) -> bool {
        true
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        range.check()?;
        match range {
            ByteRange::Whole { bytes_max } => self.get_whole(name, bytes_max),
            ByteRange::Part { offset, bytes } => self.get_part(name, offset, bytes),
        }
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        let _turn = self.turn(name);
        let stored = self.put_in_turn(name, source)?;
        if name.as_str() == CONFIG_NAME {
            self.anchored.store(true, Ordering::SeqCst);
        }
        Ok(stored)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        super::check_prefix(prefix)?;
        self.list_below(prefix).map_err(|cause| Error::store("list", self.address(), cause))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let failed = |cause| Error::store("delete", name, cause);
        let _turn = self.turn(name);
        match self.ask(|client| client.delete(name.as_str())) {
            Ok(()) => {}
            Err(Refused::Absent) => self.in_place().map_err(failed)?,
            Err(Refused::Failed(cause)) => match self.size(name).map_err(failed)? {
                None => {}
                Some(_) => return Err(failed(cause)),
            },
        }
        if name.as_str() == CONFIG_NAME {
            self.anchored.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
