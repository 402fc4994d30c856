//! What the mount shows, in its own terms: operations on inode numbers and names, with no word of FUSE.
//!
//! All answers come from the catalog on this machine and never from the store. So `find`, `ls -lR`, `stat` and `du`
//! cost no request, and no operation can wait for a network.

pub mod attr;
pub mod changes;
pub mod derived;
pub mod derived_rows;
pub mod facts;
pub mod folders;
pub mod inode;
pub mod listing;
pub mod moments;
pub mod naming;
pub mod operation_error;
pub mod shape;
pub mod synthetic;
mod xattrs;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bygone_cli::clock::now;
use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::printable;
use bygone_core::limits;
use bygone_core::read::FileMap;
use bygone_core::read::Item;
use bygone_core::read::View;

use crate::caches::recent::Recent;
use crate::tree::attr::Attr;
use crate::tree::attr::type_of;
use crate::tree::derived_rows::DerivedRow;
use crate::tree::folders::Around;
use crate::tree::folders::Folder;
use crate::tree::folders::Folders;
use crate::tree::inode::Inode;
use crate::tree::moments::Moment;
use crate::tree::moments::Moments;
use crate::tree::operation_error::OperationError;

/// How many files are remembered with their metadata.
const FILES_KEPT: usize = 16 << 10;
/// How many files are remembered with the places of their blocks.
const MAPS_KEPT: usize = 64;
/// How many entries are taken from a directory at once: about as many as fit an answer of 32 KiB.
const LIST_ITEMS: usize = 200;

/// One row of a directory's listing.
#[derive(Debug)]
pub struct Row<'a> {
    /// The position from which the listing goes on after this row.
    pub cookie: u64,
    /// The name.
    pub name: &'a [u8],
    /// Inode number.
    pub number: u64,
    /// What it is.
    pub kind: FileType,
}

/// How much a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Names, kinds and numbers.
    Names,
    /// Attributes too.
    Attributes,
}

/// A file as it was found, with the directory that it was last found in.
struct Seen {
    entry: Arc<Entry>,
    /// The snapshot and the path of the directory, if it is inside a snapshot.
    place: Option<(u64, u64)>,
    /// The path of the directory, even if it is a derived one.
    path: Option<u64>,
}

/// The tree of all snapshots.
pub struct Tree {
    moments: Moments,
    owner: (u32, u32),
    folders: Folders,
    files: Recent<u64, Arc<Seen>>,
    /// The key begins with the number of the moment, because a later moment may locate the same blocks elsewhere.
    maps: Recent<(u64, u64), Arc<FileMap>>,
    /// The kernel enforces access lists. It then accepts "no such attribute" for a file without one, but no other
    /// error.
    enforces_lists: AtomicBool,
}

impl Tree {
    /// A tree whose own directories belong to `owner` (user, group).
    pub fn new(moments: Moments, owner: (u32, u32)) -> Tree {
        Tree {
            moments,
            owner,
            folders: Folders::default(),
            files: Recent::new(FILES_KEPT),
            maps: Recent::new(MAPS_KEPT),
            enforces_lists: AtomicBool::new(false),
        }
    }

    /// The connections to the catalog.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// The entry `name` of the directory `parent`; `None` if there is none. NFS asks for `.` and `..` to connect a
    /// handle that it kept.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>, OperationError> {
        if name.len() > limits::NAME_BYTES_MAX {
            return Err(OperationError::NameTooLong);
        }
        let inode = Inode::decode(parent).ok_or(OperationError::Stale)?;
        self.moments.with(|view, moment| match (inode, name) {
            (_, b".") => self.attr_of(view, moment, inode).map(Some),
            (_, b"..") => self.attr_of(view, moment, self.parent(view, moment, inode)?).map(Some),
            (Inode::Directory { snapshot, path }, _) => {
                let folder = self.folders.find(view, &moment.listing, snapshot, path)?;
                let directory = self.folders.directory(view, folder.node()?)?;
                let Some(item) = directory.find(view, name)? else { return Ok(None) };
                self.attr_of_item(view, &folder, &item).map(Some)
            }
            (Inode::File(_), _) => Err(OperationError::NotDirectory),
            _ => {
                if let Some(rows) = moment.derived.rows(view, &moment.listing, inode)? {
                    return rows.find(name).map(|row| self.attr_of_row(view, moment, inode, row)).transpose();
                }
                let child = synthetic::find(&moment.listing, inode, name, now());
                child.map(|child| self.attr_of(view, moment, child)).transpose()
            }
        })
    }

    /// The attributes of an inode.
    pub fn attr(&self, number: u64) -> Result<Attr, OperationError> {
        let inode = Inode::decode(number).ok_or(OperationError::Stale)?;
        self.moments.with(|view, moment| self.attr_of(view, moment, inode))
    }

    /// Passes the rows of the directory `number` after `cookie` to `add`, until that returns true because it is full.
    /// Attributes are passed only with [`Detail::Attributes`].
    pub fn list(
        &self,
        number: u64,
        cookie: u64,
        detail: Detail,
        mut add: impl FnMut(&Row<'_>, Option<&Attr>) -> bool,
    ) -> Result<(), OperationError> {
        let inode = Inode::decode(number).ok_or(OperationError::Stale)?;
        self.moments.with(|view, moment| {
            let parent = || self.parent(view, moment, inode);
            for (ordinal, name) in [".", ".."].into_iter().enumerate().skip(usize::try_from(cookie).unwrap_or(2)) {
                let shown = if ordinal == 0 { inode } else { parent()? };
                let row = Row {
                    cookie: ordinal as u64 + 1,
                    name: name.as_bytes(),
                    number: shown.number()?,
                    kind: FileType::Directory,
                };
                let attr = if detail == Detail::Attributes { Some(self.attr_of(view, moment, shown)?) } else { None };
                if add(&row, attr.as_ref()) {
                    return Ok(());
                }
            }
            // The first two cookies are those of "." and "..".
            let ordinal = cookie.saturating_sub(2);
            match inode {
                Inode::Directory { snapshot, path } => {
                    let folder = self.folders.find(view, &moment.listing, snapshot, path)?;
                    self.list_folder(view, &folder, ordinal, detail, add)
                }
                _ => self.list_synthetic(view, moment, inode, ordinal, detail, add),
            }
        })
    }

    fn list_folder(
        &self,
        view: &View,
        folder: &Folder,
        mut ordinal: u64,
        detail: Detail,
        mut add: impl FnMut(&Row<'_>, Option<&Attr>) -> bool,
    ) -> Result<(), OperationError> {
        let directory = self.folders.directory(view, folder.node()?)?;
        loop {
            let items = directory.from(view, ordinal, LIST_ITEMS)?;
            let Some(last) = items.last() else { return Ok(()) };
            ordinal = last.ordinal + 1;
            for item in &items {
                let attr = match detail {
                    Detail::Attributes => Some(self.attr_of_item(view, folder, item)?),
                    Detail::Names => None,
                };
                let number = match &attr {
                    Some(attr) => attr.number,
                    None => self.number_of_item(view, folder, item)?,
                };
                let name = item.entry.name.as_bytes();
                let row = Row { cookie: item.ordinal + 3, name, number, kind: type_of(&item.entry) };
                if add(&row, attr.as_ref()) {
                    return Ok(());
                }
            }
        }
    }

    fn list_synthetic(
        &self,
        view: &View,
        moment: &Moment,
        inode: Inode,
        ordinal: u64,
        detail: Detail,
        mut add: impl FnMut(&Row<'_>, Option<&Attr>) -> bool,
    ) -> Result<(), OperationError> {
        if let Some(rows) = moment.derived.rows(view, &moment.listing, inode)? {
            for (place, derived) in rows.from(ordinal) {
                let attr = match derived.inode {
                    Inode::File(_) => Some(self.attr_of_row(view, moment, inode, derived)?),
                    _ if detail == Detail::Attributes => Some(self.attr_of_row(view, moment, inode, derived)?),
                    _ => None,
                };
                let row = Row {
                    cookie: place + 3,
                    name: derived.name.as_bytes(),
                    number: derived.inode.number()?,
                    kind: attr.as_ref().map_or(FileType::Directory, |attr| attr.kind),
                };
                if add(&row, attr.as_ref().filter(|_| detail == Detail::Attributes)) {
                    return Ok(());
                }
            }
            return Ok(());
        }
        let children = synthetic::children(&moment.listing, inode).ok_or(OperationError::NotDirectory)?;
        for child in children.into_iter().skip_while(|child| child.ordinal < ordinal) {
            let attr = match detail {
                Detail::Attributes => Some(self.attr_of(view, moment, child.inode)?),
                Detail::Names => None,
            };
            let row = Row {
                cookie: child.ordinal + 3,
                name: child.name.as_bytes(),
                number: child.inode.number()?,
                kind: synthetic::kind(child.inode),
            };
            if add(&row, attr.as_ref()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The target of a symbolic link.
    pub fn target(&self, number: u64) -> Result<Vec<u8>, OperationError> {
        let inode = Inode::decode(number).ok_or(OperationError::Stale)?;
        self.moments.with(|view, moment| match inode {
            Inode::File(version) => match &*self.seen(view, version)?.entry {
                Entry { kind: Kind::Symlink(target), .. } => Ok(target.clone()),
                entry => Err(OperationError::withheld_or(entry, OperationError::NotLink)),
            },
            Inode::Link(_) | Inode::Latest(_) | Inode::Near(_) | Inode::Beside(_) => {
                synthetic::target(&moment.listing, inode).map(String::into_bytes).ok_or(OperationError::Stale)
            }
            _ => Err(OperationError::NotLink),
        })
    }

    /// The places of the bytes of the regular file `number`.
    pub fn map(&self, number: u64) -> Result<Arc<FileMap>, OperationError> {
        let Some(Inode::File(version)) = Inode::decode(number) else { return Err(OperationError::NotFile) };
        let key = (self.moments.number(), version);
        if let Some(map) = self.maps.get(key) {
            return Ok(map);
        }
        self.moments.with(|view, _| match &*self.seen(view, version)?.entry {
            Entry { kind: Kind::File(content), .. } => {
                let map = Arc::new(view.file(content)?);
                self.maps.insert(key, Arc::clone(&map));
                Ok(map)
            }
            entry => Err(OperationError::withheld_or(entry, OperationError::NotFile)),
        })
    }

    /// The place of a file version in the directory that it was last seen in. Of one that nobody has looked up, only the
    /// leaf that it stands in is known.
    pub fn around(&self, version: u64) -> Result<Option<Around>, OperationError> {
        self.moments.with(|view, moment| {
            let seen = self.files.get(version);
            if let Some((seen, (snapshot, path))) = seen.and_then(|seen| seen.place.map(|place| (seen, place))) {
                let node = self.folders.find(view, &moment.listing, snapshot, path)?.node()?;
                let found = self.folders.directory(view, node)?.find(view, seen.entry.name.as_bytes())?;
                if let Some(item) = found.filter(|item| item.version == version) {
                    return self.folders.around(view, node, item.ordinal).map(Some);
                }
            }
            let place = view.version_place(version)?;
            place.map(|(leaf, place)| self.folders.around(view, leaf, place)).transpose()
        })
    }

    /// Stored bytes and number of file versions of the whole repository.
    pub fn totals(&self) -> Result<(u64, u64), OperationError> {
        self.moments.with(|view, _| {
            let totals = view.totals()?;
            Ok((totals.bytes_stored, totals.versions))
        })
    }

    /// A path for messages: the place where the kernel last saw this inode.
    pub fn describe(&self, number: u64) -> String {
        let place = |view: &View, moment: &Moment, snapshot: u64, path: u64| {
            let name =
                moment.listing.numbered(snapshot).map_or_else(|| snapshot.to_string(), |shown| shown.name.clone());
            format!("{}{name}{}", moment.listing.layout.prefix(), printable(&Folders::names(view, path)))
        };
        let described: Result<String, OperationError> = self.moments.with(|view, moment| match Inode::decode(number) {
            Some(Inode::File(version)) => {
                let seen = self.seen(view, version)?;
                let name = printable(seen.entry.name.as_bytes());
                Ok(match seen.place {
                    Some((snapshot, path)) => format!("{}/{name}", place(view, moment, snapshot, path)),
                    None => format!("a file called {name}"),
                })
            }
            Some(Inode::Directory { snapshot, path }) => Ok(place(view, moment, snapshot, path)),
            _ => Err(OperationError::Stale),
        });
        described.unwrap_or_else(|_| format!("inode {number:#x}"))
    }

    fn parent(&self, view: &View, moment: &Moment, inode: Inode) -> Result<Inode, OperationError> {
        match inode {
            Inode::Directory { snapshot, path } => {
                let folder = self.folders.find(view, &moment.listing, snapshot, path)?;
                let parent = Inode::Directory { snapshot, path: folder.parent };
                Ok(if folder.parent == 0 { moment.listing.home() } else { parent })
            }
            _ => match moment.derived.parent(view, inode)? {
                Some(parent) => Ok(parent),
                None => synthetic::parent(inode).ok_or(OperationError::NotDirectory),
            },
        }
    }

    fn attr_of(&self, view: &View, moment: &Moment, inode: Inode) -> Result<Attr, OperationError> {
        match inode {
            Inode::File(version) => {
                let seen = self.seen(view, version)?;
                Ok(Attr::of_entry(inode.number()?, &seen.entry))
            }
            Inode::Directory { snapshot, path } => {
                let folder = self.folders.find(view, &moment.listing, snapshot, path)?;
                Ok(Attr::of_directory(inode.number()?, &folder.meta))
            }
            Inode::Versions(_) | Inode::VersionsOf { .. } | Inode::Deleted(_) | Inode::Changed { .. } => {
                let access = moment.derived.access(view, &moment.listing, inode)?;
                Ok(Attr::of_derived_directory(inode.number()?, access, self.owner, moment.listing.changed))
            }
            _ => synthetic::attr(&moment.listing, inode, self.owner).ok_or(OperationError::Stale),
        }
    }

    fn attr_of_row(
        &self,
        view: &View,
        moment: &Moment,
        parent: Inode,
        row: &DerivedRow,
    ) -> Result<Attr, OperationError> {
        match row.inode {
            Inode::File(version) => {
                let seen = self.seen(view, version)?;
                if let Some((path, name)) = moment.derived.origin(view, &moment.listing, parent, row)?
                    && (seen.path != Some(path) || seen.entry.name != name)
                {
                    let entry = Arc::new(Entry { name, ..Entry::clone(&seen.entry) });
                    self.files.insert(version, Arc::new(Seen { entry, place: None, path: Some(path) }));
                }
                self.attr_of(view, moment, row.inode)
            }
            inode => Ok(Attr::of_derived_directory(inode.number()?, row.access, self.owner, moment.listing.changed)),
        }
    }

    fn attr_of_item(&self, view: &View, parent: &Folder, item: &Item) -> Result<Attr, OperationError> {
        if let Some(folder) = self.folders.child(view, parent, item)? {
            return Ok(Attr::of_directory(folder.inode().number()?, &folder.meta));
        }
        let attr = Attr::of_entry(Inode::File(item.version).number()?, &item.entry);
        let place = Some((parent.snapshot, parent.path));
        self.files
            .insert(item.version, Arc::new(Seen { entry: Arc::clone(&item.entry), place, path: Some(parent.path) }));
        Ok(attr)
    }

    fn number_of_item(&self, view: &View, parent: &Folder, item: &Item) -> Result<u64, OperationError> {
        let inode = match self.folders.child(view, parent, item)? {
            Some(folder) => folder.inode(),
            None => Inode::File(item.version),
        };
        Ok(inode.number()?)
    }

    fn with_meta<T>(
        &self,
        view: &View,
        moment: &Moment,
        number: u64,
        work: impl FnOnce(Option<&Meta>) -> Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        match Inode::decode(number).ok_or(OperationError::Stale)? {
            Inode::File(version) => work(Some(&self.seen(view, version)?.entry.meta)),
            Inode::Directory { snapshot, path } => {
                work(Some(&self.folders.find(view, &moment.listing, snapshot, path)?.meta))
            }
            _ => work(None),
        }
    }

    fn seen(&self, view: &View, version: u64) -> Result<Arc<Seen>, OperationError> {
        if let Some(seen) = self.files.get(version) {
            return Ok(seen);
        }
        let entry = view.version(version)?.ok_or(OperationError::Stale)?;
        let seen = Arc::new(Seen { entry, place: None, path: None });
        self.files.insert(version, Arc::clone(&seen));
        Ok(seen)
    }
}

#[cfg(test)]
mod tests;
