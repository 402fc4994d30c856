//! Walks the part of a snapshot that is restored, entry by entry.
//!
//! The order is that of the backup: names in byte order, descending into each directory at its place. The blocks of new
//! files were stored in this order, so neighbours in the walk are neighbours in the volumes. There is no recursion, and
//! of directories far above the current one only positions are kept, so depth costs little memory.

use std::collections::VecDeque;
use std::sync::Arc;

use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::id::NodeId;
use bygone_core::read::Directory;
use bygone_core::read::View;
use bygone_core::watch::Watch;

use crate::restore::report::Failure;
use crate::restore::selection::Select;
use crate::restore::selection::Selection;
use crate::restore::selection::Standing;

/// Entries read at a time.
const ITEMS_MAX: usize = 128;
/// Directories further up than this forget the entries read ahead, and read them again.
const AHEAD_LEVELS_MAX: usize = 64;

/// A step of the walk.
pub(super) enum Event {
    /// A directory: its entries follow, then [`Event::Leave`].
    Enter {
        /// The directory.
        entry: Arc<Entry>,
        /// False if the directory itself is not selected, but entries below it may be.
        taken: bool,
    },
    /// An entry that is not a directory.
    Entry(Arc<Entry>),
    /// The directory at [`Walk::path`], or the rest of it, could not be read.
    Unreadable(Error),
    /// The end of the last directory entered.
    Leave,
}

struct Frame {
    node: Option<NodeId>,
    directory: Option<Directory>,
    next: u64,
    items: VecDeque<Arc<Entry>>,
    path_bytes: usize,
    standing: Standing,
}

/// A walk over a directory of a snapshot.
pub(super) struct Walk<'a> {
    view: &'a View,
    selection: &'a Selection,
    watch: &'a Watch,
    frames: Vec<Frame>,
    path: Vec<u8>,
    may_lack_entries: bool,
}

impl<'a> Walk<'a> {
    /// Begins in directory `node`, whose path in the snapshot is `path` (empty for the root). Its listing broke off if
    /// `may_lack_entries`.
    pub(super) fn directory(
        view: &'a View,
        selection: &'a Selection,
        watch: &'a Watch,
        node: NodeId,
        path: &[u8],
        may_lack_entries: bool,
    ) -> Walk<'a> {
        let mut walk = Walk { view, selection, watch, frames: Vec::new(), path: path.to_vec(), may_lack_entries };
        walk.push(Some(node), VecDeque::new(), selection.begin(path));
        walk
    }

    /// A walk over a single entry of directory `path`.
    pub(super) fn single(
        view: &'a View,
        selection: &'a Selection,
        watch: &'a Watch,
        entry: Arc<Entry>,
        path: &[u8],
    ) -> Walk<'a> {
        let path = path.to_vec();
        let mut walk = Walk { view, selection, watch, frames: Vec::new(), path, may_lack_entries: false };
        let standing = selection.begin(&walk.path);
        walk.push(None, VecDeque::from([entry]), standing);
        walk
    }

    /// True if the first directory may have had entries that the snapshot does not know.
    pub(super) fn may_lack_entries(&self) -> bool {
        self.may_lack_entries
    }

    /// The path in the snapshot that the last event concerned.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The view that the walk reads.
    pub(super) fn view(&self) -> &'a View {
        self.view
    }

    /// True if everything in the directory entered last is selected, except what is excluded.
    pub(super) fn takes_all(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.standing.taken)
    }

    /// The next event; `None` at the end of the first directory.
    pub(super) fn next(&mut self) -> Result<Option<Event>> {
        loop {
            self.watch.check()?;
            let Some(frame) = self.frames.last() else { return Ok(None) };
            self.path.truncate(frame.path_bytes);
            let standing = frame.standing.clone();
            let entry = match self.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(self.up()),
                Err(error) => match Failure::from(error) {
                    Failure::Stop(error) => return Err(error),
                    Failure::Damage(error) => return Ok(Some(self.unreadable(error))),
                    Failure::Target { .. } => continue,
                },
            };
            self.path.push(b'/');
            self.path.extend_from_slice(entry.name.as_bytes());
            let name = entry.name.as_bytes();
            let is_directory = entry.file_type() == Some(FileType::Directory);
            let select = self.selection.judge(&standing, name, is_directory);
            match (select, entry.directory()) {
                (Select::Skip, _) | (Select::Look, None) => {}
                (Select::Take, None) => return Ok(Some(Event::Entry(entry))),
                (_, Some(node)) => {
                    let taken = select == Select::Take;
                    self.push(Some(node), VecDeque::new(), self.selection.descend(&standing, name, taken));
                    return Ok(Some(Event::Enter { entry, taken }));
                }
            }
        }
    }

    /// Skips the rest of the directory entered last; there is no [`Event::Leave`] for it.
    pub(super) fn skip(&mut self) {
        self.frames.pop();
    }

    /// True if the directory entered last has an entry of this name, selected or not.
    pub(super) fn has(&mut self, name: &[u8]) -> Result<bool> {
        self.open()?;
        match self.frames.last() {
            Some(Frame { directory: Some(directory), .. }) => Ok(directory.find(self.view, name)?.is_some()),
            _ => Ok(true),
        }
    }

    /// True if the directory entered last has no entries.
    pub(super) fn is_empty(&mut self) -> Result<bool> {
        self.open()?;
        let directory = self.frames.last().and_then(|frame| frame.directory.as_ref());
        Ok(directory.is_none_or(|directory| directory.len() == 0))
    }

    /// The selection in the directory entered last.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.frames.last().map(|frame| frame.standing.clone())
    }

    fn push(&mut self, node: Option<NodeId>, items: VecDeque<Arc<Entry>>, standing: Standing) {
        let path_bytes = self.path.len();
        self.frames.push(Frame { node, directory: None, next: 0, items, path_bytes, standing });
        if let Some(far) = self.frames.len().checked_sub(AHEAD_LEVELS_MAX + 1).and_then(|at| self.frames.get_mut(at)) {
            far.next -= far.items.len() as u64;
            far.items = VecDeque::new();
            far.directory = None;
        }
    }

    fn up(&mut self) -> Option<Event> {
        self.frames.pop();
        if self.frames.is_empty() { None } else { Some(Event::Leave) }
    }

    /// Keeps what was read. The frame stays, without further entries, so its end follows as usual.
    fn unreadable(&mut self, error: Error) -> Event {
        if let Some(frame) = self.frames.last_mut() {
            frame.node = None;
            frame.directory = None;
        }
        Event::Unreadable(error)
    }

    fn open(&mut self) -> Result<()> {
        if let Some(frame) = self.frames.last_mut()
            && let (Some(node), None) = (frame.node, &frame.directory)
        {
            frame.directory = Some(self.view.directory(node)?);
        }
        Ok(())
    }

    fn next_entry(&mut self) -> Result<Option<Arc<Entry>>> {
        if self.frames.last().is_some_and(|frame| frame.items.is_empty()) {
            self.open()?;
        }
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        if let (true, Some(directory)) = (frame.items.is_empty(), &frame.directory) {
            let items = directory.from(self.view, frame.next, ITEMS_MAX)?;
            frame.items = items.into_iter().map(|item| item.entry).collect();
            frame.next += frame.items.len() as u64;
        }
        Ok(frame.items.pop_front())
    }
}
