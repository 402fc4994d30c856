//! The writer: takes a tree in order, keeps what is new in it, and builds its nodes.
//!
//! It is called depth first, with the names of each directory in byte order, so blocks lie in their volumes in the
//! order in which a listing would read them. Only this module decides whether a block is new: a block is known if an
//! open volume of this run has it, or if the catalog locates it in a volume that is stored or about to be.

use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;

use crate::attributes::Attributes;
use crate::catalog::Catalog;
use crate::catalog::VolumeState;
use crate::entry::Content;
use crate::entry::Entry;
use crate::entry::Extent;
use crate::entry::FileType;
use crate::entry::Kind;
use crate::entry::Meta;
use crate::entry::Name;
use crate::entry::extents_allocated;
use crate::error::Error;
use crate::error::Result;
use crate::hash::IdKeys;
use crate::id::NodeId;
use crate::limits;
use crate::objects::VolumeKind;
use crate::repo::Repository;
use crate::snapshot::Totals;
use crate::tree::DirectoryBuilder;
use crate::tree::ListNode;
use crate::tree::Node;
use crate::tree::build_list;
use crate::volume::BlockInfo;
use crate::watch::Watch;
use crate::write::claims::Claims;
use crate::write::cutter::Block;
use crate::write::cutter::Cutter;
use crate::write::cutter::Piece;
use crate::write::framer::Framer;
use crate::write::framer::Order;
use crate::write::framer::SealJob;
use crate::write::held::Held;
use crate::write::keeper::Intended;

/// The entrances to the pipeline.
pub(super) struct Stages<'a> {
    pub jobs: Sender<SealJob>,
    pub order: Sender<Order>,
    pub intended: &'a Intended,
}

/// The root directory.
pub(super) struct Root {
    pub node: NodeId,
    pub meta: Meta,
    pub attributes: Attributes,
}

/// A finished tree.
pub(super) struct Tree {
    pub root: Root,
    pub totals: Totals,
}

/// Takes a tree in order. Made by [`super::backup`].
pub struct Writer<'a> {
    ids: IdKeys,
    block_bytes: u32,
    catalog: Catalog,
    /// True if blocks of earlier snapshots may be gone, so that even unchanged files are checked.
    is_damaged: bool,
    claims: Claims<'a>,
    /// What was stored so far, while it is little.
    held: Option<Held>,
    volume_bytes: u64,
    data: Framer,
    meta: Framer,
    directories: Vec<DirectoryBuilder>,
    file: FileSoFar,
    root: Option<Root>,
    totals: Totals,
    watch: &'a Watch,
}

/// The extents of the current file; small content is held back because it may be kept inline.
#[derive(Default)]
struct FileSoFar {
    extents: Vec<Extent>,
    small: Option<Block>,
    bytes: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        repository: &Repository,
        catalog: Catalog,
        stages: Stages<'a>,
        watch: &'a Watch,
    ) -> Result<Writer<'a>> {
        catalog.renew()?;
        let is_damaged = catalog.has_volumes_not_stored()?;
        let Stages { jobs, order, intended } = stages;
        let (keys, config) = (repository.keys(), repository.config());
        let claims = Claims::new(intended);
        Ok(Writer {
            ids: keys.ids().clone(),
            block_bytes: config.block_bytes,
            catalog,
            is_damaged,
            claims,
            held: Some(Held::default()),
            volume_bytes: config.volume_bytes,
            data: Framer::new(VolumeKind::Data, keys, config.volume_bytes, jobs.clone(), order.clone()),
            meta: Framer::new(VolumeKind::Meta, keys, config.volume_bytes, jobs, order),
            directories: Vec::new(),
            file: FileSoFar::default(),
            root: None,
            totals: Totals::default(),
            watch,
        })
    }

    /// Stores again the tree nodes that the store has lost and the catalog still has.
    pub(super) fn store_lost_nodes(&mut self) -> Result<()> {
        if !self.is_damaged {
            return Ok(());
        }
        for id in self.catalog.nodes_lost()? {
            self.watch.check()?;
            if let Some(row) = self.catalog.node(id)? {
                self.store_node(row.body)?;
            }
        }
        Ok(())
    }

    /// Cuts and names blocks, for the threads that read files.
    pub fn cutter(&self) -> Cutter {
        Cutter { ids: self.ids.clone(), block_bytes: self.block_bytes }
    }

    /// Begins a directory inside the one begun before; the first one is the root.
    pub fn directory_begin(&mut self) -> Result<()> {
        self.watch.check()?;
        if self.root.is_some() {
            return Err(Error::defect("a directory was begun after the root was ended"));
        }
        self.directories.push(DirectoryBuilder::new());
        Ok(())
    }

    /// Ends the directory begun last. Its name is `None` for the root only.
    pub fn directory_end(&mut self, name: Option<Name>, meta: Meta) -> Result<()> {
        self.directory_end_saying(name, meta, Attributes::default(), None)
    }

    /// Ends the directory begun last, which also says `attributes`. It had the entry `known` in the parent snapshot: if
    /// nothing of it has changed, whatever a newer bygone says in it is kept.
    pub fn directory_end_saying(
        &mut self,
        name: Option<Name>,
        meta: Meta,
        mut attributes: Attributes,
        known: Option<&Entry>,
    ) -> Result<()> {
        let builder =
            self.directories.pop().ok_or_else(|| Error::defect("a directory was ended that was not begun"))?;
        let root = builder.finish(&mut |bytes| self.store_node(bytes))?;
        self.totals.directories += 1;
        let kind = Kind::Directory(root);
        if let Some(known) = known.filter(|known| known.kind == kind && known.meta == meta) {
            attributes.add(known.unknown_attributes());
        }
        match name {
            Some(name) => self.push(Entry { attributes, ..Entry::new(name, meta, kind) }),
            None if self.directories.is_empty() => {
                self.root = Some(Root { node: root, meta, attributes });
                Ok(())
            }
            None => Err(Error::defect("a directory without a name is not the root")),
        }
    }

    /// Adds an entry of the parent snapshot whose content did not change. False if part of that content is no longer
    /// stored: then the file must be read.
    pub fn unchanged(&mut self, entry: &Entry) -> Result<bool> {
        if self.is_damaged && !self.content_is_stored(entry)? {
            return Ok(false);
        }
        if entry.file_type() == Some(FileType::File) {
            self.totals.files += 1;
            self.totals.bytes += entry.meta.size;
        } else {
            self.totals.others += 1;
        }
        self.push(entry.clone())?;
        Ok(true)
    }

    /// Adds an entry that is neither a directory nor a regular file, or could not be read.
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        // Those that could not be read have a count of their own.
        if !matches!(entry.kind, Kind::Unreadable { .. }) {
            self.totals.others += 1;
        }
        self.push(entry)
    }

    /// Takes the next piece of a file.
    pub fn file_piece(&mut self, piece: Piece) -> Result<()> {
        self.flush_small()?;
        match piece {
            Piece::Hole(0) => {}
            Piece::Hole(length) => {
                self.file.bytes += length;
                match self.file.extents.last_mut() {
                    Some(Extent::Hole { length: before }) => *before += length,
                    _ => self.file.extents.push(Extent::Hole { length }),
                }
            }
            Piece::Block(block) => {
                self.file.bytes += block.bytes.len() as u64;
                let is_first = self.file.extents.is_empty();
                if is_first && block.bytes.len() <= limits::INLINE_BYTES_MAX {
                    self.file.small = Some(block);
                } else {
                    self.store_block(block)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets the pieces of a file that turned out to be unreadable. Blocks stored already are not lost: they may
    /// serve another file or a later backup.
    pub fn file_abandon(&mut self) {
        self.file = FileSoFar::default();
    }

    /// Ends a file whose pieces were given; `meta.size` is the sum of their lengths.
    pub fn file_end(&mut self, name: Name, meta: Meta) -> Result<()> {
        let FileSoFar { extents, small, bytes } = std::mem::take(&mut self.file);
        if bytes != meta.size {
            return Err(Error::defect("the pieces of a file do not add up to its size"));
        }
        let content = match small {
            Some(block) => Content::Inline(block.bytes),
            None if extents.is_empty() => Content::Inline(Vec::new()),
            None if extents.len() <= limits::INLINE_EXTENTS_MAX => Content::Extents(extents),
            None => {
                let root = build_list(&extents, |bytes| self.store_node(bytes))?;
                Content::List { root, allocated: extents_allocated(&extents) }
            }
        };
        self.totals.files += 1;
        self.totals.bytes += bytes;
        self.push(Entry::new(name, meta, Kind::File(content)))
    }

    /// Stores a recovered block, outside of any file.
    pub fn store_lost_block(&mut self, block: Block) -> Result<()> {
        self.store_block(block)?;
        self.file_abandon();
        Ok(())
    }

    /// Stores a recovered tree node, outside of any tree.
    pub fn store_lost_node(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.store_node(bytes).map(|_| ())
    }

    /// Ends the volumes.
    pub(super) fn end(mut self) -> Result<()> {
        self.end_volumes()
    }

    /// Ends the volumes and returns the tree.
    pub(super) fn finish(mut self) -> Result<Tree> {
        let root = self.root.take().ok_or_else(|| Error::defect("the root was not ended"))?;
        self.end_volumes()?;
        Ok(Tree { root, totals: self.totals })
    }

    /// Ends the volumes. A run that has stored little makes only one.
    fn end_volumes(&mut self) -> Result<()> {
        if let Some(Held { blocks, nodes, .. }) = self.held.take() {
            let framer = if nodes.is_empty() { &mut self.data } else { &mut self.meta };
            framer.only_small_volumes();
            for (info, bytes) in &blocks {
                framer.add(*info, bytes)?;
            }
            for (id, bytes) in nodes {
                framer.add_node(id, bytes)?;
            }
        }
        self.data.end()?;
        self.meta.end()
    }

    /// Passes on what was held back, if there is too much of it for one small volume.
    fn release(&mut self) -> Result<()> {
        let volume_bytes = self.volume_bytes;
        let Some(Held { blocks, nodes, .. }) = self.held.take_if(|held| held.is_too_much(volume_bytes)) else {
            return Ok(());
        };
        blocks.into_iter().try_for_each(|(info, bytes)| self.frame_block(info, &bytes))?;
        nodes.into_iter().try_for_each(|(id, bytes)| self.frame_node(id, bytes))
    }

    fn frame_block(&mut self, info: BlockInfo, bytes: &[u8]) -> Result<()> {
        if self.data.add(info, bytes)? {
            self.claims.volume_ended(VolumeKind::Data);
        }
        Ok(())
    }

    fn frame_node(&mut self, id: NodeId, bytes: Vec<u8>) -> Result<()> {
        if self.meta.add_node(id, bytes)? {
            self.claims.volume_ended(VolumeKind::Meta);
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> Result<()> {
        let mut builder = self.directories.pop().ok_or_else(|| Error::defect("an entry stands outside of the root"))?;
        if builder.last().is_some_and(|before| *before >= entry.name) {
            return Err(Error::defect("entries are not in byte order of their names"));
        }
        builder.push(entry, &mut |bytes| self.store_node(bytes))?;
        self.directories.push(builder);
        Ok(())
    }

    fn flush_small(&mut self) -> Result<()> {
        match self.file.small.take() {
            Some(block) => self.store_block(block),
            None => Ok(()),
        }
    }

    fn store_block(&mut self, block: Block) -> Result<()> {
        let length = u32::try_from(block.bytes.len()).unwrap_or(u32::MAX);
        self.file.extents.push(Extent::Block { id: block.id, length });
        if self.is_known(&block.id.0)? {
            return Ok(());
        }
        self.totals.bytes_new += u64::from(length);
        self.watch.bytes_new.fetch_add(u64::from(length), Ordering::Relaxed);
        self.claims.open(VolumeKind::Data).insert(block.id.0);
        let info = BlockInfo { id: block.id, length, checksum: block.checksum };
        match &mut self.held {
            Some(held) => {
                held.block(info, block.bytes);
                self.release()
            }
            None => self.frame_block(info, &block.bytes),
        }
    }

    fn store_node(&mut self, bytes: Vec<u8>) -> Result<NodeId> {
        if bytes.len() > limits::NODE_BYTES_MAX {
            let (found, max) = (bytes.len() as u64, limits::NODE_BYTES_MAX as u64);
            return Err(Error::Limit { what: "the size of a tree node", found, max });
        }
        let id = self.ids.node(&bytes);
        if !self.is_known(&id.0)? {
            // A node that no reader accepts must not be written.
            Node::decode(&bytes).map_err(|e| Error::defect(format!("a tree node would not be readable: {e}")))?;
            self.claims.open(VolumeKind::Meta).insert(id.0);
            match &mut self.held {
                Some(held) => {
                    held.node(id, bytes);
                    self.release()?;
                }
                None => self.frame_node(id, bytes)?,
            }
        }
        Ok(id)
    }

    fn is_known(&mut self, id: &[u8; 32]) -> Result<bool> {
        if self.claims.trim() {
            // The newest rows of the catalog become visible to this connection only now.
            self.catalog.renew()?;
        }
        if self.claims.contains(id) {
            return Ok(true);
        }
        self.is_in_catalog(id)
    }

    fn is_in_catalog(&self, id: &[u8; 32]) -> Result<bool> {
        let state = self.catalog.locate(id)?.map(|(_, state)| state);
        Ok(matches!(state, Some(VolumeState::Stored | VolumeState::Intended)))
    }

    fn content_is_stored(&self, entry: &Entry) -> Result<bool> {
        let mut lists = Vec::new();
        match &entry.kind {
            Kind::File(Content::Extents(extents)) => return self.extents_are_stored(extents),
            Kind::File(Content::List { root, .. }) => lists.push(*root),
            // Where its content is, only a newer bygone knows.
            Kind::Newer { .. } => return Ok(false),
            _ => {}
        }
        while let Some(id) = lists.pop() {
            let row = self.catalog.node(id)?;
            match row.map(|row| ListNode::decode(&row.body)) {
                Some(Ok(ListNode::Extents(extents))) if self.extents_are_stored(&extents)? => {}
                Some(Ok(ListNode::Branch { children, .. })) => lists.extend(children.iter().map(|child| child.id)),
                _ => return Ok(false),
            }
            if !self.is_in_catalog(&id.0)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn extents_are_stored(&self, extents: &[Extent]) -> Result<bool> {
        for extent in extents {
            match extent {
                Extent::Block { id, .. } if !self.is_in_catalog(&id.0)? => return Ok(false),
                _ => {}
            }
        }
        Ok(true)
    }
}
